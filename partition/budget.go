package partition

import (
	"context"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/fault"
)

// budget bounds the bytes in flight, on the node and in each partition. Who doesn't fit waits in line for a while.
type budget struct {
	limit, partitionLimit int64
	wait                  time.Duration

	mu      sync.Mutex
	used    int64
	waiting []*budgetWaiter
}

type budgetWaiter struct {
	hd    *hosted
	n     int64
	ready chan struct{}
}

func (b *budget) fits(hd *hosted, n int64) bool {
	return b.used+n <= b.limit && hd.used+n <= b.partitionLimit
}

func (b *budget) take(hd *hosted, n int64) {
	b.used += n
	hd.used += n
}

// acquire takes n bytes for a partition. Exhausted when there is no room for too long.
func (b *budget) acquire(ctx context.Context, hd *hosted, n int64) error {
	b.mu.Lock()
	if len(b.waiting) == 0 && b.fits(hd, n) {
		b.take(hd, n)
		b.mu.Unlock()
		return nil
	}
	w := &budgetWaiter{hd, n, make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.admit() // others may wait only for another partition
	b.mu.Unlock()
	timer := time.NewTimer(b.wait)
	defer timer.Stop()
	select {
	case <-w.ready:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, o := range b.waiting {
		if o == w {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			return fault.New(fault.Exhausted, "partition %d: %d MiB wait to be committed on this node, %d MiB of them here; send less, or retry",
				hd.r.id, b.used>>20, hd.used>>20).WithRetryAfter(50 * time.Millisecond)
		}
	}
	return nil // let in at the last moment
}

// release gives n bytes back.
func (b *budget) release(hd *hosted, n int64) {
	b.mu.Lock()
	b.used -= n
	hd.used -= n
	if len(b.waiting) > 0 {
		b.admit()
	}
	b.mu.Unlock()
}

// admit lets in whoever fits, in order; a full partition doesn't hold back the others.
func (b *budget) admit() {
	kept := b.waiting[:0]
	for _, w := range b.waiting {
		if b.fits(w.hd, w.n) {
			b.take(w.hd, w.n)
			close(w.ready)
		} else {
			kept = append(kept, w)
		}
	}
	clear(b.waiting[len(kept):])
	b.waiting = kept
}

func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}
