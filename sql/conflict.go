package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

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
	if s.constraint != "" && s.constraint != obj.Name+"_pkey" {
		return s.src.fail(s.conflictAt, stateNoObject, "the primary key is "+obj.Name+"_pkey", "constraint %q for table %q does not exist", s.constraint, obj.Name)
	}
	for _, k := range obj.Key {
		if s.conflict != nil && !slices.Contains(names, obj.Columns[k].Name) || s.conflict != nil && len(names) != len(obj.Key) {
			return s.src.fail(s.conflict[0].pos(), stateColumnRef, "name the columns of the primary key, or none", "ON CONFLICT names no unique constraint of %q,", obj.Name)
		}
	}
	return nil
}

// excludedTable is what the row that was to be inserted is called in DO UPDATE.
const excludedTable = "excluded"

// name is what the table is called in the statement.
func (s *Insert) name() string {
	if s.alias != "" {
		return s.alias
	}
	return s.Stream
}

// planConflict plans DO UPDATE SET ... [WHERE ...].
func (s *Insert) planConflict(ps *parameters, c Catalog, obj *Object) (*RowExprs, error) {
	places, err := s.src.assigned(s.set, obj)
	if err != nil {
		return nil, err
	}
	r := newRowScope(s.src, c, ps, "ON CONFLICT DO UPDATE")
	ordinal := r.add("", ordinalField)
	rows := r.add(s.name(), obj.Columns)
	r.add(excludedTable, obj.Columns)
	b := r.binder()
	become := make([]*node, len(obj.Columns))
	for i, c := range obj.Columns {
		become[i] = column(rows+i, c.Type, s.conflictAt)
	}
	for i, a := range s.set {
		var n *node
		if a.toDefault {
			n, err = defaultOf(obj, places[i], a.pos())
		} else if n, err = b.bind(s.setTo[i]); err == nil {
			n, err = b.assignment(n, a.name, obj)
		}
		if err != nil {
			return nil, err
		}
		become[places[i]] = n
	}
	update := boolean(true, s.conflictAt)
	if s.updateWhere != nil {
		if update, err = b.condition(s.updateWhere, "WHERE"); err != nil {
			return nil, err
		}
		update = inner(plan.ExprCoal, record.Boolean, s.conflictAt, update, boolean(false, s.conflictAt))
	}
	outs := []selected{{name: "ordinal", node: column(ordinal, record.BigInt, s.conflictAt)}, {name: "update", node: update}}
	for i, n := range become {
		outs = append(outs, selected{name: obj.Columns[i].Name, node: n})
	}
	return r.exprs(outs), nil
}
