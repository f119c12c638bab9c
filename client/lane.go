package client

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// Reasons that a partition gives when a batch isn't the one it expects next from a producer.
const (
	reasonOutOfSequence   = "OUT_OF_SEQUENCE"
	reasonUnknownProducer = "UNKNOWN_PRODUCER"
)

// settleTime is how long a stream that was described may be unknown to a node, which then hasn't heard of it yet.
const settleTime = 3 * time.Second

// resendAfter is how long a batch may be unanswered before it is sent again for no other reason.
const resendAfter = 10 * time.Second

// lane is one partition's way through the producer: the batch being filled, and the queue of sealed batches that are
// not done. The first `sent` of the queue have been given to the stream in this attempt. What goes wrong with any of
// them ends the attempt: all that are not done are sent again, in order, which the partition recognises by their
// sequence numbers.
//
// Lock order: lane.mu, then Producer.mu or appendStream.mu, which don't nest.
type lane struct {
	p  *Producer
	id uint32

	mu      sync.Mutex
	open    *batch
	credit  int  // bytes taken from the budget and not used yet
	closed  bool // no more records
	listed  bool // the pacer has the lane
	overdue bool // the open batch has lingered long enough, and waits for acknowledgements

	queue   []*batch
	sent    int
	attempt uint64
	epoch   uint64        // of the partition, as known when the head of the queue was sent
	stream  *appendStream // nil: none chosen
	ready   bool          // in stream's list
	moving  bool          // to another stream, once nothing is under way on this one
	waiting *time.Timer   // resumes the lane; nil: it isn't paused

	producer uint64 // id; with next, renewed when a batch is refused for good
	next     uint64 // sequence of the next batch
	failures int    // attempts that failed since the last acknowledgement
	lastErr  error

	sealed, done uint64 // batches so far

	backlog atomic.Int32 // length of queue, for other lanes

	finished   []*batch // done, in order, to be delivered
	delivering bool
}

// add puts a record into the open batch. The credit is there.
func (l *lane) add(key []byte, hasKey bool, value []byte, size int, done func(Ack, error), tag uint64, tagged bool) {
	p := l.p
	if l.open != nil && l.open.records.Bytes()+size > p.opts.batchBytes {
		l.seal()
	}
	b := l.open
	if b == nil {
		b = p.spare.Get().(*batch)
		b.opened = time.Now()
		l.open = b
		p.outstanding.Add(1)
		if !l.listed {
			l.listed = true
			p.list(l)
		}
	}
	b.records.Add(key, hasKey, value)
	if tagged {
		b.tags = append(b.tags, tag)
	}
	if done != nil || len(b.callbacks) > 0 {
		for len(b.callbacks) < b.records.Count()-1 {
			b.callbacks = append(b.callbacks, nil)
		}
		b.callbacks = append(b.callbacks, done)
	}
	l.credit -= size
	b.memory += size
	if b.records.Bytes() >= p.opts.batchBytes || (p.opts.linger == 0 && len(l.queue) < eagerInFlight) {
		l.seal()
	}
}

// seal ends the open batch, if there is one, and has it sent.
func (l *lane) seal() {
	b := l.open
	if b == nil {
		return
	}
	l.open, l.overdue = nil, false
	b.sealed = time.Now()
	b.count = b.records.Count()
	b.seq = l.next
	l.next++
	l.sealed++
	l.queue = append(l.queue, b)
	l.backlog.Store(int32(len(l.queue)))
	l.p.sticky.CompareAndSwap(l.id, l.successor())
	l.kick()
}

// successor is the lane where records without a key go on: the next one that isn't held up.
func (l *lane) successor() uint32 {
	n := uint32(len(l.p.lanes))
	for i := uint32(1); i < n; i++ {
		if id := (l.id + i) % n; l.p.lanes[id].backlog.Load() < maxInFlight {
			return id
		}
	}
	return (l.id + 1) % n
}

// pace seals the open batch when it has lingered long enough. It returns when to look again, and whether to.
func (l *lane) pace(now time.Time, linger time.Duration) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open != nil && !l.overdue {
		if at := l.open.opened.Add(linger); now.Before(at) {
			return at, true
		}
		if len(l.queue) < eagerInFlight {
			l.seal()
		} else {
			l.overdue = true
		}
	}
	// Unlisted, the lane is listed again with its next batch; one that is overdue is sealed by an acknowledgement.
	l.listed = false
	return time.Time{}, false
}

// returnCredit gives back what an idle lane holds of the budget.
func (l *lane) returnCredit() {
	if l.open == nil {
		l.p.memory.give(l.credit)
		l.credit = 0
	}
}

// kick puts the lane on its stream's list if it has something to send.
func (l *lane) kick() {
	if l.moving && l.sent == 0 {
		l.leaveStream()
	}
	if l.waiting != nil || l.ready || l.moving || l.sent >= min(len(l.queue), maxInFlight) {
		return
	}
	if l.stream == nil {
		s, err := l.p.streamFor(l.id)
		if err != nil {
			l.lastErr = err
			l.retry()
			return
		}
		l.stream = s
	}
	l.ready = true
	l.stream.enqueue(l)
}

// take returns the next batch for stream s to send, if any, and the attempt that it belongs to.
func (l *lane) take(s *appendStream) (b *batch, requestID uint64, m appendMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream != s {
		return nil, 0, m
	}
	l.ready = false
	if l.moving && l.sent > 0 {
		return nil, 0, m
	}
	for l.sent < len(l.queue) && l.queue[l.sent].done {
		if l.queue[l.sent].err != nil {
			return nil, 0, m // those behind it get new numbers once it has left
		}
		l.sent++
	}
	if l.sent >= min(len(l.queue), maxInFlight) {
		return nil, 0, m
	}
	b = l.queue[l.sent]
	if l.sent == 0 {
		l.epoch = l.p.epochs[l.id].Load()
	}
	l.sent++
	b.sends++
	b.sentAt = time.Now()
	requestID = s.expect(l, b, l.attempt)
	m = appendMessage{requestID: requestID, stream: l.p.stream, partition: l.id, seq: b.seq, producer: l.producer, batch: b}
	l.kick()
	return b, requestID, m
}

// acknowledged takes in a positive answer, of this attempt or an earlier one.
func (l *lane) acknowledged(b *batch, a *millracev1.Appended) {
	l.mu.Lock()
	if b.done {
		l.mu.Unlock()
		return
	}
	b.done = true
	b.ack = Ack{Partition: a.Partition, Offset: a.BaseOffset, Tick: a.Tick}
	l.failures = 0
	if b.sends == 1 {
		l.p.acknowledgedIn(time.Since(b.sentAt))
	}
	l.p.c.See(a.Tick)
	l.pop()
	if l.overdue && len(l.queue) < eagerInFlight {
		l.seal()
	}
	l.kick()
	l.deliver()
}

// refused takes in a negative answer.
func (l *lane) refused(s *appendStream, b *batch, attempt uint64, err error) {
	l.mu.Lock()
	if b.done || attempt != l.attempt || l.stream != s {
		l.mu.Unlock() // a later attempt will get its own answer
		return
	}
	l.lastErr = err
	reason, kind := Reason(err), fault.KindOf(err)
	switch {
	case reason == reasonUnknownProducer && b == l.queue[0] && b.seq > 1:
		// All before it was acknowledged, and the partition no longer remembers: this batch is not there.
		l.renumber()
		l.retry()
	case permanent(kind, reason) && !(kind == fault.NotFound && time.Since(b.sealed) < settleTime):
		b.done, b.err = true, err
		l.restart()
		l.pop()
		l.kick()
	default:
		if kind != fault.Exhausted {
			signal(l.p.refresh)
			l.leaveStream()
		}
		l.retry()
	}
	l.deliver()
}

// permanent tells whether sending the same batch again can't help, and it isn't in the log. An internal error, or damage, isn't:
// what was done is unknown, and only sending again tells.
func permanent(kind fault.Kind, reason string) bool {
	if reason == reasonOutOfSequence || reason == reasonUnknownProducer {
		return false
	}
	switch kind {
	case fault.Invalid, fault.NotFound, fault.Exists, fault.Conflict, fault.TooLarge, fault.Unsupported:
		return true
	}
	return false
}

// streamFailed ends the attempt on a stream that broke.
func (l *lane) streamFailed(s *appendStream, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream != s {
		return
	}
	l.lastErr = err
	l.leaveStream()
	if len(l.queue) > 0 {
		l.retry()
	}
}

// leaveStream has the next attempt choose a stream anew.
func (l *lane) leaveStream() { l.stream, l.ready, l.moving = nil, false, false }

// rerouted has the lane go on at its partition's primary if it goes elsewhere, at once if it is paused because the one
// before failed. Batches under way are waited for, so
// that none overtakes another; but not for long when the partition has been configured anew since they were sent: the
// node may have forwarded them to a primary that is lost.
func (l *lane) rerouted() {
	addr, ok := l.p.primary(l.id)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting != nil && l.epoch < l.p.epochs[l.id].Load() && fault.KindOf(l.lastErr) != fault.Exhausted {
		l.failures = 0 // those were the lost primary's
		l.resume()
		return
	}
	if !ok || l.stream == nil {
		return
	}
	switch {
	case l.unanswered(time.Now()) > silence && l.epoch < l.p.epochs[l.id].Load():
		l.leaveStream()
		l.restart()
	case l.stream.node.addr != addr:
		l.moving = true
	}
	l.kick()
}

// unanswered returns how long the oldest batch under way has been waiting for its answer.
func (l *lane) unanswered(now time.Time) time.Duration {
	if l.sent == 0 || l.queue[0].done {
		return 0
	}
	return now.Sub(l.queue[0].sentAt)
}

// restart begins a new attempt: everything that isn't done will be sent again.
func (l *lane) restart() {
	l.attempt++
	l.sent = 0
}

// retry begins a new attempt after a pause.
func (l *lane) retry() {
	l.restart()
	l.failures++
	if l.waiting != nil {
		return
	}
	l.p.troubled.Add(1)
	var timer *time.Timer
	timer = time.AfterFunc(retryDelay(l.failures, l.lastErr), func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.waiting == timer { // else the pause was ended before, and this may be another
			l.resume()
		}
	})
	l.waiting = timer
}

// resume ends the pause.
func (l *lane) resume() {
	if l.waiting == nil {
		return
	}
	l.waiting.Stop()
	l.waiting = nil
	l.p.troubled.Add(-1)
	if l.p.ctx.Err() == nil {
		l.kick()
	}
}

// renumber gives the queue a new producer id and sequence numbers from 1. Copies with the old numbers that are still
// under way can't be appended any more: the number before them never was.
func (l *lane) renumber() {
	l.producer, l.next = newProducerID(), 1
	for _, b := range l.queue {
		b.seq = l.next
		l.next++
	}
}

// pop moves batches that are done from the head of the queue to those to be delivered.
func (l *lane) pop() {
	for len(l.queue) > 0 && l.queue[0].done {
		b := l.queue[0]
		l.queue[0] = nil
		l.queue = l.queue[1:]
		l.sent = max(l.sent-1, 0)
		l.finished = append(l.finished, b)
		if b.err != nil {
			l.renumber()
		}
	}
	l.backlog.Store(int32(len(l.queue)))
}

// expire gives up batches that were not acknowledged within the timeout. What was sent and not answered may have been
// appended, now or later, so all of that goes together and the rest gets new numbers. Before that, while an answer is
// long in coming, it has the routes looked up and in the end the batches sent again.
func (l *lane) expire(now time.Time) {
	l.mu.Lock()
	switch d := l.unanswered(now); {
	case d > resendAfter:
		l.leaveStream()
		l.restart()
		l.kick()
	case d > silence:
		signal(l.p.refresh)
	}
	if len(l.queue) == 0 || now.Sub(l.queue[0].sealed) < l.p.opts.timeout {
		l.mu.Unlock()
		return
	}
	err := fault.New(fault.Deadline, "not acknowledged within %s; whether it was appended is unknown", l.p.opts.timeout)
	if l.lastErr != nil {
		err.Message += ": " + l.lastErr.Error()
	}
	l.restart()
	for _, b := range l.queue {
		if !b.done && (b.sends > 0 || now.Sub(b.sealed) >= l.p.opts.timeout) {
			b.done, b.err = true, err
		}
	}
	l.pop()
	l.kick()
	l.deliver()
}

// abandon gives up all batches.
func (l *lane) abandon(err error) {
	l.mu.Lock()
	l.seal()
	l.restart()
	for _, b := range l.queue {
		if !b.done {
			b.done, b.err = true, err
		}
	}
	l.pop()
	l.deliver()
}

func (l *lane) doneBatches() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

// deliver reports finished batches, in order, and unlocks the lane: callbacks run without it, one goroutine at a time.
func (l *lane) deliver() {
	if l.delivering {
		l.mu.Unlock()
		return
	}
	l.delivering = true
	for len(l.finished) > 0 {
		batches := l.finished
		l.finished = nil
		l.mu.Unlock()
		for _, b := range batches {
			l.report(b)
		}
		l.mu.Lock()
		l.done += uint64(len(batches))
		if l.open == nil && len(l.queue) == 0 {
			l.returnCredit()
		}
		l.mu.Unlock()
		for _, b := range batches {
			l.p.memory.give(b.memory)
			err := b.err
			if b.sends == 1 && err == nil { // else an older stream may still hold its payload
				b.reset(l.p.opts.batchBytes)
				l.p.spare.Put(b)
			}
			l.p.finished(err)
		}
		l.mu.Lock()
	}
	l.delivering = false
	l.mu.Unlock()
}

// report calls back for a batch.
func (l *lane) report(b *batch) {
	ack := b.ack
	for i, done := range b.callbacks {
		if done == nil {
			continue
		}
		if b.err != nil {
			done(Ack{Partition: l.id}, b.err)
			continue
		}
		done(Ack{Partition: ack.Partition, Offset: ack.Offset + uint64(i), Tick: ack.Tick}, nil)
	}
	if fn := l.p.opts.onBatch; fn != nil {
		fn(BatchResult{First: ack, Count: b.count, Tags: b.tags, Err: b.err})
	}
}
