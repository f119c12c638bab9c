package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/millrace/millrace/client"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/ring"
)

const (
	failoverNodes      = 3
	failoverPartitions = 32
	failoverRecord     = 1024                 // bytes
	failoverEvery      = 4 * time.Millisecond // between two records of a partition: 8,000 records/s in all
	failoverWait       = 60 * time.Second     // for appends to go on
	failoverSettle     = 90 * time.Second     // for all replicas to be in sync again
)

// failovers measures, with the nodes' default settings and under a steady load on every partition, for how long
// appends stop when a node is killed, hangs, or is stopped in good order. Of all the partitions that a fault concerns,
// the one that goes on last counts.
func (b *bench) failovers(rounds int, only string, kafkaRounds int) error {
	c, err := b.cluster(failoverNodes, failoverPartitions)
	if err != nil {
		return err
	}
	defer func() { c.stop() }()
	load, err := b.startLoad(c)
	if err != nil {
		return err
	}
	defer load.stop()
	parts := []struct {
		name string
		run  func() error
	}{
		{"kill", func() error { return b.killRounds(c, load, rounds) }},
		{"hang", func() error { return b.faultRounds(c, load, "hang", max(rounds/5, 3), b.hang) }},
		{"quiet", func() error { return b.faultRounds(c, load, "nothing", max(rounds/5, 3), b.nothing) }},
		{"handover", func() error { return b.faultRounds(c, load, "handover", max(rounds/5, 3), b.handOver) }},
		{"rolling", func() error { return b.rollingRounds(c, load, max(rounds/5, 3)) }},
	}
	for _, p := range parts {
		if wanted(only, p.name) {
			if err := p.run(); err != nil {
				return err
			}
		}
	}
	load.stop()
	if err := b.report("failover_errors", float64(load.failed.Load()), "records", map[string]any{"acked": load.acked.Load()}); err != nil {
		return err
	}
	if wanted(only, "alarms") {
		if err := b.falseAlarms(c); err != nil {
			return err
		}
	}
	if kafkaRounds > 0 {
		c.stop()
		c.procs, c.client = nil, nil
		return b.kafkaFailover(kafkaRounds)
	}
	return nil
}

// steadyLoad sends to every partition in turn and notes when it last heard from each.
type steadyLoad struct {
	producer *client.Producer
	cancel   context.CancelFunc
	done     chan struct{}
	once     sync.Once
	acked    atomic.Int64
	failed   atomic.Int64
	err      atomic.Pointer[error] // the last of those

	mu        sync.Mutex
	mark      time.Time // when this round's fault began
	parts     []partLoad
	recording bool
	lats      []time.Duration // from Send to acknowledgement, while recording
	seconds   []int           // acknowledged in each second since the mark, while recording
}

// record begins or ends the recording of single acknowledgements, and returns what was recorded.
func (l *steadyLoad) record(on bool) (lats []time.Duration, seconds []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lats, seconds = l.lats, l.seconds
	l.recording, l.lats, l.seconds = on, nil, nil
	return lats, seconds
}

// noteAck counts an acknowledgement; l.mu is held.
func (l *steadyLoad) noteAck(now, sent time.Time) {
	l.lats = append(l.lats, now.Sub(sent))
	second := int(now.Sub(l.mark) / time.Second)
	for len(l.seconds) <= second {
		l.seconds = append(l.seconds, 0)
	}
	l.seconds[second]++
}

// partLoad is what is known of one partition.
type partLoad struct {
	resumed time.Time     // first acknowledgement of a record sent after the mark
	last    time.Time     // newest acknowledgement
	gap     time.Duration // longest time between two, since the mark
}

func (b *bench) startLoad(c *nodes) (*steadyLoad, error) {
	if _, err := c.client.Exec(b.ctx, "CREATE STREAM load "+streamColumns+" WITH (format = 'json')"); err != nil {
		return nil, err
	}
	p, err := c.client.Producer(b.ctx, "load")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	l := &steadyLoad{producer: p, cancel: cancel, done: make(chan struct{}), parts: make([]partLoad, failoverPartitions)}
	keys := make([][]byte, failoverPartitions)
	for i, found := 0, 0; found < failoverPartitions; i++ {
		key := []byte(strconv.Itoa(i))
		if p := ring.Partition(key, failoverPartitions); keys[p] == nil {
			keys[p], found = key, found+1
		}
	}
	records := payloads("json", failoverRecord, 100)
	go func() {
		defer close(l.done)
		ticker := time.NewTicker(failoverEvery)
		defer ticker.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			for p, key := range keys {
				sent := time.Now()
				if err := l.producer.Send(ctx, key, records[n%len(records)], func(_ client.Ack, err error) { l.heard(p, sent, err) }); err != nil {
					return
				}
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
			}
		}
	}()
	time.Sleep(2 * time.Second) // warm
	return l, nil
}

func (l *steadyLoad) stop() {
	l.once.Do(func() {
		l.cancel()
		<-l.done
		ctx, cancel := context.WithTimeout(context.Background(), failoverWait)
		defer cancel()
		_ = l.producer.Close(ctx) // heard has counted what failed
	})
}

func (l *steadyLoad) heard(p int, sent time.Time, err error) {
	if err != nil {
		l.failed.Add(1)
		l.err.Store(&err)
		return
	}
	l.acked.Add(1)
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recording {
		l.noteAck(now, sent)
	}
	s := &l.parts[p]
	if s.gap = max(s.gap, now.Sub(s.last)); s.resumed.IsZero() && sent.After(l.mark) {
		s.resumed = now
	}
	s.last = now
}

// markNow begins a round.
func (l *steadyLoad) markNow() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.mark = now
	for i := range l.parts {
		l.parts[i] = partLoad{last: now}
	}
	return now
}

// await waits until all of the partitions have gone on, and returns how long the last took.
func (l *steadyLoad) await(ctx context.Context, since time.Time, parts []uint32) (time.Duration, error) {
	for deadline := time.Now().Add(failoverWait); ; {
		var worst time.Duration
		missing := 0
		l.mu.Lock()
		for _, p := range parts {
			if at := l.parts[p].resumed; at.IsZero() {
				missing++
			} else {
				worst = max(worst, at.Sub(since))
			}
		}
		l.mu.Unlock()
		if missing == 0 {
			return worst, nil
		}
		if time.Now().After(deadline) {
			err := fmt.Errorf("%d of %d partitions took no appends for %v", missing, len(parts), failoverWait)
			if e := l.err.Load(); e != nil {
				err = errors.Join(err, *e)
			}
			return 0, err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// worstGap is the longest time without an acknowledgement of any of the partitions since the mark.
func (l *steadyLoad) worstGap(parts []uint32) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var worst time.Duration
	for _, p := range parts {
		worst = max(worst, l.parts[p].gap)
	}
	return worst
}

// place finds a node, whether it leads, and the partitions whose primary it is.
func (c *nodes) place(ctx context.Context, name string) (leads bool, parts []uint32, err error) {
	d, err := c.client.Cluster().Describe(ctx)
	if err != nil {
		return false, nil, err
	}
	for _, p := range d.Partitions {
		if p.Primary == name {
			parts = append(parts, p.Id)
		}
	}
	return d.Leader == name, parts, nil
}

// killRounds kills nodes with kill -9: in every other round the one that leads the cluster too.
func (b *bench) killRounds(c *nodes, l *steadyLoad, rounds int) error {
	var all, leading, others, followed []time.Duration
	for round := range rounds {
		i, err := c.victim(b.ctx, round)
		if err != nil {
			return err
		}
		took, rest, leads, err := b.kill(c, l, i)
		if err != nil {
			return fmt.Errorf("round %d, node n%d: %w", round+1, i+1, err)
		}
		all, followed = append(all, took), append(followed, rest)
		if leads {
			leading = append(leading, took)
		} else {
			others = append(others, took)
		}
	}
	return errors.Join(b.distribution("failover_kill", all, nil), b.distribution("failover_kill_leader", leading, nil),
		b.distribution("failover_kill_other", others, nil), b.distribution("failover_kill_followed", followed, nil))
}

// victim is the leader in odd rounds and another node in even ones.
func (c *nodes) victim(ctx context.Context, round int) (int, error) {
	d, err := c.client.Cluster().Describe(ctx)
	if err != nil {
		return 0, err
	}
	i := (round / 2) % len(c.procs)
	for d.Leader != fmt.Sprintf("n%d", i+1) == (round%2 == 0) {
		i = (i + 1) % len(c.procs)
	}
	return i, nil
}

// kill kills a node: took is when appends went on to the partitions whose primary it was, rest to those that it followed.
func (b *bench) kill(c *nodes, l *steadyLoad, i int) (took, rest time.Duration, leads bool, err error) {
	leads, parts, err := c.place(b.ctx, fmt.Sprintf("n%d", i+1))
	if err != nil {
		return 0, 0, false, err
	}
	since := l.markNow()
	if err := c.procs[i].cmd.Process.Kill(); err != nil {
		return 0, 0, false, err
	}
	took, err = l.await(b.ctx, since, parts)
	if err != nil {
		return 0, 0, false, err
	}
	var followed []uint32
	for p := range uint32(failoverPartitions) {
		if !slices.Contains(parts, p) {
			followed = append(followed, p)
		}
	}
	if rest, err = l.await(b.ctx, since, followed); err != nil {
		return 0, 0, false, err
	}
	c.procs[i].cmd.Wait()
	return took, rest, leads, b.restart(c, i)
}

// restart starts a node again on its folder and ports, and waits until everything is as it was.
func (b *bench) restart(c *nodes, i int) error {
	old := c.procs[i]
	args := slices.Clone(old.cmd.Args[1:])
	for k := range args {
		switch args[k] {
		case "--listen":
			args[k+1] = old.grpc
		case "--gossip":
			args[k+1] = old.gossip
		case "--http":
			args[k+1] = old.http
		}
	}
	p, err := b.spawn(args)
	if err != nil {
		return err
	}
	c.procs[i] = p
	return b.settle(c)
}

func (b *bench) settle(c *nodes) error {
	ctx, cancel := context.WithTimeout(b.ctx, failoverSettle)
	defer cancel()
	return c.inSync(ctx, failoverNodes)
}

// faultRounds repeats a fault on each node in turn.
func (b *bench) faultRounds(c *nodes, l *steadyLoad, name string, rounds int, fault func(*nodes, *steadyLoad, int) (time.Duration, error)) error {
	var all []time.Duration
	for round := range rounds {
		took, err := fault(c, l, round%len(c.procs))
		if err != nil {
			return fmt.Errorf("%s, round %d: %w", name, round+1, err)
		}
		all = append(all, took)
	}
	return b.distribution("failover_"+name, all, nil)
}

// hang stops a node's process for a while: it doesn't answer, and its connections stay.
func (b *bench) hang(c *nodes, l *steadyLoad, i int) (time.Duration, error) {
	parts, err := allPartitions(b.ctx, c)
	if err != nil {
		return 0, err
	}
	p := c.procs[i].cmd.Process
	since := l.markNow()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return 0, err
	}
	took, err := l.await(b.ctx, since, parts) // as it is a replica of all of them
	if cerr := p.Signal(syscall.SIGCONT); err == nil {
		err = cerr
	}
	if err != nil {
		return 0, err
	}
	return took, b.settle(c)
}

func allPartitions(ctx context.Context, c *nodes) ([]uint32, error) {
	d, err := c.client.Cluster().Describe(ctx)
	if err != nil {
		return nil, err
	}
	var parts []uint32
	for _, p := range d.Partitions {
		parts = append(parts, p.Id)
	}
	return parts, nil
}

// handOver stops a node in good order and starts it again; the longest pause of any partition counts, both as the node
// gives its primaries away and as it gets them back.
func (b *bench) handOver(c *nodes, l *steadyLoad, i int) (time.Duration, error) {
	parts, err := allPartitions(b.ctx, c)
	if err != nil {
		return 0, err
	}
	l.markNow()
	if err := c.procs[i].cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	if err := c.procs[i].cmd.Wait(); err != nil {
		return 0, err
	}
	if err := b.restart(c, i); err != nil {
		return 0, err
	}
	return l.worstGap(parts), nil
}

// nothing is the longest pause in a while without a fault: what the machine does to the other figures.
func (b *bench) nothing(c *nodes, l *steadyLoad, _ int) (time.Duration, error) {
	parts, err := allPartitions(b.ctx, c)
	if err != nil {
		return 0, err
	}
	l.markNow()
	select {
	case <-time.After(1500 * time.Millisecond): // about what a restart takes
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
	return l.worstGap(parts), nil
}

// falseAlarms appends as fast as it goes; no partition may change its configuration meanwhile.
func (b *bench) falseAlarms(c *nodes) error {
	before, err := c.client.Cluster().Describe(b.ctx)
	if err != nil {
		return err
	}
	length := 5 * b.length()
	if _, err := b.appendFor(c, "load", payloads("json", failoverRecord, 10_000), client.S2, length); err != nil {
		return err
	}
	after, err := c.client.Cluster().Describe(b.ctx)
	if err != nil {
		return err
	}
	return b.report("false_alarms", float64(epochs(after)-epochs(before)), "changes", map[string]any{"seconds": length.Seconds()})
}

func epochs(d *millracev1.DescribeResponse) (sum uint64) {
	for _, p := range d.Partitions {
		sum += p.Epoch
	}
	return sum
}

// distribution reports the median and the worst of some times.
func (b *bench) distribution(name string, all []time.Duration, at map[string]any) error {
	if len(all) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(all))
	var millis []int64
	for _, d := range all {
		millis = append(millis, d.Milliseconds())
	}
	settings := map[string]any{"rounds": len(all), "all_ms": millis, "nodes": failoverNodes}
	for k, v := range at {
		settings[k] = v
	}
	return errors.Join(
		b.report(name+"_median", sorted[len(sorted)/2].Seconds(), "s", settings),
		b.report(name+"_worst", sorted[len(sorted)-1].Seconds(), "s", settings),
	)
}

//go:embed kafka_failover.py
var kafkaScript string

// kafkaFailover runs rounds of the peer's script: kill -9 of a partition's leader at its default settings, the longest time
// between two acknowledgements. A round takes some 45 seconds.
func (b *bench) kafkaFailover(rounds int) error {
	cmd := exec.CommandContext(b.ctx, "python3", "-c", kafkaScript, b.peers, strconv.Itoa(rounds))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it stops its servers
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the script of Kafka: %w", err)
	}
	gaps, err := failoverGaps(stdout)
	if werr := cmd.Wait(); werr != nil {
		return fmt.Errorf("the script of Kafka: %w (give the folder of the peers with -peers-dir)", werr)
	}
	if err == nil && len(gaps) == 0 {
		err = errors.New("the script of Kafka gave no failover gap")
	}
	if err != nil {
		return err
	}
	return b.distribution("failover_kafka", gaps, map[string]any{"flush": "page cache"})
}

// failoverGaps reads the script's rows.
func failoverGaps(in io.Reader) ([]time.Duration, error) {
	var out []time.Duration
	err := peerRows(in, func(row map[string]string) error {
		if row["what"] != "failover gap" {
			return nil
		}
		ms, err := strconv.ParseFloat(row["value"], 64)
		out = append(out, time.Duration(ms*float64(time.Millisecond)))
		return err
	})
	return out, err
}
