package storage

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// compactions lets as many compactions of a store run as Pebble allows. It does what Pebble's own ConcurrencyLimitScheduler
// does, but looks whether more may run ten times a second only while some do: an idle node would feel it always. While none
// does, all that Pebble has to compact begins at once.
type compactions struct {
	db   pebble.DBForCompaction
	wake chan struct{} // of capacity 1
	done chan struct{}
	task sync.WaitGroup

	mu       sync.Mutex
	idle     sync.Cond // not granting
	running  int
	granting bool
	closed   bool
}

func newCompactions() pebble.CompactionScheduler {
	c := &compactions{wake: make(chan struct{}, 1), done: make(chan struct{})}
	c.idle.L = &c.mu
	return c
}

// lookEvery is how often it is looked whether more compactions may run, while some do.
const lookEvery = 100 * time.Millisecond

// Register implements pebble.CompactionScheduler.
func (c *compactions) Register(_ int, db pebble.DBForCompaction) {
	c.db = db
	c.task.Go(func() {
		look := time.NewTimer(lookEvery)
		defer look.Stop()
		for {
			select {
			case <-c.wake:
			case <-look.C:
			case <-c.done:
				return
			}
			if c.grant() > 0 {
				look.Reset(lookEvery)
			}
		}
	})
}

// Unregister implements pebble.CompactionScheduler: no call of the store is under way when it returns.
func (c *compactions) Unregister() {
	close(c.done)
	c.mu.Lock()
	c.closed = true
	for c.granting {
		c.idle.Wait()
	}
	c.mu.Unlock()
	c.task.Wait()
}

// TrySchedule implements pebble.CompactionScheduler.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.running >= c.db.GetAllowedWithoutPermission() {
		return false, nil
	}
	c.running++
	c.signal()
	return true, c
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler: a flush has ended. The store's lock is held.
func (c *compactions) UpdateGetAllowedWithoutPermission() { c.signal() }

func (c *compactions) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Started implements pebble.CompactionGrantHandle.
func (c *compactions) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (c *compactions) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (c *compactions) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done implements pebble.CompactionGrantHandle: a compaction has ended.
func (c *compactions) Done() {
	c.mu.Lock()
	c.running--
	c.mu.Unlock()
	c.grant()
}

// grant lets compactions begin that TrySchedule refused, and returns how many run then. Called without any lock of the store.
func (c *compactions) grant() int {
	c.mu.Lock()
	for c.granting {
		c.idle.Wait()
	}
	if c.closed {
		c.mu.Unlock()
		return 0
	}
	c.granting = true
	for c.running < c.db.GetAllowedWithoutPermission() {
		c.running++
		c.mu.Unlock()
		waits, _ := c.db.GetWaitingCompaction()
		began := waits && c.db.Schedule(c)
		c.mu.Lock()
		if !began {
			c.running--
			break
		}
	}
	c.granting = false
	c.idle.Broadcast()
	running := c.running
	c.mu.Unlock()
	return running
}
