package sql

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// aggregateNames are the aggregate functions by name.
var aggregateNames = map[string]plan.AggFunc{
	"count": plan.AggCount, "sum": plan.AggSum, "min": plan.AggMin, "max": plan.AggMax, "avg": plan.AggAvg,
}

// otherAggregates are PostgreSQL's aggregates that aren't supported.
var otherAggregates = []string{
	"array_agg", "string_agg", "json_agg", "jsonb_agg", "json_object_agg", "jsonb_object_agg", "xmlagg", "bool_and", "bool_or", "every", "any_value",
	"stddev", "stddev_pop", "stddev_samp", "variance", "var_pop", "var_samp", "corr", "covar_pop", "covar_samp",
	"percentile_cont", "percentile_disc", "mode", "regr_slope", "regr_intercept", "regr_r2",
}

// call checks a function call, and what PostgreSQL has a syntax of its own for.
func (b *binder) call(e *call) (*node, error) {
	if fn, ok := aggregateNames[e.name]; ok && !e.syntax {
		return b.aggregate(e, fn)
	}
	switch {
	case slices.Contains(otherAggregates, e.name):
		return nil, b.src.unsupported(e.pos(), "there are count, sum, min, max and avg", "aggregate %s is not supported", e.name)
	case slices.Contains(internalNames, e.name):
		return nil, b.src.fail(e.pos(), stateNoFunction, "use the operator", "no function %s", e.name)
	case e.star:
		return nil, b.src.fail(e.pos(), stateWrongObject, "", "%s(*) is not an aggregate", e.name)
	case e.distinct || e.filter != nil:
		return nil, b.src.fail(e.pos(), stateWrongObject, "", "DISTINCT and FILTER are for aggregates, and %s is not one,", e.name)
	}
	switch e.name {
	case "now", "transaction_timestamp", "statement_timestamp":
		return b.clock(e, plan.ExprNow, record.TimestampTZ)
	case "current_tick":
		return b.clock(e, plan.ExprTick, record.BigInt)
	case "clock_timestamp", "random", "gen_random_uuid", "timeofday":
		return nil, b.src.unsupported(e.pos(), "now() is the tick", "function %s, which differs from call to call, is not supported", e.name)
	}
	args, err := b.bindAll(e.args)
	if err != nil {
		return nil, err
	}
	switch e.name {
	case "coalesce":
		if e.syntax {
			args, t, err := b.common(args, "COALESCE")
			if err != nil {
				return nil, err
			}
			return inner(plan.ExprCoal, t, e.pos(), args...), nil
		}
	case "nullif":
		if e.syntax {
			return b.nullif(e, args)
		}
	case "greatest", "least":
		if args, _, err = b.common(args, strings.ToUpper(e.name)); err != nil {
			return nil, err
		}
	case "overlay":
		return b.overlay(e, args)
	case "concat", "concat_ws":
		if err := b.allText(args); err != nil {
			return nil, err
		}
	case "extract", "date_part", "date_trunc":
		if err := b.checkUnit(e.name, args); err != nil {
			return nil, err
		}
	}
	return b.function(e.name, e.pos(), args)
}

// clock is now() and current_tick(), which a live view can't have.
func (b *binder) clock(e *call, kind plan.ExprKind, t record.Type) (*node, error) {
	if len(e.args) > 0 {
		return nil, b.src.fail(e.pos(), stateNoFunction, "", "%s takes no arguments", e.name)
	}
	if b.live {
		return nil, b.src.unsupported(e.pos(), "a view changes only when its input does; use the hidden columns _time and _tick, or compare when you read the view",
			"%s in a materialized view is not supported", e.name+"()")
	}
	return inner(kind, t, e.pos()), nil
}

// nullif is CASE WHEN a = b THEN NULL ELSE a END, of the type that a has in a = b.
func (b *binder) nullif(e *call, args []*node) (*node, error) {
	eq, err := b.apply("eq", "=", e.pos(), args)
	if err != nil {
		return nil, err
	}
	a := eq.args[0]
	return inner(plan.ExprCase, a.typ, e.pos(), eq, nullOf(a.typ, e.pos()), a), nil
}

// overlay(a PLACING b FROM c [FOR d]) is substr(a, 1, c-1) || b || substr(a, c+d), where d is b's length if not given.
func (b *binder) overlay(e *call, args []*node) (*node, error) {
	types := []record.Type{record.Text, record.Text, record.BigInt, record.BigInt}
	if len(args) != 3 && len(args) != 4 {
		return nil, b.src.fail(e.pos(), stateNoFunction, "write overlay(text PLACING text FROM start FOR length)", "overlay takes 3 or 4 arguments, not %d", len(args))
	}
	for i := range args {
		if !implicit(args[i].typ, types[i]) {
			return nil, b.src.fail(args[i].pos, stateNoFunction, "", "argument %d of overlay must be of type %s, not %s,", i+1, types[i], args[i].typ)
		}
		var err error
		if args[i], err = b.coerce(args[i], types[i]); err != nil {
			return nil, err
		}
	}
	var err error
	must := func(name string, args ...*node) *node {
		if err != nil {
			return nil
		}
		var n *node
		n, err = b.function(name, e.pos(), args)
		return n
	}
	text, with, from := args[0], args[1], args[2]
	var length *node
	if len(args) == 4 {
		length = args[3]
	} else {
		length = must("length", with)
	}
	one := bigint(1, e.pos())
	head := must("substr", text, one, must("sub", from, one))
	tail := must("substr", text, must("add", from, length))
	out := must("concat_op", must("concat_op", head, with), tail)
	return out, err
}

// allText casts the arguments of concat, which takes anything, to text.
func (b *binder) allText(args []*node) error {
	for i := range args {
		var err error
		if args[i], err = b.coerce(args[i], record.Text); err != nil {
			return err
		}
	}
	return nil
}

var (
	truncUnits = []string{
		"microseconds", "milliseconds", "second", "minute", "hour", "day", "week", "month", "quarter", "year", "decade", "century", "millennium",
	}
	partUnits = append(slices.Clone(truncUnits), "dow", "isodow", "doy", "isoyear", "epoch", "julian", "timezone", "timezone_hour", "timezone_minute")
	// unitAliases are PostgreSQL's other spellings of units.
	unitAliases = map[string]string{
		"microsecond": "microseconds", "us": "microseconds", "usec": "microseconds", "usecs": "microseconds", "useconds": "microseconds",
		"millisecond": "milliseconds", "ms": "milliseconds", "msec": "milliseconds", "msecs": "milliseconds", "mseconds": "milliseconds",
		"s": "second", "sec": "second", "secs": "second", "seconds": "second",
		"m": "minute", "min": "minute", "mins": "minute", "minutes": "minute",
		"h": "hour", "hr": "hour", "hrs": "hour", "hours": "hour", "d": "day", "days": "day", "w": "week", "weeks": "week",
		"mon": "month", "mons": "month", "months": "month", "qtr": "quarter", "y": "year", "yr": "year", "yrs": "year", "years": "year",
		"dec": "decade", "decs": "decade", "decades": "decade", "c": "century", "cent": "century", "centuries": "century",
		"mil": "millennium", "mils": "millennium", "millennia": "millennium",
	}
)

// checkUnit refuses an unknown unit where it is a literal, and gives known ones their full name.
func (b *binder) checkUnit(name string, args []*node) error {
	if len(args) == 0 || args[0].kind != plan.ExprConst || args[0].val.Null || args[0].typ != record.Unknown && args[0].typ != record.Text {
		return nil
	}
	units := partUnits
	if name == "date_trunc" {
		units = truncUnits
	}
	unit := strings.ToLower(string(args[0].val.Bytes))
	if full, ok := unitAliases[unit]; ok {
		unit = full
	}
	if !slices.Contains(units, unit) {
		return b.src.fail(args[0].pos, stateParameter, suggest(unit, units), "unknown unit %q of %s", unit, name)
	}
	args[0] = textNode(unit, args[0].pos)
	return nil
}

// aggregate checks an aggregate's call and returns the node of its result.
func (b *binder) aggregate(e *call, fn plan.AggFunc) (*node, error) {
	src := b.src
	switch {
	case b.inAgg:
		return nil, src.fail(e.pos(), stateGrouping, "aggregate in a subquery in FROM first", "aggregate %s inside another aggregate", e.name)
	case b.noAggs != "":
		hint := ""
		if b.noAggs == "WHERE" {
			hint = "use HAVING"
		}
		return nil, src.fail(e.pos(), stateGrouping, hint, "aggregate %s is not allowed in %s", e.name, b.noAggs)
	case e.distinct:
		return nil, src.unsupported(e.pos(), "group by the argument in a subquery in FROM first", "DISTINCT in an aggregate (%s) is not supported", e.name)
	}
	agg := aggregate{fn: fn, typ: record.BigInt}
	inside := *b
	inside.inAgg = true
	if e.star {
		if fn != plan.AggCount {
			return nil, src.fail(e.pos(), stateNoFunction, "only count takes *", "no function %s(*)", e.name)
		}
		agg.fn = plan.AggCountStar
	} else if err := inside.aggArg(e, &agg); err != nil {
		return nil, err
	}
	if e.filter != nil {
		if err := inside.aggFilter(e, &agg); err != nil {
			return nil, err
		}
	}
	for i, other := range *b.aggs {
		if other.fn == agg.fn && (other.arg == nil && agg.arg == nil || other.arg != nil && agg.arg != nil && same(other.arg, agg.arg)) {
			return &node{kind: nodeAgg, typ: agg.typ, col: i, pos: e.pos(), size: 1}, nil
		}
	}
	*b.aggs = append(*b.aggs, agg)
	return &node{kind: nodeAgg, typ: agg.typ, col: len(*b.aggs) - 1, pos: e.pos(), size: 1}, nil
}

func (b *binder) aggArg(e *call, agg *aggregate) error {
	args, err := b.bindAll(e.args)
	if err != nil {
		return err
	}
	if len(args) != 1 {
		return b.src.fail(e.pos(), stateNoFunction, "", "%s takes 1 argument, not %d", e.name, len(args))
	}
	if agg.arg, err = b.known(args[0]); err != nil {
		return err
	}
	t, ok := agg.fn.Result(agg.arg.typ)
	if !ok || args[0].typ == record.Unknown && (agg.fn == plan.AggSum || agg.fn == plan.AggAvg) {
		return b.src.fail(e.pos(), stateNoFunction, "add a cast", "no function %s(%s)", e.name, args[0].typ)
	}
	agg.typ = t
	return nil
}

// aggFilter makes FILTER (WHERE p) a CASE: count(*) of the rows where p is true is count(CASE WHEN p THEN 1 END).
func (b *binder) aggFilter(e *call, agg *aggregate) error {
	p, err := b.condition(e.filter, "FILTER")
	if err != nil {
		return err
	}
	then := agg.arg
	if agg.fn == plan.AggCountStar {
		agg.fn, then = plan.AggCount, bigint(1, e.pos())
	}
	agg.arg = inner(plan.ExprCase, then.typ, e.pos(), p, then, nullOf(then.typ, e.pos()))
	return nil
}
