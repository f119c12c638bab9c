package partition

import (
	"context"
	"encoding/binary"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// Host runs the replicas of one node. Its methods are safe for concurrent use; those that give it something in order
// (Configure, Tick) must be called one after the other.
type Host struct {
	cfg   Config
	opt   options
	store *storage.Store
	peers Peers
	log   *slog.Logger
	boot  uint64
	start time.Time

	slots   atomic.Pointer[[]*hosted] // by partition id; nil: no replica here
	clock   clusterClock
	writer  *logWriter
	flight  budget
	closed  closings
	links   links
	caller  caller
	watch   watch
	trims   trimQueue
	asked   atomic.Bool           // a tick was asked for since the last one
	broken  atomic.Pointer[error] // no write will succeed any more
	refused atomic.Pointer[error] // writes are refused for now
	stopped atomic.Bool
	stopCtx context.Context // ends when Run does
	stop    context.CancelFunc

	servingMu sync.Mutex
	serving   sync.WaitGroup // peers' streams

	confMu    sync.Mutex
	state     *internalv1.ClusterState // the last given to Configure
	cat       *catalog
	primaries []*hosted
	early     []earlyTick

	counts counts
}

type counts struct {
	appends, appendBytes, refused, groups, pending atomic.Int64
	compacted, copiedRecords, compactedBytes       atomic.Int64
	commitNanos                                    atomic.Int64 // moving average
}

// earlyTick is a tick that waits for the Raft index that it was issued at.
type earlyTick struct {
	tick  ids.Tick
	index uint64
}

// maxEarlyTicks bounds them; a tick that is left out only makes the next one coarser.
const maxEarlyTicks = 1024

// hosted is a replica with its lock, and what the host keeps with it. Lock order: confMu, hosted.mu, everything else.
type hosted struct {
	mu        sync.Mutex
	r         *replica
	gone      bool     // removed: events do nothing
	inbound   *inbound // where the primary's messages come from
	ackQueued bool
	watched   bool
	held      bool   // as was told in the log
	queued    [2]int // writes in the log writer\'s queues; guarded by it
	used      int64  // guarded by the budget

	retention  map[ids.StreamID]retained    // only for the retention loop
	compaction map[ids.StreamID]*compaction // only for the compaction loop
}

// NewHost returns a host with the replicas that the log store holds. They do nothing before Configure.
//
// Errors: Invalid settings; those of the store; Corrupted when a replica's state can't be read.
func NewHost(cfg Config, store *storage.Store, peers Peers, log *slog.Logger) (*Host, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	h := &Host{cfg: cfg, store: store, peers: peers, log: log, start: time.Now(), cat: &catalog{}}
	h.opt = options{
		holdWait: cfg.HoldWait, ackTimeout: cfg.AckTimeout, startGrace: cfg.StartGrace, commitTimeout: cfg.CommitTimeout,
		minInSync: cfg.MinInSync, copyWindow: cfg.CopyWindow,
	}
	h.stopCtx, h.stop = context.WithCancel(context.Background())
	h.flight = budget{limit: cfg.InFlightBytes, partitionLimit: cfg.PartitionBytes, wait: cfg.AppendWait}
	h.writer = newLogWriter(store, cfg.GroupBytes, int(2*cfg.InFlightBytes))
	h.writer.written, h.writer.refused, h.writer.broken = h.written, h.writesRefused, h.writesBroken
	h.closed.notify = make(chan struct{}, 1)
	h.caller.notify = make(chan struct{}, 1)
	h.watch.notify = make(chan struct{}, 1)
	h.trims.notify = make(chan struct{}, 1)
	h.links.byNode, h.links.closed = map[ids.NodeID]*link{}, map[ids.NodeID]*link{}
	slots := []*hosted{}
	h.slots.Store(&slots)
	if err := h.countBoot(); err != nil {
		return nil, err
	}
	return h, h.recover()
}

// countBoot numbers this process: entries that an earlier one appended in the same epoch and lost are told from ours by
// it.
func (h *Host) countBoot() error {
	key := storage.MetaKey(metaKeyBoot)
	v, closer, err := h.store.Get(key)
	switch {
	case fault.KindOf(err) == fault.NotFound:
	case err != nil:
		return err
	case len(v) != 8:
		return fault.New(fault.Corrupted, "the count of starts has %d bytes, not 8", len(v))
	default:
		h.boot = binary.LittleEndian.Uint64(v)
		if err := closer.Close(); err != nil {
			return err
		}
	}
	// At least the clock's seconds: a folder that was put back from a backup, and so has forgotten some starts, doesn't give
	// a term out again.
	h.boot = max(h.boot+1, uint64(max(h.cfg.Now().Unix(), 0)))
	b := h.store.NewBatch()
	defer b.Close()
	b.Set(key, binary.LittleEndian.AppendUint64(nil, h.boot))
	return h.store.Commit(b, true)
}

// now is the time since the host was made.
func (h *Host) now() time.Duration { return time.Since(h.start) }

// slot returns the replica of a partition, or nil.
func (h *Host) slot(p ids.PartitionID) *hosted {
	if s := *h.slots.Load(); int(p) < len(s) {
		return s[p]
	}
	return nil
}

// all calls fn for every replica here.
func (h *Host) all(fn func(*hosted)) {
	for _, hd := range *h.slots.Load() {
		if hd != nil {
			fn(hd)
		}
	}
}

// outcome is what is left to do after an event, without the replica's lock.
type outcome struct {
	done []completion
	tick bool
}

// event runs fn on a replica and carries out its effects; what has to wait for the lock to be free goes to out.
func (h *Host) event(hd *hosted, out *outcome, fn func(*replica)) {
	hd.mu.Lock()
	defer hd.mu.Unlock()
	if hd.gone {
		return
	}
	fn(hd.r)
	h.settle(hd, out)
}

// do is event with the rest done at once.
func (h *Host) do(hd *hosted, fn func(*replica)) {
	var out outcome
	h.event(hd, &out, fn)
	h.finish(&out)
}

// settle carries out the effects of an event. hd.mu is held.
func (h *Host) settle(hd *hosted, out *outcome) {
	r, fx := hd.r, &hd.r.fx
	if len(fx.writes) > 0 {
		h.writer.enqueue(hd, fx.writes, r.role == RoleLearner && hd.inbound != nil && hd.inbound.bulk)
		clear(fx.writes)
		fx.writes = fx.writes[:0]
	}
	for _, p := range fx.wake {
		h.links.wake(hd, p)
	}
	for _, p := range fx.copies {
		h.links.wakeCopy(hd, p)
	}
	fx.wake, fx.copies = fx.wake[:0], fx.copies[:0]
	if len(fx.replies) > 0 || fx.ack {
		hd.answer(fx.replies, fx.ack)
		clear(fx.replies)
		fx.replies, fx.ack = fx.replies[:0], false
	}
	if len(fx.starts) > 0 {
		h.trims.push(hd, fx.starts)
		fx.starts = fx.starts[:0]
	}
	if len(fx.closings) > 0 {
		h.closed.push(fx.closings)
		clear(fx.closings)
		fx.closings = fx.closings[:0]
	}
	for _, c := range fx.calls {
		h.caller.push(hd, c)
	}
	fx.calls = fx.calls[:0]
	out.done = append(out.done, fx.done...)
	clear(fx.done)
	fx.done = fx.done[:0]
	if fx.freed != 0 {
		h.flight.release(hd, fx.freed)
		fx.freed = 0
	}
	out.tick, fx.tick = out.tick || fx.tick, false
	if r.hard.held != hd.held {
		hd.held = r.hard.held
		h.noteHeld(r)
	}
	if !hd.watched && r.needsTime() {
		hd.watched = true
		h.watch.add(hd)
	}
}

// noteHeld tells of a replica that stops, or goes on, for an operator's sake.
func (h *Host) noteHeld(r *replica) {
	if r.hard.held {
		h.log.Error("a replica has acknowledged batches that its primary's log lacks; it keeps them and doesn't follow, until an operator "+
			"chooses with millrace cluster recover", "partition", r.id, "committed", r.commit, "error", r.cause)
		return
	}
	h.log.Warn("an operator has chosen: a replica that was held goes on", "partition", r.id, "epoch", r.epoch())
}

// finish does what an event left: it answers producers and asks for a tick.
func (h *Host) finish(out *outcome) {
	if len(out.done) > 0 {
		now := h.now()
		for _, c := range out.done {
			h.counts.pending.Add(-1)
			if c.err != nil {
				h.counts.refused.Add(1)
			} else if c.at != 0 {
				h.noteCommit(now - c.at)
			}
			c.done(c.result, c.err)
		}
		clear(out.done)
		out.done = out.done[:0]
	}
	if out.tick {
		out.tick = false
		if h.asked.CompareAndSwap(false, true) {
			h.cfg.Coordinator.RequestTick()
		}
	}
}

// noteCommit keeps a moving average over about the last 16 commits. Concurrent updates may lose one.
func (h *Host) noteCommit(d time.Duration) {
	old := h.counts.commitNanos.Load()
	h.counts.commitNanos.Store(old + (int64(d)-old)/16)
}

// Append takes a batch for a partition whose primary is here and calls done once, from any goroutine: with where it is
// once it is committed, or with the error for which it was refused. done must not block. Append itself may block for
// Config.AppendWait while too much is in flight.
//
// Errors: NotPrimary; Unavailable (too few in-sync replicas, no tick yet); Exhausted with a delay, also while the disk is
// nearly full (DISK_FULL), or for good when it is full; NotFound UNKNOWN_STREAM; Conflict OUT_OF_SEQUENCE, UNKNOWN_PRODUCER or DUPLICATE_SEQUENCE; Invalid,
// TooLarge, Corrupted for the batch itself; the store's, when the disk fails. With reason OUTCOME_UNKNOWN, and with an
// error of the store, the batch may be appended or not; sent again with its sequence number it is there once.
func (h *Host) Append(req AppendRequest, done func(AppendResult, error)) {
	h.counts.pending.Add(1)
	refuse := func(err error) {
		h.counts.pending.Add(-1)
		h.counts.refused.Add(1)
		done(AppendResult{}, err)
	}
	hd := h.slot(req.Partition)
	if hd == nil {
		refuse(fault.New(fault.NotPrimary, "partition %d isn't on this node; retry", req.Partition))
		return
	}
	if err := h.writeError(); err != nil {
		refuse(err)
		return
	}
	if err := h.store.Room(); err != nil {
		refuse(err)
		return
	}
	b := req.Batch
	if err := checkBatch(b, h.cfg.MaxBatchBytes, req.Generated); err != nil {
		refuse(err)
		return
	}
	if err := h.flight.acquire(h.stopCtx, hd, int64(len(b.Payload))); err != nil {
		refuse(err)
		return
	}
	q := &appendReq{
		header: header{
			stream: req.Stream, base: req.Base, count: b.Count, producer: b.ProducerId, sequence: b.Sequence, compression: b.Compression,
			uncompressed: b.UncompressedBytes, payloadLen: uint32(len(b.Payload)), payloadCRC: b.Crc32C,
		},
		payload: b.Payload, seen: req.SeenTick, since: req.UnchangedSince, made: req.Generated, wall: h.clock.stamp(h.cfg.Now().UnixMicro()), done: done,
	}
	var out outcome
	hd.mu.Lock()
	if hd.gone || h.stopped.Load() {
		hd.mu.Unlock()
		h.flight.release(hd, int64(len(b.Payload)))
		refuse(fault.New(fault.NotPrimary, "partition %d isn't on this node any more; retry", req.Partition))
		return
	}
	h.counts.appends.Add(1)
	h.counts.appendBytes.Add(int64(len(b.Payload)))
	hd.r.append(h.now(), q)
	h.settle(hd, &out)
	hd.mu.Unlock()
	h.finish(&out)
}

// checkBatch refuses what can't be stored.
func checkBatch(b *millracev1.Batch, limit int, generated bool) error {
	switch {
	case b == nil || b.Count == 0 || len(b.Payload) == 0:
		return fault.New(fault.Invalid, "a batch without records")
	case len(b.Payload) > limit || int64(b.UncompressedBytes) > 4*int64(limit):
		return fault.New(fault.TooLarge, "a batch of %d bytes, %d uncompressed; at most %d are taken, send smaller ones",
			len(b.Payload), b.UncompressedBytes, limit)
	case b.Count > b.UncompressedBytes && !generated:
		return fault.New(fault.Invalid, "a batch of %d records in %d bytes", b.Count, b.UncompressedBytes)
	case b.Compression == millracev1.Compression_COMPRESSION_NONE && int(b.UncompressedBytes) != len(b.Payload):
		return fault.New(fault.Invalid, "a batch of %d bytes that isn't compressed says it has %d", len(b.Payload), b.UncompressedBytes)
	case b.Compression < 0 || b.Compression > millracev1.Compression_COMPRESSION_ZSTD:
		return fault.New(fault.Unsupported, "compression %d isn't known here", b.Compression)
	case b.ProducerId == 0 && b.Sequence != 0 || b.ProducerId != 0 && b.Sequence == 0:
		return fault.New(fault.Invalid, "a batch has a producer id and a sequence from 1, or neither; got %d and %d", b.ProducerId, b.Sequence)
	}
	if sum := record.Checksum(b.Payload); sum != b.Crc32C {
		return fault.New(fault.Corrupted, "the batch was damaged on its way: its checksum is %08x, not %08x; send it again", sum, b.Crc32C)
	}
	return nil
}

// writeError tells why nothing can be written.
func (h *Host) writeError() error {
	if h.stopped.Load() {
		return fault.New(fault.Unavailable, "this node is stopping; retry at another")
	}
	if err := h.broken.Load(); err != nil {
		return *err
	}
	if err := h.refused.Load(); err != nil {
		return *err
	}
	return unwritable(h.store.Healthy())
}

// unwritable is what an append is told of a log that takes nothing any more. What is wrong with the log, such as that it is
// damaged, isn't wrong with the append: one under way may be committed elsewhere yet, and others are welcome there.
func unwritable(err error) error {
	if err == nil {
		return nil
	}
	return fault.Wrap(fault.Unavailable, err, "this node's log can't be written any more; retry")
}

// written passes on that groups of writes are on disk.
func (h *Host) written(group []groupEnd) {
	var out outcome
	h.counts.groups.Add(1)
	now := h.now()
	for _, g := range group {
		h.event(g.hd, &out, func(r *replica) { r.written(now, g.op) })
		h.finish(&out)
	}
}

func (h *Host) writesRefused(err error) {
	if err == nil {
		h.log.Info("the log is written again")
		h.refused.Store(nil)
		return
	}
	if h.refused.Swap(&err) == nil {
		h.log.Warn("the log can't be written for now; appends are refused", "error", err)
	}
}

func (h *Host) writesBroken(err error) {
	h.log.Error("the log can't be written any more; appends are refused, reads go on", "error", err)
	err = unwritable(err)
	h.broken.Store(&err)
	h.abort(err)
}

// abort refuses all appends that wait.
func (h *Host) abort(err error) {
	h.all(func(hd *hosted) {
		h.do(hd, func(r *replica) { r.abort(err) })
	})
}

// Run works until ctx ends. When it returns, every append was answered.
func (h *Host) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { h.writer.run(ctx) })
	wg.Go(func() { h.closed.run(ctx) })
	wg.Go(func() { h.caller.run(ctx, h) })
	wg.Go(func() { h.watch.run(ctx, h) })
	wg.Go(func() { h.retain(ctx) })
	wg.Go(func() { h.compact(ctx) })
	h.links.run(ctx, h)
	<-ctx.Done()
	h.servingMu.Lock()
	h.stopped.Store(true)
	h.servingMu.Unlock()
	h.stop()
	h.links.wait()
	wg.Wait()
	h.serving.Wait()
	h.abort(fault.New(fault.Unavailable, "this node is stopping; whether the batch was appended isn't known, retry at another").
		WithReason("OUTCOME_UNKNOWN"))
	return nil
}

// Tick says that tick t was issued when the leader had applied raftIndex. The host keeps it until Configure has reached
// that index. Ticks rise.
func (h *Host) Tick(t ids.Tick, raftIndex uint64) {
	h.clock.heard(t)
	h.confMu.Lock()
	defer h.confMu.Unlock()
	e := earlyTick{t, raftIndex}
	if h.state == nil || raftIndex > h.state.Index || len(h.early) > 0 {
		if len(h.early) == maxEarlyTicks {
			h.early = append(h.early[:0], h.early[1:]...)
		}
		h.early = append(h.early, e)
		return
	}
	var out outcome
	h.tick(e, &out)
	h.finish(&out)
}

// tick gives a tick to every primary here. confMu is held.
func (h *Host) tick(e earlyTick, out *outcome) {
	h.asked.Store(false)
	now := h.now()
	for _, hd := range h.primaries {
		hd.mu.Lock()
		if !hd.gone {
			hd.r.tick(now, e.tick, e.index)
			h.settle(hd, out)
		}
		hd.mu.Unlock()
	}
}

// OnClosed registers fn, which is called for each tick that a partition whose primary is here closes, in order for each
// partition; of several that close at once only the highest. Call it before Run. fn must not block.
func (h *Host) OnClosed(fn func(Closing)) { h.closed.fns = append(h.closed.fns, fn) }

// Closed returns the highest tick that a partition has closed here; false when the primary isn't here, or hasn't closed
// one yet.
func (h *Host) Closed(p ids.PartitionID) (ids.Tick, bool) {
	hd := h.slot(p)
	if hd == nil {
		return 0, false
	}
	hd.mu.Lock()
	defer hd.mu.Unlock()
	ps := &hd.r.primary
	return ps.closed, ps.hasClosed && hd.r.role == RolePrimary
}

// Committed returns how far this node's log of a partition is known to be committed. It may be read up to there.
// Errors as Read.
func (h *Host) Committed(p ids.PartitionID) (LSN, error) {
	hd := h.slot(p)
	if hd == nil {
		return 0, fault.New(fault.NotPrimary, "partition %d isn't on this node; retry", p)
	}
	hd.mu.Lock()
	defer hd.mu.Unlock()
	if err := hd.readable(); err != nil {
		return 0, err
	}
	return hd.r.commit, nil
}

// Load returns how busy the log is.
func (h *Host) Load() Load {
	return Load{
		Appends: uint64(h.counts.appends.Load()), AppendBytes: uint64(h.counts.appendBytes.Load()),
		Refused: uint64(h.counts.refused.Load()), Groups: uint64(h.counts.groups.Load()),
		PendingAppends: h.counts.pending.Load(), PendingBytes: h.flight.inUse(),
		CommitTime:  time.Duration(h.counts.commitNanos.Load()),
		Compactions: uint64(h.counts.compacted.Load()), CopiedRecords: uint64(h.counts.copiedRecords.Load()),
		CompactedBytes: uint64(h.counts.compactedBytes.Load()),
	}
}
