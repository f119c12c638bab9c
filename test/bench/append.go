package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/client"
)

const streamColumns = "(ts BIGINT, host TEXT, ms BIGINT, msg TEXT)"

// appendRun is what one run of appends showed.
type appendRun struct {
	records float64 // acknowledged per second
	client  float64 // CPU seconds per million records
	server  float64
	fsync   float64 // share of the wall time that the busiest node spent in fsync
	rss     float64
}

// appends measures acknowledged appends for all kinds of records.
func (b *bench) appends() error {
	kinds, replicas := []string{"json", "random"}, []int{1, 3}
	if b.quick {
		kinds = kinds[:1]
	}
	for _, r := range replicas {
		c, err := b.cluster(r, partitionsFor(r))
		if err != nil {
			return err
		}
		for _, size := range []int{100, 1024} {
			for _, kind := range kinds {
				for _, compression := range []client.Compression{client.NoCompression, client.S2} {
					if _, err := b.appendFigures(c, r, size, kind, compression); err != nil {
						c.stop()
						return err
					}
				}
			}
		}
		c.stop()
	}
	return nil
}

// partitionsFor is how many partitions Kafka's runs have, for a fair comparison.
func partitionsFor(nodes int) int {
	if nodes == 1 {
		return 8
	}
	return 12
}

func compressionName(c client.Compression) string {
	switch c {
	case client.NoCompression:
		return "none"
	case client.S2:
		return "s2"
	}
	return "zstd"
}

func (b *bench) appendFigures(c *nodes, replicas, size int, kind string, compression client.Compression) (appendRun, error) {
	name := fmt.Sprintf("s_%d_%s_%s", size, kind, compressionName(compression))
	if _, err := c.client.Exec(b.ctx, "CREATE STREAM "+name+" "+streamColumns+" WITH (format = 'json')"); err != nil {
		return appendRun{}, err
	}
	records := payloads(kind, size, 10_000)
	if _, err := b.appendFor(c, name, records, compression, b.length()/4); err != nil { // warm-up
		return appendRun{}, err
	}
	run, err := b.appendFor(c, name, records, compression, b.length())
	if err != nil {
		return run, err
	}
	if _, err := c.client.Exec(b.ctx, "DROP STREAM "+name); err != nil {
		return run, err
	}
	at := map[string]any{"record_bytes": size, "payload": kind, "replicas": replicas, "compression": compressionName(compression),
		"partitions": partitionsFor(replicas)}
	for _, f := range []struct {
		name  string
		value float64
		unit  string
	}{
		{"append", run.records, "records/s"}, {"append_bytes", run.records * float64(size) / 1e6, "MB/s"},
		{"append_cpu_client", run.client, "s/M"}, {"append_cpu_server", run.server, "s/M"},
		{"append_fsync_share", run.fsync, "of time"}, {"append_rss", run.rss, "MB"},
	} {
		if err := b.report(f.name, f.value, f.unit, at); err != nil {
			return run, err
		}
	}
	return run, nil
}

// appendFor sends records in a circle for d and waits until all are acknowledged.
func (b *bench) appendFor(c *nodes, stream string, records [][]byte, compression client.Compression, d time.Duration) (appendRun, error) {
	var acked atomic.Int64
	var mu sync.Mutex
	var failed error
	p, err := c.client.Producer(b.ctx, stream, client.WithCompression(compression), client.OnBatch(func(r client.BatchResult) {
		if r.Err != nil {
			mu.Lock()
			failed = r.Err
			mu.Unlock()
			return
		}
		acked.Add(int64(r.Count))
	}))
	if err != nil {
		return appendRun{}, err
	}
	fsync, err := c.fsyncSeconds(b.ctx)
	if err != nil {
		return appendRun{}, err
	}
	server, own, begin := c.cpu(), ownCPU(), time.Now()
	sent := 0
	for time.Since(begin) < d {
		for range 500 {
			if err := p.SendTagged(b.ctx, nil, records[sent%len(records)], uint64(sent)); err != nil {
				return appendRun{}, err
			}
			sent++
		}
	}
	if err := p.Flush(b.ctx); err != nil {
		return appendRun{}, err
	}
	took := time.Since(begin).Seconds()
	millions := float64(sent) / 1e6
	run := appendRun{
		records: float64(acked.Load()) / took, client: (ownCPU() - own) / millions, server: (c.cpu() - server) / millions, rss: c.rss(),
	}
	after, err := c.fsyncSeconds(b.ctx)
	if err != nil {
		return run, err
	}
	for i := range after {
		run.fsync = max(run.fsync, (after[i]-fsync[i])/took)
	}
	if err := p.Close(context.WithoutCancel(b.ctx)); err != nil {
		return run, err
	}
	mu.Lock()
	defer mu.Unlock()
	if failed == nil && acked.Load() != int64(sent) {
		failed = fmt.Errorf("%d of %d records acknowledged", acked.Load(), sent)
	}
	return run, failed
}
