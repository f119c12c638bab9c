package coordinator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/ring"
)

// moveRun moves partitions without nodes: plans are applied by the applier, and what primaries would answer is made up.
type moveRun struct {
	t     *testing.T
	rnd   *rand.Rand
	st    *internalv1.ClusterState
	index uint64
	p     planner
	o     *outlook
	steps int
}

func startMoves(t *testing.T, partitions, replicas int, rnd *rand.Rand) *moveRun {
	r := &moveRun{t: t, rnd: rnd, st: emptyState(), p: newPlanner(DefaultConfig().Moves, ring.Assign), o: &outlook{
		now: time.Unix(1000, 0), down: map[string]bool{}, gone: map[string]bool{}, stopping: map[string]bool{},
	}}
	r.do(&internalv1.Command{Op: &internalv1.Command_Bootstrap{Bootstrap: &internalv1.Bootstrap{
		ClusterId: "c", PartitionCount: uint32(partitions), Replicas: uint32(replicas), Member: &internalv1.Member{Id: "a", Name: "a", Grpc: "a:1"},
	}}})
	return r
}

func (r *moveRun) do(cmd *internalv1.Command) *internalv1.CommandResult {
	r.t.Helper()
	r.index++
	next, res, err := apply(r.st, r.index, cmd)
	if err != nil {
		r.t.Fatalf("step %d: %v", r.steps, err)
	}
	r.check(r.st, next)
	r.st = next
	return res
}

func (r *moveRun) join(id string) {
	r.do(&internalv1.Command{Op: &internalv1.Command_RegisterMember{RegisterMember: &internalv1.RegisterMember{Member: &internalv1.Member{Id: id, Name: id, Grpc: id + ":1"}}}})
	r.do(setMemberState(id, alive))
}

// check holds at every step: enough replicas stay in sync, and throttles are kept.
func (r *moveRun) check(old, st *internalv1.ClusterState) {
	r.t.Helper()
	learners, added := map[string]int{}, map[string]bool{}
	handovers := 0
	for i, p := range st.Partitions {
		if i < len(old.Partitions) && len(p.InSync) < len(old.Partitions[i].InSync) {
			if least := minInSync(st.Replicas, len(p.Replicas)); len(p.InSync) < least {
				r.t.Fatalf("step %d: %s", r.steps, showPartition(p))
			}
		}
		if len(p.Replicas) > int(st.Replicas)+1 {
			r.t.Fatalf("step %d: too many replicas: %s", r.steps, showPartition(p))
		}
		for _, id := range p.Replicas {
			if !slices.Contains(p.InSync, id) && r.o.serves(id) {
				learners[id]++
			}
			if i < len(old.Partitions) && !slices.Contains(old.Partitions[i].Replicas, id) {
				added[id] = true
			}
		}
		if p.HandoverTo != "" {
			handovers++
		}
	}
	for id, n := range learners {
		if added[id] && n > r.p.limit(id) {
			r.t.Fatalf("step %d: %s copies %d partitions at once", r.steps, id, n)
		}
	}
	if handovers > stopHandovers {
		r.t.Fatalf("step %d: %d handovers at once", r.steps, handovers)
	}
}

// step plans once, and lets some primaries answer.
func (r *moveRun) step() {
	r.steps++
	r.o.now = r.o.now.Add(100 * time.Millisecond)
	changes := r.p.plan(r.st, r.o)
	if len(changes) > 0 {
		r.do(setPartition(changes...))
	}
	for _, p := range r.st.Partitions {
		if r.o.down[p.Primary] {
			continue
		}
		if r.rnd.IntN(3) == 0 {
			continue // it may answer the next time
		}
		want := clonePartition(p)
		if p.HandoverTo != "" {
			want.Primary, want.HandoverTo = p.HandoverTo, ""
		} else if i := slices.IndexFunc(p.Replicas, func(id string) bool { return !slices.Contains(p.InSync, id) && r.o.serves(id) }); i >= 0 {
			want.InSync = append(want.InSync, p.Replicas[i])
		} else {
			continue
		}
		r.do(setPartition(&internalv1.PartitionChange{Config: want, ExpectedEpoch: p.Epoch}))
	}
}

// rest runs until nothing moves, and checks that all is where the ring wants it.
func (r *moveRun) rest() {
	r.t.Helper()
	quiet := 0
	for n := 0; quiet < 20; n++ {
		if n > 5000 {
			r.t.Fatalf("no rest after %d steps:\n%s", n, showState(r.st))
		}
		before := r.st
		r.step()
		if quiet++; r.st != before {
			quiet = 0
		}
	}
	want := r.p.want(r.st, r.o)
	for i, p := range r.st.Partitions {
		serving := slices.DeleteFunc(slices.Clone(want[i]), func(id string) bool { return !r.o.serves(id) })
		if len(serving) < len(want[i]) {
			continue // it waits for the member
		}
		if !sameSet(p.Replicas, want[i]) || !sameSet(p.InSync, want[i]) || p.Primary != want[i][0] || p.HandoverTo != "" {
			r.t.Fatalf("wanted %v: %s", want[i], showPartition(p))
		}
	}
}

func newRand(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func TestMovesConverge(t *testing.T) {
	for _, c := range []struct{ partitions, replicas, nodes int }{{8, 3, 3}, {32, 3, 5}, {16, 1, 3}, {32, 2, 4}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			r := startMoves(t, c.partitions, c.replicas, newRand(t))
			for i := 1; i < c.nodes; i++ {
				r.join(string(rune('a' + i)))
				if r.rnd.IntN(2) == 0 {
					r.step()
				}
			}
			r.rest()
			// One drains away.
			r.do(setMemberState("b", draining))
			r.rest()
			if n := holdings(r.st, "b"); n != 0 {
				t.Errorf("the drained node holds %d partitions", n)
			}
			// It comes back, another stops for a while and returns.
			r.do(setMemberState("b", alive))
			r.rest()
			r.o.stopping["a"] = true
			r.rest()
			for _, p := range r.st.Partitions {
				if p.Primary == "a" && len(p.InSync) > 1 {
					t.Errorf("the node that stops is still primary: %s", showPartition(p))
				}
			}
			r.o.stopping["a"] = false
			r.rest()
		})
	}
}

func TestMovesAroundADeadNode(t *testing.T) {
	r := startMoves(t, 16, 3, newRand(t))
	for _, id := range []string{"b", "c", "d"} {
		r.join(id)
	}
	r.rest()
	// c dies: its primaries have failed over and the others have taken it out of their in-sync sets.
	r.o.down["c"] = true
	for _, p := range r.st.Partitions {
		want := clonePartition(p)
		want.InSync = without(want.InSync, "c")
		if want.Primary == "c" {
			want.Primary = want.InSync[0]
		}
		if len(want.InSync) < len(p.InSync) {
			r.do(setPartition(&internalv1.PartitionChange{Config: want, ExpectedEpoch: p.Epoch, Failover: true}))
		}
	}
	before := showState(r.st)
	for range 20 {
		r.step()
	}
	for _, p := range r.st.Partitions {
		if len(p.Replicas) > 3 {
			t.Fatalf("a replica was made again at once: %s\nbefore:\n%s", showPartition(p), before)
		}
	}
	r.o.gone["c"] = true
	r.rest()
	if n := holdings(r.st, "c"); n != 0 {
		t.Errorf("the node that is gone holds %d partitions", n)
	}
}

func TestCopiesThrottle(t *testing.T) {
	r := startMoves(t, 64, 2, newRand(t))
	r.join("b")
	learners := func() (n int) {
		for _, p := range r.st.Partitions {
			if slices.Contains(p.Replicas, "b") && !slices.Contains(p.InSync, "b") {
				n++
			}
		}
		return n
	}
	// round adds learners, then all of them are done after d.
	round := func(d time.Duration) int {
		for range 3 {
			if ch := r.p.plan(r.st, r.o); len(ch) > 0 {
				r.do(setPartition(ch...))
			}
		}
		n := learners()
		r.o.now = r.o.now.Add(d)
		r.p.plan(r.st, r.o)
		for _, p := range r.st.Partitions {
			if !slices.Contains(p.InSync, "b") && slices.Contains(p.Replicas, "b") {
				want := clonePartition(p)
				want.InSync = append(want.InSync, "b")
				r.do(setPartition(&internalv1.PartitionChange{Config: want, ExpectedEpoch: p.Epoch}))
			}
		}
		return n
	}
	var got []int
	for _, d := range []time.Duration{300, 300, 300, 300, 300, 5000, 5000, 300, 300} {
		got = append(got, round(d*time.Millisecond))
	}
	if want := []int{1, 2, 8, 8, 8, 8, 1, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("copies at once in each round: %v, want %v", got, want)
	}
}

// TestHandoverAwaitsViews: a replica gets the views' state before it becomes the primary, unless that takes too long.
func TestHandoverAwaitsViews(t *testing.T) {
	r := startMoves(t, 1, 2, newRand(t))
	r.join("b")
	r.rest()
	p := r.st.Partitions[0]
	want := slices.Clone(p.Replicas)
	if want[0] == p.Primary {
		slices.Reverse(want)
	}
	plan := func() []*internalv1.PartitionChange {
		r.p.desired = [][]string{want}
		return r.p.plan(r.st, r.o)
	}
	r.o.progress = map[progressKey]*internalv1.ReplicaProgress{{p.Id, want[0]}: {Partition: p.Id, Node: want[0], ViewsBehind: true}}
	if ch := plan(); len(ch) != 0 {
		t.Fatalf("the handover doesn't wait: %v", ch)
	}
	r.o.progress[progressKey{p.Id, want[0]}].ViewsBehind = false
	if ch := plan(); len(ch) != 1 || ch[0].Config.HandoverTo != want[0] {
		t.Fatalf("the handover doesn't come: %v", ch)
	}
	r.o.progress[progressKey{p.Id, want[0]}].ViewsBehind = true
	if ch := plan(); len(ch) != 0 {
		t.Fatalf("the next handover doesn't wait: %v", ch)
	}
	r.o.now = r.o.now.Add(DefaultConfig().Moves.ViewsLimit)
	if ch := plan(); len(ch) != 1 || ch[0].Config.HandoverTo != want[0] {
		t.Errorf("the handover waits for too long: %v", ch)
	}
}

func TestHandoverCalledOff(t *testing.T) {
	r := startMoves(t, 1, 2, newRand(t))
	r.join("b")
	r.rest()
	p := r.st.Partitions[0]
	other := without(p.Replicas, p.Primary)[0]
	want := clonePartition(p)
	want.HandoverTo = other
	r.do(setPartition(&internalv1.PartitionChange{Config: want, ExpectedEpoch: p.Epoch}))
	if ch := r.p.plan(r.st, r.o); len(ch) != 0 {
		t.Fatalf("a handover under way is disturbed: %v", ch)
	}
	r.o.now = r.o.now.Add(DefaultConfig().Moves.HandoverLimit + time.Second)
	if ch := r.p.plan(r.st, r.o); len(ch) != 1 || ch[0].Config.HandoverTo != "" {
		t.Errorf("a handover that takes too long goes on: %v", ch)
	}
	r.p.handovers = map[uint32]time.Time{}
	r.o.down[other] = true
	if ch := r.p.plan(r.st, r.o); len(ch) != 1 || ch[0].Config.HandoverTo != "" {
		t.Errorf("a handover to a dead node goes on: %v", ch)
	}
}

func TestMovesShown(t *testing.T) {
	cfg := &internalv1.PartitionConfig{Id: 3, Primary: "a", Replicas: []string{"a", "b", "x"}, InSync: []string{"a", "x"}}
	o := &outlook{progress: map[progressKey]*internalv1.ReplicaProgress{{3, "b"}: {DoneBytes: 5, TotalBytes: 9}}}
	got := fmt.Sprint(partitionMoves(cfg, []string{"b", "c", "a"}, o))
	if len(partitionMoves(cfg, []string{"b", "c", "a"}, o)) != 2 {
		t.Fatal(got)
	}
	ms := partitionMoves(cfg, []string{"b", "c", "a"}, o)
	if ms[0].From != "x" || ms[0].To != "b" || ms[0].Phase != "copy" || ms[0].DoneBytes != 5 || ms[1].To != "c" || ms[1].Phase != "queued" {
		t.Error(got)
	}
	cfg = &internalv1.PartitionConfig{Primary: "x", Replicas: []string{"a", "x"}, InSync: []string{"a", "x"}, HandoverTo: "a"}
	ms = partitionMoves(cfg, []string{"a"}, o)
	if len(ms) != 2 || ms[0].Phase != "handover" || ms[1].Phase != "remove" || ms[1].From != "x" {
		t.Error(ms)
	}
}

func TestVoters(t *testing.T) {
	r := startMoves(t, 1, 1, newRand(t))
	for _, id := range []string{"b", "c", "d", "e", "f"} {
		r.join(id)
	}
	servers := []raft.Server{{ID: "a", Suffrage: raft.Voter}}
	lag := map[string]bool{}
	self := "a"
	// settle carries out the changes until there are none.
	settle := func() (did []string) {
		for range 50 {
			ch, ok := nextServerChange(r.st, servers, self, r.o, func(id string) bool { return !lag[id] })
			if !ok {
				return did
			}
			did = append(did, fmt.Sprintf("%d:%s", ch.kind, ch.id))
			i := slices.IndexFunc(servers, func(s raft.Server) bool { return string(s.ID) == ch.id })
			switch ch.kind {
			case addServer:
				servers = append(servers, raft.Server{ID: raft.ServerID(ch.id), Suffrage: raft.Nonvoter})
			case promote:
				servers[i].Suffrage = raft.Voter
			case demote:
				servers[i].Suffrage = raft.Nonvoter
			case removeServer:
				servers = slices.Delete(servers, i, i+1)
			case transferAway:
				self = string(servers[slices.IndexFunc(servers, func(s raft.Server) bool {
					_, m := findMember(r.st, string(s.ID))
					return s.Suffrage == raft.Voter && m.State == alive
				})].ID)
			}
		}
		t.Fatalf("no end: %v", did)
		return nil
	}
	count := func() (voters string) {
		for _, s := range servers {
			if s.Suffrage == raft.Voter {
				voters += string(s.ID)
			}
		}
		return voters
	}
	want := func(what string, ok func(string) bool) {
		t.Helper()
		did := settle()
		if v := count(); !ok(v) {
			t.Fatalf("%s: voters %q, %d servers, after %v", what, v, len(servers), did)
		}
	}
	lag["b"], lag["c"], lag["d"], lag["e"], lag["f"] = true, true, true, true, true
	want("all lag", func(v string) bool { return v == "a" && len(servers) == 6 })
	clear(lag)
	want("six members", func(v string) bool { return len(v) == 5 && v[0] == 'a' })
	voter := count()[1:2]
	r.o.down[voter] = true
	want("a voter is down", func(v string) bool { return len(v) == 5 })
	r.o.gone[voter] = true
	want("it is gone for long: another takes its vote", func(v string) bool { return len(v) == 5 && !slices.Contains([]byte(v), voter[0]) })
	r.do(&internalv1.Command{Op: &internalv1.Command_RemoveMember{RemoveMember: &internalv1.RemoveMember{Id: voter, Force: true}}})
	want("it is removed", func(v string) bool { return len(v) == 5 && len(servers) == 5 })
	r.do(setMemberState(self, draining))
	want("the leader drains, four are left: three voters", func(v string) bool {
		return len(v) == 3 && v[0] != 'a' && self != "a"
	})
}

// TestWithoutDown: who is down leaves the in-sync set, unless too few would be left.
func TestWithoutDown(t *testing.T) {
	st := &internalv1.ClusterState{Replicas: 3}
	p := &internalv1.PartitionConfig{Primary: "a", Replicas: []string{"a", "b", "c"}, InSync: []string{"a", "b", "c"}, HandoverTo: "c"}
	for _, c := range []struct {
		down string
		want []string // nil: it stays as it is
	}{{"", nil}, {"c", []string{"a", "b"}}, {"b", []string{"a", "c"}}, {"bc", nil}} {
		o := &outlook{down: map[string]bool{}}
		for _, id := range c.down {
			o.down[string(id)] = true
		}
		next := withoutDown(st, p, o)
		switch {
		case next == nil && c.want == nil:
		case next == nil || !slices.Equal(next.InSync, c.want):
			t.Errorf("down %q: %v, want %v", c.down, next, c.want)
		case next.HandoverTo != "" && o.down[next.HandoverTo]:
			t.Errorf("down %q: handed over to %q", c.down, next.HandoverTo)
		}
	}
}

// TestStateShown: a handover that waits for the views' state says how far that is, and so does a note, with the time left.
func TestStateShown(t *testing.T) {
	p := &internalv1.PartitionConfig{Primary: "a", Replicas: []string{"b", "a"}, InSync: []string{"b", "a"}}
	now := time.Unix(1000, 0)
	o := &outlook{now: now, progress: map[progressKey]*internalv1.ReplicaProgress{
		{0, "b"}: {Node: "b", ViewsBehind: true, StateDoneBytes: 30 << 20, StateTotalBytes: 90 << 20},
	}}
	moves := partitionMoves(p, []string{"b", "a"}, o)
	if len(moves) != 1 || moves[0].Phase != "state" || moves[0].DoneBytes != 30<<20 || moves[0].TotalBytes != 90<<20 {
		t.Errorf("moves %v", moves)
	}
	l := &leadership{rates: copyRates{}}
	for i := range uint64(3) {
		l.rates.note([]*internalv1.ReplicaProgress{{Node: "b", StateDoneBytes: 10 << 20 * (i + 1)}}, now.Add(time.Duration(i-2)*time.Second))
	}
	if got, want := l.stateNotice(o), "1 replicas still get the state of views, 30 of 90 MiB are copied, about 7s left; "+
		"one that takes over before computes what it lacks"; got != want {
		t.Errorf("note %q\nwant %q", got, want)
	}
	o.progress = nil
	if got := l.stateNotice(o); got != "" {
		t.Errorf("note %q of nothing", got)
	}
}
