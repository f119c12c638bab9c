package stage

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// decodedRows is what a source with the plan's columns makes of a log, sharing what it can.
func decodedRows(t *testing.T, d *decodedBatches, l *memLogs, log *logPlan, from ids.Offset) (rows *record.Delta, shared int) {
	t.Helper()
	s := &source{rt: &Runtime{decoded: d}, plan: &sourcePlan{log: log, ops: nil}}
	sc := &scan{pos: position{offset: from}}
	dec, err := record.NewDecoder(log.stream, log.columns)
	if err != nil {
		t.Fatal(err)
	}
	sc.dec, sc.in = dec, record.NewDelta(dec.Schema(), 0)
	c := &chunk{source: s, scan: sc, live: true}
	err = l.ReadTicks(0, log.id, from, maxTick, func(b *LogBatch) (bool, error) {
		before := s.shared
		s.shared = nil
		if err := c.decode(b); err != nil {
			return false, err
		}
		if s.shared != nil {
			shared++
		} else {
			s.shared = before
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if sc.pos.hasEvent != dec.HasEventTime || sc.pos.maxEvent != dec.MaxEventTime {
		t.Fatal("the position lacks the event time")
	}
	return sc.in, shared
}

// TestDecodedOnce has sources with different columns read one log: each batch is looked into once, and all get what they
// would have decoded themselves.
func TestDecodedOnce(t *testing.T) {
	l := newMemLogs(1)
	for i := range 40 {
		var events []event
		for r := range 10 {
			n := i*10 + r
			e := event{k: fmt.Sprint("k", n%7), n: int64(n), ts: int64(n * 1000), bad: n%13 == 0}
			if n%5 == 0 {
				e.k, e.ts = "", noTime
			}
			events = append(events, e)
		}
		l.append(0, ids.Tick(i+1), events)
	}
	plans := []*logPlan{
		{stream: streamDef(), id: testStream, columns: []string{"n", "k"}},
		{stream: streamDef(), id: testStream, columns: []string{"ts", "_watermark", "_offset"}},
		{stream: streamDef(), id: testStream, columns: []string{"k", "_tick", "ts", "n"}},
		{stream: streamDef(), id: testStream, columns: nil},
	}
	alone := make([]*record.Delta, len(plans))
	for i, p := range plans {
		d := newDecodedBatches(1 << 20)
		d.add(0, p)
		var shared int
		if alone[i], shared = decodedRows(t, d, l, p, 0); shared != 0 {
			t.Fatalf("%d batches were shared with nobody", shared)
		}
		d.remove(0, p)
	}

	d := newDecodedBatches(1 << 20)
	for _, p := range plans {
		d.add(0, p)
	}
	clear(l.raws)
	for i, p := range plans {
		got, shared := decodedRows(t, d, l, p, 0)
		if shared != 40 || !reflect.DeepEqual(rowsOf(got), rowsOf(alone[i])) {
			t.Fatalf("of 40 batches %d were shared; %v instead of %v", shared, rowsOf(got), rowsOf(alone[i]))
		}
	}
	for at, n := range l.raws {
		if n != 1 {
			t.Fatalf("the batch at %v was looked into %d times", at, n)
		}
	}

	// One that joins in the middle has another event time at first, and another column than was decoded.
	late := &logPlan{stream: streamDef(), id: testStream, columns: []string{"_watermark", "_time"}}
	d.add(0, late)
	if _, shared := decodedRows(t, d, l, late, 100); shared != 0 {
		t.Fatalf("%d batches were taken that lack a column", shared)
	}
	marks := &logPlan{stream: streamDef(), id: testStream, columns: []string{"_watermark"}}
	got, _ := decodedRows(t, d, l, marks, 390)
	if !got.Cols[0].Null(0) || got.Cols[0].Null(5) {
		t.Fatal("a watermark from before the first record that was read")
	}

	for _, p := range append(plans, late) {
		d.remove(0, p)
	}
	if len(d.logs) != 0 || len(d.batches) != 0 || d.bytes != 0 || d.recent.Len() != 0 {
		t.Fatalf("nobody reads, and %d logs, %d batches, %d bytes are kept", len(d.logs), len(d.batches), d.bytes)
	}
}

func rowsOf(d *record.Delta) (out [][]string) {
	for i := range d.N {
		var row []string
		for c := range d.Cols {
			row = append(row, fmt.Sprint(d.Cols[c].Value(i)))
		}
		out = append(out, row)
	}
	return out
}

// TestDecodedBound reads more than may be kept.
func TestDecodedBound(t *testing.T) {
	l := newMemLogs(1)
	for i := range 200 {
		l.append(0, ids.Tick(i+1), []event{{k: "k", n: int64(i), ts: int64(i)}})
	}
	d := newDecodedBatches(10_000)
	p := &logPlan{stream: streamDef(), id: testStream, columns: []string{"k", "n"}}
	d.add(0, p)
	d.add(0, p)
	for range 2 {
		if got, _ := decodedRows(t, d, l, p, 0); got.N != 200 {
			t.Fatalf("%d rows of 200", got.N)
		}
		if d.bytes > d.limit || len(d.batches) != d.recent.Len() || len(d.batches) == 0 || len(d.batches) > 40 {
			t.Fatalf("%d batches of %d bytes are kept, the limit is %d", len(d.batches), d.bytes, d.limit)
		}
	}
}
