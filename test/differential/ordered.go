package main

import (
	"github.com/millrace/millrace/record"
)

// orderedJoin joins some relations by equalities of one type, in any order and by commas or joins, under conditions that
// hold for equal columns too, or that rows without a match don't pass.
func (g *gen) orderedJoin() (query, bool) {
	t := pick(g.d, []record.Type{record.BigInt, record.Text})
	var sides []source
	var keys []column
	size := 1
	g.d.list(2, 4, 60, func(int) {
		s := g.base(g.relation(nil))
		if g.d.chance(12) {
			s = g.values()
		}
		c, ok := g.column(s.cols, func(c *column) bool { return c.typ == t && !c.inexact && !c.event })
		if !ok || len(sides) > 0 && size*s.size/4 > maxRows {
			return
		}
		if size = max(size, size*s.size/4); len(sides) == 0 {
			size = s.size
		}
		sides, keys = append(sides, s), append(keys, c)
	})
	if len(sides) < 2 {
		return query{}, false
	}
	out := source{isJoin: true, text: sides[0].text, cols: sides[0].cols, size: size}
	commas := g.d.chance(40)
	var where []text
	for i := 1; i < len(sides); i++ {
		equal := format("%s = %s", keys[g.d.n(i)].text, keys[i].text)
		out.cols = joined(&out, &sides[i])
		if commas {
			out.text = format("%s, %s", out.text, sides[i].text)
			where = append(where, equal)
			continue
		}
		kind := pick(g.d, []string{"JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT JOIN"})
		if g.d.chance(20) && kind != "FULL JOIN" {
			equal = format("%s AND %s", equal, g.bounded(keys[g.d.n(i+1)]))
		}
		out.text = format("%s %s %s ON %s", out.text, kind, sides[i].text, equal)
	}
	g.d.list(0, 3, 70, func(int) { where = append(where, g.bounded(pick(g.d, keys))) })
	q := query{size: size}
	items := g.items(&q, &out, 0)
	q.text = format("SELECT %s FROM %s", join(items, ", "), out.text)
	if len(where) > 0 {
		q.text = format("%s WHERE %s", q.text, join(where, " AND "))
	}
	return q, true
}

// bounded is a condition on one column.
func (g *gen) bounded(c column) text {
	l := func() text { return g.literal(c.typ).text }
	switch g.d.n(6) {
	case 0:
		return format("%s IN (%s, %s)", c.text, l(), l())
	case 1:
		return format("(%s %s %s) IS TRUE", c.text, pick(g.d, relations), l())
	case 2:
		return format("%s IS NOT NULL", c.text)
	case 3:
		return format("NOT (%s = %s AND %s < %s)", c.text, l(), c.text, l())
	}
	return format("%s %s %s", c.text, pick(g.d, relations), l())
}
