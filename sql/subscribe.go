package sql

import (
	"strconv"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Subscribe is SUBSCRIBE TO view [AFTER TICK n].
type Subscribe struct {
	statement
	View      string
	AfterTick uint64 // 0: first the rows as of the starting tick
}

func (c *cursor) subscribe() (*Subscribe, error) {
	c.i = 1
	s := &Subscribe{statement: c.base()}
	if !c.accept("to") {
		return nil, c.expect("TO and the name of a view")
	}
	var err error
	if s.View, _, err = c.name("the name of a view"); err != nil {
		return nil, err
	}
	if c.accept("after") {
		if !c.accept("tick") {
			return nil, c.expect("TICK and a number")
		}
		if c.done() || c.tokens[c.i].tok != pgquery.Token_ICONST && c.tokens[c.i].tok != pgquery.Token_FCONST {
			return nil, c.expect("the number of a tick")
		}
		if s.AfterTick, err = strconv.ParseUint(c.text(c.i), 10, 64); err != nil {
			return nil, c.src.fail(c.pos(), stateSyntax, "", "%s is not a tick", c.text(c.i))
		}
		c.i++
	}
	return s, c.finish()
}
