package client

import (
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// Scan copies the current row to dest: one pointer for each column, to bool, int64, float64, string, []byte, time.Time
// or any. A string takes every type, as PostgreSQL prints it. A NULL fits any and []byte only, where it is nil.
func (r *Rows) Scan(dest ...any) error {
	if len(dest) != len(r.values) {
		return fault.New(fault.Invalid, "scan: %d destinations for %d columns", len(dest), len(r.values))
	}
	for i, d := range dest {
		if !assign(d, r.values[i]) {
			what := r.values[i].Type.String()
			if r.values[i].Null {
				what = "NULL"
			}
			return fault.New(fault.Invalid, "scan: column %q is %s, which doesn't fit a %T", r.columns[i].Name, what, d)
		}
	}
	return nil
}

func assign(dest any, v record.Value) bool {
	switch d := dest.(type) {
	case *any:
		*d = goValue(v)
		return true
	case *[]byte:
		switch {
		case v.Null:
			*d = nil
		case v.Type == record.Bytea:
			*d = append([]byte{}, v.Bytes...)
		default:
			*d = record.AppendTextValue(nil, v)
		}
		return true
	}
	if v.Null {
		return false
	}
	switch d := dest.(type) {
	case *string:
		*d = string(record.AppendTextValue(nil, v))
		return true
	case *bool:
		*d = v.Int != 0
		return v.Type == record.Boolean
	case *int64:
		*d = v.Int
		return v.Type == record.BigInt
	case *float64:
		*d = v.Float
		return v.Type == record.Double
	case *time.Time:
		*d = time.UnixMicro(v.Int).UTC()
		return v.Type == record.TimestampTZ
	}
	return false
}

// goValue is the value that a *any gets: nil, bool, int64, float64, time.Time, []byte for BYTEA, else text.
func goValue(v record.Value) any {
	if v.Null {
		return nil
	}
	switch v.Type {
	case record.Boolean:
		return v.Int != 0
	case record.BigInt:
		return v.Int
	case record.Double:
		return v.Float
	case record.TimestampTZ:
		return time.UnixMicro(v.Int).UTC()
	case record.Bytea:
		return append([]byte{}, v.Bytes...)
	}
	return string(record.AppendTextValue(nil, v))
}
