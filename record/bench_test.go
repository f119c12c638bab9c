package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/valyala/fastjson"
	"google.golang.org/protobuf/encoding/protowire"

	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// stream returns a definition with columns "name type", "name type", ...
func stream(format string, columns ...string) *millracev1.Stream {
	s := &millracev1.Stream{Name: "s", Format: format}
	for _, c := range columns {
		name, typ, _ := strings.Cut(c, " ")
		s.Columns = append(s.Columns, &millracev1.Column{Name: name, Type: typ})
	}
	return s
}

// record100 is an object of four fields and about 100 bytes.
func record100(i int) []byte {
	return fmt.Appendf(nil, `{"auction":%d,"price":%d.25,"ts":"2001-01-01T00:%02d:%02d.123456Z","bidder":"person-%09d-abc"}`,
		i%1000, 100+i%900, i/60%60, i%60, i)
}

// record1K is an object of eleven fields and about 1,000 bytes.
func record1K(i int) []byte {
	return fmt.Appendf(nil, `{"auction": %d, "price": %d.25, "ts": "2001-01-01T00:%02d:%02d.123456Z", "bidder": "person-%d", "url": "https://www.example.com/items/%d?ref=%s", "agent": %q, "tags": ["new", "red", "large", "%d"], "place": {"lat": 51.%d, "lon": -0.%d, "city": "London"}, "ok": true, "note": %q, "rest": %q}`,
		i%1000, 100+i%900, i/60%60, i%60, i, i, strings.Repeat("a1b2", 10), strings.Repeat("Mozilla/5.0 (X11; Linux) ", 5), i,
		i, i, strings.Repeat("lorem ipsum dolor sit amet ", 8), strings.Repeat("0123456789abcdef", 16))
}

var benchColumns = []string{"auction bigint", "price double precision", "ts timestamptz", "bidder text"}

func payload(n int, record func(int) []byte) ([]byte, int) {
	var b BatchBuilder
	bytes := 0
	for i := range n {
		r := record(i)
		bytes += len(r)
		b.Add(nil, false, r)
	}
	return b.Payload(), bytes
}

func benchDecode(b *testing.B, s *millracev1.Stream, record func(int) []byte, columns ...string) {
	const n = 1000
	raw, size := payload(n, record)
	d, err := NewDecoder(s, columns)
	if err != nil {
		b.Fatal(err)
	}
	out := NewDelta(d.Schema(), n)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		if err := d.Decode(raw, Meta{}, out, nil); err != nil || out.N != n {
			b.Fatal(err, out.N)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkDecodeJSON100(b *testing.B) {
	benchDecode(b, stream("json", benchColumns...), record100, "auction", "ts")
}

func BenchmarkDecodeJSON100All(b *testing.B) {
	benchDecode(b, stream("json", benchColumns...), record100, "auction", "price", "ts", "bidder", "_offset", "_time")
}

func BenchmarkDecodeJSON1K(b *testing.B) {
	benchDecode(b, stream("json", benchColumns...), record1K, "auction", "ts")
}

func BenchmarkDecodeJSON1KJSONB(b *testing.B) {
	benchDecode(b, stream("json", append(benchColumns, "place jsonb", "tags jsonb")...), record1K, "auction", "place", "tags")
}

func BenchmarkDecodeCSV100(b *testing.B) {
	benchDecode(b, stream("csv", benchColumns...), func(i int) []byte {
		return fmt.Appendf(nil, `%d,%d.25,2001-01-01T00:%02d:%02d.123456Z,"person-%09d, of a rather long and winding name in quotes"`, i%1000, 100+i%900, i/60%60, i%60, i)
	}, "auction", "ts")
}

const benchProto = `syntax = "proto3"; package test; import "google/protobuf/timestamp.proto";
	message Bid { int64 auction = 1; double price = 2; google.protobuf.Timestamp ts = 3; string bidder = 4; string note = 5; }`

func BenchmarkDecodeProtobuf100(b *testing.B) {
	s := stream("protobuf", benchColumns...)
	s.DescriptorSet, s.Message = compile(b, benchProto), "test.Bid"
	benchDecode(b, s, func(i int) []byte {
		v := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(i%1000))
		v = protowire.AppendFixed64(protowire.AppendTag(v, 2, protowire.Fixed64Type), math.Float64bits(100.25))
		ts := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 978307200)
		ts = protowire.AppendVarint(protowire.AppendTag(ts, 2, protowire.VarintType), 123456000)
		v = protowire.AppendBytes(protowire.AppendTag(v, 3, protowire.BytesType), ts)
		v = protowire.AppendString(protowire.AppendTag(v, 4, protowire.BytesType), fmt.Sprintf("person-%09d-abc", i))
		return protowire.AppendString(protowire.AppendTag(v, 5, protowire.BytesType), "a note that nobody reads, of 45 characters...")
	}, "auction", "ts")
}

func BenchmarkKeyJSON100(b *testing.B) {
	s := stream("json", benchColumns...)
	s.Key = "auction"
	extract, err := NewKeyExtractor(s)
	if err != nil {
		b.Fatal(err)
	}
	rec := record100(12345)
	b.SetBytes(int64(len(rec)))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := extract(rec); !ok {
			b.Fatal("no key")
		}
	}
}

func BenchmarkCheckJSON100(b *testing.B) {
	rec := record100(12345)
	b.SetBytes(int64(len(rec)))
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckJSON(rec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBatchBuilder100(b *testing.B) {
	var batch BatchBuilder
	rec, key := record100(12345), []byte("12345")
	b.SetBytes(int64(len(rec)))
	b.ReportAllocs()
	for b.Loop() {
		if batch.Bytes() > 1<<16 {
			batch.Reset()
		}
		batch.Add(key, true, rec)
	}
}

func BenchmarkIter100(b *testing.B) {
	raw, size := payload(1000, record100)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckRecords(raw, 1000); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkChecksum(b *testing.B) {
	raw, _ := payload(600, record100)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		Checksum(raw)
	}
}

func BenchmarkCompress(b *testing.B) {
	raw, _ := payload(600, record100)
	for _, c := range []millracev1.Compression{millracev1.Compression_COMPRESSION_S2, millracev1.Compression_COMPRESSION_ZSTD} {
		packed, err := Compress(nil, raw, c)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.String(), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				dst, _ = Compress(dst[:0], raw, c)
			}
			b.ReportMetric(float64(len(raw))/float64(len(packed)), "ratio")
		})
		b.Run(c.String()+"/decompress", func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				if dst, err = Decompress(dst[:0], packed, c, len(raw)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// benchRows is a delta of 1,000 rows of the bench columns.
func benchRows(b *testing.B) *Delta {
	raw, _ := payload(1000, record100)
	d, err := NewDecoder(stream("json", benchColumns...), []string{"auction", "price", "ts", "bidder"})
	if err != nil {
		b.Fatal(err)
	}
	out := NewDelta(d.Schema(), 1000)
	if err := d.Decode(raw, Meta{}, out, nil); err != nil {
		b.Fatal(err)
	}
	return out
}

func benchEach(b *testing.B, do func(dst []byte, d *Delta, i int) []byte) {
	d := benchRows(b)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		for i := range d.N {
			dst = do(dst[:0], d, i)
		}
	}
	b.ReportMetric(float64(d.N)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkAppendRow(b *testing.B) {
	cols := []int{0, 1, 2, 3}
	benchEach(b, func(dst []byte, d *Delta, i int) []byte { return AppendRow(dst, d, cols, i) })
}

func BenchmarkAppendOrdered(b *testing.B) {
	benchEach(b, func(dst []byte, d *Delta, i int) []byte {
		return AppendOrdered(AppendOrdered(dst, &d.Cols[0], i), &d.Cols[3], i)
	})
}

func BenchmarkAppendJSON(b *testing.B) {
	benchEach(b, func(dst []byte, d *Delta, i int) []byte {
		for k := range d.Cols {
			dst = AppendJSON(dst, &d.Cols[k], i)
		}
		return dst
	})
}

func BenchmarkEncodeJSON(b *testing.B) {
	enc, err := NewEncoder(stream("json", benchColumns...))
	if err != nil {
		b.Fatal(err)
	}
	benchEach(b, func(dst []byte, d *Delta, i int) []byte {
		dst, err := enc.Encode(dst, d, i)
		if err != nil {
			b.Fatal(err)
		}
		return dst
	})
}

func BenchmarkDecodeRow(b *testing.B) {
	d := benchRows(b)
	cols := []int{0, 1, 2, 3}
	row := AppendRow(nil, d, cols, 7)
	out := &Delta{Cols: []Column{NewColumn(BigInt, 0), NewColumn(Double, 0), NewColumn(TimestampTZ, 0), NewColumn(Text, 0)}}
	b.ReportAllocs()
	for b.Loop() {
		if out.Cols[0].N == 1000 {
			out.Reset()
		}
		if err := DecodeRow(row, out, cols); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarshalDelta(b *testing.B) {
	d := benchRows(b)
	s := Schema{{"auction", BigInt}, {"price", Double}, {"ts", TimestampTZ}, {"bidder", Text}}
	var dst []byte
	b.Run("marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			dst = MarshalDelta(dst[:0], d)
		}
		b.SetBytes(int64(len(dst)))
	})
	b.Run("unmarshal", func(b *testing.B) {
		b.SetBytes(int64(len(dst)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := UnmarshalDelta(dst, s); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// The JSON libraries, doing less than a decoder: nothing is converted.
func BenchmarkPeerJSONText100(b *testing.B) { benchJSONText(b, record100) }
func BenchmarkPeerJSONText1K(b *testing.B)  { benchJSONText(b, record1K) }

func benchJSONText(b *testing.B, record func(int) []byte) {
	rec := record(12345)
	r := bytes.NewReader(rec)
	dec := jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true))
	b.SetBytes(int64(len(rec)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(rec)
		dec.Reset(r, jsontext.AllowDuplicateNames(true))
		for {
			if _, err := dec.ReadToken(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkPeerFastJSON100(b *testing.B) { benchFastJSON(b, record100) }
func BenchmarkPeerFastJSON1K(b *testing.B)  { benchFastJSON(b, record1K) }

func benchFastJSON(b *testing.B, record func(int) []byte) {
	rec := record(12345)
	var p fastjson.Parser
	b.SetBytes(int64(len(rec)))
	b.ReportAllocs()
	for b.Loop() {
		v, err := p.ParseBytes(rec)
		if err != nil {
			b.Fatal(err)
		}
		v.GetInt64("auction")
		v.GetStringBytes("ts")
	}
}

func BenchmarkPeerEncodingJSON100(b *testing.B) {
	rec := record100(12345)
	b.SetBytes(int64(len(rec)))
	b.ReportAllocs()
	for b.Loop() {
		var v struct {
			Auction int64  `json:"auction"`
			TS      string `json:"ts"`
		}
		if err := json.Unmarshal(rec, &v); err != nil {
			b.Fatal(err)
		}
	}
}
