package dataflow

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/cockroachdb/apd/v3"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// numericSum is sum and avg of numeric. The scale of PostgreSQL's sum is the largest among its values, so a sum that
// can take values back keeps a part for each scale, with its own sum and count; NaN is one more part. When rows only
// come, one part with the largest scale is enough. Most groups have one part anyway.
//
// It stores the number of parts, then for each its scale, its count, and its coefficient after length and sign.
type numericSum struct {
	arg        int
	appendOnly bool
	first      []numericPart
	more       map[int32][]numericPart // of slots with several parts, the others in order of their scale
}

// numericPart is the sum of the values of one scale.
type numericPart struct {
	scale int32 // scaleNone: there is no part
	n     int64
	sum   int128
	big   *apd.BigInt // the sum, once it outgrew 128 bits
}

// The scale of a part is stored shifted, so that the zero value is no part.
const (
	scaleNone = 0
	scaleNaN  = 1
	scaleZero = 2 // scale 0
)

func (p *numericPart) isZero() bool {
	return p.n == 0 && (p.scale < scaleZero || p.big == nil && p.sum.isZero() || p.big != nil && p.big.Sign() == 0)
}

// addWide adds v to the sum.
func (p *numericPart) addWide(v int128) {
	if p.big == nil {
		sum := p.sum.add(v)
		// Two's complement: no overflow unless both have one sign and the sum the other one.
		if (p.sum.hi^sum.hi)&(v.hi^sum.hi) >= 0 {
			p.sum = sum
			return
		}
		p.grow()
	}
	var d apd.Decimal
	setWide(&d, v, 0)
	p.addBig(&d.Coeff, d.Negative)
}

// grow moves the sum to a number of any length.
func (p *numericPart) grow() {
	var d apd.Decimal
	setWide(&d, p.sum, 0)
	p.big = new(apd.BigInt).Set(&d.Coeff)
	if d.Negative {
		p.big.Neg(p.big)
	}
	p.sum = int128{}
}

func (p *numericPart) addBig(mag *apd.BigInt, neg bool) {
	if p.big == nil {
		p.grow()
	}
	if neg {
		p.big.Sub(p.big, mag)
	} else {
		p.big.Add(p.big, mag)
	}
}

// raise gives the part a larger scale.
func (p *numericPart) raise(scale int32) {
	for p.scale < scale && p.big == nil {
		step := min(scale-p.scale, 18)
		hi, lo, neg := p.sum.abs()
		h, l, ok := mul128(hi, lo, pow10[step])
		if !ok || int64(h) < 0 {
			p.grow()
			break
		}
		p.sum = int128{int64(h), l}
		if neg {
			p.sum = p.sum.neg()
		}
		p.scale += step
	}
	if p.scale < scale {
		p.big.Mul(p.big, tenTo(int(scale-p.scale)))
		p.scale = scale
	}
}

// addPart adds q, which is left as it is.
func (p *numericPart) addPart(q *numericPart) {
	p.n += q.n
	if p.scale == scaleNaN {
		return
	}
	r := *q
	if q.scale < p.scale {
		if q.big != nil {
			r.big = new(apd.BigInt).Set(q.big)
		}
		r.raise(p.scale)
	} else if p.scale < q.scale {
		p.raise(q.scale)
	}
	if r.big != nil {
		p.addBig(r.big, false)
		return
	}
	p.addWide(r.sum)
}

func (a *numericSum) grow(n int) { a.first = extend(a.first, n) }

func (a *numericSum) reset() { a.first, a.more = shrink(a.first, len(a.first)), nil }

func (a *numericSum) clear(s int) {
	a.first[s] = numericPart{}
	delete(a.more, int32(s))
}

func (a *numericSum) empty(s int) bool {
	for p := range a.parts(s) {
		if !p.isZero() {
			return false
		}
	}
	return true
}

// parts yields the parts of slot s in order of their scale, NaN first.
func (a *numericSum) parts(s int) func(func(*numericPart) bool) {
	return func(yield func(*numericPart) bool) {
		if a.first[s].scale == scaleNone || !yield(&a.first[s]) {
			return
		}
		more := a.more[int32(s)]
		for i := range more {
			if !yield(&more[i]) {
				return
			}
		}
	}
}

// part returns the part of slot s for values of a scale.
func (a *numericSum) part(s int, scale int32) *numericPart {
	p := &a.first[s]
	if p.scale == scale {
		return p
	}
	if p.scale == scaleNone {
		p.scale = scale
		return p
	}
	if a.appendOnly && scale != scaleNaN && p.scale != scaleNaN {
		p.raise(scale)
		return p
	}
	return a.otherPart(s, scale)
}

func (a *numericSum) otherPart(s int, scale int32) *numericPart {
	if a.more == nil {
		a.more = make(map[int32][]numericPart)
	}
	more := a.more[int32(s)]
	if a.appendOnly && scale != scaleNaN && len(more) > 0 {
		more[0].raise(scale)
		return &more[0]
	}
	// first stays the least, so that the order of parts doesn't depend on that of rows.
	if scale < a.first[s].scale {
		more = slices.Insert(more, 0, a.first[s])
		a.first[s] = numericPart{scale: scale}
		a.more[int32(s)] = more
		return &a.first[s]
	}
	i, found := slices.BinarySearchFunc(more, scale, func(p numericPart, scale int32) int { return int(p.scale - scale) })
	if !found {
		more = slices.Insert(more, i, numericPart{scale: scale})
		a.more[int32(s)] = more
	}
	return &more[i]
}

func (a *numericSum) update(slots []int32, in *record.Delta) error {
	c := &in.Cols[a.arg]
	for i, s := range slots {
		if c.Null(i) {
			continue
		}
		w := in.Weight(i)
		if w == 0 {
			continue // even so it would raise the scale
		}
		a.part(int(s), a.addText(int(s), c.At(i), w)).n += w
	}
	return nil
}

// addText adds the number b, w times, and returns the scale of the part that it went to.
func (a *numericSum) addText(s int, b []byte, w int64) int32 {
	if coef, scale, ok := parseSmall(b); ok {
		p := a.part(s, int32(scale)+scaleZero)
		v := mul64(coef, w)
		if up := p.scale - int32(scale) - scaleZero; up > 0 {
			q := numericPart{scale: int32(scale) + scaleZero, sum: v}
			p.addPart(&q)
		} else {
			p.addWide(v)
		}
		return p.scale
	}
	var d apd.Decimal
	parseDecimal(&d, b)
	if d.Form == apd.NaN {
		return scaleNaN
	}
	q := numericPart{scale: int32(scaleOf(&d)) + scaleZero, big: new(apd.BigInt).Mul(&d.Coeff, apd.NewBigInt(w))}
	if d.Negative {
		q.big.Neg(q.big)
	}
	p := a.part(s, q.scale)
	p.addPart(&q)
	return p.scale
}

func (a *numericSum) merge(slots []int32, in *record.Delta, at int) error {
	sums, counts := &in.Cols[at], &in.Cols[at+1]
	for i, s := range slots {
		if sums.Null(i) || counts.Null(i) {
			continue
		}
		w := in.Weight(i)
		a.part(int(s), a.addText(int(s), sums.At(i), w)).n += w * counts.Ints[i]
	}
	return nil
}

// partial gives a part in each round.
func (a *numericSum) partial(s, round int, out []record.Column) (more bool) {
	at := 0
	for p := range a.parts(s) {
		if p.isZero() {
			continue
		}
		if at == round {
			appendVarlen(&out[0], p.text) //nolint:errcheck // a part's text has no bound
			out[1].AppendInt(p.n)
		}
		if at > round {
			return true
		}
		at++
	}
	if at <= round {
		out[0].AppendNull()
		out[1].AppendInt(0)
	}
	return false
}

// text appends the sum of the part.
func (p *numericPart) text(dst []byte) ([]byte, error) {
	if p.scale == scaleNaN {
		return append(dst, "NaN"...), nil
	}
	if p.big == nil {
		hi, lo, neg := p.sum.abs()
		return appendScaled(dst, hi, lo, int(p.scale-scaleZero), neg), nil
	}
	if p.big.Sign() < 0 {
		dst = append(dst, '-')
	}
	start := len(dst)
	var mag apd.BigInt
	return insertPoint(mag.Abs(p.big).Append(dst, 10), start, int(p.scale-scaleZero)), nil
}

func (a *numericSum) add(dst, src int) {
	for q := range a.parts(src) {
		a.part(dst, q.scale).addPart(q)
	}
}

func (a *numericSum) store(dst []byte, s int) []byte {
	n := 0
	for p := range a.parts(s) {
		if !p.isZero() {
			n++
		}
	}
	dst = append(dst, byte(n>>8), byte(n))
	for p := range a.parts(s) {
		if p.isZero() {
			continue
		}
		dst = binary.AppendVarint(dst, int64(p.scale))
		dst = binary.AppendVarint(dst, p.n)
		var d apd.Decimal
		if p.big == nil {
			setWide(&d, p.sum, 0)
		} else {
			d.Coeff.Abs(p.big)
			d.Negative = p.big.Sign() < 0
		}
		mag := d.Coeff.Bytes()
		head := uint64(len(mag)) << 1
		if d.Negative {
			head |= 1
		}
		dst = append(binary.AppendUvarint(dst, head), mag...)
	}
	return dst
}

func (a *numericSum) load(s int, src []byte) (rest []byte, ok bool) {
	a.clear(s)
	if len(src) < 2 {
		return nil, false
	}
	n := int(src[0])<<8 | int(src[1])
	rest = src[2:]
	last := int64(scaleNone)
	for range n {
		var scale, count int64
		if scale, rest, ok = readInt(rest); !ok || scale <= last || scale > math.MaxInt16 {
			return nil, false
		}
		last = scale
		if count, rest, ok = readInt(rest); !ok {
			return nil, false
		}
		head, size := binary.Uvarint(rest)
		if size <= 0 || head>>1 > uint64(len(rest)-size) {
			return nil, false
		}
		mag := rest[size : size+int(head>>1)]
		rest = rest[size+len(mag):]
		p := a.part(s, int32(scale))
		p.n = count
		p.setMagnitude(mag, head&1 != 0)
	}
	return rest, true
}

// setMagnitude sets the sum from its big-endian bytes.
func (p *numericPart) setMagnitude(mag []byte, neg bool) {
	if len(mag) >= 16 {
		p.sum = int128{}
		p.big = new(apd.BigInt).SetBytes(mag)
		if neg {
			p.big.Neg(p.big)
		}
		return
	}
	var v int128
	for _, b := range mag {
		v = int128{v.hi<<8 | int64(v.lo>>56), v.lo<<8 | uint64(b)}
	}
	if neg {
		v = v.neg()
	}
	p.sum, p.big = v, nil
}

// total returns the sum of the parts of slot s and how many values it has.
func (a *numericSum) total(s int) (all numericPart, count int64) {
	for p := range a.parts(s) {
		count += p.n
		switch {
		case p.isZero():
		case p.scale == scaleNaN || all.scale == scaleNaN:
			all.scale = scaleNaN
		case all.scale == scaleNone:
			all = *p
			if p.big != nil {
				all.big = new(apd.BigInt).Set(p.big)
			}
		default:
			all.addPart(p)
		}
	}
	return all, count
}

func (a *numericSum) result(f plan.AggFunc, s int, out *record.Column) error {
	all, count := a.total(s)
	if count <= 0 {
		out.AppendNull()
		return nil
	}
	if all.scale == scaleNaN {
		out.AppendString("NaN")
		return nil
	}
	if f == plan.AggSum {
		return appendVarlen(out, func(dst []byte) ([]byte, error) {
			b, err := all.text(dst)
			if err == nil && len(b)-len(dst) > record.MaxNumericDigits {
				err = errNumericRange
			}
			return b, err
		})
	}
	return appendVarlen(out, func(dst []byte) ([]byte, error) { return all.average(dst, count) })
}

// average appends the sum divided by n.
func (p *numericPart) average(dst []byte, n int64) ([]byte, error) {
	scale := int(p.scale - scaleZero)
	if v, ok := p.sum.small(); ok && p.big == nil {
		if out, ok := divSmall(dst, v, scale, n, 0); ok {
			return out, nil
		}
	}
	var x, y apd.Decimal
	p.decimal(&x)
	y.SetFinite(n, 0)
	w1, f1 := groupOfDecimal(&x)
	w2, f2 := groupOfDecimal(&y)
	quoDecimal(&x, &x, &y, divScale(w1, f1, scale, w2, f2, 0))
	return appendDecimal(dst, &x)
}

// decimal sets d to the sum.
func (p *numericPart) decimal(d *apd.Decimal) {
	scale := int(p.scale - scaleZero)
	if p.big == nil {
		setWide(d, p.sum, scale)
		return
	}
	d.Form, d.Negative, d.Exponent = apd.Finite, p.big.Sign() < 0, int32(-scale)
	d.Coeff.Abs(p.big)
}
