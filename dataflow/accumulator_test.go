package dataflow

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// exactModel is a sum of doubles as a fraction.
func exactModel(values []float64, weights []int64) *big.Rat {
	sum := new(big.Rat)
	for i, v := range values {
		var x big.Rat
		x.SetFloat64(v)
		sum.Add(sum, x.Mul(&x, new(big.Rat).SetInt64(weights[i])))
	}
	return sum
}

func randomDouble(rng *rand.Rand) float64 {
	for {
		v := math.Float64frombits(rng.Uint64())
		switch rng.IntN(4) {
		case 0:
			v = math.Ldexp(rng.Float64()-0.5, rng.IntN(60)-30)
		case 1:
			v = math.Ldexp(rng.Float64()-0.5, rng.IntN(200)-1120)
		}
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v
		}
	}
}

func TestExactSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	for round := range 3000 {
		var f, g floatSums
		f.grow(2)
		g.grow(1)
		n := 1 + rng.IntN(20)
		values, weights := make([]float64, n), make([]int64, n)
		for i := range values {
			values[i], weights[i] = randomDouble(rng), 1
			switch rng.IntN(6) {
			case 0:
				weights[i] = -1
			case 1:
				weights[i] = rng.Int64N(1<<62) - 1<<61
			}
			if i > 0 && rng.IntN(4) == 0 { // cancel out
				values[i], weights[i] = values[i-1], -weights[i-1]
			}
			f.add(i&1, values[i], weights[i])
			if rng.IntN(8) == 0 {
				f.carryAll()
			}
		}
		f.addSlot(0, 1)
		var e, d exact
		f.get(0, &e)
		if err := g.merge(0, e.append(nil), 1); err != nil {
			t.Fatal(err)
		}
		g.get(0, &d)
		if e != d {
			t.Fatalf("round %d: the sum changed in its encoding", round)
		}
		sum := exactModel(values, weights)
		for _, by := range []int64{1, 3, 7, -2, math.MaxInt64, 1 << 40} {
			want, _ := new(big.Rat).Quo(sum, new(big.Rat).SetInt64(by)).Float64()
			if got := e.quotient(by); got != want {
				t.Fatalf("round %d: %v x %v / %d: %g (%x), want %g (%x)", round, values, weights, by,
					got, math.Float64bits(got), want, math.Float64bits(want))
			}
		}
		// Taking all of it back leaves nothing.
		if err := f.merge(0, e.append(nil), -1); err != nil {
			t.Fatal(err)
		}
		if f.get(0, &e); !e.isZero() {
			t.Fatalf("round %d: something is left", round)
		}
	}
}

func FuzzExactSumDecode(f *testing.F) {
	f.Add([]byte{0x10}, int64(1))
	f.Add([]byte{0x12, 2, 0, 0, 0x1f, 1, 2, 3, 4}, int64(-3))
	f.Add([]byte{0x11, 0x45, 0xff, 0xff, 0xff, 0xff}, int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, src []byte, w int64) {
		var s floatSums
		s.grow(1)
		if s.merge(0, src, w) != nil {
			return
		}
		var e, again exact
		s.get(0, &e)
		e.quotient(3)
		b := e.append(nil)
		var r floatSums
		r.grow(1)
		if err := r.merge(0, b, 1); err != nil {
			t.Fatalf("%x was written as %x, which doesn't decode: %v", src, b, err)
		}
		if r.get(0, &again); e != again {
			t.Fatalf("%x changed", src)
		}
	})
}

// FuzzGroupDecode decodes what might be a group's stored entry.
func FuzzGroupDecode(f *testing.F) {
	schema := record.Schema{{Type: record.BigInt}, {Type: record.Numeric}, {Type: record.Double}, {Type: record.IntervalT}, {Type: record.Text}}
	a := &plan.Aggregate{Phase: plan.AggSingle, AppendOnly: true, Aggs: []plan.Agg{
		newAgg(plan.AggCountStar, -1, record.Unknown), newAgg(plan.AggCount, 0, record.BigInt), newAgg(plan.AggSum, 0, record.BigInt),
		newAgg(plan.AggAvg, 1, record.Numeric), newAgg(plan.AggSum, 2, record.Double), newAgg(plan.AggAvg, 3, record.IntervalT),
		newAgg(plan.AggMin, 4, record.Text), newAgg(plan.AggMax, 1, record.Numeric), newAgg(plan.AggMax, 2, record.Double),
	}}
	ops := []plan.Op{scanOp(schema), aggOp(0, schema, a)}
	stored := func(in *record.Delta) []byte {
		state := &MemState{}
		fr, err := New(ops, Env{State: state})
		if err != nil {
			f.Fatal(err)
		}
		if in != nil {
			if err := fr.Push(0, in); err != nil {
				f.Fatal(err)
			}
		}
		if _, err := fr.EndTick(1, NoMarks); err != nil {
			f.Fatal(err)
		}
		v, _, _ := state.Get([]byte{1})
		return bytes.Clone(v)
	}
	f.Add(stored(nil))
	d := record.NewDelta(schema, 1)
	for i, text := range []string{"5", "123456789012345678901234567890.25", "0.1", "1 mon 2 days", "hello"} {
		v, err := record.ParseText(schema[i].Type, text)
		if err != nil {
			f.Fatal(err)
		}
		d.Cols[i].AppendValue(v)
	}
	d.N = 1
	f.Add(stored(d))
	f.Fuzz(func(t *testing.T, entry []byte) {
		state := &MemState{}
		state.Set([]byte{1}, entry)
		fr, err := New(ops, Env{State: state})
		if err != nil {
			t.Fatal(err)
		}
		if err := fr.Push(0, d); err != nil {
			t.Fatal(err)
		}
		if _, err := fr.EndTick(1, NoMarks); err != nil {
			return
		}
		// What decoded must be written so that it decodes.
		fr = mustNew(t, ops, Env{State: state})
		mustPush(t, fr, 0, d)
		mustEnd(t, fr, 2, NoWatermark)
	})
}

func TestWide(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 3))
	value := func() int64 {
		switch rng.IntN(4) {
		case 0:
			return []int64{0, 1, -1, math.MaxInt64, math.MinInt64}[rng.IntN(5)]
		case 1:
			return rng.Int64N(1000) - 500
		}
		return int64(rng.Uint64())
	}
	for range 20000 {
		a, b, c := value(), value(), value()
		x, y := mul64(a, b), wide(c)
		want := new(big.Int).Mul(big.NewInt(a), big.NewInt(b))
		want.Add(want, big.NewInt(c))
		var got big.Int
		sum := x.add(y)
		if sum.big(&got).Cmp(want) != 0 {
			t.Fatalf("%d*%d+%d = %s, want %s", a, b, c, &got, want)
		}
		v, rest, ok := readWide(append(appendWide(nil, sum), 7))
		if !ok || v != sum || len(rest) != 1 {
			t.Fatalf("%s doesn't survive its encoding", want)
		}
		hi, lo, neg := sum.abs()
		text := string(appendUint128(nil, hi, lo))
		if neg {
			text = "-" + text
		}
		if text != want.String() {
			t.Fatalf("%s is written as %s", want, text)
		}
		small := mul64(a>>40, b)
		if small.times(c>>44).big(&got).Cmp(want.Mul(want.Mul(big.NewInt(a>>40), big.NewInt(b)), big.NewInt(c>>44))) != 0 {
			t.Fatalf("%d*%d*%d = %s, want %s", a>>40, b, c>>44, &got, want)
		}
	}
}

const aggregatesFile = "testdata/aggregates.txt"

// TestPostgresAggregates checks sum, avg, min, max and count against what PostgreSQL says of lists of values; see
// TestPostgresFunctions for how to make the file anew.
func TestPostgresAggregates(t *testing.T) {
	aggs := []plan.AggFunc{plan.AggCount, plan.AggSum, plan.AggAvg, plan.AggMin, plan.AggMax}
	if *postgres != "" {
		rewriteAggregates(t, aggs)
	}
	file, err := os.Open(aggregatesFile)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		parts := strings.Split(lines.Text(), "\t")
		typ, _ := record.ParseType(parts[0])
		schema := record.Schema{{Name: "x", Type: typ}}
		a := &plan.Aggregate{Phase: plan.AggSingle}
		for _, f := range aggs {
			a.Aggs = append(a.Aggs, newAgg(f, 0, typ))
		}
		var rows []row
		for _, text := range strings.Split(parts[1], ", ") {
			rows = append(rows, row{[]record.Value{value(t, typ, text)}, 1})
		}
		for _, appendOnly := range []bool{false, true} {
			a.AppendOnly = appendOnly
			f := mustNew(t, []plan.Op{scanOp(schema), aggOp(0, schema, a)}, Env{Mode: AdHoc})
			mustPush(t, f, 0, deltaOf(schema, rows))
			out, err := f.EndTick(1, NoMarks)
			if err != nil {
				if !strings.Contains(lines.Text(), "ERR") {
					t.Errorf("%s: %v", lines.Text(), err)
				}
				continue
			}
			if got, want := rowText(out, 0), strings.Join(parts[3:], "|"); got != want {
				t.Errorf("%s of %s: %s, PostgreSQL says %s", parts[0], parts[1], got, want)
			}
		}
	}
}

func rewriteAggregates(t *testing.T, aggs []plan.AggFunc) {
	rng := rand.New(rand.NewPCG(5, 6))
	listPools := map[record.Type][]string{
		record.BigInt:    {"1", "2", "3", "-7", "1000", "9223372036854775807", "-9223372036854775808", "0", "99999", "NULL"},
		record.Numeric:   {"1.0", "2.50", "-3.125", "0.001", "100000", "12345678901234567890.5", "7", "NULL", "0.00000000000000000001", "-0.5"},
		record.IntervalT: {"1 day", "1 mon", "-2 mons 3 days", "00:00:00.000001", "36:00:00", "1 year 2 mons 3 days 04:05:06.789", "NULL", "10 days -01:00:00"},
	}
	var lines, exprs []string
	for _, typ := range []record.Type{record.BigInt, record.Numeric, record.IntervalT} {
		pool := listPools[typ]
		for range 150 {
			var list, literals []string
			for range 1 + rng.IntN(6) {
				v := pool[rng.IntN(len(pool))]
				list = append(list, v)
				if v == "NULL" {
					literals = append(literals, "(NULL::"+typ.String()+")")
				} else {
					literals = append(literals, "("+quoteSQL(v)+"::"+typ.String()+")")
				}
			}
			lines = append(lines, typ.String()+"\t"+strings.Join(list, ", ")+"\t=>")
			for _, f := range aggs {
				exprs = append(exprs, fmt.Sprintf("SELECT %s(x) FROM (VALUES %s) v(x)", f, strings.Join(literals, ", ")))
			}
		}
	}
	results := askPostgres(t, exprs)
	var out bytes.Buffer
	for i, line := range lines {
		for _, r := range results[i*len(aggs) : (i+1)*len(aggs)] {
			if r == `\N` {
				r = "NULL"
			}
			line += "\t" + r
		}
		fmt.Fprintln(&out, line)
	}
	if err := os.WriteFile(aggregatesFile, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
