package dataflow

import "math"

// Exponentials and logarithms are computed with about 100 bits, as the sum of two doubles, and rounded once: Go's own
// are up to a few units in the last place off and not the same on every processor, which the state of a view must be.
// (T. J. Dekker, "A floating-point technique for extending the available precision", 1971.)

// pair is hi+lo, where lo is at most half a unit in the last place of hi.
type pair struct{ hi, lo float64 }

func twoSum(a, b float64) pair {
	s := a + b
	t := s - a
	return pair{s, (a - (s - t)) + (b - t)}
}

func twoProd(a, b float64) pair {
	p := float64(a * b)
	return pair{p, math.FMA(a, b, -p)}
}

func (a pair) add(b pair) pair {
	s, t := twoSum(a.hi, b.hi), twoSum(a.lo, b.lo)
	s = twoSum(s.hi, s.lo+t.hi)
	return twoSum(s.hi, s.lo+t.lo)
}

func (a pair) mul(b pair) pair {
	p := twoProd(a.hi, b.hi)
	cross := float64(a.hi*b.lo) + float64(a.lo*b.hi)
	return twoSum(p.hi, p.lo+cross)
}

func (a pair) scale(f float64) pair {
	p := twoProd(a.hi, f)
	return twoSum(p.hi, math.FMA(a.lo, f, p.lo))
}

// ln2 and ln10 as pairs.
var (
	pairLn2   = pair{0.6931471805599453, 2.3190468138462996e-17}
	pairLog10 = pair{0.4342944819032518, 1.098319650216765e-17} // 1/ln(10)
)

// expPair returns e^a as m * 2^k with m near 1.
func expPair(a pair) (m pair, k int) {
	n := math.RoundToEven(a.hi / pairLn2.hi)
	r := a.add(pairLn2.scale(-n))
	// |r| < 0.35; a 512th of it makes the series short.
	const halvings = 9
	r = r.scale(1.0 / (1 << halvings))
	// e^r - 1 = r + r^2/2 + ..., kept without the 1, which would cost digits: (1+s)^2 - 1 = 2s + s^2.
	s, term := r, r
	for i := 2.0; i <= 9; i++ {
		term = term.mul(r).mul(inverse(i))
		s = s.add(term)
	}
	for range halvings {
		s = s.scale(2).add(s.mul(s))
	}
	return pair{1, 0}.add(s), int(n)
}

// inverse returns 1/n.
func inverse(n float64) pair {
	q := 1 / n
	return pair{q, -math.FMA(q, n, -1) / n}
}

// logPair returns ln(x) of a finite x > 0.
func logPair(x float64) pair {
	frac, exp := math.Frexp(x)
	if frac < math.Sqrt2/2 {
		frac, exp = 2*frac, exp-1
	}
	// One step of Newton's method on e^y = frac, from a y that has 52 bits already.
	y := math.Log(frac)
	e, k := expPair(pair{-y, 0})
	e = e.scale(frac)
	d := twoSum(math.Ldexp(e.hi, k), -1).add(pair{math.Ldexp(e.lo, k), 0}) // frac/e^y - 1
	// ln(1+d) = d - d^2/2 as d is about 2^-52.
	d = d.add(pair{-float64(d.hi*d.hi) / 2, 0})
	return pairLn2.scale(float64(exp)).add(pair{y, 0}.add(d))
}

// ldexpPair returns m*2^k, rounded once: a result without full precision is rounded from both parts.
func ldexpPair(m pair, k int) float64 {
	if k > -1000 {
		return math.Ldexp(m.hi, k)
	}
	// 2^-1022 is where precision ends. Adding a number that makes the sum's last place 2^-1074 rounds at that place.
	shift := math.Ldexp(1.5, -1074+52-k)
	s := twoSum(shift, m.hi)
	rest := s.lo + m.lo
	s2 := s.hi + rest
	return math.Ldexp(s2-shift, k)
}

func exactExp(x float64) float64 {
	switch {
	case x != x || x > 710 || x < -746:
		return math.Exp(x)
	case x == 0:
		return 1
	}
	return ldexpPair(expPair(pair{x, 0}))
}

func exactLog(x float64) float64 {
	if x != x || math.IsInf(x, 0) || x == 1 {
		return math.Log(x)
	}
	return logPair(x).hi
}

func exactLog10(x float64) float64 {
	if x != x || math.IsInf(x, 0) || x == 1 {
		return math.Log10(x)
	}
	return logPair(x).mul(pairLog10).hi
}

// exactPow is x^y; for special values what math.Pow says.
func exactPow(x, y float64) float64 {
	switch {
	case x == 0 || x == 1 || y == 0 || y == 1 || x-x != 0 || y-y != 0:
		return math.Pow(x, y)
	case x == -1:
		return math.Pow(x, y)
	case y == 2:
		return x * x
	case y == 0.5:
		return math.Sqrt(x)
	}
	l := logPair(math.Abs(x)).scale(y)
	var v float64
	switch {
	case l.hi > 710:
		v = math.Inf(1)
	case l.hi < -746:
		v = 0
	default:
		v = ldexpPair(expPair(l))
	}
	if x < 0 && math.Mod(y, 2) != 0 {
		v = -v
	}
	return v
}
