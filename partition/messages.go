package partition

import (
	"time"

	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// messageFor returns what is to be sent to a replica now, about budget bytes of payloads at most, or nil. The driver
// asks when fx.wake names the replica, and again until it gets nil; a message that it doesn't deliver must be followed
// by disconnected.
func (r *replica) messageFor(p *progress, now time.Duration, budget int) *internalv1.LogAppend {
	if r.role != RolePrimary || p.r != r || r.peer(p.node) != p {
		return nil
	}
	switch p.mode {
	case modeProbing:
		if p.probeSent {
			return nil
		}
		if prev := p.next - 1; prev < r.hist.base || prev+1 < r.hard.first || prev > r.end {
			p.next = r.end + 1
		}
		p.probeSent, p.probeAt = true, now
		m := r.message(p)
		m.Probe = p.probe
		return m
	case modeStreaming:
		return r.streamMessage(p, budget)
	}
	return nil
}

// message is a message without entries, whose place is p.next.
func (r *replica) message(p *progress) *internalv1.LogAppend {
	m := &internalv1.LogAppend{
		Partition: uint32(r.id), Term: r.hard.term.proto(), TermStart: uint64(r.primary.start), Commit: uint64(r.commit),
		Prev: uint64(p.next - 1), PrevTerm: r.hist.at(p.next - 1).proto(),
	}
	p.commitSent = r.commit
	if p.mode != modeProbing && p.startsSent != r.primary.startsVersion {
		p.startsSent = r.primary.startsVersion
		for s, st := range r.streams {
			if st.start > 0 {
				m.Starts = append(m.Starts, &internalv1.StreamStart{Stream: uint64(s), Start: uint64(st.start)})
			}
		}
	}
	return m
}

// pos is the position behind the entry at lsn, which is in the tail or the last one.
func (r *replica) posAt(lsn LSN) uint64 {
	if e := r.tail.at(lsn); e != nil {
		return e.pos()
	}
	return r.endBytes
}

// windowFull tells whether a learner has as much under way as it may. What is under way to in-sync members is bounded
// with all that isn't committed.
func (r *replica) windowFull(p *progress) bool {
	return !p.counts() && len(p.marks) > 0 && int64(p.sentPos-p.ackPos) > r.opt.copyWindow
}

func (r *replica) streamMessage(p *progress, budget int) *internalv1.LogAppend {
	if p.next < r.memFirst {
		r.setMode(p, modeCopying)
		return nil
	}
	barrier := p.barrier < r.primary.barrier && p.counts()
	if p.next > r.end && p.commitSent >= r.commit && p.startsSent == r.primary.startsVersion && !barrier ||
		p.next <= r.end && r.windowFull(p) {
		return nil
	}
	m := r.message(p)
	if barrier {
		p.barrier = r.primary.barrier
		m.Probe = p.barrier
	}
	size := 0
	for p.next <= r.end && size < budget {
		e := r.tail.at(p.next)
		if size > 0 && size+int(e.payloadLen) > budget {
			break
		}
		m.Entries = append(m.Entries, &internalv1.LogEntry{Header: e.head[:], Payload: e.payload, Gone: e.gone})
		size += int(e.payloadLen) + headerLen
		p.next++
	}
	if n := len(m.Entries); n > 0 && !p.counts() {
		p.mark(p.next-1, r.posAt(p.next-1))
	}
	return m
}

func (p *progress) mark(lsn LSN, pos uint64) {
	p.sentPos = pos
	p.marks = append(p.marks, posMark{lsn, pos})
}

// copyJob says what the driver shall read from disk for a replica.
type copyJob struct {
	from, through LSN // of the index, inclusive
	term          term
	probe         uint64
	reset         bool // instead: all of the streams' ends and producers, for a reset
}

// copyNext returns what is to be read for a replica now. The driver asks when fx.copies names it, and after each copied.
func (r *replica) copyNext(p *progress) (job copyJob, ok bool) {
	if r.role != RolePrimary || r.peer(p.node) != p || p.mode != modeCopying || p.resetting || r.windowFull(p) {
		return job, false
	}
	job = copyJob{from: p.next, through: r.durable, term: r.hard.term, probe: p.probe}
	if p.lost || p.next < r.hard.first {
		if p.counts() {
			return job, false // it must not be reset; elapse has it removed
		}
		job.reset = true
		return job, true
	}
	if p.next >= r.memFirst {
		r.setMode(p, modeStreaming)
		p.commitSent = 0 // something is said at once: the acknowledgements of what was copied come on the stream that spoke last
		r.fx.wake = append(r.fx.wake, p)
		return job, false
	}
	return job, p.next <= r.durable
}

// copied takes what was read for a job: the entries from job.from on, contiguous, the last of them at last, whose
// position is pos. It returns the message to send, nil when the job is out of date. Without entries the index begins
// later by now, and the replica needs a reset.
func (r *replica) copied(p *progress, job copyJob, entries []*internalv1.LogEntry, last LSN, pos uint64) *internalv1.LogAppend {
	if r.role != RolePrimary || r.peer(p.node) != p || p.mode != modeCopying || job.term != r.hard.term ||
		job.probe != p.probe || job.from != p.next {
		return nil
	}
	if len(entries) == 0 {
		p.lost = p.next < r.hard.first
		return nil
	}
	m := r.message(p)
	m.Entries = entries
	p.next = last + 1
	p.mark(last, pos)
	return m
}

// resetBase is what a reset begins with: where the log starts, and the streams of which nothing committed is left.
func (r *replica) resetBase(p *progress, job copyJob) *internalv1.LogReset {
	if r.role != RolePrimary || r.peer(p.node) != p || p.mode != modeCopying || job.term != r.hard.term || job.probe != p.probe {
		return nil
	}
	base := r.hard.first - 1
	r.primary.probes++
	p.probe, p.resetting, p.lost, p.next = r.primary.probes, true, false, base+1
	p.marks = p.marks[:0]
	m := &internalv1.LogReset{
		Partition: uint32(r.id), Term: r.hard.term.proto(), TermStart: uint64(r.primary.start), Probe: p.probe,
		Base: uint64(base), BaseTerm: r.hist.at(base).proto(),
	}
	for s, st := range r.streams {
		// The others are known by the entries that follow. Entries that aren't committed may never come.
		if st.firstLSN == 0 || st.firstLSN > r.commit {
			m.Streams = append(m.Streams, &internalv1.LogResetStream{
				Stream: uint64(s), Next: uint64(st.committed), LastTick: uint64(st.lastTick), LastTimeUs: st.lastTime, Bytes: st.committedBytes,
			})
		}
	}
	return m
}
