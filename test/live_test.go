package test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// liveQueries are queries that a view can maintain; each as a view must say what it says ad hoc at the same tick.
var liveQueries = map[string]string{
	"credits":  `SELECT dst AS account, sum(amount) AS credits FROM transfers GROUP BY dst`,
	"debits":   `SELECT src AS account, sum(amount) AS debits FROM transfers GROUP BY src`,
	"balances": `SELECT coalesce(c.account, d.account) AS account, coalesce(credits, 0) - coalesce(debits, 0) AS balance FROM credits c FULL JOIN debits d ON c.account = d.account`,
	"total":    `SELECT sum(balance) AS total FROM balances`,
	"named":    `SELECT a.name, b.balance FROM balances b LEFT JOIN accounts a ON a.id = b.account`,
	"hot":      `SELECT dst, count(*) AS n, window_start, window_end FROM HOP(transfers, ts, INTERVAL '2 seconds', INTERVAL '10 seconds') GROUP BY dst, window_start, window_end`,
	"sessions": `SELECT src, count(*) AS n, window_start, window_end FROM SESSION(transfers, ts, INTERVAL '3 seconds') GROUP BY src, window_start, window_end`,
	"best":     `SELECT dst, amount, id, place FROM (SELECT dst, amount, id, row_number() OVER (PARTITION BY dst ORDER BY amount DESC, id) AS place FROM transfers) x WHERE place <= 2`,
	"busy":     `SELECT count(DISTINCT src) AS srcs, count(*) FILTER (WHERE amount > 50) AS big FROM transfers`,
	"pairs": `SELECT a.dst, a.n, b.n AS m, a.window_start FROM
		(SELECT dst, window_start, window_end, count(*) AS n FROM TUMBLE(transfers, ts, INTERVAL '5 seconds') GROUP BY dst, window_start, window_end) a JOIN
		(SELECT src, window_start, window_end, count(*) AS n FROM TUMBLE(transfers, ts, INTERVAL '5 seconds') GROUP BY src, window_start, window_end) b
		ON a.dst = b.src AND a.window_start = b.window_start AND a.window_end = b.window_end`,
	"unknown": `SELECT id, dst FROM transfers t WHERE NOT EXISTS (SELECT 1 FROM accounts a WHERE a.id = t.dst)`,
	"running": `SELECT src, id, sum(amount) OVER (PARTITION BY src ORDER BY id) AS s FROM transfers`,
	"either":  `SELECT src AS a FROM transfers UNION SELECT dst FROM transfers`,
	"most":    `SELECT max(n) AS n FROM (SELECT src, count(*) AS n FROM transfers GROUP BY src) x`,
}

// order is the views' names, what they read first.
var liveOrder = []string{"credits", "debits", "balances", "total", "named", "hot", "sessions", "best", "busy", "pairs", "unknown", "running", "either", "most"}

// TestLiveViews maintains joins, windows, ranks and views over views on three nodes while one of them is killed. Money is
// neither made nor lost in any answer, and in the end every view says what its query says ad hoc.
func TestLiveViews(t *testing.T) {
	nodes := cluster(t, 3)
	addr := nodes[0].grpc
	answer(t, addr, "json", `CREATE STREAM transfers (id BIGINT, src BIGINT, dst BIGINT, amount BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '4 seconds') WITH (key = 'id');
		CREATE TABLE accounts (id BIGINT PRIMARY KEY, name TEXT)`)
	for _, name := range liveOrder {
		answer(t, addr, "json", fmt.Sprintf("CREATE MATERIALIZED VIEW %s AS %s", name, liveQueries[name]))
	}
	answer(t, addr, "json", `INSERT INTO accounts SELECT g, 'account ' || g FROM generate_series(0, 9) AS x(g)`)
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, 1))
	id := 0
	for round := range 6 {
		var lines []string
		for range 500 {
			lines = append(lines, fmt.Sprintf(`{"id":%d,"src":%d,"dst":%d,"amount":%d,"ts":%d}`,
				id, rng.IntN(12), rng.IntN(12), 1+rng.IntN(100), 1767225600000000+int64(id)*20_000-int64(rng.IntN(3_000_000))))
			id++
		}
		sends(t, addr, "transfers", lines...)
		if round == 2 {
			nodes[2].kill()
		}
		if round == 3 {
			answer(t, addr, "json", `UPDATE accounts SET name = 'renamed' WHERE id = 3; DELETE FROM accounts WHERE id = 4`)
		}
		answers(t, addr, `SELECT total FROM total`, `{"total":0}`)
		answers(t, addr, `SELECT sum(balance) AS total FROM balances`, `{"total":0}`)
	}
	for _, name := range liveOrder {
		eventually(t, func() string {
			both := answer(t, addr, "json", fmt.Sprintf("SELECT * FROM %s", name))
			adhoc := answer(t, addr, "json", liveQueries[name])
			if got, want := sorted(both), sorted(adhoc); got != want {
				return fmt.Sprintf("view %s\n%s\nits query\n%s", name, shortened(got), shortened(want))
			}
			return ""
		})
	}
}

func sorted(lines string) string {
	l := strings.Split(strings.TrimSpace(lines), "\n")
	slices.Sort(l)
	return strings.Join(l, "\n")
}

func shortened(s string) string {
	if len(s) > 2000 {
		return s[:2000] + "..."
	}
	return s
}
