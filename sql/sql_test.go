package sql

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// memory is a catalog that statements fill.
type memory map[string]*Object

func (m memory) Lookup(name string) (*Object, bool) { o, ok := m[name]; return o, ok }

func (m memory) Names() []string {
	var out []string
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// Fold computes a constant as a node does.
func (m memory) Fold(e *plan.Expr) (record.Value, error) { return dataflow.Evaluate(e, dataflow.Env{}) }

// run does what a node does with each statement, and returns what it says.
func (m memory) run(text string) (string, error) {
	stmts, err := Parse(text)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, s := range stmts {
		if err := m.statement(&out, s); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

func (m memory) statement(out *strings.Builder, s Statement) error {
	switch s := s.(type) {
	case *CreateStream:
		def, err := StreamOf(s)
		if err != nil {
			return err
		}
		def.Id = uint64(len(m) + 1)
		obj := &Object{Kind: ObjectStream, ID: def.Id, Name: s.Name, Stream: def}
		for _, c := range def.Columns {
			t, _ := record.ParseType(c.Type)
			obj.Columns = append(obj.Columns, record.Field{Name: c.Name, Type: t})
		}
		m[s.Name] = obj
		var line bytes.Buffer // protojson puts spaces at random
		if err := json.Compact(&line, []byte(protojson.Format(def))); err != nil {
			return err
		}
		fmt.Fprintf(out, "stream %s if_not_exists=%v\n", line.String(), s.IfNotExists)
	case *CreateTable:
		def, err := TableOf(s)
		if err != nil {
			return err
		}
		def.Id = uint64(len(m) + 1)
		obj := &Object{Kind: ObjectTable, ID: def.Id, Name: s.Name, Stream: def}
		for i, c := range def.Columns {
			t, _ := record.ParseType(c.Type)
			obj.Columns = append(obj.Columns, record.Field{Name: c.Name, Type: t})
			if slices.Contains(def.PrimaryKey, c.Name) {
				obj.Key = append(obj.Key, i)
			}
		}
		obj.Plan = plan.TableRows(def.Id, s.Name, obj.Columns, obj.Key)
		m[s.Name] = obj
		var line bytes.Buffer // protojson puts spaces at random
		if err := json.Compact(&line, []byte(protojson.Format(def))); err != nil {
			return err
		}
		fmt.Fprintf(out, "table %s if_not_exists=%v\n", line.String(), s.IfNotExists)
	case *CreateView:
		p, uses, err := PlanView(s, m)
		if err != nil {
			return err
		}
		m[s.Name] = &Object{Kind: ObjectView, ID: uint64(len(m) + 1), Name: s.Name, Columns: p.Output, Key: p.Key, Plan: p, Text: s.Text()}
		if s.StartNow {
			m[s.Name].From = 1000
		}
		fmt.Fprintf(out, "view %s uses %v if_not_exists=%v final=%v now=%v\n", s.Name, uses, s.IfNotExists, s.EmitFinal, s.StartNow)
		if s.Replace || s.History != 0 {
			fmt.Fprintf(out, "replace=%v history=%d\n", s.Replace, s.History)
		}
		return m.explain(out, p)
	case *Select:
		p, err := PlanSelect(s, m)
		if err != nil {
			return err
		}
		return m.explain(out, p)
	case *Update, *Delete, *Truncate, *Insert:
		ch, err := PlanChange(s, m)
		if err != nil {
			return err
		}
		into := map[ChangeKind]string{ChangeInsert: "into "}[ch.Kind]
		fmt.Fprintf(out, "%s %s%s\n", lowerASCII(string(ch.Kind)), into, ch.Table.Name)
		if ch.Conflict != nil {
			fmt.Fprintf(out, "conflict %v\n", ch.Conflict.Output)
		}
		if err := m.explain(out, ch.Plan); err != nil || ch.Returned == nil {
			return err
		}
		fmt.Fprintf(out, "returns %v\n", ch.Returned)
	case *ExplainStatement:
		p, err := PlanExplain(s, m)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "explain")
		if s.Analyze {
			out.WriteString(" analyze")
		}
		fmt.Fprintf(out, "\n")
		return m.explain(out, p)
	case *Drop:
		fmt.Fprintf(out, "drop %s %s if_exists=%v cascade=%v\n", s.Kind, s.Name, s.IfExists, s.Cascade)
	case *Show:
		fmt.Fprintf(out, "show %s\n", s.What)
	case *Describe:
		fmt.Fprintf(out, "describe %s\n", s.Name)
	case *Subscribe:
		fmt.Fprintf(out, "subscribe %s after %d", s.View, s.AfterTick)
		if s.AsOf > 0 {
			fmt.Fprintf(out, " as of %d", s.AsOf)
		}
		fmt.Fprintln(out)
	case *CreateIndex:
		o, err := s.Resolve(m)
		if err != nil {
			return err
		}
		ix := Index{ID: uint64(100 + len(o.Indexes)), Name: s.Name}
		for _, name := range s.Columns {
			ix.Columns = append(ix.Columns, o.Columns.Index(name))
		}
		indexed := *o
		indexed.Indexes = append(slices.Clone(o.Indexes), ix)
		m[s.On] = &indexed
		fmt.Fprintf(out, "index %s on %s %q if_not_exists=%v\n", s.Name, s.On, s.Columns, s.IfNotExists)
	case *Set:
		fmt.Fprintf(out, "set %s = %q default=%v\n", s.Name, s.Value, s.Default)
	case *Transaction:
		fmt.Fprintf(out, "%s name=%q chain=%v modes=%+v\n", s.Action, s.Name, s.Chain, s.Modes)
	case *Copy:
		fmt.Fprintf(out, "copy from=%v %s %v %s delimiter=%q null=%q header=%v quote=%q escape=%q\n", s.From, s.Relation, s.Columns, s.Format, s.Delimiter, s.Null, s.Header, s.Quote, s.Escape)
		if s.Query != nil {
			return m.statement(out, s.Query)
		}
	case *DeclareCursor:
		fmt.Fprintf(out, "declare %s binary=%v hold=%v\n", s.Name, s.Binary, s.Hold)
		return m.statement(out, s.Query)
	case *Fetch:
		fmt.Fprintf(out, "fetch %d from %s move=%v\n", s.Count, s.Cursor, s.Move)
	case *CloseCursor:
		fmt.Fprintf(out, "close %q\n", s.Name)
	case *PrepareStatement:
		fmt.Fprintf(out, "prepare %s %q\n", s.Name, s.Types)
		return m.statement(out, s.Inner)
	case *ExecutePrepared:
		fmt.Fprintf(out, "execute %s %+v\n", s.Name, s.Args)
	case *Deallocate:
		fmt.Fprintf(out, "deallocate %q\n", s.Name)
	case *Discard:
		fmt.Fprintf(out, "discard %s\n", s.What)
	default:
		return fmt.Errorf("no case for %T", s)
	}
	return nil
}

func (m memory) explain(out *strings.Builder, p *plan.Plan) error {
	if err := check(p); err != nil {
		return err
	}
	for _, l := range Explain(p) {
		fmt.Fprintln(out, l)
	}
	return nil
}

// TestStatements runs testdata: after "run" all is one text, after "errors" each line is one.
// go test ./sql -rewrite writes what comes out.
func TestStatements(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		m := memory{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "run":
				out, err := m.run(d.Input)
				if err != nil {
					return describe(err)
				}
				return out
			case "errors":
				var out strings.Builder
				for line := range strings.SplitSeq(d.Input, "\n") {
					got, err := m.run(line)
					if err != nil {
						got = describe(err)
					}
					fmt.Fprintf(&out, "%s\n    %s", line, strings.ReplaceAll(strings.TrimSpace(got), "\n", "\n    ")+"\n")
				}
				return out.String()
			}
			d.Fatalf(t, "unknown command %q", d.Cmd)
			return ""
		})
	})
}

func describe(err error) string {
	var e *fault.Error
	if !errors.As(err, &e) {
		return "NOT A FAULT: " + err.Error() + "\n"
	}
	return fmt.Sprintf("%s %s: %s\n", e.GetSQLState(), e.Kind, e.Error())
}

// check holds p against what package plan says of plans, and sends it through the codec.
func check(p *plan.Plan) error {
	b, err := plan.Marshal(p)
	if err != nil {
		return err
	}
	back, err := plan.Unmarshal(b)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(normal(p), normal(back)) {
		return fmt.Errorf("codec changed the plan:\n%s", b)
	}
	if again, err := plan.Marshal(back); err != nil || !bytes.Equal(b, again) {
		return fmt.Errorf("codec isn't stable: %v\n%s\n%s", err, b, again)
	}
	for i := range p.Stages {
		if err := checkStage(p, i); err != nil {
			return fmt.Errorf("stage %d: %w in %s", i, err, b)
		}
	}
	last := p.Stages[len(p.Stages)-1]
	schema := last.Ops[len(last.Ops)-1].Schema
	if len(schema) != len(p.Output) {
		return fmt.Errorf("output %v of a stage with %v", p.Output, schema)
	}
	for i := range schema {
		if schema[i].Type != p.Output[i].Type {
			return fmt.Errorf("output %v of a stage with %v", p.Output, schema)
		}
	}
	return nil
}

// normal returns the plan's text, in which nil and empty slices that mean the same look the same.
func normal(p *plan.Plan) string {
	b, _ := json.Marshal(p)
	return strings.ReplaceAll(string(b), "null", "[]")
}

func checkStage(p *plan.Plan, i int) error {
	s := p.Stages[i]
	if (s.Exchange == nil) != (i == len(p.Stages)-1) {
		return errors.New("every stage but the last has an exchange")
	}
	for j := range s.Ops {
		op := &s.Ops[j]
		var in record.Schema
		var ins []record.Schema
		for _, k := range op.Inputs {
			if k >= j || k < 0 {
				return fmt.Errorf("operator %d reads %d", j, k)
			}
			ins = append(ins, s.Ops[k].Schema)
		}
		if len(ins) > 0 {
			in = ins[0]
		}
		if err := checkShape(&s, j, ins); err != nil {
			return fmt.Errorf("operator %d (%s): %w", j, op.Kind, err)
		}
		if err := checkOp(p, i, op, in); err != nil {
			return fmt.Errorf("operator %d (%s): %w", j, op.Kind, err)
		}
	}
	if s.Exchange != nil {
		for _, k := range s.Exchange.Key {
			if k < 0 || k >= len(s.Ops[len(s.Ops)-1].Schema) {
				return fmt.Errorf("exchange key %d", k)
			}
		}
	}
	return nil
}

func checkOp(p *plan.Plan, stage int, op *plan.Op, in record.Schema) error {
	col := func(i int, t record.Type) error {
		if i < 0 || i >= len(in) || t != record.Unknown && in[i].Type != t {
			return fmt.Errorf("column %d of %v, as %s", i, in, t)
		}
		return nil
	}
	switch op.Kind {
	case plan.OpScan:
		if len(op.Scan.Columns) != len(op.Schema) {
			return errors.New("columns are not the schema's")
		}
		for i, c := range op.Scan.Columns {
			if op.Schema[i].Name != c {
				return errors.New("columns are not the schema's")
			}
		}
	case plan.OpInput:
		from := p.Stages[op.Input.Stage]
		if op.Input.Stage >= stage || !slices.Equal(op.Schema, from.Ops[len(from.Ops)-1].Schema) {
			return errors.New("schema is not the input stage's")
		}
	case plan.OpFilter:
		if op.Filter.Pred.Type != record.Boolean || !slices.Equal(op.Schema, in) {
			return errors.New("predicate or schema")
		}
		return checkExpr(&op.Filter.Pred, in)
	case plan.OpProject:
		return checkRow(op.Project.Exprs, in, op.Schema)
	case plan.OpValues:
		for _, row := range op.Values.Rows {
			if err := checkRow(row, nil, op.Schema); err != nil {
				return err
			}
		}
	case plan.OpTumble:
		if w := op.Tumble.Watermark; w >= 0 {
			if err := col(w, record.TimestampTZ); err != nil || in[w].Name != plan.ColWatermark {
				return fmt.Errorf("watermark: %v", err)
			}
		}
		if op.Tumble.Size <= 0 || op.Tumble.Offset < 0 || op.Tumble.Offset >= op.Tumble.Size || len(op.Schema) != len(in)+2 {
			return errors.New("size, offset or schema")
		}
		return col(op.Tumble.Time, record.TimestampTZ)
	case plan.OpAggregate:
		return checkAggregate(op, in, col)
	case plan.OpEmitFinal:
		return col(op.EmitFinal.WindowEnd, record.TimestampTZ)
	case plan.OpSort:
		for _, k := range op.Sort.Keys {
			if err := col(k.Col, record.Unknown); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkAggregate(op *plan.Op, in record.Schema, col func(int, record.Type) error) error {
	a := op.Aggregate
	want, position := []record.Type{}, len(a.Keys)
	for i, k := range a.Keys {
		if err := col(k, op.Schema[i].Type); err != nil {
			return err
		}
		if a.Phase == plan.AggFinal && k != i {
			return errors.New("keys of phase final are not the first columns")
		}
		want = append(want, in[k].Type)
	}
	for _, g := range a.Aggs {
		partial := g.PartialTypes()
		switch {
		case a.Phase == plan.AggFinal:
			for _, t := range partial {
				if err := col(position, t); err != nil {
					return err
				}
				position++
			}
		case g.Func != plan.AggCountStar:
			if err := col(g.Arg, g.ArgType); err != nil {
				return err
			}
		}
		if t, ok := g.Func.Result(g.ArgType); !ok || t != g.Type {
			return fmt.Errorf("type of %s", g.Func)
		}
		if a.Phase == plan.AggPartial {
			want = append(want, partial...)
		} else {
			want = append(want, g.Type)
		}
	}
	if a.Phase == plan.AggPartial {
		want = append(want, record.BigInt)
	}
	if a.Phase == plan.AggFinal {
		if err := col(position, record.BigInt); err != nil {
			return err
		}
	}
	if len(want) != len(op.Schema) {
		return fmt.Errorf("schema %v, want %v", op.Schema, want)
	}
	for i := range want {
		if op.Schema[i].Type != want[i] {
			return fmt.Errorf("schema %v, want %v", op.Schema, want)
		}
	}
	return nil
}

func checkRow(exprs []plan.Expr, in, out record.Schema) error {
	if len(exprs) != len(out) {
		return errors.New("number of expressions")
	}
	for i := range exprs {
		if exprs[i].Type != out[i].Type {
			return fmt.Errorf("expression %d is of type %s, not %s", i, exprs[i].Type, out[i].Type)
		}
		if err := checkExpr(&exprs[i], in); err != nil {
			return err
		}
	}
	return nil
}

var signatures = func() map[string][]plan.Function {
	out := map[string][]plan.Function{}
	for _, f := range plan.Functions() {
		out[f.Name] = append(out[f.Name], f)
	}
	return out
}()

// checkExpr holds types against what each kind of expression takes.
func checkExpr(e *plan.Expr, in record.Schema) error {
	for i := range e.Args {
		if err := checkExpr(&e.Args[i], in); err != nil {
			return err
		}
	}
	ok := e.Type != record.Unknown
	switch e.Kind {
	case plan.ExprCol:
		ok = ok && e.Col >= 0 && e.Col < len(in) && in[e.Col].Type == e.Type
	case plan.ExprConst:
		ok = ok && e.Const != nil && e.Const.Type == e.Type
	case plan.ExprCall:
		ok = ok && slices.ContainsFunc(signatures[e.Func], func(f plan.Function) bool {
			if f.Result != e.Type || len(e.Args) != len(f.Args) && (!f.Variadic || len(e.Args) < len(f.Args)) {
				return false
			}
			for i := range e.Args {
				if e.Args[i].Type != f.Args[min(i, len(f.Args)-1)] {
					return false
				}
			}
			return true
		})
	case plan.ExprAnd, plan.ExprOr, plan.ExprNot:
		ok = ok && e.Type == record.Boolean && len(e.Args) > 0
		for _, a := range e.Args {
			ok = ok && a.Type == record.Boolean
		}
	case plan.ExprCase:
		ok = ok && len(e.Args)%2 == 1 && len(e.Args) > 2
		for i := range e.Args {
			want := e.Type
			if i%2 == 0 && i < len(e.Args)-1 {
				want = record.Boolean
			}
			ok = ok && e.Args[i].Type == want
		}
	case plan.ExprCoal:
		for _, a := range e.Args {
			ok = ok && a.Type == e.Type
		}
	case plan.ExprIsNil:
		ok = ok && e.Type == record.Boolean && len(e.Args) == 1
	case plan.ExprCast:
		ok = ok && len(e.Args) == 1 && plan.Castable(e.Args[0].Type, e.Type)
	case plan.ExprTick:
		ok = e.Type == record.BigInt
	case plan.ExprNow:
		ok = e.Type == record.TimestampTZ
	default:
		ok = false
	}
	if !ok {
		b, _ := json.Marshal(e)
		return fmt.Errorf("malformed expression over %v: %s", in, b)
	}
	return nil
}
