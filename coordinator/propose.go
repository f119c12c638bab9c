package coordinator

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// Propose puts a command through Raft, by way of the leader, and returns once this node has applied it and handed the
// state to its subscribers. cmd's version, time and tick are set by the leader.
//
// What the applier refuses comes back as it said it: *fault.Error with kind, reason and SQLSTATE. While there is no
// leader Propose tries again until ctx ends, at most 10 s when ctx has no deadline. When a leader is lost as it works on
// a command, a command that can be repeated without harm is; any other ends as Unavailable with the reason
// OUTCOME_UNKNOWN.
func (c *Coordinator) Propose(ctx context.Context, cmd *internalv1.Command) (*internalv1.CommandResult, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, proposeLimit)
		defer cancel()
	}
	delay := retryStep / 5
	for {
		res, err := c.proposeOnce(ctx, cmd)
		if err == nil {
			if err := c.states.waitDelivered(ctx, res.Index); err != nil {
				// It has taken effect; only this node is late.
				c.log.Info("a command took effect before this node saw it", "index", res.Index, "error", err)
			}
			return res, nil
		}
		again, final := c.retryable(cmd, err)
		if !again {
			return nil, final
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, final
		}
		delay = min(2*delay, retryMost/2)
	}
}

// retryable decides what an error of one attempt means.
func (c *Coordinator) retryable(cmd *internalv1.Command, err error) (again bool, final error) {
	var f *fault.Error
	if !errors.As(err, &f) {
		return false, err
	}
	switch f.GetReason() {
	case ReasonNotLeader, ReasonNoLeader, reasonStillPrimary:
		return true, err
	case ReasonOutcomeUnknown:
		return repeatable(cmd), err
	}
	return false, err
}

// repeatable tells that applying cmd a second time is either refused or changes nothing, and that its caller can't tell
// the difference: expected epochs and states, and ids, see to that.
func repeatable(cmd *internalv1.Command) bool {
	switch op := cmd.Op.(type) {
	case *internalv1.Command_RegisterMember, *internalv1.Command_SetMemberState, *internalv1.Command_RemoveMember, *internalv1.Command_SetPartition,
		*internalv1.Command_RestartView, *internalv1.Command_SwapView, *internalv1.Command_DropReplaced, *internalv1.Command_ForcePartition:
		return true
	case *internalv1.Command_CreateIndex:
		return op.CreateIndex.IfNotExists
	case *internalv1.Command_DropIndex:
		return op.DropIndex.IfExists
	case *internalv1.Command_CreateStream:
		return op.CreateStream.IfNotExists
	case *internalv1.Command_CreateView:
		return op.CreateView.IfNotExists
	case *internalv1.Command_DropObjects:
		return op.DropObjects.IfExists
	}
	return false
}

func (c *Coordinator) proposeOnce(ctx context.Context, cmd *internalv1.Command) (*internalv1.CommandResult, error) {
	if l := c.lead.Load(); l != nil {
		return l.propose(ctx, cmd)
	}
	client, err := c.leaderClient()
	if err != nil {
		return nil, err
	}
	resp, err := client.Propose(ctx, &internalv1.ProposeRequest{Command: cmd})
	if err != nil {
		return nil, remoteError(err)
	}
	return resp.Result, nil
}

// leaderClient is the way to the leader, when it is another node.
func (c *Coordinator) leaderClient() (internalv1.ControlClient, error) {
	id, ok := c.leaderID()
	if !ok || id == c.id.node {
		return nil, noLeader()
	}
	conn, err := c.conn(id)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "reaching the leader").WithReason(ReasonNoLeader)
	}
	return internalv1.NewControlClient(conn), nil
}

func noLeader() *fault.Error {
	return fault.New(fault.Unavailable, "the cluster has no leader now").WithReason(ReasonNoLeader).WithRetryAfter(retryStep)
}

// remoteError is an error of a call to the leader. A broken call may have been carried out.
func remoteError(err error) error {
	err = fault.FromGRPC(err)
	var f *fault.Error
	if errors.As(err, &f) && f.Kind == fault.Unavailable && f.Reason == "" {
		return fault.Wrap(fault.Unavailable, err, "the leader was lost as it worked; the command may have taken effect").
			WithReason(ReasonOutcomeUnknown).WithRetryAfter(retryStep)
	}
	return err
}

// commit puts cmd through Raft on the leading node.
func (c *Coordinator) commit(ctx context.Context, cmd *internalv1.Command) (*internalv1.CommandResult, error) {
	b, err := encodeCommand(cmd)
	if err != nil {
		return nil, err
	}
	future := c.raft.Apply(b, proposeLimit)
	done := make(chan error, 1)
	go func() { done <- future.Error() }() // ends at the latest with Raft
	select {
	case err = <-done:
	case <-ctx.Done():
		return nil, ctxError(ctx, "waiting for a command to be committed; it may still take effect")
	}
	switch {
	case err == nil:
		a := future.Response().(applied)
		return a.result, a.err
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return nil, fault.Wrap(fault.NotPrimary, err, "this node doesn't lead").WithReason(ReasonNotLeader).WithRetryAfter(retryStep)
	}
	return nil, fault.Wrap(fault.Unavailable, err, "leadership was lost as the command was on its way; it may take effect").
		WithReason(ReasonOutcomeUnknown).WithRetryAfter(retryStep)
}

// The next three are what a partition's primary asks for, each a compare-and-set on the partition's epoch; Stale when
// it has moved on.

// RemoveFromInSync takes a replica that doesn't answer out of the in-sync set. Conflict with MIN_INSYNC: too few would
// be left.
func (c *Coordinator) RemoveFromInSync(ctx context.Context, p ids.PartitionID, epoch ids.Epoch, node ids.NodeID) error {
	return c.changePartition(ctx, p, epoch, func(cfg *internalv1.PartitionConfig) {
		cfg.InSync = without(cfg.InSync, string(node))
		if cfg.HandoverTo == string(node) {
			cfg.HandoverTo = ""
		}
	})
}

// AddToInSync makes a learner that has caught up an in-sync replica.
func (c *Coordinator) AddToInSync(ctx context.Context, p ids.PartitionID, epoch ids.Epoch, node ids.NodeID) error {
	return c.changePartition(ctx, p, epoch, func(cfg *internalv1.PartitionConfig) {
		cfg.InSync = append(without(cfg.InSync, string(node)), string(node))
	})
}

// CompleteHandover makes node the primary: the one before has stopped appending, and everything is committed.
func (c *Coordinator) CompleteHandover(ctx context.Context, p ids.PartitionID, epoch ids.Epoch, node ids.NodeID) error {
	return c.changePartition(ctx, p, epoch, func(cfg *internalv1.PartitionConfig) {
		cfg.Primary, cfg.HandoverTo = string(node), ""
	})
}

func (c *Coordinator) changePartition(ctx context.Context, p ids.PartitionID, epoch ids.Epoch, change func(*internalv1.PartitionConfig)) error {
	st := c.State()
	if int(p) >= len(st.Partitions) {
		return fault.New(fault.NotFound, "partition %d: there are %d", p, len(st.Partitions))
	}
	cur := st.Partitions[p]
	if cur.Epoch != uint64(epoch) {
		return fault.New(fault.Stale, "partition %d is in epoch %d, not %d", p, cur.Epoch, epoch)
	}
	want := clonePartition(cur)
	change(want)
	_, err := c.Propose(ctx, setPartition(&internalv1.PartitionChange{Config: want, ExpectedEpoch: uint64(epoch)}))
	return err
}

func setPartition(changes ...*internalv1.PartitionChange) *internalv1.Command {
	return &internalv1.Command{Op: &internalv1.Command_SetPartition{SetPartition: &internalv1.SetPartition{Changes: changes}}}
}

func setMemberState(id string, to internalv1.MemberState, from ...internalv1.MemberState) *internalv1.Command {
	return &internalv1.Command{Op: &internalv1.Command_SetMemberState{SetMemberState: &internalv1.SetMemberState{Id: id, State: to, From: from}}}
}

// Drain begins to move everything off a member and returns at once. It may be repeated.
func (c *Coordinator) Drain(ctx context.Context, node ids.NodeID) error {
	m := memberNamed(c.State(), string(node))
	if m == nil {
		return unknownNode(string(node))
	}
	if m.State == draining || m.State == drained {
		return nil
	}
	_, err := c.Propose(ctx, setMemberState(m.Id, draining, alive, joining, dead))
	return err
}

// Remove takes a dead or drained member out for good. A live one that isn't drained is refused without force; with it
// the member's partitions fail over first. It may be repeated.
func (c *Coordinator) Remove(ctx context.Context, node ids.NodeID, force bool) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, proposeLimit)
		defer cancel()
	}
	for delay := retryStep; ; delay = min(2*delay, retryMost) {
		err := c.removeOnce(ctx, string(node), force)
		if err == nil {
			return nil
		}
		cmd := &internalv1.Command{Op: &internalv1.Command_RemoveMember{}}
		again, final := c.retryable(cmd, err)
		if !again {
			return final
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return final
		}
	}
}

func (c *Coordinator) removeOnce(ctx context.Context, nameOrID string, force bool) error {
	if l := c.lead.Load(); l != nil {
		_, err := l.removeMember(ctx, nameOrID, force)
		return err
	}
	client, err := c.leaderClient()
	if err != nil {
		return err
	}
	resp, err := client.RemoveNode(ctx, &internalv1.RemoveMemberRequest{Node: nameOrID, Force: force})
	if err != nil {
		return remoteError(err)
	}
	return c.states.waitDelivered(ctx, resp.Result.GetIndex())
}

func unknownNode(nameOrID string) *fault.Error {
	return fault.New(fault.NotFound, "no node is named %q; see millrace cluster status", oneLine(nameOrID)).WithReason(reasonUnknownMember)
}

// Overview tells what only the leader knows: the members' reports, who is silent, what moves.
func (c *Coordinator) Overview(ctx context.Context) (*internalv1.ClusterOverview, error) {
	if l := c.lead.Load(); l != nil {
		return l.overview(), nil
	}
	client, err := c.leaderClient()
	if err != nil {
		return nil, err
	}
	o, err := client.Overview(ctx, &internalv1.OverviewRequest{})
	return o, fault.FromGRPC(err)
}

// Barrier returns an index such that a node which has applied it has applied all that was committed when Barrier was
// called. It asks the leader, who makes sure that it still is.
func (c *Coordinator) Barrier(ctx context.Context) (index uint64, err error) {
	resp, err := c.barrier(ctx)
	return resp.GetIndex(), err
}

// NewestTick returns a tick that is not below any which had been issued when it was called: whoever reads there or
// above sees all that was acknowledged before. It asks the leader, who makes sure that it still is.
func (c *Coordinator) NewestTick(ctx context.Context) (ids.Tick, error) {
	resp, err := c.barrier(ctx)
	return ids.Tick(resp.GetTick()), err
}

func (c *Coordinator) barrier(ctx context.Context) (*internalv1.BarrierResponse, error) {
	if l := c.lead.Load(); l != nil {
		resp := &internalv1.BarrierResponse{Index: c.State().Index, Tick: uint64(l.issued())}
		if err := c.raft.VerifyLeader().Error(); err != nil {
			return nil, fault.Wrap(fault.NotPrimary, err, "leadership was lost").WithReason(ReasonNotLeader).WithRetryAfter(retryStep)
		}
		return resp, nil
	}
	client, err := c.leaderClient()
	if err != nil {
		return nil, err
	}
	resp, err := client.Barrier(ctx, &internalv1.BarrierRequest{})
	return resp, fault.FromGRPC(err)
}

// ReadBarrier waits until this node has applied, and handed to its subscribers, all that was committed when it was
// called.
func (c *Coordinator) ReadBarrier(ctx context.Context) error {
	index, err := c.Barrier(ctx)
	if err != nil {
		return err
	}
	return c.states.waitDelivered(ctx, index)
}
