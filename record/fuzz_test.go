package record

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"io"
	"math"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cockroachdb/apd/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// readOne reads one record with all declared columns wanted, and again with all only checked: both must agree on
// whether it is dead.
func readOne(t *testing.T, s *millracev1.Stream, record []byte) ([]Value, error) {
	t.Helper()
	before := bytes.Clone(record)
	var values [2][]Value
	var errs [2]error
	for i, need := range []need{needCheck, needValue} {
		cols, err := declaredColumns(s)
		if err != nil {
			t.Fatal(err)
		}
		for k := range cols {
			cols[k].need = need
			values[i] = append(values[i], Value{Type: cols[k].typ})
		}
		f, err := newFormat(s, cols)
		if err != nil {
			t.Fatal(err)
		}
		errs[i] = f.read(record, values[i])
	}
	if (errs[0] == nil) != (errs[1] == nil) {
		t.Fatalf("%q: checked %v, wanted %v", record, errs[0], errs[1])
	}
	if errs[1] != nil && (fault.KindOf(errs[1]) == fault.Internal || !utf8.ValidString(errs[1].Error())) {
		t.Fatalf("%q: error %v", record, errs[1])
	}
	if !bytes.Equal(before, record) {
		t.Fatalf("the record %q was changed to %q", before, record)
	}
	for k := range values[1] {
		v := &values[1][k]
		if v.Bytes != nil && !v.Null && v.Type.Varlen() {
			v.Bytes = bytes.Clone(v.Bytes)
		}
	}
	return values[1], errs[1]
}

var surrogate = regexp.MustCompile(`(?i)\\ud[89a-f]`)

// FuzzDecodeJSON compares with encoding/json: a record decodes only if that takes it too, to the same values; and
// what that takes is dead only for a reason that it doesn't check.
func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{`{"i":1,"t":"a","j":[1,{"b":2,"a":1}]}`, `{"i":1.50e1,"t":"\u00e9\n","t":"\ud83d\ude00"}`, ` { } `, `{"i":null,"x":{"i":2}}`,
		`{"\u0069":7,"j":"\\u0000"}`, `{"j":{"a":1,"a":2,"":[]}}`, `{"i":-0,"t":""}x`, "{\"t\":\"\xff\"}", `[{"i":1}]`, `{"j":1e-3}`, `{"i":9223372036854775808}`} {
		f.Add([]byte(s))
	}
	s := stream(FormatJSON, "i bigint", "t text", "j jsonb")
	f.Fuzz(func(t *testing.T, doc []byte) {
		got, err := readOne(t, s, doc)
		var want map[string]json.RawMessage
		werr := json.Unmarshal(doc, &want)
		object := werr == nil && want != nil
		if err == nil && !object {
			t.Fatalf("%q: taken, but encoding/json says %v", doc, werr)
		}
		if checked := CheckJSON(doc); err == nil && checked != nil {
			t.Fatalf("%q: decodes, but CheckJSON says %v", doc, checked)
		}
		if err != nil {
			if object && strings.HasPrefix(err.Error(), "malformed") && utf8.Valid(doc) && !surrogate.Match(doc) {
				t.Fatalf("%q: %v, but encoding/json takes it", doc, err)
			}
			return
		}
		sameInteger(t, got[0], want["i"])
		sameText(t, got[1], want["t"])
		if raw := want["j"]; raw == nil || string(raw) == "null" {
			if !got[2].Null {
				t.Fatalf("%q: j is %s, want NULL", doc, got[2].Bytes)
			}
		} else if g, w := anyOf(t, got[2].Bytes), anyOf(t, raw); !reflect.DeepEqual(g, w) {
			t.Fatalf("%q: j is %v, want %v", doc, g, w)
		}
	})
}

func sameInteger(t *testing.T, got Value, raw json.RawMessage) {
	if raw == nil || string(raw) == "null" {
		if !got.Null {
			t.Fatalf("%d, want NULL", got.Int)
		}
		return
	}
	want, _, err := apd.NewFromString(string(raw))
	if err != nil || got.Null || want.Cmp(apd.New(got.Int, 0)) != 0 {
		t.Fatalf("%s is read as %+v (%v)", raw, got, err)
	}
}

func sameText(t *testing.T, got Value, raw json.RawMessage) {
	var want *string
	if raw != nil {
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatalf("%s is read as text", raw)
		}
	}
	if got.Null != (want == nil) || (want != nil && string(got.Bytes) != *want) {
		t.Fatalf("%s is read as %+v", raw, got)
	}
}

// anyOf decodes JSON with numbers by value, digits after the point counted.
func anyOf(t *testing.T, doc []byte) any {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	return numbers(v)
}

func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		out, e := appendDecimal(nil, []byte(v))
		if e != numericOK {
			return "out of range"
		}
		return "number " + string(out)
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

// FuzzDecodeCSV compares with encoding/csv where both mean the same by a record.
func FuzzDecodeCSV(f *testing.F) {
	for _, s := range []string{"a,b,c", `"a,b","x""y",`, ",,", `"",a,"`, "a\nb,c,d", `"a` + "\n" + `b",c,d` + "\n", "a,b", "é,\xff,\x00", `a"b,c,d`} {
		f.Add([]byte(s))
	}
	s := stream(FormatCSV, "a bytea", "b bytea", "c bytea")
	f.Fuzz(func(t *testing.T, doc []byte) {
		// bytea takes any field without a backslash as it is.
		if bytes.ContainsAny(doc, "\\\r") || len(bytes.TrimSpace(doc)) == 0 || doc[0] == '\n' {
			return
		}
		got, err := readOne(t, s, doc)
		r := csv.NewReader(bytes.NewReader(doc))
		r.FieldsPerRecord = 3
		want, werr := r.Read()
		if werr == nil {
			if _, more := r.Read(); more != io.EOF {
				werr = more
				if more == nil {
					werr = io.ErrNoProgress
				}
			}
		}
		// encoding/csv skips empty lines, which here are part of no record.
		if err != nil && werr == nil && bytes.HasSuffix(doc, []byte("\n\n")) {
			return
		}
		if (err == nil) != (werr == nil) {
			t.Fatalf("%q: %v, encoding/csv says %v", doc, err, werr)
		}
		if err != nil {
			return
		}
		for k, v := range got {
			if v.Null != (len(want[k]) == 0 && v.Null) || (!v.Null && string(v.Bytes) != want[k]) {
				t.Fatalf("%q: field %d is %q, want %q", doc, k, v.Bytes, want[k])
			}
		}
	})
}

const fuzzProto = `syntax = "proto3"; package test;
	message M { int32 a = 1; sint64 b = 2; double c = 3; fixed32 d = 4; bool e = 5; bytes f = 6; optional uint32 g = 7;
	oneof o { int64 h = 8; bytes i = 9; } N n = 10; repeated int32 l = 11; } message N { int32 x = 1; }`

// FuzzDecodeProtobuf compares with the protobuf library.
func FuzzDecodeProtobuf(f *testing.F) {
	for _, s := range []string{"", "\x08\x01\x10\x03", "\x19\x00\x00\x00\x00\x00\x00\xf8\x3f\x25\x01\x00\x00\x00\x28\x01", "\x32\x01a\x38\x00\x40\x05\x4a\x01b", "\x52\x02\x08\x01\x5a\x02\x01\x02\x58\x03", "\x4a\x01b\x40\x05", "\x0b\x08\x01\x0c", "\x08\x80"} {
		f.Add([]byte(s))
	}
	s := stream(FormatProtobuf, "a bigint", "b bigint", "c double precision", "d bigint", "e boolean", "f bytea", "g bigint", "h bigint", "i bytea", "n jsonb", "l jsonb")
	s.DescriptorSet, s.Message = compile(f, fuzzProto), "test.M"
	m, err := newProtobufMessage(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		got, err := readOne(t, s, doc)
		msg := dynamicpb.NewMessage(m.desc)
		werr := proto.Unmarshal(doc, msg)
		if (err == nil) != (werr == nil) {
			t.Fatalf("%x: %v, protobuf says %v", doc, err, werr)
		}
		if err != nil {
			return
		}
		for k, c := range s.Columns {
			fd := m.desc.Fields().ByName(protoreflect.Name(c.Name))
			has := !fd.HasPresence() || msg.Has(fd)
			if got[k].Null == has {
				t.Fatalf("%x: %s is %+v", doc, c.Name, got[k])
			}
			if !has {
				continue
			}
			want := msg.Get(fd)
			ok := true
			switch fd.Kind() {
			case protoreflect.DoubleKind:
				ok = math.Float64bits(got[k].Float) == math.Float64bits(want.Float()) || want.Float() != want.Float()
			case protoreflect.BoolKind:
				ok = (got[k].Int != 0) == want.Bool()
			case protoreflect.BytesKind:
				ok = bytes.Equal(got[k].Bytes, want.Bytes())
			case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
				ok = got[k].Int == int64(want.Uint())
			case protoreflect.MessageKind:
				x := want.Message().Get(fd.Message().Fields().ByName("x")).Int()
				ok = string(got[k].Bytes) == "{}" && x == 0 || x != 0 && anyOf(t, got[k].Bytes).(map[string]any)["x"] == "number "+string(AppendTextValue(nil, Value{Type: BigInt, Int: x}))
			case protoreflect.Int32Kind:
				if fd.IsList() {
					ok = len(anyOf(t, got[k].Bytes).([]any)) == want.List().Len()
					break
				}
				ok = got[k].Int == want.Int()
			default:
				ok = got[k].Int == want.Int()
			}
			if !ok {
				t.Fatalf("%x: %s is %+v, want %v", doc, c.Name, got[k], want)
			}
		}
	})
}

// FuzzRecords compares the walk over a batch with the protobuf library.
func FuzzRecords(f *testing.F) {
	var b BatchBuilder
	b.Add([]byte("key"), true, []byte("value"))
	b.Add(nil, false, bytes.Repeat([]byte{'v'}, 200))
	b.Add(nil, true, nil)
	f.Add(b.Payload())
	for _, s := range []string{"", "\x0a", "\x0a\x80", "\x0a\x05\x12\x01a", "\x10\x01", "\x8a\x00\x02\x12\x00", "\x0a\x04\x12\x00\x0a\x00", "\x0a\x03\x18\x01\x05", "\x0b\x0c", "\x0a\xff\xff\xff\xff\x0f"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var want millracev1.Records
		werr := proto.Unmarshal(raw, &want)
		it := NewIter(raw)
		n := 0
		for it.Next() {
			if werr == nil {
				if n >= len(want.Records) {
					t.Fatalf("%x: more than %d records", raw, len(want.Records))
				}
				r := want.Records[n]
				key, hasKey := it.Key()
				if !bytes.Equal(key, r.Key) || hasKey != (r.Key != nil) || !bytes.Equal(it.Value(), r.Value) {
					t.Fatalf("%x: record %d is %q %v %q, want %v", raw, n, key, hasKey, it.Value(), r)
				}
			}
			n++
		}
		if (it.Err() == nil) != (werr == nil) {
			t.Fatalf("%x: %v, protobuf says %v", raw, it.Err(), werr)
		}
		if werr == nil && n != len(want.Records) {
			t.Fatalf("%x: %d records, want %d", raw, n, len(want.Records))
		}
		if err := CheckRecords(raw, n); (err == nil) != (werr == nil) {
			t.Fatalf("%x: CheckRecords says %v", raw, err)
		}
	})
}

// schemaOf takes a schema off the front of fuzzed bytes.
func schemaOf(b []byte) (Schema, []byte) {
	if len(b) == 0 {
		return nil, nil
	}
	n := int(b[0]) % 5
	b = b[1:]
	var s Schema
	for ; n > 0 && len(b) > 0; n-- {
		s = append(s, Field{Type: allTypes[int(b[0])%len(allTypes)]})
		b = b[1:]
	}
	return s, b
}

// use touches every value in every way that operators do.
func use(d *Delta) {
	for i := range d.N {
		d.Weight(i)
		for k := range d.Cols {
			c := &d.Cols[k]
			AppendText(nil, c, i)
			AppendJSON(nil, c, i)
			AppendOrdered(nil, c, i)
			if !c.Null(i) {
				Compare(c.Value(i), c.Value(i))
			}
		}
		AppendRow(nil, d, indices(len(d.Cols)), i)
	}
}

func FuzzUnmarshalDelta(f *testing.F) {
	d := NewDelta(Schema{{Type: Boolean}, {Type: BigInt}, {Type: Text}, {Type: IntervalT}}, 0)
	d.Weights = []int64{}
	for i := range 3 {
		d.Cols[0].AppendBool(i == 1)
		d.Cols[1].AppendNull()
		d.Cols[2].AppendString("abc")
		d.Cols[3].AppendInterval(Interval{1, 2, 3})
		d.Weights = append(d.Weights, -1)
		d.N++
	}
	f.Add(MarshalDelta([]byte{4, 0, 1, 4, 7}, d))
	f.Add([]byte{0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0})
	f.Add([]byte{1, 3, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x07, 1, 4, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, src := schemaOf(b)
		d, err := UnmarshalDelta(src, s)
		if err != nil {
			if k := fault.KindOf(err); k != fault.Corrupted && k != fault.Unsupported {
				t.Fatal(err)
			}
			return
		}
		if d.N > 1<<16 && len(d.Cols) == 0 {
			return // rows without columns cost nothing, and using them takes for ever
		}
		use(d)
		again, err := UnmarshalDelta(MarshalDelta(nil, d), s)
		if err != nil || again.N != d.N {
			t.Fatalf("%x decodes, but not when encoded again: %v", src, err)
		}
	})
}

func FuzzDecodeRow(f *testing.F) {
	f.Add([]byte{3, 1, 4, 7, 0, 2, 1, 'a', 2, 4, 6})
	f.Add([]byte{1, 4, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{2, 3, 8, 1, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, src := schemaOf(b)
		d := NewDelta(s, 0)
		cols := indices(len(s))
		if err := DecodeRow(src, d, cols); err != nil {
			if fault.KindOf(err) != fault.Corrupted {
				t.Fatal(err)
			}
			for k := range d.Cols {
				if d.Cols[k].N != 0 {
					t.Fatalf("column %d has %d values after %v", k, d.Cols[k].N, err)
				}
			}
			return
		}
		d.N = 1
		use(d)
		again := NewDelta(s, 0)
		if err := DecodeRow(AppendRow(nil, d, cols, 0), again, cols); err != nil {
			t.Fatal(err)
		}
		for k := range cols {
			if !same(d.Cols[k].Value(0), again.Cols[k].Value(0)) {
				t.Fatalf("%+v comes back as %+v", d.Cols[k].Value(0), again.Cols[k].Value(0))
			}
		}
	})
}

func FuzzDecodeOrdered(f *testing.F) {
	for i, v := range []Value{{Type: Boolean, Int: 1}, {Type: BigInt, Int: -5}, {Type: Double, Float: 1.5}, {Type: Numeric, Bytes: []byte("-12.345")}, {Type: Text, Bytes: []byte("a\x00b")},
		{Type: Bytea}, {Type: TimestampTZ, Int: 7}, {Type: IntervalT, Interval: Interval{-1, 2, 3}}, {Type: JSONB, Bytes: []byte(`{"a": [1, "x", null, true], "bb": {}}`)}} {
		f.Add(byte(i), AppendOrderedValue(nil, v))
	}
	f.Add(byte(3), []byte{1, 3, 0xff, 0xff, 2, 0})
	f.Add(byte(8), []byte{1, jsonbArray, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, typ byte, src []byte) {
		c := columnOf(allTypes[int(typ)%len(allTypes)])
		rest, err := DecodeOrdered(src, c)
		if err != nil {
			if fault.KindOf(err) != fault.Corrupted || c.N != 0 || len(c.Bytes) > 0 {
				t.Fatalf("%d values, %d bytes, %v", c.N, len(c.Bytes), err)
			}
			return
		}
		if !bytes.HasSuffix(src, rest) || c.N != 1 {
			t.Fatalf("rest %x of %x, %d values", rest, src, c.N)
		}
		// What decodes is a value, and its own encoding is a fixed point.
		enc := AppendOrdered(nil, c, 0)
		again := columnOf(c.Type)
		if rest, err := DecodeOrdered(enc, again); err != nil || len(rest) > 0 || !bytes.Equal(AppendOrdered(nil, again, 0), enc) {
			t.Fatalf("%x: %s encodes as %x, which decodes as %s, %v", src, AppendText(nil, c, 0), enc, AppendText(nil, again, 0), err)
		}
	})
}

func FuzzParseText(f *testing.F) {
	for _, s := range []string{"1", "t", "1.50", "-1e-5", "NaN", "abc", `\xff00`, `\001`, "2001-01-01T00:00:00.123456789+02:30", "Jan 8, 99 BC 04:05 PM", "20010203 040506", "1 year -2 mons 03:04:05.6 ago", "P1Y2M3DT4H5M6.7S",
		"1-2", `{"a":[1,2.0,"\u00e9"]}`, "infinity", " 5 ", "99999999999999999999", "178956971 years", "0.5 c", "\xff"} {
		for typ := range allTypes {
			f.Add(byte(typ), s)
		}
	}
	f.Fuzz(func(t *testing.T, typ byte, s string) {
		v, err := ParseText(allTypes[int(typ)%len(allTypes)], s)
		if err != nil {
			if k := fault.KindOf(err); (k != fault.Invalid && k != fault.Unsupported) || !utf8.ValidString(err.Error()) || sqlState(err) == "?" {
				t.Fatalf("%s %q: %v", allTypes[int(typ)%len(allTypes)], s, err)
			}
			return
		}
		text := string(AppendTextValue(nil, v))
		got, err := ParseText(v.Type, text)
		if err != nil || !same(v, got) {
			t.Fatalf("%s %q is %+v, prints as %q, which reads as %+v, %v", v.Type, s, v, text, got, err)
		}
		if j := AppendJSONValue(nil, v); !json.Valid(j) {
			t.Fatalf("%s %q has the JSON %s", v.Type, s, j)
		}
		// Records read the same from text.
		var r textReader
		other := Value{Type: v.Type}
		if err := r.read(v.Type, []byte(s), &other); err != nil || !same(other, v) {
			t.Fatalf("%s %q: a record has %+v, %v", v.Type, s, other, err)
		}
	})
}

func FuzzDecompress(f *testing.F) {
	text := bytes.Repeat([]byte("some text "), 20)
	for _, c := range []millracev1.Compression{0, 1, 2} {
		b, err := Compress(nil, text, c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(c), b, uint32(len(text)))
		f.Add(byte(c), b[:len(b)/2], uint32(len(text)))
	}
	f.Add(byte(1), []byte("\xff\xff\xff\xff\x0f"), uint32(math.MaxUint32))
	f.Add(byte(9), []byte("x"), uint32(1))
	f.Fuzz(func(t *testing.T, c byte, src []byte, size uint32) {
		codec := millracev1.Compression(c)
		out, err := Decompress([]byte("before"), src, codec, int(size))
		if err != nil {
			switch fault.KindOf(err) {
			case fault.Corrupted, fault.TooLarge, fault.Unsupported:
			default:
				t.Fatal(err)
			}
			return
		}
		if len(out) != 6+int(size) || string(out[:6]) != "before" {
			t.Fatalf("%d bytes, want %d", len(out), 6+size)
		}
		again, err := Compress(nil, out[6:], codec)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decompress(nil, again, codec, int(size))
		if err != nil || !bytes.Equal(back, out[6:]) {
			t.Fatalf("compressed and decompressed it differs: %v", err)
		}
	})
}
