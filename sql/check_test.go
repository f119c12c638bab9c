package sql

import (
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// checkShape holds the operators of stages with several inputs, and where they may stand, against what package plan says.
func checkShape(s *plan.Stage, j int, ins []record.Schema) error {
	op := &s.Ops[j]
	scans := s.Ops[0].Kind == plan.OpScan
	switch op.Kind {
	case plan.OpScan:
		if j != 0 {
			return errors.New("a scan isn't its stage's first operator")
		}
	case plan.OpInput, plan.OpValues:
	case plan.OpFilter, plan.OpProject, plan.OpTumble, plan.OpHop, plan.OpDropLate, plan.OpLate, plan.OpUnnest, plan.OpExpand, plan.OpEmitFinal, plan.OpSort:
		return checkUnary(op, ins)
	case plan.OpAggregate:
		if scans && op.Aggregate.Phase != plan.AggPartial {
			return errors.New("a stage with a scan keeps state")
		}
		return checkUnary(op, ins)
	default:
		if adHoc := s.Exchange != nil && s.Exchange.Gather; scans && !(adHoc && (op.Kind == plan.OpDistinct || op.Kind == plan.OpTopN)) {
			return errors.New("a stage with a scan keeps state")
		}
		return checkStateful(op, ins)
	}
	if len(ins) != 0 {
		return errors.New("a leaf has inputs")
	}
	return nil
}

func checkUnary(op *plan.Op, ins []record.Schema) error {
	if len(ins) != 1 {
		return fmt.Errorf("%d inputs", len(ins))
	}
	in := ins[0]
	switch op.Kind {
	case plan.OpHop:
		h := op.Hop
		if h.Size <= 0 || h.Slide <= 0 || h.Slide > h.Size || h.Cumulate && h.Size%h.Slide != 0 || len(op.Schema) != len(in)+2 {
			return errors.New("size, slide or schema")
		}
		return columnsAre(in, record.TimestampTZ, h.Time)
	case plan.OpDropLate:
		d := op.DropLate
		if !slices.Equal(op.Schema, in) || d.Watermark >= 0 && in[d.Watermark].Name != plan.ColWatermark || d.Watermark < 0 && d.Event == 0 {
			return errors.New("schema or watermark")
		}
		if d.Event != 0 {
			return columnsAre(in, record.TimestampTZ, d.Time, d.Event-1)
		}
		return columnsAre(in, record.TimestampTZ, d.Time)
	case plan.OpLate:
		l := op.Late
		if l.Watermark < 0 || in[l.Watermark].Name != plan.ColWatermark || !slices.Equal(op.Schema[:len(in)], in) || (len(op.Schema) == len(in)) != (l.Of == plan.LateOfDropLate) {
			return errors.New("schema or watermark")
		}
		if l.Of != plan.LateOfDropLate && l.Size <= 0 || l.Of == plan.LateOfHop && l.Slide <= 0 {
			return errors.New("size or slide")
		}
		return columnsAre(in, record.TimestampTZ, l.Time)
	case plan.OpUnnest:
		for i := range op.Unnest.Args {
			if err := checkExpr(&op.Unnest.Args[i], in); err != nil {
				return err
			}
		}
		if !slices.Equal(op.Schema[:len(in)], in) || len(op.Schema) == len(in) {
			return errors.New("schema")
		}
	case plan.OpExpand:
		if !slices.Equal(op.Schema[:len(in)], in) || len(op.Schema) != len(in)+1 {
			return errors.New("schema")
		}
		for _, s := range op.Expand.Sets {
			for _, k := range s {
				if k < 0 || k >= len(op.Expand.Keys) {
					return errors.New("a set's key")
				}
			}
		}
	}
	return nil
}

func columnsAre(in record.Schema, t record.Type, cols ...int) error {
	for _, c := range cols {
		if c < 0 || c >= len(in) || t != record.Unknown && in[c].Type != t {
			return fmt.Errorf("column %d of %v, as %s", c, in, t)
		}
	}
	return nil
}

func checkStateful(op *plan.Op, ins []record.Schema) error {
	switch op.Kind {
	case plan.OpJoin, plan.OpTemporalJoin, plan.OpSetOp:
		if len(ins) != 2 {
			return fmt.Errorf("%d inputs", len(ins))
		}
	case plan.OpUnion:
		for _, in := range ins {
			if !sameTypes(in, op.Schema) {
				return fmt.Errorf("schema %v of %v", op.Schema, in)
			}
		}
		return nil
	default:
		if len(ins) != 1 {
			return fmt.Errorf("%d inputs", len(ins))
		}
	}
	switch op.Kind {
	case plan.OpJoin:
		return checkJoin(op, ins)
	case plan.OpTemporalJoin:
		return checkKeys(ins, op.TemporalJoin.LeftKeys, op.TemporalJoin.RightKeys)
	case plan.OpSetOp:
		if !sameTypes(ins[0], op.Schema) || !sameTypes(ins[1], op.Schema) {
			return errors.New("schema")
		}
	case plan.OpDistinct:
		if !slices.Equal(ins[0], op.Schema) {
			return errors.New("schema")
		}
	case plan.OpTopN:
		want := len(ins[0])
		if op.TopN.Place {
			want++
		}
		if len(op.Schema) != want {
			return errors.New("schema")
		}
		return columnsAre(ins[0], record.Unknown, op.TopN.Keys...)
	case plan.OpWindow:
		if len(op.Schema) != len(ins[0])+len(op.Window.Funcs) {
			return errors.New("schema")
		}
		for i, f := range op.Window.Funcs {
			if op.Schema[len(ins[0])+i].Type != f.Type || (f.Name == "agg") != (f.Agg != nil) {
				return fmt.Errorf("function %s", f.Name)
			}
			if err := columnsAre(ins[0], record.Unknown, f.Args...); err != nil {
				return err
			}
		}
		return columnsAre(ins[0], record.Unknown, op.Window.Keys...)
	case plan.OpSession:
		if len(op.Schema) != len(ins[0])+2 {
			return errors.New("schema")
		}
		return columnsAre(ins[0], record.TimestampTZ, op.Session.Time)
	}
	return nil
}

func sameTypes(a, b record.Schema) bool {
	return slices.EqualFunc(a, b, func(x, y record.Field) bool { return x.Type == y.Type })
}

func checkKeys(ins []record.Schema, left, right []int) error {
	if len(left) != len(right) {
		return errors.New("keys don't pair up")
	}
	for i := range left {
		if err := columnsAre(ins[0], record.Unknown, left[i]); err != nil {
			return err
		}
		if err := columnsAre(ins[1], ins[0][left[i]].Type, right[i]); err != nil {
			return err
		}
	}
	return nil
}

func checkJoin(op *plan.Op, ins []record.Schema) error {
	j := op.Join
	both := append(slices.Clone(ins[0]), ins[1]...)
	want := both
	if leftOnly(j.Kind) {
		want = ins[0]
	}
	if !slices.Equal(op.Schema, want) {
		return fmt.Errorf("schema %v, want %v", op.Schema, want)
	}
	if j.Kind == plan.JoinNotIn && len(j.LeftKeys) != 1 {
		return errors.New("NOT IN has one key")
	}
	if j.Residual != nil {
		if err := checkExpr(j.Residual, both); err != nil {
			return err
		}
	}
	for i, e := range []*plan.Expire{j.LeftExpire, j.RightExpire} {
		if e != nil {
			if err := columnsAre(ins[i], record.TimestampTZ, e.Col); err != nil {
				return err
			}
		}
	}
	return checkKeys(ins, j.LeftKeys, j.RightKeys)
}
