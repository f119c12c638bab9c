package sql

import (
	"math"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// planner cuts a checked query into stages. It works from the scan upwards, appending operators to the last stage,
// and starts a new stage where rows must move.
type planner struct {
	src    *source
	live   bool // a view: exchanges by key, deltas with retractions; else ad hoc: one exchange, to the gateway
	stages []plan.Stage
	// single is set once all rows are in one place (ad hoc: at the gateway).
	single bool
	// retracts is set once rows may have negative weights: above a view's first final aggregate.
	retracts bool
	emitAt   int // position of the option emit = 'final'; -1: not given
}

func (p *planner) stage() *plan.Stage { return &p.stages[len(p.stages)-1] }

// schema returns the columns of the last operator.
func (p *planner) schema() record.Schema {
	ops := p.stage().Ops
	return ops[len(ops)-1].Schema
}

// add appends op above the last operator.
func (p *planner) add(op plan.Op) {
	s := p.stage()
	if n := len(s.Ops); n > 0 {
		op.Inputs = []int{n - 1}
		if op.Schema == nil {
			op.Schema = s.Ops[n-1].Schema
		}
	}
	s.Ops = append(s.Ops, op)
}

// exchange ends the stage and begins another that reads it.
func (p *planner) exchange(x plan.Exchange) {
	schema := p.schema()
	p.stage().Exchange = &x
	p.stages = append(p.stages, plan.Stage{})
	p.add(plan.Op{Kind: plan.OpInput, Schema: schema, Input: &plan.Input{Stage: len(p.stages) - 2}})
	p.single = x.Gather
}

// gather brings an ad-hoc query's rows to the gateway.
func (p *planner) gather() {
	if !p.single {
		p.exchange(plan.Exchange{Key: []int{}, Gather: true})
	}
}

// columns returns which columns of the scope the expressions use.
func columns(n int, nodes ...*node) []bool {
	used := make([]bool, n)
	for _, e := range nodes {
		if e != nil {
			e.walk(func(n *node) bool {
				if n.kind == plan.ExprCol {
					used[n.col] = true
				}
				return true
			})
		}
	}
	return used
}

// query appends q's operators. The last one's columns are then those of q.outs that need says, in order.
func (p *planner) query(q *query, need []bool, top bool) error {
	outs := make([]*node, 0, len(q.outs))
	names := make([]string, 0, len(q.outs))
	for i, o := range q.outs {
		if need[i] {
			outs, names = append(outs, o.node), append(names, o.name)
		}
	}
	var cols []int
	var err error
	if q.grouped {
		cols, err = p.grouped(q, outs, top)
	} else {
		cols, err = p.plain(q, outs, top)
	}
	if err != nil {
		return err
	}
	p.project(outs, names, cols)
	if p.live || !q.unique && !q.ordered() {
		return nil
	}
	p.finish(q)
	return nil
}

// plain appends FROM and WHERE of a query without grouping, and returns where the scope's columns are.
func (p *planner) plain(q *query, outs []*node, top bool) ([]int, error) {
	used := columns(len(q.scope.cols), slices.Concat(outs, q.where)...)
	end := -1
	if top && p.emitAt >= 0 {
		for i, c := range q.scope.cols {
			if c.window != nil && c.window.end {
				end, used[i] = i, true
			}
		}
		if end < 0 {
			return nil, p.noWindow()
		}
		if err := p.checkEvent(q.scope.cols[end].window); err != nil {
			return nil, err
		}
	}
	cols, err := p.from(q, used)
	if err == nil && end >= 0 {
		p.add(plan.Op{Kind: plan.OpEmitFinal, EmitFinal: &plan.EmitFinal{WindowEnd: cols[end]}})
	}
	return cols, err
}

func (p *planner) noWindow() error {
	return p.src.fail(p.emitAt, stateParameter, "group by window_start, window_end FROM TUMBLE(...), or leave the option out", "emit = 'final' needs a query grouped by a window")
}

// checkEvent refuses emit = 'final' where no watermark says when a window is over.
func (p *planner) checkEvent(w *windowColumn) error {
	if w.onEvent {
		return nil
	}
	return p.src.fail(p.emitAt, stateParameter, "declare the stream with WATERMARK FOR the time column of TUMBLE", "emit = 'final' needs a window over the stream's WATERMARK column")
}

// project appends the output columns, unless the rows are just that already.
func (p *planner) project(outs []*node, names []string, cols []int) {
	schema := make(record.Schema, len(outs))
	exprs := make([]plan.Expr, len(outs))
	identity := len(outs) == len(p.schema())
	for i, n := range outs {
		exprs[i] = n.expr(cols)
		if names[i] == "" {
			names[i] = exprText(exprs[i], p.schema())
		}
		schema[i] = record.Field{Name: names[i], Type: n.typ}
		identity = identity && n.kind == plan.ExprCol && exprs[i].Col == i && p.schema()[i].Name == names[i]
	}
	if !identity {
		p.add(plan.Op{Kind: plan.OpProject, Schema: schema, Project: &plan.Project{Exprs: exprs}})
	}
}

// finish appends DISTINCT, ORDER BY, LIMIT and OFFSET of an ad-hoc query, and drops what was there only to sort by.
func (p *planner) finish(q *query) {
	if q.unique {
		p.gather()
		p.add(plan.Op{Kind: plan.OpDistinct})
	}
	if !q.ordered() {
		return
	}
	if !p.single && q.limit >= 0 && q.limit <= math.MaxInt64-q.offset {
		// No partition can give more rows to the result than the result has.
		p.add(plan.Op{Kind: plan.OpSort, Sort: &plan.Sort{Keys: q.sort, Limit: q.limit + q.offset}})
	}
	p.gather()
	p.add(plan.Op{Kind: plan.OpSort, Sort: &plan.Sort{Keys: q.sort, Limit: q.limit, Offset: q.offset}})
	if len(p.schema()) == q.visible {
		return
	}
	schema := slices.Clone(p.schema()[:q.visible])
	exprs := make([]plan.Expr, q.visible)
	for i, f := range schema {
		exprs[i] = plan.Expr{Kind: plan.ExprCol, Type: f.Type, Col: i}
	}
	p.add(plan.Op{Kind: plan.OpProject, Schema: schema, Project: &plan.Project{Exprs: exprs}})
}

// from appends FROM and WHERE. It returns for each column of the scope its position among the last operator's
// columns, -1 for one that isn't used.
func (p *planner) from(q *query, used []bool) ([]int, error) {
	r := q.from
	if r == nil {
		if len(p.stages) == 0 {
			p.stages = []plan.Stage{{}}
		}
		p.single = true
		p.add(plan.Op{Kind: plan.OpValues, Schema: record.Schema{}, Values: &plan.Values{Rows: [][]plan.Expr{{}}}})
		p.filter(q.where, nil)
		return nil, nil
	}
	if r.kind == fromSubquery {
		cols, err := p.subquery(r.sub, used)
		if err == nil {
			p.filter(q.where, cols)
		}
		return cols, err
	}
	below, above := q.where, []*node(nil)
	if r.kind == fromTumble {
		used[r.time] = true
		below, above = splitWhere(q.where, r)
	}
	cols := p.scan(q, r, used)
	p.filter(below, cols)
	if r.kind == fromTumble {
		p.tumble(r, cols)
		p.filter(above, cols)
	}
	return cols, nil
}

// splitWhere says which conditions can be met before the window is known.
func splitWhere(where []*node, r *relation) (below, above []*node) {
	for _, n := range where {
		if used := columns(len(r.cols), n); used[r.start] || used[r.end] {
			above = append(above, n)
		} else {
			below = append(below, n)
		}
	}
	return below, above
}

func (p *planner) filter(where []*node, cols []int) {
	switch len(where) {
	case 0:
		return
	case 1:
		p.add(plan.Op{Kind: plan.OpFilter, Filter: &plan.Filter{Pred: where[0].expr(cols)}})
		return
	}
	all := inner(plan.ExprAnd, record.Boolean, where[0].pos, where...)
	p.add(plan.Op{Kind: plan.OpFilter, Filter: &plan.Filter{Pred: all.expr(cols)}})
}

// subquery appends a query in FROM, without the columns that nobody uses.
func (p *planner) subquery(q *query, used []bool) ([]int, error) {
	need := make([]bool, len(q.outs))
	all := q.unique || q.ordered()
	cols := make([]int, q.visible)
	n := 0
	for i := range q.outs {
		need[i] = all || i < q.visible && used[i]
		if i < q.visible {
			cols[i] = -1
			if need[i] {
				cols[i] = n
				n++
			}
		}
	}
	return cols, p.query(q, need, false)
}

func (p *planner) scan(q *query, r *relation, used []bool) []int {
	scan := &plan.Scan{Object: r.object.ID, Name: r.object.Name, Columns: []string{}}
	switch {
	case r.kind == fromDead:
		scan.Kind = plan.ScanDead
	case r.object.Kind != ObjectStream:
		scan.Kind, scan.KeyPrefix = plan.ScanView, keyPrefix(q.where, r.object)
	default:
		scan.Kind = plan.ScanStream
	}
	cols := make([]int, len(r.cols))
	schema := record.Schema{}
	for i, c := range r.cols {
		cols[i] = -1
		if !used[i] || r.scan[i] == "" {
			continue
		}
		if at := slices.Index(scan.Columns, r.scan[i]); at >= 0 { // _offset and offset of dead letters
			cols[i] = at
			continue
		}
		cols[i] = len(schema)
		scan.Columns = append(scan.Columns, r.scan[i])
		schema = append(schema, record.Field{Name: r.scan[i], Type: c.typ})
	}
	if r.kind == fromTumble && r.late {
		scan.Columns = append(scan.Columns, plan.ColWatermark)
		schema = append(schema, record.Field{Name: plan.ColWatermark, Type: record.TimestampTZ})
	}
	p.stages = append(p.stages, plan.Stage{})
	p.add(plan.Op{Kind: plan.OpScan, Schema: schema, Scan: scan})
	return cols
}

// tumble appends the window and puts the positions of its columns into cols.
func (p *planner) tumble(r *relation, cols []int) {
	in := p.schema()
	t := &plan.Tumble{Time: cols[r.time], Watermark: -1, Size: r.size, Offset: r.offset}
	if r.late {
		t.Watermark = len(in) - 1
	}
	cols[r.start], cols[r.end] = len(in), len(in)+1
	schema := append(slices.Clone(in), record.Field{Name: "window_start", Type: record.TimestampTZ}, record.Field{Name: "window_end", Type: record.TimestampTZ})
	p.add(plan.Op{Kind: plan.OpTumble, Schema: schema, Tumble: t})
}

// keyPrefix returns the constants to which where fixes a view's leading key columns.
func keyPrefix(where []*node, view *Object) []record.Value {
	var out []record.Value
	for _, k := range view.Key {
		found := false
		for _, n := range where {
			if n.kind != plan.ExprCall || n.fn != "eq" {
				continue
			}
			col, val := n.args[0], n.args[1]
			if col.kind == plan.ExprConst {
				col, val = val, col
			}
			if col.kind == plan.ExprCol && col.col == k && val.kind == plan.ExprConst && !val.val.Null {
				out, found = append(out, val.val), true
				break
			}
		}
		if !found {
			break
		}
	}
	return out
}
