package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// bound says that whatever of a relation still changes has column col plus slack (microseconds) above the horizon: all
// else is final. drop is the stream whose late rows must be dropped for that, nil if they are anyway.
type bound struct {
	col   int
	slack int64
	drop  *rel
}

// bounds returns what is known of r's late changes.
func (a *analyzer) bounds(r *rel) []bound {
	switch r.kind {
	case relScan:
		if r.scan.mark == 0 {
			return viewBounds(r.scan)
		}
		b := bound{col: r.scan.event, drop: r}
		if r.scan.drop {
			b.drop = nil
		}
		return []bound{b}
	case relFilter, relExtend, relEmit, relUnnest:
		return a.bounds(r.in[0])
	case relWindow:
		return a.windowBounds(r)
	case relAggregate:
		return keepBounds(a.bounds(r.in[0]), r.agg.keys)
	case relDistinct:
		return keepBounds(a.bounds(r.in[0]), r.cols)
	case relTopN:
		return keepBounds(a.bounds(r.in[0]), r.top.keys)
	case relOver:
		return keepBounds(a.bounds(r.in[0]), r.over.keys)
	case relShared:
		var out []bound
		for _, b := range a.bounds(r.shared.def.rel) {
			if i := slices.Index(r.shared.def.cols, b.col); i >= 0 && b.drop == nil {
				out = append(out, bound{col: r.shared.cols[i], slack: b.slack})
			}
		}
		return out
	case relJoin:
		return a.joinBounds(r)
	}
	return nil
}

func keepBounds(in []bound, ids []int) []bound {
	return slices.DeleteFunc(in, func(b bound) bool { return !slices.Contains(ids, b.col) })
}

func (a *analyzer) windowBounds(r *rel) []bound {
	w := r.win
	if w.kind == windowSession {
		return nil
	}
	if w.mark != 0 {
		return []bound{{col: w.end}, {col: w.start, slack: w.size}, {col: w.time, slack: w.size}}
	}
	for _, b := range a.bounds(r.in[0]) { // a window ends behind its rows' times
		if b.col != w.time || b.drop != nil {
			continue
		}
		slack := b.slack
		if a.wholeWindows(w) {
			slack = max(0, slack-a.cols.of(w.time).window.size)
		}
		return []bound{{col: w.end, slack: slack}, {col: w.start, slack: saturated(w.size, slack)}, b}
	}
	return nil
}

// joinBounds: a row of a join changes when a row of either side does, so a bound holds where both sides are bounded by
// columns that the join makes equal.
func (a *analyzer) joinBounds(r *rel) []bound {
	left := a.bounds(r.in[0])
	if leftOnly(r.join) && r.join != plan.JoinNotIn || r.join == plan.JoinInner || r.join == plan.JoinLeft {
		right := a.bounds(r.in[1])
		var out []bound
		for _, p := range r.preds {
			if p.kind != plan.ExprCall || p.fn != "eq" || p.args[0].kind != plan.ExprCol || p.args[1].kind != plan.ExprCol {
				continue
			}
			for _, l := range left {
				for _, m := range right {
					if l.drop != nil || m.drop != nil {
						continue
					}
					if c, d := p.args[0].col, p.args[1].col; c == l.col && d == m.col || c == m.col && d == l.col {
						out = append(out, bound{col: l.col, slack: max(l.slack, m.slack)})
						if r.join == plan.JoinInner {
							out = append(out, bound{col: m.col, slack: max(l.slack, m.slack)})
						}
					}
				}
			}
		}
		return out
	}
	return nil
}

// offset is a column plus microseconds.
type offset struct {
	col   int
	delta int64
}

// offsetOf reads ts, ts + INTERVAL '...' and ts - INTERVAL '...'.
func offsetOf(n *node) (offset, bool) {
	if n.kind == plan.ExprCol && n.typ == record.TimestampTZ {
		return offset{col: n.col}, true
	}
	if n.kind != plan.ExprCall || n.fn != "add" && n.fn != "sub" || n.typ != record.TimestampTZ {
		return offset{}, false
	}
	col, iv := n.args[0], n.args[1]
	if col.kind == plan.ExprConst && n.fn == "add" {
		col, iv = iv, col
	}
	o, ok := offsetOf(col)
	if !ok || iv.kind != plan.ExprConst || iv.typ != record.IntervalT || iv.val.Null || iv.val.Interval.Months != 0 {
		return offset{}, false
	}
	us, ok := micros(iv.val.Interval)
	if !ok {
		return offset{}, false
	}
	if n.fn == "sub" {
		us = -us
	}
	if s := o.delta + us; (s > o.delta) == (us > 0) {
		o.delta = s
		return o, true
	}
	return offset{}, false
}

// atMost is low <= high, of a join's condition.
type atMost struct{ low, high offset }

// comparisons returns what the conditions say of times.
func comparisons(preds []*node) []atMost {
	var out []atMost
	for _, p := range preds {
		if p.kind != plan.ExprCall || len(p.args) != 2 {
			continue
		}
		l, ok := offsetOf(p.args[0])
		r, ok2 := offsetOf(p.args[1])
		if !ok || !ok2 {
			continue
		}
		switch p.fn {
		case "le", "lt":
			out = append(out, atMost{l, r})
		case "ge", "gt":
			out = append(out, atMost{r, l})
		case "eq":
			out = append(out, atMost{l, r}, atMost{r, l})
		}
	}
	return out
}

// expiry says when rows of a side of a join may be forgotten: once the horizon is at or above col plus delay.
type expiry struct {
	col   int
	delay int64
	drop  *rel // the stream of the other side whose late rows must be dropped for that
}

// sideExpiry finds when rows of a side (whose columns are mine, and which is bounded by own) can no longer meet a change
// of the other side: where the conditions bound the other side's bounded column from above by a column of this side.
func (a *analyzer) sideExpiry(preds []*node, mine idSet, own, other []bound, final bool) (expiry, bool) {
	var best expiry
	found := false
	for _, c := range comparisons(preds) {
		if !mine[c.high.col] || mine[c.low.col] {
			continue
		}
		for _, o := range other {
			if o.col != c.low.col {
				continue
			}
			e := expiry{col: c.high.col, delay: c.high.delta - c.low.delta + o.slack, drop: o.drop}
			// A row that may yet be taken back must not be forgotten before it is final.
			if !final && !slices.ContainsFunc(own, func(b bound) bool { return b.col == e.col && b.drop == nil && b.slack <= e.delay }) {
				continue
			}
			if !found || best.drop != nil && e.drop == nil {
				best, found = e, true
			}
		}
	}
	return best, found
}

// joinExpiry finds when the rows of both sides of a join can be forgotten. Late rows are dropped for that only where
// both sides can: else it is a join like any other, to which no row is late.
func (a *analyzer) joinExpiry(r *rel, leftFinal, rightFinal bool) (left, right *expiry) {
	lb, rb := a.bounds(r.in[0]), a.bounds(r.in[1])
	l, okLeft := a.sideExpiry(r.preds, setOf(r.in[0].outs()), lb, rb, leftFinal)
	m, okRight := a.sideExpiry(r.preds, setOf(r.in[1].outs()), rb, lb, rightFinal)
	both := okLeft && okRight
	if okLeft && (both || l.drop == nil) {
		left = &l
	}
	if okRight && (both || m.drop == nil) {
		right = &m
	}
	return left, right
}

// markDrops decides, before stages are cut, which streams drop their late rows for the sake of interval joins.
func (a *analyzer) markDrops(r *rel) {
	live := a.live
	a.live = true // an ad-hoc query drops what a view drops
	defer func() { a.live = live }()
	for _, in := range r.in {
		a.markDrops(in)
	}
	if r.kind != relJoin || r.join == plan.JoinNotIn {
		return
	}
	left, right := a.joinExpiry(r, a.appendOnly(r.in[0]), a.appendOnly(r.in[1]))
	if left == nil || right == nil {
		return
	}
	for _, e := range []*expiry{left, right} {
		if e.drop != nil {
			e.drop.scan.drop = true
		}
	}
}

// appendOnly tells whether no row of r is ever taken back.
func (a *analyzer) appendOnly(r *rel) bool {
	switch r.kind {
	case relScan:
		return !a.live || r.scan.kind != plan.ScanView || appendOnlyPlan(r.scan.object)
	case relValues, relTemporal:
		return true
	case relShared:
		return a.appendOnly(r.shared.def.rel)
	case relFilter, relExtend, relEmit, relUnnest, relExpand, relUnion, relLate:
	case relWindow:
		if r.win.kind == windowSession {
			return !a.live
		}
	case relJoin:
		if r.join != plan.JoinInner && r.join != plan.JoinSemi && a.live {
			return false
		}
	case relDistinct:
	default:
		return !a.live
	}
	for _, in := range r.in {
		if !a.appendOnly(in) {
			return false
		}
	}
	return true
}

// appendOnlyPlan tells whether no row of a view is ever taken back.
func appendOnlyPlan(o *Object) bool {
	if o.Plan == nil {
		return false
	}
	for i := range o.Plan.Stages {
		for j := range o.Plan.Stages[i].Ops {
			op := &o.Plan.Stages[i].Ops[j]
			switch op.Kind {
			case plan.OpScan:
				if op.Scan.Kind == plan.ScanView {
					return false // it would have to be looked up
				}
			case plan.OpInput, plan.OpFilter, plan.OpProject, plan.OpTumble, plan.OpHop, plan.OpDropLate, plan.OpLate, plan.OpUnion, plan.OpUnnest, plan.OpExpand,
				plan.OpTemporalJoin, plan.OpValues, plan.OpDistinct:
			case plan.OpJoin:
				if k := op.Join.Kind; k != plan.JoinInner && k != plan.JoinSemi {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}
