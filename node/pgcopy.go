package node

import (
	"context"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/plan"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// copyTarget appends COPY's rows to a stream, or inserts them into a table.
type copyTarget struct {
	s        *session
	stream   *millracev1.Stream // of a table: its log
	enc      *record.Encoder
	all      record.Schema // of the stream
	given    record.Schema // that COPY names, in its order
	at       []int         // where they stand in all
	defaults *record.Delta // one row: what the columns that COPY doesn't name are
}

// Columns implements pgwire.Target.
func (t *copyTarget) Columns() record.Schema { return t.given }

// readDefaults finds out what the columns without a value are.
func (t *copyTarget) readDefaults(ctx context.Context) error {
	p, err := planned(ctx, t.s.n, func(c sql.Catalog) (*plan.Plan, error) {
		o, ok := c.Lookup(t.stream.Name)
		if !ok {
			return nil, fault.SQL(fault.NotFound, "42P01", "unknown stream or table %q", t.stream.Name)
		}
		return sql.PlanDefaults(o)
	})
	if err != nil {
		return err
	}
	l, err := t.s.layout(ctx, p)
	if err != nil {
		return err
	}
	t.defaults = record.NewDelta(p.Output, 1)
	return t.s.n.query(ctx, p, l, func(d *record.Delta) error {
		t.defaults.AppendRow(d, 0, 1)
		return nil
	})
}

// Append implements pgwire.Target.
func (t *copyTarget) Append(ctx context.Context, rows *record.Delta) error {
	full := &record.Delta{N: rows.N, Cols: make([]record.Column, len(t.all))}
	for k, i := range t.at {
		full.Cols[i] = rows.Cols[k]
	}
	for i, f := range t.all {
		if !slices.Contains(t.at, i) {
			full.Cols[i] = record.NewColumn(f.Type, rows.N)
			for range rows.N {
				full.Cols[i].AppendFrom(&t.defaults.Cols[i], 0)
			}
		}
	}
	if len(t.stream.PrimaryKey) > 0 {
		own := record.NewDelta(t.all, rows.N) // rows are not kept, and a transaction does
		for i := range full.N {
			own.AppendRow(full, i, 1)
		}
		return t.s.insertRows(ctx, t.stream.Name, own)
	}
	records := make([]*millracev1.Record, rows.N)
	for i := range records {
		value, err := t.enc.Encode(nil, full, i)
		if err != nil {
			return err
		}
		records[i] = &millracev1.Record{Value: value}
	}
	return t.s.write(ctx, t.stream.Name, records)
}
