package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

func (s *session) explain(ctx context.Context, st *sql.ExplainStatement, out output) (string, error) {
	lines, err := s.explained(ctx, st)
	if err != nil {
		return "", err
	}
	rows := record.NewDelta(explainFields, len(lines))
	for _, line := range lines {
		rows.Cols[0].AppendString(line)
		rows.N++
	}
	if err := out.schema(explainFields); err != nil {
		return "", err
	}
	return "EXPLAIN", out.rows(rows)
}

func (s *session) explained(ctx context.Context, st *sql.ExplainStatement) ([]string, error) {
	if st.Analyze && st.Statement == nil {
		o, err := planned(ctx, s.n, func(c sql.Catalog) (*sql.Object, error) { return st.Object(c) })
		if err != nil {
			return nil, err
		}
		return s.explainView(ctx, o)
	}
	p, err := planned(ctx, s.n, func(c sql.Catalog) (*plan.Plan, error) { return sql.PlanExplain(st, c) })
	if err != nil {
		return nil, err
	}
	if st.Analyze {
		return s.explainRun(ctx, p)
	}
	return sql.Explain(p), nil
}

// measured is how many rows each operator of a query gave.
type measured struct {
	mu     sync.Mutex
	stages map[int][]uint64
}

func (m *measured) add(stage int, rows []uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stages[stage] = addUp(m.stages[stage], rows)
}

// explainRun runs a query and tells what it did.
func (s *session) explainRun(ctx context.Context, p *plan.Plan) ([]string, error) {
	began := time.Now()
	l, err := s.layout(ctx, p)
	if err != nil {
		return nil, err
	}
	waited := time.Since(began)
	s.seen = max(s.seen, l.tick)
	m := &measured{stages: map[int][]uint64{}}
	l.measure = m
	var rows int64
	err = s.n.query(ctx, p, l, func(d *record.Delta) error {
		for i := range d.N {
			rows += d.Weight(i)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	head := fmt.Sprintf("%d rows at tick %d in %.3f ms, of which %.3f ms to find the tick", rows, l.tick, ms(time.Since(began)), ms(waited))
	op := func(stage, op int) string {
		if g := m.stages[stage]; op < len(g) {
			return fmt.Sprintf("%d rows", g[op])
		}
		return ""
	}
	return append([]string{head}, sql.ExplainWith(p, op, nil)...), nil
}
