package sql

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

func (x *explainer) expire(e *plan.Expire, s record.Schema, what string) {
	if e == nil {
		return
	}
	plus := ""
	if e.Delay > 0 {
		plus = " + " + durationText(e.Delay)
	} else if e.Delay < 0 {
		plus = " - " + durationText(-e.Delay)
	}
	x.line(2, "%s is forgotten once event time has passed %s%s", what, quoteName(s[e.Col].Name), plus)
}

func (x *explainer) hop(h *plan.Hop, in record.Schema) {
	offset := ""
	if h.Offset != 0 {
		offset = ", shifted by " + durationText(h.Offset)
	}
	what := fmt.Sprintf("hop: windows of %s, one each %s", durationText(h.Size), durationText(h.Slide))
	if h.Cumulate {
		what = fmt.Sprintf("cumulate: windows that grow by %s up to %s", durationText(h.Slide), durationText(h.Size))
	}
	x.line(1, "%s, over %s%s", what, quoteName(in[h.Time].Name), offset)
	if h.Pane {
		x.line(2, "each row once, with its pane; windows are put together by the aggregate")
	}
	x.lateness(h.Watermark)
}

func (x *explainer) lateness(mark int) {
	if mark >= 0 {
		x.line(2, "late rows, whose window ends at or below the watermark, are dropped and counted")
	} else {
		x.line(2, "no watermark on this column: no row is late")
	}
}

func (x *explainer) unnest(op *plan.Op, in record.Schema) {
	u := op.Unnest
	args := make([]string, len(u.Args))
	for i := range u.Args {
		args[i] = exprText(u.Args[i], in)
	}
	more := ""
	if u.Ordinality {
		more += ", numbered"
	}
	if u.Outer {
		more += ", rows without elements are kept"
	}
	x.line(1, "unnest: %s(%s)%s", u.Func, strings.Join(args, ", "), more)
}

func (x *explainer) expand(e *plan.Expand, in record.Schema) {
	sets := make([]string, len(e.Sets))
	for i, s := range e.Sets {
		cols := make([]int, len(s))
		for j, k := range s {
			cols[j] = e.Keys[k]
		}
		sets[i] = "(" + names(in, cols) + ")"
	}
	x.line(1, "expand: each row once for each grouping set: %s", strings.Join(sets, ", "))
}

// statefulOp describes the operators that keep rows.
func (x *explainer) statefulOp(op *plan.Op, ins []record.Schema) {
	in := ins[0]
	switch op.Kind {
	case plan.OpSession:
		x.line(1, "session: rows of equal %s less than %s apart in %s", namesOr(in, op.Session.Keys, "anything"), durationText(op.Session.Gap), quoteName(in[op.Session.Time].Name))
		x.line(2, "all rows are kept: they are taken back and come again when their session changes")
		x.lateness(op.Session.Watermark)
		x.expire(op.Session.Expire, in, "a row")
	case plan.OpJoin:
		x.join(op, ins)
	case plan.OpTemporalJoin:
		x.temporalJoin(op, ins)
	case plan.OpUnion:
		x.line(1, "union: all rows of %s", inputList(op.Inputs))
	case plan.OpSetOp:
		what := "intersect"
		if op.SetOp.Except {
			what = "except"
		}
		if op.SetOp.All {
			what += " all"
		}
		x.line(1, "%s: rows of %s, counted for each side", what, inputList(op.Inputs))
	case plan.OpTopN:
		x.topN(op.TopN, in)
	case plan.OpWindow:
		x.window(op, in)
	case plan.OpUpsert:
		x.line(1, "upsert: the last record of each %s is its row", names(in, op.Upsert.Keys))
	}
}

func namesOr(s record.Schema, cols []int, none string) string {
	if len(cols) == 0 {
		return none
	}
	return names(s, cols)
}

func inputList(inputs []int) string {
	out := make([]string, len(inputs))
	for i, n := range inputs {
		out[i] = strconv.Itoa(n)
	}
	return strings.Join(out, " and ")
}

func (x *explainer) join(op *plan.Op, ins []record.Schema) {
	j := op.Join
	left, right := ins[0], ins[1]
	on := "every pair"
	if len(j.LeftKeys) > 0 {
		pairs := make([]string, len(j.LeftKeys))
		for i, k := range j.LeftKeys {
			pairs[i] = quoteName(left[k].Name) + " = " + quoteName(right[j.RightKeys[i]].Name)
		}
		on = "on " + strings.Join(pairs, ", ")
	}
	x.line(1, "join (%s): %s, %s", strings.ReplaceAll(string(j.Kind), "_", " "), inputList(op.Inputs), on)
	both := append(append(record.Schema{}, left...), right...)
	if j.Residual != nil {
		x.line(2, "and %s", exprText(*j.Residual, both))
	}
	side := func(name string, appendOnly, unique bool, e *plan.Expire, s record.Schema) {
		what := "rows of " + name + " are kept"
		switch {
		case appendOnly && unique:
			what += ", which only come, one for each key"
		case appendOnly:
			what += ", which only come"
		case unique:
			what += ", one for each key"
		}
		x.line(2, "%s", what)
		x.expire(e, s, "one")
	}
	side("the left", j.LeftAppendOnly, j.LeftUnique, j.LeftExpire, left)
	side("the right", j.RightAppendOnly, j.RightUnique, j.RightExpire, right)
}

func (x *explainer) temporalJoin(op *plan.Op, ins []record.Schema) {
	t := op.TemporalJoin
	pairs := make([]string, len(t.LeftKeys))
	for i, k := range t.LeftKeys {
		pairs[i] = quoteName(ins[0][k].Name) + " = " + quoteName(ins[1][t.RightKeys[i]].Name)
	}
	kind := "inner"
	if t.Outer {
		kind = "left"
	}
	x.line(1, "temporal join (%s): %s, on %s", kind, inputList(op.Inputs), strings.Join(pairs, ", "))
	if t.Residual != nil {
		x.line(2, "and %s", exprText(*t.Residual, append(append(record.Schema{}, ins[0]...), ins[1]...)))
	}
	if t.LeftTime >= 0 {
		x.line(2, "with the version that was valid at %s, once the watermark has passed it", quoteName(ins[0][t.LeftTime].Name))
	} else {
		x.line(2, "with the row as it is when the left one comes; no left row is kept")
	}
}

func (x *explainer) topN(t *plan.TopN, in record.Schema) {
	of := "all rows"
	if len(t.Keys) > 0 {
		of = "each " + names(in, t.Keys)
	}
	limit := "all"
	if t.Limit >= 0 {
		limit = strconv.FormatInt(t.Limit, 10)
	}
	line := fmt.Sprintf("top %s of %s by %s", limit, of, sortText(t.Order, in))
	if t.Offset > 0 {
		line += fmt.Sprintf(", after the first %d", t.Offset)
	}
	if t.Func != plan.RankRowNumber {
		line += ", counted by " + string(t.Func)
	}
	if t.Place {
		line += ", with the place"
	}
	x.line(1, "%s", line)
	if t.AppendOnly {
		x.line(2, "append-only input: rows that fall off are forgotten")
	} else {
		x.line(2, "input takes rows back: all rows are kept")
	}
	x.expire(t.Expire, in, "a group")
}

func (x *explainer) window(op *plan.Op, in record.Schema) {
	w := op.Window
	var funcs []string
	for i, f := range w.Funcs {
		text := f.Name
		if f.Agg != nil {
			text = op.Schema[len(in)+i].Name
		} else {
			text += "(" + strings.Join(append(strings.Fields(strings.ReplaceAll(names(in, f.Args), ",", "")), constants(f.Const)...), ", ") + ")"
		}
		funcs = append(funcs, text+frameText(f))
	}
	of := "over all rows"
	if len(w.Keys) > 0 {
		of = "by " + names(in, w.Keys)
	}
	x.line(1, "window: %s, %s, in the order of %s", strings.Join(funcs, ", "), of, sortText(w.Order, in))
	x.line(2, "all rows are kept")
	x.expire(w.Expire, in, "a group")
}

func constants(values []record.Value) []string {
	var out []string
	for i := range values {
		out = append(out, constText(&values[i]))
	}
	return out
}

// frameText writes the frame of a function that looks at it, unless it is the default.
func frameText(f plan.WindowFunc) string {
	fr := f.Frame
	switch f.Name {
	case "agg", "first_value", "last_value", "nth_value":
	default:
		return ""
	}
	if fr.Mode == "range" && fr.Start.Unbounded && (fr.End == plan.FrameBound{} || fr.End.Unbounded) {
		return ""
	}
	return fmt.Sprintf(" %s between %s and %s", fr.Mode, boundText(fr.Start, "preceding"), boundText(fr.End, "following"))
}

func boundText(b plan.FrameBound, unbounded string) string {
	zero := record.Interval{}
	switch {
	case b.Unbounded:
		return "unbounded " + unbounded
	case b.Interval != zero:
		iv, side := b.Interval, "following"
		if iv.Months < 0 || iv.Days < 0 || iv.Micros < 0 {
			iv, side = record.Interval{Months: -iv.Months, Days: -iv.Days, Micros: -iv.Micros}, "preceding"
		}
		return string(record.AppendTextValue(nil, record.Value{Type: record.IntervalT, Interval: iv})) + " " + side
	case b.Offset < 0:
		return strconv.FormatInt(-b.Offset, 10) + " preceding"
	case b.Offset > 0:
		return strconv.FormatInt(b.Offset, 10) + " following"
	}
	return "current row"
}
