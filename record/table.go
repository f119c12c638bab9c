package record

import (
	"slices"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// deletedField is the hidden column that tells tombstones, and the JSON field that makes one.
const deletedField = "_deleted"

// HasKey tells whether records of s have their key in their columns.
func HasKey(s *millracev1.Stream) bool { return s.GetKey() != "" || len(s.GetPrimaryKey()) > 0 }

// keyColumns are the columns that make the key of s's records.
func keyColumns(s *millracev1.Stream) []string {
	if len(s.PrimaryKey) > 0 {
		return s.PrimaryKey
	}
	if s.Key != "" {
		return []string{s.Key}
	}
	return nil
}

// tableKey reads the records of a table: rows, and tombstones, which have no value but the primary key as their key.
type tableKey struct {
	cols    []declared
	key     []int // declared columns of the primary key
	notNull []int // and all that must not be NULL
	field   int   // the value that says whether the record is a tombstone, or -1
	deleted bool  // the last record was one
	text    textReader
	parts   [][]byte
	json    jsonReader
	scratch []byte
}

// newTableKey marks the columns of the primary key as needed.
func newTableKey(s *millracev1.Stream, cols []declared) (*tableKey, error) {
	t := &tableKey{cols: cols, field: -1}
	for _, name := range s.PrimaryKey {
		i := slices.IndexFunc(cols, func(c declared) bool { return c.name == name })
		if i < 0 {
			return nil, fault.New(fault.Invalid, "table %q: %q of its primary key is no column of it", s.Name, name)
		}
		t.key = append(t.key, i)
	}
	for i := range cols {
		if s.Columns[i].NotNull || slices.Contains(t.key, i) {
			cols[i].need = needValue
			t.notNull = append(t.notNull, i)
		}
	}
	return t, nil
}

// read sets values to the record's. A row without a primary key doesn't decode.
func (t *tableKey) read(format recordFormat, it *Iter, values []Value) error {
	if t.deleted = len(it.value) == 0; t.deleted {
		for i := range values {
			values[i].Null = true
		}
		return t.readKey(it, values)
	}
	if err := format.read(it.value, values); err != nil {
		return err
	}
	if t.field >= 0 {
		v := &values[t.field]
		t.deleted = !v.Null && v.Int != 0
	}
	notNull := t.notNull
	if t.deleted {
		notNull = t.key
	}
	for _, k := range notNull {
		if values[k].Null {
			return fault.SQL(fault.Invalid, "23502", "null value in column %s violates its not-null constraint", quote(t.cols[k].name))
		}
	}
	return nil
}

// readKey sets the primary key's values from the key of a tombstone.
func (t *tableKey) readKey(it *Iter, values []Value) error {
	if !it.hasKey {
		return fault.SQL(fault.Invalid, "23502", "a record without a value deletes the row of its key, and this one has no key")
	}
	t.text.buf = t.text.buf[:0]
	parts := append(t.parts[:0], it.key)
	if len(t.key) > 1 {
		var err error
		if parts, err = t.split(it.key); err != nil {
			return err
		}
	}
	t.parts = parts
	for i, k := range t.key {
		v := &values[k]
		v.Null = false
		if err := t.text.read(t.cols[k].typ, parts[i], v); err != nil {
			return inColumn(t.cols[k].name, err)
		}
	}
	return nil
}

// split returns the texts of which key is a JSON array.
func (t *tableKey) split(key []byte) ([][]byte, error) {
	malformed := fault.SQL(fault.Invalid, "22P02", "the key of a record without a value must be a JSON array of %d strings, one for each column of the primary key: %s",
		len(t.key), quote(string(key[:min(len(key), 256)])))
	if _, err := t.json.document(key); err != nil {
		return nil, malformed
	}
	t.json.reset(key)
	dec := t.json.dec
	if dec.PeekKind() != '[' {
		return nil, malformed
	}
	_, _ = dec.ReadToken() // the bracket: the document is well formed
	parts := t.parts[:0]
	t.scratch = t.scratch[:0]
	for dec.PeekKind() == '"' && len(parts) < len(t.key) {
		raw, err := dec.ReadValue()
		if err != nil {
			return nil, malformed
		}
		start := len(t.scratch)
		t.scratch = appendUnescaped(t.scratch, raw[1:len(raw)-1])
		parts = append(parts, t.scratch[start:len(t.scratch):len(t.scratch)])
	}
	if dec.PeekKind() != ']' || len(parts) != len(t.key) {
		return nil, malformed
	}
	return parts, nil
}

// AppendKey appends the key of a record with these values of the stream's key columns, none of them NULL: what
// NewKeyExtractor finds in the record, and what a tombstone must bear.
func AppendKey(dst []byte, key []Value) []byte {
	if len(key) == 1 {
		if key[0].Type == Text {
			return append(dst, key[0].Bytes...)
		}
		return appendKeyText(dst, key[0])
	}
	dst = append(dst, '[')
	var text []byte
	for i, v := range key {
		if i > 0 {
			dst = append(dst, ',')
		}
		text = appendKeyText(text[:0], v)
		dst = appendJSONString(dst, text)
	}
	return append(dst, ']')
}
