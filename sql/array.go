package sql

import (
	"strconv"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

type (
	// arrayOf is ARRAY[...].
	arrayOf struct {
		at
		elems []expr
	}
	// quantified is x op ANY(array) or x op ALL(array).
	quantified struct {
		at
		op          string
		any         bool
		left, right expr
	}
)

// quantifiers are the functions of x op ANY(array), after any_ or all_.
var quantifiers = map[string]string{"=": "eq", "<>": "ne", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}

func (c *converter) array(a *pgquery.A_ArrayExpr) (expr, error) {
	elems, err := c.list(a.Elements)
	return &arrayOf{at: at(c.at(a.Location)), elems: elems}, err
}

// indirection converts array[i] and array[i:j].
func (c *converter) indirection(n *pgquery.A_Indirection) (expr, error) {
	out, err := c.expr(n.Arg)
	if err != nil {
		return nil, err
	}
	for _, part := range n.Indirection {
		i := part.GetAIndices()
		if i == nil {
			return nil, c.src.unsupported(out.pos(), "use -> and ->> for parts of JSONB", "fields of composite values are not supported")
		}
		name, bounds := "array_get", []*pgquery.Node{i.Uidx}
		if i.IsSlice {
			name, bounds = "array_slice", []*pgquery.Node{i.Lidx, i.Uidx}
		}
		args := make([]expr, len(bounds))
		for k, bound := range bounds {
			if bound == nil { // a[:j], a[i:]
				args[k] = &literal{at: at(out.pos()), kind: litNumber, text: [...]string{"1", strconv.FormatInt(noBound, 10)}[k]}
			} else if args[k], err = c.expr(bound); err != nil {
				return nil, err
			}
		}
		out = &call{at: at(out.pos()), name: name, args: append([]expr{out}, args...), syntax: true}
	}
	return out, nil
}

func (b *binder) arrayOf(e *arrayOf) (*node, error) {
	if len(e.elems) == 0 {
		return nil, b.src.fail(e.pos(), stateIndeterminate, "write '{}'::bigint[], with the type that it has", "the type of an empty ARRAY[] is unknown")
	}
	elems, err := b.bindAll(e.elems)
	if err != nil {
		return nil, err
	}
	elems, t, err := b.common(elems, "ARRAY")
	if err != nil {
		return nil, err
	}
	if t.IsArray() {
		return nil, b.src.unsupported(e.pos(), "use JSONB", "arrays of more than one dimension are not supported")
	}
	return b.function("array", e.pos(), elems)
}

func (b *binder) quantified(e *quantified) (*node, error) {
	name, ok := quantifiers[e.op]
	if !ok {
		return nil, b.src.unsupported(e.pos(), "use =, <>, <, <=, > or >=", "%s before ANY or ALL is not supported", e.op)
	}
	left, err := b.bind(e.left)
	if err != nil {
		return nil, err
	}
	right, err := b.bind(e.right)
	if err != nil {
		return nil, err
	}
	if right.typ == record.Unknown {
		elem := left.typ
		if elem == record.Unknown {
			elem = record.Text
		}
		if right, err = b.coerce(right, record.ArrayOf(elem)); err != nil {
			return nil, err
		}
	}
	if !right.typ.IsArray() {
		return nil, b.src.fail(e.pos(), stateWrongObject, "", "ANY and ALL need an array on the right side, not %s", right.typ)
	}
	elem := right.typ.Elem()
	switch {
	case implicit(left.typ, elem):
		left, err = b.coerce(left, elem)
	case implicit(elem, left.typ):
		right = inner(plan.ExprCast, record.ArrayOf(left.typ), right.pos, right)
	}
	if err != nil {
		return nil, err
	}
	prefix := "all_"
	if e.any {
		prefix = "any_"
	}
	return b.apply(prefix+name, e.op, e.pos(), []*node{left, right})
}

// arrayOperands gives a bare literal beside an array the array's type, and the operator its function for arrays.
func (b *binder) arrayOperands(name string, args []*node) (string, []*node, error) {
	left, right := args[0], args[1]
	if !left.typ.IsArray() && !right.typ.IsArray() {
		return name, args, nil
	}
	var err error
	if left.typ == record.Unknown {
		left, err = b.coerce(left, right.typ)
	} else if right.typ == record.Unknown && name != "json_get_path" && name != "json_get_path_text" {
		right, err = b.coerce(right, left.typ)
	}
	if err != nil {
		return "", nil, err
	}
	switch name {
	case "json_contains":
		name = "array_contains"
	case "concat_op":
		if l, r := left.typ, right.typ; l.IsArray() && !r.IsArray() && r != l.Elem() && implicit(r, l.Elem()) {
			right, err = b.coerce(right, l.Elem())
		} else if r.IsArray() && !l.IsArray() && l != r.Elem() && implicit(l, r.Elem()) {
			left, err = b.coerce(left, r.Elem())
		}
	}
	return name, []*node{left, right}, err
}
