package test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
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
	eventually(t, func() string { // a node that is slow to tell its figures is left out
		got := explained(t, a, "EXPLAIN ANALYZE named")
		for _, want := range []string{"scan: view totals", "scan: table people", "join (inner)", "50 rows at tick"} {
			if !strings.Contains(got, want) {
				return fmt.Sprintf("no %q in\n%s", want, got)
			}
		}
		return ""
	})
	got := explained(t, a, "EXPLAIN ANALYZE SELECT name FROM people WHERE id > 45 ORDER BY name LIMIT 2")
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

// TestIndexes finds rows of views and tables by indexes that were made before and after them, on three nodes, also after one died.
func TestIndexes(t *testing.T) {
	nodes := cluster(t, 3)
	a := nodes[0].grpc
	answer(t, a, "json", `CREATE STREAM sales (shop BIGINT, item TEXT, price BIGINT);
		CREATE MATERIALIZED VIEW items AS SELECT item, max(shop) AS shop, sum(price) AS total FROM sales GROUP BY item;
		CREATE MATERIALIZED VIEW dear AS SELECT shop, item, price FROM sales WHERE price >= 0;
		CREATE MATERIALIZED VIEW shops AS SELECT DISTINCT shop FROM (SELECT shop, count(*) FROM sales GROUP BY shop) x;
		CREATE TABLE people (id BIGINT PRIMARY KEY, city TEXT);
		CREATE INDEX ON shops (shop);
		CREATE INDEX ON dear (shop);
		INSERT INTO sales SELECT g % 100, 'item ' || (g % 500), g FROM generate_series(1, 3000) AS x(g);
		INSERT INTO people SELECT g, 'city ' || (g % 20) FROM generate_series(1, 500) AS x(g)`)
	answer(t, a, "json", `CREATE INDEX by_shop ON items (shop); CREATE INDEX people_city ON people (city); CREATE INDEX IF NOT EXISTS by_shop ON items (shop)`)
	fails(t, a, `CREATE INDEX by_shop ON people (id)`, "already exists")
	fails(t, a, `CREATE INDEX i ON sales (shop)`, "is a stream")
	ready := func(addr string) {
		t.Helper()
		eventually(t, func() string {
			for _, row := range sql(t, addr, "SHOW INDEXES") {
				if row["state"] != "ready" {
					return fmt.Sprint(row)
				}
			}
			return ""
		})
	}
	ready(a)
	check := func(addr string) {
		t.Helper()
		answers(t, addr, `SELECT item, total FROM items WHERE shop = 7 ORDER BY item`, `{"item":"item 107","total":8142}`, `{"item":"item 207","total":8742}`,
			`{"item":"item 307","total":9342}`, `{"item":"item 407","total":9942}`, `{"item":"item 7","total":7542}`)
		answers(t, addr, `SELECT count(*) AS n, sum(price) AS sum FROM dear WHERE shop = 7 AND price > 1`, `{"n":30,"sum":43710}`)
		answers(t, addr, `SELECT shop FROM shops WHERE shop > 97 ORDER BY 1`, `{"shop":98}`, `{"shop":99}`)
		answers(t, addr, `SELECT count(*) AS n, min(id) AS least FROM people WHERE city = 'city 3'`, `{"n":25,"least":3}`)
	}
	check(a)
	for query, scanned := range map[string]string{
		`SELECT item FROM items WHERE shop = 7`:       "columns item, shop (5 rows)",
		`SELECT price FROM dear WHERE shop = 7`:       "columns shop, price (30 rows)",
		`SELECT id FROM people WHERE city = 'city 3'`: "columns id, city (25 rows)",
	} {
		if got := explained(t, a, "EXPLAIN ANALYZE "+query); !strings.Contains(got, scanned) {
			t.Errorf("%s: no %q in\n%s", query, scanned, got)
		}
	}
	before := tickOf(t, a, "people")
	answer(t, a, "json", `UPDATE people SET city = 'city 3' WHERE id = 5; DELETE FROM people WHERE id = 3; INSERT INTO sales VALUES (7, 'item 8', 1)`)
	answers(t, a, `SELECT count(*) AS n, min(id) AS least FROM people WHERE city = 'city 3'`, `{"n":25,"least":5}`)
	answers(t, a, `SELECT count(*) AS n, min(id) AS least FROM people AS OF TICK `+before+` WHERE city = 'city 3'`, `{"n":25,"least":3}`)
	answers(t, a, `SELECT count(*) AS n FROM people AS OF TICK `+before+` WHERE city = 'city 5'`, `{"n":25}`)
	answer(t, a, "json", `UPDATE people SET city = 'city 5' WHERE id = 5; INSERT INTO people VALUES (3, 'city 3')`)
	nodes[2].kill()
	check(a)
	check(nodes[1].grpc)
	answer(t, a, "json", `DROP INDEX people_city; DROP INDEX IF EXISTS people_city`)
	fails(t, a, `DROP INDEX people_city`, "does not exist")
	check(a)
	ready(a)
	check(a)
}

// viewStates returns the states that SHOW VIEWS gives a view, one for each that has its name.
func viewStates(t *testing.T, addr, name string) []string {
	t.Helper()
	var out []string
	for _, v := range sql(t, addr, "SHOW VIEWS") {
		if v["name"] == name {
			out = append(out, v["state"].(string))
		}
	}
	return out
}

// TestReplace replaces views while they are read and subscribed to. Each answer is the old query's or the new one's, and once
// somebody has seen the new one nobody sees the old one at a later tick.
func TestReplace(t *testing.T) {
	nodes := cluster(t, 3)
	a := nodes[0].grpc
	answer(t, a, "json", `CREATE STREAM orders (customer BIGINT, amount BIGINT) WITH (key = 'customer');
		CREATE MATERIALIZED VIEW spent AS SELECT customer, sum(amount) AS total FROM orders GROUP BY customer;
		CREATE MATERIALIZED VIEW spent_again AS SELECT customer, sum(amount) AS total FROM orders GROUP BY customer;
		CREATE INDEX spent_total ON spent (total);
		INSERT INTO orders SELECT g % 10, 1 FROM generate_series(1, 1000) AS x(g)`)
	answers(t, a, `SELECT sum(total) AS s FROM spent`, `{"s":1000}`)
	sub := track(t, nodes[1].grpc, "SUBSCRIBE TO spent")
	sub.awaits(t, func(rows map[string]int) bool { return len(rows) == 10 })

	// Readers on all nodes note what they see at which tick.
	type seen struct {
		tick int64
		sum  int64
	}
	var mu sync.Mutex
	var all []seen
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for _, n := range nodes {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r := cli(t, nil, "sql", "--addr", n.grpc, "--format", "json", "-c", "SELECT current_tick() AS tick, sum(total)::bigint AS s FROM spent")
				if r.code != 0 {
					t.Errorf("a reader got: %s", r.err)
					return
				}
				row := rows(t, r.out)[0]
				tick, _ := row["tick"].(json.Number).Int64()
				sum, _ := row["s"].(json.Number).Int64()
				mu.Lock()
				all = append(all, seen{tick, sum})
				mu.Unlock()
			}
		})
	}
	answer(t, a, "json", `CREATE OR REPLACE MATERIALIZED VIEW spent AS SELECT customer, sum(amount) * 5 AS total FROM orders WHERE customer < 5 GROUP BY customer`)
	eventually(t, func() string {
		if r := answer(t, nodes[2].grpc, "json", `SELECT sum(total) AS s FROM spent`); !strings.Contains(r, "2500") {
			return "still " + r
		}
		return ""
	})
	close(stop)
	readers.Wait()
	slices.SortFunc(all, func(x, y seen) int { return cmp.Or(cmp.Compare(x.tick, y.tick), cmp.Compare(x.sum, y.sum)) })
	for i, s := range all {
		if s.sum != 1000 && s.sum != 2500 || i > 0 && s.sum == 1000 && all[i-1].sum == 2500 {
			t.Fatalf("at tick %d the sum is %d, after %d at %d", s.tick, s.sum, all[i-1].sum, all[i-1].tick)
		}
	}
	t.Logf("%d answers", len(all))
	sub.awaits(t, func(rows map[string]int) bool { return len(rows) == 5 && rows[`0|500`] == 1 && rows[`4|500`] == 1 })
	if n := sub.ticksBetween(10, 5); n > 1 {
		t.Errorf("the subscriber saw %d ticks with something in between", n)
	}
	answer(t, a, "json", `INSERT INTO orders VALUES (1, 100), (9, 100)`)
	sub.awaits(t, func(rows map[string]int) bool { return rows[`1|1000`] == 1 && len(rows) == 5 })
	answers(t, a, `SELECT customer FROM spent WHERE total = 1000`, `{"customer":1}`)

	// What would not do is refused, and the view stays.
	answer(t, a, "json", `CREATE MATERIALIZED VIEW over_spent AS SELECT count(*) AS n FROM spent`)
	fails(t, a, `CREATE OR REPLACE MATERIALIZED VIEW spent AS SELECT customer, count(*) AS total FROM orders GROUP BY customer`, "over_spent")
	fails(t, a, `CREATE OR REPLACE MATERIALIZED VIEW orders AS SELECT 1 AS a FROM spent`, "is a stream")
	fails(t, a, `CREATE OR REPLACE MATERIALIZED VIEW spent_again AS SELECT customer, total FROM spent_again`, "can't read the one")
	answer(t, a, "json", `DROP MATERIALIZED VIEW over_spent`)

	// Other columns end a subscription; the node that leads may die while a view is built.
	other := track(t, nodes[1].grpc, "SUBSCRIBE TO spent")
	other.awaits(t, func(rows map[string]int) bool { return len(rows) == 5 })
	answer(t, a, "json", `CREATE OR REPLACE MATERIALIZED VIEW spent AS SELECT customer, count(*) AS n, max(amount) AS most FROM orders GROUP BY customer`)
	other.ends(t, "other columns")
	eventually(t, func() string {
		if r := cli(t, nil, "sql", "--addr", a, "--format", "json", "-c", `SELECT n, most FROM spent WHERE customer = 1`); r.out != "{\"n\":101,\"most\":100}\n" {
			return r.out + r.err
		}
		return ""
	})
	answer(t, a, "json", `CREATE OR REPLACE MATERIALIZED VIEW spent AS SELECT customer, min(amount) AS least FROM orders GROUP BY customer`)
	nodes[0].kill()
	b := nodes[1].grpc
	eventually(t, func() string {
		if r := cli(t, nil, "sql", "--addr", b, "--format", "json", "-c", `SELECT least FROM spent WHERE customer = 1`); r.out != "{\"least\":1}\n" {
			return r.out + r.err
		}
		return ""
	})
	eventually(t, func() string {
		if s := viewStates(t, b, "spent"); len(s) != 1 || s[0] != "live" {
			return fmt.Sprint(s)
		}
		return ""
	})
	answer(t, b, "json", `DROP MATERIALIZED VIEW spent; DROP MATERIALIZED VIEW spent_again; DROP STREAM orders`)
}

// tracker is a subscription and the rows that its changes add up to.
type tracker struct {
	cmd   *exec.Cmd
	mu    sync.Mutex
	rows  map[string]int
	sizes []int // of rows after each tick
	tick  string
	errs  bytes.Buffer
	done  chan struct{}
	news  chan struct{}
}

// track starts a subscription. Rows are columns joined by |.
func track(t *testing.T, addr, statement string) *tracker {
	t.Helper()
	f := &tracker{rows: map[string]int{}, done: make(chan struct{}), news: make(chan struct{}, 1)}
	f.cmd = exec.Command(binary, "sql", "--addr", addr, "--format", "json", "-c", statement)
	f.cmd.Stderr = &f.errs
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill()
		<-f.done
	})
	go func() {
		defer close(f.done)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			f.take(sc.Text())
		}
		_ = f.cmd.Wait()
	}()
	return f
}

func (f *tracker) take(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() {
		select {
		case f.news <- struct{}{}:
		default:
		}
	}()
	dec := json.NewDecoder(strings.NewReader(line))
	var tick, weight string
	var cols []string
	_, _ = dec.Token()
	for dec.More() {
		key, _ := dec.Token()
		var v json.RawMessage
		if dec.Decode(&v) != nil {
			return
		}
		switch key {
		case "_tick":
			tick = string(v)
		case "_weight":
			weight = string(v)
		case "_progress":
			return
		default:
			cols = append(cols, string(v))
		}
	}
	if tick != f.tick {
		f.sizes, f.tick = append(f.sizes, len(f.rows)), tick
	}
	w, _ := strconv.Atoi(weight)
	row := strings.Join(cols, "|")
	if f.rows[row] += w; f.rows[row] == 0 {
		delete(f.rows, row)
	}
}

// ticksBetween counts the ticks after which there were rows, but neither a nor b.
func (f *tracker) ticksBetween(a, b int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, size := range f.sizes {
		if size != 0 && size != a && size != b {
			n++
		}
	}
	return n
}

func (f *tracker) awaits(t *testing.T, ok func(map[string]int) bool) {
	t.Helper()
	deadline := time.After(stepTimeout)
	for {
		f.mu.Lock()
		good, now := ok(f.rows), fmt.Sprint(f.rows)
		f.mu.Unlock()
		if good {
			return
		}
		select {
		case <-f.news:
		case <-f.done:
			t.Fatalf("the subscription ended: %s; it has %s", f.errs.String(), now)
		case <-deadline:
			t.Fatalf("the subscription has %s", now)
		}
	}
}

func (f *tracker) ends(t *testing.T, with string) {
	t.Helper()
	select {
	case <-f.done:
		if !strings.Contains(f.errs.String(), with) {
			t.Errorf("the subscription ended with %q", f.errs.String())
		}
	case <-time.After(stepTimeout):
		t.Errorf("the subscription goes on")
	}
}
