package coordinator

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/mistakes"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

var (
	simSeed   = flag.Uint64("sim.seed", 0, "run only this schedule of TestSimulation")
	simRounds = flag.Int("sim.rounds", 200, "schedules of TestSimulation")
	simBase   = flag.Uint64("sim.base", 0, "seed of the first schedule; 0: a new one")
)

// TestSimulation runs the applier on two nodes, one behind the other and restored from snapshots now and then, over a log of
// random commands, sensible ones and others, and the oracles of leaders that follow each other on clocks that step: a
// deposed one goes on for a while, what it proposed may be committed or not. After every step the checks of sim_check_test.go
// hold. A schedule is a function of its seed.
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

const simSteps = 250

// simulation is one schedule.
type simulation struct {
	t    *testing.T
	rng  *rand.Rand
	step int
	now  time.Time
	wall int64 // microseconds

	log     []*internalv1.Command // committed; entry i has index i+firstIndex
	first   *fsm                  // has applied all of it
	second  *fsm                  // the first so many
	applied int
	fatal   bool

	leaders []*simLeader // the last one leads
	issued  map[ids.Tick]int
	durable ids.Tick // the highest ceiling in the log
	objects map[uint64]bool
}

const firstIndex = 2

// simLeader is a leader's oracle, and what it has proposed and hasn't heard of yet.
type simLeader struct {
	o       *oracle
	term    int
	last    ids.Tick
	floor   ids.Tick // what was durable when it began: its predecessors may have issued up to there
	limit   ids.Tick // of a deposed one: what was durable when its successor began
	pending []*internalv1.Command
}

func runSim(t *testing.T, seed uint64) {
	s := &simulation{
		t: t, rng: rand.New(rand.NewPCG(seed, 11)), now: time.Unix(1000, 0), wall: testWall,
		issued: map[ids.Tick]int{}, objects: map[uint64]bool{},
	}
	s.first = newFSM(func(error) { s.fatal = true })
	s.second = newFSM(func(error) {})
	s.lead()
	s.commit(&internalv1.Command{Op: &internalv1.Command_Bootstrap{Bootstrap: &internalv1.Bootstrap{
		ClusterId: "c", PartitionCount: 4, Replicas: 3, Member: simMember("m0", "n0"),
	}}})
	for s.step = 1; s.step <= simSteps; s.step++ {
		s.pass()
		switch k := s.rng.IntN(20); {
		case k < 5:
			s.tick()
		case k < 8:
			s.reserve()
		case k == 8:
			s.lead()
		case k == 9 && len(s.log) > 0: // doubled
			s.commit(s.log[s.rng.IntN(len(s.log))])
		case k == 10:
			s.follow()
		default:
			s.commit(s.command())
		}
	}
	s.follow()
	s.undecodable()
}

// violated ends the schedule: a check, by its name, found something that must not be.
func (s *simulation) violated(check, format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("step %d: [%s] %s", s.step, check, fmt.Sprintf(format, args...))
}

// pass lets time pass; the wall clock steps now and then.
func (s *simulation) pass() {
	d := time.Duration(s.rng.IntN(100_000)) * time.Microsecond
	s.now = s.now.Add(d)
	s.wall += d.Microseconds()
	if s.rng.IntN(15) == 0 {
		s.wall += s.rng.Int64N(10_000_000) - 5_000_000
	}
}

func (s *simulation) leader() *simLeader { return s.leaders[len(s.leaders)-1] }

// lead makes a new leader. What the former one proposed is in the log, or not, before the new one looks at the state.
func (s *simulation) lead() {
	if len(s.leaders) > 0 {
		old := s.leader()
		for _, cmd := range old.pending {
			if s.rng.IntN(2) == 0 {
				s.commit(cmd)
			}
		}
		old.pending, old.limit = nil, s.durable
	}
	st := s.first.state.Load()
	if mistakes.Planted("a leader that hasn't applied everything") {
		st = s.second.state.Load()
	}
	s.leaders = append(s.leaders, &simLeader{o: newOracle(DefaultConfig().Ticks, ids.Tick(st.TickCeiling), s.now), term: len(s.leaders) + 1, floor: s.durable})
}

// tick has a leader issue one: mostly the one that leads, or one that doesn't know yet that it was deposed.
func (s *simulation) tick() {
	l := s.leader()
	if n := len(s.leaders); n > 1 && s.rng.IntN(4) == 0 {
		l = s.leaders[n-2]
	}
	for range 1 + s.rng.IntN(4) {
		t, ok := l.o.issue(s.now, uint64(s.wall))
		if !ok {
			return
		}
		limit := l.limit
		if l == s.leader() {
			limit = s.durable
		}
		if t <= l.last || t <= l.floor {
			s.violated("tick-order", "leader %d issued %d after %d; those before it may have issued up to %d", l.term, t, l.last, l.floor)
		}
		if other, twice := s.issued[t]; twice {
			s.violated("tick-twice", "leaders %d and %d issued %d", other, l.term, t)
		}
		if t > limit {
			s.violated("ceiling", "leader %d issued %d; no ceiling above %d is durable for it", l.term, t, limit)
		}
		l.last, s.issued[t] = t, l.term
		s.now = s.now.Add(time.Millisecond)
		s.wall += 1000
	}
}

// reserve has the leader propose a ceiling: it is committed and the leader hears of it, or it waits.
func (s *simulation) reserve() {
	l := s.leader()
	c, ok := l.o.reserve(uint64(s.wall))
	if !ok {
		return
	}
	cmd := &internalv1.Command{Op: &internalv1.Command_ReserveTicks{ReserveTicks: &internalv1.ReserveTicks{Ceiling: uint64(c)}}}
	if mistakes.Planted("a ceiling taken for durable when it is proposed") {
		l.o.reserved(c)
	}
	if s.rng.IntN(3) == 0 {
		l.pending = append(l.pending, cmd)
		return
	}
	if s.commit(cmd) == nil {
		l.o.reserved(c)
	}
}

// commit appends a command to the log and applies it on the first node.
func (s *simulation) commit(cmd *internalv1.Command) error {
	cmd = proto.CloneOf(cmd)
	cmd.Version = commandVersion
	if cmd.Tick == 0 {
		cmd.Tick = uint64(s.leader().last)
	}
	index := uint64(len(s.log) + firstIndex)
	s.log = append(s.log, cmd)
	before := s.first.state.Load()
	copied := proto.CloneOf(before)
	got := s.applyTo(s.first, len(s.log)-1)
	after := s.first.state.Load()
	if !proto.Equal(before, copied) {
		s.violated("pure", "%v changed the published state", cmd)
	}
	again, _, _ := apply(before, index, cmd)
	if !proto.Equal(again, after) {
		s.violated("pure", "%v, applied twice to one state, gave two", cmd)
	}
	if got.err != nil && after != before {
		s.violated("refused", "%v was refused (%v), and the state is another", cmd, got.err)
	}
	s.judge(copied, after, cmd, index)
	s.durable = max(s.durable, ids.Tick(after.TickCeiling))
	return got.err
}

func (s *simulation) applyTo(f *fsm, i int) applied {
	s.t.Helper()
	b, err := proto.Marshal(s.log[i])
	if err != nil {
		s.t.Fatal(err)
	}
	return f.Apply(&raft.Log{Index: uint64(i + firstIndex), Data: b}).(applied)
}

// follow lets the second node catch up: by the log, or by a snapshot and the rest of the log.
func (s *simulation) follow() {
	to := len(s.log)
	if s.rng.IntN(3) == 0 {
		b, err := encodeState(s.second.state.Load())
		if err != nil {
			s.t.Fatal(err)
		}
		st, err := decodeState(b)
		if err != nil {
			s.violated("snapshot", "what was written can't be read: %v", err)
		}
		s.second = newFSM(func(error) {})
		s.second.publish(st)
	}
	for ; s.applied < to; s.applied++ {
		s.applyTo(s.second, s.applied)
	}
	if a, b := s.first.state.Load(), s.second.state.Load(); !proto.Equal(a, b) {
		s.violated("states-agree", "after %d entries one node has\n%v\nand the other\n%v", to, a, b)
	}
}

// undecodable is the end: an entry of a later version comes, and nothing may be applied any more.
func (s *simulation) undecodable() {
	before := s.first.state.Load()
	s.log = append(s.log, &internalv1.Command{Version: commandVersion + 1, Op: &internalv1.Command_ReserveTicks{ReserveTicks: &internalv1.ReserveTicks{Ceiling: 1}}},
		&internalv1.Command{Version: commandVersion, Op: &internalv1.Command_ReserveTicks{ReserveTicks: &internalv1.ReserveTicks{Ceiling: uint64(s.durable) + 1}}})
	for i := len(s.log) - 2; i < len(s.log); i++ {
		s.applyTo(s.first, i)
	}
	if !s.fatal || s.first.state.Load() != before {
		s.violated("stops", "an entry of an unknown version was skipped (the node stops: %v)", s.fatal)
	}
}

func simMember(id, name string) *internalv1.Member {
	return &internalv1.Member{Id: id, Name: name, Grpc: id + ":1", Weight: 1}
}

func (s *simulation) some(list []string, most int) (out []string) {
	for _, i := range s.rng.Perm(len(list)) {
		if len(out) < most {
			out = append(out, list[i])
		}
	}
	return out
}

// command is a random one, about what there is more often than not.
func (s *simulation) command() *internalv1.Command {
	st := s.first.state.Load()
	var members []string
	for _, m := range st.Members {
		if m.State != removed || s.rng.IntN(8) == 0 {
			members = append(members, m.Id)
		}
	}
	anyone := members[s.rng.IntN(len(members))]
	cmd := &internalv1.Command{}
	switch k := s.rng.IntN(16); {
	case k == 0 && s.rng.IntN(4) == 0:
		cmd.Op = &internalv1.Command_Bootstrap{Bootstrap: &internalv1.Bootstrap{ClusterId: "other", PartitionCount: 2, Replicas: 1, Member: simMember("x", "x")}}
	case k < 3:
		id, name := fmt.Sprint("m", s.rng.IntN(12)), fmt.Sprint("n", s.rng.IntN(6))
		cmd.Op = &internalv1.Command_RegisterMember{RegisterMember: &internalv1.RegisterMember{Member: simMember(id, name)}}
	case k < 5:
		to := []internalv1.MemberState{joining, alive, alive, dead, draining, drained}[s.rng.IntN(6)]
		cmd.Op = &internalv1.Command_SetMemberState{SetMemberState: &internalv1.SetMemberState{Id: anyone, State: to}}
	case k < 6:
		cmd.Op = &internalv1.Command_RemoveMember{RemoveMember: &internalv1.RemoveMember{Id: anyone, Force: s.rng.IntN(3) == 0}}
	case k < 12:
		cmd.Op = &internalv1.Command_SetPartition{SetPartition: &internalv1.SetPartition{Changes: s.changes(st, members)}}
	default:
		s.catalogCommand(st, cmd)
	}
	return cmd
}

// changes are of one partition or two.
func (s *simulation) changes(st *internalv1.ClusterState, members []string) (out []*internalv1.PartitionChange) {
	for _, p := range s.rng.Perm(len(st.Partitions))[:1+s.rng.IntN(2)] {
		cur := st.Partitions[p]
		want := clonePartition(cur)
		ch := &internalv1.PartitionChange{Config: want, ExpectedEpoch: cur.Epoch, Failover: s.rng.IntN(5) == 0}
		switch s.rng.IntN(7) {
		case 0: // a learner
			want.Replicas = append(want.Replicas, members[s.rng.IntN(len(members))])
		case 1: // in sync
			want.InSync = append(want.InSync, want.Replicas[s.rng.IntN(len(want.Replicas))])
		case 2:
			want.HandoverTo = want.InSync[s.rng.IntN(len(want.InSync))]
		case 3:
			want.Primary = want.Replicas[s.rng.IntN(len(want.Replicas))]
			if cur.HandoverTo != "" && s.rng.IntN(2) == 0 {
				want.Primary = cur.HandoverTo
			}
			want.HandoverTo = ""
		case 4: // out of sync
			want.InSync = without(want.InSync, want.InSync[s.rng.IntN(len(want.InSync))])
		case 5:
			gone := want.Replicas[s.rng.IntN(len(want.Replicas))]
			want.Replicas, want.InSync = without(want.Replicas, gone), without(want.InSync, gone)
		default: // anything
			want.Replicas = s.some(members, 1+s.rng.IntN(4))
			want.InSync = s.some(want.Replicas, 1+s.rng.IntN(3))
			want.Primary, want.HandoverTo = want.InSync[s.rng.IntN(len(want.InSync))], ""
		}
		if s.rng.IntN(6) == 0 {
			ch.ExpectedEpoch = max(1, cur.Epoch-uint64(s.rng.IntN(3)))
		}
		out = append(out, ch)
	}
	return out
}

func (s *simulation) catalogCommand(st *internalv1.ClusterState, cmd *internalv1.Command) {
	objs := objects(st)
	name := fmt.Sprint("o", s.rng.IntN(10))
	switch s.rng.IntN(6) {
	case 0, 1:
		cmd.Op = &internalv1.Command_CreateStream{CreateStream: &internalv1.CreateStream{
			Def: &internalv1.StreamDef{Stream: &millracev1.Stream{Name: name}}, IfNotExists: s.rng.IntN(4) == 0}}
	case 2:
		cmd.Op = &internalv1.Command_CreateTable{CreateTable: &internalv1.CreateTable{
			Log: &internalv1.StreamDef{Stream: &millracev1.Stream{Name: name, PrimaryKey: []string{"a"}}}}}
	case 3:
		v := &internalv1.ViewDef{Name: name}
		for range s.rng.IntN(3) {
			v.DependsOn = append(v.DependsOn, 1+s.rng.Uint64N(st.NextObjectId))
			if len(objs) > 0 && s.rng.IntN(3) > 0 {
				v.DependsOn[len(v.DependsOn)-1] = objs[s.rng.IntN(len(objs))].id
			}
		}
		cmd.Op = &internalv1.Command_CreateView{CreateView: &internalv1.CreateView{Def: v}}
	case 4:
		if len(st.Views) > 0 {
			v := st.Views[s.rng.IntN(len(st.Views))]
			cmd.Op = &internalv1.Command_RestartView{RestartView: &internalv1.RestartView{Id: v.Id, CreatedTick: v.CreatedTick + uint64(s.rng.IntN(2))}}
			return
		}
		fallthrough
	default:
		cmd.Op = &internalv1.Command_DropObjects{DropObjects: &internalv1.DropObjects{
			Names: []string{name}, IfExists: s.rng.IntN(3) == 0, Cascade: s.rng.IntN(3) == 0}}
	}
}
