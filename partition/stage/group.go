package stage

import (
	"container/heap"
	"math"
	"slices"
	"sync"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/ids"
)

// group is a view's target partitions on this node that read the sources together: one feed for each source partition
// brings the rows for all of them, and one frontier says up to which tick everything is here. A partition that moves
// here later gets a group of its own, since it has to begin elsewhere.
type group struct {
	rt      *Runtime
	view    *view
	sources []ids.PartitionID

	mu       sync.Mutex
	front    frontier
	in       []inbound
	base     cut        // at front.done; in the history, where the group began
	events   *watermark // nil: the view needs none, or the history isn't done
	steps    []watermarkStep
	targets  []*target
	byPart   []*target
	changed  chan struct{} // closed when a target gets further; nil: nobody waits
	stopped  bool
	narrowed bool   // it has lost targets since its feeds were opened; guarded by the runtime's mu
	seq      uint64 // of the last item
	window   int64  // the smallest of any feed so far, in bytes
	arrivals uint64 // of steps with rows or positions, so that idle targets know when to store their positions anew
}

// inbound is one source's side of a group.
type inbound struct {
	feed     *feed
	received position // after the last step that came
	pending  []pendingStep
	durable  ids.Offset
}

// pendingStep is the position at the end of a tick that isn't done.
type pendingStep struct {
	tick ids.Tick
	pos  position
	feed *feed
}

// item is the rows of one source, tick and target.
type item struct {
	tick   ids.Tick
	src    int
	seq    uint64 // in order of arrival
	part   part
	pos    position
	counts dataflow.Counts
	feed   *feed
}

// itemQueue is a heap by tick, source, arrival.
type itemQueue []item

func (q itemQueue) Len() int { return len(q) }
func (q itemQueue) Less(i, j int) bool {
	a, b := &q[i], &q[j]
	if a.tick != b.tick {
		return a.tick < b.tick
	}
	if a.src != b.src {
		return a.src < b.src
	}
	return a.seq < b.seq
}
func (q itemQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *itemQueue) Push(x any)   { *q = append(*q, x.(item)) }
func (q *itemQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	old[len(old)-1] = item{}
	*q = old[:len(old)-1]
	return x
}

// newGroup makes a group of targets, each loaded from its stored progress;
// durable: what they loaded has been on disk.
func newGroup(rt *Runtime, v *view, sources []ids.PartitionID, targets []*target, durable bool) *group {
	cuts := make([]cut, len(targets))
	for i, t := range targets {
		cuts[i] = t.loaded
	}
	start := lowest(cuts, len(sources))
	g := &group{
		rt: rt, view: v, sources: sources, front: newFrontier(len(sources)), in: make([]inbound, len(sources)),
		base: start, targets: targets, byPart: make([]*target, v.partitions), window: math.MaxInt64,
	}
	g.front.done = start.tick
	for i := range g.in {
		g.in[i].received = start.positions[i]
		if durable {
			g.in[i].durable = start.positions[i].offset
		}
		g.front.receive(i, start.positions[i].through)
	}
	for _, t := range targets {
		t.group = g
		g.byPart[t.p] = t
	}
	if v.watermarks && start.tick >= v.created {
		g.beginEvents(start)
	}
	return g
}

func (g *group) beginEvents(c cut) {
	s := g.view.stream
	g.events = newWatermark(len(g.sources), s.WatermarkDelayUs, ids.Tick(s.IdleUs), g.view.born)
	g.events.start(c)
	if w := g.events.current; w.set {
		g.steps = append(g.steps, watermarkStep{c.tick, w.value})
	}
	g.base.watermark = g.events.current
}

// receive takes a step of a source. It doesn't block and doesn't call back into the source but to release.
func (g *group) receive(f *feed, st *step, cost int64) {
	g.mu.Lock()
	in := &g.in[f.src]
	if g.stopped || in.feed != f {
		g.mu.Unlock()
		return
	}
	g.arrivals++
	through := max(in.received.through, st.pos.through)
	in.received = st.pos
	in.received.through = through
	kept := int64(0)
	counted := st.counts == dataflow.Counts{}
	for _, p := range st.parts {
		it := item{tick: st.tick, src: f.src, part: p, pos: st.pos, feed: f}
		if p.target == f.p && !counted {
			it.counts, counted = st.counts, true
		}
		if g.enqueue(it) {
			kept += p.bytes
		}
	}
	if !counted {
		g.enqueue(item{tick: st.tick, src: f.src, part: part{target: f.p}, pos: st.pos, counts: st.counts, feed: f})
	}
	if st.tick != 0 && !st.part && st.tick > g.front.done {
		in.pending = append(in.pending, pendingStep{st.tick, st.pos, f})
		kept += stepBytes
	}
	g.front.receive(f.src, st.through)
	wake := g.advance(nil)
	for _, p := range st.parts {
		if t := g.byPart[p.target]; t != nil && g.ready(t) && !slices.Contains(wake, t) {
			wake = append(wake, t)
		}
	}
	g.mu.Unlock()
	for _, t := range wake {
		g.rt.sched.wake(t)
	}
	if cost > kept {
		f.release(cost - kept)
	}
}

// enqueue gives an item to its target, unless that has it already.
func (g *group) enqueue(it item) bool {
	t := g.byPart[it.part.target]
	if t == nil || it.tick <= t.done {
		return false
	}
	if it.tick <= g.view.created && !t.loaded.positions[it.src].before(it.pos) {
		return false
	}
	g.seq++
	it.seq = g.seq
	heap.Push(&t.queue, it)
	t.queued += it.part.bytes
	return true
}

// refresh looks at what the sources' partitions have closed.
func (g *group) refresh(b *board) {
	g.mu.Lock()
	if g.stopped {
		g.mu.Unlock()
		return
	}
	b.show(g.view.streamID, g.sources, func(i int, closed, last ids.Tick) { g.front.close(i, closed, last) })
	wake := g.advance(nil)
	g.mu.Unlock()
	for _, t := range wake {
		g.rt.sched.wake(t)
	}
}

// advance brings the frontier up to date and appends the targets that have something to do now.
func (g *group) advance(wake []*target) []*target {
	old := g.front.done
	done := g.front.advance()
	if done == old {
		return wake
	}
	steps := len(g.steps)
	if created := g.view.created; old < created && done >= created {
		g.pop(created)
		g.base.tick = created
		if g.view.watermarks {
			g.beginEvents(g.base)
		}
	}
	if done >= g.view.created {
		if g.events != nil {
			g.popInOrder(done)
		} else {
			g.pop(done)
		}
		g.base.tick = done
	}
	all := len(g.steps) != steps || old < g.view.created
	for _, t := range g.targets {
		if (all || len(t.queue) > 0 || t.building != 0) && g.ready(t) {
			wake = append(wake, t)
		}
	}
	g.signal()
	return wake
}

// pop makes the positions those of tick.
func (g *group) pop(tick ids.Tick) {
	for i := range g.in {
		in := &g.in[i]
		n := 0
		for n < len(in.pending) && in.pending[n].tick <= tick {
			g.base.positions[i] = in.pending[n].pos
			in.pending[n].feed.release(stepBytes)
			n++
		}
		in.pending = in.pending[:copy(in.pending, in.pending[n:])]
	}
}

// popInOrder does the same tick by tick, for the watermark's sake.
func (g *group) popInOrder(done ids.Tick) {
	for {
		next := maxTick
		for i := range g.in {
			if p := g.in[i].pending; len(p) > 0 {
				next = min(next, p[0].tick)
			}
		}
		if next > done {
			break
		}
		g.steps = g.events.step(next-1, g.steps)
		for i := range g.in {
			in := &g.in[i]
			if len(in.pending) > 0 && in.pending[0].tick == next {
				g.base.positions[i] = in.pending[0].pos
				g.events.observe(i, in.pending[0].pos)
				in.pending[0].feed.release(stepBytes)
				in.pending = in.pending[:copy(in.pending, in.pending[1:])]
			}
		}
		g.steps = g.events.step(next, g.steps)
	}
	g.steps = g.events.step(done, g.steps)
	g.base.watermark = g.events.current
	g.trimSteps()
}

// trimSteps forgets the rises of the watermark that all targets have passed; their slices stay as they are.
func (g *group) trimSteps() {
	if len(g.steps) < 256 {
		return
	}
	low := g.front.done
	for _, t := range g.targets {
		low = min(low, g.doneOf(t))
	}
	n := 0
	for n+1 < len(g.steps) && g.steps[n+1].tick <= low {
		n++
	}
	if n >= len(g.steps)/2 {
		g.steps = append([]watermarkStep(nil), g.steps[n:]...)
	}
}

// ready tells whether a target has something to do.
func (g *group) ready(t *target) bool {
	if t.stopped || t.working || t.blocked {
		return false // whoever works looks again before it ends
	}
	created := g.view.created
	if t.done < created {
		return g.front.done >= created || len(t.queue) > 0 && t.queue[0].tick <= created
	}
	if len(t.queue) > 0 && t.queue[0].tick <= g.front.done || t.building != 0 && t.building <= g.front.done {
		return true
	}
	return g.due(t) || g.early(t)
}

// due tells whether the watermark has passed what a target holds back.
func (g *group) due(t *target) bool {
	if n := len(g.steps); n > 0 && g.events != nil {
		return g.steps[n-1].tick > t.done && g.steps[n-1].to >= t.nextDue
	}
	return false
}

// early tells whether a target must take rows of a tick that isn't complete, because there are so many of them that
// their sender could run out of credit: no lower tick can come, and it is pushed, but not ended.
func (g *group) early(t *target) bool {
	return len(t.queue) > 0 && t.queue[0].tick == g.front.done+1 && t.queued > g.window/int64(2*len(g.targets))
}

// doneOf is the tick that a target has finished: without anything to do it follows the frontier.
func (g *group) doneOf(t *target) ids.Tick {
	if t.working || t.stopped || t.blocked || t.done < g.view.created || g.ready(t) {
		return t.done
	}
	return max(t.done, g.front.done)
}

// signal tells those who wait that some target got further.
func (g *group) signal() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// watch returns a channel that is closed when some target gets further.
func (g *group) watch() <-chan struct{} {
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.changed
}

// copyBase returns the positions at the frontier.
func (g *group) copyBase() cut {
	c := cut{tick: g.base.tick, watermark: g.base.watermark, positions: append([]position(nil), g.base.positions...)}
	for i := range c.positions {
		c.positions[i].through = c.tick
	}
	return c
}

// work is what a target takes from its group at a time.
type work struct {
	items   []item // in order
	through ids.Tick
	early   bool // the items' last tick isn't complete
	finish  bool // the history is complete with these
	history bool
	steps   []watermarkStep // all known ones; not to be changed
	cut     *cut            // at through, when the target wants one
}

// take hands a target what it has to do; false when there is nothing.
func (g *group) take(t *target) (work, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped || !g.ready(t) {
		return work{}, false
	}
	w := work{through: g.front.done, steps: g.steps}
	limit := g.front.done
	switch {
	case t.done < g.view.created:
		w.history, limit, w.through = true, g.view.created, 0
		if g.front.done >= limit {
			w.finish, w.through = true, limit
		}
	case (len(t.queue) == 0 || t.queue[0].tick > limit) && g.early(t):
		w.early = true
		limit++
	}
	for len(t.queue) > 0 && t.queue[0].tick <= limit {
		it := heap.Pop(&t.queue).(item)
		t.queued -= it.part.bytes
		w.items = append(w.items, it)
	}
	if len(t.queue) == 0 && cap(t.queue) > 1024 {
		t.queue = nil
	}
	if !w.history && t.wantsCut.Load() {
		c := g.copyBase()
		w.cut = &c
	}
	t.working = true
	return w, true
}

// finished notes how far a target has come with its work.
func (g *group) finished(t *target, done, building ids.Tick, nextDue int64, blocked bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.working, t.done, t.building, t.nextDue, t.blocked = false, done, building, nextDue, blocked
	g.signal()
}

// unblock tells whether a target waits for room in the state store, and lets it go on if there is.
func (g *group) unblock(t *target, room bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := t.blocked
	t.blocked = was && !room
	return was
}

// stop ends the group: no step is taken any more, and those who wait are told.
func (g *group) stop() []*feed {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	var feeds []*feed
	for i := range g.in {
		if f := g.in[i].feed; f != nil {
			feeds = append(feeds, f)
			g.in[i].feed = nil
		}
	}
	for _, t := range g.targets {
		t.queue, t.queued = nil, 0
	}
	g.signal()
	return feeds
}
