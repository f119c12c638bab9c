package dataflow

import (
	"bytes"
	"regexp"
	"regexp/syntax"
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
				re, _, err := m.of(bytesArg(c, 1, i), string(bytesArg(c, 2, i)))
				if err != nil {
					c.fail(i, err)
					continue
				}
				s := bytesArg(c, 0, i)
				c.out.Bools[i] = !m.out(s) && re.Match(s)
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
			re, _, err := m.of(bytesArg(c, 1, i), "")
			if err != nil {
				return dst, err
			}
			s := bytesArg(c, 0, i)
			if m.out(s) {
				c.setNull(i)
				return dst, nil
			}
			at := re.FindIndex(s)
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
			re, _, err := m.of(bytesArg(c, 1, i), "")
			if err != nil {
				return dst, err
			}
			s := bytesArg(c, 0, i)
			if m.out(s) {
				c.setNull(i)
				return dst, nil
			}
			at := re.FindSubmatchIndex(s)
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
	need           []byte // that is in every text that matches; nil: nothing is known to be
	all            bool
	err            error
	known          bool
}

// of returns the compiled expression, and whether the flags ask for all matches.
func (m *regexpMemo) of(pattern []byte, flags string) (*regexp.Regexp, bool, error) {
	if m.known && m.pattern == string(pattern) && m.flags == flags {
		return m.re, m.all, m.err
	}
	m.pattern, m.flags, m.known, m.all, m.err, m.need = string(pattern), flags, true, false, nil, nil
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
	} else if tree, err := syntax.Parse(whole, syntax.Perl); err == nil {
		m.need = []byte(required(tree))
	}
	return m.re, m.all, m.err
}

// out tells without matching that nothing in s can match: to look for a part that every match has takes a fraction of the time.
func (m *regexpMemo) out(s []byte) bool { return len(m.need) > 0 && !bytes.Contains(s, m.need) }

// required returns the longest text that is known to be in every match.
func required(re *syntax.Regexp) string {
	switch {
	case re.Op == syntax.OpLiteral && re.Flags&syntax.FoldCase == 0:
		return string(re.Rune)
	case re.Op == syntax.OpCapture, re.Op == syntax.OpPlus, re.Op == syntax.OpRepeat && re.Min > 0:
		return required(re.Sub[0])
	case re.Op == syntax.OpConcat:
		longest := ""
		for _, sub := range re.Sub {
			if s := required(sub); len(s) > len(longest) {
				longest = s
			}
		}
		return longest
	}
	return ""
}

func regexpTest(flags string) impl {
	return impl{make: func() kernel {
		var m regexpMemo
		return func(c *call) {
			for i := range c.n {
				if c.null(i) {
					continue
				}
				re, _, err := m.of(bytesArg(c, 1, i), flags)
				if err != nil {
					c.fail(i, err)
					continue
				}
				s := bytesArg(c, 0, i)
				c.out.Bools[i] = !m.out(s) && re.Match(s)
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
