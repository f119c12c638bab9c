package sql

import (
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// binder checks expressions: it finds what names mean and gives every node its type, as PostgreSQL does.
type binder struct {
	a     *analyzer // nil: of expressions that name nothing
	src   *source
	scope *scope
	env   *env // around the query; for its subqueries
	// aggs collects the aggregates of a select list, HAVING or ORDER BY. noAggs says where there may be none.
	aggs   *[]*aggregate
	noAggs string // "WHERE"; empty: allowed
	// overs collects window functions, subs subqueries; nil: there may be none. noOver says where.
	overs   *[]*overCall
	noOver  string
	subs    *[]*pending
	windows []*windowSpec // WINDOW
	// sets collects the set-returning functions of a select list; nil: there may be none.
	sets *[]*unnestRel
	// inAgg is set inside an aggregate's argument.
	inAgg bool
	// live is for a view, whose result may depend on nothing but its input.
	live   bool
	params *parameters // nil: there are none
}

// bind checks e.
func (b *binder) bind(e expr) (*node, error) {
	n, err := b.bindAny(e)
	if err == nil && n.size > maxExprNodes {
		return nil, b.src.fail(e.pos(), stateTooDeep, "IN, BETWEEN, NULLIF and CASE repeat what they compare",
			"expression means more than %d operations", maxExprNodes)
	}
	return n, err
}

func (b *binder) bindAny(e expr) (*node, error) {
	switch e := e.(type) {
	case *columnRef:
		c, err := b.scope.resolve(b.src, e)
		if err != nil {
			return nil, err
		}
		return column(c.id, c.typ, e.pos()), nil
	case *literal:
		return b.literal(e)
	case *parameter:
		return b.parameter(e)
	case *operator:
		return b.operator(e)
	case *logic:
		return b.logic(e)
	case *call:
		return b.call(e)
	case *castTo:
		return b.cast(e)
	case *caseOf:
		return b.caseOf(e)
	case *like:
		return b.like(e)
	case *inList:
		return b.inList(e)
	case *between:
		return b.between(e)
	case *isTest:
		return b.isTest(e)
	case *distinctFrom:
		n, err := b.binary("distinct", "IS DISTINCT FROM", e.pos(), e.left, e.right)
		if err != nil || !e.not {
			return n, err
		}
		return negate(n), nil
	case *subquery:
		return b.subquery(e)
	case *grouping:
		return b.grouping(e)
	case *arrayOf:
		return b.arrayOf(e)
	case *quantified:
		return b.quantified(e)
	case *star:
		return nil, b.src.fail(e.pos(), stateSyntax, "", "* is not allowed here")
	case *defaultValue:
		return nil, b.src.fail(e.pos(), stateSyntax, "", "DEFAULT is not allowed here")
	}
	return nil, b.src.unsupported(e.pos(), "", "this expression is not supported")
}

func (b *binder) bindAll(list []expr) ([]*node, error) {
	out := make([]*node, len(list))
	for i, e := range list {
		var err error
		if out[i], err = b.bind(e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (b *binder) literal(l *literal) (*node, error) {
	switch l.kind {
	case litBool:
		return boolean(l.text == "true", l.pos()), nil
	case litNumber:
		return numberLiteral(b.src, l.pos(), l.text)
	case litString:
		return constant(record.Value{Type: record.Unknown, Bytes: []byte(l.text)}, l.pos()), nil
	}
	return nullOf(record.Unknown, l.pos()), nil
}

// condition checks an expression that must be boolean; what names its place.
func (b *binder) condition(e expr, what string) (*node, error) {
	n, err := b.bind(e)
	if err != nil {
		return nil, err
	}
	return b.toBoolean(n, what)
}

func (b *binder) toBoolean(n *node, what string) (*node, error) {
	if n.typ != record.Boolean && n.typ != record.Unknown {
		return nil, b.src.fail(n.pos, stateMismatch, "", "argument of %s must be of type boolean, not %s,", what, n.typ)
	}
	return b.coerce(n, record.Boolean)
}

// known gives a bare string or NULL the type text.
func (b *binder) known(n *node) (*node, error) {
	if n.typ != record.Unknown {
		return n, nil
	}
	return b.coerce(n, record.Text)
}

func (b *binder) logic(l *logic) (*node, error) {
	args := make([]*node, len(l.args))
	for i, a := range l.args {
		var err error
		if args[i], err = b.condition(a, string(l.op)); err != nil {
			return nil, err
		}
	}
	switch l.op {
	case logicNot:
		return negate(args[0]), nil
	case logicAnd:
		return inner(plan.ExprAnd, record.Boolean, l.pos(), args...), nil
	}
	return inner(plan.ExprOr, record.Boolean, l.pos(), args...), nil
}

func (b *binder) isTest(e *isTest) (*node, error) {
	arg, err := b.bind(e.arg)
	if err != nil {
		return nil, err
	}
	var n *node
	switch e.what {
	case isNull:
		if arg, err = b.known(arg); err != nil {
			return nil, err
		}
		n = isNullNode(arg)
	default:
		if arg, err = b.toBoolean(arg, "IS "+string(e.what)); err != nil {
			return nil, err
		}
		switch e.what {
		case isUnknown:
			n = isNullNode(arg)
		case isTrue:
			n = inner(plan.ExprCoal, record.Boolean, e.pos(), arg, boolean(false, e.pos()))
		case isFalse:
			n = inner(plan.ExprCoal, record.Boolean, e.pos(), negate(arg), boolean(false, e.pos()))
		}
	}
	if e.not {
		return negate(n), nil
	}
	return n, nil
}

func (b *binder) caseOf(e *caseOf) (*node, error) {
	b = b.withoutSets()
	var conds, results []*node
	for _, w := range e.whens {
		var cond *node
		var err error
		if e.arg != nil {
			cond, err = b.binary("eq", "=", w.cond.pos(), e.arg, w.cond)
		} else {
			cond, err = b.condition(w.cond, "CASE WHEN")
		}
		if err != nil {
			return nil, err
		}
		then, err := b.bind(w.then)
		if err != nil {
			return nil, err
		}
		conds, results = append(conds, cond), append(results, then)
	}
	els := nullOf(record.Unknown, e.pos())
	if e.els != nil {
		var err error
		if els, err = b.bind(e.els); err != nil {
			return nil, err
		}
	}
	results, t, err := b.common(append(results, els), "CASE")
	if err != nil {
		return nil, err
	}
	args := make([]*node, 0, 2*len(conds)+1)
	for i, c := range conds {
		args = append(args, c, results[i])
	}
	return inner(plan.ExprCase, t, e.pos(), append(args, results[len(conds)])...), nil
}

func (b *binder) inList(e *inList) (*node, error) {
	arg, err := b.bind(e.arg)
	if err != nil {
		return nil, err
	}
	tests := make([]*node, len(e.list))
	for i, item := range e.list {
		n, err := b.bind(item)
		if err != nil {
			return nil, err
		}
		if tests[i], err = b.apply("eq", "=", n.pos, []*node{arg, n}); err != nil {
			return nil, err
		}
	}
	out := tests[0]
	if len(tests) > 1 {
		out = inner(plan.ExprOr, record.Boolean, e.pos(), tests...)
	}
	if e.not {
		return negate(out), nil
	}
	return out, nil
}

func (b *binder) between(e *between) (*node, error) {
	args, err := b.bindAll([]expr{e.arg, e.lo, e.hi})
	if err != nil {
		return nil, err
	}
	within := func(lo, hi *node) (*node, error) {
		ge, err := b.apply("ge", ">=", lo.pos, []*node{args[0], lo})
		if err != nil {
			return nil, err
		}
		le, err := b.apply("le", "<=", hi.pos, []*node{args[0], hi})
		if err != nil {
			return nil, err
		}
		return inner(plan.ExprAnd, record.Boolean, e.pos(), ge, le), nil
	}
	out, err := within(args[1], args[2])
	if err == nil && e.symmetric {
		var other *node
		if other, err = within(args[2], args[1]); err == nil {
			out = inner(plan.ExprOr, record.Boolean, e.pos(), out, other)
		}
	}
	if err != nil || !e.not {
		return out, err
	}
	return negate(out), nil
}

// like turns ESCAPE into the backslashes that like and ilike know. Both must be literals for that.
func (b *binder) like(e *like) (*node, error) {
	name, op := "like", "LIKE"
	if e.insensitive {
		name, op = "ilike", "ILIKE"
	}
	pattern := e.pattern
	if e.escape != nil {
		p, ok := e.pattern.(*literal)
		esc, ok2 := e.escape.(*literal)
		if !ok || !ok2 || p.kind != litString || esc.kind != litString {
			return nil, b.src.unsupported(e.escape.pos(), "write both as literals", "ESCAPE of an expression is not supported")
		}
		text, err := b.escapePattern(p.text, esc)
		if err != nil {
			return nil, err
		}
		pattern = &literal{at: p.at, kind: litString, text: text}
	}
	n, err := b.binary(name, op, e.pos(), e.left, pattern)
	if err != nil || !e.not {
		return n, err
	}
	return negate(n), nil
}

func (b *binder) escapePattern(pattern string, esc *literal) (string, error) {
	runes := []rune(esc.text)
	if len(runes) > 1 {
		return "", b.src.fail(esc.pos(), "22025", "it must be empty or one character", "invalid escape string")
	}
	out := make([]rune, 0, len(pattern))
	in := []rune(pattern)
	for i := 0; i < len(in); i++ {
		switch {
		case len(runes) == 1 && in[i] == runes[0]:
			if i+1 == len(in) {
				return "", b.src.fail(esc.pos(), "22025", "", "LIKE pattern must not end with the escape character")
			}
			i++
			out = append(out, '\\', in[i])
		case in[i] == '\\':
			out = append(out, '\\', '\\')
		default:
			out = append(out, in[i])
		}
	}
	return string(out), nil
}

// withoutOver returns b for a clause that may have no window functions.
func (b *binder) withoutOver(clause string) *binder {
	c := *b
	c.overs, c.noOver, c.sets = nil, clause, nil
	return &c
}

// grouping checks GROUPING(a, b); what it means is known once the keys are.
func (b *binder) grouping(e *grouping) (*node, error) {
	if b.aggs == nil || b.noAggs != "" {
		return nil, b.src.fail(e.pos(), stateGrouping, "", "GROUPING is not allowed here")
	}
	if len(e.args) > 31 {
		return nil, b.src.fail(e.pos(), stateTooDeep, "", "GROUPING takes at most 31 arguments")
	}
	args, err := b.bindAll(e.args)
	if err != nil {
		return nil, err
	}
	return inner(nodeGrouping, record.BigInt, e.pos(), args...), nil
}
