package node

import (
	"context"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// maxKeyTerms is up to how many keys a table is searched for by a condition on each; for more it is read whole.
const maxKeyTerms = 64

// existingRows is rows of the table: all columns where DO UPDATE wants them, else those of the key.
type existingRows struct {
	at   map[string]int // by the record's key
	rows *record.Delta
}

// existing returns the rows that the table has at l's tick with the keys of rows.
func (c *changer) existing(ctx context.Context, l *layout, rows *record.Delta, keys [][]byte) (*existingRows, error) {
	found := &existingRows{at: map[string]int{}}
	if rows.N == 0 {
		return found, nil
	}
	columns := c.ch.Table.Columns
	scan := c.tableScan()
	schema, at := columns, c.key // and where the key's columns are in it
	if c.ch.Conflict == nil {
		scan.Columns, schema, at = nil, nil, nil
		for i, k := range c.key {
			scan.Columns = append(scan.Columns, columns[k].Name)
			schema, at = append(schema, columns[k]), append(at, i)
		}
	}
	if rows.N == 1 {
		for _, k := range c.ch.Table.Key {
			scan.KeyPrefix = append(scan.KeyPrefix, rows.Cols[k].Value(0))
		}
	}
	ops := []plan.Op{{Kind: plan.OpScan, Schema: schema, Scan: scan}}
	if rows.N <= maxKeyTerms {
		ops = append(ops, plan.Op{Kind: plan.OpFilter, Inputs: []int{0}, Schema: schema, Filter: &plan.Filter{Pred: c.oneOf(rows, schema, at)}})
	}
	p := &plan.Plan{Version: plan.Version, Output: schema, Stages: []plan.Stage{
		{Ops: ops, Exchange: &plan.Exchange{Key: []int{}, Gather: true}},
		{Ops: []plan.Op{{Kind: plan.OpInput, Schema: schema, Input: &plan.Input{}}}},
	}}
	wanted := make(map[string]bool, len(keys))
	for _, k := range keys {
		wanted[string(k)] = true
	}
	found.rows = record.NewDelta(schema, 0)
	values := make([]record.Value, len(at))
	memory := c.s.n.queries.begin()
	defer memory.end()
	return found, c.s.n.query(ctx, p, l, func(d *record.Delta) error {
		before := deltaBytes(found.rows)
		for i := range d.N {
			for k, col := range at {
				values[k] = d.Cols[col].Value(i)
			}
			if key := string(record.AppendKey(nil, values)); wanted[key] {
				found.at[key] = found.rows.N
				found.rows.AppendRow(d, i, 1)
			}
		}
		return memory.add(deltaBytes(found.rows) - before)
	})
}

// oneOf is true for the keys of rows; at says where the key's columns are in schema.
func (c *changer) oneOf(rows *record.Delta, schema record.Schema, at []int) plan.Expr {
	var any []plan.Expr
	for i := range rows.N {
		var all []plan.Expr
		for k, col := range c.key {
			v := rows.Cols[col].Value(i)
			all = append(all, plan.Expr{Kind: plan.ExprCall, Func: "eq", Type: record.Boolean, Args: []plan.Expr{
				{Kind: plan.ExprCol, Type: schema[at[k]].Type, Col: at[k]}, {Kind: plan.ExprConst, Type: schema[at[k]].Type, Const: &v},
			}})
		}
		any = append(any, logical(plan.ExprAnd, all))
	}
	return logical(plan.ExprOr, any)
}

func logical(kind plan.ExprKind, args []plan.Expr) plan.Expr {
	if len(args) == 1 {
		return args[0]
	}
	return plan.Expr{Kind: kind, Type: record.Boolean, Args: args}
}
