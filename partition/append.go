package partition

import (
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
)

// appendReq is one append, with what the client has said in its header.
type appendReq struct {
	header
	payload  []byte
	seen     ids.Tick
	since    ids.Tick // see AppendRequest.UnchangedSince
	made     bool     // its base is given: see AppendRequest.Generated
	wall     int64    // microseconds since the Unix epoch, when it came
	done     func(AppendResult, error)
	deadline time.Duration // while it is held
	sure     bool          // this node was the primary after it came
	copy     bool          // of the compaction: it isn't held back by hush
	expect   ids.Offset    // and must begin here
}

// maxHeld bounds the appends that wait for their partition to open; their bytes are bounded with all that is in flight.
const maxHeld = 1024

// append takes a batch. What it holds counts as in flight until fx.freed says otherwise.
func (r *replica) append(now time.Duration, q *appendReq) {
	if err := r.refusal(); err != nil {
		r.refuse(q, err)
		return
	}
	ps := &r.primary
	// Those that wait keep their order, and whoever comes later waits behind them: a producer's batches must not pass
	// each other.
	if len(ps.held) == 0 && r.openFor(q) {
		r.admit(now, q)
		return
	}
	if len(ps.held) >= maxHeld {
		r.refuse(q, fault.New(fault.Exhausted, "partition %d: %d appends wait for it to open; retry", r.id, len(ps.held)).
			WithRetryAfter(20*time.Millisecond))
		return
	}
	q.deadline = now + r.opt.holdWait
	ps.held = append(ps.held, q)
	r.fx.tick = true
}

// refusal tells why the replica takes no appends now.
func (r *replica) refusal() error {
	ps := &r.primary
	switch {
	case r.role == RoleFailed:
		return fault.New(fault.Unavailable, "partition %d: this copy is damaged; retry", r.id).WithRetryAfter(100 * time.Millisecond)
	case r.role != RolePrimary:
		return r.moved()
	case len(r.cfg.InSync) < r.minInSync():
		return fault.New(fault.Unavailable, "partition %d has %d in-sync replicas, it needs %d to take appends; retry when more nodes are back",
			r.id, len(r.cfg.InSync), r.minInSync()).WithReason("MIN_IN_SYNC").WithRetryAfter(200 * time.Millisecond)
	case ps.stalled:
		return fault.New(fault.Unavailable, "partition %d: an in-sync replica doesn't answer; retry", r.id).
			WithRetryAfter(100 * time.Millisecond)
	}
	return nil
}

func (r *replica) minInSync() int {
	if r.opt.minInSync > 0 {
		return r.opt.minInSync
	}
	return min(len(r.hard.members), max(1, r.cat.target))/2 + 1
}

// openFor tells whether the append can be stamped now.
func (r *replica) openFor(q *appendReq) bool {
	if r.primary.hushed != 0 && r.primary.hushed == q.stream && !q.copy {
		return false
	}
	return r.primary.open != 0 && q.seen <= r.primary.open && !r.handingOver() && !r.primary.superseded && r.opDone >= r.loadOp
}

func (r *replica) notOpen(q *appendReq) error {
	switch {
	case r.primary.superseded:
		return r.moved()
	case r.handingOver():
		return fault.New(fault.NotPrimary, "partition %d is being handed over; retry", r.id).WithRetryAfter(20 * time.Millisecond)
	case r.primary.open == 0:
		return fault.New(fault.Unavailable, "partition %d waits for its first tick; retry", r.id).WithRetryAfter(50 * time.Millisecond)
	}
	return fault.New(fault.Unavailable, "partition %d is at tick %d, the append has seen %d; retry", r.id, r.primary.open, q.seen).
		WithRetryAfter(50 * time.Millisecond)
}

// release admits what was held, as far as it can be stamped now.
func (r *replica) release(now time.Duration) {
	ps := &r.primary
	for len(ps.held) > 0 && r.openFor(ps.held[0]) {
		q := ps.held[0]
		ps.held[0] = nil
		ps.held = ps.held[1:]
		r.admit(now, q)
	}
	if len(ps.held) == 0 {
		ps.held = nil
	}
}

// admit gives the batch its place in the log, unless it has one.
func (r *replica) admit(now time.Duration, q *appendReq) {
	if r.cat.streams[q.stream] == nil {
		r.refuse(q, unknownStream(r.cat, q.stream))
		return
	}
	e := &entry{header: q.header, payload: q.payload, at: now, charged: true}
	if q.producer != 0 && !r.admitSequence(now, q, e) {
		return
	}
	if r.changedSince(q.stream, q.since) {
		r.refuse(q, fault.New(fault.Conflict, "partition %d: stream %d has records above tick %d", r.id, q.stream, q.since).WithReason(ReasonChanged))
		return
	}
	e.partition, e.term, e.lsn = r.id, r.hard.term, r.end+1
	e.tick, e.timeMicros, e.totalBytes = r.primary.open, max(q.wall, r.lastTime), r.endBytes
	if e.base = 0; r.streams[q.stream] != nil {
		e.base, e.streamBytes = r.streams[q.stream].next, r.streams[q.stream].nextBytes
	}
	if q.made && e.base != q.base {
		r.refuse(q, fault.New(fault.Conflict, "partition %d: stream %d goes on at offset %d, not %d", r.id, q.stream, e.base, q.base).WithReason(ReasonChanged))
		return
	}
	if e.end() < e.base {
		r.refuse(q, fault.New(fault.Exhausted, "partition %d: stream %d has no more offsets", r.id, q.stream))
		return
	}
	if q.producer != 0 {
		e.rec.push(q.sequence, result{e.lsn, e.base, e.tick, e.count})
	}
	e.encode(e.head[:])
	e.wait(waiter{done: q.done})
	for _, p := range r.primary.peers {
		if p.counts() && p.match == r.end {
			p.waitSince = now
		}
		if p.mode == modeStreaming {
			r.fx.wake = append(r.fx.wake, p)
		}
	}
	r.push(e)
	r.fx.tick = true
}

// changedSince tells whether a stream has records stamped above a closed tick; what isn't committed is.
func (r *replica) changedSince(s ids.StreamID, since ids.Tick) bool {
	st := r.streams[s]
	return since != 0 && st != nil && (st.next > st.committed || st.lastTick > since)
}

// admitSequence checks an idempotent producer's sequence number and puts its record into e. It reports whether the
// batch is to be appended; if not it has been answered, or waits for the first copy to be committed.
func (r *replica) admitSequence(now time.Duration, q *appendReq, e *entry) bool {
	rec, err := r.producers.get(producerKey{q.stream, q.producer}, r.opDone)
	if err != nil {
		r.refuse(q, err)
		return false
	}
	switch {
	case rec == nil && q.sequence != 1:
		r.doubt(now, q, fault.New(fault.Conflict, "partition %d doesn't know producer %d, which begins with sequence %d; begin with 1",
			r.id, q.producer, q.sequence).WithReason("UNKNOWN_PRODUCER"))
		return false
	case rec == nil:
		return true
	case q.sequence > rec.last+1 || q.sequence == 0:
		r.doubt(now, q, fault.New(fault.Conflict, "partition %d expects sequence %d of producer %d, not %d; send what is missing",
			r.id, rec.last+1, q.producer, q.sequence).WithReason("OUT_OF_SEQUENCE"))
		return false
	case q.sequence <= rec.last:
		r.repeat(now, q, rec)
		return false
	case rec.n == rememberedResults && rec.results[0].lsn > r.commit:
		r.refuse(q, fault.New(fault.Exhausted, "partition %d: %d batches of producer %d wait for their commit; retry",
			r.id, rec.n, q.producer).WithRetryAfter(10*time.Millisecond))
		return false
	}
	e.rec = *rec
	return true
}

// repeat answers a batch that is in the log already with what its first copy got, once that is committed.
func (r *replica) repeat(now time.Duration, q *appendReq, rec *producerRecord) {
	res, ok := rec.find(q.sequence)
	if !ok {
		r.doubt(now, q, fault.New(fault.Conflict, "partition %d has sequence %d of producer %d, but remembers only the last %d; it was appended",
			r.id, q.sequence, q.producer, rec.n).WithReason("DUPLICATE_SEQUENCE"))
		return
	}
	r.fx.freed += int64(len(q.payload))
	if e := r.tail.at(res.lsn); res.lsn > r.commit && e != nil {
		e.wait(waiter{q.done, true})
		return
	}
	r.fx.done = append(r.fx.done, completion{done: q.done, result: AppendResult{
		BaseOffset: res.base, Count: res.count, Tick: res.tick, Duplicate: true,
	}})
}

func unknownStream(c *catalog, s ids.StreamID) error {
	if !c.dropped(s) {
		return fault.New(fault.Unavailable, "stream %d isn't known here yet; retry", s).WithRetryAfter(20 * time.Millisecond)
	}
	return fault.New(fault.NotFound, "stream %d doesn't exist; it was dropped", s).WithReason("UNKNOWN_STREAM")
}

// verdict is an append that is to be refused for what the log says of its producer, once that is sure.
type verdict struct {
	q        *appendReq
	barrier  uint64
	deadline time.Duration
}

// doubt refuses a batch for what the log says of its producer. A primary that was replaced without knowing may lack
// what the producer was told by its successor; its word would make the producer begin anew, and append twice. So every
// in-sync member is asked first whether it still follows; then the batch is looked at again, since what it lacked may
// have come.
func (r *replica) doubt(now time.Duration, q *appendReq, err error) {
	if q.sure {
		r.refuse(q, err)
		return
	}
	ps := &r.primary
	if len(ps.verdicts) >= maxHeld {
		r.refuse(q, fault.New(fault.Exhausted, "partition %d: %d refused appends wait; retry", r.id, len(ps.verdicts)).
			WithRetryAfter(20*time.Millisecond))
		return
	}
	ps.probes++
	ps.barrier = ps.probes
	ps.verdicts = append(ps.verdicts, verdict{q, ps.barrier, now + r.opt.holdWait})
	r.wakeStreaming()
	r.judge(now)
}

// judge looks again at the appends that waited for the in-sync members' word.
func (r *replica) judge(now time.Duration) {
	ps := &r.primary
	if len(ps.verdicts) == 0 || !ps.established {
		return
	}
	sure := ps.probes
	for _, p := range ps.peers {
		if p.counts() {
			sure = min(sure, p.echo)
		}
	}
	n := 0
	for n < len(ps.verdicts) && ps.verdicts[n].barrier <= sure {
		n++
	}
	ready := ps.verdicts[:n]
	if ps.verdicts = ps.verdicts[n:]; len(ps.verdicts) == 0 {
		ps.verdicts = nil
	}
	for _, v := range ready {
		v.q.sure = true
		r.append(now, v.q)
	}
}
