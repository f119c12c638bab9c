package plan

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/record"
)

// Function is one overload of a scalar function or operator. All are immutable: their result depends on nothing but
// their arguments. Each is strict (NULL in, NULL out) unless NullCall is set. They mean what PostgreSQL's mean.
type Function struct {
	Name     string // operators by their words: add, sub, mul, div, mod, neg, eq, ne, lt, le, gt, ge, like, ...
	Args     []record.Type
	Result   record.Type
	Variadic bool // the last argument type may come once or more
	NullCall bool // called with NULLs too
}

// Signature returns name(type, type), which identifies the overload.
func (f *Function) Signature() string { return signature(f.Name, f.Args) }

func signature(name string, args []record.Type) string {
	var b strings.Builder
	b.WriteString(name)
	b.WriteByte('(')
	for i, t := range args {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(t.String())
	}
	b.WriteByte(')')
	return b.String()
}

// Functions returns every function, in a fixed order. The slice is the caller's.
func Functions() []Function {
	more := moreFunctions()
	out := make([]Function, 0, len(functionTable)+len(more))
	for _, line := range slices.Concat(functionTable, more) {
		out = append(out, parseFunction(line))
	}
	return out
}

func parseFunction(line string) Function {
	var f Function
	if rest, ok := strings.CutPrefix(line, "nullcall "); ok {
		f.NullCall, line = true, rest
	}
	open, end := strings.IndexByte(line, '('), strings.IndexByte(line, ')')
	f.Name = line[:open]
	f.Result = typeOf(strings.TrimSpace(line[end+1:]))
	if args := line[open+1 : end]; args != "" {
		for a := range strings.SplitSeq(args, ", ") {
			if rest, ok := strings.CutSuffix(a, "..."); ok {
				f.Variadic, a = true, rest
			}
			f.Args = append(f.Args, typeOf(a))
		}
	}
	return f
}

func typeOf(name string) record.Type {
	t, ok := record.ParseType(name)
	if !ok {
		panic("plan: no type " + name + " (in the table of functions)")
	}
	return t
}

var functionTable = []string{
	// comparison, for every type that has an order
	"eq(boolean, boolean) boolean", "ne(boolean, boolean) boolean", "lt(boolean, boolean) boolean",
	"le(boolean, boolean) boolean", "gt(boolean, boolean) boolean", "ge(boolean, boolean) boolean",
	"eq(bigint, bigint) boolean", "ne(bigint, bigint) boolean", "lt(bigint, bigint) boolean",
	"le(bigint, bigint) boolean", "gt(bigint, bigint) boolean", "ge(bigint, bigint) boolean",
	"eq(double precision, double precision) boolean", "ne(double precision, double precision) boolean",
	"lt(double precision, double precision) boolean", "le(double precision, double precision) boolean",
	"gt(double precision, double precision) boolean", "ge(double precision, double precision) boolean",
	"eq(numeric, numeric) boolean", "ne(numeric, numeric) boolean", "lt(numeric, numeric) boolean",
	"le(numeric, numeric) boolean", "gt(numeric, numeric) boolean", "ge(numeric, numeric) boolean",
	"eq(text, text) boolean", "ne(text, text) boolean", "lt(text, text) boolean",
	"le(text, text) boolean", "gt(text, text) boolean", "ge(text, text) boolean",
	"eq(bytea, bytea) boolean", "ne(bytea, bytea) boolean", "lt(bytea, bytea) boolean",
	"le(bytea, bytea) boolean", "gt(bytea, bytea) boolean", "ge(bytea, bytea) boolean",
	"eq(timestamptz, timestamptz) boolean", "ne(timestamptz, timestamptz) boolean", "lt(timestamptz, timestamptz) boolean",
	"le(timestamptz, timestamptz) boolean", "gt(timestamptz, timestamptz) boolean", "ge(timestamptz, timestamptz) boolean",
	"eq(interval, interval) boolean", "ne(interval, interval) boolean", "lt(interval, interval) boolean",
	"le(interval, interval) boolean", "gt(interval, interval) boolean", "ge(interval, interval) boolean",
	"eq(jsonb, jsonb) boolean", "ne(jsonb, jsonb) boolean",
	// IS [NOT] DISTINCT FROM, for every type
	"nullcall distinct(boolean, boolean) boolean", "nullcall distinct(bigint, bigint) boolean",
	"nullcall distinct(double precision, double precision) boolean", "nullcall distinct(numeric, numeric) boolean",
	"nullcall distinct(text, text) boolean", "nullcall distinct(bytea, bytea) boolean",
	"nullcall distinct(timestamptz, timestamptz) boolean", "nullcall distinct(interval, interval) boolean",
	"nullcall distinct(jsonb, jsonb) boolean",

	// arithmetic
	"add(bigint, bigint) bigint", "sub(bigint, bigint) bigint", "mul(bigint, bigint) bigint",
	"div(bigint, bigint) bigint", "mod(bigint, bigint) bigint", "neg(bigint) bigint",
	"add(double precision, double precision) double precision", "sub(double precision, double precision) double precision",
	"mul(double precision, double precision) double precision", "div(double precision, double precision) double precision",
	"neg(double precision) double precision",
	"add(numeric, numeric) numeric", "sub(numeric, numeric) numeric", "mul(numeric, numeric) numeric",
	"div(numeric, numeric) numeric", "mod(numeric, numeric) numeric", "neg(numeric) numeric",
	"bit_and(bigint, bigint) bigint", "bit_or(bigint, bigint) bigint", "bit_xor(bigint, bigint) bigint",
	"bit_not(bigint) bigint", "shift_left(bigint, bigint) bigint", "shift_right(bigint, bigint) bigint",
	"add(timestamptz, interval) timestamptz", "add(interval, timestamptz) timestamptz",
	"sub(timestamptz, interval) timestamptz", "sub(timestamptz, timestamptz) interval",
	"add(interval, interval) interval", "sub(interval, interval) interval", "neg(interval) interval",
	"mul(interval, double precision) interval", "mul(double precision, interval) interval",
	"div(interval, double precision) interval",

	// math
	"abs(bigint) bigint", "abs(double precision) double precision", "abs(numeric) numeric",
	"sign(double precision) double precision", "sign(numeric) numeric",
	"ceil(double precision) double precision", "ceil(numeric) numeric",
	"floor(double precision) double precision", "floor(numeric) numeric",
	"round(double precision) double precision", "round(numeric) numeric", "round(numeric, bigint) numeric",
	"trunc(double precision) double precision", "trunc(numeric) numeric", "trunc(numeric, bigint) numeric",
	"sqrt(double precision) double precision", "sqrt(numeric) numeric", "cbrt(double precision) double precision",
	"power(double precision, double precision) double precision", "power(numeric, numeric) numeric",
	"exp(double precision) double precision", "ln(double precision) double precision",
	"log10(double precision) double precision", "pi() double precision",
	"sin(double precision) double precision", "cos(double precision) double precision", "tan(double precision) double precision",
	"asin(double precision) double precision", "acos(double precision) double precision",
	"atan(double precision) double precision", "atan2(double precision, double precision) double precision",
	"radians(double precision) double precision", "degrees(double precision) double precision",
	"nullcall greatest(bigint...) bigint", "nullcall greatest(double precision...) double precision",
	"nullcall greatest(numeric...) numeric", "nullcall greatest(text...) text", "nullcall greatest(timestamptz...) timestamptz",
	"nullcall greatest(interval...) interval",
	"nullcall least(bigint...) bigint", "nullcall least(double precision...) double precision",
	"nullcall least(numeric...) numeric", "nullcall least(text...) text", "nullcall least(timestamptz...) timestamptz",
	"nullcall least(interval...) interval",

	// text
	"concat_op(text, text) text", "like(text, text) boolean", "ilike(text, text) boolean",
	"length(text) bigint", "octet_length(text) bigint", "octet_length(bytea) bigint", "length(bytea) bigint",
	"lower(text) text", "upper(text) text", "initcap(text) text", "reverse(text) text",
	"trim(text) text", "ltrim(text) text", "rtrim(text) text",
	"trim(text, text) text", "ltrim(text, text) text", "rtrim(text, text) text",
	"lpad(text, bigint) text", "lpad(text, bigint, text) text", "rpad(text, bigint) text", "rpad(text, bigint, text) text",
	"substr(text, bigint) text", "substr(text, bigint, bigint) text",
	"left(text, bigint) text", "right(text, bigint) text", "repeat(text, bigint) text",
	"replace(text, text, text) text", "translate(text, text, text) text", "strpos(text, text) bigint",
	"split_part(text, text, bigint) text", "starts_with(text, text) boolean", "ascii(text) bigint", "chr(bigint) text",
	"md5(text) text", "md5(bytea) text", "encode(bytea, text) text", "decode(text, text) bytea",
	"concat_op(bytea, bytea) bytea",
	"nullcall concat(text...) text", "nullcall concat_ws(text, text...) text",

	// time; fields as in PostgreSQL's extract and date_trunc, UTC
	"date_trunc(text, timestamptz) timestamptz", "date_trunc(text, interval) interval",
	"extract(text, timestamptz) numeric", "extract(text, interval) numeric",
	"date_part(text, timestamptz) double precision", "date_part(text, interval) double precision",
	"date_bin(interval, timestamptz, timestamptz) timestamptz",
	"to_timestamp(double precision) timestamptz", "to_char(timestamptz, text) text",
	"age(timestamptz, timestamptz) interval",
	"make_interval(bigint, bigint, bigint, bigint, bigint, bigint, double precision) interval", // years, months, weeks, days, hours, mins, secs
	"justify_hours(interval) interval", "justify_days(interval) interval", "justify_interval(interval) interval",

	// jsonb
	"json_get(jsonb, text) jsonb", "json_get(jsonb, bigint) jsonb", // ->
	"json_get_text(jsonb, text) text", "json_get_text(jsonb, bigint) text", // ->>
	"json_contains(jsonb, jsonb) boolean", // @>
	"json_exists(jsonb, text) boolean",    // ?
	"jsonb_typeof(jsonb) text", "jsonb_array_length(jsonb) bigint",
}
