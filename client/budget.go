package client

import (
	"context"
	"sync"
)

// budget bounds the bytes of records that are not acknowledged. Those who wait are served in order.
type budget struct {
	mu      sync.Mutex
	total   int
	free    int
	waiting []*claim
}

type claim struct {
	n       int
	granted chan struct{}
}

func newBudget(total int) *budget { return &budget{total: total, free: total} }

// take takes n bytes, at most the total, and waits for them until ctx or closed ends.
func (b *budget) take(ctx context.Context, closed <-chan struct{}, n int) error {
	b.mu.Lock()
	if len(b.waiting) == 0 && b.free >= n {
		b.free -= n
		b.mu.Unlock()
		return nil
	}
	c := &claim{n: n, granted: make(chan struct{})}
	b.waiting = append(b.waiting, c)
	b.mu.Unlock()
	var err error
	select {
	case <-c.granted:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-closed:
		err = errProducerClosed
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, w := range b.waiting {
		if w == c {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			b.grant()
			return err
		}
	}
	b.free += n // granted meanwhile
	b.grant()
	return err
}

// give returns n bytes.
func (b *budget) give(n int) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.free += n
	b.grant()
	b.mu.Unlock()
}

func (b *budget) grant() {
	for len(b.waiting) > 0 && b.free >= b.waiting[0].n {
		c := b.waiting[0]
		b.waiting = b.waiting[1:]
		b.free -= c.n
		close(c.granted)
	}
}
