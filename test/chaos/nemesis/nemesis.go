// Package nemesis disturbs a cluster: at random from a seed, never more at once than the guarantees allow.
//
// What they allow: any number of processes may be killed, stopped or cut off at once, since that loses nothing that was
// acknowledged. Data may be lost (a folder deleted, bits flipped) on one node at a time, and only while every partition
// has all its replicas in sync; the next node only after that is so again.
package nemesis

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/test/chaos/check"
	"github.com/millrace/millrace/test/chaos/cluster"
)

// Config says what is done.
type Config struct {
	Seed     uint64
	Kinds    []string // of Kinds(); none: all that work here
	Replicas int
	Log      io.Writer
	Switches bool // the binary has the switches of package faulty
	Memory   bool // a process that isn't killed, but ends, loses its files
}

// Nemesis is what disturbs.
type Nemesis struct {
	cfg   Config
	c     *cluster.Cluster
	f     *check.Findings
	begun time.Time

	mu     sync.Mutex
	counts map[string]int
	busy   map[*cluster.Node]bool // a fault has it

	// Held while data may be lost, and by those who kill, shared, while they do.
	data sync.RWMutex
}

// kind is one kind of fault.
type kind struct {
	name   string
	weight int
	needs  func(n *Nemesis) bool
	// strike disturbs one node until it is over. Its randomness comes from rng alone.
	strike func(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) error
	whole  bool // of the whole cluster: nothing else goes on meanwhile
	suits  func(node *cluster.Node) bool
}

func always(*Nemesis) bool { return true }

func anyNode(*cluster.Node) bool { return true }

func kinds() []kind {
	cuts := func(n *Nemesis) bool { return n.c.CanCut() }
	switches := func(n *Nemesis) bool { return n.cfg.Switches }
	lasting := func(n *Nemesis) bool { return !n.cfg.Memory }
	failing := func(n *Nemesis) bool { return n.cfg.Switches && !n.cfg.Memory } // such a process ends by itself
	return []kind{
		{"kill", 12, always, kill, false, anyNode},
		{"term", 6, lasting, term, false, anyNode},
		{"pause", 8, always, pause, false, anyNode},
		{"cut", 6, cuts, cutFull, false, anyNode},
		{"cut-one-way", 6, cuts, cutOneWay, false, anyNode},
		{"cut-pair", 4, cuts, cutPair, false, anyNode},
		{"flap", 4, cuts, flap, false, anyNode},
		{"slow-disk", 4, switches, slowDisk, false, anyNode},
		{"failing-disk", 3, failing, failingDisk, false, anyNode},
		{"clock", 5, switches, clock, false, anyNode},
		{"full-disk", 3, func(n *Nemesis) bool { return len(n.c.Small()) > 0 }, fullDisk, false, (*cluster.Node).Small},
		{"kill-all", 3, always, killAll, true, anyNode},
		{"rolling", 2, lasting, rolling, true, anyNode},
		{"wipe", 3, always, wipe, true, anyNode},
		{"flip", 4, always, flip, true, anyNode},
		{"grow", 2, always, grow, true, anyNode},
	}
}

// Kinds returns the names of all kinds of faults.
func Kinds() (names []string) {
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

// New returns a nemesis.
func New(cfg Config, c *cluster.Cluster, f *check.Findings) *Nemesis {
	return &Nemesis{cfg: cfg, c: c, f: f, begun: time.Now(), counts: map[string]int{}, busy: map[*cluster.Node]bool{}}
}

// Counts returns how many faults of each kind there were.
func (n *Nemesis) Counts() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.counts)
}

func (n *Nemesis) logf(format string, args ...any) {
	fmt.Fprintf(n.cfg.Log, "%8.3f %s\n", time.Since(n.begun).Seconds(), fmt.Sprintf(format, args...))
}

// Run disturbs until ctx ends, and then lets what is under way end: two faults at most are under way at once, on
// different nodes.
func (n *Nemesis) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range 2 {
		rng := rand.New(rand.NewPCG(n.cfg.Seed, uint64(i)))
		wg.Go(func() { n.loop(ctx, rng) })
	}
	wg.Wait()
}

func (n *Nemesis) loop(ctx context.Context, rng *rand.Rand) {
	var all []kind
	for _, k := range kinds() {
		if k.needs(n) && (len(n.cfg.Kinds) == 0 || slices.Contains(n.cfg.Kinds, k.name)) {
			for range k.weight {
				all = append(all, k)
			}
		}
	}
	if len(all) == 0 {
		return
	}
	for sleep(ctx, between(rng, 200, 3000)); ctx.Err() == nil; sleep(ctx, between(rng, 200, 4000)) {
		// All that is random is drawn here, whether it is used or not: so a seed gives the same faults in the same order.
		k, pick, own := all[rng.IntN(len(all))], rng.Uint64(), rand.New(rand.NewPCG(rng.Uint64(), 1))
		n.strike(ctx, k, pick, own)
	}
}

func (n *Nemesis) strike(ctx context.Context, k kind, pick uint64, rng *rand.Rand) {
	if k.whole {
		n.data.Lock()
		defer n.data.Unlock()
	} else {
		n.data.RLock()
		defer n.data.RUnlock()
	}
	if ctx.Err() != nil {
		return
	}
	node := n.take(pick, k.suits)
	if node == nil {
		return
	}
	defer n.release(node)
	n.mu.Lock()
	n.counts[k.name]++
	n.mu.Unlock()
	n.logf("%s %s begins", k.name, node.Name)
	if err := k.strike(ctx, n, node, rng); err != nil {
		n.f.Add("recovery", "fault %s on %s: %v", k.name, node.Name, err)
	}
	n.logf("%s %s is over", k.name, node.Name)
}

// take picks a node that suits and that no other fault has; nil where there is none.
func (n *Nemesis) take(pick uint64, suits func(*cluster.Node) bool) *cluster.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	var free []*cluster.Node
	for _, o := range n.c.Nodes() {
		if !n.busy[o] && suits(o) {
			free = append(free, o)
		}
	}
	if len(free) == 0 {
		return nil
	}
	node := free[pick%uint64(len(free))]
	n.busy[node] = true
	return node
}

func (n *Nemesis) release(node *cluster.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.busy, node)
}

// between is a random time, mostly a short one, in milliseconds.
func between(rng *rand.Rand, least, most int) time.Duration {
	f := rng.Float64()
	return time.Duration(float64(least)+f*f*float64(most-least)) * time.Millisecond
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Table is the counts in one line.
func Table(counts map[string]int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("%s %d", k, counts[k]))
	}
	return strings.Join(out, ", ")
}
