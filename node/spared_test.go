package node

import (
	"testing"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// TestSpared: damage is told to a client only where no other node has the partition.
func TestSpared(t *testing.T) {
	n := &Node{id: "a"}
	n.current.Store(&catalog{state: &internalv1.ClusterState{Partitions: []*internalv1.PartitionConfig{
		{Id: 0, InSync: []string{"a", "b"}}, {Id: 1, InSync: []string{"a"}},
	}}})
	damage := fault.New(fault.Corrupted, "a checksum")
	if err := n.spared(0, damage); !fault.Retryable(err) {
		t.Errorf("another node has the partition, and the answer is %v", err)
	}
	if err := n.spared(1, damage); fault.KindOf(err) != fault.Corrupted {
		t.Errorf("nobody else has the partition, and the answer is %v", err)
	}
	other := fault.New(fault.NotFound, "no stream")
	if err := n.spared(0, other); err != error(other) {
		t.Errorf("%v became %v", other, err)
	}
}
