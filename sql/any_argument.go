package sql

import (
	"math"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// Functions that take arguments of any type, or fewer than they have, are brought into the form that the table of functions has.

// wholeRow are the functions that take a relation's name for its row.
var wholeRow = []string{"to_json", "to_jsonb", "row_to_json", "json_agg", "jsonb_agg"}

// rowArgument replaces a relation's name as the argument by an object of its columns.
func (b *binder) rowArgument(e *call) *call {
	if !slices.Contains(wholeRow, e.name) || len(e.args) != 1 {
		return e
	}
	r, ok := e.args[0].(*columnRef)
	if !ok || r.table != "" || b.scope == nil {
		return e
	}
	for s := b.scope; s != nil; s = s.parent {
		if len(s.seen[r.name]) > 0 {
			return e
		}
		if !s.hasTable(r.name) {
			continue
		}
		row := &call{at: r.at, name: "jsonb_build_object"}
		for _, c := range s.cols {
			if c.table == r.name && !c.hidden {
				row.args = append(row.args, &literal{at: r.at, kind: litString, text: c.name}, &columnRef{at: r.at, table: r.name, name: c.name})
			}
		}
		out := *e
		out.args = []expr{row}
		return &out
	}
	return e
}

// anyArgument checks functions of any type; done false: e is none.
func (b *binder) anyArgument(e *call, args []*node) (n *node, done bool, err error) {
	switch e.name {
	case "num_nulls", "num_nonnulls":
		n, err = b.countNulls(e, args)
	case "to_jsonb", "to_json", "row_to_json", "array_to_json":
		n, err = b.toJSON(e, args)
	case "jsonb_build_array", "json_build_array", "jsonb_build_object", "json_build_object":
		n, err = b.buildJSON(e, args)
	case "format":
		if len(args) == 0 {
			return nil, false, nil
		}
		if err = b.allText(args[1:]); err == nil {
			n, err = b.function(e.name, e.pos(), args)
		}
	case "quote_literal", "quote_nullable":
		for i := range args {
			if args[i], err = b.coerce(args[i], record.Text); err != nil {
				return nil, true, err
			}
		}
		n, err = b.function(e.name, e.pos(), args)
	case "overlaps":
		n, err = b.overlaps(e, args)
	case "age":
		if len(args) != 1 {
			return nil, false, nil
		}
		n, err = b.ageOf(e, args[0])
	case "jsonb_set_lax":
		if len(args) == 3 {
			args = append(args, boolean(true, e.pos()))
		}
		if len(args) == 4 {
			args = append(args, textNode("use_json_null", e.pos()))
		}
		n, err = b.function(e.name, e.pos(), args)
	case "jsonb_concat":
		for i := range args {
			if args[i].typ == record.Unknown {
				if args[i], err = b.coerce(args[i], record.JSONB); err != nil {
					return nil, true, err
				}
			}
		}
		n, err = b.function("concat_op", e.pos(), args)
	case "array_get", "array_slice":
		if len(args) == 0 || args[0].typ != record.JSONB {
			return nil, false, nil
		}
		if e.name == "array_slice" {
			return nil, true, b.src.unsupported(e.pos(), "use -> and jsonb_array_elements", "slices of jsonb are not supported")
		}
		n, err = b.apply("json_get", "->", e.pos(), args)
	default:
		return nil, false, nil
	}
	return n, true, err
}

// countNulls is num_nulls and num_nonnulls: a sum of CASE WHEN x IS NULL THEN 1 ELSE 0 END.
func (b *binder) countNulls(e *call, args []*node) (*node, error) {
	var sum *node
	one, zero := bigint(1, e.pos()), bigint(0, e.pos())
	if e.name == "num_nonnulls" {
		one, zero = zero, one
	}
	for _, a := range args {
		a, err := b.known(a)
		if err != nil {
			return nil, err
		}
		n := inner(plan.ExprCase, record.BigInt, e.pos(), isNullNode(a), one, zero)
		if sum == nil {
			sum = n
		} else if sum, err = b.apply("add", "+", e.pos(), []*node{sum, n}); err != nil {
			return nil, err
		}
	}
	if sum == nil {
		return nil, b.src.fail(e.pos(), stateNoFunction, "name what to count", "no function %s()", e.name)
	}
	return sum, nil
}

// toJSON is to_jsonb of a value; JSON is JSONB here, which has one form.
func (b *binder) toJSON(e *call, args []*node) (*node, error) {
	if e.name == "array_to_json" && len(args) == 2 { // the second one asks for line feeds
		out, err := b.toJSON(&call{at: e.at, name: "array_to_json"}, args[:1])
		if err != nil {
			return nil, err
		}
		pretty, err := b.toBoolean(args[1], "array_to_json")
		if err != nil {
			return nil, err
		}
		return inner(plan.ExprCase, record.JSONB, e.pos(), isNullNode(pretty), nullOf(record.JSONB, e.pos()), out), nil
	}
	if len(args) == 1 {
		switch t := args[0].typ; {
		case t == record.Unknown && args[0].kind == plan.ExprConst:
			return nil, b.src.fail(args[0].pos, stateMismatch, "add a cast: 'x'::text", "could not determine polymorphic type because input has type unknown")
		case e.name == "array_to_json" && !t.IsArray(), e.name == "row_to_json" && t != record.JSONB:
			return nil, b.src.fail(e.pos(), stateNoFunction, "use to_jsonb", "no function %s(%s)", e.name, t)
		}
	}
	return b.function("to_jsonb", e.pos(), args)
}

// buildJSON is jsonb_build_array and jsonb_build_object, whose arguments become JSONB one by one.
func (b *binder) buildJSON(e *call, args []*node) (*node, error) {
	object := e.name == "jsonb_build_object" || e.name == "json_build_object"
	if len(args) == 0 {
		text := "[]"
		if object {
			text = "{}"
		}
		return constant(record.Value{Type: record.JSONB, Bytes: []byte(text)}, e.pos()), nil
	}
	out := make([]*node, len(args))
	for i, a := range args {
		a, err := b.known(a)
		if err != nil {
			return nil, err
		}
		if object && i%2 == 0 && (a.typ == record.JSONB || a.typ.IsArray()) {
			return nil, b.src.fail(a.pos, stateParameter, "add ->> or a cast", "key value must be scalar, not array, composite, or json")
		}
		if a.typ != record.JSONB {
			if a, err = b.function("to_jsonb", a.pos, []*node{a}); err != nil {
				return nil, err
			}
		}
		out[i] = a
	}
	name := "jsonb_build_array"
	if object {
		name = "jsonb_build_object"
	}
	return b.function(name, e.pos(), out)
}

// overlaps adds the lengths of (start, length) to their starts.
func (b *binder) overlaps(e *call, args []*node) (*node, error) {
	for i := 1; i < len(args); i += 2 {
		if args[i].typ == record.IntervalT {
			end, err := b.apply("add", "+", e.pos(), []*node{args[i-1], args[i]})
			if err != nil {
				return nil, err
			}
			args[i] = end
		}
	}
	return b.function(e.name, e.pos(), args)
}

// ageOf is age(x), which counts from midnight today.
func (b *binder) ageOf(e *call, arg *node) (*node, error) {
	now, err := b.clock(&call{at: e.at, name: "age"}, plan.ExprNow, record.TimestampTZ)
	if err != nil {
		return nil, err
	}
	today := inner(plan.ExprCast, record.Date, e.pos(), now)
	return b.function(e.name, e.pos(), []*node{today, arg})
}

// fit casts n to a type with a length, precision or scale, where that was written.
func (b *binder) fit(n *node, e *castTo) (*node, error) {
	if len(e.mods) == 0 {
		return n, nil
	}
	name, first, second := "time_fit", e.mods[0], int32(0)
	if len(e.mods) > 1 {
		second = e.mods[1]
	}
	args := []*node{n, bigint(int64(first), e.pos())}
	bad := first < 0
	switch e.typ {
	case record.Numeric:
		name, bad = "numeric_fit", first < 1 || first > 1000 || second < -1000 || second > 1000 || len(e.mods) > 2
		args = append(args, bigint(int64(second), e.pos()))
	case record.Text:
		name, bad = "text_fit", first < 1
	default: // PostgreSQL takes what is more than 6 for 6
		args[1] = bigint(min(int64(first), 6), e.pos())
	}
	if bad {
		return nil, b.src.fail(e.pos(), stateParameter, "", "invalid length, precision or scale of type %s", e.typ)
	}
	return b.function(name, e.pos(), args)
}

// noBound is the upper bound of a[i:].
const noBound = math.MaxInt64
