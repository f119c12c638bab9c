package dataflow

import (
	"regexp"
	"strings"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
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
				if _, _, err := m.of(bytesArg(c, 1, i), string(bytesArg(c, 2, i))); err != nil {
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
	"regexp_match(text, text)": {make: func() kernel {
		var m regexpMemo
		elems := record.NewColumn(record.Text, 0)
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
			if len(at) > 2 {
				at = at[2:] // the groups instead of the whole
			}
			elems.Reset()
			for k := 0; k < len(at); k += 2 {
				if at[k] < 0 {
					elems.AppendNull()
				} else {
					elems.AppendBytes(s[at[k]:at[k+1]])
				}
			}
			return record.AppendArray(dst, &elems), nil
		})
	}},
	"regexp_split_to_array(text, text)": {make: func() kernel {
		var m regexpMemo
		return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
			re, _, err := m.of(bytesArg(c, 1, i), "")
			if err != nil {
				return dst, err
			}
			s := bytesArg(c, 0, i)
			elems := record.NewColumn(record.Text, 0)
			from := 0
			for _, at := range re.FindAllIndex(s, -1) {
				if at[0] == at[1] && (at[0] == 0 || at[0] == len(s)) {
					continue // an empty match splits nothing off at the ends
				}
				elems.AppendBytes(s[from:at[0]])
				from = at[1]
			}
			elems.AppendBytes(s[from:])
			return record.AppendArray(dst, &elems), nil
		})
	}},
}

// bytesArg returns argument k at row i.
func bytesArg(c *call, k, i int) []byte { return c.args[k].col.At(i & c.args[k].mask) }

// regexpMemo remembers the last expression, which mostly is the only one.
type regexpMemo struct {
	pattern, flags string
	re             *regexp.Regexp
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
	m.pattern, m.flags, m.known, m.all, m.err, m.find = string(pattern), flags, true, false, nil, finder{}
	var b strings.Builder
	b.WriteString("s") // as in PostgreSQL, . matches a newline
	for _, f := range flags {
		switch f {
		case 'g':
			m.all = true
		case 'i':
			b.WriteByte('i')
		case 'n', 'm':
			b.WriteString("m-s")
		case 'c', 's':
		default:
			m.err = fault.SQL(fault.Invalid, "22023", "invalid regular expression option: %q", string(f))
			return nil, false, m.err
		}
	}
	whole := "(?" + b.String() + ")" + m.pattern
	if m.re, m.err = regexp.Compile(whole); m.err != nil {
		m.err = fault.SQL(fault.Invalid, "2201B", "invalid regular expression: %v", m.err)
	} else {
		m.find = newFinder(m.re, whole)
	}
	return m.re, m.all, m.err
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
