package dataflow

import (
	"encoding/binary"
	"math"
	"math/big"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// moments is variance and covariance of doubles, from exact sums: of the values and their products. A product of two
// doubles is the sum of two: the rounded one and what it lost. It stores the count as a varint and each sum after its
// length. Values nearer to 0 than 2^-480 (3e-145) count as 0: the product of two could be too small for a double.
type moments struct {
	args []int // y, or y and x
	sums []floatSums
	n    []int64
	one  exact
	buf  []byte
}

// Sums of moments: those of one argument, and those of two.
const (
	sumY, sumYY       = 0, 1
	pairY, pairX      = 0, 1
	pairYY, pairXX    = 2, 3
	pairYX            = 4
	varSums, pairSums = 2, 5
)

func newMoments(a *plan.Agg) *moments {
	m := &moments{args: append([]int{a.Arg}, a.More...)}
	m.sums = make([]floatSums, varSums)
	if len(m.args) > 1 {
		m.sums = make([]floatSums, pairSums)
	}
	return m
}

func (m *moments) grow(n int) {
	for k := range m.sums {
		m.sums[k].grow(n)
	}
	m.n = extend(m.n, n)
}

func (m *moments) reset() {
	for k := range m.sums {
		m.sums[k].reset()
	}
	m.n = shrink(m.n, len(m.n))
}

func (m *moments) clear(s int) {
	for k := range m.sums {
		m.sums[k].clear(s)
	}
	m.n[s] = 0
}

func (m *moments) empty(s int) bool {
	if m.n[s] != 0 {
		return false
	}
	for k := range m.sums {
		if m.sums[k].get(s, &m.one); !m.one.isZero() {
			return false
		}
	}
	return true
}

func (m *moments) add(dst, src int) {
	for k := range m.sums {
		m.sums[k].addSlot(dst, src)
	}
	m.n[dst] += m.n[src]
}

func notTiny(v float64) float64 {
	if math.Abs(v) < 0x1p-480 {
		return 0
	}
	return v
}

func (m *moments) addProduct(k, s int, x, y float64, w int64) {
	p := float64(x * y)
	m.sums[k].add(s, p, w)
	if low := math.FMA(x, y, -p); low == low { // not of infinities
		m.sums[k].add(s, low, w)
	}
}

func (m *moments) update(slots []int32, in *record.Delta) error {
	y := &in.Cols[m.args[0]]
	x := y
	if len(m.args) > 1 {
		x = &in.Cols[m.args[1]]
	}
	for i, slot := range slots {
		w := in.Weight(i)
		if y.Null(i) || x.Null(i) || w == 0 {
			continue
		}
		s, v := int(slot), notTiny(y.Floats[i])
		m.n[s] += w
		m.sums[sumY].add(s, v, w)
		if len(m.args) == 1 {
			m.addProduct(sumYY, s, v, v, w)
			continue
		}
		u := notTiny(x.Floats[i])
		m.sums[pairX].add(s, u, w)
		m.addProduct(pairYY, s, v, v, w)
		m.addProduct(pairXX, s, u, u, w)
		m.addProduct(pairYX, s, v, u, w)
	}
	return nil
}

func (m *moments) merge(slots []int32, in *record.Delta, at int) error {
	for k := range m.sums {
		c := &in.Cols[at+k]
		for i, s := range slots {
			if c.Null(i) {
				continue
			}
			if err := m.sums[k].merge(int(s), c.At(i), in.Weight(i)); err != nil {
				return err
			}
		}
	}
	addCounts(m.n, slots, &in.Cols[at+len(m.sums)], in.Weights)
	return nil
}

func (m *moments) encode(k, s int) []byte {
	m.sums[k].get(s, &m.one)
	m.buf = m.one.append(m.buf[:0])
	return m.buf
}

func (m *moments) partial(s, round int, out []record.Column) bool {
	for k := range m.sums {
		if round > 0 {
			out[k].AppendNull()
		} else {
			out[k].AppendBytes(m.encode(k, s))
		}
	}
	n := int64(0)
	if round == 0 {
		n = m.n[s]
	}
	out[len(m.sums)].AppendInt(n)
	return false
}

func (m *moments) load(s int, src []byte) (rest []byte, ok bool) {
	m.clear(s)
	if m.n[s], rest, ok = readInt(src); !ok {
		return nil, false
	}
	for k := range m.sums {
		var sum []byte
		if sum, rest, ok = readBytes(rest); !ok || m.sums[k].merge(s, sum, 1) != nil {
			return nil, false
		}
	}
	return rest, true
}

func (m *moments) store(dst []byte, s int) []byte {
	dst = binary.AppendVarint(dst, m.n[s])
	for k := range m.sums {
		sum := m.encode(k, s)
		dst = append(binary.AppendUvarint(dst, uint64(len(sum))), sum...)
	}
	return dst
}

// sum returns sum k of slot s in units of 2^-1074, if it is finite.
func (m *moments) sum(k, s int) (*big.Int, bool) {
	m.sums[k].get(s, &m.one)
	if m.one.special != [3]int64{} {
		return nil, false
	}
	z, limb := new(big.Int), new(big.Int)
	for i := m.one.hi - 1; i >= m.one.lo; i-- {
		z.Lsh(z, 32)
		z.Or(z, limb.SetUint64(uint64(m.one.limbs[i])))
	}
	z.Lsh(z, uint(32*m.one.lo))
	if m.one.neg {
		z.Neg(z)
	}
	return z, true
}

// spread returns n*sum(ab) - sum(a)*sum(b) in units of 2^-2148.
func spread(n int64, ab, a, b *big.Int) *big.Int {
	z := new(big.Int).Mul(ab, big.NewInt(n))
	z.Lsh(z, 1074)
	return z.Sub(z, new(big.Int).Mul(a, b))
}

// ratio returns num/den, rounded once.
func ratio(num, den *big.Int) float64 {
	v, _ := new(big.Rat).SetFrac(num, den).Float64()
	return v
}

// unit is how many units there are to 1, squared: den times that divides a spread.
func squareUnits(den *big.Int) *big.Int { return new(big.Int).Lsh(den, 2148) }

func (m *moments) result(f plan.AggFunc, s int, out *record.Column) error {
	n := m.n[s]
	if f == plan.AggRegrCount {
		out.AppendInt(max(n, 0))
		return nil
	}
	least := int64(1)
	switch f {
	case plan.AggStddevSamp, plan.AggVarSamp, plan.AggCovarSamp:
		least = 2
	}
	if n < least {
		out.AppendNull()
		return nil
	}
	sums := make([]*big.Int, len(m.sums))
	for k := range m.sums {
		var ok bool
		if sums[k], ok = m.sum(k, s); ok {
			continue
		}
		if k >= len(m.args) {
			return errDoubleOverflow // of a square
		}
		out.AppendFloat(math.NaN())
		return nil
	}
	if len(m.args) == 1 {
		v := ratio(spread(n, sums[sumYY], sums[sumY], sums[sumY]), squareUnits(pairs(n, least == 2)))
		if f == plan.AggStddevPop || f == plan.AggStddevSamp {
			v = math.Sqrt(v)
		}
		return appendFinite(out, v)
	}
	return m.pairResult(f, n, sums, out)
}

// pairs returns n*n, or n*(n-1) for a sample.
func pairs(n int64, sample bool) *big.Int {
	z := big.NewInt(n)
	if sample {
		return z.Mul(z, big.NewInt(n-1))
	}
	return z.Mul(z, z)
}

func appendFinite(out *record.Column, v float64) error {
	if math.IsInf(v, 0) {
		return errDoubleOverflow
	}
	out.AppendFloat(v)
	return nil
}

func (m *moments) pairResult(f plan.AggFunc, n int64, sums []*big.Int, out *record.Column) error {
	y, x := sums[pairY], sums[pairX]
	yy, xx, yx := spread(n, sums[pairYY], y, y), spread(n, sums[pairXX], x, x), spread(n, sums[pairYX], y, x)
	by := big.NewInt(n)
	switch f {
	case plan.AggCovarPop, plan.AggCovarSamp:
		return appendFinite(out, ratio(yx, squareUnits(pairs(n, f == plan.AggCovarSamp))))
	case plan.AggRegrSXX:
		return appendFinite(out, ratio(xx, squareUnits(by)))
	case plan.AggRegrSYY:
		return appendFinite(out, ratio(yy, squareUnits(by)))
	case plan.AggRegrSXY:
		return appendFinite(out, ratio(yx, squareUnits(by)))
	case plan.AggRegrAvgX:
		return appendFinite(out, ratio(x, new(big.Int).Lsh(by, 1074)))
	case plan.AggRegrAvgY:
		return appendFinite(out, ratio(y, new(big.Int).Lsh(by, 1074)))
	}
	// The others are NULL where all x are the same, corr where all y are.
	if xx.Sign() == 0 || f == plan.AggCorr && yy.Sign() == 0 {
		out.AppendNull()
		return nil
	}
	switch f {
	case plan.AggRegrSlope:
		return appendFinite(out, ratio(yx, xx))
	case plan.AggRegrIntercept: // (y*xx - x*yx) / (n*xx), which is in units of 2^-1074
		num := new(big.Int).Mul(y, xx)
		num.Sub(num, new(big.Int).Mul(x, yx))
		den := new(big.Int).Mul(by, xx)
		return appendFinite(out, ratio(num, den.Lsh(den, 1074)))
	}
	if yy.Sign() == 0 {
		out.AppendFloat(1) // regr_r2
		return nil
	}
	v := ratio(new(big.Int).Mul(yx, yx), new(big.Int).Mul(xx, yy))
	if f == plan.AggCorr {
		if v = math.Sqrt(v); yx.Sign() < 0 {
			v = -v
		}
	}
	return appendFinite(out, v)
}
