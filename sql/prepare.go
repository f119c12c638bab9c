package sql

import "strings"

// PrepareStatement is PREPARE name [(types)] AS statement.
type PrepareStatement struct {
	statement
	Name  string
	Types []string // as they are written, in lower case
	Inner Statement
}

func (c *cursor) prepare() (*PrepareStatement, error) {
	p := &PrepareStatement{statement: c.base()}
	c.i = 1
	var err error
	if p.Name, _, err = c.name("the name of a prepared statement"); err != nil {
		return nil, err
	}
	if c.acceptToken(tokenOpen) {
		if p.Types, err = c.typeNames(); err != nil {
			return nil, err
		}
	}
	if !c.accept("as") {
		return nil, c.expect("AS and a statement")
	}
	p.Inner, err = c.inner("a statement")
	return p, err
}

// typeNames takes the names up to the closing parenthesis.
func (c *cursor) typeNames() ([]string, error) {
	var out, words []string
	for depth := 0; ; c.i++ {
		if c.done() {
			return nil, c.expect(`")"`)
		}
		switch t := c.tokens[c.i].tok; {
		case t == tokenOpen:
			depth++
		case t == tokenClose && depth > 0:
			depth--
		case depth > 0:
		case t == tokenClose, t == tokenComma:
			if len(words) == 0 {
				return nil, c.expect("the name of a type")
			}
			out, words = append(out, strings.Join(words, " ")), nil
			if t == tokenClose {
				c.i++
				return out, nil
			}
		case t == tokenDot:
			words = words[:0]
		default:
			words = append(words, identifier(c.text(c.i)))
		}
	}
}

// ExecutePrepared is EXECUTE name [(arguments)].
type ExecutePrepared struct {
	statement
	Name string
	Args []Argument
}

// Argument is a constant argument of EXECUTE.
type Argument struct {
	Null bool
	Text string
}

func (c *cursor) executePrepared() (*ExecutePrepared, error) {
	e := &ExecutePrepared{statement: c.base()}
	c.i = 1
	var err error
	if e.Name, _, err = c.name("the name of a prepared statement"); err != nil {
		return nil, err
	}
	if !c.acceptToken(tokenOpen) {
		return e, c.finish()
	}
	for {
		var a Argument
		if a.Null = c.accept("null"); !a.Null {
			if a.Text, err = c.value(); err != nil {
				return nil, err
			}
		}
		e.Args = append(e.Args, a)
		if c.acceptToken(tokenClose) {
			return e, c.finish()
		}
		if err := c.need(tokenComma, `"," or ")" after a constant`); err != nil {
			return nil, err
		}
	}
}

// Deallocate is DEALLOCATE name or DEALLOCATE ALL.
type Deallocate struct {
	statement
	Name string // empty: all
}

func (c *cursor) deallocate() (*Deallocate, error) {
	d := &Deallocate{statement: c.base()}
	c.i = 1
	c.accept("prepare")
	if c.accept("all") {
		return d, c.finish()
	}
	var err error
	if d.Name, _, err = c.name("the name of a prepared statement"); err != nil {
		return nil, err
	}
	return d, c.finish()
}
