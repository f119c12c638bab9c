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

// TestClockSteps steps the clocks of three nodes, one after the other, by hours, forth and back, while records stream in: the
// median of the clocks is what counts, so ticks go on as if nothing had happened, and so does all else.
func TestClockSteps(t *testing.T) {
	program := filepath.Join(t.TempDir(), "millrace")
	if err := faulty.Build("..", program); err != nil {
		t.Fatal(err)
	}
	var servers []*server
	control := map[*server]string{}
	for i := range 3 {
		name := fmt.Sprintf("n%d", i+1)
		s := &server{t: t, name: name, dir: filepath.Join(t.TempDir(), name), program: program}
		control[s] = t.TempDir()
		s.env = []string{"MILLRACE_CHAOS_CONTROL=" + control[s]}
		if i > 0 {
			s.extra = []string{"--join", servers[0].gossip}
		}
		s.start()
		servers = append(servers, s)
	}
	waitInSync(t, servers[0], 3)
	addrs := servers[0].grpc + "," + servers[1].grpc + "," + servers[2].grpc
	sql(t, addrs, "CREATE STREAM s (k TEXT, n BIGINT) WITH (key = 'k', retention = '30 minutes'); CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c FROM s GROUP BY k")
	sub := follow(t, addrs, "v")
	sent, last := 0, int64(0)
	longest := time.Duration(0)
	// look sends a record and reads it back, at one node after the other.
	look := func(what string) {
		t.Helper()
		begun := time.Now()
		r := sendText(t, addrs, "s", fmt.Sprintf("{\"k\":\"a\",\"n\":%d}\n", sent), "--timeout", "60s")
		if r.code != 0 {
			t.Fatalf("%s: %s", what, r.err)
		}
		sent++
		m := tickForm.FindStringSubmatch(r.out)
		if m == nil {
			t.Fatalf("no tick in %s", r.out)
		}
		row := one(t, servers[sent%3].grpc, "SET min_tick = "+m[1]+"; SELECT count(*) AS n, current_tick() AS tick, max(_time) >= now() - INTERVAL '1 minute' AND max(_time) <= now() + INTERVAL '1 minute' AS dated FROM s")
		longest = max(longest, time.Since(begun))
		tick, err := row["tick"].(json.Number).Int64()
		if err != nil {
			t.Fatal(err)
		}
		if n := fmt.Sprint(row["n"]); n != fmt.Sprint(sent) || row["dated"] != true {
			t.Fatalf("%s: %v of %d records, dated well: %v", what, n, sent, row["dated"])
		}
		if tick < last {
			t.Fatalf("%s: tick %d after %d", what, tick, last)
		}
		last = tick
		if off := time.Since(time.UnixMicro(tick)); off > time.Minute || off < -time.Minute {
			t.Fatalf("%s: ticks are %v off", what, off)
		}
	}
	look("at first")
	for i, step := range []time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, time.Hour, -3 * time.Second} {
		s := servers[i%3]
		what := fmt.Sprintf("with the clock of %s off by %v", s.name, step)
		if err := faulty.Set(control[s], faulty.Clock, fmt.Sprint(step.Microseconds())); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			look(what)
		}
		if err := faulty.Clear(control[s], faulty.Clock); err != nil { // it steps back again
			t.Fatal(err)
		}
		look("after the clock of " + s.name + " was set right")
	}
	sub.awaits(fmt.Sprintf("{\"k\":\"a\",\"c\":%d}\n", sent))
	sub.mu.Lock()
	gap, wrong := sub.gap, strings.Join(sub.wrong, "\n")
	sub.mu.Unlock()
	if wrong != "" {
		t.Errorf("the subscription: %s", wrong)
	}
	t.Logf("%d records; an append and its reading took %v at most, the subscription paused %v at most", sent, longest, gap)
	if longest > 20*time.Second || gap > 20*time.Second { // some 0.2 s and 0.6 s; a machine can be very busy
		t.Errorf("an append and its reading took %v, the subscription paused %v", longest, gap)
	}
}
