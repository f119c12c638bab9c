package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/millrace/millrace/client"
)

// latency measures the time from a record's Send to its change arriving at a subscriber of a view: at 10,000 records/s
// and at half of what the node takes.
func (b *bench) latency() error {
	for _, replicas := range []int{1, 3} {
		if b.quick && replicas > 1 {
			continue
		}
		c, err := b.cluster(replicas, partitionsFor(replicas))
		if err != nil {
			return err
		}
		run, err := b.appendFigures(c, replicas, 100, "json", client.NoCompression)
		if err != nil {
			c.stop()
			return err
		}
		for _, rate := range []int{10_000, int(run.records / 2)} {
			if err := b.latencyAt(c, replicas, rate); err != nil {
				c.stop()
				return err
			}
		}
		c.stop()
	}
	return nil
}

// sampleEvery is how many records there are for each whose latency is measured.
const sampleEvery = 100

func (b *bench) latencyAt(c *nodes, replicas, rate int) error {
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	// A sample is a key of its own, so that its row appears when its record is counted.
	_, err := c.client.Exec(ctx, "CREATE STREAM ticks (sample BIGINT, host TEXT, ms BIGINT, msg TEXT) WITH (format = 'json')")
	if err != nil {
		return err
	}
	if _, err := c.client.Exec(ctx, "CREATE MATERIALIZED VIEW samples AS SELECT sample, count(*) AS n FROM ticks GROUP BY sample"); err != nil {
		return err
	}
	length := b.length()
	n := rate * int(length/time.Second)
	sent := make([]time.Time, n/sampleEvery+2)
	var mu sync.Mutex
	var took []time.Duration
	done := make(chan error, 1)
	go func() {
		done <- b.followSamples(ctx, c, func(sample int, at time.Time) bool {
			mu.Lock()
			defer mu.Unlock()
			if sample > 0 && sample < len(sent) && !sent[sample].IsZero() {
				took = append(took, at.Sub(sent[sample]))
			}
			return len(took) >= n/sampleEvery
		})
	}()
	p, err := c.client.Producer(ctx, "ticks", client.WithCompression(client.NoCompression), client.WithLinger(time.Millisecond))
	if err != nil {
		return err
	}
	begin := time.Now()
	buf := make([]byte, 0, 128)
	for i := range n {
		if ahead := time.Duration(float64(i)/float64(rate)*1e9) - time.Since(begin); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
		sample := 0
		if i%sampleEvery == 0 {
			sample = i/sampleEvery + 1
			mu.Lock()
			sent[sample] = time.Now()
			mu.Unlock()
		}
		buf = append(buf[:0], `{"sample":`...)
		buf = strconv.AppendInt(buf, int64(sample), 10)
		buf = append(buf, `,"host":"web-07","ms":1234,"msg":"GET /api/v1/items served from cache ok, no more"}`...)
		if err := p.SendTagged(ctx, nil, buf, uint64(i)); err != nil {
			return err
		}
	}
	if err := p.Close(ctx); err != nil {
		return err
	}
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-time.After(30 * time.Second):
		return errors.New("not all samples arrived within 30 s")
	}
	cancel()
	if _, err := c.client.Exec(b.ctx, "DROP STREAM ticks CASCADE"); err != nil {
		return err
	}
	slices.Sort(took)
	at := map[string]any{"rate": rate, "replicas": replicas, "record_bytes": 100, "samples": len(took)}
	for _, q := range []struct {
		name  string
		share float64
	}{{"p50", .5}, {"p99", .99}, {"p999", .999}} {
		v := took[int(float64(len(took)-1)*q.share)]
		if err := b.report("record_to_view_"+q.name, float64(v.Microseconds())/1000, "ms", at); err != nil {
			return err
		}
	}
	return nil
}

// followSamples calls seen for each sample's first row until it says that it has all.
func (b *bench) followSamples(ctx context.Context, c *nodes, seen func(sample int, at time.Time) bool) error {
	for change, err := range c.client.Subscribe(ctx, "samples") {
		if err != nil {
			return err
		}
		now := time.Now()
		for _, r := range change.Rows {
			if r.Weight > 0 && r.Values[1].Int == 1 && seen(int(r.Values[0].Int), now) {
				return nil
			}
		}
	}
	return fmt.Errorf("the subscription ended: %w", ctx.Err())
}
