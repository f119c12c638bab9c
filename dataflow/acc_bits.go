package dataflow

import (
	"encoding/binary"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// boolCount is bool_and and bool_or: how many values there are, and how many are true. It stores both as varints.
type boolCount struct {
	arg      int
	n, trues []int64
}

func (b *boolCount) grow(n int)       { b.n, b.trues = extend(b.n, n), extend(b.trues, n) }
func (b *boolCount) reset()           { b.n, b.trues = shrink(b.n, len(b.n)), shrink(b.trues, len(b.trues)) }
func (b *boolCount) clear(s int)      { b.n[s], b.trues[s] = 0, 0 }
func (b *boolCount) empty(s int) bool { return b.n[s] == 0 && b.trues[s] == 0 }

func (b *boolCount) add(dst, src int) {
	b.n[dst] += b.n[src]
	b.trues[dst] += b.trues[src]
}

func (b *boolCount) update(slots []int32, in *record.Delta) error {
	c := &in.Cols[b.arg]
	for i, s := range slots {
		if c.Null(i) {
			continue
		}
		w := in.Weight(i)
		if b.n[s] += w; c.Bools[i] {
			b.trues[s] += w
		}
	}
	return nil
}

func (b *boolCount) merge(slots []int32, in *record.Delta, at int) error {
	addCounts(b.n, slots, &in.Cols[at], in.Weights)
	addCounts(b.trues, slots, &in.Cols[at+1], in.Weights)
	return nil
}

func (b *boolCount) partial(s, round int, out []record.Column) bool {
	if round > 0 {
		out[0].AppendInt(0)
		out[1].AppendInt(0)
		return false
	}
	out[0].AppendInt(b.n[s])
	out[1].AppendInt(b.trues[s])
	return false
}

func (b *boolCount) load(s int, src []byte) (rest []byte, ok bool) {
	if b.n[s], rest, ok = readInt(src); ok {
		b.trues[s], rest, ok = readInt(rest)
	}
	return rest, ok
}

func (b *boolCount) store(dst []byte, s int) []byte {
	return binary.AppendVarint(binary.AppendVarint(dst, b.n[s]), b.trues[s])
}

func (b *boolCount) result(f plan.AggFunc, s int, out *record.Column) error {
	switch {
	case b.n[s] <= 0:
		out.AppendNull()
	case f == plan.AggBoolAnd:
		out.AppendBool(b.trues[s] >= b.n[s])
	default:
		out.AppendBool(b.trues[s] > 0)
	}
	return nil
}

// bitCount is bit_and, bit_or and bit_xor: how many values there are, and in how many of them each bit is set. It
// stores the count and, unless it is 0, those of the bits, after their length.
type bitCount struct {
	arg    int
	counts []int64 // bitWidth a slot: of the values, of each bit
	buf    []byte
}

const bitWidth = 1 + 64

func (b *bitCount) of(s int) []int64 { return b.counts[s*bitWidth : (s+1)*bitWidth] }
func (b *bitCount) grow(n int)       { b.counts = extend(b.counts, n*bitWidth) }
func (b *bitCount) reset()           { b.counts = shrink(b.counts, len(b.counts)) }
func (b *bitCount) clear(s int)      { clear(b.of(s)) }
func (b *bitCount) empty(s int) bool { return allZero(b.of(s)) }

func (b *bitCount) add(dst, src int) {
	into := b.of(dst)
	for i, n := range b.of(src) {
		into[i] += n
	}
}

func (b *bitCount) update(slots []int32, in *record.Delta) error {
	c := &in.Cols[b.arg]
	for i, s := range slots {
		if c.Null(i) {
			continue
		}
		w, counts := in.Weight(i), b.of(int(s))
		counts[0] += w
		for bit, v := 1, uint64(c.Ints[i]); v != 0; bit, v = bit+1, v>>1 {
			counts[bit] += w * int64(v&1)
		}
	}
	return nil
}

func (b *bitCount) merge(slots []int32, in *record.Delta, at int) error {
	c := &in.Cols[at]
	var counts [bitWidth]int64
	for i, s := range slots {
		if c.Null(i) {
			continue
		}
		if !decodeCounts(c.At(i), counts[:]) {
			return corrupted("a partial aggregate of bits doesn't decode")
		}
		w, into := in.Weight(i), b.of(int(s))
		for k, n := range counts {
			into[k] += n * w
		}
	}
	return nil
}

// decodeCounts reads counts, of which the last ones may be left out.
func decodeCounts(src []byte, counts []int64) (ok bool) {
	clear(counts)
	for i := 0; len(src) > 0; i++ {
		if i == len(counts) {
			return false
		}
		if counts[i], src, ok = readInt(src); !ok {
			return false
		}
	}
	return true
}

func (b *bitCount) encode(dst []byte, s int) []byte {
	counts := b.of(s)
	n := len(counts)
	for n > 0 && counts[n-1] == 0 {
		n--
	}
	return appendCounts(dst, counts[:n])
}

func (b *bitCount) partial(s, round int, out []record.Column) bool {
	if round > 0 {
		out[0].AppendNull()
		return false
	}
	b.buf = b.encode(b.buf[:0], s)
	out[0].AppendBytes(b.buf)
	return false
}

func (b *bitCount) load(s int, src []byte) (rest []byte, ok bool) {
	v, rest, ok := readBytes(src)
	return rest, ok && decodeCounts(v, b.of(s))
}

func (b *bitCount) store(dst []byte, s int) []byte {
	b.buf = b.encode(b.buf[:0], s)
	return append(binary.AppendUvarint(dst, uint64(len(b.buf))), b.buf...)
}

func (b *bitCount) result(f plan.AggFunc, s int, out *record.Column) error {
	counts := b.of(s)
	n := counts[0]
	if n <= 0 {
		out.AppendNull()
		return nil
	}
	v := uint64(0)
	for bit, c := range counts[1:] {
		switch f {
		case plan.AggBitAnd:
			if c < n {
				continue
			}
		case plan.AggBitOr:
			if c <= 0 {
				continue
			}
		default:
			if c&1 == 0 {
				continue
			}
		}
		v |= 1 << bit
	}
	out.AppendInt(int64(v))
	return nil
}
