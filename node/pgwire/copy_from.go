package pgwire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// copyRows and copyBytes bound what COPY FROM collects before it is appended.
const (
	copyRows  = 4096
	copyBytes = 1 << 20
)

// copyFrom runs COPY FROM STDIN. Rows are appended as they come: those before a bad one stay.
func (c *conn) copyFrom(ctx context.Context, st *sql.Copy) (string, error) {
	target, err := c.sess.Into(ctx, st.Relation, st.Columns)
	if err != nil {
		return "", cause(ctx, err)
	}
	cols := target.Columns()
	format := byte(textFormat)
	if st.Format == sql.CopyBinary {
		format = binaryFormat
	}
	codes := make([]uint16, len(cols))
	for i := range codes {
		codes[i] = uint16(format)
	}
	c.send(&pgproto3.CopyInResponse{OverallFormat: format, ColumnFormatCodes: codes})
	if c.flush(); c.outErr != nil {
		return "", errGone
	}
	in := &copyInput{st: st, cols: cols, rows: record.NewDelta(cols, copyRows), max: c.srv.cfg.MaxMessageBytes}
	in.append = func() error { return target.Append(ctx, in.rows) }
	if err := c.copyData(ctx, in); err != nil {
		return "", cause(ctx, err)
	}
	return fmt.Sprintf("COPY %d", in.total), nil
}

// copyData reads COPY's data up to its end.
func (c *conn) copyData(ctx context.Context, in *copyInput) error {
	forget := context.AfterFunc(ctx, c.wake)
	defer func() {
		if !forget() && c.ctx.Err() == nil {
			if err := c.net.SetReadDeadline(time.Time{}); err != nil {
				c.outErr = errors.Join(c.outErr, err)
			}
		}
	}()
	for {
		msg, err := c.receive()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, errWoken) {
			continue
		}
		if err != nil {
			c.end(err) // the connection is lost, or can't be understood any more
			return err
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyData:
			if err := in.write(msg.Data); err != nil {
				return err
			}
		case *pgproto3.CopyDone:
			return in.end()
		case *pgproto3.CopyFail:
			return fault.SQL(fault.Canceled, "57014", "COPY from stdin failed: %s", msg.Message)
		case *pgproto3.Flush, *pgproto3.Sync: // as PostgreSQL does: drivers send them along
		default:
			return protocolError("unexpected message %T during COPY from stdin", msg)
		}
	}
}

// copyInput turns COPY's data into rows.
type copyInput struct {
	st     *sql.Copy
	cols   record.Schema
	rows   *record.Delta
	max    int // bytes of a row
	append func() error

	rest    []byte // of a row that is incomplete
	scanned int    // bytes of rest that hold no end of the row
	quoted  bool   // csv: rest[:scanned] ends within quotes
	line    int64
	total   int64
	bytes   int
	over    bool // the end of the data was seen
	begun   bool // binary: the signature was read; header: it was skipped
}

func (in *copyInput) write(data []byte) error {
	in.rest = append(in.rest, data...)
	used := 0
	for !in.over {
		n, err := in.next(in.rest[used:])
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		used += n
		if in.rows.N >= copyRows || in.bytes >= copyBytes {
			if err := in.flush(); err != nil {
				return err
			}
		}
	}
	in.rest = append(in.rest[:0], in.rest[used:]...)
	if in.over {
		in.rest = in.rest[:0]
	}
	if len(in.rest) > in.max {
		return in.wrong("54000", "a row is over the limit of %d bytes", in.max)
	}
	return nil
}

// next takes one row from b and returns its length, 0 when it isn't complete.
func (in *copyInput) next(b []byte) (int, error) {
	if in.st.Format == sql.CopyBinary {
		return in.binaryRow(b)
	}
	end := in.endOfRow(b)
	if end < 0 {
		return 0, nil
	}
	in.scanned, in.quoted = 0, false
	return end + 1, in.textRow(b[:end])
}

func (in *copyInput) textRow(row []byte) error {
	in.line++
	if n := len(row); n > 0 && row[n-1] == '\r' {
		row = row[:n-1]
	}
	switch {
	case in.st.Header && !in.begun:
		in.begun = true
		return nil
	case string(row) == `\.`:
		in.over = true
		return nil
	case in.st.Format == sql.CopyCSV:
		return in.csvRow(row)
	}
	return in.plainRow(row)
}

// end takes what is left when the client has sent all.
func (in *copyInput) end() error {
	if len(in.rest) > 0 && !in.over {
		if in.st.Format == sql.CopyBinary || in.quoted {
			return in.wrong("22P04", "unexpected end of the data")
		}
		if err := in.textRow(in.rest); err != nil {
			return err
		}
	}
	return in.flush()
}

func (in *copyInput) flush() error {
	if in.rows.N == 0 {
		return nil
	}
	if err := in.append(); err != nil {
		return err
	}
	in.total += int64(in.rows.N)
	in.rows.Reset()
	in.bytes = 0
	return nil
}

// add appends a field of the row that is being read.
func (in *copyInput) add(col int, null bool, text []byte) error {
	if col >= len(in.cols) {
		return in.wrong("22P04", "extra data after last expected column")
	}
	c := &in.rows.Cols[col]
	if null {
		c.AppendNull()
		return nil
	}
	in.bytes += len(text) + 8
	v, err := record.ParseText(in.cols[col].Type, string(text))
	if err != nil {
		return in.at(col, err)
	}
	c.AppendValue(v)
	return nil
}

// complete ends a row of n fields.
func (in *copyInput) complete(n int) error {
	if n < len(in.cols) {
		return in.wrong("22P04", "missing data for column %q", in.cols[n].Name)
	}
	in.rows.N++
	return nil
}

func (in *copyInput) wrong(state, format string, args ...any) error {
	return fault.SQL(fault.Invalid, state, "%s (COPY %s, line %d)", fmt.Sprintf(format, args...), in.st.Relation, in.line)
}

// at says where an error of a value is.
func (in *copyInput) at(col int, err error) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}
	return fault.SQL(f.Kind, f.GetSQLState(), "%s (COPY %s, line %d, column %s)", err.Error(), in.st.Relation, in.line, in.cols[col].Name)
}
