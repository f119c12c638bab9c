package main

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// functions is every function by its result and name.
var functions, functionNames = func() (map[record.Type]map[string][]plan.Function, map[record.Type][]string) {
	out, names := map[record.Type]map[string][]plan.Function{}, map[record.Type][]string{}
	for _, f := range plan.Functions() {
		if out[f.Result] == nil {
			out[f.Result] = map[string][]plan.Function{}
		}
		if out[f.Result][f.Name] == nil {
			names[f.Result] = append(names[f.Result], f.Name)
		}
		out[f.Result][f.Name] = append(out[f.Result][f.Name], f)
	}
	return out, names
}()

// rounded is the functions of doubles whose results aren't exact, or not the same in the last digit everywhere.
var rounded = map[string]bool{
	"exp": true, "ln": true, "log10": true, "sin": true, "cos": true, "tan": true, "asin": true, "acos": true, "atan": true, "atan2": true,
	"radians": true, "degrees": true, "cbrt": true, "pi": true,
}

func isRounded(f *plan.Function) bool {
	return rounded[f.Name] || f.Result == record.Double && slices.Contains([]string{"div", "sqrt", "power", "date_part"}, f.Name)
}

var timeParts = map[record.Type][]string{
	record.TimestampTZ: {"year", "month", "day", "hour", "minute", "second", "week", "dow", "isodow", "doy", "quarter", "epoch", "isoyear", "decade", "century", "milliseconds"},
	record.Date:        {"year", "month", "day", "week", "dow", "isodow", "doy", "quarter", "epoch", "isoyear"},
	record.Time:        {"hour", "minute", "second", "epoch", "microseconds"},
	record.IntervalT:   {"year", "month", "day", "hour", "minute", "second", "epoch"},
}

var truncParts = []string{"second", "minute", "hour", "day", "month", "year", "week", "quarter"}

var regexps = []string{"a", "^a", "c$", "[a-c]+", "(a)(b)?", "b.?d?", "l+", ","}

// fixed is the arguments, by function and position, that are taken from a list instead of an expression: others would fail.
var fixed = map[string]map[int][]string{
	"chr": {0: {"65", "98", "233"}}, "repeat": {1: {"0", "1", "3"}}, "lpad": {1: {"0", "2", "5"}}, "rpad": {1: {"0", "2", "5"}},
	"left": {1: {"0", "1", "3", "-1"}}, "right": {1: {"0", "1", "3", "-1"}}, "substr": {1: {"1", "2", "0"}, 2: {"0", "1", "3"}},
	"split_part": {1: {",", "b", "l"}, 2: {"1", "2", "-1"}}, "encode": {1: {"hex", "base64", "escape"}},
	"decode": {0: {"616263", "", "00ff"}, 1: {"hex"}}, "round": {1: {"0", "1", "2", "-1"}}, "trunc": {1: {"0", "1", "2", "-1"}},
	"shift_left": {1: {"0", "1", "5"}}, "shift_right": {1: {"0", "1", "5"}},
	"date_bin": {0: {"00:15:00", "1 day", "00:00:07"}}, "to_char": {1: {"YYYY-MM-DD HH24:MI:SS", "Dy DD Mon YYYY", "HH12:MI:SS.MS AM", "IYYY-IW-ID Q"}},
	"to_date": {0: {"2024-02-29", "0044-03-15"}, 1: {"YYYY-MM-DD"}}, "convert_to": {1: {"UTF8"}}, "convert_from": {0: {`\x616263`, `\xc3a9`}, 1: {"UTF8"}},
	"make_date": {0: {"2024", "1999"}, 1: {"1", "2", "12"}, 2: {"1", "28"}}, "make_time": {0: {"0", "23"}, 1: {"0", "59"}, 2: {"0", "7.25"}},
	"make_timestamp": {0: {"2024", "1999"}, 1: {"1", "12"}, 2: {"1", "28"}, 3: {"0", "23"}, 4: {"0", "59"}, 5: {"0", "7.25"}},
	"make_interval":  {0: {"0", "1"}, 1: {"0", "1", "-1"}, 2: {"0", "1"}, 3: {"0", "2"}, 4: {"0", "5"}, 5: {"0", "-7"}, 6: {"0", "1.5"}},
	"asin":           {0: {"0", "0.5", "1", "-1"}}, "acos": {0: {"0", "0.5", "1", "-1"}}, "exp": {0: {"0", "1", "-1", "2"}},
	"power":           {1: {"0", "1", "2", "3"}},
	"regexp_match_op": {1: regexps}, "regexp_imatch_op": {1: regexps}, "regexp_like": {1: regexps, 2: {"", "i"}}, "regexp_count": {1: regexps},
	"regexp_substr": {1: regexps}, "regexp_match": {1: regexps}, "regexp_split_to_array": {1: regexps},
	"regexp_replace": {1: regexps, 2: {"", "X", `[\1]`, `\&`}, 3: {"", "g", "i"}},
	"like":           {1: {"", "%", "a%", "%b", "%o%", "_b", "a_c"}}, "ilike": {1: {"", "%", "A%", "%B", "_B", "h%"}},
	"json_get": {1: {"a", "b", "0", "1", "-1"}}, "json_get_text": {1: {"a", "b", "0", "1", "2"}}, "json_exists": {1: {"a", "b", "x"}},
	"json_get_path": {1: {"{a}", "{a,b}", "{0}", "{}"}}, "json_get_path_text": {1: {"{a}", "{a,b}", "{c,0}"}},
	"json_exists_any": {1: {"{a,x}", "{}"}}, "json_exists_all": {1: {"{a,b}", "{a}"}},
	"jsonb_array_length": {0: {"[]", "[1, 2]"}},
	"array_get":          {1: {"1", "2", "0", "5"}}, "array_slice": {1: {"1", "2"}, 2: {"1", "2", "3"}}, "array_length": {1: {"1"}}, "array_lower": {1: {"1"}}, "array_upper": {1: {"1"}},
	"timezone": {0: {"UTC", "Europe/Zurich", "America/New_York", "Asia/Kolkata"}}, "to_timestamp": {0: {"0", "1700000000.5", "-1"}},
	"translate": {1: {"abc", "l"}, 2: {"xy", ""}}, "trim": {1: {"a", " ", "ab"}}, "ltrim": {1: {"a", " "}}, "rtrim": {1: {"b", " "}},
}

// wrapped is arguments that are wrapped so that the call can't fail.
var wrapped = map[string]map[int]string{
	"div": {1: "nullif(%s, %z)"}, "mod": {1: "nullif(%s, %z)"}, "sqrt": {0: "abs(%s)"}, "ln": {0: "(abs(%s) + 1)"}, "log10": {0: "(abs(%s) + 1)"},
}

var operators = map[string]string{
	"regexp_match_op": "~", "regexp_imatch_op": "~*", "array_contains": "@>", "array_overlaps": "&&", "json_get_path": "#>", "json_get_path_text": "#>>",
	"json_exists_any": "?|", "json_exists_all": "?&",
	"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%",
	"bit_and": "&", "bit_or": "|", "bit_xor": "#", "shift_left": "<<", "shift_right": ">>", "concat_op": "||", "like": "LIKE",
	"ilike": "ILIKE", "json_get": "->", "json_get_text": "->>", "json_contains": "@>", "json_exists": "?", "distinct": "IS DISTINCT FROM",
}

// int4 is the functions whose bigint arguments are integer in PostgreSQL.
var int4 = map[string]bool{
	"lpad": true, "rpad": true, "substr": true, "left": true, "right": true, "repeat": true, "split_part": true, "chr": true, "round": true,
	"make_date": true, "make_time": true, "make_timestamp": true, "array_get": true, "array_slice": true, "array_length": true,
	"array_upper": true, "array_lower": true, "trunc": true, "shift_left": true, "shift_right": true, "json_get": true, "json_get_text": true,
	"make_interval": true,
}

// call draws a call of a function.
func (g *gen) call(t record.Type, in []column, depth int) ex {
	names := functionNames[t]
	if len(names) == 0 {
		return g.leaf(t, in)
	}
	overloads := functions[t][pick(g.d, names)]
	f := &overloads[g.d.n(len(overloads))]
	if isRounded(f) && !g.rough {
		return g.leaf(t, in)
	}
	out := ex{inexact: isRounded(f)}
	n := len(f.Args)
	if f.Variadic {
		n += g.d.n(3)
	}
	var args []text
	for i := range n {
		at := f.Args[min(i, len(f.Args)-1)]
		a := g.argument(f, i, at, in, depth)
		if out.event && a.event && at == record.TimestampTZ && (f.Result == record.Boolean || f.Result == record.IntervalT) {
			a = g.literal(at)
		}
		out.inexact, out.event = out.inexact || a.inexact, out.event || a.event
		args = append(args, a.text)
	}
	out.text = text{callOf(f, ours(args), false), callOf(f, pgs(args), true)}
	return out
}

func ours(parts []text) (out []string) {
	for _, p := range parts {
		out = append(out, p.ours)
	}
	return out
}

func pgs(parts []text) (out []string) {
	for _, p := range parts {
		out = append(out, p.pg)
	}
	return out
}

func (g *gen) argument(f *plan.Function, i int, t record.Type, in []column, depth int) ex {
	list := fixed[f.Name][i]
	switch {
	case f.Name == "extract" || f.Name == "date_part":
		if i == 0 {
			of := f.Args[1]
			if of == record.Timestamp {
				of = record.TimestampTZ
			}
			return ex{text: same(quote(pick(g.d, timeParts[of])))}
		}
	case f.Name == "date_trunc" && i == 0:
		n := len(truncParts)
		if f.Args[1] == record.IntervalT {
			n = 6 // no weeks and quarters
		}
		return ex{text: same(quote(truncParts[g.d.n(n)]))}
	case f.Name == "timezone" && i == 0 && t == record.IntervalT:
		list = []string{"01:00:00", "-03:30:00"}
	case (f.Name == "json_get" || f.Name == "json_get_text") && i == 1 && t == record.BigInt:
		list = []string{"0", "1", "-1"}
	case f.Name == "to_timestamp" && len(f.Args) == 2:
		list = [][]string{{"2024-02-29 10", "1999-01-01 23"}, {"YYYY-MM-DD HH24"}}[i]
	case f.Name == "mul" && i == 1 && f.Args[0] == record.IntervalT:
		list = []string{"2", "0.5", "-1"}
	case f.Name == "div" && i == 1 && f.Args[0] == record.IntervalT:
		list = []string{"2", "0.5", "4"}
	case f.Name == "array_remove" || f.Name == "array_position":
		list = nil
	}
	if list != nil {
		s := pick(g.d, list)
		if t == record.Text || t == record.BigInt {
			return ex{text: literal(t, s)}
		}
		return ex{text: same(quote(s) + "::" + t.String())}
	}
	a := g.expr(t, in, depth-1)
	if w := wrapped[f.Name][i]; w != "" {
		zero := "0"
		if t == record.Double {
			zero = "0::double precision"
		}
		a.text = format(strings.ReplaceAll(w, "%z", zero), a.text)
	}
	return a
}

// callOf writes a call.
func callOf(f *plan.Function, args []string, pg bool) string {
	parts := slices.Clone(args)
	if pg {
		dates := slices.Contains(f.Args, record.Date) && (f.Name == "add" || f.Name == "sub")
		for i := range parts {
			t := f.Args[min(i, len(f.Args)-1)]
			if t == record.BigInt && (int4[f.Name] || dates) && !((f.Name == "shift_left" || f.Name == "shift_right") && i == 0) {
				parts[i] = "(" + parts[i] + ")::int"
			}
		}
	}
	out := writeCall(f, parts)
	if pg && f.Result == record.BigInt {
		out = "(" + out + ")::bigint"
	}
	return out
}

func writeCall(f *plan.Function, parts []string) string {
	rel, quantified := "", ""
	if len(f.Name) > 4 {
		rel, quantified = f.Name[4:], strings.ToUpper(f.Name[:3])
	}
	switch {
	case f.Name == "neg":
		return "(- (" + parts[0] + "))"
	case f.Name == "bit_not":
		return "(~ (" + parts[0] + "))"
	case f.Name == "trim" && len(parts) == 1:
		return "trim(" + parts[0] + ")"
	case f.Name == "trim":
		return "trim(BOTH " + parts[1] + " FROM " + parts[0] + ")"
	case f.Name == "extract":
		return "extract(" + strings.Trim(parts[0], "'") + " FROM " + parts[1] + ")"
	case f.Name == "array":
		return "ARRAY[" + strings.Join(parts, ", ") + "]"
	case f.Name == "array_get":
		return "(" + parts[0] + ")[" + parts[1] + "]"
	case f.Name == "array_slice":
		return "(" + parts[0] + ")[" + parts[1] + ":" + parts[2] + "]"
	case (quantified == "ANY" || quantified == "ALL") && f.Name[3] == '_':
		return "((" + parts[0] + ") " + operators[rel] + " " + quantified + " (" + parts[1] + "))"
	case operators[f.Name] != "":
		return "((" + parts[0] + ") " + operators[f.Name] + " (" + parts[1] + "))"
	}
	return f.Name + "(" + strings.Join(parts, ", ") + ")"
}

func sortTypes(ts []record.Type) { slices.Sort(ts) }
