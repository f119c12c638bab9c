package dataflow

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Sums of doubles are exact: a sum is a fixed-point number that covers the whole range of double precision, kept in
// limbs of 32 bits in 64-bit words, so that carries wait. This is the small superaccumulator of R. M. Neal, "Fast
// exact summation using small and large superaccumulators" (arXiv:1505.05571, section 2), with a value split over
// three limbs instead of two (so that carries wait for 2^30 values), and with only as many limbs a slot as its values
// need. An exact sum doesn't depend on order, and taking a value back leaves no trace of it.
//
// Limb i counts units of 2^(32i - 1074). NaN and the infinities are counted apart.
const (
	sumLimbs  = 70 // 2046+53 bits, and 2^63 times that
	nearLimbs = 5  // of a slot whose values are of similar size
	// sumLazy bounds the values added without carrying: a limb is below 2^32 before, and each adds less than 2^32.
	sumLazy = 1 << 30
)

// floatSums is one exact sum a slot.
type floatSums struct {
	base    []int16             // first limb of near; -1: the sum is zero
	near    []int64             // nearLimbs a slot
	far     []int32             // 1 + index in full, 0: the sum is in near
	full    [][sumLimbs]int64   // sums of values of very different size
	special map[int32]*[3]int64 // NaN, Infinity, -Infinity
	lazy    int
}

const (
	countNaN = iota
	countPosInf
	countNegInf
)

func (f *floatSums) grow(n int) {
	for len(f.base) < n {
		f.base = append(f.base, -1)
	}
	f.near = extend(f.near, n*nearLimbs)
	f.far = extend(f.far, n)
}

func (f *floatSums) reset() {
	n := len(f.base)
	f.base, f.near, f.far = shrink(f.base, n), shrink(f.near, n*nearLimbs), shrink(f.far, n)
	f.full, f.lazy, f.special = nil, 0, nil
}

// clear makes the sum of slot s zero.
func (f *floatSums) clear(s int) {
	f.base[s], f.far[s] = -1, 0
	clear(f.near[s*nearLimbs : (s+1)*nearLimbs])
	delete(f.special, int32(s))
}

// add adds v, w times.
func (f *floatSums) add(s int, v float64, w int64) {
	b := math.Float64bits(v)
	exp := int(b >> 52 & 0x7ff)
	if exp == 0x7ff {
		f.addSpecial(s, v, w)
		return
	}
	m := b & (1<<52 - 1)
	if exp != 0 {
		m |= 1 << 52
		exp--
	}
	if m == 0 || w == 0 {
		return
	}
	if f.lazy++; f.lazy >= sumLazy {
		f.carryAll()
	}
	at, shift := exp>>5, exp&31
	neg := b>>63 != 0
	if w < 0 {
		neg, w = !neg, -w
	}
	if w != 1 {
		hi, lo := bits.Mul64(m, uint64(w))
		f.addShifted(s, at, hi, lo, shift, neg)
		return
	}
	lo, hi := m<<shift, m>>(64-shift)
	if f.base[s] < 0 {
		f.base[s] = int16(max(0, at-1))
	}
	k := at - int(f.base[s])
	if f.far[s] != 0 || uint(k) > nearLimbs-3 {
		f.addShifted(s, at, 0, m, shift, neg)
		return
	}
	limbs := f.near[s*nearLimbs+k : s*nearLimbs+k+3 : s*nearLimbs+k+3]
	if neg {
		limbs[0] -= int64(lo & (1<<32 - 1))
		limbs[1] -= int64(lo >> 32)
		limbs[2] -= int64(hi)
	} else {
		limbs[0] += int64(lo & (1<<32 - 1))
		limbs[1] += int64(lo >> 32)
		limbs[2] += int64(hi)
	}
}

// addShifted adds the 128 bits of hi:lo times 2^shift from limb at on; shift is below 32.
func (f *floatSums) addShifted(s, at int, hi, lo uint64, shift int, neg bool) {
	parts := [3]uint64{lo << shift, hi<<shift | lo>>(64-shift), hi >> (64 - shift)}
	for i, p := range parts {
		f.addLimb(s, at+2*i, int64(p&(1<<32-1)), neg)
		f.addLimb(s, at+2*i+1, int64(p>>32), neg)
	}
}

func (f *floatSums) addLimb(s, at int, v int64, neg bool) {
	if v == 0 {
		return
	}
	if neg {
		v = -v
	}
	if f.far[s] == 0 {
		if f.base[s] < 0 {
			f.base[s] = int16(max(0, min(at-1, sumLimbs-nearLimbs)))
		}
		if k := at - int(f.base[s]); uint(k) < nearLimbs {
			f.near[s*nearLimbs+k] += v
			return
		}
		f.promote(s)
	}
	f.full[f.far[s]-1][at] += v
}

// promote gives slot s all limbs.
func (f *floatSums) promote(s int) {
	f.full = append(f.full, [sumLimbs]int64{})
	copy(f.full[len(f.full)-1][max(0, f.base[s]):], f.near[s*nearLimbs:(s+1)*nearLimbs])
	f.far[s] = int32(len(f.full))
}

// carryAll brings all limbs below 2^32.
func (f *floatSums) carryAll() {
	for s := range f.base {
		if f.far[s] == 0 {
			if f.base[s] < 0 {
				continue
			}
			if top := f.near[s*nearLimbs+nearLimbs-1]; top>>32 != 0 {
				f.promote(s)
			}
		}
		if f.far[s] != 0 {
			carryUp(f.full[f.far[s]-1][:])
		} else {
			carryUp(f.near[s*nearLimbs : (s+1)*nearLimbs])
		}
	}
	f.lazy = 1
}

// carryUp brings all limbs but the last into [0, 2^32).
func carryUp(limbs []int64) {
	for i := range len(limbs) - 1 {
		limbs[i+1] += limbs[i] >> 32
		limbs[i] &= 1<<32 - 1
	}
}

func (f *floatSums) addSpecial(s int, v float64, w int64) {
	kind := countNaN
	if v > 0 {
		kind = countPosInf
	} else if v < 0 {
		kind = countNegInf
	}
	f.specials(s)[kind] += w
}

func (f *floatSums) specials(s int) *[3]int64 {
	if f.special == nil {
		f.special = make(map[int32]*[3]int64)
	}
	c := f.special[int32(s)]
	if c == nil {
		c = new([3]int64)
		f.special[int32(s)] = c
	}
	return c
}

// exact is a sum in its one canonical form: sign and magnitude, limbs [lo, hi) without zeros at the ends.
type exact struct {
	neg     bool
	lo, hi  int
	limbs   [sumLimbs]uint32
	special [3]int64
}

// get sets e to the sum of slot s. e is zero or was set by get before.
func (f *floatSums) get(s int, e *exact) {
	clear(e.limbs[e.lo:e.hi])
	e.neg, e.lo, e.hi, e.special = false, 0, 0, [3]int64{}
	if c := f.special[int32(s)]; c != nil {
		e.special = *c
	}
	switch {
	case f.far[s] != 0:
		sum := f.full[f.far[s]-1]
		e.set(sum[:], 0)
	case f.base[s] >= 0:
		var sum [nearLimbs + 2]int64 // the last limb may be more than 32 bits
		copy(sum[:], f.near[s*nearLimbs:(s+1)*nearLimbs])
		e.set(sum[:], int(f.base[s]))
	}
}

// set sets e, which is zero, to the sum whose limbs begin with limb base. It changes sum.
func (e *exact) set(sum []int64, base int) {
	carryUp(sum)
	if sum[len(sum)-1] < 0 {
		e.neg = true
		for i := range sum {
			sum[i] = -sum[i]
		}
		carryUp(sum)
	}
	for i, v := range sum {
		if v == 0 {
			continue
		}
		if e.hi == 0 {
			e.lo = base + i
		}
		e.limbs[base+i] = uint32(v)
		e.hi = base + i + 1
	}
}

func (e *exact) isZero() bool { return e.hi == 0 && e.special == [3]int64{} }

// The encoding of an exact sum: a byte with the version and flags, the counts of special values if there are any, the
// first limb and the limbs, least significant byte first. It ends where its bytes end.
const (
	exactVersion = 0x10
	exactNeg     = 1
	exactSpecial = 2
)

func (e *exact) append(dst []byte) []byte {
	head := byte(exactVersion)
	if e.neg {
		head |= exactNeg
	}
	if e.special != [3]int64{} {
		head |= exactSpecial
	}
	dst = append(dst, head)
	if head&exactSpecial != 0 {
		for _, n := range e.special {
			dst = binary.AppendVarint(dst, n)
		}
	}
	if e.hi == 0 {
		return dst
	}
	dst = append(dst, byte(e.lo))
	for _, v := range e.limbs[e.lo:e.hi] {
		dst = binary.LittleEndian.AppendUint32(dst, v)
	}
	return dst
}

// merge adds the encoded sum src, w times.
func (f *floatSums) merge(s int, src []byte, w int64) error {
	if len(src) == 0 || src[0]&^(exactNeg|exactSpecial) != exactVersion {
		return badSum(src)
	}
	head, rest := src[0], src[1:]
	if head&exactSpecial != 0 {
		for kind := range 3 {
			n, r, ok := readInt(rest)
			if !ok {
				return badSum(src)
			}
			rest = r
			if n != 0 {
				f.specials(s)[kind] += n * w
			}
		}
	}
	if len(rest) == 0 {
		return nil
	}
	at, limbs := int(rest[0]), rest[1:]
	if len(limbs)%4 != 0 || at+len(limbs)/4 > sumLimbs {
		return badSum(src)
	}
	neg := head&exactNeg != 0
	if w < 0 {
		neg, w = !neg, -w
	}
	if f.lazy += 4; f.lazy >= sumLazy {
		f.carryAll()
	}
	for i := 0; i < len(limbs); i += 4 {
		hi, lo := bits.Mul64(uint64(binary.LittleEndian.Uint32(limbs[i:])), uint64(w))
		for j, part := range [3]uint64{lo & (1<<32 - 1), lo >> 32, hi} {
			if part != 0 && at+i/4+j >= sumLimbs {
				return badSum(src)
			}
			f.addLimb(s, at+i/4+j, int64(part), neg)
		}
	}
	return nil
}

func badSum(src []byte) error { return corrupted("an exact sum of %d bytes doesn't decode", len(src)) }

// quotient returns the sum divided by n, correctly rounded, or the special value that the sum is.
func (e *exact) quotient(n int64) float64 {
	switch {
	case e.special[countNaN] > 0 || e.special[countPosInf] > 0 && e.special[countNegInf] > 0:
		return math.NaN()
	case e.special[countPosInf] > 0:
		return math.Inf(1)
	case e.special[countNegInf] > 0:
		return math.Inf(-1)
	case e.hi == 0 || n == 0:
		return 0
	}
	neg := e.neg
	if n < 0 {
		neg, n = !neg, -n
	}
	hi, lo, top, rest := e.leading()
	if n != 1 {
		var rem uint64
		hi, lo, rem = div128(hi, lo, uint64(n))
		rest = rest || rem != 0
		z := bits.LeadingZeros64(hi)
		if hi == 0 {
			z = 64 + bits.LeadingZeros64(lo)
		}
		hi, lo, top = shl128(hi, lo, z), lo<<z, top-z
	}
	v := roundBits(hi, rest || lo != 0, top)
	if neg {
		return -v
	}
	return v
}

func shl128(hi, lo uint64, n int) uint64 {
	if n >= 64 {
		return lo << (n - 64)
	}
	return hi<<n | lo>>(64-n)
}

// leading returns the 128 most significant bits of the magnitude, the position of the first of them (in units of
// 2^-1074), and whether any bit behind them is set.
func (e *exact) leading() (hi, lo uint64, top int, rest bool) {
	limb := func(i int) uint64 {
		if i < 0 {
			return 0
		}
		return uint64(e.limbs[i])
	}
	h := e.hi - 1
	z := bits.LeadingZeros32(e.limbs[h])
	hi = limb(h)<<32 | limb(h-1)
	lo = limb(h-2)<<32 | limb(h-3)
	next := limb(h-4) << 32
	top = h*32 + 31 - z
	hi, lo, next = hi<<z|lo>>(64-z), lo<<z|next>>(64-z), next<<z
	rest = next != 0
	for i := h - 5; i >= e.lo && !rest; i-- {
		rest = e.limbs[i] != 0
	}
	return hi, lo, top, rest
}

// roundBits returns the double nearest to the 64 bits of m, of which the highest is set and is bit top in units of
// 2^-1074, and a little more if rest; ties go to the even one.
func roundBits(m uint64, rest bool, top int) float64 {
	lowest := max(top-52, 0) // the result's lowest bit
	shift := lowest - (top - 63)
	if shift > 64 {
		return 0
	}
	mant, tail := m>>shift, m<<(64-shift)
	if tail > 1<<63 || tail == 1<<63 && (rest || mant&1 != 0) {
		mant++
	}
	// Below 2^52 the number is subnormal and its exponent field is zero, as lowest is then; else the mantissa's
	// highest bit adds one to the field. A carry out of the mantissa comes out right too.
	b := uint64(lowest)<<52 + mant
	if b >= 0x7ff<<52 {
		return math.Inf(1)
	}
	return math.Float64frombits(b)
}

// addSlot adds the sum of slot src to that of slot dst.
func (f *floatSums) addSlot(dst, src int) {
	if c := f.special[int32(src)]; c != nil {
		into := f.specials(dst)
		for kind, n := range c {
			into[kind] += n
		}
	}
	if f.lazy += 4; f.lazy >= sumLazy {
		f.carryAll()
	}
	if f.far[src] != 0 {
		from := f.full[f.far[src]-1]
		carryUp(from[:])
		for i, v := range from {
			f.addLimb(dst, i, v, false)
		}
		return
	}
	if f.base[src] < 0 {
		return
	}
	var from [nearLimbs]int64
	copy(from[:], f.near[src*nearLimbs:])
	carryUp(from[:])
	for i, v := range from {
		f.addLimb(dst, int(f.base[src])+i, v, false)
	}
}
