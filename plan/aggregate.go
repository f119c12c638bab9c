package plan

import "github.com/millrace/millrace/record"

// PartialTypes returns the types of the columns in which phase partial hands a to phase final.
//
//	count       BigInt: rows counted
//	sum, avg    of bigint: BigInt high and BigInt low 64 bits of the 128-bit sum, BigInt count of values
//	            of numeric: Numeric sum, BigInt count
//	            of double precision: Bytea exact sum (an order-independent accumulator), BigInt count
//	            of interval: IntervalT sum, BigInt count
//	min, max    the argument's type; NULL when there was no value
//
// After the partials of all aggregates comes one BigInt column: the rows of the group.
func (a Agg) PartialTypes() []record.Type {
	switch a.Func {
	case AggCountStar, AggCount:
		return []record.Type{record.BigInt}
	case AggMin, AggMax:
		return []record.Type{a.ArgType}
	}
	switch a.ArgType {
	case record.BigInt:
		return []record.Type{record.BigInt, record.BigInt, record.BigInt}
	case record.Double:
		return []record.Type{record.Bytea, record.BigInt}
	case record.IntervalT:
		return []record.Type{record.IntervalT, record.BigInt}
	}
	return []record.Type{record.Numeric, record.BigInt}
}

// Result returns the type of f's result over an argument of type t, and whether there is such an aggregate.
func (f AggFunc) Result(t record.Type) (record.Type, bool) {
	switch f {
	case AggCountStar, AggCount:
		return record.BigInt, true
	case AggMin, AggMax:
		return t, t != record.Boolean && t != record.JSONB && t != record.Unknown
	case AggSum, AggAvg:
		switch t {
		case record.BigInt, record.Numeric:
			return record.Numeric, true
		case record.Double, record.IntervalT:
			return t, true
		}
	}
	return record.Unknown, false
}
