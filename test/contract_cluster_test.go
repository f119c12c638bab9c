package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestContractCluster(t *testing.T) {
	servers := cluster(t, 3)
	addrs := servers[0].grpc + "," + servers[1].grpc + "," + servers[2].grpc

	t.Run("plain clients", func(t *testing.T) { plainClients(t, servers) })
	t.Run("errors", func(t *testing.T) { errorsSayWhy(t, servers[1].grpc) })
	t.Run("dead letters", func(t *testing.T) { deadLetters(t, servers[2].grpc) })
	t.Run("subscribe", func(t *testing.T) { subscribing(t, servers) })
	t.Run("nodes die", func(t *testing.T) { nodesDie(t, servers, addrs) })
	t.Run("drain and remove", func(t *testing.T) { drainAndRemove(t, servers, addrs) })
	t.Run("cut off", func(t *testing.T) {
		// Without a majority there are no new ticks: a node says so, and doesn't make up an answer or wait for ever.
		servers[0].kill()
		servers[1].kill()
		eventually(t, func() string {
			if code, body := httpGet(servers[2].http, "/readyz"); code != 503 {
				return fmt.Sprintf("/readyz: %d %s", code, body)
			}
			return ""
		})
		if code, body := httpGet(servers[2].http, "/healthz"); code != 200 {
			t.Errorf("/healthz: %d %s", code, body)
		}
		fails(t, servers[2].grpc, "SET max_staleness = '1s'; SELECT count(*) FROM deaths", "max_staleness")
	})
}

// follower is a running SUBSCRIBE, whose lines it gathers.
type follower struct {
	t    *testing.T
	cmd  *exec.Cmd
	errs lockedBuffer
	done chan struct{}

	mu       sync.Mutex
	state    map[string]int64 // row -> weight
	tick     int64
	lines    int
	progress int
	last     time.Time
	gap      time.Duration // longest time between two lines
	wrong    []string
}

func follow(t *testing.T, addrs, view string) *follower {
	t.Helper()
	f := &follower{t: t, state: map[string]int64{}, done: make(chan struct{})}
	f.cmd = exec.Command(binary, "sql", "--addr", addrs, "--format", "json", "-c", "SUBSCRIBE TO "+view)
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	f.cmd.Stderr = &f.errs
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.cmd.Process.Kill(); <-f.done })
	go func() {
		defer close(f.done)
		in := bufio.NewScanner(out)
		for in.Scan() {
			f.take(in.Text())
		}
		f.cmd.Wait()
	}()
	return f
}

// take applies a line to the state, as whoever reads them would.
func (f *follower) take(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var head struct {
		Tick     int64  `json:"_tick"`
		Weight   *int64 `json:"_weight"`
		Progress bool   `json:"_progress"`
	}
	if err := json.Unmarshal([]byte(line), &head); err != nil || head.Tick < f.tick || head.Progress == (head.Weight != nil) {
		f.wrong = append(f.wrong, fmt.Sprintf("%s after tick %d (%v)", line, f.tick, err))
		return
	}
	now := time.Now()
	if f.lines > 0 {
		f.gap = max(f.gap, now.Sub(f.last))
	}
	f.last = now
	f.lines++
	f.tick = head.Tick
	if head.Progress {
		f.progress++
		if want := fmt.Sprintf(`{"_tick":%d,"_progress":true}`, head.Tick); line != want {
			f.wrong = append(f.wrong, line)
		}
		return
	}
	lead := fmt.Sprintf(`{"_tick":%d,"_weight":%d,`, head.Tick, *head.Weight)
	row, ok := strings.CutPrefix(line, lead)
	if !ok {
		f.wrong = append(f.wrong, line)
	}
	row = "{" + row
	if f.state[row] += *head.Weight; f.state[row] == 0 {
		delete(f.state, row)
	}
}

// awaits waits until the state that the lines add up to is these rows.
func (f *follower) awaits(want string) {
	f.t.Helper()
	eventually(f.t, func() string {
		select {
		case <-f.done:
			f.t.Fatalf("the subscription ended: %s", f.errs.String())
		default:
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		rows := strings.Split(strings.TrimSuffix(want, "\n"), "\n")
		if want == "" {
			rows = nil
		}
		for _, r := range rows {
			if f.state[r] != 1 {
				return fmt.Sprintf("%s has weight %d; tick %d, %v", r, f.state[r], f.tick, f.state)
			}
		}
		if len(f.state) != len(rows) {
			return fmt.Sprintf("%d rows, want %d", len(f.state), len(rows))
		}
		return ""
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.wrong) > 0 {
		f.t.Fatalf("wrong lines: %q", f.wrong)
	}
}

func subscribing(t *testing.T, servers []*server) {
	at := servers[0].grpc
	sql(t, at, "CREATE STREAM subs (a BIGINT, k TEXT) WITH (key = 'k'); CREATE MATERIALIZED VIEW subv AS SELECT k, count(*) AS n FROM subs GROUP BY k")
	sends(t, at, "subs", `{"k":"a"}`, `{"k":"b"}`, `{"k":"a"}`)
	answers(t, at, "SELECT count(*) AS n FROM subv", `{"n":2}`) // else the subscription may begin before them
	f := follow(t, servers[1].grpc, "subv")
	f.awaits("{\"k\":\"a\",\"n\":2}\n{\"k\":\"b\",\"n\":1}\n")
	f.mu.Lock()
	if f.lines-f.progress != 2 {
		t.Errorf("the first rows took %d lines, not 2", f.lines-f.progress)
	}
	f.mu.Unlock()
	sends(t, servers[2].grpc, "subs", `{"k":"a"}`, `{"k":"c"}`)
	f.awaits("{\"k\":\"a\",\"n\":3}\n{\"k\":\"b\",\"n\":1}\n{\"k\":\"c\",\"n\":1}\n")
	f.mu.Lock()
	before := f.progress
	f.mu.Unlock()
	eventually(t, func() string {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.progress < before+3 {
			return fmt.Sprintf("%d progress lines", f.progress-before)
		}
		return ""
	})
	f.mu.Lock()
	gap := f.gap
	f.mu.Unlock()
	if gap > 20*time.Second { // each second, but on a very busy machine
		t.Errorf("%v without a line", gap)
	}
	fails(t, at, "DROP STREAM subs", `"subv"`)
	sql(t, at, "DROP STREAM subs CASCADE")
	select {
	case <-f.done:
		if c := f.cmd.ProcessState.ExitCode(); c != 1 || !strings.Contains(f.errs.String(), `"subv"`) {
			t.Errorf("after DROP: exit %d, %q", c, f.errs.String())
		}
	case <-time.After(stepTimeout):
		t.Error("a subscription goes on after its view was dropped")
	}
	fails(t, at, "SUBSCRIBE TO subv", `"subv"`)
	fails(t, at, "SUBSCRIBE TO plain", `"plain"`)
	// Ctrl-C is a regular end.
	sql(t, at, "CREATE MATERIALIZED VIEW subx AS SELECT count(*) AS n FROM plain")
	g := follow(t, at, "subx")
	eventually(t, func() string {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.lines == 0 {
			return "no line"
		}
		return ""
	})
	g.cmd.Process.Signal(syscall.SIGINT)
	<-g.done
	if c := g.cmd.ProcessState.ExitCode(); c != 0 || g.errs.String() != "" {
		t.Errorf("Ctrl-C: exit %d, %q", c, g.errs.String())
	}
}

// nodesDie kills one node and stops another while records are sent and a view is followed through them: no client
// notices, nothing is lost or there twice, and the order per key is kept.
func nodesDie(t *testing.T, servers []*server, addrs string) {
	sql(t, addrs, `CREATE STREAM deaths (n BIGINT, k TEXT) WITH (key = 'k');
		CREATE MATERIALIZED VIEW deathsv AS SELECT k, count(*) AS c, sum(n) AS s FROM deaths GROUP BY k`)
	const n = 24_000
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "{\"n\":%d,\"k\":\"k%d\"}\n", i, i%7)
	}
	reversed := servers[2].grpc + "," + servers[0].grpc + "," + servers[1].grpc
	f := follow(t, reversed, "deathsv")
	sent := make(chan result, 1)
	go func() {
		sent <- cli(t, strings.NewReader(in.String()), "send", "deaths", "--addr", addrs, "--rate", "3000", "--json")
	}()
	arrives := func(least int64) {
		t.Helper()
		eventually(t, func() string {
			if c := number(one(t, addrs, "SELECT count(*) AS c FROM deaths")["c"]); c < least {
				return fmt.Sprintf("%d of %d records", c, least)
			}
			return ""
		})
	}
	arrives(1000)
	servers[2].kill() // the follower's
	arrives(6000)     // appends go on without it
	servers[2].start()
	waitInSync(t, servers[0], 3)
	stopped := servers[0] // the sender's
	if err := stopped.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for said := ""; ; {
		code, body := httpGet(stopped.http, "/readyz")
		if code == 0 {
			break // it is gone
		}
		if code == 503 && strings.TrimSpace(body) != "" {
			said = body
		} else if code == 200 && said != "" {
			t.Error("/readyz is 200 again while the node stops")
		}
	}
	<-stopped.exited
	if c := stopped.cmd.ProcessState.ExitCode(); c != 0 {
		t.Errorf("SIGTERM: exit %d", c)
	}
	select {
	case r := <-sent:
		if r.code != 0 || !strings.HasPrefix(r.out, fmt.Sprintf(`{"acknowledged":%d,"rejected":0,`, n)) {
			t.Fatalf("send: exit %d, %q, %.500s", r.code, r.out, r.err[max(0, len(r.err)-500):])
		}
		var rep sendReport
		json.Unmarshal([]byte(r.out), &rep)
		acknowledge(rep.Tick)
		left := servers[1].grpc + "," + servers[2].grpc
		answers(t, left, "SELECT count(*) AS c, sum(n) AS s, min(n) AS lo, max(n) AS hi FROM deaths",
			fmt.Sprintf(`{"c":%d,"s":%d,"lo":0,"hi":%d}`, n, n*(n-1)/2, n-1))
		f.awaits(answer(t, left, "json", "SELECT * FROM deathsv"))
		want := answer(t, left, "json", "SELECT k, count(*) AS c, sum(n) AS s FROM deaths GROUP BY k")
		f.awaits(want)
	case <-time.After(2 * stepTimeout):
		t.Fatal("send doesn't end")
	}
	last := map[string]int64{}
	for _, r := range reads(t, servers[1].grpc, "deaths") {
		var v struct {
			N int64
			K string
		}
		json.Unmarshal(r.Value, &v)
		if at, ok := last[v.K]; ok && v.N != at+7 {
			t.Fatalf("key %s: %d after %d", v.K, v.N, at)
		}
		last[v.K] = v.N
	}
	stopped.start()
	waitInSync(t, servers[1], 3)
}

// drainAndRemove adds a fourth node and takes it out again.
func drainAndRemove(t *testing.T, servers []*server, addrs string) {
	fourth := serve(t, "n4", "--join", servers[1].gossip)
	id := status(t, addrs).Cluster
	state := func() (state string, replicas, primaries int) {
		for _, n := range status(t, addrs).Nodes {
			if n.Name == "n4" {
				return n.State, n.Replicas, n.Primaries
			}
		}
		return "", 0, 0
	}
	// 24 replicas on 4 nodes: nobody has more than 1.10 of a fair share, rounded up, so the new one has 3 at least.
	eventually(t, func() string {
		st := status(t, addrs)
		if len(st.Nodes) != 4 || len(st.Moves) > 0 {
			return fmt.Sprintf("%d nodes, %d moves", len(st.Nodes), len(st.Moves))
		}
		total := 0
		for _, n := range st.Nodes {
			total += n.Replicas
			if n.State != "alive" || n.Replicas > 7 || n.Replicas < 3 {
				return fmt.Sprintf("%s is %s with %d replicas", n.Name, n.State, n.Replicas)
			}
		}
		if total != 24 {
			return fmt.Sprintf("%d replicas", total)
		}
		return ""
	})
	before := answer(t, fourth.grpc, "json", "SELECT k, count(*) AS c, sum(n) AS s FROM deaths GROUP BY k ORDER BY k")
	refusedInOneLine(t, cli(t, nil, "cluster", "remove", "n4", "--addr", addrs), 1, "n4", "--force")
	r := cli(t, nil, "cluster", "drain", "n4", "--addr", addrs, "--json")
	if r.code != 0 || r.out != "{\"node\":\"n4\",\"state\":\"drained\"}\n" || r.err == "" {
		t.Fatalf("drain: %+v", r)
	}
	eventually(t, func() string {
		if st, r, p := state(); st != "drained" || r != 0 || p != 0 {
			return fmt.Sprintf("n4 is %s with %d replicas and %d primaries", st, r, p)
		}
		return ""
	})
	eventually(t, func() string { // it hears of its state after the leader has said that it is drained
		if code, body := httpGet(fourth.http, "/readyz"); code != 503 || strings.TrimSpace(body) == "" {
			return fmt.Sprintf("/readyz of a drained node: %d %q", code, body)
		}
		return ""
	})
	fourth.stop()
	if r := cli(t, nil, "cluster", "remove", "n4", "--addr", addrs); r.code != 0 {
		t.Fatalf("remove: %+v", r)
	}
	eventually(t, func() string { // another node than the one that removed it may be asked
		if st, _, _ := state(); st != "" && st != "removed" {
			return "n4 is " + st
		}
		return ""
	})
	for _, s := range servers {
		if got := answer(t, s.grpc, "json", "SELECT k, c, s FROM deathsv ORDER BY k"); got != before {
			t.Errorf("through %s: %s, want %s", s.name, got, before)
		}
	}
	if after := status(t, addrs); after.Cluster != id {
		t.Errorf("cluster %s, was %s", after.Cluster, id)
	}
}
