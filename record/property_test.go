package record

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/apd/v3"
	"pgregory.net/rapid"

	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

var allTypes = Types()

// someValue draws a value of type t, NULL now and then, with a liking for the edges.
func someValue(t *rapid.T, typ Type, nulls bool) Value {
	v := Value{Type: typ}
	if nulls && rapid.IntRange(0, 5).Draw(t, "null") == 0 {
		v.Null = true
		return v
	}
	if typ.IsArray() {
		elems := NewColumn(typ.Elem(), 0)
		for range rapid.IntRange(0, 3).Draw(t, "elements") {
			elems.AppendValue(someValue(t, typ.Elem(), true))
		}
		v.Bytes = AppendArray(nil, &elems)
		return v
	}
	switch typ {
	case Date:
		v.Int = rapid.OneOf(rapid.Int64Range(MinDate, MaxDate), rapid.Int64Range(-100_000, 100_000)).Draw(t, "date")
	case Time:
		v.Int = rapid.Int64Range(0, microsPerDay).Draw(t, "clock")
	case UUID:
		v.Bytes = rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid")
	case Boolean:
		v.Int = int64(rapid.IntRange(0, 1).Draw(t, "bool"))
	case BigInt:
		v.Int = rapid.Int64().Draw(t, "int")
	case TimestampTZ, Timestamp:
		v.Int = rapid.OneOf(rapid.Int64Range(MinTimestamp, MaxTimestamp), rapid.Int64Range(-1e15, 5e15)).Draw(t, "time")
	case Double:
		v.Float = rapid.OneOf(rapid.Float64(), rapid.Map(rapid.Uint64(), math.Float64frombits),
			rapid.SampledFrom([]float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1), 1e23, 1e15, 1e-5})).Draw(t, "double")
	case Numeric:
		v.Bytes = someNumeric(t)
	case Text:
		v.Bytes = []byte(strings.ReplaceAll(rapid.String().Draw(t, "text"), "\x00", ""))
	case Bytea:
		v.Bytes = rapid.SliceOf(rapid.SampledFrom([]byte{0, 1, 2, 0xfe, 0xff, 'a', '\\'})).Draw(t, "bytea")
	case IntervalT:
		small := rapid.Int32Range(-40, 40)
		v.Interval = Interval{
			Months: rapid.OneOf(rapid.Int32(), small).Draw(t, "months"), Days: rapid.OneOf(rapid.Int32(), small).Draw(t, "days"),
			Micros: rapid.OneOf(rapid.Int64(), rapid.Map(rapid.Int64Range(-50, 50), func(h int64) int64 { return h * 3_600_000_000 })).Draw(t, "micros"),
		}
	case JSONB:
		doc, err := json.Marshal(someJSON(t, 3))
		if err != nil {
			t.Fatal(err)
		}
		if v.Bytes, err = parseJSONB(doc); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func someNumeric(t *rapid.T) []byte {
	s := rapid.OneOf(rapid.StringMatching(`-?(0|[1-9][0-9]{0,30})(\.[0-9]{0,20})?(e-?[0-9]{1,2})?`), rapid.SampledFrom([]string{"NaN", "0", "-0.000", "1e1000", "1e-1000"})).Draw(t, "numeric")
	out, e := appendNumericText(nil, s)
	if e != numericOK {
		return []byte("0")
	}
	return out
}

func someJSON(t *rapid.T, depth int) any {
	most := 6
	if depth == 0 {
		most = 4
	}
	text := rapid.Map(rapid.String(), func(s string) string { return strings.ReplaceAll(s, "\x00", "") })
	switch rapid.IntRange(0, most).Draw(t, "kind") {
	case 0:
		return nil
	case 1:
		return rapid.Bool().Draw(t, "b")
	case 2, 3:
		n := someNumeric(t)
		if string(n) == "NaN" {
			n = []byte("1")
		}
		return json.Number(n)
	case 4:
		return text.Draw(t, "s")
	case 5:
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			list = append(list, someJSON(t, depth-1))
		}
		return list
	}
	object := map[string]any{}
	for range rapid.IntRange(0, 3).Draw(t, "n") {
		object[text.Draw(t, "name")] = someJSON(t, depth-1)
	}
	return object
}

func columnOf(typ Type, values ...Value) *Column {
	c := NewColumn(typ, 0)
	for _, v := range values {
		c.AppendValue(v)
	}
	return &c
}

// same tells whether two values are the same to the last bit, all NaNs being one.
func same(a, b Value) bool {
	if a.Null || b.Null {
		return a.Null == b.Null && a.Type == b.Type
	}
	if a.Type == Double {
		return a.Type == b.Type && (math.Float64bits(a.Float) == math.Float64bits(b.Float) || (a.Float != a.Float && b.Float != b.Float))
	}
	return a.Type == b.Type && a.Int == b.Int && a.Interval == b.Interval && bytes.Equal(a.Bytes, b.Bytes)
}

func TestTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := someValue(t, rapid.SampledFrom(allTypes).Draw(t, "type"), false)
		text := string(AppendTextValue(nil, v))
		got, err := ParseText(v.Type, text)
		if err != nil || !same(got, v) {
			t.Fatalf("%+v prints as %q, which reads as %+v, %v", v, text, got, err)
		}
		c := columnOf(v.Type, v)
		if s := string(AppendText(nil, c, 0)); s != text {
			t.Fatalf("AppendText says %q, AppendTextValue %q", s, text)
		}
		j := AppendJSONValue(nil, v)
		if !json.Valid(j) {
			t.Fatalf("%s is not JSON", j)
		}
		if s := string(AppendJSON(nil, c, 0)); s != string(j) {
			t.Fatalf("AppendJSON says %s, AppendJSONValue %s", s, j)
		}
		p, err := FromProto(v.Type, ToProto(c, 0))
		if err != nil || !same(p, v) {
			t.Fatalf("%+v comes back from protobuf as %+v, %v", v, p, err)
		}
	})
}

func TestValueJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := someValue(t, rapid.SampledFrom(append(allTypes, Unknown)).Draw(t, "type"), true)
		b, err := json.Marshal(&v)
		if err != nil {
			t.Fatal(err)
		}
		var got Value
		if err := json.Unmarshal(b, &got); err != nil || !same(got, v) {
			t.Fatalf("%+v is %s, which reads as %+v, %v", v, b, got, err)
		}
	})
}

// TestOrdered checks the three promises of the ordered encoding: it orders as Compare does, equal values have equal
// bytes, and it decodes to an equal value and to nothing of what follows.
func TestOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typ := rapid.SampledFrom(allTypes).Draw(t, "type")
		a, b := someValue(t, typ, true), someValue(t, typ, true)
		if rapid.Bool().Draw(t, "near") {
			b = nearTo(t, a)
		}
		c := columnOf(typ, a, b)
		x, y := AppendOrdered(nil, c, 0), AppendOrdered(nil, c, 1)
		want := 0
		switch {
		case a.Null && b.Null:
		case a.Null:
			want = 1
		case b.Null:
			want = -1
		default:
			want = Compare(a, b)
			if Compare(b, a) != -want {
				t.Fatalf("Compare is not symmetric: %+v %+v", a, b)
			}
		}
		if got := bytes.Compare(x, y); got != want {
			t.Fatalf("%s and %s: bytes compare %d, values %d", AppendTextValue(nil, a), AppendTextValue(nil, b), got, want)
		}
		if !bytes.Equal(AppendOrderedValue(nil, a), x) {
			t.Fatal("AppendOrderedValue differs from AppendOrdered")
		}
		back := columnOf(typ)
		rest, err := DecodeOrdered(slices.Concat(x, y, []byte("rest")), back)
		if err == nil {
			rest, err = DecodeOrdered(rest, back)
		}
		if err != nil || string(rest) != "rest" || back.N != 2 {
			t.Fatalf("decoded %d values, rest %q, %v", back.N, rest, err)
		}
		for i, v := range []Value{a, b} {
			got := back.Value(i)
			if got.Null != v.Null || (!v.Null && Compare(got, v) != 0) {
				t.Fatalf("%+v decodes as %+v", v, got)
			}
		}
		d := &Delta{N: 2, Cols: []Column{*c}}
		if k0, k1 := AppendPartitionKey(nil, d, []int{0}, 0), AppendPartitionKey(nil, d, []int{0}, 1); bytes.Equal(k0, k1) != (want == 0) {
			t.Fatalf("partition keys %q and %q of values that compare %d", k0, k1, want)
		}
	})
}

// nearTo returns a value that often equals v, in another form.
func nearTo(t *rapid.T, v Value) Value {
	if v.Null {
		return v
	}
	switch v.Type {
	case Double:
		v.Float = -v.Float
	case Numeric:
		if bytes.IndexByte(v.Bytes, '.') < 0 && string(v.Bytes) != "NaN" {
			v.Bytes = append(bytes.Clone(v.Bytes), '.')
		}
		if string(v.Bytes) != "NaN" && len(v.Bytes) < 900 {
			v.Bytes = append(bytes.Clone(v.Bytes), strings.Repeat("0", rapid.IntRange(1, 3).Draw(t, "zeros"))...)
		}
	case Text, Bytea:
		v.Bytes = append(bytes.Clone(v.Bytes), rapid.SampledFrom([]string{"\x01", "a", "a\x01"}).Draw(t, "tail")...)
	case IntervalT:
		if n := v.Interval; n.Days > -1000 && n.Days < 1000 && n.Months > -1000 && n.Months < 1000 && n.Micros < math.MaxInt64-microsPerDay {
			v.Interval = Interval{Months: n.Months + 1, Days: n.Days - 31, Micros: n.Micros + microsPerDay}
		}
	}
	return v
}

// someDelta draws a schema and rows, with appends and truncations between.
func someDelta(t *rapid.T) (*Delta, Schema) {
	var s Schema
	for range rapid.IntRange(0, 5).Draw(t, "columns") {
		s = append(s, Field{Name: "c", Type: rapid.SampledFrom(allTypes).Draw(t, "type")})
	}
	d := NewDelta(s, 0)
	if rapid.Bool().Draw(t, "weights") {
		d.Weights = []int64{}
	}
	for range rapid.IntRange(0, 20).Draw(t, "rows") {
		for k := range d.Cols {
			d.Cols[k].AppendValue(someValue(t, s[k].Type, rapid.Bool().Draw(t, "nulls")))
		}
		if d.Weights != nil {
			d.Weights = append(d.Weights, rapid.Int64().Draw(t, "weight"))
		}
		d.N++
	}
	return d, s
}

func sameDelta(t *rapid.T, got, want *Delta) {
	t.Helper()
	if got.N != want.N || len(got.Cols) != len(want.Cols) || (got.Weights == nil) != (want.Weights == nil) {
		t.Fatalf("%d rows, %d columns; want %d, %d", got.N, len(got.Cols), want.N, len(want.Cols))
	}
	for i := range want.N {
		if got.Weight(i) != want.Weight(i) {
			t.Fatalf("row %d: weight %d, want %d", i, got.Weight(i), want.Weight(i))
		}
		for k := range want.Cols {
			if g, w := got.Cols[k].Value(i), want.Cols[k].Value(i); !same(g, w) {
				t.Fatalf("row %d column %d: %+v, want %+v", i, k, g, w)
			}
		}
	}
}

func TestMarshalDelta(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, s := someDelta(t)
		// At any alignment, and behind other bytes.
		prefix := make([]byte, rapid.IntRange(0, 9).Draw(t, "prefix"))
		src := MarshalDelta(slices.Clone(prefix), d)[len(prefix):]
		if n := EncodedBytes(d); n != len(src) {
			t.Fatalf("%d bytes, not %d", len(src), n)
		}
		got, err := UnmarshalDelta(src, s)
		if err != nil {
			t.Fatal(err)
		}
		sameDelta(t, got, d)
		for k := range got.Cols {
			if got.Cols[k].N != d.N {
				t.Fatalf("column %d has N %d, want %d", k, got.Cols[k].N, d.N)
			}
		}
		if again := MarshalDelta(nil, got); !bytes.Equal(again, src) {
			t.Fatal("encoded again it differs")
		}
		for _, n := range []int{0, len(src) / 2, len(src) - 1} {
			if _, err := UnmarshalDelta(src[:n], s); err == nil {
				t.Fatalf("the first %d of %d bytes are taken for a delta", n, len(src))
			}
		}
	})
}

func TestRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, s := someDelta(t)
		cols := rapid.Permutation(indices(len(s))).Draw(t, "order")
		back := NewDelta(s, 0)
		for i := range d.N {
			row := AppendRow(nil, d, cols, i)
			if len(row) > 0 {
				if err := DecodeRow(row[:len(row)-1], back, cols); err == nil {
					t.Fatal("a row without its last byte is taken")
				}
			}
			if err := DecodeRow(append(slices.Clone(row), 0), back, cols); err == nil {
				t.Fatal("a row with a byte more is taken")
			}
			if err := DecodeRow(row, back, cols); err != nil {
				t.Fatal(err)
			}
			if d.Weights != nil {
				back.Weights = append(back.Weights, d.Weights[i])
			}
			back.N++
		}
		if d.Weights != nil && back.Weights == nil {
			back.Weights = []int64{}
		}
		sameDelta(t, back, d)
	})
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// TestColumn runs appends, NULLs, truncations and resets against a slice of values.
func TestColumn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typ := rapid.SampledFrom(allTypes).Draw(t, "type")
		c := NewColumn(typ, rapid.IntRange(0, 4).Draw(t, "room"))
		var model []Value
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			switch rapid.IntRange(0, 30).Draw(t, "step") {
			case 0:
				c.Reset()
				model = model[:0]
			case 1, 2:
				n := rapid.IntRange(0, len(model)).Draw(t, "keep")
				c.truncate(n)
				model = model[:n]
			case 3, 4, 5:
				c.AppendNull()
				model = append(model, Value{Type: typ, Null: true})
			case 6:
				if len(model) > 0 {
					src := columnOf(typ, model...)
					c.AppendFrom(src, len(model)-1)
					model = append(model, model[len(model)-1])
				}
			case 7:
				more := make([]Value, rapid.IntRange(0, 20).Draw(t, "values"))
				nulls := rapid.Bool().Draw(t, "nulls")
				for i := range more {
					more[i] = someValue(t, typ, nulls)
				}
				c.AppendAll(columnOf(typ, more...))
				model = append(model, more...)
			default:
				v := someValue(t, typ, false)
				c.AppendValue(v)
				model = append(model, v)
			}
		}
		if c.N != len(model) {
			t.Fatalf("N is %d, want %d", c.N, len(model))
		}
		for i, want := range model {
			if got := c.Value(i); !same(got, want) {
				t.Fatalf("value %d: %+v, want %+v", i, got, want)
			}
		}
	})
}

// TestNullAfterMany is the case of a first NULL far behind: the bitmap is made with its bits set.
func TestNullAfterMany(t *testing.T) {
	for n := range 200 {
		for _, typ := range allTypes {
			c := NewColumn(typ, n)
			for range n {
				c.AppendValue(Value{Type: typ})
			}
			c.AppendNull()
			for i := range n {
				if c.Null(i) {
					t.Fatalf("%s: value %d of %d is NULL", typ, i, n)
				}
			}
			if !c.Null(n) {
				t.Fatalf("%s: value %d is not NULL", typ, n)
			}
		}
	}
}

// asText returns the array that the text of one stands for: there is one NaN, and JSON's null is SQL's NULL.
func asText(typ Type, src []byte, format string) []byte {
	c := elements(typ, src)
	out := NewColumn(typ.Elem(), 0)
	for i := range c.N {
		v := c.Value(i)
		if v.Type == Double && v.Float != v.Float {
			v.Float = math.NaN()
		}
		if v.Type == JSONB && string(v.Bytes) == "null" && format == FormatJSON {
			v.Null = true
		}
		out.AppendValue(v)
	}
	return AppendArray(nil, &out)
}

// TestEncodeDecode writes rows as records of each format and reads them back.
func TestEncodeDecode(t *testing.T) {
	set := compile(t, `syntax = "proto3"; package test; import "google/protobuf/timestamp.proto"; import "google/protobuf/struct.proto";
		message M { optional bool c0 = 1; optional sint64 c1 = 2; optional double c2 = 3; optional string c3 = 4; optional string c4 = 5;
		optional bytes c5 = 6; google.protobuf.Timestamp c6 = 7; optional string c7 = 8; optional string c8 = 9;
		optional string c9 = 10; optional string c10 = 11; optional string c11 = 12; optional string c12 = 13; }`)
	for _, format := range []string{FormatJSON, FormatCSV, FormatProtobuf} {
		t.Run(format, func(t *testing.T) {
			s := &millracev1.Stream{Name: "s", Format: format, DescriptorSet: set, Message: "test.M"}
			var schema Schema
			var names []string
			for i, typ := range allTypes {
				if typ.IsArray() && format == FormatProtobuf {
					continue
				}
				name := "c" + strconv.Itoa(i)
				s.Columns = append(s.Columns, &millracev1.Column{Name: name, Type: typ.String()})
				schema = append(schema, Field{Name: name, Type: typ})
				names = append(names, name)
			}
			enc, err := NewEncoder(s)
			if err != nil {
				t.Fatal(err)
			}
			dec, err := NewDecoder(s, names)
			if err != nil {
				t.Fatal(err)
			}
			rapid.Check(t, func(t *rapid.T) {
				d := NewDelta(schema, 0)
				for k := range d.Cols {
					v := someValue(t, schema[k].Type, true)
					if v.Type == JSONB && string(v.Bytes) == "null" && format == FormatJSON {
						v.Null = true // JSON's null is SQL's NULL
					}
					if v.Type.IsArray() && !v.Null {
						v.Bytes = asText(v.Type, v.Bytes, format)
					}
					d.Cols[k].AppendValue(v)
				}
				d.N = 1
				value, err := enc.Encode([]byte("before"), d, 0)
				if err != nil {
					t.Fatal(err)
				}
				value = value[len("before"):]
				if format == FormatJSON {
					if err := CheckJSON(value); err != nil {
						t.Fatalf("%s: %v", value, err)
					}
				}
				var b BatchBuilder
				b.Add(nil, false, value)
				got := NewDelta(schema, 0)
				err = dec.Decode(b.Payload(), Meta{}, got, func(_ ids.Offset, _ []byte, _ bool, value []byte, err error) {
					t.Fatalf("%q is dead: %v", value, err)
				})
				if err != nil {
					t.Fatal(err)
				}
				sameDelta(t, got, d)
			})
		})
	}
}

func TestNumericDecimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := someNumeric(t)
		var d apd.Decimal
		if err := ParseNumeric(&d, text); err != nil {
			t.Fatal(err)
		}
		got, err := AppendNumeric([]byte("x"), &d)
		if err != nil || string(got) != "x"+string(text) {
			t.Fatalf("%s comes back as %s, %v", text, got, err)
		}
		other := someNumeric(t)
		var o apd.Decimal
		if err := ParseNumeric(&o, other); err != nil {
			t.Fatal(err)
		}
		if d.Form == apd.Finite && o.Form == apd.Finite {
			if got, want := CompareNumeric(text, other), d.Cmp(&o); got != want {
				t.Fatalf("%s and %s compare %d, want %d", text, other, got, want)
			}
		}
	})
}
