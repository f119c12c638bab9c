package coordinator

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// rejoinEvery is how often a node without peers in gossip looks for them again.
const rejoinEvery = 5 * time.Second

// memberLoop finds the peers, gets this node registered, and keeps gossip together.
func (c *Coordinator) memberLoop(ctx context.Context) {
	if !c.meetPeers(ctx) || !c.registerSelf(ctx) {
		return
	}
	for {
		select {
		case <-time.After(rejoinEvery):
		case <-ctx.Done():
			return
		}
		c.rejoin()
	}
}

// rejoin looks for peers again when gossip knows none.
func (c *Coordinator) rejoin() {
	g := c.gossip.Load()
	if len(g.inCluster()) > 0 {
		return
	}
	if _, err := g.join(c.gossipAddresses()); err != nil {
		c.log.Debug("no peer answers gossip", "error", err)
	}
}

// gossipAddresses are where peers may be found: as told, as registered, and as they were when this folder ran last.
func (c *Coordinator) gossipAddresses() []string {
	addrs := slices.Clone(c.cfg.Join)
	for _, m := range c.State().Members {
		if m.Id != string(c.id.node) && m.State != removed && m.Gossip != "" {
			addrs = append(addrs, m.Gossip)
		}
	}
	addrs = append(addrs, c.known...)
	slices.Sort(addrs)
	addrs = slices.Compact(addrs)
	return addrs[:min(len(addrs), 2*maxJoin)]
}

// meetPeers makes contact. A node that belongs to a cluster tries once, and otherwise relies on what it knows; what it
// was told to join must not be another cluster. A new node goes on until someone answers.
func (c *Coordinator) meetPeers(ctx context.Context) bool {
	g := c.gossip.Load()
	delay := retryStep
	for {
		n, err := g.join(c.gossipAddresses())
		if other := g.metForeign(); other != "" && len(c.cfg.Join) > 0 {
			c.fail(foreignCluster(c.id.cluster, other))
			return false
		}
		if c.id.cluster != "" || n > 0 {
			return true
		}
		c.progress("waiting for a peer to answer at the addresses given with --join", err)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return false
		}
		delay = min(2*delay, retryMost)
	}
}

// progress logs why the node isn't in the cluster yet, and lets Ready say it.
func (c *Coordinator) progress(what string, err error) {
	if old := c.refused.Swap(&what); old == nil || *old != what {
		c.log.Info(what, "error", err)
	}
}

// registerSelf brings the cluster's record of this node up to date, and makes a new node a member. False: it can't.
func (c *Coordinator) registerSelf(ctx context.Context) bool {
	delay := retryStep / 10 // a lone node leads within milliseconds
	for {
		if c.registered() {
			return true
		}
		again, err := c.tryRegister(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if !again {
			c.fail(err)
			return false
		}
		c.progress("waiting to be registered with the cluster", err)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return false
		}
		c.rejoin()
		delay = min(2*delay, retryMost)
	}
}

// registered tells whether the state has this node as it is.
func (c *Coordinator) registered() bool {
	self := c.self(c.gossip.Load().addr)
	_, m := findMember(c.State(), self.Id)
	if m == nil || m.State == dead || m.State == drained || m.State == removed || c.id.cluster == "" {
		return false
	}
	self.State, self.Voter = m.State, m.Voter
	return sameMember(self, m)
}

// registerTimeout bounds one try.
const registerTimeout = 3 * time.Second

// tryRegister asks once; again tells whether asking again may help.
func (c *Coordinator) tryRegister(ctx context.Context) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	cmd := &internalv1.Command{Op: &internalv1.Command_RegisterMember{RegisterMember: &internalv1.RegisterMember{
		ClusterId: c.id.cluster, Member: c.self(c.gossip.Load().addr),
	}}}
	res, err := c.register(ctx, cmd)
	if err != nil {
		switch fault.KindOf(err) {
		case fault.Invalid, fault.Exists, fault.Conflict:
			return false, err
		}
		return true, err
	}
	if err := c.id.settle(c.meta, res.ClusterId); err != nil {
		return false, err
	}
	c.gossip.Load().settle(res.ClusterId)
	c.log.Info("registered with the cluster", "cluster", res.ClusterId)
	return false, nil
}

// register goes to the leader if Raft knows one, else through any peer that gossip knows.
func (c *Coordinator) register(ctx context.Context, cmd *internalv1.Command) (*internalv1.CommandResult, error) {
	if _, ok := c.leaderID(); ok {
		return c.proposeOnce(ctx, cmd)
	}
	peers := c.gossip.Load().inCluster()
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	err := error(fault.New(fault.Unavailable, "no node that belongs to a cluster is in sight"))
	for _, p := range peers {
		conn, dialErr := c.conns.to(p.NodeId, p.Grpc)
		if dialErr != nil {
			err = dialErr
			continue
		}
		var resp *internalv1.ProposeResponse
		resp, err = internalv1.NewControlClient(conn).Propose(ctx, &internalv1.ProposeRequest{Command: cmd, Forward: true})
		if err == nil {
			return resp.Result, nil
		}
		err = fault.FromGRPC(err)
		var f *fault.Error
		if errors.As(err, &f) && !fault.Retryable(err) && f.Kind != fault.Deadline {
			return nil, err
		}
	}
	return nil, err
}
