package dataflow

import (
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// relation parses the operators that work on whole relations:
//
//	upsert keys=a,b             the input ends with the columns deleted and offset
//	set_op intersect|except [all]
func (s *scenario) relation(in record.Schema, op plan.Op, rest string) plan.Op {
	words := strings.Fields(rest)
	args := map[string]string{}
	for _, w := range words {
		name, v, _ := strings.Cut(w, "=")
		args[name] = v
	}
	_, all := args["all"]
	switch op.Kind {
	case plan.OpUpsert:
		n := len(in) - 2
		op.Upsert = &plan.Upsert{Keys: s.columnList(in, args["keys"]), Deleted: n, Offset: n + 1}
		op.Schema = in[:n]
	case plan.OpSetOp:
		_, except := args["except"]
		op.SetOp = &plan.SetOp{Except: except, All: all}
	}
	return op
}

func (s *scenario) columnList(in record.Schema, list string) []int {
	var cols []int
	for _, name := range strings.Split(list, ",") {
		if name != "" {
			cols = append(cols, s.column(in, name))
		}
	}
	return cols
}
