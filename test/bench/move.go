package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/millrace/millrace/client"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

const (
	moveBytes   = 5 << 30 // of the log, once
	moveRecord  = 8 << 10 // bytes
	moveQuiet   = 20 * time.Second
	moveTimeout = 30 * time.Minute
)

// moves measures what it takes, and costs producers, when a node joins three that hold a large log and the state of a large
// view, and when one of them is drained then: under a steady load all the while.
func (b *bench) moves() error {
	keys, logBytes := stateKeys, int64(moveBytes)
	if b.quick {
		keys, logBytes = keys/10, logBytes/10
	}
	c, err := b.cluster(failoverNodes, failoverPartitions)
	if err != nil {
		return err
	}
	defer func() { c.stop() }()
	if err := b.fillState(c, keys); err != nil {
		return err
	}
	if err := b.fillLog(c, logBytes); err != nil {
		return err
	}
	state, err := viewBytes(b.ctx, c)
	if err != nil {
		return err
	}
	load, err := b.startLoad(c)
	if err != nil {
		return err
	}
	defer load.stop()
	at := map[string]any{"log_mb": logBytes / 1e6, "state_mb": state / 1e6, "nodes": failoverNodes, "load_records_per_s": moveRate()}
	quiet, err := b.phase(load, at, "before", func() error { return sleep(b.ctx, moveQuiet) })
	if err != nil {
		return err
	}
	if _, err := b.phase(load, at, "join", func() error { return b.joinFourth(c) }); err != nil {
		return err
	}
	if _, err := b.phase(load, at, "drain", func() error { return b.drainOne(c) }); err != nil {
		return err
	}
	load.stop()
	if n := load.acked.Load() - quiet; n <= 0 {
		return fmt.Errorf("nothing was acknowledged while nodes joined and were drained")
	}
	return b.report("move_errors", float64(load.failed.Load()), "records", map[string]any{"acked": load.acked.Load()})
}

// moveRate is how many records a second the steady load sends.
func moveRate() int { return int(failoverPartitions * time.Second / failoverEvery) }

// fillLog appends so many bytes, in records that don't compress, to a stream of their own.
func (b *bench) fillLog(c *nodes, bytes int64) error {
	if _, err := c.client.Exec(b.ctx, "CREATE STREAM bulk (msg TEXT) WITH (format = 'json')"); err != nil {
		return err
	}
	p, err := c.client.Producer(b.ctx, "bulk", client.WithCompression(client.NoCompression))
	if err != nil {
		return err
	}
	records := payloads("incompressible", moveRecord, 1000)
	for i := range bytes / moveRecord {
		if err := p.SendTagged(b.ctx, nil, records[i%1000], uint64(i)); err != nil {
			return err
		}
	}
	return p.Close(b.ctx)
}

// phase reports how long do took, and how the load went meanwhile. It returns the records acknowledged so far.
func (b *bench) phase(l *steadyLoad, at map[string]any, name string, do func() error) (int64, error) {
	begin := l.markNow()
	l.record(true)
	if err := do(); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	took := time.Since(begin)
	lats, seconds := l.record(false)
	var parts []uint32
	for p := range failoverPartitions {
		parts = append(parts, uint32(p))
	}
	settings := map[string]any{"failed": l.failed.Load()}
	for k, v := range at {
		settings[k] = v
	}
	if len(lats) == 0 || len(seconds) < 3 {
		return 0, fmt.Errorf("%s: too few acknowledgements to tell anything", name)
	}
	slices.Sort(lats)
	whole := slices.Clone(seconds[1 : len(seconds)-1]) // the first and last are parts of seconds
	slices.Sort(whole)
	return l.acked.Load(), errors.Join(
		b.report("move_"+name+"_time", took.Seconds(), "s", settings),
		b.report("move_"+name+"_ack_p50", lats[len(lats)/2].Seconds()*1000, "ms", settings),
		b.report("move_"+name+"_ack_p99", lats[len(lats)*99/100].Seconds()*1000, "ms", settings),
		b.report("move_"+name+"_longest_gap", l.worstGap(parts).Seconds()*1000, "ms", settings),
		b.report("move_"+name+"_rate_median", float64(whole[len(whole)/2]), "records/s", settings),
		b.report("move_"+name+"_rate_least", float64(whole[0]), "records/s", settings),
	)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// joinFourth starts a fourth node and waits until nothing moves any more and it has its share.
func (b *bench) joinFourth(c *nodes) error {
	first := c.procs[0]
	dir := filepath.Join(filepath.Dir(argOf(first.cmd.Args, "--data")), strconv.Itoa(len(c.procs)))
	p, err := b.spawn(append([]string{"serve", "--data", dir, "--name", fmt.Sprintf("n%d", len(c.procs)+1), "--listen", "127.0.0.1:0", "--gossip", "127.0.0.1:0",
		"--http", "127.0.0.1:0", "--pg", "127.0.0.1:0", "--join", first.gossip, "--pprof"}, b.extra...))
	if err != nil {
		return err
	}
	c.procs = append(c.procs, p)
	name := fmt.Sprintf("n%d", len(c.procs))
	return b.awaitMoves(c, func(n *millracev1.Node) bool { return n.Name != name || n.Replicas > 0 && n.Primaries > 0 })
}

// drainOne drains the second node, as an operator would, and waits until nothing moves any more.
func (b *bench) drainOne(c *nodes) error {
	ctx, cancel := context.WithTimeout(b.ctx, moveTimeout)
	defer cancel()
	if err := c.client.Cluster().Drain(ctx, "n2"); err != nil {
		return err
	}
	if err := c.client.Cluster().WaitDrained(ctx, "n2", nil); err != nil {
		return err
	}
	return b.awaitMoves(c, func(n *millracev1.Node) bool { return n.Name != "n2" || n.Replicas == 0 })
}

// awaitMoves waits until nothing moves, every partition has three replicas in sync, and each node is as it should be.
func (b *bench) awaitMoves(c *nodes, each func(*millracev1.Node) bool) error {
	for begin := time.Now(); time.Since(begin) < moveTimeout; {
		d, err := c.client.Cluster().Describe(b.ctx)
		if err != nil {
			return err
		}
		missing := len(d.Moves)
		for _, p := range d.Partitions {
			if len(p.InSync) != failoverNodes || len(p.Replicas) != failoverNodes {
				missing++
			}
		}
		for _, n := range d.Nodes {
			if !each(n) {
				missing++
			}
		}
		if missing == 0 {
			return nil
		}
		if err := sleep(b.ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("partitions still move after %v", moveTimeout)
}

func argOf(args []string, flag string) string {
	if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}
