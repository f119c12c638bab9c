package partition

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

var tableLog = &millracev1.Stream{
	Id: 1, Name: "t", Format: "json", Key: "k", PrimaryKey: []string{"k"},
	Columns: []*millracev1.Column{{Name: "k", Type: "text", NotNull: true}, {Name: "v", Type: "text"}},
}

// tableOf is a table's rows by a log's records.
func tableOf(t *testing.T, rs []readRecord) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, r := range rs {
		var row struct {
			K, V    string
			Deleted bool `json:"_deleted"`
		}
		if err := json.Unmarshal([]byte(r.value), &row); err != nil {
			continue // a dead letter
		}
		if row.Deleted {
			delete(out, row.K)
		} else {
			out[row.K] = row.V
		}
	}
	return out
}

// TestCompaction lets writers replace and delete rows all the time, the primary's node lose its power in a compaction,
// and compares what the log says of the rows with what was acknowledged: with the fronts of logs removed, and with all of
// the log, where a copy that came too late would bring an old row back.
func TestCompaction(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("keep=%v", keep), func(t *testing.T) { testCompaction(t, keep) })
	}
}

func testCompaction(t *testing.T, keep bool) {
	c := newCluster(t, 3, 1, func(cfg *Config) {
		cfg.RetentionInterval, cfg.CompactBytes, cfg.CompactDelay = 5*time.Millisecond, 64<<10, 1
		cfg.CompactMemory = 16 << 10 // so that a pass takes a part of the log
		cfg.LowWater = func(ids.PartitionID, ids.StreamID) (ids.Offset, bool) { return 0, keep }
	})
	c.startAll()
	c.setStreams(tableLog)
	var stop atomic.Bool
	var wg sync.WaitGroup
	const writers, hot, cold = 3, 10, 100
	want := make([]map[string]string, writers)
	filler := strings.Repeat("x", 50)
	for w := range writers {
		want[w] = map[string]string{}
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(w)))
			deadline := time.Now().Add(60 * time.Second)
			for seq := uint64(1); !stop.Load(); seq++ {
				var values []string
				for range 1 + rng.IntN(4) {
					k := fmt.Sprintf("%d-%d", w, rng.IntN(hot))
					if rng.IntN(10) == 0 {
						k = fmt.Sprintf("%d-%d", w, hot+rng.IntN(cold))
					}
					switch rng.IntN(10) {
					case 0:
						delete(want[w], k)
						values = append(values, fmt.Sprintf(`{"k":%q,"_deleted":true}`, k))
					case 1:
						values = append(values, "no row")
					default:
						want[w][k] = fmt.Sprintf("%d%s", seq, filler)
						values = append(values, fmt.Sprintf(`{"k":%q,"v":%q}`, k, want[w][k]))
					}
				}
				for {
					_, err := c.primary(0).append(0, 1, batchOf(uint64(w+1), seq, values...), 0)
					if err == nil {
						break
					}
					if !fault.Retryable(err) || time.Now().After(deadline) {
						t.Errorf("append: %v", err)
						return
					}
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	copied := func() uint64 { return c.primary(0).host.Load().CopiedRecords }
	eventually(t, "rows are copied", func() bool { return copied() > 20 })
	c.crash(c.primary(0).id, 50, randSource{3})
	eventually(t, "another primary", func() bool { return c.failover(0) == nil })
	eventually(t, "it compacts too", func() bool { // with all of the log kept it may find everything copied
		return copied() > 50 || keep && c.primary(0).host.Load().Compactions > 0
	})
	if !keep {
		eventually(t, "fronts are removed", func() bool { return c.primary(0).host.Load().CompactedBytes > 200<<10 })
	}
	stop.Store(true)
	wg.Wait()
	all := map[string]string{}
	for w := range writers {
		maps.Copy(all, want[w])
	}
	n := c.primary(0)
	end, err := n.host.End(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if keep != (end.Start == 0) {
		t.Errorf("the log begins at offset %d", end.Start)
	}
	rs, err := n.readAll(0, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := tableOf(t, rs); !maps.Equal(got, all) {
		t.Errorf("the log has %d rows, %d were written last", len(got), len(all))
		for k, v := range all {
			if got[k] != v {
				t.Errorf("%s is %.10q, not %.10q", k, got[k], v)
			}
		}
	}
	if !keep {
		eventually(t, "the log is short", func() bool {
			end, err := n.host.End(0, 1)
			return err == nil && end.Bytes < 150<<10
		})
	}
}

// TestCompactionLeavesRows checks that a log of rows that are there once is left alone, and that one of old rows isn't.
func TestCompactionLeavesRows(t *testing.T) {
	c := newCluster(t, 1, 1, func(cfg *Config) {
		cfg.RetentionInterval, cfg.CompactBytes, cfg.CompactDelay = time.Millisecond, 1<<10, 1
	}).startAll()
	c.setStreams(tableLog)
	seq := uint64(0)
	put := func(value string) {
		seq++
		c.must(0, 1, batchOf(1, seq, value))
	}
	for i := range 200 {
		put(fmt.Sprintf(`{"k":"%d","v":"some text"}`, i))
	}
	n := c.primary(0)
	for i := range 50 {
		put(fmt.Sprintf(`{"k":"%d","_deleted":true}`, i))
	}
	if n.host.Load().Compactions > 0 {
		t.Error("a log that is mostly rows was compacted")
	}
	for i := 50; i < 190; i++ {
		put(fmt.Sprintf(`{"k":"%d","_deleted":true}`, i))
	}
	eventually(t, "deletions are gone", func() bool {
		put(`{"k":"199","v":"again"}`)
		return n.host.Load().CompactedBytes > 5<<10
	})
	rs, err := n.readAll(0, 1, 0)
	if err != nil || len(tableOf(t, rs)) != 10 {
		t.Errorf("%d rows in %d records, %v", len(tableOf(t, rs)), len(rs), err)
	}
}
