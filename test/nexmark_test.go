package test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace/millrace/datagen"
)

var nexmarkPostgres = flag.String("postgres", "", "connection of an empty database of a PostgreSQL server, whose answers to Nexmark's queries "+
	"TestNexmarkResults writes to nexmark/results.txt")

// Events of the test, and how many of them there are in a second of event time.
const (
	nexmarkEvents    = 100_000
	nexmarkEventRate = 3000
	nexmarkResults   = "nexmark/results.txt"
)

// nexmarkQuery is a file of nexmark/.
type nexmarkQuery struct {
	name, text string
	compare    string // what is asked of the view, so that free choices don't matter
}

func nexmarkQueries(t *testing.T) []nexmarkQuery {
	t.Helper()
	files, err := filepath.Glob("nexmark/q*.sql")
	if err != nil {
		t.Fatal(err)
	}
	compare := regexp.MustCompile(`(?m)^-- compare (.*)$`)
	var out []nexmarkQuery
	for _, f := range files {
		q := nexmarkQuery{name: strings.TrimSuffix(filepath.Base(f), ".sql"), text: nexmarkFile(t, f)}
		q.compare = "SELECT * FROM " + q.name
		if m := compare.FindStringSubmatch(q.text); m != nil {
			q.compare = m[1]
		}
		out = append(out, q)
	}
	if len(out) != 24 {
		t.Fatalf("%d queries, not 24", len(out))
	}
	return out
}

func nexmarkFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// nexmarkDigest runs a query and returns how many rows it has and the digest of their text, sorted.
func nexmarkDigest(ctx context.Context, c *pgx.Conn, query string) (string, error) {
	rows, err := c.Query(ctx, query, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var b strings.Builder
		for i, v := range rows.RawValues() {
			if i > 0 {
				b.WriteByte('\t')
			}
			if v == nil {
				b.WriteString(`\N`)
			}
			b.Write(v)
		}
		lines = append(lines, b.String())
	}
	slices.Sort(lines)
	h := sha256.New()
	for _, l := range lines {
		io.WriteString(h, l+"\n")
	}
	return strconv.Itoa(len(lines)) + " " + hex.EncodeToString(h.Sum(nil)), rows.Err()
}

// TestNexmarkResults lets PostgreSQL answer the queries over the same events, if there is one.
func TestNexmarkResults(t *testing.T) {
	if *nexmarkPostgres == "" {
		t.Skip("no -postgres")
	}
	ctx := t.Context()
	c, err := pgx.Connect(ctx, *nexmarkPostgres)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	pgExec(t, c, "SET TIME ZONE 'UTC'; "+nexmarkFile(t, "nexmark/postgres/schema.sql"), pgx.QueryExecModeSimpleProtocol)
	g, err := datagen.NewNexmark(datagen.All, nexmarkEventRate, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	_, err = c.CopyFrom(ctx, pgx.Identifier{"raw"}, []string{"j"}, pgx.CopyFromFunc(func() ([]any, error) {
		if n++; n > nexmarkEvents {
			return nil, nil
		}
		return []any{string(g.AppendJSON(nil, n-1))}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	pgExec(t, c, nexmarkFile(t, "nexmark/postgres/fill.sql")+nexmarkSideInput(t), pgx.QueryExecModeSimpleProtocol)
	var out strings.Builder
	for _, q := range nexmarkQueries(t) {
		text := q.text
		if own := "nexmark/postgres/" + q.name + ".sql"; fileExists(own) {
			text = nexmarkFile(t, own)
		}
		pgExec(t, c, "CREATE TABLE "+q.name+" AS "+text, pgx.QueryExecModeSimpleProtocol)
		d, err := nexmarkDigest(ctx, c, q.compare)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&out, q.name, d)
	}
	if err := os.WriteFile(nexmarkResults, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// nexmarkSideInput fills q13's table.
func nexmarkSideInput(t *testing.T) string {
	t.Helper()
	s := nexmarkFile(t, "nexmark/schema.sql")
	return s[strings.Index(s, "INSERT INTO side_input"):]
}

// TestNexmark maintains Nexmark's queries while the events come from producers, by way of the log.
func TestNexmark(t *testing.T) {
	s := serve(t, "nexmark")
	sql(t, s.grpc, nexmarkFile(t, "nexmark/schema.sql"))
	queries := nexmarkQueries(t)
	nexmarkViews(t, s, queries)
	for _, kind := range []string{"person", "auction", "bid"} {
		r := cli(t, nil, "send", kind, "--addr", s.grpc, "--datagen", "nexmark:"+kind, "--events", strconv.Itoa(nexmarkEvents),
			"--event-rate", strconv.Itoa(nexmarkEventRate), "--json")
		if r.code != 0 {
			t.Fatalf("send %s: %s", kind, r.err)
		}
	}
	nexmarkCheck(t, s, queries)
}

// TestNexmarkSource has three nodes make the events, of which one is killed in between; some of the views come later and
// read what was before.
func TestNexmarkSource(t *testing.T) {
	nodes := cluster(t, 3)
	s := nodes[0]
	queries := nexmarkQueries(t)
	schema := nexmarkFile(t, "nexmark/schema.sql")
	sql(t, s.grpc, schema[strings.Index(schema, "CREATE TABLE side_input"):])
	for _, kind := range []string{"person", "auction", "bid"} {
		sql(t, s.grpc, fmt.Sprintf("CREATE STREAM %s WITH (source = 'nexmark', kind = '%[1]s', events = %d, rate = %d)",
			kind, nexmarkEvents, nexmarkEventRate))
	}
	half := len(queries) / 2
	nexmarkViews(t, s, queries[:half])
	eventually(t, func() string {
		if n := nexmarkCount(t, s, "bid"); n <= 0 {
			return "there are no bids"
		}
		return ""
	})
	nodes[2].kill()
	if n := nexmarkCount(t, s, "bid"); n == 46*nexmarkEvents/50 {
		t.Error("all bids were there before the node was killed")
	}
	nexmarkViews(t, s, queries[half:])
	nodes[2].start()
	nexmarkCheck(t, s, queries)
}

func nexmarkViews(t *testing.T, s *server, queries []nexmarkQuery) {
	t.Helper()
	for _, q := range queries {
		eventually(t, func() string { // the node that leads may lose that when another one was killed, and not know what became of it
			r := cli(t, nil, "sql", "--addr", s.grpc, "-c", "CREATE MATERIALIZED VIEW IF NOT EXISTS "+q.name+" AS "+q.text)
			switch {
			case r.code == 0:
				return ""
			case !strings.Contains(r.err, "leader") && !strings.Contains(r.err, "unknown"):
				t.Fatalf("%s: %s", q.name, r.err)
			}
			return r.err
		})
	}
}

// nexmarkCount counts a stream's records; -1 while a node is silent.
func nexmarkCount(t *testing.T, s *server, stream string) int {
	t.Helper()
	r := cli(t, nil, "sql", "--addr", s.grpc, "--format", "json", "-c", "SELECT count(*) AS n FROM "+stream)
	if r.code != 0 {
		return -1
	}
	n, err := strconv.Atoi(fmt.Sprint(rows(t, r.out)[0]["n"]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// nexmarkCheck waits until all events are there, and then compares what the views have at a tick after that with the
// results of a batch database.
func nexmarkCheck(t *testing.T, s *server, queries []nexmarkQuery) {
	t.Helper()
	want := map[string]string{}
	for line := range strings.Lines(nexmarkFile(t, nexmarkResults)) {
		name, digest, _ := strings.Cut(strings.TrimSpace(line), " ")
		want[name] = digest
	}
	eventuallyWithin(t, 5*time.Minute, func() string { // half a minute at their rate; the views of all queries work meanwhile
		for stream, n := range map[string]int{"person": nexmarkEvents / 50, "auction": 3 * nexmarkEvents / 50, "bid": 46 * nexmarkEvents / 50} {
			if got := nexmarkCount(t, s, stream); got != n {
				return fmt.Sprintf("stream %s has %d records, not %d", stream, got, n)
			}
		}
		return ""
	})
	tick := one(t, s.grpc, "SELECT current_tick() AS tick")["tick"]
	c := pgConnect(t, s, "")
	pgExec(t, c, fmt.Sprintf("SET min_tick = %v", tick), pgx.QueryExecModeSimpleProtocol)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, q := range queries {
		got, err := nexmarkDigest(ctx, c, q.compare)
		for err != nil && ctx.Err() == nil && strings.Contains(err.Error(), "within the time allowed") { // a busy machine takes long
			got, err = nexmarkDigest(ctx, c, q.compare)
		}
		if err != nil {
			t.Errorf("%s: %v", q.name, err)
		} else if got != want[q.name] {
			t.Errorf("%s has the rows %s, not %s", q.name, got, want[q.name])
		}
	}
}
