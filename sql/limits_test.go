package sql

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/fault"
)

func stateOf(err error) string {
	var e *fault.Error
	if errors.As(err, &e) {
		return e.GetSQLState()
	}
	return fmt.Sprint(err)
}

// TestNesting builds every way that we know of to make PostgreSQL's tree deep out of a flat text.
func TestNesting(t *testing.T) {
	const deep = 20_000 // the C parser overflows its stack well below
	ways := map[string]func(n int) string{
		"parentheses": func(n int) string { return "SELECT " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n) },
		"unclosed":    func(n int) string { return "SELECT " + strings.Repeat("(", n) },
		"brackets":    func(n int) string { return "SELECT " + strings.Repeat("ARRAY[", n) + "1" + strings.Repeat("]", n) },
		"case": func(n int) string {
			return "SELECT " + strings.Repeat("CASE WHEN true THEN ", n) + "1" + strings.Repeat(" END", n)
		},
		"left chain": func(n int) string { return "SELECT 1" + strings.Repeat(" + 1", n) },
		"operators":  func(n int) string { return "SELECT 1" + strings.Repeat(" || 1", n) },
		"casts":      func(n int) string { return "SELECT 1" + strings.Repeat("::text", n) },
		"not":        func(n int) string { return "SELECT " + strings.Repeat("NOT ", n) + "true" },
		"minus":      func(n int) string { return "SELECT " + strings.Repeat("- ", n) + "x" },
		"is null":    func(n int) string { return "SELECT x" + strings.Repeat(" IS NULL", n) },
		"isnull":     func(n int) string { return "SELECT x" + strings.Repeat(" ISNULL", n) },
		"between": func(n int) string {
			return "SELECT x" + strings.Repeat(" BETWEEN 1 AND 2 IS NULL", n)
		},
		"keyword names": func(n int) string { return "SELECT t.and" + strings.Repeat(" + t.and", n) },
		"at time zone":  func(n int) string { return "SELECT x" + strings.Repeat(" AT TIME ZONE 'UTC'", n) },
		"collate":       func(n int) string { return "SELECT x" + strings.Repeat(` COLLATE "C"`, n) },
		"operator()":    func(n int) string { return "SELECT 1" + strings.Repeat(" OPERATOR(pg_catalog.+) 1", n) },
		"union":         func(n int) string { return "SELECT 1" + strings.Repeat(" UNION SELECT 1", n) },
		"joins":         func(n int) string { return "SELECT * FROM a" + strings.Repeat(" CROSS JOIN a", n) },
		"subqueries": func(n int) string {
			return "SELECT * FROM " + strings.Repeat("(SELECT * FROM ", n) + "a" + strings.Repeat(")", n)
		},
		"within group": func(n int) string {
			return "SELECT f() WITHIN GROUP (ORDER BY x)" + strings.Repeat(" + f() WITHIN GROUP (ORDER BY x)", n)
		},
		"calls":   func(n int) string { return "SELECT " + strings.Repeat("abs(", n) + "1" + strings.Repeat(")", n) },
		"explain": func(n int) string { return strings.Repeat("EXPLAIN ", n) + "SELECT 1" },
		"prefix":  func(n int) string { return "SELECT " + strings.Repeat("@ ", n) + "1" },
		"mixed": func(n int) string {
			return "SELECT " + strings.Repeat("(NOT 1 + ", n) + "1" + strings.Repeat(" - 1)", n)
		},
		"labels": func(n int) string {
			return "SELECT 1 AS case, " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n)
		},
		"view": func(n int) string { return "CREATE MATERIALIZED VIEW v AS SELECT 1" + strings.Repeat(" + 1", n) },
		"values": func(n int) string {
			return "INSERT INTO s VALUES (" + strings.Repeat("(", n) + "1" + strings.Repeat(")", n) + ")"
		},
	}
	for name, way := range ways {
		if _, err := Parse(way(deep)); stateOf(err) != stateTooDeep {
			t.Errorf("%s, %d deep: %.200v", name, deep, err)
		}
		for _, n := range []int{3, 100, 250, 256, 300, 2000} { // never a crash, whatever it says
			stmts, err := Parse(way(n))
			if err == nil {
				_, _ = memory{}.run(way(n))
			}
			_ = stmts
		}
	}
}

// TestFlatIsNotDeep holds for what is long but flat.
func TestFlatIsNotDeep(t *testing.T) {
	m := memory{}
	if _, err := m.run("CREATE STREAM s (a BIGINT, b BOOLEAN)"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"or":     "SELECT a FROM s WHERE a = 0" + strings.Repeat(" OR a = 1", 5000),
		"and":    "SELECT a FROM s WHERE a BETWEEN 1 AND 2" + strings.Repeat(" AND a BETWEEN 1 AND 2 AND NOT b", 3000),
		"in":     "SELECT a FROM s WHERE a IN (0" + strings.Repeat(", 1", 20_000) + ")",
		"values": "INSERT INTO s VALUES (1, true)" + strings.Repeat(", (1, true)", 20_000),
		"many":   strings.Repeat("SELECT 1 + 1; ", 5000),
	} {
		if _, err := m.run(text); err != nil {
			t.Errorf("%s: %.300v", name, err)
		}
	}
}

func TestSizeLimits(t *testing.T) {
	m := memory{}
	names := make([]string, MaxColumns+1)
	for i := range names {
		names[i] = fmt.Sprintf("c%d", i)
	}
	types := func(n int) string { return strings.Join(names[:n], " BIGINT, ") + " BIGINT" }
	list := func(n int) string { return strings.Join(names[:n], ", ") }
	if _, err := m.run("CREATE STREAM wide (" + types(MaxColumns) + ")"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.run("SELECT * FROM wide; SELECT " + list(MaxColumns) + " FROM wide GROUP BY " + list(MaxColumns) + " ORDER BY " + list(MaxColumns)); err != nil {
		t.Fatal(err)
	}
	doubling := "a"
	for range 25 { // each level doubles what it repeats
		doubling = "(" + doubling + " BETWEEN false AND true)"
	}
	for name, test := range map[string]struct{ text, state string }{
		"columns of a stream":   {"CREATE STREAM wider (" + types(MaxColumns+1) + ")", stateTooManyColumns},
		"columns of *":          {"SELECT *, c0 FROM wide", stateTooManyColumns},
		"columns of a list":     {"SELECT c0, " + list(MaxColumns) + " FROM wide", stateTooManyColumns},
		"columns of GROUP BY":   {"SELECT 1 FROM wide GROUP BY c0, " + list(MaxColumns), stateTooManyColumns},
		"columns of ORDER BY":   {"SELECT 1 FROM wide ORDER BY c0, " + list(MaxColumns), stateTooManyColumns},
		"text":                  {"SELECT '" + strings.Repeat("x", MaxTextBytes) + "'", stateTooLong},
		"text of comments":      {strings.Repeat("-- x\n", MaxTextBytes/4), stateTooLong},
		"name":                  {"SELECT " + strings.Repeat("x", MaxNameBytes+1), stateNameTooLong},
		"quoted name":           {`DESCRIBE "` + strings.Repeat("é", 32) + `"`, stateNameTooLong},
		"repeated operands":     {"SELECT " + strings.ReplaceAll(doubling, "a ", "(c0 > 1) ") + " FROM wide", stateTooDeep},
		"invalid UTF-8":         {"SELECT 'a\xff'", stateEncoding},
		"zero byte":             {"SELECT 1\x00; DROP STREAM s", stateEncoding},
		"truncated UTF-8":       {"SELECT 'é' || '\xc3", stateEncoding},
		"name of 63 bytes":      {"SELECT " + strings.Repeat("x", MaxNameBytes), stateNoColumn},
		"text at the limit":     {"SELECT x" + strings.Repeat(" ", MaxTextBytes-8), stateNoColumn},
		"huge number":           {"SELECT 1e999999999", stateOutOfRange},
		"long unknown function": {"SELECT " + strings.Repeat("f", 63) + "()", stateNoFunction},
	} {
		if _, err := m.run(test.text); stateOf(err) != test.state {
			t.Errorf("%s: want %s, got %.300v", name, test.state, err)
		}
	}
}

func TestTextOfStatements(t *testing.T) {
	stmts, err := Parse("  SELECT 1 -- one\n;;CREATE MATERIALIZED VIEW v AS SELECT ';' FROM s ; EXPLAIN SELECT 2")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"SELECT 1", "CREATE MATERIALIZED VIEW v AS SELECT ';' FROM s", "EXPLAIN SELECT 2"}
	if len(stmts) != len(want) {
		t.Fatalf("%d statements", len(stmts))
	}
	for i, s := range stmts {
		if s.Text() != want[i] {
			t.Errorf("statement %d is %q", i, s.Text())
		}
	}
	if got := stmts[2].(*ExplainStatement).Statement.Text(); got != "SELECT 2" {
		t.Errorf("explained statement is %q", got)
	}
	if stmts, err := Parse(" -- nothing\n ; ; /* none */"); err != nil || len(stmts) != 0 {
		t.Errorf("%v %v", stmts, err)
	}
}
