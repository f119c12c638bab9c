package partition

import (
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/invariants"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// replica is the state machine of one replica of one partition. Its methods are the events; what is to be done about
// them is collected in fx, which the driver takes after each event and carries out in order. It does no I/O but through
// producers.load (a read of what is on disk), knows no clock but the `now` of its events, and starts nothing. Calls must
// not run at once.
type replica struct {
	id   ids.PartitionID
	self ids.NodeID
	boot uint64 // of this process
	opt  *options

	cat    *catalog
	cfg    *internalv1.PartitionConfig // the newest given to configure; hard.term may be ahead of it
	role   Role
	leader ids.NodeID // of a follower or learner: the primary of hard.term
	cause  error      // RoleFailed: why

	outAskedAt time.Duration // RoleFailed: when the coordinator was last asked to take it out

	hard         hardState
	hist         history
	end          LSN // of the log, in memory
	endBytes     uint64
	lastTick     ids.Tick // of the entry at end
	lastTime     int64
	commit       LSN
	commitPos    commitPos
	commitAtLast LSN // while it is recovered: as the last entry tells
	streams      map[ids.StreamID]*streamLog
	tail         tail
	memFirst     LSN // entries from here on have their payload in memory
	producers    producerTable

	// Writes are numbered; those up to opDone are on disk. pending are the writes since, with the LSN that is durable
	// once each is done.
	op, opDone uint64
	pending    []pendingOp
	durable    LSN
	termOp     uint64 // the write of hard.term: nothing is acknowledged or committed before it is on disk
	loadOp     uint64 // a wipe or reset: before it is on disk, what is there of producers isn't this log's

	agreed LSN    // follower: the log is the primary's up to here
	known  LSN    // follower: what the primary says is committed
	probe  uint64 // follower: the probe to answer

	resetting uint64 // learner: the reset under way
	resetPart uint32 // and its next part

	primary primaryState
	fx      effects
}

// options are the parts of Config that decisions depend on.
type options struct {
	holdWait, ackTimeout, startGrace, commitTimeout time.Duration
	minInSync                                       int
	copyWindow                                      int64
	recentBytes                                     atomic.Int64 // kept in memory of each stream in each partition
}

// catalog is the streams of a ClusterState.
type catalog struct {
	streams map[ids.StreamID]*internalv1.StreamDef
	next    ids.StreamID // ids from here on may exist already, without this node knowing
	target  int          // replicas a partition should have
}

// dropped tells whether a stream existed and doesn't any more. Ids are never reused.
func (c *catalog) dropped(s ids.StreamID) bool { return s < c.next && c.streams[s] == nil }

type pendingOp struct {
	op  uint64
	lsn LSN
}

// commitPos is what a truncation down to the commit LSN goes back to.
type commitPos struct {
	tick  ids.Tick
	time  int64
	bytes uint64
}

// streamLog is one stream's log in the partition. start <= committed <= next.
type streamLog struct {
	start, committed, next                ids.Offset
	startBytes, committedBytes, nextBytes uint64
	lastTick                              ids.Tick // of the last committed batch
	lastTime                              int64
	firstLSN                              LSN      // of the first batch that is there; 0: none is
	recent                                []*entry // the last committed batches, for readers
	recentBytes                           int64
}

// effects is what an event asks for. Whoever drives the replica carries writes out in order, and takes the rest in the
// order of the fields.
type effects struct {
	writes   []write
	wake     []*progress               // messageFor may have something for these
	copies   []*progress               // copyNext may
	replies  []*internalv1.LogReply    // to the primary
	ack      bool                      // takeAck has something for the primary
	starts   []*internalv1.StreamStart // what the primary's retention has left
	closings []Closing
	calls    []call
	done     []completion
	freed    int64 // bytes no longer in flight
	tick     bool  // a tick is wanted soon
}

// write is one change on disk, atomic: mutations, then an entry.
type write struct {
	op      uint64
	entry   *entry
	payload []byte // the entry's
	commit  LSN    // known when the entry was made
	muts    []mutation
}

// mutation is a Set; a Delete when value is nil; a DeleteRange when hi isn't nil.
type mutation struct{ key, value, hi []byte }

// completion is an append that is decided.
type completion struct {
	done   func(AppendResult, error)
	result AppendResult
	err    error
	at     time.Duration // when it was taken; 0: it wasn't
}

type callKind uint8

const (
	callRemove callKind = iota // RemoveFromInSync
	callAdd                    // AddToInSync
	callHandover
)

// call asks the coordinator for a change; its answer comes back through called.
type call struct {
	kind  callKind
	epoch ids.Epoch
	node  ids.NodeID
}

func newReplica(id ids.PartitionID, self ids.NodeID, boot uint64, opt *options, load func(producerKey) (producerRecord, bool, error), cacheLimit int) *replica {
	return &replica{
		id: id, self: self, boot: boot, opt: opt, cat: &catalog{},
		cfg: &internalv1.PartitionConfig{Id: uint32(id)}, streams: map[ids.StreamID]*streamLog{},
		producers: producerTable{limit: cacheLimit, load: load, entries: map[producerKey]*cachedProducer{}},
		memFirst:  1, hard: hardState{first: 1},
	}
}

// epoch is the newest epoch that the replica has heard of.
func (r *replica) epoch() ids.Epoch { return r.hard.term.epoch }

// write adds mutations to what goes to disk, and returns their number.
func (r *replica) write(muts ...mutation) uint64 {
	r.op++
	r.pending = append(r.pending, pendingOp{r.op, r.end})
	r.fx.writes = append(r.fx.writes, write{op: r.op, muts: muts})
	return r.op
}

// written says that all writes up to number op are on disk.
func (r *replica) written(now time.Duration, op uint64) {
	if op <= r.opDone {
		return
	}
	r.opDone = op
	n := 0
	for n < len(r.pending) && r.pending[n].op <= op {
		r.durable = max(r.durable, r.pending[n].lsn)
		n++
	}
	if n == len(r.pending) {
		r.pending = r.pending[:0]
	} else {
		r.pending = r.pending[n:]
	}
	switch r.role {
	case RolePrimary:
		r.maybeCommit(now)
		if len(r.hard.joining) > 0 {
			r.askJoins(now)
		}
		if len(r.primary.held) > 0 {
			r.release(now)
		}
		if r.primary.copying > 0 {
			r.wakeCopies()
		}
	case RoleFollower, RoleLearner, RoleNone:
		r.dropPayloads()
		r.advance(now, r.commitKnown())
		r.fx.ack = r.fx.ack || r.leader != ""
	}
}

// dropPayloads lets go of what a follower has on disk now; r.durable never rises over what was pending.
func (r *replica) dropPayloads() {
	for lsn := max(r.tail.first, r.memFirst); lsn <= r.durable; lsn++ {
		if e := r.tail.at(lsn); e != nil {
			e.payload = nil
		}
	}
	r.memFirst = max(r.memFirst, r.durable+1)
}

// termMuts are the mutations that put the terms of an epoch on disk.
func (r *replica) termMut(e ids.Epoch) mutation {
	key := epochKey(r.id, e)
	terms := r.hist.of(e)
	if len(terms) == 0 {
		return mutation{key: key}
	}
	return mutation{key: key, value: appendTerms(nil, terms)}
}

func (r *replica) stateMut() mutation {
	r.hard.commit = r.commit
	return mutation{key: stateKey(r.id), value: r.hard.append(nil)}
}

// push adds an entry at the end of the log and writes it.
func (r *replica) push(e *entry) {
	if invariants.Enabled {
		r.checkNext(e)
	}
	var muts []mutation
	if r.hist.append(e.term, e.lsn) {
		muts = []mutation{r.termMut(e.term.epoch)} // in the entry's own write: neither is ever there without the other
	}
	r.end, r.endBytes = e.lsn, e.pos()
	r.lastTick, r.lastTime = e.tick, e.timeMicros
	r.tail.push(e)
	muts = append(muts, r.noteEntry(e)...)
	r.op++
	if e.producer != 0 && !r.cat.dropped(e.stream) {
		r.producers.put(producerKey{e.stream, e.producer}, e.rec, r.op, r.opDone)
	}
	r.pending = append(r.pending, pendingOp{r.op, e.lsn})
	r.fx.writes = append(r.fx.writes, write{op: r.op, entry: e, payload: e.payload, commit: r.commit, muts: muts})
}

// checkNext checks that an entry goes on where the log ends, and that neither ticks nor times go back.
func (r *replica) checkNext(e *entry) {
	st, before := r.streams[e.stream], r.tail.at(r.end) // nil where that is on disk only
	switch {
	case e.lsn != r.end+1:
		invariants.Failed("partition %d: entry %d after %d", r.id, e.lsn, r.end)
	case before != nil && (e.tick < before.tick || e.timeMicros < before.timeMicros):
		invariants.Failed("partition %d: entry %d of tick %d and time %d after tick %d and time %d",
			r.id, e.lsn, e.tick, e.timeMicros, before.tick, before.timeMicros)
	case st != nil && !e.gone && e.base != st.next:
		invariants.Failed("partition %d, stream %d: offset %d after %d", r.id, e.stream, e.base, st.next)
	}
}

// noteEntry counts a new entry in its stream's log.
func (r *replica) noteEntry(e *entry) []mutation {
	if r.cat.dropped(e.stream) {
		return nil
	}
	st := r.streams[e.stream]
	if st == nil {
		st = &streamLog{start: e.base, committed: e.base, startBytes: e.streamBytes, committedBytes: e.streamBytes}
		r.streams[e.stream] = st
	}
	if e.gone && e.end() <= st.start {
		return nil // a reset has told already that the stream starts later
	}
	st.next, st.nextBytes = e.end(), e.streamBytes+uint64(e.payloadLen)
	if !e.gone {
		if st.firstLSN == 0 {
			st.firstLSN = e.lsn
		}
		return nil
	}
	// The primary's retention has removed it, so it was committed, and with it everything before it in the stream.
	st.start, st.startBytes, st.firstLSN = st.next, st.nextBytes, 0
	st.committed, st.committedBytes = st.next, st.nextBytes
	fact := streamFact{st.start, st.startBytes, st.next, st.nextBytes, e.tick, e.timeMicros}
	return []mutation{
		{key: logKey(r.id, e.stream, 0), hi: logKey(r.id, e.stream, st.start)},
		{key: streamKey(r.id, e.stream), value: fact.append(nil)},
	}
}

// advance moves the commit LSN up to `to` and completes what waited for it.
func (r *replica) advance(now time.Duration, to LSN) {
	if to <= r.commit {
		return
	}
	if invariants.Enabled && (to > r.end || to > r.durable) {
		invariants.Failed("partition %d: commits up to %d, the log ends at %d and is durable up to %d", r.id, to, r.end, r.durable)
	}
	for lsn := r.commit + 1; lsn <= to; lsn++ {
		e := r.tail.at(lsn)
		r.commitPos = commitPos{e.tick, e.timeMicros, e.pos()}
		if st := r.streams[e.stream]; st != nil {
			st.committed = max(st.committed, e.end())
			st.committedBytes = max(st.committedBytes, e.streamBytes+uint64(e.payloadLen))
			st.lastTick, st.lastTime = e.tick, e.timeMicros
			r.remember(st, e)
		}
		for _, w := range e.waiters {
			r.fx.done = append(r.fx.done, completion{done: w.done, at: e.at, result: AppendResult{
				BaseOffset: e.base, Count: e.count, Tick: e.tick, Duplicate: w.duplicate,
			}})
		}
		e.waiters, e.first = nil, [1]waiter{}
		r.free(e)
		if r.role == RolePrimary {
			r.primary.noteData(e.stream, e.tick)
		}
	}
	r.commit = to
	r.trimTail()
}

// free takes an entry out of the bytes in flight.
func (r *replica) free(e *entry) {
	if e.charged {
		e.charged = false
		r.fx.freed += int64(e.payloadLen)
	}
}

// remember keeps a committed batch in memory for readers, and drops the oldest ones beyond the bound.
func (r *replica) remember(st *streamLog, e *entry) {
	if r.role != RolePrimary || e.payload == nil || r.opt.recentBytes.Load() == 0 {
		r.forget(st)
		return
	}
	st.recent = append(st.recent, e)
	st.recentBytes += int64(e.payloadLen)
	n := 0
	for st.recentBytes > r.opt.recentBytes.Load() {
		st.recentBytes -= int64(st.recent[n].payloadLen)
		st.recent[n] = nil
		n++
	}
	if st.recent = st.recent[n:]; len(st.recent) == 0 {
		st.recent = nil
	}
}

func (r *replica) forget(st *streamLog) { st.recent, st.recentBytes = nil, 0 }

// trimTail drops committed entries that no peer waits for. What a slow learner still needs is kept up to the copy
// window; beyond, it reads from disk.
func (r *replica) trimTail() {
	keep := min(r.commit, r.durable) + 1
	if r.role == RolePrimary {
		floor := keep
		for _, p := range r.primary.peers {
			if p.mode == modeStreaming || p.mode == modeProbing {
				floor = min(floor, p.next)
			}
		}
		for floor < keep {
			first := r.tail.at(max(floor, r.tail.first))
			if first == nil || int64(r.endBytes-first.totalBytes) <= r.opt.copyWindow {
				break
			}
			floor = first.lsn + 1
		}
		keep = min(keep, max(floor, r.tail.first))
	}
	r.tail.drop(keep)
	if r.tail.len() == 0 {
		r.memFirst = max(r.memFirst, r.end+1)
	} else {
		r.memFirst = max(r.memFirst, r.tail.first)
	}
}

// truncate removes everything behind end, which isn't below the commit LSN.
func (r *replica) truncate(end LSN) {
	if end >= r.end {
		return
	}
	cut := r.tail.truncate(end)
	muts := []mutation{{key: indexKey(r.id, end+1), hi: indexKey(r.id, ^LSN(0))}}
	for i := len(cut) - 1; i >= 0; i-- {
		e := cut[i]
		muts = append(muts, mutation{key: logKey(r.id, e.stream, e.base)})
		if st := r.streams[e.stream]; st != nil && !e.gone {
			st.next, st.nextBytes = e.base, e.streamBytes
			if st.firstLSN == e.lsn {
				st.firstLSN = 0
			}
		}
		if e.producer != 0 {
			muts = append(muts, r.truncateProducer(producerKey{e.stream, e.producer}, end)...)
		}
		r.free(e)
	}
	clear(cut)
	for _, epoch := range r.hist.truncate(end) {
		muts = append(muts, r.termMut(epoch))
	}
	r.end, r.endBytes, r.lastTick, r.lastTime = end, r.commitPos.bytes, r.commitPos.tick, r.commitPos.time
	if e := r.tail.at(end); e != nil {
		r.endBytes, r.lastTick, r.lastTime = e.pos(), e.tick, e.timeMicros
	}
	r.durable, r.agreed, r.memFirst = min(r.durable, end), min(r.agreed, end), min(r.memFirst, end+1)
	for i := range r.pending {
		r.pending[i].lsn = min(r.pending[i].lsn, end)
	}
	op := r.write(muts...)
	for i := range muts { // what was changed in memory is on disk with this write
		if k, ok := producerOf(muts[i].key); ok {
			if c := r.producers.entries[k]; c != nil {
				c.op = op
			}
		}
	}
}

// truncateProducer makes a producer forget what lies behind end.
func (r *replica) truncateProducer(k producerKey, end LSN) []mutation {
	rec, err := r.producers.get(k, r.opDone)
	if err != nil {
		r.fail(err)
		return nil
	}
	if rec == nil || !rec.truncate(end) {
		return nil
	}
	r.producers.entries[k].op = r.op + 1 // not evicted before truncate has written it
	return []mutation{{key: producerStoreKey(r.id, k), value: rec.append(nil)}}
}

// fail stops the replica: its copy is damaged. It comes back only as a learner of a healthy one.
func (r *replica) fail(err error) {
	if r.role == RoleFailed {
		return
	}
	r.stepDown(fault.Wrap(fault.Unavailable, err, "partition %d: this copy is damaged; retry", r.id))
	r.role, r.cause = RoleFailed, err
	r.hard.failed = true
	r.write(r.stateMut())
	if r.leader != "" {
		r.fx.replies = append(r.fx.replies, r.reply(internalv1.LogReplyKind_LOG_REPLY_KIND_FAILED))
	}
}

// corrupt makes an error of kind Corrupted for this partition.
func (r *replica) corrupt(format string, args ...any) error {
	return fault.Wrap(fault.Corrupted, fault.New(fault.Corrupted, format, args...), "partition %d on node %s", r.id, r.self)
}

// totals is what the replica holds, in payload bytes.
func (r *replica) totals() (bytes int64) {
	for _, st := range r.streams {
		bytes += int64(st.committedBytes - st.startBytes)
	}
	return bytes
}

func termOf(t *internalv1.LogTerm) term { return term{ids.Epoch(t.GetEpoch()), t.GetBoot()} }

func (t term) proto() *internalv1.LogTerm {
	return &internalv1.LogTerm{Epoch: uint64(t.epoch), Boot: t.boot}
}
