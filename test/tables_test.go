package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestTables(t *testing.T) {
	s := serve(t, "tables")
	a := s.grpc
	answer(t, a, "json", `CREATE TABLE airports (code TEXT PRIMARY KEY, city TEXT NOT NULL, runways BIGINT);
		INSERT INTO airports VALUES ('JFK', 'New York', 4), ('LGA', 'New York', 2), ('SFO', 'San Francisco', 4)`)
	all := `SELECT * FROM airports ORDER BY code`
	fails(t, a, `INSERT INTO airports VALUES ('OAK', 'Oakland', 4), ('JFK', 'x', 1)`, "(code)=(JFK) already")
	fails(t, a, `INSERT INTO airports VALUES ('OAK', 'Oakland', 4), ('OAK', 'x', 1)`, "(code)=(OAK) already")
	fails(t, a, `INSERT INTO airports VALUES ('OAK', NULL, 4)`, "not-null")
	fails(t, a, `INSERT INTO airports VALUES (NULL, 'x', 4)`, "not-null")
	fails(t, a, `UPDATE airports SET city = NULL`, "not-null")
	fails(t, a, `UPDATE airports SET runways = runways / 0`, "division by zero")
	answers(t, a, all, `{"code":"JFK","city":"New York","runways":4}`, `{"code":"LGA","city":"New York","runways":2}`, `{"code":"SFO","city":"San Francisco","runways":4}`)
	answer(t, a, "json", `UPDATE airports SET runways = runways + 1 WHERE city LIKE 'New%';
		INSERT INTO airports VALUES ('SFO', 'x', 1), ('ZRH', 'Zurich', NULL) ON CONFLICT (code) DO NOTHING; DELETE FROM airports WHERE code = 'LGA'`)
	answers(t, a, all, `{"code":"JFK","city":"New York","runways":5}`, `{"code":"SFO","city":"San Francisco","runways":4}`, `{"code":"ZRH","city":"Zurich","runways":null}`)
	// Records replace and delete rows; what has no key or a NULL where none may be is a dead letter.
	sends(t, a, "airports", `{"code":"ZRH","city":"Zürich","runways":3}`, `{"code":"SFO","_deleted":true}`, `{"city":"Nowhere"}`, `{"code":"JFK"}`, `{"code":"nope","_deleted":true}`)
	answers(t, a, all, `{"code":"JFK","city":"New York","runways":5}`, `{"code":"ZRH","city":"Zürich","runways":3}`)
	shown := one(t, a, "SHOW TABLES")
	keysAre(t, answer(t, a, "json", "SHOW TABLES"), "name", "format", "key", "rows", "records", "bytes", "dead", "state_bytes")
	for column, want := range map[string]string{"name": "airports", "format": "json", "key": "code", "rows": "2", "records": "12", "dead": "2"} {
		if got := fmt.Sprint(shown[column]); got != want {
			t.Errorf("SHOW TABLES: %s is %s, want %s", column, got, want)
		}
	}
	if number(shown["bytes"]) <= 0 {
		t.Errorf("SHOW TABLES: %v", shown)
	}
	fails(t, a, `DROP STREAM airports`, "is a table")
	answer(t, a, "json", `DROP TABLE airports`)
	fails(t, a, all, "airports")
}

func TestTableKeyOfSeveralColumns(t *testing.T) {
	a := serve(t, "table-keys").grpc
	answer(t, a, "json", `CREATE TABLE seats (flight BIGINT, seat TEXT, at TIMESTAMPTZ, who TEXT, PRIMARY KEY (seat, flight));
		INSERT INTO seats (flight, seat, who) VALUES (1, '1A', 'Ann'), (1, '1B', 'Bob'), (2, '1A', 'Cy')`)
	fails(t, a, `INSERT INTO seats (flight, seat) VALUES (1, '1A')`, "(seat, flight)=(1A, 1) already")
	answer(t, a, "json", `UPDATE seats SET who = 'Dee', at = '2026-01-01' WHERE flight = 1 AND seat = '1B'; DELETE FROM seats WHERE who = 'Ann'`)
	answers(t, a, `SELECT flight, seat, at, who FROM seats ORDER BY 1, 2`,
		`{"flight":1,"seat":"1B","at":"2026-01-01T00:00:00.000000Z","who":"Dee"}`, `{"flight":2,"seat":"1A","at":null,"who":"Cy"}`)
}

// TestTableStatementsExclude lets statements at three nodes change one row at once, and a node die meanwhile: every one
// that was told to have worked counts once, and no key is inserted twice.
func TestTableStatementsExclude(t *testing.T) {
	nodes := cluster(t, 3)
	answer(t, nodes[0].grpc, "json", `CREATE TABLE counters (name TEXT PRIMARY KEY, n BIGINT); INSERT INTO counters VALUES ('x', 0)`)
	var mu sync.Mutex
	added, unknown, inserted := 0, 0, map[int]int{}
	var wg sync.WaitGroup
	for w := range 6 {
		addr := nodes[w%2].grpc // the third one dies
		wg.Go(func() {
			for i := range 12 {
				if w == 0 && i == 3 {
					nodes[2].kill()
				}
				r := cli(t, nil, "sql", "--addr", addr, "-c", "UPDATE counters SET n = n + 1 WHERE name = 'x'")
				mu.Lock()
				switch {
				case r.code == 0:
					added++
				case strings.Contains(r.err, "unknown"):
					unknown++
				}
				mu.Unlock()
				r = cli(t, nil, "sql", "--addr", addr, "-c", fmt.Sprintf("INSERT INTO counters VALUES ('%d', 1)", i))
				mu.Lock()
				if r.code == 0 {
					inserted[i]++
				} else if !strings.Contains(r.err, "already") && !strings.Contains(r.err, "unavailable") && !strings.Contains(r.err, "retry") {
					t.Errorf("INSERT: %s", r.err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for key, times := range inserted {
		if times > 1 {
			t.Errorf("key %d was inserted %d times", key, times)
		}
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		got, err := one(t, nodes[0].grpc, "SELECT n FROM counters WHERE name = 'x'")["n"].(json.Number).Int64()
		if err != nil {
			t.Fatal(err)
		}
		n := int(got)
		if n >= added && n <= added+unknown {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of 72 updates worked, %d may have, and the counter is at %d", added, unknown, n)
		}
	}
	if added < 12 {
		t.Errorf("only %d updates worked", added)
	}
}

// TestTableStatementAfterKill: a node that has lost its views' state works it out again from the logs; a statement that
// comes meanwhile finds the rows that were there, and not what there was at some older tick.
func TestTableStatementAfterKill(t *testing.T) {
	s := serve(t, "tables")
	answer(t, s.grpc, "json", `CREATE TABLE counters (name TEXT PRIMARY KEY, n BIGINT)`)
	for i := range 10 {
		answer(t, s.grpc, "json", fmt.Sprintf(`INSERT INTO counters SELECT 'filler %d of ' || g, g FROM generate_series(1, 20000) AS x(g)`, i))
	}
	answer(t, s.grpc, "json", `INSERT INTO counters VALUES ('x', 0)`)
	const rounds = 4
	for i := range rounds {
		s.kill()
		if err := os.RemoveAll(filepath.Join(s.dir, "state")); err != nil {
			t.Fatal(err)
		}
		s.start()
		answer(t, s.grpc, "json", `UPDATE counters SET n = n + 1 WHERE name = 'x'`)
		answer(t, s.grpc, "json", `DELETE FROM counters WHERE n < 0`)
		answers(t, s.grpc, `SELECT n FROM counters WHERE name = 'x'`, fmt.Sprintf(`{"n":%d}`, i+1))
	}
}

// TestTableReturning checks RETURNING, ON CONFLICT DO UPDATE and DEFAULT through PostgreSQL's extended protocol.
func TestTableReturning(t *testing.T) {
	s := serve(t, "returning")
	c := pgConnect(t, s, "")
	pgExec(t, c, `CREATE TABLE stock (item TEXT PRIMARY KEY, n BIGINT NOT NULL DEFAULT 1, note TEXT DEFAULT 'new' || '!')`)
	got := func(sql string, args ...any) string {
		t.Helper()
		rows, err := c.Query(t.Context(), sql, args...)
		if err != nil {
			return pgState(err)
		}
		all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
			v, err := r.Values()
			return fmt.Sprint(v), err
		})
		if err != nil {
			return pgState(err)
		}
		return rows.CommandTag().String() + strings.Join(all, "")
	}
	const upsert = `INSERT INTO stock (item, n) VALUES ($1, $2), ($3, DEFAULT) ON CONFLICT (item) DO UPDATE SET n = stock.n + excluded.n
		WHERE stock.n < 100 RETURNING item, n, note`
	for _, step := range []struct {
		sql  string
		args []any
		want string
	}{
		{upsert, []any{"nut", 5, "bolt"}, "INSERT 0 2[nut 5 new!][bolt 1 new!]"},
		{upsert, []any{"nut", 200, "bolt"}, "INSERT 0 2[nut 205 new!][bolt 2 new!]"},
		{upsert, []any{"nut", 1, "bolt"}, "INSERT 0 1[bolt 3 new!]"},
		{upsert, []any{"bolt", 1, "bolt"}, "21000"},
		{`INSERT INTO stock VALUES ('nut', NULL) ON CONFLICT (item) DO UPDATE SET n = 1`, nil, "23502"},
		{`INSERT INTO stock VALUES ('nut', 1) ON CONFLICT (item) DO UPDATE SET n = NULL`, nil, "23502"},
		{`INSERT INTO stock VALUES ('nut', 1) ON CONFLICT (item) DO UPDATE SET note = note`, nil, "42702"},
		{`INSERT INTO stock VALUES ('nut', 1) ON CONFLICT (item) DO UPDATE SET n = stock.n / 0`, nil, "22012"},
		{`INSERT INTO stock VALUES ('nail') RETURNING n / 0`, nil, "22012"},
		{`UPDATE stock SET n = n + $1, note = DEFAULT WHERE item = $2 RETURNING n, n - $1 AS was, note`, []any{10, "bolt"}, "UPDATE 1[13 3 new!]"},
		{`DELETE FROM stock WHERE n > $1 RETURNING *`, []any{100}, "DELETE 1[nut 205 new!]"},
		{`DELETE FROM stock WHERE n > $1 RETURNING *`, []any{100}, "DELETE 0"},
		{`SELECT * FROM stock`, nil, "SELECT 1[bolt 13 new!]"},
	} {
		if g := got(step.sql, step.args...); g != step.want {
			t.Errorf("%s %v gave %s, want %s", step.sql, step.args, g, step.want)
		}
	}
	// In the order in which they were given, though they go to many partitions.
	if g, want := got(`INSERT INTO stock (item) SELECT n::text FROM generate_series(1, 9) AS g (n) ORDER BY n RETURNING item`),
		"INSERT 0 9[1][2][3][4][5][6][7][8][9]"; g != want {
		t.Errorf("%s, want %s", g, want)
	}
	if g := pgExec(t, c, `TRUNCATE stock`); g != "TRUNCATE TABLE" {
		t.Error(g)
	}
	// COPY obeys keys and fills in defaults.
	in := func(sql, data string) error {
		_, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(data), sql)
		return err
	}
	if err := in("COPY stock (item) FROM STDIN", "a\nb\n"); err != nil {
		t.Error(err)
	}
	if err := in("COPY stock (item, n) FROM STDIN", "c\t1\na\t1\n"); pgState(err) != "23505" {
		t.Errorf("a key that exists: %v", err)
	}
	if err := in("COPY stock (item, n) FROM STDIN", "c\t\\N\n"); pgState(err) != "23502" {
		t.Errorf("NULL where none may be: %v", err)
	}
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := in("COPY stock (item, n) FROM STDIN", "d\t4\n"); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if g, want := got(`SELECT * FROM stock ORDER BY item`), "SELECT 3[a 1 new!][b 1 new!][d 4 new!]"; g != want {
		t.Errorf("%s, want %s", g, want)
	}
	// gRPC's statements return rows as well, and streams have defaults too.
	answers(t, s.grpc, `DELETE FROM stock WHERE item = 'd' RETURNING item, n + 1 AS next`, `{"item":"d","next":5}`)
	answers(t, s.grpc, `CREATE STREAM log (what TEXT DEFAULT 'x', n BIGINT); INSERT INTO log (n) VALUES (1), (2) RETURNING n, what`,
		`{"n":1,"what":"x"}`, `{"n":2,"what":"x"}`)
}
