package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

func bigint(v int64) *millracev1.Value {
	return &millracev1.Value{Kind: &millracev1.Value_Bigint{Bigint: v}}
}

func text(v string) *millracev1.Value {
	return &millracev1.Value{Kind: &millracev1.Value_Text{Text: v}}
}

func schema(namesAndTypes ...string) *millracev1.RowSchema {
	s := &millracev1.RowSchema{}
	for i := 0; i < len(namesAndTypes); i += 2 {
		s.Columns = append(s.Columns, &millracev1.Column{Name: namesAndTypes[i], Type: namesAndTypes[i+1]})
	}
	return s
}

// answer sends one statement's rows.
func answer(send func(*millracev1.ExecuteResponse) error, statement uint32, s *millracev1.RowSchema, complete *millracev1.Complete, rows ...[]*millracev1.Value) error {
	if s != nil {
		if err := send(&millracev1.ExecuteResponse{Statement: statement, Kind: &millracev1.ExecuteResponse_Schema{Schema: s}}); err != nil {
			return err
		}
		out := &millracev1.Rows{}
		for _, r := range rows {
			out.Rows = append(out.Rows, &millracev1.Row{Values: r})
		}
		if err := send(&millracev1.ExecuteResponse{Statement: statement, Kind: &millracev1.ExecuteResponse_Rows{Rows: out}}); err != nil {
			return err
		}
	}
	return send(&millracev1.ExecuteResponse{Statement: statement, Kind: &millracev1.ExecuteResponse_Complete{Complete: complete}})
}

func TestQuery(t *testing.T) {
	c := startCluster(t, 1, 1)
	var got []*millracev1.ExecuteRequest
	c.execute = func(_ int, req *millracev1.ExecuteRequest, send func(*millracev1.ExecuteResponse) error) error {
		got = append(got, req)
		switch {
		case strings.HasPrefix(req.Sql, "SET"):
			return answer(send, 0, nil, &millracev1.Complete{Tag: "SET", Settings: map[string]string{"min_tick": "7"}})
		case strings.HasPrefix(req.Sql, "SELECT"):
			return answer(send, 0, schema("n", "bigint", "s", "text"), &millracev1.Complete{Tag: "SELECT 2", Tick: 4242},
				[]*millracev1.Value{bigint(1), text("one")}, []*millracev1.Value{bigint(2), {}})
		}
		return fault.SQL(fault.Invalid, "42601", "syntax error at 1:1")
	}
	cl := dial(t, c)
	s := cl.Session()
	if _, err := s.Exec(t.Context(), "SET min_tick = 7"); err != nil {
		t.Fatal(err)
	}
	rows, err := s.Query(t.Context(), "SELECT n, s FROM t")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for rows.Next() {
		var n int64
		var v any
		if err := rows.Scan(&n, &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintln(n, v))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(out, []string{"1 one\n", "2 <nil>\n"}) {
		t.Fatalf("rows %q", out)
	}
	if rows.Tag() != "SELECT 2" || rows.Tick() != 4242 || cl.SeenTick() != 4242 {
		t.Fatalf("tag %q, tick %d, seen %d", rows.Tag(), rows.Tick(), cl.SeenTick())
	}
	_, err = s.Query(t.Context(), "SELEC")
	if !errors.Is(err, fault.Of(fault.Invalid)) || err.Error() != "syntax error at 1:1" {
		t.Fatalf("%v", err)
	}
	if last := got[2]; last.SeenTick != 4242 || last.Settings["min_tick"] != "7" {
		t.Fatalf("the third statement carried %v", last)
	}
	if first := got[0]; first.SeenTick != 0 || len(first.Settings) != 0 {
		t.Fatalf("the first statement carried %v", first)
	}
}

func TestQuerySeveralStatements(t *testing.T) {
	c := startCluster(t, 1, 1)
	c.execute = func(_ int, _ *millracev1.ExecuteRequest, send func(*millracev1.ExecuteResponse) error) error {
		if err := answer(send, 0, schema("a", "bigint"), &millracev1.Complete{Tag: "SELECT 1", Tick: 1}, []*millracev1.Value{bigint(1)}); err != nil {
			return err
		}
		if err := answer(send, 1, nil, &millracev1.Complete{Tag: "SET"}); err != nil {
			return err
		}
		if err := answer(send, 2, schema("b", "text"), &millracev1.Complete{Tag: "SELECT 1", Tick: 2}, []*millracev1.Value{text("x")}); err != nil {
			return err
		}
		return fault.New(fault.Invalid, "the fourth is wrong")
	}
	rows, err := dial(t, c).Query(t.Context(), "SELECT a; SET x = 1; SELECT b; SELECT wrong")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for more := true; more; more = rows.NextStatement() {
		for rows.Next() {
			out = append(out, fmt.Sprintf("%s=%v", rows.Columns()[0].Name, rows.Values()[0]))
		}
		out = append(out, rows.Tag())
	}
	if len(out) != 5 || out[1] != "SELECT 1" || out[2] != "SET" || !strings.HasPrefix(out[3], "b=") {
		t.Fatalf("%q", out)
	}
	if err := rows.Err(); err == nil || err.Error() != "the fourth is wrong" {
		t.Fatalf("%v", err)
	}
}

// TestQueryFailover: what only reads goes on at the next node; what changes something is never run twice.
func TestQueryFailover(t *testing.T) {
	c := startCluster(t, 3, 1)
	var runs atomic.Int64
	c.execute = func(node int, req *millracev1.ExecuteRequest, send func(*millracev1.ExecuteResponse) error) error {
		runs.Add(1)
		if node == 0 {
			return fault.New(fault.Unavailable, "cut off")
		}
		return answer(send, 0, schema("node", "bigint"), &millracev1.Complete{Tag: "SELECT 1"}, []*millracev1.Value{bigint(int64(node))})
	}
	cl := dial(t, c)
	if _, err := cl.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if runs.Load() != 2 {
		t.Fatalf("a query ran %d times", runs.Load())
	}
	runs.Store(0)
	cl = dial(t, c)
	if _, err := cl.Exec(t.Context(), "INSERT INTO t VALUES (1)"); !errors.Is(err, fault.Of(fault.Unavailable)) {
		t.Fatalf("%v", err)
	}
	if runs.Load() != 1 {
		t.Fatalf("an INSERT ran %d times", runs.Load())
	}
	runs.Store(0)
	c.execute = func(int, *millracev1.ExecuteRequest, func(*millracev1.ExecuteResponse) error) error {
		runs.Add(1)
		return fault.SQL(fault.Exhausted, "53200", "the statement needs more memory")
	}
	if _, err := cl.Exec(t.Context(), "SELECT 1"); !errors.Is(err, fault.Of(fault.Exhausted)) || runs.Load() != 1 {
		t.Fatalf("over a limit: %v after %d runs", err, runs.Load())
	}
	c.execute = func(_ int, _ *millracev1.ExecuteRequest, send func(*millracev1.ExecuteResponse) error) error {
		return answer(send, 0, nil, &millracev1.Complete{Tag: "INSERT 0 1"})
	}
	c.nodes[1].stop() // an INSERT to a node that is gone was never sent
	cl2, err := client.Dial(t.Context(), []string{c.nodes[1].addr, c.nodes[2].addr})
	if err != nil {
		t.Fatal(err)
	}
	defer cl2.Close()
	if _, err := cl2.Exec(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
}

// TestQueryNodeDiesMeanwhile kills the node that works on a statement.
func TestQueryNodeDiesMeanwhile(t *testing.T) {
	c := startCluster(t, 2, 1)
	arrived := make(chan int, 10)
	c.execute = func(node int, _ *millracev1.ExecuteRequest, send func(*millracev1.ExecuteResponse) error) error {
		arrived <- node
		if node == 0 {
			return answerNever(c, node)
		}
		return answer(send, 0, nil, &millracev1.Complete{Tag: "OK"})
	}
	kill := func() {
		if n := <-arrived; n != 0 {
			t.Errorf("node %d was asked first", n)
		}
		go c.nodes[0].stop() // it waits for its handlers
	}
	cl := dial(t, c)
	go kill()
	if _, err := cl.Exec(t.Context(), "CREATE STREAM s (a BIGINT)"); client.Reason(err) != "OUTCOME_UNKNOWN" {
		t.Fatalf("%v (%s)", err, client.Reason(err))
	}
	if _, err := cl.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
}

// answerNever blocks until the node is stopped.
func answerNever(c *cluster, node int) error {
	<-c.nodes[node].stopping
	return fault.New(fault.Canceled, "stopping")
}

// TestQuerySilentNode stops a node that keeps its connections.
func TestQuerySilentNode(t *testing.T) {
	c := startCluster(t, 2, 1)
	c.execute = func(node int, _ *millracev1.ExecuteRequest, send func(*millracev1.ExecuteResponse) error) error {
		return answer(send, 0, nil, &millracev1.Complete{Tag: fmt.Sprint(node)})
	}
	cl := dial(t, c)
	c.nodes[0].freeze()
	begun := time.Now()
	r, err := cl.Exec(t.Context(), "SELECT 1")
	if err != nil || r.Tag != "1" {
		t.Fatalf("%v %v", r, err)
	}
	if d := time.Since(begun); d < time.Second || d > 9*time.Second { // lonelySilence is 10 s
		t.Fatalf("the silent node was left after %s", d)
	}
	// And one that is silent from the start.
	begun = time.Now()
	cl2, err := client.Dial(t.Context(), c.addrs())
	if err != nil {
		t.Fatal(err)
	}
	defer cl2.Close()
	if d := time.Since(begun); d < 900*time.Millisecond || d > 9*time.Second { // lonelySilence is 10 s
		t.Fatalf("dialling took %s", d)
	}
}

func TestDialFails(t *testing.T) {
	c := startCluster(t, 1, 1)
	c.nodes[0].stop()
	_, err := client.Dial(t.Context(), c.addrs())
	if !errors.Is(err, fault.Of(fault.Unavailable)) || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "desc =") {
		t.Fatalf("%v", err)
	}
	if _, err := client.Dial(t.Context(), nil); !errors.Is(err, fault.Of(fault.Invalid)) {
		t.Fatalf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Dial(ctx, c.addrs()); !errors.Is(err, fault.Of(fault.Canceled)) {
		t.Fatalf("%v", err)
	}
}

func TestQueryArguments(t *testing.T) {
	c := startCluster(t, 1, 1)
	var sql string
	c.execute = func(_ int, req *millracev1.ExecuteRequest, send func(*millracev1.ExecuteResponse) error) error {
		sql = req.Sql
		return answer(send, 0, nil, &millracev1.Complete{})
	}
	cl := dial(t, c)
	for _, test := range []struct {
		sql  string
		args []any
		want string
	}{
		{"SELECT $1", []any{42}, "SELECT 42"},
		{"SELECT 1-$1", []any{-42}, "SELECT 1-(-42)"},
		{"SELECT $1, '$1', \"$1\", $$ $1 $$ -- $1\n, $2", []any{"it's", nil}, "SELECT 'it''s', '$1', \"$1\", $$ $1 $$ -- $1\n, NULL"},
		{"SELECT $2, $1", []any{true, []byte{0xab}}, `SELECT '\xab'::bytea, true`},
		{"SELECT $1", []any{1.5}, "SELECT '1.5'::double precision"},
		{"SELECT $1", []any{time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)}, "SELECT '2026-01-02T03:04:05.000006Z'::timestamptz"},
		{"SELECT $1", []any{time.Second}, "SELECT '1000000 microseconds'::interval"},
		{"SELECT $x$ ; $1", nil, "SELECT $x$ ; $1"},
	} {
		if _, err := cl.Exec(t.Context(), test.sql, test.args...); err != nil {
			t.Errorf("%s: %v", test.sql, err)
		} else if sql != test.want {
			t.Errorf("%s with %v: got %s, want %s", test.sql, test.args, sql, test.want)
		}
	}
	for _, bad := range []struct {
		sql  string
		args []any
	}{{"SELECT $2", []any{1}}, {"SELECT 1", []any{1}}, {"SELECT $1", []any{"a\x00b"}}, {"SELECT $1", []any{struct{}{}}}} {
		if _, err := cl.Exec(t.Context(), bad.sql, bad.args...); !errors.Is(err, fault.Of(fault.Invalid)) {
			t.Errorf("%s with %v: %v", bad.sql, bad.args, err)
		}
	}
}

func TestSplit(t *testing.T) {
	for _, test := range []struct {
		text string
		want string // statements, each with its place; then what is left
	}{
		{"", "|"},
		{"SELECT 1", "|SELECT 1"},
		{"SELECT 1;", "1:1 SELECT 1|"},
		{" a ;\n\n  b; ", "1:2 a,3:3 b|"},
		{"é;é x;", "1:1 é,1:3 é x|"},
		{"SELECT ';', \";\", $$;$$, $a$;$$;$a$ -- ;\n /* ; /* ; */ ; */ ;", "1:1 SELECT ';', \";\", $$;$$, $a$;$$;$a$ -- ;\n /* ; /* ; */ ; */|"},
		{"SELECT 'it''s;'; x", "1:1 SELECT 'it''s;'|x"},
		{`SELECT E'\';' ;`, `1:1 SELECT E'\';'|`},
		{`SELECT '\' ;`, `1:1 SELECT '\'|`},
		{";;-- only this\n;", "|"},
		{"-- only this", "|"},
		{"SELECT 'open;", "|SELECT 'open;"},
		{"SELECT /* open ;", "|SELECT /* open ;"},
		{"SELECT $1; SELECT a$b$c;", "1:1 SELECT $1,1:12 SELECT a$b$c|"},
	} {
		statements, rest := client.Split(test.text)
		var parts []string
		for _, s := range statements {
			parts = append(parts, fmt.Sprintf("%d:%d %s", s.Line, s.Column, s.Text))
		}
		if got := strings.Join(parts, ",") + "|" + rest; got != test.want {
			t.Errorf("%q:\n got %q\nwant %q", test.text, got, test.want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("SELECT 1; SELECT $a$;$a$, '', E'\\'', \"x\" /* /* */ */ -- x\n; $1")
	f.Fuzz(func(t *testing.T, text string) {
		statements, rest := client.Split(text)
		n := len(rest)
		for _, s := range statements {
			if s.Text == "" || s.Line < 1 || s.Column < 1 || !strings.Contains(text, s.Text) {
				t.Fatalf("%+v", s)
			}
			n += len(s.Text)
		}
		if n > len(text) || !strings.HasSuffix(text, rest) {
			t.Fatalf("%d bytes of %d", n, len(text))
		}
		if all := client.SplitAll(text); len(all) < len(statements) || len(all) > len(statements)+1 {
			t.Fatalf("%d statements, %d with the rest", len(statements), len(all))
		}
		client.Tokens(text)
	})
}

func TestScan(t *testing.T) {
	c := startCluster(t, 1, 1)
	c.execute = func(_ int, _ *millracev1.ExecuteRequest, send func(*millracev1.ExecuteResponse) error) error {
		return answer(send, 0, schema("b", "boolean", "i", "bigint", "d", "double precision", "n", "numeric", "t", "text",
			"y", "bytea", "ts", "timestamptz", "v", "interval", "j", "jsonb", "z", "bigint"), &millracev1.Complete{},
			[]*millracev1.Value{
				{Kind: &millracev1.Value_Boolean{Boolean: true}}, bigint(5), {Kind: &millracev1.Value_DoublePrecision{DoublePrecision: 1.5}},
				text("1.10"), text("x"), {Kind: &millracev1.Value_Bytea{Bytea: []byte{1}}},
				{Kind: &millracev1.Value_TimestamptzUs{TimestamptzUs: 1_000_000}}, text("1 day"), text(`{"a": 1}`), {},
			})
	}
	rows, err := dial(t, c).Query(t.Context(), "SELECT")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
	var (
		b                   bool
		i                   int64
		d                   float64
		n, s, interval, doc string
		y, z                []byte
		ts                  time.Time
	)
	if err := rows.Scan(&b, &i, &d, &n, &s, &y, &ts, &interval, &doc, &z); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintln(b, i, d, n, s, y, ts.Unix(), interval, doc, z == nil); got != "true 5 1.5 1.10 x [1] 1 1 day {\"a\": 1} true\n" {
		t.Fatal(got)
	}
	values := make([]any, 10)
	dest := make([]any, 10)
	for k := range values {
		dest[k] = &values[k]
	}
	if err := rows.Scan(dest...); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%T %T %T %T %v", values[0], values[2], values[3], values[6], values[9]); got != "bool float64 string time.Time <nil>" {
		t.Fatal(got)
	}
	if err := rows.Scan(&b, &i, &d, &n, &s, &y, &ts, &interval, &doc, &i); err == nil || !strings.Contains(err.Error(), `"z" is NULL`) {
		t.Fatalf("%v", err)
	}
	if err := rows.Scan(&i, &i, &d, &n, &s, &y, &ts, &interval, &doc, &z); err == nil || !strings.Contains(err.Error(), `"b" is boolean`) {
		t.Fatalf("%v", err)
	}
}
