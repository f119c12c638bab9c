package dataflow

import (
	"bytes"
	"unicode"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/fault"
)

var errLikeEscape = fault.SQL(fault.Invalid, "22025", "LIKE pattern must not end with escape character")

// likeImpls is LIKE and ILIKE.
var likeImpls = map[string]impl{
	"like(text, text)":  {make: func() kernel { return likeKernel(false) }},
	"ilike(text, text)": {make: func() kernel { return likeKernel(true) }},
}

// likePattern is a pattern as it was seen last: most are constants, and most constants are plain texts with % at
// their ends.
type likePattern struct {
	pattern []byte
	seen    bool
	plain   bool // no character means something special, but for % at the ends
	head    bool // begins with %
	tail    bool // ends with %
	text    []byte
}

func (p *likePattern) set(pattern []byte) {
	p.pattern, p.seen = append(p.pattern[:0], pattern...), true
	p.text = p.pattern
	p.head = bytes.HasPrefix(p.text, []byte("%"))
	p.text = bytes.TrimLeft(p.text, "%")
	p.tail = bytes.HasSuffix(p.text, []byte("%"))
	p.text = bytes.TrimRight(p.text, "%")
	p.plain = !bytes.ContainsAny(p.text, `%_\`)
}

func (p *likePattern) match(text []byte) (bool, error) {
	if !p.plain {
		return like(text, p.pattern)
	}
	switch {
	case p.head && (p.tail || len(p.text) == 0):
		return bytes.Contains(text, p.text), nil
	case p.head:
		return bytes.HasSuffix(text, p.text), nil
	case p.tail:
		return bytes.HasPrefix(text, p.text), nil
	}
	return bytes.Equal(text, p.text), nil
}

func likeKernel(fold bool) kernel {
	var p likePattern
	var text, pattern []byte
	return func(c *call) {
		a, b := c.args[0], c.args[1]
		for i := range c.n {
			if c.null(i) {
				continue
			}
			t, pat := a.col.At(i&a.mask), b.col.At(i&b.mask)
			if fold {
				text = appendMapped(text[:0], t, unicode.ToLower)
				t = text
			}
			if i == 0 || !b.scalar() || !p.seen {
				if fold {
					pattern = appendMapped(pattern[:0], pat, unicode.ToLower)
					pat = pattern
				}
				if !p.seen || !bytes.Equal(p.pattern, pat) {
					p.set(pat)
				}
			}
			ok, err := p.match(t)
			if err != nil {
				c.fail(i, err)
				continue
			}
			c.out.Bools[i] = ok
		}
		if cap(text) > maxKeptBytes {
			text = nil
		}
	}
}

// like matches text with a pattern of _ (any character), % (any characters) and \ (the next character as it is).
// When something after a % doesn't match, only that last % takes one more character: an earlier one needn't, as all
// between the two has matched as early as it can. So the time is at most the product of the lengths.
func like(text, pattern []byte) (bool, error) {
	t, p := 0, 0
	retryT, retryP := -1, 0
	for t < len(text) {
		if p < len(pattern) {
			switch pattern[p] {
			case '%':
				for p < len(pattern) && pattern[p] == '%' {
					p++
				}
				if p == len(pattern) {
					return true, nil
				}
				retryT, retryP = t, p
				continue
			case '_':
				t += charSize(text[t:])
				p++
				continue
			case '\\':
				if p+1 == len(pattern) {
					return false, errLikeEscape
				}
				if text[t] == pattern[p+1] {
					t++
					p += 2
					continue
				}
			default:
				if text[t] == pattern[p] {
					t++
					p++
					continue
				}
			}
		}
		if retryT < 0 {
			return false, nil
		}
		retryT += charSize(text[retryT:])
		t, p = retryT, retryP
	}
	for p < len(pattern) && pattern[p] == '%' {
		p++
	}
	return p == len(pattern), nil
}

func charSize(b []byte) int {
	_, n := utf8.DecodeRune(b)
	return n
}
