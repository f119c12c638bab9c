package test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// flight is one row of the data, parsed here and not by the code under test.
type flight struct {
	scheduled           time.Time
	delay, distance     int64
	origin, destination string
}

var flights = sync.OnceValue(func() []flight {
	f, err := os.Open("../cmd/millrace/flights/flights.csv.gz")
	if err != nil {
		panic(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		panic(err)
	}
	var out []flight
	in := bufio.NewScanner(z)
	in.Scan() // header
	for in.Scan() {
		c := strings.Split(in.Text(), ",")
		at, err := time.Parse(time.RFC3339, c[0])
		if err != nil {
			panic(err)
		}
		delay, _ := strconv.ParseInt(c[1], 10, 64)
		distance, _ := strconv.ParseInt(c[2], 10, 64)
		out = append(out, flight{at, delay, distance, c[3], c[4]})
	}
	return out
})

// asJSON writes the first n flights as JSON lines, each with its number, to a file and returns its name.
func asJSON(t *testing.T, n int) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "flights-*.json")
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for i, x := range flights()[:n] {
		fmt.Fprintf(w, `{"n":%d,"scheduled":%q,"delay":%d,"distance":%d,"origin":%q,"destination":%q}`+"\n",
			i, x.scheduled.Format(time.RFC3339), x.delay, x.distance, x.origin, x.destination)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

const createFlights = `CREATE STREAM flights (n BIGINT, scheduled TIMESTAMPTZ, delay BIGINT, distance BIGINT, origin TEXT, destination TEXT,
	WATERMARK FOR scheduled AS scheduled - INTERVAL '1 hour') WITH (format = 'json', key = 'origin');
CREATE MATERIALIZED VIEW hourly AS SELECT origin, window_start, count(*) AS n, sum(delay) AS total, min(delay) AS least, max(delay) AS most
	FROM TUMBLE(flights, scheduled, INTERVAL '1 hour') GROUP BY origin, window_start, window_end;
CREATE MATERIALIZED VIEW routes AS SELECT origin, destination, count(*) AS n, avg(delay) AS mean
	FROM flights WHERE delay > 0 GROUP BY origin, destination`

// hourly recomputes the view of that name: key -> "n total least most".
func hourly(all []flight) map[string]string {
	type agg struct{ n, total, least, most int64 }
	sums := map[string]agg{}
	for _, f := range all {
		k := f.origin + " " + f.scheduled.Truncate(time.Hour).Format(time.RFC3339)
		a, ok := sums[k]
		if !ok {
			a.least, a.most = f.delay, f.delay
		}
		sums[k] = agg{a.n + 1, a.total + f.delay, min(a.least, f.delay), max(a.most, f.delay)}
	}
	out := map[string]string{}
	for k, a := range sums {
		out[k] = fmt.Sprintf("%d %d %d %d", a.n, a.total, a.least, a.most)
	}
	return out
}

// readHourly reads the view through a node.
func readHourly(t *testing.T, addr, before string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, r := range sql(t, addr, before+"SELECT * FROM hourly") {
		at, err := time.Parse(time.RFC3339, r["window_start"].(string))
		if err != nil {
			t.Fatal(err)
		}
		k := r["origin"].(string) + " " + at.Format(time.RFC3339)
		if _, twice := out[k]; twice {
			t.Fatalf("%s is there twice", k)
		}
		out[k] = fmt.Sprintf("%v %v %v %v", r["n"], r["total"], r["least"], r["most"])
	}
	return out
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	bad := 0
	for k, w := range want {
		if got[k] != w && bad < 5 {
			t.Errorf("%s: %s is %q, want %q", what, k, got[k], w)
			bad++
		}
	}
	if len(got) != len(want) || bad > 0 {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
}

type sendReport struct {
	Acknowledged, Rejected, Tick int64
	Seconds                      float64
}

func send(t *testing.T, addr, file string, extra ...string) sendReport {
	t.Helper()
	return <-sendLater(t, addr, file, extra...)
}

// sendLater sends in the background. The report of a failed send has nothing acknowledged.
func sendLater(t *testing.T, addr, file string, extra ...string) <-chan sendReport {
	t.Helper()
	done := make(chan sendReport, 1)
	go func() {
		cmd := exec.Command(binary, append([]string{"send", "flights", file, "--addr", addr, "--json"}, extra...)...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			said := errs.String()
			t.Errorf("send: %v\n%s%.500s", err, out.String(), said[strings.LastIndexByte(strings.TrimSpace(said), '\n')+1:])
			done <- sendReport{}
			return
		}
		var rep sendReport
		if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
			t.Errorf("send: %v in %q", err, out.String())
		}
		done <- rep
	}()
	return done
}

func TestOneNode(t *testing.T) {
	s := serve(t, "solo")
	sql(t, s.grpc, createFlights)
	const n = 50_000
	rep := send(t, s.grpc, asJSON(t, n))
	if rep.Acknowledged != n || rep.Rejected != 0 {
		t.Fatalf("%+v", rep)
	}
	want := hourly(flights()[:n])
	wait := fmt.Sprintf("SET min_tick = %d; ", rep.Tick)
	same(t, "after sending", readHourly(t, s.grpc, wait), want)

	s.kill()
	s.start()
	same(t, "after kill -9", readHourly(t, s.grpc, wait), want)
	if c := one(t, s.grpc, "SELECT count(*) AS c, count(n) AS k, sum(n) AS s FROM flights"); fmt.Sprintf("%v %v", c["c"], c["s"]) != fmt.Sprintf("%d %d", n, n*(n-1)/2) {
		t.Fatalf("after kill -9: %v", c)
	}
	s.stop()
	s.start()
	same(t, "after a clean stop", readHourly(t, s.grpc, wait), want)
}

func TestThreeNodesAgree(t *testing.T) {
	servers := cluster(t, 3)
	sql(t, servers[1].grpc, createFlights)
	const n = 100_000
	file := asJSON(t, n)
	done := sendLater(t, servers[2].grpc, file, "--rate", "50000")

	// In the middle, through each node: the view equals the records up to its tick.
	for i := 0; ; i++ {
		select {
		case rep := <-done:
			if rep.Acknowledged != n {
				t.Fatalf("%+v", rep)
			}
			want := hourly(flights()[:n])
			for _, s := range servers {
				same(t, "through "+s.name, readHourly(t, s.grpc, fmt.Sprintf("SET min_tick = %d; ", rep.Tick)), want)
			}
			if i == 0 {
				t.Fatal("the view was never read in the middle")
			}
			return
		default:
			checkMiddle(t, servers[i%3].grpc)
		}
	}
}

// checkMiddle reads a view and, by the tick that it was read at, the records that it must be made of.
func checkMiddle(t *testing.T, addr string) {
	t.Helper()
	view := sql(t, addr, "SELECT origin, destination, n, current_tick() AS tick FROM routes")
	if len(view) == 0 {
		return
	}
	got, want := map[string]string{}, map[string]string{}
	for _, r := range view {
		got[fmt.Sprintf("%v %v", r["origin"], r["destination"])] = fmt.Sprint(r["n"])
	}
	raw := sql(t, addr, fmt.Sprintf("SELECT origin, destination, count(*) AS n FROM flights WHERE delay > 0 AND _tick <= %v GROUP BY origin, destination", view[0]["tick"]))
	for _, r := range raw {
		want[fmt.Sprintf("%v %v", r["origin"], r["destination"])] = fmt.Sprint(r["n"])
	}
	same(t, fmt.Sprintf("at tick %v", view[0]["tick"]), got, want)
}

// All nodes die at once in mid-send: each acknowledged record is there, once, and the views are right.
func TestKillAllInMidSend(t *testing.T) {
	servers := cluster(t, 3)
	sql(t, servers[0].grpc, createFlights)
	const n = 100_000
	file := asJSON(t, n)
	addrs := servers[0].grpc + "," + servers[1].grpc + "," + servers[2].grpc
	done := sendLater(t, addrs, file, "--rate", "50000")
	eventually(t, func() string {
		if c := one(t, servers[0].grpc, "SELECT count(*) AS c FROM flights"); fmt.Sprint(c["c"]) < "1" {
			return "nothing arrives"
		}
		return ""
	})
	for _, s := range servers {
		s.kill()
	}
	for _, s := range servers {
		s.startLater()
	}
	for _, s := range servers {
		s.awaitReady()
	}
	var rep sendReport
	select {
	case rep = <-done:
	case <-time.After(2 * stepTimeout):
		t.Fatal("send does not end")
	}
	if rep.Acknowledged != n {
		t.Fatalf("%+v", rep)
	}
	wait := fmt.Sprintf("SET min_tick = %d; ", rep.Tick)
	for _, s := range servers {
		c := one(t, s.grpc, wait+"SELECT count(*) AS c, sum(n) AS s, min(n) AS lo, max(n) AS hi FROM flights")
		if fmt.Sprintf("%v %v %v %v", c["c"], c["s"], c["lo"], c["hi"]) != fmt.Sprintf("%d %d 0 %d", n, n*(n-1)/2, n-1) {
			t.Fatalf("through %s: %v", s.name, c)
		}
		same(t, "through "+s.name, readHourly(t, s.grpc, wait), hourly(flights()[:n]))
	}
}
