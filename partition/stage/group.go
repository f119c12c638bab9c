package stage

import (
	"container/heap"
	"math"
	"slices"
	"sync"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/ids"
)

// group is a stage's target partitions on this node that read the sources together: one feed for each source partition
// of each input brings the rows for all of them, and one frontier says up to which tick everything is here. A partition
// that moves here later gets a group of its own, since it has to begin elsewhere.
type group struct {
	rt      *Runtime
	view    *view
	plan    *targetPlan
	sources []inflow
	parts   []ids.PartitionID // of sources, in the same order

	mu       sync.Mutex
	front    frontier
	in       []inbound
	base     cut    // at front.done; in the history, where the group began
	events   *clock // nil: the stage needs none, or the history isn't done
	steps    []markStep
	targets  []*target
	byPart   []*target
	changed  chan struct{} // closed when a target gets further; nil: nobody waits
	stopped  bool
	broken   bool   // a feed broke in the middle of a tick that can't be told in pieces: all begins again at what is stored
	narrowed bool   // it has lost targets since its feeds were opened; guarded by the runtime's mu
	seq      uint64 // of the last item
	window   int64  // the smallest of any feed so far, in bytes
	queued   int64  // bytes in the targets' queues
	arrivals uint64 // of steps with rows or positions, so that idle targets know when to store their positions anew
}

// inbound is one source's side of a group.
type inbound struct {
	feed     *feed
	received position // after the last step that came
	pending  []pendingStep
	durable  ids.Offset
	queued   int64 // bytes in the targets' queues
	part     bool  // of a stage's output: the last step was a part of a tick
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
func newGroup(rt *Runtime, plan *targetPlan, sources []inflow, targets []*target, durable bool) *group {
	v := plan.view
	cuts := make([]cut, len(targets))
	for i, t := range targets {
		cuts[i] = t.loaded
	}
	start := lowest(cuts, len(sources))
	g := &group{
		rt: rt, view: v, plan: plan, sources: sources, front: newFrontier(len(sources)), in: make([]inbound, len(sources)),
		base: start, targets: targets, byPart: make([]*target, v.partitions), window: math.MaxInt64,
	}
	g.front.done = start.tick
	for _, s := range sources {
		g.parts = append(g.parts, s.p)
	}
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
	if len(plan.marks) > 0 && start.tick >= v.created {
		g.beginEvents(start)
	}
	return g
}

func (g *group) beginEvents(c cut) {
	g.events = newClock(g.plan, g.sources)
	g.events.start(c)
	if g.events.current != dataflow.NoMarks {
		g.steps = append(g.steps, markStep{c.tick, g.events.current})
	}
	g.base.watermarks = g.events.watermarks()
}

// derived tells whether a source is a stage's output.
func (g *group) derived(src int) bool { return g.plan.inputs[g.sources[src].input].source.log == nil }

// receive takes a step of a source. It doesn't block and doesn't call back into the source but to release.
func (g *group) receive(f *feed, st *step, cost int64) {
	g.mu.Lock()
	in := &g.in[f.src]
	if g.stopped || in.feed != f {
		g.mu.Unlock()
		return
	}
	g.arrivals++
	in.part = st.part && g.derived(f.src)
	through := max(in.received.through, st.pos.through)
	in.received = st.pos
	in.received.through = through
	kept := int64(0)
	input := g.plan.inputs[g.sources[f.src].input]
	counted := st.counts == dataflow.Counts{} || input.consumer != 0 // else each consumer would count
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
	old := g.front.done
	wake := g.advance(nil)
	moved := g.front.done != old
	for _, p := range st.parts {
		if t := g.byPart[p.target]; t != nil && g.ready(t) && !slices.Contains(wake, t) {
			wake = append(wake, t)
		}
	}
	if in.queued > g.window/4 { // others may have to take what they have of it early
		for _, t := range g.targets {
			if len(t.queue) > 0 && g.ready(t) && !slices.Contains(wake, t) {
				wake = append(wake, t)
			}
		}
	}
	read := moved && slices.ContainsFunc(g.targets, func(t *target) bool { return len(*t.outs.Load()) > 0 })
	g.mu.Unlock()
	if read { // targets with nothing to do follow the frontier without a word
		g.rt.lookAtOutputs()
	}
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
	if it.tick <= g.view.created && !g.plan.derived && it.pos.offset <= t.loaded.positions[it.src].offset {
		return false // the last piece of the history may end where a target stands, and has a later tick
	}
	g.seq++
	it.seq = g.seq
	heap.Push(&t.queue, it)
	g.count(t, it.src, it.part.bytes)
	return true
}

// refresh looks at what the sources' partitions have closed, and how far the stages on this node are whose outputs the
// group reads, and tells whether the frontier has moved.
func (g *group) refresh(b *board) bool {
	outputs := g.lookAtOutputs()
	g.mu.Lock()
	if g.stopped {
		g.mu.Unlock()
		return false
	}
	old := g.front.done
	at := 0
	for at < len(g.sources) {
		end := at + 1
		for end < len(g.sources) && g.sources[end].input == g.sources[at].input {
			end++
		}
		switch l := g.plan.inputs[g.sources[at].input].source.log; {
		case l == nil:
		case l.id == 0:
			b.showClosed(g.parts[at:end], func(i int, closed ids.Tick) { g.front.close(at+i, closed, 0) })
		default:
			b.show(l.id, g.parts[at:end], func(i int, closed, last ids.Tick) { g.front.close(at+i, closed, last) })
		}
		at = end
	}
	for _, o := range outputs {
		if g.in[o.feed.src].feed == o.feed {
			g.front.close(o.feed.src, o.done, o.last)
		}
	}
	wake := g.advance(nil)
	moved := g.front.done != old
	g.mu.Unlock()
	for _, t := range wake {
		g.rt.sched.wake(t)
	}
	return moved
}

// outputTick is how far a stage's output on this node is, and which tick was the last one with any.
type outputTick struct {
	feed       *feed
	done, last ids.Tick
}

// lookAtOutputs asks the stages on this node whose outputs the group reads.
func (g *group) lookAtOutputs() []outputTick {
	if !g.plan.derived {
		return nil
	}
	var out []outputTick
	g.mu.Lock()
	for i := range g.in {
		if f := g.in[i].feed; f != nil && f.reader != nil && f.reader.source.up != nil {
			out = append(out, outputTick{feed: f})
		}
	}
	g.mu.Unlock()
	for i := range out {
		out[i].done, out[i].last = out[i].feed.reader.source.up.output()
	}
	return out
}

// passed notes that a feed's stage has put out nothing more up to a tick than what has come.
func (g *group) passed(f *feed, tick ids.Tick) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if in := &g.in[f.src]; !g.stopped && in.feed == f {
		g.front.close(f.src, tick, 0)
	}
}

// output returns how far a stage is, and the last tick in which it had any output, up to that.
func (t *target) output() (done, last ids.Tick) {
	g := t.group
	g.mu.Lock()
	done = g.doneOf(t)
	g.mu.Unlock()
	return done, ids.Tick(t.lastOut.Load())
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
		if len(g.plan.marks) > 0 {
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
	g.base.watermarks = g.events.watermarks()
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
		g.steps = append([]markStep(nil), g.steps[n:]...)
	}
}

// ready tells whether a target has something to do.
func (g *group) ready(t *target) bool {
	if t.stopped || t.working || t.blocked {
		return false // whoever works looks again before it ends
	}
	created := g.view.created
	if t.done < created {
		return g.front.done >= created || len(t.queue) > 0 && t.queue[0].tick <= created && g.inTurn(t.queue[0].src)
	}
	if len(t.queue) > 0 && t.queue[0].tick <= g.front.done || t.building != 0 && t.building <= g.front.done {
		return true
	}
	return g.due(t) || g.early(t)
}

// inTurn tells whether rows of a source may be taken in the history: all inputs of lower levels are complete.
func (g *group) inTurn(src int) bool {
	if !g.plan.levels {
		return true
	}
	level := g.plan.inputs[g.sources[src].input].level
	for i := range g.sources {
		if g.plan.inputs[g.sources[i].input].level < level && g.front.sources[i].complete() < g.view.created {
			return false
		}
	}
	return true
}

// due tells whether the watermark has passed what a target holds back.
func (g *group) due(t *target) bool {
	if n := len(g.steps); n > 0 && g.events != nil {
		return g.steps[n-1].tick > t.done && g.steps[n-1].marks.Watermark >= t.nextDue
	}
	return false
}

// count counts bytes of a source that come into a target's queue, or leave it.
func (g *group) count(t *target, src int, bytes int64) {
	t.queued += bytes
	g.in[src].queued += bytes
	g.queued += bytes
}

// uncount counts that a target's queue is dropped.
func (g *group) uncount(t *target) {
	for i := range t.queue {
		g.count(t, t.queue[i].src, -t.queue[i].part.bytes)
	}
	t.queue = nil
}

// early tells whether a target must take rows of a tick that isn't complete, because a sender that has more of it could run
// out of credit: no lower tick can come, and it is pushed, but not ended. A sender hears of credit once there is a quarter of
// the window, so one that waits for half of it may know of a quarter less than is queued. What is pushed early makes the target
// store all that came before, so it isn't done without need.
func (g *group) early(t *target) bool {
	if len(t.queue) == 0 || t.queue[0].tick != g.front.done+1 || g.queued <= g.window/4 {
		return false
	}
	for i := range g.in {
		if g.in[i].queued > g.window/4 && g.front.sources[i].complete() <= g.front.done {
			return true
		}
	}
	return false
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
	c := cut{tick: g.base.tick, watermarks: g.base.watermarks, positions: append([]position(nil), g.base.positions...)}
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
	steps   []markStep // all known ones; not to be changed
	cut     *cut       // at through, when the target wants one
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
		if w.history && !g.inTurn(t.queue[0].src) {
			break
		}
		it := heap.Pop(&t.queue).(item)
		g.count(t, it.src, -it.part.bytes)
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
		t.caughtUp = g.caughtUp(t)
		g.uncount(t)
	}
	g.signal()
	return feeds
}

// caughtUp tells whether nothing waits for a target: it stands where the group's frontier does.
func (g *group) caughtUp(t *target) bool {
	return !t.working && g.base.tick == g.front.done && g.doneOf(t) == g.front.done
}
