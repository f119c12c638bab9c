package dataflow

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// testdata/functions.txt is calls of every function and cast with what PostgreSQL says of them, a line each:
//
//	signature TAB argument TAB ... TAB => TAB result
//
// as text, \N for NULL, and ERR with the SQLSTATE for an error. To make it anew from a server:
//
//	go test ./dataflow -run TestPostgres -postgres 'host=127.0.0.1 user=postgres dbname=test' [-cases 20]
//
// The database must be in UTF8 with lc_ctype C.UTF-8, and its server's time zone UTC.
var (
	postgres = flag.String("postgres", "", "connection of a PostgreSQL server that rewrites testdata/functions.txt")
	maxCases = flag.Int("cases", 20, "with -postgres: calls of each function")
)

const functionsFile = "testdata/functions.txt"

// pools is arguments to choose from.
var pools = map[record.Type][]string{
	record.Boolean: {"true", "false", `\N`},
	record.BigInt: {"0", "1", "-1", "2", "3", "7", "-7", "10", "63", "64", "100", "-100", "2147483648", "3037000500",
		"9223372036854775807", "-9223372036854775808", `\N`},
	record.Double: {"0", "-0", "1", "-1", "0.5", "-0.5", "1.5", "2.5", "-2.5", "3.7", "0.1", "10000000000", "1e-10", "1e300",
		"-1e300", "1e-300", "123456.789", "4", "Infinity", "-Infinity", "NaN", "1e18", "9.3e18", "1700000000.123456", `\N`},
	record.Numeric: {"0", "0.00", "1", "-1", "1.0", "1.50", "-1.5", "2.5", "-2.5", "0.001", "3", "7", "-7.00", "10000", "9999",
		"9999.9999", "123456789.987654321", "-99999.9", "99999999999999999999.99", "0.00000000000000000001",
		"12345678901234567890123456789", "9223372036854775807.5", "0.5", "-0.5", "2", "NaN", `\N`},
	record.Text: {"", "a", "abc", "ABC", "Hello World", "héllo wörld", "日本語テキスト", "a,b,,c", "  pad  ", "o", "l", "xyz",
		",", "foo bar-baz_QUX", "Éa", "abcabc", "🚀x", `\N`},
	record.Bytea: {`\x`, `\x00`, `\xdeadbeef`, `\x616263`, `\x5c7f80ff`, `\N`},
	record.TimestampTZ: {"2024-02-29 12:34:56.789012+00", "1970-01-01 00:00:00+00", "1969-12-31 23:59:59.999999+00",
		"2000-01-01 00:00:00+00", "2023-12-31 23:59:59+00", "2021-01-03 05:06:07.5+00", "0001-01-01 00:00:00+00",
		"0044-03-15 12:00:00+00 BC", "1900-03-01 00:00:00+00", "2001-01-01 00:00:00+00", "9999-12-31 23:00:00+00",
		"2024-01-31 10:00:00+00", "2016-02-29 00:00:01+00", "2015-11-30 17:18:19.202122+00", `\N`},
	record.IntervalT: {"0", "1 day", "24 hours", "1 month", "-1 month", "1 year 2 mons 3 days 04:05:06.789", "-3 days 10:00:00",
		"30 days", "100000 years", "1 mon -1 days", "36:00:00", "-00:00:00.000001", "13 mons 31 days 25:00:00", "00:15:00",
		"7 days", `\N`},
	record.JSONB: {`{}`, `[]`, `{"a": 1, "b": [1, 2, {"c": null}]}`, `[1, 2.50, "x", null, true, {"a": 1}]`, `"str\"ing"`, `12.340`,
		`12.34`, `null`, `true`, `{"a": {"b": "héllo"}}`, `[1, 2]`, `"x"`, `{"a": 1}`, `1e5`, `-7.5`, `\N`},
	record.Date: {"2024-02-29", "1970-01-01", "1969-12-31", "2000-01-01", "0001-01-01", "0044-03-15 BC", "9999-12-31", "2023-01-31", `\N`},
	record.Time: {"00:00:00", "24:00:00", "12:34:56.789012", "23:59:59.999999", "06:07:08.5", `\N`},
	record.Timestamp: {"2024-02-29 12:34:56.789012", "1970-01-01 00:00:00", "1969-12-31 23:59:59.999999", "2024-03-31 02:30:00",
		"2024-10-27 02:30:00", "0044-03-15 12:00:00 BC", "9999-12-31 23:00:00", "2024-01-31 10:00:00", `\N`},
	record.UUID: {"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", `\N`},

	record.ArrayOf(record.BigInt):    {"{}", "{1}", "{1,2,3}", "{1,NULL,3}", "{NULL}", "{3,1,3,7}", `\N`},
	record.ArrayOf(record.Text):      {"{}", `{a,"b c",NULL}`, `{abc}`, `{"NULL","",a}`, `{"a\"b","c\\d"}`, `{x,a,b}`, `{b,0}`, `\N`},
	record.ArrayOf(record.Numeric):   {"{}", "{1.0,2}", "{1.00,2.00}", "{NaN,0.5}", `\N`},
	record.ArrayOf(record.Double):    {"{}", "{1.5,-0}", "{0,NaN}", `\N`},
	record.ArrayOf(record.Date):      {"{}", "{2024-02-29,NULL}", `\N`},
	record.ArrayOf(record.JSONB):     {"{}", `{"{\"a\": 1}",NULL,"[1, 2]"}`, `\N`},
	record.ArrayOf(record.IntervalT): {"{}", `{"1 day","24:00:00"}`, `\N`},
	record.ArrayOf(record.Boolean):   {"{}", "{t,f,NULL}", "{f}", `\N`}, record.ArrayOf(record.Bytea): {"{}", `{"\\x00ff","\\x"}`, `\N`},
	record.ArrayOf(record.TimestampTZ): {"{}", `{"2024-02-29 12:00:00+00"}`, `\N`}, record.ArrayOf(record.Timestamp): {"{}", `{"2024-02-29 12:00:00"}`, `\N`},
	record.ArrayOf(record.Time): {"{}", "{12:00:00,NULL}", `\N`}, record.ArrayOf(record.UUID): {"{}", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", `\N`},
}

// zones are names for AT TIME ZONE.
var zones = []string{"UTC", "Europe/Zurich", "america/new_york", "Asia/Kolkata", "Nowhere/At_All", "Australia/Lord_Howe"}

// special is arguments, by function and position, for which the pool of the type won't do.
var special = map[string]map[int][]string{
	"like":       {1: {"", "%", "a%", "%c", "%o%", "_bc", "h_llo%", "a_c", `\%`, `%\`, "Hello World", "日%", "%テ__ト", "a%b%c", "%%", "%,_,%", "x_"}},
	"ilike":      {1: {"", "%", "A%", "%C", "%O%", "_BC", "H_LLO%", "é_", "HÉLLO%", "%W%"}},
	"lpad":       {1: small, 2: {"", "xy", "é日", " "}},
	"rpad":       {1: small, 2: {"", "xy", "é日", " "}},
	"substr":     {1: small, 2: small},
	"left":       {1: small},
	"right":      {1: small},
	"repeat":     {1: {"0", "-1", "1", "3"}},
	"split_part": {1: {",", "", "b", "o", "abc", "日"}, 2: {"1", "2", "3", "-1", "-2", "-9", "0", "9"}},
	"translate":  {1: {"abc", "", "lo", "é日"}, 2: {"xyz", "", "1", "éè"}},
	"trim":       {1: {" ", "a", "abc", "", "H dé"}},
	"ltrim":      {1: {" ", "a", "abc", "", "Hé"}},
	"rtrim":      {1: {" ", "a", "cb", "", "dト"}},
	"chr":        {0: {"65", "233", "128640", "26085", "0", "1", "-5", "2000000", `\N`}},
	"round":      {1: {"0", "1", "2", "-1", "-3", "5", "20"}},
	"trunc":      {1: {"0", "1", "2", "-1", "-3", "5", "20"}},
	"shift_left": {1: {"0", "1", "5", "62", "63"}}, "shift_right": {1: {"0", "1", "5", "62", "63"}},
	"encode":  {1: {"hex", "base64", "escape", "HEX", "nope"}},
	"decode":  {0: {"", "616263", "6", "zz", "YWJj", "YWI=", "YQ==", "Y", "YW=", `a\\b\001`, `\9`, "61 62\t63", "YWJj\nYWJj"}, 1: {"hex", "base64", "escape", "nope"}},
	"extract": {0: fields}, "date_part": {0: fields}, "date_trunc": {0: fields},
	"date_bin":      {0: {"15 minutes", "1 day", "7 days", "00:00:01", "1 month", "0", "-1 day", "1 day 1 hour"}},
	"make_interval": {0: tiny, 1: tiny, 2: tiny, 3: tiny, 4: tiny, 5: tiny, 6: {"0", "1.5", "-0.000001", "61.123456"}},
	"to_timestamp":  {0: {"0", "-1", "1700000000.123456", "1e10", "1e15", "-1e15", "NaN", "Infinity", "0.0000005", "-62135596800", "1234567890.5"}},
	"format":        {0: {"", "a%sb", "%I|%L|%s", "%2$s %1$s", "%-6s|", "%6s|", "%*s", "%", "%x", "%%", "%0$s", "%3$L", "%1$*2$s"}},
	"unistr":        {0: {"a", `\0041\+01F600`, `\u00e9\U0001F600`, `\D83D\DE00`, `\D83D`, `\004`, `\\`, `\zzzz`, `\0000`}},
	"normalize":     {1: {"NFC", "NFD", "nfkc", "NFKD", "x"}}, "is_normalized": {1: {"NFC", "NFD", "nfkc", "NFKD", "x"}},
	"similar_to_escape": {0: {"abc", "a%_", "(a|b)%", "a.b^c$", `a\%b`, "[a-c]+", "x#%y", `a\`}, 1: {"#", "", "ab", `\`}},
	"text_fit":          {1: {"1", "2", "5", "100"}}, "numeric_fit": {1: {"1", "3", "5", "10", "100"}, 2: {"0", "2", "-2", "5"}}, "time_fit": {1: {"0", "1", "3", "5", "6"}},
	"factorial": {0: {"0", "1", "5", "20", "30", "-1", "100"}},
	"exp":       {0: {"0", "1", "-1", "0.5", "10.25", "-20", "100", "-300.5", "0.0001", "NaN", "-7000"}},
	"get_byte":  {1: small}, "set_byte": {1: small, 2: {"0", "65", "255", "256", "-1"}}, "get_bit": {1: {"0", "1", "7", "8", "20", "-1", "64"}},
	"set_bit": {1: {"0", "1", "7", "8", "20", "-1", "64"}, 2: {"0", "1", "2"}}, "overlay": {2: small, 3: small},
	"trim_array": {1: {"0", "1", "2", "-1", "7"}}, "array_fill": {1: {"{0}", "{3}", "{NULL}", "{}", "{1}", `\N`}},
	"make_timestamptz": {0: {"2024", "0"}, 1: {"3", "13"}, 2: {"31"}, 3: {"0", "2", "24"}, 4: {"0", "30"}, 5: {"0", "7.25"}, 6: zones},
	"jsonb_insert":     {1: jsonPaths}, "jsonb_set_lax": {1: jsonPaths, 4: {"delete_key", "return_target", "use_json_null", "raise_exception", "x"}},
	"jsonb_extract_path": {1: {"a", "b", "0", "2", "c", "x"}}, "jsonb_extract_path_text": {1: {"a", "b", "0", "2", "c", "x"}},
	"jsonb_object": {0: {"{}", "{a,1}", "{a}", "{a,1,b,NULL}", "{NULL,1}", "{b,a}"}, 1: {"{}", "{1,2}", "{x,NULL}", "{z}"}},
	"regexp_instr": {1: expressions}, "to_number": {0: {"12,454.8-", "123", " 45.6", "-7", "<12>", "1.2.3", "x", "", "0012", "12th", "+5", "$1,234.50"}, 1: numberPatterns},
	"mul": {}, "power": {1: {"0", "1", "2", "3", "-1", "-2", "0.5", "-0.5", "10", "1.5", "100", `\N`}},
	"to_char":  {1: patterns},
	"json_get": {1: {"a", "b", "c", "0", "1", "-1", "-6", "5", "x", ""}}, "json_get_text": {1: {"a", "b", "c", "0", "1", "-1", "-6", "5", "2"}},
	"json_exists": {1: {"a", "b", "x", "str\"ing", ""}},
	"strpos":      {1: {"", "b", "o", "l", "本", "ö", "zz", "bc"}}, "starts_with": {1: {"", "a", "Hé", "hé", "日本", "abcabcabc"}},
	"replace":         {1: {"", "a", "l", "ö", "abc", "日本"}, 2: {"", "X", "yy", "é"}},
	"concat_ws":       {0: {",", "", "--", `\N`}},
	"timezone":        {0: zones},
	"make_date":       {0: {"2024", "-44", "0", "1"}, 1: {"2", "13", "12"}, 2: {"29", "30", "1"}},
	"make_time":       {0: {"0", "23", "24", "25"}, 1: {"0", "59", "60"}, 2: {"0", "59.5", "60", "-1"}},
	"make_timestamp":  {0: {"2024", "0"}, 1: {"2", "13"}, 2: {"29"}, 3: {"0", "24"}, 4: {"0", "61"}, 5: {"0", "7.25"}},
	"to_date":         {0: {"2024-02-29", "x", "2024-13-01", "0044-03-15"}, 1: {"YYYY-MM-DD"}},
	"regexp_match_op": {1: expressions}, "regexp_imatch_op": {1: expressions}, "regexp_like": {1: expressions, 2: {"", "i", "c", "nope"}},
	"regexp_count": {1: expressions}, "regexp_substr": {1: expressions}, "regexp_match": {1: expressions}, "regexp_split_to_array": {1: expressions},
	"regexp_replace":  {1: expressions, 2: {"", "X", `[\1]`, `\&\&`, "$1"}, 3: {"", "g", "i", "gi"}},
	"string_to_array": {1: {",", "", "b", " ", `\N`}},
	"convert_to":      {1: {"UTF8", "utf-8"}}, "convert_from": {1: {"UTF8"}},
	"array_get": {1: small}, "array_slice": {1: small, 2: small}, "array_length": {1: {"1", "2"}}, "array_upper": {1: {"1", "2"}}, "array_lower": {1: {"1", "2"}},
	"array_to_string":  {1: {",", ""}, 2: {"*", ""}},
	"json_delete_path": {1: jsonPaths}, "jsonb_set": {1: jsonPaths}, "json_get_path": {1: jsonPaths}, "json_get_path_text": {1: jsonPaths},
	"json_exists_any": {1: {"{}", "{a,x}", "{x}", "{b,a}"}}, "json_exists_all": {1: {"{}", "{a,b}", "{a}", "{x,a}"}},
}

var (
	small  = []string{"0", "1", "2", "3", "5", "-1", "-3", "10"}
	tiny   = []string{"0", "1", "-1", "13", "100"}
	fields = []string{"microseconds", "milliseconds", "second", "minute", "hour", "day", "week", "month", "quarter", "year", "decade",
		"century", "millennium", "dow", "isodow", "doy", "isoyear", "epoch", "julian", "timezone", "YEAR", "nope", "mons", "ms"}
	patterns = []string{"YYYY-MM-DD HH24:MI:SS", "YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"", "Day, DD Month YYYY", "FMDay, FMDD FMMonth YYYY",
		"HH12:MI:SS AM", "hh:mi pm", "DDD IDDD IW WW W Q CC J", "IYYY-IW-ID", "Dy dy DY Mon mon MON RM rm", "MS US FF1 FF3 FF6", "DDth FMDDth FMDDTH",
		"Y,YYY YYY YY Y BC A.D. ad", "SSSS SSSSS", "TZ tz TZH:TZM OF", "\"quoted \\\" text\" YYYY", "plain xx yy", "", "FMHH24:FMMI:FMSS", "DAY MONTH day month", "a.m. P.M."}
)

var (
	expressions = []string{"a", "^a", "c$", "[a-c]+", "(a)(b)?", "b.d", `\\d+`, "(", "l+", "", ".", "(?i)HELLO"}
	jsonPaths   = []string{"{}", "{a}", "{a,b}", "{b,2,c}", "{0}", "{5,a}", "{-1}", "{NULL}"}
)

var numberPatterns = []string{"999", "FM999.99", "0000", "S999.9", "999S", "9,999,999.99", "9G999D9", "999MI", "PL999", "SG99", "999PR", "RN", "FMRN", "rn", "99V99", "9.9EEEE",
	"FM0.00", "L99", "99th", "B99", "", "FM99999999999999999999.999", "0.9", "FM9.0", "\"n: \"99", "9.9.9", "99S9S", "EEEE9", "a9b0c", "FM999999", "000.000", "FMS0,009.90"}

var operators = map[string]string{
	"regexp_match_op": "~", "regexp_imatch_op": "~*", "array_contains": "@>", "array_overlaps": "&&", "json_get_path": "#>", "json_get_path_text": "#>>",
	"json_delete_path": "#-", "json_exists_any": "?|", "json_exists_all": "?&",
	"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%",
	"bit_and": "&", "bit_or": "|", "bit_xor": "#", "shift_left": "<<", "shift_right": ">>", "concat_op": "||", "like": "LIKE",
	"ilike": "ILIKE", "json_get": "->", "json_get_text": "->>", "json_contains": "@>", "json_exists": "?", "distinct": "IS DISTINCT FROM",
}

// int4 is functions whose bigint arguments are integer in PostgreSQL.
var int4 = map[string]bool{
	"lpad": true, "rpad": true, "substr": true, "left": true, "right": true, "repeat": true, "split_part": true, "chr": true, "round": true,
	"make_date": true, "make_time": true, "make_timestamp": true, "array_get": true, "array_slice": true, "array_length": true,
	"array_upper": true, "array_lower": true,
	"get_byte": true, "set_byte": true, "overlay": true, "make_timestamptz": true, "trim_array": true,
	"regexp_count": true, "regexp_instr": true, "regexp_substr": true, "regexp_replace": true,
	"trunc": true, "shift_left": true, "shift_right": true, "json_get": true, "json_get_text": true, "make_interval": true,
}

func quoteSQL(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// callSQL writes the call as PostgreSQL has it.
func callSQL(f *plan.Function, args []string) string {
	parts := make([]string, len(args))
	for i, a := range args {
		t := f.Args[min(i, len(f.Args)-1)]
		lit := "NULL"
		if a != `\N` {
			lit = quoteSQL(a)
		}
		parts[i] = lit + "::" + t.String()
		if f.Name == "array_position" && i == 2 || f.Name == "set_bit" && i == 2 || f.Name == "width_bucket" && i == 3 {
			parts[i] = lit + "::int"
		}
		if f.Name == "jsonb_build_object" && i%2 == 0 { // which takes no jsonb as a key
			parts[i] = "(" + parts[i] + " #>> '{}')"
		}
		if f.Name == "array_fill" && i == 1 {
			parts[i] = lit + "::int[]"
		}
		if t == record.BigInt && (int4[f.Name] || f.Name == "sub" && f.Args[0] == record.JSONB || slices.Contains(f.Args, record.Date)) && !((f.Name == "shift_left" || f.Name == "shift_right") && i == 0) {
			parts[i] = lit + "::int"
		}
	}
	switch {
	case f.Name == "numeric_fit":
		return "(" + parts[0] + ")::numeric(" + args[1] + ", " + args[2] + ")"
	case f.Name == "text_fit":
		return "(" + parts[0] + ")::varchar(" + args[1] + ")"
	case f.Name == "time_fit" && f.Result == record.TimestampTZ:
		return "(" + parts[0] + ")::timestamp(" + args[1] + ") with time zone"
	case f.Name == "time_fit":
		return "(" + parts[0] + ")::" + f.Result.String() + "(" + args[1] + ")"
	case f.Name == "div_trunc":
		return "div(" + strings.Join(parts, ", ") + ")"
	case (f.Name == "normalize" || f.Name == "is_normalized"):
		return "pg_catalog." + f.Name + "(" + strings.Join(parts, ", ") + ")"
	case f.Name == "trim" && f.Args[0] == record.Bytea:
		return "trim(" + parts[1] + " from " + parts[0] + ")"
	case f.Name == "strpos" && f.Args[0] == record.Bytea:
		return "position(" + parts[1] + " in " + parts[0] + ")"
	case f.Name == "neg":
		return "- (" + parts[0] + ")"
	case f.Name == "bit_not":
		return "~ (" + parts[0] + ")"
	case f.Name == "trim":
		return "btrim(" + strings.Join(parts, ", ") + ")"
	case f.Name == "log10":
		return "log(" + parts[0] + ")"
	case f.Name == "extract":
		if args[0] == `\N` {
			return "NULL::numeric"
		}
		return "extract(" + quoteSQL(args[0]) + " FROM " + parts[1] + ")"
	case f.Name == "array":
		return "ARRAY[" + strings.Join(parts, ", ") + "]"
	case f.Name == "array_get":
		return "(" + parts[0] + ")[" + parts[1] + "]"
	case f.Name == "array_slice":
		return "(" + parts[0] + ")[" + parts[1] + ":" + parts[2] + "]"
	case quantifier[f.Name] != "":
		rel, quantified, _ := strings.Cut(quantifier[f.Name], " ")
		return "(" + parts[0] + ") " + rel + " " + quantified + " (" + parts[1] + ")"
	case f.Name == "cast":
		return "(" + parts[0] + ")::" + f.Result.String()
	case operators[f.Name] != "":
		return "(" + parts[0] + ") " + operators[f.Name] + " (" + parts[1] + ")"
	}
	return f.Name + "(" + strings.Join(parts, ", ") + ")"
}

// quantifier is the operators with ANY and ALL.
var quantifier = func() map[string]string {
	m := map[string]string{}
	for _, rel := range relationNames {
		m["any_"+rel], m["all_"+rel] = operators[rel]+" ANY", operators[rel]+" ALL"
	}
	return m
}()

// testFunctions is the functions and, by the name of cast, the casts.
func testFunctions() []plan.Function {
	// Of arrays, a few types of elements stand for all.
	out := slices.DeleteFunc(plan.Functions(), func(f plan.Function) bool {
		return slices.ContainsFunc(append(f.Args, f.Result), func(t record.Type) bool {
			return t.IsArray() && !slices.Contains([]record.Type{record.BigInt, record.Text, record.Numeric, record.JSONB}, t.Elem())
		})
	})
	types := record.Types()
	for _, from := range types {
		for _, to := range types {
			switch {
			case from == to:
				continue
			case from == record.BigInt && to == record.Boolean, from == record.Boolean && to == record.BigInt:
				continue // PostgreSQL casts integer only
			}
			if from.IsArray() && to.IsArray() && from.Elem() != record.BigInt && to.Elem() != record.BigInt {
				continue // a few will do
			}
			if from == record.Text && to.IsArray() && textsOf[to] == nil || from.IsArray() && (from.Elem() == record.Boolean || to.Elem() == record.Boolean) && to != record.Text {
				continue
			}
			if _, ok := castOf(from, to); ok {
				out = append(out, plan.Function{Name: "cast", Args: []record.Type{from}, Result: to})
			}
		}
	}
	return out
}

func castSignature(f *plan.Function) string {
	if f.Name == "cast" {
		return f.Signature() + " " + f.Result.String()
	}
	return f.Signature()
}

// textsOf is texts to cast to a type.
var textsOf = map[record.Type][]string{
	record.Boolean:     {"t", "false", "yes", "off", "1", " TRUE ", "maybe", ""},
	record.BigInt:      {"1", " -5 ", "9223372036854775808", "12x", "", "007"},
	record.Double:      {"1.5", "1e400", "-inf", "nan", "x", " 3 ", "1e-400"},
	record.Numeric:     {"1.50", "-0.0", "1e5", "1.2.3", "NaN", "abc", " 7 "},
	record.Bytea:       {`\x00ff`, `abc\\d`, `\xf`, "é"},
	record.JSONB:       {`{"b":1,"a":[1, 2.50,"x"]}`, `[}`, `"é\u00e9"`, "12", ""},
	record.TimestampTZ: {"2024-02-29", "2024-02-30", "2024-01-01T00:00:00Z", "2024-01-01 10:00+02", "x"},
	record.IntervalT:   {"1 day 2 hours", "P1Y2M3DT4H", "-1:30", "x", "1 week 3 mons"},
	record.Date:        {"2024-02-29", "2024-02-30", "29 Feb 2024", "2024-01-01 10:00:00+05", "x", "20240229", "44-03-15 BC"},
	record.Time:        {"12:34", "12:34:56.5", "24:00:00", "24:00:01", "1:00 PM", "x", "2024-01-01 10:00:00"},
	record.Timestamp:   {"2024-02-29", "2024-02-29T01:02:03Z", "2024-02-29 01:02:03+05", "2024-02-30", "x"},
	record.UUID:        {"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}", "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", "x", "a0eebc99"},

	record.ArrayOf(record.BigInt): {"{1,2}", " { 1 , NULL } ", "{1,x}", "{", "1,2", "{1}}", "{,}", "{}"},
	record.ArrayOf(record.Text):   {`{a b , "c,d"}`, `{"a\"",\{}`, `{null,"null"}`, `{"a}`, "{a}x"},
}

// specialTexts is special, but for functions of one name whose types differ.
func specialTexts(f *plan.Function, i int) ([]string, bool) {
	t := f.Args[min(i, len(f.Args)-1)]
	switch {
	case t == record.Bytea:
		return nil, false
	case f.Name == "to_char" && i == 1 && f.Args[0] == record.IntervalT:
		return append([]string{"HH24:MI:SS", "DD MM YYYY", "HH12 AM MS US", "FMHH24 FMMI FMSS", "YYY YY Y Y,YYY", "DDD WW W Q CC RM rm", "IYYY IW IDDD J"}, patterns...), true
	case f.Name == "to_char" && i == 1 && f.Args[0] != record.TimestampTZ && f.Args[0] != record.Timestamp:
		return numberPatterns, true
	case f.Name == "width_bucket" && i < 3 && f.Args[0] == record.Double && len(f.Args) == 4:
		return []string{"0", "1", "5.35", "10", "-1", "NaN", "Infinity", "3", `\N`}, true
	case f.Name == "array_position" && i == 2:
		return append([]string{`\N`}, small...), true
	case f.Name == "jsonb_build_object" && i%2 == 0:
		return []string{`"a"`, `"b\"c"`, "1", "true", "12.340", `\N`}, true
	case f.Name == "width_bucket" && i == 3:
		return []string{"1", "4", "10", "0", "-1"}, true
	case f.Name == "timezone" && i == 0 && t != record.Text, f.Name == "date_trunc" && i == 2:
		return zones, t == record.Text
	case f.Name == "regexp_substr" && i == 4, f.Name == "regexp_instr" && i == 5, f.Name == "regexp_replace" && i == 5:
		return []string{"", "i", "c", "x!"}, true
	case f.Name == "regexp_replace" && i == 3 && t == record.BigInt, strings.HasPrefix(f.Name, "regexp_") && t == record.BigInt:
		return []string{"1", "2", "3", "0", "7"}, true
	}
	s, ok := special[f.Name][i]
	return s, ok
}

func makeCases(rng *rand.Rand, f *plan.Function, n int) [][]string {
	arity := []int{len(f.Args)}
	if f.Variadic {
		arity = []int{len(f.Args), len(f.Args) + 1, len(f.Args) + 2}
	}
	var all [][]string
	for _, k := range arity {
		choices := make([][]string, k)
		total := 1
		for i := range k {
			t := f.Args[min(i, len(f.Args)-1)]
			choices[i] = pools[t]
			if s, ok := specialTexts(f, i); ok {
				choices[i] = s
			}
			if t == record.BigInt && slices.Contains(f.Args, record.Date) {
				choices[i] = small
			}
			if f.Name == "to_timestamp" && t == record.Text {
				choices[i] = [][]string{
					{"2024-02-29 12:34:56.789", "2024-02-29 01:02:03.5", "2024-02-30 01:02:03", "2024-1-2 3:4:5"},
					{"YYYY-MM-DD HH24:MI:SS.MS"},
				}[i]
			}
			if f.Name == "cast" && t == record.Text {
				choices[i] = textsOf[f.Result]
			}
			if t == record.BigInt && strings.HasPrefix(f.Name, "json_get") {
				choices[i] = []string{"0", "1", "-1", "-6", "5", "2", "-7"}
			}
			if f.Name == "power" && t == record.Double && i == 1 {
				choices[i] = append([]string{"Infinity", "-Infinity", "NaN"}, choices[i]...)
			}
			total *= len(choices[i])
		}
		pick := func(at int) []string {
			c := make([]string, k)
			for i := range c {
				c[i] = choices[i][at%len(choices[i])]
				at /= len(choices[i])
			}
			return c
		}
		if total <= n {
			for at := range total {
				all = append(all, pick(at))
			}
			continue
		}
		for _, at := range rng.Perm(total)[:n] {
			all = append(all, pick(at))
		}
	}
	return all
}

// askPostgres returns the results of expressions.
func askPostgres(t *testing.T, exprs []string) []string {
	var in bytes.Buffer
	in.WriteString(`SET extra_float_digits = 1; SET bytea_output = hex; SET timezone = 'UTC'; SET intervalstyle = postgres;
CREATE FUNCTION pg_temp.try(q text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r text;
BEGIN
  EXECUTE 'SELECT (' || q || ')::text' INTO r;
  RETURN coalesce(r, '\N');
EXCEPTION WHEN OTHERS THEN RETURN 'ERR ' || SQLSTATE;
END $$;
`)
	for _, e := range exprs {
		fmt.Fprintf(&in, "SELECT encode(convert_to(pg_temp.try(%s), 'UTF8'), 'hex');\n", quoteSQL(e))
	}
	cmd := exec.Command("psql", "-qAtX", "-v", "ON_ERROR_STOP=1", *postgres)
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var results []string
	for _, line := range strings.Split(strings.TrimSuffix(string(out), "\n"), "\n") {
		var b []byte
		fmt.Sscanf(line, "%x", &b)
		results = append(results, string(b))
	}
	if len(results) != len(exprs) {
		t.Fatalf("%d results of %d calls", len(results), len(exprs))
	}
	return results
}

var escapeLine = strings.NewReplacer("\t", `\t`, "\n", `\n`)
var unescapeLine = strings.NewReplacer(`\t`, "\t", `\n`, "\n")

func rewriteFunctions(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	var lines, exprs []string
	for _, f := range testFunctions() {
		seen := map[string]bool{}
		for _, args := range makeCases(rng, &f, *maxCases) {
			line := escapeLine.Replace(castSignature(&f))
			for _, a := range args {
				line += "\t" + strings.ReplaceAll(strings.ReplaceAll(a, "\t", `\t`), "\n", `\n`)
			}
			if seen[line] {
				continue
			}
			seen[line] = true
			lines = append(lines, line)
			exprs = append(exprs, callSQL(&f, args))
		}
	}
	var out bytes.Buffer
	for i, r := range askPostgres(t, exprs) {
		fmt.Fprintf(&out, "%s\t=>\t%s\n", lines[i], escapeLine.Replace(r))
	}
	if err := os.WriteFile(functionsFile, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// callCase calls a function of the table over text arguments, by column and over several rows, and returns the text of
// the result.
func callCase(f *plan.Function, texts []string, scalarMask int) (string, error) {
	e := plan.Expr{Kind: plan.ExprCall, Func: f.Name, Type: f.Result}
	if f.Name == "cast" {
		e = plan.Expr{Kind: plan.ExprCast, Type: f.Result}
	}
	var schema record.Schema
	in := &record.Delta{N: 3}
	for i, text := range texts {
		typ := f.Args[min(i, len(f.Args)-1)]
		v := record.Value{Type: typ, Null: true}
		if text != `\N` {
			var err error
			if v, err = record.ParseText(typ, text); err != nil {
				return "", fmt.Errorf("argument: %w", err)
			}
		}
		if scalarMask&(1<<i) != 0 {
			e.Args = append(e.Args, plan.Expr{Kind: plan.ExprConst, Type: typ, Const: &v})
			continue
		}
		c := record.NewColumn(typ, 3)
		for range in.N {
			c.AppendValue(v)
		}
		e.Args = append(e.Args, plan.Expr{Kind: plan.ExprCol, Type: typ, Col: len(in.Cols)})
		in.Cols = append(in.Cols, c)
		schema = append(schema, record.Field{Type: typ})
	}
	errs := faults{mode: AdHoc}
	x, err := compile(&e, schema, Env{Mode: AdHoc}, &errs)
	if err != nil {
		return "", err
	}
	v := x.eval(in)
	if errs.err != nil {
		return "", errs.err
	}
	last := 2 & v.mask
	switch {
	case v.col.Null(last):
		return `\N`, nil
	case v.col.Type == record.Boolean:
		return strconv.FormatBool(v.col.Bools[last]), nil
	}
	return string(record.AppendText(nil, v.col, last)), nil
}

// closeEnough tells whether doubles differ in no more than the last bits, as those of other mathematical libraries do.
func closeEnough(got, want string) bool {
	a, err1 := strconv.ParseFloat(got, 64)
	b, err2 := strconv.ParseFloat(want, 64)
	return err1 == nil && err2 == nil && math.Abs(a-b) <= 4e-16*math.Max(math.Abs(a), math.Abs(b))
}

func TestPostgresFunctions(t *testing.T) {
	if *postgres != "" {
		rewriteFunctions(t)
	}
	file, err := os.Open(functionsFile)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	functions := map[string]plan.Function{}
	for _, f := range testFunctions() {
		functions[castSignature(&f)] = f
	}
	tested := map[string]bool{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		parts := strings.Split(lines.Text(), "\t")
		f, ok := functions[parts[0]]
		if !ok {
			t.Errorf("%s: no such function", parts[0])
			continue
		}
		tested[parts[0]] = true
		texts, want := parts[1:len(parts)-2], unescapeLine.Replace(parts[len(parts)-1])
		if knownDifference(&f, texts, want) {
			continue
		}
		args := make([]string, len(texts))
		for i, a := range texts {
			args[i] = a
			if f.Args[min(i, len(f.Args)-1)] == record.Text {
				args[i] = unescapeLine.Replace(a)
			}
		}
		for mask := range 1 << min(len(args), 3) {
			got, err := callCase(&f, args, mask)
			if err != nil {
				var e *fault.Error
				if errorsAs(err, &e) {
					got = "ERR " + e.GetSQLState()
				} else {
					got = err.Error()
				}
			}
			if got != want && !(f.Result == record.Double && closeEnough(got, want)) {
				t.Errorf("%s%q (constants %b): %s (%v), PostgreSQL says %s", parts[0], args, mask, got, err, want)
				break
			}
		}
	}
	for sig := range functions {
		if !tested[sig] {
			t.Errorf("%s isn't in %s", sig, functionsFile)
		}
	}
}

// knownDifference tells where Millrace means something else than PostgreSQL, on purpose.
func knownDifference(f *plan.Function, args []string, want string) bool {
	switch {
	case f.Result == record.Numeric && strings.Contains(want, "Infinity"), f.Result == record.TimestampTZ && strings.Contains(want, "infinity"):
		return true // NUMERIC and TIMESTAMPTZ have no infinities
	case f.Result == record.Numeric && len(want) > record.MaxNumericDigits:
		return true // nor as many digits
	}
	return false
}

func errorsAs(err error, e **fault.Error) bool { return errors.As(err, e) }
