package record

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

func TestBatchBuilder(t *testing.T) {
	records := []*millracev1.Record{
		{Value: []byte("a")}, {Key: []byte{}, Value: nil}, {Key: []byte("k"), Value: bytes.Repeat([]byte("x"), 20000)}, {Value: bytes.Repeat([]byte("y"), 127)}, {Value: bytes.Repeat([]byte("y"), 128)},
	}
	var b BatchBuilder
	for range 2 { // the second time in the memory of the first
		b.Reset()
		for _, r := range records {
			b.Add(r.Key, r.Key != nil, r.Value)
		}
	}
	if b.Count() != len(records) || b.Bytes() != len(b.Payload()) {
		t.Fatalf("count %d, bytes %d of %d", b.Count(), b.Bytes(), len(b.Payload()))
	}
	var got millracev1.Records
	if err := proto.Unmarshal(b.Payload(), &got); err != nil {
		t.Fatal(err)
	}
	for i, r := range got.Records {
		if !bytes.Equal(r.Value, records[i].Value) || !bytes.Equal(r.Key, records[i].Key) || (r.Key == nil) != (records[i].Key == nil) {
			t.Errorf("record %d: %v", i, r)
		}
	}
	if err := CheckRecords(b.Payload(), len(records)); err != nil {
		t.Error(err)
	}
	for _, err := range []error{CheckRecords(b.Payload(), 4), CheckRecords(b.Payload()[:b.Bytes()-1], 5)} {
		if !errors.Is(err, fault.Of(fault.Invalid)) {
			t.Errorf("%v is not Invalid", err)
		}
	}
}

func TestChecksum(t *testing.T) {
	// RFC 3720, B.4
	if got := Checksum(make([]byte, 32)); got != 0x8a9136aa {
		t.Errorf("%08x", got)
	}
	if got := Checksum([]byte("123456789")); got != 0xe3069283 {
		t.Errorf("%08x", got)
	}
}

func TestDecompressBounds(t *testing.T) {
	raw := bytes.Repeat([]byte("millrace "), 1000)
	for _, c := range []millracev1.Compression{millracev1.Compression_COMPRESSION_NONE, millracev1.Compression_COMPRESSION_S2, millracev1.Compression_COMPRESSION_ZSTD} {
		packed, err := Compress([]byte("x"), raw, c)
		if err != nil {
			t.Fatal(err)
		}
		packed = packed[1:]
		got, err := Decompress([]byte("y"), packed, c, len(raw))
		if err != nil || string(got) != "y"+string(raw) {
			t.Fatalf("%s: %d bytes, %v", c, len(got), err)
		}
		for _, n := range []int{0, len(raw) - 1, len(raw) + 1, 10 * len(raw)} {
			if _, err := Decompress(nil, packed, c, n); !errors.Is(err, fault.Of(fault.Corrupted)) {
				t.Errorf("%s, size said to be %d: %v", c, n, err)
			}
		}
		for _, n := range []int{-1, MaxUncompressedBytes + 1} {
			if _, err := Decompress(nil, packed, c, n); !errors.Is(err, fault.Of(fault.TooLarge)) {
				t.Errorf("%s, size said to be %d: %v", c, n, err)
			}
		}
	}
	if _, err := Compress(nil, raw, 77); !errors.Is(err, fault.Of(fault.Unsupported)) {
		t.Error(err)
	}
	if _, err := Decompress(nil, raw, 77, 5); !errors.Is(err, fault.Of(fault.Unsupported)) {
		t.Error(err)
	}
	// A few bytes that unpack to much more than the header says are refused before they are unpacked.
	bomb, err := Compress(nil, make([]byte, MaxUncompressedBytes), millracev1.Compression_COMPRESSION_ZSTD)
	if err != nil {
		t.Fatal(err)
	}
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decompress(nil, bomb, millracev1.Compression_COMPRESSION_ZSTD, 1000); err == nil {
				b.Fatal("the bomb went off")
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 1<<20 {
		t.Errorf("refusing a bomb of %d bytes allocated %d", len(bomb), allocated)
	}
}

// TestDecodeAllocates says that decoding doesn't allocate per record, in any format.
func TestDecodeAllocates(t *testing.T) {
	const n = 1000
	pb := stream(FormatProtobuf, "i bigint", "t text", "d double precision", "at timestamptz")
	pb.DescriptorSet = compile(t, `syntax = "proto3"; package test; import "google/protobuf/timestamp.proto"; message M { int64 i = 1; string t = 2; double d = 3; google.protobuf.Timestamp at = 4; }`)
	pb.Message = "test.M"
	for _, c := range []struct {
		s      *millracev1.Stream
		record string
	}{
		{stream(FormatJSON, "i bigint", "t text", "d double precision", "at timestamptz", "n numeric", "j jsonb", "x bytea", "b boolean", "v interval"),
			`{"i":5,"t":"a\nb","d":1.5,"at":"2001-01-01T00:00:00Z","n":1.50,"j":{"b":[1,2],"a":"x"},"x":"\\xff","b":true,"v":"1 day","other":[{"a":1}]}`},
		{stream(FormatCSV, "i bigint", "t text", "d double precision", "at timestamptz", "n numeric", "j jsonb", "x bytea", "b boolean", "v interval"),
			`5,"a ""b""",1.5,2001-01-01 00:00:00+00,1.50,"{""b"":1}",\xff,true,01:00:00`},
		{pb, "\x08\x05\x12\x01a\x19\x00\x00\x00\x00\x00\x00\xf8\x3f\x22\x02\x08\x05"},
	} {
		var columns []string
		for _, col := range c.s.Columns {
			columns = append(columns, col.Name)
		}
		d, err := NewDecoder(c.s, append(columns, "_offset", "_key", "_watermark"))
		if err != nil {
			t.Fatal(err)
		}
		var b BatchBuilder
		for range n {
			b.Add([]byte("key"), true, []byte(c.record))
		}
		out := NewDelta(d.Schema(), n)
		decode := func() {
			out.Reset()
			if err := d.Decode(b.Payload(), Meta{}, out, func(_ ids.Offset, _ []byte, _ bool, _ []byte, err error) { t.Fatal(err) }); err != nil {
				t.Fatal(err)
			}
		}
		decode()
		if allocs := testing.AllocsPerRun(20, decode); allocs > 3 {
			t.Errorf("%s: %v allocations for %d records", c.s.Format, allocs, n)
		}
	}
}

// TestDeepJSON holds a document whose objects nest deep and are all out of order: the canonical form takes time in
// proportion to its size.
func TestDeepJSON(t *testing.T) {
	const depth = maxJSONDepth - 10
	filler := `,"a":"` + strings.Repeat("x", 200) + `"}`
	doc := `{"j":` + strings.Repeat(`{"b":`, depth) + "1" + strings.Repeat(filler, depth) + "}"
	s := stream(FormatJSON, "j jsonb")
	got, err := readOne(t, s, []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"a": "xxx`; !bytes.HasPrefix(got[0].Bytes, []byte(want)) {
		t.Errorf("%.20s", got[0].Bytes)
	}
	c := columnOf(JSONB, got[0])
	back := columnOf(JSONB)
	if _, err := DecodeOrdered(AppendOrdered(nil, c, 0), back); err != nil || !bytes.Equal(back.At(0), c.At(0)) {
		t.Errorf("ordered: %v", err)
	}
	if _, err := readOne(t, s, []byte(`{"j":`+strings.Repeat("[", maxJSONDepth)+strings.Repeat("]", maxJSONDepth)+"}")); err == nil {
		t.Error("nested deeper than the bound")
	}
}

// TestDecodeDamaged decodes what comes before the damage and says where it is.
func TestDecodeDamaged(t *testing.T) {
	var b BatchBuilder
	b.Add(nil, false, []byte(`{"i":1}`))
	b.Add(nil, false, []byte(`{"i":2}`))
	d, err := NewDecoder(stream(FormatJSON, "i bigint"), []string{"i", "_offset"})
	if err != nil {
		t.Fatal(err)
	}
	out := NewDelta(d.Schema(), 0)
	out.Weights = []int64{}
	err = d.Decode(b.Payload()[:b.Bytes()-1], Meta{BaseOffset: 5}, out, nil)
	if !errors.Is(err, fault.Of(fault.Corrupted)) || rows(out) != "1 | 5\n" || len(out.Weights) != 1 {
		t.Errorf("%v, rows %q, weights %v", err, rows(out), out.Weights)
	}
}
