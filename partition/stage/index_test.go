package stage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
)

// setIndexes changes the indexes of a view.
func (c *testCluster) setIndexes(view ids.StreamID, indexes ...*internalv1.IndexDef) {
	c.change(func(st *internalv1.ClusterState) {
		for i, v := range st.Views {
			if v.Id == uint64(view) {
				def := proto.CloneOf(v)
				def.Indexes = indexes
				st.Views[i] = def
			}
		}
	})
}

// built tells whether the primary of each partition has a complete index.
func (c *testCluster) built(view ids.StreamID, index uint64) bool {
	for p := range len(c.state.Partitions) {
		t, err := c.primary(ids.PartitionID(p)).rt.find(view, ids.PartitionID(p))
		if err != nil {
			return false
		}
		t.mu.Lock()
		x := t.index(index)
		t.mu.Unlock()
		if x == nil {
			return false
		}
	}
	return true
}

// scanned reads a view by way of an index.
func (c *testCluster) scanned(view ids.StreamID, tick ids.Tick, by *plan.IndexRead) (map[string]int64, error) {
	rows := map[string]int64{}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for p := range len(c.state.Partitions) {
		for {
			got := map[string]int64{}
			err := c.primary(ids.PartitionID(p)).rt.ReadScan(ctx, view, ids.PartitionID(p), tick, &plan.Scan{Index: by}, func(d *record.Delta) error {
				addRows(got, d)
				return nil
			})
			if fault.Retryable(err) && ctx.Err() == nil {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("partition %d: %w", p, err)
			}
			for k, w := range got {
				rows[k] += w
			}
			break
		}
	}
	return rows, nil
}

// TestIndexes reads views with and without a key by their indexes, at new and old ticks, while the indexes are built, partitions move
// and nodes crash, and compares with the rows that are read whole.
func TestIndexes(t *testing.T) {
	seeds := []uint64{1, 2}
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testIndexes(t, seed) })
	}
}

func testIndexes(t *testing.T, seed uint64) {
	t.Logf("again: go test ./partition/stage -run TestIndexes -stage.seed=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	c := newTestCluster(t, 2, 4, func(cfg *Config) { cfg.FlushInterval = 5 * time.Millisecond })
	views := map[ids.StreamID]testView{100: perKey(), 101: filtered(), 102: sizes()}
	c.fill(rng, 10, 40) // history
	for id, v := range views {
		c.createView(id, v, false)
	}
	first := c.tick
	c.fill(rng, 30, 40)
	col := map[ids.StreamID]int{}
	for id, v := range views {
		for i, f := range v.plan.Output {
			if f.Type == record.BigInt {
				col[id] = i
			}
		}
		c.setIndexes(id, &internalv1.IndexDef{Id: 7, Name: "i", Columns: []string{v.plan.Output[col[id]].Name}})
	}
	used := 0
	for round := range 40 {
		c.fill(rng, 2, 8)
		switch rng.IntN(8) {
		case 0:
			c.move(ids.PartitionID(rng.IntN(4)), rng.IntN(2))
		case 1:
			c.crash(c.nodes[rng.IntN(2)], rng)
		}
		c.fill(rng, 1, 4) // a node that was just started knows of no tick
		if round%8 == 7 {
			for id := range views {
				eventually(t, "the index is complete", func() bool {
					c.fill(rng, 1, 1)
					return c.built(id, 7)
				})
				used++
			}
		}
		for id := range views {
			tick := c.tick
			if round%2 == 1 {
				tick = first + ids.Tick(rng.Int64N(int64(c.tick-first)))
			}
			c.compareIndexed(id, tick, col[id], rng)
		}
	}
	if used == 0 {
		t.Fatal("no index was ever complete")
	}
	// What is dropped leaves nothing behind.
	for id := range views {
		c.setIndexes(id)
	}
	eventually(t, "the indexes' entries go", func() bool {
		c.fill(rng, 1, 1)
		for id := range views {
			for p := range len(c.state.Partitions) {
				t, err := c.primary(ids.PartitionID(p)).rt.find(id, ids.PartitionID(p))
				if err != nil {
					return false
				}
				for _, space := range []byte{spaceIndex, spaceMarks} {
					it, err := t.rt.store.Iter(prefixRange(t.prefix(space)))
					if err != nil {
						return false
					}
					found := it.First()
					if err := it.Close(); found || err != nil {
						return false
					}
				}
			}
		}
		return true
	})
}

// compareIndexed reads some values and ranges of a column by its index, and the rows whole.
func (c *testCluster) compareIndexed(id ids.StreamID, tick ids.Tick, col int, rng *rand.Rand) {
	c.t.Helper()
	all, err := c.read(id, tick)
	if err != nil {
		if reasonOf(errors.Unwrap(err)) == ReasonTickNotRetained {
			return
		}
		c.t.Fatal(err)
	}
	var values []int64
	for row := range all {
		if n, err := strconv.ParseInt(strings.Split(row, "|")[col], 10, 64); err == nil {
			values = append(values, n)
		}
	}
	if len(values) == 0 {
		return
	}
	value := func() *record.Value {
		return &record.Value{Type: record.BigInt, Int: values[rng.IntN(len(values))] + int64(rng.IntN(2))}
	}
	for k := range 4 {
		by := &plan.IndexRead{ID: 7}
		low, high := int64(-1<<62), int64(1<<62)
		switch v := value(); k {
		case 0:
			by.Equal, low, high = []record.Value{*v}, v.Int, v.Int
		case 1:
			by.Low, low = v, v.Int
		case 2:
			by.High, high = v, v.Int
		case 3:
			w := value()
			by.Low, by.High, low, high = v, w, v.Int, w.Int
		}
		want := map[string]int64{}
		for row, n := range all {
			if x, err := strconv.ParseInt(strings.Split(row, "|")[col], 10, 64); err == nil && x >= low && x <= high {
				want[row] = n
			}
		}
		got, err := c.scanned(id, tick, by)
		if err != nil {
			c.t.Fatal(err)
		}
		for row := range got { // more may come: rows with NULL, and all while the index isn't complete
			if x, err := strconv.ParseInt(strings.Split(row, "|")[col], 10, 64); err != nil || x < low || x > high {
				delete(got, row)
			}
		}
		if !maps.Equal(got, want) {
			c.t.Fatalf("view %d at tick %d, column %d from %d to %d, by the index\n  %s\nwant\n  %s", id, tick, col, low, high, show(got), show(want))
		}
	}
}
