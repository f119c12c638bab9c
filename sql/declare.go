package sql

import (
	"math"
	"strconv"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// DeclareCursor is DECLARE name CURSOR FOR query.
type DeclareCursor struct {
	statement
	Name   string
	Binary bool // rows come in the binary format
	Hold   bool // outlives its transaction
	Query  Statement
}

func (c *cursor) declareCursor() (*DeclareCursor, error) {
	d := &DeclareCursor{statement: c.base()}
	c.i = 1
	var err error
	if d.Name, _, err = c.name("the name of a cursor"); err != nil {
		return nil, err
	}
	for !c.accept("cursor") {
		switch {
		case c.accept("binary"):
			d.Binary = true
		case c.accept("no", "scroll"), c.accept("insensitive"), c.accept("asensitive"):
		case c.word(c.i) == "scroll":
			return nil, c.src.unsupported(c.pos(), "cursors go forward", "SCROLL is not supported")
		default:
			return nil, c.expect("CURSOR")
		}
	}
	if c.accept("with", "hold") {
		d.Hold = true
	} else {
		c.accept("without", "hold")
	}
	if !c.accept("for") {
		return nil, c.expect("FOR and a query")
	}
	d.Query, err = c.inner("a query")
	return d, err
}

// FetchAll is the count of FETCH ALL.
const FetchAll = math.MaxInt64

// Fetch is FETCH or MOVE n FROM cursor.
type Fetch struct {
	statement
	Cursor string
	Count  int64 // FetchAll: all that are left
	Move   bool  // skip the rows
}

func (c *cursor) fetch() (*Fetch, error) {
	f := &Fetch{statement: c.base(), Move: c.word(0) == "move", Count: 1}
	c.i = 1
	for _, w := range []string{"prior", "first", "last", "absolute", "relative", "backward"} {
		if c.word(1) == w {
			return nil, c.src.unsupported(c.pos(), "cursors go forward", "FETCH %s is not supported", upper(w))
		}
	}
	forward := c.accept("forward")
	switch {
	case !forward && c.accept("next"):
	case c.accept("all"):
		f.Count = FetchAll
	case !c.done() && c.tokens[c.i].tok == tokenMinus:
		return nil, c.src.unsupported(c.pos(), "cursors go forward", "FETCH of a negative number of rows is not supported")
	case !c.done() && c.tokens[c.i].tok == pgquery.Token_ICONST:
		var err error
		if f.Count, err = strconv.ParseInt(c.text(c.i), 10, 64); err != nil {
			return nil, c.expect("a number of rows")
		}
		c.i++
	}
	if !c.accept("from") {
		c.accept("in")
	}
	var err error
	if f.Cursor, _, err = c.name("the name of a cursor"); err != nil {
		return nil, err
	}
	return f, c.finish()
}

// CloseCursor is CLOSE name or CLOSE ALL.
type CloseCursor struct {
	statement
	Name string // empty: all
}

func (c *cursor) closeCursor() (*CloseCursor, error) {
	s := &CloseCursor{statement: c.base()}
	c.i = 1
	if c.accept("all") {
		return s, c.finish()
	}
	var err error
	if s.Name, _, err = c.name("the name of a cursor"); err != nil {
		return nil, err
	}
	return s, c.finish()
}
