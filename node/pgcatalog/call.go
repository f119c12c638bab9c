package pgcatalog

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/internal/fault"
)

// function is one that gives a value.
type function struct {
	result uint32
	args   []uint32 // types that untyped arguments take
	least  int      // fewest arguments
	most   int      // most; -1: any number
	nulls  bool     // is called with NULLs too; otherwise NULL gives NULL
	call   func(x *execution, a []Value) (Value, error)
}

// catalogOnly are functions that statements over streams don't have, besides those that begin with pg_ and has_.
var catalogOnly = map[string]bool{
	"version": true, "current_database": true, "current_schema": true, "current_schemas": true, "current_setting": true, "set_config": true,
	"format_type": true, "obj_description": true, "col_description": true, "shobj_description": true, "to_regclass": true, "to_regtype": true,
	"inet_server_addr": true, "inet_server_port": true, "inet_client_addr": true, "inet_client_port": true, "quote_ident": true,
	"txid_current": true, "getdatabaseencoding": true, "current_catalog": true, "row_security_active": true,
}

func (c *compiler) call(f *pgquery.FuncCall, s *scope) (*node, error) {
	name := lastName(f.Funcname)
	switch {
	case f.Over != nil:
		return c.windowCall(f, name, s)
	case isAggregate(name):
		return c.aggregateCall(f, name, s)
	}
	args, err := c.exprs(f.Args, s)
	if err != nil {
		return nil, err
	}
	if jsonFunctions[name] {
		return c.jsonCall(name, args)
	}
	if set, ok := setFunctions[name]; ok {
		return c.setCall(name, set, args)
	}
	fn, ok := functions()[name]
	if !ok {
		return nil, fault.SQL(fault.Invalid, "42883", "function %s() does not exist in queries of the catalog", name)
	}
	if len(args) < fn.least || fn.most >= 0 && len(args) > fn.most {
		return nil, fault.SQL(fault.Invalid, "42883", "function %s with %d arguments does not exist", name, len(args))
	}
	for i := range args {
		want := uint32(textOID)
		if i < len(fn.args) {
			want = fn.args[i]
		}
		if args[i], err = c.to(args[i], want); err != nil {
			return nil, err
		}
	}
	typ := fn.result
	if typ == 0 { // that of the first argument
		typ = args[0].typ
	}
	return &node{typ: typ, slots: slotsOf(args...), eval: func(e *env) (Value, error) {
		values := make([]Value, len(args))
		for i, a := range args {
			var err error
			if values[i], err = a.eval(e); err != nil {
				return nil, err
			}
			if values[i] == nil && !fn.nulls {
				return nil, nil
			}
		}
		return fn.call(e.x, values)
	}}, nil
}

// setFunction is one that gives rows.
type setFunction struct {
	args  []uint32
	least int
	typ   func(args []*node) uint32
	call  func(a []Value) ([]Value, error)
}

var setFunctions = map[string]setFunction{
	"unnest": {least: 1, args: []uint32{pgtype.TextArrayOID}, typ: elementType, call: func(a []Value) ([]Value, error) {
		return elements(a[0]), nil
	}},
	"generate_series": {least: 2, args: []uint32{int4OID, int4OID, int4OID}, typ: func(args []*node) uint32 { return args[0].typ }, call: series},
	"generate_subscripts": {least: 2, args: []uint32{pgtype.TextArrayOID, int4OID}, typ: func([]*node) uint32 { return int4OID },
		call: func(a []Value) ([]Value, error) {
			first := int64(1)
			if _, ok := a[0].(vector); ok {
				first = 0
			}
			return series([]Value{first, first + int64(len(elements(a[0]))) - 1})
		}},
	"_pg_expandarray": {least: 1, args: []uint32{oidInt2vector}, typ: func([]*node) uint32 { return pgtype.RecordOID },
		call: func(a []Value) ([]Value, error) {
			var out []Value
			for i, v := range elements(a[0]) {
				out = append(out, pair{v, int64(i + 1)})
			}
			return out, nil
		}},
	"regexp_split_to_table": {least: 2, args: []uint32{textOID, textOID}, typ: func([]*node) uint32 { return textOID },
		call: func(a []Value) ([]Value, error) {
			var out []Value
			for s := range strings.SplitSeq(text(a[0]), text(a[1])) {
				out = append(out, s)
			}
			return out, nil
		}},
}

func elementType(args []*node) uint32 {
	if e := elementOf(args[0].typ); e != 0 {
		return e
	}
	return textOID
}

func series(a []Value) ([]Value, error) {
	from, _ := a[0].(int64)
	to, _ := a[1].(int64)
	step := int64(1)
	if len(a) > 2 {
		step, _ = a[2].(int64)
	}
	if step == 0 {
		return nil, fault.SQL(fault.Invalid, "22023", "step size cannot equal zero")
	}
	var out []Value
	for i := from; step > 0 && i <= to || step < 0 && i >= to; i += step {
		if len(out) >= maxRows {
			return nil, tooManyRows()
		}
		out = append(out, i)
	}
	return out, nil
}

func (c *compiler) setCall(name string, fn setFunction, args []*node) (*node, error) {
	if len(args) < fn.least || len(args) > max(len(fn.args), fn.least) {
		return nil, fault.SQL(fault.Invalid, "42883", "function %s with %d arguments does not exist", name, len(args))
	}
	for i := range args {
		var err error
		if args[i], err = c.to(args[i], fn.args[i]); err != nil {
			return nil, err
		}
	}
	return &node{
		typ: fn.typ(args), slots: slotsOf(args...),
		eval: func(*env) (Value, error) { return nil, unsupported("a set-returning function in this place") },
		set: func(e *env) ([]Value, error) {
			values := make([]Value, len(args))
			for i, a := range args {
				var err error
				if values[i], err = a.eval(e); err != nil || values[i] == nil {
					return nil, err
				}
			}
			return fn.call(values)
		},
	}, nil
}

func (c *compiler) typeCast(t *pgquery.TypeCast, s *scope) (*node, error) {
	to, err := typeOID(t.TypeName)
	if err != nil {
		return nil, err
	}
	a, err := c.expr(t.Arg, s)
	if err != nil {
		return nil, err
	}
	if a.param > 0 {
		return c.to(a, to)
	}
	if a.text != nil {
		v, err := c.x.cast(*a.text, textOID, to)
		if err != nil {
			return nil, err
		}
		return constantOf(to, v), nil
	}
	from := a.typ
	if from == pgtype.QCharOID && isInteger(to) {
		return &node{typ: to, slots: a.slots, eval: func(e *env) (Value, error) {
			v, err := a.eval(e)
			if s, ok := v.(string); ok && s != "" {
				return int64(s[0]), err
			}
			return int64(0), err
		}}, nil
	}
	return &node{typ: to, slots: a.slots, eval: func(e *env) (Value, error) {
		v, err := a.eval(e)
		if err != nil {
			return nil, err
		}
		return e.x.cast(v, from, to)
	}}, nil
}

// typeOID is the type that a cast names.
func typeOID(t *pgquery.TypeName) (uint32, error) {
	name := lastName(t.Names)
	oid, ok := typeNames[name]
	if !ok {
		return 0, fault.SQL(fault.NotFound, "42704", "type %q does not exist", name)
	}
	if len(t.ArrayBounds) > 0 {
		return arrayOf(oid), nil
	}
	return oid, nil
}
