package dataflow

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// statisticsAggregate returns an aggregate whose state is of a fixed size, or a sketch.
func (w *world) statisticsAggregate() plan.Agg {
	of := func(c int, fs ...plan.AggFunc) plan.Agg { return newAgg(fs[w.rng.IntN(len(fs))], c, w.schema[c].Type) }
	variances := []plan.AggFunc{plan.AggStddevPop, plan.AggStddevSamp, plan.AggVarPop, plan.AggVarSamp}
	switch w.rng.IntN(7) {
	case 0:
		return of(colFlag, plan.AggBoolAnd, plan.AggBoolOr)
	case 1:
		return of(colInt, plan.AggBitAnd, plan.AggBitOr, plan.AggBitXor)
	case 2:
		return of([]int{colInt, colNumeric}[w.rng.IntN(2)], variances...)
	case 3:
		return of(colFloat, variances...)
	case 4:
		a := of(colFloat, plan.AggCovarPop, plan.AggCovarSamp, plan.AggCorr, plan.AggRegrAvgX, plan.AggRegrAvgY, plan.AggRegrCount,
			plan.AggRegrIntercept, plan.AggRegrR2, plan.AggRegrSlope, plan.AggRegrSXX, plan.AggRegrSXY, plan.AggRegrSYY)
		a.More, a.MoreTypes = []int{colFloat}, []record.Type{record.Double} // of y with itself, whose answers are known
		return a
	case 5:
		return of([]int{colInt, colText, colNumeric}[w.rng.IntN(3)], plan.AggApproxCountDistinct)
	}
	a := of(colFloat, plan.AggApproxPercentile)
	a.Const = []record.Value{{Type: record.Double, Float: []float64{0, 0.25, 0.5, 1}[w.rng.IntN(4)]}}
	return a
}

// modelStatistics computes what statisticsAggregate may return in the plainest way.
func modelStatistics(t testing.TB, a *plan.Agg, rows []row) (string, bool) {
	there := map[string]*counted{}
	if a.Arg < 0 {
		return "", false
	}
	for _, r := range rows {
		v := r.values[a.Arg]
		if v.Null {
			continue
		}
		if id := valueText(v); there[id] == nil {
			there[id] = &counted{v, r.weight}
		} else {
			there[id].n += r.weight
		}
	}
	var values []record.Value
	for _, c := range there {
		for range c.n {
			values = append(values, c.v)
		}
	}
	slices.SortFunc(values, record.Compare)
	null := len(values) == 0
	switch a.Func {
	case plan.AggBoolAnd, plan.AggBoolOr, plan.AggBitAnd, plan.AggBitOr, plan.AggBitXor:
		if null {
			return "NULL", true
		}
		v := values[0]
		for _, x := range values[1:] {
			switch a.Func {
			case plan.AggBoolAnd, plan.AggBitAnd:
				v.Int &= x.Int
			case plan.AggBitXor:
				v.Int ^= x.Int
			default:
				v.Int |= x.Int
			}
		}
		return valueText(v), true
	case plan.AggApproxCountDistinct:
		distinct := map[string]bool{}
		for _, v := range values {
			distinct[string(record.AppendOrderedValue(nil, v))] = true
		}
		return fmt.Sprint(len(distinct)), true
	case plan.AggApproxPercentile:
		if null {
			return "NULL", true
		}
		v := values[int(a.Const[0].Float*float64(len(values)-1))]
		v.Float = middleOf(quantileBucket(v.Float))
		return valueText(v), true
	case plan.AggStddevPop, plan.AggStddevSamp, plan.AggVarPop, plan.AggVarSamp:
		if a.ArgType != record.Double {
			return modelVariance(t, a.Func, values), true
		}
		return modelMoments(a.Func, values), true
	}
	if a.Func.Pair() {
		return modelMoments(a.Func, values), true
	}
	return "", false
}

// modelVariance is numeric_stddev_internal over rationals.
func modelVariance(t testing.TB, f plan.AggFunc, values []record.Value) string {
	n := int64(len(values))
	sample := f == plan.AggStddevSamp || f == plan.AggVarSamp
	if n == 0 || n == 1 && sample {
		return "NULL"
	}
	sum, squares, scale := new(big.Rat), new(big.Rat), 0
	for _, v := range values {
		text := valueText(v)
		if text == "NaN" {
			return "NaN"
		}
		if dot := strings.IndexByte(text, '.'); dot >= 0 {
			scale = max(scale, len(text)-dot-1)
		}
		x, _ := new(big.Rat).SetString(text)
		sum.Add(sum, x)
		squares.Add(squares, x.Mul(x, x))
	}
	num := new(big.Rat).Mul(squares, new(big.Rat).SetInt64(n))
	num.Sub(num, sum.Mul(sum, sum))
	if num.Sign() <= 0 {
		return "0"
	}
	den := n * n
	if sample {
		den = n * (n - 1)
	}
	b, err := divNumeric(nil, []byte(num.FloatString(2*scale)), []byte(fmt.Sprint(den)))
	if err != nil {
		t.Fatal(err)
	}
	if f == plan.AggVarPop || f == plan.AggVarSamp {
		return string(b)
	}
	_, frac, _ := strings.Cut(string(b), ".")
	v, _, _ := new(big.Float).SetPrec(2000).Parse(string(b), 10)
	return v.Sqrt(v).Text('f', len(frac))
}

// modelMoments computes statistics of doubles, those of pairs as of each value with itself.
func modelMoments(f plan.AggFunc, values []record.Value) string {
	n := int64(len(values))
	if f == plan.AggRegrCount {
		return fmt.Sprint(n)
	}
	sample := f == plan.AggStddevSamp || f == plan.AggVarSamp || f == plan.AggCovarSamp
	if n == 0 || n == 1 && sample {
		return "NULL"
	}
	sum, squares := new(big.Rat), new(big.Rat)
	overflow := false
	for _, v := range values {
		if math.IsNaN(v.Float) || math.IsInf(v.Float, 0) {
			return "NaN"
		}
		if math.Abs(v.Float) < 0x1p-480 {
			v.Float = 0
		}
		overflow = overflow || math.IsInf(v.Float*v.Float, 0)
		x := new(big.Rat).SetFloat64(v.Float)
		sum.Add(sum, x)
		squares.Add(squares, new(big.Rat).Mul(x, x))
	}
	if overflow {
		return "NULL"
	}
	by := new(big.Rat).SetInt64(n)
	spread := new(big.Rat).Mul(squares, by)
	spread.Sub(spread, new(big.Rat).Mul(sum, sum))
	float := func(v *big.Rat) string {
		x, _ := v.Float64()
		switch f {
		case plan.AggStddevPop, plan.AggStddevSamp:
			x = math.Sqrt(x)
		}
		return valueText(record.Value{Type: record.Double, Float: x})
	}
	switch f {
	case plan.AggRegrAvgX, plan.AggRegrAvgY:
		return float(sum.Quo(sum, by))
	case plan.AggRegrSXX, plan.AggRegrSXY, plan.AggRegrSYY:
		return float(spread.Quo(spread, by))
	case plan.AggCorr, plan.AggRegrR2, plan.AggRegrSlope, plan.AggRegrIntercept:
		switch {
		case spread.Sign() == 0:
			return "NULL"
		case f == plan.AggRegrIntercept:
			return "0"
		}
		return "1"
	}
	if sample {
		by.Mul(by, new(big.Rat).SetInt64(n-1))
	} else {
		by.Mul(by, by)
	}
	return float(spread.Quo(spread, by))
}

// TestRegression checks statistics of pairs against numbers of PostgreSQL.
func TestRegression(t *testing.T) {
	s := record.Schema{{Name: "y", Type: record.Double}, {Name: "x", Type: record.Double}}
	// The table aggtest of PostgreSQL's regression tests: (b, a).
	data := [][2]float64{{7.8, 56}, {99.097, 100}, {0.09561, 0}, {324.78, 42}}
	a := &plan.Aggregate{Phase: plan.AggSingle}
	want := map[plan.AggFunc]float64{
		plan.AggRegrCount: 4, plan.AggRegrSXX: 5099, plan.AggRegrAvgX: 49.5, plan.AggRegrAvgY: 107.943152273074,
		plan.AggRegrSYY: 68756.2156939293, plan.AggRegrSXY: 2614.51582155004, plan.AggRegrR2: 0.0194977982031803,
		plan.AggRegrSlope: 0.512750700441271, plan.AggRegrIntercept: 82.5619926012309, plan.AggCorr: 0.139634516517873,
		plan.AggCovarPop: 653.62895538751, plan.AggCovarSamp: 871.505273850014,
	}
	var funcs []plan.AggFunc
	for f := range want {
		funcs = append(funcs, f)
	}
	slices.Sort(funcs)
	for _, f := range funcs {
		agg := newAgg(f, 0, record.Double)
		agg.More, agg.MoreTypes = []int{1}, []record.Type{record.Double}
		a.Aggs = append(a.Aggs, agg)
	}
	f := mustNew(t, []plan.Op{scanOp(s), aggOp(0, s, a)}, Env{})
	d := record.NewDelta(s, 4)
	for _, p := range data {
		// aggtest's column b is real.
		d.Cols[0].AppendFloat(float64(float32(p[0])))
		d.Cols[1].AppendFloat(p[1])
		d.N++
	}
	mustPush(t, f, 0, d)
	out := mustEnd(t, f, 1, NoWatermark)
	for i, fn := range funcs {
		v := out.Cols[i].Value(0)
		got := v.Float
		if v.Type == record.BigInt {
			got = float64(v.Int)
		}
		if math.Abs(got-want[fn]) > 1e-14*math.Abs(want[fn])*100 {
			t.Errorf("%s is %v, in PostgreSQL %v", fn, got, want[fn])
		}
	}
}

// TestSketches checks the errors that the sketches promise.
func TestSketches(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	s := record.Schema{{Name: "i", Type: record.BigInt}, {Name: "f", Type: record.Double}}
	count, percentile := newAgg(plan.AggApproxCountDistinct, 0, record.BigInt), newAgg(plan.AggApproxPercentile, 1, record.Double)
	percentile.Const = []record.Value{{Type: record.Double, Float: 0.9}}
	a := &plan.Aggregate{Phase: plan.AggSingle, AppendOnly: true, Aggs: []plan.Agg{count, percentile}}
	for _, n := range []int{100, 3000, 7000, 300_000} {
		f := mustNew(t, []plan.Op{scanOp(s), aggOp(0, s, a)}, Env{})
		values := make([]float64, n)
		d := record.NewDelta(s, n)
		for i := range values {
			values[i] = math.Exp(rng.NormFloat64()*3) * float64(1-2*rng.IntN(2))
			d.Cols[0].AppendInt(int64(i) * 7)
			d.Cols[1].AppendFloat(values[i])
		}
		d.N = n
		mustPush(t, f, 0, d)
		out := mustEnd(t, f, 1, NoWatermark)
		slices.Sort(values)
		if got := float64(out.Cols[0].Ints[0]); math.Abs(got-float64(n)) > 0.03*float64(n) {
			t.Errorf("%d distinct values are counted as %v", n, got)
		}
		exact := values[int(0.9*float64(n-1))]
		if got := out.Cols[1].Floats[0]; math.Abs(got-exact) > 0.01*math.Abs(exact) {
			t.Errorf("the 0.9 percentile %v of %d values is estimated as %v", exact, n, got)
		}
	}
}
