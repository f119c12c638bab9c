package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

// TestCutOff stops two nodes of three while records stream in: the third answers alone, from what was replicated and
// shipped to it, exactly as of one tick; then it says that it can't any more; then all go on.
func TestCutOff(t *testing.T) {
	servers := cluster(t, 3, "--max-staleness", "4s")
	at := servers[2].grpc
	addrs := at + "," + servers[0].grpc + "," + servers[1].grpc
	sql(t, at, "CREATE STREAM s (k TEXT, n BIGINT) WITH (key = 'k'); CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c, sum(n) AS t FROM s GROUP BY k;"+
		"CREATE MATERIALIZED VIEW big AS SELECT k, n FROM s WHERE n % 10 = 0")
	sub := follow(t, addrs, "v")

	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	send := exec.Command(binary, "send", "s", "--addr", addrs, "--rate", "3000", "--timeout", "120s", "--json")
	var out, errs lockedBuffer
	send.Stdin, send.Stdout, send.Stderr = in, &out, &errs
	send.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := send.Start(); err != nil {
		t.Fatal(err)
	}
	defer send.Process.Kill()
	stopFeed := make(chan struct{})
	fed := make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stopFeed:
				fed <- n
				return
			default:
			}
			if _, err := fmt.Fprintf(feed, "{\"k\":\"k%d\",\"n\":%d}\n", n%97, n); err != nil {
				fed <- n
				return
			}
		}
	}()
	eventually(t, func() string {
		// What a node can read alone lags by a flush; five seconds of input make sure that there is something.
		r := one(t, at, "SELECT max(_tick) - min(_tick) AS span FROM s")
		span, ok := r["span"].(json.Number)
		if n, err := span.Int64(); !ok || err != nil || n < 5_000_000 {
			return fmt.Sprintf("the records' ticks span %v", r["span"])
		}
		return ""
	})

	// And that the views' state has got there at all.
	eventually(t, func() string {
		for _, s := range servers[:2] {
			if n := metric(t, s, "millrace_ship_replicas_behind"); n != 0 {
				return fmt.Sprintf("%s: %v replicas lack the state of some view", s.name, n)
			}
			if lag := metric(t, s, "millrace_ship_lag_seconds"); lag > 30 {
				return fmt.Sprintf("%s: the replicas' state is %v s behind", s.name, lag)
			}
		}
		return ""
	})

	for _, s := range servers[:2] {
		if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer s.cmd.Process.Signal(syscall.SIGCONT)
	}
	const patient = "SET max_staleness = '2 minutes'; "
	tick := fmt.Sprint(one(t, at, patient+"SELECT current_tick() AS t FROM v LIMIT 1")["t"])
	view := sql(t, at, patient+"SELECT k, c, t FROM v ORDER BY k")
	big := sql(t, at, patient+"SELECT count(*) AS n, sum(n) AS t, current_tick() AS tick FROM big")
	stream := sql(t, at, patient+"SELECT k, count(*) AS c, sum(n) AS t, current_tick() AS tick FROM s WHERE _tick <= "+tick+" GROUP BY k ORDER BY k")
	far := true // the stream is readable up to a tick of its own, which is a little lower on a busy machine
	for _, row := range stream {
		far = far && number(row["tick"]) >= number(tick)
		delete(row, "tick")
	}
	if !far {
		t.Logf("alone the node can't read the stream as far as the view")
	}
	point := sql(t, at, patient+"SELECT k, c, t FROM v WHERE k = 'k13'")
	again := sql(t, at, patient+"SELECT k, c, t FROM v ORDER BY k")
	if len(view) != 97 || !reflect.DeepEqual(view, again) || far && !reflect.DeepEqual(view, stream) {
		t.Errorf("alone at tick %s the node says\n %v\nthen\n %v\nand of the stream\n %v", tick, view, again, stream)
	}
	if len(point) != 1 || !contains(view, point[0]) {
		t.Errorf("a row by its key: %v", point)
	}
	// Who has seen more than the node can read alone gets no older answer, and who wants a younger one neither.
	newest := sub.tickNow() + 1
	eventually(t, func() string {
		r := cli(t, nil, "sql", "--addr", at, "--format", "json", "-c", fmt.Sprintf("SET max_staleness = '1s'; SET min_tick = %d; SELECT * FROM v", newest))
		if r.code == 0 || r.out != "" {
			t.Fatalf("a statement that needs tick %d was answered with %s", newest, r.out)
		}
		if strings.Contains(r.err, "RST_STREAM") {
			t.Fatalf("the client passes on what the transport says: %s", r.err)
		}
		if !strings.Contains(r.err, "max_staleness") { // the client may give up in the middle of a try
			return r.err
		}
		return ""
	})
	eventually(t, func() string {
		r := cli(t, nil, "sql", "--addr", at, "--format", "json", "-c", "SELECT count(*) FROM v")
		if r.code != 1 || !strings.Contains(r.err, "max_staleness") {
			return fmt.Sprintf("exit %d: %s%s", r.code, r.out, r.err)
		}
		return ""
	})
	for _, s := range servers[:2] {
		if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	close(stopFeed)
	n := <-fed
	feed.Close()
	if err := send.Wait(); err != nil || !strings.Contains(out.String(), fmt.Sprintf(`"acknowledged":%d,"rejected":0`, n)) {
		t.Fatalf("send of %d records: %v %s%s", n, err, out.String(), errs.String())
	}
	// What was said then is what all nodes say of that tick.
	for _, s := range servers {
		want := sql(t, s.grpc, "SELECT k, count(*) AS c, sum(n) AS t FROM s WHERE _tick <= "+tick+" GROUP BY k ORDER BY k")
		if !reflect.DeepEqual(view, want) {
			t.Errorf("at tick %s the cut-off node said\n %v\nit was\n %v", tick, view, want)
		}
		bigTick := fmt.Sprint(big[0]["tick"])
		wantBig := sql(t, s.grpc, "SELECT count(*) AS n, sum(n) AS t, "+bigTick+" AS tick FROM s WHERE n % 10 = 0 AND _tick <= "+bigTick)
		if !reflect.DeepEqual(big, wantBig) {
			t.Errorf("of the other view it said %v, it was %v", big, wantBig)
		}
	}
	var lines strings.Builder
	for k := range 97 {
		c, sum := 0, 0
		for i := k; i < n; i += 97 {
			c, sum = c+1, sum+i
		}
		fmt.Fprintf(&lines, "{\"k\":\"k%d\",\"c\":%d,\"t\":%d}\n", k, c, sum)
	}
	sub.awaits(lines.String())
}

func contains(rows []map[string]any, row map[string]any) bool {
	for _, r := range rows {
		if reflect.DeepEqual(r, row) {
			return true
		}
	}
	return false
}

// tickNow is the last tick that the subscription has told.
func (f *follower) tickNow() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tick
}
