package dataflow

import (
	"math"

	"github.com/millrace/millrace/record"
)

// Units in microseconds.
const (
	microsPerSecond = 1_000_000
	microsPerMinute = 60 * microsPerSecond
	microsPerHour   = 60 * microsPerMinute
	microsPerDay    = 24 * microsPerHour
	daysPerMonth    = 30
	monthsPerYear   = 12
)

// unixJulianDay is the Julian day of the Unix epoch.
const unixJulianDay = 2_440_588

// moment is a time taken apart, in UTC and the proleptic Gregorian calendar. Year 0 is 1 BC.
type moment struct {
	year           int64
	month, day     int
	hour, min, sec int
	micro          int
	days           int64 // since the Unix epoch
	dayMicros      int64 // since midnight
}

// floorDiv and floorMod round towards negative infinity.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func floorMod(a, b int64) int64 {
	m := a % b
	if m < 0 {
		m += b
	}
	return m
}

func momentOf(t int64) moment {
	var m moment
	m.days, m.dayMicros = floorDiv(t, microsPerDay), floorMod(t, microsPerDay)
	m.year, m.month, m.day = civilOf(m.days)
	m.hour = int(m.dayMicros / microsPerHour)
	m.min = int(m.dayMicros / microsPerMinute % 60)
	m.sec = int(m.dayMicros / microsPerSecond % 60)
	m.micro = int(m.dayMicros % microsPerSecond)
	return m
}

// civilOf returns the date of a day counted from the Unix epoch. (H. Hinnant, "chrono-compatible low-level date
// algorithms", civil_from_days: eras of 400 years that begin on 1 March.)
func civilOf(days int64) (year int64, month, day int) {
	days += 719468
	era := floorDiv(days, 146097)
	doe := days - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day = int(doy - (153*mp+2)/5 + 1)
	month = int(mp + 3)
	year = yoe + era*400
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

// daysOf is the reverse of civilOf.
func daysOf(year int64, month, day int) int64 {
	if month <= 2 {
		year--
	}
	era := floorDiv(year, 400)
	yoe := year - era*400
	mp := int64(month+9) % 12
	doy := (153*mp+2)/5 + int64(day) - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return era*146097 + doe - 719468
}

func isLeap(year int64) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0) }

func daysInMonth(year int64, month int) int {
	switch month {
	case 2:
		if isLeap(year) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// timestampOf returns the time of a day and the microseconds in it.
func timestampOf(days, micros int64) (int64, error) {
	t := mul64(days, microsPerDay).add(wide(micros))
	v, ok := t.small()
	if !ok || v < record.MinTimestamp {
		return 0, errTimestampRange
	}
	return v, nil
}

// weekday returns 0 for Sunday.
func weekday(days int64) int { return int(floorMod(days+4, 7)) }

// isoWeek returns the ISO 8601 year and week: a week belongs to the year that holds its Thursday.
func isoWeek(days int64) (year int64, week int) {
	thursday := days - int64(weekday(days)+6)%7 + 3
	year, _, _ = civilOf(thursday)
	return year, int(thursday-daysOf(year, 1, 1))/7 + 1
}

// addInterval returns t plus v (minus v, if sign is -1): months, cut to the end of a shorter month, then days, then
// microseconds.
func addInterval(t int64, v record.Interval, sign int64) (int64, error) {
	if v.Months != 0 {
		m := momentOf(t)
		months := m.year*monthsPerYear + int64(m.month-1) + sign*int64(v.Months)
		year, month := floorDiv(months, monthsPerYear), int(floorMod(months, monthsPerYear))+1
		var err error
		if t, err = timestampOf(daysOf(year, month, min(m.day, daysInMonth(year, month))), m.dayMicros); err != nil {
			return 0, err
		}
	}
	sum := mul64(int64(v.Days)*sign, microsPerDay).add(mul64(v.Micros, sign)).add(wide(t))
	r, ok := sum.small()
	if !ok || r < record.MinTimestamp {
		return 0, errTimestampRange
	}
	return r, nil
}

// canonicalInterval returns the interval that stands for all that are equal to v: with as many whole months of 30 days
// and then whole days as fit.
func canonicalInterval(v record.Interval) record.Interval {
	rest := mul64((int64(v.Months)*daysPerMonth + int64(v.Days)), microsPerDay).add(wide(v.Micros))
	hi, lo, neg := rest.abs()
	// Parts that don't fit are left to the smaller ones, which can hold them: that is how they came in.
	take := func(unit uint64) int32 {
		_, n, _ := div128(hi, lo, unit)
		n = min(n, math.MaxInt32)
		used := mul64(int64(n), int64(unit))
		left := int128{int64(hi), lo}.add(used.neg())
		hi, lo = uint64(left.hi), left.lo
		if neg {
			return -int32(n)
		}
		return int32(n)
	}
	out := record.Interval{Months: take(daysPerMonth * microsPerDay)}
	out.Days = take(microsPerDay)
	micros := int128{int64(hi), lo}
	if neg {
		micros = micros.neg()
	}
	var ok bool
	if out.Micros, ok = micros.small(); !ok {
		return v
	}
	return out
}
