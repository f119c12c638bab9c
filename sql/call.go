package sql

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// call checks a function call, and what PostgreSQL has a syntax of its own for.
func (b *binder) call(e *call) (*node, error) {
	e = b.rowArgument(e)
	if e.over != nil {
		return b.overCall(e)
	}
	if fn, ok := aggregateNames[e.name]; ok && !e.syntax {
		return b.aggregate(e, fn)
	}
	_, over := windowOnly[e.name]
	instead, unsupported := otherAggregates[e.name]
	switch {
	case over:
		return nil, b.src.fail(e.pos(), stateWindowing, "write "+e.name+"(...) OVER (PARTITION BY ... ORDER BY ...)", "window function %s needs an OVER clause", e.name)
	case unsupported:
		return nil, b.src.unsupported(e.pos(), instead, "aggregate %s is not supported", e.name)
	case slices.Contains(tableFunctions, e.name):
		return b.setCall(e)
	case slices.Contains(internalNames, e.name) && !e.syntax:
		return nil, b.src.fail(e.pos(), stateNoFunction, "use the operator", "no function %s", e.name)
	case e.star:
		return nil, b.src.fail(e.pos(), stateWrongObject, "", "%s(*) is not an aggregate", e.name)
	case e.distinct || e.filter != nil || len(e.order) > 0:
		return nil, b.src.fail(e.pos(), stateWrongObject, "", "DISTINCT, FILTER and ORDER BY are for aggregates, and %s is not one,", e.name)
	}
	switch e.name {
	case "now", "transaction_timestamp", "statement_timestamp":
		return b.clock(e, plan.ExprNow, record.TimestampTZ)
	case "current_tick":
		return b.clock(e, plan.ExprTick, record.BigInt)
	case "clock_timestamp", "random", "gen_random_uuid", "timeofday":
		return nil, b.src.unsupported(e.pos(), "now() is the tick", "function %s, which differs from call to call, is not supported", e.name)
	}
	if e.name == "coalesce" && e.syntax {
		b = b.withoutSets()
	}
	args, err := b.bindAll(e.args)
	if err != nil {
		return nil, err
	}
	if n, done, err := b.anyArgument(e, args); done {
		return n, err
	}
	switch e.name {
	case "jsonb_path_exists", "jsonb_path_match", "jsonb_path_query_array", "jsonb_path_query_first":
		return nil, b.src.unsupported(e.pos(), "use -> and ->>, @> and ?", "function %s is not supported", e.name)
	case "substring":
		if len(args) == 3 && args[0].typ != record.Bytea && couldBeText(args[1]) && couldBeText(args[2]) {
			pattern, err := b.function("similar_to_escape", e.pos(), args[1:])
			if err != nil {
				return nil, err
			}
			return b.substringOf(e, []*node{args[0], pattern})
		}
		if len(args) == 2 && (args[1].typ == record.Text || args[1].typ == record.Unknown && args[1].kind == plan.ExprConst) {
			return b.substringOf(e, args)
		}
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

// couldBeText tells whether n is a text, or a bare literal that isn't a number.
func couldBeText(n *node) bool {
	return n.typ == record.Text || n.typ == record.Unknown && n.kind == plan.ExprConst && !n.val.Null
}

// substringOf is substring(text FROM pattern): the first group of the match, or all of it where the pattern has none.
func (b *binder) substringOf(e *call, args []*node) (*node, error) {
	match, err := b.function("regexp_match", e.pos(), args)
	if err != nil {
		return nil, err
	}
	return b.function("array_get", e.pos(), []*node{match, bigint(1, e.pos())})
}

// overlay(a PLACING b FROM c [FOR d]) is substr(a, 1, c-1) || b || substr(a, c+d), where d is b's length if not given.
func (b *binder) overlay(e *call, args []*node) (*node, error) {
	if len(args) > 0 && args[0].typ == record.Bytea {
		return b.function(e.name, e.pos(), args)
	}
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
		boolean := args[i].typ == record.Boolean
		if args[i], err = b.coerce(args[i], record.Text); err != nil {
			return err
		}
		if boolean { // t or f, as it is printed: not true or false, as it is cast
			if args[i], err = b.function("left", args[i].pos, []*node{args[i], bigint(1, args[i].pos)}); err != nil {
				return err
			}
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
