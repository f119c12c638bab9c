package sql

import (
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// Change is a planned INSERT, UPDATE or DELETE of a table.
type Change struct {
	Table *Object
	// Plan gives the rows: of INSERT the table's columns as they are to be; of UPDATE the table's columns as they are
	// and then as they become; of DELETE the table's columns as they are.
	Plan *plan.Plan
	Kind ChangeKind
	// OnConflict is what becomes of an inserted row whose key exists.
	OnConflict ConflictAction
	// Conflict is DO UPDATE's: over the columns ordinal (BigInt), the table's of the row that exists, and the table's of the
	// row that was to be inserted, it gives ordinal, whether to update (Boolean), and the table's columns as they become.
	Conflict *RowExprs
	// Returned is the columns of RETURNING; nil: none. They are the last ones of an UPDATE's or DELETE's plan.
	Returned record.Schema
	// Returning computes them for INSERT: over ordinal (BigInt) and the table's columns of the rows as they were written it
	// gives ordinal and Returned.
	Returning *RowExprs
	// Truncate says that a DELETE was written as TRUNCATE.
	Truncate bool
}

// RowExprs computes columns of rows that are at hand.
type RowExprs struct {
	Input, Output record.Schema
	Exprs         []plan.Expr
}

// Ops returns the operators that do so; rows go into the first.
func (r *RowExprs) Ops() []plan.Op {
	return []plan.Op{
		{Kind: plan.OpInput, Schema: r.Input, Input: &plan.Input{}},
		{Kind: plan.OpProject, Inputs: []int{0}, Schema: r.Output, Project: &plan.Project{Exprs: r.Exprs}},
	}
}

// ChangeKind is the kind of a Change.
type ChangeKind string

const (
	ChangeInsert ChangeKind = "INSERT"
	ChangeUpdate ChangeKind = "UPDATE"
	ChangeDelete ChangeKind = "DELETE"
)

// ConflictAction is the action of ON CONFLICT.
type ConflictAction uint8

const (
	ConflictError   ConflictAction = iota // without ON CONFLICT
	ConflictNothing                       // DO NOTHING
	ConflictUpdate                        // DO UPDATE
)

// PlanChange plans s, an *Update, a *Delete, a *Truncate, or an *Insert into a table. Errors are those of PlanSelect, and
// 42809 when it isn't about a table.
func PlanChange(s Statement, c Catalog) (*Change, error) { return planChange(s, nil, c) }

// planChange plans with the statement's own parameters, or with ps.
func planChange(s Statement, ps *parameters, c Catalog) (*Change, error) {
	switch s := s.(type) {
	case *Insert:
		if ps == nil {
			ps = valuesOf(s.statement)
		}
		return planInsert(s, ps, c)
	case *Update:
		if ps == nil {
			ps = valuesOf(s.statement)
		}
		obj, err := s.src.table(c, s.Table, s.tableAt)
		if err != nil {
			return nil, err
		}
		rows := s.query()
		ch := &Change{Table: obj, Kind: ChangeUpdate}
		ch.Plan, err = planRows(rows, ps, c, &changeQuery{of: rows, name: "UPDATE", returning: s.returning, change: ch,
			edit: func(q *selection, b *binder) error { return s.assign(q, b, obj) }})
		return ch, err
	case *Delete:
		if ps == nil {
			ps = valuesOf(s.statement)
		}
		obj, err := s.src.table(c, s.Table, s.tableAt)
		if err != nil {
			return nil, err
		}
		ch := &Change{Table: obj, Kind: ChangeDelete}
		ch.Plan, err = planRows(s.rows, ps, c, &changeQuery{of: s.rows, name: "DELETE", returning: s.returning, change: ch})
		return ch, err
	case *Truncate:
		obj, err := s.src.table(c, s.Table, s.tableAt)
		if err != nil {
			return nil, err
		}
		ch := &Change{Table: obj, Kind: ChangeDelete, Truncate: true}
		ch.Plan, err = planRows(s.rows, valuesOf(s.statement), c, &changeQuery{of: s.rows, name: "TRUNCATE", change: ch})
		return ch, err
	}
	return nil, sourceOf(s).unsupported(0, "", "a change of this kind is not supported")
}

// changeQuery is what a statement that changes rows makes of the query that finds them.
type changeQuery struct {
	of   *Select // the query itself, not one within it
	name string  // of the statement
	// edit changes the outputs; nil: they stay.
	edit      func(*selection, *binder) error
	returning []selectItem // computed by the query; none: no RETURNING, or INSERT's
	change    *Change
}

// clause is where the expressions of s's select list stand, when there may be no aggregates.
func (c *changeQuery) clause(s *Select) string {
	if c == nil || c.of != s {
		return ""
	}
	return c.name
}

// apply makes the outputs of q what the statement needs.
func (c *changeQuery) apply(q *selection, b *binder) error {
	if c == nil || c.of != q.s {
		return nil
	}
	if c.edit != nil {
		if err := c.edit(q, b); err != nil {
			return err
		}
	}
	if len(c.returning) > 0 {
		if err := c.returned(q, b); err != nil {
			return err
		}
	}
	q.visible = len(q.outs)
	return nil
}

// planRows plans the query of a statement that changes rows.
func planRows(s *Select, ps *parameters, c Catalog, change *changeQuery) (*plan.Plan, error) {
	a := &analyzer{src: s.src, catalog: c, params: ps, change: change}
	q, err := a.query(s, &env{})
	if err != nil {
		return nil, err
	}
	a.applyCut(q)
	return a.planSelect(q)
}

func namesOf(s record.Schema) []string {
	out := make([]string, len(s))
	for i, f := range s {
		out[i] = f.Name
	}
	return out
}
