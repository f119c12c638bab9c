package storage

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// reclaimer frees what range deletes in a log store cover. Left to itself, Pebble does that when later writes push the
// deletes down its levels: on a quiet store never, and on a disk that is too full for later writes never either. Only
// keys are read and written for it (see logOptions), so it costs little.
type reclaimer struct {
	after  time.Duration // from a delete to its compaction
	low    func() bool   // whether there is no time to lose
	runs   atomic.Int64
	mu     sync.Mutex
	ranges []keyRange // deleted and not yet compacted
	wake   chan struct{}
	cancel context.CancelFunc
	ended  chan struct{}
}

type keyRange struct{ lo, hi []byte }

const (
	reclaimAfter  = 10 * time.Second
	reclaimRanges = 64 // above that many, those that lie next to each other become one
)

func (r *reclaimer) start(db *pebble.DB, report func(error)) {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.wake, r.ended = cancel, make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(r.ended)
		for {
			select {
			case <-ctx.Done():
				return
			case <-r.wake:
			}
			if !r.low() {
				select {
				case <-ctx.Done():
					return
				case <-time.After(r.after):
				}
			}
			r.mu.Lock()
			ranges := r.ranges
			r.ranges = nil
			r.mu.Unlock()
			for _, k := range ranges {
				if err := db.Compact(ctx, k.lo, k.hi, false); err != nil && !errors.Is(err, context.Canceled) {
					report(err)
				}
			}
			r.runs.Add(1)
		}
	}()
}

// note remembers ranges that were deleted, which it takes over.
func (r *reclaimer) note(ranges []keyRange) {
	if len(ranges) == 0 || r.cancel == nil {
		return
	}
	r.mu.Lock()
	r.ranges = mergeRanges(append(r.ranges, ranges...), reclaimRanges)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// mergeRanges joins ranges that overlap; if more than most are left, it joins neighbors, gaps included.
func mergeRanges(ranges []keyRange, most int) []keyRange {
	slices.SortFunc(ranges, func(a, b keyRange) int { return bytes.Compare(a.lo, b.lo) })
	out := ranges[:1]
	for _, k := range ranges[1:] {
		if last := &out[len(out)-1]; bytes.Compare(k.lo, last.hi) > 0 {
			out = append(out, k)
		} else if bytes.Compare(k.hi, last.hi) > 0 {
			last.hi = k.hi
		}
	}
	for len(out) > most {
		half := out[:0]
		for i := 0; i < len(out); i += 2 {
			half = append(half, keyRange{out[i].lo, out[min(i+1, len(out)-1)].hi})
		}
		out = half
	}
	return out
}

func (r *reclaimer) stop() {
	if r.cancel != nil {
		r.cancel()
		<-r.ended
	}
}
