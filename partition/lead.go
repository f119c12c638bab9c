package partition

import (
	"slices"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/invariants"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// primaryState is what a replica knows while it is the primary.
type primaryState struct {
	peers []*progress
	start LSN // the first LSN of the term

	// established: every in-sync member has been heard in this term, and has the log as it was when this node took
	// over. Until then nothing is committed and no tick closes: an older primary may still hold entries that some
	// member would bring back.
	established bool
	stalled     bool // an in-sync member hasn't answered in time
	superseded  bool // a member knows of a newer epoch
	copying     int  // peers in modeCopying

	open, closed ids.Tick
	hasClosed    bool
	closing      []pendingClose
	data         []StreamTick // committed and not yet told with a Closing; rising ticks

	held          []*appendReq
	hushed        ids.StreamID  // appends to it wait: see hush; 0: none
	hushedUntil   time.Duration // at most
	handoverAsked time.Duration // when; 0: not
	startsVersion uint64        // counts changes of the streams' starts
	probes        uint64        // numbers them
	verdicts      []verdict
	barrier       uint64 // the probe that the last of them waits for
}

// pendingClose is a tick that closes once everything up to end is committed.
type pendingClose struct {
	tick ids.Tick
	end  LSN
}

type peerMode uint8

const (
	modeDown      peerMode = iota // no connection
	modeProbing                   // asked whether its log agrees at next-1
	modeStreaming                 // gets entries from memory as they come
	modeCopying                   // gets entries from disk
)

// progress is what the primary knows of another replica.
type progress struct {
	node      ids.NodeID
	r         *replica
	mode      peerMode
	inSync    bool
	joining   bool   // AddToInSync is under way: it may be in sync already, so commits wait for it
	joinDoubt bool   // an answer about joining was lost: the proposal may be accepted late
	joinOp    uint64 // the write that remembers joining, before the coordinator is asked; 0: it was
	confirmed bool   // has acknowledged, in this term, the log as it was at the term's start
	heard     bool
	lost      bool // no position of its log is known to agree with ours

	match      LSN    // it has everything up to here on disk
	next       LSN    // to send
	probe      uint64 // the probe under way
	probeSent  bool
	probeAt    time.Duration
	echo       uint64        // the highest probe that it has answered
	barrier    uint64        // the highest that it was sent for a verdict
	rejoinAt   time.Duration // not proposed for the in-sync set before, unless it connects anew
	waitSince  time.Duration // since when it has owed an acknowledgement
	askedAt    time.Duration // when the coordinator was last asked about it
	asking     bool
	commitSent LSN
	startsSent uint64
	seenMatch  LSN // match when elapse last saw it move, and when that was; of a learner
	movedAt    time.Duration

	// What is under way, in positions of the partition's bytes; only of a learner.
	marks            []posMark
	sentPos, ackPos  uint64
	resetting        bool
	queued, copyWait bool // the driver's: it is in the queue of what is to be sent
}

type posMark struct {
	lsn LSN
	pos uint64
}

// counts tells whether commits wait for it.
func (p *progress) counts() bool { return p.inSync || p.joining }

// lead makes the replica the primary of the configuration. again: it was the primary of the epoch before.
func (r *replica) lead(now time.Duration, again bool) {
	old := r.primary.peers
	if !again {
		r.stepDown(r.moved())
		r.primary = primaryState{probes: r.primary.probes}
		for _, st := range r.streams {
			if st.start > 0 {
				r.primary.startsVersion = 1 // the others may not know it
			}
		}
		old = nil
	}
	r.role, r.leader = RolePrimary, ""
	if ids.Epoch(r.cfg.Epoch) > r.hard.term.epoch {
		r.hard.joining = nil
	}
	if t := (term{ids.Epoch(r.cfg.Epoch), r.boot}); invariants.Enabled && t.less(r.hard.term) {
		invariants.Failed("partition %d: leads in term %v after %v", r.id, t, r.hard.term)
	}
	r.hard.term = term{ids.Epoch(r.cfg.Epoch), r.boot}
	r.hard.forced = max(r.hard.forced, ids.Epoch(r.cfg.ForcedEpoch))
	r.termOp = r.write(r.stateMut())
	ps := &r.primary
	ps.start, ps.handoverAsked, ps.peers, ps.copying, ps.superseded = r.end+1, 0, nil, 0, false
	for _, id := range r.cfg.Replicas {
		node := ids.NodeID(id)
		if node == r.self {
			continue
		}
		p := &progress{node: node, r: r, next: r.end + 1, waitSince: now}
		if i := slices.IndexFunc(old, func(q *progress) bool { return q.node == node }); i >= 0 {
			// Its disk has what it acknowledged, whichever the epoch. Whether it takes this one is still to be asked.
			q := old[i]
			p.match, p.next, p.confirmed, p.heard, p.lost = q.match, q.match+1, q.confirmed, q.heard, false
			p.ackPos, p.sentPos = q.ackPos, q.ackPos
			if p.rejoinAt = q.rejoinAt; q.inSync {
				p.rejoinAt = now + rejoinPause // when it is still in sync that means nothing
			}
			if !q.confirmed {
				p.next = r.end + 1
			}
			if q.mode != modeDown {
				r.startProbe(p)
			}
		}
		p.inSync = slices.Contains(r.cfg.InSync, id)
		p.joining = !p.inSync && slices.Contains(r.hard.joining, node)
		p.joinDoubt = p.joining
		ps.peers = append(ps.peers, p)
	}
	if !again {
		r.seedData()
	}
	r.trimTail()
	r.maybeCommit(now)
	r.handoverChanged(now)
}

// stepDown ends what a primary had under way. Whether the appends that wait will be committed is unknown here; a
// producer that sends them again with the same sequence numbers gets them in once.
func (r *replica) stepDown(err error) {
	unknown := fault.Wrap(fault.KindOf(err), err, "whether the batch was appended isn't known").
		WithReason("OUTCOME_UNKNOWN").WithRetryAfter(10 * time.Millisecond)
	for lsn := r.commit + 1; lsn <= r.end; lsn++ {
		if e := r.tail.at(lsn); e != nil {
			r.refuseWaiters(e, unknown)
			r.free(e)
		}
	}
	r.refuseHeld(err)
	for _, st := range r.streams {
		r.forget(st)
	}
	r.primary = primaryState{probes: r.primary.probes}
}

func (r *replica) refuseWaiters(e *entry, err error) {
	for _, w := range e.waiters {
		r.fx.done = append(r.fx.done, completion{done: w.done, err: err, at: e.at})
	}
	e.waiters, e.first = nil, [1]waiter{}
}

// refuse ends an append that got no entry.
func (r *replica) refuse(q *appendReq, err error) {
	r.fx.done = append(r.fx.done, completion{done: q.done, err: err})
	r.fx.freed += int64(len(q.payload))
}

// connected says that messages get to a node, and none that was sent before will.
func (r *replica) connected(node ids.NodeID) {
	if p := r.peer(node); p != nil {
		p.rejoinAt = 0
		r.startProbe(p)
	}
}

// disconnected says that messages don't get to a node any more.
func (r *replica) disconnected(node ids.NodeID) {
	if p := r.peer(node); p != nil {
		r.setMode(p, modeDown)
		r.trimTail()
	}
}

func (r *replica) peer(node ids.NodeID) *progress {
	if r.role != RolePrimary {
		return nil
	}
	for _, p := range r.primary.peers {
		if p.node == node {
			return p
		}
	}
	return nil
}

func (r *replica) setMode(p *progress, m peerMode) {
	if p.mode == modeCopying {
		r.primary.copying--
	}
	if p.mode = m; m == modeCopying {
		r.primary.copying++
		r.fx.copies = append(r.fx.copies, p)
	}
}

// startProbe asks a replica whether its log agrees with this one at p.next-1.
func (r *replica) startProbe(p *progress) {
	r.setMode(p, modeProbing)
	r.primary.probes++
	p.probe, p.probeSent, p.resetting = r.primary.probes, false, false
	p.startsSent = 0 // it may have restarted, and forgotten what it had removed but not synced
	p.marks, p.sentPos = p.marks[:0], p.ackPos
	r.fx.wake = append(r.fx.wake, p)
}

// wakeStreaming looks whether there is something for those that are up to date.
func (r *replica) wakeStreaming() {
	for _, p := range r.primary.peers {
		if p.mode == modeStreaming {
			r.fx.wake = append(r.fx.wake, p)
		}
	}
}

func (r *replica) wakeCopies() {
	for _, p := range r.primary.peers {
		if p.mode == modeCopying {
			r.fx.copies = append(r.fx.copies, p)
		}
	}
}

// receiveReply takes a replica's answer.
func (r *replica) receiveReply(now time.Duration, from ids.NodeID, m *internalv1.LogReply) {
	if r.role != RolePrimary {
		return
	}
	t := termOf(m.Term)
	p := r.peer(from)
	if t.epoch > r.epoch() {
		// The configuration of that epoch is on its way, and says who is its primary: it may well be this node again. Until
		// then no more is taken; what is under way can't be committed, since that member refuses it.
		r.primary.superseded = true
		if p != nil {
			r.setMode(p, modeProbing)
			p.next, p.probeSent, p.probeAt, p.resetting = p.match+1, true, now, false
		}
		return
	}
	if p == nil || t != r.hard.term {
		return
	}
	if !p.heard {
		p.heard, p.waitSince = true, now
	}
	switch m.Kind {
	case internalv1.LogReplyKind_LOG_REPLY_KIND_ACK:
		r.acked(now, p, m)
	case internalv1.LogReplyKind_LOG_REPLY_KIND_REJECT:
		r.rejected(now, p, m)
	case internalv1.LogReplyKind_LOG_REPLY_KIND_MISSING:
		if p.mode == modeProbing { // its node hasn't heard of it yet: elapse asks again
			p.probeAt, p.probeSent = now, true
		}
	case internalv1.LogReplyKind_LOG_REPLY_KIND_LOST:
		if p.inSync && LSN(m.Hint) >= r.primary.start {
			r.fail(r.corrupt("this log ended at %d when its node started, and in-sync member %s has committed batches up to %d: "+
				"the disk has lost what it had acknowledged", r.primary.start-1, from, m.Hint))
		}
	case internalv1.LogReplyKind_LOG_REPLY_KIND_FAILED:
		if p.counts() {
			r.setMode(p, modeDown)
			r.askRemoval(now, p)
			return
		}
		// It begins anew once its node has heard that it isn't in sync any more, and is asked until then. What it had is gone.
		r.setMode(p, modeProbing)
		p.match, p.next, p.confirmed, p.lost, p.resetting = 0, r.end+1, false, false, false
		p.probeSent, p.probeAt = true, now+failedPause-probePause
	}
}

func (r *replica) acked(now time.Duration, p *progress, m *internalv1.LogReply) {
	agreed, durable := LSN(m.Agreed), LSN(m.Durable)
	if agreed > r.end || durable > agreed {
		return // not of this log
	}
	if p.mode == modeProbing && m.Probe == p.probe && p.probeSent {
		p.lost, p.resetting = false, false
		p.next = agreed + 1
		if p.next >= r.memFirst {
			r.setMode(p, modeStreaming)
			r.fx.wake = append(r.fx.wake, p)
		} else {
			r.setMode(p, modeCopying)
		}
	}
	if p.resetting && m.Probe == p.probe { // the last part of a reset was taken
		p.resetting = false
		r.fx.copies = append(r.fx.copies, p)
	}
	if durable > p.match {
		p.match, p.waitSince = durable, now
		r.primary.stalled = false // elapse looks again
	}
	if !p.confirmed && durable >= r.primary.start-1 {
		p.confirmed, p.waitSince = true, now
	}
	if m.Probe > p.echo && m.Probe <= r.primary.probes {
		p.echo = m.Probe
	}
	n := 0
	for n < len(p.marks) && p.marks[n].lsn <= durable {
		p.ackPos = p.marks[n].pos
		n++
	}
	if n > 0 {
		p.marks = append(p.marks[:0], p.marks[n:]...)
		if p.mode == modeCopying {
			r.fx.copies = append(r.fx.copies, p)
		} else {
			r.fx.wake = append(r.fx.wake, p)
		}
	}
	r.maybeJoin(now, p)
	r.maybeCommit(now)
	r.judge(now)
}

// rejected: the replica doesn't have the entry that was asked for; it tells what it has instead, and the next probe
// goes to the highest place where the two logs can agree.
func (r *replica) rejected(now time.Duration, p *progress, m *internalv1.LogReply) {
	if m.Probe == 0 && (p.mode == modeStreaming || p.mode == modeCopying) {
		p.next = p.match + 1 // it lacks something that was sent before
		r.startProbe(p)
		return
	}
	if p.mode != modeProbing || m.Probe != p.probe || !p.probeSent {
		return
	}
	hint := min(LSN(m.Hint), r.end, p.next-1)
	if p.counts() && p.confirmed && hint < p.match {
		// It acknowledged more than it has: its disk has lost something, so it can't be counted on.
		r.askRemoval(now, p)
		return
	}
	at := r.hist.floor(termOf(m.HintTerm), hint)
	if hint == 0 || at < r.hist.base || at+1 < r.hard.first {
		at = 0
		p.lost = r.hard.first > 1
	}
	p.next = at + 1
	if p.lost {
		if p.counts() {
			r.askRemoval(now, p)
			return
		}
		r.setMode(p, modeCopying) // begins with a reset
		return
	}
	if at == 0 { // the beginnings of all logs agree
		if r.memFirst == 1 {
			r.setMode(p, modeStreaming)
			r.fx.wake = append(r.fx.wake, p)
			return
		}
		r.setMode(p, modeCopying)
		return
	}
	r.startProbe(p)
}

func (r *replica) askRemoval(now time.Duration, p *progress) {
	if p.asking {
		return
	}
	p.asking, p.askedAt = true, now
	r.fx.calls = append(r.fx.calls, call{callRemove, r.epoch(), p.node})
}

// maybeJoin proposes a learner that has everything committed for the in-sync set. From then on commits wait for it:
// as soon as the coordinator agrees it may be chosen as primary, before this node hears of it.
func (r *replica) maybeJoin(now time.Duration, p *progress) {
	if p.counts() || p.asking || p.mode != modeStreaming || !p.confirmed || !r.primary.established || p.match < r.commit ||
		now < p.rejoinAt || p.askedAt != 0 && now-p.askedAt < retryPause {
		return
	}
	if len(r.hard.joining) >= maxMembers || len(p.node) > maxMemberLen {
		return
	}
	p.joining, p.joinDoubt, p.askedAt, p.waitSince = true, false, now, now
	r.hard.joining = append(r.hard.joining, p.node)
	p.joinOp = r.write(r.stateMut())
}

// askJoins proposes the learners whose joining is on disk: a proposal must not be forgotten.
func (r *replica) askJoins(now time.Duration) {
	for _, p := range r.primary.peers {
		if p.joining && !p.asking && r.opDone >= p.joinOp && (p.joinOp != 0 || now-p.askedAt >= retryPause) {
			p.asking, p.askedAt, p.joinOp = true, now, 0
			r.fx.calls = append(r.fx.calls, call{callAdd, r.epoch(), p.node})
		}
	}
}

// rejoinPause is how long a member that was taken out of the in-sync set stays out of it. It may be about to stop: commits
// would wait for one that was proposed again at once. One that comes back has connected anew.
const rejoinPause = 2 * time.Second

// retryPause is how long the coordinator isn't asked the same again.
const retryPause = 200 * time.Millisecond

// called takes the coordinator's answer.
func (r *replica) called(now time.Duration, c call, err error) {
	if r.role != RolePrimary || c.epoch != r.epoch() {
		return
	}
	if c.kind == callHandover {
		if err != nil {
			r.primary.handoverAsked = 0
		}
		return
	}
	p := r.peer(c.node)
	if p == nil {
		return
	}
	p.asking, p.askedAt = false, now
	if c.kind != callAdd || err == nil || !p.joining {
		return
	}
	switch fault.KindOf(err) {
	case fault.Conflict, fault.NotFound, fault.Invalid, fault.Unsupported:
		if !p.joinDoubt {
			p.joining = false
			r.hard.joining = slices.DeleteFunc(slices.Clone(r.hard.joining), func(n ids.NodeID) bool { return n == p.node })
			r.write(r.stateMut())
			r.maybeCommit(now)
		}
	default:
		p.joinDoubt = true // whatever a later call is told: only the next epoch settles it
	}
}

// maybeCommit moves the commit LSN to what every in-sync member has on disk.
func (r *replica) maybeCommit(now time.Duration) {
	if r.role != RolePrimary || r.opDone < r.termOp {
		return
	}
	to := r.durable
	for _, p := range r.primary.peers {
		if !p.counts() {
			continue
		}
		if !p.confirmed {
			return
		}
		to = min(to, p.match)
	}
	r.primary.established = true
	r.advance(now, to)
	r.judge(now)
	r.closeTicks()
	r.maybeHandOver(now)
}

// elapse is called now and then while needsTime says so.
func (r *replica) elapse(now time.Duration) {
	if r.askOut() && (r.outAskedAt == 0 || now-r.outAskedAt >= outPause) {
		r.outAskedAt = max(now, 1)
		r.fx.calls = append(r.fx.calls, call{callRemove, r.epoch(), r.self})
	}
	if r.role != RolePrimary {
		return
	}
	ps := &r.primary
	ps.stalled = false
	for _, p := range ps.peers {
		if p.counts() && (p.match < r.end || !p.confirmed) {
			silent := now-p.waitSince >= r.opt.ackTimeout
			if silent && (p.heard || now >= r.opt.startGrace) {
				ps.stalled = true
				if now-p.askedAt >= r.opt.ackTimeout {
					r.askRemoval(now, p)
				}
			}
		}
		if p.mode == modeProbing && p.probeSent && now-p.probeAt >= probePause {
			r.startProbe(p)
		}
		r.watchLearner(now, p)
		r.maybeJoin(now, p)
	}
	r.askJoins(now)
	if ps.hushed != 0 && ps.hushedUntil <= now {
		r.unhush(now)
	}
	for len(ps.held) > 0 && ps.held[0].deadline <= now {
		q := ps.held[0]
		ps.held = ps.held[1:]
		r.refuse(q, r.notOpen(q))
	}
	for len(ps.verdicts) > 0 && ps.verdicts[0].deadline <= now {
		r.refuse(ps.verdicts[0].q, fault.New(fault.Unavailable, "partition %d: an in-sync replica doesn't answer; retry", r.id).
			WithRetryAfter(100*time.Millisecond))
		ps.verdicts = ps.verdicts[1:]
	}
	for lsn := r.commit + 1; lsn <= r.end; lsn++ {
		e := r.tail.at(lsn)
		if now-e.at < r.opt.commitTimeout {
			break
		}
		r.refuseWaiters(e, fault.New(fault.Unavailable,
			"partition %d: the in-sync replicas didn't answer in time; whether the batch was appended isn't known, retry", r.id).
			WithReason("OUTCOME_UNKNOWN"))
	}
	r.maybeHandOver(now)
}

// learnerPause is how long a learner may owe acknowledgements, without one coming, until it is asked where it is.
const learnerPause = 15 * time.Second

// watchLearner asks a learner anew that has got something and doesn't move on. In-sync members that do so are taken out.
func (r *replica) watchLearner(now time.Duration, p *progress) {
	if p.counts() || p.mode != modeStreaming && p.mode != modeCopying || p.match+1 >= p.next || p.match != p.seenMatch || p.movedAt == 0 {
		p.seenMatch, p.movedAt = p.match, max(now, 1)
		return
	}
	if now-p.movedAt >= learnerPause {
		p.next, p.movedAt = p.match+1, now
		r.startProbe(p)
	}
}

// outPause is how often a damaged replica asks to be taken out of the in-sync set.
const outPause = 5 * time.Second

// askOut tells whether this is a damaged copy that still counts as in sync.
func (r *replica) askOut() bool {
	return r.role == RoleFailed && slices.Contains(r.cfg.InSync, string(r.self))
}

// probePause is how long an answer to a probe is waited for.
const probePause = 250 * time.Millisecond

// failedPause is how often a learner is asked that says that its copy is damaged.
const failedPause = time.Second

// needsTime tells whether elapse has something to watch.
func (r *replica) needsTime() bool {
	if r.role != RolePrimary {
		return r.askOut()
	}
	ps := &r.primary
	if len(ps.held) > 0 || ps.hushed != 0 || len(ps.verdicts) > 0 || r.commit < r.end || !ps.established || ps.superseded || r.cfg.HandoverTo != "" {
		return true
	}
	for _, p := range ps.peers {
		if !p.inSync && p.mode != modeDown || p.mode == modeProbing {
			return true
		}
	}
	return false
}

// handingOver tells whether the partition is to be given to another node, and so takes no appends.
func (r *replica) handingOver() bool {
	return r.cfg.HandoverTo != "" && r.cfg.HandoverTo != string(r.self)
}

func (r *replica) handoverChanged(now time.Duration) {
	r.primary.handoverAsked = 0
	if r.handingOver() {
		r.maybeHandOver(now)
		return
	}
	r.release(now)
}

// maybeHandOver lets the successor take over once everything is committed, and so on its disk.
func (r *replica) maybeHandOver(now time.Duration) {
	ps := &r.primary
	if !r.handingOver() || !ps.established || r.commit < r.end ||
		ps.handoverAsked != 0 && now-ps.handoverAsked < 10*retryPause {
		return
	}
	ps.handoverAsked = max(now, 1)
	r.fx.calls = append(r.fx.calls, call{callHandover, r.epoch(), ids.NodeID(r.cfg.HandoverTo)})
}

// abort refuses all appends that wait: nothing can be written any more.
func (r *replica) abort(err error) {
	for lsn := r.commit + 1; lsn <= r.end; lsn++ {
		if e := r.tail.at(lsn); e != nil {
			r.refuseWaiters(e, err)
			r.free(e)
		}
	}
	r.refuseHeld(err)
}

func (r *replica) refuseHeld(err error) {
	ps := &r.primary
	for _, q := range ps.held {
		r.refuse(q, err)
	}
	for _, v := range ps.verdicts {
		r.refuse(v.q, err)
	}
	ps.held, ps.verdicts = nil, nil
}
