package test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/test/chaos/faulty"
)

// stepped is a cluster of three nodes, one of whose clocks is wrong at any time, and what was sent to it.
type stepped struct {
	t       *testing.T
	servers []*server
	control []string // the switches of each
	addrs   string
	sent    [2]int // to the stream that nothing but retention looks at, and to the one with a view
	tick    int64  // the highest that was read
	longest time.Duration
}

// TestClockSteps steps the clocks of three nodes, one after the other, by hours and days, forth and back, while records
// stream in: the median of the clocks is what counts. Ticks never go back and stay at the time, records are dated well,
// nothing that is younger than the retention is removed, and appends, reads, a view and a subscription go on.
func TestClockSteps(t *testing.T) {
	c := startStepped(t)
	sql(t, c.addrs, `CREATE STREAM s0 (k TEXT, n BIGINT) WITH (key = 'k', retention = '30 minutes');
		CREATE STREAM s1 (k TEXT, n BIGINT) WITH (key = 'k', retention = '30 minutes');
		CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM s1`)
	sub := follow(t, c.addrs, "v")
	for range 4 {
		c.look("at first")
	}
	for i, step := range []time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, time.Hour, -3 * time.Second} {
		what := fmt.Sprintf("with the clock of %s off by %v", c.servers[i%3].name, step)
		if err := faulty.Set(c.control[i%3], faulty.Clock, fmt.Sprint(step.Microseconds())); err != nil {
			t.Fatal(err)
		}
		for begun, n := time.Now(), 0; n < 4 || time.Since(begun) < time.Second; n++ { // some rounds of retention
			c.look(what)
		}
		if err := faulty.Clear(c.control[i%3], faulty.Clock); err != nil { // it steps back again
			t.Fatal(err)
		}
		c.look("after the clock of " + c.servers[i%3].name + " was set right")
	}
	sub.awaits(fmt.Sprintf("{\"c\":%d}\n", c.sent[1]))
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if len(sub.wrong) > 0 {
		t.Errorf("the subscription: %s", strings.Join(sub.wrong, "\n"))
	}
	t.Logf("%d records; an append and its reading took %v at most, the subscription paused %v at most", c.sent[0]+c.sent[1], c.longest, sub.gap)
}

func startStepped(t *testing.T) *stepped {
	program := filepath.Join(t.TempDir(), "millrace")
	if err := faulty.Build("..", program); err != nil {
		t.Fatal(err)
	}
	c := &stepped{t: t}
	var addrs []string
	for i := range 3 {
		name := fmt.Sprintf("n%d", i+1)
		s := &server{t: t, name: name, dir: filepath.Join(t.TempDir(), name), program: program}
		c.control = append(c.control, t.TempDir())
		s.env = []string{"MILLRACE_CHAOS_CONTROL=" + c.control[i], faulty.Interval + "=100ms"}
		if i > 0 {
			s.extra = []string{"--join", c.servers[0].gossip}
		}
		s.start()
		c.servers, addrs = append(c.servers, s), append(addrs, s.grpc)
	}
	waitInSync(t, c.servers[0], 3)
	c.addrs = strings.Join(addrs, ",")
	return c
}

// look sends a record to one of the streams, with another key each time, and reads all that was sent back, at one node after
// the other.
func (c *stepped) look(what string) {
	c.t.Helper()
	begun, n := time.Now(), c.sent[0]+c.sent[1]
	r := sendText(c.t, c.addrs, fmt.Sprint("s", n%2), fmt.Sprintf("{\"k\":\"k%d\",\"n\":%d}\n", n, n), "--timeout", "60s")
	if r.code != 0 {
		c.t.Fatalf("%s: %s", what, r.err)
	}
	c.sent[n%2]++
	m := tickForm.FindStringSubmatch(r.out)
	if m == nil {
		c.t.Fatalf("no tick in %s", r.out)
	}
	// Clocks are off by an hour at least, but for the small step, which only ticks that go back would show.
	row := one(c.t, c.servers[n%3].grpc, "SET min_tick = "+m[1]+`; SELECT (SELECT count(*) FROM s0) AS plain, (SELECT coalesce(max(c), 0) FROM v) AS viewed,
		count(*) AS n, current_tick() AS tick, min(t) >= now() - INTERVAL '20 minutes' AND max(t) <= now() + INTERVAL '20 minutes' AS dated
		FROM (SELECT _time AS t FROM s0 UNION ALL SELECT _time FROM s1) AS both_streams`)
	c.longest = max(c.longest, time.Since(begun))
	got := fmt.Sprintf("%v %v %v %v", row["plain"], row["viewed"], row["n"], row["dated"])
	if want := fmt.Sprintf("%d %d %d true", c.sent[0], c.sent[1], c.sent[0]+c.sent[1]); got != want {
		c.t.Fatalf("%s: in the first stream, the view, both streams, and whether they are dated well: %s, not %s", what, got, want)
	}
	tick, err := row["tick"].(json.Number).Int64()
	if err != nil {
		c.t.Fatal(err)
	}
	if tick < c.tick {
		c.t.Fatalf("%s: tick %d after %d", what, tick, c.tick)
	}
	c.tick = tick
	if off := time.Since(time.UnixMicro(tick)); off > 20*time.Minute || off < -20*time.Minute {
		c.t.Fatalf("%s: ticks are %v off", what, off)
	}
}
