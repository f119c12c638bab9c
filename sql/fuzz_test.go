package sql

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/fault"
)

const fuzzStreams = `CREATE STREAM flights (origin TEXT, dest TEXT, delay BIGINT, distance DOUBLE PRECISION, fare NUMERIC, cancelled BOOLEAN,
	info JSONB, raw_bytes BYTEA, took INTERVAL, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '4 seconds');
	CREATE MATERIALIZED VIEW v AS SELECT origin, window_start, count(*) AS n FROM TUMBLE(flights, ts, INTERVAL '1 hour') GROUP BY origin, window_start`

// corpus is every input of testdata.
func corpus(t testing.TB) []string {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal(err, paths)
	}
	var out []string
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for block := range strings.SplitSeq(string(b), "\n----\n") {
			if i := strings.LastIndex(block, "\nrun\n"); i >= 0 {
				out = append(out, block[i+5:])
			} else if i := strings.LastIndex(block, "\nerrors\n"); i >= 0 {
				out = append(out, strings.Split(block[i+8:], "\n")...)
			}
		}
	}
	return out
}

var position = regexp.MustCompile(` at [0-9]+:[0-9]+`)

var fuzzCatalog = sync.OnceValue(func() memory {
	m := memory{}
	if _, err := m.run(fuzzStreams); err != nil {
		panic(err)
	}
	return m
})

// tryText runs text and tells whether it could be. It fails when an error isn't one of ours with a position, or a plan
// isn't well formed.
func tryText(t testing.TB, text string) bool {
	_, err := maps.Clone(fuzzCatalog()).run(text)
	if err == nil {
		return true
	}
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind == fault.Internal || len(e.GetSQLState()) != 5 {
		t.Fatalf("%q: %v", text, err)
	}
	if !position.MatchString(err.Error()) || strings.ContainsAny(e.Message, "\n\x00") {
		t.Fatalf("%q: no position, or not one line: %q", text, err.Error())
	}
	return false
}

func FuzzParse(f *testing.F) {
	for _, s := range corpus(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) { tryText(t, text) })
}

// FuzzPlan makes statements of a grammar that are nearly always right, so that the planner is reached.
func FuzzPlan(f *testing.F) {
	for i := range uint64(50) {
		f.Add(i)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		g := &generator{rand.New(rand.NewPCG(seed, 1))}
		tryText(t, g.statement())
	})
}

func TestGeneratedPlans(t *testing.T) {
	planned := 0
	const statements = 2000
	for seed := range uint64(statements) {
		g := &generator{rand.New(rand.NewPCG(seed, 2))}
		if tryText(t, g.statement()) {
			planned++
		}
	}
	if planned < statements/3 {
		t.Errorf("only %d of %d statements have a plan: the generator is off", planned, statements)
	}
}

type generator struct{ *rand.Rand }

func (g *generator) of(choices ...string) string { return choices[g.IntN(len(choices))] }

func (g *generator) statement() string {
	q := g.query(2)
	switch g.IntN(4) {
	case 0:
		return "CREATE MATERIALIZED VIEW x " + g.of("", "WITH (emit = 'final') ", "WITH (start = 'now') ") + "AS " + q
	case 1:
		return q + g.of("", " LIMIT 5", " ORDER BY 1 DESC LIMIT 2 OFFSET 3", " ORDER BY 1, 2 NULLS FIRST")
	}
	return q
}

func (g *generator) query(depth int) string {
	from, where := g.of("flights", "TUMBLE(flights, ts, INTERVAL '1 hour')"), ""
	window := strings.HasPrefix(from, "TUMBLE")
	if depth > 0 && g.IntN(4) == 0 {
		inner := g.query(depth - 1)
		return fmt.Sprintf("SELECT a%d, count(*) AS a0, %s(a0) AS a1 FROM (%s) AS q GROUP BY %s", g.IntN(2), g.of("min", "max", "count"), inner, g.of("1", "a0", "a1"))
	}
	if g.IntN(2) == 0 {
		where = " WHERE " + g.boolean(2)
		if window && g.IntN(2) == 0 {
			where += " AND window_end > '2024-01-01'"
		}
	}
	if g.IntN(2) == 0 {
		return fmt.Sprintf("SELECT %s AS a0, %s AS a1 FROM %s%s", g.scalar(2), g.scalar(2), from, where)
	}
	keys := []string{g.of("origin", "lower(dest)", "delay % 10", "cancelled")}
	if window {
		keys = append(keys, g.of("window_start", "window_end"))
	}
	agg := g.of("count(*)", "sum(delay)", "max("+g.number(1)+")", "min(origin)", "avg(fare)", "count(*) FILTER (WHERE "+g.boolean(1)+")")
	having := g.of("", " HAVING count(*) > 1", " HAVING "+agg+" IS NOT NULL")
	return fmt.Sprintf("SELECT %s AS a0, %s AS a1 FROM %s%s GROUP BY %s%s", keys[g.IntN(len(keys))], agg, from, where, strings.Join(keys, ", "), having)
}

func (g *generator) scalar(depth int) string {
	switch g.IntN(4) {
	case 0:
		return g.number(depth)
	case 1:
		return g.boolean(depth)
	case 2:
		return g.of("origin", "dest", "upper(origin)", "origin || '-' || delay", "info ->> 'a'", "coalesce(dest, 'x')", "substring(dest from 2)", "delay::text")
	}
	return g.of("ts", "date_trunc('hour', ts)", "ts + took", "_time", "to_timestamp(distance)")
}

func (g *generator) number(depth int) string {
	if depth == 0 {
		return g.of("delay", "distance", "fare", "1", "2.5", "_offset", "length(origin)", "'7'")
	}
	switch g.IntN(4) {
	case 0:
		return fmt.Sprintf("(%s %s %s)", g.number(depth-1), g.of("+", "-", "*", "/"), g.number(depth-1))
	case 1:
		return fmt.Sprintf("CASE WHEN %s THEN %s ELSE %s END", g.boolean(depth-1), g.number(depth-1), g.number(depth-1))
	case 2:
		return fmt.Sprintf("%s(%s, %s)", g.of("coalesce", "greatest", "least", "nullif"), g.number(depth-1), g.number(depth-1))
	}
	return fmt.Sprintf("%s(%s)", g.of("abs", "round", "ceil", "- ", "sqrt"), g.number(depth-1))
}

func (g *generator) boolean(depth int) string {
	if depth == 0 {
		return g.of("cancelled", "delay > 5", "origin = 'JFK'", "origin LIKE 'J%'", "delay IN (1, 2, 3.5)", "ts > '2024-01-01'", "info ? 'a'")
	}
	switch g.IntN(4) {
	case 0:
		return fmt.Sprintf("(%s %s %s)", g.boolean(depth-1), g.of("AND", "OR"), g.boolean(depth-1))
	case 1:
		return fmt.Sprintf("(NOT %s)", g.boolean(depth-1))
	case 2:
		return fmt.Sprintf("(%s BETWEEN %s AND %s)", g.number(depth-1), g.number(depth-1), g.number(depth-1))
	}
	return fmt.Sprintf("(%s IS %s)", g.boolean(depth-1), g.of("NULL", "NOT NULL", "TRUE", "NOT FALSE", "UNKNOWN"))
}

func BenchmarkPlanSelect(b *testing.B) {
	const text = `SELECT origin, window_start, count(*) AS n, avg(delay) AS mean FROM TUMBLE(flights, ts, INTERVAL '1 hour')
		WHERE NOT cancelled AND delay BETWEEN 1 AND 1000 GROUP BY origin, window_start HAVING count(*) > 10 ORDER BY n DESC LIMIT 10`
	m := fuzzCatalog()
	b.ReportAllocs()
	for b.Loop() {
		stmts, err := Parse(text)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := PlanSelect(stmts[0].(*Select), m); err != nil {
			b.Fatal(err)
		}
	}
}
