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
//	bool_and,   BigInt count of values, BigInt count of those that are true
//	bool_or
//	stddev,     of bigint and numeric: the sum of the values as sum has it, then Numeric sum of squares, BigInt count
//	variance    of double precision: Bytea exact sum, Bytea exact sum of squares, BigInt count
//	covariance  Bytea exact sums of y, x, yy, xx, yx, BigInt count
//	others, and any with DISTINCT or Retract: Bytea, in a form of their own; NULL when there was no value
//
// After the partials of all aggregates comes one BigInt column: the rows of the group.
func (a Agg) PartialTypes() []record.Type {
	if a.KeepsValues() {
		return []record.Type{record.Bytea}
	}
	switch a.Func {
	case AggCountStar, AggCount:
		return []record.Type{record.BigInt}
	case AggMin, AggMax:
		return []record.Type{a.ArgType}
	case AggBoolAnd, AggBoolOr:
		return []record.Type{record.BigInt, record.BigInt}
	case AggSum, AggAvg:
		return sumTypes(a.ArgType)
	case AggStddevPop, AggStddevSamp, AggVarPop, AggVarSamp:
		if a.ArgType == record.Double {
			return []record.Type{record.Bytea, record.Bytea, record.BigInt}
		}
		return append(sumTypes(a.ArgType), record.Numeric, record.BigInt)
	}
	if a.Func.Pair() {
		return []record.Type{record.Bytea, record.Bytea, record.Bytea, record.Bytea, record.Bytea, record.BigInt}
	}
	return []record.Type{record.Bytea}
}

func sumTypes(t record.Type) []record.Type {
	switch t {
	case record.BigInt:
		return []record.Type{record.BigInt, record.BigInt, record.BigInt}
	case record.Double:
		return []record.Type{record.Bytea, record.BigInt}
	case record.IntervalT:
		return []record.Type{record.IntervalT, record.BigInt}
	}
	return []record.Type{record.Numeric, record.BigInt}
}

// KeepsValues tells whether a needs the group's values themselves, each with how often it is there, rather than a sum
// of a fixed size.
func (a Agg) KeepsValues() bool {
	switch a.Func {
	case AggPercentileCont, AggPercentileDisc, AggMode, AggFirst, AggLast, AggStringAgg, AggJSONBAgg, AggArrayAgg, AggJSONBObjectAgg:
		return true
	case AggMin, AggMax:
		return a.Retract
	case AggBoolAnd, AggBoolOr, AggBitAnd, AggBitOr, AggApproxCountDistinct:
		return false // the same with DISTINCT
	}
	return a.Distinct
}

// Pair tells whether f is of two arguments, y and x.
func (f AggFunc) Pair() bool {
	switch f {
	case AggCovarPop, AggCovarSamp, AggCorr, AggRegrAvgX, AggRegrAvgY, AggRegrCount, AggRegrIntercept, AggRegrR2,
		AggRegrSlope, AggRegrSXX, AggRegrSXY, AggRegrSYY:
		return true
	}
	return false
}

// Result returns the type of f's result over an argument of type t, and whether there is such an aggregate.
func (f AggFunc) Result(t record.Type) (record.Type, bool) {
	switch f {
	case AggCountStar, AggCount, AggApproxCountDistinct:
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
	case AggBoolAnd, AggBoolOr:
		return t, t == record.Boolean
	case AggBitAnd, AggBitOr, AggBitXor:
		return t, t == record.BigInt
	case AggStddevPop, AggStddevSamp, AggVarPop, AggVarSamp:
		switch t {
		case record.BigInt, record.Numeric:
			return record.Numeric, true
		case record.Double:
			return t, true
		}
	case AggRegrCount:
		return record.BigInt, t == record.Double
	case AggPercentileCont:
		return t, t == record.Double || t == record.IntervalT
	case AggPercentileDisc, AggMode, AggFirst, AggLast:
		return t, t != record.Unknown
	case AggStringAgg:
		return t, t == record.Text || t == record.Bytea
	case AggJSONBAgg:
		return record.JSONB, t != record.Unknown
	case AggJSONBObjectAgg:
		return record.JSONB, t == record.Text
	case AggArrayAgg:
		if t == record.Unknown || t.IsArray() {
			return record.Unknown, false
		}
		return record.ArrayOf(t), true
	case AggApproxPercentile:
		return t, t == record.Double
	}
	if f.Pair() {
		return record.Double, t == record.Double
	}
	return record.Unknown, false
}
