package main

import (
	"fmt"
	"time"
)

// start measures the time from a process's start to its ready line, with an empty data folder.
func (b *bench) start() error {
	var best time.Duration
	for i := range 5 {
		c, err := b.cluster(1, partitionsFor(1))
		if err != nil {
			return err
		}
		if d := c.procs[0].ready; i == 0 || d < best {
			best = d
		}
		if i == 4 {
			err = b.report("start_to_ready", best.Seconds(), "s", map[string]any{"replicas": 1, "runs": 5, "of": "least"})
			if err == nil {
				err = b.report("rss_empty", c.rss(), "MB", map[string]any{"replicas": 1})
			}
		}
		c.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// idle measures the CPU that a cluster of three takes while nobody uses it, with ten views.
func (b *bench) idle() error {
	c, err := b.cluster(3, partitionsFor(3))
	if err != nil {
		return err
	}
	defer c.stop()
	if _, err := c.client.Exec(b.ctx, "CREATE STREAM quiet (ts TIMESTAMPTZ, key BIGINT, WATERMARK FOR ts AS ts) WITH (format = 'json')"); err != nil {
		return err
	}
	for i := range 10 {
		_, err := c.client.Exec(b.ctx, fmt.Sprintf("CREATE MATERIALIZED VIEW quiet_%d AS SELECT key, count(*) AS n, max(ts) AS latest FROM TUMBLE(quiet, ts, INTERVAL '%d minutes') GROUP BY key, window_start, window_end", i, i+1))
		if err != nil {
			return err
		}
	}
	settle, length := 5*time.Second, 20*time.Second
	if b.quick {
		settle, length = 2*time.Second, 5*time.Second
	}
	time.Sleep(settle)
	before := c.cpu()
	time.Sleep(length)
	used := (c.cpu() - before) / length.Seconds() * 100
	at := map[string]any{"replicas": 3, "views": 10, "seconds": length.Seconds()}
	if err := b.report("idle_cpu", used, "% of core", at); err != nil {
		return err
	}
	return b.report("idle_rss", c.rss(), "MB", at)
}
