package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/millrace/millrace/client"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

const (
	demoReplay     = 50 * time.Second // how long the flights take
	demoPartitions = 12
	demoPatience   = 60 * time.Second // for anything that is waited for
)

// The stream's event time is the actual departure, whose order is as in life: with a long tail.
var demoStatements = []string{
	`CREATE STREAM flights (departed TIMESTAMPTZ, scheduled TIMESTAMPTZ, delay BIGINT, distance BIGINT, origin TEXT, destination TEXT,
	WATERMARK FOR departed AS departed - INTERVAL '1 day') WITH (format = 'json', key = 'origin')`,
	`CREATE MATERIALIZED VIEW departures AS SELECT origin, window_start AS hour, count(*) AS departures, avg(delay) AS mean_delay
	FROM TUMBLE(flights, departed, INTERVAL '1 hour') GROUP BY origin, window_start, window_end`,
	`CREATE MATERIALIZED VIEW routes AS SELECT origin, destination, count(*) AS flights, avg(delay) AS mean_delay
	FROM flights GROUP BY origin, destination`,
	`CREATE MATERIALIZED VIEW late_flights AS SELECT window_start AS minute, count(*) AS late
	FROM TUMBLE(flights, departed, INTERVAL '1 minute') WHERE delay >= 15 GROUP BY window_start, window_end`,
}

func newDemoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Three nodes, real flights as a live stream, views that update before your eyes",
		Long: `Demo starts a cluster of three nodes on free loopback ports with its data in a temporary folder, replays 19 days of
real US flights as a live stream, and shows three views of it. Halfway a fourth node joins. In the end it checks the
views against a plain recomputation over the same flights. It takes about a minute; Ctrl-C ends it at any time.`,
		Example: "  millrace demo",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), cmd.OutOrStdout())
		},
	}
}

// demo is one run.
type demo struct {
	ctx     context.Context
	dir     string
	nodes   []*demoNode
	client  *client.Client
	flights []demoFlight
	screen  screen
	begin   time.Time
	sent    progress
	notes   notes
}

func runDemo(ctx context.Context, out io.Writer) error {
	d := &demo{ctx: ctx, begin: time.Now(), screen: newScreen(out)}
	err := d.run()
	if serr := d.stop(); err == nil {
		err = serr
	}
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "millrace: demo stopped; nothing of it is left")
		return nil
	}
	return err
}

func newScreen(out io.Writer) screen {
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &terminalScreen{out: f}
	}
	return &plainScreen{out: out}
}

func (d *demo) run() error {
	var err error
	if d.flights, err = readFlights(); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "millrace-demo-"); err != nil {
		return err
	}
	if err := d.startCluster(3); err != nil {
		return err
	}
	for _, s := range demoStatements {
		if _, err := d.client.Exec(d.ctx, s); err != nil {
			return err
		}
	}
	d.screen.line("%d nodes are ready after %.1f s; three views are live over an empty stream", len(d.nodes), time.Since(d.begin).Seconds())
	d.screen.line("meanwhile, type SQL:  %s sql --addr %s", os.Args[0], d.nodes[0].grpc)
	g, ctx := errgroup.WithContext(d.ctx)
	ended := make(chan struct{})
	var last uint64
	g.Go(func() (err error) {
		defer close(ended)
		last, err = d.replay(ctx)
		return err
	})
	g.Go(func() error { return d.growHalfway(ctx) })
	g.Go(func() error { return d.show(ctx, ended) })
	if err := g.Wait(); err != nil {
		return err
	}
	d.screen.close()
	return d.check(last)
}

// startCluster starts the first nodes together and connects.
func (d *demo) startCluster(n int) error {
	for range n {
		if _, err := d.addNode(d.ctx); err != nil {
			return err
		}
	}
	addrs := make([]string, len(d.nodes))
	for i, node := range d.nodes {
		addrs[i] = node.grpc
	}
	var err error
	if d.client, err = client.Dial(d.ctx, addrs); err != nil {
		return err
	}
	_, err = d.await(d.ctx, func(c *millracev1.DescribeResponse) bool { return spread(c, n) })
	return err
}

// spread tells whether every partition has three replicas in sync, every node its share, and nothing moves.
func spread(c *millracev1.DescribeResponse, nodes int) bool {
	if len(c.Moves) > 0 || len(c.Nodes) < nodes {
		return false
	}
	for _, p := range c.Partitions {
		if len(p.InSync) != 3 || len(p.Replicas) != 3 {
			return false
		}
	}
	for _, n := range c.Nodes {
		if n.Primaries == 0 {
			return false
		}
	}
	return true
}

// await polls the cluster until it is as wanted.
func (d *demo) await(ctx context.Context, done func(*millracev1.DescribeResponse) bool) (*millracev1.DescribeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	for {
		c, err := d.client.Cluster().Describe(ctx)
		if err == nil && done(c) {
			return c, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(errors.New("the cluster did not settle in time"), err)
		}
	}
}

// replay sends the flights at an even pace and returns the tick of the last one.
func (d *demo) replay(ctx context.Context) (uint64, error) {
	p, err := d.client.Producer(ctx, "flights", client.OnBatch(func(r client.BatchResult) {
		if r.Err == nil {
			d.sent.acknowledge(r.Count, r.First.Tick)
		}
	}))
	if err != nil {
		return 0, err
	}
	d.sent.start(len(d.flights))
	begin := time.Now()
	var buf []byte
	for i := range d.flights {
		due := time.Duration(float64(demoReplay) * float64(i) / float64(len(d.flights)))
		if ahead := due - time.Since(begin); ahead > 2*time.Millisecond {
			select {
			case <-time.After(ahead):
			case <-ctx.Done():
				return 0, errors.Join(ctx.Err(), p.Close(context.WithoutCancel(ctx)))
			}
		}
		buf = d.flights[i].appendJSON(buf[:0])
		if err := p.Send(ctx, nil, buf, nil); err != nil {
			return 0, errors.Join(err, p.Close(context.WithoutCancel(ctx)))
		}
		d.sent.at(i, d.flights[i].scheduled)
	}
	if err := p.Close(ctx); err != nil {
		return 0, err
	}
	return d.sent.tick(), nil
}

// growHalfway adds a node when half of the flights are sent, and tells what moved.
func (d *demo) growHalfway(ctx context.Context) error {
	for !d.sent.half() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	before, err := d.client.Cluster().Describe(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	node, err := d.addNode(ctx)
	if err != nil {
		return err
	}
	d.notes.add("a fourth node, %s, joined in mid-stream; partitions are moving to it", node.name)
	after, err := d.await(ctx, func(c *millracev1.DescribeResponse) bool { return spread(c, 4) })
	if err != nil {
		return err
	}
	d.notes.add("%s", moved(before, after, node.name, time.Since(begin)))
	return nil
}

// moved says what a new node took over, and from whom.
func moved(before, after *millracev1.DescribeResponse, to string, took time.Duration) string {
	replicas := 0
	var primaries []string
	for i, p := range after.Partitions {
		for _, r := range p.Replicas {
			if r == to {
				replicas++
			}
		}
		if p.Primary == to {
			primaries = append(primaries, fmt.Sprintf("%d from %s", p.Id, before.Partitions[i].Primary))
		}
	}
	return fmt.Sprintf("%s holds %d replicas and leads %d of %d partitions (%s) after %.1f s, while records and queries went on",
		to, replicas, len(primaries), len(after.Partitions), strings.Join(primaries, ", "), took.Seconds())
}

// check compares the views with a recomputation.
func (d *demo) check(tick uint64) error {
	ctx, cancel := context.WithTimeout(d.ctx, demoPatience)
	defer cancel()
	d.screen.line("all %d flights are acknowledged at tick %d; recomputing the views from the file", len(d.flights), tick)
	session := d.client.Session()
	if _, err := session.Exec(ctx, fmt.Sprintf("SET min_tick = %d", tick)); err != nil {
		return err
	}
	want := recompute(d.flights, demoPartitions)
	rows := 0
	for _, v := range []struct {
		name, query string
		want        map[string]figures
	}{
		{"departures", "SELECT origin, hour, departures, mean_delay FROM departures", want.departures},
		{"routes", "SELECT origin, destination, flights, mean_delay FROM routes", want.routes},
		{"late_flights", "SELECT minute, late FROM late_flights", want.late},
	} {
		n, err := compare(ctx, session, v.query, v.want)
		if err != nil {
			return fmt.Errorf("view %s: %w", v.name, err)
		}
		rows += n
	}
	d.screen.line("checked: %d rows of 3 views equal the recomputation (%d late rows left out by both); %.0f s in all",
		rows, want.dropped, time.Since(d.begin).Seconds())
	return nil
}

// stop ends the nodes and removes their data.
func (d *demo) stop() error {
	d.screen.close()
	if d.client != nil {
		d.client.Close()
	}
	for _, n := range d.nodes {
		n.terminate()
	}
	for _, n := range d.nodes {
		n.wait()
	}
	if d.dir == "" {
		return nil
	}
	return os.RemoveAll(d.dir)
}
