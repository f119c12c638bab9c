package sql

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// past takes TICK n or TIMESTAMP '...' after AS OF, which begins at token begin, behind the name of a relation, or behind
// late_records('view'). It returns the position of that name too.
func (c *cursor) past(begin int) (p *past, of int, err error) {
	p = &past{at: at(c.tokens[begin].from)}
	switch {
	case c.accept("tick"):
		p.tick = true
	case strings.HasPrefix(c.word(c.i), "timestamp"):
		c.i++
	default:
		return nil, 0, c.expect("TICK and a number, or TIMESTAMP and a string,")
	}
	named := c.named(begin)
	if named < 0 {
		return nil, 0, c.src.fail(p.pos(), stateSyntax, "write FROM relation AS OF TICK n [AS alias]", "AS OF must follow the name of a relation")
	}
	if c.done() {
		return nil, 0, c.expect("the time")
	}
	switch t := c.tokens[c.i]; t.tok {
	case pgquery.Token_ICONST, pgquery.Token_FCONST, pgquery.Token_SCONST, pgquery.Token_PARAM:
		p.text = span{t.from, t.to}
		c.i++
		return p, c.tokens[named].from, nil
	}
	return nil, 0, c.expect("a constant or a parameter: the time")
}

// named returns the token before token end that is a relation's name, or the first argument of late_records, or -1.
func (c *cursor) named(end int) int {
	switch {
	case end == 0:
		return -1
	case c.word(end-1) != "" || c.tokens[end-1].tok == pgquery.Token_IDENT:
		return end - 1
	case c.tokens[end-1].tok != tokenClose:
		return -1
	}
	open := end - 2
	for open > 0 && c.tokens[open].tok != tokenOpen {
		open--
	}
	if open > 0 && c.word(open-1) == "late_records" {
		return open + 1
	}
	return -1
}

// takePast returns the AS OF behind the name at pos.
func (c *converter) takePast(pos int) *past {
	p := c.past[pos]
	if p != nil {
		p.used = true
	}
	return p
}

// pastUsed refuses an AS OF that stands behind anything but a relation's name.
func (c *converter) pastUsed() error {
	for _, p := range c.past {
		if !p.used {
			return c.src.fail(p.pos(), stateSyntax, "write FROM relation AS OF TICK n [AS alias]", "AS OF must follow the name of a relation")
		}
	}
	return nil
}

// tickOf returns the tick that AS OF means.
func (a *analyzer) tickOf(p *past) (uint64, error) {
	if a.live {
		return 0, a.src.unsupported(p.pos(), "read the view as of a tick", "AS OF in a materialized view is not supported")
	}
	b := a.binder(newScope(nil), "AS OF")
	n, err := b.bind(p.time)
	if err != nil {
		return 0, err
	}
	want := record.TimestampTZ
	if p.tick {
		want = record.BigInt
	}
	if n, err = b.coerce(n, want); err != nil {
		return 0, err
	}
	switch {
	case n.kind == nodeParam:
		return 1, nil // its value comes later
	case n.kind != plan.ExprConst || n.val.Null || n.val.Int <= 0:
		return 0, a.src.fail(n.pos, stateParameter, "ticks are microseconds since the epoch; current_tick() tells the newest", "AS OF needs a tick, or a time after 1970")
	}
	return uint64(n.val.Int), nil
}
