package record

import (
	"math"
	"strconv"

	"github.com/millrace/millrace/internal/fault"
)

// Range of a TIMESTAMPTZ, in microseconds since the Unix epoch: from PostgreSQL's least (24 November 4714 BC) to what
// 63 bits hold from 1970 on; PostgreSQL, counting from 2000, ends 29 years later.
const (
	MinTimestamp = -210866803200_000_000
	MaxTimestamp = math.MaxInt64
)

// civilDays returns the days since the Unix epoch of a proleptic Gregorian date (year 0 is 1 BC).
// Howard Hinnant, "chrono-compatible low-level date algorithms", days_from_civil.
func civilDays(year, month, day int) int64 {
	y := int64(year)
	if month <= 2 {
		y--
	}
	era := floorDiv(y, 400)
	yoe := y - era*400
	mp := int64(month+9) % 12
	doy := (153*mp+2)/5 + int64(day) - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return era*146097 + doe - 719468
}

// civilDate is the inverse of civilDays.
func civilDate(days int64) (year, month, day int) {
	z := days + 719468
	era := floorDiv(z, 146097)
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day = int(doy - (153*mp+2)/5 + 1)
	month = int(mp+2)%12 + 1
	year = int(yoe + era*400)
	if month <= 2 {
		year++
	}
	return year, month, day
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// appendTimestamp appends micros as PostgreSQL prints a timestamptz in time zone UTC.
func appendTimestamp(dst []byte, micros int64) []byte {
	days := floorDiv(micros, microsPerDay)
	year, month, day := civilDate(days)
	bc := year <= 0
	if bc {
		year = 1 - year
	}
	dst = appendDate(dst, year, month, day)
	dst = append(dst, ' ')
	dst = appendClock(dst, micros-days*microsPerDay, false)
	dst = append(dst, "+00"...)
	if bc {
		dst = append(dst, " BC"...)
	}
	return dst
}

// appendRFC3339 appends micros with six digits of fraction. Years outside 0000-9999, for which RFC 3339 has no form,
// are written with as many digits and the sign that they need.
func appendRFC3339(dst []byte, micros int64) []byte {
	days := floorDiv(micros, microsPerDay)
	year, month, day := civilDate(days)
	if year < 0 {
		dst = append(dst, '-')
		year = -year
	}
	dst = appendDate(dst, year, month, day)
	dst = append(dst, 'T')
	dst = appendClock(dst, micros-days*microsPerDay, true)
	return append(dst, 'Z')
}

func appendDate(dst []byte, year, month, day int) []byte {
	if year < 10000 {
		dst = append(dst, byte('0'+year/1000), byte('0'+year/100%10), byte('0'+year/10%10), byte('0'+year%10))
	} else {
		dst = strconv.AppendInt(dst, int64(year), 10)
	}
	return append(dst, '-', byte('0'+month/10), byte('0'+month%10), '-', byte('0'+day/10), byte('0'+day%10))
}

// appendClock appends hh:mm:ss of micros within a day and the fraction, without trailing zeros unless all is set.
func appendClock(dst []byte, micros int64, all bool) []byte {
	s, us := micros/1_000_000, int(micros%1_000_000)
	h, m, sec := int(s/3600), int(s/60%60), int(s%60)
	dst = append(dst, byte('0'+h/10), byte('0'+h%10), ':', byte('0'+m/10), byte('0'+m%10), ':', byte('0'+sec/10), byte('0'+sec%10))
	return appendMicros(dst, us, all)
}

func appendMicros(dst []byte, us int, all bool) []byte {
	if us == 0 && !all {
		return dst
	}
	dst = append(dst, '.', byte('0'+us/100000), byte('0'+us/10000%10), byte('0'+us/1000%10),
		byte('0'+us/100%10), byte('0'+us/10%10), byte('0'+us%10))
	for !all && dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

func two(s []byte, i int) (int, bool) {
	a, b := s[i]-'0', s[i+1]-'0'
	return int(a)*10 + int(b), a <= 9 && b <= 9
}

// parseRFC3339 parses the forms that most records have: yyyy-mm-ddThh:mm:ss[.f], with T or a space, followed by Z, an
// offset of ±hh, ±hh:mm or ±hhmm, or nothing (UTC). ok is false for any other text, which may still be a timestamp in
// another spelling or out of range.
func parseRFC3339(s []byte) (micros int64, ok bool) {
	if len(s) < 19 || s[4] != '-' || s[7] != '-' || s[13] != ':' || s[16] != ':' || (s[10]|0x20 != 't' && s[10] != ' ') {
		return 0, false
	}
	century, ok1 := two(s, 0)
	year, ok2 := two(s, 2)
	month, ok3 := two(s, 5)
	day, ok4 := two(s, 8)
	hour, ok5 := two(s, 11)
	minute, ok6 := two(s, 14)
	sec, ok7 := two(s, 17)
	year += century * 100
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6 && ok7) || year == 0 || month-1 > 11 || month == 0 ||
		day == 0 || day > daysIn(year, month) || hour > 23 || minute > 59 || sec > 59 {
		return 0, false
	}
	micros = civilDays(year, month, day)*microsPerDay + int64(hour*3600+minute*60+sec)*1_000_000
	i := 19
	if i < len(s) && s[i] == '.' {
		var us int64
		unit := int64(100_000)
		for i++; i < len(s) && isDigit(s[i]); i++ {
			if unit == 0 {
				return 0, false // more than six digits: rounded by the slow path
			}
			us += int64(s[i]-'0') * unit
			unit /= 10
		}
		if unit == 100_000 {
			return 0, false
		}
		micros += us
	}
	if i == len(s) || (i == len(s)-1 && s[i]|0x20 == 'z') {
		return micros, true
	}
	offset, ok := parseOffset(s[i:])
	return micros - offset*1_000_000, ok
}

// parseOffset parses ±hh, ±hh:mm and ±hhmm to seconds east of UTC.
func parseOffset(s []byte) (seconds int64, ok bool) {
	if len(s) < 3 || (s[0] != '+' && s[0] != '-') {
		return 0, false
	}
	h, ok1 := two(s, 1)
	m, ok2 := 0, true
	switch {
	case len(s) == 3:
	case len(s) == 5:
		m, ok2 = two(s, 3)
	case len(s) == 6 && s[3] == ':':
		m, ok2 = two(s, 4)
	default:
		return 0, false
	}
	if !ok1 || !ok2 || h > 15 || m > 59 {
		return 0, false
	}
	seconds = int64(h*3600 + m*60)
	if s[0] == '-' {
		seconds = -seconds
	}
	return seconds, true
}

// parseTimestamp parses s in PostgreSQL's input syntax; without an offset it is UTC. Errors have SQLSTATE 22007
// (syntax), 22008 (out of range) and 0A000 (infinity, and words whose meaning changes with the clock).
func parseTimestamp(s []byte) (int64, error) {
	if micros, ok := parseRFC3339(s); ok {
		return micros, nil
	}
	return parseTimestampSlow(string(s))
}

func timeSyntax(t Type, s string) error {
	name := t.String()
	if t == TimestampTZ {
		name = "timestamp with time zone"
	}
	return fault.SQL(fault.Invalid, "22007", "invalid input syntax for type %s: %s", name, quote(s))
}

func fieldRange(s string) error {
	return fault.SQL(fault.Invalid, "22008", "date/time field value out of range: %s", quote(s))
}

func timestampRange(s string) error {
	return fault.SQL(fault.Invalid, "22008", "timestamp out of range: %s", quote(s))
}
