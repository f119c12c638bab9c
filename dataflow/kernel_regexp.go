package dataflow

import (
	"regexp"
	"strings"

	"github.com/millrace/millrace/internal/fault"
)

// Regular expressions are Go's (RE2's syntax), which never take exponential time; PostgreSQL's back references and
// look-around aren't among them.

// regexpImpls is the functions of regular expressions.
var regexpImpls = map[string]impl{
	"regexp_match_op(text, text)":  regexpTest(""),
	"regexp_imatch_op(text, text)": regexpTest("i"),
	"regexp_like(text, text)":      regexpTest(""),
	"regexp_like(text, text, text)": {make: func() kernel {
		var m regexpMemo
		return func(c *call) {
			for i := range c.n {
				if c.null(i) {
					continue
				}
				if err := m.optionalFlags(c, 2, i); err != nil {
					c.fail(i, err)
					continue
				}
				c.out.Bools[i] = m.matches(bytesArg(c, 0, i))
			}
		}
	}},
	"regexp_count(text, text)": {make: func() kernel {
		var m regexpMemo
		return func(c *call) {
			for i := range c.n {
				if c.null(i) {
					continue
				}
				re, _, err := m.of(bytesArg(c, 1, i), "")
				if err != nil {
					c.fail(i, err)
					continue
				}
				c.out.Ints[i] = int64(len(re.FindAllIndex(bytesArg(c, 0, i), -1)))
			}
		}
	}},
	"regexp_substr(text, text)": {make: func() kernel {
		var m regexpMemo
		return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
			if _, _, err := m.of(bytesArg(c, 1, i), ""); err != nil {
				return dst, err
			}
			s := bytesArg(c, 0, i)
			at := m.first(s)
			if at == nil {
				c.setNull(i)
				return dst, nil
			}
			return append(dst, s[at[0]:at[1]]...), nil
		})
	}},
	"regexp_replace(text, text, text)":       regexpReplace(3),
	"regexp_replace(text, text, text, text)": regexpReplace(4),
	"regexp_match(text, text)":               {make: regexpMatch},
	"regexp_split_to_array(text, text)":      {make: regexpSplit},
}

// bytesArg returns argument k at row i.
func bytesArg(c *call, k, i int) []byte { return c.args[k].col.At(i & c.args[k].mask) }

// regexpMemo remembers the last expression, which mostly is the only one.
type regexpMemo struct {
	pattern, flags string
	re             *regexp.Regexp
	whole          string         // the pattern as it was compiled
	tail           *regexp.Regexp // of a text without its beginning; nil: not known yet
	find           finder
	all            bool
	err            error
	known          bool
}

// of returns the compiled expression, and whether the flags ask for all matches.
func (m *regexpMemo) of(pattern []byte, flags string) (*regexp.Regexp, bool, error) {
	if m.known && m.pattern == string(pattern) && m.flags == flags {
		return m.re, m.all, m.err
	}
	m.pattern, m.flags, m.known, m.all, m.err, m.find, m.tail = string(pattern), flags, true, false, nil, finder{}, nil
	mode := regexpMode{dot: true} // as in PostgreSQL, . matches a newline
	for _, f := range flags {
		if f == 'g' {
			m.all = true
		} else if !mode.set(f) {
			m.err = fault.SQL(fault.Invalid, "22023", "invalid regular expression option: %q", string(f))
			return nil, false, m.err
		}
	}
	m.whole = mode.pattern(m.pattern)
	if m.re, m.err = regexp.Compile(m.whole); m.err != nil {
		m.err = fault.SQL(fault.Invalid, "2201B", "invalid regular expression: %v", m.err)
	} else {
		m.find = newFinder(m.re, m.whole)
	}
	return m.re, m.all, m.err
}

// regexpMode is how to match, as flags say.
type regexpMode struct{ fold, lines, dot, literal bool }

func (m *regexpMode) set(flag rune) bool {
	switch flag {
	case 'i':
		m.fold = true
	case 'c':
		m.fold = false
	case 'n', 'm':
		m.lines, m.dot = true, false
	case 'p':
		m.lines, m.dot = false, false
	case 'w':
		m.lines, m.dot = true, true
	case 's':
		m.lines, m.dot = false, true
	case 'q':
		m.literal = true
	case 'e', 't':
	default:
		return false
	}
	return true
}

// pattern writes a pattern as Go has it.
func (m *regexpMode) pattern(pattern string) string {
	if m.literal {
		pattern = regexp.QuoteMeta(pattern)
	} else {
		pattern = withoutWordEnds(pattern)
	}
	for _, f := range []struct {
		on   bool
		flag string
	}{{m.fold, "(?i)"}, {m.lines, "(?m)"}, {m.dot, "(?s)"}} {
		if f.on {
			pattern = f.flag + pattern
		}
	}
	return pattern
}

// withoutWordEnds writes PostgreSQL's names of the ends of words and of the text, \y, \Y and \Z, as Go has them.
func withoutWordEnds(pattern string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		if pattern[i] == '\\' && i+1 < len(pattern) {
			b.WriteByte('\\')
			i++
			switch pattern[i] {
			case 'y':
				b.WriteByte('b')
				continue
			case 'Y':
				b.WriteByte('B')
				continue
			case 'Z':
				b.WriteByte('z')
				continue
			}
		}
		b.WriteByte(pattern[i])
	}
	return b.String()
}

// matches tells whether anything in s matches the expression that of has returned.
func (m *regexpMemo) matches(s []byte) bool {
	re, from := m.find.look(s)
	return re != nil && re.Match(s[from:])
}

// first returns the first match in s of the expression that of has returned, and its groups, as Regexp.FindSubmatchIndex.
func (m *regexpMemo) first(s []byte) []int {
	re, from := m.find.look(s)
	if re == nil {
		return nil
	}
	at := re.FindSubmatchIndex(s[from:])
	if from > 0 {
		for i := range at {
			if at[i] >= 0 {
				at[i] += from
			}
		}
	}
	return at
}

func regexpTest(flags string) impl {
	return impl{make: func() kernel {
		var m regexpMemo
		return func(c *call) {
			for i := range c.n {
				if c.null(i) {
					continue
				}
				if _, _, err := m.of(bytesArg(c, 1, i), flags); err != nil {
					c.fail(i, err)
					continue
				}
				c.out.Bools[i] = m.matches(bytesArg(c, 0, i))
			}
		}
	}}
}

// regexpReplace replaces the first match, or all with the flag g.
func regexpReplace(args int) impl {
	return impl{make: func() kernel {
		var m regexpMemo
		var template []byte
		return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
			flags := ""
			if args == 4 {
				flags = string(bytesArg(c, 3, i))
			}
			re, all, err := m.of(bytesArg(c, 1, i), flags)
			if err != nil {
				return dst, err
			}
			s := bytesArg(c, 0, i)
			template = goTemplate(template[:0], bytesArg(c, 2, i))
			n := 1
			if all {
				n = -1
			}
			from := 0
			for _, at := range re.FindAllSubmatchIndex(s, n) {
				dst = append(dst, s[from:at[0]]...)
				dst = re.Expand(dst, template, s, at)
				from = at[1]
				if len(dst) > maxResultBytes {
					return dst, errTextLength
				}
			}
			return append(dst, s[from:]...), nil
		})
	}}
}

// goTemplate turns PostgreSQL's replacement (\1 to \9, \& for the whole, \\ for itself) into Go's.
func goTemplate(dst, s []byte) []byte {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '$':
			dst = append(dst, "$$"...)
		case s[i] != '\\' || i+1 == len(s):
			dst = append(dst, s[i])
		case s[i+1] >= '1' && s[i+1] <= '9':
			i++
			dst = append(dst, '$', '{', s[i], '}')
		case s[i+1] == '&':
			i++
			dst = append(dst, "${0}"...)
		case s[i+1] == '\\':
			i++
			dst = append(dst, '\\')
		default:
			dst = append(dst, s[i])
		}
	}
	return dst
}
