package sql

// Drop is DROP STREAM|TABLE|MATERIALIZED VIEW|INDEX [IF EXISTS] name [CASCADE|RESTRICT].
type Drop struct {
	statement
	Kind     ObjectKind
	Name     string
	IfExists bool
	Cascade  bool
}

func (c *cursor) drop() (*Drop, error) {
	c.i = 1
	d := &Drop{statement: c.base()}
	switch {
	case c.accept("stream"):
		d.Kind = ObjectStream
	case c.accept("table"):
		d.Kind = ObjectTable
	case c.accept("materialized", "view"):
		d.Kind = ObjectView
	case c.accept("index"):
		return c.dropIndex(d)
	default:
		return nil, c.expect("STREAM, TABLE, MATERIALIZED VIEW or INDEX")
	}
	d.IfExists = c.accept("if", "exists")
	var err error
	if d.Name, _, err = c.name("the name of a " + string(d.Kind)); err != nil {
		return nil, err
	}
	if c.acceptToken(tokenComma) {
		return nil, c.src.unsupported(c.tokens[c.i-1].from, "write one statement for each", "DROP of several is not supported")
	}
	if !c.accept("restrict") {
		d.Cascade = c.accept("cascade")
	}
	return d, c.finish()
}
