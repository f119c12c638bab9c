package stage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// TestDeltaLog compares it with a list, through flushes, trims, restarts and little memory.
func TestDeltaLog(t *testing.T) {
	schema := record.Schema{{Name: "n", Type: record.BigInt}}
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		store := memStore(t)
		l := &deltaLog{prefix: storage.StateKey(3, 4, spaceDeltas, nil), p: 4, floor: 100}
		var all []ids.Tick
		tick := ids.Tick(100)
		flush := func() {
			b := store.NewBatch()
			defer b.Close()
			l.write(b, tick, 400, int64(200+rng.IntN(2000)), maxTick)
			floor := l.floorAfter()
			if err := store.Commit(b, false); err != nil {
				t.Fatal(err)
			}
			l.written()
			if l.floor != floor {
				t.Fatalf("floor %d was announced as %d", l.floor, floor)
			}
		}
		for range 600 {
			switch k := rng.IntN(10); {
			case k < 5:
				tick += ids.Tick(1 + rng.IntN(9))
				d := record.NewDelta(schema, 1)
				d.Cols[0].AppendInt(int64(tick))
				d.N = 1
				l.add(tick, d)
				all = append(all, tick)
			case k == 5:
				flush()
			case k == 6:
				l.forget(rng.IntN(500))
			case k == 7 && rng.IntN(5) == 0:
				flush()
				n := &deltaLog{prefix: storage.StateKey(3, 4, spaceDeltas, nil), p: 4, floor: l.floor}
				if err := n.load(store); err != nil {
					t.Fatal(err)
				}
				if n.disk != l.disk || len(n.blocks) != len(l.blocks) {
					t.Fatalf("seed %d: loaded %d bytes in %d blocks, stored %d in %d", seed, n.disk, len(n.blocks), l.disk, len(l.blocks))
				}
				l = n
			default:
				after := l.floor + ids.Tick(rng.IntN(int(tick-l.floor)+1))
				upto := after + ids.Tick(rng.IntN(int(tick-after)+10))
				if err := checkBetween(l, store, all, after, upto, 1+rng.IntN(600)); err != nil {
					t.Fatalf("seed %d: (%d, %d]: %v", seed, after, upto, err)
				}
			}
		}
		if l.floor == 100 {
			t.Fatalf("seed %d: nothing was trimmed", seed)
		}
		_, _, err := l.between(store, l.floor-1, tick, 1000)
		var f *fault.Error
		if !errors.As(err, &f) || f.GetReason() != ReasonTickNotRetained || f.Kind != fault.NotFound {
			t.Errorf("below the floor: %v", err)
		}
	}
}

func checkBetween(l *deltaLog, store storage.Reader, all []ids.Tick, after, upto ids.Tick, maxBytes int) error {
	got, complete, err := l.between(store, after, upto, maxBytes)
	if err != nil {
		return err
	}
	var want []ids.Tick
	for _, t := range all {
		if t > after && t <= upto {
			want = append(want, t)
		}
	}
	if complete != (len(got) == len(want)) || len(got) > len(want) || len(got) == 0 && len(want) > 0 {
		return fmt.Errorf("%d deltas (all: %v), want %d", len(got), complete, len(want))
	}
	for i, d := range got {
		if d.tick != want[i] {
			return fmt.Errorf("delta %d is of tick %d, want %d", i, d.tick, want[i])
		}
	}
	return nil
}

// TestDeltaBlocksOfTwoPrimaries stores what one primary flushes and then, from an earlier tick on, what another one does,
// as a replica of both gets it: blocks overlap, and may end with the same tick.
func TestDeltaBlocksOfTwoPrimaries(t *testing.T) {
	schema := record.Schema{{Name: "n", Type: record.BigInt}}
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		store := memStore(t)
		var all []ids.Tick
		for tick := ids.Tick(1); tick <= 40; tick++ {
			if rng.IntN(3) == 0 {
				all = append(all, tick)
			}
		}
		write := func(from, upto, has ids.Tick) {
			l := &deltaLog{prefix: storage.StateKey(3, 4, spaceDeltas, nil), p: 4}
			for from < upto {
				to := min(upto, from+1+ids.Tick(rng.IntN(15)))
				for _, tick := range all {
					if tick > from && tick <= to {
						d := record.NewDelta(schema, 1)
						d.Cols[0].AppendInt(int64(tick))
						d.N = 1
						l.add(tick, d)
					}
				}
				b := store.NewBatch()
				l.write(b, to, 1000, 1<<20, maxTick)
				if to > has { // a batch that ends below isn't applied
					if err := store.Commit(b, false); err != nil {
						t.Fatal(err)
					}
				}
				b.Close()
				l.written()
				from = to
			}
		}
		took := ids.Tick(1 + rng.IntN(39)) // over from the first one at this tick
		write(0, took, 0)
		write(ids.Tick(rng.IntN(int(took))), 40, took)
		l := &deltaLog{prefix: storage.StateKey(3, 4, spaceDeltas, nil), p: 4}
		if err := l.load(store); err != nil {
			t.Fatal(err)
		}
		for after := range ids.Tick(40) {
			if err := checkBetween(l, store, all, after, 40, 1<<20); err != nil {
				t.Fatalf("seed %d, ticks %v, taken over at %d: after %d: %v", seed, all, took, after, err)
			}
		}
	}
}
