package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/client"
)

// rollingRounds restarts every node in good order, one after the other, while records are appended and a view over them is
// read: for how long appends stop, for how long an answer lets itself be waited for, and what errors a client sees.
func (b *bench) rollingRounds(c *nodes, l *steadyLoad, rounds int) error {
	if _, err := c.client.Exec(b.ctx, "CREATE MATERIALIZED VIEW per_host AS SELECT host, count(*) AS n FROM load GROUP BY host"); err != nil {
		return err
	}
	if err := b.settle(c); err != nil {
		return err
	}
	var addrs []string
	for _, p := range c.procs {
		addrs = append(addrs, p.grpc)
	}
	r, err := startReader(b.ctx, addrs)
	if err != nil {
		return err
	}
	defer r.stop()
	parts, err := allPartitions(b.ctx, c)
	if err != nil {
		return err
	}
	var gaps, reads []time.Duration
	for round := range rounds {
		r.take()
		if _, err := b.handOver(c, l, round%len(c.procs)); err != nil {
			return fmt.Errorf("rolling, round %d: %w", round+1, err)
		}
		gaps, reads = append(gaps, l.worstGap(parts)), append(reads, r.take())
	}
	r.stop()
	_, err = c.client.Exec(b.ctx, "DROP MATERIALIZED VIEW per_host")
	return errors.Join(err, b.distribution("rolling_append_gap", gaps, nil), b.distribution("rolling_view_wait", reads, nil),
		b.report("rolling_view_errors", float64(r.errors), "answers", map[string]any{"answers": r.answers, "last": fmt.Sprint(r.last)}))
}

// viewReader reads a view again and again, as a client that knows all nodes.
type viewReader struct {
	c      *client.Client
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once

	mu      sync.Mutex
	worst   time.Duration
	answers int
	errors  int
	last    error
}

func startReader(ctx context.Context, addrs []string) (*viewReader, error) {
	ctx, cancel := context.WithCancel(ctx)
	c, err := client.Dial(ctx, addrs)
	if err != nil {
		cancel()
		return nil, err
	}
	r := &viewReader{c: c, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for ctx.Err() == nil {
			begin := time.Now()
			err := r.read(ctx)
			if ctx.Err() != nil {
				return
			}
			r.mu.Lock()
			r.worst = max(r.worst, time.Since(begin))
			if r.answers++; err != nil {
				r.errors, r.last = r.errors+1, err
			}
			r.mu.Unlock()
			_ = sleep(ctx, 5*time.Millisecond) // its end ends the loop
		}
	}()
	return r, nil
}

func (r *viewReader) read(ctx context.Context) error {
	rows, err := r.c.Query(ctx, "SELECT sum(n) AS n FROM per_host")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

// take returns the longest wait for an answer since it was last called.
func (r *viewReader) take() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.worst
	r.worst = 0
	return w
}

func (r *viewReader) stop() {
	r.once.Do(func() {
		r.cancel()
		<-r.done
		r.c.Close()
	})
}
