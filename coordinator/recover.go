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

// RecoverPartition makes a node, given by name or id, the primary of a partition for an operator who decides what is to be
// lost: all in-sync replicas are down, and known to be lost for good; or another replica is held, since it has acknowledged
// records that the primary's log lacks, and one of the two must be chosen. loss says what that costs. Nothing is done unless
// unsafe is set. Conflict: nothing needs to be forced, or the node can't take it.
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
	if m.State != alive || o.down[m.Id] || o.stopping[m.Id] {
		return "", fault.New(fault.Conflict, "node %q isn't there to take partition %d", m.Name, p).WithReason(reasonMemberState)
	}
	loss, err := l.lossOf(ctx, cur, m, o)
	if err != nil || !unsafe {
		return loss, err
	}
	next := clonePartition(cur)
	if m.Id != cur.Primary {
		next.Primary, next.InSync = m.Id, []string{m.Id}
	}
	next.HandoverTo = ""
	if !slices.Contains(next.Replicas, m.Id) {
		next.Replicas = append(next.Replicas, m.Id)
	}
	l.c.log.Warn("an operator forces a primary; acknowledged records may be lost", "partition", p, "node", m.Name, "loss", loss)
	if _, err := l.propose(ctx, &internalv1.Command{Op: &internalv1.Command_ForcePartition{
		ForcePartition: &internalv1.ForcePartition{Config: next, ExpectedEpoch: cur.Epoch},
	}}); err != nil {
		return "", err
	}
	return loss, nil
}

// lossOf says what is lost when m takes the partition over.
func (l *leadership) lossOf(ctx context.Context, cur *internalv1.PartitionConfig, m *internalv1.Member, o *outlook) (string, error) {
	var gone, live, holders []string // names
	for _, id := range cur.InSync {
		if o.down[id] {
			gone = append(gone, l.name(id))
		} else {
			live = append(live, l.name(id))
		}
	}
	for key := range o.held {
		if key.partition == cur.Id && key.node != m.Id {
			holders = append(holders, l.name(key.node))
		}
	}
	slices.Sort(holders)
	_, holds := o.held[progressKey{cur.Id, m.Id}]
	lost := strings.Join(gone, ", ")
	switch {
	case holds:
		if err := l.checkWhole(ctx, cur, m); err != nil {
			return "", err
		}
		return fmt.Sprintf("the copy of node %s replaces that of %s: what partition %d took since the two parted is lost, acknowledged or not",
			m.Name, l.name(cur.Primary), cur.Id), nil
	case len(holders) > 0 && m.Id == cur.Primary:
		return fmt.Sprintf("what node %s has and %s lacks of partition %d is lost, all of it acknowledged", strings.Join(holders, ", "), m.Name, cur.Id), nil
	case len(live) > 0 && len(holders) > 0:
		return "", fault.New(fault.Conflict, "partition %d: choose between node %s, which is its primary, and node %s, which has what that one lacks",
			cur.Id, l.name(cur.Primary), strings.Join(holders, " or "))
	case len(live) > 0:
		return "", fault.New(fault.Conflict, "partition %d has an in-sync replica on node %q, which isn't down: nothing needs to be forced", cur.Id, live[0])
	case !slices.Contains(cur.Replicas, m.Id):
		return fmt.Sprintf("node %s holds no copy of partition %d: all of its records are lost, which %s had", m.Name, cur.Id, lost), nil
	}
	if err := l.checkWhole(ctx, cur, m); err != nil {
		return "", err
	}
	return fmt.Sprintf("node %s was not in sync: records of partition %d that only %s had are lost, acknowledged or not, even if they come back",
		m.Name, cur.Id, lost), nil
}

// checkWhole asks a node whether its copy of a partition is whole.
func (l *leadership) checkWhole(ctx context.Context, cur *internalv1.PartitionConfig, m *internalv1.Member) error {
	if l.c.cfg.LogEnds == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, logEndsTimeout)
	defer cancel()
	if _, err := l.c.cfg.LogEnds(ctx, ids.NodeID(m.Id), ids.PartitionID(cur.Id)); err != nil {
		return fault.Wrap(fault.Conflict, err, "node %q has no whole copy of partition %d; choose another", m.Name, cur.Id)
	}
	return nil
}

// heldNotices tells of replicas that wait for an operator's choice, in order.
func (l *leadership) heldNotices(st *internalv1.ClusterState, o *outlook) []string {
	var out []string
	for _, cfg := range st.Partitions {
		for _, m := range st.Members {
			if h := o.held[progressKey{cfg.Id, m.Id}]; h != nil && m.State != removed && len(out) < maxHeldNotices {
				out = append(out, fmt.Sprintf("partition %d: node %s has acknowledged records that its primary %s has lost; it keeps them and waits. "+
					"Choose whose copy counts: millrace cluster recover --partition %d --node %s or %s", cfg.Id, m.Name, l.name(cfg.Primary),
					cfg.Id, m.Name, l.name(cfg.Primary)))
			}
		}
	}
	return out
}

// maxHeldNotices bounds how many are listed.
const maxHeldNotices = 64
