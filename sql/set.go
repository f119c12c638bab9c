package sql

import "strings"

// Set is SET [SESSION | LOCAL] name = values, SET name TO DEFAULT, RESET name or RESET ALL, SET TIME ZONE, SET NAMES,
// SET TRANSACTION and SET SESSION CHARACTERISTICS AS TRANSACTION. Which settings there are, and what they may be, is the
// executor's business.
type Set struct {
	statement
	Name    string // in lower case, as it is written; "all" with RESET ALL
	Value   string // several values are joined by ", "
	Default bool   // back to the default; Value is empty
	Local   bool   // until the transaction ends
	// Modes is set instead of Name by SET TRANSACTION, and by SET SESSION CHARACTERISTICS, which has Local false.
	Modes *TransactionModes
}

func (c *cursor) set() (*Set, error) {
	s := &Set{statement: c.base()}
	reset := c.word(0) == "reset"
	c.i = 1
	var err error
	if reset {
		s.Default = true
		if s.Name, err = c.settingName("a setting"); err != nil {
			return nil, err
		}
		return s, c.finish()
	}
	switch {
	case c.accept("session", "characteristics", "as", "transaction"):
		return c.setModes(s)
	case c.accept("transaction"):
		s.Local = true
		return c.setModes(s)
	case c.accept("local"):
		s.Local = true
	case c.word(1) == "session" && c.word(2) != "authorization":
		c.i = 2
	}
	switch {
	case c.accept("time", "zone"):
		s.Name = "timezone"
		if c.accept("local") {
			s.Default = true
			return s, c.finish()
		}
	case c.accept("names"):
		s.Name = "client_encoding"
	default:
		if s.Name, err = c.settingName("a setting"); err != nil {
			return nil, err
		}
		if !c.acceptToken(tokenEquals) && !c.accept("to") {
			return nil, c.expect(`"=" and a value`)
		}
	}
	if c.word(c.i) == "default" {
		c.i, s.Default = c.i+1, true
		return s, c.finish()
	}
	var values []string
	for {
		v, err := c.value()
		if err != nil {
			return nil, err
		}
		if values = append(values, v); !c.acceptToken(tokenComma) {
			break
		}
	}
	s.Value = strings.Join(values, ", ")
	return s, c.finish()
}

func (c *cursor) setModes(s *Set) (*Set, error) {
	m, err := c.transactionModes()
	s.Modes = &m
	return s, err
}

// settingName takes a name that may have a dot, or one of those that are written in several words.
func (c *cursor) settingName(what string) (string, error) {
	switch {
	case c.accept("time", "zone"):
		return "timezone", nil
	case c.accept("transaction", "isolation", "level"):
		return "transaction_isolation", nil
	case c.accept("session", "authorization"):
		return "session_authorization", nil
	case c.accept("all"):
		return "all", nil
	}
	var name string
	for {
		if c.word(c.i) == "" && (c.done() || !strings.HasPrefix(c.text(c.i), `"`)) {
			return "", c.expect(what)
		}
		name += lowerASCII(identifier(c.text(c.i)))
		c.i++
		if !c.acceptToken(tokenDot) {
			return name, nil
		}
		name += "."
	}
}
