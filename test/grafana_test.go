package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The dashboard's time range, and what a panel's width makes of it.
var (
	grafanaFrom = time.Date(2024, 1, 1, 10, 0, 0, 0, time.UTC)
	grafanaTo   = grafanaFrom.Add(10*time.Minute - time.Millisecond)
)

const grafanaInterval = "2m"

// grafanaSchemas is the condition that Grafana's queries of the catalog have for the schemas of the search path.
const grafanaSchemas = `
          quote_ident(table_schema) IN (
          SELECT
            CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM
            generate_series(
              array_lower(string_to_array(current_setting('search_path'),','),1),
              array_upper(string_to_array(current_setting('search_path'),','),1)
            ) as i,
            string_to_array(current_setting('search_path'),',') s
          )`

var grafanaMacro = regexp.MustCompile(`\$(__\w+)\(([^)]*)\)(,?)`)

// grafanaSQL writes a query's macros out as Grafana's PostgreSQL source does.
func grafanaSQL(t *testing.T, query string) string {
	from, to := grafanaFrom.Format(time.RFC3339Nano), grafanaTo.Format(time.RFC3339Nano)
	query = strings.NewReplacer("$schemas", grafanaSchemas, "$__interval_ms", "120000", "$__interval", grafanaInterval).Replace(query)
	return grafanaMacro.ReplaceAllStringFunc(query, func(macro string) string {
		m := grafanaMacro.FindStringSubmatch(macro)
		name, comma := m[1], m[3]
		args := strings.Split(m[2], ",")
		for i := range args {
			args[i] = strings.Trim(args[i], " ")
		}
		if name == "__timeGroup" && comma != "" { // of old, the macro named the column
			name = "__timeGroupAlias"
		}
		seconds := func() float64 {
			d, err := time.ParseDuration(strings.Trim(args[1], "'"))
			if err != nil {
				t.Fatalf("%s: %v", macro, err)
			}
			return d.Seconds()
		}
		group := func(what, alias string) string {
			return fmt.Sprintf("floor(%s/%v)*%v%s", what, seconds(), seconds(), alias)
		}
		const alias = ` AS "time"`
		switch name {
		case "__time":
			return args[0] + alias + comma
		case "__timeEpoch":
			return "extract(epoch from " + args[0] + `) as "time"` + comma
		case "__timeFilter":
			return fmt.Sprintf("%s BETWEEN '%s' AND '%s'%s", args[0], from, to, comma)
		case "__timeFrom":
			return "'" + from + "'" + comma
		case "__timeTo":
			return "'" + to + "'" + comma
		case "__timeGroup":
			return group("extract(epoch from "+args[0]+")", "") + comma
		case "__timeGroupAlias":
			return group("extract(epoch from "+args[0]+")", alias) + comma
		case "__unixEpochGroup":
			return group("("+args[0]+")", "") + comma
		case "__unixEpochGroupAlias":
			return group("("+args[0]+")", alias) + comma
		case "__unixEpochFilter":
			return fmt.Sprintf("%s >= %d AND %s <= %d%s", args[0], grafanaFrom.Unix(), args[0], grafanaTo.Unix(), comma)
		case "__unixEpochNanoFilter":
			return fmt.Sprintf("%s >= %d AND %s <= %d%s", args[0], grafanaFrom.UnixNano(), args[0], grafanaTo.UnixNano(), comma)
		case "__unixEpochFrom":
			return fmt.Sprint(grafanaFrom.Unix()) + comma
		case "__unixEpochTo":
			return fmt.Sprint(grafanaTo.Unix()) + comma
		}
		t.Fatalf("no macro %s", macro)
		return ""
	})
}

// grafanaRows is what was measured: some hosts lack some minutes, and some of it is outside the dashboard's time.
func grafanaRows() (values []string) {
	for i := range 45 {
		at := grafanaFrom.Add(-2*time.Minute + time.Duration(i)*20*time.Second)
		host := []string{"a", "b", "O'Brien"}[i%7%3]
		if host == "b" && i/15%2 == 0 {
			continue
		}
		values = append(values, fmt.Sprintf("('%s', %v, %d, '%s')", strings.ReplaceAll(host, "'", "''"), float64(i*37%64)/64, at.Unix(), at.Format(time.RFC3339)))
	}
	return values
}

// pgText runs a query as Grafana does, or else by the extended protocol, and returns its columns and rows as text.
func pgText(ctx context.Context, c *pgx.Conn, query string, args []string, extended bool) string {
	var out strings.Builder
	write := func(r *pgconn.Result) {
		var names []string
		for _, f := range r.FieldDescriptions {
			name := fmt.Sprint(f.DataTypeOID)
			if t, ok := c.TypeMap().TypeForOID(f.DataTypeOID); ok {
				name = t.Name
			}
			names = append(names, f.Name+" "+name)
		}
		fmt.Fprintln(&out, strings.Join(names, ", "))
		for _, row := range r.Rows {
			var cells []string
			for _, v := range row {
				if v == nil {
					cells = append(cells, "NULL")
				} else {
					cells = append(cells, string(v))
				}
			}
			fmt.Fprintln(&out, strings.Join(cells, " | "))
		}
	}
	if extended {
		values := make([][]byte, len(args))
		for i, a := range args {
			values[i] = []byte(a)
		}
		r := c.PgConn().ExecParams(ctx, query, values, nil, nil, nil).Read()
		if r.Err != nil {
			return "error " + pgState(r.Err) + "\n"
		}
		write(r)
		return out.String()
	}
	results, err := c.PgConn().Exec(ctx, query).ReadAll()
	if err != nil {
		return "error " + pgState(err) + "\n"
	}
	for _, r := range results {
		write(r)
	}
	return out.String()
}

// TestGrafana asks each of three nodes what Grafana's PostgreSQL source asks (testdata/grafana), by every protocol that it has used.
// PostgreSQL gives the same answers to what isn't about the catalog: TestGrafanaPostgres.
func TestGrafana(t *testing.T) {
	servers := cluster(t, 3)
	var conns []*pgx.Conn
	for _, s := range servers {
		conns = append(conns, pgConnect(t, s, ""))
	}
	pgExec(t, conns[0], "CREATE STREAM readings (host TEXT, cpu DOUBLE PRECISION, seconds BIGINT, at TIMESTAMPTZ, WATERMARK FOR at AS at - INTERVAL '10 seconds')")
	pgExec(t, conns[0], `CREATE MATERIALIZED VIEW per_minute AS SELECT window_start AS time, host, avg(cpu) AS cpu, count(*) AS n
		FROM TUMBLE(readings, at, INTERVAL '1 minute') GROUP BY host, window_start, window_end`)
	rows := grafanaRows()
	pgExec(t, conns[0], "INSERT INTO readings VALUES "+strings.Join(rows, ", "))
	for _, c := range conns { // each node has all of it, and nothing more comes
		eventually(t, func() string {
			var n, m int64
			err := c.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM readings), (SELECT sum(n)::bigint FROM per_minute)").Scan(&n, &m)
			if err != nil || n != int64(len(rows)) || m != n {
				return fmt.Sprintf("%d rows, %d in the view: %v", n, m, err)
			}
			return ""
		})
	}
	datadriven.RunTest(t, "testdata/grafana", func(t *testing.T, d *datadriven.TestData) string {
		query := grafanaSQL(t, d.Input)
		var args []string
		for _, a := range d.CmdArgs {
			args = append(args, a.Key)
		}
		answer := ""
		for i, c := range conns {
			got := pgText(t.Context(), c, query, args, len(args) > 0)
			if i == 0 {
				answer = got
			} else if got != answer {
				t.Errorf("%s\nnode %d says\n%s\nand node 1\n%s", query, i+1, got, answer)
			}
			if strings.HasPrefix(answer, "error") || len(args) > 0 || d.Cmd == "batch" {
				continue
			}
			if got := pgText(t.Context(), c, query, nil, true); got != answer {
				t.Errorf("%s\nby the extended protocol:\n%s\nby the simple one:\n%s", query, got, answer)
			}
			rows, err := c.Query(t.Context(), query) // in binary
			if err != nil {
				t.Errorf("%s: %v", query, err)
				continue
			}
			for rows.Next() {
				if _, err := rows.Values(); err != nil {
					t.Errorf("%s: %v", query, err)
				}
			}
			if err := rows.Err(); err != nil {
				t.Errorf("%s: %v", query, err)
			}
		}
		return answer
	})
	t.Run("late records", func(t *testing.T) { lateRecords(t, servers, conns) })
}

// TestGrafanaPostgres lets PostgreSQL answer the same queries over the same rows, if there is one.
func TestGrafanaPostgres(t *testing.T) {
	if *nexmarkPostgres == "" {
		t.Skip("no -postgres")
	}
	c, err := pgx.Connect(t.Context(), *nexmarkPostgres)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	for _, s := range []string{
		"SET TIME ZONE 'UTC'", "DROP TABLE IF EXISTS readings, per_minute",
		"CREATE TABLE readings (host TEXT COLLATE \"C\", cpu DOUBLE PRECISION, seconds BIGINT, at TIMESTAMPTZ)",
		"INSERT INTO readings VALUES " + strings.Join(grafanaRows(), ", "),
		"CREATE TABLE per_minute AS SELECT date_trunc('minute', at) AS time, host, avg(cpu) AS cpu, count(*) AS n FROM readings GROUP BY host, 1",
	} {
		pgExec(t, c, s)
	}
	datadriven.RunTest(t, "testdata/grafana", func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd == "catalog" {
			return d.Expected
		}
		return pgText(t.Context(), c, grafanaSQL(t, d.Input), nil, false)
	})
}

// lateRecords holds that on every node the late records of a view are as many as it counts, whatever partition they are in.
func lateRecords(t *testing.T, servers []*server, conns []*pgx.Conn) {
	pgExec(t, conns[0], "CREATE STREAM visits (page TEXT, at TIMESTAMPTZ, WATERMARK FOR at AS at - INTERVAL '5 minutes') WITH (key = 'page')")
	pgExec(t, conns[1], "CREATE MATERIALIZED VIEW hops AS SELECT window_end, count(*) AS n FROM HOP(visits, at, INTERVAL '1 minute', INTERVAL '5 minutes') GROUP BY window_start, window_end")
	pgExec(t, conns[2], "CREATE MATERIALIZED VIEW missed AS SELECT * FROM late_records('hops')")
	rng := rand.New(rand.NewPCG(4, 2))
	var lines []string
	for range 5000 {
		lines = append(lines, fmt.Sprintf(`{"page":"p%d","at":"%s"}`, rng.IntN(100), grafanaFrom.Add(time.Duration(rng.IntN(1800))*time.Second).Format(time.RFC3339)))
	}
	if r := cli(t, strings.NewReader(strings.Join(lines, "\n")), "send", "visits", "--addr", servers[0].grpc); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	for i, c := range conns {
		eventually(t, func() string {
			var read, followed, all int64
			err := c.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM late_records('hops')), (SELECT count(*) FROM missed), (SELECT count(*) FROM visits)").Scan(&read, &followed, &all)
			counted := number(viewStats(t, servers[i].grpc, "hops")["late"])
			if err != nil || all != int64(len(lines)) || read == 0 || read != followed || read != counted {
				return fmt.Sprintf("%d late records read, %d in the view of them, %d counted, of %d: %v", read, followed, counted, all, err)
			}
			return ""
		})
	}
	var wrong int64
	if err := conns[0].QueryRow(t.Context(), "SELECT count(*) FROM missed WHERE window_end > watermark OR at >= window_end OR at < window_start").Scan(&wrong); err != nil || wrong != 0 {
		t.Errorf("%d late records have a window that they didn't miss: %v", wrong, err)
	}
}
