package sql

import (
	"slices"
	"sort"
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// operatorNames are the functions that operators mean.
var operatorNames = map[string]string{
	"+": "add", "-": "sub", "*": "mul", "/": "div", "%": "mod", "^": "power",
	"=": "eq", "<>": "ne", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge",
	"||": "concat_op", "&": "bit_and", "|": "bit_or", "#": "bit_xor", "<<": "shift_left", ">>": "shift_right",
	"->": "json_get", "->>": "json_get_text", "@>": "json_contains", "?": "json_exists",
	"~~": "like", "~~*": "ilike", "~": "regexp_match_op", "~*": "regexp_imatch_op",
	"^@": "starts_with", "~<~": "lt", "~<=~": "le", "~>~": "gt", "~>=~": "ge",
	"&&": "array_overlaps", "#>": "json_get_path", "#-": "json_delete_path", "#>>": "json_get_path_text", "?|": "json_exists_any", "?&": "json_exists_all",
}

var prefixNames = map[string]string{"-": "neg", "~": "bit_not", "@": "abs", "|/": "sqrt", "||/": "cbrt"}

func (b *binder) operator(e *operator) (*node, error) {
	if e.left == nil {
		return b.prefix(e)
	}
	switch e.op {
	case "<@":
		return b.binary("json_contains", "@>", e.pos(), e.right, e.left)
	case "!~~", "!~~*", "!~", "!~*":
		n, err := b.binary(operatorNames[e.op[1:]], e.op, e.pos(), e.left, e.right)
		if err != nil {
			return nil, err
		}
		return negate(n), nil
	}
	name, ok := operatorNames[e.op]
	if !ok {
		return nil, b.src.unsupported(e.pos(), "", "operator %s is not supported", e.op)
	}
	return b.binary(name, e.op, e.pos(), e.left, e.right)
}

func (b *binder) prefix(e *operator) (*node, error) {
	arg, err := b.bind(e.right)
	if err != nil {
		return nil, err
	}
	if e.op == "+" {
		if !isNumber(arg.typ) && arg.typ != record.IntervalT {
			return nil, b.noOperator(e.op, e.pos(), []*node{arg})
		}
		return arg, nil
	}
	name, ok := prefixNames[e.op]
	if !ok {
		return nil, b.src.unsupported(e.pos(), "", "operator %s is not supported", e.op)
	}
	if (e.op == "|/" || e.op == "||/") && isNumber(arg.typ) {
		if arg, err = b.coerce(arg, record.Double); err != nil {
			return nil, err
		}
	}
	return b.apply(name, e.op, e.pos(), []*node{arg})
}

func (b *binder) binary(name, op string, pos int, left, right expr) (*node, error) {
	args, err := b.bindAll([]expr{left, right})
	if err != nil {
		return nil, err
	}
	if name, args, err = b.arrayOperands(name, args); err != nil {
		return nil, err
	}
	if name == "concat_op" && !args[0].typ.IsArray() && !args[1].typ.IsArray() {
		if args, err = b.concatArgs(args); err != nil {
			return nil, err
		}
	}
	return b.apply(name, op, pos, args)
}

// concatArgs casts the other side of text || x to text, as PostgreSQL does for any x.
func (b *binder) concatArgs(args []*node) ([]*node, error) {
	left, right := args[0], args[1]
	isText := func(n *node) bool { return n.typ == record.Text }
	bare := func(n *node) bool {
		return n.typ == record.Unknown && left.typ != record.Bytea && right.typ != record.Bytea && left.typ != record.JSONB && right.typ != record.JSONB
	}
	if !isText(left) && !isText(right) && !bare(left) && !bare(right) {
		return args, nil
	}
	var err error
	if left, err = b.coerce(left, record.Text); err != nil {
		return nil, err
	}
	right, err = b.coerce(right, record.Text)
	return []*node{left, right}, err
}

// apply resolves an operator's function.
func (b *binder) apply(name, op string, pos int, args []*node) (*node, error) {
	f, err := resolve(name, args)
	if err == ambiguous {
		return nil, b.src.fail(pos, stateAmbiguousFunc, "add a cast", "operator %s is ambiguous", operatorText(op, args))
	}
	if err != nil {
		return nil, b.noOperator(op, pos, args)
	}
	return b.build(f, pos, args)
}

func (b *binder) noOperator(op string, pos int, args []*node) error {
	return b.src.fail(pos, stateNoFunction, "add a cast", "no operator %s", operatorText(op, args))
}

// operatorText writes an operator with its operands' types.
func operatorText(op string, args []*node) string {
	if len(args) == 2 {
		return args[0].typ.String() + " " + op + " " + args[1].typ.String()
	}
	return op + " " + args[0].typ.String()
}

// build calls f with args, each coerced to what f takes.
func (b *binder) build(f *plan.Function, pos int, args []*node) (*node, error) {
	out := make([]*node, len(args))
	for i, a := range args {
		var err error
		if out[i], err = b.coerce(a, argType(f, i)); err != nil {
			return nil, err
		}
	}
	n := inner(plan.ExprCall, f.Result, pos, out...)
	n.fn = f.Name
	return n, nil
}

func argType(f *plan.Function, i int) record.Type { return f.Args[min(i, len(f.Args)-1)] }

type resolveError string

func (e resolveError) Error() string { return string(e) }

const (
	noFunction resolveError = "no such function"
	ambiguous  resolveError = "ambiguous function"
)

// resolve chooses the overload of name for args by PostgreSQL's rules (the manual's section 10.2 and 10.3).
func resolve(name string, args []*node) (*plan.Function, error) {
	var fits []*plan.Function
	all := functions()[name]
	types := make([]record.Type, len(args))
	for i, a := range args {
		types[i] = a.typ
	}
	if len(types) == 2 && types[0] != types[1] { // a bare literal beside a typed one is of the same type, if that exists
		guess := slices.Clone(types)
		if guess[0] == record.Unknown {
			guess[0] = guess[1]
		} else if guess[1] == record.Unknown {
			guess[1] = guess[0]
		}
		if f := exact(all, guess); f != nil {
			return f, nil
		}
	}
	if f := exact(all, types); f != nil {
		return f, nil
	}
	for i := range all {
		if takes(&all[i], types) {
			fits = append(fits, &all[i])
		}
	}
	for _, narrow := range []func([]*plan.Function, []record.Type) []*plan.Function{mostExact, mostPreferred, byCategory} {
		if len(fits) <= 1 {
			break
		}
		fits = narrow(fits, types)
	}
	switch len(fits) {
	case 0:
		return nil, noFunction
	case 1:
		return fits[0], nil
	}
	return nil, ambiguous
}

func exact(all []plan.Function, types []record.Type) *plan.Function {
	for i := range all {
		f := &all[i]
		if !arity(f, len(types)) {
			continue
		}
		ok := true
		for j, t := range types {
			ok = ok && argType(f, j) == t
		}
		if ok {
			return f
		}
	}
	return nil
}

func arity(f *plan.Function, n int) bool {
	if f.Variadic {
		return n >= len(f.Args)
	}
	return n == len(f.Args)
}

func takes(f *plan.Function, types []record.Type) bool {
	if !arity(f, len(types)) {
		return false
	}
	for i, t := range types {
		if !implicit(t, argType(f, i)) {
			return false
		}
	}
	return true
}

// best keeps the functions with the highest score.
func best(fits []*plan.Function, score func(*plan.Function) int) []*plan.Function {
	high := -1
	var out []*plan.Function
	for _, f := range fits {
		switch s := score(f); {
		case s > high:
			high, out = s, append(out[:0:0], f)
		case s == high:
			out = append(out, f)
		}
	}
	return out
}

func mostExact(fits []*plan.Function, types []record.Type) []*plan.Function {
	return best(fits, func(f *plan.Function) (n int) {
		for i, t := range types {
			if argType(f, i) == t {
				n++
			}
		}
		return n
	})
}

func mostPreferred(fits []*plan.Function, types []record.Type) []*plan.Function {
	return best(fits, func(f *plan.Function) (n int) {
		for i, t := range types {
			if a := argType(f, i); a == t || t != record.Unknown && preferred(a) {
				n++
			}
		}
		return n
	})
}

// preferred tells whether t is the preferred type of its category.
func preferred(t record.Type) bool {
	return t == record.Double || t == record.Text || t == record.TimestampTZ || t == record.IntervalT || t == record.Boolean
}

// category returns PostgreSQL's category of t: the numbers are one, every other type is its own.
func category(t record.Type) record.Type {
	switch {
	case isNumber(t):
		return record.Double
	case isTime(t):
		return record.TimestampTZ
	}
	return t
}

// byCategory chooses for bare literals: text where any candidate takes it, else the one category that all take, and
// there the preferred type.
func byCategory(fits []*plan.Function, types []record.Type) []*plan.Function {
	for i, t := range types {
		if t != record.Unknown {
			continue
		}
		want := category(argType(fits[0], i))
		for _, f := range fits {
			switch c := category(argType(f, i)); {
			case c == record.Text:
				want = record.Text
			case c != want && want != record.Text:
				want = record.Unknown
			}
		}
		if want == record.Unknown {
			return fits
		}
		fits = slices.DeleteFunc(slices.Clone(fits), func(f *plan.Function) bool { return category(argType(f, i)) != want })
		if pref := slices.DeleteFunc(slices.Clone(fits), func(f *plan.Function) bool { return !preferred(argType(f, i)) }); len(pref) > 0 {
			fits = pref
		}
	}
	return fits
}

// function resolves and builds a call of a function by name.
func (b *binder) function(name string, pos int, args []*node) (*node, error) {
	real := name
	if a, ok := functionAliases[name]; ok {
		real = a
	}
	if name == "log" && len(args) == 2 {
		real = name // of any base
	}
	f, err := resolve(real, args)
	if err == nil {
		return b.build(f, pos, args)
	}
	types := make([]string, len(args))
	for i, a := range args {
		types[i] = a.typ.String()
	}
	signature := name + "(" + strings.Join(types, ", ") + ")"
	if err == ambiguous {
		return nil, b.src.fail(pos, stateAmbiguousFunc, "add a cast", "function %s is ambiguous", signature)
	}
	hint := suggest(name, functionNames())
	if overloads := functions()[real]; len(overloads) > 0 {
		hint = "there is " + describeOverloads(overloads)
	}
	return nil, b.src.fail(pos, stateNoFunction, hint, "no function %s", signature)
}

// internalNames are functions of the table that only operators and syntax mean.
var internalNames = []string{
	"add", "sub", "mul", "div_trunc", "numeric_fit", "text_fit", "time_fit", "neg", "eq", "ne", "lt", "le", "gt", "ge", "like", "ilike", "distinct", "concat_op",
	"bit_and", "bit_or", "bit_xor", "bit_not", "shift_left", "shift_right", "json_get", "json_get_text", "json_contains", "json_exists",
	"regexp_match_op", "regexp_imatch_op", "array", "array_get", "array_slice", "array_contains", "array_overlaps",
	"json_get_path", "json_get_path_text", "json_delete_path", "json_exists_any", "json_exists_all",
	"any_eq", "any_ne", "any_lt", "any_le", "any_gt", "any_ge", "all_eq", "all_ne", "all_lt", "all_le", "all_gt", "all_ge",
}

func functionNames() []string {
	var out []string
	for name := range functions() {
		if !slices.Contains(internalNames, name) {
			out = append(out, name)
		}
	}
	for name := range functionAliases {
		out = append(out, name)
	}
	for name := range aggregateNames {
		out = append(out, name)
	}
	out = append(out, "now", "current_tick", "coalesce", "nullif")
	sort.Strings(out)
	return out
}

// describeOverloads lists at most four signatures.
func describeOverloads(all []plan.Function) string {
	var out []string
	for i := range all {
		if len(out) == 4 {
			out = append(out, "...")
			break
		}
		out = append(out, all[i].Signature())
	}
	return strings.Join(out, ", ")
}

// Callable tells whether a function of package plan can be called by its name; others are what operators and syntax mean.
func Callable(name string) bool { return !slices.Contains(internalNames, name) }
