package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace/millrace/client"
)

const (
	stateKeys   = 2_000_000 // of about 500 bytes of state and row each
	stateText   = 200       // bytes of the text that is kept of each key
	stateRounds = 3
	stateWait   = 10 * time.Minute
)

// stateLoss measures, on three nodes that all hold the state of a large view, how long the view lacks the newest tick
// after a node is killed; and, for comparison, the same when next to nothing was shipped to the other replicas.
func (b *bench) stateLoss() error {
	keys := stateKeys
	if b.quick {
		keys /= 10
	}
	for _, rate := range []string{"64MiB", "1"} {
		b.extra = []string{"--ship-rate", rate}
		if err := b.stateRun(keys, rate != "1"); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) stateRun(keys int, shipped bool) error {
	c, err := b.cluster(3, 32)
	if err != nil {
		return err
	}
	defer func() { c.stop() }()
	if err := b.fillState(c, keys); err != nil {
		return err
	}
	rounds := 1
	if shipped {
		rounds = stateRounds
	}
	for range rounds {
		if shipped {
			if err := b.awaitShipped(c); err != nil {
				return err
			}
		}
		size, err := viewBytes(b.ctx, c)
		if err != nil {
			return err
		}
		acked, took, err := b.loseNode(c)
		if err != nil {
			return err
		}
		name := "state_loss"
		if !shipped {
			name = "state_loss_unshipped"
		}
		if err := b.report(name, took.Seconds(), "s", map[string]any{"keys": keys, "state_mb": size / 1e6, "replicas": 3, "acked_s": acked.Seconds()}); err != nil {
			return err
		}
	}
	return nil
}

// fillState makes a view with so many keys and waits until it has them.
func (b *bench) fillState(c *nodes, keys int) error {
	_, err := c.client.Exec(b.ctx, "CREATE STREAM big (k BIGINT, txt TEXT) WITH (format = 'json'); "+
		"CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n, max(txt) AS txt FROM big GROUP BY k")
	if err != nil {
		return err
	}
	p, err := c.client.Producer(b.ctx, "big", client.WithCompression(client.S2))
	if err != nil {
		return err
	}
	texts := payloads("incompressible", stateText, 1000)
	for i := range keys {
		if err := p.SendTagged(b.ctx, nil, stateRecord(i, texts[i%len(texts)]), uint64(i)); err != nil {
			return err
		}
	}
	if err := p.Close(b.ctx); err != nil {
		return err
	}
	n, err := b.countPatiently(c)
	if err == nil && n != int64(keys) {
		err = fmt.Errorf("the view has %d rows, not %d", n, keys)
	}
	return err
}

func stateRecord(key int, text []byte) []byte {
	out := strconv.AppendInt([]byte(`{"k":`), int64(key), 10)
	return append(strconv.AppendQuote(append(out, `,"txt":`...), string(text)), '}')
}

// viewBytes is what the view keeps in all partitions, once.
func viewBytes(ctx context.Context, c *nodes) (float64, error) {
	rows, err := c.client.Query(ctx, "SHOW VIEWS")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		for i, f := range rows.Columns() {
			if f.Name == "state_bytes" {
				return float64(rows.Values()[i].Int), rows.Err()
			}
		}
	}
	return 0, fmt.Errorf("SHOW VIEWS has no state_bytes: %w", rows.Err())
}

// awaitShipped waits until all replicas have what the primaries have stored.
func (b *bench) awaitShipped(c *nodes) error {
	for begin := time.Now(); ; {
		left := 0.0
		for _, p := range c.procs {
			for _, name := range []string{"millrace_ship_replicas_behind", "millrace_ship_lag_seconds"} {
				v, err := metric(b.ctx, p.http, name)
				if err != nil {
					return err
				}
				left += v
			}
		}
		switch {
		case left == 0:
			return nil
		case time.Since(begin) > stateWait:
			return fmt.Errorf("after %v replicas are still behind", stateWait)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-b.ctx.Done():
			return b.ctx.Err()
		}
	}
}

// loseNode kills the last node, and starts it again once a record that was appended after the kill is seen in the view.
// It returns when the record was acknowledged, and when it was seen, both from the kill on.
func (b *bench) loseNode(c *nodes) (acked, took time.Duration, err error) {
	p, err := c.client.Producer(b.ctx, "big")
	if err != nil {
		return 0, 0, err
	}
	last := len(c.procs) - 1
	lost := c.procs[last]
	begin := time.Now()
	if err := lost.cmd.Process.Kill(); err != nil {
		return 0, 0, err
	}
	answers := make(chan error, 64)
	for i := range cap(answers) { // some in every partition
		if err := p.Send(b.ctx, []byte(strconv.Itoa(i)), stateRecord(i, []byte("z")), func(_ client.Ack, err error) { answers <- err }); err != nil {
			return 0, 0, err
		}
	}
	for range cap(answers) {
		if err := <-answers; err != nil {
			return 0, 0, err
		}
	}
	acked = time.Since(begin)
	ctx, cancel := context.WithTimeout(b.ctx, stateWait)
	defer cancel()
	for {
		err := seen(ctx, c) // the client asks for the tick of the acknowledgements
		if err == nil {
			break
		}
		if !client.Retryable(err) || ctx.Err() != nil {
			return 0, 0, err
		}
	}
	took = time.Since(begin)
	lost.cmd.Wait()
	if err := p.Close(b.ctx); err != nil {
		return 0, 0, err
	}
	again, err := b.spawn(lost.cmd.Args[1:])
	if err != nil {
		return 0, 0, err
	}
	c.procs[last] = again
	settle, stop := context.WithTimeout(b.ctx, stateWait)
	defer stop()
	return acked, took, c.inSync(settle, 3)
}

func seen(ctx context.Context, c *nodes) error {
	rows, err := c.client.Query(ctx, "SELECT txt FROM v WHERE k = 7")
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return err
		}
		return fmt.Errorf("the view has lost a key")
	}
	if txt := string(rows.Values()[0].Bytes); txt == "" {
		return fmt.Errorf("the view has lost a value")
	}
	return rows.Err()
}
