package partition

import (
	"bytes"
	"errors"
	"maps"
	"slices"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/storage"
)

type simNode struct {
	damaged bool // by a script
	s       *sim
	id      ids.NodeID
	up      bool
	boot    uint64
	disk    simDisk
	synced  simDisk // where the fsync is left out
	r       *replica
	queue   []write // not on disk yet
	applied int     // states
	ticks   []earlyTick
	wake    map[*progress]bool
	copies  map[*progress]bool
	ack     bool
	from    ids.NodeID // the last sender
	links   map[ids.NodeID]bool
	trims   []*internalv1.StreamStart
	opt     *options
}

// start begins a process on what is on disk.
func (n *simNode) start() {
	if n.up {
		return
	}
	n.boots()
	// Raft may give an older state at first than the process before knew.
	n.applied = max(0, n.applied-1-n.s.rng.IntN(3))
	n.learn()
}

// boots recovers what is on disk.
func (n *simNode) boots() {
	n.up = true
	n.boot++
	n.r, n.queue, n.ticks, n.ack, n.trims, n.from = nil, nil, nil, false, nil, ""
	n.wake, n.copies, n.links = map[*progress]bool{}, map[*progress]bool{}, map[ids.NodeID]bool{}
	if n.disk.has(stateKey(0)) {
		n.r = n.make()
		if err := n.r.load(n.disk.iter()); err != nil {
			n.s.violated("recovery", "%s can't recover: %v", n.id, err)
		}
	}
	n.s.trace("%s starts, boot %d", n.id, n.boot)
}

func (n *simNode) make() *replica {
	return newReplica(0, n.id, n.boot, n.opt, func(k producerKey) (rec producerRecord, found bool, err error) {
		v, ok := n.disk[string(producerStoreKey(0, k))]
		if !ok {
			return rec, false, nil
		}
		return rec, true, rec.decode(v)
	}, 2)
}

func (n *simNode) crash() {
	if !n.up {
		return
	}
	n.s.trace("%s crashes", n.id)
	if len(n.queue) > 0 { // some of it may be on disk already, in order
		for i := range n.s.rng.IntN(len(n.queue) + 1) {
			n.disk.put(&n.queue[i])
		}
	}
	if planted("fsync left out") && n.synced != nil {
		n.disk = maps.Clone(n.synced)
	}
	n.up, n.r, n.queue = false, nil, nil
	for _, o := range n.s.nodes {
		if o.up && o.r != nil {
			o.links[n.id] = false
			o.r.disconnected(n.id)
			o.drain()
		}
	}
}

// flush syncs some writes.
func (n *simNode) flush(count int) {
	if !n.up || len(n.queue) == 0 {
		return
	}
	count = min(count, len(n.queue))
	for i := range count {
		n.disk.put(&n.queue[i])
	}
	if planted("fsync left out") && (n.synced == nil || n.s.chance(20)) {
		n.synced = maps.Clone(n.disk) // what has really got to the disk
	}
	op := n.queue[count-1].op
	n.queue = n.queue[count:]
	if n.r != nil && op != 0 {
		n.r.written(n.s.now, op)
		n.drain()
	}
}

// learn applies the next published state.
func (n *simNode) learn() {
	if !n.up || n.applied >= len(n.s.states) {
		return
	}
	st := n.s.states[n.applied]
	n.applied++
	cfg := st.Partitions[0]
	n.s.trace("%s learns %s", n.id, configText(cfg))
	if !slices.Contains(cfg.Replicas, string(n.id)) {
		if n.r != nil && ids.Epoch(cfg.Epoch) >= n.r.epoch() {
			n.r.stepDown(errors.New("moved"))
			n.drain()
			n.r = nil
			lo, hi := partitionRange(0)
			for i := range n.queue {
				n.queue[i].op = 0
			}
			n.queue = append(n.queue, write{muts: []mutation{{key: lo, hi: hi}}})
		}
		return
	}
	if n.r == nil {
		n.r = n.make()
		n.r.wipe(0, term{}, 0)
	}
	n.r.cat = makeCatalog(st)
	n.r.configure(n.s.now, cfg)
	if n.r.role == RolePrimary {
		for _, p := range n.r.primary.peers {
			if n.links[p.node] {
				n.r.connected(p.node)
			}
		}
	}
	n.drain()
	n.takeTick()
}

// takeTick processes ticks whose index has been applied.
func (n *simNode) takeTick() {
	if !n.up {
		return
	}
	for len(n.ticks) > 0 && n.applied > 0 && (n.ticks[0].index <= n.s.states[n.applied-1].Index || planted("tick before its index")) {
		t := n.ticks[0]
		n.ticks = n.ticks[1:]
		if n.r != nil {
			n.r.tick(n.s.now, t.tick, t.index)
			n.drain()
		}
		if n.s.chance(50) {
			return
		}
	}
}

func (n *simNode) elapse() {
	if n.up && n.r != nil {
		n.r.elapse(n.s.now)
		n.drain()
	}
	for i, st := range n.trims {
		if n.up && n.r != nil && n.r.role != RolePrimary {
			n.s.trimAt(n, ids.StreamID(st.Stream), ids.Offset(st.Start))
		}
		n.trims[i] = nil
	}
	n.trims = nil
}

// link breaks or makes a connection.
func (n *simNode) link() {
	o := n.s.pick()
	if o == n || !n.up || n.r == nil {
		return
	}
	if n.links[o.id] && n.s.chance(90) {
		return
	}
	n.r.disconnected(o.id)
	n.links[o.id] = false
	if o.up {
		n.links[o.id] = true
		n.r.connected(o.id)
	}
	n.drain()
}

// send lets a replica say what it has to say.
func (n *simNode) send() {
	if !n.up || n.r == nil {
		return
	}
	for _, p := range sortedPeers(n.wake) {
		m := n.r.messageFor(p, n.s.now, 60+n.s.rng.IntN(300))
		n.drain()
		if m == nil {
			delete(n.wake, p)
			continue
		}
		n.s.sendTo(n, p.node, simMessage{append: m})
	}
	for _, p := range sortedPeers(n.copies) {
		delete(n.copies, p)
		job, ok := n.r.copyNext(p)
		n.drain()
		if !ok {
			continue
		}
		n.copies[p] = true
		if job.reset {
			n.sendReset(p, job)
			continue
		}
		n.copyIndex(p, job)
	}
}

func sortedPeers(m map[*progress]bool) (out []*progress) {
	for p := range m {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *progress) int { return bytes.Compare([]byte(a.node), []byte(b.node)) })
	return out
}

func (n *simNode) copyIndex(p *progress, job copyJob) {
	var out []*internalv1.LogEntry
	var last LSN
	var pos uint64
	for lsn := job.from; lsn <= job.through && len(out) < 3; lsn++ {
		v, ok := n.disk[string(indexKey(0, lsn))]
		if !ok {
			break
		}
		h, _, err := decodeIndex(v)
		if err != nil {
			n.s.fatalf("%v", err)
		}
		e := &internalv1.LogEntry{Header: v[:headerLen]}
		if b, ok := n.disk[string(logKey(0, h.stream, h.base))]; ok && bytes.Equal(b[:headerLen], e.Header) {
			e.Payload = b[headerLen:]
		} else {
			e.Gone = true
		}
		out = append(out, e)
		last, pos = lsn, h.totalBytes+uint64(h.payloadLen)
	}
	if m := n.r.copied(p, job, out, last, pos); m != nil {
		n.s.sendTo(n, p.node, simMessage{append: m})
	}
	n.drain()
}

func (n *simNode) sendReset(p *progress, job copyJob) {
	m := n.r.resetBase(p, job)
	n.drain()
	if m == nil {
		return
	}
	v, ok := n.disk[string(indexKey(0, LSN(m.Base)+1))]
	if !ok {
		n.links[p.node] = false
		n.r.disconnected(p.node)
		n.drain()
		return
	}
	h, _, _ := decodeIndex(v)
	m.BaseBytes, m.Last = h.totalBytes, true
	lo, hi := storage.ProducerPartitionRange(0)
	for k, v := range n.disk {
		if k >= string(lo) && k < string(hi) {
			key, _ := producerOf([]byte(k))
			m.Producers = append(m.Producers, &internalv1.LogResetProducer{Stream: uint64(key.stream), ProducerId: key.id, Record: v})
		}
	}
	n.s.sendTo(n, p.node, simMessage{reset: m})
}

func (n *simNode) sendAck() {
	if !n.up || n.r == nil || !n.ack {
		return
	}
	n.ack = false
	if m := n.r.takeAck(); m != nil {
		n.s.sendTo(n, n.from, simMessage{reply: m})
	}
}

// drain carries out the effects of an event.
func (n *simNode) drain() {
	fx, s := &n.r.fx, n.s
	n.queue = append(n.queue, fx.writes...)
	for _, p := range fx.wake {
		n.wake[p] = true
	}
	for _, p := range fx.copies {
		n.copies[p] = true
	}
	for _, m := range fx.replies {
		s.sendTo(n, n.from, simMessage{reply: m})
	}
	n.ack = n.ack || fx.ack
	n.trims = append(n.trims, fx.starts...)
	if s.out != nil {
		s.describe(n, fx)
	}
	for _, c := range fx.calls {
		s.calls = append(s.calls, simCall{n: n, boot: n.boot, r: n.r, c: c})
	}
	s.noteCommits(n)
	for _, c := range fx.closings {
		s.noteClosing(n, c)
	}
	done := fx.done
	n.r.fx = effects{}
	for _, c := range done {
		c.done(c.result, c.err)
	}
	if n.r.role == RoleFailed && !n.damaged && !(n.r.hard.held && s.forgetful != nil) {
		s.violated("own-check", "%s failed: %v", n.id, n.r.cause)
	}
}

// trim cuts off the old end of a stream at the primary.
func (s *sim) trim() {
	if s.forgets { // a primary would know less of what retention has removed than a replica does
		return
	}
	n := s.node(ids.NodeID(s.last().Partitions[0].Primary))
	if !n.up || n.r == nil || n.r.role != RolePrimary || !s.chance(30) {
		return
	}
	s.trimOn(n)
}

func (s *sim) trimOn(n *simNode) {
	stream := ids.StreamID(s.rng.IntN(2) + 1)
	if st := n.r.streams[stream]; st != nil && st.committed > st.start {
		s.trimAt(n, stream, st.start+1+ids.Offset(s.rng.IntN(int(st.committed-st.start))))
	}
}

func (s *sim) trimAt(n *simNode, stream ids.StreamID, start ids.Offset) {
	st := n.r.streams[stream]
	if st == nil {
		return
	}
	if start = min(start, st.committed); start <= st.start {
		return
	}
	at := place{base: start, bytes: st.committedBytes}
	for _, h := range s.committed {
		if h.stream == stream && h.base == start && start < st.committed {
			at = place{h.base, h.streamBytes, h.lsn}
		}
	}
	s.trace("%s trims stream %d to %d", n.id, stream, start)
	n.r.trim(stream, at.base, at.bytes, at.lsn)
	n.r.trimIndex()
	n.drain()
}
