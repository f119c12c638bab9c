package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/test/chaos/check"
	"github.com/millrace/millrace/test/chaos/cluster"
	"github.com/millrace/millrace/test/chaos/faulty"
	"github.com/millrace/millrace/test/chaos/load"
	"github.com/millrace/millrace/test/chaos/nemesis"
)

// settings of a run.
type settings struct {
	root     string // of the source tree
	binary   string // a built program; empty: one is built
	switches bool   // build it with the switches of package faulty, or binary has them
	duration time.Duration
	nodes    int
	replicas int
	seed     uint64
	kinds    []string
	dir      string // for the nodes; empty: a temporary one, which is removed unless there are violations
	keep     bool
	spaces   bool
	lie      bool // disks lie about fsync: the checks must find what that loses
	power    bool // files in memory, every kill a power failure
	load     load.Config
}

// report is what a run has to say in the end.
type report struct {
	seed                             uint64
	took                             time.Duration
	faults                           map[string]int
	acked, polled, answers, catalogs int
	inLog, late, statements          int
	relations                        []string
	gap                              time.Duration
	missing                          []string // relations that the dialect doesn't have
	failures                         map[string]int
	violations                       int
	checks                           []string // that found them
	dir                              string   // kept
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "seed %d, %v\n", r.seed, r.took.Round(time.Second))
	fmt.Fprintf(w, "faults: %s\n", nemesis.Table(r.faults))
	fmt.Fprintf(w, "records acknowledged %d, in the log %d, read while it went on %d; late for their window %d\n", r.acked, r.inLog, r.polled, r.late)
	fmt.Fprintf(w, "answers and subscribed ticks checked %d, catalog operations %d, counting statements %d\n", r.answers, r.catalogs, r.statements)
	fmt.Fprintf(w, "relations: %s\n", strings.Join(r.relations, " "))
	fmt.Fprintf(w, "longest time without an acknowledgement %v\n", r.gap.Round(time.Millisecond))
	if len(r.missing) > 0 {
		fmt.Fprintf(w, "left out, as the dialect doesn't have them: %s\n", strings.Join(r.missing, ", "))
	}
	fmt.Fprintf(w, "calls that failed: %s\n", nemesis.Table(r.failures))
	fmt.Fprintf(w, "violations %d %s\n", r.violations, strings.Join(r.checks, " "))
	if r.dir != "" {
		fmt.Fprintf(w, "the nodes' logs and data are in %s\n", r.dir)
	}
}

// run does a whole run. The error is of the suite itself; what the cluster does wrong is in the report.
func run(ctx context.Context, s settings, out io.Writer) (*report, error) {
	begun := time.Now()
	dir := s.dir
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "millrace-chaos-"); err != nil {
			return nil, err
		}
	}
	binary := s.binary
	if binary == "" {
		binary = filepath.Join(dir, "millrace")
		build := faulty.BuildPlain
		if s.switches {
			build = faulty.Build
		}
		if err := build(s.root, binary); err != nil {
			return nil, err
		}
	}
	found := check.NewFindings(out)
	r := &report{seed: s.seed}
	c, err := cluster.New(cluster.Config{
		Binary: binary, Dir: dir, Spaces: s.spaces, Memory: s.power,
		Args: []string{"--partitions", "8", "--replicas", fmt.Sprint(s.replicas), "--log-level", "info"},
		Died: func(n *cluster.Node, evidence string) { found.Add("died", "%s: %s", n.Name, evidence) },
	})
	if err != nil {
		return nil, err
	}
	closed := false
	defer func() {
		if !closed {
			c.Close()
		}
	}()
	if !c.CanCut() {
		fmt.Fprintln(out, "no network namespaces here: networks are not cut")
	}
	err = s.through(ctx, c, found, r, out)
	r.violations, r.checks, r.took = found.Count(), found.Checks(), time.Since(begun)
	if err != nil || r.violations > 0 || s.keep {
		r.dir = dir
		saveSmall(c, dir)
	}
	c.Close()
	closed = true
	if r.dir == "" {
		os.RemoveAll(dir)
	}
	return r, err
}

// saveSmall keeps nothing of the small disks but a note: they are memory, and go with the run.
func saveSmall(c *cluster.Cluster, dir string) {
	for _, n := range c.Small() {
		_ = os.WriteFile(filepath.Join(dir, n.Name, "data-was-in-memory"), nil, 0o644)
	}
}

// through sets the cluster up, disturbs it under load, lets it heal, and judges.
func (s settings) through(ctx context.Context, c *cluster.Cluster, found *check.Findings, r *report, out io.Writer) error {
	for i := range s.nodes {
		n, err := c.Add(i == s.nodes-1)
		if err != nil {
			return err
		}
		if s.lie {
			if err := faulty.Set(n.Control(), faulty.Disk, "lie"); err != nil {
				return err
			}
		}
		if err := n.Launch(); err != nil {
			return err
		}
		if err := n.Await(); err != nil {
			return err
		}
	}
	if why := c.AwaitHealthy(ctx, s.replicas, cluster.StartPatience); why != "" {
		return fmt.Errorf("the cluster isn't healthy before anything was done to it: %s", why)
	}
	s.load.Seed = s.seed
	l := load.New(s.load, c, found)
	missing, err := l.Setup(ctx)
	if err != nil {
		return err
	}
	r.missing, r.relations = missing, l.Relations()
	l.Start(ctx)
	n := nemesis.New(nemesis.Config{Seed: s.seed, Kinds: s.kinds, Replicas: s.replicas, Log: out, Switches: s.switches, Memory: s.power}, c, found)
	disturbed, cancel := context.WithTimeout(ctx, s.duration)
	go progress(disturbed, l, found, out)
	n.Run(disturbed)
	cancel()
	s.finish(ctx, c, l, found, r, out)
	r.faults = n.Counts()
	r.acked, r.polled = l.Ledger.Counts()
	r.catalogs, r.statements, r.failures, r.gap = l.Catalog.Count(), l.Table.Count(), l.Failures(), time.Duration(l.Gap.Load())
	return ctx.Err()
}

func progress(ctx context.Context, l *load.Load, found *check.Findings, out io.Writer) {
	t := time.NewTicker(10 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			acked, polled := l.Ledger.Counts()
			fmt.Fprintf(out, "         acknowledged %d, read %d, answers %d, violations %d\n", acked, polled, l.Answers.Count(), found.Count())
		case <-ctx.Done():
			return
		}
	}
}

const finishPatience = 4 * time.Minute

// finish lets everything heal and judges it, and again after all nodes were killed at once.
func (s settings) finish(ctx context.Context, c *cluster.Cluster, l *load.Load, found *check.Findings, r *report, out io.Writer) {
	fmt.Fprintln(out, "nothing disturbs any more")
	if err := c.JoinAll(); err != nil {
		found.Add("recovery", "%v", err)
	}
	for _, n := range c.Nodes() {
		_ = faulty.Clear(n.Control(), faulty.Disk)
		n.Resume()
		if !n.Up() {
			if err := n.Launch(); err != nil {
				found.Add("recovery", "%v", err)
			}
		}
	}
	if why := c.AwaitHealthy(ctx, s.replicas, finishPatience); why != "" {
		found.Add("recovery", "the cluster isn't healthy %v after the last fault: %s", finishPatience, why)
	}
	l.StopProducing()
	if n := l.Ledger.Open(); n > 0 {
		found.Add("recovery", "%d records are neither acknowledged nor given up", n)
	}
	if why := l.AskAll(ctx, finishPatience); why != "" {
		found.Add("recovery", "%s", why)
	}
	if why := l.Settle(ctx, finishPatience); why != "" {
		found.Add("recovery", "after %v %s", finishPatience, why)
	}
	l.Stop()
	log, table := s.readAll(ctx, c, l, found, "")
	if log == nil {
		return
	}
	for _, p := range log {
		r.inLog += len(p)
	}
	// Once more, with nothing left in any process's memory.
	c.KillAll()
	for _, n := range c.Nodes() {
		if err := n.Launch(); err != nil {
			found.Add("recovery", "%v", err)
		}
	}
	for _, n := range c.Nodes() {
		if err := n.Await(); err != nil {
			found.Add("recovery", "after all nodes were killed: %v", err)
			return
		}
	}
	s.readAll(ctx, c, l, found, " after all nodes were killed")
	if why := l.AskAll(ctx, finishPatience); why != "" {
		found.Add("recovery", "after all nodes were killed: %s", why)
	}
	r.answers = l.Answers.Count()
	r.late = l.Answers.Judge(log, table)
	l.Catalog.Judge(time.Minute)
}

// readAll reads the logs through every node, compares them with what was told of them, and returns them.
func (s settings) readAll(ctx context.Context, c *cluster.Cluster, l *load.Load, found *check.Findings, when string) (log map[uint32][]check.Record, table map[uint32][]check.Change) {
	for _, n := range c.Nodes() {
		who := "the log read through " + n.Name + when
		recs, err := insistRead(ctx, n, found, load.ReadAll)
		if err != nil {
			found.Add("recovery", "%s: %v", who, err)
			continue
		}
		l.Ledger.Final(who, recs)
		if log != nil && !maps.EqualFunc(log, recs, slices.Equal) {
			found.Add("inconsistent-offsets", "%s isn't what another node gave", who)
		}
		log = recs
		if !l.HasTable() {
			continue
		}
		changes, err := insistRead(ctx, n, found, load.ReadTable)
		if err != nil {
			found.Add("recovery", "the table's log read through %s%s: %v", n.Name, when, err)
			continue
		}
		l.Table.Final("read through "+n.Name+when, changes)
		table = changes
	}
	return log, table
}

// insistRead reads a log through a node until it succeeds.
func insistRead[R any](ctx context.Context, n *cluster.Node, found *check.Findings, read func(context.Context, *cluster.Node, *check.Findings) (R, error)) (log R, err error) {
	for end := time.Now().Add(finishPatience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if log, err = read(ctx, n, found); err == nil {
			return log, nil
		}
	}
	return log, err
}
