package dataflow

import (
	"math"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

var (
	errBinMonths = fault.SQL(fault.Unsupported, "0A000", "timestamps cannot be binned into intervals containing months or years")
	errBinStride = fault.SQL(fault.Invalid, "22008", "stride must be greater than zero")
	errNaNTime   = fault.SQL(fault.Invalid, "22008", "timestamp cannot be NaN")
)

// timeImpls is arithmetic of times and intervals.
var timeImpls = map[string]impl{
	"add(timestamptz, interval)": binaryOp(getInt, getInterval, setInt, func(t int64, v record.Interval) (int64, error) {
		return addInterval(t, v, 1)
	}),
	"add(interval, timestamptz)": binaryOp(getInterval, getInt, setInt, func(v record.Interval, t int64) (int64, error) {
		return addInterval(t, v, 1)
	}),
	"sub(timestamptz, interval)": binaryOp(getInt, getInterval, setInt, func(t int64, v record.Interval) (int64, error) {
		return addInterval(t, v, -1)
	}),
	"sub(timestamptz, timestamptz)": binaryOp(getInt, getInt, setInterval, subTimes),
	"add(interval, interval)": binaryOp(getInterval, getInterval, setInterval, func(a, b record.Interval) (record.Interval, error) {
		return addIntervals(a, b, 1)
	}),
	"sub(interval, interval)": binaryOp(getInterval, getInterval, setInterval, func(a, b record.Interval) (record.Interval, error) {
		return addIntervals(a, b, -1)
	}),
	"neg(interval)": unary(getInterval, setInterval, func(a record.Interval) (record.Interval, error) {
		return addIntervals(record.Interval{}, a, -1)
	}),
	"mul(interval, double precision)": binaryOp(getInterval, getFloat, setInterval, mulInterval),
	"mul(double precision, interval)": binaryOp(getFloat, getInterval, setInterval, func(f float64, v record.Interval) (record.Interval, error) {
		return mulInterval(v, f)
	}),
	"div(interval, double precision)":              binaryOp(getInterval, getFloat, setInterval, divInterval),
	"date_bin(interval, timestamptz, timestamptz)": ternary(getInterval, getInt, getInt, setInt, dateBin),
	"to_timestamp(double precision)":               unary(getFloat, setInt, toTimestamp),
	"age(timestamptz, timestamptz)":                binaryOp(getInt, getInt, setInterval, age),
	"justify_hours(interval)":                      unary(getInterval, setInterval, justifyHours),
	"justify_days(interval)":                       unary(getInterval, setInterval, justifyDays),
	"justify_interval(interval)":                   unary(getInterval, setInterval, justifyInterval),
	"make_interval(bigint, bigint, bigint, bigint, bigint, bigint, double precision)": {make: func() kernel { return makeInterval }},
}

// intervalOf returns the interval with these parts, if they fit.
func intervalOf(months, days, micros int64) (record.Interval, error) {
	v := record.Interval{Months: int32(months), Days: int32(days), Micros: micros}
	if int64(v.Months) != months || int64(v.Days) != days {
		return v, errIntervalRange
	}
	return v, nil
}

func addIntervals(a, b record.Interval, sign int64) (record.Interval, error) {
	micros, ok := wide(a.Micros).add(mul64(b.Micros, sign)).small()
	if !ok {
		return a, errIntervalRange
	}
	return intervalOf(int64(a.Months)+sign*int64(b.Months), int64(a.Days)+sign*int64(b.Days), micros)
}

func subTimes(a, b int64) (record.Interval, error) {
	d, ok := wide(a).add(wide(b).neg()).small()
	if !ok {
		return record.Interval{}, errIntervalRange
	}
	return justifyHours(record.Interval{Micros: d})
}

// roundMicros is PostgreSQL's TSROUND: to six decimals, so that fractions that should be whole are.
func roundMicros(v float64) float64 { return math.RoundToEven(v*1e6) / 1e6 }

// toInt32 is C's conversion after a check of the range.
func toInt32(v float64) (int32, error) {
	if v != v || v > math.MaxInt32 || v < math.MinInt32 {
		return 0, errIntervalRange
	}
	return int32(v), nil
}

// mulInterval follows interval_mul of PostgreSQL's timestamp.c, and divInterval interval_div: what is left of months
// goes down to days, and what is left of days to microseconds.
func mulInterval(v record.Interval, f float64) (record.Interval, error) {
	return scaleInterval(v, func(part float64) float64 { return part * f })
}

func divInterval(v record.Interval, f float64) (record.Interval, error) {
	if f == 0 {
		return v, errDivisionByZero
	}
	return scaleInterval(v, func(part float64) float64 { return part / f })
}

func scaleInterval(v record.Interval, scale func(float64) float64) (record.Interval, error) {
	months, days := scale(float64(v.Months)), scale(float64(v.Days))
	var out record.Interval
	var err error
	if out.Months, err = toInt32(months); err != nil {
		return v, err
	}
	if out.Days, err = toInt32(days); err != nil {
		return v, err
	}
	monthDays := roundMicros((months - float64(out.Months)) * daysPerMonth)
	const secondsPerDay = 86400
	seconds := roundMicros((days - float64(out.Days) + monthDays - math.Trunc(monthDays)) * secondsPerDay)
	extra := math.Trunc(monthDays)
	if math.Abs(seconds) >= secondsPerDay {
		extra += math.Trunc(seconds / secondsPerDay)
		seconds -= float64(math.Trunc(seconds/secondsPerDay) * secondsPerDay)
	}
	if out.Days, err = toInt32(float64(out.Days) + extra); err != nil {
		return v, err
	}
	micros := math.RoundToEven(scale(float64(v.Micros)) + float64(seconds*microsPerSecond))
	if micros != micros || micros < -1<<63 || micros >= 1<<63 {
		return v, errIntervalRange
	}
	out.Micros = int64(micros)
	return out, nil
}

func dateBin(stride record.Interval, t, origin int64) (int64, error) {
	if stride.Months != 0 {
		return 0, errBinMonths
	}
	size, ok := mul64(int64(stride.Days), microsPerDay).add(wide(stride.Micros)).small()
	if !ok {
		return 0, errIntervalRange
	}
	if size <= 0 {
		return 0, errBinStride
	}
	d, ok := wide(t).add(wide(origin).neg()).small()
	if !ok {
		return 0, errIntervalRange
	}
	r, ok := wide(t).add(wide(-floorMod(d, size))).small()
	if !ok || r < record.MinTimestamp {
		return 0, errTimestampRange
	}
	return r, nil
}

func toTimestamp(seconds float64) (int64, error) {
	if seconds != seconds {
		return 0, errNaNTime
	}
	// PostgreSQL rounds after going to its own epoch, 2000-01-01.
	const epoch = 946_684_800
	micros := math.RoundToEven((seconds - epoch) * microsPerSecond)
	if micros < record.MinTimestamp-epoch*microsPerSecond || micros >= 1<<63 {
		return 0, fault.SQL(fault.Invalid, "22008", "timestamp out of range: %g", seconds)
	}
	t, ok := wide(int64(micros)).add(wide(epoch * microsPerSecond)).small()
	if !ok {
		return 0, fault.SQL(fault.Invalid, "22008", "timestamp out of range: %g", seconds)
	}
	return t, nil
}

// age is the difference in years and months as well, as one would count it on a calendar (timestamptz_age).
func age(a, b int64) (record.Interval, error) {
	x, y := momentOf(a), momentOf(b)
	flip := a < b
	if flip {
		x, y = y, x
	}
	years, months, days := x.year-y.year, x.month-y.month, x.day-y.day
	micros := x.dayMicros - y.dayMicros
	if micros < 0 {
		micros += microsPerDay
		days--
	}
	for days < 0 {
		// The month that is borrowed from is that of the earlier time in the order of the arguments.
		if flip {
			days += daysInMonth(momentOf(a).year, momentOf(a).month)
		} else {
			days += daysInMonth(y.year, y.month)
		}
		months--
	}
	total := years*monthsPerYear + int64(months)
	if flip {
		return intervalOf(-total, -int64(days), -micros)
	}
	return intervalOf(total, int64(days), micros)
}

func justifyHours(v record.Interval) (record.Interval, error) {
	days := int64(v.Days) + v.Micros/microsPerDay
	micros := v.Micros % microsPerDay
	switch {
	case days > 0 && micros < 0:
		micros += microsPerDay
		days--
	case days < 0 && micros > 0:
		micros -= microsPerDay
		days++
	}
	return intervalOf(int64(v.Months), days, micros)
}

func justifyDays(v record.Interval) (record.Interval, error) {
	months, days := int64(v.Months)+int64(v.Days/daysPerMonth), int64(v.Days%daysPerMonth)
	switch {
	case months > 0 && days < 0:
		days += daysPerMonth
		months--
	case months < 0 && days > 0:
		days -= daysPerMonth
		months++
	}
	return intervalOf(months, days, v.Micros)
}

func justifyInterval(v record.Interval) (record.Interval, error) {
	days := int64(v.Days) + v.Micros/microsPerDay
	micros := v.Micros % microsPerDay
	months := int64(v.Months) + days/daysPerMonth
	days %= daysPerMonth
	switch {
	case months > 0 && (days < 0 || days == 0 && micros < 0):
		days += daysPerMonth
		months--
	case months < 0 && (days > 0 || days == 0 && micros > 0):
		days -= daysPerMonth
		months++
	}
	switch {
	case days > 0 && micros < 0:
		micros += microsPerDay
		days--
	case days < 0 && micros > 0:
		micros -= microsPerDay
		days++
	}
	return intervalOf(months, days, micros)
}

// makeInterval takes years, months, weeks, days, hours, minutes, seconds.
func makeInterval(c *call) {
	arg := func(k, i int) int64 { return c.args[k].col.Ints[i&c.args[k].mask] }
	for i := range c.n {
		if c.null(i) {
			continue
		}
		months := mul64(arg(0, i), monthsPerYear).add(wide(arg(1, i)))
		days := mul64(arg(2, i), 7).add(wide(arg(3, i)))
		micros := mul64(arg(4, i), microsPerHour).add(mul64(arg(5, i), microsPerMinute))
		seconds := math.RoundToEven(c.args[6].col.Floats[i&c.args[6].mask] * microsPerSecond)
		m, ok1 := months.small()
		d, ok2 := days.small()
		ok := ok1 && ok2 && seconds == seconds && seconds >= -1<<63 && seconds < 1<<63
		if ok {
			micros = micros.add(wide(int64(seconds)))
		}
		u, ok3 := micros.small()
		v, err := intervalOf(m, d, u)
		if !ok || !ok3 || err != nil {
			c.fail(i, errIntervalRange)
			continue
		}
		c.out.Intervals[i] = v
	}
}
