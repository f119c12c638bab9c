package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// overCall is one window function: fn OVER (PARTITION BY keys ORDER BY order frame).
type overCall struct {
	id     int
	name   string // "agg": agg is set
	args   []*node
	consts []record.Value
	agg    *aggregate
	typ    record.Type
	keys   []*node
	order  []orderNode
	frame  plan.Frame
	pos    int
	// columns is args, or the aggregate's argument and filter, once they are columns.
	columns []int
}

type orderNode struct {
	node       *node
	desc       bool
	nullsFirst bool
}

func (o *overCall) rewrite(fn func(*node) (*node, error)) (err error) {
	visit := func(p **node) {
		if err == nil && *p != nil {
			*p, err = fn(*p)
		}
	}
	for i := range o.args {
		visit(&o.args[i])
	}
	for i := range o.keys {
		visit(&o.keys[i])
	}
	for i := range o.order {
		visit(&o.order[i].node)
	}
	if o.agg != nil {
		o.agg.each(visit)
	}
	return err
}

// windowOnly are the functions that need OVER, with their fewest and most arguments.
var windowOnly = map[string][2]int{
	"row_number": {0, 0}, "rank": {0, 0}, "dense_rank": {0, 0}, "percent_rank": {0, 0}, "cume_dist": {0, 0}, "ntile": {1, 1},
	"lag": {1, 3}, "lead": {1, 3}, "first_value": {1, 1}, "last_value": {1, 1}, "nth_value": {2, 2},
}

// overCall checks fn(...) OVER (...).
func (b *binder) overCall(e *call) (*node, error) {
	if b.overs == nil {
		where := b.noOver
		if where == "" {
			where = "this place"
		}
		return nil, b.src.fail(e.pos(), stateWindowing, "compute it in a subquery in FROM first", "window function %s is not allowed in %s", e.name, where)
	}
	o := &overCall{name: e.name, pos: e.pos()}
	inside := *b
	inside.overs, inside.noOver, inside.sets = nil, "another window function's arguments", nil
	var err error
	if size, ok := windowOnly[e.name]; ok {
		err = inside.windowArgs(o, e, size)
	} else if fn, ok := aggregateNames[e.name]; ok {
		o.name = "agg"
		if o.agg, err = inside.newAggregate(e, fn); err == nil {
			o.typ = o.agg.typ
			if e.distinct || len(e.order) > 0 {
				err = b.src.unsupported(e.pos(), "", "DISTINCT or ORDER BY in a window function (%s) is not supported", e.name)
			}
		}
	} else {
		return nil, b.src.fail(e.pos(), stateWrongObject, "", "%s is neither a window function nor an aggregate, and OVER is for those,", e.name)
	}
	if err != nil {
		return nil, err
	}
	spec, err := b.windowSpec(e.over)
	if err != nil {
		return nil, err
	}
	if err := inside.over(o, spec); err != nil {
		return nil, err
	}
	o.id = b.a.newColumn(e.name, o.typ)
	*b.overs = append(*b.overs, o)
	return column(o.id, o.typ, e.pos()), nil
}

// windowArgs checks the arguments of a function that needs OVER.
func (b *binder) windowArgs(o *overCall, e *call, size [2]int) error {
	if e.star || e.distinct || e.filter != nil || len(e.order) > 0 {
		return b.src.fail(e.pos(), stateWrongObject, "", "DISTINCT, FILTER and ORDER BY are for aggregates, and %s is not one,", e.name)
	}
	if len(e.args) < size[0] || len(e.args) > size[1] {
		return b.src.fail(e.pos(), stateNoFunction, "", "no window function %s with %d arguments", e.name, len(e.args))
	}
	args, err := b.bindAll(e.args)
	if err != nil {
		return err
	}
	number := func(i int, low int64) error {
		n, err := b.coerceInteger(args[i], e.name)
		if err != nil {
			return err
		}
		if n.val.Int < low {
			return b.src.fail(args[i].pos, stateWindowArgument, "", "argument of %s must be at least %d", e.name, low)
		}
		o.consts = []record.Value{n.val}
		return nil
	}
	o.typ = record.BigInt
	switch e.name {
	case "percent_rank", "cume_dist":
		o.typ = record.Double
	case "ntile":
		return number(0, 1)
	case "lag", "lead":
		o.consts = []record.Value{{Type: record.BigInt, Int: 1}}
		if len(args) > 1 {
			if err := number(1, -1<<62); err != nil {
				return err
			}
		}
		value := []*node{args[0]}
		if len(args) == 3 {
			value = append(value, args[2])
		}
		o.args, o.typ, err = b.common(value, e.name)
		return err
	case "first_value", "last_value", "nth_value":
		if e.name == "nth_value" {
			if err := number(1, 1); err != nil {
				return err
			}
		}
		n, err := b.known(args[0])
		o.args, o.typ = []*node{n}, n.typ
		return err
	}
	return nil
}

// coerceInteger returns a constant whole number.
func (b *binder) coerceInteger(n *node, what string) (*node, error) {
	if n.typ == record.Unknown {
		var err error
		if n, err = b.coerce(n, record.BigInt); err != nil {
			return nil, err
		}
	}
	n = foldNegative(n)
	if n.kind != plan.ExprConst || n.typ != record.BigInt || n.val.Null {
		return nil, b.src.unsupported(n.pos, "write a number", "an argument of %s that is no constant whole number is not supported", what)
	}
	return n, nil
}

// foldNegative turns - 5 into -5.
func foldNegative(n *node) *node {
	if n.kind == plan.ExprCall && n.fn == "neg" && n.args[0].kind == plan.ExprConst && n.typ == record.BigInt && !n.args[0].val.Null {
		return bigint(-n.args[0].val.Int, n.pos)
	}
	return n
}

// windowSpec finds what OVER means: OVER name and OVER (name ...) refer to WINDOW.
func (b *binder) windowSpec(w *windowSpec) (*windowSpec, error) {
	find := func(name string) (*windowSpec, error) {
		for _, d := range b.windows {
			if d.name == name {
				return d, nil
			}
		}
		return nil, b.src.fail(w.pos(), stateNoObject, "", "there is no window %q", name)
	}
	out := *w
	for range len(b.windows) + 1 {
		base := out.base
		if base == "" && out.name != "" && !slices.Contains(b.windows, w) && len(out.keys) == 0 && len(out.order) == 0 && out.frame == nil {
			base = out.name
		}
		if base == "" {
			return &out, nil
		}
		d, err := find(base)
		if err != nil {
			return nil, err
		}
		whole := out.name != "" && out.base == ""
		switch {
		case whole:
			out = *d
			out.name = ""
			continue
		case len(out.keys) > 0:
			return nil, b.src.fail(w.pos(), stateWindowing, "", "PARTITION BY of window %q can't be overridden", base)
		case len(out.order) > 0 && len(d.order) > 0:
			return nil, b.src.fail(w.pos(), stateWindowing, "", "ORDER BY of window %q can't be overridden", base)
		case d.frame != nil:
			return nil, b.src.fail(w.pos(), stateWindowing, "", "window %q can't be copied, because it has a frame", base)
		}
		out.keys = d.keys
		if len(out.order) == 0 {
			out.order = d.order
		}
		out.base, out.name = d.base, ""
	}
	return nil, b.src.fail(w.pos(), stateWindowing, "", "windows refer to each other")
}

// over checks PARTITION BY, ORDER BY and the frame.
func (b *binder) over(o *overCall, w *windowSpec) error {
	for _, e := range w.keys {
		n, err := b.bind(e)
		if err != nil {
			return err
		}
		if n, err = b.known(n); err != nil {
			return err
		}
		if !slices.ContainsFunc(o.keys, func(k *node) bool { return same(k, n) }) {
			o.keys = append(o.keys, n)
		}
	}
	order, err := b.orderNodes(w.order)
	if err != nil {
		return err
	}
	o.order = order
	o.frame = plan.Frame{Mode: "range", Start: plan.FrameBound{Unbounded: true}}
	if len(o.order) == 0 {
		o.frame.End.Unbounded = true
	}
	if w.frame == nil {
		return nil
	}
	f := w.frame
	o.frame.Mode = f.mode
	switch {
	case f.start.unbounded && !f.start.preceding:
		return b.src.fail(f.pos(), stateWindowing, "", "frame can't start with UNBOUNDED FOLLOWING")
	case f.end.unbounded && f.end.preceding:
		return b.src.fail(f.pos(), stateWindowing, "", "frame can't end with UNBOUNDED PRECEDING")
	case f.mode == "groups" && len(o.order) == 0:
		return b.src.fail(f.pos(), stateWindowing, "", "GROUPS mode needs an ORDER BY")
	}
	if o.frame.Start, err = b.frameBound(o, f, f.start); err != nil {
		return err
	}
	if o.frame.End, err = b.frameBound(o, f, f.end); err != nil {
		return err
	}
	s, e := o.frame.Start, o.frame.End
	if !s.Unbounded && !e.Unbounded && (s.Offset > 0 && e.Offset <= 0 && e.Interval == (record.Interval{}) || e.Offset < 0 && s.Offset >= 0 && s.Interval == (record.Interval{})) {
		return b.src.fail(f.pos(), stateWindowing, "", "frame ends before it starts")
	}
	return nil
}

func (b *binder) orderNodes(items []orderItem) ([]orderNode, error) {
	var out []orderNode
	for _, it := range items {
		n, err := b.bind(it.expr)
		if err != nil {
			return nil, err
		}
		if n, err = b.known(n); err != nil {
			return nil, err
		}
		if n.typ == record.JSONB {
			return nil, b.src.unsupported(it.expr.pos(), "order by a field of it, or by ::text", "ORDER BY of jsonb is not supported")
		}
		if n.kind == plan.ExprConst {
			continue // as in PostgreSQL a constant orders nothing, a position neither
		}
		out = append(out, orderNode{n, it.desc, it.nullsFirst})
	}
	return out, nil
}

func (b *binder) frameBound(o *overCall, f *frameSpec, in frameBound) (plan.FrameBound, error) {
	out := plan.FrameBound{Unbounded: in.unbounded}
	if in.offset == nil {
		return out, nil
	}
	n, err := b.bind(in.offset)
	if err != nil {
		return out, err
	}
	if f.mode == "range" {
		if len(o.order) != 1 {
			return out, b.src.fail(in.offset.pos(), stateWindowing, "", "RANGE with an offset needs exactly one ORDER BY column")
		}
		switch t := o.order[0].node.typ; {
		case t == record.TimestampTZ || t == record.IntervalT:
			if n.typ == record.Unknown {
				if n, err = b.coerce(n, record.IntervalT); err != nil {
					return out, err
				}
			}
			if n.kind != plan.ExprConst || n.typ != record.IntervalT || n.val.Null {
				return out, b.src.fail(in.offset.pos(), stateMismatch, "write INTERVAL '1 minute'", "frame offset must be a constant interval")
			}
			iv := n.val.Interval
			if iv.Months < 0 || iv.Days < 0 || iv.Micros < 0 {
				return out, b.src.fail(in.offset.pos(), stateFrameOffset, "", "frame offset must not be negative")
			}
			if in.preceding {
				iv = record.Interval{Months: -iv.Months, Days: -iv.Days, Micros: -iv.Micros}
			}
			out.Interval = iv
			return out, nil
		case t != record.BigInt:
			return out, b.src.unsupported(in.offset.pos(), "order by a bigint or a timestamptz", "RANGE with an offset over %s is not supported", t)
		}
	}
	if n, err = b.coerceInteger(n, "a frame"); err != nil {
		return out, err
	}
	if n.val.Int < 0 {
		return out, b.src.fail(in.offset.pos(), stateFrameOffset, "", "frame offset must not be negative")
	}
	if out.Offset = n.val.Int; in.preceding {
		out.Offset = -out.Offset
	}
	return out, nil
}

// applyOver adds the window functions, those over the same rows in the same order as one operator.
func (q *selection) applyOver() error {
	for _, o := range q.overs {
		var items []item
		col := func(n *node) int {
			if n.kind == plan.ExprCol {
				return n.col
			}
			for _, it := range items {
				if same(it.node, n) {
					return it.id
				}
			}
			id := q.a.newColumn("", n.typ)
			items = append(items, item{id, n})
			return id
		}
		r := &overRel{funcs: []*overCall{o}}
		for _, k := range o.keys {
			r.keys = append(r.keys, col(k))
		}
		for _, k := range o.order {
			r.order = append(r.order, sortColumn{col(k.node), k.desc, k.nullsFirst})
		}
		for _, n := range o.args {
			o.columns = append(o.columns, col(n))
		}
		if o.agg != nil {
			o.agg.each(func(p **node) { *p = q.a.columnNode(col(*p), (*p).pos) })
		}
		if last := q.rel; last.kind == relOver && len(items) == 0 && slices.Equal(last.over.keys, r.keys) && slices.Equal(last.over.order, r.order) {
			last.over.funcs = append(last.over.funcs, o)
			continue
		}
		q.rel = &rel{kind: relOver, in: []*rel{extendRel(q.rel, items...)}, over: r}
	}
	return nil
}
