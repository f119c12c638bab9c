package sql

import (
	"math"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// Event time goes through subqueries and views: a column that is a stream's event time, or a bound of windows over such a
// column, says up to which watermark its rows may change (columnInfo.lag), wherever it goes unchanged. Only the stream's own
// column has the watermark that was before each record, so rows are late for windows over it alone.

// viewTimes takes over what the plan of a view says of its columns.
func (a *analyzer) viewTimes(obj *Object, s *scanRel) {
	if obj.Plan == nil {
		return
	}
	for _, t := range obj.Plan.Times {
		info := a.cols.of(s.cols[t.Col])
		info.timed, info.lag = true, t.Lag
		if b := t.Window; b != nil {
			info.window = &windowColumn{end: b.End, size: b.Size, slide: b.Slide, offset: b.Offset, closes: b.Closes}
			if b.Twin > 0 {
				info.window.twin = s.cols[b.Twin-1]
			}
		}
	}
}

// viewBounds is what is known of the late changes of a view. A past tick's rows have none, and need none.
func viewBounds(s *scanRel) []bound {
	if s.kind != plan.ScanView || s.object.Plan == nil || s.asOf != 0 {
		return nil
	}
	var out []bound
	for _, t := range s.object.Plan.Times {
		if t.Bounded {
			out = append(out, bound{col: s.cols[t.Col], slack: t.Slack})
		}
	}
	return out
}

// timesOf says which outputs of a view tell event time.
func (a *analyzer) timesOf(q *query) []plan.EventTime {
	at := func(id int) int { return slices.IndexFunc(q.outs, func(o output) bool { return o.id == id }) }
	bounds := a.bounds(q.rel)
	var out []plan.EventTime
	for i, o := range q.outs {
		info := a.cols.of(o.id)
		if !info.timed {
			continue
		}
		t := plan.EventTime{Col: i, Lag: info.lag}
		for _, b := range bounds {
			if b.col == o.id && b.drop == nil && (!t.Bounded || b.slack < t.Slack) {
				t.Bounded, t.Slack = true, b.slack
			}
		}
		if w := info.window; w != nil {
			t.Window = &plan.WindowBound{End: w.end, Size: w.size, Slide: w.slide, Offset: w.offset, Closes: w.closes, Twin: at(w.twin) + 1}
		}
		out = append(out, t)
	}
	return out
}

// wholeWindows tells whether w is over the start of windows that don't overlap, and each of its windows ends where one of
// them does: then it ends no sooner than those that begin in it.
func (a *analyzer) wholeWindows(w *windowRel) bool {
	of := a.cols.of(w.time).window
	return of != nil && !of.end && of.size > 0 && of.slide == of.size && w.kind != windowSession && w.slide%of.size == 0 && (w.offset-of.offset)%of.size == 0
}

// windowLag returns by how much the watermark must be above a window's end until no row in time changes the window.
func (a *analyzer) windowLag(w *windowRel) int64 {
	lag := a.cols.of(w.time).lag
	if a.wholeWindows(w) {
		lag = max(0, lag-a.cols.of(w.time).window.size)
	}
	return lag
}

// saturated adds what isn't negative.
func saturated(x, y int64) int64 {
	if x > math.MaxInt64-y {
		return math.MaxInt64
	}
	return x + y
}

// finalAt returns the columns of in that the watermark must have reached until its rows are final: the ends of windows,
// else what their starts tell. It computes those that aren't there.
func (a *analyzer) finalAt(v *CreateView, in **rel) ([]int, error) {
	var ends, starts []int
	for _, id := range (*in).outs() {
		if w := a.cols.of(id).window; w != nil && w.end {
			ends = append(ends, id)
		} else if w != nil {
			starts = append(starts, id)
		}
	}
	if len(ends) == 0 && len(starts) > 0 {
		if ends = starts[:1]; a.cols.of(ends[0]).window.size == 0 {
			return nil, a.src.fail(v.emitAt, stateParameter, "group by window_start, window_end", "emit = 'final' needs the window's end")
		}
	}
	if len(ends) == 0 {
		return nil, a.src.fail(v.emitAt, stateParameter, "group by window_start, window_end FROM TUMBLE(...), or leave the option out", "emit = 'final' needs a query grouped by a window")
	}
	var items []item
	for i, id := range ends {
		info := *a.cols.of(id)
		if !info.timed {
			return nil, a.src.fail(v.emitAt, stateParameter, "declare the stream with WATERMARK FOR the time column of the window",
				"emit = 'final' needs a window over the stream's WATERMARK column, or over one of a view that comes from it")
		}
		if info.lag == 0 {
			continue
		}
		ends[i] = a.newColumn("final_at", record.TimestampTZ)
		lag := constant(record.Value{Type: record.IntervalT, Interval: record.Interval{Micros: info.lag}}, 0)
		items = append(items, item{ends[i], callNode("add", record.TimestampTZ, 0, a.columnNode(id, 0), lag)})
	}
	*in = extendRel(*in, items...)
	return ends, nil
}
