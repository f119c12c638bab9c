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
