package sql

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/plan"
)

// TestOlderView holds that of a view whose plan was kept by a version that didn't say where rows are, or what tells event time,
// nothing is assumed: its plan stays as it was written.
func TestOlderView(t *testing.T) {
	m := memory{}
	if _, err := m.run(`CREATE STREAM s (k BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '1 second');
		CREATE MATERIALIZED VIEW v AS SELECT k, window_start, window_end, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY k, window_start, window_end`); err != nil {
		t.Fatal(err)
	}
	again := "CREATE MATERIALIZED VIEW again AS SELECT k, window_start, window_end, max(n) AS n FROM v GROUP BY k, window_start, window_end"
	final := strings.Replace(again, "again", "again WITH (emit = 'final')", 1)
	stays := "exchange: none, rows are by hash of k, window_start, window_end already"
	for _, text := range []string{again, final} {
		if out, err := m.run(text); err != nil || !strings.Contains(out, stays) {
			t.Errorf("%v\n%s", err, out)
		}
		delete(m, "again")
	}
	raw, err := plan.Marshal(m["v"].Plan)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := plan.Unmarshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	kept.Placed, kept.Times = nil, nil
	m["v"].Plan = kept
	if out, err := m.run(again); err != nil || strings.Contains(out, stays) || !strings.Contains(out, "exchange: by hash of k, window_start, window_end") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := m.run(final); err == nil {
		t.Errorf("a window of which nothing is known is final:\n%s", out)
	}
}
