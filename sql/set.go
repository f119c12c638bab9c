package sql

// Set is SET name = value, SET name TO value, SET name TO DEFAULT or RESET name. Which settings there are, and what
// they may be, is the executor's business.
type Set struct {
	statement
	Name    string
	Value   string
	Default bool // back to the default; Value is empty
}

func (c *cursor) set() (*Set, error) {
	s := &Set{statement: c.base()}
	if c.word(0) == "reset" {
		c.i, s.Default = 1, true
		var err error
		if s.Name, _, err = c.name("a setting"); err != nil {
			return nil, err
		}
		return s, c.finish()
	}
	c.i = 1
	switch w := c.word(1); w {
	case "local", "transaction":
		return nil, c.src.unsupported(c.pos(), "each statement stands on its own", "SET %s is not supported", upper(w))
	case "time":
		return nil, c.src.unsupported(c.pos(), "it is UTC", "SET TIME ZONE is not supported")
	case "session":
		c.i = 2
	}
	var err error
	if s.Name, _, err = c.name("a setting"); err != nil {
		return nil, err
	}
	if !c.acceptToken(tokenEquals) && !c.accept("to") {
		return nil, c.expect(`"=" and a value`)
	}
	if c.word(c.i) == "default" {
		c.i, s.Default = c.i+1, true
		return s, c.finish()
	}
	if s.Value, err = c.value(); err != nil {
		return nil, err
	}
	return s, c.finish()
}
