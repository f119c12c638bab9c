package coordinator

import (
	"testing"
	"time"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// TestLeaderGone kills the leader of nodes whose heartbeat timeout is long: the others find that its address refuses
// connections, elect another, and fail its partitions over.
func TestLeaderGone(t *testing.T) {
	slow := func(c *Config) {
		c.Raft.Heartbeat, c.Raft.Election, c.Raft.Lease = 4*time.Second, 4*time.Second, 4*time.Second // a split vote is repeated then
		c.Detection.DownAfter, c.Detection.NoReportAfter = 2*time.Minute, 3*time.Minute
	}
	a := newTestNode(t, "a", slow).start()
	b := newTestNode(t, "b", slow).start(a)
	c := newTestNode(t, "c", slow).start(a)
	for _, n := range []*testNode{a, b, c} {
		n.waitReady()
	}
	eventually(t, "settled", func() bool { return a.settled(a, b, c) && a.member(b).Voter && a.member(c).Voter })
	dead := string(a.ID())
	a.kill()
	eventually(t, "another leader, and its partitions", func() bool {
		if !b.IsLeader() && !c.IsLeader() {
			return false
		}
		for _, p := range b.State().Partitions {
			if p.Primary == dead {
				return false
			}
		}
		return true
	})
	if b.Coordinator.gone.Load() == nil && c.Coordinator.gone.Load() == nil {
		t.Error("nobody found that the leader's process was gone")
	}
}

// TestJoinsAreChecked keeps nodes that are down, stopping or not heard yet out of the in-sync sets.
func TestJoinsAreChecked(t *testing.T) {
	st := &internalv1.ClusterState{Partitions: []*internalv1.PartitionConfig{{Id: 0, Primary: "a", Replicas: []string{"a", "b"}, InSync: []string{"a"}}}}
	c := &Coordinator{id: identity{node: "a"}, fsm: newFSM(func(error) {})}
	c.fsm.state.Store(st)
	l := &leadership{c: c, tracker: newTracker(DefaultConfig().Detection, time.Now(), time.Now())}
	join := []*internalv1.PartitionChange{{Config: &internalv1.PartitionConfig{Id: 0, Primary: "a", Replicas: []string{"a", "b"}, InSync: []string{"a", "b"}}}}
	refused := func(why string, want bool) {
		t.Helper()
		err := l.checkJoins(join)
		if got := err != nil; got != want {
			t.Errorf("%s: %v", why, err)
		}
		if err != nil && fault.KindOf(err) != fault.Conflict {
			t.Errorf("%s: %v isn't a definite refusal", why, err)
		}
	}
	refused("never heard", true)
	l.tracker.reportedBy("b", &internalv1.NodeReport{Node: "b"}, time.Now())
	refused("there", false)
	l.tracker.reportedBy("b", &internalv1.NodeReport{Node: "b", Stopping: true}, time.Now())
	refused("stopping", true)
	l.tracker.reportedBy("b", &internalv1.NodeReport{Node: "b"}, time.Now())
	l.tracker.streamEnded("b")
	refused("its stream broke", true)
	l.tracker.reportedBy("b", &internalv1.NodeReport{Node: "b"}, time.Now())
	l.tracker.gone("b", time.Now())
	refused("gone", true)
}
