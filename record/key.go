package record

import (
	"slices"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// NewKeyExtractor returns a function that finds a record's key in its value: the text of the stream's key column, as
// PostgreSQL prints it, and the same for all values that are equal (1.5 for the numerics 1.5 and 1.50); of a table whose
// primary key has several columns, a JSON array of their texts. ok is false if the stream has no key column, the key is
// NULL or not of its type, or the record is malformed or has no value; such records spread like those without a key.
// Other columns are not checked.
// The key is valid until the next call; the function is not for concurrent use.
func NewKeyExtractor(s *millracev1.Stream) (func(value []byte) (key []byte, ok bool), error) {
	cols, err := declaredColumns(s)
	if err != nil {
		return nil, err
	}
	names := keyColumns(s)
	if len(names) == 0 {
		return func([]byte) ([]byte, bool) { return nil, false }, nil
	}
	at := make([]int, len(names))
	for k, name := range names {
		if at[k] = slices.IndexFunc(cols, func(c declared) bool { return c.name == name }); at[k] < 0 {
			return nil, fault.New(fault.Invalid, "stream %q: its key %q is no column of it", s.Name, name)
		}
		cols[at[k]].need = needValue
	}
	format, err := newFormat(s, cols)
	if err != nil {
		return nil, err
	}
	values := make([]Value, len(cols))
	for _, i := range at {
		values[i].Type = cols[i].typ
	}
	parts := make([]Value, len(at))
	var key []byte
	return func(value []byte) ([]byte, bool) {
		if len(value) == 0 {
			return nil, false
		}
		if err := format.read(value, values); err != nil {
			return nil, false
		}
		for k, i := range at {
			if values[i].Null {
				return nil, false
			}
			parts[k] = values[i]
		}
		if len(parts) == 1 && parts[0].Type == Text {
			return parts[0].Bytes, true
		}
		key = AppendKey(key[:0], parts)
		return key, true
	}, nil
}
