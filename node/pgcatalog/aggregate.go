package pgcatalog

import (
	"sort"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/internal/fault"
)

// aggregate is an aggregate function over the rows of a group.
type aggregate struct {
	name     string
	args     []*node
	distinct bool
	filter   *node
	order    []*node
	keys     []orderKey
}

func isAggregate(name string) bool {
	switch name {
	case "count", "min", "max", "sum", "array_agg", "string_agg", "bool_and", "bool_or", "every":
		return true
	}
	return false
}

// aggregateCall compiles an aggregate; its result stands in the env of the group.
func (c *compiler) aggregateCall(f *pgquery.FuncCall, name string, s *scope) (*node, error) {
	if s == nil || s.aggs == nil {
		return nil, fault.SQL(fault.Invalid, "42803", "aggregate functions are not allowed here")
	}
	inner := &scope{rels: s.rels, parent: s.parent}
	a := &aggregate{name: name, distinct: f.AggDistinct}
	var err error
	if a.args, err = c.exprs(f.Args, inner); err != nil {
		return nil, err
	}
	if f.AggFilter != nil {
		if a.filter, err = c.condition(f.AggFilter, inner); err != nil {
			return nil, err
		}
	}
	for i, n := range f.AggOrder {
		k, err := c.expr(n.GetSortBy().Node, inner)
		if err != nil {
			return nil, err
		}
		a.order = append(a.order, k)
		a.keys = append(a.keys, keyBy(i, n.GetSortBy()))
	}
	s.correlated = s.correlated || inner.correlated
	if len(a.args) == 0 && !f.AggStar {
		return nil, fault.SQL(fault.Invalid, "42883", "function %s() does not exist", name)
	}
	typ := uint32(int8OID)
	switch name {
	case "min", "max":
		typ = a.args[0].typ
	case "array_agg":
		typ = arrayOf(a.args[0].typ)
	case "string_agg":
		typ = textOID
	case "bool_and", "bool_or", "every":
		typ = boolOID
	}
	at := len(*s.aggs)
	*s.aggs = append(*s.aggs, a)
	return &node{typ: typ, slots: ^uint64(0), eval: func(e *env) (Value, error) { return e.aggs[at], nil }}, nil
}

// groups makes one env of each group's rows, with the aggregates' results.
func (sel *selection) groups(rows []*env, empty *env) ([]*env, error) {
	var out []*env
	byKey := map[string]*env{}
	for _, r := range rows {
		key := make([]Value, len(sel.group))
		for i, k := range sel.group {
			var err error
			if key[i], err = k.eval(r); err != nil {
				return nil, err
			}
		}
		g := byKey[keyOf(key)]
		if g == nil {
			g = &env{x: r.x, rows: r.rows, parent: r.parent}
			byKey[keyOf(key)] = g
			out = append(out, g)
		}
		g.members = append(g.members, r)
	}
	if len(out) == 0 && len(sel.group) == 0 {
		for i := range empty.rows {
			empty.rows[i] = nil
		}
		out = append(out, empty)
	}
	kept := out[:0]
	for _, g := range out {
		g.aggs = make([]Value, len(sel.aggs)+len(sel.wins))
		for i, a := range sel.aggs {
			var err error
			if g.aggs[i], err = a.result(g.members); err != nil {
				return nil, err
			}
		}
		if sel.having != nil {
			if v, ok, err := truth(sel.having, g); err != nil {
				return nil, err
			} else if !ok || !v {
				continue
			}
		}
		kept = append(kept, g)
	}
	return kept, nil
}

// member is a row's arguments and its place in the aggregate's order.
type member struct {
	args, order []Value
}

func (a *aggregate) result(rows []*env) (Value, error) {
	var members []member
	seen := map[string]bool{}
	for _, r := range rows {
		if a.filter != nil {
			if v, ok, err := truth(a.filter, r); err != nil {
				return nil, err
			} else if !ok || !v {
				continue
			}
		}
		m := member{make([]Value, len(a.args)), make([]Value, len(a.order))}
		for i, n := range a.args {
			var err error
			if m.args[i], err = n.eval(r); err != nil {
				return nil, err
			}
		}
		for i, n := range a.order {
			var err error
			if m.order[i], err = n.eval(r); err != nil {
				return nil, err
			}
		}
		if a.distinct {
			if k := keyOf(m.args); seen[k] {
				continue
			} else {
				seen[k] = true
			}
		}
		members = append(members, m)
	}
	if len(a.keys) > 0 {
		sort.SliceStable(members, func(i, j int) bool {
			for _, k := range a.keys {
				if c := k.compare(members[i].order[k.col], members[j].order[k.col]); c != 0 {
					return c < 0
				}
			}
			return false
		})
	}
	return a.fold(members), nil
}

// fold is the aggregate of members in order.
func (a *aggregate) fold(members []member) Value {
	if len(a.args) == 0 { // count(*)
		return int64(len(members))
	}
	var values []Value
	for _, m := range members {
		if m.args[0] != nil || a.name == "array_agg" {
			values = append(values, m.args[0])
		}
	}
	if a.name == "count" {
		return int64(len(values))
	}
	if len(values) == 0 {
		return nil
	}
	switch a.name {
	case "array_agg":
		return values
	case "string_agg":
		return joinText(members)
	}
	out := values[0]
	for _, v := range values[1:] {
		c, _ := compare(v, out)
		switch a.name {
		case "min":
			if c < 0 {
				out = v
			}
		case "max":
			if c > 0 {
				out = v
			}
		case "bool_and", "every":
			out = out == true && v == true
		case "bool_or":
			out = out == true || v == true
		case "sum":
			x, okX := out.(int64)
			y, okY := v.(int64)
			if okX && okY {
				out = x + y
			} else {
				out = toFloat(out) + toFloat(v)
			}
		}
	}
	return out
}

func joinText(members []member) Value {
	var b strings.Builder
	first := true
	for _, m := range members {
		if m.args[0] == nil {
			continue
		}
		if !first && len(m.args) > 1 && m.args[1] != nil {
			b.WriteString(text(m.args[1]))
		}
		first = false
		b.WriteString(text(m.args[0]))
	}
	return b.String()
}

// window is row_number() OVER (PARTITION BY ... ORDER BY ...).
type window struct {
	partition, order []*node
	keys             []orderKey
}

func (c *compiler) windowCall(f *pgquery.FuncCall, name string, s *scope) (*node, error) {
	if name != "row_number" {
		return nil, unsupported("window function %s", name)
	}
	if s == nil || s.wins == nil || s.aggs == nil {
		return nil, fault.SQL(fault.Invalid, "42P20", "window functions are not allowed here")
	}
	inner := &scope{rels: s.rels, parent: s.parent}
	w := &window{}
	var err error
	if w.partition, err = c.exprs(f.Over.PartitionClause, inner); err != nil {
		return nil, err
	}
	for i, n := range f.Over.OrderClause {
		k, err := c.expr(n.GetSortBy().Node, inner)
		if err != nil {
			return nil, err
		}
		w.order = append(w.order, k)
		w.keys = append(w.keys, keyBy(i, n.GetSortBy()))
	}
	s.correlated = s.correlated || inner.correlated
	at := len(*s.wins)
	*s.wins = append(*s.wins, w)
	aggs := s.aggs
	return &node{typ: int8OID, slots: ^uint64(0), eval: func(e *env) (Value, error) { return e.aggs[len(*aggs)+at], nil }}, nil
}

// number gives each row its number, in place at of its results.
func (w *window) number(rows []*env, at int) error {
	type numbered struct {
		e     *env
		part  string
		order []Value
	}
	all := make([]numbered, len(rows))
	for i, r := range rows {
		part := make([]Value, len(w.partition))
		for k, n := range w.partition {
			var err error
			if part[k], err = n.eval(r); err != nil {
				return err
			}
		}
		order := make([]Value, len(w.order))
		for k, n := range w.order {
			var err error
			if order[k], err = n.eval(r); err != nil {
				return err
			}
		}
		all[i] = numbered{r, keyOf(part), order}
	}
	sort.SliceStable(all, func(i, j int) bool {
		for _, k := range w.keys {
			if c := k.compare(all[i].order[k.col], all[j].order[k.col]); c != 0 {
				return c < 0
			}
		}
		return false
	})
	count := map[string]int64{}
	for _, n := range all {
		count[n.part]++
		for len(n.e.aggs) <= at {
			n.e.aggs = append(n.e.aggs, nil)
		}
		n.e.aggs[at] = count[n.part]
	}
	return nil
}
