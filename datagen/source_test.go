package datagen

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// TestShares holds that the partitions' records are each event of the kind once, in order in each, and that what has come of a
// stream at any moment is a beginning of that.
func TestShares(t *testing.T) {
	for _, kind := range []string{"person", "auction", "bid", "all"} {
		for _, events := range []uint64{0, 1, 49, 50, 51, 53, 399, 400, 1234} {
			for _, parts := range []uint32{1, 3, 8} {
				s, err := NewShares(&millracev1.Source{Generator: NexmarkName, Kind: kind, Events: events, EventRate: 1, Partitions: parts})
				if err != nil {
					t.Fatal(err)
				}
				if events == 0 {
					if all := s.All(0); all != 1<<64-1 {
						t.Errorf("a stream without end has %d records", all)
					}
					continue
				}
				seen := map[uint64]bool{}
				for p := range ids.PartitionID(parts) {
					last := int64(-1)
					for o := range ids.Offset(s.All(p)) {
						n := s.event(p, o)
						if n >= events || seen[n] || int64(n) <= last || s.kind != All && KindOf(n) != s.kind {
							t.Fatalf("%s, %d events, %d partitions: partition %d has event %d at offset %d", kind, events, parts, p, n, o)
						}
						seen[n], last = true, int64(n)
					}
					before := uint64(0)
					for some := range events + 10 {
						n := s.Of(p, some)
						if n < before || n > s.All(p) || n < s.All(p) && n%s.PerRound() != 0 || some >= events && n != s.All(p) {
							t.Fatalf("%s, %d events, %d partitions: partition %d has %d of %d records after %d events", kind, events, parts, p, n, s.All(p), some)
						}
						before = n
					}
				}
				want := 0
				for n := range events {
					if s.kind == All || KindOf(n) == s.kind {
						want++
					}
				}
				if len(seen) != want {
					t.Errorf("%s, %d events, %d partitions: %d records, want %d", kind, events, parts, len(seen), want)
				}
			}
		}
	}
}

func testStream(kind string) *millracev1.Stream {
	k, _ := ParseKind(kind)
	def := &millracev1.Stream{
		Name: "s", Format: record.FormatJSON, WatermarkColumn: TimeColumn, WatermarkDelayUs: 4_000_000,
		Source: &millracev1.Source{Generator: NexmarkName, Kind: kind, Events: 2777, EventRate: 3000, Partitions: 3},
	}
	for _, c := range Columns(k) {
		def.Columns = append(def.Columns, &millracev1.Column{Name: c.Name, Type: c.Type.String()})
	}
	return def
}

// TestSource holds that decoding what the log has of such a stream, however it is cut into batches, gives what decoding the
// records themselves gives, with the hidden columns and the watermark.
func TestSource(t *testing.T) {
	for _, kind := range []string{"person", "auction", "bid", "all"} {
		def := testStream(kind)
		plain := testStream(kind)
		plain.Source = nil
		lines, err := NewLines(def)
		if err != nil {
			t.Fatal(err)
		}
		shares, err := NewShares(def.Source)
		if err != nil {
			t.Fatal(err)
		}
		var columns []string
		for _, c := range def.Columns {
			columns = append(columns, c.Name)
		}
		columns = append(columns, "_offset", "_watermark", "_tick", "_time", "_partition", "_key")
		for p := range ids.PartitionID(3) {
			all := int(shares.All(p))
			for _, cuts := range [][]int{{all}, {1, all}, {all / 3, all/3 + 7, all}, {0, 1030, all}} {
				slices.Sort(cuts)
				made, want := decode(t, def, plain, columns, lines, p, cuts)
				compare(t, fmt.Sprintf("%s, partition %d, cut at %v", kind, p, cuts), made, want)
				made, want = decode(t, def, plain, []string{"_watermark", columns[3]}, lines, p, cuts)
				compare(t, fmt.Sprintf("%s, partition %d, two columns, cut at %v", kind, p, cuts), made, want)
				made, want = decode(t, def, plain, nil, lines, p, cuts)
				compare(t, fmt.Sprintf("%s, partition %d, no column, cut at %v", kind, p, cuts), made, want)
			}
		}
	}
}

// decode reads the records of a partition, in batches that end at cuts, from its source and as lines.
func decode(t *testing.T, def, plain *millracev1.Stream, columns []string, lines *Lines, p ids.PartitionID, cuts []int) (made, want *record.Delta) {
	t.Helper()
	a, err := NewDecoder(def, columns)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewDecoder(plain, columns)
	if err != nil {
		t.Fatal(err)
	}
	made, want = record.NewDelta(a.Schema(), 0), record.NewDelta(b.Schema(), 0)
	from := 0
	for i, to := range cuts {
		if to <= from {
			continue
		}
		meta := record.Meta{Partition: p, BaseOffset: ids.Offset(from), Tick: ids.Tick(100 + i), TimeMicros: int64(7 * i)}
		if err := a.Decode(record.GeneratedPayload(uint32(to-from)), meta, made, nil); err != nil {
			t.Fatal(err)
		}
		var batch record.BatchBuilder
		for o := from; o < to; o++ {
			batch.Add(nil, false, lines.Append(nil, p, ids.Offset(o)))
		}
		if err := b.Decode(batch.Payload(), meta, want, func(o ids.Offset, _ []byte, _ bool, v []byte, err error) { t.Errorf("%d: %v: %s", o, err, v) }); err != nil {
			t.Fatal(err)
		}
		if a.HasEventTime != b.HasEventTime || a.MaxEventTime != b.MaxEventTime {
			t.Fatalf("the highest event time is %d, want %d", a.MaxEventTime, b.MaxEventTime)
		}
		from = to
	}
	return made, want
}

func compare(t *testing.T, what string, made, want *record.Delta) {
	t.Helper()
	if made.N != want.N {
		t.Fatalf("%s: %d rows, want %d", what, made.N, want.N)
	}
	for c := range want.Cols {
		for r := range want.N {
			got, want := string(record.AppendJSON(nil, &made.Cols[c], r)), string(record.AppendJSON(nil, &want.Cols[c], r))
			if got != want {
				t.Fatalf("%s, column %d, row %d: %s, want %s", what, c, r, got, want)
			}
		}
	}
}

func TestCheckStream(t *testing.T) {
	for _, x := range []struct {
		change func(*millracev1.Stream)
		want   string
	}{
		{func(*millracev1.Stream) {}, ""},
		{func(s *millracev1.Stream) { s.Columns = s.Columns[:1]; s.WatermarkColumn = "" }, ""},
		{func(s *millracev1.Stream) { s.Columns[0].Name = "city" }, `no column "city"`},
		{func(s *millracev1.Stream) { s.Columns[0].Type = "text" }, "is of type bigint, not text"},
		{func(s *millracev1.Stream) { s.Key = "auction" }, "has no key"},
		{func(s *millracev1.Stream) { s.Format = "csv" }, "no format but json"},
		{func(s *millracev1.Stream) { s.WatermarkColumn = "price" }, "WATERMARK"},
		{func(s *millracev1.Stream) { s.Source.Kind = "bids" }, `called "bids"`},
		{func(s *millracev1.Stream) { s.Source.EventRate = 0 }, "event_rate 0"},
		{func(s *millracev1.Stream) { s.Source.Events = 1 << 60 }, "use at most"},
		{func(s *millracev1.Stream) { s.Source.Generator = "tpch" }, "there is nexmark"},
	} {
		def := testStream("bid")
		x.change(def)
		err := CheckStream(def)
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%v, want %q", err, x.want)
		}
	}
}

func TestGeneratedPayload(t *testing.T) {
	for _, bad := range [][]byte{nil, {}, {1}, {2, 5}, {1, 0}, {1, 5, 5}, {1, 0x80}, {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}} {
		if n, err := record.GeneratedCount(bad); err == nil {
			t.Errorf("%v is taken for %d records", bad, n)
		}
	}
}

func TestDue(t *testing.T) {
	for _, x := range [][3]uint64{{0, 5, 0}, {1_000_000, 5, 5}, {999_999, 1, 0}, {1 << 50, MaxRate, 1 << 50 * 1000}, {1 << 63, 1 << 62, 1<<64 - 1}} {
		if got := Due(x[0], x[1]); got != x[2] {
			t.Errorf("%d microseconds at %d a second: %d events, want %d", x[0], x[1], got, x[2])
		}
	}
}
