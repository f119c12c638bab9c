package sql

import (
	"strconv"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/record"
)

// Subscribe is SUBSCRIBE TO view [AFTER TICK n | AS OF TICK n | AS OF TIMESTAMP '...'].
type Subscribe struct {
	statement
	View      string
	AfterTick uint64 // the changes after it; 0: first the rows as of the starting tick
	AsOf      uint64 // the starting tick; 0: the newest
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
	switch {
	case c.accept("after"):
		if !c.accept("tick") {
			return nil, c.expect("TICK and a number")
		}
		s.AfterTick, err = c.tickNumber()
	case c.accept("as", "of", "tick"):
		s.AsOf, err = c.tickNumber()
	case c.accept("as", "of"):
		s.AsOf, err = c.timestampTick()
	}
	if err != nil {
		return nil, err
	}
	return s, c.finish()
}

// tickNumber takes the number of a tick.
func (c *cursor) tickNumber() (uint64, error) {
	if c.done() || c.tokens[c.i].tok != pgquery.Token_ICONST && c.tokens[c.i].tok != pgquery.Token_FCONST {
		return 0, c.expect("the number of a tick")
	}
	n, err := strconv.ParseUint(c.text(c.i), 10, 64)
	if err != nil {
		return 0, c.src.fail(c.pos(), stateSyntax, "", "%s is not a tick", c.text(c.i))
	}
	c.i++
	return n, nil
}

// timestampTick takes TIMESTAMP '...' as a tick.
func (c *cursor) timestampTick() (uint64, error) {
	if !strings.HasPrefix(c.word(c.i), "timestamp") {
		return 0, c.expect("TICK and a number, or TIMESTAMP and a string,")
	}
	if c.i++; c.done() || c.tokens[c.i].tok != pgquery.Token_SCONST {
		return 0, c.expect("a time in quotes")
	}
	pos := c.pos()
	text, err := c.stringValue(c.tokens[c.i])
	if err != nil {
		return 0, err
	}
	v, err := parseLiteral(c.src, pos, record.TimestampTZ, text)
	if err == nil && v.Int <= 0 {
		err = c.src.fail(pos, stateParameter, "", "AS OF needs a time after 1970")
	}
	c.i++
	return uint64(max(v.Int, 0)), err
}
