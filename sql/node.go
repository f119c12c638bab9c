package sql

import (
	"slices"
	"strconv"
	"sync"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// node is a checked expression. Nodes are shared (x in x BETWEEN a AND b is one node) and never changed.
type node struct {
	kind plan.ExprKind
	typ  record.Type // Unknown: a bare string or NULL that takes the type which its place asks for
	col  int         // number of the column
	val  record.Value
	fn   string
	args []*node
	pos  int
	size int // nodes of the tree, a shared one counted each time
}

// maxExprNodes bounds one expression: IN, BETWEEN, NULLIF and CASE repeat an operand, so that a short text can mean
// a very large tree.
const maxExprNodes = 1 << 17

func column(col int, t record.Type, pos int) *node {
	return &node{kind: plan.ExprCol, typ: t, col: col, pos: pos, size: 1}
}

func constant(v record.Value, pos int) *node {
	return &node{kind: plan.ExprConst, typ: v.Type, val: v, pos: pos, size: 1}
}

func nullOf(t record.Type, pos int) *node { return constant(record.Value{Type: t, Null: true}, pos) }

func boolean(v bool, pos int) *node {
	val := record.Value{Type: record.Boolean}
	if v {
		val.Int = 1
	}
	return constant(val, pos)
}

func bigint(v int64, pos int) *node { return constant(record.Value{Type: record.BigInt, Int: v}, pos) }

func textNode(s string, pos int) *node {
	return constant(record.Value{Type: record.Text, Bytes: []byte(s)}, pos)
}

func inner(kind plan.ExprKind, t record.Type, pos int, args ...*node) *node {
	n := &node{kind: kind, typ: t, args: args, pos: pos, size: 1}
	for _, a := range args {
		n.size = min(n.size+a.size, 1<<40)
	}
	return n
}

// negate returns NOT n, without a double one.
func negate(n *node) *node {
	if n.kind == plan.ExprNot {
		return n.args[0]
	}
	return inner(plan.ExprNot, record.Boolean, n.pos, n)
}

func isNullNode(n *node) *node { return inner(plan.ExprIsNil, record.Boolean, n.pos, n) }

// same tells whether a and b are the same expression, wherever they stand.
func same(a, b *node) bool {
	if a == b {
		return true
	}
	if a.kind != b.kind || a.typ != b.typ || a.size != b.size || a.col != b.col || a.fn != b.fn || !sameValue(a.val, b.val) {
		return false
	}
	return slices.EqualFunc(a.args, b.args, same)
}

func sameValue(a, b record.Value) bool {
	return a.Type == b.Type && a.Null == b.Null && a.Int == b.Int && a.Float == b.Float && string(a.Bytes) == string(b.Bytes) && a.Interval == b.Interval
}

// walk calls fn for each distinct node of the tree, and goes into its arguments when fn returns true.
func (n *node) walk(fn func(*node) bool) {
	seen := map[*node]bool{}
	var visit func(*node)
	visit = func(n *node) {
		if len(n.args) > 0 {
			if seen[n] {
				return
			}
			seen[n] = true
		}
		if fn(n) {
			for _, a := range n.args {
				visit(a)
			}
		}
	}
	visit(n)
}

// rewrite returns n with fn's replacements: what fn returns stands instead of a node, nil means look inside.
func (n *node) rewrite(fn func(*node) (*node, error)) (*node, error) {
	done := map[*node]*node{}
	var visit func(*node) (*node, error)
	visit = func(n *node) (*node, error) {
		if r, ok := done[n]; ok {
			return r, nil
		}
		r, err := fn(n)
		if err != nil {
			return nil, err
		}
		if r == nil {
			c := *n
			c.args = make([]*node, len(n.args))
			for i, a := range n.args {
				if c.args[i], err = visit(a); err != nil {
					return nil, err
				}
			}
			r = &c
		}
		done[n] = r
		return r, nil
	}
	return visit(n)
}

// expr makes n's expression over an operator's input, where pos says where a column is.
func (n *node) expr(pos map[int]int) plan.Expr {
	e := plan.Expr{Kind: n.kind, Type: n.typ, Func: n.fn}
	switch n.kind {
	case plan.ExprCol:
		e.Col = pos[n.col]
	case plan.ExprConst:
		v := n.val
		e.Const = &v
	}
	if len(n.args) > 0 {
		e.Args = make([]plan.Expr, len(n.args))
		for i, a := range n.args {
			e.Args[i] = a.expr(pos)
		}
	}
	return e
}

// conjuncts splits n at its ANDs.
func conjuncts(n *node, out []*node) []*node {
	if n.kind == plan.ExprAnd {
		for _, a := range n.args {
			out = conjuncts(a, out)
		}
		return out
	}
	return append(out, n)
}

// functions is the table of functions by name.
var functions = sync.OnceValue(func() map[string][]plan.Function {
	out := map[string][]plan.Function{}
	for _, f := range plan.Functions() {
		out[f.Name] = append(out[f.Name], f)
	}
	return out
})

// functionAliases are other names of functions in the table.
var functionAliases = map[string]string{
	"ceiling": "ceil", "substring": "substr", "char_length": "length", "character_length": "length",
	"btrim": "trim", "pow": "power", "position": "strpos", "log": "log10", "div": "div_trunc",
	"json_typeof": "jsonb_typeof", "json_array_length": "jsonb_array_length", "json_object": "jsonb_object", "json_strip_nulls": "jsonb_strip_nulls",
	"json_extract_path": "jsonb_extract_path", "json_extract_path_text": "jsonb_extract_path_text",
	"textlen": "length", "dexp": "exp", "similar_escape": "similar_to_escape",
}

// parseLiteral reads a literal of a known type; errors stand at pos.
func parseLiteral(src *source, pos int, t record.Type, text string) (record.Value, error) {
	v, err := record.ParseText(t, text)
	if err != nil {
		return v, src.literalError(pos, err)
	}
	return v, nil
}

// numberLiteral is bigint when it fits, else numeric, as in PostgreSQL.
func numberLiteral(src *source, pos int, text string) (*node, error) {
	if v, err := strconv.ParseInt(text, 0, 64); err == nil && !octal(text) {
		return bigint(v, pos), nil
	} else if octal(text) {
		if v, err := strconv.ParseInt(text, 10, 64); err == nil {
			return bigint(v, pos), nil
		}
	}
	v, err := parseLiteral(src, pos, record.Numeric, text)
	if err != nil {
		return nil, err
	}
	return constant(v, pos), nil
}

// octal tells whether Go would take 010 for octal; in SQL it is ten.
func octal(text string) bool {
	if len(text) > 0 && text[0] == '-' {
		text = text[1:]
	}
	return len(text) > 1 && text[0] == '0' && '0' <= text[1] && text[1] <= '9'
}
