package sql

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace/millrace/record"
)

func paramCatalog(t *testing.T) memory {
	t.Helper()
	m := memory{}
	if _, err := m.run(`CREATE STREAM s (k TEXT, n BIGINT, p DOUBLE PRECISION, at TIMESTAMPTZ, j JSONB)`); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPrepare(t *testing.T) {
	m := paramCatalog(t)
	for _, c := range []struct{ text, params, output string }{
		{"SELECT n FROM s WHERE k = $1 AND n > $2", "text, bigint", "n bigint"},
		{"SELECT $1", "text", `"?column?" text`},
		{"SELECT $1::bigint + 1 AS x, coalesce($2, 1.5) AS y", "bigint, numeric", "x bigint, y numeric"},
		{"SELECT k FROM s WHERE at BETWEEN $2 AND $1 LIMIT $3 OFFSET $4", "timestamptz, timestamptz, bigint, bigint", "k text"},
		{"SELECT count(*) FROM s WHERE n IN ($1, $2) OR p = $1", "bigint, bigint", "count bigint"},
		{"SELECT $1 || k FROM s", "text", `"?column?" text`},
		{"INSERT INTO s (k, p) VALUES ($1, $2), ('x', $3)", "text, double precision, double precision", ""},
		{"EXPLAIN SELECT n FROM s WHERE k LIKE $1", "text", ""},
		{"SHOW STREAMS", "", ""},
	} {
		stmts, err := Parse(c.text)
		if err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		d, err := Prepare(stmts[0], nil, m)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		var types []string
		for _, p := range d.Params {
			types = append(types, p.String())
		}
		if got := strings.Join(types, ", "); got != c.params || fieldList(d.Output) != c.output {
			t.Errorf("%s: parameters %q, output %q", c.text, got, fieldList(d.Output))
		}
	}
}

func TestPrepareErrors(t *testing.T) {
	m := paramCatalog(t)
	for text, state := range map[string]string{
		"SELECT $2":                         stateIndeterminate,
		"SELECT $0":                         stateNoParameter,
		"SELECT nope FROM s WHERE k = $1":   stateNoColumn,
		"SELECT $99999":                     stateNoParameter,
		"SELECT n FROM s WHERE k = $1 + $2": stateAmbiguousFunc,
	} {
		stmts, err := Parse(text)
		if err == nil {
			_, err = Prepare(stmts[0], nil, m)
		}
		if got := stateOf(err); got != state {
			t.Errorf("%s: %s, want %s (%v)", text, got, state, err)
		}
	}
}

// TestBind holds that a statement with values is the one with the values written out.
func TestBind(t *testing.T) {
	m := paramCatalog(t)
	text := func(s string) record.Value { return record.Value{Type: record.Unknown, Bytes: []byte(s)} }
	for _, c := range []struct {
		text, literal string
		values        []record.Value
	}{
		{"SELECT n FROM s WHERE k = $1 AND n > $2 AND at < $3 LIMIT $4", "SELECT n FROM s WHERE k = 'a''b' AND n > 5 AND at < '2020-01-01' LIMIT 3",
			[]record.Value{text("a'b"), {Type: record.BigInt, Int: 5}, text("2020-01-01"), text("3")}},
		{"SELECT n FROM s WHERE k = $1", "SELECT n FROM s WHERE k = NULL", []record.Value{{Type: record.Unknown, Null: true}}},
	} {
		bound, err := Parse(c.text)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := Parse(c.literal)
		if err != nil {
			t.Fatal(err)
		}
		got, err := PlanSelect(Bind(bound[0], c.values).(*Select), m)
		if err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		want, err := PlanSelect(plain[0].(*Select), m)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(Explain(got), Explain(want)) {
			t.Errorf("%s:\n%v\nwant\n%v", c.text, Explain(got), Explain(want))
		}
		if _, err := PlanSelect(bound[0].(*Select), m); stateOf(err) != stateNoParameter {
			t.Errorf("%s without values: %v", c.text, err)
		}
	}
	stmts, err := Parse("SELECT n FROM s WHERE n = $1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := PlanSelect(Bind(stmts[0], []record.Value{text("five")}).(*Select), m); stateOf(err) != "22P02" {
		t.Error(fmt.Sprint(err))
	}
}
