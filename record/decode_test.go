package record

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// compile returns the descriptor set of one .proto file, without the files it imports.
func compile(t testing.TB, source string) []byte {
	t.Helper()
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{"test.proto": source}),
	})}
	files, err := c.Compile(context.Background(), "test.proto")
	if err != nil {
		t.Fatal(err)
	}
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(files[0])}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestDecode reads testdata/decode. Commands:
//
//	proto: a .proto file for the streams that follow
//	stream format=F [key=K] [primary=(...)] [watermark=COL delay=MICROS] [message=M]: "name type [not null]" a line
//	decode columns=(...) [from=TIME]: a record a line ("quoted" as in Go; protobuf: text format, or hex:...); rows and dead ones come out
//	key: the keys of records
func TestDecode(t *testing.T) {
	datadriven.Walk(t, "testdata/decode", func(t *testing.T, path string) {
		var f decodeFile
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return f.run(t, d) })
	})
}

type decodeFile struct {
	set []byte
	s   *millracev1.Stream
}

func (f *decodeFile) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "proto":
		f.set = compile(t, d.Input)
		return ""
	case "stream":
		f.s = f.stream(d)
		if _, err := NewDecoder(f.s, nil); err != nil {
			return err.Error()
		}
		if _, err := NewEncoder(f.s); err != nil {
			return err.Error()
		}
		return ""
	case "decode":
		return f.decode(t, d)
	case "key":
		extract, err := NewKeyExtractor(f.s)
		if err != nil {
			return err.Error()
		}
		var out strings.Builder
		for line := range strings.SplitSeq(d.Input, "\n") {
			if key, ok := extract(f.value(t, d, line)); ok {
				fmt.Fprintf(&out, "%q\n", key)
			} else {
				out.WriteString("none\n")
			}
		}
		return out.String()
	}
	d.Fatalf(t, "unknown command")
	return ""
}

func (f *decodeFile) stream(d *datadriven.TestData) *millracev1.Stream {
	s := &millracev1.Stream{Name: "s", DescriptorSet: f.set}
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "format":
			s.Format = a.Vals[0]
		case "key":
			s.Key = a.Vals[0]
		case "watermark":
			s.WatermarkColumn = a.Vals[0]
		case "delay":
			s.WatermarkDelayUs, _ = strconv.ParseInt(a.Vals[0], 10, 64)
		case "message":
			s.Message = a.Vals[0]
		case "primary":
			s.PrimaryKey = a.Vals
		}
	}
	for line := range strings.SplitSeq(d.Input, "\n") {
		name, typ, _ := strings.Cut(line, " ")
		typ, notNull := strings.CutSuffix(typ, " not null")
		s.Columns = append(s.Columns, &millracev1.Column{Name: name, Type: typ, NotNull: notNull})
	}
	return s
}

// value returns the record that a line stands for.
func (f *decodeFile) value(t *testing.T, d *datadriven.TestData, line string) []byte {
	if rest, ok := strings.CutPrefix(line, "hex:"); ok {
		b, err := hex.DecodeString(rest)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		return b
	}
	if strings.HasPrefix(line, "go:") {
		s, err := strconv.Unquote(line[3:])
		if err != nil {
			d.Fatalf(t, "%s: %v", line, err)
		}
		return []byte(s)
	}
	if f.s.Format != FormatProtobuf {
		return []byte(line)
	}
	m, err := newProtobufMessage(f.s)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	msg := dynamicpb.NewMessage(m.desc)
	if err := (prototext.UnmarshalOptions{AllowPartial: true, Resolver: m.types}).Unmarshal([]byte(line), msg); err != nil {
		d.Fatalf(t, "%s: %v", line, err)
	}
	b, err := (proto.MarshalOptions{AllowPartial: true, Deterministic: true}).Marshal(msg)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return b
}

func (f *decodeFile) decode(t *testing.T, d *datadriven.TestData) string {
	var columns []string
	var all []string
	for _, c := range f.s.Columns {
		all = append(all, c.Name)
	}
	var from int64
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "columns":
			columns = a.Vals
		case "from":
			from, _ = strconv.ParseInt(a.Vals[0], 10, 64)
		}
	}
	if columns == nil {
		columns = all
	}
	var b BatchBuilder
	for i, line := range strings.Split(d.Input, "\n") {
		var key []byte
		if i%2 == 1 { // every other record has a key of its own
			key = []byte{'k', byte('0' + i)}
		}
		if rest, ok := strings.CutPrefix(line, "tombstone "); ok {
			b.Add([]byte(rest), true, nil)
			continue
		}
		b.Add(key, i%2 == 1, f.value(t, d, line))
	}
	m := Meta{Partition: 3, BaseOffset: 100, Tick: 7_000_000, TimeMicros: 8_000_000}
	dec, err := NewDecoder(f.s, columns)
	if err != nil {
		return err.Error()
	}
	dec.MaxEventTime, dec.HasEventTime = from, from != 0
	var dead strings.Builder
	out := NewDelta(dec.Schema(), 0)
	if err := dec.Decode(b.Payload(), m, out, func(offset ids.Offset, _ []byte, _ bool, _ []byte, err error) {
		fmt.Fprintf(&dead, "dead %d: %v\n", offset, err)
	}); err != nil {
		return err.Error()
	}
	text := rows(out) + dead.String()
	if dec.HasEventTime {
		text += fmt.Sprintf("max event time %d\n", dec.MaxEventTime)
	}
	f.sameDead(t, b.Payload(), m, dead.String())
	return text
}

// sameDead checks that the same records are dead when no column is asked for.
func (f *decodeFile) sameDead(t *testing.T, raw []byte, m Meta, want string) {
	dec, err := NewDecoder(f.s, nil)
	if err != nil {
		t.Fatal(err)
	}
	var dead strings.Builder
	if err := dec.Decode(raw, m, NewDelta(nil, 0), func(offset ids.Offset, _ []byte, _ bool, _ []byte, err error) {
		fmt.Fprintf(&dead, "dead %d: %v\n", offset, err)
	}); err != nil {
		t.Fatal(err)
	}
	if dead.String() != want {
		t.Errorf("without columns these are dead:\n%swith all of them:\n%s", dead.String(), want)
	}
}

// rows prints a delta's rows; NULL as an empty field, texts in quotes.
func rows(d *Delta) string {
	var out strings.Builder
	for i := range d.N {
		for k := range d.Cols {
			if k > 0 {
				out.WriteString(" | ")
			}
			c := &d.Cols[k]
			switch {
			case c.Null(i):
				out.WriteString("NULL")
			case c.Type == Text:
				fmt.Fprintf(&out, "%q", c.At(i))
			default:
				out.Write(AppendText(nil, c, i))
			}
		}
		out.WriteByte('\n')
	}
	return out.String()
}
