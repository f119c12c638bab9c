package partition

import (
	"slices"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/invariants"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// configure takes the configuration of a published state; the host gives each in Raft order, but may leave some out.
// The replica is one of cfg.Replicas.
func (r *replica) configure(now time.Duration, cfg *internalv1.PartitionConfig) {
	epoch := ids.Epoch(cfg.Epoch)
	if r.role == RoleFailed && !r.restart(cfg) {
		return
	}
	switch {
	case epoch < r.epoch():
		// The node's Raft log hasn't caught up with what a primary's message, or this node before it restarted, knew.
		// What that older configuration would allow may have been revoked since.
		return
	case epoch == ids.Epoch(r.cfg.Epoch):
		r.cfg = cfg // only the handover can differ
		if r.role == RolePrimary {
			r.handoverChanged(now)
		}
		return
	}
	// The same primary in the next epoch goes on without a pause: nobody else can have been primary in between.
	again := r.role == RolePrimary && ids.Epoch(r.cfg.Epoch)+1 == epoch
	r.cfg = cfg
	r.noteMembers()
	if cfg.Primary == string(r.self) {
		r.lead(now, again)
		return
	}
	r.follow()
}

// noteMembers keeps who has been in sync since it holds the partition. A learner that never was doesn't count when the
// majority is reckoned: a partition that grows from one copy to three takes appends all the while.
func (r *replica) noteMembers() {
	var members []ids.NodeID
	for _, id := range r.cfg.Replicas {
		n := ids.NodeID(id)
		if (slices.Contains(r.cfg.InSync, id) || slices.Contains(r.hard.members, n)) && len(members) < maxMembers && len(id) <= maxMemberLen {
			members = append(members, n)
		}
	}
	r.hard.members = members
}

// follow makes the replica a follower, or learner, of the configuration's primary.
func (r *replica) follow() {
	if r.role == RolePrimary {
		r.stepDown(r.moved())
	}
	t := term{ids.Epoch(r.cfg.Epoch), 0} // below every term that the primary can have in this epoch
	if r.hard.term.less(t) {
		r.adopt(t)
	} else {
		r.write(r.stateMut())
	}
	r.leader = ids.NodeID(r.cfg.Primary)
	r.role = RoleLearner
	if slices.Contains(r.cfg.InSync, string(r.self)) {
		r.role = RoleFollower
	}
}

// adopt makes t the replica's term. Nothing of an older one is taken or acknowledged any more.
func (r *replica) adopt(t term) {
	if t.epoch > r.hard.term.epoch {
		r.hard.joining = nil
	}
	if invariants.Enabled && t.less(r.hard.term) {
		invariants.Failed("partition %d: term %v after %v", r.id, t, r.hard.term)
	}
	r.hard.term = t
	r.termOp = r.write(r.stateMut())
	r.agreed, r.known, r.probe = 0, 0, 0
}

func (r *replica) moved() error {
	return fault.New(fault.NotPrimary, "partition %d has moved to another node; retry", r.id).WithRetryAfter(10 * time.Millisecond)
}

// restart makes an empty learner of a replica whose copy is damaged, once the configuration says that it is one. A held one
// goes on only by an operator's choice.
func (r *replica) restart(cfg *internalv1.PartitionConfig) bool {
	if ids.Epoch(cfg.Epoch) < r.epoch() {
		return false
	}
	if r.hard.held {
		return r.unhold(cfg)
	}
	if slices.Contains(cfg.InSync, string(r.self)) {
		r.cfg = cfg // elapse asks to be taken out
		return false
	}
	r.wipe(0, term{}, 0)
	r.hard.failed, r.cause, r.role, r.cfg = false, nil, RoleNone, &internalv1.PartitionConfig{Id: uint32(r.id)}
	r.write(r.stateMut())
	return true
}

// wipe empties the log; what follows begins behind base.
func (r *replica) wipe(base LSN, baseTerm term, baseBytes uint64) {
	lo, hi := partitionRange(r.id)
	r.tail.reset()
	r.producers.forget(0)
	r.streams = map[ids.StreamID]*streamLog{}
	r.hist = history{base: base, baseTerm: baseTerm}
	r.hard.base, r.hard.baseTerm, r.hard.baseBytes, r.hard.first = base, baseTerm, baseBytes, base+1
	r.end, r.commit, r.durable, r.memFirst = base, base, base, base+1
	r.endBytes, r.lastTick, r.lastTime = baseBytes, 0, 0
	r.commitPos = commitPos{bytes: baseBytes}
	r.agreed, r.known = 0, 0
	for i := range r.pending {
		r.pending[i].lsn = base
	}
	r.loadOp = r.write(mutation{key: lo, hi: hi}, r.stateMut())
}

// dropStream removes a stream's log: the stream isn't in the catalog any more.
func (r *replica) dropStream(s ids.StreamID) {
	lo, hi := logRange(r.id, s)
	plo, phi := producerRange(r.id, s)
	delete(r.streams, s)
	r.producers.forget(s)
	r.write(mutation{key: lo, hi: hi}, mutation{key: plo, hi: phi}, mutation{key: streamKey(r.id, s)})
}

// trim removes a stream's batches below start, which is the offset of a committed batch or the committed end: startBytes
// is its position, firstLSN the LSN of the batch there, 0 at the end.
func (r *replica) trim(s ids.StreamID, start ids.Offset, startBytes uint64, firstLSN LSN) {
	st := r.streams[s]
	if st == nil || r.role == RoleFailed || start <= st.start || start > st.committed {
		return
	}
	st.start, st.startBytes, st.firstLSN = start, startBytes, firstLSN
	if firstLSN == 0 && st.next > st.committed { // what isn't committed yet comes first now
		for lsn := r.commit + 1; lsn <= r.end; lsn++ {
			if e := r.tail.at(lsn); e.stream == s && !e.gone {
				st.firstLSN = lsn
				break
			}
		}
	}
	n := 0
	for n < len(st.recent) && st.recent[n].base < start {
		st.recentBytes -= int64(st.recent[n].payloadLen)
		n++
	}
	st.recent = st.recent[n:]
	fact := streamFact{start, startBytes, st.committed, st.committedBytes, st.lastTick, st.lastTime}
	r.write(
		mutation{key: logKey(r.id, s, 0), hi: logKey(r.id, s, start)},
		mutation{key: streamKey(r.id, s), value: fact.append(nil)},
	)
	if r.role == RolePrimary {
		r.primary.startsVersion++
		r.wakeStreaming()
	}
}

// trimIndex removes the part of the index below which no stream has a batch. The entry at the commit LSN stays: the log's
// end is known by it.
func (r *replica) trimIndex() {
	first := min(r.commit, r.durable)
	for _, st := range r.streams {
		if st.firstLSN != 0 {
			first = min(first, st.firstLSN)
		}
	}
	if first <= r.hard.first || r.role == RoleFailed {
		return
	}
	r.hard.first = first
	epoch := r.hist.trim(first)
	r.write(
		mutation{key: indexKey(r.id, 0), hi: indexKey(r.id, first)},
		mutation{key: epochKey(r.id, 0), hi: epochKey(r.id, epoch)},
		r.stateMut(),
	)
}
