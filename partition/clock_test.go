package partition

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// TestClockSteps has the machine's clock, but not the cluster's, step by a year, forth and back, while records with a
// retention of an hour and producers are there: nothing is removed or forgotten, and every time is the cluster's.
func TestClockSteps(t *testing.T) {
	var step atomic.Int64
	c := newCluster(t, 1, 1, func(cfg *Config) {
		cfg.RetentionInterval = 5 * time.Millisecond
		cfg.ProducerRetention = time.Hour
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(step.Load())) }
	}).startAll()
	c.setStreams(&millracev1.Stream{Id: 1, RetentionUs: time.Hour.Microseconds()})
	h := c.nodes["n1"].host
	seq := uint64(0)
	add := func() {
		t.Helper()
		seq++
		c.must(0, 1, batchOf(9, seq, fmt.Sprint("record ", seq)))
		got := int64(0)
		last := h.slot(0)
		last.mu.Lock()
		got = last.r.lastTime
		last.mu.Unlock()
		if d := time.Since(time.UnixMicro(got)); d > time.Minute || d < -time.Minute {
			t.Fatalf("with a clock that is %v off a record is dated %v off", time.Duration(step.Load()), -d)
		}
	}
	add()
	const year = 365 * 24 * time.Hour
	for _, s := range []time.Duration{year, -year, 9 * time.Second, 0} {
		step.Store(int64(s))
		for range 5 {
			add()
		}
		if err := h.retainOne(h.slot(0)); err != nil {
			t.Fatal(err)
		}
		h.sweepProducers(t.Context())
		if end, err := h.End(0, 1); err != nil || end.Start != 0 || uint64(end.End) != seq {
			t.Fatalf("with a clock that is %v off the log is %+v, %v; want 0 to %d", s, end, err, seq)
		}
	}
	add() // the producer is still known
	// What is old by both clocks goes.
	c.setStreams(&millracev1.Stream{Id: 1, RetentionUs: 1})
	eventually(t, "removed", func() bool {
		end, err := h.End(0, 1)
		return err == nil && uint64(end.Start) == seq
	})
}
