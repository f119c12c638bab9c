package dataflow

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// TestScenarios runs the files of testdata/scenarios. Their commands:
//
//	stage [adhoc] [partition=N] [keep]   the operators, one a line; keep: over the state of the stage before;
//	                                     see jsonOp for {...}
//	push [op=N]                          rows, one a line: weight, then values between |
//	end tick=N [watermark=TIME]          the delta of the tick; horizon=TIME if it isn't the watermark
//	restart                              a new fragment over the same state
//	counts, due, state
//
// Rewrite with: go test ./dataflow -run TestScenarios -rewrite
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		s := &scenario{t: t}
		datadriven.RunTest(t, path, s.run)
	})
}

type scenario struct {
	t     *testing.T
	ops   []plan.Op
	env   Env
	state *MemState
	f     *Fragment
}

func (s *scenario) run(t *testing.T, d *datadriven.TestData) string {
	s.t = t
	switch d.Cmd {
	case "stage":
		return s.stage(d)
	case "push":
		op := 0
		d.MaybeScanArgs(t, "op", &op)
		if err := s.f.Push(op, s.rows(s.ops[op].Schema, d.Input)); err != nil {
			return "error: " + err.Error()
		}
		return ""
	case "end":
		var tick uint64
		d.ScanArgs(t, "tick", &tick)
		watermark := int64(NoWatermark)
		if d.HasArg("watermark") {
			var text string
			d.ScanArgs(t, "watermark", &text)
			watermark = value(t, record.TimestampTZ, strings.ReplaceAll(text, "_", " ")).Int
		}
		horizon := watermark
		if d.HasArg("horizon") {
			var text string
			d.ScanArgs(t, "horizon", &text)
			horizon = value(t, record.TimestampTZ, strings.ReplaceAll(text, "_", " ")).Int
		}
		out, err := s.f.EndTick(ids.Tick(tick), Marks{watermark, horizon})
		if err != nil {
			return "error: " + err.Error()
		}
		return s.lines(out)
	case "restart":
		s.f = mustNew(t, s.ops, s.env)
		return ""
	case "counts":
		c := s.f.TakeCounts()
		return fmt.Sprintf("late %d, errors %d, last error %q", c.Late, c.Errors, c.LastError)
	case "due":
		at, ok := s.f.NextDue()
		if !ok {
			return "nothing"
		}
		if at == NoWatermark {
			return "at once"
		}
		return valueText(record.Value{Type: record.TimestampTZ, Int: at})
	case "state":
		return fmt.Sprintf("%d entries", s.state.Len())
	}
	return "unknown command " + d.Cmd
}

func (s *scenario) stage(d *datadriven.TestData) string {
	s.ops = nil
	if !d.HasArg("keep") {
		s.state = &MemState{}
	}
	s.env = Env{State: s.state, NowTick: 1_700_000_000_000_000}
	if d.HasArg("adhoc") {
		s.env.Mode, s.env.State = AdHoc, nil
	}
	if d.HasArg("partition") {
		var p int
		d.ScanArgs(s.t, "partition", &p)
		s.env.Partition = ids.PartitionID(p)
	}
	for _, line := range strings.Split(d.Input, "\n") {
		s.ops = append(s.ops, s.op(line))
	}
	f, err := New(s.ops, s.env)
	if err != nil {
		return "error: " + err.Error()
	}
	s.f = f
	var out []string
	for _, c := range s.ops[len(s.ops)-1].Schema {
		out = append(out, c.Name+" "+c.Type.String())
	}
	return strings.Join(out, ", ")
}

// rows parses lines of a weight and values.
func (s *scenario) rows(schema record.Schema, input string) *record.Delta {
	var rows []row
	for _, line := range strings.Split(input, "\n") {
		weight, rest, _ := strings.Cut(line, " ")
		w, err := strconv.ParseInt(weight, 10, 64)
		if err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		r := row{weight: w}
		parts := strings.Split(rest, "|")
		if len(schema) == 0 {
			parts = nil
		}
		if len(parts) != len(schema) {
			s.t.Fatalf("%q has %d values for %d columns", line, len(parts), len(schema))
		}
		for i, p := range parts {
			r.values = append(r.values, value(s.t, schema[i].Type, p))
		}
		rows = append(rows, r)
	}
	return deltaOf(schema, rows)
}

// lines writes a delta, sorted unless it has an order.
func (s *scenario) lines(d *record.Delta) string {
	var lines []string
	for i := range d.N {
		lines = append(lines, fmt.Sprintf("%+d %s", d.Weight(i), rowText(d, i)))
	}
	if s.f.sink.merge != nil || !s.f.links[len(s.ops)-1].ordered {
		sort.Strings(lines)
	}
	return strings.Join(lines, "\n")
}

// op parses a line of a stage. One that doesn't read the line before begins with the numbers of those that it reads: [0,1].
func (s *scenario) op(line string) plan.Op {
	line = strings.TrimSpace(line)
	var inputs []int
	if list, rest, ok := strings.Cut(strings.TrimPrefix(line, "["), "] "); ok && line[0] == '[' {
		for _, text := range strings.Split(list, ",") {
			n, err := strconv.Atoi(text)
			if err != nil {
				s.t.Fatalf("%q: %v", line, err)
			}
			inputs = append(inputs, n)
		}
		line = rest
	} else if n := len(s.ops); n > 0 {
		inputs = []int{n - 1}
	}
	kind, rest, _ := strings.Cut(line, " ")
	var in record.Schema
	op := plan.Op{Kind: plan.OpKind(kind), Inputs: inputs}
	if len(inputs) > 0 {
		in = s.ops[inputs[0]].Schema
	}
	op.Schema = in
	if strings.HasPrefix(rest, "{") {
		return s.jsonOp(in, op, rest)
	}
	switch op.Kind {
	case plan.OpScan, plan.OpInput:
		var schema record.Schema
		for _, c := range strings.Split(rest, ", ") {
			if c == "" {
				continue
			}
			name, typ, _ := strings.Cut(c, " ")
			schema = append(schema, record.Field{Name: name, Type: s.typ(typ)})
		}
		op = scanOp(schema)
		if kind == "input" {
			op = plan.Op{Kind: plan.OpInput, Schema: schema, Input: &plan.Input{}}
		}
	case plan.OpFilter:
		op.Filter = &plan.Filter{Pred: s.expr(in, rest)}
	case plan.OpProject:
		op.Project, op.Schema = &plan.Project{}, nil
		for i, text := range splitTop(rest) {
			text, name, named := strings.Cut(text, " as ")
			e := s.expr(in, text)
			if !named {
				name = fmt.Sprint("c", i)
				if e.Kind == plan.ExprCol {
					name = in[e.Col].Name
				}
			}
			op.Project.Exprs = append(op.Project.Exprs, e)
			op.Schema = append(op.Schema, record.Field{Name: name, Type: e.Type})
		}
	case plan.OpTumble:
		return s.tumble(in, op, rest)
	case plan.OpAggregate:
		return s.aggregate(in, op, rest)
	case plan.OpEmitFinal:
		op.EmitFinal = &plan.EmitFinal{WindowEnd: s.column(in, rest)}
	case plan.OpSort:
		op.Sort = s.sort(in, rest)
	case plan.OpUpsert, plan.OpSetOp, plan.OpJoin, plan.OpTemporalJoin, plan.OpTopN, plan.OpUnnest:
		return s.relation(in, op, rest)
	case plan.OpValues:
		op.Inputs, op.Values, op.Schema = nil, &plan.Values{}, nil
		for r, text := range splitTop(rest) {
			var exprs []plan.Expr
			for i, v := range strings.Split(text, "; ") {
				e := s.expr(nil, v)
				exprs = append(exprs, e)
				if r == 0 {
					op.Schema = append(op.Schema, record.Field{Name: fmt.Sprint("c", i), Type: e.Type})
				}
			}
			op.Values.Rows = append(op.Values.Rows, exprs)
		}
	}
	return op
}

// tumble parses: column [watermark=column] size=interval [offset=interval]
func (s *scenario) tumble(in record.Schema, op plan.Op, rest string) plan.Op {
	op.Tumble = &plan.Tumble{Watermark: -1}
	for i, arg := range strings.Fields(rest) {
		name, v, _ := strings.Cut(arg, "=")
		switch {
		case i == 0:
			op.Tumble.Time = s.column(in, arg)
		case name == "watermark":
			op.Tumble.Watermark = s.column(in, v)
		case name == "size":
			op.Tumble.Size = value(s.t, record.IntervalT, v).Interval.Micros
		case name == "offset":
			op.Tumble.Offset = value(s.t, record.IntervalT, v).Interval.Micros
		}
	}
	op.Schema = append(append(record.Schema{}, in...),
		record.Field{Name: "window_start", Type: record.TimestampTZ}, record.Field{Name: "window_end", Type: record.TimestampTZ})
	return op
}

func (s *scenario) sort(in record.Schema, rest string) *plan.Sort {
	out := &plan.Sort{Limit: -1}
	keys, bounds, _ := strings.Cut(rest, ";")
	for _, k := range strings.Split(keys, ", ") {
		words := strings.Fields(k)
		if len(words) == 0 {
			continue
		}
		key := plan.SortKey{Col: s.column(in, words[0])}
		key.Desc = strings.Contains(k, " desc")
		key.NullsFirst = strings.Contains(k, " nulls_first")
		out.Keys = append(out.Keys, key)
	}
	for _, b := range strings.Fields(bounds) {
		name, v, _ := strings.Cut(b, "=")
		n, _ := strconv.ParseInt(v, 10, 64)
		if name == "limit" {
			out.Limit = n
		} else {
			out.Offset = n
		}
	}
	return out
}

// aggregate parses: phase keys=a,b aggs=count(*),sum(v) [append_only]
func (s *scenario) aggregate(in record.Schema, op plan.Op, rest string) plan.Op {
	a := &plan.Aggregate{}
	for i, arg := range strings.Fields(rest) {
		name, v, _ := strings.Cut(arg, "=")
		switch {
		case i == 0:
			a.Phase = plan.AggPhase(arg)
		case name == "append_only":
			a.AppendOnly = true
		case name == "keys":
			for _, k := range strings.Split(v, ",") {
				if k != "" {
					a.Keys = append(a.Keys, s.column(in, k))
				}
			}
		case name == "aggs":
			for _, text := range strings.Split(v, ",") {
				if text == "count(*)" {
					a.Aggs = append(a.Aggs, newAgg(plan.AggCountStar, -1, record.Unknown))
					continue
				}
				fn, arg, _ := strings.Cut(strings.TrimSuffix(text, ")"), "(")
				t := record.Unknown
				arg, typ, typed := strings.Cut(arg, ":") // phase final can't see the argument
				c := -1
				if typed {
					t = s.typ(typ)
				} else {
					c = s.column(in, arg)
					t = in[c].Type
				}
				a.Aggs = append(a.Aggs, newAgg(plan.AggFunc(fn), c, t))
			}
		}
	}
	out := aggOp(len(s.ops)-1, in, a)
	return out
}

func (s *scenario) typ(name string) record.Type {
	if name == "double" {
		return record.Double
	}
	t, ok := record.ParseType(name)
	if !ok {
		s.t.Fatalf("no type %q", name)
	}
	return t
}

func (s *scenario) column(in record.Schema, name string) int {
	c := in.Index(name)
	if c < 0 {
		s.t.Fatalf("no column %q in %v", name, in)
	}
	return c
}

// splitTop cuts at commas outside of parentheses and quotes.
func splitTop(text string) []string {
	var out []string
	depth, quoted, from := 0, false, 0
	for i, c := range text {
		switch {
		case c == '\'':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(text[from:i]))
			from = i + 1
		}
	}
	return append(out, strings.TrimSpace(text[from:]))
}

// expr parses an expression: a column's name, 'text'::type, a bigint, null::type, or (function argument ...).
// Functions are those of the plan, and: and or not is_null case coalesce cast:type tick now.
func (s *scenario) expr(in record.Schema, text string) plan.Expr {
	p := exprParser{s: s, in: in, rest: text}
	e := p.parse()
	if strings.TrimSpace(p.rest) != "" {
		s.t.Fatalf("%q is left of %q", p.rest, text)
	}
	return e
}

type exprParser struct {
	s    *scenario
	in   record.Schema
	rest string
}

func (p *exprParser) word() string {
	end := strings.IndexFunc(p.rest, func(c rune) bool { return unicode.IsSpace(c) || c == ')' || c == '(' })
	if end < 0 {
		end = len(p.rest)
	}
	w := p.rest[:end]
	p.rest = p.rest[end:]
	return w
}

func (p *exprParser) parse() plan.Expr {
	p.rest = strings.TrimSpace(p.rest)
	switch {
	case strings.HasPrefix(p.rest, "("):
		return p.call()
	case strings.HasPrefix(p.rest, "'"):
		end := strings.Index(p.rest[1:], "'") + 1
		text := p.rest[1:end]
		p.rest = strings.TrimPrefix(p.rest[end+1:], "::")
		return p.constant(text, p.s.typ(p.word()))
	}
	w := p.word()
	if typ, ok := strings.CutPrefix(w, "null::"); ok {
		return p.constant("NULL", p.s.typ(typ))
	}
	if _, err := strconv.ParseInt(w, 10, 64); err == nil {
		return p.constant(w, record.BigInt)
	}
	if c := p.in.Index(w); c >= 0 {
		return col(p.in, c)
	}
	p.s.t.Fatalf("no column %q", w)
	return plan.Expr{}
}

func (p *exprParser) constant(text string, t record.Type) plan.Expr {
	v := value(p.s.t, t, text)
	return plan.Expr{Kind: plan.ExprConst, Type: t, Const: &v}
}

func (p *exprParser) call() plan.Expr {
	p.rest = p.rest[1:]
	name := p.word()
	e := plan.Expr{Type: record.Boolean}
	for {
		p.rest = strings.TrimSpace(p.rest)
		if strings.HasPrefix(p.rest, ")") {
			p.rest = p.rest[1:]
			break
		}
		e.Args = append(e.Args, p.parse())
	}
	switch name {
	case "and", "or", "not", "is_null":
		e.Kind = plan.ExprKind(name)
	case "case", "coalesce":
		e.Kind, e.Type = plan.ExprKind(name), e.Args[len(e.Args)-1].Type
	case "tick":
		e.Kind, e.Type = plan.ExprTick, record.BigInt
	case "now":
		e.Kind, e.Type = plan.ExprNow, record.TimestampTZ
	default:
		if typ, ok := strings.CutPrefix(name, "cast:"); ok {
			e.Kind, e.Type = plan.ExprCast, p.s.typ(typ)
			break
		}
		e.Kind, e.Func = plan.ExprCall, name
		e.Type = p.result(name, e.Args)
	}
	return e
}

func (p *exprParser) result(name string, args []plan.Expr) record.Type {
	for _, f := range plan.Functions() {
		match := f.Name == name && (len(args) == len(f.Args) || f.Variadic && len(args) > len(f.Args))
		for i := range args {
			match = match && args[i].Type == f.Args[min(i, len(f.Args)-1)]
		}
		if match {
			return f.Result
		}
	}
	p.s.t.Fatalf("no function %s over %v", name, args)
	return record.Unknown
}
