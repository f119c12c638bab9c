package storage

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace/millrace/internal/fault"
)

// stopSublevels is the number of layers in level 0, each of which every read has to look into, at which commits wait for
// compactions.
const stopSublevels = 20

// pressure makes commits wait while compactions are far behind. Pebble can do that itself, but a writer that waits
// there can't be told when the disk fails and compactions will never catch up.
type pressure struct {
	wake    chan struct{} // a flush or compaction ended
	done    chan struct{}
	ended   chan struct{}
	behind  atomic.Bool
	mu      sync.Mutex
	relaxed chan struct{} // closed when behind turns false
	waits   atomic.Int64
}

func (p *pressure) init() {
	p.wake, p.done, p.ended = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	p.relaxed = make(chan struct{})
}

// notify may be called with Pebble's locks held, so the look at its metrics is left to another goroutine.
func (p *pressure) notify() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pressure) start(db *pebble.DB, d *disk) {
	go func() {
		defer close(p.ended)
		for {
			select {
			case <-p.done:
				return
			case <-p.wake:
				p.set(db.Metrics().Levels[0].Sublevels >= stopSublevels)
			}
		}
	}()
}

func (p *pressure) set(behind bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if behind == p.behind.Load() {
		return
	}
	if p.behind.Store(behind); behind {
		p.relaxed = make(chan struct{})
	} else {
		close(p.relaxed)
	}
}

// wait returns when commits may go on, or failed is closed.
func (p *pressure) wait(failed <-chan struct{}) {
	for p.behind.Load() {
		p.mu.Lock()
		relaxed := p.relaxed
		p.mu.Unlock()
		p.waits.Add(1)
		select {
		case <-relaxed:
		case <-failed:
			return
		}
	}
}

func (p *pressure) stop() {
	close(p.done)
	<-p.ended
}

// spaceWatch refuses what would fill the disk while there is still room to make space.
type spaceWatch struct {
	d       *disk
	dir     string
	reserve uint64

	written atomic.Int64 // since the last look, bytes
	low     atomic.Bool
	looked  atomic.Int64 // when, in nanoseconds of the clock; only used while low
	refused atomic.Int64
}

const (
	spaceStep    = 8 << 20                // bytes written between two looks
	spacePause   = 100 * time.Millisecond // between two looks while space is low
	spaceSmall   = 4 << 10                // a batch up to this size always passes
	spaceRetryIn = time.Second
)

func (w *spaceWatch) init(d *disk, dir string, reserve uint64) {
	w.d, w.dir, w.reserve = d, dir, reserve
	w.written.Store(spaceStep) // so that the first commit looks
}

func (w *spaceWatch) admit(b *Batch) error {
	if w.reserve == 0 {
		return nil
	}
	size := int64(b.Len())
	if w.written.Add(size) >= spaceStep || w.low.Load() && time.Now().UnixNano()-w.looked.Load() >= int64(spacePause) {
		w.look()
	}
	if !w.low.Load() || size <= spaceSmall || b.deletes == b.Count() {
		return nil
	}
	w.refused.Add(1)
	return fault.New(fault.Exhausted, "less than %d MiB of disk space are left at %s; make space, or shorten the retention of streams",
		w.reserve>>20, w.dir).WithReason(ReasonDiskFull).WithRetryAfter(spaceRetryIn)
}

func (w *spaceWatch) look() {
	w.written.Store(0)
	w.looked.Store(time.Now().UnixNano())
	u, err := w.d.GetDiskUsage(w.dir)
	w.low.Store(err == nil && u.AvailBytes < w.reserve)
}
