package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// relation is a checked FROM: what is read, and the columns that it gives.
type relation struct {
	kind   fromKind
	object *Object // unless it is a subquery
	sub    *query  // if it is one
	cols   []scopeColumn
	// scan is the name under which column i is scanned; empty for what isn't scanned (window_start, subqueries' columns).
	scan []string
	tumble
}

// tumble is the window of TUMBLE; start and end are its columns in the scope.
type tumble struct {
	time       int
	size       int64
	offset     int64
	start, end int
	late       bool // rows are held against the stream's watermark
}

func (a *analyzer) relation(f *fromItem) (*relation, error) {
	r := &relation{kind: f.kind}
	var err error
	if f.kind == fromSubquery {
		err = a.subquery(r, f)
	} else {
		err = a.lookup(r, f)
	}
	if err != nil {
		return nil, err
	}
	if f.kind == fromTumble {
		if err := a.tumble(r, f); err != nil {
			return nil, err
		}
	}
	return r, a.rename(r, f)
}

func (a *analyzer) subquery(r *relation, f *fromItem) error {
	sub, err := a.query(f.sub)
	if err != nil {
		return err
	}
	r.sub = sub
	for _, o := range sub.outs[:sub.visible] {
		r.cols = append(r.cols, scopeColumn{table: f.alias, name: o.name, typ: o.node.typ, window: o.window})
		r.scan = append(r.scan, "")
	}
	return nil
}

// lookup finds the stream or view.
func (a *analyzer) lookup(r *relation, f *fromItem) error {
	obj, ok := a.catalog.Lookup(f.name)
	if !ok {
		return a.src.fail(f.nameAt, stateNoRelation, suggest(f.name, a.catalog.Names()), "unknown stream or view %q", f.name)
	}
	table := f.alias
	if table == "" {
		table = f.name
	}
	r.object = obj
	add := func(s record.Schema, hidden bool) {
		for _, c := range s {
			r.cols = append(r.cols, scopeColumn{table: table, name: c.Name, typ: c.Type, hidden: hidden})
			r.scan = append(r.scan, c.Name)
		}
	}
	switch {
	case f.kind == fromDead && obj.Kind != ObjectStream:
		return a.src.fail(f.nameAt, stateWrongObject, "", "%q is a view, and dead_letters is of a stream,", f.name)
	case f.kind == fromDead && a.live:
		return a.src.unsupported(f.pos(), "select from it", "dead_letters in a materialized view is not supported")
	case f.kind == fromDead:
		add(deadColumns, false)
		add(record.Schema{{Name: plan.ColPartition, Type: record.BigInt}, {Name: plan.ColOffset, Type: record.BigInt}}, true)
		r.scan[len(r.scan)-2], r.scan[len(r.scan)-1] = plan.DeadPartition, plan.DeadOffset
	case obj.Kind != ObjectStream && a.live:
		return a.src.unsupported(f.nameAt, "write the query over the streams, with a subquery in FROM", "a view over a view (%q) is not supported", f.name)
	case obj.Kind != ObjectStream:
		add(obj.Columns, false)
	default:
		add(obj.Columns, false)
		add(hiddenColumns, true)
	}
	if !slices.Contains(a.used, obj.ID) {
		a.used = append(a.used, obj.ID)
	}
	return nil
}

// tumble adds the window's columns.
func (a *analyzer) tumble(r *relation, f *fromItem) error {
	s := newScope(r.cols)
	i, err := s.find(a.src, f.time)
	if err != nil {
		return err
	}
	if t := s.cols[i].typ; t != record.TimestampTZ {
		return a.src.fail(f.time.pos(), stateMismatch, "it must be timestamptz", "time column %q of TUMBLE is of type %s,", f.time.name, t)
	}
	r.time = i
	if r.size, err = a.windowInterval(f.size, "size"); err != nil {
		return err
	}
	if r.size <= 0 {
		return a.src.fail(f.size.pos(), stateParameter, "", "window size must be above 0")
	}
	if f.offset != nil {
		if r.offset, err = a.windowInterval(f.offset, "offset"); err != nil {
			return err
		}
		r.offset = (r.offset%r.size + r.size) % r.size
	}
	stream := r.object.Stream
	r.late = stream != nil && stream.WatermarkColumn != "" && stream.WatermarkColumn == s.cols[i].name && !s.cols[i].hidden
	table := r.cols[0].table
	r.start, r.end = len(r.cols), len(r.cols)+1
	for _, end := range []bool{false, true} {
		name := "window_start"
		if end {
			name = "window_end"
		}
		r.cols = append(r.cols, scopeColumn{table: table, name: name, typ: record.TimestampTZ, window: &windowColumn{end: end, size: r.size, onEvent: r.late}})
		r.scan = append(r.scan, "")
	}
	return nil
}

// windowInterval reads TUMBLE's constants: intervals without months.
func (a *analyzer) windowInterval(e expr, what string) (int64, error) {
	b := a.binder(newScope(nil), "TUMBLE")
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

// rename applies AS alias (a, b).
func (a *analyzer) rename(r *relation, f *fromItem) error {
	i := 0
	for c := range r.cols {
		if i < len(f.columns) && !r.cols[c].hidden {
			r.cols[c].name = f.columns[i]
			i++
		}
	}
	if i < len(f.columns) {
		return a.src.fail(f.pos(), stateColumnRef, "", "%q has %d columns, and %d names are given,", f.alias, i, len(f.columns))
	}
	return nil
}
