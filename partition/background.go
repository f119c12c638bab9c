package partition

import (
	"context"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
)

// closings brings Closings to their listeners, in order.
type closings struct {
	fns    []func(Closing)
	mu     sync.Mutex
	queue  []Closing
	notify chan struct{}
}

// push is called with the replica's lock held, which keeps a partition's closings in order.
func (c *closings) push(cs []Closing) {
	c.mu.Lock()
	c.queue = append(c.queue, cs...)
	c.mu.Unlock()
	poke(c.notify)
}

func (c *closings) run(ctx context.Context) {
	var queue []Closing
	for {
		select {
		case <-c.notify:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		queue, c.queue = c.queue, queue[:0]
		c.mu.Unlock()
		for _, cl := range queue {
			for _, fn := range c.fns {
				fn(cl)
			}
		}
		clear(queue)
	}
}

// poke wakes a loop that waits on a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// watch calls elapse for the replicas that wait for something. While none does, it sleeps.
type watch struct {
	mu     sync.Mutex
	added  []*hosted
	notify chan struct{}
}

const watchInterval = 50 * time.Millisecond

func (w *watch) add(hd *hosted) {
	w.mu.Lock()
	w.added = append(w.added, hd)
	w.mu.Unlock()
	poke(w.notify)
}

func (w *watch) run(ctx context.Context, h *Host) {
	ticker := time.NewTicker(watchInterval)
	ticker.Stop()
	defer ticker.Stop()
	var active []*hosted
	for {
		select {
		case <-w.notify:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		w.mu.Lock()
		if len(active) == 0 && len(w.added) > 0 {
			ticker.Reset(watchInterval)
		}
		active = append(active, w.added...)
		clear(w.added)
		w.added = w.added[:0]
		w.mu.Unlock()
		var out outcome
		kept := active[:0]
		for _, hd := range active {
			h.event(hd, &out, func(r *replica) { r.elapse(h.now()) })
			hd.mu.Lock()
			if hd.watched = !hd.gone && hd.r.needsTime(); hd.watched {
				kept = append(kept, hd)
			}
			hd.mu.Unlock()
		}
		clear(active[len(kept):])
		active = kept
		h.finish(&out)
		if len(active) == 0 {
			ticker.Stop()
		}
	}
}

// caller asks the coordinator, some calls at once.
type caller struct {
	mu     sync.Mutex
	queue  []queuedCall
	notify chan struct{}
}

type queuedCall struct {
	hd *hosted
	call
}

const (
	maxCalls    = 16 // at once
	callTimeout = 3 * time.Second
)

func (c *caller) push(hd *hosted, x call) {
	c.mu.Lock()
	c.queue = append(c.queue, queuedCall{hd, x})
	c.mu.Unlock()
	poke(c.notify)
}

func (c *caller) run(ctx context.Context, h *Host) {
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, maxCalls)
	for {
		select {
		case <-c.notify:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		queue := c.queue
		c.queue = nil
		c.mu.Unlock()
		for _, q := range queue {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				err := h.call(ctx, q)
				h.do(q.hd, func(r *replica) { r.called(h.now(), q.call, err) })
				<-places
			})
		}
	}
}

func (h *Host) call(ctx context.Context, q queuedCall) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p, what := q.hd.r.id, ""
	var err error
	switch c := h.cfg.Coordinator; q.kind {
	case callRemove:
		what, err = "take a member out of the in-sync set", c.RemoveFromInSync(ctx, p, q.epoch, q.node)
	case callAdd:
		what, err = "add a member to the in-sync set", c.AddToInSync(ctx, p, q.epoch, q.node)
	case callHandover:
		what, err = "hand the partition over", c.CompleteHandover(ctx, p, q.epoch, q.node)
	}
	if err != nil && ctx.Err() == nil && fault.KindOf(err) != fault.Stale {
		h.log.Warn("the coordinator didn't "+what, "partition", p, "epoch", q.epoch, "member", q.node, "error", err)
	} else if err == nil {
		h.log.Info("asked the coordinator to "+what, "partition", p, "epoch", q.epoch, "member", q.node)
	}
	return err
}

// trimQueue is the starts of streams that primaries have told of.
type trimQueue struct {
	mu     sync.Mutex
	queue  []queuedTrim
	notify chan struct{}
}

type queuedTrim struct {
	hd     *hosted
	stream ids.StreamID
	start  ids.Offset
}
