package pgcatalog

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/internal/fault"
)

// tuple is a row of a relation as a value.
type tuple struct {
	cols   []Column
	values []Value // nil: of the missing side of an outer join
}

// wholeRow is a relation's name where a value stands; nil: there is no such relation.
func (s *scope) wholeRow(name string, depth int) *node {
	for _, r := range s.rels {
		if r.name != name {
			continue
		}
		n := &node{typ: pgtype.RecordOID}
		if depth == 0 {
			n.slots = 1 << r.slot
		}
		n.eval = func(e *env) (Value, error) {
			for range depth {
				e = e.parent
			}
			if e.rows[r.slot] == nil {
				return nil, nil
			}
			return tuple{r.cols, e.rows[r.slot]}, nil
		}
		return n
	}
	return nil
}

func appendTuple(dst []byte, t tuple) []byte {
	dst = append(dst, '(')
	for i, v := range t.values {
		if i > 0 {
			dst = append(dst, ',')
		}
		if v == nil {
			continue
		}
		text := string(AppendText(nil, v))
		if text == "" || strings.ContainsAny(text, "(),\"\\ \t\n\r\v\f") {
			text = `"` + strings.NewReplacer(`"`, `""`, `\`, `\\`).Replace(text) + `"`
		}
		dst = append(dst, text...)
	}
	return append(dst, ')')
}

// appendJSON appends a value of a type as JSON, with the blanks that PostgreSQL's json functions write.
func appendJSON(dst []byte, v Value, typ uint32) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case bool:
		return strconv.AppendBool(dst, v)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return append(append(append(dst, '"'), AppendText(nil, v)...), '"')
		}
		return strconv.AppendFloat(dst, v, 'g', -1, 64)
	case tuple:
		dst = append(dst, '{')
		for i, c := range v.cols {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendJSONText(dst, c.Name), ':')
			dst = appendJSON(dst, v.values[i], c.OID)
		}
		return append(dst, '}')
	case []Value, vector:
		dst = append(dst, '[')
		for i, e := range elements(v) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, e, elementOf(typ))
		}
		return append(dst, ']')
	}
	if typ == pgtype.JSONOID || typ == pgtype.JSONBOID {
		return AppendText(dst, v)
	}
	return appendJSONText(dst, text(v))
}

func appendJSONText(dst []byte, s string) []byte {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // of a string into memory: it can't fail
	return append(dst, strings.TrimSuffix(b.String(), "\n")...)
}

// jsonCall compiles the functions that make JSON of values of any type.
func (c *compiler) jsonCall(name string, args []*node) (*node, error) {
	for i := range args {
		var err error
		if args[i], err = c.to(args[i], textOID); err != nil {
			return nil, err
		}
	}
	out := &node{typ: pgtype.JSONOID, slots: slotsOf(args...)}
	if strings.HasPrefix(name, "jsonb") || name == "to_jsonb" {
		out.typ = pgtype.JSONBOID
	}
	object := strings.HasSuffix(name, "_object")
	switch {
	case object && len(args)%2 != 0:
		return nil, fault.SQL(fault.Invalid, "22023", "argument list must have even number of elements")
	case !object && !strings.HasSuffix(name, "_array") && len(args) != 1:
		return nil, fault.SQL(fault.Invalid, "42883", "function %s with %d arguments does not exist", name, len(args))
	}
	out.eval = func(e *env) (Value, error) {
		values := make([]Value, len(args))
		for i, a := range args {
			var err error
			if values[i], err = a.eval(e); err != nil {
				return nil, err
			}
		}
		if !object && !strings.HasSuffix(name, "_array") {
			if values[0] == nil {
				return nil, nil
			}
			return string(appendJSON(nil, values[0], args[0].typ)), nil
		}
		return jsonOf(values, args, object)
	}
	return out, nil
}

// jsonOf builds an object or array.
func jsonOf(values []Value, args []*node, object bool) (Value, error) {
	open, end := byte('['), byte(']')
	if object {
		open, end = '{', '}'
	}
	b := []byte{open}
	for i, v := range values {
		switch {
		case object && i%2 == 1:
			b = append(b, " : "...)
		case i > 0:
			b = append(b, ", "...)
		}
		if object && i%2 == 0 {
			if v == nil {
				return nil, fault.SQL(fault.Invalid, "22023", "argument %d cannot be null", i+1)
			}
			b = appendJSONText(b, text(v))
			continue
		}
		b = appendJSON(b, v, args[i].typ)
	}
	return string(append(b, end)), nil
}

var jsonFunctions = map[string]bool{
	"json_build_object": true, "jsonb_build_object": true, "json_build_array": true, "jsonb_build_array": true,
	"row_to_json": true, "to_json": true, "to_jsonb": true,
}

// recursive compiles a query of WITH RECURSIVE that reads itself: first UNION [ALL] rest.
func (c *compiler) recursive(t *pgquery.CommonTableExpr, around *scope) (*query, error) {
	st := t.Ctequery.GetSelectStmt()
	if st.GetOp() != pgquery.SetOperation_SETOP_UNION || len(st.SortClause) > 0 || st.LimitCount != nil || st.WithClause != nil {
		return nil, unsupported("a recursive query that isn't of the form first UNION rest")
	}
	first, err := c.selectStmt(st.Larg, around)
	if err != nil {
		return nil, err
	}
	first.name(t.Aliascolnames)
	self := &cte{name: t.Ctename, q: first, around: around}
	self.rows = func(x *execution) [][]Value { return x.working[self] }
	c.ctes = append(c.ctes, self)
	rest, err := c.selectStmt(st.Rarg, around)
	c.ctes = c.ctes[:len(c.ctes)-1]
	if err != nil {
		return nil, err
	}
	if len(rest.cols) != len(first.cols) {
		return nil, fault.SQL(fault.Invalid, "42601", "each query of UNION must have the same number of columns")
	}
	out := &query{cols: first.cols, correlated: first.correlated || rest.correlated}
	out.run = func(parent *env) ([][]Value, error) { return self.iterate(parent, first, rest, st.All) }
	return out, nil
}

// iterate runs rest over the rows that came last, until none come. Rows that have come before don't come again unless all
// is set.
func (w *cte) iterate(parent *env, first, rest *query, all bool) ([][]Value, error) {
	x := parent.x
	outer, within := x.working[w]
	defer func() {
		if delete(x.working, w); within {
			x.working[w] = outer
		}
	}()
	seen := map[string]bool{}
	fresh := func(rows [][]Value) [][]Value {
		if all {
			return rows
		}
		var out [][]Value
		for _, r := range rows {
			if k := keyOf(r); !seen[k] {
				seen[k] = true
				out = append(out, r)
			}
		}
		return out
	}
	rows, err := first.run(parent)
	if err != nil {
		return nil, err
	}
	last := fresh(rows)
	out := append([][]Value{}, last...)
	for len(last) > 0 {
		if err := x.step(); err != nil {
			return nil, err
		}
		x.working[w] = last
		if rows, err = rest.run(parent); err != nil {
			return nil, err
		}
		last = fresh(rows)
		if out = append(out, last...); len(out) > maxRows {
			return nil, tooManyRows()
		}
	}
	return out, nil
}

// name gives columns other names.
func (q *query) name(names []*pgquery.Node) {
	for i, n := range names {
		if i < len(q.cols) {
			q.cols[i].Name = n.GetString_().GetSval()
		}
	}
}
