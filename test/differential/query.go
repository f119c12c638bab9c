package main

import (
	"fmt"
	"slices"

	"github.com/millrace/millrace/record"
)

// query is a query with what is known of its rows.
type query struct {
	text
	cols       []column // of its output, without a table
	unique     []int
	appendOnly bool
	size       int // about how many rows
	windows    *windows
}

// columnsOf is the columns under an alias.
func (q *query) columnsOf(alias string) []column {
	out := slices.Clone(q.cols)
	for i := range out {
		out[i].text = same(alias + "." + out[i].name)
	}
	return out
}

// output appends a column.
func (q *query) output(r result) text {
	name := fmt.Sprint("c", len(q.cols))
	q.cols = append(q.cols, column{name: name, typ: r.typ, inexact: r.inexact, vague: r.vague, event: r.event})
	return format("%s AS %s", r.text, name)
}

func ofColumn(c column) result {
	return result{ex{text: c.text, inexact: c.inexact, vague: c.vague, event: c.event}, c.typ, false}
}

// query draws a query.
func (g *gen) query(depth int) query {
	switch g.d.weighted(30, 26, 9, 14, 12, 9) {
	case 1:
		s := g.from(depth)
		return g.grouped(s, depth, nil)
	case 2:
		if depth > 0 {
			return g.setOperation(depth)
		}
	case 3:
		return g.over(depth)
	case 4:
		return g.top(depth)
	case 5:
		return g.distinct(depth)
	}
	return g.plain(g.from(depth), depth)
}

// plain is SELECT items FROM s WHERE.
func (g *gen) plain(s source, depth int) query {
	q := query{appendOnly: s.appendOnly, size: s.size}
	items := g.items(&q, &s, 60)
	q.text = format("SELECT %s FROM %s%s", join(items, ", "), s.text, g.where(&s, depth))
	return q
}

// items draws what a query selects; in percent of all cases the columns that tell rows apart are among it.
func (g *gen) items(q *query, s *source, percent int) []text {
	var items []text
	if s.unique != nil && g.d.chance(percent) {
		q.unique = []int{}
		for _, i := range s.unique {
			q.unique = append(q.unique, len(q.cols))
			items = append(items, q.output(ofColumn(s.cols[i])))
		}
	}
	g.d.list(1, 5, 70, func(int) { items = append(items, q.output(g.item(s.cols))) })
	return items
}

// item draws a column or an expression.
func (g *gen) item(in []column) result {
	if len(in) > 0 && g.d.chance(45) {
		return ofColumn(pick(g.d, in))
	}
	t := pick(g.d, columnTypes)
	if c, ok := g.column(in, func(*column) bool { return true }); ok && g.d.chance(40) {
		t = c.typ
	}
	rough := g.rough
	g.rough = g.d.chance(30)
	defer func() { g.rough = rough }()
	return result{g.expr(t, in, 3), t, false}
}

// where draws WHERE, which may be empty.
func (g *gen) where(s *source, depth int) text {
	var ours, both []text
	g.d.list(0, 2, 40, func(int) { both = append(both, format("(%s)", g.predicate(s.cols, 2))) })
	if depth > 0 && g.d.chance(18) {
		both = append(both, g.subCondition(s, depth))
	}
	ours = both
	if s.where.pg != "" {
		both = append(slices.Clone(both), s.where)
	}
	out := text{}
	if len(ours) > 0 {
		out.ours = " WHERE " + join(ours, " AND ").ours
	}
	if len(both) > 0 {
		out.pg = " WHERE " + join(both, " AND ").pg
	}
	return out
}

// subCondition draws a condition over a subquery.
func (g *gen) subCondition(s *source, depth int) text {
	r := g.base(g.relation(nil))
	match := text{}
	if g.d.chance(60) {
		if c, equal := g.onCondition(s, &r); equal {
			match = c
		}
	}
	inner := func(item text) text {
		var conds []text
		if match.pg != "" {
			conds = append(conds, match)
		}
		if g.d.chance(40) {
			conds = append(conds, format("(%s)", g.predicate(r.cols, 1)))
		}
		out := format("SELECT %s FROM %s", item, r.text)
		if len(conds) > 0 {
			out = format("%s WHERE %s", out, join(conds, " AND "))
		}
		return out
	}
	kind := g.d.n(6)
	if kind < 2 {
		return format("%sEXISTS (%s)", pick(g.d, []string{"", "NOT "}), inner(same("1")))
	}
	if kind == 5 {
		a := g.exactAggregate(r.cols)
		if hasOrder(a.typ) {
			return format("%s %s (%s)", g.expr(a.typ, s.cols, 1).text, pick(g.d, relations), inner(a.text))
		}
	}
	c, ok := g.column(r.cols, func(c *column) bool {
		return !c.inexact && !c.event && hasOrder(c.typ) && slices.ContainsFunc(s.cols, func(d column) bool { return d.typ == c.typ && !d.inexact && !d.event })
	})
	if !ok {
		return format("EXISTS (%s)", inner(same("1")))
	}
	l, _ := g.column(s.cols, func(d *column) bool { return d.typ == c.typ && !d.inexact && !d.event })
	switch kind {
	case 2:
		return format("%s IN (%s)", l.text, inner(c.text))
	case 3:
		return format("%s NOT IN (%s)", l.text, inner(c.text))
	}
	return format("%s %s %s (%s)", l.text, pick(g.d, relations), pick(g.d, []string{"ANY", "ALL"}), inner(c.text))
}

// exactAggregate draws an aggregate whose value can be compared.
func (g *gen) exactAggregate(in []column) result {
	rough := g.rough
	g.rough = false
	defer func() { g.rough = rough }()
	return g.aggregate(in)
}

// scalar is a scalar subquery over the columns around it.
func (g *gen) scalar(s *source) result {
	r := g.base(g.relation(nil))
	a := g.exactAggregate(r.cols)
	q := format("SELECT %s FROM %s", a.text, r.text)
	if g.d.chance(60) {
		if c, equal := g.onCondition(s, &r); equal {
			q = format("%s WHERE %s", q, c)
		}
	}
	a.text = format("(%s)", q)
	return a
}

// grouped is SELECT keys, aggregates FROM s GROUP BY keys; with must, by these columns among others.
func (g *gen) grouped(s source, depth int, must []column) query {
	q := query{size: s.size/2 + 1}
	var items, keys, plainKeys []text
	var after []column // what HAVING may name
	add := func(r result, plain bool) {
		keys = append(keys, same(fmt.Sprint(len(items)+1)))
		items = append(items, q.output(r))
		if plain {
			after = append(after, column{text: r.text, name: "", typ: r.typ, vague: r.vague, event: r.event})
			plainKeys = append(plainKeys, r.text)
		}
	}
	for _, c := range must {
		add(ofColumn(c), true)
	}
	g.d.list(0, 3-min(len(must), 2), 62, func(int) {
		if c, ok := g.column(s.cols, func(c *column) bool { return !c.inexact }); ok && !g.d.chance(25) {
			add(ofColumn(c), true)
			return
		}
		t := pick(g.d, compared)
		e := g.expr(t, s.cols, 2)
		e.vague = hasForms(t) && t != record.Double
		add(result{e, t, false}, false)
	})
	q.unique = []int{}
	for i := range items {
		q.unique = append(q.unique, i)
	}
	by := text{}
	if len(keys) > 0 {
		by = format(" GROUP BY %s", join(keys, ", "))
	}
	sets := len(must) == 0 && len(plainKeys) == len(keys) && len(keys) > 0 && g.d.chance(22)
	if sets {
		by = g.groupingSets(&q, &items, plainKeys)
		after = after[:0]
	}
	rough := g.rough
	g.rough = g.d.chance(40)
	g.d.list(1, 4, 65, func(int) {
		a := g.aggregate(s.cols)
		if !a.inexact {
			after = append(after, column{text: a.text, typ: a.typ, vague: a.vague})
			if !sets && g.d.chance(15) {
				t := pick(g.d, columnTypes)
				items = append(items, q.output(result{g.expr(t, after, 2), t, false}))
				return
			}
		}
		items = append(items, q.output(a))
	})
	g.rough = rough
	having := text{}
	switch {
	case sets: // the grand total of no rows is a row in PostgreSQL alone
		having = same(" HAVING count(*) > 0")
	case g.d.chance(25):
		having = format(" HAVING %s", g.predicate(after, 1))
	}
	q.text = format("SELECT %s FROM %s%s%s%s", join(items, ", "), s.text, g.where(&s, depth), by, having)
	return q
}

// groupingSets draws GROUPING SETS, ROLLUP or CUBE.
func (g *gen) groupingSets(q *query, items *[]text, keys []text) text {
	keys = slices.Clone(keys)
	q.unique = nil
	if g.d.chance(60) {
		*items = append(*items, q.output(result{ex{text: text{"GROUPING(" + join(keys, ", ").ours + ")", "GROUPING(" + join(keys, ", ").pg + ")::bigint"}}, record.BigInt, false}))
	}
	switch g.d.n(3) {
	case 0:
		return format(" GROUP BY ROLLUP (%s)", join(keys, ", "))
	case 1:
		return format(" GROUP BY CUBE (%s)", join(keys, ", "))
	}
	var sets []text
	g.d.list(1, 3, 70, func(int) {
		var set []text
		for _, k := range keys {
			if g.d.chance(50) {
				set = append(set, k)
			}
		}
		sets = append(sets, format("(%s)", join(set, ", ")))
	})
	all := format("(%s)", join(keys, ", ")) // so that each key is there
	return format(" GROUP BY GROUPING SETS (%s)", join(append(sets, all), ", "))
}

// setOperation is UNION, INTERSECT or EXCEPT of two queries.
func (g *gen) setOperation(depth int) query {
	op := pick(g.d, []string{"UNION ALL", "UNION", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"})
	var types []record.Type
	l, r := g.from(depth-1), g.from(depth-1)
	g.d.list(1, 3, 60, func(int) {
		c, ok := g.column(l.cols, func(c *column) bool { return !c.inexact && c.typ.Elem() != record.JSONB })
		if !ok {
			types = append(types, record.BigInt)
			return
		}
		types = append(types, c.typ)
	})
	q := query{appendOnly: op == "UNION ALL" && l.appendOnly && r.appendOnly, size: l.size + r.size}
	a, b := g.ofTypes(&q, &l, types, depth), g.ofTypes(nil, &r, types, depth)
	for i := range q.cols {
		q.cols[i].vague = q.cols[i].vague || hasForms(q.cols[i].typ) && op != "UNION ALL"
		q.cols[i].event = false
	}
	if op != "UNION ALL" && op != "INTERSECT ALL" && op != "EXCEPT ALL" {
		for i := range q.cols {
			q.unique = append(q.unique, i)
		}
	}
	q.text = format("(%s) %s (%s)", a, op, b)
	return q
}

// ofTypes is a query whose columns have given types.
func (g *gen) ofTypes(q *query, s *source, types []record.Type, depth int) text {
	if q == nil {
		q = &query{}
	}
	var items []text
	for _, t := range types {
		e := ex{}
		if c, ok := g.column(s.cols, func(c *column) bool { return c.typ == t && !c.inexact && !c.event }); ok && g.d.chance(75) {
			e = ofColumn(c).ex
		} else if e = g.expr(t, s.cols, 1); e.event {
			e = g.literal(t)
		}
		items = append(items, q.output(result{e, t, false}))
	}
	return format("SELECT %s FROM %s%s", join(items, ", "), s.text, g.where(s, depth-1))
}

// distinct is SELECT DISTINCT.
func (g *gen) distinct(depth int) query {
	s := g.from(depth)
	q := query{appendOnly: s.appendOnly, size: s.size}
	var items []text
	g.d.list(1, 3, 60, func(int) {
		if c, ok := g.column(s.cols, func(c *column) bool { return !c.inexact }); ok && !g.d.chance(20) {
			items = append(items, q.output(ofColumn(c)))
			return
		}
		t := pick(g.d, compared)
		e := g.expr(t, s.cols, 2)
		e.vague = hasForms(t) && t != record.Double
		items = append(items, q.output(result{e, t, false}))
	})
	for i := range items {
		q.unique = append(q.unique, i)
	}
	q.text = format("SELECT DISTINCT %s FROM %s%s", join(items, ", "), s.text, g.where(&s, depth))
	return q
}
