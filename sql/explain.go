package sql

import (
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// ExplainStatement is EXPLAIN [ANALYZE] SELECT ..., EXPLAIN CREATE MATERIALIZED VIEW ..., EXPLAIN INSERT ..., or EXPLAIN
// [ANALYZE] of a view or table by its name.
type ExplainStatement struct {
	statement
	Statement Statement // *Select, *CreateView or *Insert; nil: see View
	View      string    // the name of a view or table, when Statement is nil
	Analyze   bool      // run the query, or say how the view is doing

	viewAt int
}

func (c *cursor) explain() (*ExplainStatement, error) {
	e := &ExplainStatement{statement: c.base()}
	c.i = 1
	if err := c.explainOptions(e); err != nil {
		return nil, err
	}
	if c.done() {
		return nil, c.expect("a statement, or the name of a view")
	}
	if w := c.word(c.i); w != "values" && w != "table" && w != "with" && !slices.Contains(statementWords, w) && c.tokens[c.i].tok != tokenOpen && suggest(w, statementWords) == "" {
		var err error
		e.View, e.viewAt, err = c.name("a statement, or the name of a view")
		if err == nil {
			err = c.finish()
		}
		return e, err
	}
	pos := c.pos()
	inner, err := newCursor(c.src, c.tokens[c.i:]).statement()
	if err != nil {
		return nil, err
	}
	switch inner.(type) {
	case *Select:
		e.Statement = inner
		return e, nil
	case *CreateView, *Insert:
		if e.Analyze {
			return nil, c.src.unsupported(pos, "it is for SELECT and for views by their names", "EXPLAIN ANALYZE of this statement is not supported")
		}
		e.Statement = inner
		return e, nil
	}
	return nil, c.src.unsupported(pos, "it is for SELECT, CREATE MATERIALIZED VIEW, INSERT and views by their names", "EXPLAIN of this statement is not supported")
}

// explainOptions takes ANALYZE, or (ANALYZE).
func (c *cursor) explainOptions(e *ExplainStatement) error {
	open := len(c.tokens) > 1 && c.tokens[1].tok == tokenOpen
	if w := c.word(2); open && w != "select" && w != "values" && w != "with" && w != "table" && c.tokens[min(2, len(c.tokens)-1)].tok != tokenOpen {
		c.i++
		if !c.accept("analyze") && !c.accept("analyse") || !c.acceptToken(tokenClose) {
			return c.src.unsupported(c.tokens[1].from, "write EXPLAIN or EXPLAIN ANALYZE and the statement", "options of EXPLAIN are not supported")
		}
		e.Analyze = true
		return nil
	}
	e.Analyze = c.accept("analyze") || c.accept("analyse")
	if c.word(c.i) == "verbose" {
		return c.src.unsupported(c.pos(), "write EXPLAIN or EXPLAIN ANALYZE and the statement", "EXPLAIN VERBOSE is not supported")
	}
	return nil
}

// PlanExplain plans the statement that is to be explained, or finds the plan of the view. Errors are those of PlanSelect,
// PlanView and PlanInsert; 42809 for a stream.
func PlanExplain(e *ExplainStatement, c Catalog) (p *plan.Plan, err error) {
	switch s := e.Statement.(type) {
	case *CreateView:
		p, _, err = PlanView(s, c)
	case *Insert:
		var ch *Change
		if ch, err = PlanInsert(s, c); err == nil {
			p = ch.Plan
		}
	case *Select:
		p, err = PlanSelect(s, c)
	default:
		var o *Object
		if o, err = e.Object(c); err == nil {
			p = o.Plan
		}
	}
	return p, err
}

// Object finds the view or table that is to be explained by its name.
func (e *ExplainStatement) Object(c Catalog) (*Object, error) {
	o, ok := c.Lookup(e.View)
	switch {
	case !ok:
		return nil, e.src.fail(e.viewAt, stateNoRelation, suggest(e.View, c.Names()), "unknown view %q", e.View)
	case o.Kind == ObjectStream || o.Plan == nil:
		return nil, e.src.fail(e.viewAt, stateWrongObject, "explain a query over it", "%q is a stream: nothing is computed for it,", e.View)
	}
	return o, nil
}

// Explain describes p in lines: stage by stage what each operator does, what moves between stages and how, and why.
func Explain(p *plan.Plan) []string { return ExplainWith(p, nil, nil) }

// ExplainWith is Explain with what was measured: op says what to put behind an operator's line, stage gives lines to put
// at a stage's end. Both may be nil.
func ExplainWith(p *plan.Plan, op func(stage, op int) string, stage func(stage int) []string) []string {
	x := &explainer{measured: op}
	for i := range p.Stages {
		x.number = i
		x.stage(p, i)
		if stage != nil {
			for _, line := range stage(i) {
				x.line(2, "%s", line)
			}
		}
	}
	x.line(0, "output %s", fieldList(p.Output))
	if p.Key != nil {
		x.line(0, "key %s: one row for each", names(p.Output, p.Key))
	}
	for _, n := range p.Notes {
		x.line(0, "planned: %s", n)
	}
	return x.lines
}

type explainer struct {
	lines []string
	label string // of the next operator, in a stage that is no chain

	measured func(stage, op int) string // nil: nothing was
	number   int                        // of the stage
}

func (x *explainer) line(depth int, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if depth == 1 {
		text, x.label = x.label+text, ""
	}
	x.lines = append(x.lines, strings.Repeat("  ", depth)+text)
}

// chain tells whether each operator of a stage reads the one before it.
func chain(s *plan.Stage) bool {
	for i := range s.Ops {
		in := s.Ops[i].Inputs
		if i == 0 && len(in) > 0 || i > 0 && (len(in) != 1 || in[0] != i-1) {
			return false
		}
	}
	return true
}

func (x *explainer) stage(p *plan.Plan, i int) {
	s := &p.Stages[i]
	where := "in every partition"
	if i == len(p.Stages)-1 && gathered(p) {
		where = "at the node that is asked"
	}
	x.line(0, "stage %d, %s", i, where)
	for j := range s.Ops {
		var in []record.Schema
		for _, k := range s.Ops[j].Inputs {
			in = append(in, s.Ops[k].Schema)
		}
		if in == nil {
			in = []record.Schema{{}}
		}
		if x.label = ""; !chain(s) {
			x.label = fmt.Sprintf("%d: ", j)
			if n := s.Ops[j].Inputs; len(n) == 1 && n[0] != j-1 {
				x.label += fmt.Sprintf("of %d, ", n[0])
			}
		}
		first := len(x.lines)
		x.op(&s.Ops[j], in)
		if x.measured != nil && first < len(x.lines) {
			if m := x.measured(i, j); m != "" {
				x.lines[first] += " (" + m + ")"
			}
		}
	}
	last := s.Ops[len(s.Ops)-1]
	switch e := s.Exchange; {
	case e == nil:
	case e.Gather:
		x.line(1, "gather: to the node that is asked")
	case e.Broadcast:
		x.line(1, "exchange: all rows to every partition")
	case e.Local && len(e.Key) > 0:
		x.line(1, "exchange: none, rows are by hash of %s already", names(last.Schema, e.Key))
	case e.Local:
		x.line(1, "exchange: none, the rows are where they are needed")
	case len(e.Key) == 0:
		x.line(1, "exchange: all rows to partition 0")
	default:
		x.line(1, "exchange: by hash of %s", names(last.Schema, e.Key))
	}
}

// gathered tells whether p is an ad-hoc query's.
func gathered(p *plan.Plan) bool {
	for i := range p.Stages {
		if e := p.Stages[i].Exchange; e != nil && e.Gather {
			return true
		}
	}
	return len(p.Stages) == 1 && p.Stages[0].Ops[0].Kind == plan.OpValues
}

func (x *explainer) op(op *plan.Op, ins []record.Schema) {
	in := ins[0]
	switch op.Kind {
	case plan.OpScan:
		x.scan(op)
	case plan.OpInput:
		x.line(1, "input: rows of stage %d", op.Input.Stage)
	case plan.OpFilter:
		x.line(1, "filter: %s", exprText(op.Filter.Pred, in))
	case plan.OpProject:
		x.line(1, "project: %s", projectText(op, in))
	case plan.OpTumble:
		x.tumble(op.Tumble, in)
	case plan.OpAggregate:
		x.aggregate(op)
	case plan.OpEmitFinal:
		x.line(1, "emit final: rows wait until the watermark reaches %s", in[op.EmitFinal.WindowEnd].Name)
	case plan.OpDistinct:
		x.line(1, "distinct: each row once")
	case plan.OpSort:
		x.sort(op.Sort, in)
	case plan.OpHop:
		x.hop(op.Hop, in)
	case plan.OpDropLate:
		x.dropLate(op.DropLate, in)
	case plan.OpLate:
		x.late(op.Late, in)
	case plan.OpUnnest:
		x.unnest(op, in)
	case plan.OpExpand:
		x.expand(op.Expand, in)
	case plan.OpValues:
		x.line(1, "values: %d row(s)%s", len(op.Values.Rows), valuesText(op))
	default:
		x.statefulOp(op, ins)
	}
}

func (x *explainer) scan(op *plan.Op) {
	s := op.Scan
	what := string(s.Kind) + " " + quoteName(s.Name)
	switch {
	case s.Kind == plan.ScanDead:
		what = "dead letters of stream " + quoteName(s.Name)
	case s.Table && s.Kind == plan.ScanStream:
		what = "log of table " + quoteName(s.Name)
	case s.Table:
		what = "table " + quoteName(s.Name)
	}
	if s.AsOf > 0 {
		what += fmt.Sprintf(" as of tick %d", s.AsOf)
	}
	columns := "no columns, rows are only counted"
	if len(s.Columns) > 0 {
		columns = "columns " + fieldNames(op.Schema)
	}
	x.line(1, "scan: %s, %s", what, columns)
	if len(s.KeyPrefix) > 0 {
		var vals []string
		for _, v := range s.KeyPrefix {
			vals = append(vals, constText(&v))
		}
		x.line(2, "only the keys that begin with (%s)", strings.Join(vals, ", "))
	}
	x.index(s.Index)
}

// index says how an index narrows a scan.
func (x *explainer) index(r *plan.IndexRead) {
	if r == nil {
		return
	}
	var conds []string
	for i := range r.Equal {
		conds = append(conds, quoteName(r.Columns[i])+" = "+constText(&r.Equal[i]))
	}
	bound := func(op string, v *record.Value) {
		if v != nil {
			conds = append(conds, quoteName(r.Columns[len(r.Equal)])+" "+op+" "+constText(v))
		}
	}
	bound(">=", r.Low)
	bound("<=", r.High)
	x.line(2, "by index %s, once it is built: %s", quoteName(r.Name), strings.Join(conds, " and "))
}

func (x *explainer) tumble(t *plan.Tumble, in record.Schema) {
	offset := ""
	if t.Offset != 0 {
		offset = ", shifted by " + durationText(t.Offset)
	}
	x.line(1, "tumble: windows of %s over %s%s", durationText(t.Size), quoteName(in[t.Time].Name), offset)
	x.lateness(t.Watermark)
}

func (x *explainer) aggregate(op *plan.Op) {
	a := op.Aggregate
	var aggs []string
	next := len(a.Keys)
	for _, g := range a.Aggs {
		aggs = append(aggs, strings.TrimSuffix(op.Schema[next].Name, partialSuffix))
		if next++; a.Phase == plan.AggPartial {
			next += len(g.PartialTypes()) - 1
		}
	}
	list := strings.Join(aggs, ", ")
	if list == "" {
		list = "no aggregates, the groups alone"
	}
	by := "one group"
	if len(a.Keys) > 0 {
		by = "by " + names(op.Schema, identity(len(a.Keys)))
	}
	x.line(1, "aggregate (%s): %s, %s", a.Phase, list, by)
	if a.Panes != nil {
		x.line(2, "windows are made of panes: each row is counted once, however many windows it is in")
	}
	if a.Session != nil {
		x.line(2, "sessions are merged from fragments: rows less than %s apart are one", durationText(a.Session.Gap))
	}
	if a.Panes != nil && a.Panes.Final || a.Session != nil && a.Session.Final {
		x.line(2, "emit final: rows wait until the watermark reaches window_end")
	}
	switch {
	case a.Phase == plan.AggPartial:
		x.line(2, "combined before the exchange: one row for each group, tick and partition")
	case hasExtreme(a) && a.AppendOnly:
		x.line(2, "append-only input: min and max keep one value for each group")
	case hasExtreme(a):
		x.line(2, "input takes rows back: min and max keep all values of each group")
	}
	x.expire(a.Expire, op.Schema, "a group")
}

func hasExtreme(a *plan.Aggregate) bool {
	for _, g := range a.Aggs {
		if g.Func == plan.AggMin || g.Func == plan.AggMax {
			return true
		}
	}
	return false
}

// sortText writes an order.
func sortText(order []plan.SortKey, in record.Schema) string {
	var keys []string
	for _, k := range order {
		t := quoteName(in[k.Col].Name)
		if k.Desc {
			t += " desc"
		}
		if k.NullsFirst != k.Desc {
			t += map[bool]string{true: " nulls first", false: " nulls last"}[k.NullsFirst]
		}
		keys = append(keys, t)
	}
	if len(keys) == 0 {
		return "the whole row"
	}
	return strings.Join(keys, ", ") + ", then the whole row"
}

func (x *explainer) sort(s *plan.Sort, in record.Schema) {
	line := "sort: by " + sortText(s.Keys, in)
	if s.Offset > 0 {
		line += fmt.Sprintf(", offset %d", s.Offset)
	}
	if s.Limit >= 0 {
		line += fmt.Sprintf(", limit %d", s.Limit)
	}
	x.line(1, "%s", line)
}
