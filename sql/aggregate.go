package sql

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// aggregateNames are the aggregate functions by name.
var aggregateNames = map[string]plan.AggFunc{
	"count": plan.AggCount, "sum": plan.AggSum, "min": plan.AggMin, "max": plan.AggMax, "avg": plan.AggAvg,
	"bool_and": plan.AggBoolAnd, "every": plan.AggBoolAnd, "bool_or": plan.AggBoolOr,
	"bit_and": plan.AggBitAnd, "bit_or": plan.AggBitOr, "bit_xor": plan.AggBitXor,
	"stddev": plan.AggStddevSamp, "stddev_samp": plan.AggStddevSamp, "stddev_pop": plan.AggStddevPop,
	"variance": plan.AggVarSamp, "var_samp": plan.AggVarSamp, "var_pop": plan.AggVarPop,
	"covar_pop": plan.AggCovarPop, "covar_samp": plan.AggCovarSamp, "corr": plan.AggCorr,
	"regr_avgx": plan.AggRegrAvgX, "regr_avgy": plan.AggRegrAvgY, "regr_count": plan.AggRegrCount, "regr_intercept": plan.AggRegrIntercept,
	"regr_r2": plan.AggRegrR2, "regr_slope": plan.AggRegrSlope, "regr_sxx": plan.AggRegrSXX, "regr_sxy": plan.AggRegrSXY, "regr_syy": plan.AggRegrSYY,
	"percentile_cont": plan.AggPercentileCont, "percentile_disc": plan.AggPercentileDisc, "mode": plan.AggMode, "median": plan.AggPercentileCont,
	"first": plan.AggFirst, "last": plan.AggLast, "any_value": plan.AggFirst, "min_by": plan.AggFirst, "max_by": plan.AggLast,
	"string_agg": plan.AggStringAgg, "jsonb_agg": plan.AggJSONBAgg, "json_agg": plan.AggJSONBAgg,
	"array_agg": plan.AggArrayAgg, "jsonb_object_agg": plan.AggJSONBObjectAgg, "json_object_agg": plan.AggJSONBObjectAgg,
	"approx_count_distinct": plan.AggApproxCountDistinct, "approx_percentile": plan.AggApproxPercentile,
}

// otherAggregates are PostgreSQL's aggregates that aren't supported, and what to take instead.
var otherAggregates = map[string]string{
	"xmlagg": "", "range_agg": "", "range_intersect_agg": "",
}

// aggregate is one aggregate of a query over its input; arg is nil for count(*).
type aggregate struct {
	id       int
	name     string // as EXPLAIN writes it
	fn       plan.AggFunc
	arg      *node
	more     []*node // further arguments that are columns
	typ      record.Type
	distinct bool
	filter   *node // nil: none
	order    []orderNode
	consts   []record.Value
}

// each calls visit for each expression of a.
func (a *aggregate) each(visit func(**node)) {
	if a.arg != nil {
		visit(&a.arg)
	}
	for i := range a.more {
		visit(&a.more[i])
	}
	if a.filter != nil {
		visit(&a.filter)
	}
	for i := range a.order {
		visit(&a.order[i].node)
	}
}

func sameAggregate(a, b *aggregate) bool {
	sameOrNil := func(x, y *node) bool { return x == nil && y == nil || x != nil && y != nil && same(x, y) }
	return a.fn == b.fn && a.distinct == b.distinct && sameOrNil(a.arg, b.arg) && sameOrNil(a.filter, b.filter) && slices.EqualFunc(a.more, b.more, same) && slices.EqualFunc(a.consts, b.consts, sameValue) &&
		slices.EqualFunc(a.order, b.order, func(x, y orderNode) bool {
			return same(x.node, y.node) && x.desc == y.desc && x.nullsFirst == y.nullsFirst
		})
}

// aggregate checks an aggregate's call and returns the column of its result.
func (b *binder) aggregate(e *call, fn plan.AggFunc) (*node, error) {
	switch {
	case b.noAggs != "":
		hint := ""
		if b.noAggs == "WHERE" {
			hint = "use HAVING"
		}
		return nil, b.src.fail(e.pos(), stateGrouping, hint, "aggregate %s is not allowed in %s", e.name, b.noAggs)
	case b.inAgg:
		return nil, b.src.fail(e.pos(), stateGrouping, "aggregate in a subquery in FROM first", "aggregate %s inside another aggregate", e.name)
	}
	agg, err := b.newAggregate(e, fn)
	if err != nil {
		return nil, err
	}
	for _, other := range *b.aggs {
		if sameAggregate(other, agg) {
			return column(other.id, other.typ, e.pos()), nil
		}
	}
	agg.id = b.a.newColumn(agg.name, agg.typ)
	*b.aggs = append(*b.aggs, agg)
	return column(agg.id, agg.typ, e.pos()), nil
}

// newAggregate checks an aggregate's arguments and clauses.
func (b *binder) newAggregate(e *call, fn plan.AggFunc) (*aggregate, error) {
	agg := &aggregate{fn: fn, typ: record.BigInt, distinct: e.distinct}
	inside := *b
	inside.inAgg, inside.overs, inside.noOver, inside.sets = true, nil, "an aggregate's arguments", nil
	if b.overs == nil && b.noOver != "" && !b.inAgg && e.over != nil {
		inside.inAgg = b.inAgg // an aggregate over an aggregate's result: sum(count(*)) OVER ()
	}
	if e.star {
		if fn != plan.AggCount {
			return nil, b.src.fail(e.pos(), stateNoFunction, "only count takes *", "no function %s(*)", e.name)
		}
		agg.fn = plan.AggCountStar
	} else if err := inside.aggArgs(e, agg); err != nil {
		return nil, err
	}
	if len(e.order) > 0 && !e.within {
		order, err := inside.orderNodes(e.order)
		if err != nil {
			return nil, err
		}
		if agg.distinct && slices.ContainsFunc(order, func(k orderNode) bool { return agg.arg == nil || !same(k.node, agg.arg) }) {
			return nil, b.src.fail(e.order[0].expr.pos(), stateColumnRef, "", "in an aggregate with DISTINCT, ORDER BY must be its argument")
		}
		switch agg.fn { // of the others the order changes nothing
		case plan.AggFirst, plan.AggLast, plan.AggStringAgg, plan.AggJSONBAgg, plan.AggArrayAgg, plan.AggJSONBObjectAgg:
			agg.order = append(agg.order, order...)
		}
	}
	if e.filter != nil {
		f, err := inside.condition(e.filter, "FILTER")
		if err != nil {
			return nil, err
		}
		if agg.filter != nil {
			f = inner(plan.ExprAnd, record.Boolean, e.pos(), agg.filter, f)
		}
		if agg.filter = f; len(agg.consts) == 0 {
			agg.filterAsCase(e.pos())
		}
	}
	if agg.fn == plan.AggMin || agg.fn == plan.AggMax {
		agg.distinct = false
	}
	agg.name = b.aggName(agg)
	return agg, nil
}

// aggArgs checks the arguments, and what each function has of its own.
func (b *binder) aggArgs(e *call, agg *aggregate) error {
	args, err := b.bindAll(e.args)
	if err != nil {
		return err
	}
	if e.within {
		if args, err = b.withinGroup(e, agg, args); err != nil {
			return err
		}
	} else if agg.fn == plan.AggMode || agg.fn == plan.AggPercentileDisc || agg.fn == plan.AggPercentileCont && e.name != "median" {
		return b.src.fail(e.pos(), stateWrongObject, "write "+e.name+"(...) WITHIN GROUP (ORDER BY x)", "aggregate %s needs WITHIN GROUP", e.name)
	}
	if args, err = b.aggExtras(e, agg, args); err != nil {
		return err
	}
	if agg.fn == plan.AggJSONBObjectAgg {
		if len(args) != 2 || agg.distinct {
			return b.src.fail(e.pos(), stateNoFunction, "", "%s takes a key and a value, without DISTINCT", e.name)
		}
		if args[0], err = b.coerce(args[0], record.Text); err != nil {
			return err
		}
	} else if len(args) != 1 && !agg.fn.Pair() && !(agg.fn == plan.AggCount && agg.distinct && len(args) > 1) || agg.fn.Pair() && len(args) != 2 {
		return b.src.fail(e.pos(), stateNoFunction, "", "%s takes %s, not %d", e.name, map[bool]string{true: "2 arguments", false: "1 argument"}[agg.fn.Pair()], len(args))
	}
	for i := range args {
		if toDouble(agg.fn) && implicit(args[i].typ, record.Double) {
			args[i], err = b.coerce(args[i], record.Double)
		} else if args[i].typ != record.Unknown || agg.fn != plan.AggSum && agg.fn != plan.AggAvg {
			args[i], err = b.known(args[i])
		}
		if err != nil {
			return err
		}
	}
	t, ok := agg.fn.Result(args[0].typ)
	for _, n := range args[1:] {
		ok = ok && (!agg.fn.Pair() || n.typ == record.Double)
	}
	if !ok {
		types := make([]string, len(args))
		for i, n := range args {
			types[i] = n.typ.String()
		}
		return b.src.fail(e.pos(), stateNoFunction, "add a cast", "no function %s(%s)", e.name, strings.Join(types, ", "))
	}
	agg.arg, agg.more, agg.typ = args[0], args[1:], t
	return nil
}

// toDouble tells whether a function takes its numbers as double precision.
func toDouble(fn plan.AggFunc) bool {
	return fn.Pair() || fn == plan.AggPercentileCont || fn == plan.AggApproxPercentile
}

// withinGroup checks fn(fraction) WITHIN GROUP (ORDER BY x): what is aggregated is x.
func (b *binder) withinGroup(e *call, agg *aggregate, args []*node) ([]*node, error) {
	switch agg.fn {
	case plan.AggPercentileCont, plan.AggPercentileDisc, plan.AggMode:
	default:
		return nil, b.src.fail(e.pos(), stateWrongObject, "", "aggregate %s takes no WITHIN GROUP", e.name)
	}
	want := 1
	if agg.fn == plan.AggMode {
		want = 0
	}
	if len(args) != want || len(e.order) != 1 || e.name == "median" {
		return nil, b.src.fail(e.pos(), stateNoFunction, "write percentile_cont(0.5) WITHIN GROUP (ORDER BY x)", "%s WITHIN GROUP with these arguments is no function", e.name)
	}
	if want == 1 {
		f, err := b.fraction(e, args[0])
		if err != nil {
			return nil, err
		}
		if e.order[0].desc {
			if agg.fn != plan.AggPercentileCont {
				return nil, b.src.unsupported(e.pos(), "turn the fraction around", "WITHIN GROUP (ORDER BY ... DESC) of %s is not supported", e.name)
			}
			f.Float = 1 - f.Float
		}
		agg.consts = []record.Value{f}
	}
	n, err := b.bind(e.order[0].expr)
	return []*node{n}, err
}

// fraction reads a constant from 0 to 1.
func (b *binder) fraction(e *call, n *node) (record.Value, error) {
	if implicit(n.typ, record.Double) {
		var err error
		if n, err = b.coerce(n, record.Double); err != nil {
			return record.Value{}, err
		}
	}
	if n.kind != plan.ExprConst || n.typ != record.Double || n.val.Null {
		return record.Value{}, b.src.unsupported(n.pos, "write a number", "a fraction of %s that is no constant is not supported", e.name)
	}
	if !(n.val.Float >= 0 && n.val.Float <= 1) {
		return record.Value{}, b.src.fail(n.pos, stateOutOfRange, "", "fraction of %s must be from 0 to 1", e.name)
	}
	return n.val, nil
}

// aggExtras takes the arguments that aren't what is aggregated: separators, fractions, what to order by.
func (b *binder) aggExtras(e *call, agg *aggregate, args []*node) ([]*node, error) {
	need := func(n int) error {
		if len(args) != n {
			return b.src.fail(e.pos(), stateNoFunction, "", "%s takes %d argument(s), not %d", e.name, n, len(args))
		}
		return nil
	}
	switch e.name {
	case "median":
		agg.consts = []record.Value{{Type: record.Double, Float: 0.5}}
	case "approx_percentile":
		if err := need(2); err != nil {
			return nil, err
		}
		f, err := b.fraction(e, args[1])
		agg.consts = []record.Value{f}
		return args[:1], err
	case "string_agg":
		if err := need(2); err != nil {
			return nil, err
		}
		t := args[0].typ
		if t == record.Unknown {
			t = record.Text
		}
		if !implicit(args[1].typ, t) {
			return nil, b.src.fail(e.pos(), stateNoFunction, "", "no function string_agg(%s, %s)", args[0].typ, args[1].typ)
		}
		sep, err := b.coerce(args[1], t)
		if err != nil {
			return nil, err
		}
		if sep.kind != plan.ExprConst {
			return nil, b.src.unsupported(sep.pos, "write the separator as a literal", "a separator of string_agg that is no constant is not supported")
		}
		agg.consts = []record.Value{sep.val}
		return args[:1], nil
	case "any_value":
		if err := need(1); err != nil {
			return nil, err
		}
		agg.filter = negate(isNullNode(args[0]))
	case "min_by", "max_by":
		if err := need(2); err != nil {
			return nil, err
		}
		by, err := b.known(args[1])
		if err != nil {
			return nil, err
		}
		agg.order = []orderNode{{node: by}}
		agg.filter = negate(isNullNode(by))
		return args[:1], nil
	}
	return args, nil
}

// filterAsCase makes FILTER (WHERE p) a CASE where the function ignores NULLs and that is one expression more at most:
// count(*) of the rows where p is true is count(CASE WHEN p THEN 1 END).
func (a *aggregate) filterAsCase(pos int) {
	if a.distinct {
		return
	}
	switch a.fn {
	case plan.AggCountStar, plan.AggCount, plan.AggSum, plan.AggAvg, plan.AggMin, plan.AggMax:
	default:
		return
	}
	then := a.arg
	if a.fn == plan.AggCountStar {
		a.fn, then = plan.AggCount, bigint(1, pos)
	}
	a.arg = inner(plan.ExprCase, then.typ, pos, a.filter, then, nullOf(then.typ, pos))
	a.filter = nil
}

// aggName is an aggregate's name in EXPLAIN and in schemas.
func (b *binder) aggName(a *aggregate) string {
	if a.arg == nil && a.filter == nil {
		return string(a.fn)
	}
	text := string(a.fn)
	if a.arg != nil {
		distinct := ""
		if a.distinct {
			distinct = "distinct "
		}
		text += "(" + distinct + strings.TrimSpace(b.a.text(a.arg))
		for _, n := range a.more {
			text += ", " + strings.TrimSpace(b.a.text(n))
		}
		for i := range a.consts {
			text += ", " + constText(&a.consts[i])
		}
		for i, k := range a.order {
			text += map[bool]string{true: " order by ", false: ", "}[i == 0] + strings.TrimSpace(b.a.text(k.node))
			if k.desc {
				text += " desc"
			}
		}
		text += ")"
	}
	if a.filter != nil {
		text += " filter (" + b.a.text(a.filter) + ")"
	}
	return text
}

// text writes an expression with its columns' names.
func (a *analyzer) text(n *node) string {
	var names record.Schema
	pos := map[int]int{}
	n.walk(func(n *node) bool {
		if _, ok := pos[n.col]; n.kind == plan.ExprCol && !ok {
			pos[n.col] = len(names)
			names = append(names, record.Field{Name: a.cols.of(n.col).name})
		}
		return true
	})
	return exprText(n.expr(pos), names)
}

// aggMore sets what an aggregate has besides its argument and filter.
func (p *planner) aggMore(s *stream, a *aggregate, out *plan.Agg) {
	for _, n := range a.more {
		out.More, out.MoreTypes = append(out.More, s.pos[n.col]), append(out.MoreTypes, n.typ)
	}
	for _, k := range a.order {
		out.Order = append(out.Order, plan.SortKey{Col: s.pos[k.node.col], Desc: k.desc, NullsFirst: k.nullsFirst})
		out.OrderTypes = append(out.OrderTypes, k.node.typ)
	}
}

// Aggregates yields the names of the aggregates in their order, and what each of them is.
func Aggregates() iter.Seq2[string, plan.AggFunc] {
	return func(yield func(string, plan.AggFunc) bool) {
		for _, name := range slices.Sorted(maps.Keys(aggregateNames)) {
			if !yield(name, aggregateNames[name]) {
				return
			}
		}
	}
}
