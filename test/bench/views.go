package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace/millrace/client"
)

// views measures how fast a view is made from a log that is there already.
func (b *bench) views() error {
	n := 4_000_000
	if b.quick {
		n = 500_000
	}
	c, err := b.cluster(1, partitionsFor(1))
	if err != nil {
		return err
	}
	defer c.stop()
	for _, keys := range []int{10, 1_000_000} {
		if err := b.fillEvents(c, keys, n); err != nil {
			return err
		}
		for _, v := range []struct{ name, query string }{
			{"view_filter_project", "SELECT key, ms * 2 AS twice FROM events WHERE ms > 1900"},
			{"view_tumbling_count", "SELECT key, window_start, count(*) AS n FROM TUMBLE(events, ts, INTERVAL '1 minute') GROUP BY key, window_start, window_end"},
		} {
			if v.name == "view_filter_project" && keys != 10 {
				continue
			}
			if err := b.backfill(c, v.name, v.query, keys, n); err != nil {
				return err
			}
		}
		if _, err := c.client.Exec(b.ctx, "DROP STREAM events CASCADE"); err != nil {
			return err
		}
	}
	return nil
}

// fillEvents appends n records of about 100 bytes whose keys come in a fixed, well-mixed order.
func (b *bench) fillEvents(c *nodes, keys, n int) error {
	_, err := c.client.Exec(b.ctx, "CREATE STREAM events (ts TIMESTAMPTZ, key BIGINT, ms BIGINT, msg TEXT, WATERMARK FOR ts AS ts - INTERVAL '10 seconds') WITH (format = 'json')")
	if err != nil {
		return err
	}
	p, err := c.client.Producer(b.ctx, "events", client.WithCompression(client.S2))
	if err != nil {
		return err
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	buf := make([]byte, 0, 128)
	for i := range n {
		key := uint64(i) * 0x9E3779B97F4A7C15 % uint64(keys)
		buf = append(buf[:0], `{"ts":`...)
		buf = strconv.AppendInt(buf, start+int64(i)*10, 10)
		buf = append(buf, `,"key":`...)
		buf = strconv.AppendUint(buf, key, 10)
		buf = append(buf, `,"ms":`...)
		buf = strconv.AppendInt(buf, int64(i*7919%2000), 10)
		buf = append(buf, `,"msg":"GET /api/v1/items served from cache ok"}`...)
		if err := p.SendTagged(b.ctx, nil, buf, uint64(i)); err != nil {
			return err
		}
	}
	return p.Close(b.ctx)
}

// backfill makes a view, waits until it can be read, checks that nothing is missing, and drops it.
func (b *bench) backfill(c *nodes, name, query string, keys, n int) error {
	cpu, begin := c.cpu(), time.Now()
	if _, err := c.client.Exec(b.ctx, "CREATE MATERIALIZED VIEW v AS "+query); err != nil {
		return err
	}
	rows, err := b.countPatiently(c)
	if err != nil {
		return err
	}
	took := time.Since(begin).Seconds()
	if rows == 0 {
		return fmt.Errorf("%s: the view is empty", name)
	}
	at := map[string]any{"keys": keys, "records": n, "replicas": 1, "rows": rows}
	if err := b.report(name, float64(n)/took, "records/s", at); err != nil {
		return err
	}
	if err := b.report(name+"_cpu", (c.cpu()-cpu)/float64(n)*1e6, "s/M", at); err != nil {
		return err
	}
	if err := b.report(name+"_rss", c.rss(), "MB", at); err != nil {
		return err
	}
	_, err = c.client.Exec(b.ctx, "DROP MATERIALIZED VIEW v")
	return err
}

// countPatiently counts the view's rows, which waits until the view can be read.
func (b *bench) countPatiently(c *nodes) (int64, error) {
	ctx, cancel := context.WithTimeout(b.ctx, stateWait)
	defer cancel()
	for {
		n, err := count(ctx, c)
		if err == nil || ctx.Err() != nil || !client.Retryable(err) && client.Reason(err) != "DEADLINE" { // a statement's time may be too short for a backfill
			return n, err
		}
	}
}

func count(ctx context.Context, c *nodes) (int64, error) {
	rows, err := c.client.Query(ctx, "SELECT count(*) AS c FROM v")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	if !rows.Next() {
		return 0, rows.Err()
	}
	return rows.Values()[0].Int, rows.Err()
}
