package main

import "slices"

// keyedSource is an item of FROM whose rows the planner knows the place of: a table, a view, or a grouping of its own.
func (g *gen) keyedSource() (source, []column, bool) {
	if g.d.chance(35) {
		s := g.base(g.relation(nil))
		key, ok := g.column(s.cols, func(c *column) bool { return !c.inexact && !c.vague && !c.event && hasOrder(c.typ) })
		if !ok {
			return source{}, nil, false
		}
		q := g.grouped(s, 0, []column{key})
		a := g.alias("a")
		out := source{text: format("(%s) AS %s", q.text, a), unique: q.unique, cols: q.columnsOf(a), size: q.size}
		return out, out.cols[:1], true
	}
	r := g.relation(func(r *relation) bool { return (r.table || r.view) && len(r.unique) > 0 })
	if r == nil || len(r.unique) == 0 {
		return source{}, nil, false
	}
	s := g.base(r)
	var keys []column
	for _, i := range r.unique {
		if c := s.cols[i]; !c.inexact && !c.event && hasOrder(c.typ) {
			keys = append(keys, c)
		}
	}
	return s, keys, len(keys) > 0
}

// placedView reads what is placed by a key already: grouped by it, or with others of the same type.
func (g *gen) placedView() (query, bool) {
	if g.d.chance(30) { // to be read by others
		s, keys, ok := g.keyedSource()
		if !ok || slices.ContainsFunc(keys, func(c column) bool { return c.vague }) {
			return query{}, false
		}
		return g.grouped(s, 0, keys[:min(len(keys), 2)]), true
	}
	l, left, ok := g.keyedSource()
	r, right, ok2 := g.keyedSource()
	if !ok || !ok2 {
		return query{}, false
	}
	var on []text
	var shared [][2]column
	for _, c := range left {
		if i := slices.IndexFunc(right, func(d column) bool { return d.typ == c.typ }); i >= 0 {
			on = append(on, format("%s = %s", c.text, right[i].text))
			shared = append(shared, [2]column{c, right[i]})
			right = slices.Delete(slices.Clone(right), i, i+1)
		}
	}
	if len(on) == 0 {
		return query{}, false
	}
	if g.d.chance(35) {
		return g.placedBranches(&l, &r, shared), true
	}
	kind := pick(g.d, []string{"JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"})
	s := source{isJoin: true, cols: joined(&l, &r), unique: bothUnique(&l, &r), size: l.size * r.size / 3}
	if s.size > maxRows {
		return query{}, false
	}
	s.text = format("%s %s %s ON %s", l.text, kind, r.text, join(on, " AND "))
	if g.d.chance(50) {
		c := shared[0][g.d.n(2)]
		if c.vague {
			return g.plain(s, 0), true
		}
		return g.grouped(s, 0, []column{c}), true
	}
	return g.plain(s, 0), true
}

// placedBranches puts the keys of two sides together, and groups by them.
func (g *gen) placedBranches(l, r *source, shared [][2]column) query {
	op := pick(g.d, []string{"UNION ALL", "UNION ALL", "UNION", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"})
	q := query{size: l.size + r.size}
	var a, b []text
	for _, s := range shared {
		c := s[0]
		c.vague = c.vague || s[1].vague || hasForms(c.typ) && op != "UNION ALL"
		a, b = append(a, q.output(ofColumn(c))), append(b, s[1].text)
	}
	q.text = format("SELECT %s FROM %s%s %s SELECT %s FROM %s", join(a, ", "), l.text, g.where(l, 0), op, join(b, ", "), r.text)
	if slices.ContainsFunc(q.cols, func(c column) bool { return c.vague }) || g.d.chance(30) {
		return q
	}
	alias := g.alias("a")
	s := source{text: format("(%s) AS %s", q.text, alias), cols: q.columnsOf(alias), size: q.size}
	return g.grouped(s, 0, s.cols[:1])
}
