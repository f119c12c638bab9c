package dataflow

import (
	"cmp"
	"encoding/binary"
	"math/big"
	"math/bits"
)

// int128 is a two's complement number. Sums of bigints can't overflow it: that takes 2^64 rows.
type int128 struct {
	hi int64
	lo uint64
}

// mul64 returns a*b.
func mul64(a, b int64) int128 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	// Unsigned to signed: each negative factor added 2^64 times the other one.
	if a < 0 {
		hi -= uint64(b)
	}
	if b < 0 {
		hi -= uint64(a)
	}
	return int128{int64(hi), lo}
}

func wide(v int64) int128 { return int128{v >> 63, uint64(v)} }

func (a int128) add(b int128) int128 {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	return int128{a.hi + b.hi + int64(carry), lo}
}

func (a int128) neg() int128 {
	lo, borrow := bits.Sub64(0, a.lo, 0)
	return int128{-a.hi - int64(borrow), lo}
}

func (a int128) compare(b int128) int {
	return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo))
}

func (a int128) isZero() bool { return a.hi == 0 && a.lo == 0 }

// abs returns the magnitude as an unsigned number, and whether a is negative.
func (a int128) abs() (hi, lo uint64, neg bool) {
	if a.hi < 0 {
		a, neg = a.neg(), true
	}
	return uint64(a.hi), a.lo, neg
}

// small returns a as an int64 if it fits.
func (a int128) small() (int64, bool) {
	return int64(a.lo), a.hi == int64(a.lo)>>63
}

// big sets z to a.
func (a int128) big(z *big.Int) *big.Int {
	hi, lo, neg := a.abs()
	z.SetUint64(hi)
	z.Lsh(z, 64)
	var low big.Int
	z.Or(z, low.SetUint64(lo))
	if neg {
		z.Neg(z)
	}
	return z
}

// appendWide appends a in 7-bit groups, near zero first, as varints do.
func appendWide(dst []byte, a int128) []byte {
	// zigzag: the sign goes to the lowest bit
	sign := uint64(a.hi >> 63)
	hi := (uint64(a.hi)<<1 | a.lo>>63) ^ sign
	lo := a.lo<<1 ^ sign
	for hi != 0 || lo >= 0x80 {
		dst = append(dst, byte(lo)|0x80)
		lo = lo>>7 | hi<<57
		hi >>= 7
	}
	return append(dst, byte(lo))
}

// readWide reads what appendWide wrote.
func readWide(src []byte) (int128, []byte, bool) {
	var hi, lo uint64
	for i, c := range src {
		if i > 18 || i == 18 && c > 3 {
			break
		}
		shift, v := uint(7*i), uint64(c&0x7f)
		if shift < 64 {
			lo |= v << shift
			if shift > 57 {
				hi |= v >> (64 - shift)
			}
		} else {
			hi |= v << (shift - 64)
		}
		if c < 0x80 {
			sign := -(lo & 1)
			return int128{int64(hi>>1 ^ sign), (lo>>1 | hi<<63) ^ sign}, src[i+1:], true
		}
	}
	return int128{}, nil, false
}

// readInt reads a varint.
func readInt(src []byte) (int64, []byte, bool) {
	v, n := binary.Varint(src)
	if n <= 0 {
		return 0, nil, false
	}
	return v, src[n:], true
}

// readBytes reads bytes after their length.
func readBytes(src []byte) (v, rest []byte, ok bool) {
	n, size := binary.Uvarint(src)
	if size <= 0 || n > uint64(len(src)-size) {
		return nil, nil, false
	}
	return src[size : size+int(n)], src[size+int(n):], true
}

// mul128 returns the unsigned hi:lo times m, and whether it fits.
func mul128(hi, lo, m uint64) (uint64, uint64, bool) {
	over, top := bits.Mul64(hi, m)
	carry, low := bits.Mul64(lo, m)
	sum, c := bits.Add64(top, carry, 0)
	return sum, low, over == 0 && c == 0
}

// div128 returns the unsigned hi:lo divided by d, and the remainder.
func div128(hi, lo, d uint64) (qhi, qlo, rem uint64) {
	qhi, rem = hi/d, hi%d
	qlo, rem = bits.Div64(rem, lo, d)
	return qhi, qlo, rem
}

// appendUint128 appends hi:lo in decimal.
func appendUint128(dst []byte, hi, lo uint64) []byte {
	var buf [40]byte
	i := len(buf)
	for hi != 0 || lo != 0 || i == len(buf) {
		var part uint64
		hi, lo, part = div128(hi, lo, 1e19)
		last := hi == 0 && lo == 0
		for d := 0; d < 19 && (!last || part != 0 || d == 0); d++ {
			i--
			buf[i] = byte('0' + part%10)
			part /= 10
		}
	}
	return append(dst, buf[i:]...)
}

// times returns a*w; the product must fit.
func (a int128) times(w int64) int128 {
	low := mul64(int64(a.lo&(1<<63-1)), w)
	if a.lo>>63 != 0 {
		// 2^63*w
		low = low.add(int128{w >> 1, uint64(w) << 63})
	}
	low.hi += a.hi * w
	return low
}
