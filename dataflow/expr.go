package dataflow

import (
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// expression is a compiled plan.Expr. What eval returns belongs to the expression or to in, and is valid until the
// next eval or trim.
//
// A call that fails gives NULL for its row, which is told to the fragment's faults; what uses the call goes on with
// that NULL.
type expression interface {
	typ() record.Type
	eval(in *record.Delta) vector
	// safe tells whether eval can't fail and costs so little that it may as well be done for rows that don't need it.
	safe() bool
	// columns calls fn for each column that eval reads.
	columns(fn func(col int))
	// trim gives back unusually large buffers.
	trim()
}

// maxExprDepth bounds the nesting of expressions; sql has a lower bound of its own.
const maxExprDepth = 2000

// compiler compiles the expressions over rows of one schema.
type compiler struct {
	schema record.Schema
	env    Env
	errs   *faults
}

func compile(e *plan.Expr, in record.Schema, env Env, errs *faults) (expression, error) {
	c := compiler{in, env, errs}
	return c.compile(e, 0)
}

func (c *compiler) compile(e *plan.Expr, depth int) (expression, error) {
	if depth > maxExprDepth {
		return nil, fault.New(fault.TooLarge, "an expression is nested more than %d deep", maxExprDepth)
	}
	switch e.Kind {
	case plan.ExprCol:
		if e.Col < 0 || e.Col >= len(c.schema) {
			return nil, defect("an expression reads column %d of %d", e.Col, len(c.schema))
		}
		if c.schema[e.Col].Type != e.Type {
			return nil, defect("an expression reads column %d as %s, which is %s", e.Col, e.Type, c.schema[e.Col].Type)
		}
		return &columnRef{e.Col, e.Type}, nil
	case plan.ExprConst:
		if e.Const == nil {
			return nil, defect("a constant has no value")
		}
		v := *e.Const
		if v.Type != e.Type && !v.Null {
			return nil, defect("a constant of type %s has a value of type %s", e.Type, v.Type)
		}
		return newConstant(e.Type, v), nil
	case plan.ExprTick:
		return newConstant(record.BigInt, record.Value{Type: record.BigInt, Int: int64(c.env.NowTick)}), nil
	case plan.ExprNow:
		// A tick is a time in microseconds.
		return newConstant(record.TimestampTZ, record.Value{Type: record.TimestampTZ, Int: int64(c.env.NowTick)}), nil
	}
	args := make([]expression, len(e.Args))
	for i := range e.Args {
		var err error
		if args[i], err = c.compile(&e.Args[i], depth+1); err != nil {
			return nil, err
		}
	}
	return c.combine(e, args)
}

// combine makes the expression of e over its compiled arguments.
func (c *compiler) combine(e *plan.Expr, args []expression) (expression, error) {
	switch e.Kind {
	case plan.ExprAnd, plan.ExprOr:
		return newLogic(e, args)
	case plan.ExprNot:
		if len(args) != 1 || args[0].typ() != record.Boolean {
			return nil, defect("NOT takes one boolean")
		}
		return c.fold(newCall(implNot, record.Boolean, args, true, c.errs))
	case plan.ExprIsNil:
		if len(args) != 1 {
			return nil, defect("IS NULL takes one argument")
		}
		return &isNull{arg: args[0]}, nil
	case plan.ExprCase:
		return newCase(e, args)
	case plan.ExprCoal:
		return newCoalesce(e, args)
	case plan.ExprCast:
		if len(args) != 1 {
			return nil, defect("a cast takes one argument")
		}
		if args[0].typ() == e.Type {
			return args[0], nil
		}
		impl, ok := castOf(args[0].typ(), e.Type)
		if !ok {
			return nil, fault.SQL(fault.Invalid, "42846", "cannot cast type %s to %s", args[0].typ(), e.Type)
		}
		cast := newCall(impl, e.Type, args, true, c.errs)
		cast.fromInt = args[0].typ() == record.BigInt && e.Type == record.Numeric
		return c.fold(cast)
	case plan.ExprCall:
		f, impl, err := resolve(e.Func, args)
		if err != nil {
			return nil, err
		}
		if f.Result != e.Type {
			return nil, defect("%s gives %s, not %s", f.Signature(), f.Result, e.Type)
		}
		if impl.ofInts {
			numbersOfInts(args)
		}
		return c.fold(newCall(impl, e.Type, args, !f.NullCall, c.errs))
	}
	return nil, fault.New(fault.Unsupported, "dataflow: no expression %q", e.Kind)
}

// fold replaces a call of constants by its result, unless it fails: then each row that reaches it fails.
func (c *compiler) fold(call *call) (expression, error) {
	for _, a := range call.exprs {
		if _, ok := a.(*constant); !ok {
			return call, nil
		}
	}
	probe := faults{mode: AdHoc}
	call.errs = &probe
	v := call.eval(&record.Delta{N: 1})
	call.errs = c.errs
	if probe.err != nil {
		return call, nil
	}
	folded := &constant{col: record.NewColumn(call.out.Type, 1)}
	folded.col.AppendFrom(v.col, 0)
	return folded, nil
}

// Evaluate returns the value of e, which reads no column. Its errors are those of AdHoc mode.
func Evaluate(e *plan.Expr, env Env) (record.Value, error) {
	errs := faults{mode: AdHoc}
	env.Mode = AdHoc
	x, err := compile(e, nil, env, &errs)
	if err != nil {
		return record.Value{}, err
	}
	v := x.eval(&record.Delta{N: 1})
	if errs.err != nil {
		return record.Value{}, errs.err
	}
	return v.col.Value(0), nil
}

// columnRef is a column of the input, not copied.
type columnRef struct {
	col int
	t   record.Type
}

func (c *columnRef) typ() record.Type             { return c.t }
func (c *columnRef) eval(in *record.Delta) vector { return vector{&in.Cols[c.col], -1} }
func (c *columnRef) safe() bool                   { return true }
func (c *columnRef) columns(fn func(int))         { fn(c.col) }
func (c *columnRef) trim()                        {}

// constant is one value for all rows.
type constant struct{ col record.Column }

func newConstant(t record.Type, v record.Value) *constant {
	c := &constant{record.NewColumn(t, 1)}
	c.col.AppendValue(v)
	return c
}

func (c *constant) typ() record.Type          { return c.col.Type }
func (c *constant) eval(*record.Delta) vector { return vector{&c.col, 0} }
func (c *constant) safe() bool                { return true }
func (c *constant) columns(func(int))         {}
func (c *constant) trim()                     {}

// isNull is IS NULL.
type isNull struct {
	arg expression
	out record.Column
}

func (n *isNull) typ() record.Type     { return record.Boolean }
func (n *isNull) safe() bool           { return n.arg.safe() }
func (n *isNull) columns(fn func(int)) { n.arg.columns(fn) }
func (n *isNull) trim()                { n.arg.trim() }

func (n *isNull) eval(in *record.Delta) vector {
	v := n.arg.eval(in)
	rows := v.col.N
	n.out.Type = record.Boolean
	prepare(&n.out, rows)
	if v.col.Validity == nil {
		clear(n.out.Bools)
	} else {
		for i := range n.out.Bools {
			n.out.Bools[i] = !v.col.Validity.Valid(i)
		}
	}
	return vector{&n.out, v.mask}
}
