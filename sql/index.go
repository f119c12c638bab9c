package sql

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// maxIndexColumns bounds the columns of one index, as PostgreSQL does.
const maxIndexColumns = 32

// CreateIndex is CREATE INDEX [IF NOT EXISTS] [name] ON view | table (column, ...).
type CreateIndex struct {
	statement
	Name        string
	On          string
	Columns     []string
	IfNotExists bool

	onAt      int
	columnsAt []int
}

// createIndex parses what stands behind CREATE [UNIQUE].
func (c *cursor) createIndex() (*CreateIndex, error) {
	s := &CreateIndex{statement: c.base()}
	if c.i = 1; c.accept("unique") {
		return nil, c.src.unsupported(c.tokens[1].from, "a view's key is unique by itself", "CREATE UNIQUE INDEX is not supported")
	}
	if !c.accept("index") {
		return nil, c.expect("INDEX")
	}
	c.accept("concurrently") // it always is
	s.IfNotExists = c.ifNotExists()
	var err error
	if !c.accept("on") {
		var nameAt int
		if s.Name, nameAt, err = c.name("the index's name"); err != nil {
			return nil, err
		}
		if err := checkName(c.src, nameAt, s.Name); err != nil {
			return nil, err
		}
		if !c.accept("on") {
			return nil, c.expect("ON and the name of a view")
		}
	}
	c.accept("only")
	if s.On, s.onAt, err = c.name("the name of a view"); err != nil {
		return nil, err
	}
	if c.accept("using") && !c.accept("btree") {
		return nil, c.src.unsupported(c.pos(), "leave USING out", "an index of kind %s is not supported", upper(c.word(c.i)))
	}
	if err := c.indexColumns(s); err != nil {
		return nil, err
	}
	if s.Name == "" {
		s.Name = indexName(s)
	}
	if w := c.word(c.i); w == "where" || w == "include" || w == "with" || w == "tablespace" || w == "nulls" {
		return nil, c.src.unsupported(c.pos(), "index whole columns of all rows", "%s in CREATE INDEX is not supported", upper(w))
	}
	return s, c.finish()
}

// indexName is the name that an index gets that was given none, as PostgreSQL makes it.
func indexName(s *CreateIndex) string {
	name := s.On + "_" + strings.Join(s.Columns, "_")
	for len(name)+len("_idx") > MaxNameBytes {
		name = strings.ToValidUTF8(name[:len(name)-1], "")
	}
	return name + "_idx"
}

func (c *cursor) indexColumns(s *CreateIndex) error {
	if err := c.need(tokenOpen, `"(" and the columns`); err != nil {
		return err
	}
	for {
		if !c.done() && c.tokens[c.i].tok == tokenOpen || c.i+1 < len(c.tokens) && c.tokens[c.i+1].tok == tokenOpen {
			return c.src.unsupported(c.pos(), "make it a column of the view", "an index over an expression is not supported")
		}
		name, pos, err := c.name("a column")
		if err != nil {
			return err
		}
		s.Columns, s.columnsAt = append(s.Columns, name), append(s.columnsAt, pos)
		if w := c.word(c.i); w == "desc" || w == "nulls" || w == "collate" {
			return c.src.unsupported(c.pos(), "an index finds rows, and doesn't order them", "%s in CREATE INDEX is not supported", upper(w))
		}
		c.accept("asc")
		if c.acceptToken(tokenClose) {
			return nil
		}
		if err := c.need(tokenComma, `"," or ")"`); err != nil {
			return err
		}
	}
}

// Resolve finds the view or table of an index. Errors: 42P01, 42809 (a stream), 42703, 42701 (a column twice), 54011.
func (s *CreateIndex) Resolve(c Catalog) (*Object, error) {
	o, ok := c.Lookup(s.On)
	switch {
	case !ok:
		return nil, s.src.fail(s.onAt, stateNoRelation, suggest(s.On, c.Names()), "unknown view or table %q", s.On)
	case o.Kind == ObjectStream:
		return nil, s.src.fail(s.onAt, stateWrongObject, "make a view of it", "%q is a stream, and an index is of a view or table,", s.On)
	case len(s.Columns) > maxIndexColumns:
		return nil, s.src.fail(s.columnsAt[maxIndexColumns], stateTooManyColumns, "", "an index has at most %d columns", maxIndexColumns)
	}
	seen := map[string]bool{}
	for i, name := range s.Columns {
		if o.Columns.Index(name) < 0 {
			return nil, s.src.fail(s.columnsAt[i], stateNoColumn, suggest(name, namesOf(o.Columns)), "unknown column %q", name)
		}
		if seen[name] {
			return nil, s.src.fail(s.columnsAt[i], stateDuplicate, "", "column %q is in the index twice", name)
		}
		seen[name] = true
	}
	return o, nil
}

// Index is an index of a view or table as the planner sees it.
type Index struct {
	ID      uint64
	Name    string
	Columns []int // of the object
}

// indexRead picks the index that narrows a scan most, given the conditions on its rows; nil: none does better than
// prefix leading columns of the key.
func indexRead(where []*node, sc *scanRel, prefix int) *plan.IndexRead {
	if prefix > 0 && prefix == len(sc.object.Key) {
		return nil
	}
	var best *plan.IndexRead
	most := 2 * prefix
	for _, ix := range sc.object.Indexes {
		r := &plan.IndexRead{ID: ix.ID, Name: ix.Name}
		score := 0
		for _, k := range ix.Columns {
			r.Columns = append(r.Columns, sc.object.Columns[k].Name)
		}
		for _, k := range ix.Columns {
			v := comparedWith(where, sc.cols[k], "eq")
			if v == nil {
				r.Low, r.High = comparedWith(where, sc.cols[k], "ge", "gt"), comparedWith(where, sc.cols[k], "le", "lt")
				if r.Low != nil || r.High != nil {
					score++
				}
				break
			}
			r.Equal = append(r.Equal, *v)
			score += 2
		}
		if score > most {
			best, most = r, score
		}
	}
	return best
}

// turned is what a comparison is called with its sides exchanged.
var turned = map[string]string{"eq": "eq", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}

// comparedWith returns a constant that a column is compared with by one of ops in some condition; nil: there is none.
func comparedWith(where []*node, id int, ops ...string) *record.Value {
	for _, n := range where {
		if n.kind != plan.ExprCall || len(n.args) != 2 {
			continue
		}
		col, val, op := n.args[0], n.args[1], n.fn
		if col.kind == plan.ExprConst {
			col, val, op = val, col, turned[op]
		}
		if col.kind != plan.ExprCol || col.col != id || val.kind != plan.ExprConst || val.val.Null || val.typ != col.typ {
			continue
		}
		for _, want := range ops {
			if op == want {
				v := val.val
				return &v
			}
		}
	}
	return nil
}

// dropIndex parses what stands behind DROP INDEX.
func (c *cursor) dropIndex(d *Drop) (*Drop, error) {
	d.Kind = ObjectIndex
	c.accept("concurrently")
	d.IfExists = c.accept("if", "exists")
	var err error
	if d.Name, _, err = c.name("the name of an index"); err != nil {
		return nil, err
	}
	if !c.done() && c.tokens[c.i].tok == pgquery.Token_ASCII_44 {
		return nil, c.src.unsupported(c.pos(), "write one statement for each", "DROP of several is not supported")
	}
	if !c.accept("restrict") {
		c.accept("cascade") // nothing depends on an index
	}
	return d, c.finish()
}
