package partition

import (
	"slices"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// received is a message of the primary whose entries have been decoded and checked against their checksums, which the
// driver does outside the replica's lock.
type received struct {
	*internalv1.LogAppend
	entries []*entry
}

// decodeAppend checks a message's entries. Corrupted when one isn't what its header says.
func decodeAppend(m *internalv1.LogAppend) (received, error) {
	out := received{LogAppend: m}
	if len(m.Entries) == 0 {
		return out, nil
	}
	out.entries = make([]*entry, 0, len(m.Entries))
	for i, raw := range m.Entries {
		e := &entry{payload: raw.Payload, gone: raw.Gone}
		if len(raw.Header) != headerLen {
			return out, fault.New(fault.Corrupted, "a batch header of %d bytes, not %d", len(raw.Header), headerLen)
		}
		if err := e.decode(raw.Header); err != nil {
			return out, err
		}
		copy(e.head[:], raw.Header)
		if uint32(e.partition) != m.Partition || e.lsn != LSN(m.Prev)+1+LSN(i) {
			return out, fault.New(fault.Corrupted, "batch %d of partition %d is in the place of %d of %d",
				e.lsn, e.partition, m.Prev+1+uint64(i), m.Partition)
		}
		if e.gone {
			e.payload = nil
		} else if err := e.checkPayload(raw.Payload); err != nil {
			return out, err
		}
		out.entries = append(out.entries, e)
	}
	return out, nil
}

func (r *replica) reply(kind internalv1.LogReplyKind) *internalv1.LogReply {
	return &internalv1.LogReply{Partition: uint32(r.id), Kind: kind, Term: r.hard.term.proto()}
}

// hear decides whether a message of a primary's term is taken, and follows that primary when it is new.
func (r *replica) hear(from ids.NodeID, t term, termStart LSN) bool {
	if cfg := r.cfg; r.role == RoleFailed && t.epoch == ids.Epoch(cfg.Epoch) && r.restart(cfg) {
		r.cfg = cfg // a learner begins anew at once
		r.noteMembers()
		r.follow()
	}
	switch {
	case r.role == RoleFailed:
		m := r.reply(internalv1.LogReplyKind_LOG_REPLY_KIND_FAILED)
		m.Term = t.proto() // the primary's own, or it wouldn't listen
		r.fx.replies = append(r.fx.replies, m)
		return false
	case t.epoch < r.epoch():
		r.fx.replies = append(r.fx.replies, r.reply(internalv1.LogReplyKind_LOG_REPLY_KIND_STALE))
		return false
	case t.less(r.hard.term), t.epoch == r.epoch() && r.role == RolePrimary:
		return false // of a process that is no more
	case t == r.hard.term && r.leader != "":
		return true
	}
	if r.role == RolePrimary {
		r.stepDown(r.moved())
		r.role = RoleNone // in sync or not: the configuration that says so is on its way
	}
	if t != r.hard.term && termStart-1 < r.commit && !r.ahead(t, termStart-1) {
		return false
	}
	r.leader = from
	if t == r.hard.term { // this node restarted
		return true
	}
	r.adopt(t)
	// The log as it was when that primary took over ends before termStart, and what it appended itself has its own
	// term: the rest is what an earlier primary didn't get committed. It must go before anything is acknowledged, or it
	// could come back after its tick was closed.
	if r.end >= termStart {
		if !r.cutTo(termStart - 1) {
			return false
		}
		r.termOp = r.op // the answer waits for this write too: it mustn't come back after a crash
	}
	return true
}

// cutTo truncates what isn't committed.
func (r *replica) cutTo(end LSN) bool {
	if end < r.commit {
		if r.givenUp() && !slices.Contains(r.cfg.InSync, string(r.self)) {
			r.wipe(0, term{}, 0) // the primary hears of it with the next message
			return false
		}
		r.hold(r.heldBecause(end))
		return false
	}
	r.truncate(end)
	return r.role != RoleFailed
}

// receive takes a message of a primary.
func (r *replica) receive(now time.Duration, from ids.NodeID, m received) {
	if !r.hear(from, termOf(m.Term), LSN(m.TermStart)) {
		return
	}
	prev, prevTerm := LSN(m.Prev), termOf(m.PrevTerm)
	loading := r.opDone < r.loadOp
	if loading && m.Probe != 0 {
		return // the primary asks again
	}
	if loading || !r.has(prev, prevTerm) {
		if m.Probe == 0 && len(m.entries) == 0 {
			return
		}
		hint := r.hist.floor(prevTerm, min(prev, r.end))
		hint = max(hint, r.hist.base)
		reject := r.reply(internalv1.LogReplyKind_LOG_REPLY_KIND_REJECT)
		reject.Probe, reject.Hint, reject.HintTerm = m.Probe, uint64(hint), r.hist.at(hint).proto()
		r.fx.replies = append(r.fx.replies, reject)
		return
	}
	r.agreed = max(r.agreed, prev)
	for _, e := range m.entries {
		if !r.take(e) {
			return
		}
	}
	r.agrees()
	r.known = max(r.known, LSN(m.Commit))
	r.advance(now, r.commitKnown())
	if m.Probe != 0 {
		r.probe = max(r.probe, m.Probe)
	}
	if m.Probe != 0 || len(m.entries) > 0 {
		r.fx.ack = true
	}
	r.fx.starts = append(r.fx.starts, m.Starts...)
}

// has tells whether the log agrees with one that has term t at lsn. What is committed agrees with every primary's.
func (r *replica) has(lsn LSN, t term) bool {
	if lsn > r.end {
		return false
	}
	if lsn <= r.commit && (lsn < r.hard.first || lsn <= r.hist.base) {
		return true
	}
	return lsn == 0 || r.hist.at(lsn) == t
}

// take adds an entry that follows what agrees, unless it is there already.
func (r *replica) take(e *entry) bool {
	switch {
	case e.lsn <= r.hist.base || e.lsn <= r.end && r.hist.at(e.lsn) == e.term:
		r.agreed = max(r.agreed, e.lsn)
		return true
	case e.lsn <= r.end:
		if !r.cutTo(e.lsn - 1) {
			return false
		}
	}
	if e.term.less(r.hist.at(r.end)) || r.hard.term.less(e.term) {
		r.fail(r.corrupt("batch %d has term %v, after %v", e.lsn, e.term, r.hist.at(r.end)))
		return false
	}
	st := r.streams[e.stream]
	if r.cat.dropped(e.stream) || st != nil && e.end() <= st.start {
		e.gone, e.payload = true, nil // dropped; or retention was about to remove it when the primary read it from disk
	}
	if st != nil && e.base != st.next && !e.gone {
		r.fail(r.corrupt("batch %d begins at offset %d of stream %d, which ends at %d", e.lsn, e.base, e.stream, st.next))
		return false
	}
	if e.producer != 0 && !r.cat.dropped(e.stream) {
		rec, err := r.producers.get(producerKey{e.stream, e.producer}, r.opDone)
		if err != nil {
			r.fail(err)
			return false
		}
		if rec != nil {
			e.rec = *rec
		}
		e.rec.push(e.sequence, result{e.lsn, e.base, e.tick, e.count})
	}
	r.push(e)
	r.agreed = max(r.agreed, e.lsn)
	return true
}

// commitKnown is how far the log is known to be committed and is on disk here.
func (r *replica) commitKnown() LSN { return min(r.known, r.agreed, r.durable) }

// takeAck returns what the primary is to be told, nil while there is nothing. The driver asks when fx.ack was set, as
// late as it can: an acknowledgement stands for all before it.
func (r *replica) takeAck() *internalv1.LogReply {
	if r.leader == "" || r.opDone < r.termOp || r.opDone < r.loadOp || r.role == RoleFailed || r.role == RolePrimary || r.hard.term.boot == 0 {
		return nil
	}
	m := r.reply(internalv1.LogReplyKind_LOG_REPLY_KIND_ACK)
	m.Agreed, m.Durable, m.Probe = uint64(r.agreed), uint64(min(r.agreed, r.durable)), r.probe
	return m
}

// receiveReset makes a learner begin anew, behind what the primary still has. The parts come in order; the driver
// drops a stream on which one is missing.
func (r *replica) receiveReset(now time.Duration, from ids.NodeID, m *internalv1.LogReset) {
	if !r.hear(from, termOf(m.Term), LSN(m.TermStart)) {
		return
	}
	if r.role != RoleLearner {
		return // only a member's copy may be needed; the configuration decides
	}
	if base := LSN(m.Base); base < r.commit && !r.givenUp() {
		r.spare(base, termOf(m.BaseTerm), m)
		return
	}
	if m.Part == 0 {
		r.wipe(0, term{}, 0)
		r.resetting, r.resetPart = m.Probe, 0
	}
	if r.resetting != m.Probe || r.resetPart != m.Part {
		return
	}
	r.resetPart++
	var muts []mutation
	for _, p := range m.Producers {
		var rec producerRecord
		if err := rec.decode(p.Record); err != nil {
			return
		}
		rec.truncate(LSN(m.Base))
		muts = append(muts, mutation{key: producerStoreKey(r.id, producerKey{ids.StreamID(p.Stream), p.ProducerId}), value: rec.append(nil)})
	}
	if !m.Last {
		r.write(muts...)
		return
	}
	base := LSN(m.Base)
	r.resetting = 0
	r.hist = history{base: base, baseTerm: termOf(m.BaseTerm)}
	r.hard.base, r.hard.baseTerm, r.hard.baseBytes, r.hard.first = base, r.hist.baseTerm, m.BaseBytes, base+1
	r.end, r.endBytes, r.commit, r.agreed, r.known, r.memFirst = base, m.BaseBytes, base, base, base, base+1
	r.commitPos = commitPos{bytes: m.BaseBytes}
	for _, s := range m.Streams {
		fact := streamFact{ids.Offset(s.Next), s.Bytes, ids.Offset(s.Next), s.Bytes, ids.Tick(s.LastTick), s.LastTimeUs}
		r.streams[ids.StreamID(s.Stream)] = fact.streamLog()
		r.lastTick, r.lastTime = max(r.lastTick, fact.lastTick), max(r.lastTime, fact.lastTime)
		muts = append(muts, mutation{key: streamKey(r.id, ids.StreamID(s.Stream)), value: fact.append(nil)})
	}
	r.commitPos.tick, r.commitPos.time = r.lastTick, r.lastTime
	r.probe, r.fx.ack = max(r.probe, m.Probe), true
	r.loadOp = r.write(append(muts, r.stateMut())...)
}

func (f *streamFact) streamLog() *streamLog {
	return &streamLog{
		start: f.start, committed: f.next, next: f.next,
		startBytes: f.startBytes, committedBytes: f.nextBytes, nextBytes: f.nextBytes,
		lastTick: f.lastTick, lastTime: f.lastTime,
	}
}
