package record

import (
	"math"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/fault"
)

// appendInterval appends v as PostgreSQL prints it with IntervalStyle postgres: "1 year 2 mons 3 days 04:05:06.789".
// A part after a negative one that is itself positive gets a plus sign.
func appendInterval(dst []byte, v Interval) []byte {
	start := len(dst)
	neg := false // the part before was negative
	part := func(n int64, unit string) {
		if n == 0 {
			return
		}
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		if neg && n > 0 {
			dst = append(dst, '+')
		}
		dst = strconv.AppendInt(dst, n, 10)
		dst = append(dst, unit...)
		if n != 1 {
			dst = append(dst, 's')
		}
		neg = n < 0
	}
	part(int64(v.Months/12), " year")
	part(int64(v.Months%12), " mon")
	part(int64(v.Days), " day")
	if v.Micros == 0 && len(dst) > start {
		return dst
	}
	if len(dst) > start {
		dst = append(dst, ' ')
	}
	us := uint64(v.Micros)
	if v.Micros < 0 {
		dst = append(dst, '-')
		us = -us
	} else if neg {
		dst = append(dst, '+')
	}
	s := us / 1_000_000
	if h := s / 3600; h < 10 {
		dst = append(dst, '0', byte('0'+h))
	} else {
		dst = strconv.AppendUint(dst, h, 10)
	}
	m, sec := s/60%60, s%60
	dst = append(dst, ':', byte('0'+m/10), byte('0'+m%10), ':', byte('0'+sec/10), byte('0'+sec%10))
	return appendMicros(dst, int(us%1_000_000), false)
}

func intervalSyntax(s string) error {
	return fault.SQL(fault.Invalid, "22007", "invalid input syntax for type interval: %s", quote(s))
}

func intervalRange(s string) error {
	return fault.SQL(fault.Invalid, "22015", "interval field value out of range: %s", quote(s))
}

// intervalSum adds up an interval's fields, each with its overflow check; ok becomes false for good.
type intervalSum struct {
	months, days, micros int64
	ok                   bool
}

func (s *intervalSum) add(to *int64, n, times int64) {
	p := n * times
	if n != 0 && (p/n != times || (n == -1 && times == math.MinInt64)) {
		s.ok = false
		return
	}
	sum := *to + p
	if (p > 0 && sum < *to) || (p < 0 && sum > *to) {
		s.ok = false
		return
	}
	*to = sum
}

func (s *intervalSum) interval() (Interval, bool) {
	if !s.ok || int64(int32(s.months)) != s.months || int64(int32(s.days)) != s.days {
		return Interval{}, false
	}
	return Interval{Months: int32(s.months), Days: int32(s.days), Micros: s.micros}, true
}

// addMicros adds frac of a unit that has so many microseconds, rounded to even.
func (s *intervalSum) addMicros(frac float64, unit int64) {
	s.add(&s.micros, int64(math.RoundToEven(frac*float64(unit))), 1)
}

// addDays adds a fraction of so many days: whole days, and the rest as time.
func (s *intervalSum) addDays(frac float64, days int64) {
	d := frac * float64(days)
	whole := math.Trunc(d)
	s.add(&s.days, int64(whole), 1)
	s.addMicros(d-whole, microsPerDay)
}

// intervalUnit is a unit's name and what one of it is; exactly one of the parts is set.
type intervalUnit struct {
	months, days, micros int64
}

func unitOf(name string) (intervalUnit, bool) {
	switch name {
	case "us", "usec", "usecs", "usecond", "useconds", "microsecond", "microseconds", "microsecon":
		return intervalUnit{micros: 1}, true
	case "ms", "msec", "msecs", "msecond", "mseconds", "millisecond", "milliseconds", "millisecon":
		return intervalUnit{micros: 1000}, true
	case "s", "sec", "secs", "second", "seconds":
		return intervalUnit{micros: 1_000_000}, true
	case "m", "min", "mins", "minute", "minutes":
		return intervalUnit{micros: 60_000_000}, true
	case "h", "hr", "hrs", "hour", "hours":
		return intervalUnit{micros: 3_600_000_000}, true
	case "d", "day", "days":
		return intervalUnit{days: 1}, true
	case "w", "week", "weeks":
		return intervalUnit{days: 7}, true
	case "mon", "mons", "month", "months":
		return intervalUnit{months: 1}, true
	case "y", "yr", "yrs", "year", "years":
		return intervalUnit{months: 12}, true
	case "dec", "decs", "decade", "decades":
		return intervalUnit{months: 120}, true
	case "c", "cent", "century", "centuries":
		return intervalUnit{months: 1200}, true
	case "mil", "mils", "millennium", "millennia":
		return intervalUnit{months: 12000}, true
	}
	return intervalUnit{}, false
}

// addUnits adds whole and frac, both with the field's sign, of a unit. As in PostgreSQL, a fraction of a year is
// rounded to months, one of a month becomes days of a month of 30, one of a week or day time.
func (s *intervalSum) addUnits(whole int64, frac float64, u intervalUnit) {
	switch {
	case u.months > 0:
		s.add(&s.months, whole, u.months)
		if u.months > 1 {
			s.add(&s.months, int64(math.RoundToEven(frac*float64(u.months))), 1)
		} else {
			s.addDays(frac, 30)
		}
	case u.days > 0:
		s.add(&s.days, whole, u.days)
		s.addDays(frac, u.days)
	default:
		s.add(&s.micros, whole, u.micros)
		s.addMicros(frac, u.micros)
	}
}

// intervalParser reads PostgreSQL's verbose and SQL-standard spellings.
type intervalParser struct {
	text, rest string
	sum        intervalSum
	fields     int
}

// parseInterval parses PostgreSQL's input syntax: "1 year 2 mons", "@ 1 minute ago", "1-2", "3 04:05:06", "P1Y2M3DT4H5M6S".
// Errors have SQLSTATE 22007 (syntax) and 22015 (out of range).
func parseInterval(s string) (Interval, error) {
	t := strings.ToLower(trimSpace(s))
	if t == "" || len(t) > 256 {
		return Interval{}, intervalSyntax(s)
	}
	switch t {
	case "infinity", "+infinity", "-infinity":
		return Interval{}, intervalSyntax(s) // as in PostgreSQL 15
	}
	p := intervalParser{text: s, rest: t, sum: intervalSum{ok: true}}
	var err error
	if t[0] == 'p' {
		p.rest = t[1:]
		err = p.iso()
	} else {
		err = p.verbose()
	}
	if err != nil {
		return Interval{}, err
	}
	v, ok := p.sum.interval()
	if !ok {
		return Interval{}, intervalRange(s)
	}
	return v, nil
}

func (p *intervalParser) skipSpace() {
	for p.rest != "" && (isSpace(p.rest[0]) || p.rest[0] == ',') {
		p.rest = p.rest[1:]
	}
}

func (p *intervalParser) verbose() error {
	p.rest = strings.TrimPrefix(p.rest, "@")
	ago := false
	for p.skipSpace(); p.rest != ""; p.skipSpace() {
		if ago {
			return intervalSyntax(p.text)
		}
		if p.rest == "ago" || strings.HasPrefix(p.rest, "ago ") {
			if p.fields == 0 {
				return intervalSyntax(p.text)
			}
			ago, p.rest = true, p.rest[3:]
			continue
		}
		if err := p.field(); err != nil {
			return err
		}
		p.fields++
	}
	if p.fields == 0 {
		return intervalSyntax(p.text)
	}
	if ago {
		for _, part := range [...]*int64{&p.sum.months, &p.sum.days, &p.sum.micros} {
			if *part == math.MinInt64 {
				p.sum.ok = false
			}
			*part = -*part
		}
	}
	return nil
}

// number is a decimal number of a field, with its sign in neg.
type number struct {
	whole  int64
	frac   float64
	digits string // of the fraction
	neg    bool
}

// number reads [sign]digits[.digits].
func (p *intervalParser) number() (number, error) {
	var n number
	if p.rest != "" && (p.rest[0] == '-' || p.rest[0] == '+') {
		n.neg, p.rest = p.rest[0] == '-', p.rest[1:]
	}
	w := digitsLen(p.rest)
	whole, err := strconv.ParseInt("0"+p.rest[:w], 10, 64)
	if err != nil {
		return n, intervalRange(p.text)
	}
	n.whole, p.rest = whole, p.rest[w:]
	f := 0
	if p.rest != "" && p.rest[0] == '.' {
		f = digitsLen(p.rest[1:])
		n.digits = p.rest[1 : 1+f]
		p.rest = p.rest[1+f:]
		if f > 0 {
			n.frac, _ = strconv.ParseFloat("0."+n.digits, 64)
		}
	}
	if w+f == 0 {
		return n, intervalSyntax(p.text)
	}
	return n, nil
}

func (n number) signedParts() (int64, float64) {
	if n.neg {
		return -n.whole, -n.frac
	}
	return n.whole, n.frac
}

// field reads a number and its unit, a time hh:mm[:ss], or years-months.
func (p *intervalParser) field() error {
	n, err := p.number()
	if err != nil {
		return err
	}
	switch {
	case p.rest != "" && p.rest[0] == ':' && n.digits == "":
		return p.clock(n)
	case p.rest != "" && p.rest[0] == '-' && n.digits == "" && digitsLen(p.rest[1:]) > 0:
		return p.yearMonth(n)
	}
	spaced := p.rest != "" && isSpace(p.rest[0])
	rest := strings.TrimLeft(p.rest, " \t\n\r\v\f")
	w := 0
	for w < len(rest) && rest[w] >= 'a' && rest[w] <= 'z' {
		w++
	}
	whole, frac := n.signedParts()
	if w == 0 || rest[:w] == "ago" {
		// A lone number is seconds at the end, and days before a time (the SQL standard's "3 04:05:06").
		u := intervalUnit{micros: 1_000_000}
		if spaced && n.digits == "" && strings.Contains(rest, ":") {
			u = intervalUnit{days: 1}
		} else if strings.TrimSpace(strings.TrimPrefix(rest, "ago")) != "" {
			return intervalSyntax(p.text)
		}
		p.sum.addUnits(whole, frac, u)
		return nil
	}
	u, ok := unitOf(rest[:w])
	if !ok {
		return intervalSyntax(p.text)
	}
	p.rest = rest[w:]
	p.sum.addUnits(whole, frac, u)
	return nil
}

// clock reads the rest of hh:mm[:ss[.f]], or of mm:ss.f.
func (p *intervalParser) clock(h number) error {
	read := func() (int64, error) {
		p.rest = p.rest[1:]
		n := digitsLen(p.rest)
		if n == 0 || n > 9 {
			return 0, intervalSyntax(p.text)
		}
		v := atoi(p.rest[:n])
		p.rest = p.rest[n:]
		return int64(v), nil
	}
	hour := h.whole
	minute, err := read()
	if err != nil {
		return err
	}
	var sec, us int64
	if p.rest != "" && p.rest[0] == ':' {
		if sec, err = read(); err != nil {
			return err
		}
	} else if p.rest != "" && p.rest[0] == '.' { // mm:ss.f
		hour, minute, sec = 0, hour, minute
	}
	if p.rest != "" && p.rest[0] == '.' {
		n := digitsLen(p.rest[1:])
		us = microsOf(p.rest[1 : 1+n])
		p.rest = p.rest[1+n:]
	}
	if minute > 59 || sec > 60 {
		return intervalRange(p.text)
	}
	sign := int64(1)
	if h.neg {
		sign = -1
	}
	p.sum.add(&p.sum.micros, sign*hour, 3_600_000_000)
	p.sum.add(&p.sum.micros, sign*minute, 60_000_000)
	p.sum.add(&p.sum.micros, sign*sec, 1_000_000)
	p.sum.add(&p.sum.micros, sign*us, 1)
	return nil
}

// yearMonth reads the rest of years-months.
func (p *intervalParser) yearMonth(y number) error {
	p.rest = p.rest[1:]
	n := digitsLen(p.rest)
	if n > 2 || atoi(p.rest[:n]) > 11 {
		return intervalRange(p.text)
	}
	months := int64(atoi(p.rest[:n]))
	p.rest = p.rest[n:]
	if y.neg {
		months = -months
	}
	whole, _ := y.signedParts()
	p.sum.add(&p.sum.months, whole, 12)
	p.sum.add(&p.sum.months, months, 1)
	return nil
}

// iso reads ISO 8601's format with designators after the P: 1Y2M3W4DT5H6M7S.
func (p *intervalParser) iso() error {
	inTime := false
	for p.rest != "" {
		if p.rest[0] == 't' && !inTime {
			inTime, p.rest = true, p.rest[1:]
			if p.rest == "" {
				return intervalSyntax(p.text)
			}
			continue
		}
		n, err := p.number()
		if err != nil {
			return err
		}
		if p.rest == "" {
			return intervalSyntax(p.text)
		}
		var u intervalUnit
		switch c := p.rest[0]; {
		case !inTime && c == 'y':
			u.months = 12
		case !inTime && c == 'm':
			u.months = 1
		case !inTime && c == 'w':
			u.days = 7
		case !inTime && c == 'd':
			u.days = 1
		case inTime && c == 'h':
			u.micros = 3_600_000_000
		case inTime && c == 'm':
			u.micros = 60_000_000
		case inTime && c == 's':
			u.micros = 1_000_000
		default:
			return intervalSyntax(p.text)
		}
		p.rest = p.rest[1:]
		p.fields++
		whole, frac := n.signedParts()
		p.sum.addUnits(whole, frac, u)
	}
	if p.fields == 0 {
		return intervalSyntax(p.text)
	}
	return nil
}
