package sql

import (
	"strconv"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// implicit tells whether PostgreSQL casts from one type to another by itself, anywhere.
func implicit(from, to record.Type) bool {
	switch {
	case from == to || from == record.Unknown:
		return true
	case from == record.BigInt:
		return to == record.Numeric || to == record.Double
	case from == record.Date:
		return to == record.Timestamp || to == record.TimestampTZ
	case from == record.Timestamp:
		return to == record.TimestampTZ
	case from == record.Time:
		return to == record.IntervalT
	}
	return from == record.Numeric && to == record.Double
}

// assignable tells whether INSERT casts from one type to another by itself.
func assignable(from, to record.Type) bool {
	return implicit(from, to) || to == record.Text || isNumber(from) && isNumber(to) || isTime(from) && isTime(to)
}

// isTime tells whether t is a day or a moment.
func isTime(t record.Type) bool {
	return t == record.Date || t == record.Timestamp || t == record.TimestampTZ
}

func isNumber(t record.Type) bool {
	return t == record.BigInt || t == record.Numeric || t == record.Double
}

// coerce makes n of type t. The caller knows that the cast may be. Literals are converted here and now.
func (b *binder) coerce(n *node, t record.Type) (*node, error) {
	if n.typ == t {
		return n, nil
	}
	if n.kind == nodeParam && n.typ == record.Unknown {
		if n = b.settle(n, t); n.typ == t {
			return n, nil
		}
	}
	if n.kind != plan.ExprConst {
		return inner(plan.ExprCast, t, n.pos, n), nil
	}
	switch {
	case n.val.Null:
		return nullOf(t, n.pos), nil
	case n.typ == record.Unknown || n.typ == record.Text:
		v, err := parseLiteral(b.src, n.pos, t, string(n.val.Bytes))
		if err != nil {
			return nil, err
		}
		return constant(v, n.pos), nil
	case n.typ == record.BigInt && t == record.Numeric:
		return constant(record.Value{Type: t, Bytes: strconv.AppendInt(nil, n.val.Int, 10)}, n.pos), nil
	case n.typ == record.BigInt && t == record.Double:
		return constant(record.Value{Type: t, Float: float64(n.val.Int)}, n.pos), nil
	case n.typ == record.Numeric && t == record.Double:
		if f, err := strconv.ParseFloat(string(n.val.Bytes), 64); err == nil {
			return constant(record.Value{Type: t, Float: f}, n.pos), nil
		}
	}
	return inner(plan.ExprCast, t, n.pos, n), nil
}

// common finds the type that all nodes take together (CASE, COALESCE, GREATEST, ...), as PostgreSQL's
// select_common_type does, and coerces them to it.
func (b *binder) common(nodes []*node, what string) ([]*node, record.Type, error) {
	t := record.Unknown
	for _, n := range nodes {
		switch {
		case n.typ == record.Unknown || n.typ == t:
		case t == record.Unknown:
			t = n.typ
		case implicit(t, n.typ):
			t = n.typ
		case !implicit(n.typ, t):
			return nil, t, b.src.fail(n.pos, stateMismatch, "add a cast", "%s types %s and %s don't match", what, t, n.typ)
		}
	}
	if t == record.Unknown {
		t = record.Text
	}
	out := make([]*node, len(nodes))
	for i, n := range nodes {
		var err error
		if out[i], err = b.coerce(n, t); err != nil {
			return nil, t, err
		}
	}
	return out, t, nil
}

// cast is CAST(x AS type), x::type and type '...'.
func (b *binder) cast(e *castTo) (*node, error) {
	arg := e.arg
	if a, ok := arg.(*arrayOf); ok && len(a.elems) == 0 && e.typ.IsArray() {
		arg = &literal{at: a.at, kind: litString, text: "{}"}
	}
	if e.unit != "" {
		l, ok := arg.(*literal)
		if !ok || l.kind != litString {
			return nil, b.src.unsupported(e.pos(), "multiply: x * INTERVAL '1 "+e.unit+"'", "a cast to INTERVAL with a field is not supported")
		}
		text, err := withUnit(b.src, l.pos(), l.text, e.unit)
		if err != nil {
			return nil, err
		}
		arg = &literal{at: l.at, kind: litString, text: text}
	}
	n, err := b.bind(arg)
	if err != nil {
		return nil, err
	}
	if n.typ != record.Unknown && !plan.Castable(n.typ, e.typ) {
		return nil, b.src.fail(e.pos(), stateCannotCast, "", "cannot cast type %s to %s", n.typ, e.typ)
	}
	if n, err = b.coerce(n, e.typ); err != nil {
		return nil, err
	}
	return b.fit(n, e)
}
