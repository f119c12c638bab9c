package partition

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/mistakes"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

var (
	simSeed   = flag.Uint64("sim.seed", 0, "run only this schedule")
	simRounds = flag.Int("sim.rounds", 400, "schedules to run")
	simBase   = flag.Uint64("sim.base", 0, "seed of the first schedule; 0: a new one")
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
	base := *simBase
	if base == 0 {
		base = uint64(time.Now().UnixNano())
	}
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

	producers  []*simProducer
	committed  map[LSN]header
	committers map[ids.Epoch]ids.NodeID
	top        LSN // of committed
	closed     ids.Tick
	acks       int
	step       int
	healing    bool
	forgets    bool             // it ends with forget, and has no retention
	forgetful  *simForgetting   // a primary's disk has forgotten something; nil: none has
	out        *strings.Builder // of a scripted run
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

// violated ends the schedule: a check, by its name, found something that must not be.
func (s *sim) violated(check, format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("step %d: [%s] %s", s.step, check, fmt.Sprintf(format, args...))
}

// planted tells whether this process has a deliberate fault; see TestDeliberateFaults.
func planted(fault string) bool { return mistakes.Planted(fault) }

func (s *sim) trace(format string, args ...any) {
	if s.out != nil {
		fmt.Fprintf(s.out, format+"\n", args...)
	}
	if *simTrace {
		fmt.Printf("%d: %s\n", s.step, fmt.Sprintf(format, args...))
	}
}

func runSim(t *testing.T, seed uint64) {
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 7)), committed: map[LSN]header{}, committers: map[ids.Epoch]ids.NodeID{}, tick: 1000}
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
	s.forgets = s.chance(25)
	for s.step = range 1500 {
		s.random()
		s.check()
	}
	if s.forgets {
		s.forget()
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

func (s *sim) node(id ids.NodeID) *simNode {
	return s.nodes[slices.IndexFunc(s.nodes, func(n *simNode) bool { return n.id == id })]
}

func (s *sim) issueTick() {
	s.tick += ids.Tick(s.rng.IntN(5) + 1)
	for _, n := range s.nodes {
		n.ticks = append(n.ticks, earlyTick{s.tick, s.last().Index})
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
			payload: b.Payload, seen: seen, wall: int64(s.tick), done: func(res AppendResult, err error) { s.answered(n, p, seq, seen, res, err) },
		}
		n.r.append(s.now, q)
		n.drain()
	}
}

// heal lets everything get through, and waits until all that was sent is acknowledged and all members agree.
func (s *sim) heal() {
	s.healing = true
	healed, trimmed := 0, s.forgets // steps since it is healed but for retention
	for range 6000 {
		s.step++
		s.now += 10 * time.Millisecond
		s.everyone()
		if s.step%5 == 0 {
			s.issueTick()
			s.produce()
		}
		s.check()
		if s.healed() {
			late := s.untrimmed()
			switch {
			case late != "" && !s.forgets:
				if healed++; healed > 50 {
					s.violated("retention", "%s keeps what the primary's retention has removed", late)
				}
			case !trimmed:
				healed, trimmed = 0, true
				s.trimAndCrash()
			default:
				s.final()
				return
			}
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
	s.violated("heals", "doesn't heal: %d acknowledged, %d committed, pending %v %v %v", s.acks, s.top, s.producers[0].pending, s.producers[1].pending, s.producers[2].pending)
}

// everyone lets all that is under way arrive and each node do what it has to do.
func (s *sim) everyone() {
	for len(s.net) > 0 {
		s.deliver(0, false)
	}
	for _, n := range s.nodes {
		n.start()
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

// trimAndCrash lets retention remove something everywhere, and another member crash before that is on its disk. It comes
// back so soon that it stays in sync.
func (s *sim) trimAndCrash() {
	cfg := s.last().Partitions[0]
	s.trimOn(s.node(ids.NodeID(cfg.Primary)))
	for range 3 {
		for _, n := range s.nodes {
			n.send()
			n.elapse()
		}
		for len(s.net) > 0 {
			s.deliver(0, false)
		}
	}
	for _, id := range cfg.Replicas {
		if id != cfg.Primary {
			s.node(ids.NodeID(id)).crash()
			return
		}
	}
}

// untrimmed names a member that keeps what the primary's retention has removed.
func (s *sim) untrimmed() ids.NodeID {
	cfg := s.last().Partitions[0]
	primary := s.node(ids.NodeID(cfg.Primary)).r
	for _, id := range cfg.Replicas {
		for stream, st := range s.node(ids.NodeID(id)).r.streams {
			if p := primary.streams[stream]; p != nil && st.start < p.start {
				return ids.NodeID(id)
			}
		}
	}
	return ""
}
