package dataflow

import (
	"strings"

	"github.com/millrace/millrace/internal/fault"
)

// parseTimeImpls is to_date and to_timestamp of text by a pattern, the reverse of to_char. Patterns of weeks, quarters, Roman
// numerals, Julian days and time zones' names are not read.
var parseTimeImpls = map[string]impl{
	"to_timestamp(text, text)": patternCall(func(t int64) int64 { return t }),
	"to_date(text, text)":      patternCall(func(t int64) int64 { return floorDiv(t, microsPerDay) }),
}

func patternCall(f func(t int64) int64) impl {
	return impl{make: func() kernel {
		var p timeFormat
		return func(c *call) {
			for i := range c.n {
				if c.null(i) {
					continue
				}
				p.set(bytesArg(c, 1, i))
				t, err := p.parse(string(bytesArg(c, 0, i)))
				if err != nil {
					c.fail(i, err)
					continue
				}
				c.out.Ints[i] = f(t)
			}
		}
	}}
}

// patternReader holds what was read of a text.
type patternReader struct {
	text, rest           string
	year, month, day     int64
	dayOfYear            int64
	hour, min, sec, frac int64 // frac in microseconds
	half                 int   // 1: am, 2: pm
	bc                   bool
	zone                 int64 // microseconds east of UTC
}

func (f *timeFormat) parse(s string) (int64, error) {
	r := &patternReader{text: s, rest: s, month: 1, day: 1}
	for i := range f.parts {
		if r.rest == "" && i > 0 {
			break // PostgreSQL takes what is missing for zero, too
		}
		p := &f.parts[i]
		if p.keyword < 0 {
			r.separator(p.text)
			continue
		}
		fixed := i+1 < len(f.parts) && f.parts[i+1].keyword >= 0 // digits follow digits
		if err := r.field(formatKeywords[p.keyword], fixed); err != nil {
			return 0, err
		}
	}
	return r.result()
}

// separator passes over as much as the pattern has that isn't a letter or digit; PostgreSQL is as lenient.
func (r *patternReader) separator(text string) {
	for range text {
		if r.rest == "" {
			return
		}
		if c := r.rest[0]; c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' {
			if text[0] == ' ' || text[0] < '0' {
				return
			}
		}
		r.rest = r.rest[1:]
	}
}

func (r *patternReader) bad(what string) error {
	return fault.SQL(fault.Invalid, "22007", "invalid value %q for %q", shorten([]byte(r.rest)), what)
}

// number reads up to width digits.
func (r *patternReader) number(word string, width int) (n int64, digits int, err error) {
	r.rest = strings.TrimLeft(r.rest, " ")
	neg := false
	if word == "TZH" && r.rest != "" && (r.rest[0] == '-' || r.rest[0] == '+') {
		neg, r.rest = r.rest[0] == '-', r.rest[1:]
	}
	for digits < width && digits < len(r.rest) && r.rest[digits] >= '0' && r.rest[digits] <= '9' {
		n = n*10 + int64(r.rest[digits]-'0')
		digits++
	}
	if digits == 0 {
		return 0, 0, r.bad(word)
	}
	r.rest = r.rest[digits:]
	for _, suffix := range [...]string{"st", "nd", "rd", "th"} {
		if after, ok := cutFold(r.rest, suffix); ok {
			r.rest = after
			break
		}
	}
	if neg {
		n = -n
	}
	return n, digits, nil
}

// numbers says where the number of a keyword goes, and how many digits it has.
func (r *patternReader) numbers(word string) (to *int64, width int) {
	switch word {
	case "MM":
		return &r.month, 2
	case "DD":
		return &r.day, 2
	case "DDD":
		return &r.dayOfYear, 3
	case "HH24", "HH12", "HH":
		return &r.hour, 2
	case "MI":
		return &r.min, 2
	case "SS":
		return &r.sec, 2
	case "SSSS", "SSSSS":
		return &r.sec, 5
	}
	return nil, 0
}

func (r *patternReader) field(word string, fixed bool) error {
	if to, width := r.numbers(word); to != nil {
		n, _, err := r.number(word, width)
		*to = n
		if err == nil && (word == "HH12" || word == "HH") && (n < 1 || n > 12) {
			return fault.SQL(fault.Invalid, "22007", "hour %q is invalid for the 12-hour clock", shorten([]byte(r.text)))
		}
		return err
	}
	switch upper := strings.ToUpper(word); upper {
	case "YYYY", "YYY", "YY", "Y", "IYYY":
		return r.readYear(upper, fixed)
	case "MS", "US", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6":
		return r.fraction(upper)
	case "MONTH", "MON":
		return r.name(word, monthNames[:], upper == "MON", &r.month)
	case "DAY", "DY":
		var ignored int64
		return r.name(word, dayNames[:], upper == "DY", &ignored)
	case "AM", "PM", "A.M.", "P.M.":
		return r.halves(word)
	case "AD", "BC", "A.D.", "B.C.":
		after, ok := cutFold(strings.ReplaceAll(r.rest, ".", ""), "bc")
		if !ok {
			if after, ok = cutFold(strings.ReplaceAll(r.rest, ".", ""), "ad"); !ok {
				return r.bad(word)
			}
			r.rest = after
			return nil
		}
		r.bc, r.rest = true, after
		return nil
	case "TZH":
		n, _, err := r.number(upper, 2)
		r.zone += n * microsPerHour
		return err
	case "TZM":
		n, _, err := r.number(upper, 2)
		if r.zone < 0 {
			n = -n
		}
		r.zone += n * microsPerMinute
		return err
	}
	return fault.SQL(fault.Unsupported, "0A000", "formatting field %q is only supported in to_char", word)
}

func (r *patternReader) readYear(word string, fixed bool) error {
	width := len(strings.TrimPrefix(word, "I"))
	most := width
	if width == 4 && !fixed {
		most = 6
	}
	n, digits, err := r.number(word, most)
	if err != nil {
		return err
	}
	switch { // years of fewer digits are those nearest to 2020
	case digits >= 4:
	case digits == 3 && width == 3:
		n += 1000 * int64(1+b2i(n < 520))
	case digits <= 2 && width < 4 && n < 70:
		n += 2000
	case digits <= 2 && width < 4:
		n += 1900
	}
	r.year = n
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (r *patternReader) fraction(word string) error {
	width := 6
	switch {
	case word == "MS":
		width = 3
	case word[0] == 'F':
		width = int(word[2] - '0')
	}
	n, digits, err := r.number(word, width)
	for range 6 - digits {
		n *= 10
	}
	r.frac = n
	return err
}

// name reads a name of the list, or its first three letters, and sets to to its number from 1.
func (r *patternReader) name(word string, names []string, short bool, to *int64) error {
	r.rest = strings.TrimLeft(r.rest, " ")
	for i, n := range names {
		for _, spelling := range [...]string{n, n[:3]} {
			if short && len(spelling) > 3 {
				continue
			}
			if after, ok := cutFold(r.rest, spelling); ok {
				*to, r.rest = int64(i+1), after
				return nil
			}
		}
	}
	return r.bad(word)
}

func (r *patternReader) halves(word string) error {
	for i, h := range [...]string{"am", "pm", "a.m.", "p.m."} {
		if after, ok := cutFold(strings.TrimLeft(r.rest, " "), h); ok {
			r.half, r.rest = i%2+1, after
			return nil
		}
	}
	return r.bad(word)
}

func (r *patternReader) result() (int64, error) {
	outOfRange := fault.SQL(fault.Invalid, "22008", "date/time field value out of range: %q", shorten([]byte(r.text)))
	switch {
	case r.half != 0 && (r.hour < 1 || r.hour > 12):
		return 0, outOfRange
	case r.half == 1 && r.hour == 12:
		r.hour = 0
	case r.half == 2 && r.hour < 12:
		r.hour += 12
	}
	year := r.year
	switch {
	case year == 0:
		year = -1 // as PostgreSQL has it: without a year it is 1 BC
	case r.bc:
		year = -year
	}
	days, err := makeDate(year, r.month, r.day)
	if r.dayOfYear > 0 {
		if days, err = makeDate(year, 1, 1); err == nil && r.dayOfYear > 366 {
			err = outOfRange
		}
		days += r.dayOfYear - 1
	}
	if err != nil || r.hour > 23 || r.min > 59 || r.sec > 59 && (r.sec >= 86400 || r.hour+r.min > 0) {
		return 0, outOfRange
	}
	t, err := timestampOf(days, r.hour*microsPerHour+r.min*microsPerMinute+r.sec*microsPerSecond+r.frac)
	return t - r.zone, err
}
