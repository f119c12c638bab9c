package sql

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/plan"
)

// Insert is INSERT INTO stream [(columns)] VALUES (...), ...
type Insert struct {
	statement
	Stream string

	streamAt int
	columns  []columnRef // none: all, in order
	rows     [][]expr
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

// PlanInsert returns the stream and a plan of the rows: one stage with OpValues, whose columns are all of the stream's
// declared columns in order; those that aren't given are NULL. Errors are those of PlanSelect.
func PlanInsert(s *Insert, c Catalog) (*Object, *plan.Plan, error) {
	return planInsert(s, valuesOf(s.statement), c)
}

func planInsert(s *Insert, ps *parameters, c Catalog) (*Object, *plan.Plan, error) {
	obj, ok := c.Lookup(s.Stream)
	if !ok {
		return nil, nil, s.src.fail(s.streamAt, stateNoRelation, suggest(s.Stream, c.Names()), "unknown stream %q", s.Stream)
	}
	if obj.Kind != ObjectStream {
		return nil, nil, s.src.fail(s.streamAt, stateWrongObject, "insert into the streams that it reads", "%q is a view", s.Stream)
	}
	targets, err := s.targets(obj)
	if err != nil {
		return nil, nil, err
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
	names := make([]string, len(obj.Columns))
	for i, c := range obj.Columns {
		names[i] = c.Name
	}
	seen := map[int]bool{}
	var out []int
	for _, c := range s.columns {
		i := obj.Columns.Index(c.name)
		if i < 0 {
			return nil, s.src.fail(c.pos(), stateNoColumn, suggest(c.name, names), "unknown column %q of stream %q", c.name, obj.Name)
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
	b := &binder{src: s.src, scope: newScope(nil), noAggs: "VALUES", params: ps}
	b.scope.none = "text is written in single quotes"
	for i, e := range row {
		if _, ok := e.(*defaultValue); ok {
			continue
		}
		n, err := b.bind(e)
		if err != nil {
			return nil, err
		}
		col := obj.Columns[targets[i]]
		if !assignable(n.typ, col.Type) {
			return nil, s.src.fail(n.pos, stateMismatch, "add a cast", "column %q is of type %s, but its value is of type %s,", col.Name, col.Type, n.typ)
		}
		if n, err = b.coerce(n, col.Type); err != nil {
			return nil, err
		}
		out[targets[i]] = n.expr(nil)
	}
	return out, nil
}
