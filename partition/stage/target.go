package stage

import (
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// target runs a stage with state in one partition and holds its state, its output deltas and, of the last stage, the
// view's rows.
type target struct {
	taskState
	rt     *Runtime
	view   *view
	plan   *targetPlan
	p      ids.PartitionID
	group  *group
	loaded cut // stored positions that it began with; immutable

	bulk     atomic.Bool               // still in the history
	wantsCut atomic.Bool               // it will be flushed soon
	outs     atomic.Pointer[[]*source] // that read its output here
	lastOut  atomic.Uint64             // the last tick in which it had any output
	redo     atomic.Bool               // it must be computed again from its inputs

	// guarded by the group's mu
	queue    itemQueue
	queued   int64 // bytes
	working  bool  // a worker has items of it
	stopped  bool
	caughtUp bool     // its group has stopped, and nothing waited for it
	blocked  bool     // the state store takes nothing now; house tries again
	done     ids.Tick // ended with the last work; see doneOf
	building ids.Tick // pushed early, not ended; 0: none
	nextDue  int64    // lowest watermark at which held rows come out

	// guarded by mu, which is held for one tick at a time; mu comes before the group's
	mu        sync.Mutex
	frag      *dataflow.Fragment
	table     *stateTable
	rows      *rowStore
	deltas    deltaLog
	counts    dataflow.Counts // late and errors so far
	applied   ids.Tick
	partial   ids.Tick  // as building
	cut       cut       // to be stored: not after applied
	dirtyFrom time.Time // since when something isn't stored; zero: all is
	flushTook time.Duration
	accounted int  // dirty bytes told to the runtime
	counted   int  // bytes of state in memory told to it
	warm      bool // counted among the targets that have a cache
	saved     cut  // as stored last
	savedAt   ids.Tick
	base      bool    // of an earlier stage: rows has its output in the history
	rowsIn    []int64 // by input
	rowsOut   int64
	arrivals  uint64 // of the group, when the positions were stored
	snap      *sharedSnapshot
	opBase    []uint64  // rows out by operator, of fragments that were let go of
	pushed    int64     // bytes of the rows of the tick so far
	largest   int64     // bytes of the rows in and out of a tick, since the fragment was made
	scratch   int64     // told to the runtime
	worked    time.Time // last
	closed    bool
	indexed   *[]indexDef // the view's indexes as the rows have them
}

// background implements task.
func (t *target) background() bool { return t.bulk.Load() }

// run implements task: everything that is complete now.
func (t *target) run() bool {
	if t.view.failed.Load() != nil {
		return false
	}
	g := t.group
	w, ok := g.take(t)
	if !ok {
		return false
	}
	err := t.process(&w)
	now := time.Now()
	t.mu.Lock()
	if e := t.table.release(); err == nil {
		err = e
	}
	done, building, nextDue := t.applied, t.partial, t.nextDueNow()
	full := false
	if err == nil && !t.closed {
		err = t.settle(w.cut)
		if full = errors.Is(err, fault.Of(fault.Exhausted)); full {
			err = nil // the disk is nearly full: wait for room
		}
	}
	t.keepScratch(now)
	t.mu.Unlock()
	if err != nil {
		t.rt.failView(t.view, err)
		return false
	}
	g.finished(t, done, building, nextDue, full)
	t.tellReaders()
	return true
}

// tellReaders lets those who read the output here look at it.
func (t *target) tellReaders() {
	outs := *t.outs.Load()
	for _, s := range outs {
		s.lookAtOutput()
	}
	if len(outs) > 0 {
		t.rt.lookAtOutputs()
	}
}

// Values of nextDue besides watermarks.
const (
	dueUnknown = math.MinInt64 // the operators must be asked
	dueNever   = math.MaxInt64 // nothing is held back
)

func (t *target) nextDueNow() int64 {
	if t.frag != nil {
		if due, ok := t.frag.NextDue(); ok {
			return due
		}
	}
	return dueNever
}

// process applies work, tick by tick.
func (t *target) process(w *work) error {
	if err := t.prepare(); err != nil {
		return err
	}
	if w.history {
		return t.processHistory(w)
	}
	items, steps, marks := w.items, w.steps, dataflow.NoMarks
	for len(steps) > 0 && steps[0].tick <= t.applied {
		marks, steps = steps[0].marks, steps[1:]
	}
	for {
		tick := maxTick
		if len(items) > 0 {
			tick = items[0].tick
		}
		if t.partial != 0 {
			tick = min(tick, t.partial)
		}
		rise := len(steps) > 0 && steps[0].tick <= min(tick, w.through)
		if rise {
			tick = steps[0].tick
			marks, steps = steps[0].marks, steps[1:]
		}
		if tick == maxTick {
			break
		}
		n := 0
		for n < len(items) && items[n].tick == tick {
			n++
		}
		if n == 0 && t.partial != tick && (!rise || marks.Watermark < t.nextDueNow()) {
			continue // the watermark rose, and nothing is due
		}
		if tick > w.through {
			if !w.early || t.partial == tick && n == 0 {
				break
			}
			if err := t.pushEarly(tick, items[:n]); err != nil {
				return err
			}
			items = items[n:]
			continue
		}
		if err := t.endTick(tick, marks, items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	t.mu.Lock()
	if !t.closed { // else ticks were left out
		t.applied = max(t.applied, w.through)
	}
	t.mu.Unlock()
	return nil
}

// prepare compiles the stage when it is needed first.
func (t *target) prepare() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.frag != nil {
		return nil
	}
	var err error
	t.frag, err = dataflow.New(t.plan.ops, dataflow.Env{Mode: dataflow.Live, State: t.table, Partition: t.p, AppendOnly: t.plan.appends})
	return err
}

// push gives the operators the items' rows and their senders their credit back.
func (t *target) push(items []item) error {
	t.frag.Expect(itemRows(items))
	for i := range items {
		it := &items[i]
		from := t.group.sources[it.src].input
		in := t.plan.inputs[from]
		d, err := it.part.decoded(in.source.schema)
		if err == nil && d != nil {
			t.rowsIn[from] += int64(d.N)
			t.pushed += deltaBytes(d)
			err = t.frag.Push(in.leaf, d)
		}
		if err != nil {
			return err
		}
		it.part.done()
		t.count(it.counts)
	}
	return nil
}

// itemRows counts the items' rows, but for those that are still encoded.
func itemRows(items []item) (n int) {
	for i := range items {
		if d := items[i].part.delta; d != nil {
			n += d.N
		}
	}
	return n
}

func release(items []item) {
	for i := range items {
		if n := items[i].part.bytes; n > 0 {
			items[i].feed.release(n)
		}
	}
}

func (t *target) count(c dataflow.Counts) {
	t.counts.Late += c.Late
	t.counts.Errors += c.Errors
	if c.LastError != "" {
		t.counts.LastError = c.LastError
	}
}

// endTick applies one whole tick.
func (t *target) endTick(tick ids.Tick, marks dataflow.Marks, items []item) error {
	t.mu.Lock()
	defer release(items)
	defer t.mu.Unlock()
	if t.closed {
		t.partial = 0 // or process would never be through with it
		return nil
	}
	if err := t.push(items); err != nil {
		return err
	}
	out, err := t.frag.EndTick(tick, marks)
	if err != nil {
		return err
	}
	t.handled(out)
	if err := t.keepOutput(tick, out); err != nil {
		return err
	}
	t.count(t.frag.TakeCounts())
	t.applied, t.partial = tick, 0
	t.touched()
	return nil
}

// keptRows is how many rows of a tick are at least kept as they are, until they are stored. Fewer of them take less memory
// encoded.
const keptRows = 64

// keepOutput takes the stage's output of a tick.
func (t *target) keepOutput(tick ids.Tick, out *record.Delta) error {
	read := len(*t.outs.Load()) > 0
	own := read || t.plan.last && t.plan.codec.layout == appended && out.N >= keptRows
	if own && out.N > 0 {
		out = t.frag.Detach()
	}
	var kept tickDelta
	if t.plan.last {
		if err := t.syncIndexes(); err != nil {
			return err
		}
		var err error
		if kept, err = t.rows.apply(tick, out, own); err != nil {
			return err
		}
	}
	if out.N == 0 {
		return nil
	}
	t.rowsOut += int64(out.N)
	switch {
	case read:
		t.deltas.addRows(tick, out)
	case kept.tick != 0:
		t.deltas.keep(kept)
	default:
		t.deltas.add(tick, out)
	}
	t.lastOut.Store(uint64(tick))
	return nil
}

// pushEarly takes rows of a tick that isn't complete. All that is stored from then on until the tick ends is what was
// before it, so that goes out first.
func (t *target) pushEarly(tick ids.Tick, items []item) error {
	t.mu.Lock()
	defer release(items)
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	if t.partial == 0 {
		// Without room on the disk it stays in memory until the tick ends; reads are refused meanwhile.
		if err := t.flush(); err != nil && !errors.Is(err, fault.Of(fault.Exhausted)) {
			return err
		}
		t.partial = tick
	}
	return t.push(items)
}

// processHistory applies a piece of the view's history. It is stored with the positions of the pieces, and visible once
// it is complete.
func (t *target) processHistory(w *work) error {
	t.mu.Lock()
	defer release(w.items)
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	created := t.view.created
	if len(w.items) > 0 {
		if err := t.push(w.items); err != nil {
			return err
		}
		for _, it := range w.items {
			if !t.plan.derived && t.cut.positions[it.src].before(it.pos) {
				t.cut.positions[it.src] = it.pos
			}
		}
		if err := t.endHistory(dataflow.NoMarks); err != nil {
			return err
		}
	}
	if w.finish {
		marks := dataflow.NoMarks
		for _, s := range w.steps {
			if s.tick <= created {
				marks = s.marks
			}
		}
		if err := t.endHistory(marks); err != nil {
			return err
		}
		t.applied, t.deltas.floor = created, created
		t.lastOut.Store(uint64(created))
		t.bulk.Store(false)
		t.wantsCut.Store(true)
	}
	return nil
}

func (t *target) endHistory(marks dataflow.Marks) error {
	out, err := t.frag.EndTick(t.view.created, marks)
	if err != nil {
		return err
	}
	t.handled(out)
	t.count(t.frag.TakeCounts())
	t.touched()
	t.rowsOut += int64(out.N)
	if err := t.syncIndexes(); err != nil {
		return err
	}
	if t.plan.codec.layout == appended {
		return t.rows.appendHistory(t.view.created, out)
	}
	_, err = t.rows.apply(t.view.created, out, false)
	return err
}

// touched notes that something isn't stored.
func (t *target) touched() {
	if t.dirtyFrom.IsZero() {
		t.dirtyFrom = time.Now()
	}
}

// dirtyBytes is what isn't stored yet.
func (t *target) dirtyBytes() int { return t.table.dirtyBytes + t.rows.dirtyBytes() }

// settle keeps the target within its bounds after some work. Called with mu held.
func (t *target) settle(c *cut) error {
	if c != nil && c.tick <= t.applied {
		t.cut = *c
	}
	dirty := t.dirtyBytes()
	total := t.rt.dirty.Add(int64(dirty - t.accounted))
	t.accounted = dirty
	age := time.Duration(0)
	if !t.dirtyFrom.IsZero() {
		age = time.Since(t.dirtyFrom)
	}
	cfg := &t.rt.cfg
	memory := t.countTables()
	if t.rt.tight() && memory-dirty > 2*(t.table.limit+t.rows.table.limit) {
		t.table.forgetOld()
		t.rows.table.forgetOld()
		memory = t.countTables()
	}
	// What a target of many may have before it is asked to flush, or counts among those that share the cache.
	little := min(arenaChunk, max(t.rt.share(min(cfg.DirtyBytes, cfg.CacheBytes))/2, leastChunk))
	if warm := memory > little; warm != t.warm {
		t.warm = warm
		if warm {
			t.rt.warm.Add(1)
		} else {
			t.rt.warm.Add(-1)
		}
	}
	t.setLimits()
	old := t.flushAge()
	t.wantsCut.Store(age > old/2 || total > cfg.DirtyBytes/2)
	if int64(dirty) > cfg.DirtyBytes/2 || total > cfg.DirtyBytes && dirty > little ||
		t.table.young.bytes+t.rows.table.young.bytes > 2*(t.table.limit+t.rows.table.limit)+dirty || age > old {
		return t.flush()
	}
	t.deltas.forget(t.rt.share(cfg.RecentBytes))
	return nil
}

// countTables tells the runtime what the target's state takes in memory, and returns it, in bytes.
func (t *target) countTables() int {
	memory := t.table.memory() + t.rows.table.memory()
	t.rt.tables.Add(int64(memory - t.counted))
	t.counted = memory
	return memory
}

// setLimits gives the target's caches their share: two generations of its operators' state and, where rows are read to be
// written, of the rows.
func (t *target) setLimits() {
	share := int(t.rt.cfg.CacheBytes/max(1, t.rt.warm.Load())) / 2
	if t.plan.last && t.plan.codec.layout == weighted {
		share /= 2
		t.rows.table.limit = share
	}
	t.table.limit = share
}

// flushAge is how old what isn't stored may get.
func (t *target) flushAge() time.Duration {
	age := max(t.rt.cfg.FlushInterval, 20*t.flushTook)
	if t.applied < t.view.created {
		age = max(age, 30*t.rt.cfg.FlushInterval)
	}
	return age
}

// batchSlack is room in a batch for what isn't counted: the positions, and what belongs to few entries.
const batchSlack = 16 << 10

// flush stores everything that isn't, in one batch. Called with mu held. In the middle of a tick that was pushed early
// there is nothing to store: it was, before the tick began.
func (t *target) flush() error {
	if t.partial != 0 || t.closed {
		return nil
	}
	began := time.Now()
	t.catchCut()
	size := t.dirtyBytes() + t.deltas.unstored()
	b := t.rt.store.NewBatchOf(size + size/16 + batchSlack) // once full it would be copied to one twice as large
	defer b.Close()
	t.table.write(b)
	for _, id := range t.rows.dropped {
		b.DeleteRange(prefixRange(binary.BigEndian.AppendUint64(t.prefix(spaceIndex), id)))
		b.Delete(binary.BigEndian.AppendUint64(t.prefix(spaceMarks), id))
	}
	t.rows.write(b)
	t.trim(b)
	progress, err := t.progress()
	if err != nil {
		return err
	}
	b.Set(t.prefix(spaceProgress), progress)
	if err := t.rt.ship.commit(t, t.applied, t.deltas.floorAfter(), b); err != nil {
		return err
	}
	tight := t.rt.tight()
	t.table.written(tight)
	t.rows.written(tight)
	t.countTables()
	t.deltas.written()
	t.deltas.forget(t.rt.share(t.rt.cfg.RecentBytes))
	t.rt.dirty.Add(int64(-t.accounted))
	t.accounted, t.dirtyFrom, t.flushTook = 0, time.Time{}, time.Since(began)
	t.saved, t.savedAt = t.cut, t.applied
	t.saved.positions = append([]position(nil), t.cut.positions...)
	return nil
}

// trim adds the newest output deltas to a batch, and the deletion of what nobody needs any more: of the last stage what
// lies further back than the retention, and of all what those who read it have taken for good.
func (t *target) trim(b *storage.Batch) {
	low := maxTick
	for _, s := range *t.outs.Load() {
		low = min(low, ids.Tick(s.low.Load()))
	}
	if t.plan.last {
		retain := t.rt.cfg.RetainTicks
		if h := t.view.def.HistoryUs; h > 0 {
			retain = ids.Tick(h)
		}
		t.deltas.write(b, t.applied, retain, int64(t.rt.share(t.rt.cfg.RetainBytes)), low)
		return
	}
	// Dropped too early it would be computed again and again: what bounds it is the room on the disk, without which
	// nothing more is taken.
	t.deltas.write(b, t.applied, 0, math.MaxInt64, low)
	if t.base && t.applied >= t.view.created && low >= t.view.created {
		t.base = false
		b.DeleteRange(prefixRange(t.prefix(spaceRows)))
	}
}

// prefix is what the keys of one space of the target begin with.
func (t *target) prefix(space byte) []byte {
	if t.plan.last {
		return storage.StateKey(t.view.id, t.p, space, nil)
	}
	return storage.StagePrefix(t.view.id, t.p, byte(t.plan.index), space)
}

// stored is the range of all that the target stores.
func (t *target) stored() (lo, hi []byte) {
	if t.plan.last {
		return storage.LastStageRange(t.view.id, t.p)
	}
	return storage.StageRange(t.view.id, t.p, byte(t.plan.index))
}

// catchCut brings applied and the positions up to the group's frontier if nothing is waiting for this target.
func (t *target) catchCut() {
	if t.applied < t.view.created {
		return
	}
	g := t.group
	g.mu.Lock()
	defer g.mu.Unlock()
	t.arrivals = g.arrivals
	if g.stopped && t.caughtUp || !g.stopped && g.caughtUp(t) {
		t.applied = g.front.done
		t.cut = g.copyBase()
	}
}

// house does what has to be done now and then: it stores what is old, and positions that have moved without any rows.
func (t *target) house(now time.Time, refresh bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.view.failed.Load() != nil {
		return nil
	}
	t.rested(now)
	blocked := t.group.unblock(t, false)
	due := !t.dirtyFrom.IsZero() && now.Sub(t.dirtyFrom) >= t.flushAge()
	if refresh && t.dirtyFrom.IsZero() {
		t.group.mu.Lock()
		due = t.group.arrivals != t.arrivals
		t.group.mu.Unlock()
	}
	if !due && !blocked {
		return nil
	}
	err := t.flush()
	if errors.Is(err, fault.Of(fault.Exhausted)) {
		return nil // again next time
	}
	if err == nil && blocked {
		t.group.unblock(t, true)
		t.rt.sched.wake(t)
	}
	return err
}

// close ends the target; what isn't stored is forgotten unless flush came first.
func (t *target) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	t.rt.dirty.Add(int64(-t.accounted))
	t.rt.tables.Add(int64(-t.counted))
	t.accounted, t.counted = 0, 0
	t.rt.scratch.Add(-t.scratch)
	t.scratch = 0
	if t.warm {
		t.warm = false
		t.rt.warm.Add(-1)
	}
}

// newRows returns an empty delta of the view's rows.
func (t *target) newRows() *record.Delta {
	d := record.NewDelta(t.plan.codec.schema, 0)
	if t.plan.codec.layout != keyed {
		d.Weights = []int64{}
	}
	return d
}
