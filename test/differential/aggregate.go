package main

import (
	"github.com/millrace/millrace/record"
)

// result is an output column of a query.
type result struct {
	ex
	typ record.Type
	tol bool // an estimate
}

var (
	numbers   = []record.Type{record.BigInt, record.Numeric, record.Double}
	summable  = []record.Type{record.BigInt, record.Numeric, record.Double, record.IntervalT}
	extremal  = []record.Type{record.BigInt, record.Text, record.Double, record.Numeric, record.TimestampTZ, record.IntervalT, record.Date, record.Time, record.Timestamp}
	firstable = []record.Type{record.BigInt, record.Text, record.Double, record.TimestampTZ, record.Boolean, record.Date, record.UUID, record.Bytea}
	pairs     = []string{"covar_pop", "covar_samp", "corr", "regr_avgx", "regr_avgy", "regr_count", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy", "regr_syy"}
	spreads   = []string{"stddev", "stddev_samp", "stddev_pop", "variance", "var_samp", "var_pop"}
)

// hasForms tells whether equal values of t may look different.
func hasForms(t record.Type) bool { return t.HasForms() }

// argument of an aggregate: exact, as sums of rounded values depend on their order.
func (g *gen) aggArg(t record.Type, in []column) ex {
	rough := g.rough
	g.rough = false
	defer func() { g.rough = rough }()
	if c, ok := g.column(in, func(c *column) bool { return c.typ == t && !c.inexact && !c.vague }); ok && g.d.chance(65) {
		return ex{text: c.text}
	}
	return g.expr(t, in, 2)
}

// aggregate draws an aggregate; without rough its value is exact and can be compared.
func (g *gen) aggregate(in []column) result {
	kind := g.d.weighted(20, 10, 14, 14, 8, 8, 6, 6, 8, 8, 8, 8, 5, 3)
	if !g.rough && (kind == 5 || kind == 6 || kind == 13) {
		kind = 2
	}
	var r result
	switch kind {
	case 0:
		r = result{ex{text: same("count(*)")}, record.BigInt, false}
		r.text = g.filtered(r.text, in)
		return r
	case 1:
		r = g.countAggregate(in)
	case 2:
		r = g.sumAggregate(in)
	case 3:
		t := pick(g.d, extremal)
		r = result{ex{text: format("%s(%s)", pick(g.d, []string{"min", "max"}), g.aggArg(t, in).text), vague: hasForms(t)}, t, false}
		if t == record.Double {
			r.vague = false
		}
	case 4:
		name := pick(g.d, []string{"bool_and", "bool_or", "every"})
		r = result{ex{text: format("%s(%s)", name, g.aggArg(record.Boolean, in).text)}, record.Boolean, false}
	case 5:
		t := pick(g.d, numbers)
		r = result{ex{text: format("%s(%s)", pick(g.d, spreads), g.aggArg(t, in).text), inexact: true, vague: true}, t, false}
		if t == record.BigInt {
			r.typ = record.Numeric
		}
	case 6:
		name := pick(g.d, pairs)
		r = result{ex{text: format("%s(%s, %s)", name, g.aggArg(record.Double, in).text, g.aggArg(record.Double, in).text), inexact: true}, record.Double, false}
		if name == "regr_count" {
			r.typ = record.BigInt
		}
	case 7:
		name := pick(g.d, []string{"bit_and", "bit_or", "bit_xor"})
		r = result{ex{text: format("%s(%s)", name, g.aggArg(record.BigInt, in).text)}, record.BigInt, false}
	default:
		return g.orderedAggregate(kind, in)
	}
	r.text = g.filtered(r.text, in)
	return r
}

func (g *gen) countAggregate(in []column) result {
	t := pick(g.d, columnTypes)
	r := result{ex{}, record.BigInt, false}
	a := g.aggArg(t, in).text
	switch {
	case t == record.JSONB || !g.d.chance(50):
		r.text = format("count(%s)", a)
	case g.rough && g.d.chance(20) && t.Elem() != record.JSONB:
		r.text = text{"approx_count_distinct(" + a.ours + ")", "count(DISTINCT " + a.pg + ")"}
		r.inexact, r.tol = true, true
	default:
		r.text = format("count(DISTINCT %s)", a)
	}
	return r
}

func (g *gen) sumAggregate(in []column) result {
	t := pick(g.d, summable)
	name := pick(g.d, []string{"sum", "avg"})
	if !g.rough && t == record.Double {
		name = "sum"
	}
	distinct := ""
	if g.d.chance(15) {
		distinct = "DISTINCT "
	}
	r := result{ex{text: format("%s(%s%s)", name, distinct, g.aggArg(t, in).text), inexact: name == "avg" && t == record.Double, vague: t != record.Double}, t, false}
	if t == record.BigInt {
		r.typ = record.Numeric
	}
	return r
}

// filtered adds FILTER (WHERE ...).
func (g *gen) filtered(a text, in []column) text {
	if !g.d.chance(18) {
		return a
	}
	return format("%s FILTER (WHERE %s)", a, g.predicate(in, 1))
}

// orderedAggregate draws those that need the rows in an order.
func (g *gen) orderedAggregate(kind int, in []column) result {
	fraction := pick(g.d, []string{"0.5", "0.25", "0", "1", "0.75"})
	switch kind {
	case 8:
		t := pick(g.d, []record.Type{record.Double, record.IntervalT, record.Double})
		a := g.aggArg(t, in).text
		r := result{ex{vague: t != record.Double}, t, false}
		r.text = g.filtered(format("percentile_cont(%s) WITHIN GROUP (ORDER BY %s)", fraction, a), in)
		return r
	case 9:
		t := pick(g.d, extremal)
		fn := "percentile_disc(" + fraction + ")"
		if g.d.chance(40) {
			fn = "mode()"
		}
		return result{ex{text: g.filtered(format("%s WITHIN GROUP (ORDER BY %s)", fn, g.aggArg(t, in).text), in), vague: hasForms(t) && t != record.Double}, t, false}
	case 10:
		a := g.aggArg(record.Text, in).text
		order := pick(g.d, []string{"", " DESC", " NULLS FIRST", " DESC NULLS LAST"})
		if g.d.chance(30) {
			return result{ex{text: g.filtered(format("string_agg(DISTINCT %s, '|' ORDER BY %s)", a, a), in)}, record.Text, false}
		}
		return result{ex{text: g.filtered(format("string_agg(%s, ',' ORDER BY %s%s)", a, a, order), in)}, record.Text, false}
	case 11:
		return g.firstAggregate(in)
	case 12:
		t := pick(g.d, []record.Type{record.BigInt, record.Text, record.Boolean, record.Double, record.Date, record.UUID})
		a := g.aggArg(t, in).text
		return result{ex{text: g.filtered(format("jsonb_agg(%s ORDER BY %s%s)", a, a, pick(g.d, []string{"", " DESC"})), in)}, record.JSONB, false}
	}
	a := g.aggArg(record.Double, in).text
	return result{ex{text: text{"median(" + a.ours + ")", "percentile_cont(0.5) WITHIN GROUP (ORDER BY " + a.pg + ")"}}, record.Double, false}
}

// firstAggregate draws the first or last row's value in an order; PostgreSQL takes it out of an array.
func (g *gen) firstAggregate(in []column) result {
	t, by := pick(g.d, firstable), pick(g.d, []record.Type{record.BigInt, record.TimestampTZ, record.Text})
	x, y := g.aggArg(t, in).text, g.aggArg(by, in).text
	r := result{typ: t}
	switch g.d.n(5) {
	case 0:
		r.text = text{"first(" + x.ours + " ORDER BY " + y.ours + ")", "(array_agg(" + x.pg + " ORDER BY " + y.pg + ", " + x.pg + "))[1]"}
	case 1:
		r.text = text{"last(" + x.ours + " ORDER BY " + y.ours + ")", "(array_agg(" + x.pg + " ORDER BY " + y.pg + " DESC, " + x.pg + "))[1]"}
	case 2:
		r.text = text{"min_by(" + x.ours + ", " + y.ours + ")", "(array_agg(" + x.pg + " ORDER BY " + y.pg + ", " + x.pg + ") FILTER (WHERE " + y.pg + " IS NOT NULL))[1]"}
	case 3:
		r.text = text{"max_by(" + x.ours + ", " + y.ours + ")", "(array_agg(" + x.pg + " ORDER BY " + y.pg + " DESC, " + x.pg + ") FILTER (WHERE " + y.pg + " IS NOT NULL))[1]"}
	default:
		r.text = text{"any_value(" + x.ours + ")", "(array_agg(" + x.pg + " ORDER BY " + x.pg + ") FILTER (WHERE " + x.pg + " IS NOT NULL))[1]"}
	}
	return r
}
