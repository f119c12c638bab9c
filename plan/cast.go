package plan

import "github.com/millrace/millrace/record"

// Castable tells whether ExprCast takes a value of type from to type to: PostgreSQL's explicit casts, with BIGINT in
// the place of INTEGER too. Any type goes to text as it is printed, and text to any type as it is read; numbers go
// to each other (rounding half away from zero to bigint from numeric, half to even from double precision), bigint to
// and from boolean, and a jsonb number or boolean to bigint, double precision, numeric or boolean.
func Castable(from, to record.Type) bool {
	switch {
	case from == to || from == record.Text || to == record.Text:
		return true
	case number(from) && number(to):
		return true
	case from == record.BigInt && to == record.Boolean, from == record.Boolean && to == record.BigInt:
		return true
	case from == record.JSONB:
		return number(to) || to == record.Boolean
	}
	return false
}

func number(t record.Type) bool {
	return t == record.BigInt || t == record.Numeric || t == record.Double
}
