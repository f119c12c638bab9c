package sql

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/plan"
)

// Insert is INSERT INTO stream|table [AS alias] [(columns)] VALUES (...), ... | SELECT ... | DEFAULT VALUES
// [ON CONFLICT ...] [RETURNING ...].
type Insert struct {
	statement
	Stream string // or table

	alias    string // empty: none
	streamAt int
	columns  []columnRef // nil: all, in order
	rows     [][]expr
	query    *Select // instead of rows

	onConflict  ConflictAction
	conflictAt  int          // of CONFLICT
	conflict    []columnRef  // the columns named there
	constraint  string       // or the constraint
	set         []assignment // of DO UPDATE
	setTo       []expr       // what each of set becomes
	updateWhere expr         // nil: none
	returning   []selectItem
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

// PlanInsert returns the change that s makes, of a stream or table. Its plan's columns are all of the declared columns in
// order; those that aren't given are their DEFAULT, or NULL. Errors are those of PlanSelect.
func PlanInsert(s *Insert, c Catalog) (*Change, error) {
	return planInsert(s, valuesOf(s.statement), c)
}

func planInsert(s *Insert, ps *parameters, c Catalog) (*Change, error) {
	obj, ok := c.Lookup(s.Stream)
	if !ok {
		return nil, s.src.fail(s.streamAt, stateNoRelation, suggest(s.Stream, c.Names()), "unknown stream or table %q", s.Stream)
	}
	if obj.Kind == ObjectView {
		return nil, s.src.fail(s.streamAt, stateWrongObject, "insert into the streams that it reads", "%q is a view", s.Stream)
	}
	targets, err := s.targets(obj)
	if err != nil {
		return nil, err
	}
	ch := &Change{Table: obj, Kind: ChangeInsert, OnConflict: s.onConflict}
	if s.query != nil {
		ch.Plan, err = planRows(s.query, ps, c, &changeQuery{of: s.query, name: "INSERT", change: ch,
			edit: func(q *selection, b *binder) error { return s.fill(q, b, obj, targets) }})
	} else {
		ch.Plan, err = s.values(ps, obj, targets)
	}
	if err != nil {
		return nil, err
	}
	if err := s.checkConflict(obj); err != nil {
		return nil, err
	}
	if s.onConflict == ConflictUpdate {
		if ch.Conflict, err = s.planConflict(ps, c, obj); err != nil {
			return nil, err
		}
	}
	if len(s.returning) > 0 {
		if ch.Returning, err = s.planReturning(ps, c, obj); err != nil {
			return nil, err
		}
		ch.Returned = ch.Returning.Output[1:]
	}
	return ch, nil
}

// values plans VALUES.
func (s *Insert) values(ps *parameters, obj *Object, targets []int) (*plan.Plan, error) {
	var rows [][]plan.Expr
	for _, row := range s.rows {
		out, err := s.row(ps, obj, targets, row)
		if err != nil {
			return nil, err
		}
		rows = append(rows, out)
	}
	return valuesPlan(obj.Columns, rows), nil
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
	for i := range obj.Columns {
		if i < len(row) && targets[i] == i {
			continue // given, as most are
		}
		n, err := defaultOf(obj, i, s.streamAt)
		if err != nil {
			return nil, err
		}
		out[i] = n.expr(nil)
	}
	b := &binder{src: s.src, scope: newScope(nil), noAggs: "VALUES", noOver: "VALUES", params: ps}
	b.scope.none = "text is written in single quotes"
	for i, e := range row {
		n, err := s.value(b, obj, targets[i], e)
		if err != nil {
			return nil, err
		}
		out[targets[i]] = n.expr(nil)
	}
	return out, nil
}

// value checks what stands for column i of the table.
func (s *Insert) value(b *binder, obj *Object, i int, e expr) (*node, error) {
	if _, ok := e.(*defaultValue); ok {
		return defaultOf(obj, i, e.pos())
	}
	n, err := b.bind(e)
	if err != nil {
		return nil, err
	}
	return b.assignment(n, obj.Columns[i].Name, obj)
}

// fill makes the query give all columns, those without a value as their DEFAULT.
func (s *Insert) fill(q *selection, b *binder, obj *Object, targets []int) error {
	given := q.outs
	if len(given) > len(targets) || len(given) < len(targets) && s.columns != nil {
		return s.src.fail(s.query.at, stateSyntax, "", "the query has %d columns for %d of %q", len(given), len(targets), obj.Name)
	}
	outs := make([]selected, len(obj.Columns))
	for i, c := range obj.Columns {
		n, err := defaultOf(obj, i, s.query.at)
		if err != nil {
			return err
		}
		outs[i] = selected{name: c.Name, node: n}
	}
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
