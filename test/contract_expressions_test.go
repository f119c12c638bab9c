package test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// oracle is where the results come from. To make the file anew, after lines were added to it:
//
//	initdb -D /tmp/pg -E UTF8 --locale=C -A trust && pg_ctl -D /tmp/pg -o '-p 5499 -k /tmp -c timezone=UTC' start
//	go test ./test -run TestPostgresExpressions -oracle postgres://127.0.0.1:5499/postgres
var oracle = flag.String("oracle", "", "address of a PostgreSQL 15 that makes the results of testdata/expressions.tsv anew, and ours where they differ")

const expressionFile = "testdata/expressions.tsv"

// maxDifferences is how many expressions may differ from PostgreSQL: it only ever falls.
const maxDifferences = 530

// answerOf evaluates one expression: its type and value, or its SQLSTATE.
func answerOf(ctx context.Context, c *pgconn.PgConn, expression string) (string, error) {
	results, err := c.Exec(ctx, "SELECT "+expression).ReadAll()
	var e *pgconn.PgError
	switch {
	case errors.As(err, &e):
		return "ERROR " + e.Code, nil
	case err != nil:
		return "", fmt.Errorf("%s: %w", expression, err)
	case len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1:
		return "no single value", nil
	}
	name := "?"
	oid := results[0].FieldDescriptions[0].DataTypeOID
	if t, ok := pgtype.NewMap().TypeForOID(oid); ok {
		name = t.Name
	}
	if same, ok := sameTypes[name]; ok {
		name = same
	}
	v := results[0].Rows[0][0]
	if v == nil {
		return name + " NULL", nil
	}
	return name + " " + fmt.Sprintf("%q", v), nil
}

// sameTypes are PostgreSQL's types that are one here.
var sameTypes = map[string]string{
	"int2": "int8", "int4": "int8", "_int2": "_int8", "_int4": "_int8", "float4": "float8", "_float4": "_float8", "varchar": "text", "bpchar": "text", "name": "text",
	"_varchar": "_text", "json": "jsonb", "unknown": "text", "oid": "int8",
}

// TestPostgresExpressions holds what some thousands of expressions give against what PostgreSQL 15 gives. Each line of
// the file is an expression and PostgreSQL's answer; where ours is known to differ, ours stands third, and
// docs/sql.md says why.
func TestPostgresExpressions(t *testing.T) {
	data, err := os.ReadFile(expressionFile)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, "a")
	ours := pgConnect(t, s, "?timezone=UTC").PgConn()
	if *oracle != "" {
		remake(t, data, ours)
		return
	}
	differ, known, lines := 0, 0, 0
	in := bufio.NewScanner(bytes.NewReader(data))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		f := strings.Split(in.Text(), "\t")
		got, err := answerOf(t.Context(), ours, strings.ReplaceAll(f[0], `\n`, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if len(f) == 3 {
			known++
		}
		if lines++; got != f[1] && got != f[len(f)-1] {
			if differ++; differ <= 20 {
				t.Errorf("%s\n  gives %s\n  not   %s", f[0], got, f[len(f)-1])
			}
		}
	}
	t.Logf("%d expressions, of which %d are known to differ from PostgreSQL; %d are unlike the file", lines, known, differ)
	if lines < 7000 {
		t.Errorf("only %d expressions", lines)
	}
	if known > maxDifferences {
		t.Errorf("%d expressions differ from PostgreSQL, more than the %d that did", known, maxDifferences)
	}
}

// remake writes the file anew.
func remake(t *testing.T, data []byte, ours *pgconn.PgConn) {
	pg, err := pgconn.Connect(t.Context(), *oracle)
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close(context.Background())
	var out bytes.Buffer
	for line := range strings.Lines(string(data)) {
		expression := strings.Split(strings.TrimSuffix(line, "\n"), "\t")[0]
		text := strings.ReplaceAll(expression, `\n`, "\n")
		want, err := answerOf(t.Context(), pg, text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := answerOf(t.Context(), ours, text)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s\t%s", expression, want)
		if got != want {
			fmt.Fprintf(&out, "\t%s", got)
		}
		out.WriteByte('\n')
	}
	if err := os.WriteFile(expressionFile, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
