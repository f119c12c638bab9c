package record

import (
	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// NewKeyExtractor returns a function that finds a record's key in its value: the text of the stream's key column, as
// PostgreSQL prints it, and the same for all values that are equal (1.5 for the numerics 1.5 and 1.50). ok is false if
// the stream has no key column, the key is NULL or not of its type, or the record is malformed; such records spread like
// those without a key. Other columns are not checked.
// The key is valid until the next call; the function is not for concurrent use.
func NewKeyExtractor(s *millracev1.Stream) (func(value []byte) (key []byte, ok bool), error) {
	cols, err := declaredColumns(s)
	if err != nil {
		return nil, err
	}
	at := -1
	for i := range cols {
		if cols[i].name == s.Key {
			cols[i].need, at = needValue, i
		}
	}
	if s.Key == "" {
		return func([]byte) ([]byte, bool) { return nil, false }, nil
	}
	if at < 0 {
		return nil, fault.New(fault.Invalid, "stream %q: its key %q is no column of it", s.Name, s.Key)
	}
	format, err := newFormat(s, cols)
	if err != nil {
		return nil, err
	}
	values := make([]Value, len(cols))
	values[at].Type = cols[at].typ
	var key []byte
	return func(value []byte) ([]byte, bool) {
		if err := format.read(value, values); err != nil || values[at].Null {
			return nil, false
		}
		v := values[at]
		if v.Type == Text {
			return v.Bytes, true
		}
		key = appendKeyText(key[:0], v)
		return key, true
	}, nil
}
