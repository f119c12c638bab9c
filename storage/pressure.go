package storage

import (
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
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
