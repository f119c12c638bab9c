package sql

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/plan"
)

// Insert is INSERT INTO stream|table [(columns)] VALUES (...), ... | SELECT ... [ON CONFLICT [(key)] DO NOTHING].
type Insert struct {
	statement
	Stream string // or table

	streamAt   int
	columns    []columnRef // none: all, in order
	rows       [][]expr
	query      *Select // instead of rows
	onConflict ConflictAction
	conflictAt int         // of CONFLICT
	conflict   []columnRef // the columns named there
}

// insert parses INSERT INTO stream [(columns)] VALUES (...), ...
func (c *cursor) insert() (Statement, error) {
	from, to := c.pos(), c.end()
	conv, node, err := parsePart(c.src, from, to)
	if err != nil {
		return nil, err
	}
	s, ok := node.GetNode().(*pgquery.Node_InsertStmt)
	if !ok {
		return nil, c.src.fail(from, stateSyntax, "", "expected INSERT")
	}
	return conv.insertStmt(s.InsertStmt, from, to)
}

// PlanInsert returns the stream or table and a plan of the rows, whose columns are all of its declared columns in order;
// those that aren't given are NULL. Errors are those of PlanSelect.
func PlanInsert(s *Insert, c Catalog) (*Object, *plan.Plan, error) {
	return planInsert(s, valuesOf(s.statement), c)
}

func planInsert(s *Insert, ps *parameters, c Catalog) (*Object, *plan.Plan, error) {
	obj, ok := c.Lookup(s.Stream)
	if !ok {
		return nil, nil, s.src.fail(s.streamAt, stateNoRelation, suggest(s.Stream, c.Names()), "unknown stream or table %q", s.Stream)
	}
	if obj.Kind == ObjectView {
		return nil, nil, s.src.fail(s.streamAt, stateWrongObject, "insert into the streams that it reads", "%q is a view", s.Stream)
	}
	targets, err := s.targets(obj)
	if err != nil {
		return nil, nil, err
	}
	if err := s.checkConflict(obj); err != nil {
		return nil, nil, err
	}
	if s.query != nil {
		p, err := planRows(s.query, ps, c, func(a *analyzer, q *changedRows) error { return s.fill(a, q, obj, targets) })
		return obj, p, err
	}
	values := &plan.Values{}
	for _, row := range s.rows {
		out, err := s.row(ps, obj, targets, row)
		if err != nil {
			return nil, nil, err
		}
		values.Rows = append(values.Rows, out)
	}
	op := plan.Op{Kind: plan.OpValues, Schema: obj.Columns, Values: values}
	return obj, &plan.Plan{Version: plan.Version, Stages: []plan.Stage{{Ops: []plan.Op{op}}}, Output: obj.Columns}, nil
}

// targets returns the positions of the columns that are given.
func (s *Insert) targets(obj *Object) ([]int, error) {
	if s.columns == nil {
		return identity(len(obj.Columns)), nil
	}
	seen := map[int]bool{}
	var out []int
	for _, c := range s.columns {
		i := obj.Columns.Index(c.name)
		if i < 0 {
			return nil, s.src.fail(c.pos(), stateNoColumn, suggest(c.name, namesOf(obj.Columns)), "unknown column %q of %s %q", c.name, obj.Kind, obj.Name)
		}
		if seen[i] {
			return nil, s.src.fail(c.pos(), stateDuplicate, "", "column %q is given twice", c.name)
		}
		seen[i] = true
		out = append(out, i)
	}
	return out, nil
}

func (s *Insert) row(ps *parameters, obj *Object, targets []int, row []expr) ([]plan.Expr, error) {
	switch {
	case len(row) > len(targets):
		return nil, s.src.fail(row[len(targets)].pos(), stateSyntax, "", "more values (%d) than columns (%d)", len(row), len(targets))
	case len(row) < len(targets) && s.columns != nil:
		return nil, s.src.fail(row[0].pos(), stateSyntax, "", "fewer values (%d) than columns (%d)", len(row), len(targets))
	}
	out := make([]plan.Expr, len(obj.Columns))
	for i, c := range obj.Columns {
		out[i] = nullOf(c.Type, 0).expr(nil)
	}
	b := &binder{src: s.src, scope: newScope(nil), noAggs: "VALUES", noOver: "VALUES", params: ps}
	b.scope.none = "text is written in single quotes"
	for i, e := range row {
		if _, ok := e.(*defaultValue); ok {
			continue
		}
		n, err := b.bind(e)
		if err != nil {
			return nil, err
		}
		if n, err = b.assignment(n, obj.Columns[targets[i]].Name, obj); err != nil {
			return nil, err
		}
		out[targets[i]] = n.expr(nil)
	}
	return out, nil
}

// fill makes the query give all columns, those without a value as NULL.
func (s *Insert) fill(a *analyzer, q *changedRows, obj *Object, targets []int) error {
	given := q.outs
	if len(given) > len(targets) || len(given) < len(targets) && s.columns != nil {
		return s.src.fail(s.query.at, stateSyntax, "", "the query has %d columns for %d of %q", len(given), len(targets), obj.Name)
	}
	outs := make([]selected, len(obj.Columns))
	for i, c := range obj.Columns {
		outs[i] = selected{name: c.Name, node: nullOf(c.Type, s.query.at)}
	}
	b := a.binder(newScope(nil), "INSERT")
	for i, o := range given {
		name := obj.Columns[targets[i]].Name
		n, err := b.assignment(o.node, name, obj)
		if err != nil {
			return err
		}
		outs[targets[i]] = selected{name: name, node: n, pos: o.pos}
	}
	q.outs = outs
	return nil
}

// checkConflict checks that ON CONFLICT is about a table's primary key.
func (s *Insert) checkConflict(obj *Object) error {
	if s.onConflict == ConflictError {
		return nil
	}
	if obj.Kind != ObjectTable {
		return s.src.fail(s.conflictAt, stateColumnRef, "a stream only appends", "ON CONFLICT is for tables, and %q is a %s,", obj.Name, obj.Kind)
	}
	var names []string
	for _, c := range s.conflict {
		if obj.Columns.Index(c.name) < 0 {
			return s.src.fail(c.pos(), stateNoColumn, suggest(c.name, namesOf(obj.Columns)), "unknown column %q of table %q", c.name, obj.Name)
		}
		names = append(names, c.name)
	}
	for _, k := range obj.Key {
		if s.conflict != nil && !slices.Contains(names, obj.Columns[k].Name) || s.conflict != nil && len(names) != len(obj.Key) {
			return s.src.fail(s.conflict[0].pos(), stateColumnRef, "name the columns of the primary key, or none", "ON CONFLICT names no unique constraint of %q,", obj.Name)
		}
	}
	return nil
}
