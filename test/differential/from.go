package main

import (
	"fmt"
	"slices"

	"github.com/millrace/millrace/record"
)

// source is an item of FROM.
type source struct {
	text
	cols       []column
	unique     []int // columns of which no two rows have equal values; nil: none known
	appendOnly bool
	stream     *relation // the stream itself, or rows of it as they are
	isJoin     bool
	size       int  // about how many rows
	where      text // what PostgreSQL has to keep besides, such as rows that aren't late
}

// gen draws queries over relations.
type gen struct {
	d         *draw
	relations []*relation // nil: gone, while a case is made smaller
	names     int
	rough     bool // inexact values may come
	with      []text
	uses      map[string]bool
	atStart   bool // the view must be made before there are records
	// sessionKeys is the keys of the session window drawn last, which a grouping must have.
	sessionKeys []string
}

// relation picks one; fits may be nil.
func (g *gen) relation(fits func(*relation) bool) *relation {
	var all []*relation
	for _, r := range g.relations {
		if fits == nil || r != nil && fits(r) {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return nil
	}
	r := pick(g.d, all)
	if r == nil {
		r = g.relations[0]
	}
	g.uses[r.name] = true
	return r
}

// base is a relation under an alias.
func (g *gen) base(r *relation) source {
	a := g.alias("a")
	s := source{text: same(r.name + " AS " + a), unique: r.unique, appendOnly: r.appendOnly, size: r.size}
	for _, f := range r.columns {
		c := column{text: same(a + "." + f.name), name: f.name, typ: f.typ, inexact: f.inexact, vague: f.vague}
		c.event = r.watermark && f.name == "ts"
		s.cols = append(s.cols, c)
	}
	if !r.table && !r.view {
		s.stream = r
	}
	return s
}

// from draws an item of FROM.
func (g *gen) from(depth int) source {
	kind := 0
	if depth > 0 {
		kind = g.d.weighted(40, 24, 12, 8, 8, 8)
	}
	switch kind {
	case 1:
		return g.join(depth)
	case 2:
		return g.subquery(depth)
	case 3:
		l, r := g.base(g.relation(nil)), g.values()
		if g.d.chance(50) {
			l, r = r, l
		}
		return g.joinOf(l, r)
	case 4:
		return g.unnest(depth)
	case 5:
		if s, ok := g.window(); ok {
			return s
		}
	}
	return g.base(g.relation(nil))
}

// subquery is a query in parentheses, or one of WITH.
func (g *gen) subquery(depth int) source {
	q := g.query(depth - 1)
	a := g.alias("a")
	s := source{unique: q.unique, appendOnly: q.appendOnly, size: q.size}
	if g.d.chance(30) {
		name := g.alias("w")
		g.with = append(g.with, format("%s AS (%s)", name, q.text))
		s.text = same(name + " AS " + a)
	} else {
		s.text = format("(%s) AS %s", q.text, a)
	}
	s.cols = q.columnsOf(a)
	return s
}

// values is constant rows.
func (g *gen) values() source {
	a := g.alias("a")
	var types []record.Type
	s := source{appendOnly: true, size: 3}
	names := ""
	g.d.list(1, 3, 50, func(i int) {
		t := pick(g.d, columnTypes[:13])
		types = append(types, t)
		name := fmt.Sprint("c", i)
		s.cols = append(s.cols, column{text: same(a + "." + name), name: name, typ: t})
		if names += name; i >= 0 {
			names += ", "
		}
	})
	var rows []text
	g.d.list(1, 4, 60, func(int) {
		var row []text
		for _, t := range types {
			l := g.literal(t).text
			row = append(row, l)
		}
		rows = append(rows, format("(%s)", join(row, ", ")))
	})
	s.text = format("(VALUES %s) AS %s (%s)", join(rows, ", "), a, names[:len(names)-2])
	return s
}

// maxRows bounds, roughly, how many rows a join may have: else a few joins of joins would be most of a run.
const maxRows = 6000

// joined is the columns of two sides.
func joined(l, r *source) []column { return append(slices.Clone(l.cols), r.cols...) }

func bothUnique(l, r *source) []int {
	if l.unique == nil || r.unique == nil {
		return nil
	}
	out := slices.Clone(l.unique)
	for _, i := range r.unique {
		out = append(out, i+len(l.cols))
	}
	return out
}

// join draws a join.
func (g *gen) join(depth int) source {
	return g.joinOf(g.from(depth-1), g.from(depth-1))
}

func (g *gen) joinOf(l, r source) source {
	kind := pick(g.d, []string{"JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", ","})
	out := source{isJoin: true, cols: joined(&l, &r), unique: bothUnique(&l, &r), appendOnly: l.appendOnly && r.appendOnly && (kind == "JOIN" || kind == "CROSS JOIN" || kind == ",")}
	if kind == "CROSS JOIN" || kind == "," {
		if out.size = l.size * r.size; out.size > maxRows {
			return l
		}
		out.text = format("%s CROSS JOIN %s", l.text, g.nested(&r))
		return out
	}
	on, equal := g.onCondition(&l, &r)
	out.size = max(l.size, r.size, l.size*r.size/map[bool]int{true: 5, false: 1}[equal])
	if out.size > maxRows {
		return l
	}
	if kind == "FULL JOIN" && !equal { // PostgreSQL's must be of equalities
		kind = "LEFT JOIN"
	}
	if kind != "FULL JOIN" && g.d.chance(25) {
		on = format("%s AND %s", on, g.predicate(out.cols, 1))
	}
	out.text = format("%s %s %s ON %s", l.text, kind, g.nested(&r), on)
	return out
}

// nested puts the right side of a join in parentheses where it is a join itself.
func (g *gen) nested(s *source) text {
	if !s.isJoin {
		return s.text
	}
	return format("(%s)", s.text)
}

// onCondition draws equalities of columns of two sides, and tells whether there is one.
func (g *gen) onCondition(l, r *source) (text, bool) {
	var parts []text
	g.d.list(1, 2, 30, func(int) {
		a, ok := g.column(l.cols, func(c *column) bool {
			return !c.inexact && !c.event && slices.ContainsFunc(r.cols, func(d column) bool { return d.typ == c.typ && !d.inexact && !d.event })
		})
		if !ok {
			return
		}
		likely := func(c *column) bool { return c.typ == a.typ && !c.inexact && !c.event }
		b, ok := g.column(r.cols, func(c *column) bool { return likely(c) && c.name == a.name })
		if !ok || g.d.chance(25) {
			b, _ = g.column(r.cols, likely)
		}
		parts = append(parts, format("%s = %s", a.text, b.text))
	})
	if len(parts) == 0 {
		return g.predicate(joined(l, r), 1), false
	}
	return join(parts, " AND "), true
}

// unnest draws a set-returning function over the columns of an item before it.
func (g *gen) unnest(depth int) source {
	l := g.from(depth - 1)
	a := g.alias("u")
	out := source{isJoin: true, cols: slices.Clone(l.cols), appendOnly: l.appendOnly, size: 2 * l.size}
	rough := g.rough
	g.rough = false
	call, names, types := g.setFunction(l.cols)
	g.rough = rough
	ordinality := ""
	cols := names
	if g.d.chance(30) {
		ordinality = " WITH ORDINALITY"
		cols, types = append(slices.Clone(names), "o"), append(types, record.BigInt)
	}
	list := ""
	for i, n := range cols {
		if i > 0 {
			list += ", "
		}
		list += n
		out.cols = append(out.cols, column{text: same(a + "." + n), name: n, typ: types[i]})
	}
	if ordinality != "" && l.unique != nil {
		out.unique = append(slices.Clone(l.unique), len(out.cols)-1)
	}
	how := pick(g.d, []string{"CROSS JOIN LATERAL %s%s AS %s (%s)", "CROSS JOIN LATERAL %s%s AS %s (%s)", "LEFT JOIN LATERAL %s%s AS %s (%s) ON true"})
	out.text = format("%s "+how, l.text, call, ordinality, a, list)
	return out
}

// setFunction draws a set-returning function, the names and the types of its columns.
func (g *gen) setFunction(in []column) (text, []string, []record.Type) {
	one := []string{"x"}
	switch g.d.n(9) {
	case 0:
		t := pick(g.d, []record.Type{bigints, texts, record.ArrayOf(record.Numeric), record.ArrayOf(record.Double)})
		return format("unnest(%s)", g.expr(t, in, 1).text), one, []record.Type{t.Elem()}
	case 1:
		return text{"generate_series(1, 3)", "generate_series(1::bigint, 3::bigint)"}, one, []record.Type{record.BigInt}
	case 2:
		low := g.leaf(record.BigInt, in).text
		return format("generate_series(%s, %s + %s, %s)", low, low, literal(record.BigInt, pick(g.d, []string{"0", "2", "3"})), literal(record.BigInt, pick(g.d, []string{"1", "2"}))), one, []record.Type{record.BigInt}
	case 3:
		return format("jsonb_array_elements(%s)", g.jsonArray(in)), one, []record.Type{record.JSONB}
	case 4:
		return format("jsonb_array_elements_text(%s)", g.jsonArray(in)), one, []record.Type{record.Text}
	case 5:
		fn := pick(g.d, []string{"jsonb_each", "jsonb_each_text"})
		t := record.JSONB
		if fn == "jsonb_each_text" {
			t = record.Text
		}
		return format("%s(%s)", fn, g.jsonObject(in)), []string{"x", "y"}, []record.Type{record.Text, t}
	case 6:
		return format("jsonb_object_keys(%s)", g.jsonObject(in)), one, []record.Type{record.Text}
	case 7:
		return format("string_to_table(%s, ',')", g.leaf(record.Text, in).text), one, []record.Type{record.Text}
	}
	return format("regexp_split_to_table(%s, '[, ]')", g.leaf(record.Text, in).text), one, []record.Type{record.Text}
}

func (g *gen) jsonArray(in []column) text {
	j := g.leaf(record.JSONB, in).text
	return format("CASE WHEN jsonb_typeof(%s) = 'array' THEN %s END", j, j)
}

func (g *gen) jsonObject(in []column) text {
	j := g.leaf(record.JSONB, in).text
	return format("CASE WHEN jsonb_typeof(%s) = 'object' THEN %s END", j, j)
}
