package coordinator

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/internal/ids"
)

const (
	watchEvery = 200 * time.Millisecond // while the leader shows life
	watchClose = 10 * time.Millisecond  // while it doesn't
	// standStep keeps voters from standing at the same moment, which would split the vote. A voter that still believes in
	// the leader refuses its vote; the first ones to stand thereby free the later.
	standStep = 50 * time.Millisecond
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
	for {
		select {
		case <-ch:
			signal(c.leader)
			continue
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		timer.Reset(c.watchSilence(time.Now()))
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
		return watchEvery
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
