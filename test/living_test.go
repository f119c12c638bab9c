package test

import (
	"fmt"
	"strings"
	"testing"
)

// plan returns the lines of an EXPLAIN.
func explained(t *testing.T, addr, statement string) string {
	t.Helper()
	var out []string
	for _, row := range sql(t, addr, statement) {
		out = append(out, row["plan"].(string))
	}
	return strings.Join(out, "\n")
}

// tickOf reads a count of a relation, and the tick at which it was read.
func tickOf(t *testing.T, addr, relation string) string {
	t.Helper()
	return fmt.Sprint(one(t, addr, "SELECT current_tick() AS tick, count(*) AS n FROM "+relation)["tick"])
}

// TestPast reads views, tables and streams as they were.
func TestPast(t *testing.T) {
	s := serve(t, "past")
	a := s.grpc
	answer(t, a, "json", `CREATE STREAM hits (page TEXT, n BIGINT);
		CREATE MATERIALIZED VIEW pages AS SELECT page, sum(n) AS n FROM hits GROUP BY page;
		CREATE MATERIALIZED VIEW large AS SELECT page, n FROM hits WHERE n > 1;
		CREATE MATERIALIZED VIEW brief WITH (history = '1 second') AS SELECT page, sum(n) AS n FROM hits GROUP BY page;
		CREATE TABLE names (page TEXT PRIMARY KEY, name TEXT)`)
	answer(t, a, "json", `INSERT INTO hits VALUES ('a', 1), ('b', 2); INSERT INTO names VALUES ('a', 'one')`)
	answers(t, a, `SELECT sum(n) AS n FROM pages`, `{"n":3}`)
	first := tickOf(t, a, "pages")
	answer(t, a, "json", `INSERT INTO hits VALUES ('a', 10), ('c', 3); UPDATE names SET name = 'two'`)
	answers(t, a, `SELECT sum(n) AS n FROM pages`, `{"n":16}`)
	second := tickOf(t, a, "pages")
	answer(t, a, "json", `INSERT INTO hits VALUES ('b', -2); DELETE FROM names`)
	for _, c := range []struct {
		query string
		rows  []string
	}{
		{"SELECT * FROM pages AS OF TICK " + first + " ORDER BY page", []string{`{"page":"a","n":1}`, `{"page":"b","n":2}`}},
		{"SELECT * FROM pages AS OF TICK " + second + " AS p ORDER BY p.page", []string{`{"page":"a","n":11}`, `{"page":"b","n":2}`, `{"page":"c","n":3}`}},
		{"SELECT * FROM pages ORDER BY page", []string{`{"page":"a","n":11}`, `{"page":"b","n":0}`, `{"page":"c","n":3}`}},
		{"SELECT n FROM pages AS OF TICK " + first + " WHERE page = 'a'", []string{`{"n":1}`}},
		{"SELECT count(*) AS n FROM pages AS OF TICK " + first + " WHERE page = 'c'", []string{`{"n":0}`}},
		{"SELECT page FROM large AS OF TICK " + first, []string{`{"page":"b"}`}},
		{"SELECT count(*) AS n FROM hits AS OF TICK " + first, []string{`{"n":2}`}},
		{"SELECT current_tick() = " + first + " AS then FROM hits AS OF TICK " + first + " LIMIT 1", []string{`{"then":true}`}},
		{"SELECT name FROM names AS OF TICK " + first, []string{`{"name":"one"}`}},
		{"SELECT name FROM names AS OF TICK " + second, []string{`{"name":"two"}`}},
		{"SELECT name FROM names", nil},
		{"SELECT p.page, p.n - q.n AS more FROM pages p JOIN pages AS OF TICK " + first + " q ON p.page = q.page ORDER BY 1",
			[]string{`{"page":"a","more":10}`, `{"page":"b","more":-2}`}},
		{"SELECT count(*) AS n FROM pages AS OF TIMESTAMP '2100-01-01'", nil},
	} {
		if c.rows == nil && strings.Contains(c.query, "2100") {
			fails(t, a, c.query, "never issued")
			continue
		}
		answers(t, a, c.query, c.rows...)
	}
	fails(t, a, "SELECT * FROM pages AS OF TICK 5", "the oldest is")
	fails(t, a, "SELECT * FROM pages AS OF TIMESTAMP '2020-01-01 00:00:00Z'", "the oldest is")
	// What is kept less long goes first.
	eventually(t, func() string {
		answer(t, a, "json", `INSERT INTO hits VALUES ('d', 1)`)
		r := cli(t, nil, "sql", "--addr", a, "-c", "SELECT * FROM brief AS OF TICK "+first)
		if !strings.Contains(r.err, "the oldest is") {
			return "brief can still be read: " + r.out + r.err
		}
		return ""
	})
	answers(t, a, "SELECT * FROM pages AS OF TICK "+first+" ORDER BY page", `{"page":"a","n":1}`, `{"page":"b","n":2}`)
}

// TestExplainAnalyze tells how views and queries do.
func TestExplainAnalyze(t *testing.T) {
	nodes := cluster(t, 3)
	a := nodes[0].grpc
	answer(t, a, "json", `CREATE STREAM bids (auction BIGINT, price BIGINT);
		CREATE TABLE people (id BIGINT PRIMARY KEY, name TEXT);
		CREATE MATERIALIZED VIEW totals AS SELECT auction, sum(price) AS total FROM bids WHERE price > 10 GROUP BY auction;
		CREATE MATERIALIZED VIEW named AS SELECT p.name, t.total FROM totals t JOIN people p ON p.id = t.auction;
		INSERT INTO people SELECT g, 'p' || g FROM generate_series(1, 50) AS x(g);
		INSERT INTO bids SELECT g % 100, g FROM generate_series(1, 1000) AS x(g)`)
	answers(t, a, `SELECT count(*) AS n FROM named`, `{"n":50}`)
	eventually(t, func() string { // figures come with the next flush, and state with what is stored
		got := explained(t, a, "EXPLAIN ANALYZE totals")
		for _, want := range []string{
			"materialized view totals: live, 100 rows at tick ", "ms behind", "scan: stream bids, columns auction, price (1000 rows)",
			"filter: price > 10 (990 rows)", "1000 rows in, ", "aggregate (final): sum(price), by auction (", "rows, state ", "exchange: by hash of auction",
		} {
			if !strings.Contains(got, want) {
				return fmt.Sprintf("no %q in\n%s", want, got)
			}
		}
		return ""
	})
	got := explained(t, a, "EXPLAIN ANALYZE named")
	for _, want := range []string{"scan: view totals", "scan: table people", "join (inner)", "50 rows at tick"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	got = explained(t, a, "EXPLAIN ANALYZE SELECT name FROM people WHERE id > 45 ORDER BY name LIMIT 2")
	for _, want := range []string{"2 rows at tick ", "scan: table people, columns id, name (50 rows)", "filter: id > 45 (5 rows)", "input: rows of stage 0 (5 rows)"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if got := explained(t, a, "EXPLAIN people"); !strings.Contains(got, "log of table people") {
		t.Errorf("EXPLAIN people:\n%s", got)
	}
	fails(t, a, "EXPLAIN ANALYZE bids", "is a stream")
}
