package dataflow

import (
	"math"
	"strconv"
	"strings"

	"github.com/cockroachdb/apd/v3"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// numberCharImpls is to_char of numbers.
var numberCharImpls = map[string]impl{
	"to_char(numeric, text)":          numberToChar(getBytes, (*numberText).numeric),
	"to_char(bigint, text)":           numberToChar(getInt, (*numberText).bigint),
	"to_char(double precision, text)": numberToChar(getFloat, (*numberText).double),
	"to_number(text, text)":           {make: toNumber},
}

func numberToChar[A any](get getter[A], set func(*numberText, A) error) impl {
	return impl{make: func() kernel {
		var p numberPattern
		return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
			p.set(bytesArg(c, 1, i))
			if p.err != nil || p.pattern == "" {
				return dst, p.err
			}
			a := c.args[0]
			t := numberText{numberPattern: p}
			if err := set(&t, get(a.col, i&a.mask)); err != nil {
				return dst, err
			}
			return t.write(dst), nil
		})
	}}
}

// numberPart is a keyword of a pattern for numbers, or text.
type numberPart struct {
	word string // empty: text
	text string
}

// numberPattern is a pattern, cut into its parts, and what follows from all of them: PostgreSQL's NUMDesc.
type numberPattern struct {
	pattern string
	known   bool
	err     error
	parts   []numberPart

	pre, post, multi   int // 9 and 0 before the point, behind it, behind V
	zero               bool
	zeroStart, zeroEnd int
	point, fill, blank bool
	sign               int // sign*: where S stands
	signAt             int // digits before S
	bracket            bool
	minus, plus        bool
	roman, v, e        bool
}

const (
	signNone = iota
	signBefore
	signBehind
)

// numberKeywords is the keywords, longer ones before those that they begin with. All may be written in lower case, which matters for
// RN and TH alone.
var numberKeywords = []string{
	",", ".", "0", "9", "B", "C", "D", "EEEE", "FM", "G", "L", "MI", "PL", "PR", "RN", "SG", "SP", "S", "TH", "V",
}

func (p *numberPattern) set(pattern []byte) {
	if p.known && p.pattern == string(pattern) {
		return
	}
	*p = numberPattern{pattern: string(pattern), known: true, parts: p.parts[:0]}
	for s := p.pattern; s != "" && p.err == nil; {
		s = p.next(s)
		if p.pre+p.post+p.multi > maxPatternDigits {
			p.err = errPatternDigits
		}
	}
}

// maxPatternDigits bounds the digits of a pattern, before the point, behind it and behind V: no number has more.
const maxPatternDigits = 2 * record.MaxNumericDigits

var errPatternDigits = fault.SQL(fault.TooLarge, "54000", "a format for numbers has more than %d digits", maxPatternDigits)

// next takes one part from the beginning of s.
func (p *numberPattern) next(s string) string {
	for _, word := range numberKeywords {
		if n := len(word); strings.HasPrefix(s, word) || strings.HasPrefix(s, strings.ToLower(word)) {
			p.parts = append(p.parts, numberPart{word: s[:n]})
			p.err = p.keyword(word)
			return s[n:]
		}
	}
	if s[0] == '"' {
		for s = s[1:]; s != ""; {
			if s[0] == '"' {
				return s[1:]
			}
			if s[0] == '\\' && len(s) > 1 {
				s = s[1:]
			}
			n := charSize([]byte(s))
			p.parts = append(p.parts, numberPart{text: s[:n]})
			s = s[n:]
		}
		return s
	}
	if strings.HasPrefix(s, `\"`) {
		s = s[1:]
	}
	n := charSize([]byte(s))
	p.parts = append(p.parts, numberPart{text: s[:n]})
	return s[n:]
}

func errPattern(format string, args ...any) error {
	return fault.SQL(fault.Invalid, "42601", format, args...)
}

// keyword takes note of a keyword: PostgreSQL's NUMDesc_prepare.
func (p *numberPattern) keyword(word string) error {
	if p.e && word != "EEEE" {
		return errPattern(`"EEEE" must be the last pattern used`)
	}
	switch word {
	case "9", "0":
		return p.digit(word)
	case "B":
		p.blank = p.blank || p.pre == 0 && p.post == 0 && !p.zero
	case "D", ".":
		switch {
		case p.point:
			return errPattern("multiple decimal points")
		case p.v:
			return errPattern(`cannot use "V" and decimal point together`)
		}
		p.point = true
	case "FM":
		p.fill = true
	case "S", "MI", "PL", "SG", "PR":
		return p.signs(word)
	case "RN":
		p.roman = true
	case "V":
		if p.point {
			return errPattern(`cannot use "V" and decimal point together`)
		}
		p.v = true
	case "EEEE":
		switch {
		case p.e:
			return errPattern(`cannot use "EEEE" twice`)
		case p.blank, p.fill, p.sign != signNone, p.bracket, p.minus, p.plus, p.roman, p.v:
			return errPattern(`"EEEE" is incompatible with other formats; it may only be used together with digit and decimal point patterns`)
		}
		p.e = true
	}
	return nil
}

func (p *numberPattern) digit(word string) error {
	if p.bracket {
		return errPattern(`%q must be ahead of "PR"`, word)
	}
	if word == "9" && p.v {
		p.multi++
		return nil
	}
	if word == "0" && !p.zero && !p.point {
		p.zero, p.zeroStart = true, p.pre+1
	}
	if p.point {
		p.post++
	} else {
		p.pre++
	}
	if word == "0" {
		p.zeroEnd = p.pre + p.post
	}
	return nil
}

func (p *numberPattern) signs(word string) error {
	switch {
	case p.sign != signNone:
		return errPattern(`cannot use "S" and %q together`, word)
	case (word == "S" || word == "PR") && (p.plus || p.minus) || word == "S" && p.bracket:
		return errPattern(`cannot use %q and "S"/"PL"/"MI"/"SG"/"PR" together`, word)
	}
	switch word {
	case "S":
		p.sign, p.signAt = signBehind, 0
		if !p.point {
			p.sign, p.signAt = signBefore, p.pre
		}
	case "MI":
		p.minus = true
	case "PL":
		p.plus = true
	case "SG":
		p.minus, p.plus = true, true
	case "PR":
		p.bracket = true
	}
	return nil
}

// numberText is one number while it is written: PostgreSQL's NUMProc.
type numberText struct {
	numberPattern
	number string // its digits
	is     byte   // its sign: + or -, 0 for a Roman number
	spaces int    // that stand before the digits

	at       int // of number, what is next
	relevant int // of number, the last digit that FM leaves; negative: all
	written  bool
	current  int // digits of the pattern so far
	inside   bool
	count    int
	out      []byte
}

// digitAt returns number[i]; 0 behind its end.
func (t *numberText) digitAt(i int) byte {
	if i < len(t.number) {
		return t.number[i]
	}
	return 0
}

// digits sets the number to its digits, which may be too many for the pattern, with their sign.
func (t *numberText) digits(s string) {
	t.is = '+'
	if strings.HasPrefix(s, "-") {
		t.is, s = '-', s[1:]
	}
	before := strings.IndexByte(s, '.')
	if before < 0 {
		before = len(s)
	}
	t.number = s
	if before < t.pre {
		t.spaces = t.pre - before
	} else if before > t.pre {
		t.number = strings.Repeat("#", t.pre) + "." + strings.Repeat("#", t.post)
	}
}

// hidden is what stands for a number with an exponent that isn't one.
func (t *numberText) hidden() string {
	return " " + strings.Repeat("#", t.pre) + "." + strings.Repeat("#", t.post+4)
}

// scientific writes a NUMERIC with an exponent.
func (t *numberText) scientific(a []byte) {
	if isNaN(a) {
		t.number = t.hidden()
		return
	}
	var x apd.Decimal
	parseDecimal(&x, a)
	exp := 0
	if !x.IsZero() {
		exp = int(x.NumDigits()) - 1 + int(x.Exponent)
	}
	x.Exponent -= int32(exp)
	rescale(&x, t.post)
	b, err := appendDecimal(nil, &x)
	if err != nil {
		t.number = t.hidden()
		return
	}
	if b[0] != '-' {
		t.number = " "
	}
	t.number += string(b) + "e" + exponent(exp)
}

func exponent(n int) string {
	s := strconv.Itoa(max(n, -n))
	if len(s) < 2 {
		s = "0" + s
	}
	if n < 0 {
		return "-" + s
	}
	return "+" + s
}

func (t *numberText) numeric(a []byte) error {
	switch {
	case t.roman:
		n, err := numericToInt(a)
		if err == nil && int64(int32(n)) != n {
			err = errIntRange
		}
		t.number = romanNumber(n)
		return err
	case t.e:
		t.scientific(a)
		return nil
	}
	var err error
	if t.v {
		if a, err = mulNumeric(nil, a, append([]byte{'1'}, strings.Repeat("0", t.multi)...)); err != nil {
			return err
		}
		t.pre += t.multi
	}
	b, err := roundNumeric(nil, a, int64(t.post))
	t.digits(string(b))
	return err
}

func (t *numberText) bigint(n int64) error {
	switch {
	case t.roman:
		if int64(int32(n)) != n {
			return errIntRange
		}
		t.number = romanNumber(n)
		return nil
	case t.e:
		t.scientific(strconv.AppendInt(nil, n, 10))
		return nil
	}
	if t.v {
		if t.multi > 18 {
			return errBigintRange
		}
		var ok bool
		if n, ok = mul64(n, int64(pow10[t.multi])).small(); !ok {
			return errBigintRange
		}
		t.pre += t.multi
	}
	s := strconv.FormatInt(n, 10)
	if t.post > 0 {
		s += "." + strings.Repeat("0", t.post)
	}
	t.digits(s)
	return nil
}

// maxDoubleDigits is how many digits of a double precision are exact.
const maxDoubleDigits = 15

func (t *numberText) double(f float64) error {
	special := f != f || math.IsInf(f, 0)
	switch {
	case t.roman:
		t.number = romanNumber(0) // none, as for all that is out of its range
		if n := math.RoundToEven(f); n >= 1 && n < 4000 {
			t.number = romanNumber(int64(n))
		}
		return nil
	case t.e && special:
		t.number = t.hidden()
		return nil
	case t.e:
		if !math.Signbit(f) {
			t.number = " "
		}
		t.number += strconv.FormatFloat(f, 'e', t.post, 64)
		return nil
	}
	if t.v {
		f *= math.Pow(10, float64(t.multi))
		t.pre += t.multi
	}
	whole := len(doubleText(math.Abs(f), 0))
	t.post = max(0, min(t.post, maxDoubleDigits-whole))
	t.digits(doubleText(f, t.post))
	return nil
}

// doubleText is C's %.*f.
func doubleText(f float64, digits int) string {
	switch {
	case f != f:
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return strconv.FormatFloat(f, 'f', digits, 64)
}

// romanNumber writes 1 to 3999.
func romanNumber(n int64) string {
	if n < 1 || n > 3999 {
		return strings.Repeat("#", 15)
	}
	var b strings.Builder
	for _, r := range []struct {
		value int64
		text  string
	}{
		{1000, "M"}, {900, "CM"}, {500, "D"}, {400, "CD"}, {100, "C"}, {90, "XC"}, {50, "L"}, {40, "XL"}, {10, "X"}, {9, "IX"}, {5, "V"}, {4, "IV"}, {1, "I"},
	} {
		for ; n >= r.value; n -= r.value {
			b.WriteString(r.text)
		}
	}
	return b.String()
}
