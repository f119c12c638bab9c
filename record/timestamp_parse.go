package record

import (
	"math/bits"
	"strings"

	"github.com/millrace/millrace/internal/fault"
)

// timestampParser reads the spellings of a timestamp that people use, field by field, as PostgreSQL's ParseDateTime
// and DecodeDateTime do with DateStyle "ISO, MDY".
type timestampParser struct {
	text string // as given, for errors
	rest string // lower case

	year, month, day  int
	hasDate, hasMonth bool // hasMonth: by name, day and year follow or precede
	numbers           []int
	widths            []int
	micros            int64 // time of day
	hasTime           bool
	pm                int // 0: none, 1: am, 2: pm
	bc                bool
	offset            int64 // seconds east of UTC
	hasZone           bool
	yearWidth         int
	typ               Type // that is read, for errors
}

var monthNames = [...]string{"january", "february", "march", "april", "may", "june", "july", "august", "september",
	"october", "november", "december"}

func parseTimestampSlow(s string) (int64, error) {
	p, err := parseFields(s, TimestampTZ)
	if err != nil {
		return 0, err
	}
	return p.result()
}

// parseFields reads the fields of a date, a time or both.
func parseFields(s string, typ Type) (*timestampParser, error) {
	p := &timestampParser{text: s, rest: strings.ToLower(trimSpace(s)), typ: typ}
	switch p.rest {
	case "epoch":
		p.rest = "1970-01-01"
	case "infinity", "+infinity", "-infinity":
		return nil, fault.SQL(fault.Unsupported, "0A000", "infinite timestamps aren't supported: %s", quote(s))
	case "now", "today", "tomorrow", "yesterday":
		return nil, fault.SQL(fault.Unsupported, "0A000", "%s as a %s depends on the clock; write the time, or use now()", quote(s), strings.TrimSuffix(typ.String(), "tz"))
	}
	if p.rest == "" || len(p.rest) > 128 { // PostgreSQL's limit is near that too
		return nil, p.syntax()
	}
	for p.rest != "" {
		if err := p.field(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *timestampParser) syntax() error { return timeSyntax(p.typ, p.text) }

// field reads one field and what separates it from the next.
func (p *timestampParser) field() error {
	switch c := p.rest[0]; {
	case isSpace(c) || c == ',':
		p.rest = p.rest[1:]
		return nil
	case isDigit(c):
		return p.numeric()
	case c == '+' || c == '-':
		if p.hasTime || p.hasDate && p.typ == Date { // JDBC writes dates with an offset
			return p.zone()
		}
		return p.syntax()
	case c >= 'a' && c <= 'z':
		return p.word()
	}
	return p.syntax()
}

// numeric reads a field that begins with a digit: a time, a date, or a lone number of a date with a month's name.
func (p *timestampParser) numeric() error {
	n := digitsLen(p.rest)
	var next byte
	if n < len(p.rest) {
		next = p.rest[n]
	}
	switch {
	case next == ':':
		return p.time()
	case (next == '-' || next == '/' || next == '.') && !p.hasDate && !p.hasMonth:
		return p.date(next)
	case n == 8 && !p.hasDate && !p.hasMonth: // yyyymmdd
		p.year, p.month, p.day, p.yearWidth = atoi(p.rest[:4]), atoi(p.rest[4:6]), atoi(p.rest[6:8]), 4
		p.hasDate, p.rest = true, p.rest[8:]
		return p.afterDate()
	case (n == 6 || n == 4) && p.hasDate && !p.hasTime: // hhmmss, hhmm
		clock := p.rest[:n]
		sec := 0
		if n == 6 {
			sec = atoi(clock[4:])
		}
		p.rest = p.rest[n:]
		us, err := p.fraction()
		if err != nil {
			return err
		}
		return p.setTime(atoi(clock[:2]), atoi(clock[2:4]), sec, us)
	case n <= 7 && len(p.numbers) < 2 && !p.hasDate:
		p.numbers, p.widths = append(p.numbers, atoi(p.rest[:n])), append(p.widths, n)
		p.rest = p.rest[n:]
		for _, suffix := range [...]string{"st", "nd", "rd", "th"} {
			p.rest = strings.TrimPrefix(p.rest, suffix)
		}
		if next == '-' && !p.hasTime { // 08-Jan-1999
			p.rest = strings.TrimPrefix(p.rest, "-")
		}
		return nil
	}
	return p.syntax()
}

// date reads three fields separated by sep: yyyy-mm-dd, mm/dd/yyyy, dd-Mon-yyyy, yyyy-Mon-dd, yyyy.ddd isn't taken.
func (p *timestampParser) date(sep byte) error {
	var f [3]string
	rest := p.rest
	for i := range f {
		n := 0
		for n < len(rest) && (isDigit(rest[n]) || (rest[n] >= 'a' && rest[n] <= 'z' && !isDigit(rest[0]))) {
			n++
		}
		f[i] = rest[:n]
		rest = rest[n:]
		if n == 0 || n > 9 {
			return p.syntax()
		}
		if i < 2 {
			if rest == "" || rest[0] != sep {
				return p.syntax()
			}
			rest = rest[1:]
		}
	}
	p.rest = rest
	p.hasDate = true
	if m := monthNumber(f[1]); m > 0 {
		p.month = m
		if len(f[0]) > 2 {
			f[0], f[2] = f[2], f[0]
		}
		if digitsLen(f[0]) != len(f[0]) || digitsLen(f[2]) != len(f[2]) || len(f[2]) > 7 || len(f[0]) > 2 {
			return p.syntax()
		}
		p.day, p.year, p.yearWidth = atoi(f[0]), atoi(f[2]), len(f[2])
		return p.afterDate()
	}
	for i := range f {
		if digitsLen(f[i]) != len(f[i]) {
			return p.syntax()
		}
	}
	if len(f[0]) >= 3 {
		p.year, p.month, p.day, p.yearWidth = atoi(f[0]), atoi(f[1]), atoi(f[2]), len(f[0])
	} else { // MDY
		p.month, p.day, p.year, p.yearWidth = atoi(f[0]), atoi(f[1]), atoi(f[2]), len(f[2])
	}
	if len(f[0]) > 7 || len(f[1]) > 2 || (len(f[0]) < 3 && len(f[2]) > 7) || (len(f[0]) >= 3 && len(f[2]) > 2) {
		return fieldRange(p.text)
	}
	return p.afterDate()
}

// afterDate takes the T between date and time.
func (p *timestampParser) afterDate() error {
	if len(p.rest) > 1 && p.rest[0] == 't' && isDigit(p.rest[1]) {
		p.rest = p.rest[1:]
	} else if p.rest != "" && !isSpace(p.rest[0]) && p.rest[0] != ',' && p.rest[0] != '+' && p.rest[0] != '-' && p.rest[0] != 'z' {
		return p.syntax()
	}
	if p.rest != "" && (p.rest[0] == '+' || p.rest[0] == '-' || p.rest[0] == 'z') { // a date with an offset
		return p.zone()
	}
	return nil
}

// time reads hh:mm[:ss[.f]].
func (p *timestampParser) time() error {
	var f [3]int
	for i := range f {
		n := digitsLen(p.rest)
		if n == 0 || n > 2 {
			return p.syntax()
		}
		f[i], p.rest = atoi(p.rest[:n]), p.rest[n:]
		if i == 2 || p.rest == "" || p.rest[0] != ':' {
			break
		}
		p.rest = p.rest[1:]
	}
	us, err := p.fraction()
	if err != nil {
		return err
	}
	return p.setTime(f[0], f[1], f[2], us)
}

// fraction reads .f, if there, and returns it in microseconds, rounded to even: 1,000,000 is possible.
func (p *timestampParser) fraction() (int64, error) {
	if p.rest == "" || p.rest[0] != '.' {
		return 0, nil
	}
	n := digitsLen(p.rest[1:])
	if n == 0 {
		p.rest = p.rest[1:]
		return 0, nil
	}
	us := microsOf(p.rest[1 : 1+n])
	p.rest = p.rest[1+n:]
	return us, nil
}

func (p *timestampParser) setTime(h, m, s int, us int64) error {
	if p.hasTime {
		return p.syntax()
	}
	if h > 24 || m > 59 || s > 60 || (h == 24 && (m > 0 || s > 0 || us > 0)) || (s == 60 && us > 0) {
		return fieldRange(p.text)
	}
	p.hasTime = true
	p.micros = int64(h*3600+m*60+s)*1_000_000 + us
	return nil
}

// zone reads z or ±hh[[:]mm[:ss]].
func (p *timestampParser) zone() error {
	if p.hasZone {
		return p.syntax()
	}
	p.hasZone = true
	if p.rest[0] == 'z' {
		p.rest = p.rest[1:]
		return nil
	}
	neg := p.rest[0] == '-'
	p.rest = p.rest[1:]
	n := digitsLen(p.rest)
	var h, m, s int
	switch n {
	case 1, 2:
		h, p.rest = atoi(p.rest[:n]), p.rest[n:]
		for _, part := range [...]*int{&m, &s} {
			if len(p.rest) < 3 || p.rest[0] != ':' || digitsLen(p.rest[1:]) != 2 {
				break
			}
			*part, p.rest = atoi(p.rest[1:3]), p.rest[3:]
		}
	case 3, 4:
		h, m, p.rest = atoi(p.rest[:n-2]), atoi(p.rest[n-2:n]), p.rest[n:]
	default:
		return p.syntax()
	}
	if h > 15 || m > 59 || s > 59 {
		return fault.SQL(fault.Invalid, "22009", "time zone displacement out of range: %s", quote(p.text))
	}
	p.offset = int64(h*3600 + m*60 + s)
	if neg {
		p.offset = -p.offset
	}
	return nil
}

func (p *timestampParser) word() error {
	n := 0
	for n < len(p.rest) && p.rest[n] >= 'a' && p.rest[n] <= 'z' {
		n++
	}
	w := p.rest[:n]
	if p.hasTime && w == "z" {
		return p.zone()
	}
	p.rest = strings.TrimPrefix(p.rest[n:], ".")
	switch w {
	case "utc", "gmt", "z", "zulu", "ut":
		if p.hasZone {
			return p.syntax()
		}
		p.hasZone = true
		return nil
	case "am", "pm":
		if p.pm != 0 {
			return p.syntax()
		}
		p.pm = 1
		if w == "pm" {
			p.pm = 2
		}
		return nil
	case "bc", "ad":
		p.bc = w == "bc"
		return nil
	case "t":
		if p.hasDate && !p.hasTime && p.rest != "" && isDigit(p.rest[0]) {
			return nil
		}
	case "at", "on":
		return nil
	}
	if m := monthNumber(w); m > 0 && !p.hasDate && !p.hasMonth {
		p.month, p.hasMonth = m, true
		p.rest = strings.TrimPrefix(p.rest, "-")
		return nil
	}
	if isWeekday(w) {
		return nil
	}
	if p.hasTime && n >= 3 {
		return fault.SQL(fault.Unsupported, "0A000", "time zone %s isn't supported in %s; write an offset such as +02, or UTC", quote(w), quote(p.text))
	}
	return p.syntax()
}

// result puts the fields together and checks their ranges.
func (p *timestampParser) result() (int64, error) {
	if p.hasMonth {
		if len(p.numbers) != 2 {
			return 0, p.syntax()
		}
		d, y := 0, 1
		if p.widths[0] > 2 {
			d, y = 1, 0
		}
		p.day, p.year, p.yearWidth, p.hasDate = p.numbers[d], p.numbers[y], p.widths[y], true
	} else if len(p.numbers) > 0 {
		return 0, p.syntax()
	}
	if !p.hasDate {
		return 0, p.syntax()
	}
	if p.yearWidth <= 2 && !p.bc { // as PostgreSQL: 70-99 are of the last century
		if p.year < 70 {
			p.year += 2000
		} else {
			p.year += 1900
		}
	}
	if p.year == 0 {
		return 0, fieldRange(p.text)
	}
	if p.bc {
		p.year = 1 - p.year
	}
	if p.month < 1 || p.month > 12 || p.day < 1 || p.day > daysIn(p.year, p.month) {
		return 0, fieldRange(p.text)
	}
	if err := p.meridiem(); err != nil {
		return 0, err
	}
	return p.micros0()
}

// meridiem applies AM or PM to the time of day.
func (p *timestampParser) meridiem() error {
	if p.pm == 0 {
		return nil
	}
	hour := p.micros / 3_600_000_000
	switch {
	case hour > 12 || !p.hasTime:
		return fieldRange(p.text)
	case p.pm == 1 && hour == 12:
		p.micros -= 12 * 3_600_000_000
	case p.pm == 2 && hour < 12:
		p.micros += 12 * 3_600_000_000
	}
	return nil
}

// micros0 returns the microseconds since the Unix epoch.
func (p *timestampParser) micros0() (int64, error) {
	if p.year > 300_000 || p.year < -4800 {
		return 0, timestampRange(p.text)
	}
	days := civilDays(p.year, p.month, p.day)
	hi, lo := bits.Mul64(uint64(max(days, -days)), microsPerDay)
	if hi != 0 || lo > MaxTimestamp {
		return 0, timestampRange(p.text)
	}
	micros, rest := days*microsPerDay, p.micros-p.offset*1_000_000
	sum := micros + rest
	if (rest > 0 && sum < micros) || sum < MinTimestamp {
		return 0, timestampRange(p.text)
	}
	return sum, nil
}

// microsOf returns the fraction .digits in microseconds, rounded to the nearest, ties to even.
func microsOf(digits string) int64 {
	var us int64
	for i := range 6 {
		us *= 10
		if i < len(digits) {
			us += int64(digits[i] - '0')
		}
	}
	if len(digits) > 6 {
		tail := strings.TrimRight(digits[7:], "0")
		if d := digits[6]; d > '5' || (d == '5' && (tail != "" || us&1 == 1)) {
			us++
		}
	}
	return us
}

func monthNumber(w string) int {
	if w == "sept" {
		return 9
	}
	for i, name := range monthNames {
		if w == name || (len(w) == 3 && w == name[:3]) {
			return i + 1
		}
	}
	return 0
}

func isWeekday(w string) bool {
	switch w {
	case "mon", "monday", "tue", "tues", "tuesday", "wed", "weds", "wednesday", "thu", "thur", "thurs", "thursday",
		"fri", "friday", "sat", "saturday", "sun", "sunday":
		return true
	}
	return false
}

func digitsLen(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

// atoi converts up to nine digits.
func atoi(s string) int {
	n := 0
	for i := range len(s) {
		n = n*10 + int(s[i]-'0')
	}
	return n
}
