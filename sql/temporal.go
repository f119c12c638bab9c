package sql

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/plan"
)

// PostgreSQL's grammar has no FOR SYSTEM_TIME AS OF, and no AS OF TICK. They are taken out of the text before that is
// parsed, blanks in their place, so that every position stays what it was.

// extras is what was taken out of a part of the source.
type extras struct {
	text string        // the part, with blanks
	asOf map[int]span  // FOR SYSTEM_TIME AS OF expression, by the position of the relation's name
	past map[int]*past // AS OF TICK n and AS OF TIMESTAMP '...', by the same
}

type span struct{ from, to int }

// takeExtras looks for the words of bytes from..to of the source.
func takeExtras(src *source, from, to int) (*extras, error) {
	x := &extras{text: src.text[from:to]}
	lower := strings.ToLower(x.text)
	if !strings.Contains(lower, "of") && !strings.Contains(lower, "match_recognize") {
		return x, nil
	}
	all, err := scan(&source{text: x.text})
	if err != nil {
		return x, nil // the parser says what is wrong
	}
	for i := range all {
		all[i].from += from
		all[i].to += from
	}
	c := newCursor(src, all)
	blank := []byte(x.text)
	for c.i < len(c.tokens) {
		begin := c.i
		switch {
		case c.word(c.i) == "match_recognize" && c.i+1 < len(c.tokens) && c.tokens[c.i+1].tok == tokenOpen:
			return nil, src.unsupported(c.pos(), "use LAG and LEAD over the rows' order, or a self-join", "MATCH_RECOGNIZE is not supported")
		case c.accept("for", "system_time"):
			if !c.accept("as", "of") {
				return nil, c.expect("AS OF")
			}
			e, err := c.skipExpression()
			if err != nil {
				return nil, err
			}
			if begin == 0 || c.word(begin-1) == "" && c.tokens[begin-1].tok != pgquery.Token_IDENT {
				return nil, src.fail(c.tokens[begin].from, stateSyntax, "write FROM a JOIN b FOR SYSTEM_TIME AS OF a.time AS b ON ...", "FOR SYSTEM_TIME must follow the name of a relation")
			}
			if x.asOf == nil {
				x.asOf = map[int]span{}
			}
			x.asOf[c.tokens[begin-1].from] = e
		case c.accept("as", "of"):
			p, of, err := c.past(begin)
			if err != nil {
				return nil, err
			}
			if x.past == nil {
				x.past = map[int]*past{}
			}
			x.past[of] = p
		default:
			c.i++
			continue
		}
		for b := c.tokens[begin].from; b < c.tokens[c.i-1].to; b++ {
			blank[b-from] = ' '
		}
	}
	x.text = string(blank)
	return x, nil
}

// skipExpression passes over a column, a call or something in parentheses.
func (c *cursor) skipExpression() (span, error) {
	if c.done() {
		return span{}, c.expect("a time")
	}
	out := span{from: c.pos()}
	if c.word(c.i) == "timestamptz" || c.word(c.i) == "timestamp" {
		c.i++
	}
	if !c.done() && c.tokens[c.i].tok != tokenOpen {
		c.i++
		for c.i+1 < len(c.tokens) && c.tokens[c.i].tok == tokenDot {
			c.i += 2
		}
	}
	if !c.done() && c.tokens[c.i].tok == tokenOpen {
		for depth := 0; ; c.i++ {
			if c.done() {
				return out, c.expect(`")"`)
			}
			if c.tokens[c.i].tok == tokenOpen {
				depth++
			} else if c.tokens[c.i].tok == tokenClose {
				if depth--; depth == 0 {
					c.i++
					break
				}
			}
		}
	}
	out.to = c.tokens[c.i-1].to
	return out, nil
}

// parseExpression parses bytes from..to of the source as an expression.
func parseExpression(src *source, s span, what string) (expr, error) {
	const prefix = "SELECT "
	tree, err := parseText(prefix + src.text[s.from:s.to])
	if err != nil {
		return nil, src.fail(s.from, stateSyntax, "write a column, or an expression in parentheses", "syntax error: malformed %s", what)
	}
	items := tree.Stmts[0].Stmt.GetSelectStmt().GetTargetList()
	if len(tree.Stmts) != 1 || len(items) != 1 {
		return nil, src.fail(s.from, stateSyntax, "", "expected one expression for %s", what)
	}
	c := &converter{src: src, base: s.from - len(prefix), to: s.to}
	return c.expr(items[0].GetResTarget().Val)
}

// temporal checks a JOIN b FOR SYSTEM_TIME AS OF a.time ON .... The time is _time, _tick or now(), which mean the row of b as it is
// at the tick of a's row, or a's event time.
func (a *analyzer) temporal(f *fromItem, e *env, left, right *rel, lcols []scopeColumn, preds []*node) (*rel, error) {
	pos := f.right.asOf.pos()
	if f.join != syntaxInner && f.join != syntaxLeft {
		return nil, a.src.unsupported(pos, "use JOIN or LEFT JOIN", "FOR SYSTEM_TIME on the right of %s JOIN is not supported", f.join)
	}
	if a.live && !a.appendOnly(left) {
		return nil, a.src.unsupported(pos, "put the stream to the left", "FOR SYSTEM_TIME for rows that may change later is not supported")
	}
	t := &temporalRel{outer: f.join == syntaxLeft}
	if err := a.temporalTime(f, e, t, right, lcols); err != nil {
		return nil, err
	}
	if len(preds) == 0 || preds[0].kind == plan.ExprConst {
		return nil, a.src.fail(pos, stateSyntax, "write ON b.key = a.key", "FOR SYSTEM_TIME needs an equality of keys")
	}
	return &rel{kind: relTemporal, in: []*rel{left, right}, preds: preds, temporal: t}, nil
}

func (a *analyzer) temporalTime(f *fromItem, e *env, t *temporalRel, right *rel, lcols []scopeColumn) error {
	now := func() error {
		if !a.live {
			return a.src.unsupported(f.right.asOf.pos(), "make a view of it: an ad-hoc query knows the rows as they are now alone", "FOR SYSTEM_TIME AS OF the time of arrival in an ad-hoc query is not supported")
		}
		return nil
	}
	if c, ok := f.right.asOf.(*call); ok && (c.name == "now" || c.name == "proctime" || c.name == "current_timestamp") && len(c.args) == 0 {
		return now()
	}
	s := newScope(lcols)
	s.parent = e.scope
	n, err := a.binder(s, "FOR SYSTEM_TIME").bind(f.right.asOf)
	if err != nil {
		return err
	}
	const hint = "write _time or now() for the row as it is when the other arrives, or the column of the stream's WATERMARK"
	if n.kind != plan.ExprCol {
		return a.src.unsupported(n.pos, hint, "an expression as the time of FOR SYSTEM_TIME is not supported")
	}
	name := a.cols.of(n.col).name
	if name == plan.ColTime || name == plan.ColTick {
		return now()
	}
	if !a.cols.of(n.col).event {
		return a.src.unsupported(n.pos, hint, "column %q as the time of FOR SYSTEM_TIME is not supported", name)
	}
	for _, id := range right.outs() {
		if a.cols.of(id).event {
			t.byTime, t.leftTime, t.rightTime = true, n.col, id
			return nil
		}
	}
	return a.src.unsupported(n.pos, "declare a WATERMARK on the versions' time, or use _time", "FOR SYSTEM_TIME by event time over a relation without an event time is not supported")
}
