package pgwire

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/node/pgcatalog"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// parseText splits a text into statements; questions about the catalog are pgcatalog's.
func (c *conn) parseText(text string) ([]sql.Statement, error) {
	if limit := c.srv.cfg.MaxStatementBytes; len(text) > limit {
		return nil, fault.SQL(fault.TooLarge, "54000", "the text has %d bytes, the limit is %d (--max-statement)", len(text), limit)
	}
	c.text = len(text)
	return sql.ParseFunc(text, func(text string) sql.Statement {
		if q := pgcatalog.Parse(text); q != nil {
			return q
		}
		return nil
	})
}

// prepared is a statement with what is known of it before it runs.
type prepared struct {
	st      sql.Statement // nil: the empty statement
	params  []uint32      // types of the parameters
	cols    []column      // nil: it gives no rows
	catalog *pgcatalog.Prepared
	size    int64 // of its text, bytes
}

// prepare checks a statement. given are the types that the client declared; 0 leaves one open.
func (c *conn) prepare(ctx context.Context, st sql.Statement, given []uint32) (*prepared, error) {
	p := &prepared{st: st}
	switch st := st.(type) {
	case nil:
		return p, nil
	case *pgcatalog.Query:
		var err error
		if p.catalog, err = st.Prepare(c.sess.Catalog(), given); err != nil {
			return nil, err
		}
		p.params, p.cols = p.catalog.Params, catalogColumns(p.catalog.Columns)
		return p, nil
	case *sql.Fetch:
		if cur := c.cursors[st.Cursor]; cur != nil && !st.Move {
			p.cols = cur.cols
		}
		return p, nil
	case *sql.ExecutePrepared:
		inner, err := c.named(st.Name)
		if err != nil {
			return nil, err
		}
		p.cols = inner.cols
		return p, nil
	case *sql.DeclareCursor:
		inner, err := c.prepare(ctx, st.Query, given)
		if err != nil {
			return nil, err
		}
		if inner.cols == nil {
			return nil, fault.SQL(fault.Invalid, "42601", "a cursor is for a query that gives rows")
		}
		p.params = inner.params
		return p, nil
	case *sql.PrepareStatement, *sql.Copy, *sql.CloseCursor, *sql.Deallocate, *sql.Discard:
		return p, nil
	}
	types := make([]record.Type, len(given))
	for i, oid := range given {
		types[i] = typeOf(oid)
	}
	d, err := c.sess.Describe(ctx, st, types)
	if err != nil {
		return nil, err
	}
	p.params = make([]uint32, len(d.Params))
	for i, t := range d.Params {
		if p.params[i] = oidOf(t); i < len(given) && given[i] != 0 && given[i] != pgtype.UnknownOID {
			p.params[i] = given[i]
		}
	}
	if d.Output != nil {
		p.cols = columnsOf(d.Output)
		for i, o := range d.Origins {
			if o.Object != 0 {
				p.cols[i].table, p.cols[i].at = uint32(pgcatalog.OID(o.Object)), uint16(o.Column)
			}
		}
	}
	return p, nil
}

func (c *conn) named(name string) (*prepared, error) {
	p := c.statements[name]
	if p == nil {
		return nil, fault.SQL(fault.NotFound, "26000", "prepared statement %q does not exist", name)
	}
	return p, nil
}

// binding is a statement with the values of its parameters and the formats of its result.
type binding struct {
	*prepared
	args    []record.Value
	formats formats
}

// statement returns the statement with its values in place.
func (b *binding) bound() sql.Statement {
	if len(b.args) == 0 {
		return b.st
	}
	return sql.Bind(b.st, b.args)
}

// run runs a statement to its end and returns its tag. tell says whether the client is to be told the columns.
func (c *conn) run(ctx context.Context, b *binding, tell bool) (string, error) {
	if c.sess.Status() == 'E' {
		if _, ends := b.st.(*sql.Transaction); !ends {
			return "", fault.SQL(fault.Conflict, "25P02", "current transaction is aborted, commands ignored until end of transaction block")
		}
	}
	switch st := b.st.(type) {
	case *pgcatalog.Query:
		return c.runCatalog(b, tell)
	case *sql.Copy:
		return c.runCopy(ctx, st)
	case *sql.DeclareCursor:
		return c.declare(ctx, st, b)
	case *sql.Fetch:
		return c.fetch(ctx, st, b.formats, tell)
	case *sql.CloseCursor:
		return c.closeCursor(st)
	case *sql.PrepareStatement:
		return c.prepareNamed(ctx, st)
	case *sql.ExecutePrepared:
		return c.executeNamed(ctx, st, b.formats, tell)
	case *sql.Deallocate:
		return c.deallocate(st)
	case *sql.Discard:
		return c.discard(st)
	}
	_, streams := b.st.(*sql.Subscribe)
	out := &wireOutput{c: c, formats: b.formats, tell: tell, streams: streams}
	stop := c.watch()
	tag, err := c.sess.Execute(ctx, b.bound(), out)
	stop()
	if err != nil {
		return "", cause(ctx, err)
	}
	if t, ok := b.st.(*sql.Transaction); ok && (t.Action == sql.Commit || t.Action == sql.Rollback) {
		c.closePortals()
	}
	return tag, nil
}

func (c *conn) runCatalog(b *binding, tell bool) (string, error) {
	p := b.catalog
	if p == nil {
		var err error
		if p, err = b.st.(*pgcatalog.Query).Prepare(c.sess.Catalog(), nil); err != nil {
			return "", err
		}
	}
	rows, err := p.Run(c.sess.Catalog(), b.args)
	if err != nil {
		return "", err
	}
	cols := catalogColumns(p.Columns)
	if tell {
		c.send(rowDescription(cols, b.formats))
	}
	for _, row := range rows {
		if c.out, err = appendCatalogRow(c.out, cols, row, b.formats); err != nil {
			return "", err
		}
		c.flushFull()
	}
	return fmt.Sprintf("SELECT %d", len(rows)), nil
}

// wireOutput sends rows as they come.
type wireOutput struct {
	c       *conn
	formats formats
	tell    bool
	streams bool // each piece is sent at once
}

// Schema implements Output.
func (o *wireOutput) Schema(s record.Schema) error {
	if o.tell {
		o.c.send(rowDescription(columnsOf(s), o.formats))
	}
	return o.lost()
}

// Rows implements Output.
func (o *wireOutput) Rows(d *record.Delta) error {
	for i := range d.N {
		for range d.Weight(i) {
			var err error
			if o.c.out, err = appendRow(o.c.out, d, i, o.formats); err != nil {
				return err
			}
			o.c.flushFull()
		}
		if err := o.lost(); err != nil {
			return err
		}
	}
	if o.streams {
		o.c.flush()
	}
	return o.lost()
}

// Progress implements Output.
func (o *wireOutput) Progress(ids.Tick) error {
	o.c.flush()
	return o.lost()
}

// Notice implements Output.
func (o *wireOutput) Notice(sqlState, message string) error {
	o.c.notice("WARNING", sqlState, message)
	return o.lost()
}

func (o *wireOutput) lost() error {
	if o.c.outErr != nil {
		return errGone
	}
	return nil
}

// simpleQuery runs the statements of one text. The first error ends it; what was done before stays done.
func (c *conn) simpleQuery(text string) {
	c.closePortal("")
	delete(c.statements, "")
	defer c.ready()
	ctx, done := c.statement()
	defer done()
	statements, err := c.parseText(text)
	if err != nil {
		c.fail(err)
		return
	}
	if len(statements) == 0 {
		c.send(emptyQuery)
		return
	}
	for _, st := range statements {
		tag, err := c.run(ctx, &binding{prepared: &prepared{st: st}}, true)
		if err != nil {
			c.fail(err)
			return
		}
		c.commandComplete(tag)
	}
}
