package coordinator

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

func createStream(name string) *internalv1.Command {
	return &internalv1.Command{Op: &internalv1.Command_CreateStream{CreateStream: &internalv1.CreateStream{
		Def: &internalv1.StreamDef{Stream: &millracev1.Stream{Name: name}},
	}}}
}

func TestSingleNode(t *testing.T) {
	n := newTestNode(t, "n1", nil)
	began := time.Now()
	n.start().waitReady()
	t.Logf("start to ready: %v", time.Since(began))
	st := n.State()
	if len(st.Partitions) != 8 || st.ClusterId == "" || st.Members[0].Name != "n1" || !st.Members[0].Voter {
		t.Fatalf("bootstrapped state: %v", st)
	}
	res, err := n.Propose(context.Background(), createStream("s"))
	if err != nil || res.ObjectId != 1 || len(n.State().Streams) != 1 {
		t.Fatalf("create: %v, %v", res, err)
	}
	if n.State().Streams[0].CreatedTick == 0 {
		t.Error("created_tick isn't stamped")
	}
	_, err = n.Propose(context.Background(), createStream("s"))
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != fault.Exists || f.GetSQLState() != "42P07" {
		t.Errorf("second create: %v", err)
	}
	tick, _ := n.LastTick()
	cluster, id := st.ClusterId, n.ID()
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}

	began = time.Now()
	n.start().waitReady()
	t.Logf("restart to ready: %v", time.Since(began))
	if st := n.State(); st.ClusterId != cluster || n.ID() != id || len(st.Streams) != 1 || st.Members[0].Grpc != n.cfg.GRPC {
		t.Errorf("after restart: %v", st)
	}
	if again, _ := n.LastTick(); again <= tick {
		t.Errorf("tick %d after restart, %d before", again, tick)
	}
}

func TestSecondBootstrapIsRefused(t *testing.T) {
	n := newTestNode(t, "n1", nil).start()
	n.waitReady()
	cmd := &internalv1.Command{Op: &internalv1.Command_Bootstrap{Bootstrap: &internalv1.Bootstrap{
		ClusterId: "other", PartitionCount: 8, Replicas: 3, Member: n.self("x:1"),
	}}}
	if _, err := n.Propose(context.Background(), cmd); !errors.Is(err, fault.Of(fault.Exists)) {
		t.Errorf("by command: %v", err)
	}
	if err := n.bootstrap(newRaftLogger(n.log)); !errors.Is(err, fault.Of(fault.Conflict)) {
		t.Errorf("with another id: %v", err)
	}
}

func TestThreeNodes(t *testing.T) {
	nodes := startThree(t, nil)
	ctx := context.Background()
	for i, n := range nodes {
		if _, err := n.Propose(ctx, createStream("s"+n.name)); err != nil {
			t.Fatalf("%s: %v", n.name, err)
		}
		if got := len(n.State().Streams); got <= i {
			t.Errorf("%s doesn't see what it created: %d streams", n.name, got)
		}
	}
	_, err := nodes[2].Propose(ctx, createStream("sn1"))
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != fault.Exists || f.GetSQLState() != "42P07" {
		t.Errorf("a refusal through another node: %v", err)
	}
	for _, n := range nodes {
		if err := n.ReadBarrier(ctx); err != nil || len(n.State().Streams) != 3 {
			t.Errorf("%s after a barrier: %v, %d streams", n.name, err, len(n.State().Streams))
		}
	}
	// Balanced primaries.
	held := map[string]int{}
	for _, p := range nodes[0].State().Partitions {
		held[p.Primary]++
	}
	for id, n := range held {
		if n > 3 {
			t.Errorf("%s is primary of %d of 8 partitions", id, n)
		}
	}
}

func TestLeaderKilled(t *testing.T) {
	nodes := startThree(t, nil)
	leader, others := leaderOf(t, nodes)
	before, _ := leader.LastTick()
	killed := time.Now()
	leader.kill()
	during := createStream("during")
	during.GetCreateStream().IfNotExists = true
	proposed := make(chan error, 1)
	go func() {
		_, err := others[1].Propose(context.Background(), during)
		proposed <- err
	}()
	next, _ := leaderOf(t, others)
	t.Logf("new leader after %v", time.Since(killed))
	eventually(t, "ticks go on", func() bool {
		tick, _ := next.LastTick()
		other, _ := others[0].ticks.seen()
		return tick > before && other > before
	})
	t.Logf("ticks after %v", time.Since(killed))
	eventually(t, "partitions fail over", func() bool {
		for _, p := range next.State().Partitions {
			if p.Primary == string(leader.ID()) {
				return false
			}
		}
		return true
	})
	t.Logf("failed over after %v", time.Since(killed))
	if err := <-proposed; err != nil {
		t.Errorf("a command that may be repeated, sent while there was no leader: %v", err)
	}
	if _, err := others[0].Propose(context.Background(), createStream("after")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the member is declared dead", func() bool { return next.member(leader).State == dead })

	leader.start()
	leader.waitReady()
	if len(leader.State().Streams) != 2 {
		t.Errorf("state after return: %v", leader.State().Streams)
	}
	for _, n := range nodes {
		n.ticks.check(t, n.name)
	}
}

// TestHungNode freezes a node's connections, all but gossip's: a process that is stopped, or a cable that is cut.
func TestHungNode(t *testing.T) {
	for _, leads := range []bool{false, true} {
		t.Run(map[bool]string{false: "follower", true: "leader"}[leads], func(t *testing.T) {
			var longest atomic.Value
			longest.Store(ids.NodeID(""))
			nodes := startThree(t, func(c *Config) {
				c.LogEnds = func(_ context.Context, node ids.NodeID, p ids.PartitionID) (uint64, error) {
					if node == longest.Load() {
						return 10, nil
					}
					return 9, nil
				}
			})
			leader, others := leaderOf(t, nodes)
			hung, rest := others[0], []*testNode{leader, others[1]}
			if leads {
				hung, rest = leader, others
			}
			longest.Store(rest[1].ID())
			var held []uint32
			for _, p := range leader.State().Partitions {
				if p.Primary == string(hung.ID()) {
					held = append(held, p.Id)
				}
			}
			frozen := time.Now()
			hung.mux.gate.freeze()
			now := rest[0]
			eventually(t, "its partitions fail over", func() bool {
				for _, p := range held {
					if now.State().Partitions[p].Primary == string(hung.ID()) {
						return false
					}
				}
				return true
			})
			took := time.Since(frozen)
			t.Logf("%d partitions failed over after %v", len(held), took)
			if took > 9*time.Second { // some 2 s; by its missing reports alone it would be 10 s
				t.Errorf("failover took %v", took)
			}
			for _, p := range held {
				if got := now.State().Partitions[p].Primary; got != string(rest[1].ID()) {
					t.Errorf("partition %d went to %s, the longer log is at %s", p, got, rest[1].ID())
				}
			}
			if _, err := now.Propose(context.Background(), createStream("meanwhile")); err != nil {
				t.Error(err)
			}
			if ok, _ := hung.Ready(); ok {
				t.Error("the hung node believes that it can serve")
			}
			hung.mux.gate.thaw()
			eventually(t, "it is back", func() bool { return now.settled(nodes...) && len(hung.State().Streams) == 1 })
			for _, n := range nodes {
				n.ticks.check(t, n.name)
			}
		})
	}
}

func TestAllRestart(t *testing.T) {
	nodes := startThree(t, func(cfg *Config) { // a node that a busy machine is slow to start is no reason to fail over
		cfg.Detection.StartGrace, cfg.Detection.DownAfter, cfg.Detection.NoReportAfter = time.Minute, time.Minute, time.Minute
	})
	leader, _ := leaderOf(t, nodes)
	if _, err := leader.Propose(context.Background(), createStream("s")); err != nil {
		t.Fatal(err)
	}
	epochs := map[uint32]uint64{}
	var highest ids.Tick
	for _, n := range nodes {
		n.mux.stop() // all of them at once: none may take over another's partitions
	}
	for _, n := range nodes {
		n.kill()
		tick, _ := n.ticks.seen()
		highest = max(highest, tick)
		for _, p := range n.State().Partitions { // whoever was slow to die may have changed something
			epochs[p.Id] = max(epochs[p.Id], p.Epoch)
		}
	}
	// At other ports, all of them: only gossip can tell, through the one address that is given.
	nodes[0].start()
	nodes[1].start(nodes[0])
	nodes[0].waitReady()
	nodes[2].start(nodes[0])
	for _, n := range nodes {
		n.waitReady()
		if tick, _ := n.LastTick(); tick <= highest {
			t.Errorf("%s: tick %d after %d", n.name, tick, highest)
		}
		if len(n.State().Streams) != 1 {
			t.Errorf("%s lost the stream", n.name)
		}
	}
	for _, p := range nodes[0].State().Partitions {
		if p.Epoch != epochs[p.Id] {
			t.Errorf("partition %d was failed over needlessly: epoch %d, was %d", p.Id, p.Epoch, epochs[p.Id])
		}
	}
}

func TestNameClash(t *testing.T) {
	a := newTestNode(t, "n1", nil).start()
	a.waitReady()
	b := newTestNode(t, "n1", nil).start(a)
	err := b.wait()
	var f *fault.Error
	if !errors.As(err, &f) || f.GetReason() != ReasonNameTaken {
		t.Fatalf("Run returned %v", err)
	}
	if len(a.State().Members) != 1 {
		t.Errorf("members: %v", a.State().Members)
	}
}

func TestForeignCluster(t *testing.T) {
	a, b := newTestNode(t, "a", nil).start(), newTestNode(t, "b", nil).start()
	a.waitReady()
	b.waitReady()
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	b.start(a)
	err := b.wait()
	var f *fault.Error
	if !errors.As(err, &f) || f.GetReason() != ReasonForeignCluster {
		t.Fatalf("Run returned %v", err)
	}
	t.Log(err)
	if ok, why := a.Ready(); !ok {
		t.Errorf("the other cluster suffered: %s", why)
	}
}

func TestReplacedFolder(t *testing.T) {
	nodes := startThree(t, nil)
	leader, others := leaderOf(t, nodes)
	lost := others[0]
	lost.kill()
	fresh := newTestNode(t, lost.name, nil).start(leader)
	fresh.waitReady()
	if m := leader.member(lost); m.State != removed {
		t.Errorf("the old identity is %v", m)
	}
	eventually(t, "the newcomer takes the places", func() bool { return leader.settled(leader, others[1], fresh) && voters(leader.State()) == 3 })
}

func TestFourthNodeDrainRemove(t *testing.T) {
	nodes := startThree(t, nil)
	leader, others := leaderOf(t, nodes)
	d := newTestNode(t, "n4", nil).start(leader)
	d.waitReady()
	four := append(nodes, d)
	eventually(t, "the fourth node has its share", func() bool { return leader.settled(four...) && holdings(leader.State(), string(d.ID())) > 0 })

	ctx := context.Background()
	out := others[0]
	if err := leader.Remove(ctx, out.ID(), false); !errors.Is(err, fault.Of(fault.Conflict)) {
		t.Errorf("removing a live node: %v", err)
	}
	if err := d.Drain(ctx, out.ID()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is drained", func() bool { return leader.member(out).State == drained })
	if leader.member(out).Voter || voters(leader.State()) != 3 {
		t.Errorf("voters after the drain: %v", leader.State().Members)
	}
	if ok, why := out.Ready(); ok {
		t.Error("a drained node is ready")
	} else {
		t.Log(why)
	}
	if err := d.Remove(ctx, out.ID(), false); err != nil {
		t.Fatal(err)
	}
	var f *fault.Error
	if err := out.wait(); !errors.As(err, &f) || f.GetReason() != ReasonMemberRemoved {
		t.Errorf("the removed node's Run returned %v", err)
	}
	out.start(leader)
	if err := out.wait(); !errors.As(err, &f) || f.GetReason() != ReasonMemberRemoved {
		t.Errorf("the removed node, started again: %v", err)
	}
	eventually(t, "Raft forgets it", func() bool {
		return len(leader.raft.GetConfiguration().Configuration().Servers) == 3
	})
}

func TestDrainTheLeader(t *testing.T) {
	nodes := startThree(t, nil)
	leader, others := leaderOf(t, nodes)
	if err := leader.Drain(context.Background(), leader.ID()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is drained", func() bool { return others[0].member(leader).State == drained })
	if leader.IsLeader() {
		t.Error("a drained node leads")
	}
	eventually(t, "the others hold everything", func() bool { return others[0].settled(others...) })
}

func TestForcedRemoveOfLiveNode(t *testing.T) {
	nodes := startThree(t, nil)
	leader, others := leaderOf(t, nodes)
	out := others[0]
	if err := others[1].Remove(context.Background(), out.ID(), true); err != nil {
		t.Fatal(err)
	}
	if err := out.wait(); err == nil {
		t.Error("the removed node goes on")
	}
	eventually(t, "the others hold everything", func() bool { return leader.settled(leader, others[1]) })
}

func TestPrepareStop(t *testing.T) {
	nodes := startThree(t, nil)
	leader, others := leaderOf(t, nodes)
	for _, n := range []*testNode{others[0], leader} {
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		if err := n.PrepareStop(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		for _, p := range n.State().Partitions {
			if p.Primary == string(n.ID()) {
				t.Errorf("%s is still the primary of %d", n.name, p.Id)
			}
		}
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		if n == leader {
			break
		}
		n.start()
		n.waitReady()
		eventually(t, "it is back", func() bool { return leader.settled(nodes...) })
	}
	next, _ := leaderOf(t, []*testNode{others[0], others[1]})
	if _, err := next.Propose(context.Background(), createStream("s")); err != nil {
		t.Fatal(err)
	}
}

func TestUndecodableEntryStops(t *testing.T) {
	n := newTestNode(t, "n1", nil).start()
	n.waitReady()
	if err := n.raft.Apply([]byte("\xff\xff"), time.Second).Error(); err != nil {
		t.Fatal(err)
	}
	index := n.State().Index
	if err := n.raft.Apply(mustEncode(t, createStream("late")), time.Second).Error(); err == nil && n.State().Index != index {
		t.Error("an entry after the undecodable one was applied")
	}
	if err := n.wait(); !errors.Is(err, fault.Of(fault.Corrupted)) {
		t.Errorf("Run returned %v", err)
	}
}

func mustEncode(t *testing.T, cmd *internalv1.Command) []byte {
	cmd.Version = commandVersion
	b, err := encodeCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTicksFollowAppends(t *testing.T) {
	nodes := startThree(t, nil)
	leader, others := leaderOf(t, nodes)
	n := others[0]
	// A loaded machine may delay any one of them.
	for try := 0; ; try++ {
		eventually(t, "ticks are at their quiet pace", func() bool {
			l := leader.lead.Load()
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.oracle.pace(time.Now()) >= leader.cfg.Ticks.Quiet
		})
		_, before := n.ticks.seen()
		began := time.Now()
		n.appends.Add(1)
		n.RequestTick()
		eventually(t, "ticks come", func() bool { _, c := n.ticks.seen(); return c >= before+3 })
		took := time.Since(began)
		t.Logf("three ticks after %v", took)
		if took < leader.cfg.Ticks.Quiet {
			return
		}
		if try == 10 {
			t.Fatalf("three ticks take %v: as slow as in quiet times", took)
		}
	}
}
