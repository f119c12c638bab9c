package dataflow

import (
	"math"
	"strconv"

	"github.com/millrace/millrace/internal/fault"
)

// divisorImpls is gcd and lcm, and what else looks at the digits of an integer.
var divisorImpls = map[string]impl{
	"gcd(bigint, bigint)": binaryOp(getInt, getInt, setInt, func(a, b int64) (int64, error) {
		g := divisor(a, b)
		if g > math.MaxInt64 {
			return 0, errLargeDivisor
		}
		return int64(g), nil
	}),
	"lcm(bigint, bigint)": binaryOp(getInt, getInt, setInt, multiple),
	"to_hex(bigint)": unaryBytes(getInt, func(dst []byte, a int64) ([]byte, error) {
		return strconv.AppendUint(dst, uint64(a), 16), nil
	}),
	"bit_length(text)": pure(getBytes, setInt, func(a []byte) int64 { return 8 * int64(len(a)) }),
}

var errLargeDivisor = fault.SQL(fault.Invalid, "22003", "bigint out of range")

// magnitude is |a|, which may be one more than any int64.
func magnitude(a int64) uint64 {
	if a < 0 {
		return -uint64(a)
	}
	return uint64(a)
}

// divisor is the greatest common divisor, by Euclid.
func divisor(a, b int64) uint64 {
	x, y := magnitude(a), magnitude(b)
	for y != 0 {
		x, y = y, x%y
	}
	return x
}

// multiple is the least common multiple.
func multiple(a, b int64) (int64, error) {
	if a == 0 || b == 0 {
		return 0, nil
	}
	x, y := magnitude(a)/divisor(a, b), magnitude(b)
	if y > math.MaxInt64/x {
		return 0, errLargeDivisor
	}
	return int64(x * y), nil
}
