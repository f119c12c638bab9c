package dataflow

import (
	"flag"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

var (
	seedFlag = flag.Uint64("seed", 0, "seed of the property tests; 0: each run of the fixed ones")
	runs     = flag.Int("runs", 150, "runs of each property test")
)

// world is one random history: rows that come and go in ticks.
type world struct {
	t      testing.TB
	rng    *rand.Rand
	schema record.Schema
	ticks  [][]row
	all    []row // the sum at the end
	taken  bool  // rows are taken back

	keysFrom int // where in their pools the keys are
}

// Columns of the property tests' input.
const (
	colKey = iota
	colKey2
	colTime
	colInt
	colFloat
	colNumeric
	colInterval
	colText
	colFlag
)

func newWorld(t testing.TB, rng *rand.Rand, taken bool) *world {
	w := &world{t: t, rng: rng, taken: taken, keysFrom: rng.IntN(100)}
	keyTypes := []record.Type{record.BigInt, record.Text, record.Numeric, record.Double, record.IntervalT, record.Boolean, record.Bytea, record.JSONB}
	w.schema = record.Schema{
		{Name: "k", Type: keyTypes[rng.IntN(len(keyTypes))]}, {Name: "k2", Type: keyTypes[rng.IntN(len(keyTypes))]},
		{Name: "at", Type: record.TimestampTZ}, {Name: "i", Type: record.BigInt}, {Name: "f", Type: record.Double},
		{Name: "n", Type: record.Numeric}, {Name: "v", Type: record.IntervalT}, {Name: "t", Type: record.Text},
		{Name: "b", Type: record.Boolean},
	}
	var live []row
	for range 1 + rng.IntN(8) {
		var tick []row
		for range rng.IntN(40) {
			if taken && len(live) > 0 && rng.IntN(5) < 2 {
				at := rng.IntN(len(live))
				r := live[at]
				live = append(live[:at], live[at+1:]...)
				tick = append(tick, row{r.values, -r.weight})
				continue
			}
			r := row{w.values(), 1}
			if taken && rng.IntN(6) == 0 {
				r.weight = int64(1 + rng.IntN(3))
			}
			live = append(live, r)
			tick = append(tick, r)
		}
		w.ticks = append(w.ticks, tick)
	}
	w.all = live
	return w
}

var propertyPools = map[record.Type][]string{
	record.BigInt:      {"1", "2", "3", "-7", "9223372036854775807", "-9223372036854775808", "0", "NULL"},
	record.Text:        {"", "a", "b", "abc", "é", "a longer text that takes more than sixteen bytes", "NULL"},
	record.Numeric:     {"1", "1.0", "1.00", "2.5", "-3.125", "NaN", "0", "0.0", "123456789012345678901234567890.5", "1000000", "NULL"},
	record.Double:      {"0", "-0", "1.5", "0.1", "0.2", "1e300", "-1e300", "1e-300", "5e-324", "NaN", "Infinity", "-Infinity", "NULL"},
	record.IntervalT:   {"1 day", "24 hours", "1 month", "30 days", "-1 mon 2 days", "00:00:00.5", "NULL"},
	record.Boolean:     {"true", "false", "NULL"},
	record.Bytea:       {`\x`, `\x00ff`, `\x61`, "NULL"},
	record.JSONB:       {`{"a": 1.0}`, `{"a": 1.00}`, `[1, 2]`, `"x"`, "NULL"},
	record.TimestampTZ: {"2024-01-01 00:00:10+00", "2024-01-01 00:00:59.999999+00", "2024-01-01 00:01:00+00", "2024-01-01 00:03:30+00", "1969-12-31 23:59:59+00"},
}

func (w *world) values() []record.Value {
	vs := make([]record.Value, len(w.schema))
	for i, f := range w.schema {
		pool := propertyPools[f.Type]
		n := len(pool)
		if i <= colKey2 {
			// Few groups, with many rows each.
			from := w.keysFrom % n
			pool = append(append([]string{}, pool[from:]...), pool[:from]...)
			n = min(n, 5)
		}
		if f.Type == record.Double && i == colFloat && w.rng.IntN(2) == 0 {
			vs[i] = record.Value{Type: f.Type, Float: (w.rng.Float64() - 0.5) * math.Pow(2, float64(w.rng.IntN(80)-40))}
			continue
		}
		vs[i] = value(w.t, f.Type, pool[w.rng.IntN(n)])
	}
	return vs
}

// randomAggregate returns an aggregate over the world's columns (with the window's after them, if windowed).
func (w *world) randomAggregate(windowed, extremes bool) *plan.Aggregate {
	a := &plan.Aggregate{Phase: plan.AggSingle, AppendOnly: !w.taken}
	switch w.rng.IntN(4) {
	case 0:
	case 1:
		a.Keys = []int{colKey}
	default:
		a.Keys = []int{colKey, colKey2}
	}
	if windowed {
		a.Keys = append(a.Keys, len(w.schema), len(w.schema)+1)
	}
	choices := []plan.Agg{
		newAgg(plan.AggCountStar, -1, record.Unknown), newAgg(plan.AggCount, colInt, record.BigInt),
		newAgg(plan.AggCount, colText, record.Text),
	}
	for c := colInt; c <= colInterval; c++ {
		choices = append(choices, newAgg(plan.AggSum, c, w.schema[c].Type), newAgg(plan.AggAvg, c, w.schema[c].Type))
	}
	if extremes {
		for c := colTime; c <= colText; c++ {
			choices = append(choices, newAgg(plan.AggMin, c, w.schema[c].Type), newAgg(plan.AggMax, c, w.schema[c].Type))
		}
	}
	for range w.rng.IntN(6) {
		a.Aggs = append(a.Aggs, choices[w.rng.IntN(len(choices))])
	}
	for range w.rng.IntN(5) {
		a.Aggs = append(a.Aggs, w.valuesAggregate())
	}
	for range w.rng.IntN(5) {
		a.Aggs = append(a.Aggs, w.statisticsAggregate())
	}
	for i := range a.Aggs {
		if w.rng.IntN(3) == 0 {
			a.Aggs[i].Filter = colFlag + 1
		}
	}
	return a
}

// valuesAggregate returns an aggregate that needs the group's values.
func (w *world) valuesAggregate() plan.Agg {
	pick := func(cols ...int) int { return cols[w.rng.IntN(len(cols))] }
	of := func(f plan.AggFunc, c int) plan.Agg { return newAgg(f, c, w.schema[c].Type) }
	var a plan.Agg
	switch w.rng.IntN(9) {
	case 0, 1:
		a = of(plan.AggCount, pick(colInt, colText, colNumeric, colFloat, colTime, colKey))
		a.Distinct = true
		if w.rng.IntN(4) == 0 {
			a.More, a.MoreTypes = []int{colText}, []record.Type{record.Text}
		}
	case 2:
		a = of(plan.AggSum, pick(colInt, colFloat))
		a.Distinct = true
	case 3:
		a = of(plan.AggPercentileCont, colFloat)
	case 4:
		a = of(plan.AggPercentileDisc, pick(colInt, colText, colTime))
	case 5:
		a = of(plan.AggMode, pick(colInt, colText))
	case 6:
		a = of(plan.AggStringAgg, colText)
		a.Const = []record.Value{{Type: record.Text, Bytes: []byte(", ")}}
	case 7:
		a = of(plan.AggJSONBAgg, pick(colInt, colText))
	case 8:
		a = of([]plan.AggFunc{plan.AggFirst, plan.AggLast}[w.rng.IntN(2)], pick(colInt, colText))
	}
	switch a.Func {
	case plan.AggPercentileCont, plan.AggPercentileDisc:
		a.Const = []record.Value{{Type: record.Double, Float: []float64{0, 0.25, 0.5, 1}[w.rng.IntN(4)]}}
	case plan.AggStringAgg, plan.AggJSONBAgg:
		a.Distinct = w.rng.IntN(3) == 0
	}
	if isOrdered(a.Func) && !a.Distinct && w.rng.IntN(4) > 0 {
		a.Order = []plan.SortKey{{Col: pick(colTime, colInt, colFloat), Desc: w.rng.IntN(2) == 0, NullsFirst: w.rng.IntN(2) == 0}}
		a.OrderTypes = []record.Type{w.schema[a.Order[0].Col].Type}
	}
	return a
}

const testWindow = 60 * microsPerSecond

func tumbleOp(in int, s record.Schema) plan.Op {
	out := append(append(record.Schema{}, s...),
		record.Field{Name: "window_start", Type: record.TimestampTZ}, record.Field{Name: "window_end", Type: record.TimestampTZ})
	return plan.Op{Kind: plan.OpTumble, Inputs: []int{in}, Schema: out, Tumble: &plan.Tumble{Time: colTime, Watermark: -1, Size: testWindow}}
}

// randomSeed runs a property test over its seeds.
func randomSeed(t *testing.T, test func(t *testing.T, rng *rand.Rand)) {
	if *seedFlag != 0 {
		test(t, rand.New(rand.NewPCG(*seedFlag, 1)))
		return
	}
	for seed := range uint64(*runs) {
		ok := t.Run(fmt.Sprint("seed=", seed+1), func(t *testing.T) { test(t, rand.New(rand.NewPCG(seed+1, 1))) })
		if !ok {
			t.Fatalf("again with: go test ./dataflow -run %s -seed %d", strings.Split(t.Name(), "/")[0], seed+1)
		}
	}
}

// drive runs ops over the world's ticks, with restarts, and calls check after each tick.
func (w *world) drive(ops []plan.Op, ticks [][]row, watermark func(tick int) int64, check func(tick int, sum zset)) zset {
	state := &MemState{}
	env := Env{State: state}
	f := mustNew(w.t, ops, env)
	sum := zset{}
	for i, tick := range ticks {
		if w.rng.IntN(3) == 0 {
			f = mustNew(w.t, ops, env)
		}
		for lo := 0; lo < len(tick); {
			hi := min(lo+1+w.rng.IntN(20), len(tick))
			mustPush(w.t, f, 0, deltaOf(w.schema, tick[lo:hi]))
			lo = hi
		}
		sum.add(w.t, mustEnd(w.t, f, ids.Tick(i+1), watermark(i)))
		check(i, sum)
	}
	return sum
}

func none(int) int64 { return NoWatermark }

// TestAggregateMatchesModel checks that after each tick the sum of the deltas is the aggregates of the input so far,
// computed in the plainest way.
func TestAggregateMatchesModel(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, rng, rng.IntN(3) > 0)
		a := w.randomAggregate(false, true)
		ops := []plan.Op{scanOp(w.schema), aggOp(0, w.schema, a)}
		w.drive(ops, w.ticks, none, func(tick int, sum zset) {
			want := w.model(a, w.ticks[:tick+1])
			if sum.String() != want.String() {
				t.Fatalf("keys %v, aggregates %v, after tick %d:\n%s\nwant:\n%s", a.Keys, a.Aggs, tick, sum, want)
			}
		})
	})
}

// TestAggregateIgnoresOrderAndCuts checks that the result doesn't depend on how the rows were ordered and cut into
// ticks, even if a row is taken back before it comes.
func TestAggregateIgnoresOrderAndCuts(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, rng, rng.IntN(3) > 0)
		ops := []plan.Op{scanOp(w.schema), tumbleOp(0, w.schema)}
		ops = append(ops, aggOp(1, ops[1].Schema, w.randomAggregate(true, true)))
		ignore := func(int, zset) {}
		want := w.drive(ops, w.ticks, none, ignore).String()
		var rows []row
		for _, tick := range w.ticks {
			rows = append(rows, tick...)
		}
		rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		var cuts [][]row
		for len(rows) > 0 {
			n := 1 + rng.IntN(len(rows))
			cuts, rows = append(cuts, rows[:n]), rows[n:]
		}
		if got := w.drive(ops, cuts, none, ignore).String(); len(cuts) > 0 && got != want {
			t.Fatalf("in another order:\n%s\nbefore:\n%s", got, want)
		}
	})
}

// TestTwoPhases checks that partial and final give what single gives.
func TestTwoPhases(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, rng, rng.IntN(3) > 0)
		a := w.randomAggregate(false, !w.taken)
		a.Phase = plan.AggPartial
		partial := []plan.Op{scanOp(w.schema), aggOp(0, w.schema, a)}
		final := []plan.Op{{Kind: plan.OpInput, Schema: partial[1].Schema, Input: &plan.Input{}}}
		f := finalOf(a)
		final = append(final, aggOp(0, partial[1].Schema, f))
		sources := []*Fragment{mustNew(t, partial, Env{Partition: 0}), mustNew(t, partial, Env{Partition: 1})}
		target := mustNew(t, final, Env{State: &MemState{}})
		sum := zset{}
		for i, tick := range w.ticks {
			parts := [2][]row{}
			for _, r := range tick {
				p := rng.IntN(2)
				parts[p] = append(parts[p], r)
			}
			for p, rows := range parts {
				mustPush(t, sources[p], 0, deltaOf(w.schema, rows))
				out := mustEnd(t, sources[p], ids.Tick(i+1), NoWatermark)
				// Through the codec, as between two nodes.
				sent, err := record.UnmarshalDelta(record.MarshalDelta(nil, out), partial[1].Schema)
				if err != nil {
					t.Fatal(err)
				}
				mustPush(t, target, 0, sent)
			}
			sum.add(t, mustEnd(t, target, ids.Tick(i+1), NoWatermark))
			single := *a
			single.Phase = plan.AggSingle
			if want := w.model(&single, w.ticks[:i+1]); sum.String() != want.String() {
				t.Fatalf("keys %v, aggregates %v, after tick %d:\n%s\nwant:\n%s", a.Keys, a.Aggs, i, sum, want)
			}
		}
	})
}

// TestEmitFinal checks that what was emitted is the rows of the windows that the watermark has passed.
func TestEmitFinal(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, rng, true)
		ops := []plan.Op{scanOp(w.schema), tumbleOp(0, w.schema)}
		a := w.randomAggregate(true, true)
		ops = append(ops, aggOp(1, ops[1].Schema, a))
		end := len(a.Keys) - 1
		ops = append(ops, plan.Op{Kind: plan.OpEmitFinal, Inputs: []int{2}, Schema: ops[2].Schema, EmitFinal: &plan.EmitFinal{WindowEnd: end}})
		base := value(t, record.TimestampTZ, "2024-01-01 00:00:00+00").Int
		marks := make([]int64, len(w.ticks))
		high := int64(NoWatermark)
		passed := make([]int64, len(w.ticks))
		for i := range marks {
			marks[i] = base + int64(rng.IntN(6)-1)*testWindow
			if rng.IntN(4) == 0 {
				marks[i] = NoWatermark
			}
			high = max(high, marks[i])
			passed[i] = high
		}
		w.drive(ops, w.ticks, func(i int) int64 { return marks[i] }, func(i int, sum zset) {
			want := zset{}
			f := mustNew(t, ops[:3], Env{State: &MemState{}})
			for _, tick := range w.ticks[:i+1] {
				mustPush(t, f, 0, deltaOf(w.schema, tick))
			}
			d := mustEnd(t, f, 1, NoWatermark)
			for r := range d.N {
				if d.Cols[end].Ints[r] <= passed[i] {
					want[rowText(d, r)] += d.Weight(r)
				}
			}
			if sum.String() != want.String() {
				t.Fatalf("after tick %d (watermark %d):\n%s\nwant:\n%s", i, passed[i], sum, want)
			}
		})
	})
}

// model computes an aggregate of the rows of ticks from scratch.
func (w *world) model(a *plan.Aggregate, ticks [][]row) zset {
	type group struct {
		key  []record.Value
		rows []row
	}
	groups := map[string]*group{}
	for _, tick := range ticks {
		for _, r := range tick {
			var id strings.Builder
			var key []record.Value
			for _, k := range a.Keys {
				v := canonicalValue(w.t, r.values[k])
				key = append(key, v)
				id.Write(record.AppendOrderedValue(nil, v))
			}
			g := groups[id.String()]
			if g == nil {
				g = &group{key: key}
				groups[id.String()] = g
			}
			g.rows = append(g.rows, r)
		}
	}
	if len(a.Keys) == 0 && len(groups) == 0 {
		groups[""] = &group{}
	}
	out := zset{}
	for _, g := range groups {
		n := int64(0)
		for _, r := range g.rows {
			n += r.weight
		}
		if n <= 0 && len(a.Keys) > 0 {
			continue
		}
		var parts []string
		for _, k := range g.key {
			parts = append(parts, valueText(k))
		}
		for _, agg := range a.Aggs {
			parts = append(parts, modelAggregate(w.t, &agg, g.rows, n))
		}
		out[strings.Join(parts, "|")]++
	}
	return out
}

func valueText(v record.Value) string {
	if v.Null {
		return "NULL"
	}
	return string(record.AppendTextValue(nil, v))
}

// canonicalValue returns the value that stands for all equal ones, by the rules of the package's doc.
func canonicalValue(t testing.TB, v record.Value) record.Value {
	if v.Null {
		return v
	}
	switch v.Type {
	case record.Numeric:
		s := string(v.Bytes)
		if strings.Contains(s, ".") {
			s = strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
		}
		v.Bytes = []byte(s)
	case record.Double:
		if v.Float == 0 {
			v.Float = 0
		}
	case record.JSONB:
		v.Bytes = []byte(strings.ReplaceAll(strings.ReplaceAll(string(v.Bytes), "1.00", "1"), "1.0", "1"))
	case record.IntervalT:
		days := new(big.Int).Add(new(big.Int).Mul(big.NewInt(int64(v.Interval.Months)), big.NewInt(30)), big.NewInt(int64(v.Interval.Days)))
		total := new(big.Int).Add(new(big.Int).Mul(days, big.NewInt(microsPerDay)), big.NewInt(v.Interval.Micros))
		months, rest := new(big.Int).QuoRem(total, big.NewInt(30*microsPerDay), new(big.Int))
		d, micros := new(big.Int).QuoRem(rest, big.NewInt(microsPerDay), new(big.Int))
		v.Interval = record.Interval{Months: int32(months.Int64()), Days: int32(d.Int64()), Micros: micros.Int64()}
	}
	return v
}

// counted is a value and how many times it is there.
type counted struct {
	v record.Value
	n int64
}

// modelAggregate computes one aggregate over rows that add up to n.
func modelAggregate(t testing.TB, a *plan.Agg, rows []row, n int64) string {
	if a.Filter > 0 {
		n = 0
		var passed []row
		for _, r := range rows {
			if v := r.values[a.Filter-1]; !v.Null && v.Int != 0 {
				passed = append(passed, r)
				n += r.weight
			}
		}
		rows = passed
	}
	if a.KeepsValues() {
		return modelValues(t, a, rows)
	}
	if text, ok := modelStatistics(t, a, rows); ok {
		return text
	}
	if a.Func == plan.AggCountStar {
		return fmt.Sprint(n)
	}
	there := map[string]*counted{}
	count := int64(0)
	for _, r := range rows {
		v := r.values[a.Arg]
		if v.Null {
			continue
		}
		count += r.weight
		id := valueText(v)
		if there[id] == nil {
			there[id] = &counted{v: v}
		}
		there[id].n += r.weight
	}
	var values []counted
	for _, c := range there {
		if c.n > 0 {
			values = append(values, *c)
		}
	}
	switch {
	case a.Func == plan.AggCount:
		return fmt.Sprint(count)
	case len(values) == 0:
		return "NULL"
	case a.Func == plan.AggMin, a.Func == plan.AggMax:
		return modelExtreme(values, a.Func == plan.AggMax)
	}
	return modelSum(t, a, values, count)
}

func modelExtreme(values []counted, isMax bool) string {
	best := values[0].v
	for _, c := range values[1:] {
		d := record.Compare(c.v, best)
		if isMax {
			d = -d
		}
		if d < 0 || d == 0 && formOf(c.v) < formOf(best) {
			best = c.v
		}
	}
	return valueText(best)
}

// modelSum computes sum or avg of values, of which there are count.
func modelSum(t testing.TB, a *plan.Agg, values []counted, count int64) string {
	sum, scale, special := new(big.Rat), 0, map[string]int64{}
	var months, days int64
	for _, c := range values {
		var x big.Rat
		text := valueText(c.v)
		switch {
		case text == "NaN" || strings.HasSuffix(text, "Infinity"):
			special[text] += c.n
			continue
		case a.ArgType == record.Double:
			x.SetFloat64(c.v.Float)
		case a.ArgType == record.IntervalT:
			months += int64(c.v.Interval.Months) * c.n
			days += int64(c.v.Interval.Days) * c.n
			x.SetInt64(c.v.Interval.Micros)
		default:
			x.SetString(text)
			if dot := strings.IndexByte(text, '.'); dot >= 0 {
				scale = max(scale, len(text)-dot-1)
			}
		}
		sum.Add(sum, x.Mul(&x, new(big.Rat).SetInt64(c.n)))
	}
	switch {
	case special["NaN"] > 0 || special["Infinity"] > 0 && special["-Infinity"] > 0:
		return "NaN"
	case special["Infinity"] > 0:
		return "Infinity"
	case special["-Infinity"] > 0:
		return "-Infinity"
	}
	switch a.ArgType {
	case record.IntervalT:
		v := record.Interval{Months: int32(months), Days: int32(days), Micros: sum.Num().Int64()}
		if a.Func == plan.AggAvg {
			var err error
			if v, err = divInterval(v, float64(count)); err != nil {
				t.Fatal(err)
			}
		}
		return valueText(record.Value{Type: record.IntervalT, Interval: v})
	case record.Double:
		if a.Func == plan.AggAvg {
			sum.Quo(sum, new(big.Rat).SetInt64(count))
		}
		v, _ := sum.Float64()
		if math.IsInf(v, 0) {
			return "NULL" // an overflow
		}
		return valueText(record.Value{Type: record.Double, Float: v})
	}
	text := sum.FloatString(scale)
	if a.Func == plan.AggAvg {
		b, err := divNumeric(nil, []byte(text), []byte(fmt.Sprint(count)))
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	return text
}

func formOf(v record.Value) string {
	c := record.NewColumn(v.Type, 1)
	c.AppendValue(v)
	return string(appendForm(nil, &c, 0))
}
