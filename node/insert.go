package node

import (
	"context"
	"fmt"

	"github.com/millrace/millrace/plan"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// recordOverhead is about what a record takes in memory besides its value, bytes.
const recordOverhead = 100

// insert runs INSERT into a stream or table.
func (s *session) insert(ctx context.Context, st *sql.Insert, out output) (string, error) {
	if err := s.writable("INSERT"); err != nil {
		return "", err
	}
	ch, err := planned(ctx, s.n, func(c sql.Catalog) (*sql.Change, error) { return sql.PlanInsert(st, c) })
	if err != nil {
		return "", err
	}
	if ch.Table.Kind == sql.ObjectTable {
		return s.change(ctx, st, out)
	}
	l, err := s.layout(ctx, withReturning(ch))
	if err != nil {
		return "", err
	}
	enc, err := record.NewEncoder(ch.Table.Stream)
	if err != nil {
		return "", err
	}
	var records []*millracev1.Record
	memory := s.n.queries.begin()
	defer memory.end()
	returned := &returnedRows{ch: ch, tick: l.tick, memory: memory}
	err = s.n.query(ctx, ch.Plan, l, func(d *record.Delta) error {
		for i := range d.N {
			value, err := enc.Encode(nil, d, i)
			if err != nil {
				return err
			}
			if err := memory.add((int64(len(value)) + recordOverhead) * d.Weight(i)); err != nil {
				return err
			}
			for range d.Weight(i) {
				records = append(records, &millracev1.Record{Value: value})
			}
		}
		return returned.inserted(d)
	})
	if err != nil {
		return "", err
	}
	if err := s.write(ctx, ch.Table.Name, records); err != nil {
		return "", err
	}
	return fmt.Sprintf("INSERT 0 %d", len(records)), returned.tell(out)
}

// withReturning is a plan that reads what the statement does, and has the expressions of its RETURNING.
func withReturning(ch *sql.Change) *plan.Plan {
	if ch.Returning == nil {
		return ch.Plan
	}
	p := *ch.Plan
	p.Stages = append(p.Stages[:len(p.Stages):len(p.Stages)], plan.Stage{Ops: ch.Returning.Ops()})
	return &p
}
