package dataflow

import (
	"math"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

var (
	errDateRange  = fault.SQL(fault.Invalid, "22008", "date out of range")
	errFieldRange = fault.SQL(fault.Invalid, "22008", "date/time field value out of range")
	errZone       = fault.SQL(fault.Invalid, "22023", "interval of a time zone must not have months or days")
)

// dateImpls is functions of dates, times of day and timestamps without time zone, which are what timestamps in UTC are.
var dateImpls = makeDateImpls()

func makeDateImpls() map[string]impl {
	m := map[string]impl{
		"add(date, bigint)":   binaryOp(getInt, getInt, setInt, addDays),
		"add(bigint, date)":   binaryOp(getInt, getInt, setInt, addDays),
		"sub(date, bigint)":   binaryOp(getInt, getInt, setInt, func(d, n int64) (int64, error) { return addDays(d, -n) }),
		"sub(date, date)":     binaryOp(getInt, getInt, setInt, func(a, b int64) (int64, error) { return a - b, nil }),
		"add(date, time)":     binaryOp(getInt, getInt, setInt, timestampOf),
		"add(time, date)":     binaryOp(getInt, getInt, setInt, func(t, d int64) (int64, error) { return timestampOf(d, t) }),
		"sub(time, time)":     binaryOp(getInt, getInt, setInterval, func(a, b int64) (record.Interval, error) { return record.Interval{Micros: a - b}, nil }),
		"add(time, interval)": binaryOp(getInt, getInterval, setInt, func(t int64, v record.Interval) (int64, error) { return addClock(t, v.Micros) }),
		"add(interval, time)": binaryOp(getInterval, getInt, setInt, func(v record.Interval, t int64) (int64, error) { return addClock(t, v.Micros) }),
		"sub(time, interval)": binaryOp(getInt, getInterval, setInt, func(t int64, v record.Interval) (int64, error) { return addClock(t, -(v.Micros % microsPerDay)) }),
		"extract(text, date)": fieldBytes(getInt, extractDate),
		"extract(text, time)": fieldBytes(getInt, extractClock),
		"date_part(text, date)": fieldFixed(getInt, setFloat, func(f field, name string, d int64) (float64, error) {
			t, err := timestampOf(d, 0)
			if err != nil {
				return 0, err
			}
			return partOf(extractLocal, f, name, t)
		}),
		"date_part(text, time)":                                                    fieldFixed(getInt, setFloat, func(f field, name string, t int64) (float64, error) { return partOf(extractClock, f, name, t) }),
		"make_date(bigint, bigint, bigint)":                                        ternary(getInt, getInt, getInt, setInt, makeDate),
		"make_time(bigint, bigint, double precision)":                              ternary(getInt, getInt, getFloat, setInt, makeClock),
		"make_timestamp(bigint, bigint, bigint, bigint, bigint, double precision)": {make: func() kernel { return makeTimestamp }},
		"timezone(interval, timestamptz)":                                          binaryOp(getInterval, getInt, setInt, func(v record.Interval, t int64) (int64, error) { return shiftZone(v, t, 1) }),
		"timezone(interval, timestamp)":                                            binaryOp(getInterval, getInt, setInt, func(v record.Interval, t int64) (int64, error) { return shiftZone(v, t, -1) }),
	}
	for _, op := range []struct {
		name string
		sign int64
	}{{"add(date, interval)", 1}, {"sub(date, interval)", -1}} {
		m[op.name] = binaryOp(getInt, getInterval, setInt, func(d int64, v record.Interval) (int64, error) {
			t, err := timestampOf(d, 0)
			if err != nil {
				return 0, err
			}
			return addInterval(t, v, op.sign)
		})
	}
	m["add(interval, date)"] = binaryOp(getInterval, getInt, setInt, func(v record.Interval, d int64) (int64, error) {
		t, err := timestampOf(d, 0)
		if err != nil {
			return 0, err
		}
		return addInterval(t, v, 1)
	})
	// What timestamps in UTC have, those without a zone have too.
	for with, without := range map[string]string{
		"add(timestamptz, interval)": "add(timestamp, interval)", "add(interval, timestamptz)": "add(interval, timestamp)",
		"sub(timestamptz, interval)": "sub(timestamp, interval)", "sub(timestamptz, timestamptz)": "sub(timestamp, timestamp)",
		"date_bin(interval, timestamptz, timestamptz)": "date_bin(interval, timestamp, timestamp)",
		"age(timestamptz, timestamptz)":                "age(timestamp, timestamp)",
	} {
		m[without] = timeImpls[with]
	}
	m["date_trunc(text, timestamp)"] = fieldImpls["date_trunc(text, timestamptz)"]
	m["extract(text, timestamp)"] = fieldBytes(getInt, extractLocal)
	m["date_part(text, timestamp)"] = fieldFixed(getInt, setFloat, func(f field, name string, t int64) (float64, error) {
		return partOf(extractLocal, f, name, t)
	})
	return m
}

func addDays(d, n int64) (int64, error) {
	sum := d + n
	if (n > 0 && sum < d) || (n < 0 && sum > d) || sum < record.MinDate || sum > record.MaxDate {
		return 0, errDateRange
	}
	return sum, nil
}

// addClock goes round midnight.
func addClock(t, micros int64) (int64, error) {
	return floorMod(t%microsPerDay+micros%microsPerDay, microsPerDay), nil
}

// extractLocal is extract of a timestamp without time zone.
func extractLocal(dst []byte, f field, name string, t int64) ([]byte, error) {
	switch f {
	case fieldTimezone, fieldTimezoneHour, fieldTimezoneMinute:
		return dst, errField(f, name, "timestamp without time zone", false)
	}
	return extractTime(dst, f, name, t)
}

// extractDate is extract of a date, which has no time of day.
func extractDate(dst []byte, f field, name string, days int64) ([]byte, error) {
	switch f {
	case fieldMicrosecond, fieldMillisecond, fieldSecond, fieldMinute, fieldHour, fieldTimezone, fieldTimezoneHour, fieldTimezoneMinute, fieldNone:
		return dst, errField(f, name, "date", false)
	}
	t, err := timestampOf(days, 0)
	if err != nil {
		return dst, err
	}
	if f == fieldEpoch {
		return appendSmall(dst, t/microsPerSecond, 0), nil
	}
	if f == fieldJulian {
		return appendSmall(dst, days+unixJulianDay, 0), nil
	}
	return extractTime(dst, f, name, t)
}

func extractClock(dst []byte, f field, name string, t int64) ([]byte, error) {
	switch f {
	case fieldHour:
		return appendSmall(dst, t/microsPerHour, 0), nil // 24:00 too
	case fieldMicrosecond, fieldMillisecond, fieldSecond, fieldMinute, fieldEpoch:
		return extractTime(dst, f, name, t)
	}
	return dst, errField(f, name, "time", false)
}

func makeDate(year, month, day int64) (int64, error) {
	if year == 0 || year < -4713 || year > 300_000 || month < 1 || month > 12 || day < 1 {
		return 0, errFieldRange
	}
	if year < 0 {
		year++ // 1 BC is year 0
	}
	if day > int64(daysInMonth(year, int(month))) {
		return 0, errFieldRange
	}
	d := daysOf(year, int(month), int(day))
	if d < record.MinDate || d > record.MaxDate {
		return 0, errDateRange
	}
	return d, nil
}

func makeClock(hour, minute int64, second float64) (int64, error) {
	micros := math.RoundToEven(second * microsPerSecond)
	if hour < 0 || hour > 24 || minute < 0 || minute > 59 || !(micros >= 0 && micros <= microsPerMinute) {
		return 0, errFieldRange
	}
	t := hour*microsPerHour + minute*microsPerMinute + int64(micros)
	if t > microsPerDay {
		return 0, errFieldRange
	}
	return t, nil
}

// makeTimestamp takes year, month, day, hour, minute, seconds.
func makeTimestamp(c *call) {
	arg := func(k, i int) int64 { return c.args[k].col.Ints[i&c.args[k].mask] }
	for i := range c.n {
		if c.null(i) {
			continue
		}
		days, err := makeDate(arg(0, i), arg(1, i), arg(2, i))
		var clock, t int64
		if err == nil {
			clock, err = makeClock(arg(3, i), arg(4, i), c.args[5].col.Floats[i&c.args[5].mask])
		}
		if err == nil {
			t, err = timestampOf(days, clock)
		}
		if err != nil {
			c.fail(i, err)
			continue
		}
		c.out.Ints[i] = t
	}
}

func shiftZone(v record.Interval, t, sign int64) (int64, error) {
	if v.Months != 0 || v.Days != 0 {
		return 0, errZone
	}
	return addInterval(t, record.Interval{Micros: v.Micros}, sign)
}
