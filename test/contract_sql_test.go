package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// acknowledged is the highest tick that an append of these tests was acknowledged with. A session of its own, as each
// command is, sees what others have appended from that tick on.
var acknowledged atomic.Int64

func acknowledge(tick int64) int64 {
	for old := acknowledged.Load(); tick > old && !acknowledged.CompareAndSwap(old, tick); old = acknowledged.Load() {
	}
	return tick
}

// seen makes a session see all that was acknowledged.
func seen() string { return fmt.Sprintf("SET min_tick = %d; ", acknowledged.Load()) }

// changing tells statements that append something.
var changing = regexp.MustCompile(`(?i)\b(INSERT|UPDATE|DELETE|TRUNCATE)\b`)

// session runs statements in a session of their own, which sees all that was acknowledged, and what it appends is seen by the next
// one. What they print is JSON.
func session(t *testing.T, addr, statements string) result {
	t.Helper()
	args := []string{"sql", "--addr", addr, "--format", "json", "-c", seen() + statements}
	if !changing.MatchString(statements) {
		return cli(t, nil, args...)
	}
	r := cli(t, nil, append(args, "-c", "SELECT current_tick() AS seen_tick")...)
	if at := strings.LastIndex(r.out, `{"seen_tick":`); r.code == 0 && at >= 0 {
		acknowledge(number(strings.Trim(r.out[at:], `{"sen_tick:}`+"\n")))
		r.out = r.out[:at]
	}
	return r
}

// answer runs statements, which see all that was acknowledged, and returns what was printed; it must be a success.
func answer(t *testing.T, addr, format, statements string) string {
	t.Helper()
	var r result
	switch format {
	case "json":
		r = session(t, addr, statements)
	case "table": // which prints the tag of SET
		r = cli(t, nil, "sql", "--addr", addr, "--format", format, "-c", statements)
	default:
		r = cli(t, nil, "sql", "--addr", addr, "--format", format, "-c", seen()+statements)
	}
	if r.code != 0 || r.err != "" {
		t.Errorf("%s\nexit %d: %s", statements, r.code, r.err)
	}
	return r.out
}

// answers checks what statements print in JSON.
func answers(t *testing.T, addr, statements string, want ...string) {
	t.Helper()
	got := answer(t, addr, "json", statements)
	if w := strings.Join(append(want, ""), "\n"); got != w {
		t.Errorf("%s\ngave\n%swant\n%s", statements, got, w)
	}
}

// fails checks that statements are refused by the cluster.
func fails(t *testing.T, addr, statements string, words ...string) {
	t.Helper()
	r := cli(t, nil, "sql", "--addr", addr, "--format", "json", "-c", statements)
	if r.code != 1 {
		t.Errorf("%s", statements)
	}
	refusedInOneLine(t, r, 1, words...)
}

// sends appends lines and returns the tick of the acknowledgement.
func sends(t *testing.T, addr, stream string, lines ...string) int64 {
	t.Helper()
	r := cli(t, strings.NewReader(strings.Join(lines, "\n")+"\n"), "send", stream, "--addr", addr, "--json")
	if r.code != 0 {
		t.Fatalf("send %s: %+v", stream, r)
	}
	var n, k, tick int64
	var s float64
	if _, err := fmt.Sscanf(r.out, `{"acknowledged":%d,"rejected":%d,"seconds":%f,"tick":%d}`, &n, &k, &s, &tick); err != nil || n != int64(len(lines)) || k != 0 || tick == 0 {
		t.Fatalf("send %s: %q", stream, r.out)
	}
	return acknowledge(tick)
}

// viewStats is a view's line of SHOW VIEWS.
func viewStats(t *testing.T, addr, view string) map[string]any {
	t.Helper()
	for _, r := range sql(t, addr, "SHOW VIEWS") {
		if r["name"] == view {
			return r
		}
	}
	t.Fatalf("SHOW VIEWS has no %q", view)
	return nil
}

func TestContractSQL(t *testing.T) {
	s := serve(t, "solo")
	at := s.grpc
	sql(t, at, `CREATE STREAM types (id TEXT, n BIGINT, d DOUBLE PRECISION, x NUMERIC, b BYTEA, at TIMESTAMPTZ, i INTERVAL, j JSONB, o BOOLEAN) WITH (format = 'json', key = 'id')`)
	sends(t, at, "types",
		`{"id":"a","n":9223372036854775807,"d":"NaN","x":123456789012345678901234567890.50,"b":"\\x00ff","at":"2026-01-01T12:00:01.000001Z","i":"1 mon 2 days 03:04:05.5","j":{"z":1,"a":[1,null]},"o":true}`,
		`{"id":"b","n":-1,"d":"-Infinity","x":"NaN","b":"","at":"2026-01-01 12:00:00+02","i":"-1 day","j":null,"o":false}`,
		`{"id":"c","d":"Infinity","x":0.1,"at":1767268800000001,"j":"text"}`,
		`{"id":"d","d":0.1,"at":"2026-01-01 12:00:00"}`)

	t.Run("json", func(t *testing.T) {
		answers(t, at, "SELECT * FROM types ORDER BY id",
			`{"id":"a","n":9223372036854775807,"d":"NaN","x":123456789012345678901234567890.50,"b":"\\x00ff","at":"2026-01-01T12:00:01.000001Z","i":"1 mon 2 days 03:04:05.5","j":{"a": [1, null], "z": 1},"o":true}`,
			`{"id":"b","n":-1,"d":"-Infinity","x":"NaN","b":"\\x","at":"2026-01-01T10:00:00.000000Z","i":"-1 days","j":null,"o":false}`,
			`{"id":"c","n":null,"d":"Infinity","x":0.1,"b":null,"at":"2026-01-01T12:00:00.000001Z","i":null,"j":"text","o":null}`,
			`{"id":"d","n":null,"d":0.1,"x":null,"b":null,"at":"2026-01-01T12:00:00.000000Z","i":null,"j":null,"o":null}`)
	})
	t.Run("csv and table", func(t *testing.T) {
		const q = `SELECT '' AS e, NULL AS u, 'x,"y"' AS q, true AS o, INTERVAL '1 day' AS i`
		if got, want := answer(t, at, "csv", q), "e,u,q,o,i\n\"\",,\"x,\"\"y\"\"\",t,1 day\n"; got != want {
			t.Errorf("csv %q, want %q", got, want)
		}
		if got, want := answer(t, at, "table", "SELECT 'ab' AS t, 1 AS n; SELECT 1 AS a FROM types WHERE false"),
			" t  | n \n----+---\n ab | 1\n(1 row)\n\n a \n---\n(0 rows)\n\n"; got != want {
			t.Errorf("table %q, want %q", got, want)
		}
		if got := answer(t, at, "table", "CREATE STREAM IF NOT EXISTS types (a BIGINT)"); got != "CREATE STREAM\n" {
			t.Errorf("tag %q", got)
		}
	})
	t.Run("several statements", func(t *testing.T) { severalStatements(t, at) })
	t.Run("transactions", func(t *testing.T) { transactionsOfCommand(t, at) })
	t.Run("hidden columns", func(t *testing.T) {
		// Not in *, but wherever they are named.
		answers(t, at, "SELECT _key, id FROM types WHERE _key = 'a' AND _offset >= 0", `{"_key":"a","id":"a"}`)
		answers(t, at, "SELECT count(*) AS n FROM types WHERE _time <= now() AND _tick <= current_tick() AND _partition BETWEEN 0 AND 7", `{"n":4}`)
		sql(t, at, "CREATE MATERIALIZED VIEW parts AS SELECT _partition, count(*) FROM types GROUP BY _partition")
		want := answer(t, at, "json", "SELECT _partition, count(*) FROM types GROUP BY _partition ORDER BY 1")
		if got := answer(t, at, "json", "SELECT * FROM parts ORDER BY 1"); got != want || strings.Count(got, "_partition") < 1 {
			t.Errorf("view %s, recomputed %s", got, want)
		}
		sql(t, at, "CREATE MATERIALIZED VIEW keys AS SELECT _key, max(_offset) AS o, max(_tick) AS t, max(_time) AS at FROM types GROUP BY _key")
		want = answer(t, at, "json", "SELECT _key, max(_offset) AS o, max(_tick) AS t, max(_time) AS at FROM types GROUP BY _key ORDER BY 1")
		if got := answer(t, at, "json", "SELECT * FROM keys ORDER BY 1"); got != want {
			t.Errorf("view %s, recomputed %s", got, want)
		}
	})
	t.Run("ticks", func(t *testing.T) { ticks(t, at) })
	t.Run("nulls", func(t *testing.T) {
		answers(t, at, `SELECT NULL = NULL AS a, NULL IN (1) AS b, 1 IN (1, NULL) AS c, 2 NOT IN (1, NULL) AS d, NULL AND false AS e, NULL OR true AS f,
			NULL IS NOT DISTINCT FROM NULL AS g, COALESCE(NULL, 2) AS h, NULLIF(1, 1) AS i, 'a' || NULL AS j, NOT NULL AS k, NULL BETWEEN 1 AND 2 AS l, CASE WHEN NULL THEN 1 ELSE 2 END AS m`,
			`{"a":null,"b":null,"c":true,"d":null,"e":false,"f":true,"g":true,"h":2,"i":null,"j":null,"k":null,"l":null,"m":2}`)
		answers(t, at, "SELECT count(*) AS c, count(n) AS k, sum(n) AS s, min(n) AS lo, avg(n) AS m FROM types WHERE id > 'b'", `{"c":2,"k":0,"s":null,"lo":null,"m":null}`)
		answers(t, at, "SELECT DISTINCT n FROM types ORDER BY n DESC", `{"n":null}`, `{"n":9223372036854775807}`, `{"n":-1}`)
		answers(t, at, "SELECT n, count(*) AS c FROM types GROUP BY n HAVING count(*) > 1", `{"n":null,"c":2}`)
		answers(t, at, "SELECT id FROM types ORDER BY id DESC LIMIT 2 OFFSET 1", `{"id":"c"}`, `{"id":"b"}`)
		answers(t, at, "SELECT 'B' < 'a' AS c, 'é' > 'z' AS d", `{"c":true,"d":true}`)
	})
	t.Run("objects", func(t *testing.T) { objects(t, at) })
	t.Run("show", func(t *testing.T) {
		views := answer(t, at, "json", "SHOW VIEWS")
		keysAre(t, strings.SplitN(views, "\n", 2)[0], "name", "state", "progress", "tick", "lag_ms", "rows", "errors", "last_error", "late", "state_bytes", "waits_for")
		keysAre(t, strings.SplitN(answer(t, at, "json", "SHOW STREAMS"), "\n", 2)[0], "name", "format", "key", "records", "bytes", "dead")
		keysAre(t, answer(t, at, "json", "SHOW NODES"), "name", "grpc", "gossip", "http", "zone", "state", "voter", "replicas", "primaries", "pg")
		if d := sql(t, at, "DESCRIBE types"); len(d) != 9 || d[3]["type"] != "numeric" {
			t.Errorf("DESCRIBE: %v", d)
		}
		if e := answer(t, at, "csv", "EXPLAIN SELECT id, count(*) FROM types GROUP BY id"); !strings.Contains(e, "types") || !strings.Contains(e, "aggregate") {
			t.Errorf("EXPLAIN: %s", e)
		}
	})
	t.Run("insert", func(t *testing.T) {
		sql(t, at, "CREATE STREAM ins (a BIGINT, b TEXT, c TIMESTAMPTZ)")
		answers(t, at, "INSERT INTO ins VALUES (1, 'it''s', '2026-01-01'), (1 + 1, NULL, NULL); INSERT INTO ins (b) VALUES (upper('x')); SELECT * FROM ins ORDER BY a",
			`{"a":1,"b":"it's","c":"2026-01-01T00:00:00.000000Z"}`, `{"a":2,"b":null,"c":null}`, `{"a":null,"b":"X","c":null}`)
		fails(t, at, "INSERT INTO ins VALUES ('x')", "bigint", "1:25")
		fails(t, at, "INSERT INTO parts VALUES (1)", "parts")
	})
	t.Run("joins and subqueries", func(t *testing.T) { relations(t, at) })
	t.Run("limits", func(t *testing.T) { limits(t, at) })
	t.Run("errors", func(t *testing.T) { failing(t, at) })
	t.Run("late", func(t *testing.T) { late(t, at) })
	t.Run("existing data", func(t *testing.T) {
		sql(t, at, "CREATE MATERIALIZED VIEW old AS SELECT count(*) AS n FROM types; CREATE MATERIALIZED VIEW fresh WITH (start = 'now') AS SELECT count(*) AS n FROM types")
		answers(t, at, "SELECT * FROM old; SELECT * FROM fresh; INSERT INTO types (id) VALUES ('new'); SELECT * FROM old; SELECT * FROM fresh", `{"n":4}`, `{"n":0}`, `{"n":5}`, `{"n":1}`)
		if v := viewStats(t, at, "old"); v["state"] != "live" || fmt.Sprint(v["progress"]) != "1" {
			t.Errorf("%v", v)
		}
	})
	t.Run("refused by name", func(t *testing.T) {
		for statement, word := range map[string]string{
			"SELECT * FROM types MATCH_RECOGNIZE (ORDER BY at)": "MATCH_RECOGNIZE", "UPDATE types SET n = 1": "only tables", "WITH RECURSIVE t AS (SELECT 1) SELECT * FROM t": "RECURSIVE",
			"SELECT nope FROM types": "1:8", "SELECT * FROM typse": "types", "SELEC 1": "1:1", "SELECT 'open": "1:8", "SHOW nope": "nope", "SET nope = 1": "nope",
		} {
			fails(t, at, statement, word)
		}
	})
}

func severalStatements(t *testing.T, at string) {
	r := cli(t, nil, "sql", "--addr", at, "--format", "json", "-c", "SELECT 1 AS a; SELECT 2 AS b", "-c", "SELECT 1 / 0", "-c", "SELECT 3")
	if r.out != "{\"a\":1}\n{\"b\":2}\n" {
		t.Errorf("stdout %q", r.out)
	}
	refusedInOneLine(t, r, 1, "division by zero")
	f := filepath.Join(t.TempDir(), "s.sql")
	const script = "SELECT 1 AS a; -- one\nSELECT ';' AS b;\nSELECT\n nope FROM types;\nSELECT 3"
	if err := os.WriteFile(f, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []result{
		cli(t, nil, "sql", "--addr", at, "--format", "json", f),
		cli(t, strings.NewReader(script), "sql", "--addr", at, "--format", "json"),
	} {
		if r.out != "{\"a\":1}\n{\"b\":\";\"}\n" {
			t.Errorf("stdout %q", r.out)
		}
		refusedInOneLine(t, r, 1, `"nope"`, "4:2")
	}
	if r := cli(t, strings.NewReader(""), "sql", "--addr", at); r.code != 0 || r.out+r.err != "" {
		t.Errorf("nothing to run: %+v", r)
	}
}

func ticks(t *testing.T, at string) {
	sql(t, at, "CREATE STREAM ticked (a BIGINT); CREATE MATERIALIZED VIEW tickedn AS SELECT count(*) AS n FROM ticked")
	for i := range 5 {
		tick := sends(t, at, "ticked", `{"a":1}`)
		out := sql(t, at, fmt.Sprintf("SET min_tick = %d; SELECT n, current_tick() AS t FROM tickedn", tick))
		if fmt.Sprint(out[0]["n"]) != fmt.Sprint(i+1) || number(out[0]["t"]) < tick {
			t.Fatalf("after %d records and tick %d: %v", i+1, tick, out)
		}
	}
	// In one session the tick never goes back, an insert is seen by what follows, and the same tick recomputes a view.
	last := int64(0)
	for _, r := range sql(t, at, strings.Repeat("SELECT current_tick() AS t; INSERT INTO ticked VALUES (2); SELECT current_tick() AS t FROM tickedn; ", 5)) {
		if tick := number(r["t"]); tick < last {
			t.Errorf("tick %d after %d", tick, last)
		} else {
			last = tick
		}
	}
	answers(t, at, fmt.Sprintf("SET min_tick = %d; SELECT n FROM tickedn", last), `{"n":10}`)
	// A quiet machine's newest tick is at most 240 ms old; allow for a busy one.
	asked := time.Now()
	tick := time.UnixMicro(number(one(t, at, "SELECT current_tick() AS t")["t"]))
	if told := time.Now(); tick.Before(asked.Add(-10*time.Second)) || tick.After(told.Add(time.Second)) {
		t.Errorf("current_tick() is %v, asked at %v, told at %v", tick, asked, told)
	}
	answers(t, at, "SET min_tick = 7; SHOW min_tick", `{"min_tick":"7"}`)
	fails(t, at, "SET min_tick = 'x'", "min_tick")
	fails(t, at, "SET max_staleness = 'x'", "max_staleness")
}

func number(v any) int64 {
	var n int64
	fmt.Sscan(fmt.Sprint(v), &n)
	return n
}

func objects(t *testing.T, at string) {
	sql(t, at, "CREATE STREAM base (a BIGINT); CREATE MATERIALIZED VIEW dep AS SELECT count(*) AS n FROM base")
	fails(t, at, "DROP STREAM base", `"base"`, `"dep"`, "CASCADE")
	fails(t, at, "DROP STREAM dep", `"dep"`)
	fails(t, at, "DROP STREAM nothing", `"nothing"`)
	fails(t, at, "DROP MATERIALIZED VIEW nothing", `"nothing"`)
	fails(t, at, "CREATE STREAM base (a BIGINT)", `"base"`)
	fails(t, at, "CREATE MATERIALIZED VIEW dep AS SELECT count(*) AS n FROM base", `"dep"`)
	fails(t, at, "CREATE STREAM dep (a BIGINT)", `"dep"`)
	fails(t, at, "CREATE STREAM twice (a BIGINT, a TEXT)", `"a"`)
	fails(t, at, "CREATE STREAM bad (a BIGINT) WITH (key = 'b')", `"b"`)
	fails(t, at, "CREATE STREAM bad (a BIGINT) WITH (nonsense = 'b')", "nonsense")
	answers(t, at, "CREATE STREAM IF NOT EXISTS base (z TEXT); CREATE MATERIALIZED VIEW IF NOT EXISTS dep AS SELECT 1 AS x FROM base; DROP STREAM IF EXISTS nothing; DROP MATERIALIZED VIEW IF EXISTS nothing")
	answers(t, at, "INSERT INTO base VALUES (1); SELECT * FROM dep", `{"n":1}`)
	answers(t, at, "DROP STREAM base CASCADE")
	fails(t, at, "SELECT * FROM dep", `"dep"`)
	fails(t, at, "SELECT * FROM base", `"base"`)
	// The same name again is a new, empty stream.
	answers(t, at, "CREATE STREAM base (a BIGINT); SELECT count(*) AS n FROM base", `{"n":0}`)
	answers(t, at, "DROP STREAM base")
}

func limits(t *testing.T, at string) {
	columns := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, ", c%d BIGINT", i)
		}
		return b.String()[2:]
	}
	run := func(text string) result {
		return cli(t, strings.NewReader(text), "sql", "--addr", at, "--format", "json")
	}
	refusedInOneLine(t, run("SELECT '"+strings.Repeat("x", 1<<20)+"'"), 1, "1048576")
	if r := run("SELECT length('" + strings.Repeat("x", 1<<20-100) + "') AS n"); r.out != "{\"n\":1048476}\n" {
		t.Errorf("%+v", r)
	}
	refusedInOneLine(t, run("SELECT "+strings.Repeat("abs(", 300)+"1"+strings.Repeat(")", 300)), 1, "256")
	refusedInOneLine(t, run("SELECT "+strings.Repeat("(", 100_000)+"1"+strings.Repeat(")", 100_000)), 1, "256")
	refusedInOneLine(t, run("CREATE STREAM wide ("+columns(1601)+")"), 1, "1600")
	refusedInOneLine(t, run("SELECT 1"+strings.Repeat(", 1", 1600)), 1, "1600")
	if r := run("CREATE STREAM wide (" + columns(1600) + "); INSERT INTO wide (c1599) VALUES (3); SELECT c1599 FROM wide"); r.out != "{\"c1599\":3}\n" {
		t.Errorf("%+v", r)
	}
}

// failing checks expressions that fail: NULL and counted in a live view, errors in a statement.
func failing(t *testing.T, at string) {
	sql(t, at, `CREATE STREAM bad (k TEXT, v BIGINT);
		CREATE MATERIALIZED VIEW badv AS SELECT k, v, 10 / v AS q, v * 9223372036854775807 AS o, k::BIGINT AS c FROM bad;
		CREATE MATERIALIZED VIEW bads AS SELECT count(*) AS n, count(10 / v) AS q FROM bad WHERE k <> 'z'`)
	sends(t, at, "bad", `{"k":"5","v":2}`, `{"k":"x","v":0}`, `{"k":"7","v":1}`, `{"k":null,"v":null}`)
	answers(t, at, "SELECT * FROM badv ORDER BY v",
		`{"k":"x","v":0,"q":null,"o":0,"c":null}`, `{"k":"7","v":1,"q":10,"o":9223372036854775807,"c":7}`,
		`{"k":"5","v":2,"q":5,"o":null,"c":5}`, `{"k":null,"v":null,"q":null,"o":null,"c":null}`)
	answers(t, at, "SELECT * FROM bads", `{"n":3,"q":2}`)
	v := viewStats(t, at, "badv")
	if fmt.Sprint(v["errors"]) != "3" || v["last_error"] == nil || v["state"] != "live" {
		t.Errorf("%v", v) // 10 / 0, 2 * the largest, 'x'::BIGINT
	}
	if v := viewStats(t, at, "bads"); fmt.Sprint(v["errors"]) != "1" || v["last_error"] != "division by zero" {
		t.Errorf("%v", v)
	}
	fails(t, at, "SELECT 10 / v FROM bad", "division by zero")
	fails(t, at, "SELECT v * 9223372036854775807 FROM bad", "out of range")
	fails(t, at, "SELECT k::BIGINT FROM bad", `"x"`)
}

// late checks which rows are late. All are of one key, so of one partition, and in one file, so in order.
func late(t *testing.T, at string) {
	sql(t, at, `CREATE STREAM ev (k TEXT, at TIMESTAMPTZ, WATERMARK FOR at AS at - INTERVAL '10 seconds') WITH (key = 'k', idle = '1 second');
		CREATE MATERIALIZED VIEW evc AS SELECT window_start, count(*) AS n FROM TUMBLE(ev, at, INTERVAL '10 seconds') GROUP BY window_start, window_end;
		CREATE MATERIALIZED VIEW evf WITH (emit = 'final') AS SELECT window_start, window_end, count(*) AS n FROM TUMBLE(ev, at, INTERVAL '10 seconds') GROUP BY window_start, window_end;
		CREATE MATERIALIZED VIEW evall AS SELECT count(*) AS n, min(at) AS first FROM ev;
		CREATE STREAM nomark (k TEXT, at TIMESTAMPTZ) WITH (key = 'k');
		CREATE MATERIALIZED VIEW nomarkc AS SELECT window_start, count(*) AS n FROM TUMBLE(nomark, at, INTERVAL '10 seconds') GROUP BY window_start, window_end`)
	rows := []string{
		`{"k":"a","at":"2026-01-01T00:00:05Z"}`,
		`{"k":"a","at":"2026-01-01T00:00:20Z"}`,        // the watermark is at :10 from here on
		`{"k":"a","at":"2026-01-01T00:00:09.999999Z"}`, // late: its window's end is at the watermark
		`{"k":"a","at":"2026-01-01T00:00:10Z"}`,        // not late
		`{"k":"a"}`,                                    // of no window
		`{"k":"a","at":"2026-01-01T00:00:29Z"}`,        // the watermark is at :19
		`{"k":"a","at":"2026-01-01T00:00:11Z"}`,        // not late: its window ends at :20
		`{"k":"a","at":"2026-01-01T00:00:30Z"}`,        // the watermark is at :20
		`{"k":"a","at":"2026-01-01T00:00:11Z"}`,        // late
	}
	sends(t, at, "ev", rows...)
	change := []string{
		`{"window_start":"2026-01-01T00:00:00.000000Z","n":1}`, `{"window_start":"2026-01-01T00:00:10.000000Z","n":2}`,
		`{"window_start":"2026-01-01T00:00:20.000000Z","n":2}`, `{"window_start":"2026-01-01T00:00:30.000000Z","n":1}`,
	}
	answers(t, at, "SELECT * FROM evc ORDER BY 1", change...)
	answers(t, at, "SELECT * FROM evall", `{"n":9,"first":"2026-01-01T00:00:05.000000Z"}`)
	// The same query, not as a view.
	answers(t, at, "SELECT window_start, count(*) AS n FROM TUMBLE(ev, at, INTERVAL '10 seconds') GROUP BY window_start, window_end ORDER BY 1", change...)
	// The other partitions are idle: what this one's watermark has closed appears.
	final := []string{
		`{"window_start":"2026-01-01T00:00:00.000000Z","window_end":"2026-01-01T00:00:10.000000Z","n":1}`,
		`{"window_start":"2026-01-01T00:00:10.000000Z","window_end":"2026-01-01T00:00:20.000000Z","n":2}`,
	}
	eventually(t, func() string {
		if got := answer(t, at, "json", "SELECT * FROM evf ORDER BY 1"); got != strings.Join(append(final, ""), "\n") {
			return got
		}
		return ""
	})
	for _, view := range []string{"evc", "evf", "evall"} {
		v := viewStats(t, at, view)
		want := "2 1"
		if view == "evall" {
			want = "0 0"
		}
		if got := fmt.Sprintf("%v %v", v["late"], v["errors"]); got != want {
			t.Errorf("%s: late and errors %s, want %s", view, got, want)
		}
	}
	sends(t, at, "nomark", rows...)
	answers(t, at, "SELECT sum(n) AS n FROM nomarkc", `{"n":8}`)
	if v := viewStats(t, at, "nomarkc"); fmt.Sprintf("%v %v", v["late"], v["errors"]) != "0 1" {
		t.Errorf("%v", v)
	}
}

// transactionsOfCommand sends transactions with millrace sql, as an argument and as a script.
func transactionsOfCommand(t *testing.T, at string) {
	sql(t, at, "CREATE TABLE held (id BIGINT PRIMARY KEY)")
	if r := cli(t, nil, "sql", "--addr", at, "-c", "BEGIN; INSERT INTO held VALUES (1); ROLLBACK"); r.code != 0 || r.out != "BEGIN\nINSERT 0 1\nROLLBACK\n" {
		t.Errorf("rolled back: %+v", r)
	}
	script := "BEGIN;\nINSERT INTO held VALUES (2);\nCOMMIT;\nSTART TRANSACTION;\nINSERT INTO held VALUES (3);\n  INSERT INTO nosuch VALUES (1);\nCOMMIT;\n"
	if r := cli(t, strings.NewReader(script), "sql", "--addr", at); r.code != 1 || !strings.Contains(r.err, "at 6:15") {
		t.Errorf("a script whose second transaction fails: %+v", r)
	}
	if r := cli(t, nil, "sql", "--addr", at, "-c", "BEGIN; INSERT INTO held VALUES (4)"); r.code != 1 || !strings.Contains(r.err, "must end in the text that begins it") {
		t.Errorf("without an end: %+v", r)
	}
	answers(t, at, "SELECT id FROM held", `{"id":2}`)
}
