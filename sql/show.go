package sql

// Show is SHOW STREAMS, SHOW TABLES, SHOW [MATERIALIZED] VIEWS, SHOW NODES or SHOW setting.
type Show struct {
	statement
	What string // streams, tables, views, nodes, the name of a setting, or all
}

func (c *cursor) show() (*Show, error) {
	c.i = 1
	s := &Show{statement: c.base()}
	if c.accept("materialized", "views") {
		s.What = "views"
		return s, c.finish()
	}
	var err error
	if s.What, err = c.settingName("STREAMS, TABLES, VIEWS, NODES or a setting"); err != nil {
		return nil, err
	}
	return s, c.finish()
}

// Describe is DESCRIBE name.
type Describe struct {
	statement
	Name string
}

func (c *cursor) describe() (*Describe, error) {
	c.i = 1
	d := &Describe{statement: c.base()}
	var err error
	if d.Name, _, err = c.name("the name of a stream, table or view"); err != nil {
		return nil, err
	}
	return d, c.finish()
}
