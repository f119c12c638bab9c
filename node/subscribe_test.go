package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

var errEnough = errors.New("enough")

// Inputs at random paces: what comes out is in the order of the ticks, complete, and never ahead of the slowest.
func TestMergeKeepsTicksWhole(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		const end = 40
		inputs := make([]<-chan change, 1+rnd.IntN(5))
		want := map[ids.Tick]int{}
		ctx, cancel := context.WithCancel(context.Background())
		for i := range inputs {
			ch := make(chan change, changeQueue)
			inputs[i] = ch
			var script []change
			for tick := ids.Tick(1); tick <= end; tick++ {
				if rnd.IntN(3) == 0 {
					for range 1 + rnd.IntN(2) {
						script = append(script, change{tick, &record.Delta{N: 1}})
						want[tick]++
					}
				}
				if rnd.IntN(3) == 0 || tick == end {
					script = append(script, change{tick: tick})
				}
			}
			go func() {
				for _, c := range script {
					if put(ctx, ch, c) != nil {
						return
					}
				}
			}()
		}
		got := map[ids.Tick]int{}
		var done, last ids.Tick
		err := merge(ctx, inputs, 0, func(c change) error {
			if c.tick < last || c.rows != nil && c.tick <= done {
				return fmt.Errorf("tick %d comes after %d, done through %d", c.tick, last, done)
			}
			last = c.tick
			if c.rows != nil {
				got[c.tick]++
				return nil
			}
			if done = c.tick; done == end {
				return errEnough
			}
			return nil
		})
		cancel()
		if !errors.Is(err, errEnough) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for tick, n := range want {
			if got[tick] != n {
				t.Fatalf("seed %d: tick %d has %d parts, want %d", seed, tick, got[tick], n)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d ticks, want %d", seed, len(got), len(want))
		}
	}
}

type recordingSubscriber struct{ log []string }

func (r *recordingSubscriber) change(tick ids.Tick, d *record.Delta, last bool) error {
	r.log = append(r.log, fmt.Sprint(tick, d.N, last))
	return nil
}

func (r *recordingSubscriber) progress(tick ids.Tick) error {
	r.log = append(r.log, fmt.Sprint("progress ", tick))
	return nil
}

// A tick that was cut off by a lost node comes again, and nothing of it was sent.
func TestWholeTicksDropsHalves(t *testing.T) {
	r := &recordingSubscriber{}
	w := &wholeTicks{to: r}
	steps := []change{{5, &record.Delta{N: 1}}, {5, &record.Delta{N: 2}}, {tick: 5}, {7, &record.Delta{N: 3}}}
	for _, c := range steps {
		if err := w.take(c); err != nil {
			t.Fatal(err)
		}
	}
	w.drop()
	if w.done != 5 {
		t.Fatalf("goes on after %d, want 5", w.done)
	}
	for _, c := range []change{{7, &record.Delta{N: 3}}, {tick: 9}} {
		if err := w.take(c); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"5 1 false", "5 2 true", "progress 5", "7 3 true", "progress 9"}
	if !slices.Equal(r.log, want) {
		t.Fatalf("got %q, want %q", r.log, want)
	}
}
