package dataflow

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// formatImpls is to_char of times.
var formatImpls = map[string]impl{
	"to_char(timestamptz, text)": toChar(false),
	"to_char(timestamp, text)":   toChar(true),
}

// toChar writes times; local ones have no time zone.
func toChar(local bool) impl {
	return impl{make: func() kernel {
		f := timeFormat{local: local}
		return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
			t, pattern := c.args[0], c.args[1]
			if len(pattern.col.At(i&pattern.mask)) == 0 {
				c.setNull(i) // as PostgreSQL has it
				return dst, nil
			}
			f.set(pattern.col.At(i & pattern.mask))
			return f.append(dst, t.col.Ints[i&t.mask])
		})
	}}
}

// timeFormat is a pattern of to_char, cut into its parts; it remembers the last one.
type timeFormat struct {
	local   bool // the times have no time zone to be named
	pattern string
	seen    bool
	parts   []formatPart
	// Times of one minute look alike, unless the pattern tells their seconds: text is the last minute's.
	minutes bool
	minute  int64
	text    []byte // empty: not known
}

// formatPart is a keyword with its modifiers, or text.
type formatPart struct {
	keyword int // index in formatKeywords, -1: text
	text    string
	fill    bool // no FM before it: with blanks and zeros
	ordinal int  // ordinal* of its suffix
}

const (
	ordinalNone = iota
	ordinalLower
	ordinalUpper
)

// formatKeywords is the keywords, longer ones before those that they begin with.
var formatKeywords = []string{
	"A.D.", "A.M.", "AD", "AM", "B.C.", "BC", "a.d.", "a.m.", "ad", "am", "b.c.", "bc",
	"CC", "DAY", "Day", "day", "DDD", "DD", "DY", "Dy", "dy", "D",
	"FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "HH24", "HH12", "HH",
	"IDDD", "ID", "IW", "IYYY", "IYY", "IY", "I", "J", "MI", "MM", "MONTH", "Month", "month", "MON", "Mon", "mon", "MS",
	"OF", "P.M.", "PM", "p.m.", "pm", "Q", "RM", "rm", "SSSSS", "SSSS", "SS", "TZH", "TZM", "TZ", "tz", "US", "WW", "W",
	"Y,YYY", "YYYY", "YYY", "YY", "Y",
}

var monthNames = [...]string{
	"January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
}

var dayNames = [...]string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}

var romanMonths = [...]string{"I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"}

func (f *timeFormat) set(pattern []byte) {
	if f.seen && f.pattern == string(pattern) {
		return
	}
	f.pattern, f.seen, f.parts = string(pattern), true, f.parts[:0]
	for s := f.pattern; s != ""; {
		s = f.next(s)
	}
	f.minutes, f.text = true, f.text[:0]
	for _, p := range f.parts {
		if p.keyword >= 0 && finerThanMinute(formatKeywords[p.keyword]) {
			f.minutes = false
		}
	}
}

// finerThanMinute tells whether a keyword's result changes within a minute.
func finerThanMinute(word string) bool {
	switch word {
	case "SS", "SSSS", "SSSSS", "MS", "US":
		return true
	}
	return strings.HasPrefix(word, "FF")
}

// next takes one part from the beginning of s.
func (f *timeFormat) next(s string) string {
	part := formatPart{fill: true, keyword: -1}
	rest, names := s, false
	for {
		if after, ok := cutFold(rest, "FM"); ok {
			part.fill, rest = false, after
		} else if after, ok := cutFold(rest, "TM"); ok {
			names, rest = true, after
		} else if after, ok := cutFold(rest, "FX"); ok {
			rest = after
		} else {
			break
		}
	}
	if k := keywordOf(rest); k >= 0 {
		part.keyword = k
		switch strings.ToUpper(formatKeywords[k]) {
		case "MONTH", "MON", "DAY", "DY": // TM: as the locale has it, without blanks
			part.fill = part.fill && !names
		}
		rest = rest[len(formatKeywords[k]):]
		switch {
		case strings.HasPrefix(rest, "TH"):
			part.ordinal, rest = ordinalUpper, rest[2:]
		case strings.HasPrefix(rest, "th"):
			part.ordinal, rest = ordinalLower, rest[2:]
		}
		if after, ok := cutFold(rest, "SP"); ok {
			rest = after
		}
		f.parts = append(f.parts, part)
		return rest
	}
	if rest == "" {
		return ""
	}
	if rest[0] == '"' {
		return f.quoted(rest[1:])
	}
	if rest[0] == '\\' && len(rest) > 1 && rest[1] == '"' {
		rest = rest[1:]
	}
	_, n := utf8.DecodeRuneInString(rest)
	f.parts = append(f.parts, formatPart{keyword: -1, text: rest[:n]})
	return rest[n:]
}

// quoted takes text up to a quotation mark.
func (f *timeFormat) quoted(s string) string {
	var b strings.Builder
	i := 0
	for ; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	f.parts = append(f.parts, formatPart{keyword: -1, text: b.String()})
	return s[min(i+1, len(s)):]
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return s, false
}

// keywordOf returns the keyword that s begins with. Keywords whose result has no case may be written in lower case.
func keywordOf(s string) int {
	for k, word := range formatKeywords {
		if strings.HasPrefix(s, word) {
			return k
		}
	}
	for k, word := range formatKeywords {
		switch word {
		case "DAY", "Day", "DY", "Dy", "MONTH", "Month", "MON", "Mon", "RM", "TZ",
			"AD", "A.D.", "AM", "A.M.", "BC", "B.C.", "PM", "P.M.", "OF":
			continue
		}
		if _, ok := cutFold(s, word); ok {
			return k
		}
	}
	return -1
}

// append appends the text of a time.
func (f *timeFormat) append(dst []byte, t int64) ([]byte, error) {
	if !f.minutes {
		return f.write(dst, t)
	}
	if minute := floorDiv(t, microsPerMinute); minute != f.minute || len(f.text) == 0 {
		var err error
		if f.text, err = f.write(f.text[:0], t); err != nil {
			f.text = f.text[:0]
			return dst, err
		}
		f.minute = minute
	}
	return append(dst, f.text...), nil
}

func (f *timeFormat) write(dst []byte, t int64) ([]byte, error) {
	m := momentOf(t)
	for i := range f.parts {
		p := &f.parts[i]
		if p.keyword < 0 {
			dst = append(dst, p.text...)
			continue
		}
		start := len(dst)
		if word := formatKeywords[p.keyword]; f.local && (word == "TZ" || word == "tz") {
			continue
		}
		dst = p.append(dst, &m)
		if p.ordinal != ordinalNone {
			dst = appendOrdinal(dst, start, p.ordinal == ordinalUpper)
		}
		if len(dst) > maxResultBytes {
			return dst, errTextLength
		}
	}
	return dst, nil
}

// appendOrdinal appends the ending of the number dst[start:].
func appendOrdinal(dst []byte, start int, upper bool) []byte {
	digits := dst[start:]
	if len(digits) == 0 || digits[len(digits)-1]-'0' > 9 {
		return dst
	}
	ending := "th"
	if len(digits) < 2 || digits[len(digits)-2] != '1' {
		switch digits[len(digits)-1] {
		case '1':
			ending = "st"
		case '2':
			ending = "nd"
		case '3':
			ending = "rd"
		}
	}
	if upper {
		ending = strings.ToUpper(ending)
	}
	return append(dst, ending...)
}

// number appends n with at least width digits, unless FM is set.
func (p *formatPart) number(dst []byte, n int64, width int) []byte {
	if n < 0 {
		dst, n = append(dst, '-'), -n
	}
	var buf [20]byte
	digits := strconv.AppendInt(buf[:0], n, 10)
	if p.fill {
		for range width - len(digits) {
			dst = append(dst, '0')
		}
	}
	return append(dst, digits...)
}

// name appends a name filled with blanks to nine characters, unless FM is set.
func (p *formatPart) name(dst []byte, name string, width int) []byte {
	dst = append(dst, name...)
	if p.fill {
		for range width - len(name) {
			dst = append(dst, ' ')
		}
	}
	return dst
}

const longestName = 9 // Wednesday, September

func (p *formatPart) append(dst []byte, m *moment) []byte {
	switch word := formatKeywords[p.keyword]; word {
	case "HH24":
		return p.number(dst, int64(m.hour), 2)
	case "HH12", "HH":
		return p.number(dst, int64(m.hour+11)%12+1, 2)
	case "MI":
		return p.number(dst, int64(m.min), 2)
	case "SS":
		return p.number(dst, int64(m.sec), 2)
	case "SSSS", "SSSSS":
		return strconv.AppendInt(dst, m.dayMicros/microsPerSecond, 10)
	case "MS", "FF3":
		return appendDigits(dst, int64(m.micro), 3)
	case "US", "FF6":
		return appendDigits(dst, int64(m.micro), 6)
	case "FF1", "FF2", "FF4", "FF5":
		return appendDigits(dst, int64(m.micro), int(word[2]-'0'))
	case "AM", "PM", "am", "pm", "A.M.", "P.M.", "a.m.", "p.m.":
		return append(dst, halfDay(word, m.hour < 12)...)
	case "AD", "BC", "ad", "bc", "A.D.", "B.C.", "a.d.", "b.c.":
		return append(dst, era(word, m.year > 0)...)
	case "TZ":
		return append(dst, "UTC"...)
	case "tz":
		return append(dst, "utc"...)
	case "TZH", "OF":
		return append(dst, "+00"...)
	case "TZM":
		return append(dst, "00"...)
	default:
		return p.appendDate(dst, word, m)
	}
}

// appendDigits appends the first n digits of a fraction in microseconds.
func appendDigits(dst []byte, micros int64, n int) []byte {
	var buf [8]byte
	digits := strconv.AppendInt(buf[:0], 1_000_000+micros, 10)
	return append(dst, digits[1:1+n]...)
}

func halfDay(word string, morning bool) string {
	names := [...]string{"AM", "PM"}
	if strings.Contains(word, ".") {
		names = [...]string{"A.M.", "P.M."}
	}
	name := names[1]
	if morning {
		name = names[0]
	}
	if word[0] >= 'a' {
		return strings.ToLower(name)
	}
	return name
}

func era(word string, common bool) string {
	names := [...]string{"AD", "BC"}
	if strings.Contains(word, ".") {
		names = [...]string{"A.D.", "B.C."}
	}
	name := names[1]
	if common {
		name = names[0]
	}
	if word[0] >= 'a' {
		return strings.ToLower(name)
	}
	return name
}

func (p *formatPart) appendDate(dst []byte, word string, m *moment) []byte {
	switch word {
	case "MONTH", "Month", "month":
		return p.name(dst, cased(monthNames[m.month-1], word), longestName)
	case "MON", "Mon", "mon":
		return append(dst, cased(monthNames[m.month-1][:3], word)...)
	case "MM":
		return p.number(dst, int64(m.month), 2)
	case "DAY", "Day", "day":
		return p.name(dst, cased(dayNames[weekday(m.days)], word), longestName)
	case "DY", "Dy", "dy":
		return append(dst, cased(dayNames[weekday(m.days)][:3], word)...)
	case "DDD":
		return p.number(dst, m.days-daysOf(m.year, 1, 1)+1, 3)
	case "IDDD":
		return p.number(dst, isoDay(m.days), 3)
	case "DD":
		return p.number(dst, int64(m.day), 2)
	case "D":
		return p.number(dst, int64(weekday(m.days))+1, 1)
	case "ID":
		return p.number(dst, int64(weekday(m.days)+6)%7+1, 1)
	case "WW":
		return p.number(dst, (m.days-daysOf(m.year, 1, 1))/7+1, 2)
	case "W":
		return p.number(dst, int64(m.day-1)/7+1, 1)
	case "IW":
		_, week := isoWeek(m.days)
		return p.number(dst, int64(week), 2)
	case "Q":
		return p.number(dst, int64(m.month-1)/3+1, 1)
	case "J":
		return p.number(dst, m.days+unixJulianDay, 1)
	case "RM", "rm":
		name := romanMonths[m.month-1]
		if word == "rm" {
			name = strings.ToLower(name)
		}
		return p.name(dst, name, 4)
	case "CC":
		return p.number(dst, centuryOf(m.year, 100), 2)
	}
	return p.appendYear(dst, word, m)
}

// isoDay returns the day of the ISO year.
func isoDay(days int64) int64 {
	_, week := isoWeek(days)
	return int64(week-1)*7 + int64(weekday(days)+6)%7 + 1
}

func (p *formatPart) appendYear(dst []byte, word string, m *moment) []byte {
	year := m.year
	if word[0] == 'I' {
		year, _ = isoWeek(m.days)
	}
	if year <= 0 {
		year = 1 - year // a year before the common era, whose era AD or BC tells
	}
	switch word {
	case "Y,YYY":
		dst = p.number(dst, year/1000, 1)
		dst = append(dst, ',')
		var buf [8]byte
		return append(dst, strconv.AppendInt(buf[:0], 1000+year%1000, 10)[1:]...)
	case "YYYY", "IYYY":
		return p.number(dst, year, 4)
	case "YYY", "IYY":
		return p.number(dst, year%1000, 3)
	case "YY", "IY":
		return p.number(dst, year%100, 2)
	}
	return p.number(dst, year%10, 1)
}

// cased returns name in the case of word: DAY, Day, day.
func cased(name, word string) string {
	switch {
	case word[0] >= 'a':
		return strings.ToLower(name)
	case word[1] < 'a':
		return strings.ToUpper(name)
	}
	return name
}
