package coordinator

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// RecoverPartition makes a node, given by name or id, the primary of a partition whose in-sync replicas are all down, for
// an operator who knows that they are lost for good. loss says what that costs. Nothing is done unless unsafe is set.
// Conflict: an in-sync replica lives, or the node can't take it.
func (c *Coordinator) RecoverPartition(ctx context.Context, p ids.PartitionID, node string, unsafe bool) (loss string, err error) {
	if l := c.lead.Load(); l != nil {
		return l.recoverPartition(ctx, p, node, unsafe)
	}
	client, err := c.leaderClient()
	if err != nil {
		return "", err
	}
	resp, err := client.RecoverPartition(ctx, &internalv1.RecoverPartitionRequest{Partition: uint32(p), Node: node, Unsafe: unsafe})
	if err != nil {
		return "", remoteError(err)
	}
	return resp.Loss, nil
}

func (l *leadership) recoverPartition(ctx context.Context, p ids.PartitionID, nameOrID string, unsafe bool) (string, error) {
	st, o := l.c.State(), l.outlook()
	if int(p) >= len(st.Partitions) {
		return "", fault.New(fault.NotFound, "no partition %d; there are %d", p, len(st.Partitions))
	}
	cur := st.Partitions[p]
	m := memberNamed(st, nameOrID)
	if m == nil {
		return "", unknownNode(nameOrID)
	}
	var lost []string
	for _, id := range cur.InSync {
		if !o.down[id] {
			return "", fault.New(fault.Conflict, "partition %d has an in-sync replica on node %q, which isn't down: nothing needs to be forced", p, l.name(id))
		}
		lost = append(lost, l.name(id))
	}
	if m.State != alive || o.down[m.Id] || o.stopping[m.Id] {
		return "", fault.New(fault.Conflict, "node %q isn't there to take partition %d", m.Name, p).WithReason(reasonMemberState)
	}
	loss, err := l.lossOf(ctx, cur, m, lost)
	if err != nil || !unsafe {
		return loss, err
	}
	next := clonePartition(cur)
	next.Primary, next.HandoverTo, next.InSync = m.Id, "", []string{m.Id}
	if !slices.Contains(next.Replicas, m.Id) {
		next.Replicas = append(next.Replicas, m.Id)
	}
	l.c.log.Warn("an operator forces a primary that was not in sync; acknowledged records may be lost", "partition", p, "node", m.Name, "loss", loss)
	change := &internalv1.PartitionChange{Config: next, ExpectedEpoch: cur.Epoch, Failover: true, Unsafe: true}
	if _, err := l.propose(ctx, setPartition(change)); err != nil {
		return "", err
	}
	return loss, nil
}

// lossOf says what is lost when m takes the partition over.
func (l *leadership) lossOf(ctx context.Context, cur *internalv1.PartitionConfig, m *internalv1.Member, lost []string) (string, error) {
	gone := strings.Join(lost, ", ")
	if !slices.Contains(cur.Replicas, m.Id) {
		return fmt.Sprintf("node %s holds no copy of partition %d: all of its records are lost, which %s had", m.Name, cur.Id, gone), nil
	}
	if l.c.cfg.LogEnds != nil {
		ctx, cancel := context.WithTimeout(ctx, logEndsTimeout)
		defer cancel()
		if _, err := l.c.cfg.LogEnds(ctx, ids.NodeID(m.Id), ids.PartitionID(cur.Id)); err != nil {
			return "", fault.Wrap(fault.Conflict, err, "node %q has no whole copy of partition %d; choose another", m.Name, cur.Id)
		}
	}
	return fmt.Sprintf("node %s was not in sync: records of partition %d that only %s had are lost, acknowledged or not, even if they come back",
		m.Name, cur.Id, gone), nil
}
