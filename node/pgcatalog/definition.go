package pgcatalog

import (
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgtype"
)

// definition is a table of the two schemas.
type definition struct {
	name     string // with the schema
	schema   string
	relname  string
	oid      int64
	cols     []Column
	standard []Value // of columns that a row doesn't give
	fill     func(x *execution, add func(row))
}

// row is the columns of a row that aren't the standard ones.
type row map[string]Value

func (d *definition) column(name string) int {
	for i, c := range d.cols {
		if c.Name == name {
			return i
		}
	}
	panic("pgcatalog: " + d.name + " has no column " + name)
}

// make returns the table's rows.
func (d *definition) make(x *execution) [][]Value {
	if d.fill == nil {
		return nil
	}
	at := make(map[string]int, len(d.cols))
	for i, c := range d.cols {
		at[c.Name] = i
	}
	var out [][]Value
	d.fill(x, func(r row) {
		values := make([]Value, len(d.cols))
		copy(values, d.standard)
		for name, v := range r {
			i, ok := at[name]
			if !ok {
				panic("pgcatalog: " + d.name + " has no column " + name)
			}
			values[i] = v
		}
		out = append(out, values)
	})
	return out
}

// schemas are the numbers of the schemas.
var schemaOIDs = map[string]int64{"pg_catalog": 11, "public": 2200, "information_schema": 13000}

// systemOID is the number of the first table that PostgreSQL gives no fixed one.
const systemOID = 13100

// all is every table, made when it is first asked for.
var all struct {
	once   sync.Once
	list   []*definition
	byName map[string]*definition
}

func load() {
	all.list = append(systemTables(), informationTables()...)
	all.byName = map[string]*definition{}
	next := int64(systemOID)
	for _, d := range all.list {
		if d.oid == 0 {
			d.oid = next
			next++
		}
		all.byName[d.name] = d
	}
}

// definitions returns all tables by name, with the schema.
func definitions() map[string]*definition {
	all.once.Do(load)
	return all.byName
}

// inOrder returns all tables, always in the same order.
func inOrder() []*definition {
	all.once.Do(load)
	return all.list
}

// define makes a table from its columns: "oid:oid relname:name ...", where a "?" at the end means that the column is
// NULL unless a row gives it; others are 0, false or "".
func define(name string, oid int64, columns string, fill func(x *execution, add func(row))) *definition {
	d := &definition{name: name, oid: oid, fill: fill}
	d.schema, d.relname, _ = strings.Cut(name, ".")
	for f := range strings.FieldsSeq(columns) {
		col, typ, _ := strings.Cut(f, ":")
		typ, null := strings.CutSuffix(typ, "?")
		typ, array := strings.CutSuffix(typ, "[]")
		t, ok := typeNames[typ]
		if !ok {
			panic("pgcatalog: no type " + typ)
		}
		if array {
			t = arrayOf(t)
			if typ == "aclitem" {
				t = pgtype.ACLItemArrayOID
			}
		}
		d.cols = append(d.cols, Column{col, t})
		d.standard = append(d.standard, standardValue(t, null || array))
	}
	return d
}

func standardValue(t uint32, null bool) Value {
	switch {
	case null:
		return nil
	case isInteger(t):
		return int64(0)
	case isFloat(t):
		return float64(0)
	case t == pgtype.BoolOID:
		return false
	case t == oidInt2vector, t == oidOidvector:
		return vector(nil)
	}
	return ""
}
