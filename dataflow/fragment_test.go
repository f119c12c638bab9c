package dataflow

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// TestLargeTick checks stages over ticks of many chunks, pushed at once and in pieces, and over one fragment tick after
// tick.
func TestLargeTick(t *testing.T) {
	s, in := benchInput(20_000)
	pred := plan.Expr{Kind: plan.ExprCall, Func: "gt", Type: record.Boolean, Args: []plan.Expr{col(s, 2), constant64(300)}}
	filter := plan.Op{Kind: plan.OpFilter, Inputs: []int{0}, Schema: s, Filter: &plan.Filter{Pred: pred}}
	a := &plan.Aggregate{Phase: plan.AggSingle, Keys: []int{0, 1}, AppendOnly: true, Aggs: []plan.Agg{
		newAgg(plan.AggCountStar, -1, record.Unknown), newAgg(plan.AggSum, 2, record.BigInt), newAgg(plan.AggMax, 1, record.Text),
	}}
	ops := []plan.Op{scanOp(s), filter, aggOp(1, s, a)}
	f := mustNew(t, ops, Env{State: &MemState{}})
	type group struct{ n, sum int64 }
	want := map[string]*group{}
	sum := zset{}
	for tick := range 3 {
		d := in[0]
		if tick == 1 { // in pieces that are no multiple of anything
			for lo := 0; lo < d.N; lo += 8 * 771 {
				var part record.Delta
				sliceDelta(&part, d, lo, min(lo+8*771, d.N))
				mustPush(t, f, 0, &part)
			}
		} else {
			mustPush(t, f, 0, d)
		}
		for i := range d.N {
			if v := d.Cols[2].Ints[i]; v > 300 {
				k := fmt.Sprintf("%d|%s", d.Cols[0].Ints[i], d.Cols[1].At(i))
				if want[k] == nil {
					want[k] = &group{}
				}
				want[k].n++
				want[k].sum += v
			}
		}
		sum.add(t, mustEnd(t, f, ids.Tick(tick+1), NoWatermark))
		if len(sum) != len(want) {
			t.Fatalf("%d groups, want %d", len(sum), len(want))
		}
		for k, g := range want {
			_, name, _ := strings.Cut(k, "|")
			if text := fmt.Sprintf("%s|%d|%d|%s", k, g.n, g.sum, name); sum[text] != 1 {
				t.Fatalf("tick %d: no row %s", tick, text)
			}
		}
	}
}

// TestMemoryComesBack checks that a fragment doesn't keep the memory of an unusually large tick.
func TestMemoryComesBack(t *testing.T) {
	s := record.Schema{{Name: "k", Type: record.Text}, {Name: "v", Type: record.Double}}
	agg := aggOp(0, s, &plan.Aggregate{Phase: plan.AggPartial, Keys: []int{0}, Aggs: []plan.Agg{newAgg(plan.AggSum, 1, record.Double)}, AppendOnly: true})
	for _, ops := range [][]plan.Op{{scanOp(s), agg}, {scanOp(s)}} {
		f := mustNew(t, ops, Env{})
		d := record.NewDelta(s, 0)
		for i := range 300_000 {
			d.Cols[0].AppendString(fmt.Sprint("a key of some length ", i))
			d.Cols[1].AppendFloat(float64(i))
			d.N++
		}
		var small record.Delta
		sliceDelta(&small, d, 0, 64)
		mustPush(t, f, 0, d)
		mustEnd(t, f, 1, NoWatermark)
		table := f.sink.merge
		if len(ops) > 1 {
			table = nil
		}
		for tick := range 60 {
			mustPush(t, f, 0, &small)
			if out := mustEnd(t, f, ids.Tick(tick+2), NoWatermark); out.N != 64 {
				t.Fatalf("%d rows", out.N)
			}
		}
		g := f.ops[len(ops)-1]
		if table != nil {
			checkSmall(t, table.table)
		} else {
			checkSmall(t, g.(*aggregate).table)
			if n := cap(g.(*aggregate).rows); n > 16*chunkRows {
				t.Errorf("room for %d counts is kept", n)
			}
		}
		if n := cap(f.sink.out.Cols[0].Bytes) + 8*cap(f.sink.out.Cols[1].Floats); n > 2*maxKeptBytes {
			t.Errorf("%d bytes of output are kept", n)
		}
	}
}

func checkSmall(t *testing.T, table *groupTable) {
	t.Helper()
	if len(table.entries) > 1<<14 || cap(table.bytes) > maxKeptBytes || cap(table.words) > 1<<17 {
		t.Errorf("kept: %d entries, %d bytes, %d words", len(table.entries), cap(table.bytes), cap(table.words))
	}
}

// TestSortDropsWhatTheLimitCuts checks a sort that gathers more rows than it keeps.
func TestSortDropsWhatTheLimitCuts(t *testing.T) {
	s := record.Schema{{Name: "v", Type: record.BigInt}}
	ops := []plan.Op{scanOp(s), {Kind: plan.OpSort, Inputs: []int{0}, Schema: s, Sort: &plan.Sort{Keys: []plan.SortKey{{Col: 0, Desc: true}}, Limit: 5, Offset: 2}}}
	f := mustNew(t, ops, Env{Mode: AdHoc})
	rng := rand.New(rand.NewPCG(1, 1))
	var all []int64
	for range 60 {
		d := record.NewDelta(s, chunkRows)
		for range chunkRows {
			v := rng.Int64()
			all = append(all, v)
			d.Cols[0].AppendInt(v)
			d.N++
		}
		mustPush(t, f, 0, d)
		if n := f.ops[1].(*sorter).merge.table.n; n > maxUnpruned+chunkRows {
			t.Fatalf("%d rows are gathered for a limit of 5", n)
		}
	}
	slices.Sort(all)
	slices.Reverse(all)
	if out := mustEnd(t, f, 1, NoWatermark); !slices.Equal(out.Cols[0].Ints, all[2:7]) {
		t.Fatalf("%v, want %v", out.Cols[0].Ints, all[2:7])
	}
}

// TestEmitFinalReleasesManyRows checks windows with more rows than are handled at once.
func TestEmitFinalReleasesManyRows(t *testing.T) {
	s := record.Schema{{Name: "window_end", Type: record.TimestampTZ}, {Name: "v", Type: record.BigInt}}
	ops := []plan.Op{scanOp(s), {Kind: plan.OpEmitFinal, Inputs: []int{0}, Schema: s, EmitFinal: &plan.EmitFinal{}}}
	state := &MemState{}
	f := mustNew(t, ops, Env{State: state})
	d := record.NewDelta(s, 0)
	for i := range int64(3*chunkRows + 5) {
		d.Cols[0].AppendInt(1000 * (1 + i%3))
		d.Cols[1].AppendInt(i)
		d.N++
	}
	mustPush(t, f, 0, d)
	if out := mustEnd(t, f, 1, 999); out.N != 0 {
		t.Fatalf("%d rows before their time", out.N)
	}
	if at, ok := f.NextDue(); !ok || at != 1000 {
		t.Fatalf("due at %d, %v", at, ok)
	}
	sum := zset{}
	out := mustEnd(t, f, 2, 2500)
	sum.add(t, out)
	if !slices.IsSorted(out.Cols[0].Ints) || len(sum) != 2*chunkRows+4 {
		t.Fatalf("%d rows of two windows", len(sum))
	}
	sum.add(t, mustEnd(t, f, 3, math.MaxInt64))
	if len(sum) != d.N || state.Len() != 1 {
		t.Fatalf("%d rows of %d, %d entries left", len(sum), d.N, state.Len())
	}
	if _, ok := f.NextDue(); ok {
		t.Fatal("something is due still")
	}
}

// TestBadPlans checks that a plan that can't be run, a row that doesn't fit, or state of something else is an error.
func TestBadPlans(t *testing.T) {
	s := record.Schema{{Name: "k", Type: record.Text}, {Name: "v", Type: record.BigInt}, {Name: "at", Type: record.TimestampTZ}}
	scan := scanOp(s)
	over := func(op plan.Op) []plan.Op {
		op.Inputs = []int{0}
		if op.Schema == nil {
			op.Schema = s
		}
		return []plan.Op{scan, op}
	}
	agg := func(a plan.Aggregate) []plan.Op { return over(aggOp(0, s, &a)) }
	countAll := []plan.Agg{newAgg(plan.AggCountStar, -1, record.Unknown)}
	for name, ops := range map[string][]plan.Op{
		"nothing":          {},
		"unknown kind":     over(plan.Op{Kind: "join"}),
		"part missing":     over(plan.Op{Kind: plan.OpFilter}),
		"reads itself":     {{Kind: plan.OpFilter, Inputs: []int{0}, Schema: s, Filter: &plan.Filter{Pred: constant64(1)}}},
		"scan with input":  over(scan),
		"filter by bigint": over(plan.Op{Kind: plan.OpFilter, Filter: &plan.Filter{Pred: constant64(1)}}),
		"project count":    over(plan.Op{Kind: plan.OpProject, Project: &plan.Project{}}),
		"project type":     over(plan.Op{Kind: plan.OpProject, Schema: s[:1], Project: &plan.Project{Exprs: []plan.Expr{constant64(1)}}}),
		"project column":   over(plan.Op{Kind: plan.OpProject, Schema: s[:1], Project: &plan.Project{Exprs: []plan.Expr{{Kind: plan.ExprCol, Col: 9, Type: record.Text}}}}),
		"tumble schema":    over(plan.Op{Kind: plan.OpTumble, Tumble: &plan.Tumble{Time: 2, Size: 1, Watermark: -1}}),
		"sort column":      over(plan.Op{Kind: plan.OpSort, Sort: &plan.Sort{Keys: []plan.SortKey{{Col: 7}}}}),
		"emit by text":     over(plan.Op{Kind: plan.OpEmitFinal, EmitFinal: &plan.EmitFinal{WindowEnd: 0}}),
		"no phase":         agg(plan.Aggregate{Phase: "third", Keys: []int{0}, Aggs: countAll}),
		"sum of text":      over(plan.Op{Kind: plan.OpAggregate, Aggregate: &plan.Aggregate{Phase: plan.AggSingle, Aggs: []plan.Agg{{Func: plan.AggSum, ArgType: record.Text}}}}),
		"final of rows":    agg(plan.Aggregate{Phase: plan.AggFinal, Keys: []int{0}, Aggs: countAll}),
		"values width":     {{Kind: plan.OpValues, Schema: s, Values: &plan.Values{Rows: [][]plan.Expr{{constant64(1)}}}}},
	} {
		if _, err := New(ops, Env{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	key := over(plan.Op{Kind: plan.OpAggregate, Schema: record.Schema{s[0], {Type: record.BigInt}},
		Aggregate: &plan.Aggregate{Phase: plan.AggSingle, Keys: []int{8}, Aggs: countAll}})
	if _, err := New(key, Env{}); err == nil {
		t.Error("a key that isn't there: no error")
	}

	for name, d := range map[string]*record.Delta{
		"columns": deltaOf(s[:2], []row{{values: []record.Value{value(t, record.Text, "a"), value(t, record.BigInt, "1")}, weight: 1}}),
		"types":   deltaOf(record.Schema{s[1], s[0], s[2]}, []row{{values: []record.Value{value(t, record.BigInt, "1"), value(t, record.Text, "a"), value(t, record.TimestampTZ, "NULL")}, weight: 1}}),
	} {
		f := mustNew(t, []plan.Op{scan}, Env{})
		err := f.Push(0, d)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, again := f.EndTick(1, NoMarks); again != err {
			t.Errorf("%s: after the error, %v", name, again)
		}
	}
	if err := mustNew(t, []plan.Op{scan}, Env{}).Push(3, record.NewDelta(s, 0)); err == nil {
		t.Error("rows for an operator that isn't there: no error")
	}

	state := &MemState{}
	state.Set([]byte{1, 0x01, 'a', 0, 1}, []byte{9, 9})
	f := mustNew(t, agg(plan.Aggregate{Phase: plan.AggSingle, Keys: []int{0}, Aggs: countAll}), Env{State: state})
	mustPush(t, f, 0, deltaOf(s, []row{{values: []record.Value{value(t, record.Text, "a"), value(t, record.BigInt, "1"), value(t, record.TimestampTZ, "NULL")}, weight: 1}}))
	if _, err := f.EndTick(1, NoMarks); !errors.Is(err, fault.Of(fault.Corrupted)) {
		t.Errorf("state of something else: %v", err)
	}
}

// failingState fails at the n-th call.
type failingState struct {
	MemState
	left int
}

var errState = errors.New("the disk is gone")

func (s *failingState) fail() error {
	s.left--
	if s.left < 0 {
		return errState
	}
	return nil
}

func (s *failingState) Get(key []byte) ([]byte, bool, error) {
	if err := s.fail(); err != nil {
		return nil, false, err
	}
	return s.MemState.Get(key)
}

func (s *failingState) Set(key, value []byte) error {
	if err := s.fail(); err != nil {
		return err
	}
	return s.MemState.Set(key, value)
}

func (s *failingState) Delete(key []byte) error {
	if err := s.fail(); err != nil {
		return err
	}
	return s.MemState.Delete(key)
}

func (s *failingState) Scan(lo, hi []byte, fn func(key, value []byte) (bool, error)) error {
	if err := s.fail(); err != nil {
		return err
	}
	return s.MemState.Scan(lo, hi, fn)
}

// TestFragmentsRunAtOnce checks (with the race detector) that fragments of one plan share nothing.
func TestFragmentsRunAtOnce(t *testing.T) {
	w := newWorld(t, rand.New(rand.NewPCG(4, 2)), true)
	text := func(v string) plan.Expr {
		return plan.Expr{Kind: plan.ExprConst, Type: record.Text, Const: &record.Value{Type: record.Text, Bytes: []byte(v)}}
	}
	call := func(t record.Type, name string, args ...plan.Expr) plan.Expr {
		return plan.Expr{Kind: plan.ExprCall, Type: t, Func: name, Args: args}
	}
	exprs := []plan.Expr{
		call(record.Boolean, "like", col(w.schema, colText), text("a%_")), call(record.Boolean, "ilike", col(w.schema, colText), text("A%")),
		call(record.Numeric, "extract", text("hour"), col(w.schema, colTime)), call(record.Text, "to_char", col(w.schema, colTime), text("YYYY-MM")),
		call(record.Text, "greatest", col(w.schema, colText), text("b")), call(record.BigInt, "add", col(w.schema, colInt), constant64(1)),
		call(record.Numeric, "div", col(w.schema, colNumeric), col(w.schema, colNumeric)), call(record.Text, "upper", col(w.schema, colText)),
	}
	var out record.Schema
	for i, e := range exprs {
		out = append(out, record.Field{Name: fmt.Sprint("c", i), Type: e.Type})
	}
	ops := []plan.Op{scanOp(w.schema), {Kind: plan.OpProject, Inputs: []int{0}, Schema: out, Project: &plan.Project{Exprs: exprs}}}
	results := make([]zset, 4)
	var wait sync.WaitGroup
	for i := range results {
		wait.Go(func() {
			results[i] = zset{}
			f, err := New(ops, Env{})
			for tick, rows := range w.ticks {
				if err == nil {
					err = f.Push(0, deltaOf(w.schema, rows))
				}
				var d *record.Delta
				if err == nil {
					d, err = f.EndTick(ids.Tick(tick+1), NoMarks)
				}
				if err != nil {
					t.Error(err)
					return
				}
				for r := range d.N {
					results[i][rowText(d, r)] += d.Weight(r)
				}
			}
		})
	}
	wait.Wait()
	for _, r := range results[1:] {
		if r.String() != results[0].String() {
			t.Error("fragments of one plan differ")
		}
	}
}

// TestStateErrors checks that an error of the state, at whatever call, ends the fragment with that error.
func TestStateErrors(t *testing.T) {
	w := newWorld(t, rand.New(rand.NewPCG(9, 9)), true)
	ops := []plan.Op{scanOp(w.schema), tumbleOp(0, w.schema)}
	a := &plan.Aggregate{Phase: plan.AggSingle, Keys: []int{colKey, len(w.schema) + 1}, Aggs: []plan.Agg{
		newAgg(plan.AggMin, colInt, record.BigInt), newAgg(plan.AggMax, colText, record.Text),
	}}
	ops = append(ops, aggOp(1, ops[1].Schema, a))
	ops = append(ops, plan.Op{Kind: plan.OpEmitFinal, Inputs: []int{2}, Schema: ops[2].Schema, EmitFinal: &plan.EmitFinal{WindowEnd: 1}})
	run := func(left int) error {
		state := &failingState{left: left}
		f, err := New(ops, Env{State: state})
		if err != nil {
			return err
		}
		for i, tick := range w.ticks {
			if err := f.Push(0, deltaOf(w.schema, tick)); err != nil {
				return err
			}
			mark := value(t, record.TimestampTZ, "2024-01-01 00:01:00+00").Int + int64(i)*testWindow
			if _, err := f.EndTick(ids.Tick(i+1), Marks{mark, mark}); err != nil {
				if _, again := f.EndTick(ids.Tick(i+2), Marks{mark, mark}); again != err {
					t.Fatalf("after %v, %v", err, again)
				}
				return err
			}
		}
		return nil
	}
	calls := 0
	for ; calls < 100_000; calls++ {
		err := run(calls)
		if err == nil {
			break
		}
		if !errors.Is(err, errState) {
			t.Fatalf("at call %d: %v", calls, err)
		}
	}
	if calls < 50 || calls == 100_000 {
		t.Fatalf("%d calls", calls)
	}
}

// TestGroupTable compares the hash table with a map, over keys of every type, ticks of all sizes, and NULLs.
func TestGroupTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	types := []record.Type{record.Boolean, record.BigInt, record.Double, record.Numeric, record.Text, record.Bytea, record.TimestampTZ, record.IntervalT, record.JSONB}
	for round := range 200 {
		var s record.Schema
		for range 1 + rng.IntN(4) {
			s = append(s, record.Field{Type: types[rng.IntN(len(types))]})
		}
		if round%20 == 0 {
			for range 70 {
				s = append(s, record.Field{Type: record.BigInt})
			}
		}
		exact := rng.IntN(2) == 0
		table := newGroupTable(s, exact)
		var cols []int
		for i := range s {
			cols = append(cols, i)
		}
		for range 3 {
			slots := map[string]int32{}
			for range 1 + rng.IntN(3) {
				d := record.NewDelta(s, 0)
				for range rng.IntN(300) {
					for c, f := range s {
						pool := propertyPools[f.Type]
						d.Cols[c].AppendValue(value(t, f.Type, pool[rng.IntN(len(pool))]))
					}
					d.N++
				}
				got, err := table.assign(d, cols)
				if err != nil {
					t.Fatal(err)
				}
				for i, slot := range got {
					var key []byte
					for c := range s {
						if exact {
							key = append(append(key, 0), valueText(d.Cols[c].Value(i))...)
						} else {
							key = record.AppendOrdered(key, &d.Cols[c], i)
						}
					}
					if want, ok := slots[string(key)]; !ok {
						slots[string(key)] = slot
					} else if slot != want {
						t.Fatalf("round %d: a key has slots %d and %d", round, slot, want)
					}
				}
			}
			checkKeys(t, table, s, slots, exact)
			table.reset()
		}
	}
}

func checkKeys(t *testing.T, table *groupTable, s record.Schema, slots map[string]int32, exact bool) {
	t.Helper()
	out := record.NewDelta(s, 0)
	table.appendKeys(out.Cols, 0, table.n)
	seen := map[int32]bool{}
	for key, slot := range slots {
		if seen[slot] {
			t.Fatalf("two keys have slot %d", slot)
		}
		seen[slot] = true
		var again []byte
		for c := range s {
			if exact {
				again = append(append(again, 0), valueText(out.Cols[c].Value(int(slot)))...)
			} else {
				again = record.AppendOrdered(again, &out.Cols[c], int(slot))
			}
		}
		if string(again) != key {
			t.Fatalf("slot %d has key %q, not %q", slot, again, key)
		}
	}
}
