package record

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math"
	"math/bits"
)

// plainValue is Value without its methods.
type plainValue Value

// MarshalJSON writes v for a plan's codec: a Double travels as its bits, so that -0, NaN and the infinities survive.
func (v Value) MarshalJSON() ([]byte, error) {
	p := plainValue(v)
	if v.Type == Double {
		p.Int = int64(math.Float64bits(v.Float))
	}
	return json.Marshal(p)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (v *Value) UnmarshalJSON(data []byte) error {
	var p plainValue
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	if p.Type == Double {
		p.Float, p.Int = math.Float64frombits(uint64(p.Int)), 0
	}
	*v = Value(p)
	return nil
}

// Compare returns -1, 0 or +1 as a sorts before, with or after b in PostgreSQL's order of their type. Both have the
// same type and neither is NULL. NaN is the greatest number and equal to itself; text compares by bytes.
func Compare(a, b Value) int {
	switch a.Type {
	case Boolean, BigInt, TimestampTZ, Timestamp, Date, Time:
		return cmp.Compare(a.Int, b.Int)
	case Double:
		return CompareDouble(a.Float, b.Float)
	case Numeric:
		return CompareNumeric(a.Bytes, b.Bytes)
	case Text, Bytea, UUID:
		return bytes.Compare(a.Bytes, b.Bytes)
	case IntervalT:
		return CompareInterval(a.Interval, b.Interval)
	case JSONB:
		return compareJSONB(a.Bytes, b.Bytes)
	}
	if a.Type.IsArray() {
		return compareArrays(a.Type, a.Bytes, b.Bytes)
	}
	return 0
}

// CompareDouble compares in PostgreSQL's order: -0 equals 0, NaN equals NaN and is greater than all else.
func CompareDouble(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	case a == b:
		return 0
	case a == a: // b is NaN
		return -1
	case b == b:
		return 1
	}
	return 0
}

const (
	microsPerDay   = 24 * 60 * 60 * 1_000_000
	microsPerMonth = 30 * microsPerDay
)

// span is an interval's length for comparison, as PostgreSQL takes it: months of 30 days, days of 24 hours; a
// signed 128-bit number of microseconds, as 2^31 months don't fit into 63 bits.
type span struct {
	hi int64
	lo uint64
}

func spanOf(v Interval) span {
	days := int64(v.Months)*30 + int64(v.Days)
	hi, lo := bits.Mul64(uint64(days), microsPerDay)
	if days < 0 { // Mul64 is unsigned
		hi -= microsPerDay
	}
	var carry uint64
	lo, carry = bits.Add64(lo, uint64(v.Micros), 0)
	hi, _ = bits.Add64(hi, uint64(v.Micros>>63), carry)
	return span{int64(hi), lo}
}

// CompareInterval compares as PostgreSQL does, with months of 30 days and days of 24 hours.
func CompareInterval(a, b Interval) int {
	x, y := spanOf(a), spanOf(b)
	if c := cmp.Compare(x.hi, y.hi); c != 0 {
		return c
	}
	return cmp.Compare(x.lo, y.lo)
}

// normalInterval returns the interval that stands for all that compare equal to one of span s: as many months as
// there are, then days, then microseconds, all with the span's sign.
func normalInterval(s span) Interval {
	neg := s.hi < 0
	hi, lo := uint64(s.hi), s.lo
	if neg {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	// Months and days are clamped to what an int32 holds; what is over stays for the next smaller part.
	var parts [2]uint64
	for i, unit := range [2]uint64{microsPerMonth, microsPerDay} {
		q := uint64(math.MaxInt32)
		if hi < unit {
			q, _ = bits.Div64(hi, lo, unit)
			q = min(q, math.MaxInt32)
		}
		ph, pl := bits.Mul64(q, unit)
		var borrow uint64
		lo, borrow = bits.Sub64(lo, pl, 0)
		hi, _ = bits.Sub64(hi, ph, borrow)
		parts[i] = q
	}
	v := Interval{Months: int32(parts[0]), Days: int32(parts[1]), Micros: int64(lo)}
	if neg {
		v = Interval{Months: -v.Months, Days: -v.Days, Micros: -v.Micros}
	}
	return v
}
