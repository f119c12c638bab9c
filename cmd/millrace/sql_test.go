package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chzyer/readline"

	"github.com/millrace/millrace/client"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

func bigintValue(v int64) *millracev1.Value {
	return &millracev1.Value{Kind: &millracev1.Value_Bigint{Bigint: v}}
}

func doubleValue(v float64) *millracev1.Value {
	return &millracev1.Value{Kind: &millracev1.Value_DoublePrecision{DoublePrecision: v}}
}

func textValue(v string) *millracev1.Value {
	return &millracev1.Value{Kind: &millracev1.Value_Text{Text: v}}
}

func everyType() (columns []string, rows [][]*millracev1.Value) {
	columns = []string{"b", "boolean", "i", "bigint", "d", "double precision", "n", "numeric", "t", "text", "y", "bytea",
		"ts", "timestamptz", "v", "interval", "j", "jsonb"}
	rows = [][]*millracev1.Value{
		{{Kind: &millracev1.Value_Boolean{Boolean: true}}, bigintValue(math.MaxInt64), doubleValue(0.1), textValue("1.10"), textValue(`say "hi", <b>`),
			{Kind: &millracev1.Value_Bytea{Bytea: []byte{0xde, 0xad}}}, {Kind: &millracev1.Value_TimestamptzUs{TimestamptzUs: 1767225845123456}},
			textValue("1 day 02:03:04"), textValue(`{"a": [1, null]}`)},
		{{Kind: &millracev1.Value_Boolean{}}, bigintValue(-1), doubleValue(math.Inf(-1)), textValue("NaN"), textValue(""),
			{Kind: &millracev1.Value_Bytea{Bytea: []byte{}}}, {Kind: &millracev1.Value_TimestamptzUs{TimestamptzUs: 0}}, textValue("00:00:00"), textValue("null")},
		{{}, {}, {}, {}, {}, {}, {}, {}, {}},
	}
	return columns, rows
}

func TestSQLFormats(t *testing.T) {
	n := startFake(t)
	columns, rows := everyType()
	n.on("SELECT all_types", columns, "SELECT 3", rows...)
	n.on("SELECT nothing", []string{"a", "bigint", "name", "text"}, "SELECT 0")
	n.on("SELECT wide", []string{"n", "bigint", "town", "text"}, "SELECT 2",
		[]*millracev1.Value{bigintValue(7), textValue("日本\tx")}, []*millracev1.Value{bigintValue(1000), textValue("a\nb")})
	n.on("SELECT one", []string{"n", "bigint"}, "SELECT 1", []*millracev1.Value{bigintValue(1)})
	n.on("CREATE STREAM s (a BIGINT)", nil, "CREATE STREAM")
	for _, test := range []struct{ format, sql, want string }{
		{"json", "SELECT all_types", `{"b":true,"i":9223372036854775807,"d":0.1,"n":1.10,"t":"say \"hi\", <b>","y":"\\xdead","ts":"2026-01-01T00:04:05.123456Z","v":"1 day 02:03:04","j":{"a": [1, null]}}
{"b":false,"i":-1,"d":"-Infinity","n":"NaN","t":"","y":"\\x","ts":"1970-01-01T00:00:00.000000Z","v":"00:00:00","j":null}
{"b":null,"i":null,"d":null,"n":null,"t":null,"y":null,"ts":null,"v":null,"j":null}
`},
		{"csv", "SELECT all_types", `b,i,d,n,t,y,ts,v,j
t,9223372036854775807,0.1,1.10,"say ""hi"", <b>",\xdead,2026-01-01 00:04:05.123456+00,1 day 02:03:04,"{""a"": [1, null]}"
f,-1,-Infinity,NaN,"",\x,1970-01-01 00:00:00+00,00:00:00,null
,,,,,,,,
`},
		{"table", "SELECT wide", "  n   |  town   \n------+---------\n    7 | 日本\\tx\n 1000 | a\\nb\n(2 rows)\n\n"},
		{"table", "SELECT one", " n \n---\n 1\n(1 row)\n\n"},
		{"table", "SELECT nothing", " a | name \n---+------\n(0 rows)\n\n"},
		{"json", "SELECT nothing", ""},
		{"csv", "SELECT nothing", "a,name\n"},
		{"table", "CREATE STREAM s (a BIGINT)", "CREATE STREAM\n"},
		{"json", "CREATE STREAM s (a BIGINT)", ""},
		{"csv", "CREATE STREAM s (a BIGINT)", ""},
	} {
		code, out, errs := n.millrace(t, "", "sql", "--format", test.format, "-c", test.sql)
		if code != 0 || errs != "" || out != test.want {
			t.Errorf("%s as %s: exit %d, stderr %q\n got %q\nwant %q", test.sql, test.format, code, errs, out, test.want)
		}
	}
}

func TestSQLStopsAtTheFirstError(t *testing.T) {
	n := startFake(t)
	n.on("SELECT 1", []string{"n", "bigint"}, "SELECT 1", []*millracev1.Value{bigintValue(1)})
	for _, args := range [][]string{
		{"-c", "SELECT 1; WRONG; SELECT 1"},
		{"-c", "SELECT 1", "-c", "WRONG", "-c", "SELECT 1"},
	} {
		n.statements = nil
		code, out, errs := n.millrace(t, "", append([]string{"sql", "--format", "json"}, args...)...)
		if code != 1 || out != "{\"n\":1}\n" || len(n.statements) != 2 {
			t.Errorf("%q: exit %d, %d statements, stdout %q", args, code, len(n.statements), out)
		}
		if !strings.HasPrefix(errs, "millrace: unknown statement at 1:") || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: stderr %q", args, errs)
		}
	}
}

func TestSQLScripts(t *testing.T) {
	n := startFake(t)
	n.on("SELECT 1", []string{"n", "bigint"}, "SELECT 1", []*millracev1.Value{bigintValue(1)})
	script := "-- a script;\nSELECT 1; SET min_tick = 5;\n\nSELECT\n 1 /* ; */ ;SELECT 1"
	n.on("SELECT\n 1 /* ; */", []string{"n", "bigint"}, "SELECT 1", []*millracev1.Value{bigintValue(2)})
	path := filepath.Join(t.TempDir(), "script.sql")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{path}, {}, {"-"}} {
		n.statements = nil
		code, out, errs := n.millrace(t, script, append([]string{"sql", "--format", "csv"}, args...)...)
		if code != 0 || out != "n\n1\nn\n2\nn\n1\n" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", args, code, out, errs)
		}
		if last := n.statements[3]; last.Settings["min_tick"] != "5" || last.SeenTick != 555 {
			t.Errorf("%q: the last statement carried %v", args, last)
		}
	}
	// A message names the place in the script, also after what was run already.
	for script, want := range map[string]string{
		"SELECT 1;\n  WRONG;":            "2:3",
		"SELECT 1; \n SELECT 1; WRONG":   "2:12",
		"\n\n\nSELECT 1;;;  WRONG;\n":    "4:14",
		"SELECT 1; SET a =\n 1; é WRONG": "2:5",
	} {
		_, _, errs := n.millrace(t, script, "sql")
		if !strings.Contains(errs, "at "+want+";") {
			t.Errorf("%q: %s, want it at %s", script, errs, want)
		}
	}
}

func TestSQLSubscribe(t *testing.T) {
	n := startFake(t)
	row := func(weight int64, values ...*millracev1.Value) *millracev1.WeightedRow {
		return &millracev1.WeightedRow{Weight: weight, Row: &millracev1.Row{Values: values}}
	}
	n.changes = []*millracev1.SubscribeResponse{
		{Tick: 10, Schema: rowSchema("a", "bigint", "b", "text"), Rows: []*millracev1.WeightedRow{row(1, bigintValue(1), textValue("x"))}},
		{Tick: 10, Rows: []*millracev1.WeightedRow{row(2, bigintValue(2), &millracev1.Value{})}, Last: true},
		{Tick: 20, Last: true},
		{Tick: 30, Rows: []*millracev1.WeightedRow{row(-1, bigintValue(1), textValue("x"))}, Last: true},
	}
	for format, want := range map[string]string{
		"json": `{"_tick":10,"_weight":1,"a":1,"b":"x"}
{"_tick":10,"_weight":2,"a":2,"b":null}
{"_tick":20,"_progress":true}
{"_tick":30,"_weight":-1,"a":1,"b":"x"}
`,
		"csv":   "_tick,_weight,a,b\n10,1,1,x\n10,2,2,\n30,-1,1,x\n",
		"table": " _tick | _weight | a | b \n-------+---------+---+---\n    10 |       1 | 1 | x\n    10 |       2 | 2 | \n    30 |      -1 | 1 | x\n",
	} {
		code, out, errs := n.millrace(t, "", "sql", "--format", format, "-c", "SUBSCRIBE TO Hot")
		if code != 1 || !strings.Contains(errs, "was dropped") || out != want {
			t.Errorf("%s: exit %d, stderr %q\n got %q\nwant %q", format, code, errs, out, want)
		}
	}
	if v := n.subscribed[0].View; v != "hot" {
		t.Errorf("view %q", v)
	}
}

func TestSQLSubscribeInterrupted(t *testing.T) {
	n := startFake(t)
	n.endless = true
	n.changes = []*millracev1.SubscribeResponse{{Tick: 10, Schema: rowSchema("a", "bigint"), Last: true}}
	cl, err := client.Dial(t.Context(), []string{n.addr})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var out lockedBuilder
	w, err := newResultWriter("json", &out)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	go func() {
		s := &shell{c: cl, session: cl.Session(), out: w, follow: true}
		ended <- s.runAll(ctx, client.SplitAll("SUBSCRIBE TO v AFTER TICK 9"), 0)
	}()
	waitFor(t, func() bool { return out.String() == "{\"_tick\":10,\"_progress\":true}\n" }) // it was flushed
	cancel()
	if err := <-ended; err != nil {
		t.Fatalf("an interrupted subscription ended with %v", err)
	}
	if r := n.subscribed[0]; r.AfterTick != 9 {
		t.Errorf("%v", r)
	}
}

func TestParseSubscribe(t *testing.T) {
	for _, test := range []struct {
		text  string
		view  string
		after uint64
		ok    bool
	}{
		{"subscribe to Hot", "hot", 0, true},
		{`SUBSCRIBE /* x */ TO "My ""view"""`, `My "view"`, 0, true},
		{"SUBSCRIBE TO v AFTER TICK 1700000000000000", "v", 1700000000000000, true},
		{"SUBSCRIBE TO v AFTER TICK x", "v", 0, false},
		{"SUBSCRIBE v", "", 0, false},
		{"SUBSCRIBE TO 1", "", 0, false},
		{"SUBSCRIBE TO a.b", "", 0, false},
		{"SELECT 1", "", 0, false},
	} {
		view, after, ok := parseSubscribe(test.text)
		if ok != test.ok || ok && (view != test.view || after != test.after) {
			t.Errorf("%s: %q %d %v", test.text, view, after, ok)
		}
	}
}

// typist is a terminal whose user types prepared lines.
type typist struct {
	lines   []any // string, or an error
	prompts []string
	history []string
	prompt  string
}

func (u *typist) SetPrompt(p string) { u.prompt = p }
func (u *typist) SaveHistory(s string) error {
	u.history = append(u.history, s)
	return nil
}
func (u *typist) Readline() (string, error) {
	u.prompts = append(u.prompts, u.prompt)
	if len(u.lines) == 0 {
		return "", io.EOF
	}
	l := u.lines[0]
	u.lines = u.lines[1:]
	if err, ok := l.(error); ok {
		return "", err
	}
	return l.(string), nil
}

func TestPrompt(t *testing.T) {
	n := startFake(t)
	n.on("SELECT\n1", []string{"n", "bigint"}, "SELECT 1", []*millracev1.Value{bigintValue(1)})
	n.on("SHOW STREAMS", []string{"name", "text"}, "SHOW")
	n.on("SHOW VIEWS", []string{"name", "text"}, "SHOW")
	n.on("DESCRIBE bids", []string{"column", "text"}, "DESCRIBE")
	cl, err := client.Dial(t.Context(), []string{n.addr})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var out, errs lockedBuilder
	a := &app{stdout: &out, stderr: &errs}
	w, _ := newResultWriter("csv", &out)
	s := &shell{c: cl, session: cl.Session(), out: w}
	u := &typist{lines: []any{"SELECT", "1;", "SELECT x", readline.ErrInterrupt, "WRONG;", "", `\d`, `\d bids;`, `\what`, `\f json`, "SELECT", "1;", `\q`, "SELECT never;"}}
	if err := a.converse(t.Context(), s, u); err != nil {
		t.Fatal(err)
	}
	if want := "n\n1\nname\nname\ncolumn\n{\"n\":1}\n"; out.String() != want {
		t.Errorf("stdout %q, want %q", out.String(), want)
	}
	if e := errs.String(); !strings.Contains(e, "millrace: unknown statement") || !strings.Contains(e, `unknown command \what`) {
		t.Errorf("stderr %q", e)
	}
	if p := strings.Join(u.prompts[:5], "|"); p != "millrace=> |millrace-> |millrace=> |millrace-> |millrace=> " {
		t.Errorf("prompts %q", p)
	}
	if u.history[0] != "SELECT 1;" {
		t.Errorf("history %q", u.history)
	}
}

// TestLongTable: beyond the rows that set the widths, a table goes on as it comes.
func TestLongTable(t *testing.T) {
	var out strings.Builder
	w, _ := newResultWriter("table", &out)
	w.begin(record.Schema{{Name: "n", Type: record.BigInt}, {Name: "t", Type: record.Text}})
	for i := range tableRows + 2 {
		if err := w.row([]record.Value{{Type: record.BigInt, Int: int64(i)}, {Type: record.Text, Bytes: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != tableRows+2+5 || lines[2] != "    0 | x" || lines[tableRows+3] != fmt.Sprintf(" %d | x", tableRows+1) {
		t.Fatalf("%d lines; %q, %q", len(lines), lines[2], lines[tableRows+3])
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain é 日本": "plain é 日本", "a\nb\tc\r": `a\nb\tc\r`, "\x1b[31m": `\u001b[31m`, "\xff": `\xff`, "\uFFFD": "\uFFFD",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestTransactionBounds(t *testing.T) {
	for text, want := range map[string][2]bool{
		"begin":                   {true, false},
		"START TRANSACTION":       {true, false},
		"commit":                  {false, true},
		"COMMIT WORK":             {false, true},
		"COMMIT AND CHAIN":        {false, false},
		"COMMIT AND NO CHAIN":     {false, true},
		"ROLLBACK TO SAVEPOINT a": {false, false},
		"abort":                   {false, true},
		"END":                     {false, true},
		"SELECT 1":                {false, false},
	} {
		if begins, ends := transactionBounds(text); begins != want[0] || ends != want[1] {
			t.Errorf("%s: begins %v, ends %v", text, begins, ends)
		}
	}
}
