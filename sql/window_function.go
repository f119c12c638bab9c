package sql

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// window checks TUMBLE, HOP, CUMULATE and SESSION in FROM.
func (a *analyzer) window(f *fromItem, e *env) (*rel, []scopeColumn, error) {
	r, cols, err := a.relation(f.input, e)
	if err != nil {
		return nil, nil, err
	}
	table := f.alias
	if table == "" {
		table = tableName(f.input)
	}
	for i := range cols {
		cols[i].table = table
	}
	w := &windowRel{kind: windowKind(f.name), at: f.pos()}
	name := strings.ToUpper(f.name)
	low, high := 2, 3
	switch w.kind {
	case windowHop, windowCumulate:
		low, high = 3, 4
	case windowSession:
		high = MaxColumns
	}
	if len(f.args) < low || len(f.args) > high {
		takes := itoa(int32(low+1)) + " or " + itoa(int32(high+1))
		if w.kind == windowSession {
			takes = "at least 3"
		}
		return nil, nil, a.src.fail(f.pos(), stateSyntax, windowUsage[f.name], "%s takes %s arguments, not %d", name, takes, len(f.args)+1)
	}
	s := newScope(cols)
	if r, err = a.windowTime(w, f, r, s); err != nil {
		return nil, nil, err
	}
	if err := a.windowSizes(w, f, s); err != nil {
		return nil, nil, err
	}
	w.scope = slices.Clone(cols)
	a.windowColumns(w)
	for i, id := range []int{w.start, w.end} {
		cols = append(cols, scopeColumn{table: table, name: [...]string{"window_start", "window_end"}[i], typ: record.TimestampTZ, id: id})
	}
	return &rel{kind: relWindow, in: []*rel{r}, win: w}, cols, nil
}

// windowTime checks the time of a window: a column or an expression of type timestamptz.
func (a *analyzer) windowTime(w *windowRel, f *fromItem, r *rel, s *scope) (*rel, error) {
	n, err := a.binder(s, strings.ToUpper(f.name)).bind(f.args[0])
	if err != nil {
		return nil, err
	}
	if n.typ != record.TimestampTZ {
		what := "time"
		if c, ok := f.args[0].(*columnRef); ok {
			what = "time column \"" + c.name + "\""
		}
		return nil, a.src.fail(f.args[0].pos(), stateMismatch, "it must be timestamptz", "%s of %s is of type %s,", what, strings.ToUpper(f.name), n.typ)
	}
	if n.kind != plan.ExprCol {
		w.time = a.newColumn("time", record.TimestampTZ)
		return extendRel(r, item{w.time, n}), nil
	}
	w.time = n.col
	if info := a.cols.of(n.col); info.event && slices.Contains(r.outs(), info.mark) {
		w.mark = info.mark
	}
	return r, nil
}

// windowSizes reads the constants of a window, and a session's keys.
func (a *analyzer) windowSizes(w *windowRel, f *fromItem, s *scope) (err error) {
	interval := func(i int, what string) (int64, error) {
		us, err := a.windowInterval(f.args[i], f.name, what)
		if err == nil && us <= 0 {
			err = a.src.fail(f.args[i].pos(), stateParameter, "", "window %s must be above 0", what)
		}
		return us, err
	}
	last := 1
	switch w.kind {
	case windowTumble:
		w.size, err = interval(1, "size")
		w.slide = w.size
	case windowSession:
		if w.size, err = interval(1, "gap"); err != nil {
			return err
		}
		return a.sessionKeys(w, f, s)
	default:
		what := map[windowKind]string{windowHop: "slide", windowCumulate: "step"}[w.kind]
		if w.slide, err = interval(1, what); err != nil {
			return err
		}
		w.size, err = interval(2, "size")
		last = 2
		if err == nil && (w.slide > w.size || w.kind == windowCumulate && w.size%w.slide != 0) {
			hint := "every row is in a window then"
			if w.kind == windowCumulate {
				hint = "windows grow by the step up to the size"
			}
			return a.src.fail(f.args[1].pos(), stateParameter, hint, "window %s must be %s the size", what,
				map[windowKind]string{windowHop: "at most", windowCumulate: "a divisor of"}[w.kind])
		}
	}
	if err != nil || len(f.args) == last+1 {
		return err
	}
	if w.offset, err = a.windowInterval(f.args[last+1], f.name, "offset"); err != nil {
		return err
	}
	period := w.slide
	if w.kind == windowCumulate {
		period = w.size
	}
	w.offset = (w.offset%period + period) % period
	return nil
}

func (a *analyzer) sessionKeys(w *windowRel, f *fromItem, s *scope) error {
	b := a.binder(s, "SESSION")
	for _, e := range f.args[2:] {
		n, err := b.bind(e)
		if err != nil {
			return err
		}
		if n.kind != plan.ExprCol {
			return a.src.unsupported(e.pos(), "compute it in a subquery", "a key of SESSION that is no column is not supported")
		}
		if !slices.Contains(w.keys, n.col) {
			w.keys = append(w.keys, n.col)
		}
	}
	w.keysFromGroup = len(w.keys) == 0
	return nil
}

func (a *analyzer) windowColumns(w *windowRel) {
	base := windowColumn{closes: w.kind != windowCumulate}
	if w.kind == windowTumble || w.kind == windowHop {
		base.size, base.slide, base.offset = w.size, w.slide, w.offset
	}
	start, end := base, base
	end.end = true
	timed, lag := a.cols.of(w.time).timed, a.windowLag(w)
	w.start = a.cols.add(columnInfo{name: "window_start", typ: record.TimestampTZ, window: &start, timed: timed && base.size > 0, lag: saturated(base.size, lag)})
	w.end = a.cols.add(columnInfo{name: "window_end", typ: record.TimestampTZ, window: &end, timed: timed, lag: lag})
	start.twin, end.twin = w.end, w.start
}

// windowInterval reads a window's constants: intervals without months.
func (a *analyzer) windowInterval(e expr, fn, what string) (int64, error) {
	b := a.binder(newScope(nil), strings.ToUpper(fn))
	n, err := b.bind(e)
	if err != nil {
		return 0, err
	}
	if n.typ == record.Unknown {
		if n, err = b.coerce(n, record.IntervalT); err != nil {
			return 0, err
		}
	}
	if n.kind != plan.ExprConst || n.typ != record.IntervalT || n.val.Null {
		return 0, a.src.fail(e.pos(), stateMismatch, "write INTERVAL '1 minute'", "window %s must be a constant interval", what)
	}
	us, ok := micros(n.val.Interval)
	switch {
	case n.val.Interval.Months != 0:
		return 0, a.src.fail(e.pos(), stateParameter, "use days", "window %s has months, whose length differs,", what)
	case !ok:
		return 0, a.src.fail(e.pos(), stateOutOfRange, "", "window %s is out of range", what)
	}
	return us, nil
}

// fillSessions gives the sessions of FROM that name no key those of the GROUP BY: its plain columns.
func (q *selection) fillSessions() error {
	var visit func(r *rel) error
	visit = func(r *rel) error {
		if r.kind == relWindow && r.win.keysFromGroup {
			w := r.win
			w.keysFromGroup = false
			if len(q.s.groupBy) == 0 {
				return nil // one session after another over all rows
			}
			for _, k := range q.keys {
				if k.node.kind == plan.ExprCol && slices.ContainsFunc(w.scope, func(c scopeColumn) bool { return c.id == k.node.col }) && k.node.col != w.time && !slices.Contains(w.keys, k.node.col) {
					w.keys = append(w.keys, k.node.col)
				}
			}
		}
		switch r.kind {
		case relWindow, relFilter, relExtend, relJoin:
			for _, in := range r.in {
				if err := visit(in); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return visit(q.rel)
}
