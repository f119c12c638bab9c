package dataflow

import (
	"math"
	"slices"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// rowSessions appends to each row the session that it is in: a window over the rows of equal keys in the order of their times,
// which has the state and works a key's rows out again when some come or go. Rows are never forgotten.
type rowSessions struct {
	*window
	time      int
	watermark int // or -1
	gap       int64
	errs      *faults
	rows      []int32
	kept      record.Delta
	need      []bool
}

func newSession(b *builder) (operator, error) {
	p := b.op.Session
	if err := b.sameSchema(2); err != nil {
		return nil, err
	}
	if err := b.column(p.Time, record.TimestampTZ); err != nil {
		return nil, err
	}
	if p.Watermark >= 0 {
		if err := b.column(p.Watermark, record.TimestampTZ); err != nil {
			return nil, err
		}
	}
	for _, c := range p.Keys {
		if err := b.column(c, record.Unknown); err != nil {
			return nil, err
		}
	}
	if p.Gap <= 0 || p.Gap > farTime {
		return nil, defect("operator %d has sessions with a gap of %d microseconds", b.index, p.Gap)
	}
	w := &window{
		index: b.index, keys: p.Keys, keyOrder: slices.Clone(p.Keys), order: []plan.SortKey{{Col: p.Time}}, out: b.out, state: b.env.State,
		merge: newConsolidator(b.in.schema, true), rows: record.NewDelta(b.in.schema, 0), emitted: record.NewDelta(b.out.schema, 0),
	}
	w.part.init(b.in.schema)
	s := &rowSessions{window: w, time: p.Time, watermark: p.Watermark, gap: p.Gap, errs: b.errs, need: allNeeded(b.in.schema)}
	w.instead = s.sessions
	return s, nil
}

// push leaves out rows without a time, and late ones.
func (s *rowSessions) push(in *record.Delta) error {
	times := &in.Cols[s.time]
	var marks *record.Column
	if s.watermark >= 0 {
		marks = &in.Cols[s.watermark]
	}
	s.rows = s.rows[:0]
	for i := range in.N {
		if times.Null(i) {
			s.errs.leaveOut(errNoWindowTime, positive(in, i))
			continue
		}
		at := times.Ints[i]
		if at > math.MaxInt64-s.gap {
			s.errs.fail(errWindowRange, positive(in, i))
			continue
		}
		if overdue(at+s.gap, marks, i) {
			s.errs.counts.Late += appearing(in, i)
			continue
		}
		s.rows = append(s.rows, int32(i))
	}
	switch len(s.rows) {
	case 0:
		return nil
	case in.N:
		return s.window.push(in)
	}
	gatherDelta(&s.kept, in, s.rows, s.need)
	return s.window.push(&s.kept)
}

func (s *rowSessions) endTick(tick ids.Tick, marks Marks) error {
	for c := range s.kept.Cols {
		trim(&s.kept.Cols[c])
	}
	return s.window.endTick(tick, marks)
}

// sessions returns the beginnings and ends of the sessions of the rows that p has numbered, which are in the order of their
// times.
func (s *rowSessions) sessions(p *windowPart) []record.Column {
	n := len(p.place)
	starts, ends := record.NewColumn(record.TimestampTZ, n), record.NewColumn(record.TimestampTZ, n)
	at := func(i int) int64 { return p.data.Cols[s.time].Ints[p.place[i]] }
	for lo := 0; lo < n; {
		hi := lo + 1
		for hi < n && at(hi)-at(hi-1) < s.gap {
			hi++
		}
		for range hi - lo {
			starts.AppendInt(at(lo))
			ends.AppendInt(at(hi-1) + s.gap)
		}
		lo = hi
	}
	return []record.Column{starts, ends}
}
