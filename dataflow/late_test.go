package dataflow

import (
	"math/rand/v2"
	"testing"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// lateRun pushes rows through a scan and one operator, and returns how many rows came out and how many were counted late.
func lateRun(t *testing.T, op plan.Op, in *record.Delta, schema record.Schema) (rows, late int64) {
	t.Helper()
	op.Inputs = []int{0}
	f, err := New([]plan.Op{{Kind: plan.OpScan, Schema: schema, Scan: &plan.Scan{Kind: plan.ScanStream}}, op}, Env{Mode: Live, State: &MemState{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Push(0, in); err != nil {
		t.Fatal(err)
	}
	out, err := f.EndTick(1, NoMarks)
	if err != nil {
		t.Fatal(err)
	}
	for i := range out.N {
		rows += out.Weight(i)
	}
	return rows, f.Counts().Late
}

// TestLateIsWhatIsDropped checks, over random rows and windows of every kind, that as many rows come out of a Late as the
// operator whose side output it is drops and counts late.
func TestLateIsWhatIsDropped(t *testing.T) {
	schema := record.Schema{{Name: "at", Type: record.TimestampTZ}, {Name: plan.ColWatermark, Type: record.TimestampTZ}, {Name: "v", Type: record.BigInt}}
	windowed := append(append(record.Schema{}, schema...), record.Field{Name: "window_start", Type: record.TimestampTZ}, record.Field{Name: "window_end", Type: record.TimestampTZ})
	rng := rand.New(rand.NewPCG(11, 7))
	total := int64(0)
	for n := range 300 {
		in := record.NewDelta(schema, 0)
		for i := range 50 {
			for c := range 2 {
				if rng.IntN(10) == 0 {
					in.Cols[c].AppendNull()
				} else {
					in.Cols[c].AppendInt(rng.Int64N(100) - 50)
				}
			}
			in.Cols[2].AppendInt(int64(i))
			in.N++
		}
		slide := 1 + rng.Int64N(10)
		size := slide * (1 + rng.Int64N(4))
		offset := rng.Int64N(slide)
		cumulate := n%2 == 0
		for _, c := range []struct {
			late plan.Late
			op   plan.Op
		}{
			{plan.Late{Of: plan.LateOfTumble, Size: size, Offset: offset}, plan.Op{Kind: plan.OpTumble, Schema: windowed, Tumble: &plan.Tumble{Watermark: 1, Size: size, Offset: offset}}},
			{plan.Late{Of: plan.LateOfHop, Size: size, Slide: slide, Offset: offset, Cumulate: cumulate}, plan.Op{Kind: plan.OpHop, Schema: windowed, Hop: &plan.Hop{Watermark: 1, Size: size, Slide: slide, Offset: offset, Cumulate: cumulate}}},
			{plan.Late{Of: plan.LateOfHop, Size: size, Slide: slide, Offset: offset, Cumulate: cumulate}, plan.Op{Kind: plan.OpHop, Schema: windowed, Hop: &plan.Hop{Watermark: 1, Size: size, Slide: slide, Offset: offset, Cumulate: cumulate, Pane: true}}},
			{plan.Late{Of: plan.LateOfSession, Size: size}, plan.Op{Kind: plan.OpSession, Schema: windowed, Session: &plan.Session{Keys: []int{}, Watermark: 1, Gap: size}}},
			{plan.Late{Of: plan.LateOfDropLate}, plan.Op{Kind: plan.OpDropLate, Schema: schema, DropLate: &plan.DropLate{Watermark: 1}}},
		} {
			c.late.Watermark = 1
			out := windowed
			if c.late.Of == plan.LateOfDropLate {
				out = schema
			}
			_, want := lateRun(t, c.op, in, schema)
			got, counted := lateRun(t, plan.Op{Kind: plan.OpLate, Schema: out, Late: &c.late}, in, schema)
			if got != want || counted != 0 {
				t.Fatalf("case %d, %+v: %d rows, and %d counted late; %s counts %d", n, c.late, got, counted, c.op.Kind, want)
			}
			total += got
		}
	}
	if total == 0 {
		t.Fatal("no row was late")
	}
}
