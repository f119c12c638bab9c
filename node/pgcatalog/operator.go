package pgcatalog

import (
	"regexp"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/internal/fault"
)

func (c *compiler) operator(x *pgquery.A_Expr, s *scope) (*node, error) {
	op := lastName(x.Name)
	var left *node
	var err error
	if x.Lexpr != nil {
		if left, err = c.expr(x.Lexpr, s); err != nil {
			return nil, err
		}
	}
	switch x.Kind {
	case pgquery.A_Expr_Kind_AEXPR_IN, pgquery.A_Expr_Kind_AEXPR_BETWEEN, pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN:
		list, err := c.exprs(x.Rexpr.GetList().GetItems(), s)
		if err != nil {
			return nil, err
		}
		if x.Kind == pgquery.A_Expr_Kind_AEXPR_IN {
			return c.in(left, list, op == "<>")
		}
		return c.between(left, list, x.Kind == pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN)
	}
	right, err := c.expr(x.Rexpr, s)
	if err != nil {
		return nil, err
	}
	switch x.Kind {
	case pgquery.A_Expr_Kind_AEXPR_OP:
		if left == nil {
			return c.prefix(op, right)
		}
		return c.binary(op, left, right)
	case pgquery.A_Expr_Kind_AEXPR_OP_ANY, pgquery.A_Expr_Kind_AEXPR_OP_ALL:
		return c.quantified(op, left, right, x.Kind == pgquery.A_Expr_Kind_AEXPR_OP_ALL)
	case pgquery.A_Expr_Kind_AEXPR_LIKE, pgquery.A_Expr_Kind_AEXPR_ILIKE:
		return c.binary(op, left, right) // ~~, !~~, ~~*, !~~*
	case pgquery.A_Expr_Kind_AEXPR_DISTINCT, pgquery.A_Expr_Kind_AEXPR_NOT_DISTINCT:
		return c.distinct(left, right, x.Kind == pgquery.A_Expr_Kind_AEXPR_DISTINCT)
	case pgquery.A_Expr_Kind_AEXPR_NULLIF:
		return c.nullIf(left, right)
	}
	return nil, unsupported("operator %s in this form", op)
}

func (c *compiler) in(left *node, list []*node, not bool) (*node, error) {
	tests := make([]*node, len(list))
	for i, r := range list {
		var err error
		if tests[i], err = c.binary("=", left, r); err != nil {
			return nil, err
		}
	}
	return &node{typ: boolOID, slots: slotsOf(tests...), eval: func(e *env) (Value, error) {
		null := false
		for _, t := range tests {
			v, ok, err := truth(t, e)
			if err != nil {
				return nil, err
			}
			if ok && v {
				return !not, nil
			}
			null = null || !ok
		}
		if null {
			return nil, nil
		}
		return not, nil
	}}, nil
}

func (c *compiler) between(left *node, bounds []*node, not bool) (*node, error) {
	if len(bounds) != 2 {
		return nil, unsupported("BETWEEN in this form")
	}
	low, err := c.binary(">=", left, bounds[0])
	if err != nil {
		return nil, err
	}
	high, err := c.binary("<=", left, bounds[1])
	if err != nil {
		return nil, err
	}
	return &node{typ: boolOID, slots: slotsOf(low, high), eval: func(e *env) (Value, error) {
		a, okA, err := truth(low, e)
		if err != nil {
			return nil, err
		}
		b, okB, err := truth(high, e)
		switch {
		case err != nil:
			return nil, err
		case okA && !a || okB && !b:
			return not, nil
		case !okA || !okB:
			return nil, nil
		}
		return !not, nil
	}}, nil
}

func (c *compiler) distinct(l, r *node, want bool) (*node, error) {
	l, r, err := c.pair(l, r)
	if err != nil {
		return nil, err
	}
	return &node{typ: boolOID, slots: slotsOf(l, r), eval: func(e *env) (Value, error) {
		a, err := l.eval(e)
		if err != nil {
			return nil, err
		}
		b, err := r.eval(e)
		if err != nil {
			return nil, err
		}
		cmp, ok := compareNulls(a, b)
		return (cmp != 0 || !ok) == want, nil
	}}, nil
}

func (c *compiler) nullIf(l, r *node) (*node, error) {
	eq, err := c.binary("=", l, r)
	if err != nil {
		return nil, err
	}
	if l.typ == unknownOID {
		if l, err = c.to(l, textOID); err != nil {
			return nil, err
		}
	}
	return &node{typ: l.typ, slots: eq.slots, eval: func(e *env) (Value, error) {
		v, ok, err := truth(eq, e)
		if err != nil || ok && v {
			return nil, err
		}
		return l.eval(e)
	}}, nil
}

// quantified compiles left op ANY (array) and ALL.
func (c *compiler) quantified(op string, left, list *node, all bool) (*node, error) {
	list, err := c.to(list, arrayOf(left.typ))
	if err != nil {
		return nil, err
	}
	if elem := elementOf(list.typ); elem != 0 {
		if left, err = c.to(left, elem); err != nil {
			return nil, err
		}
	}
	apply, typ, err := c.binaryFunction(op, left.typ, elementOf(list.typ))
	if err != nil || typ != boolOID {
		return nil, fault.SQL(fault.Invalid, "42809", "operator %s can't be used with ANY and ALL", op)
	}
	return &node{typ: boolOID, slots: slotsOf(left, list), eval: func(e *env) (Value, error) {
		l, err := left.eval(e)
		if err != nil {
			return nil, err
		}
		r, err := list.eval(e)
		if err != nil || r == nil {
			return nil, err
		}
		null := false
		for _, item := range elements(r) {
			if l == nil || item == nil {
				null = true
				continue
			}
			v, err := apply(l, item)
			if err != nil {
				return nil, err
			}
			if v == !all {
				return !all, nil
			}
		}
		if null {
			return nil, nil
		}
		return all, nil
	}}, nil
}

func (c *compiler) prefix(op string, r *node) (*node, error) {
	if op != "-" && op != "+" {
		return nil, unsupported("operator %s", op)
	}
	return &node{typ: r.typ, slots: r.slots, eval: func(e *env) (Value, error) {
		v, err := r.eval(e)
		if op == "+" {
			return v, err
		}
		switch v := v.(type) {
		case int64:
			return -v, err
		case float64:
			return -v, err
		}
		return nil, err
	}}, nil
}

func (c *compiler) binary(op string, l, r *node) (*node, error) {
	var err error
	switch op {
	case "~", "!~", "~*", "!~*", "~~", "!~~", "~~*", "!~~*":
		if l, err = c.to(l, textOID); err == nil {
			r, err = c.to(r, textOID)
		}
	case "||":
		switch {
		case elementOf(l.typ) == 0 && elementOf(r.typ) == 0:
			if l, err = c.to(l, textOID); err == nil {
				r, err = c.to(r, textOID)
			}
		default:
			l, r, err = c.pair(l, r)
		}
	default:
		l, r, err = c.pair(l, r)
	}
	if err != nil {
		return nil, err
	}
	apply, typ, err := c.binaryFunction(op, l.typ, r.typ)
	if err != nil {
		return nil, err
	}
	return &node{typ: typ, slots: slotsOf(l, r), eval: func(e *env) (Value, error) {
		a, err := l.eval(e)
		if err != nil || a == nil {
			return nil, err
		}
		b, err := r.eval(e)
		if err != nil || b == nil {
			return nil, err
		}
		return apply(a, b)
	}}, nil
}

// binaryFunction is an operator over values that aren't NULL, and the type of its result.
func (c *compiler) binaryFunction(op string, l, r uint32) (func(a, b Value) (Value, error), uint32, error) {
	if test, ok := comparisons[op]; ok {
		return func(a, b Value) (Value, error) {
			cmp, ok := compare(a, b)
			if !ok {
				return nil, fault.SQL(fault.Invalid, "42883", "operator does not exist for these types: %s", op)
			}
			return test(cmp), nil
		}, boolOID, nil
	}
	switch op {
	case "~", "~*", "!~", "!~*":
		return func(a, b Value) (Value, error) {
			re, err := c.pattern(text(b), strings.HasSuffix(op, "*"))
			if err != nil {
				return nil, err
			}
			return re.MatchString(text(a)) != strings.HasPrefix(op, "!"), nil
		}, boolOID, nil
	case "~~", "~~*", "!~~", "!~~*":
		return func(a, b Value) (Value, error) {
			re, err := c.pattern(likePattern(text(b)), strings.HasSuffix(op, "*"))
			if err != nil {
				return nil, err
			}
			return re.MatchString(text(a)) != strings.HasPrefix(op, "!"), nil
		}, boolOID, nil
	case "||":
		if elementOf(l) != 0 || elementOf(r) != 0 {
			return concatArrays(l, r)
		}
		return func(a, b Value) (Value, error) { return text(a) + text(b), nil }, textOID, nil
	case "@>", "<@", "&&":
		return func(a, b Value) (Value, error) { return arrayTest(op, elements(a), elements(b)), nil }, boolOID, nil
	case "+", "-", "*", "/", "%", "&", "|":
		return arithmetic(op, l, r)
	}
	return nil, 0, unsupported("operator %s", op)
}

var comparisons = map[string]func(int) bool{
	"=": func(c int) bool { return c == 0 }, "<>": func(c int) bool { return c != 0 }, "!=": func(c int) bool { return c != 0 },
	"<": func(c int) bool { return c < 0 }, "<=": func(c int) bool { return c <= 0 },
	">": func(c int) bool { return c > 0 }, ">=": func(c int) bool { return c >= 0 },
}

func text(v Value) string { return string(AppendText(nil, v)) }

func arrayTest(op string, a, b []Value) bool {
	has := func(list []Value, v Value) bool {
		for _, e := range list {
			if c, ok := compare(e, v); ok && c == 0 {
				return true
			}
		}
		return false
	}
	if op == "<@" {
		a, b = b, a
	}
	for _, v := range b {
		if found := has(a, v); found != (op != "&&") {
			return op == "&&"
		}
	}
	return op != "&&"
}

func concatArrays(l, r uint32) (func(a, b Value) (Value, error), uint32, error) {
	typ := l
	if elementOf(l) == 0 {
		typ = r
	}
	list := func(v Value, oid uint32) []Value {
		if elementOf(oid) != 0 {
			return elements(v)
		}
		return []Value{v}
	}
	return func(a, b Value) (Value, error) {
		return append(append([]Value{}, list(a, l)...), list(b, r)...), nil
	}, typ, nil
}

func arithmetic(op string, l, r uint32) (func(a, b Value) (Value, error), uint32, error) {
	typ := uint32(int4OID)
	switch {
	case isFloat(l) || isFloat(r):
		typ = pgtype.Float8OID
	case l == int8OID || r == int8OID:
		typ = int8OID
	}
	return func(a, b Value) (Value, error) {
		x, okX := a.(int64)
		y, okY := b.(int64)
		if okX && okY {
			return integerOp(op, x, y)
		}
		return floatOp(op, toFloat(a), toFloat(b))
	}, typ, nil
}

func integerOp(op string, x, y int64) (Value, error) {
	switch op {
	case "+":
		return x + y, nil
	case "-":
		return x - y, nil
	case "*":
		return x * y, nil
	case "&":
		return x & y, nil
	case "|":
		return x | y, nil
	}
	if y == 0 {
		return nil, fault.SQL(fault.Invalid, "22012", "division by zero")
	}
	if op == "%" {
		return x % y, nil
	}
	return x / y, nil
}

func floatOp(op string, x, y float64) (Value, error) {
	switch op {
	case "+":
		return x + y, nil
	case "-":
		return x - y, nil
	case "*":
		return x * y, nil
	case "/":
		if y == 0 {
			return nil, fault.SQL(fault.Invalid, "22012", "division by zero")
		}
		return x / y, nil
	}
	return nil, unsupported("operator %s of these types", op)
}

func toFloat(v Value) float64 {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case float64:
		return v
	}
	return 0
}

// maxPatterns bounds the compiled patterns that a statement keeps.
const maxPatterns = 1000

// pattern compiles a regular expression. RE2's linear time holds whatever a client asks for.
func (c *compiler) pattern(text string, fold bool) (*regexp.Regexp, error) {
	flags := "(?s)"
	if fold {
		flags = "(?si)"
	}
	key := flags + text
	if re := c.patterns[key]; re != nil {
		return re, nil
	}
	re, err := regexp.Compile(key)
	if err != nil {
		return nil, fault.SQL(fault.Invalid, "2201B", "invalid regular expression: %v", err)
	}
	if c.patterns == nil || len(c.patterns) >= maxPatterns {
		c.patterns = map[string]*regexp.Regexp{}
	}
	c.patterns[key] = re
	return re, nil
}

// likePattern is LIKE's pattern as a regular expression.
func likePattern(p string) string {
	var b strings.Builder
	b.WriteByte('^')
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '%':
			b.WriteString(".*")
		case c == '_':
			b.WriteByte('.')
		case c == '\\' && i+1 < len(p):
			i++
			b.WriteString(regexp.QuoteMeta(p[i : i+1]))
		default:
			j := i
			for j+1 < len(p) && p[j+1] != '%' && p[j+1] != '_' && p[j+1] != '\\' {
				j++
			}
			b.WriteString(regexp.QuoteMeta(p[i : j+1]))
			i = j
		}
	}
	b.WriteByte('$')
	return b.String()
}
