package node

import (
	"context"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// maxKeyTerms is up to how many keys a table is searched for by a condition on each; for more it is read whole.
const maxKeyTerms = 64

// existing returns which keys of rows the table has at l's tick; it may name others too.
func (c *changer) existing(ctx context.Context, l *layout, rows *record.Delta) (map[string]bool, error) {
	found := map[string]bool{}
	if rows.N == 0 {
		return found, nil
	}
	columns := c.ch.Table.Columns
	scan := &plan.Scan{Kind: plan.ScanView, Object: c.ch.Table.ID, Name: c.ch.Table.Name}
	schema := record.Schema{}
	for _, k := range c.key {
		scan.Columns = append(scan.Columns, columns[k].Name)
		schema = append(schema, columns[k])
	}
	if rows.N == 1 {
		for _, k := range c.ch.Table.Key {
			scan.KeyPrefix = append(scan.KeyPrefix, rows.Cols[k].Value(0))
		}
	}
	ops := []plan.Op{{Kind: plan.OpScan, Schema: schema, Scan: scan}}
	if rows.N <= maxKeyTerms {
		ops = append(ops, plan.Op{Kind: plan.OpFilter, Inputs: []int{0}, Schema: schema, Filter: &plan.Filter{Pred: c.oneOf(rows, schema)}})
	}
	p := &plan.Plan{Version: plan.Version, Output: schema, Stages: []plan.Stage{
		{Ops: ops, Exchange: &plan.Exchange{Key: []int{}, Gather: true}},
		{Ops: []plan.Op{{Kind: plan.OpInput, Schema: schema, Input: &plan.Input{}}}},
	}}
	err := c.s.n.query(ctx, p, l, func(d *record.Delta) error {
		values := make([]record.Value, len(c.key))
		for i := range d.N {
			for k := range values {
				values[k] = d.Cols[k].Value(i)
			}
			found[string(record.AppendKey(nil, values))] = true
		}
		return nil
	})
	return found, err
}

// oneOf is true for the keys of rows; the key's columns come in the order of schema.
func (c *changer) oneOf(rows *record.Delta, schema record.Schema) plan.Expr {
	var any []plan.Expr
	for i := range rows.N {
		var all []plan.Expr
		for k, col := range c.key {
			v := rows.Cols[col].Value(i)
			all = append(all, plan.Expr{Kind: plan.ExprCall, Func: "eq", Type: record.Boolean, Args: []plan.Expr{
				{Kind: plan.ExprCol, Type: schema[k].Type, Col: k}, {Kind: plan.ExprConst, Type: schema[k].Type, Const: &v},
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
