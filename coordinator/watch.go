package coordinator

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/internal/ids"
)

const (
	watchEvery = 200 * time.Millisecond // while no other node is known to lead
	watchClose = 10 * time.Millisecond  // while it doesn't
	// standStep keeps voters from standing at the same moment, which would split the vote. A voter that still believes in
	// the leader refuses its vote; the first ones to stand thereby free the later.
	standStep = 50 * time.Millisecond
)

const (
	knockLimit = 100 * time.Millisecond // of one knock at a leader whose stream broke
	knockPause = 25 * time.Millisecond  // between two
	// succeedStep is between the voters that stand for election since the leader is gone: what an election takes, mostly.
	// The first one usually wins; the next is there if it can't, as when its log is shorter.
	succeedStep = 100 * time.Millisecond
)

// watchLeader signals changes of the leader, and makes this node stand for election as soon as the leader has been
// silent for the heartbeat timeout, both in Raft and in ticks.
func (c *Coordinator) watchLeader(ctx context.Context) {
	ch := make(chan raft.Observation, 16) // more are dropped: one signal is enough
	o := raft.NewObserver(ch, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	c.raft.RegisterObserver(o)
	defer c.raft.DeregisterObserver(o)
	timer := time.NewTimer(watchEvery)
	defer timer.Stop()
	c.silence.Store(timer)
	for {
		select {
		case <-ch:
			signal(c.leader)
			continue
		case <-c.doubt:
			c.leaderLost(ctx)
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		timer.Reset(c.watchSilence(time.Now()))
	}
}

// heardTick puts the next look at the leader off: while ticks come there is nothing to see.
func (c *Coordinator) heardTick() {
	if t := c.silence.Load(); t != nil {
		t.Reset(c.cfg.Raft.Heartbeat / 2)
	}
}

// watchSilence returns when to look again.
func (c *Coordinator) watchSilence(now time.Time) time.Duration {
	leader, ok := c.leaderID()
	if !ok || leader == c.id.node {
		return watchEvery
	}
	limit := c.cfg.Raft.Heartbeat
	if _, at := c.ticks.last(); now.Sub(at) < limit/2 {
		return max(limit/2-now.Sub(at), watchClose)
	}
	contact := c.raft.LastContact()
	rank, voter := c.rank(leader)
	if !voter || contact.IsZero() || now.Sub(contact) < limit+time.Duration(rank)*standStep {
		return watchClose
	}
	c.log.Info("the leader is silent; this node stands for election", "leader", leader, "silent", now.Sub(contact))
	if err := standNow(c.raft, &c.cfg); err != nil {
		c.log.Warn("standing for election", "error", err)
	}
	return limit
}

// leaderLost looks after a leader whose stream to this node broke. If its address refuses connections its process is
// gone: the voters then elect another at once, one after the other, without waiting for the heartbeat timeout. Pre-vote
// and the others' belief in the old leader, which could only delay that, are passed over, as in a planned transfer.
func (c *Coordinator) leaderLost(ctx context.Context) {
	leader, ok := c.leaderID()
	if !ok || leader == c.id.node || !c.refuses(ctx, leader) {
		return
	}
	c.gone.Store(&goneLeader{leader, time.Now()})
	rank, voter := c.rank(leader)
	if !voter {
		return
	}
	select {
	case <-time.After(time.Duration(rank) * succeedStep):
	case <-ctx.Done():
		return
	}
	if now, _ := c.leaderID(); now != leader || c.raft.State() != raft.Follower {
		return // another was quicker
	}
	c.log.Info("the leader's process is gone; this node stands for election", "leader", leader)
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
	id := string(c.id.node)
	if err := c.trans.TimeoutNow(raft.ServerID(id), raft.ServerAddress(id), req, &raft.TimeoutNowResponse{}); err != nil {
		c.log.Warn("standing for election", "error", err)
	}
}

// goneLeader is a leader that refused connections, and when.
type goneLeader struct {
	id ids.NodeID
	at time.Time
}

// foundGone tells whether this node saw that a member's process is gone. What it saw before a long election is looked at
// again.
func (c *Coordinator) foundGone(ctx context.Context, id ids.NodeID, now time.Time) bool {
	g := c.gone.Load()
	return g != nil && g.id == id && (now.Sub(g.at) < c.cfg.Detection.SuspectAfter || c.refuses(ctx, id))
}

// refuses tells whether a member's address refuses connections, twice in a row.
func (c *Coordinator) refuses(ctx context.Context, id ids.NodeID) bool {
	for again := range 2 {
		if again > 0 {
			select {
			case <-time.After(knockPause):
			case <-ctx.Done():
				return false
			}
		}
		addr, ok := c.Address(id)
		if !ok {
			return false
		}
		knock, cancel := context.WithTimeout(ctx, knockLimit)
		err := c.cfg.Knock(knock, addr)
		cancel()
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return false
		}
	}
	return true
}

// rank is this node's place among the voters that could succeed the leader.
func (c *Coordinator) rank(leader ids.NodeID) (rank int, voter bool) {
	var voters []string
	for _, m := range c.State().Members {
		if m.Voter && m.Id != string(leader) {
			voters = append(voters, m.Id)
		}
	}
	i := slices.Index(voters, string(c.id.node))
	return i, i >= 0
}
