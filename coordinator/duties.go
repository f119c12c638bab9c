package coordinator

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// Bounds of the leader's work.
const (
	logEndsTimeout = 500 * time.Millisecond
	logEndsAtOnce  = 32
	raftLag        = 256 // entries that a member may be behind to be given a vote
	stepsAtOnce    = 64  // partitions changed in one entry
)

// dutyLoop looks after the members and the partitions: at once when something changed, and every now and then.
func (l *leadership) dutyLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var probes sync.WaitGroup
	defer probes.Wait()
	for {
		select {
		case <-timer.C:
		case <-l.kick:
		case <-l.ctx.Done():
			return
		}
		l.mu.Lock()
		l.looked = time.Now()
		still := l.oracle.still(l.looked)
		l.mu.Unlock()
		wait := l.c.cfg.Moves.Interval * 5 / 4 // ticks come before, and see to it
		silent := l.watchMembers(&probes)
		if silent {
			wait = min(wait, l.c.cfg.Detection.ProbeInterval)
		}
		l.paceRaft(still && !silent)
		for _, duty := range []func() error{l.memberStates, l.failOver, l.raftServers, l.movePartitions} {
			if err := duty(); err != nil && l.ctx.Err() == nil {
				l.c.log.Info("the leader will try again", "error", err)
			}
		}
		timer.Reset(wait)
	}
}

// watchMembers sends probes to the silent and judges them; it tells whether any is silent.
func (l *leadership) watchMembers(probes *sync.WaitGroup) bool {
	members := l.others()
	now := time.Now()
	g := l.c.gossip.Load()
	l.mu.Lock()
	for _, id := range members {
		_, ok := g.find(id)
		l.tracker.gossiped(id, !ok)
	}
	probe := l.tracker.probes(members, now)
	fell := l.tracker.judge(members, now)
	silent := slices.ContainsFunc(members, func(id ids.NodeID) bool { return l.tracker.silent(l.tracker.life(id), now) })
	l.mu.Unlock()
	for _, id := range probe {
		probes.Go(func() {
			o := l.probe(id)
			l.mu.Lock()
			l.tracker.probeDone(id, o, time.Now())
			l.mu.Unlock()
			if o != probeOK {
				signal(l.kick)
			}
		})
	}
	for _, id := range fell {
		l.c.log.Warn("a node is down", "node", l.name(string(id)), "id", id)
	}
	return silent
}

// others lists the members but this node.
func (l *leadership) others() []ids.NodeID {
	var out []ids.NodeID
	for _, m := range l.c.State().Members {
		if m.State != removed && m.Id != string(l.c.id.node) {
			out = append(out, ids.NodeID(m.Id))
		}
	}
	return out
}

func (l *leadership) name(id string) string {
	if _, m := findMember(l.c.State(), id); m != nil {
		return m.Name
	}
	return id
}

// probe asks a member whether it is there.
func (l *leadership) probe(id ids.NodeID) probeOutcome {
	ctx, cancel := context.WithTimeout(l.ctx, l.c.cfg.Detection.ProbeTimeout)
	defer cancel()
	conn, err := l.c.conn(id)
	if err != nil {
		return probeSilent
	}
	_, err = internalv1.NewControlClient(conn).Ping(ctx, &internalv1.PingRequest{Node: string(id)})
	if err == nil {
		return probeOK
	}
	var f *fault.Error
	if errors.As(fault.FromGRPC(err), &f) && f.GetReason() == reasonWrongNode {
		return probeRefused // its address has another tenant
	}
	addr, ok := l.c.Address(id)
	if !ok || ctx.Err() != nil {
		return probeSilent
	}
	if err := l.c.cfg.Knock(ctx, addr); errors.Is(err, syscall.ECONNREFUSED) {
		return probeRefused
	} else if err == nil {
		// It listens; the connection may only be waiting to be made again.
		conn.ResetConnectBackoff()
	}
	return probeSilent
}

// outlook gathers what is known of the members.
func (l *leadership) outlook() *outlook {
	now := time.Now()
	o := &outlook{
		now: now, down: map[string]bool{}, gone: map[string]bool{}, stopping: map[string]bool{},
		progress: map[progressKey]*internalv1.ReplicaProgress{}, held: map[progressKey]*internalv1.HeldReplica{},
	}
	self := string(l.c.id.node)
	o.stopping[self] = l.c.stopping.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, life := range l.tracker.lives {
		if string(id) != self {
			d := l.tracker.downFor(id, now)
			o.down[string(id)], o.gone[string(id)] = d > 0, d >= l.c.cfg.Detection.ReplaceAfter
			o.stopping[string(id)] = life.stopping
		}
		for _, p := range life.report.GetProgress() {
			o.progress[progressKey{p.Partition, p.Node}] = p
		}
		for _, h := range life.report.GetHeld() {
			o.held[progressKey{h.Partition, string(id)}] = h
		}
	}
	return o
}

// memberStates brings the members' recorded states up to date.
func (l *leadership) memberStates() error {
	st, now := l.c.State(), time.Now()
	for _, m := range st.Members {
		if m.State == removed {
			l.dismiss(m.Id)
			continue
		}
		to, ok := l.nextState(st, m, now)
		if !ok {
			continue
		}
		if _, err := l.propose(l.ctx, setMemberState(m.Id, to, m.State)); err != nil {
			return err
		}
		l.c.log.Info("a node changed state", "node", m.Name, "id", m.Id, "from", stateWord(m.State), "to", stateWord(to))
	}
	return nil
}

// dismiss ends the stream of a removed member, which then hears why as it attaches again.
func (l *leadership) dismiss(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.streams[ids.NodeID(id)]; a != nil {
		a.cancel()
	}
}

func (l *leadership) nextState(st *internalv1.ClusterState, m *internalv1.Member, now time.Time) (internalv1.MemberState, bool) {
	id := ids.NodeID(m.Id)
	l.mu.Lock()
	defer l.mu.Unlock()
	life := l.tracker.life(id)
	self := id == l.c.id.node
	works := self || !life.down && life.report.GetAppliedIndex() > 0 && now.Sub(life.reported) < l.c.cfg.Detection.DownAfter
	switch m.State {
	case joining, dead:
		return alive, works
	case alive:
		return dead, !self && l.tracker.declareDead(id, now)
	case draining:
		return drained, !m.Voter && holdings(st, m.Id) == 0
	}
	return 0, false
}

// failOver gives partitions whose primary is down to the live in-sync member with the longest log. Every in-sync member
// has all that was acknowledged, and the old primary, should it live, can commit nothing without the new one. Of other
// partitions it takes who is down out of the in-sync set: commits would wait for them until their primaries lose patience.
func (l *leadership) failOver() error {
	st, o := l.c.State(), l.outlook()
	var lost []*internalv1.PartitionConfig
	var changes []*internalv1.PartitionChange
	for _, p := range st.Partitions {
		if o.down[p.Primary] {
			lost = append(lost, p)
		} else if next := withoutDown(st, p, o); next != nil {
			changes = append(changes, &internalv1.PartitionChange{Config: next, ExpectedEpoch: p.Epoch})
		}
	}
	if len(lost)+len(changes) == 0 {
		return nil
	}
	next := make([]*internalv1.PartitionConfig, len(lost))
	slots := make(chan struct{}, logEndsAtOnce)
	var wg sync.WaitGroup
	for i, p := range lost {
		slots <- struct{}{}
		wg.Go(func() {
			next[i] = l.successor(p, o)
			<-slots
		})
	}
	wg.Wait()
	for i, p := range lost {
		if next[i] == nil {
			continue
		}
		l.c.log.Info("a partition fails over", "partition", p.Id, "epoch", p.Epoch+1, "from", l.name(p.Primary), "to", l.name(next[i].Primary))
		changes = append(changes, &internalv1.PartitionChange{Config: next[i], ExpectedEpoch: p.Epoch, Failover: true})
	}
	return l.change(changes)
}

// withoutDown returns the configuration without the in-sync members that are down; nil when there are none, or too few would
// be left.
func withoutDown(st *internalv1.ClusterState, p *internalv1.PartitionConfig, o *outlook) *internalv1.PartitionConfig {
	live := slices.DeleteFunc(slices.Clone(p.InSync), func(id string) bool { return o.down[id] })
	if len(live) == len(p.InSync) || len(live) < minInSync(st.Replicas, len(p.Replicas)) {
		return nil
	}
	next := clonePartition(p)
	next.InSync = live
	if o.down[next.HandoverTo] {
		next.HandoverTo = ""
	}
	return next
}

// successor returns the configuration without the primary that is down; nil when no in-sync member is left.
func (l *leadership) successor(p *internalv1.PartitionConfig, o *outlook) *internalv1.PartitionConfig {
	ctx, cancel := context.WithTimeout(l.ctx, logEndsTimeout)
	defer cancel()
	next := clonePartition(p)
	next.InSync, next.Primary, next.HandoverTo = nil, "", ""
	var longest uint64
	for _, id := range p.InSync {
		if o.down[id] {
			continue
		}
		next.InSync = append(next.InSync, id)
		var end uint64
		if l.c.cfg.LogEnds != nil {
			var err error
			if end, err = l.c.cfg.LogEnds(ctx, ids.NodeID(id), ids.PartitionID(p.Id)); err != nil {
				l.c.log.Info("an in-sync replica didn't tell how long its log is", "partition", p.Id, "node", l.name(id), "error", err)
				continue
			}
		}
		if next.Primary == "" || end > longest {
			next.Primary, longest = id, end
		}
	}
	if next.Primary == "" {
		return nil
	}
	return next
}

// replaceDamaged finds a new primary where the one that there is asks to be taken out of the in-sync set: its own copy is
// damaged. The others take over as if it were down.
func (l *leadership) replaceDamaged(changes []*internalv1.PartitionChange) error {
	st := l.c.State()
	for _, ch := range changes {
		c := ch.Config
		if c == nil || int(c.Id) >= len(st.Partitions) || len(c.InSync) == 0 || slices.Contains(c.InSync, c.Primary) ||
			st.Partitions[c.Id].Primary != c.Primary {
			continue
		}
		o := l.outlook()
		o.down[c.Primary] = true
		next := l.successor(st.Partitions[c.Id], o)
		if next == nil {
			return fault.New(fault.Unavailable, "partition %d: the copy of node %s is damaged, and no other in-sync replica is there to take over",
				c.Id, l.name(c.Primary)).WithReason(ReasonLastInSync)
		}
		l.c.log.Warn("a partition's primary has a damaged copy; another takes over", "partition", c.Id, "from", l.name(c.Primary), "to", l.name(next.Primary))
		ch.Config, ch.Failover = next, true
	}
	return nil
}

// change commits changes of partitions, some at a time. One that is refused is planned anew from the next state.
func (l *leadership) change(changes []*internalv1.PartitionChange) error {
	for some := range slices.Chunk(changes, stepsAtOnce) {
		res, err := l.propose(l.ctx, setPartition(some...))
		if err != nil {
			return err
		}
		for _, r := range res.Refused {
			l.c.log.Debug("a change of a partition was refused", "partition", r.Partition, "reason", r.Reason, "message", r.Message)
		}
	}
	return nil
}

// movePartitions takes the next steps towards the ring's assignment.
func (l *leadership) movePartitions() error {
	o := l.outlook()
	l.mu.Lock()
	changes := l.planner.plan(l.c.State(), o)
	l.rates.forget(o.now)
	l.mu.Unlock()
	return l.change(changes)
}

// raftServers makes the next change of Raft's configuration, if one is due.
func (l *leadership) raftServers() error {
	f := l.c.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return err
	}
	last := l.c.raft.LastIndex()
	caughtUp := func(id string) bool {
		if id == string(l.c.id.node) {
			return true
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		life := l.tracker.life(ids.NodeID(id))
		return life.report != nil && !life.broken && life.report.RaftIndex+raftLag >= last
	}
	ch, ok := nextServerChange(l.c.State(), f.Configuration().Servers, string(l.c.id.node), l.outlook(), caughtUp)
	if !ok {
		return nil
	}
	var done raft.Future
	id, addr := raft.ServerID(ch.id), raft.ServerAddress(ch.id)
	switch ch.kind {
	case addServer:
		done = l.c.raft.AddNonvoter(id, addr, 0, proposeLimit)
	case promote:
		done = l.c.raft.AddVoter(id, addr, 0, proposeLimit)
	case demote:
		done = l.c.raft.DemoteVoter(id, 0, proposeLimit)
	case removeServer:
		done = l.c.raft.RemoveServer(id, 0, proposeLimit)
	case transferAway:
		done = l.c.raft.LeadershipTransfer()
	}
	if err := done.Error(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "changing Raft's configuration for %s", l.name(ch.id))
	}
	signal(l.kick) // there may be another
	return nil
}
