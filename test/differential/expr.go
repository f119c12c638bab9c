package main

import (
	"fmt"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// column is a column that an expression may name.
type column struct {
	text
	name    string
	typ     record.Type
	inexact bool // may differ in the last digits: only to be shown
	vague   bool // equal values may look different: only to be compared and shown
	event   bool // the event time of a stream with a watermark: not to be compared with another one
}

// ex is an expression.
type ex struct {
	text
	inexact, vague, event bool
}

// expr draws an expression of a type over columns.
func (g *gen) expr(t record.Type, in []column, depth int) ex {
	if t != record.Double { // rounding would show in a text or an array too
		rough := g.rough
		g.rough = false
		defer func() { g.rough = rough }()
	}
	if depth <= 0 || !g.d.chance(55) {
		return g.leaf(t, in)
	}
	switch g.d.weighted(60, 12, 8, 6, 14) {
	case 1:
		return g.caseExpr(t, in, depth)
	case 2:
		a, b := g.expr(t, in, depth-1), g.expr(t, in, 0)
		return ex{text: format("coalesce(%s, %s)", a.text, b.text), inexact: a.inexact || b.inexact, event: a.event || b.event}
	case 3:
		if t == record.JSONB || t.IsArray() {
			return g.leaf(t, in)
		}
		a, b := g.expr(t, in, depth-1), g.literal(t)
		return ex{text: format("nullif(%s, %s)", a.text, b.text), inexact: a.inexact, event: a.event}
	case 4:
		return g.cast(t, in, depth)
	}
	if t == record.Boolean && g.d.chance(60) {
		return ex{text: format("(%s)", g.predicate(in, depth))}
	}
	return g.call(t, in, depth)
}

// leaf draws a column or a literal.
func (g *gen) leaf(t record.Type, in []column) ex {
	if c, ok := g.column(in, func(c *column) bool { return c.typ == t && !c.vague && (!c.inexact || g.rough) }); ok && !g.d.chance(14) {
		return ex{text: c.text, inexact: c.inexact, event: c.event}
	}
	return g.literal(t)
}

// column draws one of the columns that fit.
func (g *gen) column(in []column, fits func(*column) bool) (column, bool) {
	var all []column
	for i := range in {
		if fits(&in[i]) {
			all = append(all, in[i])
		}
	}
	if len(all) == 0 {
		return column{}, false
	}
	return pick(g.d, all), true
}

func (g *gen) literal(t record.Type) ex {
	if g.d.chance(4) {
		return ex{text: same("NULL::" + t.String())}
	}
	if p := pools[t]; len(p) > 0 {
		return ex{text: literal(t, pick(g.d, p))}
	}
	return ex{text: same("NULL::" + t.String())}
}

func (g *gen) caseExpr(t record.Type, in []column, depth int) ex {
	when := g.predicate(in, depth-1)
	a, b := g.expr(t, in, depth-1), g.expr(t, in, depth-1)
	out := ex{inexact: a.inexact || b.inexact, event: a.event || b.event}
	if g.d.chance(30) {
		out.text = format("CASE WHEN %s THEN %s END", when, a.text)
	} else {
		out.text = format("CASE WHEN %s THEN %s ELSE %s END", when, a.text, b.text)
	}
	return out
}

// cast draws a cast from another type that can't fail.
func (g *gen) cast(t record.Type, in []column, depth int) ex {
	var from []record.Type
	for f := range pools {
		if f != t && plan.Castable(f, t) && safeCast(f, t) {
			from = append(from, f)
		}
	}
	if len(from) == 0 {
		return g.leaf(t, in)
	}
	sortTypes(from)
	f := pick(g.d, from)
	a := g.expr(f, in, depth-1)
	pg := t.String()
	if f == record.Boolean && t == record.BigInt {
		pg = "int::bigint"
	} else if f == record.BigInt && t == record.Boolean {
		pg = "int::boolean"
	}
	return ex{text: text{"(" + a.ours + ")::" + t.String(), "(" + a.pg + ")::" + pg}, inexact: a.inexact, event: a.event}
}

func safeCast(f, t record.Type) bool {
	switch {
	case f == record.Text || f == record.JSONB:
		return false
	case f.IsArray() && t.IsArray():
		return f.Elem() == record.BigInt && t.Elem() != record.Boolean || f.Elem() == record.Numeric && t.Elem() == record.Double
	}
	return true
}

// compared is the types that have an order.
var compared = []record.Type{
	record.BigInt, record.Text, record.Double, record.Numeric, record.TimestampTZ, record.Boolean, record.IntervalT, record.Date, record.Time,
	record.Timestamp, record.UUID, record.Bytea, bigints, texts, record.ArrayOf(record.Numeric), record.ArrayOf(record.Double),
}

// comparand draws what a comparison compares: mostly of a type of which there is a column.
func (g *gen) comparand(in []column, depth int) (record.Type, ex) {
	if c, ok := g.column(in, func(c *column) bool { return !c.inexact && hasOrder(c.typ) }); ok && g.d.chance(70) {
		if c.vague || g.d.chance(60) {
			return c.typ, ex{text: c.text, event: c.event}
		}
		return c.typ, g.expr(c.typ, in, depth-1)
	}
	t := pick(g.d, compared)
	return t, g.expr(t, in, depth-1)
}

func hasOrder(t record.Type) bool { return t != record.JSONB && t.Elem() != record.JSONB }

// other draws an expression to compare e with.
func (g *gen) other(t record.Type, e ex, in []column, depth int) text {
	b := g.expr(t, in, depth-1)
	if b.event && e.event {
		b = g.literal(t)
	}
	return b.text
}

var relations = []string{"=", "<>", "<", "<=", ">", ">="}

// predicate draws a condition.
func (g *gen) predicate(in []column, depth int) text {
	rough := g.rough
	g.rough = false
	defer func() { g.rough = rough }()
	kind := g.d.weighted(46, 10, 10, 8, 6, 6, 4, 10, 4)
	if depth <= 0 {
		kind = min(kind, 0)
	}
	switch kind {
	case 1:
		return format("(%s AND %s)", g.predicate(in, depth-1), g.predicate(in, depth-1))
	case 2:
		return format("(%s OR %s)", g.predicate(in, depth-1), g.predicate(in, depth-1))
	case 3:
		return format("NOT (%s)", g.predicate(in, depth-1))
	case 4:
		t, e := g.comparand(in, depth)
		var list []text
		g.d.list(1, 4, 60, func(int) { list = append(list, g.literal(t).text) })
		return format("%s %s (%s)", e.text, pick(g.d, []string{"IN", "NOT IN"}), join(list, ", "))
	case 5:
		t, e := g.comparand(in, depth)
		return format("%s BETWEEN %s AND %s", e.text, g.other(t, e, in, 0), g.other(t, e, in, 0))
	case 6:
		t, e := g.comparand(in, depth)
		return format("%s %s %s", e.text, pick(g.d, []string{"IS DISTINCT FROM", "IS NOT DISTINCT FROM"}), g.other(t, e, in, depth))
	case 7:
		if g.d.chance(50) {
			return format("(%s) IS %s%s", g.predicate(in, depth-1), pick(g.d, []string{"", "NOT "}), pick(g.d, []string{"TRUE", "FALSE", "UNKNOWN"}))
		}
		return g.call(record.Boolean, in, depth).text
	case 8:
		return g.constant(in, depth)
	}
	if c, ok := g.column(in, func(c *column) bool { return true }); ok && g.d.chance(12) {
		return format("%s IS %sNULL", c.text, pick(g.d, []string{"", "NOT "}))
	}
	t, e := g.comparand(in, depth)
	return format("%s %s %s", e.text, pick(g.d, relations), g.other(t, e, in, depth))
}

// constant draws a condition of which all or a part is constant.
func (g *gen) constant(in []column, depth int) text {
	truth := pick(g.d, []string{"true", "false", "NULL::boolean", "1 = 2", "2 > 1", "NOT (1 >= 2)", "NULL = 1", "1 IN (1)", "true = false", "coalesce(NULL, 3, 1) = 3"})
	switch g.d.n(4) {
	case 0:
		return same("(" + truth + ")")
	case 1:
		return format("((%s) %s (%s))", g.predicate(in, depth-1), pick(g.d, []string{"AND", "OR", "=", "<>"}), truth)
	case 2:
		return format("CASE WHEN %s THEN %s ELSE %s END", truth, g.predicate(in, depth-1), g.predicate(in, depth-1))
	}
	return format("NOT (NOT (%s) %s %s)", g.predicate(in, depth-1), pick(g.d, []string{"AND", "OR"}), truth)
}

// alias returns a new name.
func (g *gen) alias(prefix string) string {
	g.names++
	return fmt.Sprint(prefix, g.names)
}
