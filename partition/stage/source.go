package stage

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// source reads one partition's log, or a stage's output there, for one view, on the partition's primary, and makes steps
// of it for its readers. Readers at the same place share a scan, so that each record is decoded once for all of them.
type source struct {
	taskState
	rt    *Runtime
	view  *view
	plan  *sourcePlan
	up    *target // whose output it reads; nil: it reads a log
	p     ids.PartitionID
	epoch ids.Epoch

	mu       sync.Mutex
	readers  []*reader
	scans    []*scan
	reading  *scan // a worker makes steps from it
	turn     int
	stopped  bool
	alarm    *time.Timer   // wakes the source later
	rings    time.Time     // when alarm does
	pause    time.Duration // before the next try after an error of the log; 0: the last one went well
	until    time.Time     // nothing is read before
	logStart ids.Offset    // once started
	started  bool
	// durable is how far each target partition of each consumer will never ask again; 0 until it says so.
	durable [][]ids.Offset
	low     atomic.Uint64 // the least of durable
	opRows  []uint64      // by operator, as of the last chunk
	opBase  []uint64      // of these, by fragments that were let go of
	rowsIn  uint64        // read
	behind  atomic.Uint64 // everything of up's output to this tick has been read by all that read here
	waiting atomic.Bool   // some reader waits for up to have come to the view's beginning

	spareMu sync.Mutex
	spares  []*record.Delta // given back, for new rows

	// used by run alone
	frag  *dataflow.Fragment
	split *splitter
	buf   []byte
	cols  []int // of up's, that are read

	want []bool
	// where the columns that it reads are in batches decoded to shared
	shared   *columnSet
	sharedAt []int
	bulk     atomic.Bool // the last chunk was history, or far behind

	// see keepScratch
	scratch atomic.Int64
	worked  atomic.Int64 // when the last chunk was read, in nanoseconds
	rest    atomic.Bool
}

// scan is a place in the log from which steps are being made, and the readers that get them.
type scan struct {
	pos      position
	dec      *record.Decoder
	in       *record.Delta // decoded, not yet pushed
	readers  []*reader
	notTill  time.Time // when the scan begins
	atTail   bool      // the last chunk reached the closed tick
	started  bool
	readTo   ids.Tick // everything up to this closed tick has been read
	skipping bool     // dec takes event times only: history that doesn't count
	out      outputScan
	consumer int // of the first reader
}

func newSource(rt *Runtime, plan *sourcePlan, p ids.PartitionID, epoch ids.Epoch, up *target) *source {
	s := &source{rt: rt, view: plan.view, plan: plan, p: p, epoch: epoch, up: up}
	for range plan.consumers {
		s.durable = append(s.durable, make([]ids.Offset, plan.view.partitions))
	}
	rt.decoded.add(p, plan.log)
	return s
}

// background implements task: reading what others have read long ago may wait.
func (s *source) background() bool { return s.bulk.Load() }

// stop ends the source: no reader gets a step after it returns.
func (s *source) stop(reason string) {
	s.mu.Lock()
	readers := s.readers
	for _, sc := range s.scans {
		if sc != s.reading {
			sc.out.close() // the worker that reads the other one does it
		}
	}
	if !s.stopped {
		s.rt.decoded.remove(s.p, s.plan.log)
	}
	s.stopped, s.readers, s.scans = true, nil, nil
	s.rt.scratch.Add(-s.scratch.Swap(0))
	if s.alarm != nil {
		s.alarm.Stop()
	}
	for _, r := range readers {
		r.closed = true
	}
	s.mu.Unlock()
	for _, r := range readers {
		r.refused(reason, s.view.failed.Load() != nil)
	}
}

// wakeAt makes the source run at a time. Called with mu held.
func (s *source) wakeAt(at time.Time) {
	if now := time.Now(); s.alarm != nil && s.rings.After(now) && !s.rings.After(at) {
		return // it rings before
	}
	if s.alarm != nil {
		s.alarm.Stop()
	}
	s.rings = at
	s.alarm = time.AfterFunc(time.Until(at), func() { s.rt.sched.wake(s) })
}

// run implements task: one chunk of one scan.
func (s *source) run() bool {
	if s.view.failed.Load() != nil {
		return false
	}
	closed := s.closed()
	s.mu.Lock()
	now := time.Now()
	if s.stopped || now.Before(s.until) {
		s.mu.Unlock()
		return false
	}
	if err := s.findStart(); err != nil {
		s.retry(err)
		s.mu.Unlock()
		return false
	}
	s.place(now)
	sc := s.choose(closed, now)
	c := &chunk{source: s, scan: sc, closed: closed}
	if sc != nil {
		s.want = wanted(s.want, sc.readers, s.view.partitions)
		c.stops = stopsOf(sc.readers)
	}
	s.reading = sc
	if s.rest.Swap(false) && sc == nil {
		s.dropScratch()
	}
	s.mu.Unlock()
	if sc == nil {
		return false
	}
	err := c.read()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.measure(c)
	s.reading = nil
	if s.stopped {
		sc.out.close()
		return false
	}
	s.publish(sc, c.steps)
	if err != nil {
		return s.trouble(sc, err, c.logErr)
	}
	s.pause = 0
	if sc.atTail = !c.cut; sc.atTail {
		sc.readTo = c.closed
		s.keepScratch(now)
	}
	s.bulk.Store(sc.pos.through < s.view.created || c.cut)
	s.merge(sc)
	s.noteBehind()
	return true // choose says whether there is more
}

// measure notes what a chunk has done. Called with mu held.
func (s *source) measure(c *chunk) {
	s.rowsIn += c.rows
	if s.frag != nil {
		s.opRows = s.frag.OpRows(s.opRows[:0])
		for i := range min(len(s.opBase), len(s.opRows)) {
			s.opRows[i] += s.opBase[i]
		}
	}
}

// closed is the tick up to which what the source reads is final and here.
func (s *source) closed() ids.Tick {
	if s.up == nil {
		return s.rt.board.closedHere(s.p, s.epoch)
	}
	done, _ := s.up.output()
	return done
}

// trouble handles a failed chunk: what the log can't give now is tried again, all else ends the view on this node.
func (s *source) trouble(sc *scan, err error, ofLog bool) bool {
	if !ofLog {
		s.rt.failView(s.view, err)
		return false
	}
	// The scan may have read ahead of the steps that it made: it begins again where its readers are.
	s.drop(sc)
	s.dropScratch()
	s.retry(err)
	return false
}

// retry lets the source run again after a pause.
func (s *source) retry(err error) {
	s.pause = min(max(2*s.pause, s.rt.cfg.RetryMin), s.rt.cfg.RetryMax)
	if s.pause == s.rt.cfg.RetryMax {
		s.rt.log.Warn("a view can't read its stream's log; trying again", "view", s.view.name, "partition", s.p, "error", err)
	}
	s.until = time.Now().Add(s.pause)
	s.wakeAt(s.until)
}

// findStart moves readers that have nothing yet to the start of the log, which retention may have moved before the view
// was made.
func (s *source) findStart() error {
	if s.up != nil || s.plan.log.id == 0 {
		return nil
	}
	for _, r := range s.readers {
		if r.pos.offset != 0 || r.pos.through >= s.view.created || r.scan != nil {
			continue
		}
		if !s.started {
			start, _, err := s.rt.logs.End(s.p, s.plan.log.id)
			if err != nil {
				return err
			}
			s.logStart, s.started = start, true
		}
		if s.plan.log.compacted() && s.logStart > 0 && s.closed() > s.view.created+s.rt.cfg.RetainTicks {
			// What was removed is told by later records, which came after the view's beginning: its rows would be right now, but
			// not its changes since then.
			s.rt.wantRestart(s.view)
			return nil
		}
		r.pos.offset = s.logStart
	}
	return nil
}

// drop takes a scan away from its readers. Called with mu held.
func (s *source) drop(sc *scan) {
	for _, r := range sc.readers {
		r.scan = nil
		if sc.out.begun() { // it has a piece of a tick that can't be sent again
			s.readers = without(s.readers, r)
			r.closed = true
			r.refused("a stage's output couldn't be read to its end", false)
		}
	}
	sc.readers = nil
	sc.out.close()
	for i, o := range s.scans {
		if o == sc {
			s.scans = append(s.scans[:i], s.scans[i+1:]...)
			return
		}
	}
}

// choose returns the next scan, in turn, that has something to read and readers with room.
func (s *source) choose(closed ids.Tick, now time.Time) *scan {
	for range s.scans {
		s.turn++
		sc := s.scans[s.turn%len(s.scans)]
		if sc.readTo >= closed {
			continue
		}
		if !sc.started && now.Before(sc.notTill) && !s.allHere() {
			s.wakeAt(sc.notTill)
			continue
		}
		if s.room(sc, now) {
			sc.started = true
			return sc
		}
	}
	return nil
}

// allHere tells whether there are readers for all target partitions: then nobody else has to be waited for.
func (s *source) allHere() bool {
	n, want := 0, 0
	for _, in := range s.plan.consumers {
		if in.own {
			want++
		} else {
			want += s.view.partitions
		}
	}
	for _, r := range s.readers {
		n += len(r.targets)
	}
	return n >= want
}

// stallGrace is how long a reader may hold back the others of a scan of history without taking anything.
const stallGrace = time.Second

// room tells whether a scan may make more steps. A reader that is full while others are not is detached: at once from a
// live scan, after a while from a scan of history, where waiting is cheaper than reading everything twice.
func (s *source) room(sc *scan, now time.Time) bool {
	full := 0
	for _, r := range sc.readers {
		if r.full() {
			full++
			if r.stalled.IsZero() {
				r.stalled = now
			}
		} else {
			r.stalled = time.Time{}
		}
	}
	if full == 0 {
		return true
	}
	if full == len(sc.readers) || sc.out.begun() {
		return false // the readers of a piece of an output can't go on alone
	}
	kept := sc.readers[:0:0]
	wait := time.Time{}
	for _, r := range sc.readers {
		switch {
		case r.stalled.IsZero():
			kept = append(kept, r)
		case !sc.atTail && now.Sub(r.stalled) < stallGrace:
			kept = append(kept, r)
			wait = r.stalled.Add(stallGrace)
		default:
			r.scan = nil
		}
	}
	sc.readers = kept
	if !wait.IsZero() {
		s.wakeAt(wait)
		return false
	}
	return true
}

// publish hands steps to the scan's readers. Called with mu held, so that no reader gets one after it was closed.
func (s *source) publish(sc *scan, steps []*step) {
	for _, st := range steps {
		if len(sc.readers) > 1 {
			for i := range st.parts {
				st.parts[i].from = nil
			}
		}
		for _, r := range sc.readers {
			r.take(st, s.p)
		}
	}
}

// merge joins sc with another scan that stands at the same place.
func (s *source) merge(sc *scan) {
	for _, o := range s.scans {
		if o == sc || o.pos.offset != sc.pos.offset || !s.alike(o, sc.pos) || !s.alike(sc, o.pos) {
			continue
		}
		from, to := sc, o
		if to.pos.through < from.pos.through {
			from, to = to, from
		}
		for _, r := range from.readers {
			s.join(to, r)
		}
		from.readers = nil
		s.drop(from)
		return
	}
}

// join gives a reader that stands at the scan's place to it.
func (s *source) join(sc *scan, r *reader) {
	r.scan = sc
	sc.readers = append(sc.readers, r)
	if r.pos.through < sc.pos.through {
		r.take(&step{through: sc.pos.through, pos: sc.pos}, s.p)
	}
}

// place finds a scan for every reader that has none and room again.
func (s *source) place(now time.Time) {
	for i := 0; i < len(s.scans); i++ {
		if len(s.scans[i].readers) == 0 {
			s.drop(s.scans[i])
			i--
		}
	}
	for _, r := range slices.Clone(s.readers) {
		if r.scan != nil || !r.halfEmpty() || !s.serves(r) {
			continue
		}
		var found *scan
		for _, sc := range s.scans {
			if sc.pos.offset == r.pos.offset && s.alike(sc, r.pos) && (s.up == nil || r.pos.through >= s.view.created || sc.consumer == r.consumer) {
				found = sc
			}
		}
		if found == nil {
			found = &scan{pos: r.pos, readTo: r.pos.through, consumer: r.consumer}
			if r.pos.through < s.view.created {
				found.notTill = now.Add(s.rt.cfg.ShareWait)
			}
			s.scans = append(s.scans, found)
		}
		r.stalled = time.Time{}
		s.join(found, r)
	}
}

func wanted(want []bool, readers []*reader, partitions int) []bool {
	if want == nil {
		want = make([]bool, partitions)
	}
	clear(want)
	for _, r := range readers {
		for _, t := range r.targets {
			want[t] = true
		}
	}
	return want
}

// attach adds a reader made for this source. It may get its first step before attach returns.
func (s *source) attach(r *reader) error {
	s.mu.Lock()
	if s.stopped || r.closed {
		s.mu.Unlock()
		return fault.New(fault.NotPrimary, "partition %d of view %q isn't read here any more", s.p, s.view.name)
	}
	s.readers = append(s.readers, r)
	for _, t := range r.targets {
		s.durable[r.consumer][t] = r.durable // another node's than before, maybe
	}
	s.setLow()
	s.mu.Unlock()
	s.rt.sched.wake(s)
	return nil
}

// detach takes a reader away: it gets no step after detach returns.
func (s *source) detach(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.closed = true
	s.readers = without(s.readers, r)
	if r.scan != nil {
		r.scan.readers = without(r.scan.readers, r)
	}
}

func without(list []*reader, r *reader) []*reader {
	for i, o := range list {
		if o == r {
			return append(list[:i:i], list[i+1:]...)
		}
	}
	return list
}

// setDurable notes that a reader's targets will never ask for anything below offset again.
func (s *source) setDurable(r *reader, offset ids.Offset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range r.targets {
		d := &s.durable[r.consumer][t]
		*d = max(*d, offset)
	}
	s.setLow()
}

// forgetDurable is for targets that have moved: the node that has them now may have to begin anew.
func (s *source) forgetDurable(targets []ids.PartitionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.durable {
		for _, t := range targets {
			d[t] = 0
		}
	}
	s.setLow()
}

// setLow computes low: the lowest offset, or tick of an output, that any target may still ask for.
func (s *source) setLow() {
	low := ids.Offset(math.MaxUint64)
	for i, in := range s.plan.consumers {
		if in.own {
			low = min(low, s.durable[i][s.p])
			continue
		}
		for _, o := range s.durable[i] {
			low = min(low, o)
		}
	}
	s.low.Store(uint64(low))
}
