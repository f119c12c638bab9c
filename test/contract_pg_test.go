package test

import (
	"bytes"
	"context"
	big "encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// pgConnect connects to a node as a client of PostgreSQL.
func pgConnect(t *testing.T, s *server, options string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), "postgres://me@"+s.pg+"/flights"+options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func pgExec(t *testing.T, c *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	tag, err := c.Exec(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return tag.String()
}

// pgState returns an error's SQLSTATE.
func pgState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

// TestPostgresDriver is a driver's usual day: prepared statements, all types in both formats, batches, portals.
func TestPostgresDriver(t *testing.T) {
	s := serve(t, "a")
	c := pgConnect(t, s, "")
	pgExec(t, c, `CREATE STREAM s (k TEXT, n BIGINT, d DOUBLE PRECISION, m NUMERIC, b BOOLEAN, x BYTEA, at TIMESTAMPTZ, i INTERVAL, j JSONB) WITH (key = 'k')`)
	pgExec(t, c, `CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n, sum(n) AS total FROM s GROUP BY k`)
	at := time.Date(2024, 2, 29, 12, 34, 56, 789_000, time.UTC)
	insert := `INSERT INTO s VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	for i := range 3 {
		pgExec(t, c, insert, fmt.Sprint("k", i), int64(i), float64(i)/2, "12345678901234567890.123", i%2 == 0, []byte{0, 255}, at, "1 mon 2 days 03:04:05", `{"a": [1, 2]}`)
	}
	pgExec(t, c, insert, "null", nil, nil, nil, nil, nil, nil, nil, nil)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		var k string
		var n int64
		var d float64
		var m, j, i string
		var b bool
		var x []byte
		var when time.Time
		err := c.QueryRow(t.Context(), `SELECT k, n, d, m::text, b, x, at, i::text, j::text FROM s WHERE k = $1 AND n = $2`, mode, "k2", 2).Scan(&k, &n, &d, &m, &b, &x, &when, &i, &j)
		if err != nil {
			t.Fatalf("%v: %v", mode, err)
		}
		got := fmt.Sprint(k, n, d, m, b, x, when.UTC(), i, j)
		if want := fmt.Sprint("k2", 2, 1, "12345678901234567890.123", true, []byte{0, 255}, at, "1 mon 2 days 03:04:05", `{"a": [1, 2]}`); got != want {
			t.Errorf("%v: %s, want %s", mode, got, want)
		}
	}
	// Binary results of all types are what the text says.
	rows, err := c.Query(t.Context(), `SELECT * FROM s WHERE k = 'k1'`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(values)
		for _, part := range []string{"k1 1 0.5", "[0 255]", "2024-02-29", "map[a:[1 2]]"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s lacks %s", text, part)
			}
		}
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	var nulls int
	if err := c.QueryRow(t.Context(), `SELECT count(*) FROM s WHERE n IS NULL AND j IS NULL AND at IS NULL`).Scan(&nulls); err != nil || nulls != 1 {
		t.Errorf("rows of NULLs: %d %v", nulls, err)
	}
	batch := &pgx.Batch{}
	for i := range 20 {
		batch.Queue(`SELECT n FROM v WHERE k = $1`, fmt.Sprint("k", i%3))
	}
	if err := c.SendBatch(t.Context(), batch).Close(); err != nil {
		t.Error(err)
	}
	checkPortal(t, s)
}

// checkPortal takes a portal's rows in parts, with other statements in between.
func checkPortal(t *testing.T, s *server) {
	c := pgConnect(t, s, "")
	pgExec(t, c, "CREATE STREAM many (n BIGINT)")
	rows := make([][]any, 10_000)
	for i := range rows {
		rows[i] = []any{int64(i)}
	}
	if n, err := c.CopyFrom(t.Context(), pgx.Identifier{"many"}, []string{"n"}, pgx.CopyFromRows(rows)); err != nil || n != 10_000 {
		t.Fatal(n, err)
	}
	pgExec(t, c, "BEGIN")
	pgExec(t, c, "DECLARE c CURSOR FOR SELECT n FROM many ORDER BY n")
	seen := int64(0)
	for {
		out, err := c.Query(t.Context(), "FETCH 999 FROM c")
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(out, pgx.RowTo[int64])
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range got {
			if n != seen {
				t.Fatalf("row %d is %d", seen, n)
			}
			seen++
		}
		var one int
		if err := c.QueryRow(t.Context(), "SELECT 1").Scan(&one); err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			break
		}
	}
	if seen != 10_000 {
		t.Errorf("%d rows", seen)
	}
	// To the protocol a cursor is a portal of its name, as psycopg's server-side cursors want it.
	front := c.PgConn().Frontend()
	front.Send(&pgproto3.Describe{ObjectType: 'P', Name: "c"})
	front.Send(&pgproto3.Sync{})
	if err := front.Flush(); err != nil {
		t.Fatal(err)
	}
	described := false
	for ready := false; !ready; {
		m, err := front.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m.(type) {
		case *pgproto3.RowDescription:
			described = true
		case *pgproto3.ReadyForQuery:
			ready = true
		}
	}
	if !described {
		t.Error("a cursor can't be described as a portal")
	}
	pgExec(t, c, "CLOSE c")
	pgExec(t, c, "COMMIT")
}

// TestPostgresTransactions holds that a transaction reads one tick and appends when it commits.
func TestPostgresTransactions(t *testing.T) {
	s := serve(t, "a")
	c, other := pgConnect(t, s, ""), pgConnect(t, s, "")
	pgExec(t, c, "CREATE STREAM s (n BIGINT)")
	pgExec(t, c, "CREATE MATERIALIZED VIEW v AS SELECT n, count(*) AS c FROM s GROUP BY n")
	pgExec(t, c, "INSERT INTO s VALUES (1)")
	count := func(c *pgx.Conn, from string) (n int) {
		t.Helper()
		if err := c.QueryRow(t.Context(), "SELECT count(*) FROM "+from).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	pgExec(t, c, "BEGIN")
	if n := count(c, "s"); n != 1 {
		t.Fatalf("%d rows at first", n)
	}
	pgExec(t, other, "INSERT INTO s VALUES (2)")
	pgExec(t, c, "INSERT INTO s VALUES (3)")
	if n := count(other, "v"); n != 2 {
		t.Errorf("others see %d rows before the commit", n)
	}
	if n, m := count(c, "s"), count(c, "v"); n != 1 || m != 1 {
		t.Errorf("the transaction reads %d and %d rows, not those of its tick", n, m)
	}
	if _, err := c.Exec(t.Context(), "CREATE STREAM t (n BIGINT)"); pgState(err) != "25001" {
		t.Errorf("CREATE behind changes that wait for COMMIT: %v", err)
	}
	if _, err := c.Exec(t.Context(), "SELECT 1"); pgState(err) != "25P02" {
		t.Errorf("after an error: %v", err)
	}
	if tag := pgExec(t, c, "COMMIT"); tag != "ROLLBACK" {
		t.Errorf("COMMIT of a failed transaction says %s", tag)
	}
	pgExec(t, c, "BEGIN")
	pgExec(t, c, "INSERT INTO s VALUES (4)")
	pgExec(t, c, "ROLLBACK")
	pgExec(t, c, "BEGIN")
	pgExec(t, c, "INSERT INTO s VALUES (5), (6)")
	pgExec(t, c, "COMMIT")
	if n, m := count(c, "s"), count(c, "v"); n != 4 || m != 4 {
		t.Errorf("%d and %d rows in the end", n, m)
	}
	pgExec(t, c, "BEGIN READ ONLY")
	if _, err := c.Exec(t.Context(), "INSERT INTO s VALUES (7)"); pgState(err) != "25006" {
		t.Errorf("INSERT in a read-only transaction: %v", err)
	}
	pgExec(t, c, "ROLLBACK")
	pgExec(t, c, "SET statement_timeout = 300")
	if _, err := c.Exec(t.Context(), "SUBSCRIBE TO v"); pgState(err) != "57014" {
		t.Errorf("statement_timeout: %v", err)
	}
}

// TestPostgresErrors holds the fields of errors, and that one ends its text's statements.
func TestPostgresErrors(t *testing.T) {
	s := serve(t, "a")
	c := pgConnect(t, s, "")
	for sql, want := range map[string]string{
		"SELEC 1": "42601", "SELECT * FROM nope": "42P01", "SELECT nope": "42703", "SELECT 1/0": "22012", "SET nope = 1": "42704",
		"SET client_encoding = 'LATIN1'": "0A000", "FETCH c": "34000", "DECLARE c CURSOR FOR SELECT 1": "25P01", "EXECUTE nope": "26000",
		"SELECT 'x'::bigint": "22P02", "SELECT nope() FROM pg_class": "42883", "COPY nope TO STDOUT": "42P01",
	} {
		_, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		if pgState(err) != want {
			t.Errorf("%s: %v, want %s", sql, err, want)
		}
	}
	_, err := c.Exec(t.Context(), "SELECT 'é', nope", pgx.QueryExecModeSimpleProtocol)
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Position != 13 || e.Severity != "ERROR" || strings.Contains(e.Message, "1:13") {
		t.Errorf("fields %+v", e)
	}
	// The first statement of a text is done, the second fails, the third isn't tried.
	pgExec(t, c, "CREATE STREAM s (n BIGINT)")
	results, err := c.PgConn().Exec(t.Context(), "INSERT INTO s VALUES (1); SELECT 1/0; INSERT INTO s VALUES (2)").ReadAll()
	if pgState(err) != "22012" || len(results) < 1 {
		t.Errorf("%d results, %v", len(results), err)
	}
	var n int
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM s").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// TestPostgresCopy takes COPY's formats in and out.
func TestPostgresCopy(t *testing.T) {
	s := serve(t, "a")
	c := pgConnect(t, s, "")
	pgExec(t, c, "CREATE STREAM s (k TEXT, n BIGINT)")
	pgExec(t, c, "CREATE MATERIALIZED VIEW v AS SELECT k, sum(n) AS n FROM s GROUP BY k")
	in := func(sql, data string) error {
		_, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(data), sql)
		return err
	}
	out := func(sql string) string {
		var b bytes.Buffer
		if _, err := c.PgConn().CopyTo(t.Context(), &b, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return b.String()
	}
	for _, step := range [][2]string{
		{"COPY s FROM STDIN", "a\\tb\t1\n\\N\t2\nx\\\ny\t3\n\\.\n"},
		{"COPY s (n, k) FROM STDIN WITH (FORMAT csv, HEADER)", "n,k\n4,\"q\"\"u,o\nte\"\r\n5,\n6,\"\""},
	} {
		if err := in(step[0], step[1]); err != nil {
			t.Fatalf("%s: %v", step[0], err)
		}
	}
	if got, want := out("COPY (SELECT n, k FROM s ORDER BY n) TO STDOUT"), "1\ta\\tb\n2\t\\N\n3\tx\\ny\n4\tq\"u,o\\nte\n5\t\\N\n6\t\n"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	if got, want := out("COPY (SELECT n, k FROM s ORDER BY n) TO STDOUT CSV HEADER"), "n,k\n1,a\tb\n2,\n3,\"x\ny\"\n4,\"q\"\"u,o\nte\"\n5,\n6,\"\"\n"; got != want {
		t.Errorf("csv %q, want %q", got, want)
	}
	before := out("COPY (SELECT k, n FROM s ORDER BY n) TO STDOUT (FORMAT binary)")
	pgExec(t, c, "CREATE STREAM copy (k TEXT, n BIGINT)")
	if err := in("COPY copy FROM STDIN (FORMAT binary)", before); err != nil {
		t.Fatal(err)
	}
	if got := out("COPY (SELECT k, n FROM copy ORDER BY n) TO STDOUT (FORMAT binary)"); got != before {
		t.Error("a binary copy of a binary copy differs")
	}
	if err := in("COPY s FROM STDIN", "a\tx\n"); pgState(err) != "22P02" || !strings.Contains(err.Error(), "line 1, column n") {
		t.Errorf("a bad value: %v", err)
	}
	if err := in("COPY s FROM STDIN", "a\t1\tx\n"); pgState(err) != "22P04" {
		t.Errorf("too many fields: %v", err)
	}
	pgExec(t, c, "SELECT 1") // the connection is as before
}

// TestPostgresSubscribe follows a view by COPY, by a statement and by a cursor, and cancels it.
func TestPostgresSubscribe(t *testing.T) {
	s := serve(t, "a")
	c, writer := pgConnect(t, s, ""), pgConnect(t, s, "")
	pgExec(t, c, "CREATE STREAM s (k TEXT)")
	pgExec(t, c, "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n FROM s GROUP BY k")
	pgExec(t, writer, "INSERT INTO s VALUES ('a')")
	pr, pw := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := c.PgConn().CopyTo(context.Background(), pw, "COPY (SUBSCRIBE TO v) TO STDOUT")
		ended <- err
		pw.Close()
	}()
	lines := make(chan string, 1000) // nobody takes them while the cancel request is on its way
	go func() {
		defer close(lines)
		b := make([]byte, 4096)
		for {
			n, err := pr.Read(b)
			if err != nil {
				return
			}
			lines <- string(b[:n])
		}
	}()
	await := func(part string) {
		t.Helper()
		for {
			select {
			case l := <-lines:
				if strings.Contains(l, part) {
					return
				}
			case <-time.After(60 * time.Second):
				t.Fatalf("no %q after 60 s", part)
			}
		}
	}
	await("\t1\ta\t1\n")
	pgExec(t, writer, "INSERT INTO s VALUES ('b')")
	await("\t1\tb\t1\n")
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; pgState(err) != "57014" {
		t.Errorf("after a cancel request: %v", err)
	}
	pgExec(t, c, "BEGIN")
	pgExec(t, c, "DECLARE c CURSOR FOR SUBSCRIBE TO v")
	rows, err := c.Query(t.Context(), "FETCH 1 FROM c")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() {
		n++
	}
	if rows.Err() != nil || n != 1 {
		t.Errorf("%d rows of a cursor, %v", n, rows.Err())
	}
	pgExec(t, c, "ROLLBACK")
}

// TestPostgresLimits: connections over the limit hear so, garbage harms nobody, and a stopping node says goodbye.
func TestPostgresLimits(t *testing.T) {
	s := serve(t, "a", "--pg-connections", "3")
	c := pgConnect(t, s, "")
	var all []*pgx.Conn
	var refused error
	for range 5 {
		more, err := pgx.Connect(t.Context(), "postgres://me@"+s.pg+"/x")
		if err != nil {
			refused = err
			break
		}
		all = append(all, more)
	}
	if refused == nil || pgState(refused) != "53300" {
		t.Errorf("over the limit: %v", refused)
	}
	for _, c := range all {
		c.Close(t.Context())
	}
	deadline := time.Now().Add(60 * time.Second)
	for { // a closed connection is gone a moment later
		again, err := pgx.Connect(t.Context(), "postgres://me@"+s.pg+"/x")
		if err == nil {
			again.Close(t.Context())
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	sendGarbage(t, s.pg)
	pgExec(t, c, "SELECT 1")
	idle := make(chan error, 1)
	go func() {
		_, err := c.PgConn().ReceiveMessage(context.Background())
		idle <- err
	}()
	s.stop()
	if err := <-idle; pgState(err) != "57P01" {
		t.Errorf("an idle client of a stopping node: %v", err)
	}
}

// sendGarbage sends what no client would.
func sendGarbage(t *testing.T, addr string) {
	greeting := big.BigEndian.AppendUint32(nil, 17)
	greeting = big.BigEndian.AppendUint32(greeting, 3<<16)
	greeting = append(greeting, "user\x00me\x00\x00"...)
	greeting[3] = byte(len(greeting))
	message := func(kind byte, n uint32, body string) []byte {
		return append(big.BigEndian.AppendUint32([]byte{kind}, n), body...)
	}
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for i, data := range [][]byte{
		nil, {0}, noise, {0x7f, 0xff, 0xff, 0xff}, {0, 0, 0, 8, 0, 3, 0, 0}, {0, 0, 0, 4},
		append(bytes.Clone(greeting), message('Q', 0xffffffff, "")...),
		append(bytes.Clone(greeting), message('Q', 0x7fffffff, "SELECT")...),
		append(bytes.Clone(greeting), message('B', 8, "\x00\x00\xff\xff")...),
		append(bytes.Clone(greeting), message('P', 4, "")...),
		append(bytes.Clone(greeting), message('E', 9, "\x00\x00\x00\x00\x00")...),
		append(bytes.Clone(greeting), message('~', 4, "")...),
		append(bytes.Clone(greeting), message('d', 8, "abcd")...),
		append(bytes.Clone(greeting), noise...),
	} {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Write(data); err != nil {
			t.Logf("garbage %d: %v", i, err)
		}
		nc.(*net.TCPConn).CloseWrite()
		nc.SetReadDeadline(time.Now().Add(60 * time.Second))
		if _, err := io.Copy(io.Discard, nc); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("garbage %d leaves the connection open", i)
		}
		nc.Close()
	}
}

// TestPsql runs psql's own commands, where psql is there.
func TestPsql(t *testing.T) {
	if _, err := exec.LookPath("psql"); err != nil {
		t.Skip("no psql on this machine")
	}
	s := serve(t, "a")
	host, port, _ := net.SplitHostPort(s.pg)
	psql := func(commands ...string) string {
		t.Helper()
		args := []string{"-X", "-A", "-t", "-h", host, "-p", port, "-U", "me", "-d", "flights", "-v", "ON_ERROR_STOP=1"}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		out, err := exec.Command("psql", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("psql %q: %v\n%s", commands, err, out)
		}
		return string(out)
	}
	psql("CREATE STREAM flights (origin TEXT, delay BIGINT)", "CREATE MATERIALIZED VIEW d AS SELECT origin, count(*) AS n FROM flights GROUP BY origin",
		"INSERT INTO flights VALUES ('JFK', 5)", "SELECT * FROM d") // whoever reads it later finds that tick done
	for command, want := range map[string]string{
		`\d`:                               "public|d|materialized view|me\npublic|flights|table|me\n",
		`\dt`:                              "public|flights|table|me\n",
		`\dm`:                              "public|d|materialized view|me\n",
		`\dn`:                              "public|me\n",
		`\d flights`:                       "origin|text|||\ndelay|bigint|||\n",
		`\l`:                               "flights|me|UTF8|C|C||libc|\n",
		`\du`:                              "me|Superuser, Create role, Create DB, Replication, Bypass RLS|{}\n",
		`\df`:                              "",
		`SELECT * FROM d`:                  "JFK|1\n",
		`SHOW standard_conforming_strings`: "on\n",
	} {
		if got := psql(command); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	if got := psql(`\d+ d`); !strings.Contains(got, "origin|text|") {
		t.Errorf(`\d+ d: %q`, got)
	}
}
