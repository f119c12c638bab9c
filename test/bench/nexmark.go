package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/datagen"
)

// nexmark says what of Nexmark is measured.
type nexmark struct {
	events    int    // at most, for each query
	logEvents int    // that are read from the log; 0: it isn't measured
	flink     bool   // beside Flink
	dir       string // of the queries
	profiles  string // where CPU profiles go; "": none are taken
}

func (x *nexmark) flags() {
	flag.IntVar(&x.events, "events", 5_000_000, "of a query at most, with -nexmark and -peers")
	flag.IntVar(&x.logEvents, "log-events", 1_000_000, "that are read from the log, with -nexmark; 0: none")
	flag.StringVar(&x.dir, "queries", "test/nexmark", "where Nexmark's queries are")
	flag.StringVar(&x.profiles, "profiles", "", "folder for a CPU profile of the node during each query, with -nexmark")
}

// besideFlink is what is measured of it beside other systems.
func (x nexmark) besideFlink() nexmark {
	x.flink, x.logEvents = true, 0
	return x
}

// nexmarkMillions is how many events each query gets: a run of some ten seconds on a system that needs more time.
var nexmarkMillions = map[string]int{
	"q0": 10, "q1": 10, "q2": 20, "q3": 20, "q4": 3, "q5": 5, "q6": 2, "q7": 2, "q8": 20, "q9": 2, "q10": 10, "q11": 5,
	"q12": 10, "q13": 10, "q14": 10, "q15": 5, "q16": 2, "q17": 8, "q18": 4, "q19": 3, "q20": 2, "q21": 10, "q22": 10, "q23": 1,
}

const (
	// nexmarkSpan is the event time that a run spans, in seconds.
	nexmarkSpan = 10
	// nexmarkTimeout bounds one query.
	nexmarkTimeout = 5 * time.Minute
	// generatorEvents bounds the events by which the generator alone is measured.
	generatorEvents = 4_000_000
)

// nexmarkRun is what one query took.
type nexmarkRun struct {
	events     int
	wall, cpu  float64 // seconds
	generator  float64 // CPU seconds of it that making the events takes
	rss, state float64 // bytes
}

func (r *nexmarkRun) perSecond() float64    { return float64(r.events) / r.wall }
func (r *nexmarkRun) perCPUSecond() float64 { return float64(r.events) / r.cpu }

// nexmark measures each query on one node, whose events are made and then read from the log, and reports it as a table. A query that
// fails is left out; the others are measured all the same.
func (b *bench) nexmark(x nexmark, only string) error {
	queries, err := x.queries(only)
	if err != nil {
		return err
	}
	fmt.Printf("%-5s %-7s %9s %9s %11s %12s %12s %8s %9s\n", "query", "from", "events", "wall s", "events/s", "per CPU s", "net of gen.", "RSS MB", "state MB")
	var failed []string
	for _, q := range queries {
		run, err := b.nexmarkMade(x, q)
		if err == nil {
			err = b.reportNexmark(q, "source", run)
		}
		if err == nil && x.flink && q != "q6" {
			err = b.besideFlink(q, run)
		}
		if err != nil {
			if b.ctx.Err() != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "%s: %v\n", q, err)
			failed = append(failed, q)
		}
	}
	if x.logEvents > 0 {
		if err := b.nexmarkLogged(x, queries); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("not measured: %s", strings.Join(failed, ", "))
	}
	return nil
}

// queries returns the wanted queries' names, in order.
func (x *nexmark) queries(only string) ([]string, error) {
	var out []string
	for i := range 24 {
		if q := "q" + strconv.Itoa(i); wanted(only, q) {
			out = append(out, q)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no query is called %s", only)
	}
	_, err := os.Stat(filepath.Join(x.dir, "q0.sql"))
	return out, err
}

func (x *nexmark) text(query string) (string, error) {
	text, err := os.ReadFile(filepath.Join(x.dir, query+".sql"))
	return string(text), err
}

// relation finds the streams of a query.
var relation = regexp.MustCompile(`(?:FROM|JOIN|HOP\(|TUMBLE\(|SESSION\()\s*(person|auction|bid)\b`)

func streamsOf(query string) []string {
	var out []string
	for _, m := range relation.FindAllStringSubmatch(query, -1) {
		if !slices.Contains(out, m[1]) {
			out = append(out, m[1])
		}
	}
	return out
}

// records is how many of so many events are of a kind.
func records(kind string, events int) int64 {
	per := map[string]int64{"person": 1, "auction": 3, "bid": 46}[kind]
	return int64(events) / 50 * per // events are whole rounds
}

// nexmarkMade measures a query on a new node whose streams make their events as fast as the view takes them.
func (b *bench) nexmarkMade(x nexmark, query string) (run nexmarkRun, err error) {
	text, err := x.text(query)
	if err != nil {
		return run, err
	}
	c, err := b.cluster(1, partitionsFor(1))
	if err != nil {
		return run, err
	}
	defer c.stop()
	ctx, cancel := context.WithTimeout(b.ctx, nexmarkTimeout)
	defer cancel()
	run.events = min(nexmarkMillions[query]*1_000_000, x.events) / 50 * 50
	if err := c.sideInput(ctx, query); err != nil {
		return run, err
	}
	streams := streamsOf(text)
	if err := c.sources(ctx, streams, "", run.events); err != nil {
		return run, err
	}
	gen, err := b.generatorCPU(ctx, c, text, run.events)
	if err != nil {
		return run, err
	}
	profiled := x.profile(ctx, c, query)
	defer func() {
		if e := profiled(); err == nil {
			err = e
		}
	}()
	cpu, begin := c.cpu(), time.Now()
	if _, err := c.client.Exec(ctx, "CREATE MATERIALIZED VIEW v AS "+text); err != nil {
		return run, err
	}
	end, err := c.taken(ctx, streams, "", run.events)
	if err != nil {
		return run, err
	}
	run.wall, run.cpu, run.generator = end.Sub(begin).Seconds(), c.cpu()-cpu, gen
	run.rss = c.peakRSS()
	run.state, err = viewBytes(ctx, c)
	return run, err
}

// profileSeconds is how long a profile is; longer than most queries take.
const profileSeconds = 15

// profile begins a CPU profile of the node; what it returns waits for it.
func (x *nexmark) profile(ctx context.Context, c *nodes, query string) (wait func() error) {
	if x.profiles == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", c.procs[0].http, profileSeconds)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			raw, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(x.profiles, query+".pprof"), raw, 0o644)
		}()
	}()
	time.Sleep(100 * time.Millisecond) // until it has begun
	return func() error { return <-done }
}

// sideInput makes the table that q13 looks into.
func (c *nodes) sideInput(ctx context.Context, query string) error {
	if query != "q13" {
		return nil
	}
	_, err := c.client.Exec(ctx, "CREATE TABLE side_input (key BIGINT PRIMARY KEY, value TEXT); "+
		"INSERT INTO side_input SELECT i, i::text FROM generate_series(0, 9999) AS i")
	return err
}

// sources makes streams that make their events.
func (c *nodes) sources(ctx context.Context, kinds []string, prefix string, events int) error {
	for _, kind := range kinds {
		_, err := c.client.Exec(ctx, fmt.Sprintf("CREATE STREAM %s%s WITH (source = 'nexmark', kind = '%[2]s', events = %d, rate = 0, event_rate = %d)",
			prefix, kind, events, max(1, events/nexmarkSpan)))
		if err != nil {
			return err
		}
	}
	return nil
}

// taken waits until streams have all their records and view v has taken them, and returns when that was seen.
func (c *nodes) taken(ctx context.Context, kinds []string, prefix string, events int) (time.Time, error) {
	for _, kind := range kinds {
		if err := c.poll(ctx, "SHOW STREAMS", prefix+kind, "records", records(kind, events)); err != nil {
			return time.Time{}, err
		}
	}
	// Ticks are microseconds of this machine's clock: all records have lower ones.
	err := c.poll(ctx, "SHOW VIEWS", "v", "tick", time.Now().UnixMicro())
	return time.Now(), err
}

// poll asks until a figure of an object has come to a value.
func (c *nodes) poll(ctx context.Context, statement, name, column string, value int64) error {
	last := int64(-1)
	ask := func() error {
		rows, err := c.client.Query(ctx, statement)
		if err != nil {
			return err
		}
		defer rows.Close()
		at := rows.Columns().Index(column)
		for rows.Next() {
			if v := rows.Values(); string(v[0].Bytes) == name && at >= 0 {
				last = v[at].Int
			}
		}
		return rows.Err()
	}
	for {
		if err := ask(); err != nil && !client.Retryable(err) {
			return err
		}
		if last >= value {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s %s has come to %d %s, not to %d: %w", statement, name, last, column, value, ctx.Err())
		}
	}
}

// scanned finds what a query reads of a stream.
var scanned = regexp.MustCompile(`scan: stream (person|auction|bid), columns (.*)$`)

var asOf = regexp.MustCompile(`FOR SYSTEM_TIME AS OF \S+`)

// generatorCPU measures how long making the columns that a query reads takes alone: by views that drop every row.
func (b *bench) generatorCPU(ctx context.Context, c *nodes, query string, events int) (float64, error) {
	rows, err := c.client.Query(ctx, "EXPLAIN "+asOf.ReplaceAllString(query, "")) // which an ad-hoc query can't have
	if err != nil {
		return 0, err
	}
	var scans [][2]string // stream, columns
	for rows.Next() {
		m := scanned.FindStringSubmatch(strings.TrimRight(string(rows.Values()[0].Bytes), " "))
		if m == nil {
			continue
		}
		var cols []string
		for _, col := range strings.Split(m[2], ", ") {
			if !strings.HasPrefix(col, "_") {
				cols = append(cols, col)
			}
		}
		scans = append(scans, [2]string{m[1], strings.Join(cols, ", ")})
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return 0, err
	}
	n := min(events, generatorEvents)
	total := 0.0
	for _, s := range scans {
		key := "id"
		if s[0] == "bid" {
			key = "auction"
		}
		if err := c.sources(ctx, []string{s[0]}, "gen_", n); err != nil {
			return 0, err
		}
		cpu := c.cpu()
		if _, err := c.client.Exec(ctx, fmt.Sprintf("CREATE MATERIALIZED VIEW v AS SELECT %s FROM gen_%s WHERE %s < 0", s[1], s[0], key)); err != nil {
			return 0, err
		}
		if _, err := c.taken(ctx, []string{s[0]}, "gen_", n); err != nil {
			return 0, err
		}
		total += (c.cpu() - cpu) * float64(events) / float64(n)
		if _, err := c.client.Exec(ctx, "DROP STREAM gen_"+s[0]+" CASCADE"); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// nexmarkLogged measures the queries over events that are in the log, as records in JSON.
func (b *bench) nexmarkLogged(x nexmark, queries []string) error {
	c, err := b.cluster(1, partitionsFor(1))
	if err != nil {
		return err
	}
	defer c.stop()
	events := min(x.logEvents, x.events) / 50 * 50
	if err := b.fillNexmark(c, events); err != nil {
		return err
	}
	for _, q := range queries {
		text, err := x.text(q)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(b.ctx, nexmarkTimeout)
		run, err := c.nexmarkFromLog(ctx, q, text, events)
		cancel()
		if err == nil {
			err = b.reportNexmark(q, "log", run)
		}
		if err != nil {
			return fmt.Errorf("%s from the log: %w", q, err)
		}
	}
	return nil
}

func (c *nodes) nexmarkFromLog(ctx context.Context, query, text string, events int) (run nexmarkRun, err error) {
	run.events = events
	if err := c.sideInput(ctx, query); err != nil {
		return run, err
	}
	c.forgetPeak()
	cpu, begin := c.cpu(), time.Now()
	if _, err := c.client.Exec(ctx, "CREATE MATERIALIZED VIEW v AS "+text); err != nil {
		return run, err
	}
	if err := c.poll(ctx, "SHOW VIEWS", "v", "tick", begin.UnixMicro()); err != nil {
		return run, err
	}
	run.wall, run.cpu, run.rss = time.Since(begin).Seconds(), c.cpu()-cpu, c.peakRSS()
	if run.state, err = viewBytes(ctx, c); err != nil {
		return run, err
	}
	_, err = c.client.Exec(ctx, "DROP MATERIALIZED VIEW v")
	return run, err
}

// fillNexmark appends the events to three streams.
func (b *bench) fillNexmark(c *nodes, events int) error {
	for _, kind := range []string{"person", "auction", "bid"} {
		k, err := datagen.ParseKind(kind)
		if err != nil {
			return err
		}
		var cols, names []string
		for _, f := range datagen.Table(k) {
			names = append(names, f.Name)
			cols = append(cols, fmt.Sprintf("%q %s", f.Name, f.Type))
		}
		key := map[string]string{"person": "id", "auction": "id", "bid": "auction"}[kind]
		_, err = c.client.Exec(b.ctx, fmt.Sprintf("CREATE STREAM %s (%s, WATERMARK FOR %q AS %[3]q - INTERVAL '4 seconds') WITH (key = '%s')",
			kind, strings.Join(cols, ", "), datagen.TimeColumn, key))
		if err != nil {
			return err
		}
		g, err := datagen.NewNexmark(k, int64(max(1, events/nexmarkSpan)), names)
		if err != nil {
			return err
		}
		p, err := c.client.Producer(b.ctx, kind, client.WithCompression(client.S2))
		if err != nil {
			return err
		}
		var line []byte
		for n := range uint64(events) {
			if line = g.AppendJSON(line[:0], n); len(line) == 0 {
				continue
			}
			if err := p.SendTagged(b.ctx, nil, line, n); err != nil {
				return err
			}
		}
		if err := p.Close(b.ctx); err != nil {
			return err
		}
	}
	return nil
}

// reportNexmark prints a line of the table and writes its figures to bench.json.
func (b *bench) reportNexmark(query, from string, r nexmarkRun) error {
	at := map[string]any{"query": query, "from": from, "events": r.events, "replicas": 1}
	figures := []row{
		{"nexmark_events_per_s", r.perSecond(), "events/s", at},
		{"nexmark_events_per_cpu_s", r.perCPUSecond(), "events/s", at},
		{"nexmark_peak_rss", r.rss / 1e6, "MB", at},
		{"nexmark_state", r.state / 1e6, "MB", at},
	}
	net := "-"
	if from == "source" {
		if left := r.cpu - r.generator; left > 0.01*r.cpu {
			net = number(float64(r.events) / left)
			figures = append(figures, row{"nexmark_net_events_per_cpu_s", float64(r.events) / left, "events/s", at})
		}
		figures = append(figures, row{"nexmark_generator_cpu", r.generator / float64(r.events) * 1e6, "s/M", at})
	}
	for _, f := range figures {
		if err := b.write(f); err != nil {
			return err
		}
	}
	fmt.Printf("%-5s %-7s %9d %9.2f %11.0f %12.0f %12s %8.0f %9.1f\n", query, from, r.events, r.wall, r.perSecond(), r.perCPUSecond(), net, r.rss/1e6, r.state/1e6)
	return nil
}
