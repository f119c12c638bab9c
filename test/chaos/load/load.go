// Package load works on a cluster while it is disturbed: it appends, reads, asks, subscribes and changes the catalog, and
// tells package check what it was told. What fails is tried again; failing isn't a violation, being told something wrong is.
package load

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/test/chaos/check"
	"github.com/millrace/millrace/test/chaos/cluster"
)

// Config says how much load there is.
type Config struct {
	Producers int
	Pollers   int
	Rate      int // records per second of each producer
	AskEvery  time.Duration
	Seed      uint64 // of the choice of views
	Views     int    // besides the core, 0: all
	Names     int    // of things that are created and dropped
}

// DefaultConfig is what a run has unless told otherwise.
func DefaultConfig() Config {
	return Config{Producers: 4, Pollers: 3, Rate: 150, AskEvery: 60 * time.Millisecond, Names: 4, Views: 5}
}

// Load is a running workload.
type Load struct {
	cfg       Config
	c         *cluster.Cluster
	f         *check.Findings
	Ledger    *check.Ledger
	Answers   *check.Answers
	Catalog   *check.Catalog
	Table     *check.Statements
	relations []check.Relation // that exist here

	newest  atomic.Uint64 // the highest tick of an acknowledgement
	history history
	lastAck atomic.Int64 // when, nanoseconds
	Gap     atomic.Int64 // the longest time without an acknowledgement, nanoseconds

	failures counts // of queries, by reason

	producing, rest       sync.WaitGroup
	stopProducing, finish context.CancelFunc

	subMu sync.Mutex
	subs  map[subscriber]*check.Subscription
}

type subscriber struct {
	i        int
	relation string
}

type counts struct {
	mu sync.Mutex
	m  map[string]int
}

func (c *counts) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]int{}
	}
	c.m[what]++
}

// Failures returns how many calls failed, by reason.
func (l *Load) Failures() map[string]int {
	l.failures.mu.Lock()
	defer l.failures.mu.Unlock()
	return maps.Clone(l.failures.m)
}

// New returns a workload for a cluster.
func New(cfg Config, c *cluster.Cluster, f *check.Findings) *Load {
	return &Load{cfg: cfg, c: c, f: f, Ledger: check.NewLedger(f), Answers: check.NewAnswers(f), Catalog: check.NewCatalog(f), Table: check.NewStatements(f),
		subs: map[subscriber]*check.Subscription{}}
}

// Relations are the names of what exists.
func (l *Load) Relations() (names []string) {
	for _, r := range l.relations {
		names = append(names, r.Name)
	}
	return names
}

// HasTable tells whether the table exists.
func (l *Load) HasTable() bool { return slices.Contains(l.Relations(), check.TableName) }

// Setup makes the stream, and the core and some of the other relations. It returns those that the dialect doesn't have.
func (l *Load) Setup(ctx context.Context) (missing []string, err error) {
	if err := l.insist(ctx, check.CreateStream); err != nil {
		return nil, err
	}
	for _, r := range check.Choose(l.cfg.Seed, l.cfg.Views) {
		if sql := r.Create(); sql != "" {
			err := l.insist(ctx, sql)
			if status.Code(err) == codes.Unimplemented {
				missing = append(missing, r.Name)
				continue
			} else if err != nil {
				return nil, fmt.Errorf("%s: %w", r.Name, err)
			}
		}
		l.relations = append(l.relations, r)
	}
	if l.HasTable() {
		return missing, l.insist(ctx, fillTable)
	}
	return missing, nil
}

// insist runs a statement until it succeeds, or fails for good.
func (l *Load) insist(ctx context.Context, sql string) error {
	end := time.Now().Add(time.Minute)
	for {
		var err error
		for _, n := range l.c.Nodes() {
			if _, _, err = execute(ctx, n, nil, sql, 0); err == nil {
				return nil
			}
			switch status.Code(err) {
			case codes.AlreadyExists:
				return nil // by an attempt whose answer was lost
			case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.ResourceExhausted, codes.FailedPrecondition:
			default:
				return err
			}
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return err
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// Start begins to work until Stop.
func (l *Load) Start(ctx context.Context) {
	producing, stopProducing := context.WithCancel(ctx)
	rest, finish := context.WithCancel(ctx)
	l.stopProducing, l.finish = stopProducing, finish
	l.lastAck.Store(time.Now().UnixNano())
	for i := range l.cfg.Producers {
		l.producing.Go(func() { l.produce(producing, uint32(i)) })
	}
	for i := range l.cfg.Pollers {
		l.rest.Go(func() { l.poll(rest, i) })
	}
	nodes := len(l.c.Nodes())
	for i := range nodes {
		l.rest.Go(func() { l.ask(rest, i) })
	}
	for k, r := range l.relations {
		switch {
		case r.Kind == check.AdHoc:
		case r.Core:
			for i := range nodes {
				l.rest.Go(func() { l.subscribe(rest, i, r.Name) })
			}
		default:
			l.rest.Go(func() { l.subscribe(rest, k, r.Name) })
		}
	}
	if l.HasTable() {
		for i := range 2 {
			l.producing.Go(func() { l.changeTable(producing, i) })
		}
	}
	for i := range 3 {
		l.producing.Go(func() { l.change(producing, i) })
	}
}

// StopProducing ends the producers, after all they have sent was acknowledged or given up.
func (l *Load) StopProducing() {
	l.stopProducing()
	l.producing.Wait()
}

// Stop ends everything.
func (l *Load) Stop() {
	l.finish()
	l.rest.Wait()
}

// Settle waits until all subscriptions have passed the newest acknowledged tick.
func (l *Load) Settle(ctx context.Context, patience time.Duration) string {
	end := time.Now().Add(patience)
	for {
		why := ""
		l.subMu.Lock()
		for _, s := range l.subs {
			if t := s.Tick(); t < l.newest.Load() {
				why = fmt.Sprintf("%s is at tick %d, records were acknowledged with %d", s.Name(), t, l.newest.Load())
			}
		}
		l.subMu.Unlock()
		if why == "" || time.Now().After(end) || ctx.Err() != nil {
			return why
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// Newest is the highest tick that a record was acknowledged with.
func (l *Load) Newest() uint64 { return l.newest.Load() }

func (l *Load) acked(tick uint64) {
	for {
		old := l.newest.Load()
		if tick <= old || l.newest.CompareAndSwap(old, tick) {
			break
		}
	}
	l.history.add(time.Now(), l.newest.Load())
	now := time.Now().UnixNano()
	if gap := now - l.lastAck.Swap(now); gap > l.Gap.Load() {
		l.Gap.Store(gap)
	}
}

// maxStaleness is a node's setting of that name, and what this machine may be late by.
const maxStaleness = 10*time.Second + 5*time.Second

// history is the newest tick that was acknowledged, over the last maxStaleness.
type history struct {
	mu   sync.Mutex
	at   []time.Time
	tick []uint64
}

func (h *history) add(at time.Time, tick uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.at); n > 0 && at.Sub(h.at[n-1]) < 100*time.Millisecond {
		return
	}
	h.at, h.tick = append(h.at, at), append(h.tick, tick)
	for len(h.at) > 1 && at.Sub(h.at[1]) > maxStaleness {
		h.at, h.tick = h.at[1:], h.tick[1:]
	}
}

// oldest is the tick that no answer to a question asked now may be below.
func (l *Load) oldest() (tick uint64) {
	l.history.mu.Lock()
	defer l.history.mu.Unlock()
	for i, at := range l.history.at {
		if time.Since(at) > maxStaleness {
			tick = l.history.tick[i]
		}
	}
	return tick
}

// addresses are all nodes' addresses, beginning with that of node i.
func (l *Load) addresses(i int) (out []string) {
	nodes := l.c.Nodes()
	for k := range nodes {
		out = append(out, nodes[(i+k)%len(nodes)].Addr())
	}
	return out
}

// dial connects, and goes on trying until ctx ends.
func (l *Load) dial(ctx context.Context, i int) *client.Client {
	for ctx.Err() == nil {
		c, err := client.Dial(ctx, l.addresses(i), client.WithPatience(time.Minute))
		if err == nil {
			return c
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return nil
}

// direct is a connection to one node that doesn't go elsewhere.
func direct(n *cluster.Node) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
