package stage

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/millrace/millrace/internal/ids"
)

func TestWatermark(t *testing.T) {
	type batch struct {
		tick ids.Tick
		src  int
		max  int64 // highest event time so far
	}
	for _, tc := range []struct {
		name    string
		batches []batch
		until   ids.Tick
		want    []watermarkStep
	}{
		{"the least of the sources, less the delay", []batch{{1010, 0, 500}, {1020, 1, 300}, {1030, 1, 900}}, 1031,
			[]watermarkStep{{1020, 290}, {1030, 490}}},
		{"a source without events holds it back until it is idle", []batch{{1010, 0, 500}, {1090, 0, 700}}, 1150,
			[]watermarkStep{{1100, 690}}},
		{"idleness comes at its own tick", []batch{{1010, 0, 500}, {1010, 1, 300}, {1060, 0, 600}}, 1111,
			[]watermarkStep{{1010, 290}, {1110, 590}}},
		{"batches at that very tick count", []batch{{1010, 0, 500}, {1010, 1, 300}, {1060, 0, 600}, {1110, 1, 400}}, 1200,
			[]watermarkStep{{1010, 290}, {1110, 390}}},
		{"when all are idle, the greatest", []batch{{1010, 0, 500}, {1015, 1, 300}}, 2000,
			[]watermarkStep{{1015, 290}, {1115, 490}}},
		{"it never goes back", []batch{{1010, 0, 500}, {1200, 1, 100}}, 1201, []watermarkStep{{1100, 490}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWatermark(2, 10, 100, 1000)
			w.start(cut{tick: 1000, positions: make([]position, 2)})
			var got []watermarkStep
			for i := 0; i < len(tc.batches); {
				tick := tc.batches[i].tick
				got = w.step(tick-1, got)
				for ; i < len(tc.batches) && tc.batches[i].tick == tick; i++ {
					b := tc.batches[i]
					w.observe(b.src, position{lastTick: b.tick, hasEvent: true, maxEvent: b.max})
				}
				got = w.step(tick, got)
			}
			got = w.step(tc.until, got)
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("steps %v, want %v", got, tc.want)
			}
		})
	}
}

// TestWatermarkResumed checks that a watermark taken up at any tick goes on as if it had never stopped.
func TestWatermarkResumed(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		const sources = 3
		pos := make([]position, sources)
		whole := newWatermark(sources, 10, 100, 1000)
		whole.start(cut{tick: 1000, positions: pos})
		parts := newWatermark(sources, 10, 100, 1000)
		parts.start(cut{tick: 1000, positions: pos})
		var a, b []watermarkStep
		for tick := ids.Tick(1000); tick < 3000; {
			tick += ids.Tick(1 + rng.IntN(80))
			if rng.IntN(3) == 0 { // a resume between ticks
				a, b = whole.step(tick-1, a), parts.step(tick-1, b)
				c := cut{tick: tick - 1, positions: append([]position(nil), pos...), watermarks: []watermarkValue{parts.current}}
				parts = newWatermark(sources, 10, 100, 1000)
				parts.start(c)
			}
			a, b = whole.step(tick-1, a), parts.step(tick-1, b)
			for s := range pos {
				if rng.IntN(4) == 0 {
					pos[s].lastTick, pos[s].hasEvent = tick, true
					pos[s].maxEvent = max(pos[s].maxEvent, int64(tick)-int64(rng.IntN(50)))
					whole.observe(s, pos[s])
					parts.observe(s, pos[s])
				}
			}
			a, b = whole.step(tick, a), parts.step(tick, b)
		}
		if len(a) == 0 || !reflect.DeepEqual(a, b) {
			t.Fatalf("seed %d: %v\nresumed %v", seed, a, b)
		}
	}
}
