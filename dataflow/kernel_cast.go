package dataflow

import (
	"math"
	"strconv"

	"github.com/cockroachdb/apd/v3"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// castOf returns the explicit cast between two different types.
func castOf(from, to record.Type) (impl, bool) {
	switch {
	case from == record.Unknown:
		return shared(func(c *call) {
			for i := range c.n {
				c.setNull(i)
				if to.Varlen() {
					c.out.Offsets[i+1] = 0
				}
			}
		}), true
	case to == record.Text:
		return toText(from), true
	case from == record.Text:
		return fromText(to), to != record.Unknown
	case from.IsArray() && to.IsArray():
		return castElements(from, to)
	}
	f, ok := castImpls[[2]record.Type{from, to}]
	return f, ok
}

// castImpls is the casts that don't go through text.
var castImpls = map[[2]record.Type]impl{
	{record.BigInt, record.Double}: pure(getInt, setFloat, func(a int64) float64 { return float64(a) }),
	{record.BigInt, record.Numeric}: unaryBytes(getInt, func(dst []byte, a int64) ([]byte, error) {
		return strconv.AppendInt(dst, a, 10), nil
	}),
	{record.BigInt, record.Boolean}: pure(getInt, setBool, func(a int64) bool { return a != 0 }),
	{record.Boolean, record.BigInt}: pure(getBool, setInt, func(a bool) int64 {
		if a {
			return 1
		}
		return 0
	}),
	{record.Double, record.BigInt}:         unary(getFloat, setInt, doubleToInt),
	{record.Double, record.Numeric}:        unaryBytes(getFloat, doubleToNumeric),
	{record.Numeric, record.BigInt}:        unary(getBytes, setInt, numericToInt),
	{record.Numeric, record.Double}:        unary(getBytes, setFloat, numericToDouble),
	{record.Date, record.Timestamp}:        unary(getInt, setInt, func(d int64) (int64, error) { return timestampOf(d, 0) }),
	{record.Date, record.TimestampTZ}:      unary(getInt, setInt, func(d int64) (int64, error) { return timestampOf(d, 0) }),
	{record.Timestamp, record.TimestampTZ}: pure(getInt, setInt, func(t int64) int64 { return t }),
	{record.TimestampTZ, record.Timestamp}: pure(getInt, setInt, func(t int64) int64 { return t }),
	{record.Timestamp, record.Date}:        pure(getInt, setInt, func(t int64) int64 { return floorDiv(t, microsPerDay) }),
	{record.TimestampTZ, record.Date}:      pure(getInt, setInt, func(t int64) int64 { return floorDiv(t, microsPerDay) }),
	{record.Timestamp, record.Time}:        pure(getInt, setInt, func(t int64) int64 { return floorMod(t, microsPerDay) }),
	{record.TimestampTZ, record.Time}:      pure(getInt, setInt, func(t int64) int64 { return floorMod(t, microsPerDay) }),
	{record.Time, record.IntervalT}:        pure(getInt, setInterval, func(t int64) record.Interval { return record.Interval{Micros: t} }),
	{record.IntervalT, record.Time}:        pure(getInterval, setInt, func(v record.Interval) int64 { return floorMod(v.Micros, microsPerDay) }),
	{record.JSONB, record.Boolean}:         fromJSON(setBool, record.Boolean, func(v []byte) (bool, error) { return v[0] == 't', nil }),
	{record.JSONB, record.BigInt}:          fromJSON(setInt, record.BigInt, numericToInt),
	{record.JSONB, record.Double}:          fromJSON(setFloat, record.Double, numericToDouble),
	{record.JSONB, record.Numeric}: unaryBytes(getBytes, func(dst, v []byte) ([]byte, error) {
		if err := checkJSONKind(v, record.Numeric); err != nil {
			return dst, err
		}
		return append(dst, v...), nil
	}),
}

func toText(from record.Type) impl {
	if from == record.Boolean {
		return unaryBytes(getBool, func(dst []byte, a bool) ([]byte, error) { return strconv.AppendBool(dst, a), nil })
	}
	k := eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		a := c.args[0]
		return record.AppendText(dst, a.col, i&a.mask), nil
	})
	return impl{make: func() kernel { return k }}
}

func fromText(to record.Type) impl {
	switch to {
	case record.Boolean:
		return unary(getBytes, setBool, func(b []byte) (bool, error) {
			v, err := record.ParseText(to, string(b))
			return v.Int != 0, err
		})
	case record.BigInt:
		return unary(getBytes, setInt, textToInt)
	case record.TimestampTZ, record.Timestamp, record.Date, record.Time:
		return unary(getBytes, setInt, func(b []byte) (int64, error) {
			v, err := record.ParseText(to, string(b))
			return v.Int, err
		})
	case record.Double:
		return unary(getBytes, setFloat, func(b []byte) (float64, error) {
			v, err := record.ParseText(to, string(b))
			return v.Float, err
		})
	case record.IntervalT:
		return unary(getBytes, setInterval, func(b []byte) (record.Interval, error) {
			v, err := record.ParseText(to, string(b))
			return v.Interval, err
		})
	}
	return unaryBytes(getBytes, func(dst, b []byte) ([]byte, error) {
		v, err := record.ParseText(to, string(b))
		return append(dst, v.Bytes...), err
	})
}

// castElements casts an array's elements.
func castElements(from, to record.Type) (impl, bool) {
	f, ok := castOf(from.Elem(), to.Elem())
	if !ok {
		return impl{}, false
	}
	return impl{make: func() kernel {
		elems := record.NewColumn(from.Elem(), 0)
		inner := newCall(f, to.Elem(), []expression{&elementsOf{&elems}}, true, nil)
		return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
			elems.Reset()
			if err := record.DecodeArray(bytesArg(c, 0, i), &elems); err != nil {
				return dst, err
			}
			failed := &faults{mode: AdHoc}
			inner.errs = failed
			out := inner.eval(&record.Delta{N: elems.N})
			if failed.err != nil {
				return dst, failed.err
			}
			k := newArrayKernel(to)
			for e := range elems.N {
				k.a.AppendFrom(out.col, e&out.mask)
			}
			return record.AppendArray(dst, &k.a), nil
		})
	}}, true
}

// elementsOf is an array's elements as an expression.
type elementsOf struct{ col *record.Column }

func (e *elementsOf) typ() record.Type          { return e.col.Type }
func (e *elementsOf) safe() bool                { return true }
func (e *elementsOf) columns(func(int))         {}
func (e *elementsOf) trim()                     {}
func (e *elementsOf) eval(*record.Delta) vector { return vector{e.col, -1} }

// textToInt parses plain numbers of up to 18 digits itself.
func textToInt(b []byte) (int64, error) {
	digits, neg := b, len(b) > 0 && b[0] == '-'
	if neg {
		digits = b[1:]
	}
	plain, v := len(digits) > 0 && len(digits) <= 18, int64(0)
	for _, c := range digits {
		plain = plain && c-'0' <= 9
		v = v*10 + int64(c-'0')
	}
	if !plain {
		parsed, err := record.ParseText(record.BigInt, string(b))
		return parsed.Int, err
	}
	if neg {
		v = -v
	}
	return v, nil
}

func doubleToInt(v float64) (int64, error) {
	v = math.RoundToEven(v)
	if v != v || v < -1<<63 || v >= 1<<63 {
		return 0, errBigintRange
	}
	return int64(v), nil
}

// doubleToNumeric keeps 15 significant digits, as PostgreSQL does.
func doubleToNumeric(dst []byte, v float64) ([]byte, error) {
	if v != v {
		return append(dst, "NaN"...), nil
	}
	if math.IsInf(v, 0) {
		return dst, errNumericInfinity
	}
	var buf [32]byte
	parsed, err := record.ParseText(record.Numeric, trimMantissa(strconv.AppendFloat(buf[:0], v, 'e', 14, 64)))
	return append(dst, parsed.Bytes...), err
}

// trimMantissa cuts the zeros at the end of the mantissa of d.ddde±dd.
func trimMantissa(b []byte) string {
	e := len(b) - 1
	for b[e] != 'e' {
		e--
	}
	m := e
	for b[m-1] == '0' {
		m--
	}
	if b[m-1] == '.' {
		m--
	}
	return string(b[:m]) + string(b[e:])
}

var (
	errNumericInfinity = fault.SQL(fault.Unsupported, "0A000", "cannot convert infinity to numeric")
	errNaNToInt        = fault.SQL(fault.Unsupported, "0A000", "cannot convert NaN to bigint")
)

func numericToInt(b []byte) (int64, error) {
	if isNaN(b) {
		return 0, errNaNToInt
	}
	if coef, scale, ok := parseSmall(b); ok {
		unit := int64(pow10[scale])
		v, rest := coef/unit, coef%unit
		switch {
		case scale == 0:
		case rest >= unit-rest:
			v++
		case -rest >= unit+rest:
			v--
		}
		return v, nil
	}
	var d apd.Decimal
	parseDecimal(&d, b)
	rescale(&d, 0)
	v, err := d.Int64()
	if err != nil {
		return 0, errBigintRange
	}
	return v, nil
}

func numericToDouble(b []byte) (float64, error) {
	if isNaN(b) {
		return math.NaN(), nil
	}
	// Exact below 2^53, and the power of ten is exact too: one rounding, as it should be.
	if coef, scale, ok := parseSmall(b); ok && coef < 1<<53 && coef > -1<<53 {
		return float64(coef) / float64(pow10[scale]), nil
	}
	v, err := strconv.ParseFloat(string(b), 64)
	if err != nil || v == 0 && !isZeroNumeric(b) && !(b[0] == '-' && isZeroNumeric(b[1:])) {
		return 0, fault.SQL(fault.Invalid, "22003", "%q is out of range for type double precision", shorten(b))
	}
	return v, nil
}

// shorten returns b for an error message.
func shorten(b []byte) string {
	if len(b) > 64 {
		return string(b[:64]) + "..."
	}
	return string(b)
}

// checkJSONKind checks that v is a scalar that can be cast to t.
func checkJSONKind(v []byte, t record.Type) error {
	kind := jsonKind(v)
	want := "number"
	if t == record.Boolean {
		want = "boolean"
	}
	if kind == want {
		return nil
	}
	return fault.SQL(fault.Invalid, "22023", "cannot cast jsonb %s to type %s", kind, t)
}

func fromJSON[R any](set setter[R], t record.Type, f func([]byte) (R, error)) impl {
	return unary(getBytes, set, func(v []byte) (R, error) {
		if err := checkJSONKind(v, t); err != nil {
			var none R
			return none, err
		}
		return f(v)
	})
}
