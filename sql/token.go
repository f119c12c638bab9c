package sql

import (
	"errors"
	"strings"
	"unicode/utf8"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Limits of a text. They stand before PostgreSQL's C parser, whose stack an attacker could overflow otherwise.
const (
	MaxTextBytes = 1 << 20 // of the text given to Parse
	MaxNesting   = 256     // levels of an expression or query: parentheses, CASE, and operators that take each other's results
	MaxColumns   = 1600    // of a stream, a select list, GROUP BY or ORDER BY
	MaxNameBytes = 63      // of the name of a stream, view or column
)

// token is one token of the source; comments are left out.
type token struct {
	tok      pgquery.Token
	keyword  pgquery.KeywordKind
	from, to int // bytes of the source
}

const (
	tokenSemicolon = pgquery.Token_ASCII_59
	tokenOpen      = pgquery.Token_ASCII_40
	tokenClose     = pgquery.Token_ASCII_41
	tokenComma     = pgquery.Token_ASCII_44
	tokenDot       = pgquery.Token_ASCII_46
	tokenEquals    = pgquery.Token_ASCII_61
	tokenMinus     = pgquery.Token_ASCII_45
)

// scan splits the source into tokens.
func scan(src *source) ([]token, error) {
	if len(src.text) > MaxTextBytes {
		return nil, src.fail(MaxTextBytes, stateTooLong, "send less at a time",
			"statement text of %d bytes is over the limit of %d bytes", len(src.text), MaxTextBytes)
	}
	if !utf8.ValidString(src.text) {
		return nil, src.fail(invalidUTF8(src.text), stateEncoding, "", "text is not valid UTF-8")
	}
	if i := strings.IndexByte(src.text, 0); i >= 0 {
		return nil, src.fail(i, stateEncoding, "", "text holds a zero byte")
	}
	r, err := scanText(src.text)
	if err != nil {
		return nil, src.grammar(err, 0, len(src.text))
	}
	tokens := make([]token, 0, len(r.Tokens))
	for _, t := range r.Tokens {
		if t.Token == pgquery.Token_SQL_COMMENT || t.Token == pgquery.Token_C_COMMENT {
			continue
		}
		k := token{tok: t.Token, keyword: t.KeywordKind, from: int(t.Start), to: int(t.End)}
		if k.tok == pgquery.Token_IDENT && len(identifier(src.text[k.from:k.to])) > MaxNameBytes {
			return nil, src.fail(k.from, stateNameTooLong, "", "name of %d bytes is over the limit of %d bytes",
				len(identifier(src.text[k.from:k.to])), MaxNameBytes)
		}
		tokens = append(tokens, k)
	}
	return tokens, nil
}

func invalidUTF8(s string) int {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return i
			}
		}
	}
	return len(s)
}

// identifier returns the name that an identifier token means: quotes taken off, or folded to lower case.
func identifier(text string) string {
	if len(text) >= 2 && text[0] == '"' {
		return strings.ReplaceAll(text[1:len(text)-1], `""`, `"`)
	}
	return lowerASCII(text)
}

func lowerASCII(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if 'A' <= b[j] && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// grammar turns an error of PostgreSQL's scanner or parser over the bytes from..to of the source into one of ours.
func (s *source) grammar(err error, from, to int) error {
	var ge *grammarError
	if !errors.As(err, &ge) {
		return s.fail(from, stateSyntax, "", "syntax error: %v", err)
	}
	pos := from
	for range max(ge.char, 0) {
		if pos >= to {
			break
		}
		_, n := utf8.DecodeRuneInString(s.text[pos:])
		pos += n
	}
	msg, near, hasNear := strings.Cut(ge.message, " at or near ")
	switch {
	case msg == "syntax error at end of input", strings.HasSuffix(msg, "at end of input"):
		return s.fail(to, stateSyntax, "", "syntax error: the statement ends too early")
	case hasNear && msg == "syntax error":
		return s.fail(pos, stateSyntax, "", "syntax error near %s", shorten(near))
	case hasNear:
		return s.fail(pos, stateSyntax, "", "syntax error: %s near %s", msg, shorten(near))
	}
	return s.fail(pos, stateSyntax, "", "syntax error: %s", msg)
}

// shorten keeps what a message quotes readable: one line of at most 60 bytes.
func shorten(quoted string) string {
	quoted = strings.Join(strings.Fields(quoted), " ")
	if len(quoted) <= 60 {
		return quoted
	}
	cut := 60
	for !utf8.RuneStart(quoted[cut]) {
		cut--
	}
	return quoted[:cut] + `..."`
}

// frame is one open parenthesis, bracket or CASE, with upper bounds of the depth of the tree that stands in it.
type frame struct {
	closer   pgquery.Token
	between  int // BETWEENs whose AND is yet to come
	sets     int // UNIONs, JOINs: each nests all before it
	segment  int // operators since the last thing that starts an expression of its own
	children int // deepest child of the segment
	deepest  int // of the segments before
}

func (f *frame) depth() int { return 1 + f.sets + max(f.deepest, f.segment+f.children) }

func (f *frame) next() {
	f.deepest, f.segment, f.children = max(f.deepest, f.segment+f.children), 0, 0
}

// checkNesting bounds the depth of the tree that the tokens of one statement can give, in time linear in them.
// It counts operators of one expression as levels, because a + b + c is a tree that leans to the left; AND and OR
// are not counted, because their chains are flat.
func checkNesting(src *source, tokens []token) error {
	stack := []frame{{}}
	for i, t := range tokens {
		f := &stack[len(stack)-1]
		if i > 0 && tokens[i-1].tok == tokenDot {
			continue // a.b, whatever keyword b is
		}
		if c := closerOf(t.tok); c != 0 {
			stack = append(stack, frame{closer: c})
			f = &stack[len(stack)-1]
		} else if len(stack) > 1 && t.tok == f.closer {
			d := f.depth()
			stack = stack[:len(stack)-1]
			f = &stack[len(stack)-1]
			f.children = max(f.children, d)
		} else {
			f.count(t.tok)
		}
		if len(stack)+f.depth()-1 > MaxNesting {
			return src.fail(t.from, stateTooDeep, "write it flatter, or in several statements",
				"statement nests deeper than %d levels", MaxNesting)
		}
	}
	return nil
}

func closerOf(t pgquery.Token) pgquery.Token {
	switch t {
	case tokenOpen:
		return tokenClose
	case pgquery.Token_ASCII_91: // [
		return pgquery.Token_ASCII_93
	case pgquery.Token_CASE:
		return pgquery.Token_END_P
	}
	return 0
}

func (f *frame) count(t pgquery.Token) {
	switch t {
	case tokenComma, pgquery.Token_OR, pgquery.Token_SELECT, pgquery.Token_WHERE, pgquery.Token_HAVING,
		pgquery.Token_WHEN, pgquery.Token_THEN, pgquery.Token_ELSE:
		f.next()
	case pgquery.Token_AND:
		if f.between > 0 {
			f.between--
		} else {
			f.next()
		}
	case pgquery.Token_BETWEEN:
		f.between++
		f.segment++
	case pgquery.Token_UNION, pgquery.Token_INTERSECT, pgquery.Token_EXCEPT, pgquery.Token_JOIN, pgquery.Token_EXPLAIN:
		f.sets++
	case pgquery.Token_Op, pgquery.Token_TYPECAST, pgquery.Token_LESS_EQUALS, pgquery.Token_GREATER_EQUALS,
		pgquery.Token_NOT_EQUALS, pgquery.Token_NOT, pgquery.Token_NOT_LA, pgquery.Token_IS, pgquery.Token_ISNULL, pgquery.Token_NOTNULL,
		pgquery.Token_LIKE, pgquery.Token_ILIKE, pgquery.Token_SIMILAR, pgquery.Token_IN_P, pgquery.Token_COLLATE,
		pgquery.Token_AT, pgquery.Token_OPERATOR, pgquery.Token_OVERLAPS,
		pgquery.Token_ASCII_37, pgquery.Token_ASCII_42, pgquery.Token_ASCII_43, pgquery.Token_ASCII_45,
		pgquery.Token_ASCII_47, pgquery.Token_ASCII_60, pgquery.Token_ASCII_61, pgquery.Token_ASCII_62, pgquery.Token_ASCII_94:
		f.segment++
	}
}
