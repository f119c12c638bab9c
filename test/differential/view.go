package main

import (
	"fmt"
	"slices"
)

// view draws a view over the relations that there are.
func (g *gen) view(name string, steps int) (View, *relation) {
	q, options := query{}, ""
	kind := g.d.weighted(40, 12, 8, 6, 5, 7, 8, 5, 7, 6)
	ok := false
	switch kind {
	case 1:
		q, options, ok = g.windowedView()
	case 2:
		q, ok = g.intervalJoin()
	case 3:
		q, ok = g.temporalJoin()
	case 4:
		q, ok = g.windowJoin()
	case 5:
		q, ok = g.scalarView()
	case 6:
		q, ok = g.placedView()
	case 9:
		q, ok = g.sharedView()
	case 8:
		q, ok = g.orderedJoin()
	case 7:
		q, options, ok = g.windowsOfWindows()
	}
	if !ok {
		q = g.query(2)
	}
	if len(g.with) > 0 {
		q.text = format("WITH %s %s", join(g.with, ", "), q.text)
	}
	v := View{Name: name, SQL: "CREATE MATERIALIZED VIEW " + name + options + " AS " + q.ours, PG: q.pg}
	if !g.atStart && g.d.chance(25) {
		v.After = g.d.n(steps)
	}
	for u := range g.uses {
		v.uses = append(v.uses, u)
	}
	slices.Sort(v.uses)
	r := &relation{name: name, view: true, unique: q.unique, created: v.After, size: max(q.size, 1), windows: q.windows}
	for i, c := range q.cols {
		if c.inexact {
			v.Inexact = append(v.Inexact, i)
		}
		r.columns = append(r.columns, field{name: c.name, typ: c.typ, inexact: c.inexact, vague: c.vague})
	}
	for _, u := range g.relations {
		if u != nil && u.view && g.uses[u.name] {
			v.After = max(v.After, u.created)
		}
	}
	r.created = v.After
	return v, r
}

func isStream(r *relation) bool { return !r.table && !r.view }

// windowedView groups by a window, sometimes holding rows back until it is over.
func (g *gen) windowedView() (query, string, bool) {
	r := g.relation(isStream)
	kind := g.d.n(4)
	size, slide, offset := pick(g.d, []int{10, 4, 7}), pick(g.d, []int{2, 5, 3}), pick(g.d, []int{0, 0, 1, 3})
	s, ok := g.windowSized(r, kind, size, slide, offset)
	if !ok {
		return query{}, "", false
	}
	n := len(s.cols)
	must := []column{s.cols[n-2], s.cols[n-1]}
	if kind == 3 {
		for _, c := range s.cols {
			if c.name == g.sessionKeys[0] {
				must = append(must, c)
			}
		}
	}
	final := r.watermark && g.d.chance(45)
	q := g.grouped(s, 0, must)
	if r.watermark && kind < 2 {
		q.windows = &windows{r.name, size, map[int]int{0: size, 1: min(slide, size)}[kind], offset, 0}
	}
	if !final {
		return q, "", true
	}
	q.pg = fmt.Sprintf("SELECT * FROM (%s) AS q WHERE q.c1 <= (SELECT wm FROM _wm WHERE stream = '%s')", q.pg, r.name)
	return q, " WITH (emit = 'final')", true
}

// windowsOfWindows groups a view of windows by other ones: their starts, or their ends, are the time.
func (g *gen) windowsOfWindows() (query, string, bool) {
	r := g.relation(func(r *relation) bool { return r.windows != nil })
	if r == nil || r.windows == nil {
		return query{}, "", false
	}
	in := r.windows
	of := *r
	atEnd := g.d.chance(40)
	if atEnd { // the first timestamp is the time
		of.columns = append([]field{r.columns[1], r.columns[0]}, r.columns[2:]...)
		of.unique = nil
	}
	kind, size, slide, offset := g.d.n(3), pick(g.d, []int{20, 10, 7}), pick(g.d, []int{10, 5, 4}), pick(g.d, []int{in.offset, 0, 1})
	slide = min(slide, size)
	s, ok := g.windowSized(&of, kind, size, slide, offset)
	if !ok {
		return query{}, "", false
	}
	step := map[bool]int{true: size, false: slide}[kind == 0]
	lag := in.lag
	if whole := in.slide == in.size && step%in.size == 0 && (offset-in.offset)%in.size == 0; !atEnd && !whole {
		lag += in.size
	}
	n := len(s.cols)
	q := g.grouped(s, 0, []column{s.cols[n-2], s.cols[n-1]})
	if kind < 2 {
		q.windows = &windows{in.stream, size, step, offset, lag}
	}
	if !g.d.chance(60) {
		return q, "", true
	}
	q.pg = fmt.Sprintf("SELECT * FROM (%s) AS q WHERE q.c1 + INTERVAL '%d seconds' <= (SELECT wm FROM _wm WHERE stream = '%s')", q.pg, lag, in.stream)
	return q, " WITH (emit = 'final')", true
}

func onTime(a string) string {
	return fmt.Sprintf("(%[1]s.ts IS NULL OR %[1]s._wm IS NULL OR %[1]s.ts > %[1]s._wm)", a)
}

func aliasOf(s *source) string {
	for i, c := range s.cols[0].pg {
		if c == '.' {
			return s.cols[0].pg[:i]
		}
	}
	return ""
}

// intervalJoin joins two streams whose times bound each other, which drops late rows of both.
func (g *gen) intervalJoin() (query, bool) {
	marked := func(r *relation) bool { return isStream(r) && r.watermark }
	a, b := g.relation(marked), g.relation(marked)
	if a == nil || b == nil || !marked(a) || !marked(b) {
		return query{}, false
	}
	l, r := g.base(a), g.base(b)
	la, ra := aliasOf(&l), aliasOf(&r)
	var cond text
	switch g.d.n(3) {
	case 0:
		cond = format("%s.ts BETWEEN %s.ts - INTERVAL '%d seconds' AND %s.ts + INTERVAL '%d seconds'", ra, la, g.d.n(4), la, g.d.n(6))
	case 1:
		cond = format("%s.ts >= %s.ts AND %s.ts < %s.ts + INTERVAL '%d seconds'", ra, la, ra, la, 1+g.d.n(6))
	default:
		cond = format("%s.ts = %s.ts", ra, la)
	}
	if g.d.chance(70) {
		key := pick(g.d, []string{"k", "g"})
		cond = format("%s.%s = %s.%s AND %s", la, key, ra, key, cond)
	}
	// Late rows of both sides are as if they weren't there.
	inTime := func(s *source, rel *relation, alias string) text {
		return text{s.ours, fmt.Sprintf("(SELECT * FROM %s AS %s WHERE %s) AS %s", rel.name, alias, onTime(alias), alias)}
	}
	lt, rt := inTime(&l, a, la), inTime(&r, b, ra)
	s := source{cols: joined(&l, &r), unique: bothUnique(&l, &r), size: 800}
	switch kind := pick(g.d, []string{"JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "EXISTS", "NOT EXISTS"}); kind {
	case "EXISTS", "NOT EXISTS":
		s = l
		s.where = text{}
		q := query{}
		items := g.items(&q, &s, 60)
		q.text = format("SELECT %s FROM %s WHERE %s (SELECT 1 FROM %s WHERE %s)", join(items, ", "), lt, kind, rt, cond)
		return q, true
	case "FULL JOIN":
		if !g.d.chance(50) {
			kind = "LEFT JOIN"
		} else {
			cond = format("%s.k = %s.k AND %s.ts = %s.ts", la, ra, la, ra)
		}
		s.text = format("%s %s %s ON %s", lt, kind, rt, cond)
	default:
		s.text = format("%s %s %s ON %s", lt, kind, rt, cond)
	}
	if g.d.chance(40) {
		return g.grouped(s, 0, nil), true
	}
	return g.plain(s, 0), true
}

// temporalJoin gives each row of a stream the table's row at its tick.
func (g *gen) temporalJoin() (query, bool) {
	r := g.relation(isStream)
	t := g.relation(func(r *relation) bool { return r.table })
	if t == nil || !t.table || !isStream(r) {
		return query{}, false
	}
	l, m := g.base(r), g.base(t)
	la, ma := aliasOf(&l), aliasOf(&m)
	var on []text
	for _, k := range t.key {
		on = append(on, format("%s.%s = %s.%s", ma, t.columns[k].name, la, t.columns[k].name))
	}
	kind := pick(g.d, []string{"JOIN", "LEFT JOIN"})
	cond := join(on, " AND ")
	s := source{cols: joined(&l, &m), unique: l.unique, size: l.size}
	s.text = text{
		fmt.Sprintf("%s %s %s FOR SYSTEM_TIME AS OF %s._time AS %s ON %s", l.ours, kind, t.name, la, ma, cond.ours),
		fmt.Sprintf("%s %s %s__hist AS %s ON %s AND %s._from <= %s._tick AND %s._tick < %s._to", l.pg, kind, t.name, ma, cond.pg, ma, la, la, ma),
	}
	g.atStart = true
	if g.d.chance(30) {
		return g.grouped(s, 0, nil), true
	}
	return g.plain(s, 0), true
}

// windowJoin joins the windows of two streams.
func (g *gen) windowJoin() (query, bool) {
	a, b := g.relation(isStream), g.relation(isStream)
	kind, size, slide, offset := g.d.n(3), pick(g.d, []int{10, 4}), pick(g.d, []int{2, 5}), g.d.n(2)
	l, ok := g.windowSized(a, kind, size, slide, offset)
	r, ok2 := g.windowSized(b, kind, size, slide, offset)
	if !ok || !ok2 {
		return query{}, false
	}
	la, ra := aliasOf(&l), aliasOf(&r)
	on := format("%s.window_start = %s.window_start AND %s.window_end = %s.window_end", la, ra, la, ra)
	if g.d.chance(70) {
		key := pick(g.d, []string{"k", "g"})
		on = format("%s.%s = %s.%s AND %s", la, key, ra, key, on)
	}
	s := source{cols: joined(&l, &r), unique: bothUnique(&l, &r), size: 1000}
	s.text = format("%s %s %s ON %s", l.text, pick(g.d, []string{"JOIN", "LEFT JOIN", "FULL JOIN", "RIGHT JOIN"}), r.text, on)
	if g.d.chance(50) {
		return g.grouped(s, 0, nil), true
	}
	return g.plain(s, 0), true
}

// scalarView selects scalar subqueries beside columns.
func (g *gen) scalarView() (query, bool) {
	s := g.from(1)
	q := query{size: s.size}
	items := g.items(&q, &s, 60)
	g.d.list(1, 2, 40, func(int) { items = append(items, q.output(g.scalar(&s))) })
	q.text = format("SELECT %s FROM %s%s", join(items, ", "), s.text, g.where(&s, 0))
	return q, true
}
