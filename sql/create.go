package sql

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

func upper(s string) string { return strings.ToUpper(s) }

// create tells the kinds of CREATE apart.
func (c *cursor) create() (Statement, error) {
	switch {
	case c.accept("create", "stream"):
		return c.createStream()
	case c.accept("create", "materialized", "view"):
		return c.createView()
	case c.accept("create", "or", "replace", "materialized", "view"):
		return c.replaceView()
	case c.word(1) == "index", c.word(1) == "unique" && c.word(2) == "index":
		return c.createIndex()
	case c.accept("create", "view"):
		return nil, c.src.unsupported(c.tokens[0].from, "use CREATE MATERIALIZED VIEW", "CREATE VIEW is not supported")
	case c.accept("create", "table"):
		return c.createTable()
	}
	what := c.word(1)
	if what == "or" && c.word(2) == "replace" {
		return nil, c.src.unsupported(c.tokens[1].from, "drop it first", "CREATE OR REPLACE of anything but a materialized view is not supported")
	}
	if what == "" {
		c.i = 1
		return nil, c.expect("STREAM, TABLE or MATERIALIZED VIEW")
	}
	if s := suggest(what, []string{"stream", "table", "materialized"}); s != "" {
		return nil, c.src.fail(c.tokens[1].from, stateSyntax, s, "syntax error near %q", shorten(c.text(1)))
	}
	return nil, c.src.unsupported(c.tokens[0].from, "use CREATE STREAM, CREATE TABLE or CREATE MATERIALIZED VIEW", "CREATE %s is not supported", upper(what))
}

// options takes WITH (name = value, ...) if it comes next.
func (c *cursor) options(known []string) ([]option, error) {
	if !c.accept("with") {
		return nil, nil
	}
	if err := c.need(tokenOpen, `"("`); err != nil {
		return nil, err
	}
	var out []option
	for {
		o, err := c.option(known)
		if err != nil {
			return nil, err
		}
		for _, before := range out {
			if before.name == o.name {
				return nil, c.src.fail(o.at, stateSyntax, "", "option %q is given twice", o.name)
			}
		}
		out = append(out, o)
		if c.acceptToken(tokenClose) {
			return out, nil
		}
		if err := c.need(tokenComma, `"," or ")"`); err != nil {
			return nil, err
		}
	}
}

func (c *cursor) option(known []string) (option, error) {
	var o option
	if c.done() {
		return o, c.expect("the name of an option")
	}
	o.at, o.name = c.pos(), c.word(c.i)
	if o.name == "" {
		return o, c.expect("the name of an option")
	}
	ok := false
	for _, k := range known {
		ok = ok || k == o.name
	}
	if !ok {
		hint := suggest(o.name, known)
		if hint == "" {
			hint = "options are " + strings.Join(known, ", ")
		}
		return o, c.src.fail(o.at, stateNoObject, hint, "unknown option %q", o.name)
	}
	c.i++
	if err := c.need(tokenEquals, `"="`); err != nil {
		return o, err
	}
	o.valueAt = c.pos()
	c.accept("interval") // retention = INTERVAL '7 days'
	var err error
	o.value, err = c.value()
	return o, err
}

// value takes a string, a number or a word, as an option or a setting has it.
func (c *cursor) value() (string, error) {
	if c.done() {
		return "", c.expect("a value")
	}
	t := c.tokens[c.i]
	switch t.tok {
	case pgquery.Token_SCONST:
		s, err := c.stringValue(t)
		c.i++
		return s, err
	case pgquery.Token_ICONST, pgquery.Token_FCONST:
		c.i++
		return c.src.text[t.from:t.to], nil
	case tokenMinus:
		c.i++
		if !c.done() && (c.tokens[c.i].tok == pgquery.Token_ICONST || c.tokens[c.i].tok == pgquery.Token_FCONST) {
			c.i++
			return "-" + c.text(c.i-1), nil
		}
		return "", c.expect("a number")
	case pgquery.Token_IDENT:
		c.i++
		return identifier(c.text(c.i - 1)), nil
	}
	if t.keyword != pgquery.KeywordKind_NO_KEYWORD {
		c.i++
		return lowerASCII(c.text(c.i - 1)), nil
	}
	return "", c.expect("a value")
}

// stringValue returns what a string constant means; PostgreSQL's parser knows all its spellings.
func (c *cursor) stringValue(t token) (string, error) {
	const prefix = "SELECT "
	raw := c.src.text[t.from:t.to]
	if len(raw) >= 2 && raw[0] == '\'' && strings.Count(raw, "'") == 2 {
		return raw[1 : len(raw)-1], nil
	}
	tree, err := parseText(prefix + raw)
	if err == nil && len(tree.Stmts) == 1 {
		if items := tree.Stmts[0].Stmt.GetSelectStmt().GetTargetList(); len(items) == 1 {
			if k := items[0].GetResTarget().GetVal().GetAConst(); k.GetSval() != nil {
				return k.GetSval().GetSval(), nil
			}
		}
	}
	return "", c.src.fail(t.from, stateSyntax, "write it in single quotes", "malformed string")
}

// ifNotExists takes IF NOT EXISTS if it comes next.
func (c *cursor) ifNotExists() bool { return c.accept("if", "not", "exists") }
