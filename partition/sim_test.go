package partition

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/storage"
)

var (
	simSeed   = flag.Uint64("sim.seed", 0, "run only this schedule")
	simRounds = flag.Int("sim.rounds", 400, "schedules to run")
	simTrace  = flag.Bool("sim.trace", false, "print every step")
)

// TestSimulation runs the replicas of one partition on four nodes through random schedules: messages are lost, doubled,
// delayed and reordered, nodes crash and come back with what was synced, the configuration changes, nodes learn of it
// late. After every step nothing acknowledged may be lost, logs agree as far as they are committed, and closed ticks
// keep their contents. In the end everything heals, and all that was sent must be there once.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		runSim(t, *simSeed)
		return
	}
	base := uint64(time.Now().UnixNano())
	rounds := *simRounds
	if testing.Short() {
		rounds = min(rounds, 50)
	}
	for i := range rounds {
		if !t.Run(fmt.Sprint("seed=", base+uint64(i)), func(t *testing.T) { runSim(t, base+uint64(i)) }) {
			t.Fatalf("run it again with -run TestSimulation -sim.seed=%d", base+uint64(i))
		}
	}
}

type sim struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Duration
	nodes  []*simNode
	states []*internalv1.ClusterState // by Raft index
	tick   ids.Tick
	net    []simMessage
	calls  []simCall

	producers []*simProducer
	committed map[LSN]header
	top       LSN // of committed
	closed    ids.Tick
	acks      int
	step      int
	healing   bool
	out       *strings.Builder // of a scripted run
}

type simNode struct {
	s       *sim
	id      ids.NodeID
	up      bool
	boot    uint64
	disk    simDisk
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

type simMessage struct {
	from, to ids.NodeID
	boot     uint64 // of the receiver, when it was sent: a process doesn't get what was meant for another
	append   *internalv1.LogAppend
	reset    *internalv1.LogReset
	reply    *internalv1.LogReply
}

type simCall struct {
	n    *simNode
	boot uint64
	r    *replica
	c    call
	late bool // the caller doesn't wait any more
}

type simProducer struct {
	id      uint64
	stream  ids.StreamID
	next    uint64 // sequence
	acked   map[uint64]AppendResult
	pending []uint64
	quota   int
}

func (s *sim) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("step %d: %s", s.step, fmt.Sprintf(format, args...))
}

func (s *sim) trace(format string, args ...any) {
	if s.out != nil {
		fmt.Fprintf(s.out, format+"\n", args...)
	}
	if *simTrace {
		fmt.Printf("%d: %s\n", s.step, fmt.Sprintf(format, args...))
	}
}

func runSim(t *testing.T, seed uint64) {
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 7)), committed: map[LSN]header{}, tick: 1000}
	st := &internalv1.ClusterState{Index: 1, Replicas: 3, NextObjectId: 3}
	for i := range 2 {
		st.Streams = append(st.Streams, &internalv1.StreamDef{Stream: &millracev1.Stream{Id: uint64(i + 1)}})
	}
	st.Partitions = []*internalv1.PartitionConfig{{Epoch: 1, Primary: "a", Replicas: []string{"a", "b", "c"}, InSync: []string{"a", "b", "c"}, EpochIndex: 1}}
	s.states = []*internalv1.ClusterState{st}
	for _, id := range []ids.NodeID{"a", "b", "c", "d"} {
		n := &simNode{s: s, id: id, disk: simDisk{}, opt: &options{
			holdWait: time.Second, ackTimeout: time.Second, startGrace: time.Second, commitTimeout: 5 * time.Second,
			minInSync: 1, copyWindow: 200,
		}}
		s.nodes = append(s.nodes, n)
		n.start()
	}
	for i := range 3 {
		s.producers = append(s.producers, &simProducer{id: uint64(i + 1), stream: ids.StreamID(i%2 + 1), next: 1, acked: map[uint64]AppendResult{}, quota: 40})
	}
	for s.step = range 1500 {
		s.random()
		s.check()
	}
	s.heal()
}

func (s *sim) chance(percent int) bool { return s.rng.IntN(100) < percent }

func (s *sim) pick() *simNode { return s.nodes[s.rng.IntN(len(s.nodes))] }

func (s *sim) last() *internalv1.ClusterState { return s.states[len(s.states)-1] }

func (s *sim) random() {
	s.now += time.Duration(s.rng.IntN(20)) * time.Millisecond
	n := s.pick()
	switch x := s.rng.IntN(100); {
	case x < 22:
		s.deliver(s.rng.IntN(len(s.net)+1), s.chance(5))
	case x < 38:
		n.flush(s.rng.IntN(4) + 1)
	case x < 50:
		n.send()
	case x < 56:
		n.sendAck()
	case x < 66:
		s.produce()
	case x < 71:
		s.issueTick()
	case x < 76:
		n.takeTick()
	case x < 80:
		n.learn()
	case x < 84:
		n.elapse()
	case x < 88:
		s.answer()
	case x < 93:
		n.link()
	case x < 94:
		if s.chance(40) {
			n.crash()
		}
	case x < 97:
		if !n.up {
			n.start()
		}
	case x < 98:
		s.reconfigure()
	default:
		s.trim()
	}
}

// deliver gives the i-th message under way to its receiver; again: it stays under way too.
func (s *sim) deliver(i int, again bool) {
	if i >= len(s.net) {
		return
	}
	if s.chance(80) { // mostly in order
		for j := range i {
			if s.net[j].from == s.net[i].from && s.net[j].to == s.net[i].to {
				i = j
				break
			}
		}
	}
	m := s.net[i]
	if !again {
		s.net = slices.Delete(s.net, i, i+1)
	}
	s.hand(m)
}

// hand gives a message to its receiver.
func (s *sim) hand(m simMessage) {
	to := s.node(m.to)
	if !to.up || to.boot != m.boot {
		return
	}
	s.trace("%s gets %v", m.to, m)
	if to.r == nil {
		if m.append != nil {
			s.sendTo(to, m.from, simMessage{reply: &internalv1.LogReply{Kind: internalv1.LogReplyKind_LOG_REPLY_KIND_MISSING, Term: m.append.Term}})
		}
		return
	}
	switch {
	case m.append != nil:
		d, err := decodeAppend(m.append)
		if err != nil {
			s.fatalf("%v", err)
		}
		to.from = m.from
		to.r.receive(s.now, m.from, d)
	case m.reset != nil:
		to.from = m.from
		to.r.receiveReset(s.now, m.from, m.reset)
	default:
		to.r.receiveReply(s.now, m.from, m.reply)
	}
	to.drain()
}

func (m simMessage) String() string {
	switch {
	case m.append != nil:
		a := m.append
		return fmt.Sprintf("%s>%s append in %v from %d: prev %d/%v, %d entries, commit %d, probe %d", m.from, m.to, termOf(a.Term), a.TermStart, a.Prev, termOf(a.PrevTerm), len(a.Entries), a.Commit, a.Probe)
	case m.reset != nil:
		return fmt.Sprintf("%s>%s reset in %v: base %d, streams %v", m.from, m.to, termOf(m.reset.Term), m.reset.Base, m.reset.Streams)
	}
	r := m.reply
	kind := strings.ToLower(strings.TrimPrefix(r.Kind.String(), "LOG_REPLY_KIND_"))
	out := fmt.Sprintf("%s>%s %s in %v: agreed %d, durable %d, probe %d", m.from, m.to, kind, termOf(r.Term), r.Agreed, r.Durable, r.Probe)
	if r.HintTerm != nil {
		out += fmt.Sprintf(", has %d/%v", r.Hint, termOf(r.HintTerm))
	}
	return out
}

func (s *sim) node(id ids.NodeID) *simNode {
	return s.nodes[slices.IndexFunc(s.nodes, func(n *simNode) bool { return n.id == id })]
}

// sendTo puts a message under way, unless it gets lost.
func (s *sim) sendTo(from *simNode, to ids.NodeID, m simMessage) {
	if to == "" {
		return // nobody has written yet, so nobody listens
	}
	m.from, m.to, m.boot = from.id, to, s.node(to).boot
	if !s.healing && s.chance(3) {
		from.links[to] = false // the stream that lost it is dead; link notices sooner or later
		return
	}
	s.net = append(s.net, m)
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
			n.s.fatalf("%s can't recover: %v", n.id, err)
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
	op := n.queue[count-1].op
	n.queue = n.queue[count:]
	if n.r != nil && op != 0 {
		n.r.written(n.s.now, op)
		n.drain()
	}
}

func configText(c *internalv1.PartitionConfig) string {
	out := fmt.Sprintf("epoch %d from %d: primary %s, replicas %v, in sync %v", c.Epoch, c.EpochIndex, c.Primary, c.Replicas, c.InSync)
	if c.HandoverTo != "" {
		out += ", to hand over to " + c.HandoverTo
	}
	return out
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

func (s *sim) issueTick() {
	s.tick += ids.Tick(s.rng.IntN(5) + 1)
	for _, n := range s.nodes {
		n.ticks = append(n.ticks, earlyTick{s.tick, s.last().Index})
	}
}

// takeTick processes ticks whose index has been applied.
func (n *simNode) takeTick() {
	if !n.up {
		return
	}
	for len(n.ticks) > 0 && n.applied > 0 && n.ticks[0].index <= n.s.states[n.applied-1].Index {
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
		s.trace("%s closes %d in epoch %d", n.id, c.Tick, c.Epoch)
		s.closed = max(s.closed, c.Tick)
		for _, d := range c.Data {
			if d.Tick > c.Tick {
				s.fatalf("%s: data of tick %d in a closing of %d", n.id, d.Tick, c.Tick)
			}
		}
	}
	done := fx.done
	n.r.fx = effects{}
	for _, c := range done {
		c.done(c.result, c.err)
	}
	if n.r.role == RoleFailed {
		s.fatalf("%s failed: %v", n.id, n.r.cause)
	}
}

// noteCommits compares what a primary commits with what was committed before.
func (s *sim) noteCommits(n *simNode) {
	r := n.r
	for lsn := s.top + 1; lsn <= r.commit && r.role == RolePrimary && r.primary.established; lsn++ {
		v, ok := n.disk[string(indexKey(0, lsn))]
		if !ok {
			s.fatalf("%s commits %d, which isn't on its disk", n.id, lsn)
		}
		h, _, err := decodeIndex(v)
		if err != nil {
			s.fatalf("%v", err)
		}
		if h.tick <= s.closed {
			s.fatalf("%s commits %d with tick %d, %d was closed before", n.id, lsn, h.tick, s.closed)
		}
		s.trace("%s commits %d %v tick %d: producer %d sequence %d at %d", n.id, lsn, h.term, h.tick, h.producer, h.sequence, h.base)
		s.committed[lsn], s.top = h, lsn
	}
}

// check looks at all nodes.
func (s *sim) check() {
	for _, n := range s.nodes {
		if !n.up || n.r == nil {
			continue
		}
		r := n.r
		if r.durable > r.end || r.agreed > r.end && r.role != RolePrimary {
			s.fatalf("%s: durable %d, agreed %d, end %d", n.id, r.durable, r.agreed, r.end)
		}
		if r.commit > s.top {
			s.fatalf("%s thinks %d is committed, which is %d", n.id, r.commit, s.top)
		}
		for lsn := max(r.hist.base+1, r.hard.first, r.commit-min(r.commit, 5)); lsn <= r.commit; lsn++ {
			if h := s.committed[lsn]; r.hist.at(lsn) != h.term {
				s.fatalf("%s has %v at %d, committed is %v", n.id, r.hist.at(lsn), lsn, h.term)
			}
		}
	}
}

// produce lets a producer send a new batch, or an unacknowledged one again, to what it takes for the primary.
func (s *sim) produce() {
	p := s.producers[s.rng.IntN(len(s.producers))]
	if len(p.pending) < rememberedResults && p.quota > 0 && s.chance(70) {
		p.pending = append(p.pending, p.next)
		p.next++
		p.quota--
	}
	n := s.node(ids.NodeID(s.last().Partitions[0].Primary))
	if s.chance(15) {
		n = s.pick()
	}
	if len(p.pending) == 0 || !n.up || n.r == nil {
		return
	}
	seen := ids.Tick(0)
	if s.chance(5) {
		seen = s.tick
	}
	for _, seq := range slices.Clone(p.pending) {
		b := batchOf(p.id, seq, fmt.Sprintf("%d/%d", p.id, seq))
		q := &appendReq{
			header:  header{stream: p.stream, count: 1, producer: p.id, sequence: seq, uncompressed: b.UncompressedBytes, payloadLen: uint32(len(b.Payload)), payloadCRC: b.Crc32C},
			payload: b.Payload, seen: seen, wall: int64(s.tick), done: func(res AppendResult, err error) { s.answered(n, p, seq, res, err) },
		}
		n.r.append(s.now, q)
		n.drain()
	}
}

func (s *sim) answered(n *simNode, p *simProducer, seq uint64, res AppendResult, err error) {
	if err != nil {
		var f *fault.Error
		if !errors.As(err, &f) {
			return
		}
		switch _, acked := p.acked[seq-1]; {
		case f.Kind == fault.NotFound, f.GetReason() == "UNKNOWN_PRODUCER" && acked, f.GetReason() == "DUPLICATE_SEQUENCE" && p.acked[seq].Count == 0:
			s.fatalf("%s, producer %d sequence %d: %v", n.id, p.id, seq, err)
		case f.GetReason() == "OUT_OF_SEQUENCE" && acked:
			s.fatalf("%s lost something of producer %d: %v", n.id, p.id, err)
		}
		return
	}
	res.Duplicate = false
	if old, ok := p.acked[seq]; ok && old != res {
		s.fatalf("producer %d sequence %d was acknowledged at %+v, now at %+v", p.id, seq, old, res)
	}
	found := false
	for _, h := range s.committed {
		if h.producer == p.id && h.sequence == seq {
			found = h.base == res.BaseOffset && h.tick == res.Tick && h.stream == p.stream
		}
	}
	if !found {
		s.fatalf("producer %d sequence %d was acknowledged at %d by %s and isn't committed", p.id, seq, res.BaseOffset, n.id)
	}
	if p.acked[seq].Count == 0 {
		s.acks++
	}
	p.acked[seq] = res
	p.pending = slices.DeleteFunc(p.pending, func(x uint64) bool { return x == seq })
}

// change makes a new configuration when the epoch is the expected one.
func (s *sim) change(epoch ids.Epoch, fn func(*internalv1.PartitionConfig) bool) error {
	last := s.last()
	old := last.Partitions[0]
	if ids.Epoch(old.Epoch) != epoch {
		return fault.New(fault.Stale, "stale")
	}
	cfg := &internalv1.PartitionConfig{
		Epoch: old.Epoch, Primary: old.Primary, Replicas: slices.Clone(old.Replicas), InSync: slices.Clone(old.InSync),
		EpochIndex: old.EpochIndex, HandoverTo: old.HandoverTo,
	}
	if !fn(cfg) {
		return fault.New(fault.Conflict, "no")
	}
	st := &internalv1.ClusterState{
		Index: last.Index + 1, Replicas: last.Replicas, Streams: last.Streams, NextObjectId: last.NextObjectId,
		Partitions: []*internalv1.PartitionConfig{cfg},
	}
	if cfg.Primary != old.Primary || !slices.Equal(cfg.Replicas, old.Replicas) || !slices.Equal(cfg.InSync, old.InSync) {
		cfg.Epoch, cfg.EpochIndex = old.Epoch+1, st.Index
	}
	s.states = append(s.states, st)
	s.trace("configuration %s", configText(cfg))
	return nil
}

// answer carries out a call to the coordinator; the answer may get lost.
func (s *sim) answer() {
	if len(s.calls) == 0 {
		return
	}
	i := s.rng.IntN(len(s.calls))
	x := s.calls[i]
	if !s.healing && !x.late && s.chance(15) { // the caller gives up; the call gets there later
		s.calls[i].late = true
		s.called(x, fault.New(fault.Unavailable, "no answer"))
		return
	}
	s.calls = slices.Delete(s.calls, i, i+1)
	err := s.change(x.c.epoch, func(cfg *internalv1.PartitionConfig) bool {
		id := string(x.c.node)
		switch x.c.kind {
		case callRemove:
			if cfg.Primary == id || !slices.Contains(cfg.InSync, id) {
				return false
			}
			cfg.InSync = slices.DeleteFunc(cfg.InSync, func(m string) bool { return m == id })
		case callAdd:
			if !slices.Contains(cfg.Replicas, id) || slices.Contains(cfg.InSync, id) {
				return false
			}
			cfg.InSync = append(cfg.InSync, id)
		case callHandover:
			if cfg.HandoverTo != id || !slices.Contains(cfg.InSync, id) {
				return false
			}
			cfg.Primary, cfg.HandoverTo = id, ""
		}
		return true
	})
	if !s.healing && s.chance(20) {
		err = fault.New(fault.Unavailable, "no answer")
	}
	if !x.late {
		s.called(x, err)
	}
}

func (s *sim) called(x simCall, err error) {
	if x.n.up && x.n.boot == x.boot && x.n.r == x.r {
		x.r.called(s.now, x.c, err)
		x.n.drain()
	}
}

// reconfigure: failovers, justified or not, handovers, moves of replicas.
func (s *sim) reconfigure() {
	old := s.last().Partitions[0]
	_ = s.change(ids.Epoch(old.Epoch), func(cfg *internalv1.PartitionConfig) bool {
		switch s.rng.IntN(5) {
		case 0, 1: // failover
			var live []string
			for _, m := range cfg.InSync {
				if s.node(ids.NodeID(m)).up && (m != cfg.Primary || s.chance(20)) {
					live = append(live, m)
				}
			}
			if len(live) == 0 {
				return false
			}
			cfg.Primary, cfg.InSync, cfg.HandoverTo = live[s.rng.IntN(len(live))], live, ""
		case 2:
			to := cfg.InSync[s.rng.IntN(len(cfg.InSync))]
			if to == cfg.Primary {
				to = ""
			}
			cfg.HandoverTo = to
		case 3: // a replica more
			id := string(s.pick().id)
			if slices.Contains(cfg.Replicas, id) {
				return false
			}
			cfg.Replicas = append(cfg.Replicas, id)
		case 4: // a replica less
			id := string(s.pick().id)
			if id == cfg.Primary || len(cfg.InSync) == 1 || len(cfg.Replicas) <= 3 {
				return false
			}
			not := func(m string) bool { return m == id }
			cfg.Replicas, cfg.InSync = slices.DeleteFunc(cfg.Replicas, not), slices.DeleteFunc(cfg.InSync, not)
			if cfg.HandoverTo == id {
				cfg.HandoverTo = ""
			}
		}
		return true
	})
}

// trim cuts off the old end of a stream at the primary.
func (s *sim) trim() {
	n := s.node(ids.NodeID(s.last().Partitions[0].Primary))
	if !n.up || n.r == nil || n.r.role != RolePrimary || !s.chance(30) {
		return
	}
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

// heal lets everything get through, and waits until all that was sent is acknowledged and all members agree.
func (s *sim) heal() {
	s.healing = true
	for _, n := range s.nodes {
		n.start()
	}
	for range 6000 {
		s.step++
		s.now += 10 * time.Millisecond
		for len(s.net) > 0 {
			s.deliver(0, false)
		}
		for _, n := range s.nodes {
			for _, o := range s.nodes {
				if o != n && !n.links[o.id] && n.r != nil {
					n.links[o.id] = true
					n.r.connected(o.id)
					n.drain()
				}
			}
			n.flush(100)
			n.learn()
			n.takeTick()
			n.send()
			n.sendAck()
			n.elapse()
		}
		s.answer()
		if s.step%5 == 0 {
			s.issueTick()
			s.produce()
		}
		s.check()
		if s.healed() {
			s.final()
			return
		}
		if s.step%500 == 0 { // a reset whose parts came out of order begins again
			for _, n := range s.nodes {
				clear(n.links)
			}
		}
	}
	for _, n := range s.nodes {
		if n.r != nil {
			s.t.Logf("%s: %v %v end %d durable %d commit %d agreed %d first %d cfg %v", n.id, n.r.role, n.r.hard.term, n.r.end, n.r.durable, n.r.commit, n.r.agreed, n.r.hard.first, n.r.cfg)
			for _, p := range n.r.primary.peers {
				s.t.Logf("   %+v", *p)
			}
			s.t.Logf("   open %d closed %d held %d superseded %v established %v", n.r.primary.open, n.r.primary.closed, len(n.r.primary.held), n.r.primary.superseded, n.r.primary.established)
		}
	}
	s.fatalf("doesn't heal: %d acknowledged, %d committed, pending %v %v %v", s.acks, s.top, s.producers[0].pending, s.producers[1].pending, s.producers[2].pending)
}

func (s *sim) healed() bool {
	for _, p := range s.producers {
		if len(p.pending) > 0 {
			return false
		}
	}
	cfg := s.last().Partitions[0]
	if len(cfg.InSync) < len(cfg.Replicas) || len(s.calls) > 0 {
		return false
	}
	for _, id := range cfg.Replicas {
		n := s.node(ids.NodeID(id))
		if n.r == nil || n.r.commit < s.top || n.r.end > s.top || len(n.queue) > 0 || len(n.trims) > 0 {
			return false
		}
	}
	return true
}

// final compares the disks of all members with what was committed.
func (s *sim) final() {
	seen := map[[2]uint64]bool{}
	next := map[ids.StreamID]ids.Offset{}
	for lsn := LSN(1); lsn <= s.top; lsn++ {
		h := s.committed[lsn]
		key := [2]uint64{h.producer, h.sequence}
		if seen[key] {
			s.fatalf("producer %d sequence %d is there twice", h.producer, h.sequence)
		}
		seen[key] = true
		if h.base != next[h.stream] {
			s.fatalf("LSN %d begins at %d of stream %d, not %d", lsn, h.base, h.stream, next[h.stream])
		}
		next[h.stream] = h.end()
	}
	for _, id := range s.last().Partitions[0].Replicas {
		n := s.node(ids.NodeID(id))
		for stream, st := range n.r.streams {
			if st.next != next[stream] || st.committed != st.next {
				s.fatalf("%s: stream %d ends at %d/%d, not %d", id, stream, st.committed, st.next, next[stream])
			}
		}
		have := 0
		for lsn := LSN(1); lsn <= s.top; lsn++ {
			h := s.committed[lsn]
			v, ok := n.disk[string(logKey(0, h.stream, h.base))]
			if h.base < n.r.streams[h.stream].start {
				if ok {
					s.fatalf("%s still has LSN %d", id, lsn)
				}
				continue
			}
			have++
			if want := fmt.Sprintf("%d/%d", h.producer, h.sequence); !ok || !bytes.Contains(v[headerLen:], []byte(want)) {
				s.fatalf("%s lacks LSN %d, stream %d at %d", id, lsn, h.stream, h.base)
			}
		}
		again := &simNode{s: s, id: n.id, boot: n.boot + 1, disk: n.disk, opt: n.opt}
		again.r = again.make()
		if err := again.r.load(n.disk.iter()); err != nil {
			s.fatalf("%s can't recover: %v", id, err)
		}
		if r := again.r; r.end != n.r.end || r.endBytes != n.r.endBytes || r.lastTick != n.r.lastTick || r.hard.first != n.r.hard.first {
			s.fatalf("%s recovers to %d/%d/%d/%d, was %d/%d/%d/%d", id, r.end, r.endBytes, r.lastTick, r.hard.first, n.r.end, n.r.endBytes, n.r.lastTick, n.r.hard.first)
		}
	}
	s.trace("healed: %d acknowledged, epoch %d", s.acks, s.last().Partitions[0].Epoch)
}

// simDisk is what is on a node's disk.
type simDisk map[string][]byte

func (d simDisk) has(key []byte) bool { _, ok := d[string(key)]; return ok }

func (d simDisk) Set(key, value []byte) { d[string(key)] = bytes.Clone(value) }
func (d simDisk) Delete(key []byte)     { delete(d, string(key)) }
func (d simDisk) DeleteRange(lo, hi []byte) {
	for k := range d {
		if k >= string(lo) && k < string(hi) {
			delete(d, k)
		}
	}
}

func (d simDisk) put(w *write) {
	b := &simBatch{simDisk: d}
	put(b, w)
	b.finish()
}

type simBatch struct {
	simDisk
	key, value []byte
}

func (b *simBatch) SetDeferred(keyLen, valueLen int) (key, value []byte) {
	b.finish()
	b.key, b.value = make([]byte, keyLen), make([]byte, valueLen)
	return b.key, b.value
}

func (b *simBatch) finish() {
	if b.key != nil {
		b.simDisk[string(b.key)] = b.value
		b.key = nil
	}
}

type simIter struct {
	d    simDisk
	keys []string
	i    int
}

func (d simDisk) iter() *simIter {
	it := &simIter{d: d}
	for k := range d {
		it.keys = append(it.keys, k)
	}
	slices.Sort(it.keys)
	return it
}

func (it *simIter) SeekGE(key []byte) bool {
	it.i = sort.SearchStrings(it.keys, string(key))
	return it.i < len(it.keys)
}
func (it *simIter) SeekLT(key []byte) bool {
	it.i = sort.SearchStrings(it.keys, string(key)) - 1
	return it.i >= 0
}
func (it *simIter) Next() bool    { it.i++; return it.i < len(it.keys) }
func (it *simIter) Key() []byte   { return []byte(it.keys[it.i]) }
func (it *simIter) Value() []byte { return it.d[it.keys[it.i]] }
func (it *simIter) Error() error  { return nil }
