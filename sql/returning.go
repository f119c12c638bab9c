package sql

import (
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// RETURNING of INSERT is computed when the rows are known; that of UPDATE and DELETE by the query that finds them, where
// the other tables of FROM and USING are at hand too.

// returned adds RETURNING to the outputs of an UPDATE's or DELETE's query. The first outputs are the table's columns as
// they are, then, of UPDATE, as they become, which is what RETURNING is about.
func (c *changeQuery) returned(q *selection, b *binder) error {
	rb := *b
	rb.aggs, rb.overs, rb.subs, rb.noAggs, rb.noOver = nil, nil, nil, "RETURNING", "RETURNING"
	n := len(c.change.Table.Columns)
	become := map[int]*node{}
	if c.edit != nil {
		for i := range n {
			become[q.outs[i].node.col] = q.outs[n+i].node
		}
	}
	outs, err := rb.returningList(c.returning, q.scope)
	if err != nil {
		return err
	}
	for _, o := range outs {
		if o.node, err = o.node.rewrite(func(n *node) (*node, error) {
			if n.kind == plan.ExprCol {
				if r, ok := become[n.col]; ok {
					return r, nil
				}
				return n, nil
			}
			return nil, nil
		}); err != nil {
			return err
		}
		q.outs = append(q.outs, o)
		c.change.Returned = append(c.change.Returned, record.Field{Name: o.name, Type: o.node.typ})
	}
	return nil
}

// returningList checks the list of RETURNING.
func (b *binder) returningList(items []selectItem, s *scope) ([]selected, error) {
	var out []selected
	for _, item := range items {
		if st, ok := item.expr.(*star); ok {
			cols, err := s.star(b.src, st)
			if err != nil {
				return nil, err
			}
			out = append(out, cols...)
		} else {
			o, err := b.item(item)
			if err != nil {
				return nil, err
			}
			out = append(out, o)
		}
		if len(out) > MaxColumns {
			return nil, b.src.fail(item.expr.pos(), stateTooManyColumns, "", "RETURNING has more than %d columns", MaxColumns)
		}
	}
	return out, nil
}

// planReturning plans RETURNING of INSERT.
func (s *Insert) planReturning(ps *parameters, c Catalog, obj *Object) (*RowExprs, error) {
	r := newRowScope(s.src, c, ps, "RETURNING")
	outs := []selected{{name: "ordinal", node: column(r.add("", ordinalField), record.BigInt, s.streamAt)}}
	r.add(s.name(), obj.Columns)
	b := r.binder()
	list, err := b.returningList(s.returning, b.scope)
	if err != nil {
		return nil, err
	}
	return r.exprs(append(outs, list...)), nil
}

// ordinalField tells rows that are computed apart.
var ordinalField = record.Schema{{Name: "", Type: record.BigInt}}

// rowScope is the columns of rows that are at hand.
type rowScope struct {
	a      *analyzer
	clause string
	cols   []scopeColumn
	input  record.Schema
	pos    map[int]int
}

func newRowScope(src *source, c Catalog, ps *parameters, clause string) *rowScope {
	return &rowScope{a: &analyzer{src: src, catalog: c, params: ps}, clause: clause, pos: map[int]int{}}
}

// add adds a table's columns and returns the number of the first. Columns without a name can't be named.
func (r *rowScope) add(table string, cols record.Schema) int {
	first := 0
	for i, f := range cols {
		id := r.a.newColumn(f.Name, f.Type)
		if i == 0 {
			first = id
		}
		r.pos[id] = len(r.input)
		r.input = append(r.input, f)
		if f.Name != "" {
			r.cols = append(r.cols, scopeColumn{table: table, name: f.Name, typ: f.Type, id: id})
		}
	}
	return first
}

func (r *rowScope) binder() *binder { return r.a.binder(newScope(r.cols), r.clause) }

func (r *rowScope) exprs(outs []selected) *RowExprs {
	out := &RowExprs{Input: r.input}
	for _, o := range outs {
		out.Exprs = append(out.Exprs, o.node.expr(r.pos))
		out.Output = append(out.Output, record.Field{Name: o.name, Type: o.node.typ})
	}
	return out
}
