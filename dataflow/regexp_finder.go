package dataflow

import (
	"bytes"
	"regexp"
	"regexp/syntax"
	"unicode/utf8"
)

// finder says where in a text the first match of a regular expression can be, since to look for a part that every match has
// takes a fraction of the time that matching takes.
type finder struct {
	re   *regexp.Regexp
	need []byte // that is in every match; empty: nothing is known to be
	// before is how many bytes of a match are in front of the first of need at most; negative: any number.
	before int
	later  *regexp.Regexp // re for a text without its beginning: nothing there is the beginning
}

func newFinder(re *regexp.Regexp, pattern string) finder {
	f := finder{re: re, before: -1, later: re}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return f
	}
	need, before := near(tree)
	if far := required(tree); before < 0 || len(far) > 2*len(need) {
		need, before = far, -1
	}
	f.need = []byte(need)
	if before < 0 || len(need) == 0 {
		return f
	}
	if withoutBegin(tree) {
		if f.later, err = regexp.Compile(tree.String()); err != nil {
			f.later = re
			return f
		}
	}
	f.before = before
	return f
}

// look returns what to match with and from which byte of s on; nil: nothing in s matches.
func (f *finder) look(s []byte) (re *regexp.Regexp, from int) {
	if len(f.need) == 0 {
		return f.re, 0
	}
	at := bytes.Index(s, f.need)
	if at < 0 {
		return nil, 0
	}
	if f.before < 0 || at <= f.before {
		return f.re, 0
	}
	from = at - f.before
	for from > 0 && !utf8.RuneStart(s[from]) {
		from--
	}
	if from == 0 {
		return f.re, 0
	}
	return f.later, from
}

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

// near returns the longest text that is in every match with a bounded number of bytes in front of it; negative: there is none.
func near(re *syntax.Regexp) (need string, before int) {
	switch {
	case re.Op == syntax.OpLiteral && re.Flags&syntax.FoldCase == 0:
		return string(re.Rune), 0
	case re.Op == syntax.OpCapture:
		return near(re.Sub[0])
	case re.Op == syntax.OpConcat:
		need, before = "", -1
		front := 0
		for _, sub := range re.Sub {
			if s, n := near(sub); n >= 0 && len(s) > len(need) {
				need, before = s, front+n
			}
			n := longest(sub)
			if n < 0 || front+n > maxFront {
				break
			}
			front += n
		}
		return need, before
	}
	return "", -1
}

// maxFront bounds what is matched in front of the text that was found.
const maxFront = 256

// longest returns how many bytes a match takes at most; negative: any number, or what matches depends on what is in front of
// it, other than nothing.
func longest(re *syntax.Regexp) int {
	switch re.Op {
	case syntax.OpNoMatch, syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpEndText, syntax.OpEndLine:
		return 0
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			return len(string(re.Rune))
		}
		return utf8.UTFMax * len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		if n := len(re.Rune); n > 0 && re.Rune[n-1] < utf8.RuneSelf {
			return 1
		}
		return utf8.UTFMax
	case syntax.OpCapture, syntax.OpQuest:
		return longest(re.Sub[0])
	case syntax.OpRepeat:
		n := longest(re.Sub[0])
		if re.Max < 0 || n < 0 || n*re.Max > maxFront {
			return -1
		}
		return n * re.Max
	case syntax.OpConcat, syntax.OpAlternate:
		all := 0
		for _, sub := range re.Sub {
			n := longest(sub)
			switch {
			case n < 0 || all+n > maxFront:
				return -1
			case re.Op == syntax.OpConcat:
				all += n
			default:
				all = max(all, n)
			}
		}
		return all
	}
	return -1
}

// withoutBegin makes what matches the beginning of the text match nothing, and tells whether there was any.
func withoutBegin(re *syntax.Regexp) bool {
	if re.Op == syntax.OpBeginText {
		re.Op = syntax.OpNoMatch
		return true
	}
	found := false
	for _, sub := range re.Sub {
		found = withoutBegin(sub) || found
	}
	return found
}
