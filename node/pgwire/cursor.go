package pgwire

import (
	"context"
	"fmt"
	"strings"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// declare runs DECLARE: what the query reads is settled at once.
func (c *conn) declare(ctx context.Context, st *sql.DeclareCursor, b *binding) (string, error) {
	switch {
	case c.sess.Status() == 'I' && !st.Hold:
		return "", fault.SQL(fault.Conflict, "25P01", "DECLARE CURSOR can only be used in transaction blocks; BEGIN one, or write WITH HOLD")
	case c.cursors[st.Name] != nil:
		return "", fault.SQL(fault.Exists, "42P03", "cursor %q already exists", st.Name)
	case len(c.cursors) >= maxNamed:
		return "", fault.SQL(fault.Exhausted, "53400", "more than %d cursors; close some", maxNamed)
	}
	inner, err := c.prepare(ctx, st.Query, nil)
	if err != nil {
		return "", cause(ctx, err)
	}
	if inner.cols == nil {
		return "", fault.SQL(fault.Invalid, "42601", "a cursor is for a query that gives rows")
	}
	p := &portal{binding: binding{prepared: inner, args: b.args}, hold: st.Hold}
	if st.Binary {
		p.formats = formats{binaryFormat}
	}
	if err := c.open(ctx, p); err != nil {
		return "", cause(ctx, err)
	}
	c.cursors[st.Name] = p
	return "DECLARE CURSOR", nil
}

// fetch runs FETCH and MOVE. Of a subscription it gives what there is, and waits for the first row.
func (c *conn) fetch(ctx context.Context, st *sql.Fetch, f formats, tell bool) (string, error) {
	p := c.cursors[st.Cursor]
	if p == nil {
		return "", fault.SQL(fault.NotFound, "34000", "cursor %q does not exist", st.Cursor)
	}
	if st.Move {
		return "", fault.SQL(fault.Unsupported, "0A000", "MOVE is not supported; FETCH the rows")
	}
	if p.pump == nil && len(p.formats) == 0 {
		p.formats = f // the first FETCH decides
	}
	for i := range p.cols {
		if !tell && p.formats.of(i) != f.of(i) {
			return "", fault.SQL(fault.Unsupported, "0A000", "a cursor gives its rows in the format of its first FETCH")
		}
	}
	if tell {
		c.send(rowDescription(p.cols, p.formats))
	}
	if p.done || st.Count == 0 {
		return "FETCH 0", nil
	}
	max := st.Count
	if max == sql.FetchAll {
		max = 0
	}
	_, streams := p.st.(*sql.Subscribe)
	n, ended, err := c.take(ctx, p, max, !streams)
	if err != nil {
		return "", err
	}
	p.done = ended
	return fmt.Sprintf("FETCH %d", n), nil
}

func (c *conn) closeCursor(st *sql.CloseCursor) (string, error) {
	if st.Name == "" {
		for name, p := range c.cursors {
			delete(c.cursors, name)
			p.close()
		}
		return "CLOSE CURSOR ALL", nil
	}
	p := c.cursors[st.Name]
	if p == nil {
		return "", fault.SQL(fault.NotFound, "34000", "cursor %q does not exist", st.Name)
	}
	delete(c.cursors, st.Name)
	p.close()
	return "CLOSE CURSOR", nil
}

// prepareNamed runs PREPARE.
func (c *conn) prepareNamed(ctx context.Context, st *sql.PrepareStatement) (string, error) {
	if c.statements[st.Name] != nil {
		return "", fault.SQL(fault.Exists, "42P05", "prepared statement %q already exists", st.Name)
	}
	given := make([]uint32, len(st.Types))
	for i, name := range st.Types {
		oid, ok := oidOfName(name)
		if !ok {
			return "", fault.SQL(fault.NotFound, "42704", "type %q does not exist", name)
		}
		given[i] = oid
	}
	p, err := c.prepare(ctx, st.Inner, given)
	if err != nil {
		return "", cause(ctx, err)
	}
	return "PREPARE", c.store(st.Name, p)
}

// oidOfName is the type of a name as SQL spells it.
func oidOfName(name string) (uint32, bool) {
	name = strings.TrimPrefix(name, "pg_catalog ")
	for alias, t := range map[string]record.Type{
		"int": record.BigInt, "int2": record.BigInt, "int4": record.BigInt, "int8": record.BigInt, "smallint": record.BigInt, "integer": record.BigInt,
		"bool": record.Boolean, "float8": record.Double, "float4": record.Double, "real": record.Double, "float": record.Double, "decimal": record.Numeric,
		"varchar": record.Text, "character varying": record.Text, "char": record.Text, "timestamp with time zone": record.TimestampTZ, "json": record.JSONB,
	} {
		if name == alias {
			return oidOf(t), true
		}
	}
	t, ok := record.ParseType(name)
	return oidOf(t), ok || name == "unknown"
}

// executeNamed runs EXECUTE.
func (c *conn) executeNamed(ctx context.Context, st *sql.ExecutePrepared, f formats, tell bool) (string, error) {
	p, err := c.named(st.Name)
	if err != nil {
		return "", err
	}
	if len(st.Args) != len(p.params) {
		return "", fault.SQL(fault.Invalid, "42601", "wrong number of parameters for prepared statement %q: expected %d, got %d", st.Name, len(p.params), len(st.Args))
	}
	if _, again := p.st.(*sql.ExecutePrepared); again || p.st == nil {
		return "", fault.SQL(fault.Unsupported, "0A000", "EXECUTE of EXECUTE is not supported")
	}
	b := &binding{prepared: p, formats: f, args: make([]record.Value, len(st.Args))}
	for i, a := range st.Args {
		b.args[i] = record.Value{Type: record.Unknown, Null: a.Null, Bytes: []byte(a.Text)}
	}
	return c.run(ctx, b, tell)
}

func (c *conn) deallocate(st *sql.Deallocate) (string, error) {
	if st.Name == "" {
		clear(c.statements)
		return "DEALLOCATE ALL", nil
	}
	if _, err := c.named(st.Name); err != nil {
		return "", err
	}
	delete(c.statements, st.Name)
	return "DEALLOCATE", nil
}

func (c *conn) discard(st *sql.Discard) (string, error) {
	if st.What == "listen" { // nobody can listen
		return "UNLISTEN", nil
	}
	if st.What != "all" {
		return "DISCARD " + strings.ToUpper(st.What), nil
	}
	if c.sess.Status() != 'I' {
		return "", fault.SQL(fault.Conflict, "25001", "DISCARD ALL cannot run inside a transaction block")
	}
	c.closeAll()
	clear(c.statements)
	return "DISCARD ALL", c.sess.Reset()
}
