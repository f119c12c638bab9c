package sql

import (
	"slices"

	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// CreateTable is CREATE TABLE [IF NOT EXISTS] name (columns, PRIMARY KEY (columns)) [WITH (format = ...)]. TableOf makes
// the definition of its log.
type CreateTable struct {
	CreateStream
	key   []columnRef // columns of the primary key
	keyAt int
}

var tableOptions = []string{"format", "descriptor", "message"}

func (c *cursor) createTable() (*CreateTable, error) {
	t := &CreateTable{CreateStream: CreateStream{statement: c.base(), IfNotExists: c.ifNotExists()}}
	var err error
	if t.Name, t.nameAt, err = c.name("the table's name"); err != nil {
		return nil, err
	}
	if c.word(c.i) == "as" {
		return nil, c.src.unsupported(c.pos(), "use CREATE MATERIALIZED VIEW", "CREATE TABLE AS is not supported")
	}
	if err := c.need(tokenOpen, `"(" and the columns`); err != nil {
		return nil, err
	}
	for {
		if err := c.tableItem(t); err != nil {
			return nil, err
		}
		if c.acceptToken(tokenClose) {
			break
		}
		if err := c.need(tokenComma, `"," or ")"`); err != nil {
			return nil, err
		}
	}
	if t.options, err = c.options(tableOptions); err != nil {
		return nil, err
	}
	return t, c.finish()
}

// tableItem takes a column or the primary key.
func (c *cursor) tableItem(t *CreateTable) error {
	switch w := c.word(c.i); w {
	case "primary":
		return c.primaryKey(t)
	case "unique", "foreign", "check", "constraint", "exclude", "like":
		return c.src.unsupported(c.pos(), "a table has a primary key, NOT NULL and DEFAULT", "%s in CREATE TABLE is not supported", upper(w))
	case "watermark":
		return c.src.unsupported(c.pos(), "declare it on a stream", "WATERMARK of a table is not supported")
	}
	col, err := c.nameAndType()
	if err != nil {
		return err
	}
	for {
		pos := c.pos()
		switch w := c.word(c.i); {
		case c.accept("primary", "key"):
			if err := t.setKey(pos, columnRef{at: at(col.at), name: col.name}); err != nil {
				return err
			}
		case c.accept("not", "null"):
			col.notNull = true
		case c.accept("null"):
		case w == "default":
			if col.def != "" {
				return c.src.fail(pos, stateSyntax, "", "multiple default values specified for column %q of table %q", col.name, t.Name)
			}
			if err := c.defaultValue(&col); err != nil {
				return err
			}
		case slices.Contains([]string{"unique", "check", "references", "generated", "collate", "constraint"}, w):
			return c.src.unsupported(pos, "a table has a primary key, NOT NULL and DEFAULT", "%s in CREATE TABLE is not supported", upper(w))
		case w != "":
			return c.expect(`"," or ")"`)
		default:
			t.columns = append(t.columns, col)
			return nil
		}
	}
}

// primaryKey takes PRIMARY KEY (columns).
func (c *cursor) primaryKey(t *CreateTable) error {
	pos := c.pos()
	if !c.accept("primary", "key") {
		return c.expect("PRIMARY KEY")
	}
	if err := c.need(tokenOpen, `"(" and the columns of the key`); err != nil {
		return err
	}
	var key []columnRef
	for {
		name, namePos, err := c.name("a column")
		if err != nil {
			return err
		}
		key = append(key, columnRef{at: at(namePos), name: name})
		if c.acceptToken(tokenClose) {
			return t.setKey(pos, key...)
		}
		if err := c.need(tokenComma, `"," or ")"`); err != nil {
			return err
		}
	}
}

func (t *CreateTable) setKey(pos int, key ...columnRef) error {
	if t.key != nil {
		return t.src.fail(pos, stateBadTable, "", "table %q has a second primary key", t.Name)
	}
	t.key, t.keyAt = key, pos
	return nil
}

// TableOf returns the definition of the log of the table that t makes, checked, with id 0. Errors are those of StreamOf, and 42P16 for
// a missing or second primary key.
func TableOf(t *CreateTable) (*millracev1.Stream, error) {
	if t.key == nil {
		return nil, t.src.fail(t.nameAt, stateBadTable, "write PRIMARY KEY behind a column, or use CREATE STREAM for records that are only appended", "table %q has no primary key", t.Name)
	}
	var names []string
	for _, k := range t.key {
		if slices.Contains(names, k.name) {
			return nil, t.src.fail(k.pos(), stateDuplicate, "", "column %q is in the primary key twice", k.name)
		}
		if err := t.checkKey(k.name, k.pos()); err != nil {
			return nil, err
		}
		names = append(names, k.name)
		for i := range t.columns {
			if t.columns[i].name == k.name {
				t.columns[i].notNull = true
			}
		}
	}
	out, err := StreamOf(&t.CreateStream)
	if err != nil {
		return nil, err
	}
	out.PrimaryKey = names
	if len(names) == 1 {
		out.Key = names[0]
	}
	return out, nil
}
