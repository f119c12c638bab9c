package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/record"
)

// orderKeys draws an ORDER BY; whole, it ends with the columns that tell rows apart, so that nothing ties.
func (g *gen) orderKeys(s *source, whole bool) text {
	var parts []text
	g.d.list(0, 2, 60, func(int) {
		if c, ok := g.column(s.cols, func(c *column) bool { return !c.inexact && hasOrder(c.typ) }); ok {
			parts = append(parts, format("%s%s", c.text, g.direction()))
		}
	})
	if whole {
		for _, i := range s.unique {
			parts = append(parts, format("%s%s", s.cols[i].text, g.direction()))
		}
	}
	return join(parts, ", ")
}

func (g *gen) direction() string {
	return pick(g.d, []string{"", " DESC", " NULLS FIRST", " DESC NULLS LAST"})
}

// sortable tells whether rows can be told apart by columns that have an order.
func sortable(s *source) bool {
	return s.unique != nil && !slices.ContainsFunc(s.unique, func(i int) bool { return !hasOrder(s.cols[i].typ) || s.cols[i].inexact })
}

// partition draws PARTITION BY, which may be empty.
func (g *gen) partition(s *source) text {
	var keys []text
	g.d.list(0, 2, 55, func(int) {
		if c, ok := g.column(s.cols, func(c *column) bool { return !c.inexact }); ok {
			keys = append(keys, c.text)
		}
	})
	if len(keys) == 0 {
		return text{}
	}
	return format("PARTITION BY %s", join(keys, ", "))
}

// over is a query with window functions.
func (g *gen) over(depth int) query {
	s := g.from(depth)
	q := query{size: s.size}
	items := g.items(&q, &s, 90)
	keys := g.partition(&s)
	whole := sortable(&s) && g.d.chance(75)
	order := g.orderKeys(&s, whole)
	g.d.list(1, 3, 50, func(int) {
		if g.d.chance(25) { // another window
			keys, whole = g.partition(&s), sortable(&s) && g.d.chance(75)
			order = g.orderKeys(&s, whole)
		}
		items = append(items, q.output(g.windowFunction(&s, keys, order, whole && order.pg != "")))
	})
	q.text = format("SELECT %s FROM %s%s", join(items, ", "), s.text, g.where(&s, depth))
	return q
}

func (g *gen) windowFunction(s *source, keys, order text, whole bool) result {
	spec := keys
	if order.pg != "" {
		spec = format("%s ORDER BY %s", keys, order)
	}
	over := func(f text) text { return format("%s OVER (%s)", f, spec) }
	value := func() (record.Type, ex) {
		t := pick(g.d, []record.Type{record.BigInt, record.Text, record.Double, record.TimestampTZ, record.Boolean, record.Date, record.Numeric, bigints})
		return t, g.aggArg(t, s.cols)
	}
	kind := g.d.weighted(20, 14, 30, 14, 14, 8)
	if kind != 2 && kind != 1 && !whole {
		kind = 1
	}
	switch kind {
	case 0:
		return result{ex{text: over(same("row_number()"))}, record.BigInt, false}
	case 1:
		name := pick(g.d, []string{"rank", "dense_rank", "percent_rank", "cume_dist"})
		t := record.BigInt
		if strings.HasSuffix(name, "t_rank") || name == "cume_dist" {
			t = record.Double
		}
		return result{ex{text: over(same(name + "()")), inexact: t == record.Double}, t, false}
	case 3:
		t, e := value()
		name := pick(g.d, []string{"lag", "lead"})
		switch g.d.n(3) {
		case 0:
			return result{ex{text: over(format("%s(%s)", name, e.text))}, t, false}
		case 1:
			return result{ex{text: over(format("%s(%s, %d)", name, e.text, g.d.n(3)))}, t, false}
		}
		return result{ex{text: over(format("%s(%s, %d, %s)", name, e.text, 1+g.d.n(2), g.literal(t).text))}, t, false}
	case 4:
		t, e := value()
		f := format("%s(%s)", pick(g.d, []string{"first_value", "last_value"}), e.text)
		if g.d.chance(35) {
			f = format("nth_value(%s, %d)", e.text, 1+g.d.n(3))
		}
		return result{ex{text: format("%s OVER (%s%s)", f, spec, g.frame(whole))}, t, false}
	case 5:
		return result{ex{text: text{over(same(fmt.Sprintf("ntile(%d)", 1+g.d.n(4)))).ours, "(" + over(same("ntile(")).pg + ")"}}, record.BigInt, false}.ntile(1+g.d.n(4), spec)
	}
	return g.aggregateOver(s, spec, order, whole)
}

func (r result) ntile(n int, spec text) result {
	r.text = format("ntile(%d) OVER (%s)", n, spec)
	r.pg = "(" + r.pg + ")::bigint"
	return r
}

// aggregateOver is an aggregate over a frame.
func (g *gen) aggregateOver(s *source, spec, order text, whole bool) result {
	var r result
	switch g.d.n(5) {
	case 0:
		r = result{ex{text: same("count(*)")}, record.BigInt, false}
	case 1:
		r = result{ex{text: format("count(%s)", g.aggArg(pick(g.d, columnTypes[:13]), s.cols).text)}, record.BigInt, false}
	case 2:
		t := pick(g.d, []record.Type{record.BigInt, record.Numeric, record.Double})
		r = result{ex{text: format("sum(%s)", g.aggArg(t, s.cols).text), vague: true}, t, false}
		if t == record.BigInt {
			r.typ = record.Numeric
		}
	case 3:
		t := pick(g.d, extremal)
		r = result{ex{text: format("%s(%s)", pick(g.d, []string{"min", "max"}), g.aggArg(t, s.cols).text), vague: hasForms(t)}, t, false}
	default:
		r = result{ex{text: format("%s(%s)", pick(g.d, []string{"bool_and", "bool_or"}), g.aggArg(record.Boolean, s.cols).text)}, record.Boolean, false}
	}
	frame := ""
	if order.pg != "" {
		frame = g.frame(whole)
	}
	r.text = format("%s OVER (%s%s)", g.filtered(r.text, s.cols), spec, frame)
	return r
}

// frame draws a frame; of rows only where no two tie.
func (g *gen) frame(whole bool) string {
	modes := []string{"RANGE", "GROUPS"}
	if whole {
		modes = []string{"ROWS", "ROWS", "RANGE", "GROUPS"}
	}
	if g.d.chance(35) {
		return ""
	}
	mode := pick(g.d, modes)
	bound := func(side string) string {
		if mode == "RANGE" {
			return "CURRENT ROW"
		}
		return pick(g.d, []string{"CURRENT ROW", fmt.Sprintf("%d %s", g.d.n(3), side)})
	}
	start := pick(g.d, []string{"UNBOUNDED PRECEDING", bound("PRECEDING")})
	end := pick(g.d, []string{"CURRENT ROW", "UNBOUNDED FOLLOWING", bound("FOLLOWING")})
	return fmt.Sprintf(" %s BETWEEN %s AND %s", mode, start, end)
}

// top is the first rows: by LIMIT, by DISTINCT ON, or of each group by a condition on a place.
func (g *gen) top(depth int) query {
	s := g.from(depth)
	if !sortable(&s) || len(s.unique) == 0 {
		return g.plain(s, depth)
	}
	q := query{size: min(s.size, 60)}
	switch g.d.n(4) {
	case 0:
		items := g.items(&q, &s, 80)
		limit := fmt.Sprintf(" LIMIT %d", 1+g.d.n(6))
		if g.d.chance(30) {
			limit += fmt.Sprintf(" OFFSET %d", g.d.n(4))
		}
		where := g.where(&s, depth)
		q.text = format("SELECT %s FROM %s%s ORDER BY %s%s", join(items, ", "), s.text, where, g.orderKeys(&s, true), limit)
		q.text = format("SELECT * FROM (%s) AS %s", q.text, g.alias("l"))
		return q
	case 1:
		c, ok := g.column(s.cols, func(c *column) bool { return !c.inexact && !c.vague && hasOrder(c.typ) })
		if !ok {
			break
		}
		items := []text{q.output(ofColumn(c))}
		items = append(items, g.items(&q, &s, 80)...)
		q.unique = []int{0}
		q.text = format("SELECT DISTINCT ON (%s) %s FROM %s%s ORDER BY %s%s, %s", c.text, join(items, ", "), s.text, g.where(&s, depth),
			c.text, g.direction(), g.orderKeys(&s, true))
		q.text = format("SELECT * FROM (%s) AS %s", q.text, g.alias("l"))
		return q
	}
	items := g.items(&q, &s, 100)
	fn, whole := "row_number", true
	if g.d.chance(40) {
		fn, whole = pick(g.d, []string{"rank", "dense_rank"}), g.d.chance(30)
	}
	order := g.orderKeys(&s, whole)
	spec := g.partition(&s)
	if order.pg != "" {
		spec = format("%s ORDER BY %s", spec, order)
	}
	items = append(items, q.output(result{ex{text: format("%s() OVER (%s)", fn, spec)}, record.BigInt, false}))
	place := q.cols[len(q.cols)-1].name
	q.text = format("SELECT %s FROM %s%s", join(items, ", "), s.text, g.where(&s, depth))
	a := g.alias("l")
	var names []string
	shown := len(q.cols)
	if g.d.chance(40) { // without the place
		shown--
	}
	for _, c := range q.cols[:shown] {
		names = append(names, a+"."+c.name)
	}
	cond := pick(g.d, []string{"%s.%s <= %d", "%s.%s = %d", "%s.%s < %d"})
	n := 1 + g.d.n(3)
	if strings.Contains(cond, "< ") {
		n++
	}
	q.cols = q.cols[:shown]
	q.text = format("SELECT %s FROM (%s) AS %s WHERE %s", strings.Join(names, ", "), q.text, a, fmt.Sprintf(cond, a, place, n))
	return q
}
