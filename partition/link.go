package partition

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// protocolVersion is of replication.proto.
const protocolVersion = 1

// links are the streams to the nodes that hold other replicas of the partitions whose primary is here.
type links struct {
	mu     sync.RWMutex
	byNode map[ids.NodeID]*link
	closed map[ids.NodeID]*link // the last one to a node that has none, which may not have ended yet
	wanted map[ids.NodeID]bool
	host   *Host           // set while running
	ctx    context.Context // of run
	wg     sync.WaitGroup
}

// link is the stream to one node, and a second one for copies. Replicas are queued, not messages: what is sent is
// decided when the stream can take it, so a slow peer costs no memory, and a message says all there is to say.
type link struct {
	h      *Host
	node   ids.NodeID
	cancel context.CancelFunc

	mu    sync.Mutex
	dirty []linkItem // messageFor may have something; these and no others are marked as queued
	copy  []linkItem // copyNext may; marked as copyWait
	up    bool
	ended bool // takes nothing any more

	running sync.WaitGroup

	notify, notifyCopy chan struct{}
}

type linkItem struct {
	hd *hosted
	p  *progress
}

// run lets links be opened until ctx ends.
func (l *links) run(ctx context.Context, h *Host) {
	l.mu.Lock()
	l.host, l.ctx = h, ctx
	wanted := l.wanted
	l.mu.Unlock()
	l.reconcile(wanted)
}

func (l *links) wait() { l.wg.Wait() }

// reconcile opens and closes links.
func (l *links) reconcile(wanted map[ids.NodeID]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted = wanted
	if l.host == nil || l.ctx.Err() != nil {
		return
	}
	for node, k := range l.byNode {
		if !wanted[node] {
			k.cancel()
			delete(l.byNode, node)
			l.closed[node] = k
		}
	}
	for node := range wanted {
		if l.byNode[node] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(l.ctx)
		k := &link{h: l.host, node: node, cancel: cancel, notify: make(chan struct{}, 1), notifyCopy: make(chan struct{}, 1)}
		l.byNode[node] = k
		before := l.closed[node]
		delete(l.closed, node)
		for _, run := range []func(context.Context){k.run, k.runCopies} {
			k.running.Add(1)
			l.wg.Go(func() {
				defer k.running.Done()
				if before != nil { // the last that it tells replicas is that the node can't be reached
					before.running.Wait()
				}
				run(ctx)
			})
		}
	}
}

func (l *links) get(node ids.NodeID) *link {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.byNode[node]
}

// connect tells a new primary which peers can be reached already. The replica's lock is held: a link that goes up or
// down now tells it right after.
func (l *links) connect(r *replica) {
	for _, p := range r.primary.peers {
		if k := l.get(p.node); k != nil && p.mode == modeDown {
			k.mu.Lock()
			up := k.up
			k.mu.Unlock()
			if up {
				r.connected(p.node)
			}
		}
	}
}

// wake queues a replica for sending. Its lock is held.
func (l *links) wake(hd *hosted, p *progress) {
	if p.queued {
		return
	}
	if k := l.get(p.node); k != nil {
		k.mu.Lock()
		if p.queued = !k.ended; p.queued {
			k.dirty = append(k.dirty, linkItem{hd, p})
		}
		k.mu.Unlock()
		poke(k.notify)
	}
}

// wakeCopy queues a replica for copying. Its lock is held.
func (l *links) wakeCopy(hd *hosted, p *progress) {
	if p.copyWait {
		return
	}
	if k := l.get(p.node); k != nil {
		k.mu.Lock()
		if p.copyWait = !k.ended; p.copyWait {
			k.copy = append(k.copy, linkItem{hd, p})
		}
		k.mu.Unlock()
		poke(k.notifyCopy)
	}
}

// Pauses between attempts to reach a peer.
const (
	redialMin = 20 * time.Millisecond
	redialMax = 500 * time.Millisecond
)

// run keeps the stream open until ctx ends.
func (k *link) run(ctx context.Context) {
	defer k.drain()
	pause := redialMin
	for ctx.Err() == nil {
		begin := time.Now()
		err := k.serve(ctx)
		k.setUp(false) // so that all replicas begin with a probe on the next stream
		if ctx.Err() != nil {
			return
		}
		if time.Since(begin) > time.Second {
			pause = redialMin
		}
		k.h.log.Debug("replication stream ended", "to", k.node, "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, redialMax)
	}
}

// drain forgets what is queued, for good; a later link to the same node begins anew.
func (k *link) drain() {
	k.mu.Lock()
	dirty, copies := k.dirty, k.copy
	k.dirty, k.copy, k.ended = nil, nil, true
	k.mu.Unlock()
	unqueue(dirty)
	unqueueCopies(copies)
}

// unqueue takes the marks off replicas that were in line when a stream broke. Without that they would count as queued
// for ever, and never be sent anything again.
func unqueue(items []linkItem) {
	for _, it := range items {
		if it.hd == nil {
			continue // it was sent to
		}
		it.hd.mu.Lock()
		it.p.queued = false
		it.hd.mu.Unlock()
	}
}

// unqueueCopies is unqueue for those in line to be copied to.
func unqueueCopies(items []linkItem) {
	for _, it := range items {
		it.hd.mu.Lock()
		it.p.copyWait = false
		it.hd.mu.Unlock()
	}
}

// setUp tells all replicas that the peer can, or can't, be reached.
func (k *link) setUp(up bool) {
	k.mu.Lock()
	k.up = up
	k.mu.Unlock()
	k.h.all(func(hd *hosted) {
		k.h.do(hd, func(r *replica) {
			if up {
				r.connected(k.node)
			} else {
				r.disconnected(k.node)
			}
		})
	})
}

// open opens a stream and starts a goroutine that takes what comes back; failed gets its end.
func (k *link) open(ctx context.Context, bulk bool) (s grpc.BidiStreamingClient[internalv1.ReplicateRequest, internalv1.ReplicateResponse], failed <-chan error, err error) {
	conn, err := k.h.peers.Conn(k.node)
	if err != nil {
		return nil, nil, err
	}
	s, err = internalv1.NewReplicationClient(conn).Replicate(ctx)
	if err != nil {
		return nil, nil, err
	}
	hello := &internalv1.ReplicateHello{Version: protocolVersion, From: string(k.h.cfg.Node), To: string(k.node), Bulk: bulk}
	if err := s.Send(&internalv1.ReplicateRequest{Hello: hello}); err != nil {
		_, err = s.Recv() // has the reason
		return nil, nil, err
	}
	end := make(chan error, 1)
	k.h.links.wg.Go(func() {
		for {
			m, err := s.Recv()
			if err != nil {
				end <- err
				return
			}
			k.take(m.Replies)
		}
	})
	return s, end, nil
}

// take gives answers to their replicas.
func (k *link) take(replies []*internalv1.LogReply) {
	var out outcome
	for _, m := range replies {
		if hd := k.h.slot(ids.PartitionID(m.Partition)); hd != nil {
			k.h.event(hd, &out, func(r *replica) { r.receiveReply(k.h.now(), k.node, m) })
			k.h.finish(&out)
		}
	}
}

// serve sends what there is until the stream breaks.
func (k *link) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, failed, err := k.open(ctx, false)
	if err != nil {
		return err
	}
	k.setUp(true)
	var items []linkItem
	for {
		select {
		case <-k.notify:
		case err := <-failed:
			return err
		}
		for {
			k.mu.Lock()
			items, k.dirty = k.dirty, items[:0]
			k.mu.Unlock()
			if len(items) == 0 {
				break
			}
			if err := k.send(s, items); err != nil {
				unqueue(items)
				return err
			}
			clear(items)
		}
	}
}

// send sends what the queued replicas have to say, several of them in one message. A replica that has more than fits
// is queued again behind the others. Those that are done with, or begun, are taken out of items.
func (k *link) send(s grpc.BidiStreamingClient[internalv1.ReplicateRequest, internalv1.ReplicateResponse], items []linkItem) error {
	frame, size := &internalv1.ReplicateRequest{}, 0
	flush := func() error {
		if len(frame.Appends) == 0 {
			return nil
		}
		err := s.Send(frame)
		frame, size = &internalv1.ReplicateRequest{}, 0
		return err
	}
	for i, it := range items {
		items[i] = linkItem{} // it may be queued again from here on
		for more := true; more; {
			var m *internalv1.LogAppend
			it.hd.mu.Lock()
			it.p.queued = false
			m = it.hd.r.messageFor(it.p, k.h.now(), k.h.cfg.FrameBytes-size)
			var out outcome
			k.h.settle(it.hd, &out)
			it.hd.mu.Unlock()
			k.h.finish(&out)
			if m == nil {
				break
			}
			n := messageSize(m)
			if size > 0 && size+n > k.h.cfg.FrameBytes {
				if err := flush(); err != nil {
					return err
				}
			}
			frame.Appends, size = append(frame.Appends, m), size+n
			more = len(m.Entries) > 0
			if size >= k.h.cfg.FrameBytes*3/4 {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

func messageSize(m *internalv1.LogAppend) int {
	n := 64 + 16*len(m.Starts)
	for _, e := range m.Entries {
		n += len(e.Payload) + len(e.Header) + 16
	}
	return n
}

// runCopies reads from disk for those that are behind, and sends it on a stream of its own, opened when there is
// something to copy.
func (k *link) runCopies(ctx context.Context) {
	pause := redialMin
	for ctx.Err() == nil {
		select {
		case <-k.notifyCopy:
		case <-ctx.Done():
			return
		}
		if !k.hasCopies() {
			continue
		}
		err := k.serveCopies(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			pause = redialMin
			continue
		}
		k.h.log.Debug("copy stream ended", "to", k.node, "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, redialMax)
		// What was under way is lost, and whoever is in line waits for a stream that isn't there: ask each replica again
		// where it is.
		k.mu.Lock()
		items := k.copy
		k.copy = nil
		k.mu.Unlock()
		unqueueCopies(items)
		k.h.all(func(hd *hosted) {
			k.h.do(hd, func(r *replica) {
				if p := r.peer(k.node); p != nil && p.mode == modeCopying {
					r.connected(k.node)
				}
			})
		})
	}
}

func (k *link) hasCopies() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.copy) > 0
}

// copyIdle is how long a copy stream without work stays open.
const copyIdle = 5 * time.Second

func (k *link) serveCopies(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, failed, err := k.open(ctx, true)
	if err != nil {
		return err
	}
	idle := time.NewTimer(copyIdle)
	defer idle.Stop()
	for {
		k.mu.Lock()
		items := k.copy
		k.copy = nil
		k.mu.Unlock()
		for i, it := range items {
			if err := k.copyOne(ctx, s, it); err != nil {
				unqueueCopies(items[i:])
				return err
			}
		}
		if len(items) > 0 {
			idle.Reset(copyIdle)
			select {
			case err := <-failed:
				return err
			default:
				continue
			}
		}
		select {
		case <-k.notifyCopy:
		case err := <-failed:
			return err
		case <-idle.C:
			// A copy that is under way waits for acknowledgements on this stream; those are not lost by closing it now,
			// since they stand for all before them and the next stream repeats them.
			if k.copiesUnderWay() {
				idle.Reset(copyIdle)
				continue
			}
			return nil
		}
	}
}

func (k *link) copiesUnderWay() (yes bool) {
	k.h.all(func(hd *hosted) {
		hd.mu.Lock()
		defer hd.mu.Unlock()
		if p := hd.r.peer(k.node); p != nil && p.mode == modeCopying {
			yes = true
		}
	})
	return yes
}

// copyOne sends one message's worth of a replica's log from disk, and queues the replica again while there is more.
func (k *link) copyOne(ctx context.Context, s grpc.BidiStreamingClient[internalv1.ReplicateRequest, internalv1.ReplicateResponse], it linkItem) error {
	var job copyJob
	var ok bool
	it.hd.mu.Lock()
	it.p.copyWait = false
	it.hd.mu.Unlock()
	k.h.do(it.hd, func(r *replica) { job, ok = r.copyNext(it.p) })
	if !ok {
		return nil
	}
	if job.reset {
		return k.sendReset(s, it, job)
	}
	entries, last, pos, err := k.h.readIndex(it.hd.r.id, job.from, job.through, k.h.cfg.FrameBytes)
	if err != nil {
		return k.h.damaged(it.hd, err)
	}
	var m *internalv1.LogAppend
	k.h.do(it.hd, func(r *replica) {
		m = r.copied(it.p, job, entries, last, pos)
		if p := it.p; p.mode == modeCopying {
			r.fx.copies = append(r.fx.copies, p)
		}
	})
	if m == nil {
		return nil
	}
	if err := k.h.awaitCopy(ctx, messageSize(m)); err != nil {
		return err
	}
	return s.Send(&internalv1.ReplicateRequest{Appends: []*internalv1.LogAppend{m}})
}

// awaitCopy waits until so many more bytes may be copied from here.
func (h *Host) awaitCopy(ctx context.Context, bytes int) error {
	l := h.cfg.CopyLimit
	if l == nil {
		return nil
	}
	return l.WaitN(ctx, min(bytes, l.Burst()))
}

// sendReset sends a learner what it needs to begin behind the log's start: where the streams were, and what the
// producers got.
func (k *link) sendReset(s grpc.BidiStreamingClient[internalv1.ReplicateRequest, internalv1.ReplicateResponse], it linkItem, job copyJob) error {
	var base *internalv1.LogReset
	k.h.do(it.hd, func(r *replica) { base = r.resetBase(it.p, job) })
	if base == nil {
		return nil
	}
	if err := k.h.fillReset(base); err != nil {
		return k.h.damaged(it.hd, err)
	}
	part := &internalv1.LogReset{}
	send := func(last bool) error {
		part.Partition, part.Term, part.TermStart, part.Probe = base.Partition, base.Term, base.TermStart, base.Probe
		part.Base, part.BaseTerm, part.BaseBytes, part.Last = base.Base, base.BaseTerm, base.BaseBytes, last
		err := s.Send(&internalv1.ReplicateRequest{Resets: []*internalv1.LogReset{part}})
		part = &internalv1.LogReset{Part: part.Part + 1}
		return err
	}
	size := 0
	err := k.h.producers(ids.PartitionID(base.Partition), func(key producerKey, rec []byte) error {
		part.Producers = append(part.Producers, &internalv1.LogResetProducer{
			Stream: uint64(key.stream), ProducerId: key.id, Record: append([]byte(nil), rec...),
		})
		if size += len(rec) + 32; size < k.h.cfg.FrameBytes {
			return nil
		}
		size = 0
		return send(false)
	})
	if err != nil {
		return k.h.damaged(it.hd, err)
	}
	part.Streams = base.Streams
	return send(true)
}
