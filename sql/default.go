package sql

import (
	"errors"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// A column's DEFAULT is kept as it was written, and checked anew in each statement that uses it: what it means, now()
// for one, is the statement's.

// defaultOf is what column i of a stream or table is without a value: its DEFAULT, or NULL.
func defaultOf(obj *Object, i, pos int) (*node, error) {
	t := obj.Columns[i].Type
	if obj.Stream == nil || obj.Stream.Columns[i].Default == "" {
		return nullOf(t, pos), nil
	}
	text := obj.Stream.Columns[i].Default
	n, err := bindDefault(&source{text: text}, span{0, len(text)}, columnDef{name: obj.Columns[i].Name, typ: t})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// bindDefault checks the expression of DEFAULT of a column.
func bindDefault(src *source, s span, col columnDef) (*node, error) {
	e, err := parseExpression(src, s, "the expression of DEFAULT")
	if err != nil {
		return nil, err
	}
	b := &binder{src: src, scope: newScope(nil), noAggs: "DEFAULT", noOver: "DEFAULT"}
	n, err := b.bind(e)
	var f *fault.Error
	if errors.As(err, &f) && (f.GetSQLState() == stateNoColumn || f.GetSQLState() == stateNoRelation) {
		return nil, src.unsupported(s.from, "", "a column in the expression of DEFAULT is not supported")
	}
	if err != nil {
		return nil, err
	}
	if !assignable(n.typ, col.typ) {
		return nil, src.fail(n.pos, stateMismatch, "add a cast", "column %q is of type %s but default expression is of type %s", col.name, col.typ, n.typ)
	}
	return b.coerce(n, col.typ)
}

// constraintWords may follow DEFAULT's expression.
var constraintWords = []string{"not", "null", "primary", "unique", "check", "references", "generated", "collate", "constraint", "default"}

// defaultValue takes DEFAULT expression.
func (c *cursor) defaultValue(col *columnDef) error {
	c.i++
	start := c.i
	for depth := 0; !c.done(); c.i++ {
		t := c.tokens[c.i].tok
		if depth == 0 && (t == tokenComma || t == tokenClose || c.i > start && slices.Contains(constraintWords, c.word(c.i))) {
			break
		}
		switch t {
		case tokenOpen:
			depth++
		case tokenClose:
			depth--
		}
	}
	if c.i == start {
		return c.expect("the expression of DEFAULT")
	}
	s := span{c.tokens[start].from, c.tokens[c.i-1].to}
	col.def = c.src.text[s.from:s.to]
	_, err := bindDefault(c.src, s, *col)
	return err
}

// PlanDefaults plans the one row of what the columns of a stream or table are without a value.
func PlanDefaults(obj *Object) (*plan.Plan, error) {
	row := make([]plan.Expr, len(obj.Columns))
	for i := range row {
		n, err := defaultOf(obj, i, 0)
		if err != nil {
			return nil, err
		}
		row[i] = n.expr(nil)
	}
	return valuesPlan(obj.Columns, [][]plan.Expr{row}), nil
}

// valuesPlan plans constant rows.
func valuesPlan(cols record.Schema, rows [][]plan.Expr) *plan.Plan {
	op := plan.Op{Kind: plan.OpValues, Schema: cols, Values: &plan.Values{Rows: rows}}
	return &plan.Plan{Version: plan.Version, Stages: []plan.Stage{{Ops: []plan.Op{op}}}, Output: cols}
}
