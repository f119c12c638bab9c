package dataflow

import (
	"encoding/binary"
	"math"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// floatSum is sum and avg of double precision. It stores the count as a varint and the exact sum after its length.
type floatSum struct {
	arg  int
	sums floatSums
	n    []int64
	one  exact
	buf  []byte
}

func (a *floatSum) grow(n int) {
	a.sums.grow(n)
	a.n = extend(a.n, n)
}

func (a *floatSum) reset() {
	a.sums.reset()
	a.n = shrink(a.n, len(a.n))
}

func (a *floatSum) clear(s int) {
	a.sums.clear(s)
	a.n[s] = 0
}

func (a *floatSum) empty(s int) bool {
	if a.n[s] != 0 {
		return false
	}
	a.sums.get(s, &a.one)
	return a.one.isZero()
}

func (a *floatSum) update(slots []int32, in *record.Delta) error {
	c := &in.Cols[a.arg]
	for i, s := range slots {
		if c.Validity != nil && !c.Validity.Valid(i) {
			continue
		}
		w := int64(1)
		if in.Weights != nil {
			w = in.Weights[i]
		}
		a.sums.add(int(s), c.Floats[i], w)
		a.n[s] += w
	}
	return nil
}

func (a *floatSum) merge(slots []int32, in *record.Delta, at int) error {
	c := &in.Cols[at]
	for i, s := range slots {
		if c.Null(i) {
			continue
		}
		if err := a.sums.merge(int(s), c.At(i), in.Weight(i)); err != nil {
			return err
		}
	}
	addCounts(a.n, slots, &in.Cols[at+1], in.Weights)
	return nil
}

func (a *floatSum) partial(s, round int, out []record.Column) bool {
	if round > 0 {
		out[0].AppendNull()
		out[1].AppendInt(0)
		return false
	}
	a.sums.get(s, &a.one)
	a.buf = a.one.append(a.buf[:0])
	out[0].AppendBytes(a.buf)
	out[1].AppendInt(a.n[s])
	return false
}

func (a *floatSum) load(s int, src []byte) (rest []byte, ok bool) {
	a.clear(s)
	var sum []byte
	if a.n[s], rest, ok = readInt(src); !ok {
		return nil, false
	}
	if sum, rest, ok = readBytes(rest); !ok {
		return nil, false
	}
	return rest, a.sums.merge(s, sum, 1) == nil
}

func (a *floatSum) store(dst []byte, s int) []byte {
	a.sums.get(s, &a.one)
	a.buf = a.one.append(a.buf[:0])
	dst = binary.AppendVarint(dst, a.n[s])
	dst = binary.AppendUvarint(dst, uint64(len(a.buf)))
	return append(dst, a.buf...)
}

func (a *floatSum) add(dst, src int) {
	a.sums.addSlot(dst, src)
	a.n[dst] += a.n[src]
}

func (a *floatSum) result(f plan.AggFunc, s int, out *record.Column) error {
	if a.n[s] <= 0 {
		out.AppendNull()
		return nil
	}
	a.sums.get(s, &a.one)
	n := int64(1)
	if f == plan.AggAvg {
		n = a.n[s]
	}
	v := a.one.quotient(n)
	if math.IsInf(v, 0) && a.one.special == [3]int64{} {
		return errDoubleOverflow
	}
	out.AppendFloat(v)
	return nil
}
