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
)

// PlanChange plans s, an *Update, a *Delete, or an *Insert into a table. Errors are those of PlanSelect, and 42809 when it
// isn't about a table.
func PlanChange(s Statement, c Catalog) (*Change, error) { return planChange(s, nil, c) }

// planChange plans with the statement's own parameters, or with ps.
func planChange(s Statement, ps *parameters, c Catalog) (*Change, error) {
	switch s := s.(type) {
	case *Insert:
		if ps == nil {
			ps = valuesOf(s.statement)
		}
		obj, p, err := planInsert(s, ps, c)
		if err != nil {
			return nil, err
		}
		return &Change{Table: obj, Plan: p, Kind: ChangeInsert, OnConflict: s.onConflict}, nil
	case *Update:
		if ps == nil {
			ps = valuesOf(s.statement)
		}
		obj, err := s.src.table(c, s.Table, s.tableAt)
		if err != nil {
			return nil, err
		}
		p, err := planRows(s.query(), ps, c, func(a *analyzer, q *changedRows) error { return s.assign(a, q, obj) })
		return &Change{Table: obj, Plan: p, Kind: ChangeUpdate}, err
	case *Delete:
		if ps == nil {
			ps = valuesOf(s.statement)
		}
		obj, err := s.src.table(c, s.Table, s.tableAt)
		if err != nil {
			return nil, err
		}
		p, err := planRows(s.rows, ps, c, func(*analyzer, *changedRows) error { return nil })
		return &Change{Table: obj, Plan: p, Kind: ChangeDelete}, err
	}
	return nil, sourceOf(s).unsupported(0, "", "a change of this kind is not supported")
}

// planRows plans the query of a statement that changes rows, after edit has changed its outputs.
func planRows(s *Select, ps *parameters, c Catalog, edit func(*analyzer, *changedRows) error) (*plan.Plan, error) {
	a := &analyzer{src: s.src, catalog: c, params: ps}
	q, err := a.query(s, &env{})
	if err != nil {
		return nil, err
	}
	rows := &changedRows{}
	for _, o := range q.outs {
		rows.outs = append(rows.outs, selected{o.name, a.columnNode(o.id, o.pos), o.pos})
	}
	if err := edit(a, rows); err != nil {
		return nil, err
	}
	a.applyCut(q)
	var items []item
	q.outs = nil
	for _, o := range rows.outs {
		id := o.node.col
		if o.node.kind != plan.ExprCol {
			id = a.newColumn(o.name, o.node.typ)
			items = append(items, item{id, o.node})
		}
		q.outs = append(q.outs, output{o.name, id, o.pos})
	}
	q.rel = extendRel(q.rel, items...)
	return a.planSelect(q)
}

// changedRows is the columns of the query of a statement that changes rows.
type changedRows struct{ outs []selected }

func namesOf(s record.Schema) []string {
	out := make([]string, len(s))
	for i, f := range s {
		out[i] = f.Name
	}
	return out
}
