package client

import (
	"strings"
	"unicode/utf8"
)

// Statement is one SQL statement of a text.
type Statement struct {
	Text         string // without the semicolon and what surrounds it
	Line, Column int    // of its first character in the text, from 1; columns count characters
}

// Split cuts a text into its statements at semicolons outside of quotes and comments. rest is what follows the last
// semicolon, "" if that is only space and comments: a prompt reads on then, a script ends.
func Split(text string) (statements []Statement, rest string) {
	start := -1 // of the statement's first token
	for i := 0; i < len(text); {
		kind, end := nextToken(text, i)
		switch {
		case kind == tokenSemicolon:
			if start >= 0 {
				statements = append(statements, Statement{Text: strings.TrimSpace(text[start:i])})
				statements[len(statements)-1].Line, statements[len(statements)-1].Column = start, 0
			}
			start = -1
		case kind != tokenSpace && start < 0:
			start = i
		}
		i = end
	}
	place(text, statements)
	if start >= 0 {
		rest = text[start:]
	}
	return statements, rest
}

// SplitAll is Split for a whole script: its last statement needs no semicolon.
func SplitAll(text string) []Statement {
	statements, rest := Split(text)
	if rest != "" {
		last := []Statement{{Text: strings.TrimSpace(rest), Line: len(text) - len(rest)}}
		place(text, last)
		statements = append(statements, last...)
	}
	return statements
}

// place turns the byte position that is in Line into line and column.
func place(text string, statements []Statement) {
	line, column, at := 1, 1, 0
	for i := range statements {
		for pos := statements[i].Line; at < pos; at++ {
			switch c := text[at]; {
			case c == '\n':
				line, column = line+1, 1
			case utf8.RuneStart(c):
				column++
			}
		}
		statements[i].Line, statements[i].Column = line, column
	}
}

type tokenKind uint8

const (
	tokenOther  tokenKind = iota
	tokenSpace            // and comments
	tokenWord             // keyword, identifier or number
	tokenQuoted           // string or quoted identifier
	tokenParam            // $1
	tokenSemicolon
)

// nextToken returns the kind and end of the token at i, by PostgreSQL's lexical rules (its manual, section 4.1). What is
// not closed goes on to the end of the text.
func nextToken(s string, i int) (tokenKind, int) {
	c := s[i]
	switch {
	case c == ';':
		return tokenSemicolon, i + 1
	case c == ' ' || c >= '\t' && c <= '\r':
		return tokenSpace, i + 1
	case strings.HasPrefix(s[i:], "--"):
		if n := strings.IndexByte(s[i:], '\n'); n >= 0 {
			return tokenSpace, i + n + 1
		}
		return tokenSpace, len(s)
	case strings.HasPrefix(s[i:], "/*"):
		return tokenSpace, commentEnd(s, i)
	case c == '\'' || c == '"':
		return tokenQuoted, quoteEnd(s, i, c, false)
	case (c == 'e' || c == 'E') && i+1 < len(s) && s[i+1] == '\'':
		return tokenQuoted, quoteEnd(s, i+1, '\'', true)
	case c == '$':
		return dollar(s, i)
	case isWord(c):
		j := i + 1
		for j < len(s) && (isWord(s[j]) || s[j] == '$') {
			j++
		}
		return tokenWord, j
	}
	return tokenOther, i + 1
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80
}

// commentEnd returns the end of a block comment; they nest.
func commentEnd(s string, i int) int {
	depth := 0
	for i < len(s) {
		switch {
		case strings.HasPrefix(s[i:], "/*"):
			depth++
			i += 2
		case strings.HasPrefix(s[i:], "*/"):
			depth--
			i += 2
			if depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return len(s)
}

// quoteEnd returns the end of what is quoted by q at i. A doubled quote stands for itself.
func quoteEnd(s string, i int, q byte, escapes bool) int {
	for i++; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] == q && i+1 < len(s) && s[i+1] == q:
			i++
		case s[i] == q:
			return i + 1
		}
	}
	return len(s)
}

// dollar reads $1 or a dollar-quoted string.
func dollar(s string, i int) (tokenKind, int) {
	j := i + 1
	if j < len(s) && s[j] >= '0' && s[j] <= '9' {
		for j < len(s) && s[j] >= '0' && s[j] <= '9' {
			j++
		}
		return tokenParam, j
	}
	for j < len(s) && isWord(s[j]) {
		j++
	}
	if j == len(s) || s[j] != '$' {
		return tokenOther, i + 1
	}
	tag := s[i : j+1]
	if n := strings.Index(s[j+1:], tag); n >= 0 {
		return tokenQuoted, j + 1 + n + len(tag)
	}
	return tokenQuoted, len(s)
}

// Tokens returns a text's tokens without space and comments.
func Tokens(text string) []string {
	var out []string
	for i := 0; i < len(text); {
		kind, end := nextToken(text, i)
		if kind != tokenSpace {
			out = append(out, text[i:end])
		}
		i = end
	}
	return out
}

// repeatable tells whether all statements of a text only read, so that they may be run again when a node fails.
func repeatable(text string) bool {
	for _, s := range SplitAll(text) {
		first := Tokens(s.Text)[0]
		if first == "(" {
			continue // of a SELECT
		}
		switch strings.ToUpper(first) {
		case "SELECT", "VALUES", "TABLE", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "SET", "RESET":
		default:
			return false
		}
	}
	return true
}
