package sql

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Parse splits text at its semicolons and parses each statement; empty ones are skipped. Errors carry SQLSTATE 42601
// (syntax), 0A000 (what PostgreSQL has and Millrace doesn't), 54000 and 54001 (limits), among others, and the line
// and column in text.
func Parse(text string) ([]Statement, error) { return ParseFunc(text, nil) }

// ParseFunc is Parse for a caller that has statements of its own: other is given the text of each statement, and of a
// query within COPY, DECLARE and PREPARE, whose length and nesting are within the limits, and returns nil for what isn't
// its own.
func ParseFunc(text string, other func(text string) Statement) ([]Statement, error) {
	src := &source{text: text, other: other}
	tokens, err := scan(src)
	if err != nil {
		return nil, err
	}
	var out []Statement
	for start := 0; start < len(tokens); {
		end := start
		for end < len(tokens) && tokens[end].tok != tokenSemicolon {
			end++
		}
		if part := tokens[start:end]; len(part) > 0 {
			if err := checkNesting(src, part); err != nil {
				return nil, err
			}
			s, err := newCursor(src, part).statement()
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
		start = end + 1
	}
	return out, nil
}

// cursor walks over the tokens of one statement.
type cursor struct {
	src    *source
	tokens []token
	i      int
}

func newCursor(src *source, tokens []token) *cursor { return &cursor{src: src, tokens: tokens} }

// end returns the position behind the last token.
func (c *cursor) end() int { return c.tokens[len(c.tokens)-1].to }

// pos returns the position of the next token.
func (c *cursor) pos() int {
	if c.i < len(c.tokens) {
		return c.tokens[c.i].from
	}
	return c.end()
}

func (c *cursor) done() bool { return c.i >= len(c.tokens) }

// base returns what all statements share, for the whole of the tokens.
func (c *cursor) base() statement {
	return statement{src: c.src, from: c.tokens[0].from, to: c.end()}
}

func (c *cursor) text(i int) string { return c.src.text[c.tokens[i].from:c.tokens[i].to] }

// word returns token i, in lower case, when it is a keyword or a name without quotes.
func (c *cursor) word(i int) string {
	if i >= len(c.tokens) {
		return ""
	}
	t := c.tokens[i]
	if t.tok != pgquery.Token_IDENT && t.keyword == pgquery.KeywordKind_NO_KEYWORD || c.src.text[t.from] == '"' {
		return ""
	}
	return lowerASCII(c.text(i))
}

// accept takes the words if they come next, all of them.
func (c *cursor) accept(words ...string) bool {
	for k, w := range words {
		if c.word(c.i+k) != w {
			return false
		}
	}
	c.i += len(words)
	return true
}

// acceptToken takes the next token if it is t.
func (c *cursor) acceptToken(t pgquery.Token) bool {
	if !c.done() && c.tokens[c.i].tok == t {
		c.i++
		return true
	}
	return false
}

// expect returns the error that something else should stand here.
func (c *cursor) expect(what string) error {
	if c.done() {
		return c.src.fail(c.end(), stateSyntax, "expected "+what, "syntax error: the statement ends too early")
	}
	return c.src.fail(c.pos(), stateSyntax, "expected "+what, "syntax error near %q", shorten(c.text(c.i)))
}

func (c *cursor) need(t pgquery.Token, what string) error {
	if !c.acceptToken(t) {
		return c.expect(what)
	}
	return nil
}

// finish is for the end of a statement.
func (c *cursor) finish() error {
	if !c.done() {
		return c.expect("the end of the statement")
	}
	return nil
}

// name takes a name as PostgreSQL's grammar allows it for relations and columns.
func (c *cursor) name(what string) (string, int, error) {
	if c.done() {
		return "", 0, c.expect(what)
	}
	t := c.tokens[c.i]
	switch {
	case t.tok == pgquery.Token_IDENT:
	case t.keyword == pgquery.KeywordKind_UNRESERVED_KEYWORD, t.keyword == pgquery.KeywordKind_COL_NAME_KEYWORD:
	case t.keyword == pgquery.KeywordKind_RESERVED_KEYWORD, t.keyword == pgquery.KeywordKind_TYPE_FUNC_NAME_KEYWORD:
		return "", 0, c.src.fail(t.from, stateSyntax, `write it in double quotes to use it as a name`, "syntax error: expected %s, but %q is a reserved word", what, c.text(c.i))
	default:
		return "", 0, c.expect(what)
	}
	name := identifier(c.text(c.i))
	c.i++
	if name == PublicSchema && c.acceptToken(tokenDot) {
		return c.name(what)
	}
	if c.i < len(c.tokens) && c.tokens[c.i].tok == tokenDot {
		return "", 0, c.src.unsupported(t.from, "write the bare name", "schemas are not supported")
	}
	return name, t.from, nil
}

// statement parses the tokens as one statement.
func (c *cursor) statement() (Statement, error) {
	if c.src.other != nil && !c.done() {
		if st := c.src.other(c.src.text[c.pos():c.end()]); st != nil {
			return st, nil
		}
	}
	if st, ok, err := c.sessionStatement(); ok {
		return st, err
	}
	switch first := c.word(0); first {
	case "create":
		return c.create()
	case "drop":
		return c.drop()
	case "show":
		return c.show()
	case "describe", "desc":
		return c.describe()
	case "subscribe":
		return c.subscribe()
	case "explain":
		return c.explain()
	case "set", "reset":
		return c.set()
	case "insert":
		return c.insert()
	case "update":
		return c.update()
	case "delete":
		return c.delete()
	case "truncate":
		return c.truncate()
	case "select", "values", "table":
		return c.query()
	case "with":
		return c.with()
	case "":
		if c.tokens[0].tok == tokenOpen {
			return c.query()
		}
		return nil, c.expect("a statement")
	default:
		return nil, c.other(first)
	}
}

func (c *cursor) query() (Statement, error) {
	s, err := parseQuery(c.src, c.pos(), c.end())
	if err != nil {
		return nil, err
	}
	return s, nil
}

// with parses WITH ... SELECT, INSERT, UPDATE or DELETE.
func (c *cursor) with() (Statement, error) {
	from, to := c.pos(), c.end()
	conv, node, err := parsePart(c.src, from, to)
	if err != nil {
		return nil, err
	}
	switch n := node.GetNode().(type) {
	case *pgquery.Node_InsertStmt:
		return conv.insertStmt(n.InsertStmt, from, to)
	case *pgquery.Node_UpdateStmt:
		return conv.updateStmt(n.UpdateStmt, from, to)
	case *pgquery.Node_DeleteStmt:
		return conv.deleteStmt(n.DeleteStmt, from, to)
	}
	return c.query()
}

// statementWords are the words that a statement may begin with.
var statementWords = []string{"select", "create", "drop", "show", "describe", "explain", "subscribe", "insert", "update", "delete", "truncate", "set", "reset"}

// other refuses a statement: by name when it is one of PostgreSQL's.
func (c *cursor) other(first string) error {
	pos := c.pos()
	if s := suggest(first, statementWords); s != "" && len(first) > 3 {
		if _, err := parseText(c.src.text[pos:c.end()]); err != nil {
			return c.src.fail(pos, stateSyntax, s, "syntax error near %q", shorten(c.text(0)))
		}
	}
	if _, err := parseText(c.src.text[pos:c.end()]); err != nil {
		return c.src.grammar(err, pos, c.end())
	}
	hint := ""
	switch first {
	case "alter":
		first += " " + c.word(1)
		hint = "make another with CREATE, copy with INSERT ... SELECT, and DROP the old one"
	case "merge":
		hint = "use INSERT ... ON CONFLICT, UPDATE or DELETE"
	}
	return c.src.unsupported(pos, hint, "statement %s is not supported", upper(first))
}

// Tree returns PostgreSQL's own tree of one statement's text, such as ParseFunc gives out: within the limits.
func Tree(text string) (*pgquery.ParseResult, error) { return parseText(text) }
