package stage

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// Reasons of errors, stable.
const (
	ReasonTickNotRetained = "TICK_NOT_RETAINED"
	ReasonViewFailed      = "VIEW_FAILED"
)

// Runtime is the view runtime of one node. All methods are safe for concurrent use; Configure and OnClosed are called
// in the order of what they tell.
type Runtime struct {
	cfg   Config
	store Store
	logs  LogReader
	peers Peers
	log   *slog.Logger

	committed func(ids.PartitionID) (uint64, error) // see Deps

	ctx    context.Context // ends when the runtime stops
	cancel context.CancelFunc
	tasks  sync.WaitGroup // goroutines besides the workers
	sched  *scheduler
	board  *board
	ship   *shipper

	decoded *decodedBatches

	look    chan struct{} // buffered: the board has news, or a view failed
	toIndex chan struct{} // buffered: an index is to be built
	out     chan struct{} // buffered: a stage that others read has got further
	reopen  atomic.Bool   // feeds are to be opened anew
	dirty   atomic.Int64  // bytes in memory that aren't stored, of all targets
	scratch atomic.Int64  // bytes that sources keep to work in
	tables  atomic.Int64  // bytes of state in memory, of all targets
	warm    atomic.Int64  // targets with a cache worth mentioning
	feeds   atomic.Int64
	locals  atomic.Int64 // targets
	redone  atomic.Int64 // targets that were computed again from their inputs

	// all is what the loops and readers look at, made anew when it changes; so are the outlets.
	all     atomic.Pointer[inventory]
	outlets atomic.Pointer[[]*outlet]

	mu      sync.Mutex // Configure, and everything below
	state   *internalv1.ClusterState
	views   map[ids.StreamID]*view
	sources map[sourceKey]*source
	targets map[targetKey]*target
	groups  []*group
	links   map[ids.NodeID]*link
	held    map[ids.PartitionID]bool // partitions that have, or may have, state here
	stopped bool

	begin   func(ctx context.Context, view ids.StreamID, created ids.Tick) error
	restMu  sync.Mutex
	restart []*view // that must begin anew
}

type viewPartition struct {
	view ids.StreamID
	p    ids.PartitionID
}

// sourceKey and targetKey name a source of a view, by its number, and a target, by its stage of the plan.
type (
	sourceKey struct {
		view  ids.StreamID
		index int
		p     ids.PartitionID
	}
	targetKey struct {
		view  ids.StreamID
		stage int
		p     ids.PartitionID
	}
)

// inventory is an immutable list of what runs.
type inventory struct {
	clusterID string
	primaries []ids.PartitionID // here
	groups    []*group
	targets   []*target
	views     map[ids.StreamID]*view
	derived   []*group  // of groups, those that read outputs of stages; in an order in which these come first
	outputs   []*source // that read outputs here
	find      map[targetKey]*target
	sources   map[sourceKey]*source
	byStream  map[ids.StreamID]map[ids.PartitionID][]*source
}

// New returns a runtime without views. It does nothing before Run.
func New(cfg Config, d Deps) (*Runtime, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if d.Store == nil || d.Logs == nil || d.Peers == nil || d.Logger == nil {
		return nil, fault.New(fault.Invalid, "stage: Store, Logs, Peers and Logger must be given")
	}
	rt := &Runtime{
		cfg: cfg, store: d.Store, logs: d.Logs, peers: d.Peers, committed: d.Committed, log: d.Logger.With("part", "stage"),
		sched: newScheduler(), board: newBoard(), look: make(chan struct{}, 1), out: make(chan struct{}, 1), toIndex: make(chan struct{}, 1), begin: d.Restart,
		views: map[ids.StreamID]*view{}, sources: map[sourceKey]*source{}, targets: map[targetKey]*target{},
		links: map[ids.NodeID]*link{}, held: map[ids.PartitionID]bool{},
	}
	rt.ctx, rt.cancel = context.WithCancel(context.Background())
	rt.ship = newShipper(rt)
	rt.decoded = newDecodedBatches(cfg.DecodedBytes)
	rt.all.Store(&inventory{})
	rt.outlets.Store(&[]*outlet{})
	return rt, nil
}

// Run executes views until ctx ends, then stores what isn't. Run or Close must be called once New succeeded.
func (rt *Runtime) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	wctx, stop := context.WithCancel(context.Background())
	workers.Go(func() { rt.sched.run(wctx, rt.cfg.Workers) })
	rt.lookAtBoard()
	rt.tasks.Go(rt.indexLoop)
	rt.loop(ctx)
	rt.shut()
	stop()
	workers.Wait()
	return rt.save()
}

// Close ends a runtime that doesn't run. Safe to call twice, and after Run.
func (rt *Runtime) Close() { rt.shut() }

// shut ends everything but the workers.
func (rt *Runtime) shut() {
	rt.mu.Lock()
	rt.stopped = true
	rt.cancel()
	rt.ship.in.stop()
	inv := *rt.all.Load()
	inv.views, inv.find, inv.byStream = nil, nil, nil
	rt.all.Store(&inv)
	for _, s := range rt.sources {
		s.stop("the node is stopping")
	}
	for _, g := range rt.groups {
		rt.closeFeeds(g.stop())
	}
	rt.mu.Unlock()
	rt.tasks.Wait()
}

// save stores what targets hold in memory.
func (rt *Runtime) save() error {
	var first error
	for _, t := range rt.all.Load().targets {
		t.mu.Lock()
		if t.view.failed.Load() == nil {
			if err := t.flush(); err != nil && first == nil {
				first = err
			}
		}
		t.mu.Unlock()
		t.close()
	}
	return first
}

// loop looks at the board when there is news, and after the house now and then.
func (rt *Runtime) loop(ctx context.Context) {
	house := time.NewTicker(max(rt.cfg.FlushInterval/2, time.Millisecond))
	defer house.Stop()
	durable := time.NewTicker(rt.cfg.DurableInterval)
	defer durable.Stop()
	for turn := 1; ; {
		select {
		case <-ctx.Done():
			return
		case <-rt.look:
			rt.reap()
			inv := rt.all.Load()
			for _, g := range inv.groups {
				if !g.plan.derived {
					g.refresh(rt.board)
				}
			}
			rt.followOutputs(inv)
		case <-rt.out:
			rt.followOutputs(rt.all.Load())
		case now := <-house.C:
			for _, t := range rt.all.Load().targets {
				if err := t.house(now, turn%32 == 0); err != nil {
					rt.failView(t.view, err)
				}
			}
			if turn%8 == 0 {
				rt.restScratch(now)
			}
			turn++
		case <-durable.C:
			rt.makeDurable()
		}
	}
}

// followOutputs lets the groups that read outputs of stages see how far those are, each after those that it reads.
func (rt *Runtime) followOutputs(inv *inventory) {
	if len(inv.derived)+len(inv.outputs) == 0 {
		return
	}
	for _, g := range inv.derived {
		g.refresh(rt.board)
	}
	for _, s := range inv.outputs {
		s.lookAtOutput()
	}
	for _, o := range *rt.outlets.Load() {
		if o.reads.Load() > 0 {
			o.signal()
		}
	}
}

// lookAtOutputs makes the loop do so.
func (rt *Runtime) lookAtOutputs() {
	select {
	case rt.out <- struct{}{}:
	default:
	}
}

// lookAtBoard lets the groups see what partitions have closed.
func (rt *Runtime) lookAtBoard() {
	select {
	case rt.look <- struct{}{}:
	default:
	}
}

// OnClosed tells that a partition whose primary is here has closed a tick; in tick order for each partition.
func (rt *Runtime) OnClosed(c Closing) {
	before, first := rt.board.closeHere(c)
	inv := rt.all.Load()
	for stream, parts := range inv.byStream {
		news := first || slices.ContainsFunc(c.Data, func(d StreamTick) bool { return d.Stream == stream })
		for _, s := range parts[c.Partition] {
			if news || before < s.view.created {
				rt.sched.wake(s)
			}
		}
	}
	rt.lookAtBoard()
	for _, o := range *rt.outlets.Load() {
		o.signal()
	}
}

// failView stops a view on this node. It only marks it: it is called with all kinds of locks held.
func (rt *Runtime) failView(v *view, err error) {
	if rt.ctx.Err() != nil || errors.Is(err, fault.Of(fault.Canceled)) {
		return
	}
	if v.fail(err) {
		rt.log.Error("a view has failed on this node", "view", v.name, "error", err)
		rt.lookAtBoard()
	}
}

// reap takes down what failed views still have running.
func (rt *Runtime) reap() {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for k, s := range rt.sources {
		if rt.views[k.view].failed.Load() != nil {
			s.stop("the view has failed")
		}
	}
	for _, g := range rt.groups {
		if g.view.failed.Load() != nil {
			rt.closeFeeds(g.stop())
		}
	}
	rt.redo()
	rt.restartViews()
}

func (rt *Runtime) clusterID() string { return rt.all.Load().clusterID }

func (rt *Runtime) primariesHere() []ids.PartitionID { return rt.all.Load().primaries }

// window is what a new feed may have under way, in bytes.
func (rt *Runtime) window() int64 {
	return min(max(rt.cfg.ExchangeBytes/max(1, rt.feeds.Load()), rt.cfg.FeedBytes), max(8<<20, rt.cfg.FeedBytes))
}

// share is a target's part of something that is limited for all of them.
func (rt *Runtime) share(total int64) int {
	return int(min(total/max(1, rt.locals.Load()), math.MaxInt32))
}

func (rt *Runtime) addOutlet(o *outlet) bool {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if !rt.stopped {
		list := append(slices.Clone(*rt.outlets.Load()), o)
		rt.outlets.Store(&list)
	}
	return !rt.stopped
}

func (rt *Runtime) removeOutlet(o *outlet) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(*rt.outlets.Load()), func(x *outlet) bool { return x == o })
	rt.outlets.Store(&list)
}

// sourceFor finds the source that another node asks for.
func (rt *Runtime) sourceFor(v ids.StreamID, index int, p ids.PartitionID, epoch ids.Epoch) (*source, error) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	s := rt.sources[sourceKey{v, index, p}]
	switch {
	case s == nil:
		return nil, fault.New(fault.NotPrimary, "exchange: view %d isn't read here in partition %d", v, p)
	case s.epoch != epoch:
		return nil, fault.New(fault.Stale, "exchange: partition %d is in epoch %d here, not %d", p, s.epoch, epoch)
	}
	return s, nil
}

// makeDurable lets logs be truncated: what is stored now survives a crash afterwards, and once the other replicas have it
// too, nobody will ask for what lies below the stored positions.
func (rt *Runtime) makeDurable() {
	inv := rt.all.Load()
	if !slices.ContainsFunc(inv.groups, (*group).heldBack) && !rt.ship.in.heldBack(inv.views) {
		return
	}
	marks := rt.ship.in.marks()
	saved := make([][]heldCut, len(inv.groups))
	for i, g := range inv.groups {
		g.mu.Lock()
		targets := g.targets // never changed in place
		g.mu.Unlock()
		for _, t := range targets {
			t.mu.Lock()
			saved[i] = append(saved[i], heldCut{t, t.savedAt, t.saved, time.Now()})
			t.mu.Unlock()
		}
	}
	if err := rt.store.Flush(); err != nil {
		rt.log.Warn("the state store can't be flushed; logs are kept until it can", "error", err)
		return
	}
	rt.ship.in.flushed(marks)
	for i, g := range inv.groups {
		if len(saved[i]) == 0 {
			continue
		}
		if c, ok := rt.ship.released(saved[i], len(g.sources)); ok {
			g.setDurable(c)
		}
	}
}

// heldBack tells whether something is kept for the group that could go once the group's state is durable.
func (g *group) heldBack() bool {
	for i, f := range g.sources {
		l := g.plan.inputs[f.input].source.log
		if l != nil && !l.truncated() {
			continue
		}
		g.mu.Lock()
		more := g.base.positions[i].offset > g.in[i].durable
		g.mu.Unlock()
		if more {
			return true
		}
	}
	return false
}

// setDurable tells the sources what will never be asked for again.
func (g *group) setDurable(c cut) {
	for src := range g.sources {
		offset := c.positions[src].offset
		g.mu.Lock()
		in := &g.in[src]
		f := in.feed
		if offset <= in.durable || f == nil {
			f = nil
		} else {
			in.durable = offset
		}
		g.mu.Unlock()
		switch {
		case f == nil:
		case f.reader != nil:
			f.reader.source.setDurable(f.reader, offset)
		default:
			f.link.durable(f, offset)
		}
	}
}

// Taken returns the tick up to which all views that read a stream, be it by way of others, are done in the partitions here,
// and whether there is any such view. One that has failed doesn't count.
func (rt *Runtime) Taken(stream ids.StreamID) (ids.Tick, bool) {
	inv := rt.all.Load()
	low, read := maxTick, false
	for _, v := range inv.views {
		if v.failed.Load() == nil && slices.ContainsFunc(v.streams, func(l *logPlan) bool { return l.id == stream }) {
			read = true
		}
	}
	if !read {
		return 0, false
	}
	for _, t := range inv.targets {
		if t.view.failed.Load() != nil || !slices.ContainsFunc(t.view.streams, func(l *logPlan) bool { return l.id == stream }) {
			continue
		}
		t.group.mu.Lock()
		low = min(low, t.group.doneOf(t))
		t.group.mu.Unlock()
	}
	if low == maxTick { // none of them is here yet
		low = 0
	}
	return low, true
}

// LowWater returns the offset below which no view needs the log of a stream in a partition whose primary is here, and
// whether any view reads the stream at all. Where this node isn't the primary it knows nothing and returns 0, true.
func (rt *Runtime) LowWater(stream ids.StreamID, p ids.PartitionID) (ids.Offset, bool) {
	inv := rt.all.Load()
	if inv.byStream == nil {
		return 0, true // not configured yet
	}
	low, any := ids.Offset(math.MaxUint64), false
	for id, v := range inv.views {
		for _, plan := range v.sources {
			if plan.log == nil || plan.log.id != stream {
				continue
			}
			any = true
			s := inv.sources[sourceKey{id, plan.index, p}]
			if s == nil {
				return 0, true
			}
			low = min(low, ids.Offset(s.low.Load()))
		}
	}
	if !any {
		return 0, false
	}
	return low, true
}
