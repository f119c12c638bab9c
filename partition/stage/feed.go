package stage

import (
	"sync/atomic"

	"github.com/millrace/millrace/internal/ids"
)

// feed is a group's subscription to one source partition, on this node or another. It is made anew whenever the source's
// primary or epoch changes or the connection broke; steps of an old one are dropped.
type feed struct {
	group  *group
	src    int // of the group's sources
	p      ids.PartitionID
	node   ids.NodeID
	epoch  ids.Epoch
	id     uint64 // on its link
	pos    position
	window int64

	targets []ids.PartitionID
	stops   []ids.Offset // see Attach
	durable ids.Offset   // as of when it was opened

	reader *reader      // on this node
	link   *link        // to another node
	owed   atomic.Int64 // credit not yet sent
	closed atomic.Bool
}

// release gives credit back to the source.
func (f *feed) release(n int64) {
	if f.closed.Load() {
		return
	}
	if f.reader != nil {
		f.reader.release(n)
	} else if owed, much := f.owed.Add(n), max(1, f.window/4); owed >= much && owed-n < much {
		f.link.poke(f)
	}
}

// open puts a new feed in the place of the source's old one, at the position that the group has reached: by a link to
// another node, or of a source on this one. It returns nil when the group has stopped. old, if not nil, must be the one that
// is there.
func (g *group) open(src int, node ids.NodeID, epoch ids.Epoch, old *feed, l *link, s *source) *feed {
	f := &feed{group: g, src: src, p: g.sources[src].p, node: node, epoch: epoch, window: g.rt.window(), link: l}
	g.mu.Lock()
	defer g.mu.Unlock()
	in := &g.in[src]
	if g.stopped || old != nil && in.feed != old || g.breaks(in) {
		return nil
	}
	f.pos, f.durable = in.received, in.durable
	for _, t := range g.targets {
		f.targets = append(f.targets, t.p)
		if t.loaded.tick < g.view.created && !g.derived(src) {
			f.stops = append(f.stops, t.loaded.positions[src].offset)
		}
	}
	if s != nil {
		f.reader = newReaderFor(s, f)
	}
	g.window = min(g.window, f.window)
	in.feed = f
	return f
}

// feedOf returns the current feed of a source.
func (g *group) feedOf(src int) *feed {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.in[src].feed
}

// lost forgets a feed that its source gave up.
func (g *group) lost(f *feed) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.in[f.src].feed == f {
		g.in[f.src].feed = nil
		g.breaks(&g.in[f.src])
	}
}

// breaks notes that a feed is lost, and tells whether the group has to begin again at what it has stored: the output of
// a stage doesn't come in the same pieces twice. Called with mu held.
func (g *group) breaks(in *inbound) bool {
	if in.part && !g.broken {
		g.broken = true
		g.rt.lookAtBoard()
	}
	return g.broken
}

// input is what a feed is of.
func (f *feed) input() *inputPlan { return f.group.plan.inputs[f.group.sources[f.src].input] }

// newReaderFor makes the source's side of a feed on this node.
func newReaderFor(s *source, f *feed) *reader {
	g := f.group
	r := newReader(s, f.input().consumer, f.targets, f.input().leaf >= 0, f.pos, f.window)
	r.stops, r.durable = f.stops, f.durable
	r.deliver = func(st *step, cost int64) { g.receive(f, st, cost) }
	r.refused = func(string, bool) { // Configure, which stopped the source, opens the next one
		if g.lost(f); g.derived(f.src) {
			g.rt.reopenSoon()
		}
	}
	return r
}
