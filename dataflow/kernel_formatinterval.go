package dataflow

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// formatIntervalImpls is to_char of intervals.
var formatIntervalImpls = map[string]impl{
	"to_char(interval, text)": {make: func() kernel {
		var f timeFormat
		return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
			v, pattern := c.args[0], bytesArg(c, 1, i)
			if len(pattern) == 0 {
				c.setNull(i) // as PostgreSQL has it
				return dst, nil
			}
			f.set(pattern)
			return f.writeInterval(dst, v.col.Intervals[i&v.mask])
		})
	}},
}

var errIntervalField = fault.SQL(fault.Invalid, "22007", "invalid format specification for an interval value; intervals are not tied to specific calendar dates")

// span is an interval's fields as to_char takes them: hours may be any number.
type intervalFields struct {
	year, month, day int
	hour             int64
	min, sec, micro  int
}

func (f *timeFormat) writeInterval(dst []byte, v record.Interval) ([]byte, error) {
	m := intervalFields{year: int(v.Months / 12), month: int(v.Months % 12), day: int(v.Days), hour: v.Micros / microsPerHour}
	m.min, m.sec = int(v.Micros/microsPerMinute%60), int(v.Micros/microsPerSecond%60)
	m.micro = int(v.Micros % microsPerSecond)
	for i := range f.parts {
		p := &f.parts[i]
		if p.keyword < 0 {
			dst = append(dst, p.text...)
			continue
		}
		start := len(dst)
		var ok bool
		if dst, ok = p.appendInterval(dst, formatKeywords[p.keyword], &m); !ok {
			return dst, errIntervalField
		}
		if p.ordinal != ordinalNone {
			dst = appendOrdinal(dst, start, p.ordinal == ordinalUpper)
		}
		if len(dst) > maxResultBytes {
			return dst, errTextLength
		}
	}
	return dst, nil
}

// wide appends n with zeros to width digits, and its sign if it has one, unless FM is set.
func (p *formatPart) wide(dst []byte, n int64, width int) []byte {
	if !p.fill {
		width = 0
	} else if n < 0 {
		width++
	}
	return fmt.Appendf(dst, "%0*d", width, n)
}

func (p *formatPart) appendInterval(dst []byte, word string, m *intervalFields) ([]byte, bool) {
	switch word {
	case "HH24":
		return p.wide(dst, m.hour, 2), true
	case "HH12", "HH":
		hour := m.hour % 12
		if hour == 0 {
			hour = 12
		}
		if p.fill && m.hour < 0 {
			return fmt.Appendf(dst, "%03d", hour), true
		}
		return p.wide(dst, hour, 2), true
	case "MI":
		return p.wide(dst, int64(m.min), 2), true
	case "SS":
		return p.wide(dst, int64(m.sec), 2), true
	case "SSSS", "SSSSS":
		return strconv.AppendInt(dst, m.hour*3600+int64(m.min*60+m.sec), 10), true
	case "MS", "FF3":
		return fmt.Appendf(dst, "%03d", m.micro/1000), true
	case "US", "FF6":
		return fmt.Appendf(dst, "%06d", m.micro), true
	case "FF1", "FF2", "FF4", "FF5":
		digits := int(word[2] - '0')
		return fmt.Appendf(dst, "%0*d", digits, m.micro/int(pow10[6-digits])), true
	case "AM", "PM", "am", "pm", "A.M.", "P.M.", "a.m.", "p.m.":
		return append(dst, halfDay(word, m.hour%24 < 12)...), true
	}
	return p.intervalDate(dst, word, m)
}

func (p *formatPart) intervalDate(dst []byte, word string, m *intervalFields) ([]byte, bool) {
	switch word {
	case "MM":
		return p.wide(dst, int64(m.month), 2), true
	case "DD":
		return fmt.Appendf(dst, "%0*d", 2*b2i(p.fill), m.day), true
	case "DDD":
		return fmt.Appendf(dst, "%0*d", 3*b2i(p.fill), m.dayOfYear()), true
	case "IDDD":
		return fmt.Appendf(dst, "%0*d", 3*b2i(p.fill), m.julian()-isoYearStart(m.isoYear())+1), true
	case "WW":
		return fmt.Appendf(dst, "%0*d", 2*b2i(p.fill), (m.dayOfYear()-1)/7+1), true
	case "IW":
		return fmt.Appendf(dst, "%0*d", 2*b2i(p.fill), (m.julian()-isoYearStart(m.isoYear()))/7+1), true
	case "W":
		return strconv.AppendInt(dst, int64((m.day-1)/7+1), 10), true
	case "J":
		return strconv.AppendInt(dst, int64(m.julian()), 10), true
	case "Q":
		if m.month != 0 {
			dst = strconv.AppendInt(dst, int64((m.month-1)/3+1), 10)
		}
		return dst, true
	case "RM", "rm":
		return p.intervalRoman(dst, word, m), true
	case "CC":
		if c := m.year / 100; c <= 99 && c >= -99 {
			return p.wide(dst, int64(c), 2), true
		}
		return strconv.AppendInt(dst, int64(m.year/100), 10), true
	case "Y,YYY":
		return fmt.Appendf(dst, "%d,%03d", m.year/1000, m.year%1000), true
	case "YYYY", "YYY", "YY", "Y", "IYYY", "IYY", "IY", "I":
		year, digits := m.year, len(word)
		if word[0] == 'I' {
			year = m.isoYear()
		}
		if digits < 4 {
			year %= int(pow10[digits])
		}
		if p.fill && m.year < 0 { // one more for the sign, which a year of the other kind may not have
			return fmt.Appendf(dst, "%0*d", digits+1, year), true
		}
		return fmt.Appendf(dst, "%0*d", digits*b2i(p.fill), year), true
	}
	return dst, false
}

// intervalRoman writes the months as a Roman numeral; negative ones are counted from the end of the year.
func (p *formatPart) intervalRoman(dst []byte, word string, m *intervalFields) []byte {
	var month int
	switch {
	case m.month == 0 && m.year == 0:
		return dst
	case m.month == 0 && m.year > 0:
		month = 12
	case m.month == 0:
		month = 1
	case m.month < 0:
		month = 13 + m.month
	default:
		month = m.month
	}
	name := romanMonths[month-1]
	if word == "rm" {
		name = strings.ToLower(name)
	}
	return p.name(dst, name, 4)
}

// The fields below take an interval for a date, as PostgreSQL does, which makes sense of few.

func (m *intervalFields) dayOfYear() int { return (m.year*12+m.month)*30 + m.day }

func (m *intervalFields) julian() int { return julianDay(m.year, m.month, m.day) }

// julianDay is PostgreSQL's date2j, which takes any month.
func julianDay(y, m, d int) int {
	if m > 2 {
		m++
		y += 4800
	} else {
		m += 13
		y += 4799
	}
	century := y / 100
	return y*365 - 32167 + y/4 - century + century/4 + 7834*m/256 + d
}

// isoYearStart returns the Julian day of the Monday with which an ISO year begins.
func isoYearStart(year int) int {
	day := julianDay(year, 1, 4)
	weekday := day % 7 // of Monday: 0
	if weekday < 0 {
		weekday += 7
	}
	return day - weekday
}

func (m *intervalFields) isoYear() int {
	day, year := m.julian(), m.year
	if day < isoYearStart(year) {
		return year - 1
	}
	if day >= isoYearStart(year+1) {
		return year + 1
	}
	return year
}
