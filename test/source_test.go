package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/datagen"
	"github.com/millrace/millrace/record"
)

// TestSource reads a stream that makes its records in every way that there is, over two kill -9 of its node: each event comes
// once, whoever reads it, and nobody can append to it.
func TestSource(t *testing.T) {
	const events, rate = 30_000, 2000
	s := serve(t, "source")
	sql(t, s.grpc, fmt.Sprintf("CREATE STREAM paced WITH (source = 'nexmark', events = %d, rate = %d)", events, rate))
	sql(t, s.grpc, fmt.Sprintf("CREATE STREAM fast WITH (source = 'nexmark', kind = 'bid', events = 3000000, rate = 0, event_rate = %d)", rate))
	const kinds = " AS SELECT event_type, count(*) AS n, count(DISTINCT id) AS ids, sum(price) AS price FROM paced GROUP BY event_type"
	sql(t, s.grpc, "CREATE MATERIALIZED VIEW before"+kinds)
	if n := one(t, s.grpc, "SELECT count(*) AS n FROM fast")["n"]; fmt.Sprint(n) != "0" {
		t.Errorf("a stream without a rate went on without a view: %v records", n)
	}
	sql(t, s.grpc, "CREATE MATERIALIZED VIEW taken AS SELECT auction % 10 AS k, count(*) AS n, sum(price) AS price FROM fast GROUP BY auction % 10")
	for range 2 {
		s.kill()
		s.start()
	}
	if r := cli(t, nil, "sql", "--addr", s.grpc, "-c", "INSERT INTO fast (auction) VALUES (1)"); r.code == 0 || !strings.Contains(r.err, "has a source") {
		t.Errorf("an INSERT: %d, %s", r.code, r.err)
	}
	eventuallyWithin(t, 3*stepTimeout, func() string {
		got := fmt.Sprint(one(t, s.grpc, "SELECT (SELECT count(*) FROM paced) AS paced, (SELECT count(*) FROM fast) AS fast"))
		if want := fmt.Sprint(map[string]any{"paced": events, "fast": 46 * 3_000_000 / 50}); got != want {
			return got + ", want " + want
		}
		return ""
	})
	sql(t, s.grpc, "CREATE MATERIALIZED VIEW after"+kinds)
	tick := one(t, s.grpc, "SELECT current_tick() AS tick, count(*) AS n FROM paced")["tick"]
	ask := func(query string) string {
		return fmt.Sprint(sql(t, s.grpc, fmt.Sprintf("SET min_tick = %v; %s", tick, query)))
	}
	want := ask("SELECT event_type, count(*) AS n, count(DISTINCT id) AS ids, sum(price) AS price FROM paced GROUP BY event_type ORDER BY 1")
	for _, view := range []string{"before", "after"} {
		if got := ask("SELECT * FROM " + view + " ORDER BY 1"); got != want {
			t.Errorf("view %s has %s, the stream gives %s", view, got, want)
		}
	}
	if got, want := ask("SELECT * FROM taken ORDER BY 1"), ask("SELECT auction % 10 AS k, count(*) AS n, sum(price) AS price FROM fast GROUP BY auction % 10 ORDER BY 1"); got != want {
		t.Errorf("view taken has %s, the stream gives %s", got, want)
	}
	read := cli(t, nil, "read", "paced", "--addr", s.grpc)
	got := strings.Split(strings.TrimSpace(read.out), "\n")
	g, err := datagen.NewNexmark(datagen.All, rate, columnNames(datagen.Table(datagen.All)))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for n := range uint64(events) {
		lines = append(lines, string(g.AppendJSON(nil, n)))
	}
	slices.Sort(got)
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		t.Errorf("read gives %d lines, which aren't the %d events (%s)", len(got), len(lines), read.err)
	}
}

func columnNames(s record.Schema) []string {
	out := make([]string, len(s))
	for i, f := range s {
		out[i] = f.Name
	}
	return out
}
