package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/internal/fault"
)

// TestPsqlTables holds what psql shows of tables: keys, defaults, indexes; and that it asks for nothing that isn't there.
func TestPsqlTables(t *testing.T) {
	if _, err := exec.LookPath("psql"); err != nil {
		t.Skip("no psql on this machine")
	}
	s := serve(t, "a")
	host, port, _ := net.SplitHostPort(s.pg)
	psql := func(commands ...string) string {
		t.Helper()
		args := []string{"-X", "-A", "-h", host, "-p", port, "-U", "me", "-d", "flights"}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		out, _ := exec.Command("psql", args...).CombinedOutput() // it also fails where it finds nothing to show
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "ERROR:") || strings.Contains(line, "FATAL:") {
				t.Errorf("psql %q: %s", commands, line)
			}
		}
		return string(out)
	}
	psql("CREATE TABLE accounts (owner TEXT NOT NULL DEFAULT 'nobody', id BIGINT PRIMARY KEY, tags TEXT[], at TIMESTAMPTZ DEFAULT now())",
		"CREATE INDEX by_owner ON accounts (owner, at)", `CREATE TABLE "Pair" (a BIGINT, b TEXT, PRIMARY KEY (b, a))`,
		"CREATE STREAM clicks (page TEXT)", "CREATE MATERIALIZED VIEW pages AS SELECT page, count(*) AS n FROM clicks GROUP BY page", "CREATE INDEX ON pages (n)")
	for command, want := range map[string][]string{
		`\d accounts`: {
			"owner|text||not null|'nobody'", "id|bigint||not null|", "tags|text[]|||", "at|timestamp with time zone|||now()",
			`"accounts_pkey" PRIMARY KEY, btree (id)`, `"by_owner" btree (owner, at)`,
		},
		`\d "Pair"`:   {`"Pair_pkey" PRIMARY KEY, btree (b, a)`},
		`\d+ pages`:   {`"pages_n_idx" btree (n)`, "SELECT page, count(*) AS n"},
		`\d by_owner`: {"owner|text|yes|owner", `btree, for table "public.accounts"`},
		`\di`:         {"public|accounts_pkey|index|me|accounts", "public|by_owner|index|me|accounts", "public|pages_n_idx|index|me|pages"},
		`\dfS sqrt`:   {"pg_catalog|sqrt|double precision|double precision|func"},
		`\daS count`:  {"pg_catalog|count|bigint|"},
	} {
		got := psql(command)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s lacks %q:\n%s", command, w, got)
			}
		}
	}
	var all []string
	for _, c := range strings.Fields(`d da dA dAc dAf dAo dAp db dc dC dconfig dd dD ddp dE des det deu dew df dF dFd dFp dFt dg di dl dL dm dn do dO dp dP drds
		dRp dRs ds dt dT du dv dx dX dy l z`) {
		all = append(all, `\`+c, `\`+c+"+")
	}
	psql(all...)
}

// TestPostgresSavepoints holds that a transaction goes back to a savepoint, and on from there, also after an error.
func TestPostgresSavepoints(t *testing.T) {
	s := serve(t, "a")
	c := pgConnect(t, s, "")
	pgExec(t, c, "CREATE STREAM s (n BIGINT)")
	pgExec(t, c, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
	fails := func(state, sql string) {
		t.Helper()
		if _, err := c.Exec(t.Context(), sql); pgState(err) != state {
			t.Errorf("%s: %v, want %s", sql, err, state)
		}
	}
	fails("25P01", "SAVEPOINT a")
	pgExec(t, c, "BEGIN")
	pgExec(t, c, "INSERT INTO s VALUES (1)")
	pgExec(t, c, "SAVEPOINT a")
	pgExec(t, c, "SET LOCAL application_name = 'x'")
	pgExec(t, c, "INSERT INTO s VALUES (2)")
	pgExec(t, c, "INSERT INTO t VALUES (2)")
	pgExec(t, c, "SAVEPOINT a")
	fails("22012", "SELECT 1/0")
	fails("25P02", "SELECT 1")
	fails("25P02", "RELEASE a")
	pgExec(t, c, "ROLLBACK TO SAVEPOINT a")
	pgExec(t, c, "RELEASE SAVEPOINT a")
	pgExec(t, c, "ROLLBACK TO a")
	pgExec(t, c, "INSERT INTO s VALUES (3)")
	pgExec(t, c, "INSERT INTO t VALUES (3)")
	pgExec(t, c, "RELEASE a")
	fails("3B001", "ROLLBACK TO a")
	fails("25P02", "SELECT 1")
	pgExec(t, c, "ROLLBACK")
	pgExec(t, c, "BEGIN")
	pgExec(t, c, "INSERT INTO s VALUES (4)")
	pgExec(t, c, "SAVEPOINT b")
	pgExec(t, c, "INSERT INTO s VALUES (5)")
	fails("22012", "SELECT 1/0")
	pgExec(t, c, "ROLLBACK TO b")
	pgExec(t, c, "INSERT INTO s VALUES (6)")
	pgExec(t, c, "INSERT INTO t VALUES (6)")
	pgExec(t, c, "COMMIT")
	for from, want := range map[string]string{"s ORDER BY 1": "[4 6]", "t ORDER BY 1": "[6]"} {
		rows, err := c.Query(t.Context(), "SELECT * FROM "+from)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v %v, want %s", from, got, err, want)
		}
	}
	pgExec(t, c, "UNLISTEN *")
}

// TestPostgresTransactionalDDL holds what drivers and migration tools get that put CREATE and DROP between BEGIN and COMMIT: CREATE
// takes effect at once with a warning, and is seen by what follows; DROP waits for COMMIT; and neither is passed off as atomic.
func TestPostgresTransactionalDDL(t *testing.T) {
	s := serve(t, "a")
	cfg, err := pgx.ParseConfig("postgres://me@" + s.pg + "/flights")
	if err != nil {
		t.Fatal(err)
	}
	var warned []string
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		warned = append(warned, n.Severity+" "+n.Code+": "+n.Message)
	}
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	warns := func(want ...string) {
		t.Helper()
		if len(warned) != len(want) {
			t.Errorf("%d warnings, want %d: %q", len(warned), len(want), warned)
		}
		for i := range min(len(want), len(warned)) {
			if !strings.HasPrefix(warned[i], "WARNING 01000: ") || !strings.Contains(warned[i], want[i]) {
				t.Errorf("%q lacks %q", warned[i], want[i])
			}
		}
		warned = nil
	}
	fails := func(state, sql string) {
		t.Helper()
		if _, err := c.Exec(t.Context(), sql); pgState(err) != state {
			t.Errorf("%s: %v, want %s", sql, err, state)
		}
	}
	count := func(from string) (n int) {
		t.Helper()
		if err := c.QueryRow(t.Context(), "SELECT count(*) FROM "+from).Scan(&n); err != nil {
			t.Errorf("%s: %v", from, err)
		}
		return n
	}

	// As SQLAlchemy, Django and Alembic do it: look, create, note the version, commit.
	pgExec(t, c, "CREATE TABLE versions (id TEXT PRIMARY KEY)")
	pgExec(t, c, "BEGIN")
	if n := count("versions"); n != 0 {
		t.Errorf("%d versions", n)
	}
	pgExec(t, c, "CREATE TABLE accounts (id BIGINT PRIMARY KEY, owner TEXT)")
	warns("CREATE TABLE took effect at once")
	pgExec(t, c, "CREATE INDEX by_owner ON accounts (owner)")
	warns("CREATE INDEX took effect at once")
	pgExec(t, c, "CREATE MATERIALIZED VIEW owners AS SELECT owner, count(*) AS n FROM accounts GROUP BY owner")
	warns("CREATE MATERIALIZED VIEW took effect at once")
	if n := count("accounts"); n != 0 {
		t.Errorf("%d accounts", n)
	}
	pgExec(t, c, "INSERT INTO versions VALUES ('1')")
	pgExec(t, c, "INSERT INTO accounts VALUES (1, 'ann')")
	pgExec(t, c, "COMMIT")
	warns()
	if n, m := count("versions"), count("owners"); n != 1 || m != 1 {
		t.Errorf("%d versions and %d owners after COMMIT", n, m)
	}

	// ROLLBACK says what it leaves, and the changes are gone all the same.
	pgExec(t, c, "BEGIN")
	pgExec(t, c, "CREATE TABLE half (id BIGINT PRIMARY KEY)")
	pgExec(t, c, "INSERT INTO half VALUES (1)")
	fails("25001", "CREATE TABLE late (id BIGINT PRIMARY KEY)")
	fails("25P02", "SELECT 1")
	pgExec(t, c, "ROLLBACK")
	warns("took effect at once", `ROLLBACK does not take back CREATE, which took effect at once: "half"`)
	if n := count("half"); n != 0 {
		t.Errorf("%d rows after ROLLBACK", n)
	}
	pgExec(t, c, "BEGIN")
	pgExec(t, c, "SAVEPOINT a")
	pgExec(t, c, "CREATE TABLE more (id BIGINT PRIMARY KEY)")
	pgExec(t, c, "ROLLBACK TO a")
	warns("took effect at once", `ROLLBACK does not take back CREATE, which took effect at once: "more"`)
	pgExec(t, c, "COMMIT")
	warns()

	// DROP waits for COMMIT, in its turn.
	pgExec(t, c, "BEGIN")
	pgExec(t, c, "DROP TABLE half")
	if n := count("half"); n != 0 {
		t.Errorf("%d rows", n)
	}
	pgExec(t, c, "ROLLBACK")
	count("half")
	pgExec(t, c, "BEGIN")
	pgExec(t, c, "DROP TABLE IF EXISTS nothing")
	pgExec(t, c, "CREATE TABLE nothing (id BIGINT PRIMARY KEY)")
	pgExec(t, c, "DROP INDEX by_owner")
	pgExec(t, c, "DROP MATERIALIZED VIEW owners")
	pgExec(t, c, "DROP TABLE accounts")
	pgExec(t, c, "COMMIT")
	warns("took effect at once")
	fails("42P01", "SELECT * FROM accounts")
	for state, sql := range map[string]string{"42P01": "DROP TABLE accounts", "42704": "DROP INDEX by_owner", "42809": "DROP STREAM versions", "25001": "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT id FROM versions"} {
		pgExec(t, c, "BEGIN")
		fails(state, sql)
		pgExec(t, c, "ROLLBACK")
	}
	warned = nil

	// A COMMIT that fails says so, and what was created stays.
	pgExec(t, c, "BEGIN")
	pgExec(t, c, "CREATE MATERIALIZED VIEW seen AS SELECT id FROM versions")
	pgExec(t, c, "DROP TABLE versions")
	fails("2BP01", "COMMIT")
	warns("took effect at once", `an error of COMMIT does not take back CREATE, which took effect at once: "seen"`)
	if n, m := count("versions"), count("seen"); n != 1 || m != 1 {
		t.Errorf("%d versions and %d seen after a COMMIT that failed", n, m)
	}

	pgExec(t, c, "BEGIN READ ONLY")
	fails("25006", "CREATE TABLE x (id BIGINT PRIMARY KEY)")
	pgExec(t, c, "ROLLBACK AND CHAIN")
	fails("25006", "DROP TABLE versions")
	pgExec(t, c, "ROLLBACK")
	pgExec(t, c, "BEGIN")
	pgExec(t, c, "DELETE FROM versions")
	pgExec(t, c, "COMMIT AND CHAIN")
	pgExec(t, c, "ROLLBACK")
	if n := count("versions"); n != 0 {
		t.Errorf("%d versions after DELETE, COMMIT AND CHAIN and ROLLBACK", n)
	}

	// Where a warning can't be told, there is a refusal.
	g, err := client.Dial(t.Context(), []string{s.grpc})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	var f *fault.Error
	if _, err := g.Session().Exec(t.Context(), "BEGIN; CREATE STREAM silent (n BIGINT); COMMIT"); !errors.As(err, &f) || f.GetSQLState() != "25001" {
		t.Errorf("over gRPC: %v", err)
	}
}

// TestPostgresArrays sends arrays in the binary format, as pgx and JDBC do, and takes them back.
func TestPostgresArrays(t *testing.T) {
	s := serve(t, "a")
	c := pgConnect(t, s, "")
	pgExec(t, c, "CREATE TABLE t (id BIGINT PRIMARY KEY, tags TEXT[], at DOUBLE PRECISION[])")
	text := func(s string) *string { return &s }
	pgExec(t, c, "INSERT INTO t VALUES ($1, $2, $3), (2, '{}', NULL)", 1, []*string{text("a b"), nil, text("")}, []float64{1.5, -2})
	var tags []*string
	var at []float64
	if err := c.QueryRow(t.Context(), "SELECT tags, at FROM t WHERE id = ANY($1)", []int32{7, 1}).Scan(&tags, &at); err != nil {
		t.Fatal(err)
	}
	if len(tags) != 3 || *tags[0] != "a b" || tags[1] != nil || *tags[2] != "" || fmt.Sprint(at) != "[1.5 -2]" {
		t.Errorf("%v %v", tags, at)
	}
	var n int64
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM t WHERE id = ANY($1)", []int64{}).Scan(&n); err != nil || n != 0 {
		t.Errorf("of no ids: %d %v", n, err)
	}
	if _, err := c.Exec(t.Context(), "SELECT $1::bigint[]", [][]int64{{1}, {2}}); pgState(err) != "0A000" {
		t.Errorf("two dimensions: %v", err)
	}
}
