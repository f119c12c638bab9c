package sql

import (
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// infix are the functions that are written between their arguments.
var infix = map[string]string{
	"add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%", "eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
	"concat_op": "||", "bit_and": "&", "bit_or": "|", "bit_xor": "#", "shift_left": "<<", "shift_right": ">>", "json_get": "->", "json_get_text": "->>",
	"json_contains": "@>", "json_exists": "?", "like": "LIKE", "ilike": "ILIKE", "distinct": "IS DISTINCT FROM",
}

// exprText writes e over columns with these names.
func exprText(e plan.Expr, in record.Schema) string { return string(appendExpr(nil, &e, in, false)) }

// appendExpr writes e; nested puts parentheses around what needs them inside another expression.
func appendExpr(dst []byte, e *plan.Expr, in record.Schema, nested bool) []byte {
	op := ""
	switch e.Kind {
	case plan.ExprCol:
		return append(dst, quoteName(in[e.Col].Name)...)
	case plan.ExprConst:
		return append(dst, constText(e.Const)...)
	case plan.ExprTick:
		return append(dst, "current_tick()"...)
	case plan.ExprNow:
		return append(dst, "now()"...)
	case plan.ExprCoal:
		return appendList(append(dst, "coalesce"...), e.Args, in)
	case plan.ExprCase:
		return appendCase(dst, e, in)
	case plan.ExprCast:
		dst = appendExpr(dst, &e.Args[0], in, true)
		return append(append(dst, "::"...), e.Type.String()...)
	case plan.ExprNot:
		op = "NOT"
	case plan.ExprAnd:
		op = "AND"
	case plan.ExprOr:
		op = "OR"
	case plan.ExprIsNil:
		op = "IS NULL"
	case plan.ExprCall:
		if op = infix[e.Func]; op == "" && e.Func == "neg" {
			op = "-"
		} else if op == "" {
			return appendList(append(dst, e.Func...), e.Args, in)
		}
	}
	if nested {
		dst = append(dst, '(')
	}
	if len(e.Args) == 1 && e.Kind != plan.ExprIsNil {
		dst = append(append(dst, op...), ' ')
	}
	for i := range e.Args {
		if i > 0 {
			dst = append(append(append(dst, ' '), op...), ' ')
		}
		dst = appendExpr(dst, &e.Args[i], in, true)
	}
	if e.Kind == plan.ExprIsNil {
		dst = append(dst, " IS NULL"...)
	}
	if nested {
		dst = append(dst, ')')
	}
	return dst
}

func appendList(dst []byte, args []plan.Expr, in record.Schema) []byte {
	dst = append(dst, '(')
	for i := range args {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = appendExpr(dst, &args[i], in, false)
	}
	return append(dst, ')')
}

func appendCase(dst []byte, e *plan.Expr, in record.Schema) []byte {
	dst = append(dst, "CASE"...)
	last := len(e.Args) - 1
	for i := 0; i < last; i += 2 {
		dst = append(appendExpr(append(dst, " WHEN "...), &e.Args[i], in, false), " THEN "...)
		dst = appendExpr(dst, &e.Args[i+1], in, false)
	}
	if els := &e.Args[last]; els.Kind != plan.ExprConst || !els.Const.Null {
		dst = appendExpr(append(dst, " ELSE "...), els, in, false)
	}
	return append(dst, " END"...)
}

// constText writes a constant so that its type can be seen.
func constText(v *record.Value) string {
	switch {
	case v.Null:
		return "NULL"
	case v.Type == record.Boolean:
		return map[bool]string{true: "true", false: "false"}[v.Int != 0]
	}
	text := string(record.AppendTextValue(nil, *v))
	switch v.Type {
	case record.BigInt:
		return text
	case record.Text:
		return "'" + strings.ReplaceAll(text, "'", "''") + "'"
	}
	return "'" + strings.ReplaceAll(text, "'", "''") + "'::" + v.Type.String()
}

// quoteName puts quotes around a name that needs them.
func quoteName(s string) string {
	for i, r := range s {
		if !('a' <= r && r <= 'z' || r == '_' || i > 0 && '0' <= r && r <= '9') {
			if strings.ContainsAny(s, "()#'") {
				return s // not a name but a whole expression
			}
			return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
		}
	}
	return s
}

func names(s record.Schema, cols []int) string {
	out := make([]string, len(cols))
	for i, c := range cols {
		out[i] = quoteName(s[c].Name)
	}
	return strings.Join(out, ", ")
}

func fieldNames(s record.Schema) string { return names(s, identity(len(s))) }

func fieldList(s record.Schema) string {
	out := make([]string, len(s))
	for i, f := range s {
		out[i] = quoteName(f.Name) + " " + f.Type.String()
	}
	return strings.Join(out, ", ")
}

func projectText(op *plan.Op, in record.Schema) string {
	if len(op.Project.Exprs) == 0 {
		return "no columns, rows are only counted"
	}
	out := make([]string, len(op.Project.Exprs))
	for i := range out {
		text, name := exprText(op.Project.Exprs[i], in), quoteName(op.Schema[i].Name)
		if out[i] = text; text != name && op.Schema[i].Name != text {
			out[i] = text + " AS " + name
		}
	}
	return strings.Join(out, ", ")
}

// valuesText shows a single row.
func valuesText(op *plan.Op) string {
	if len(op.Values.Rows) != 1 || len(op.Values.Rows[0]) == 0 {
		return ""
	}
	return " " + string(appendList(nil, op.Values.Rows[0], nil))
}

// durationText writes microseconds as an interval: 01:30:00.
func durationText(us int64) string {
	return string(record.AppendTextValue(nil, record.Value{Type: record.IntervalT, Interval: record.Interval{Micros: us}}))
}
