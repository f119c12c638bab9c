package sql

import (
	"maps"
	"slices"
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// late_records('view') is the input of the operator that drops the view's late rows, less those that aren't late. The view's
// own query is planned again as far as its tree, so that conditions stand below the windows here that stand below them there, and
// what is dropped there comes here: the rows are a function of the logs, and nothing is kept for them.

// lateRel lets the rows of its input through that are late for a window, or (kind is empty) for an interval join.
type lateRel struct {
	kind       windowKind
	time, mark int
	size       int64 // microseconds, like the others
	slide      int64
	offset     int64
	start, end int // 0 where there are no windows
}

// lateInput is an operator of a view that drops late rows.
type lateInput struct {
	in   *rel
	scan *rel          // of the stream whose watermark it is
	cols []scopeColumn // of in
	late *lateRel
}

// lateRecords checks late_records('view').
func (a *analyzer) lateRecords(f *fromItem) (*rel, []scopeColumn, error) {
	obj, ok := a.catalog.Lookup(f.name)
	switch {
	case !ok:
		return nil, nil, a.src.fail(f.nameAt, stateNoRelation, suggest(f.name, a.catalog.Names()), "unknown view %q", f.name)
	case obj.Kind != ObjectView:
		return nil, nil, a.src.fail(f.nameAt, stateWrongObject, "", "%q is a %s, and late_records is of a materialized view,", f.name, obj.Kind)
	}
	asOf := uint64(0)
	if f.past != nil {
		var err error
		if asOf, err = a.tickOf(f.past); err != nil {
			return nil, nil, err
		}
	}
	l, err := a.lateInput(f, obj)
	if err != nil {
		return nil, nil, err
	}
	if err := a.checkLate(f, obj, l); err != nil {
		return nil, nil, err
	}
	if obj.From > 0 { // before the view began a record counted for its watermark alone
		since(a, l.scan, obj.From)
	}
	l.in.each(func(r *rel) {
		if r.kind == relScan {
			r.scan.asOf = asOf
		}
	})
	if !slices.Contains(a.used, obj.ID) {
		a.used = append(a.used, obj.ID)
	}
	r, cols := a.lateColumns(f, l)
	return r, cols, nil
}

// lateInput finds the one operator of a view that drops late rows, or the one of f's stream.
func (a *analyzer) lateInput(f *fromItem, obj *Object) (*lateInput, error) {
	all, err := a.lateInputs(obj)
	if err != nil {
		return nil, a.src.unsupported(f.nameAt, "", "late_records of %q is not supported: its query can't be planned now: %v", f.name, err)
	}
	var streams []string
	var found []*lateInput
	for _, l := range all {
		name := l.scan.scan.object.Name
		if !slices.Contains(streams, name) {
			streams = append(streams, name)
		}
		if f.stream == "" || f.stream == name {
			found = append(found, l)
		}
	}
	slices.Sort(streams)
	switch {
	case len(all) == 0:
		return nil, a.src.fail(f.nameAt, stateWrongObject, "", "view %q has no late rows: it has no windows over the WATERMARK column of a stream,", f.name)
	case len(found) == 0:
		return nil, a.src.fail(f.streamAt, stateWrongObject, "", "view %q has late rows of %s, not of %q,", f.name, quotedList(streams), f.stream)
	case len(found) > 1 && len(streams) == 1:
		return nil, a.src.unsupported(f.nameAt, "make a view for each of its windows, and read late_records of that", "late_records of %q, which drops rows of %q as late in %d places, is not supported", f.name, streams[0], len(found))
	case len(found) > 1 && f.stream != "":
		return nil, a.src.unsupported(f.nameAt, "make a view for each of its windows, and read late_records of that", "late_records of %q, which drops rows of %q as late in %d places, is not supported", f.name, f.stream, len(found))
	case len(found) > 1:
		return nil, a.src.fail(f.nameAt, stateAmbiguous, "write late_records('"+f.name+"', '"+streams[0]+"')", "view %q has late rows of %s: name the stream", f.name, quotedList(streams))
	}
	return found[0], nil
}

func quotedList(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quoteName(s)
	}
	return strings.Join(out, " and ")
}

// lateInputs plans a view's query again, as far as its tree, and returns what drops late rows in it.
func (a *analyzer) lateInputs(obj *Object) ([]*lateInput, error) {
	statements, err := Parse(obj.Text)
	if err != nil {
		return nil, err
	}
	if len(statements) != 1 {
		return nil, a.src.unsupported(0, "", "the statement that made view %q is not known", obj.Name)
	}
	v, ok := statements[0].(*CreateView)
	if !ok {
		return nil, a.src.unsupported(0, "", "the statement that made view %q is not known", obj.Name)
	}
	sub := &analyzer{src: v.src, catalog: a.catalog, live: true, cols: a.cols, rels: a.rels}
	q, err := sub.query(v.query, &env{})
	if err != nil {
		return nil, err
	}
	sub.applyCut(q)
	sub.prepare(q)
	a.cols, a.rels = sub.cols, sub.rels
	for _, id := range sub.used {
		if !slices.Contains(a.used, id) {
			a.used = append(a.used, id)
		}
	}
	var out []*lateInput
	seen := map[*sharedDef]bool{}
	var visit func(r *rel)
	visit = func(r *rel) {
		switch {
		case r.kind == relWindow && r.win.mark != 0:
			w := r.win
			out = append(out, &lateInput{in: r.in[0], scan: r.in[0].markedBy(w.mark), cols: w.scope,
				late: &lateRel{kind: w.kind, time: w.time, mark: w.mark, size: w.size, slide: w.slide, offset: w.offset}})
		case r.kind == relScan && r.scan.drop:
			alone := *r.scan
			alone.drop = false
			in := &rel{kind: relScan, scan: &alone}
			out = append(out, &lateInput{in: in, scan: in, cols: sub.scanColumns(&alone), late: &lateRel{time: alone.event, mark: alone.mark}})
		case r.kind == relShared && !seen[r.shared.def]:
			seen[r.shared.def] = true
			visit(r.shared.def.rel)
		}
		for _, in := range r.in {
			visit(in)
		}
	}
	visit(q.rel)
	return slices.DeleteFunc(out, func(l *lateInput) bool { return l.scan == nil }), nil
}

// scanColumns names the columns of a stream's scan.
func (a *analyzer) scanColumns(s *scanRel) []scopeColumn {
	out := make([]scopeColumn, len(s.cols))
	for i, id := range s.cols {
		out[i] = scopeColumn{name: s.names[i], typ: a.cols.of(id).typ, hidden: i >= len(s.object.Columns), id: id}
	}
	return out
}

// each calls fn for r and what stands below it.
func (r *rel) each(fn func(*rel)) {
	fn(r)
	for _, in := range r.in {
		in.each(fn)
	}
}

// markedBy returns the scan whose watermark column is mark; nil: it isn't below r.
func (r *rel) markedBy(mark int) (found *rel) {
	r.each(func(r *rel) {
		if r.kind == relScan && r.scan.mark == mark {
			found = r
		}
	})
	return found
}

// checkLate refuses what can't be read besides the view.
func (a *analyzer) checkLate(f *fromItem, obj *Object, l *lateInput) error {
	scans := 0
	var err error
	l.in.each(func(r *rel) {
		switch {
		case r.kind == relScan:
			scans++
		case r.kind == relShared:
			err = a.src.unsupported(f.nameAt, "", "late_records of %q, whose windows are over what the view reads elsewhere too, is not supported", f.name)
		case r.kind == relTemporal && !r.temporal.byTime && !a.live:
			err = a.src.unsupported(f.nameAt, "make a view of it", "late_records of %q in an ad-hoc query is not supported: its windows are over FOR SYSTEM_TIME AS OF the time of arrival", f.name)
		}
	})
	have := setOf(l.in.outs())
	switch {
	case err != nil:
		return err
	case obj.From > 0 && scans != 1:
		return a.src.unsupported(f.nameAt, "", "late_records of %q, which joins and begins with start = 'now', is not supported", f.name)
	case slices.ContainsFunc(l.cols, func(c scopeColumn) bool { return !have[c.id] }):
		return a.src.unsupported(f.nameAt, "", "late_records of %q is not supported: its windows don't have all columns of their input", f.name)
	}
	return nil
}

// since makes a scan of a stream one of the records after a tick.
func since(a *analyzer, scan *rel, tick uint64) {
	all := *scan
	id := all.scan.cols[slices.Index(all.scan.names, plan.ColTick)]
	after := callNode("gt", record.Boolean, 0, a.columnNode(id, 0), bigint(int64(tick), 0))
	*scan = rel{kind: relFilter, in: []*rel{&all}, preds: []*node{after}}
}

// lateColumns makes the relation: the columns of the windows' input, then window_start, window_end and watermark. They
// are new ones, which have nothing to do with event time: what is late comes behind every watermark.
func (a *analyzer) lateColumns(f *fromItem, l *lateInput) (*rel, []scopeColumn) {
	var items []item
	var cols, hidden []scopeColumn
	add := func(c scopeColumn) {
		c.table = tableName(f)
		if c.hidden {
			hidden = append(hidden, c)
		} else {
			cols = append(cols, c)
		}
	}
	computed := func(c scopeColumn, of int) {
		c.id = a.newColumn(c.name, c.typ)
		items = append(items, item{c.id, a.columnNode(of, f.pos())})
		add(c)
	}
	for _, c := range l.cols {
		computed(scopeColumn{name: c.name, typ: c.typ, hidden: c.hidden}, c.id)
	}
	if l.late.kind != "" {
		l.late.start, l.late.end = a.newColumn("window_start", record.TimestampTZ), a.newColumn("window_end", record.TimestampTZ)
		add(scopeColumn{name: "window_start", typ: record.TimestampTZ, id: l.late.start})
		add(scopeColumn{name: "window_end", typ: record.TimestampTZ, id: l.late.end})
	}
	computed(scopeColumn{name: "watermark", typ: record.TimestampTZ}, l.late.mark)
	return extendRel(&rel{kind: relLate, in: []*rel{l.in}, late: l.late}, items...), append(cols, hidden...)
}

// late lets late rows alone through.
func (p *planner) late(r *rel, need idSet) *stream {
	l := r.late
	below := maps.Clone(need)
	delete(below, l.start)
	delete(below, l.end)
	below[l.time], below[l.mark] = true, true
	s := p.build(r.in[0], below)
	p.settle(s, below, l.time, l.mark)
	op := &plan.Late{Of: plan.LateOfDropLate, Time: s.pos[l.time], Watermark: s.pos[l.mark]}
	schema := slices.Clone(s.schema())
	if l.kind != "" {
		s.pos[l.start], s.pos[l.end] = len(schema), len(schema)+1
		schema = append(schema, record.Field{Name: "window_start", Type: record.TimestampTZ}, record.Field{Name: "window_end", Type: record.TimestampTZ})
		op.Size, op.Offset = l.size, l.offset
	}
	switch l.kind {
	case windowTumble:
		op.Of = plan.LateOfTumble
	case windowHop, windowCumulate:
		op.Of, op.Slide, op.Cumulate = plan.LateOfHop, l.slide, l.kind == windowCumulate
	case windowSession:
		op.Of, op.Offset = plan.LateOfSession, 0
	}
	p.add(s, plan.Op{Kind: plan.OpLate, Schema: schema, Late: op})
	return s
}

func (x *explainer) dropLate(d *plan.DropLate, in record.Schema) {
	if d.Event != 0 {
		x.line(1, "drop: rows whose %s is NULL are dropped and counted among the errors", quoteName(in[d.Event-1].Name))
	}
	if d.Watermark >= 0 {
		x.line(1, "drop late: rows whose %s is at or below the watermark are dropped and counted", quoteName(in[d.Time].Name))
	}
}

func (x *explainer) late(l *plan.Late, in record.Schema) {
	time := quoteName(in[l.Time].Name)
	what := ""
	switch {
	case l.Of == plan.LateOfDropLate:
		what = "the watermark has reached their " + time
	case l.Of == plan.LateOfSession:
		what = "the watermark has reached their " + time + " plus " + durationText(l.Size)
	case l.Cumulate:
		what = "a window that grows by " + durationText(l.Slide) + " up to " + durationText(l.Size) + " over " + time + " ends at or below the watermark"
	case l.Of == plan.LateOfHop:
		what = "a window of " + durationText(l.Size) + ", one each " + durationText(l.Slide) + ", over " + time + " ends at or below the watermark"
	default:
		what = "their window of " + durationText(l.Size) + " over " + time + " ends at or below the watermark"
	}
	if l.Offset != 0 {
		what += ", windows shifted by " + durationText(l.Offset)
	}
	x.line(1, "late: only rows for which %s", what)
}
