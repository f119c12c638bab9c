package pgwire

import (
	"encoding/binary"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/millrace/millrace/node/pgcatalog"
	"github.com/millrace/millrace/record"
)

// column is one of a result.
type column struct {
	name string
	oid  uint32
	// The relation that it is a column of, and its number there; 0: none.
	table uint32
	at    uint16
}

func columnsOf(s record.Schema) []column {
	out := make([]column, len(s))
	for i, f := range s {
		out[i] = column{name: f.Name, oid: oidOf(f.Type)}
	}
	return out
}

func catalogColumns(in []pgcatalog.Column) []column {
	out := make([]column, len(in))
	for i, c := range in {
		out[i] = column{name: c.Name, oid: c.OID}
	}
	return out
}

// formats is the format of each result column.
type formats []int16

// of returns column i's format: one code is for all.
func (f formats) of(i int) int16 {
	switch {
	case len(f) == 0:
		return textFormat
	case len(f) == 1:
		return f[0]
	case i < len(f):
		return f[i]
	}
	return textFormat
}

func (f formats) check(columns int) error {
	if len(f) > 1 && len(f) != columns {
		return protocolError("bind message has %d result formats but query has %d columns", len(f), columns)
	}
	for _, c := range f {
		if c != textFormat && c != binaryFormat {
			return protocolError("unknown format %d of a result", c)
		}
	}
	return nil
}

func rowDescription(cols []column, f formats) *pgproto3.RowDescription {
	out := &pgproto3.RowDescription{Fields: make([]pgproto3.FieldDescription, len(cols))}
	for i, c := range cols {
		out.Fields[i] = pgproto3.FieldDescription{
			Name: []byte(oneLine(c.name)), TableOID: c.table, TableAttributeNumber: c.at, DataTypeOID: c.oid, DataTypeSize: sizeOf(c.oid), TypeModifier: -1, Format: f.of(i),
		}
	}
	return out
}

// appendRow appends row i of d as a DataRow message.
func appendRow(dst []byte, d *record.Delta, i int, f formats) ([]byte, error) {
	start := len(dst)
	dst = append(dst, 'D', 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(d.Cols)))
	for k := range d.Cols {
		var err error
		if dst, err = appendField(dst, &d.Cols[k], i, f.of(k)); err != nil {
			return dst[:start], err
		}
	}
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
	return dst, nil
}

// appendField appends a value with its length.
func appendField(dst []byte, c *record.Column, i int, format int16) ([]byte, error) {
	if c.Null(i) {
		return append(dst, 0xff, 0xff, 0xff, 0xff), nil
	}
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	var err error
	if format == binaryFormat {
		dst, err = appendBinary(dst, c, i)
	} else {
		dst = record.AppendText(dst, c, i)
	}
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst, err
}

// appendCatalogRow is appendRow for a row of the catalog.
func appendCatalogRow(dst []byte, cols []column, row []pgcatalog.Value, f formats) ([]byte, error) {
	start := len(dst)
	dst = append(dst, 'D', 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(row)))
	for i, v := range row {
		if v == nil {
			dst = append(dst, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		at := len(dst)
		dst = append(dst, 0, 0, 0, 0)
		var err error
		if f.of(i) == binaryFormat {
			dst, err = pgcatalog.AppendBinary(dst, cols[i].oid, v)
		} else {
			dst = pgcatalog.AppendText(dst, v)
		}
		if err != nil {
			return dst[:start], err
		}
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	}
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
	return dst, nil
}
