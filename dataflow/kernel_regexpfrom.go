package dataflow

import (
	"regexp"
	"regexp/syntax"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// regexpFromImpls is the functions of regular expressions with the arguments that say where to begin, which match is meant, and how to
// match.
var regexpFromImpls = map[string]impl{
	"regexp_match(text, text, text)":                                 {make: regexpMatch},
	"regexp_split_to_array(text, text, text)":                        {make: regexpSplit},
	"regexp_count(text, text, bigint)":                               {make: regexpCountFrom},
	"regexp_count(text, text, bigint, text)":                         {make: regexpCountFrom},
	"regexp_instr(text, text)":                                       {make: regexpInstr},
	"regexp_instr(text, text, bigint)":                               {make: regexpInstr},
	"regexp_instr(text, text, bigint, bigint)":                       {make: regexpInstr},
	"regexp_instr(text, text, bigint, bigint, bigint)":               {make: regexpInstr},
	"regexp_instr(text, text, bigint, bigint, bigint, text)":         {make: regexpInstr},
	"regexp_instr(text, text, bigint, bigint, bigint, text, bigint)": {make: regexpInstr},
	"regexp_substr(text, text, bigint)":                              {make: regexpSubstrFrom},
	"regexp_substr(text, text, bigint, bigint)":                      {make: regexpSubstrFrom},
	"regexp_substr(text, text, bigint, bigint, text)":                {make: regexpSubstrFrom},
	"regexp_substr(text, text, bigint, bigint, text, bigint)":        {make: regexpSubstrFrom},
	"regexp_replace(text, text, text, bigint)":                       {make: regexpReplaceFrom},
	"regexp_replace(text, text, text, bigint, bigint)":               {make: regexpReplaceFrom},
	"regexp_replace(text, text, text, bigint, bigint, text)":         {make: regexpReplaceFrom},
}

func errArgument(name string) error {
	return fault.SQL(fault.Invalid, "22023", "invalid value for parameter %q", name)
}

// optionalInt returns argument k at row i, if there is one, which must be at least least.
func optionalInt(c *call, k, i int, otherwise, least int64, name string) (int64, error) {
	if k >= len(c.args) {
		return otherwise, nil
	}
	v := intArg(c, k, i)
	if v < least {
		return 0, errArgument(name)
	}
	return v, nil
}

// optionalFlags compiles argument 1 with the flags of argument k, if there is one; they can't ask for all matches.
func (m *regexpMemo) optionalFlags(c *call, k, i int) error {
	flags := ""
	if k < len(c.args) {
		flags = string(bytesArg(c, k, i))
	}
	_, all, err := m.of(bytesArg(c, 1, i), flags)
	if err == nil && all {
		err = fault.SQL(fault.Invalid, "22023", `the "global" option is not supported here`)
	}
	return err
}

// from returns the expression for a text without its first bytes: what matches the beginning matches nothing then.
func (m *regexpMemo) from(at int) *regexp.Regexp {
	if at == 0 {
		return m.re
	}
	if m.tail == nil {
		m.tail = m.re
		if tree, err := syntax.Parse(m.whole, syntax.Perl); err == nil && withoutBegin(tree) {
			if re, err := regexp.Compile(tree.String()); err == nil {
				m.tail = re
			}
		}
	}
	return m.tail
}

// matchesFrom returns the matches from the start-th character (1 is the first) on, n at most (negative: all), as
// Regexp.FindAllSubmatchIndex does.
func (m *regexpMemo) matchesFrom(s []byte, start int64, n int) [][]int {
	if start-1 > int64(utf8.RuneCount(s)) {
		return nil
	}
	skip := runeOffset(s, start-1)
	all := m.from(skip).FindAllSubmatchIndex(s[skip:], n)
	for _, at := range all {
		for k := range at {
			if at[k] >= 0 {
				at[k] += skip
			}
		}
	}
	return all
}

// groupOf returns where group is in a match, from and to; ok false: it isn't. The match stands for the first group where there are none.
func groupOf(at []int, group int64) (from, to int, ok bool) {
	if group == 1 && len(at) == 2 {
		group = 0
	}
	if group < 0 || group >= int64(len(at)/2) || at[2*group] < 0 {
		return 0, 0, false
	}
	return at[2*group], at[2*group+1], true
}

func regexpCountFrom() kernel {
	var m regexpMemo
	return func(c *call) {
		for i := range c.n {
			if c.null(i) {
				continue
			}
			start, err := optionalInt(c, 2, i, 1, 1, "start")
			if err == nil {
				err = m.optionalFlags(c, 3, i)
			}
			if err != nil {
				c.fail(i, err)
				continue
			}
			c.out.Ints[i] = int64(len(m.matchesFrom(bytesArg(c, 0, i), start, -1)))
		}
	}
}

// nth returns the n-th match from start on, which the arguments 2 and 3 are; nil: there is none.
func (m *regexpMemo) nth(c *call, i, flags int) ([]int, error) {
	start, err := optionalInt(c, 2, i, 1, 1, "start")
	if err != nil {
		return nil, err
	}
	n, err := optionalInt(c, 3, i, 1, 1, "n")
	if err != nil {
		return nil, err
	}
	if err := m.optionalFlags(c, flags, i); err != nil {
		return nil, err
	}
	s := bytesArg(c, 0, i)
	if n > int64(len(s))+1 {
		return nil, nil
	}
	all := m.matchesFrom(s, start, int(n))
	if int64(len(all)) < n {
		return nil, nil
	}
	return all[n-1], nil
}

// regexpInstr is regexp_instr(text, pattern, start, n, 1 for the character behind, flags, group).
func regexpInstr() kernel {
	var m regexpMemo
	return func(c *call) {
		for i := range c.n {
			if c.null(i) {
				continue
			}
			behind, err := optionalInt(c, 4, i, 0, 0, "endoption")
			if err == nil && behind > 1 {
				err = errArgument("endoption")
			}
			var at []int
			group := int64(0)
			if err == nil {
				group, err = optionalInt(c, 6, i, 0, 0, "subexpr")
			}
			if err == nil {
				at, err = m.nth(c, i, 5)
			}
			if err != nil {
				c.fail(i, err)
				continue
			}
			c.out.Ints[i] = 0
			if from, to, ok := groupOf(at, group); ok {
				if behind == 1 {
					from = to
				}
				c.out.Ints[i] = int64(utf8.RuneCount(bytesArg(c, 0, i)[:from])) + 1
			}
		}
	}
}

// regexpSubstrFrom is regexp_substr(text, pattern, start, n, flags, group).
func regexpSubstrFrom() kernel {
	var m regexpMemo
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		group, err := optionalInt(c, 5, i, 0, 0, "subexpr")
		if err != nil {
			return dst, err
		}
		at, err := m.nth(c, i, 4)
		if err != nil {
			return dst, err
		}
		from, to, ok := groupOf(at, group)
		if !ok {
			c.setNull(i)
			return dst, nil
		}
		return append(dst, bytesArg(c, 0, i)[from:to]...), nil
	})
}

// regexpReplaceFrom is regexp_replace(text, pattern, replacement, start, n, flags): the n-th match, all where n is 0.
func regexpReplaceFrom() kernel {
	var m regexpMemo
	var template []byte
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		start, err := optionalInt(c, 3, i, 1, 1, "start")
		if err != nil {
			return dst, err
		}
		n, err := optionalInt(c, 4, i, 1, 0, "n")
		if err != nil {
			return dst, err
		}
		flags := ""
		if len(c.args) > 5 {
			flags = string(bytesArg(c, 5, i))
		}
		re, _, err := m.of(bytesArg(c, 1, i), flags)
		if err != nil {
			return dst, err
		}
		s := bytesArg(c, 0, i)
		template = goTemplate(template[:0], bytesArg(c, 2, i))
		from := 0
		for k, at := range m.matchesFrom(s, start, int(min(n, int64(len(s))+1))-b2i(n == 0)) {
			if n != 0 && int64(k) != n-1 {
				continue
			}
			dst = append(dst, s[from:at[0]]...)
			dst = re.Expand(dst, template, s, at)
			from = at[1]
			if len(dst) > maxResultBytes {
				return dst, errTextLength
			}
		}
		return append(dst, s[from:]...), nil
	})
}

// regexpMatch is regexp_match(text, pattern, flags): the groups of the first match, or all of it where there are none.
func regexpMatch() kernel {
	var m regexpMemo
	elems := record.NewColumn(record.Text, 0)
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if err := m.optionalFlags(c, 2, i); err != nil {
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
}

// regexpSplit is regexp_split_to_array(text, pattern, flags).
func regexpSplit() kernel {
	var m regexpMemo
	elems := record.NewColumn(record.Text, 0)
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if err := m.optionalFlags(c, 2, i); err != nil {
			return dst, err
		}
		s := bytesArg(c, 0, i)
		elems.Reset()
		from := 0
		for _, at := range m.re.FindAllIndex(s, -1) {
			if at[0] == at[1] && (at[0] == 0 || at[0] == len(s)) {
				continue // an empty match splits nothing off at the ends
			}
			if elems.N >= record.MaxArray {
				return dst, errArraySize
			}
			elems.AppendBytes(s[from:at[0]])
			from = at[1]
		}
		elems.AppendBytes(s[from:])
		return record.AppendArray(dst, &elems), nil
	})
}
