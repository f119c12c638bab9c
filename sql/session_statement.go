package sql

// sessionStatement parses the statements that concern a session rather than data: transactions, cursors, prepared
// statements, COPY, DISCARD. ok is false when it is none of them.
func (c *cursor) sessionStatement() (st Statement, ok bool, err error) {
	switch c.word(0) {
	case "begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release":
		return orNil(c.transaction())
	case "copy":
		st, err = c.copyStatement()
	case "declare":
		st, err = c.declareCursor()
	case "fetch", "move":
		st, err = c.fetch()
	case "close":
		st, err = c.closeCursor()
	case "prepare":
		st, err = c.prepare()
	case "execute":
		st, err = c.executePrepared()
	case "deallocate":
		st, err = c.deallocate()
	case "discard":
		st, err = c.discard()
	case "unlisten":
		st, err = c.unlisten()
	default:
		return nil, false, nil
	}
	if err != nil {
		return nil, true, err
	}
	return st, true, nil
}

func orNil(t *Transaction, ok bool, err error) (Statement, bool, error) {
	if t == nil || err != nil {
		return nil, ok, err
	}
	return t, ok, nil
}

// inner parses the rest of the tokens as a statement of its own.
func (c *cursor) inner(what string) (Statement, error) {
	if c.done() {
		return nil, c.expect(what)
	}
	switch w := c.word(c.i); w { // which bounds how deep statements stand in each other
	case "declare", "prepare", "copy", "explain":
		return nil, c.src.unsupported(c.pos(), "", "%s of %s is not supported", upper(c.word(0)), upper(w))
	}
	return newCursor(c.src, c.tokens[c.i:]).statement()
}

// Discard is DISCARD ALL, PLANS, SEQUENCES or TEMP, or UNLISTEN.
type Discard struct {
	statement
	What string // all, plans, sequences, temp; listen: UNLISTEN, which pools of connections send
}

func (c *cursor) discard() (*Discard, error) {
	d := &Discard{statement: c.base()}
	c.i = 1
	switch d.What = c.word(1); d.What {
	case "all", "plans", "sequences", "temp":
	case "temporary":
		d.What = "temp"
	default:
		return nil, c.expect("ALL, PLANS, SEQUENCES or TEMP")
	}
	c.i = 2
	return d, c.finish()
}

func (c *cursor) unlisten() (*Discard, error) {
	d := &Discard{statement: c.base(), What: "listen"}
	if c.i = 1; c.done() {
		return nil, c.expect("* or the name of a channel")
	}
	c.i = 2
	return d, c.finish()
}
