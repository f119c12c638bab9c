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
	case from.IsArray() && to.IsArray():
		return Castable(from.Elem(), to.Elem())
	}
	return timeCasts[[2]record.Type{from, to}]
}

// timeCasts are the casts between times. A TIMESTAMPTZ without its zone is its time in UTC.
var timeCasts = map[[2]record.Type]bool{
	{record.Date, record.Timestamp}: true, {record.Date, record.TimestampTZ}: true,
	{record.Timestamp, record.TimestampTZ}: true, {record.TimestampTZ, record.Timestamp}: true,
	{record.Timestamp, record.Date}: true, {record.TimestampTZ, record.Date}: true,
	{record.Timestamp, record.Time}: true, {record.TimestampTZ, record.Time}: true,
	{record.Time, record.IntervalT}: true, {record.IntervalT, record.Time}: true,
}

func number(t record.Type) bool {
	return t == record.BigInt || t == record.Numeric || t == record.Double
}
