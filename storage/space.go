package storage

import (
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/fault"
)

// spaceWatch looks at the free space of the disk, and refuses what would fill it while there is still room to make
// space. There are two marks: below the first, Options.HighWaterBytes, nothing new should be taken (see Store.Room);
// what was taken before, Raft and the views' state go on. Below the second, Options.ReserveBytes, only small commits and
// deletions do.
type spaceWatch struct {
	d             *disk
	dir           string
	mark, reserve uint64
	began         time.Time
	written       atomic.Int64 // since the last look, bytes
	looked        atomic.Int64 // when, nanoseconds since began: a step of the clock must not stop the looking
	free          atomic.Uint64
	scarce, low   atomic.Bool // below the first mark, and below the second
	refused       atomic.Int64
}

const (
	spaceStep    = 8 << 20                // bytes written between two looks
	spacePause   = 100 * time.Millisecond // between two looks of Room, and while space is low
	spaceSmall   = 4 << 10                // a batch up to this size always passes
	spaceRetryIn = time.Second
)

func (w *spaceWatch) init(d *disk, dir string, mark, reserve uint64) {
	w.d, w.dir, w.mark, w.reserve, w.began = d, dir, max(mark, reserve), reserve, time.Now()
	w.written.Store(spaceStep) // so that the first commit looks
	w.looked.Store(int64(-spacePause))
}

// admit tells whether a batch may be committed.
func (w *spaceWatch) admit(b *Batch) error {
	if w.reserve == 0 {
		return nil
	}
	size := int64(b.Len())
	if w.written.Add(size) >= spaceStep || w.low.Load() && w.lookDue() {
		w.look()
	}
	if !w.low.Load() || size <= spaceSmall || b.deletes == b.Count() {
		return nil
	}
	w.refused.Add(1)
	return w.full(w.reserve)
}

// room tells whether there is room for something new.
func (w *spaceWatch) room() error {
	if w.mark == 0 {
		return nil
	}
	if w.lookDue() {
		w.look()
	}
	if !w.scarce.Load() {
		return nil
	}
	w.refused.Add(1)
	return w.full(w.mark)
}

// spare is room with a mark halfway between the two.
func (w *spaceWatch) spare() error {
	if w.mark == 0 {
		return nil
	}
	if w.lookDue() {
		w.look()
	}
	if mark := w.reserve + (w.mark-w.reserve)/2; w.scarce.Load() && w.free.Load() < mark {
		return w.full(mark)
	}
	return nil
}

func (w *spaceWatch) full(mark uint64) error {
	return fault.New(fault.Exhausted, "the disk is nearly full: %d MiB are left at %s, and %d MiB are kept free (--disk-reserve); "+
		"make space there, or shorten the retention of streams, and it goes on by itself", w.free.Load()>>20, w.dir, mark>>20).
		WithReason(ReasonDiskFull).WithRetryAfter(spaceRetryIn)
}

func (w *spaceWatch) lookDue() bool {
	return int64(time.Since(w.began))-w.looked.Load() >= int64(spacePause)
}

func (w *spaceWatch) look() {
	w.written.Store(0)
	w.looked.Store(int64(time.Since(w.began)))
	u, err := w.d.GetDiskUsage(w.dir)
	if err != nil {
		w.scarce.Store(false)
		w.low.Store(false)
		return
	}
	w.free.Store(u.AvailBytes)
	w.low.Store(u.AvailBytes < w.reserve)
	mark := w.mark
	if w.scarce.Load() {
		mark += mark / 8 // else it would be refused and taken by turns around the mark
	}
	w.scarce.Store(u.AvailBytes < mark)
}
