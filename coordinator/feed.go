package coordinator

import (
	"context"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// stateFeed hands states to their subscribers, in order; between two deliveries only the newest is kept.
type stateFeed struct {
	mu   sync.Mutex // held through a delivery
	subs []stateSub

	slot struct {
		sync.Mutex
		next  *internalv1.ClusterState
		wake  chan struct{}
		index uint64        // of the last state delivered
		done  chan struct{} // closed and replaced with each delivery
	}
}

type stateSub struct {
	fn    func(*internalv1.ClusterState)
	index uint64 // of the state that it has
}

func (f *stateFeed) wakeup() chan struct{} {
	f.slot.Lock()
	defer f.slot.Unlock()
	if f.slot.wake == nil {
		f.slot.wake, f.slot.done = make(chan struct{}, 1), make(chan struct{})
	}
	return f.slot.wake
}

func (f *stateFeed) subscribe(fn func(*internalv1.ClusterState), current func() *internalv1.ClusterState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := current()
	fn(st)
	f.subs = append(f.subs, stateSub{fn, st.Index})
}

// offer queues st in place of what waits.
func (f *stateFeed) offer(st *internalv1.ClusterState) {
	wake := f.wakeup()
	f.slot.Lock()
	f.slot.next = st
	f.slot.Unlock()
	signal(wake)
}

func (f *stateFeed) run(ctx context.Context) {
	wake := f.wakeup()
	for {
		select {
		case <-wake:
			f.deliver()
		case <-ctx.Done():
			return
		}
	}
}

func (f *stateFeed) deliver() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slot.Lock()
	st := f.slot.next
	f.slot.next = nil
	f.slot.Unlock()
	if st == nil {
		return
	}
	for i := range f.subs {
		if sub := &f.subs[i]; st.Index > sub.index {
			sub.fn(st)
			sub.index = st.Index
		}
	}
	f.slot.Lock()
	f.slot.index = st.Index
	close(f.slot.done)
	f.slot.done = make(chan struct{})
	f.slot.Unlock()
}

// waitDelivered waits until every subscriber has taken a state of index or later.
func (f *stateFeed) waitDelivered(ctx context.Context, index uint64) error {
	f.wakeup()
	for {
		f.slot.Lock()
		reached, done := f.slot.index, f.slot.done
		f.slot.Unlock()
		if reached >= index {
			return nil
		}
		select {
		case <-done:
		case <-ctx.Done():
			return ctxError(ctx, "waiting for this node to take over entry %d (it is at %d)", index, reached)
		}
	}
}

// tickMark is a tick as it travels.
type tickMark struct {
	tick  ids.Tick
	index uint64
	term  uint64
}

// tickFeed hands ticks to their subscribers, in order; between two deliveries only the newest is kept. Ticks of a
// leader that another has followed are dropped, as are ticks that don't grow.
type tickFeed struct {
	mu      sync.Mutex
	subs    []func(ids.Tick, uint64)
	newest  tickMark
	at      time.Time
	gap     time.Duration // between the two newest
	wake    chan struct{}
	waiting bool
}

func (f *tickFeed) subscribe(fn func(ids.Tick, uint64)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs = append(f.subs, fn)
}

func (f *tickFeed) wakeup() chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wake == nil {
		f.wake = make(chan struct{}, 1)
	}
	return f.wake
}

// offer takes a tick that has come.
func (f *tickFeed) offer(m tickMark, now time.Time) {
	wake := f.wakeup()
	f.mu.Lock()
	ok := m.term >= f.newest.term && m.tick > f.newest.tick
	if ok {
		f.newest, f.gap, f.at, f.waiting = m, now.Sub(f.at), now, true
	}
	f.mu.Unlock()
	if ok {
		signal(wake)
	}
}

func (f *tickFeed) last() (ids.Tick, time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.newest.tick, f.at
}

// fast tells that ticks come so quickly that asking for one is pointless.
func (f *tickFeed) fast(now time.Time, within time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gap < within && now.Sub(f.at) < within/2
}

func (f *tickFeed) run(ctx context.Context) {
	wake := f.wakeup()
	for {
		select {
		case <-wake:
		case <-ctx.Done():
			return
		}
		f.mu.Lock()
		m, subs, ok := f.newest, f.subs, f.waiting
		f.waiting = false
		f.mu.Unlock()
		if !ok {
			continue
		}
		for _, fn := range subs {
			fn(m.tick, m.index)
		}
	}
}
