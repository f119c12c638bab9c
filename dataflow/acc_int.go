package dataflow

import (
	"encoding/binary"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// intSum is sum and avg of bigint. It stores the sum in 7-bit groups and the count as a varint.
type intSum struct {
	arg  int
	sums []int128
	n    []int64
}

func (a *intSum) grow(n int) { a.sums, a.n = extend(a.sums, n), extend(a.n, n) }

func (a *intSum) reset() { a.sums, a.n = shrink(a.sums, len(a.sums)), shrink(a.n, len(a.n)) }

func (a *intSum) clear(s int) { a.sums[s], a.n[s] = int128{}, 0 }

func (a *intSum) empty(s int) bool { return a.n[s] == 0 && a.sums[s].isZero() }

func (a *intSum) add(dst, src int) {
	a.sums[dst] = a.sums[dst].add(a.sums[src])
	a.n[dst] += a.n[src]
}

func (a *intSum) update(slots []int32, in *record.Delta) error {
	c := &in.Cols[a.arg]
	for i, s := range slots {
		if c.Validity != nil && !c.Validity.Valid(i) {
			continue
		}
		v, w := c.Ints[i], int64(1)
		if in.Weights == nil {
			a.sums[s] = a.sums[s].add(wide(v))
		} else {
			w = in.Weights[i]
			a.sums[s] = a.sums[s].add(mul64(v, w))
		}
		a.n[s] += w
	}
	return nil
}

func (a *intSum) merge(slots []int32, in *record.Delta, at int) error {
	hi, lo := &in.Cols[at], &in.Cols[at+1]
	for i, s := range slots {
		if hi.Null(i) || lo.Null(i) {
			continue
		}
		v := int128{hi.Ints[i], uint64(lo.Ints[i])}
		switch w := in.Weight(i); w {
		case 1:
		case -1:
			v = v.neg()
		default:
			v = v.times(w)
		}
		a.sums[s] = a.sums[s].add(v)
	}
	addCounts(a.n, slots, &in.Cols[at+2], in.Weights)
	return nil
}

func (a *intSum) partial(s, round int, out []record.Column) bool {
	if round > 0 {
		out[0].AppendInt(0)
		out[1].AppendInt(0)
		out[2].AppendInt(0)
		return false
	}
	out[0].AppendInt(a.sums[s].hi)
	out[1].AppendInt(int64(a.sums[s].lo))
	out[2].AppendInt(a.n[s])
	return false
}

func (a *intSum) load(s int, src []byte) (rest []byte, ok bool) {
	if a.sums[s], rest, ok = readWide(src); ok {
		a.n[s], rest, ok = readInt(rest)
	}
	return rest, ok
}

func (a *intSum) store(dst []byte, s int) []byte {
	return binary.AppendVarint(appendWide(dst, a.sums[s]), a.n[s])
}

func (a *intSum) result(f plan.AggFunc, s int, out *record.Column) error {
	if a.n[s] <= 0 {
		out.AppendNull()
		return nil
	}
	if f == plan.AggSum {
		hi, lo, neg := a.sums[s].abs()
		return appendVarlen(out, func(dst []byte) ([]byte, error) { return appendScaled(dst, hi, lo, 0, neg), nil })
	}
	return appendVarlen(out, func(dst []byte) ([]byte, error) { return divIntegers(dst, a.sums[s], a.n[s]) })
}

// appendVarlen appends to c the bytes that fn appends to the column's.
func appendVarlen(c *record.Column, fn func(dst []byte) ([]byte, error)) error {
	at := len(c.Bytes)
	b, err := fn(c.Bytes)
	if err != nil {
		c.Bytes = c.Bytes[:at]
		return err
	}
	// Appending nothing is how the column counts one more value that is not NULL.
	c.Bytes = b
	c.AppendBytes(nil)
	return nil
}

// intervalSum is sum and avg of interval, each part by itself. It stores months, days, microseconds and the count.
type intervalSum struct {
	arg          int
	months, days []int64
	micros       []int128
	n            []int64
}

func (a *intervalSum) grow(n int) {
	a.months, a.days = extend(a.months, n), extend(a.days, n)
	a.micros, a.n = extend(a.micros, n), extend(a.n, n)
}

func (a *intervalSum) reset() {
	n := len(a.n)
	a.months, a.days, a.micros, a.n = shrink(a.months, n), shrink(a.days, n), shrink(a.micros, n), shrink(a.n, n)
}

func (a *intervalSum) clear(s int) { a.months[s], a.days[s], a.micros[s], a.n[s] = 0, 0, int128{}, 0 }

func (a *intervalSum) empty(s int) bool {
	return a.months[s] == 0 && a.days[s] == 0 && a.micros[s].isZero() && a.n[s] == 0
}

func (a *intervalSum) add(dst, src int) {
	a.months[dst] += a.months[src]
	a.days[dst] += a.days[src]
	a.micros[dst] = a.micros[dst].add(a.micros[src])
	a.n[dst] += a.n[src]
}

func (a *intervalSum) update(slots []int32, in *record.Delta) error {
	a.addIntervals(slots, &in.Cols[a.arg], in)
	addWeights(a.n, slots, &in.Cols[a.arg], in.Weights)
	return nil
}

func (a *intervalSum) addIntervals(slots []int32, c *record.Column, in *record.Delta) {
	for i, s := range slots {
		if c.Null(i) {
			continue
		}
		v, w := c.Intervals[i], in.Weight(i)
		a.months[s] += int64(v.Months) * w
		a.days[s] += int64(v.Days) * w
		a.micros[s] = a.micros[s].add(mul64(v.Micros, w))
	}
}

func (a *intervalSum) merge(slots []int32, in *record.Delta, at int) error {
	a.addIntervals(slots, &in.Cols[at], in)
	addCounts(a.n, slots, &in.Cols[at+1], in.Weights)
	return nil
}

// partial gives as much of the sum as fits an interval in each round.
func (a *intervalSum) partial(s, round int, out []record.Column) bool {
	months, days, micros := a.months[s], a.days[s], a.micros[s]
	var part record.Interval
	var one, two, three bool
	for range round + 1 {
		part.Months, months, one = piece32(months)
		part.Days, days, two = piece32(days)
		part.Micros, micros, three = piece64(micros)
	}
	out[0].AppendInterval(part)
	if round == 0 {
		out[1].AppendInt(a.n[s])
	} else {
		out[1].AppendInt(0)
	}
	return one || two || three
}

func piece32(v int64) (int32, int64, bool) {
	p := max(min(v, 1<<31-1), -1<<31)
	return int32(p), v - p, v != p
}

func piece64(v int128) (int64, int128, bool) {
	p, ok := v.small()
	if ok {
		return p, int128{}, false
	}
	p = 1<<63 - 1
	if v.hi < 0 {
		p = -1 << 63
	}
	return p, v.add(wide(p).neg()), true
}

func (a *intervalSum) load(s int, src []byte) (rest []byte, ok bool) {
	if a.months[s], rest, ok = readInt(src); !ok {
		return nil, false
	}
	if a.days[s], rest, ok = readInt(rest); !ok {
		return nil, false
	}
	if a.micros[s], rest, ok = readWide(rest); !ok {
		return nil, false
	}
	a.n[s], rest, ok = readInt(rest)
	return rest, ok
}

func (a *intervalSum) store(dst []byte, s int) []byte {
	dst = binary.AppendVarint(dst, a.months[s])
	dst = binary.AppendVarint(dst, a.days[s])
	dst = appendWide(dst, a.micros[s])
	return binary.AppendVarint(dst, a.n[s])
}

func (a *intervalSum) result(f plan.AggFunc, s int, out *record.Column) error {
	if a.n[s] <= 0 {
		out.AppendNull()
		return nil
	}
	micros, ok := a.micros[s].small()
	sum := record.Interval{Months: int32(a.months[s]), Days: int32(a.days[s]), Micros: micros}
	if !ok || int64(sum.Months) != a.months[s] || int64(sum.Days) != a.days[s] {
		return errIntervalRange
	}
	if f == plan.AggAvg {
		var err error
		if sum, err = divInterval(sum, float64(a.n[s])); err != nil {
			return err
		}
	}
	out.AppendInterval(sum)
	return nil
}
