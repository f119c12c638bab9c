package dataflow

import (
	"strconv"
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// relation parses the operators that work on whole relations:
//
//	upsert keys=a,b             the input ends with the columns deleted and offset
//	set_op intersect|except [all]
//	join KIND [left_keys=a,b right_keys=c,d] [left_expire=at[+1m]] [right_expire=...] [nulls_equal] [left_append_only] [...] [where EXPR]
//	                            in EXPR the right input's columns are r_NAME
//	unnest FUNCTION [outer] [ordinality] of ARG, ARG
//	temporal_join inner|left left_keys=a right_keys=b [left_time=c right_time=d] [expire=e] [where EXPR]
//	top_n row_number|rank|dense_rank [keys=a,b] [order=a:desc:nulls_first,b] [limit=N] [offset=N] [place] [append_only] [expire=at]
func (s *scenario) relation(in record.Schema, op plan.Op, rest string) plan.Op {
	rest, where, _ := strings.Cut(rest, " where ")
	rest, list, _ := strings.Cut(rest, " of ")
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
	case plan.OpJoin:
		return s.join(in, op, words[0], args, where)
	case plan.OpUnnest:
		p := &plan.Unnest{Func: words[0]}
		_, p.Outer = args["outer"]
		_, p.Ordinality = args["ordinality"]
		for _, text := range splitTop(list) {
			p.Args = append(p.Args, s.expr(in, text))
		}
		op.Unnest = p
		op.Schema = append(record.Schema{}, in...)
		name := p.Func + "("
		for i, a := range p.Args {
			if i > 0 {
				name += ", "
			}
			name += a.Type.String()
		}
		for _, t := range seriesOf[name+")"].columns {
			op.Schema = append(op.Schema, record.Field{Name: "e", Type: t})
		}
		if p.Ordinality {
			op.Schema = append(op.Schema, record.Field{Name: "ordinality", Type: record.BigInt})
		}
	case plan.OpTemporalJoin:
		joined := s.join(in, op, words[0], args, where)
		j, right := joined.Join, s.ops[op.Inputs[1]].Schema
		p := &plan.TemporalJoin{LeftKeys: j.LeftKeys, RightKeys: j.RightKeys, Outer: words[0] == "left", Residual: j.Residual,
			LeftTime: -1, RightTime: -1, Expire: s.expire(right, args["expire"])}
		if at, ok := args["left_time"]; ok {
			p.LeftTime, p.RightTime = s.column(in, at), s.column(right, args["right_time"])
		}
		op.TemporalJoin, op.Schema = p, joined.Schema
	case plan.OpTopN:
		return s.topN(in, op, words[0], args)
	}
	return op
}

func (s *scenario) join(in record.Schema, op plan.Op, kind string, args map[string]string, where string) plan.Op {
	right := s.ops[op.Inputs[1]].Schema
	j := &plan.Join{
		Kind: plan.JoinKind(kind), LeftKeys: s.columnList(in, args["left_keys"]), RightKeys: s.columnList(right, args["right_keys"]),
		LeftExpire: s.expire(in, args["left_expire"]), RightExpire: s.expire(right, args["right_expire"]),
	}
	for name, flag := range map[string]*bool{"nulls_equal": &j.NullsEqual, "left_append_only": &j.LeftAppendOnly,
		"right_append_only": &j.RightAppendOnly, "left_unique": &j.LeftUnique, "right_unique": &j.RightUnique} {
		_, *flag = args[name]
	}
	both := append(record.Schema{}, in...)
	for _, f := range right {
		both = append(both, record.Field{Name: "r_" + f.Name, Type: f.Type})
	}
	if where != "" {
		e := s.expr(both, where)
		j.Residual = &e
	}
	op.Join, op.Schema = j, both
	if kind == "semi" || kind == "anti" || kind == "not_in" {
		op.Schema = in
	}
	return op
}

// expire parses: column[+interval]
func (s *scenario) expire(in record.Schema, text string) *plan.Expire {
	if text == "" {
		return nil
	}
	name, delay, ok := strings.Cut(text, "+")
	e := &plan.Expire{Col: s.column(in, name)}
	if ok {
		e.Delay = value(s.t, record.IntervalT, delay).Interval.Micros
	}
	return e
}

func (s *scenario) topN(in record.Schema, op plan.Op, fn string, args map[string]string) plan.Op {
	p := &plan.TopN{Func: plan.RankFunc(fn), Keys: s.columnList(in, args["keys"]), Limit: -1, Expire: s.expire(in, args["expire"])}
	for _, k := range strings.Split(args["order"], ",") {
		name, flags, _ := strings.Cut(k, ":")
		if name != "" {
			p.Order = append(p.Order, plan.SortKey{Col: s.column(in, name), Desc: strings.Contains(flags, "desc"),
				NullsFirst: strings.Contains(flags, "nulls_first")})
		}
	}
	if v, ok := args["limit"]; ok {
		p.Limit, _ = strconv.ParseInt(v, 10, 64)
	}
	if v, ok := args["offset"]; ok {
		p.Offset, _ = strconv.ParseInt(v, 10, 64)
	}
	_, p.Place = args["place"]
	_, p.AppendOnly = args["append_only"]
	op.TopN = p
	if p.Place {
		op.Schema = append(append(record.Schema{}, in...), record.Field{Name: "place", Type: record.BigInt})
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
