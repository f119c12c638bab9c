package sql

import (
	"slices"
)

// setCall checks a set-returning function of a select list, or of GROUP BY: each row of the query comes once for each row
// of the function, after grouping and window functions, unless it is grouped by.
func (b *binder) setCall(e *call) (*node, error) {
	if b.sets == nil {
		return nil, b.src.unsupported(e.pos(), "write it in FROM: FROM x, "+e.name+"(...)", "set-returning function %s in this place is not supported", e.name)
	}
	args, err := b.withoutSets().bindAll(e.args)
	if err != nil {
		return nil, err
	}
	u := &unnestRel{fn: e.name}
	names, types, err := b.a.tableFunction(b, e.name, e.pos(), args, u)
	if err != nil {
		return nil, err
	}
	if len(names) > 1 {
		return nil, b.src.unsupported(e.pos(), "write it in FROM: FROM x, "+e.name+"(...)", "set-returning function %s, whose rows have %d columns, outside FROM is not supported", e.name, len(names))
	}
	for _, other := range *b.sets {
		if other.fn == u.fn && slices.EqualFunc(other.args, u.args, same) {
			return column(other.outs[0], types[0], e.pos()), nil
		}
	}
	if len(*b.sets) > 0 {
		return nil, b.src.unsupported(e.pos(), "write them in FROM", "more than one set-returning function in a query's select list is not supported")
	}
	u.outs = []int{b.a.newColumn(e.name, types[0])}
	*b.sets = append(*b.sets, u)
	return column(u.outs[0], types[0], e.pos()), nil
}

// withoutSets returns a binder for what is computed for a row at a time.
func (b *binder) withoutSets() *binder {
	c := *b
	c.sets = nil
	return &c
}

// groupSetCalls makes the rows of the set-returning functions that are grouped by.
func (q *selection) groupSetCalls() error {
	for _, u := range q.setCalls {
		keyed := setOf(u.outs)
		i := slices.IndexFunc(q.keys, func(k groupKey) bool { return keyed.touches(k.node) })
		if i < 0 {
			continue
		}
		have := setOf(q.rel.outs())
		for _, arg := range u.args {
			if !have.within(arg) {
				return q.a.src.unsupported(arg.pos, "compute it in a subquery in FROM first", "an aggregate, a window function or a subquery in a set-returning function of GROUP BY is not supported")
			}
		}
		q.rel = &rel{kind: relUnnest, in: []*rel{q.rel}, unnest: u}
		q.setCalls = slices.DeleteFunc(slices.Clone(q.setCalls), func(o *unnestRel) bool { return o == u })
	}
	return nil
}

// applySetCalls makes the rows of the other ones.
func (q *selection) applySetCalls() {
	for _, u := range q.setCalls {
		q.rel = &rel{kind: relUnnest, in: []*rel{q.rel}, unnest: u}
	}
}

// regroupSetCalls rewrites their arguments over the keys.
func (q *selection) regroupSetCalls() error {
	for _, u := range q.setCalls {
		for i, arg := range u.args {
			var err error
			if u.args[i], err = q.regroup(arg); err != nil {
				return err
			}
		}
	}
	return nil
}
