package dataflow

import (
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

var scenarioWord = regexp.MustCompile(`[$@%][A-Za-z0-9_:]+`)

// jsonOp parses an operator whose part of the plan is written as JSON, in which $name is the number of an input column,
// @interval is microseconds and %type is a type. Aggregates get the types that they lack.
func (s *scenario) jsonOp(in record.Schema, op plan.Op, rest string) plan.Op {
	text := scenarioWord.ReplaceAllStringFunc(rest, func(w string) string {
		switch w[0] {
		case '$':
			return fmt.Sprint(s.column(in, w[1:]))
		case '@':
			return fmt.Sprint(value(s.t, record.IntervalT, w[1:]).Interval.Micros)
		}
		return fmt.Sprint(uint8(s.typ(w[1:])))
	})
	part := map[plan.OpKind]func() any{
		plan.OpHop:       func() any { op.Hop = &plan.Hop{Watermark: -1}; return op.Hop },
		plan.OpDropLate:  func() any { op.DropLate = &plan.DropLate{}; return op.DropLate },
		plan.OpLate:      func() any { op.Late = &plan.Late{}; return op.Late },
		plan.OpExpand:    func() any { op.Expand = &plan.Expand{}; return op.Expand },
		plan.OpSession:   func() any { op.Session = &plan.Session{Watermark: -1}; return op.Session },
		plan.OpWindow:    func() any { op.Window = &plan.Window{}; return op.Window },
		plan.OpAggregate: func() any { op.Aggregate = &plan.Aggregate{}; return op.Aggregate },
	}[op.Kind]
	if part == nil {
		s.t.Fatalf("no JSON for %q", op.Kind)
	}
	if err := json.Unmarshal([]byte(text), part()); err != nil {
		s.t.Fatalf("%s: %v", text, err)
	}
	window := record.Schema{{Name: "window_start", Type: record.TimestampTZ}, {Name: "window_end", Type: record.TimestampTZ}}
	op.Schema = append(record.Schema{}, in...)
	switch op.Kind {
	case plan.OpHop, plan.OpSession:
		op.Schema = append(op.Schema, window...)
	case plan.OpLate:
		if op.Late.Of != plan.LateOfDropLate {
			op.Schema = append(op.Schema, window...)
		}
	case plan.OpExpand:
		op.Schema = append(op.Schema, record.Field{Name: "grouping", Type: record.BigInt})
	case plan.OpWindow:
		for i := range op.Window.Funcs {
			op.Schema = append(op.Schema, record.Field{Name: fmt.Sprint("w", i), Type: op.Window.Funcs[i].Type})
		}
	case plan.OpAggregate:
		for i := range op.Aggregate.Aggs {
			s.completeAgg(in, &op.Aggregate.Aggs[i])
		}
		op.Schema = aggSchema(in, op.Aggregate)
	}
	return op
}

// completeAgg sets the types that follow from the input.
func (s *scenario) completeAgg(in record.Schema, a *plan.Agg) {
	if a.Func == plan.AggCountStar {
		a.Arg = -1
	}
	if a.ArgType == record.Unknown && a.Arg >= 0 && a.Arg < len(in) {
		a.ArgType = in[a.Arg].Type
	}
	t, ok := a.Func.Result(a.ArgType)
	if !ok {
		s.t.Fatalf("no %s of %s", a.Func, a.ArgType)
	}
	a.Type = t
}
