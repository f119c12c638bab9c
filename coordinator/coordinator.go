package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/ring"
	"github.com/millrace/millrace/storage"
)

// Times that no setting needs.
const (
	retryStep     = 50 * time.Millisecond // first delay of a retry; it doubles
	retryMost     = time.Second
	proposeLimit  = 10 * time.Second // of a command whose caller set no deadline
	transferLimit = 2 * time.Second  // to hand leadership over as the node stops
	leaveLimit    = 500 * time.Millisecond
	readyTickAge  = time.Second
)

// Load is what a node tells about its work; the counters only grow while the process lives.
type Load struct {
	Appends        uint64        // batches taken
	PendingAppends uint64        // taken and not yet committed
	PendingBytes   uint64        // of these
	CommitTime     time.Duration // recent time from append to commit
	TicksBehind    uint32        // ticks received whose work isn't done
	Waiting        bool          // somebody waits for ticks though nothing is appended
	Progress       []Progress    // of the learners that this node feeds or is
	Held           []Held        // replicas here that keep what their primary's log lacks
	Detail         []byte        // the node's own, for Overview; up to 1 MiB
}

// Held is a replica that has stopped, since its primary's log lacks what is acknowledged here.
type Held struct {
	Partition ids.PartitionID
	Committed uint64 // how far its log is known to be committed
	Reason    string
}

// Progress is how far a learner's copy of a partition has come, in bytes.
type Progress struct {
	Partition   ids.PartitionID
	Node        ids.NodeID
	Done, Total uint64
	ViewsBehind bool // it lacks the state of a view
	// StateDone and StateTotal are bytes of the views' state, of a replica that gets copies of it.
	StateDone, StateTotal uint64
}

// Coordinator is a node's part in the coordination of its cluster. Its methods may be called from any goroutine.
type Coordinator struct {
	cfg         Config
	log         *slog.Logger
	meta        metaStore
	stores      raftStores
	id          identity // cluster is set by the goroutine of Run only
	incarnation string
	began       time.Time
	assign      func(nodes []ring.Node, partitions, replicas int) [][]ids.NodeID

	known []string // gossip addresses of the others when this folder ran last
	fsm   *fsm
	fatal chan error // of capacity 1: the first error that stops the node
	// damaged: a goroutine of Raft stands still, see guarded.
	damaged atomic.Bool
	conns   *connections

	// Set by Run before up is closed.
	up     chan struct{}
	raft   *raft.Raft
	trans  *raftTransport
	gossip atomic.Pointer[gossip]
	ran    atomic.Bool

	states   stateFeed
	ticks    tickFeed
	lead     atomic.Pointer[leadership]
	load     atomic.Pointer[func() Load]
	stopping atomic.Bool
	request  atomic.Bool                // a tick is asked for
	busyAt   atomic.Int64               // when the leader was last told of work here or asked for a tick, in nanoseconds since began
	report   chan struct{}              // of capacity 1: report now
	leader   chan struct{}              // of capacity 1: the leader may have changed
	doubt    chan struct{}              // of capacity 1: the stream to the leader broke
	silence  atomic.Pointer[time.Timer] // of watchLeader: put off by each tick from the leader
	followed atomic.Pointer[ids.NodeID] // the leader that this node was attached to last
	gone     atomic.Pointer[goneLeader] // the last one that was found to be gone
	refused  atomic.Pointer[string]
}

// New prepares a node's coordinator on its log store: it reads the folder's identity, or makes it. It refuses a
// configuration that can't work.
func New(cfg Config, store *storage.Store, log *slog.Logger) (*Coordinator, error) {
	meta := logMeta{store}
	rs := storage.RaftLog(store)
	return newCoordinator(cfg, meta, raftStores{logs: rs, stable: rs, snapshots: &snapshotStore{meta}}, log)
}

func newCoordinator(cfg Config, meta metaStore, stores raftStores, log *slog.Logger) (*Coordinator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	id, err := loadIdentity(meta)
	if err != nil {
		return nil, err
	}
	if cfg.Name == "" {
		cfg.Name = "node-" + string(id.node[:min(6, len(id.node))])
	}
	if cfg.Weight == 0 {
		cfg.Weight = 1
	}
	c := &Coordinator{
		cfg: cfg, log: log, meta: meta, stores: stores, id: id, incarnation: randomID()[:16], began: time.Now(),
		assign: ring.Assign, conns: newConnections(cfg.Dial), up: make(chan struct{}),
		fatal: make(chan error, 1), report: make(chan struct{}, 1), leader: make(chan struct{}, 1), doubt: make(chan struct{}, 1),
	}
	c.fsm = newFSM(c.fail)
	if c.known, err = loadPeers(meta); err != nil {
		return nil, err
	}
	if err := checkMember(c.self("")); err != nil {
		return nil, err
	}
	return c, nil
}

// fail stops the node with err; the first one counts.
func (c *Coordinator) fail(err error) {
	select {
	case c.fatal <- err:
	default:
	}
}

// self is this node as it registers.
func (c *Coordinator) self(gossip string) *internalv1.Member {
	return &internalv1.Member{
		Id: string(c.id.node), Name: c.cfg.Name, Zone: c.cfg.Zone, Weight: c.cfg.Weight,
		Grpc: c.cfg.GRPC, Gossip: gossip, Http: c.cfg.HTTP, Pg: c.cfg.PG,
	}
}

// Run takes part in the cluster until ctx ends, then leaves in good order: leadership is handed over. An error means
// that the node can't go on: it belongs to another cluster, was removed, its name is taken, or its Raft log holds what
// it can't apply. Run may be called once.
func (c *Coordinator) Run(ctx context.Context) error {
	if c.ran.Swap(true) {
		return fault.New(fault.Internal, "Run was called before")
	}
	defer c.conns.close()
	if err := c.start(); err != nil {
		c.halt(0)
		return err
	}
	loops, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, loop := range []func(context.Context){c.states.run, c.ticks.run, c.watchState, c.watchLeader, c.watchLeadership, c.attachLoop, c.memberLoop} {
		wg.Go(func() { loop(loops) })
	}
	close(c.up)
	var err error
	leave := leaveLimit
	select {
	case <-ctx.Done():
		c.transfer()
	case err = <-c.fatal:
		leave = 0
		if c.damaged.Load() {
			c.raft.Shutdown() // who waits for an answer of Raft gets none from a goroutine that stands still
		}
	}
	cancel()
	wg.Wait()
	c.halt(leave)
	return err
}

// start brings up Raft and gossip. A folder without data and without peers to join becomes a cluster.
func (c *Coordinator) start() error {
	logger := newRaftLogger(c.log)
	c.trans = trackPipelines(newTransport(&addressedStream{StreamLayer: c.cfg.Stream, self: string(c.id.node)}, c.resolve, logger))
	has, err := raft.HasExistingState(c.stores.logs, c.stores.stable, c.stores.snapshots)
	if err != nil {
		return fault.Wrap(fault.Corrupted, err, "reading Raft's state from the log store")
	}
	if !has && c.id.cluster == "" && len(c.cfg.Join) == 0 {
		if err := c.bootstrap(logger); err != nil {
			return err
		}
	}
	meta := &internalv1.GossipMeta{ClusterId: c.id.cluster, NodeId: string(c.id.node), Name: c.cfg.Name, Grpc: c.cfg.GRPC}
	g, err := startGossip(c.cfg.Gossip, c.incarnation, meta, c.log, c.kick)
	if err != nil {
		return err
	}
	c.gossip.Store(g)
	if err := c.startRaft(logger); err != nil {
		return err
	}
	lone, err := loneVoter(c.raft, string(c.id.node))
	if err == nil && lone {
		err = standNow(c.raft, &c.cfg) // nobody else can lead
	}
	return err
}

// bootstrap makes the folder the first member of a cluster of its own. The cluster's id is durable before Raft's first
// entry is, so that a crash in between can't leave a cluster that nobody has a name for.
func (c *Coordinator) bootstrap(logger hclog.Logger) error {
	if err := c.id.settle(c.meta, randomID()); err != nil {
		return err
	}
	id := string(c.id.node)
	first := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)}}}
	rc := raftConfig(&c.cfg, id, logger)
	if err := raft.BootstrapCluster(rc, c.stores.logs, c.stores.stable, c.stores.snapshots, c.trans, first); err != nil {
		if errors.Is(err, raft.ErrCantBootstrap) {
			return fault.New(fault.Exists, "the data folder is bootstrapped already").WithReason(reasonBootstrapped)
		}
		return fault.Wrap(fault.Internal, err, "bootstrapping Raft")
	}
	c.log.Info("made a new cluster", "cluster", c.id.cluster, "partitions", c.cfg.Partitions)
	return nil
}

// transfer gives leadership to another voter, if this node has it and there is one.
func (c *Coordinator) transfer() {
	if c.raft.State() != raft.Leader {
		return
	}
	if lone, err := loneVoter(c.raft, string(c.id.node)); err != nil || lone {
		return
	}
	done := make(chan error, 1)
	go func() { done <- c.raft.LeadershipTransfer().Error() }()
	select {
	case err := <-done:
		if err != nil {
			c.log.Info("leadership could not be handed over; the others will elect a leader", "error", err)
		}
	case <-time.After(transferLimit):
		c.log.Info("leadership could not be handed over in time; the others will elect a leader")
	}
}

// halt stops what start started; any of it may be missing.
func (c *Coordinator) halt(leave time.Duration) {
	if g := c.gossip.Load(); g != nil {
		g.stop(leave)
	}
	if c.raft != nil {
		stopped := c.raft.Shutdown()
		if c.damaged.Load() {
			return // it doesn't stop
		}
		c.trans.closePipelines()
		if err := stopped.Error(); err != nil {
			c.log.Warn("stopping Raft", "error", err)
		}
	}
	if c.trans != nil {
		if err := c.trans.Close(); err != nil {
			c.log.Debug("closing Raft's transport", "error", err)
		}
	}
}

// ID is this node's identity.
func (c *Coordinator) ID() ids.NodeID { return c.id.node }

// Name is this node's name, made from its id when none was given.
func (c *Coordinator) Name() string { return c.cfg.Name }

func (c *Coordinator) running() bool {
	select {
	case <-c.up:
		return true
	default:
		return false
	}
}

// State returns the latest state that this node has applied: never nil, never to be changed, without a cluster id until
// the node has joined one.
func (c *Coordinator) State() *internalv1.ClusterState { return c.fsm.state.Load() }

// OnState calls fn with the current state, before it returns, and then with each newer one, in order and one at a time;
// states that follow each other faster than fn takes them are skipped but for the newest. fn must not block for long,
// and must not propose.
func (c *Coordinator) OnState(fn func(*internalv1.ClusterState)) {
	c.states.subscribe(fn, c.fsm.state.Load)
}

// OnTick calls fn with each tick that reaches this node, in order and one at a time; ticks that come faster than fn
// takes them are skipped but for the newest.
func (c *Coordinator) OnTick(fn func(t ids.Tick, raftIndex uint64)) { c.ticks.subscribe(fn) }

// SetLoad sets what the node reports; fn is called at each report and must return at once.
func (c *Coordinator) SetLoad(fn func() Load) { c.load.Store(&fn) }

// LastTick returns the newest tick that reached this node, and when it did.
func (c *Coordinator) LastTick() (ids.Tick, time.Time) { return c.ticks.last() }

// RequestTick asks for a tick soon: something waits for one. It costs next to nothing while ticks come fast.
func (c *Coordinator) RequestTick() {
	if l := c.lead.Load(); l != nil {
		l.wanted()
		return
	}
	// While the leader holds the pace up because of what this node reported just now, the report that follows a tick says
	// the rest.
	now, hold := time.Now(), c.cfg.Ticks.Hold
	if c.ticks.fast(now, hold) && now.Sub(c.began)-time.Duration(c.busyAt.Load()) < hold/2 || c.request.Swap(true) {
		return
	}
	signal(c.report)
}

// Leader returns the name of the leading node, as far as this one knows.
func (c *Coordinator) Leader() (name string, ok bool) {
	id, ok := c.leaderID()
	if !ok {
		return "", false
	}
	if _, m := findMember(c.State(), string(id)); m != nil {
		return m.Name, true
	}
	if id == c.id.node {
		return c.cfg.Name, true
	}
	return string(id), true
}

func (c *Coordinator) leaderID() (ids.NodeID, bool) {
	if !c.running() {
		return "", false
	}
	_, id := c.raft.LeaderWithID()
	return ids.NodeID(id), id != ""
}

// elected tells whether Raft has made this node the leader, though it may not have taken that up yet.
func (c *Coordinator) elected() bool { return c.running() && c.raft.State() == raft.Leader }

// IsLeader tells whether this node leads.
func (c *Coordinator) IsLeader() bool { return c.lead.Load() != nil }

// Ready tells whether the node can serve, and why not.
func (c *Coordinator) Ready() (ready bool, reason string) {
	st := c.State()
	_, m := findMember(st, string(c.id.node))
	switch {
	case !c.running():
		return false, "starting"
	case st.ClusterId == "" && len(c.cfg.Join) > 0 && c.refused.Load() != nil:
		return false, *c.refused.Load()
	case st.ClusterId == "":
		return false, "waiting for the cluster's state"
	case m == nil || m.Grpc != c.cfg.GRPC || m.State == joining || m.State == dead:
		return false, "waiting to be registered with the cluster's leader"
	case m.State != alive:
		return false, "this node is " + stateWord(m.State)
	case c.stopping.Load():
		return false, "this node is stopping"
	}
	if _, ok := c.leaderID(); !ok {
		return false, "no leader is known"
	}
	if t, at := c.ticks.last(); t == 0 || time.Since(at) > readyTickAge {
		return false, "no tick came from the leader lately"
	}
	return true, ""
}

// Address returns the current gRPC address of a member: as it gossips, else as it registered.
func (c *Coordinator) Address(id ids.NodeID) (string, bool) {
	if id == c.id.node {
		return c.cfg.GRPC, true
	}
	return c.resolve(string(id))
}

func (c *Coordinator) resolve(id string) (string, bool) {
	if id == string(c.id.node) {
		return c.cfg.GRPC, true
	}
	if g := c.gossip.Load(); g != nil {
		if m, ok := g.find(ids.NodeID(id)); ok {
			return m.Grpc, true
		}
	}
	if _, m := findMember(c.fsm.state.Load(), id); m != nil && m.State != removed {
		return m.Grpc, true
	}
	return "", false
}

// PrepareStop moves this node's primaries to other in-sync members, takes it out of the in-sync sets where enough
// others are left, and hands leadership over if this node has it, so that stopping it then is no failure for anyone. It
// returns when that is done, when nobody is left to take them, or with ctx. Unavailable: there is no leader, and none was
// elected within the time that takes. The node still serves its peers meanwhile: the next leader talks to this node too.
func (c *Coordinator) PrepareStop(ctx context.Context) error {
	c.stopping.Store(true)
	if !c.running() {
		return nil
	}
	err := c.giveAway(ctx)
	c.transfer()
	return err
}

// giveAway waits until the leader has taken this node's partitions off it.
func (c *Coordinator) giveAway(ctx context.Context) error {
	signal(c.report)
	c.kick()
	look := time.NewTicker(retryStep) // gossip tells of others that leave too
	defer look.Stop()
	led := time.Now()
	for {
		st, moved := c.fsm.watch()
		if !c.canLeave(st) {
			return nil
		}
		if _, ok := c.leaderID(); ok {
			led = time.Now()
		} else if time.Since(led) > c.cfg.Raft.Heartbeat+c.cfg.Raft.Election {
			return noLeader()
		}
		select {
		case <-moved:
		case <-look.C:
		case <-ctx.Done():
			return ctxError(ctx, "handing this node's partitions over")
		}
	}
}

// canLeave tells whether there is a partition that this node can still be relieved of: another in-sync member is there
// to take it.
func (c *Coordinator) canLeave(st *internalv1.ClusterState) bool {
	self, g := string(c.id.node), c.gossip.Load()
	there := map[string]bool{}
	for _, m := range st.Members {
		_, ok := g.find(ids.NodeID(m.Id))
		there[m.Id] = ok && m.Id != self && m.State == alive
	}
	return slices.ContainsFunc(st.Partitions, func(p *internalv1.PartitionConfig) bool {
		if !slices.Contains(p.InSync, self) || !slices.ContainsFunc(p.InSync, func(id string) bool { return there[id] }) {
			return false
		}
		return p.Primary == self || len(p.InSync)-1 >= minInSync(st.Replicas, len(p.Replicas))
	})
}

// watchState passes each new state on.
func (c *Coordinator) watchState(ctx context.Context) {
	var index uint64
	peers := c.known
	for {
		st, moved := c.fsm.watch()
		if st.Index != index {
			index = st.Index
			c.states.offer(st)
			peers = c.keepPeers(st, peers)
			if l := c.lead.Load(); l != nil {
				signal(l.hurry)
				signal(l.kick)
				l.wanted() // whoever changed it waits for a tick that comes with it
			}
			if _, m := findMember(st, string(c.id.node)); m != nil && m.State == removed {
				c.fail(fault.New(fault.Conflict, "this node, %q (%s), was removed from the cluster; to join again, start it with an empty data folder",
					m.Name, m.Id).WithReason(ReasonMemberRemoved))
			}
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// keepPeers stores where the others are when that has changed.
func (c *Coordinator) keepPeers(st *internalv1.ClusterState, had []string) []string {
	var now []string
	for _, m := range st.Members {
		if m.Id != string(c.id.node) && m.State != removed && m.Gossip != "" && len(now) < maxJoin {
			now = append(now, m.Gossip)
		}
	}
	if slices.Equal(now, had) {
		return had
	}
	if err := savePeers(c.meta, now); err != nil {
		c.log.Warn("the list of peers could not be stored", "error", err)
		return had
	}
	return now
}

// kick makes the leader, if it is this node, look at once at what there is to do.
func (c *Coordinator) kick() {
	if l := c.lead.Load(); l != nil {
		signal(l.kick)
	}
}

// signal wakes the receiver of a channel of capacity 1; a signal that it hasn't taken yet is enough.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// ctxError is the error of something that ctx ended.
func ctxError(ctx context.Context, format string, args ...any) error {
	kind := fault.Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		kind = fault.Deadline
	}
	return fault.Wrap(kind, context.Cause(ctx), "%s", fmt.Sprintf(format, args...))
}
