package dataflow

import (
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// fieldImpls is functions that take the name of a field of a time: extract, date_part, date_trunc.
var fieldImpls = map[string]impl{
	"extract(text, timestamptz)": fieldBytes(getInt, extractTime),
	"extract(text, interval)":    fieldBytes(getInterval, extractInterval),
	"date_part(text, timestamptz)": fieldFixed(getInt, setFloat, func(f field, name string, t int64) (float64, error) {
		return partOf(extractTime, f, name, t)
	}),
	"date_part(text, interval)": fieldFixed(getInterval, setFloat, func(f field, name string, v record.Interval) (float64, error) {
		return partOf(extractInterval, f, name, v)
	}),
	"date_trunc(text, timestamptz)": fieldFixed(getInt, setInt, truncTime),
	"date_trunc(text, interval)":    fieldFixed(getInterval, setInterval, truncInterval),
}

// field is a part of a time.
type field uint8

const (
	fieldNone field = iota
	fieldMicrosecond
	fieldMillisecond
	fieldSecond
	fieldMinute
	fieldHour
	fieldDay
	fieldWeek
	fieldMonth
	fieldQuarter
	fieldYear
	fieldDecade
	fieldCentury
	fieldMillennium
	fieldDow
	fieldIsoDow
	fieldDoy
	fieldIsoYear
	fieldEpoch
	fieldJulian
	fieldTimezone
	fieldTimezoneHour
	fieldTimezoneMinute
)

// fieldNames is PostgreSQL's names of fields and their abbreviations.
var fieldNames = map[string]field{
	"microseconds": fieldMicrosecond, "microsecon": fieldMicrosecond, "microsecond": fieldMicrosecond, "us": fieldMicrosecond,
	"usec": fieldMicrosecond, "usecs": fieldMicrosecond, "useconds": fieldMicrosecond, "usecond": fieldMicrosecond,
	"milliseconds": fieldMillisecond, "millisecond": fieldMillisecond, "millisecon": fieldMillisecond, "ms": fieldMillisecond,
	"msec": fieldMillisecond, "msecs": fieldMillisecond, "mseconds": fieldMillisecond, "msecond": fieldMillisecond,
	"second": fieldSecond, "seconds": fieldSecond, "sec": fieldSecond, "secs": fieldSecond, "s": fieldSecond,
	"minute": fieldMinute, "minutes": fieldMinute, "min": fieldMinute, "mins": fieldMinute, "m": fieldMinute,
	"hour": fieldHour, "hours": fieldHour, "hr": fieldHour, "hrs": fieldHour, "h": fieldHour,
	"day": fieldDay, "days": fieldDay, "d": fieldDay,
	"week": fieldWeek, "weeks": fieldWeek, "w": fieldWeek,
	"month": fieldMonth, "months": fieldMonth, "mon": fieldMonth, "mons": fieldMonth,
	"quarter": fieldQuarter, "qtr": fieldQuarter,
	"year": fieldYear, "years": fieldYear, "yr": fieldYear, "yrs": fieldYear, "y": fieldYear,
	"decade": fieldDecade, "decades": fieldDecade, "dec": fieldDecade, "decs": fieldDecade,
	"century": fieldCentury, "centuries": fieldCentury, "cent": fieldCentury, "c": fieldCentury,
	"millennium": fieldMillennium, "millennia": fieldMillennium, "mil": fieldMillennium, "mils": fieldMillennium,
	"dow": fieldDow, "isodow": fieldIsoDow, "doy": fieldDoy, "isoyear": fieldIsoYear, "epoch": fieldEpoch,
	"julian": fieldJulian, "jd": fieldJulian, "j": fieldJulian,
	"timezone": fieldTimezone, "timezone_h": fieldTimezoneHour, "timezone_hour": fieldTimezoneHour,
	"timezone_m": fieldTimezoneMinute, "timezone_minute": fieldTimezoneMinute,
}

// fieldMemo remembers the field that was named last: nearly always it is a constant.
type fieldMemo struct {
	name  string
	field field
}

func (m *fieldMemo) of(name []byte) field {
	if m.name != string(name) || m.name == "" {
		m.name = strings.ToLower(string(name))
		m.field = fieldNames[m.name]
		m.name = string(name)
	}
	return m.field
}

func fieldFixed[A, R any](get getter[A], set setter[R], f func(f field, name string, a A) (R, error)) impl {
	return impl{make: func() kernel {
		var memo fieldMemo
		return binaryKernel(getBytes, get, set, func(name []byte, a A) (R, error) {
			return f(memo.of(name), memo.name, a)
		})
	}}
}

func fieldBytes[A any](get getter[A], f func(dst []byte, f field, name string, a A) ([]byte, error)) impl {
	return impl{make: func() kernel {
		var memo fieldMemo
		return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
			name, a := c.args[0], c.args[1]
			return f(dst, memo.of(name.col.At(i&name.mask)), memo.name, get(a.col, i&a.mask))
		})
	}}
}

// partOf is extract as a double.
func partOf[A any](extract func([]byte, field, string, A) ([]byte, error), f field, name string, a A) (float64, error) {
	var buf [40]byte
	b, err := extract(buf[:0], f, name, a)
	if err != nil {
		return 0, err
	}
	return numericToDouble(b)
}

// errField is the error of a field that a function doesn't have; trunc tells that the function cuts, which only few
// fields make sense for.
func errField(f field, name, typ string, trunc bool) error {
	if f == fieldNone || trunc && f > fieldMillennium && f < fieldTimezone {
		return fault.SQL(fault.Invalid, "22023", "unit %q not recognized for type %s", shorten([]byte(name)), typ)
	}
	return fault.SQL(fault.Unsupported, "0A000", "unit %q not supported for type %s", name, typ)
}

const timeType, intervalType = "timestamp with time zone", "interval"

func extractTime(dst []byte, f field, name string, t int64) ([]byte, error) {
	m := momentOf(t)
	n := int64(0)
	switch f {
	case fieldMicrosecond:
		n = int64(m.sec)*microsPerSecond + int64(m.micro)
	case fieldMillisecond:
		return appendSmall(dst, int64(m.sec)*microsPerSecond+int64(m.micro), 3), nil
	case fieldSecond:
		return appendSmall(dst, int64(m.sec)*microsPerSecond+int64(m.micro), 6), nil
	case fieldEpoch:
		return appendSmall(dst, t, 6), nil
	case fieldJulian:
		var buf [64]byte
		part, err := divNumeric(buf[:0], strconv.AppendInt(nil, m.dayMicros, 10), []byte("86400000000"))
		if err != nil {
			return dst, err
		}
		return addNumeric(dst, strconv.AppendInt(nil, m.days+unixJulianDay, 10), part, false)
	case fieldMinute:
		n = int64(m.min)
	case fieldHour:
		n = int64(m.hour)
	case fieldTimezone, fieldTimezoneHour, fieldTimezoneMinute:
	default:
		var ok bool
		if n, ok = datePart(f, &m); !ok {
			return dst, errField(f, name, timeType, false)
		}
	}
	return strconv.AppendInt(dst, n, 10), nil
}

// datePart returns the fields of a date.
func datePart(f field, m *moment) (int64, bool) {
	switch f {
	case fieldDay:
		return int64(m.day), true
	case fieldMonth:
		return int64(m.month), true
	case fieldQuarter:
		return int64(m.month-1)/3 + 1, true
	case fieldYear:
		return noYearZero(m.year), true
	case fieldDecade:
		return floorDiv(m.year, 10), true
	case fieldCentury:
		return centuryOf(m.year, 100), true
	case fieldMillennium:
		return centuryOf(m.year, 1000), true
	case fieldWeek:
		_, week := isoWeek(m.days)
		return int64(week), true
	case fieldIsoYear:
		year, _ := isoWeek(m.days)
		return noYearZero(year), true
	case fieldDow:
		return int64(weekday(m.days)), true
	case fieldIsoDow:
		return int64(weekday(m.days)+6)%7 + 1, true
	case fieldDoy:
		return m.days - daysOf(m.year, 1, 1) + 1, true
	}
	return 0, false
}

// noYearZero returns the year as people count it: -1 before 1.
func noYearZero(year int64) int64 {
	if year <= 0 {
		return year - 1
	}
	return year
}

// centuryOf returns the century, or the like of another length: the first ends with year 100, the one before it is -1.
func centuryOf(year, length int64) int64 {
	if year > 0 {
		return (year + length - 1) / length
	}
	return -((length - 1 - (year - 1)) / length)
}

func extractInterval(dst []byte, f field, name string, v record.Interval) ([]byte, error) {
	n := int64(0)
	switch f {
	case fieldMicrosecond:
		n = v.Micros % microsPerMinute
	case fieldMillisecond:
		return appendSmall(dst, v.Micros%microsPerMinute, 3), nil
	case fieldSecond:
		return appendSmall(dst, v.Micros%microsPerMinute, 6), nil
	case fieldEpoch:
		// A year has 365.25 days here, and a month of those left over 30.
		quarters := (int64(v.Months/monthsPerYear)*1461 + int64(v.Months%monthsPerYear)*4*daysPerMonth + int64(v.Days)*4)
		hi, lo, neg := mul64(quarters, microsPerDay/4).add(wide(v.Micros)).abs()
		return appendScaled(dst, hi, lo, 6, neg), nil
	case fieldMinute:
		n = v.Micros / microsPerMinute % 60
	case fieldHour:
		n = v.Micros / microsPerHour
	case fieldDay:
		n = int64(v.Days)
	case fieldMonth:
		n = int64(v.Months % monthsPerYear)
	case fieldQuarter:
		n = int64(v.Months%monthsPerYear)/3 + 1
	case fieldYear:
		n = int64(v.Months / monthsPerYear)
	case fieldDecade:
		n = int64(v.Months / (10 * monthsPerYear))
	case fieldCentury:
		n = int64(v.Months / (100 * monthsPerYear))
	case fieldMillennium:
		n = int64(v.Months / (1000 * monthsPerYear))
	default:
		return dst, errField(f, name, intervalType, false)
	}
	return strconv.AppendInt(dst, n, 10), nil
}

func truncTime(f field, name string, t int64) (int64, error) {
	unit := int64(0)
	switch f {
	case fieldMicrosecond:
		return t, nil
	case fieldMillisecond:
		unit = 1000
	case fieldSecond:
		unit = microsPerSecond
	case fieldMinute:
		unit = microsPerMinute
	case fieldHour:
		unit = microsPerHour
	case fieldDay:
		unit = microsPerDay
	}
	if unit != 0 {
		r, ok := wide(t).add(wide(-floorMod(t, unit))).small()
		if !ok {
			return 0, errTimestampRange
		}
		return r, nil
	}
	m := momentOf(t)
	switch f {
	case fieldWeek:
		return timestampOf(m.days-int64(weekday(m.days)+6)%7, 0)
	case fieldMonth:
	case fieldQuarter:
		m.month = (m.month-1)/3*3 + 1
	case fieldYear:
		m.month = 1
	case fieldDecade:
		m.year, m.month = floorDiv(m.year, 10)*10, 1
	case fieldCentury:
		m.year, m.month = firstYear(m.year, 100), 1
	case fieldMillennium:
		m.year, m.month = firstYear(m.year, 1000), 1
	default:
		return 0, errField(f, name, timeType, true)
	}
	return timestampOf(daysOf(m.year, m.month, 1), 0)
}

// firstYear returns the first year of the year's century or the like.
func firstYear(year, length int64) int64 {
	if year > 0 {
		return (year+length-1)/length*length - (length - 1)
	}
	return -((length-1-(year-1))/length)*length + 1
}

func truncInterval(f field, name string, v record.Interval) (record.Interval, error) {
	cut := func(unit int64) { v.Micros -= v.Micros % unit }
	months := func(n int32) { v = record.Interval{Months: v.Months - v.Months%n} }
	switch f {
	case fieldMicrosecond:
	case fieldMillisecond:
		cut(1000)
	case fieldSecond:
		cut(microsPerSecond)
	case fieldMinute:
		cut(microsPerMinute)
	case fieldHour:
		cut(microsPerHour)
	case fieldDay:
		v.Micros = 0
	case fieldMonth:
		months(1)
	case fieldQuarter:
		months(3)
	case fieldYear:
		months(monthsPerYear)
	case fieldDecade:
		months(10 * monthsPerYear)
	case fieldCentury:
		months(100 * monthsPerYear)
	case fieldMillennium:
		months(1000 * monthsPerYear)
	default:
		return v, errField(f, name, intervalType, true)
	}
	return v, nil
}
