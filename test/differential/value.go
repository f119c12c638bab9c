package main

import (
	"strings"

	"github.com/millrace/millrace/record"
)

var (
	bigints = record.ArrayOf(record.BigInt)
	texts   = record.ArrayOf(record.Text)
)

// columnTypes are the types of columns.
var columnTypes = []record.Type{
	record.BigInt, record.Text, record.Double, record.Numeric, record.Boolean, record.TimestampTZ, record.IntervalT, record.JSONB,
	record.Date, record.Time, record.Timestamp, record.UUID, record.Bytea, bigints, texts,
	record.ArrayOf(record.Numeric), record.ArrayOf(record.Double), record.ArrayOf(record.TimestampTZ), record.ArrayOf(record.Boolean), record.ArrayOf(record.JSONB),
}

// pools is the values of columns and literals, as text. Few, so that they meet; no two of a pool are equal with different
// looks (1.0 and 1.00, 1 day and 24 hours), so that it doesn't matter which of them stands for a group. Doubles are such that
// sums and products are exact.
var pools = map[record.Type][]string{
	record.Boolean:     {"false", "true"},
	record.BigInt:      {"0", "1", "2", "3", "-1", "5", "7", "10", "-4", "100"},
	record.Double:      {"0", "1", "0.5", "-1", "1.5", "2.25", "-3.75", "8", "100"},
	record.Numeric:     {"0.00", "1.00", "1.50", "-1.25", "2.75", "10.00", "0.01", "-7.00"},
	record.Text:        {"", "a", "b", "ab", "abc", "Hello World", "x,y,z", "é", "10", "B", "aab", "a b"},
	record.Bytea:       {`\x`, `\x00ff`, `\x616263`, `\x61`},
	record.TimestampTZ: {"2024-01-01 00:00:00+00", "2024-01-01 00:00:05+00", "2024-01-01 00:00:10.5+00", "2023-12-31 23:59:59+00", "2024-02-29 12:00:00+00"},
	record.IntervalT:   {"00:00:05", "01:00:00", "1 day", "-00:15:00", "2 days", "00:00:01.5", "1 mon"},
	record.JSONB:       {`1`, `{"a": 1, "b": "x"}`, `[1, 2, "x"]`, `"s"`, `{"a": {"b": 2}, "c": [3]}`, `null`, `true`, `[]`, `{}`, `[{"a": 2}, null]`},
	record.Date:        {"2024-01-01", "2024-02-29", "2023-12-31", "1999-07-04"},
	record.Time:        {"00:00:00", "12:30:00", "23:59:59.5", "06:07:08"},
	record.Timestamp:   {"2024-01-01 00:00:00", "2024-02-29 12:34:56.5", "2023-12-31 23:59:59"},
	record.UUID:        {"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"},

	bigints:                            {"{}", "{1}", "{1,2,3}", "{1,NULL,3}", "{3,3,7}"},
	texts:                              {"{}", "{a}", "{a,b}", "{NULL,a,a}", `{"a b",""}`},
	record.ArrayOf(record.Numeric):     {"{}", "{1.00,2.50}", "{NULL,0.25}"},
	record.ArrayOf(record.Double):      {"{}", "{1.5,2}", "{NULL,0.25}"},
	record.ArrayOf(record.Boolean):     {"{}", "{t,f}", "{NULL,t}"},
	record.ArrayOf(record.JSONB):       {"{}", `{1,"{\"a\": 1}"}`, `{NULL,"[]"}`},
	record.ArrayOf(record.Bytea):       {"{}", `{"\\x61",NULL}`},
	record.ArrayOf(record.Date):        {"{}", "{2024-01-01,NULL}"},
	record.ArrayOf(record.Time):        {"{}", "{12:30:00,NULL}"},
	record.ArrayOf(record.Timestamp):   {"{}", `{"2024-01-01 00:00:00",NULL}`},
	record.ArrayOf(record.IntervalT):   {"{}", `{"1 day",01:00:00}`},
	record.ArrayOf(record.UUID):        {"{}", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"},
	record.ArrayOf(record.TimestampTZ): {"{}", `{"2024-01-01 00:00:00+00",NULL}`},
}

// jsonOf writes a value of a pool as JSON, as both sides take it.
func jsonOf(t record.Type, s string) string {
	switch {
	case t == record.Boolean, t == record.BigInt, t == record.Double, t == record.Numeric, t == record.JSONB:
		return s
	case t.IsArray():
		v, err := record.ParseText(t, s)
		if err != nil {
			panic(err) // a pool's own value
		}
		return string(record.AppendJSONValue(nil, v))
	}
	return jsonString(s)
}

func jsonString(s string) string { return `"` + jsonEscapes.Replace(s) + `"` }

var jsonEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// literal writes a value with its type.
func literal(t record.Type, s string) text {
	if t == record.BigInt && !strings.HasPrefix(s, "-") {
		return text{s, s + "::bigint"}
	}
	if t == record.Numeric && !strings.HasPrefix(s, "-") {
		return same(s)
	}
	if t == record.Boolean {
		return same(s)
	}
	return same(quote(s) + "::" + t.String())
}
