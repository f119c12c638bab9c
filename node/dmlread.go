package node

import (
	"context"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/ring"
)

// maxKeyTerms is up to how many keys a read also has a condition on each, so that a node that reads the table whole hands
// over only those.
const maxKeyTerms = 64

// existingRows is rows of the table: all columns where DO UPDATE wants them, else those of the key.
type existingRows struct {
	at   map[string]int // by the record's key
	rows *record.Delta
}

// keysAtOnce bounds the keys of one read, which go to every node.
const keysAtOnce = 4096

// existing returns the rows that the table has at l's tick with the keys of rows: they are looked for one by one, and the
// table is read whole only where a node that has a copy alone answers.
func (c *changer) existing(ctx context.Context, l *layout, rows *record.Delta, keys [][]byte) (*existingRows, error) {
	found := &existingRows{at: map[string]int{}}
	if rows.N == 0 {
		return found, nil
	}
	columns := c.ch.Table.Columns
	schema, at := columns, c.key // and where the key's columns are in it
	if c.ch.Conflict == nil {
		schema, at = nil, nil
		for i, k := range c.key {
			schema, at = append(schema, columns[k]), append(at, i)
		}
	}
	found.rows = record.NewDelta(schema, 0)
	memory := c.s.n.queries.begin()
	defer memory.end()
	for from := 0; from < rows.N; from += keysAtOnce {
		to := min(from+keysAtOnce, rows.N)
		p := c.readKeys(rows, keys, from, to, schema, at)
		wanted := make(map[string]bool, to-from)
		for _, k := range keys[from:to] {
			wanted[string(k)] = true
		}
		err := c.s.n.query(ctx, p, l, func(d *record.Delta) error {
			before := deltaBytes(found.rows)
			found.take(d, at, wanted)
			return memory.add(deltaBytes(found.rows) - before)
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// take keeps the rows of d that are wanted; at says where the key's columns are.
func (f *existingRows) take(d *record.Delta, at []int, wanted map[string]bool) {
	values := make([]record.Value, len(at))
	for i := range d.N {
		for k, col := range at {
			values[k] = d.Cols[col].Value(i)
		}
		if key := string(record.AppendKey(nil, values)); wanted[key] {
			f.at[key] = f.rows.N
			f.rows.AppendRow(d, i, 1)
		}
	}
}

// readKeys is a plan that reads what the table has with the keys of rows from to to.
func (c *changer) readKeys(rows *record.Delta, keys [][]byte, from, to int, schema record.Schema, at []int) *plan.Plan {
	scan := c.tableScan()
	scan.Columns = nil
	for _, f := range schema {
		scan.Columns = append(scan.Columns, f.Name)
	}
	for i := from; i < to; i++ {
		key := make([]record.Value, len(c.ch.Table.Key))
		for k, col := range c.ch.Table.Key {
			key[k] = rows.Cols[col].Value(i)
		}
		if to-from == 1 {
			scan.KeyPrefix = key
			break
		}
		scan.Keys = append(scan.Keys, plan.KeyRead{Partition: uint32(ring.Partition(keys[i], c.partitions)), Key: key})
	}
	ops := []plan.Op{{Kind: plan.OpScan, Schema: schema, Scan: scan}}
	if to-from <= maxKeyTerms {
		ops = append(ops, plan.Op{Kind: plan.OpFilter, Inputs: []int{0}, Schema: schema, Filter: &plan.Filter{Pred: c.oneOf(rows, from, to, schema, at)}})
	}
	return &plan.Plan{Version: plan.Version, Output: schema, Stages: []plan.Stage{
		{Ops: ops, Exchange: &plan.Exchange{Key: []int{}, Gather: true}},
		{Ops: []plan.Op{{Kind: plan.OpInput, Schema: schema, Input: &plan.Input{}}}},
	}}
}

// oneOf is true for the keys of rows from to to; at says where the key's columns are in schema.
func (c *changer) oneOf(rows *record.Delta, from, to int, schema record.Schema, at []int) plan.Expr {
	var any []plan.Expr
	for i := from; i < to; i++ {
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
