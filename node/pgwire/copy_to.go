package pgwire

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/node/pgcatalog"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// copySignature begins COPY's binary format; flags and the length of an extension follow, both 0.
const copySignature = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"

func (c *conn) runCopy(ctx context.Context, st *sql.Copy) (string, error) {
	if st.From {
		return c.copyFrom(ctx, st)
	}
	query := st.Query
	switch query.(type) {
	case nil:
		parsed, err := sql.Parse(selectAll(st))
		if err != nil {
			return "", err
		}
		query = parsed[0]
	case *sql.Select, *sql.Subscribe:
	case *pgcatalog.Query:
		return "", fault.SQL(fault.Unsupported, "0A000", "COPY of the catalog is not supported; SELECT it")
	default:
		return "", fault.SQL(fault.Unsupported, "0A000", "COPY is for SELECT and SUBSCRIBE")
	}
	_, streams := query.(*sql.Subscribe)
	out := &copyOutput{c: c, st: st, streams: streams}
	stop := c.watch()
	_, err := c.sess.Execute(ctx, query, out)
	stop()
	if err != nil {
		return "", cause(ctx, err)
	}
	if st.Format == sql.CopyBinary {
		out.data = append(out.data, 0xff, 0xff)
	}
	out.message()
	c.send(&pgproto3.CopyDone{})
	return fmt.Sprintf("COPY %d", out.rows), nil
}

// selectAll is the query of COPY name (columns) TO STDOUT.
func selectAll(st *sql.Copy) string {
	quote := func(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
	list := "*"
	if len(st.Columns) > 0 {
		names := make([]string, len(st.Columns))
		for i, n := range st.Columns {
			names[i] = quote(n)
		}
		list = strings.Join(names, ", ")
	}
	return "SELECT " + list + " FROM " + quote(st.Relation)
}

// copyOutput sends rows as COPY's data, a message for each row, as PostgreSQL does.
type copyOutput struct {
	c       *conn
	st      *sql.Copy
	streams bool
	data    []byte // of the next message
	text    []byte // of a field
	rows    int64
}

// Schema implements Output.
func (o *copyOutput) Schema(s record.Schema) error {
	format := byte(textFormat)
	if o.st.Format == sql.CopyBinary {
		format = binaryFormat
	}
	codes := make([]uint16, len(s))
	for i := range codes {
		codes[i] = uint16(format)
	}
	o.c.send(&pgproto3.CopyOutResponse{OverallFormat: format, ColumnFormatCodes: codes})
	if o.st.Format == sql.CopyBinary {
		o.data = append(o.data, copySignature...)
	} else if o.st.Header {
		for i, f := range s {
			o.separate(i)
			o.field([]byte(f.Name))
		}
		o.data = append(o.data, '\n')
		o.message()
	}
	if o.streams {
		o.c.flush()
	}
	return o.lost()
}

// Rows implements Output.
func (o *copyOutput) Rows(d *record.Delta) error {
	for i := range d.N {
		for range d.Weight(i) {
			if err := o.row(d, i); err != nil {
				return err
			}
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

func (o *copyOutput) row(d *record.Delta, i int) error {
	o.rows++
	if o.st.Format == sql.CopyBinary {
		o.data = binary.BigEndian.AppendUint16(o.data, uint16(len(d.Cols)))
		for k := range d.Cols {
			var err error
			if o.data, err = appendField(o.data, &d.Cols[k], i, binaryFormat); err != nil {
				return err
			}
		}
		o.message()
		return nil
	}
	for k := range d.Cols {
		o.separate(k)
		if d.Cols[k].Null(i) {
			o.data = append(o.data, o.st.Null...)
			continue
		}
		o.text = record.AppendText(o.text[:0], &d.Cols[k], i)
		o.field(o.text)
	}
	o.data = append(o.data, '\n')
	o.message()
	return nil
}

func (o *copyOutput) separate(i int) {
	if i > 0 {
		o.data = append(o.data, o.st.Delimiter)
	}
}

// field appends a field that isn't NULL.
func (o *copyOutput) field(text []byte) {
	if o.st.Format == sql.CopyCSV {
		o.csvField(text)
		return
	}
	for _, b := range text {
		switch b {
		case '\\':
			o.data = append(o.data, '\\', '\\')
		case '\b':
			o.data = append(o.data, '\\', 'b')
		case '\f':
			o.data = append(o.data, '\\', 'f')
		case '\n':
			o.data = append(o.data, '\\', 'n')
		case '\r':
			o.data = append(o.data, '\\', 'r')
		case '\t':
			o.data = append(o.data, '\\', 't')
		case '\v':
			o.data = append(o.data, '\\', 'v')
		case o.st.Delimiter:
			o.data = append(o.data, '\\', b)
		default:
			o.data = append(o.data, b)
		}
	}
}

func (o *copyOutput) csvField(text []byte) {
	st := o.st
	special := string([]byte{st.Delimiter, st.Quote, '\n', '\r'})
	if string(text) != st.Null && !bytes.ContainsAny(text, special) && string(text) != `\.` {
		o.data = append(o.data, text...)
		return
	}
	o.data = append(o.data, st.Quote)
	for _, b := range text {
		if b == st.Quote || b == st.Escape {
			o.data = append(o.data, st.Escape)
		}
		o.data = append(o.data, b)
	}
	o.data = append(o.data, st.Quote)
}

// message sends the data collected.
func (o *copyOutput) message() {
	if len(o.data) > 0 {
		o.c.send(&pgproto3.CopyData{Data: o.data})
		o.data = o.data[:0]
	}
}

// Progress implements Output.
func (o *copyOutput) Progress(ids.Tick) error {
	o.c.flush()
	return o.lost()
}

// Notice implements Output.
func (o *copyOutput) Notice(sqlState, message string) error {
	o.c.notice("WARNING", sqlState, message)
	return o.lost()
}

func (o *copyOutput) lost() error {
	if o.c.outErr != nil {
		return errGone
	}
	return nil
}
