package sql

import (
	"maps"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// window appends window_start and window_end.
func (p *planner) window(r *rel, need idSet) *stream {
	w := r.win
	below := maps.Clone(need)
	delete(below, w.start)
	delete(below, w.end)
	below[w.time] = true
	below.addAll(w.keys)
	if w.mark != 0 {
		below[w.mark] = true
	}
	s := p.build(r.in[0], below)
	p.settle(s, below, w.time)
	if w.kind == windowSession {
		p.session(s, w, below)
		return s
	}
	p.hop(s, w, false)
	return s
}

// hop appends a window that each row finds by itself. With pane set, it is the pane and the end of its first window.
func (p *planner) hop(s *stream, w *windowRel, pane bool) {
	in := s.schema()
	schema := append(slices.Clone(in), record.Field{Name: "window_start", Type: record.TimestampTZ}, record.Field{Name: "window_end", Type: record.TimestampTZ})
	mark := -1
	if w.mark != 0 {
		mark = s.pos[w.mark]
	}
	time := s.pos[w.time]
	s.pos[w.start], s.pos[w.end] = len(in), len(in)+1
	if w.kind == windowTumble {
		p.add(s, plan.Op{Kind: plan.OpTumble, Schema: schema, Tumble: &plan.Tumble{Time: time, Watermark: mark, Size: w.size, Offset: w.offset}})
		return
	}
	p.add(s, plan.Op{Kind: plan.OpHop, Schema: schema, Hop: &plan.Hop{
		Time: time, Watermark: mark, Size: w.size, Slide: w.slide, Offset: w.offset, Cumulate: w.kind == windowCumulate, Pane: pane,
	}})
	s.keys = nil
}

// session appends the session of each row, which changes as rows come.
func (p *planner) session(s *stream, w *windowRel, need idSet) {
	p.together(s, need, w.keys)
	p.settle(s, need, append(slices.Clone(w.keys), w.time)...)
	in := s.schema()
	op := &plan.Session{Keys: s.positions(w.keys), Time: s.pos[w.time], Watermark: -1, Gap: w.size}
	if w.mark != 0 {
		op.Watermark = s.pos[w.mark]
	}
	s.pos[w.start], s.pos[w.end] = len(in), len(in)+1
	schema := append(slices.Clone(in), record.Field{Name: "window_start", Type: record.TimestampTZ}, record.Field{Name: "window_end", Type: record.TimestampTZ})
	p.add(s, plan.Op{Kind: plan.OpSession, Schema: schema, Session: op})
	s.appendOnly = !p.live
}

// emit holds rows back until their window is over.
func (p *planner) emit(r *rel, need idSet) *stream {
	end := r.cols[0]
	below := withKeys(need, []int{end})
	if s := p.emitGrouped(r.in[0], below, end); s != nil {
		return s
	}
	s := p.build(r.in[0], below)
	p.settle(s, below, end)
	p.add(s, plan.Op{Kind: plan.OpEmitFinal, EmitFinal: &plan.EmitFinal{WindowEnd: s.pos[end]}})
	return s
}

// emitGrouped lets an aggregate that forms windows out of panes or sessions hold them back itself; nil: there is none.
func (p *planner) emitGrouped(in *rel, need idSet, end int) *stream {
	var filters []*rel
	for in.kind == relFilter {
		filters = append(filters, in)
		for _, n := range in.preds {
			need.addNode(n)
		}
		in = in.in[0]
	}
	if in.kind != relAggregate || !in.in[0].windowed() {
		return nil
	}
	s := p.grouped(in, need, true)
	op := s.st.ops[s.op].Aggregate
	if op.Panes == nil && op.Session == nil { // its windows are those of its input
		p.add(s, plan.Op{Kind: plan.OpEmitFinal, EmitFinal: &plan.EmitFinal{WindowEnd: s.pos[end]}})
	}
	for _, f := range slices.Backward(filters) {
		preds := make([]*node, len(f.preds))
		for i, n := range f.preds {
			preds[i] = s.node(n)
		}
		p.keep(s, preds)
	}
	return s
}
