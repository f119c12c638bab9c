package coordinator

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// leadership is what a node has and does for as long as it leads. It is thrown away with it: a leader begins with what
// the state says and learns the rest from reports.
type leadership struct {
	c    *Coordinator
	term uint64
	ctx  context.Context // ends with it
	wg   sync.WaitGroup

	kick  chan struct{} // of capacity 1: there may be something to do
	beat  chan struct{} // of capacity 1: a tick may be due
	room  chan struct{} // of capacity 1: the ceiling of ticks is to be raised
	hurry chan struct{} // of capacity 1: followers should learn of the last commit now

	mu      sync.Mutex
	clock   steadyClock
	oracle  *oracle
	tracker *tracker
	streams map[ids.NodeID]*attached
	loads   map[ids.NodeID]nodeLoad
	newest  tickMark
	looked  time.Time // when the duties were last looked after
	rates   copyRates

	planner planner // used by the goroutine of duties only, but for moves
}

// nodeLoad is what the pace follows, of one node.
type nodeLoad struct {
	at     time.Time
	lively bool // somebody waits for ticks there
	busy   float64
	commit time.Duration
	count  uint64 // appends
	skew   int64  // its wall clock less the leadership's, microseconds
}

// attached is one node's stream. Of ticks only the newest waits to be sent.
type attached struct {
	cancel context.CancelFunc
	wake   chan struct{} // of capacity 1
}

// watchLeadership takes leadership up and lays it down as Raft says.
func (c *Coordinator) watchLeadership(ctx context.Context) {
	ch := c.raft.LeaderCh()
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case leads := <-ch:
			// Also when it leads: leadership was lost and won again before anyone looked, and the term is another.
			stop()
			stop = func() {}
			if leads {
				stop = c.reign(ctx)
			}
			signal(c.leader)
		case <-ctx.Done():
			return
		}
	}
}

// reign begins to lead; the function that it returns ends that and waits for it.
func (c *Coordinator) reign(ctx context.Context) func() {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.rule(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// rule leads until ctx ends.
func (c *Coordinator) rule(ctx context.Context) {
	before, lastContact := c.formerLeader()
	// Everything that former leaders committed is applied before the first decision.
	if err := c.raft.Barrier(0).Error(); err != nil {
		return
	}
	if err := c.firstCommand(ctx); err != nil {
		c.log.Warn("this node can't take up leadership", "error", err)
		if ctx.Err() == nil {
			c.fail(err)
		}
		return
	}
	now := time.Now()
	newest, heard := c.ticks.last()
	l := &leadership{
		c: c, term: c.raft.CurrentTerm(), ctx: ctx,
		kick: make(chan struct{}, 1), beat: make(chan struct{}, 1), room: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		clock:   startClock(now, newest, heard),
		oracle:  newOracle(c.cfg.Ticks, ids.Tick(c.State().TickCeiling), now),
		tracker: newTracker(c.cfg.Detection, now, c.began),
		streams: map[ids.NodeID]*attached{}, loads: map[ids.NodeID]nodeLoad{}, rates: copyRates{},
	}
	l.planner = newPlanner(c.cfg.Moves, c.assign)
	if before != "" && before != c.id.node {
		l.tracker.known(before, lastContact)
		if c.foundGone(ctx, before, now) {
			l.tracker.gone(before, now)
			c.log.Warn("a node is down", "node", l.name(string(before)), "id", before)
		}
	}
	c.lead.Store(l)
	c.log.Info("this node leads the cluster", "term", l.term)
	signal(c.leader)
	for _, loop := range []func(){l.tickLoop, l.reserveLoop, l.dutyLoop, l.hurryLoop} {
		l.wg.Go(loop)
	}
	<-ctx.Done()
	c.lead.Store(nil)
	l.wg.Wait()
	l.paceRaft(false)
	c.log.Info("this node no longer leads the cluster", "term", l.term)
}

// formerLeader is whom this node followed until now, and when it last heard of it.
func (c *Coordinator) formerLeader() (ids.NodeID, time.Time) {
	if f := c.followed.Load(); f != nil {
		_, at := c.ticks.last()
		return *f, at
	}
	return "", time.Time{}
}

// firstCommand makes the cluster when Raft has just been bootstrapped, and leaps when a majority was forced.
func (c *Coordinator) firstCommand(ctx context.Context) error {
	stamp := func(cmd *internalv1.Command) *internalv1.Command {
		cmd.Version, cmd.TimeUs = commandVersion, uint64(time.Now().UnixMicro())
		return cmd
	}
	if c.State().ClusterId != "" {
		return c.afterForcedMajority(ctx, stamp)
	}
	cmd := &internalv1.Command{Op: &internalv1.Command_Bootstrap{Bootstrap: &internalv1.Bootstrap{
		ClusterId: c.id.cluster, PartitionCount: uint32(c.cfg.Partitions), Replicas: uint32(c.cfg.Replicas),
		Member: c.self(c.gossip.Load().addr),
	}}}
	_, err := c.commit(ctx, stamp(cmd))
	return err
}

// propose stamps a command and commits it.
func (l *leadership) propose(ctx context.Context, cmd *internalv1.Command) (*internalv1.CommandResult, error) {
	if r, ok := cmd.Op.(*internalv1.Command_RegisterMember); ok {
		if err := l.checkRegistration(ctx, r.RegisterMember); err != nil {
			return nil, err
		}
	}
	if s, ok := cmd.Op.(*internalv1.Command_SetPartition); ok {
		if err := l.checkJoins(s.SetPartition.Changes); err != nil {
			return nil, err
		}
		if err := l.replaceDamaged(s.SetPartition.Changes); err != nil {
			return nil, err
		}
	}
	stamped := &internalv1.Command{Version: commandVersion, TimeUs: uint64(time.Now().UnixMicro()), Tick: uint64(l.issued()), Op: cmd.Op}
	return l.c.commit(ctx, stamped)
}

// issued is the highest tick that was issued, or may have been by a former leader.
func (l *leadership) issued() ids.Tick {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.oracle.last
}

// checkJoins keeps out of the in-sync sets who is known to be down or about to stop, or hasn't been heard by this leader
// yet: commits would wait for it. The primary asks again when it is there.
func (l *leadership) checkJoins(changes []*internalv1.PartitionChange) error {
	st := l.c.State()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ch := range changes {
		if ch.Config == nil || int(ch.Config.Id) >= len(st.Partitions) {
			continue // the applier says so
		}
		for _, id := range ch.Config.InSync {
			if slices.Contains(st.Partitions[ch.Config.Id].InSync, id) {
				continue
			}
			life := l.tracker.life(ids.NodeID(id))
			here := !life.down && !life.stopping && !life.broken && life.report != nil
			if id == string(l.c.id.node) {
				here = !l.c.stopping.Load()
			}
			if !here {
				return fault.New(fault.Conflict, "partition %d: node %s isn't there to be in sync now", ch.Config.Id, oneLine(id)).
					WithReason(ReasonNotInSync).WithRetryAfter(retryStep)
			}
		}
	}
	return nil
}

// hurryLoop tells the followers of a commit that a node acts upon. Raft's leader tells them which entries are committed
// only with the next message, up to twice the commit timeout later, and ticks that carry the new index would wait for
// that; an empty entry makes the next message come now.
func (l *leadership) hurryLoop() {
	for {
		select {
		case <-l.hurry:
		case <-l.ctx.Done():
			return
		}
		if len(l.c.State().Members) < 2 {
			continue
		}
		if err := l.c.raft.Barrier(proposeLimit).Error(); err != nil {
			continue // not the leader any more: ctx ends
		}
	}
}

// serve runs a node's stream: reports come in, the newest tick goes out.
func (l *leadership) serve(stream grpc.BidiStreamingServer[internalv1.NodeReport, internalv1.TickNotice], first *internalv1.NodeReport) error {
	id := ids.NodeID(first.Node)
	if _, m := findMember(l.c.State(), first.Node); m == nil {
		return fault.New(fault.NotFound, "member %s is not registered", oneLine(first.Node)).WithReason(reasonUnknownMember)
	} else if m.State == removed {
		return fault.New(fault.Conflict, "node %q (%s) was removed from the cluster; to join again, start it with an empty data folder", m.Name, m.Id).
			WithReason(ReasonMemberRemoved)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	a := &attached{cancel: cancel, wake: make(chan struct{}, 1)}
	l.attach(id, a)
	defer l.detach(id, a)
	l.take(id, first)
	// It ends with the stream, which this handler's return ends.
	go func() {
		defer cancel()
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			l.take(id, r)
		}
	}()
	for {
		select {
		case <-a.wake:
			l.mu.Lock()
			m := l.newest
			l.mu.Unlock()
			if m.tick == 0 {
				continue
			}
			if err := stream.Send(&internalv1.TickNotice{Tick: uint64(m.tick), RaftIndex: m.index, Term: m.term}); err != nil {
				return err
			}
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "the stream of %s ended", id)
		case <-l.ctx.Done():
			return fault.New(fault.NotPrimary, "this node no longer leads the cluster").WithReason(ReasonNotLeader)
		}
	}
}

// attach takes a node's stream; a newer one replaces the one before.
func (l *leadership) attach(id ids.NodeID, a *attached) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.streams[id]; old != nil {
		old.cancel()
	}
	l.streams[id] = a
	signal(a.wake)
}

func (l *leadership) detach(id ids.NodeID, a *attached) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams[id] != a {
		return
	}
	delete(l.streams, id)
	delete(l.loads, id)
	l.tracker.streamEnded(id)
	signal(l.kick)
}

// take takes a node's report.
func (l *leadership) take(id ids.NodeID, r *internalv1.NodeReport) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	wasUp, stopping := l.tracker.up(id), l.tracker.life(id).stopping
	l.tracker.reportedBy(id, r, now)
	l.rates.note(r.Progress, now)
	if !wasUp || stopping != r.Stopping {
		signal(l.kick)
	}
	before, known := l.loads[id]
	l.loads[id] = nodeLoad{
		at: now, lively: r.Waiting, busy: l.busy(r), commit: time.Duration(r.CommitUs) * time.Microsecond,
		count: r.Appends, skew: smoothSkew(before.skew, int64(r.WallUs)-l.clock.at(now), known),
	}
	if r.RequestTick || r.PendingAppends > 0 || known && r.Appends != before.count {
		l.active(now)
	}
	var lively bool
	var busy float64
	var commit time.Duration
	for _, n := range l.loads {
		lively = lively || n.lively
		busy, commit = max(busy, n.busy), max(commit, n.commit)
	}
	l.oracle.load(lively, busy, commit)
}

func (l *leadership) busy(r *internalv1.NodeReport) float64 {
	cfg := l.c.cfg.Ticks
	return max(float64(r.PendingBytes)/float64(cfg.FullPending), float64(r.TicksBehind)/float64(cfg.FullBehind))
}

// active speeds the ticks up; l.mu is held.
func (l *leadership) active(now time.Time) {
	quiet := l.oracle.pace(now) >= l.c.cfg.Ticks.Quiet
	l.oracle.activity(now)
	if quiet {
		signal(l.beat)
	}
}

// wanted is RequestTick on the leading node.
func (l *leadership) wanted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active(time.Now())
}

// skewFloor is below what a difference between clocks is taken for the delay of messages, in microseconds.
const skewFloor = 20_000

const skewStep = 1_000_000 // microseconds

// steadyClock begins where ticks have come when the node begins to lead, and then goes on whatever its own clock does: what
// the nodes' clocks are compared with must not step.
type steadyClock struct {
	began time.Time
	wall  int64 // then, microseconds
	alone bool  // no tick was heard before: there is nothing but this node's clock
}

// clockGrace is how long a new leader waits for the others' clocks before it follows its own, which may be wrong.
const clockGrace = 2 * time.Second

// startClock begins at the newest tick that was heard, at; 0: none was.
func startClock(now time.Time, newest ids.Tick, at time.Time) steadyClock {
	if newest == 0 {
		return steadyClock{now, now.UnixMicro(), true}
	}
	return steadyClock{now, int64(newest) + now.Sub(at).Microseconds(), false}
}

// young tells that the others may not have told their clocks yet.
func (c steadyClock) young(now time.Time) bool { return !c.alone && now.Sub(c.began) < clockGrace }

// at is the clock's time, in microseconds since the epoch.
func (c steadyClock) at(now time.Time) int64 { return c.wall + now.Sub(c.began).Microseconds() }

// smoothSkew estimates how far a node's clock is ahead of the steady one, in microseconds. A report on its way makes a clock
// look behind, never ahead: a higher measure is taken at once, a lower one little by little; but no report takes as long as
// skewStep, so that a clock which was set right counts as right at once.
func smoothSkew(estimate, measured int64, known bool) int64 {
	if !known || measured >= estimate || estimate-measured > skewStep {
		return measured
	}
	return estimate - max((estimate-measured)/32, 1)
}

// wall is the time that ticks follow, in microseconds since the epoch: the median of the nodes' clocks when at least
// three tell theirs, so that one which is wrong or steps, the leader's own included, doesn't matter. l.mu is held.
func (l *leadership) wall(now time.Time) uint64 {
	steady := l.clock.at(now)
	own := now.UnixMicro() - steady
	skews := make([]int64, 0, 8)
	skews = append(skews, own)
	for id, n := range l.loads {
		if id != l.c.id.node && now.Sub(n.at) < time.Second {
			skews = append(skews, n.skew)
		}
	}
	if len(skews) < 3 && l.clock.young(now) {
		return uint64(max(steady, 1))
	}
	if len(skews) < 3 {
		return uint64(max(steady+own, 1))
	}
	slices.Sort(skews)
	if s := skews[len(skews)/2]; s-own > skewFloor || own-s > skewFloor {
		own = s
	}
	return uint64(max(steady+own, 1))
}
