package dataflow

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// distinctSketch is approx_count_distinct of rows that are never taken back: HyperLogLog with 2^14 registers, estimated as in O.
// Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (arXiv:1702.01284, section 2.4). Only the
// registers are kept, and each is a maximum, so that neither order nor cuts into ticks can show: libraries that
// begin with more exact forms of few values give estimates that depend on when they leave them.
//
// It stores, after their length, the registers that aren't 0, 3 bytes each, or all of them.
type distinctSketch struct {
	arg   int
	regs  [][]byte // a slot's registers that aren't 0, in order: 2 bytes of number, 1 of rank; or all ranks, see sketchDense
	canon record.Column
	key   []byte
}

const (
	sketchBits  = 14
	sketchRegs  = 1 << sketchBits
	sketchRanks = 64 - sketchBits // and one more
	sketchDense = sketchRegs      // bytes from which on a slot has all registers
	sparseEntry = 3
)

func (d *distinctSketch) grow(n int)       { d.regs = extend(d.regs, n) }
func (d *distinctSketch) clear(s int)      { d.regs[s] = nil }
func (d *distinctSketch) empty(s int) bool { return len(d.regs[s]) == 0 }

func (d *distinctSketch) reset() {
	n := len(d.regs)
	clear(d.regs)
	d.regs = shrink(d.regs, n)
}

func (d *distinctSketch) update(slots []int32, in *record.Delta) error {
	c := canonicalColumn(&in.Cols[d.arg], &d.canon)
	for i, s := range slots {
		if c.Null(i) || in.Weight(i) <= 0 {
			continue
		}
		d.key = record.AppendOrdered(d.key[:0], c, i)
		h := xxhash.Sum64(d.key)
		rank := bits.LeadingZeros64(h<<sketchBits|1<<(sketchBits-1)) + 1
		d.raise(int(s), int(h>>(64-sketchBits)), byte(rank))
	}
	return nil
}

// raise sets a register to at least rank.
func (d *distinctSketch) raise(s, reg int, rank byte) {
	r := d.regs[s]
	if len(r) == sketchDense {
		r[reg] = max(r[reg], rank)
		return
	}
	lo, hi := 0, len(r)/sparseEntry
	for lo < hi {
		mid := (lo + hi) / 2
		if int(binary.BigEndian.Uint16(r[mid*sparseEntry:])) < reg {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	at := lo * sparseEntry
	if at < len(r) && int(binary.BigEndian.Uint16(r[at:])) == reg {
		r[at+2] = max(r[at+2], rank)
		return
	}
	r = slices.Insert(r, at, byte(reg>>8), byte(reg), rank)
	if len(r)+sparseEntry >= sketchDense {
		r = widen(r)
	}
	d.regs[s] = r
}

// widen makes all registers of those that aren't 0.
func widen(r []byte) []byte {
	all := make([]byte, sketchDense)
	for ; len(r) > 0; r = r[sparseEntry:] {
		all[binary.BigEndian.Uint16(r)] = r[2]
	}
	return all
}

// take raises slot s to the registers of r, which decode.
func (d *distinctSketch) take(s int, r []byte) {
	if len(r) == sketchDense {
		if len(d.regs[s]) != sketchDense {
			d.regs[s] = widen(d.regs[s])
		}
		for reg, rank := range r {
			d.regs[s][reg] = max(d.regs[s][reg], rank)
		}
		return
	}
	for ; len(r) > 0; r = r[sparseEntry:] {
		d.raise(s, int(binary.BigEndian.Uint16(r)), r[2])
	}
}

// validSketch tells whether r is what a slot may hold.
func validSketch(r []byte) bool {
	if len(r) == sketchDense {
		return !slices.ContainsFunc(r, func(rank byte) bool { return rank > sketchRanks+1 })
	}
	if len(r) > sketchDense || len(r)%sparseEntry != 0 {
		return false
	}
	for last := -1; len(r) > 0; r = r[sparseEntry:] {
		reg := int(binary.BigEndian.Uint16(r))
		if reg <= last || reg >= sketchRegs || r[2] == 0 || r[2] > sketchRanks+1 {
			return false
		}
		last = reg
	}
	return true
}

func (d *distinctSketch) merge(slots []int32, in *record.Delta, at int) error {
	c := &in.Cols[at]
	for i, s := range slots {
		if c.Null(i) || in.Weight(i) <= 0 {
			continue
		}
		if !validSketch(c.At(i)) {
			return corrupted("a partial count of distinct values doesn't decode")
		}
		d.take(int(s), c.At(i))
	}
	return nil
}

func (d *distinctSketch) partial(s, round int, out []record.Column) bool {
	if round > 0 || len(d.regs[s]) == 0 {
		out[0].AppendNull()
	} else {
		out[0].AppendBytes(d.regs[s])
	}
	return false
}

func (d *distinctSketch) load(s int, src []byte) (rest []byte, ok bool) {
	r, rest, ok := readBytes(src)
	if !ok || !validSketch(r) {
		return nil, false
	}
	d.regs[s] = slices.Clone(r)
	return rest, true
}

func (d *distinctSketch) store(dst []byte, s int) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(d.regs[s]))), d.regs[s]...)
}

func (d *distinctSketch) add(dst, src int) { d.take(dst, d.regs[src]) }

func (d *distinctSketch) result(_ plan.AggFunc, s int, out *record.Column) error {
	var ranks [sketchRanks + 2]float64
	r := d.regs[s]
	if len(r) == sketchDense {
		for _, rank := range r {
			ranks[rank]++
		}
	} else {
		ranks[0] = float64(sketchRegs - len(r)/sparseEntry)
		for ; len(r) > 0; r = r[sparseEntry:] {
			ranks[r[2]]++
		}
	}
	const m = float64(sketchRegs)
	z := m * sketchTau(1-ranks[sketchRanks+1]/m)
	for k := sketchRanks; k >= 1; k-- {
		z = 0.5 * (z + ranks[k])
	}
	z += float64(m * sketchSigma(ranks[0]/m))
	out.AppendInt(int64(math.Round(m * m / (2 * math.Ln2 * z))))
	return nil
}

func sketchSigma(x float64) float64 {
	if x == 1 {
		return math.Inf(1)
	}
	y, z := 1.0, x
	for {
		x *= x
		before := z
		z += float64(x * y)
		if y += y; z == before {
			return z
		}
	}
}

func sketchTau(x float64) float64 {
	if x == 0 || x == 1 {
		return 0
	}
	y, z := 1.0, 1-x
	for {
		x = math.Sqrt(x)
		before := z
		y *= 0.5
		d := 1 - x
		if z -= float64(float64(d*d) * y); z == before {
			return z / 3
		}
	}
}

// quantileSketch is approx_percentile: how many values there are in each bucket, a bucket being a 64th of a power of
// two. That is DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
// guarantees") with its linearly interpolated mapping, where a bucket is the first bits of the double: exact on every
// processor, and no bucket is ever joined with another one, so that values can be taken back.
//
// It stores, after their length, each bucket less the one before and its count, as varints.
type quantileSketch struct {
	arg      int
	fraction record.Value
	slots    [][]bucket // in order
	buf      []byte
}

type bucket struct {
	at int32
	n  int64
}

const (
	bucketShift = 52 - 6
	maxBuckets  = 1 << (64 - bucketShift)
)

func (q *quantileSketch) grow(n int)       { q.slots = extend(q.slots, n) }
func (q *quantileSketch) clear(s int)      { q.slots[s] = nil }
func (q *quantileSketch) empty(s int) bool { return len(q.slots[s]) == 0 }

func (q *quantileSketch) reset() {
	n := len(q.slots)
	clear(q.slots)
	q.slots = shrink(q.slots, n)
}

// quantileBucket returns the bucket of v: in the order of numbers, NaN last.
func quantileBucket(v float64) int32 {
	if v == 0 {
		v = 0 // one zero
	}
	u := floatBits(v)
	if u&signBit != 0 {
		u = ^u
	} else {
		u |= signBit
	}
	return int32(u >> bucketShift)
}

// middleOf returns the middle of a bucket.
func middleOf(at int32) float64 {
	u := uint64(at) << bucketShift
	if u&signBit != 0 {
		u &^= signBit
		if u>>52 == 0x7ff || u == 0 { // infinity, NaN, and zero with what is near
			return math.Float64frombits(u)
		}
		return math.Float64frombits(u | 1<<(bucketShift-1))
	}
	u = ^u &^ (1<<bucketShift - 1)
	if u&^signBit == 0x7ff<<52 {
		return math.Inf(-1)
	}
	return math.Float64frombits(u | 1<<(bucketShift-1))
}

func (q *quantileSketch) count(s int, at int32, n int64) {
	b := q.slots[s]
	i, found := slices.BinarySearchFunc(b, at, func(b bucket, at int32) int { return int(b.at) - int(at) })
	switch {
	case !found && n != 0:
		q.slots[s] = slices.Insert(b, i, bucket{at, n})
	case found && b[i].n+n == 0:
		q.slots[s] = slices.Delete(b, i, i+1)
	case found:
		b[i].n += n
	}
}

func (q *quantileSketch) update(slots []int32, in *record.Delta) error {
	c := &in.Cols[q.arg]
	for i, s := range slots {
		if !c.Null(i) {
			q.count(int(s), quantileBucket(c.Floats[i]), in.Weight(i))
		}
	}
	return nil
}

// take adds encoded buckets, w times.
func (q *quantileSketch) take(s int, src []byte, w int64) (ok bool) {
	at, step, n := int64(-1), int64(0), int64(0)
	for len(src) > 0 {
		if step, src, ok = readInt(src); !ok || step <= 0 || step > maxBuckets {
			return false
		}
		if n, src, ok = readInt(src); !ok {
			return false
		}
		if at += step; at >= maxBuckets {
			return false
		}
		q.count(s, int32(at), n*w)
	}
	return true
}

func (q *quantileSketch) encode(s int) []byte {
	q.buf = q.buf[:0]
	last := int64(-1)
	for _, b := range q.slots[s] {
		q.buf = binary.AppendVarint(q.buf, int64(b.at)-last)
		q.buf = binary.AppendVarint(q.buf, b.n)
		last = int64(b.at)
	}
	return q.buf
}

func (q *quantileSketch) merge(slots []int32, in *record.Delta, at int) error {
	c := &in.Cols[at]
	for i, s := range slots {
		if !c.Null(i) && !q.take(int(s), c.At(i), in.Weight(i)) {
			return corrupted("a partial percentile doesn't decode")
		}
	}
	return nil
}

func (q *quantileSketch) partial(s, round int, out []record.Column) bool {
	if round > 0 || len(q.slots[s]) == 0 {
		out[0].AppendNull()
	} else {
		out[0].AppendBytes(q.encode(s))
	}
	return false
}

func (q *quantileSketch) load(s int, src []byte) (rest []byte, ok bool) {
	v, rest, ok := readBytes(src)
	q.slots[s] = nil
	return rest, ok && q.take(s, v, 1)
}

func (q *quantileSketch) store(dst []byte, s int) []byte {
	v := q.encode(s)
	return append(binary.AppendUvarint(dst, uint64(len(v))), v...)
}

func (q *quantileSketch) add(dst, src int) {
	for _, b := range q.slots[src] {
		q.count(dst, b.at, b.n)
	}
}

func (q *quantileSketch) result(_ plan.AggFunc, s int, out *record.Column) error {
	total := int64(0)
	for _, b := range q.slots[s] {
		total += max(b.n, 0)
	}
	p := q.fraction
	switch {
	case total == 0 || p.Null:
		out.AppendNull()
		return nil
	case !(p.Float >= 0 && p.Float <= 1):
		return errFraction
	}
	place := int64(p.Float * float64(total-1))
	for _, b := range q.slots[s] {
		if place -= max(b.n, 0); place < 0 {
			out.AppendFloat(middleOf(b.at))
			return nil
		}
	}
	return defect("a percentile is beyond the last of %d values", total)
}
