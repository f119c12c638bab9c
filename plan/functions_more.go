package plan

import (
	"slices"

	"github.com/millrace/millrace/record"
)

// moreFunctions returns the functions of dates and times without a zone, comparisons of the types that came with them, and the functions of
// arrays, one overload for each type of element.
func moreFunctions() []string {
	out := slices.Concat(dateFunctions, numberFunctions, bytesFunctions, textFunctions, timeFunctions, jsonFunctions)
	for _, t := range record.Types() {
		n := t.String()
		if t > record.JSONB {
			out = append(out, "eq("+n+", "+n+") boolean", "ne("+n+", "+n+") boolean", "nullcall distinct("+n+", "+n+") boolean",
				"lt("+n+", "+n+") boolean", "le("+n+", "+n+") boolean", "gt("+n+", "+n+") boolean", "ge("+n+", "+n+") boolean")
		}
		if t.IsArray() {
			out = append(out, arrayFunctions(n, t.Elem().String())...)
		}
	}
	for _, t := range []record.Type{record.Timestamp, record.Date, record.Time} {
		n := t.String()
		out = append(out, "nullcall greatest("+n+"...) "+n, "nullcall least("+n+"...) "+n)
	}
	return out
}

// arrayFunctions are the functions of one type of arrays. array(...) is ARRAY[...]; any_* and all_* are x op ANY(array) and x op ALL(array).
func arrayFunctions(array, elem string) []string {
	out := []string{
		"nullcall array(" + elem + "...) " + array,
		"array_get(" + array + ", bigint) " + elem,            // array[i]
		"array_slice(" + array + ", bigint, bigint) " + array, // array[i:j]
		"array_length(" + array + ", bigint) bigint",
		"cardinality(" + array + ") bigint",
		"array_lower(" + array + ", bigint) bigint", "array_upper(" + array + ", bigint) bigint",
		"nullcall array_append(" + array + ", " + elem + ") " + array,
		"nullcall array_prepend(" + elem + ", " + array + ") " + array,
		"nullcall array_cat(" + array + ", " + array + ") " + array,
		"nullcall concat_op(" + array + ", " + array + ") " + array,
		"nullcall concat_op(" + array + ", " + elem + ") " + array,
		"nullcall concat_op(" + elem + ", " + array + ") " + array,
		"nullcall array_position(" + array + ", " + elem + ") bigint",
		"nullcall array_remove(" + array + ", " + elem + ") " + array,
		"array_contains(" + array + ", " + array + ") boolean", // @>
		"array_overlaps(" + array + ", " + array + ") boolean", // &&
		"array_to_string(" + array + ", text) text",
		"nullcall array_to_string(" + array + ", text, text) text",
		"nullcall array_position(" + array + ", " + elem + ", bigint) bigint",
		"nullcall array_positions(" + array + ", " + elem + ") bigint[]",
		"nullcall array_replace(" + array + ", " + elem + ", " + elem + ") " + array,
		"nullcall array_fill(" + elem + ", bigint[]) " + array,
		"array_dims(" + array + ") text", "array_ndims(" + array + ") bigint", "trim_array(" + array + ", bigint) " + array,
		"width_bucket(" + elem + ", " + array + ") bigint",
		"nullcall any_eq(" + elem + ", " + array + ") boolean", "nullcall any_ne(" + elem + ", " + array + ") boolean",
		"nullcall all_eq(" + elem + ", " + array + ") boolean", "nullcall all_ne(" + elem + ", " + array + ") boolean",
	}
	for _, rel := range []string{"lt", "le", "gt", "ge"} {
		out = append(out, "nullcall any_"+rel+"("+elem+", "+array+") boolean", "nullcall all_"+rel+"("+elem+", "+array+") boolean")
	}
	return out
}

var dateFunctions = []string{
	"add(date, bigint) date", "add(bigint, date) date", "sub(date, bigint) date", "sub(date, date) bigint",
	"add(date, interval) timestamp", "add(interval, date) timestamp", "sub(date, interval) timestamp",
	"add(date, time) timestamp", "add(time, date) timestamp",
	"add(timestamp, interval) timestamp", "add(interval, timestamp) timestamp", "sub(timestamp, interval) timestamp",
	"sub(timestamp, timestamp) interval",
	"add(time, interval) time", "add(interval, time) time", "sub(time, interval) time", "sub(time, time) interval",
	"date_trunc(text, timestamp) timestamp", "extract(text, timestamp) numeric", "extract(text, date) numeric", "extract(text, time) numeric",
	"date_part(text, timestamp) double precision", "date_part(text, date) double precision", "date_part(text, time) double precision",
	"date_bin(interval, timestamp, timestamp) timestamp", "to_char(timestamp, text) text", "age(timestamp, timestamp) interval",
	"make_date(bigint, bigint, bigint) date", "make_time(bigint, bigint, double precision) time",
	"make_timestamp(bigint, bigint, bigint, bigint, bigint, double precision) timestamp",
	"to_date(text, text) date", "to_timestamp(text, text) timestamptz",
	"timezone(text, timestamptz) timestamp", "timezone(text, timestamp) timestamptz", // AT TIME ZONE
	"timezone(interval, timestamptz) timestamp", "timezone(interval, timestamp) timestamptz",

	"regexp_match_op(text, text) boolean", "regexp_imatch_op(text, text) boolean", // ~, ~*
	"regexp_like(text, text) boolean", "regexp_like(text, text, text) boolean",
	"regexp_count(text, text) bigint", "regexp_substr(text, text) text",
	"regexp_replace(text, text, text) text", "regexp_replace(text, text, text, text) text",
	"regexp_match(text, text) text[]", "regexp_split_to_array(text, text) text[]",
	"nullcall string_to_array(text, text) text[]", "nullcall string_to_array(text, text, text) text[]",

	"sha224(bytea) bytea", "sha256(bytea) bytea", "sha384(bytea) bytea", "sha512(bytea) bytea",
	"convert_to(text, text) bytea", "convert_from(bytea, text) text",

	"json_get_path(jsonb, text[]) jsonb", "json_get_path_text(jsonb, text[]) text", // #>, #>>
	"concat_op(jsonb, jsonb) jsonb", "sub(jsonb, text) jsonb", "sub(jsonb, bigint) jsonb", "sub(jsonb, text[]) jsonb",
	"json_delete_path(jsonb, text[]) jsonb", // #-
	"jsonb_set(jsonb, text[], jsonb) jsonb", "jsonb_set(jsonb, text[], jsonb, boolean) jsonb", "jsonb_strip_nulls(jsonb) jsonb", "jsonb_pretty(jsonb) text",
	"gcd(bigint, bigint) bigint", "lcm(bigint, bigint) bigint", "to_hex(bigint) text", "bit_length(text) bigint",
	"json_exists_any(jsonb, text[]) boolean", "json_exists_all(jsonb, text[]) boolean", // ?|, ?&
}
