package dataflow

import (
	"bytes"
	"math"
	"math/bits"

	"github.com/millrace/millrace/internal/fault"
)

var (
	errSubscript = fault.SQL(fault.Invalid, "2202E", "index out of valid range of the bytes")
	errNewBit    = fault.SQL(fault.Invalid, "22023", "new bit must be 0 or 1")
)

// bitsImpls is what is done to the bytes and bits of a bytea, counted from 0 or, by the functions that text has too, from 1.
var bitsImpls = map[string]impl{
	"like(bytea, bytea)": binaryOp(getBytes, getBytes, setBool, likeBytes),
	"strpos(bytea, bytea)": binaryOp(getBytes, getBytes, setInt, func(a, b []byte) (int64, error) {
		return int64(bytes.Index(a, b)) + 1, nil
	}),
	"bit_length(bytea)": pure(getBytes, setInt, func(a []byte) int64 { return 8 * int64(len(a)) }),
	"bit_count(bytea)": pure(getBytes, setInt, func(a []byte) int64 {
		n := 0
		for _, b := range a {
			n += bits.OnesCount8(b)
		}
		return int64(n)
	}),
	"substr(bytea, bigint)": binaryBytes(getBytes, getInt, func(dst, a []byte, start int64) ([]byte, error) {
		return substrBytes(dst, a, start, math.MaxInt64)
	}),
	"substr(bytea, bigint, bigint)": ternaryBytes(getBytes, getInt, getInt, substrBytes),
	"overlay(bytea, bytea, bigint)": ternaryBytes(getBytes, getBytes, getInt, func(dst, a, b []byte, start int64) ([]byte, error) {
		return overlayBytes(dst, a, b, start, int64(len(b)))
	}),
	"overlay(bytea, bytea, bigint, bigint)": {make: func() kernel {
		return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
			return overlayBytes(dst, bytesArg(c, 0, i), bytesArg(c, 1, i), intArg(c, 2, i), intArg(c, 3, i))
		})
	}},
	"trim(bytea, bytea)":  binaryBytes(getBytes, getBytes, trimBytes(true, true)),
	"ltrim(bytea, bytea)": binaryBytes(getBytes, getBytes, trimBytes(true, false)),
	"rtrim(bytea, bytea)": binaryBytes(getBytes, getBytes, trimBytes(false, true)),
	"get_byte(bytea, bigint)": binaryOp(getBytes, getInt, setInt, func(a []byte, at int64) (int64, error) {
		if at < 0 || at >= int64(len(a)) {
			return 0, errSubscript
		}
		return int64(a[at]), nil
	}),
	"set_byte(bytea, bigint, bigint)": ternaryBytes(getBytes, getInt, getInt, func(dst, a []byte, at, v int64) ([]byte, error) {
		if at < 0 || at >= int64(len(a)) {
			return dst, errSubscript
		}
		dst = append(dst, a...)
		dst[len(dst)-len(a)+int(at)] = byte(v)
		return dst, nil
	}),
	"get_bit(bytea, bigint)": binaryOp(getBytes, getInt, setInt, func(a []byte, at int64) (int64, error) {
		if at < 0 || at >= 8*int64(len(a)) {
			return 0, errSubscript
		}
		return int64(a[at>>3] >> (at & 7) & 1), nil
	}),
	"set_bit(bytea, bigint, bigint)": ternaryBytes(getBytes, getInt, getInt, func(dst, a []byte, at, v int64) ([]byte, error) {
		switch {
		case at < 0 || at >= 8*int64(len(a)):
			return dst, errSubscript
		case v != 0 && v != 1:
			return dst, errNewBit
		}
		dst = append(dst, a...)
		b := &dst[len(dst)-len(a)+int(at>>3)]
		*b = *b&^(1<<(at&7)) | byte(v)<<(at&7)
		return dst, nil
	}),
}

// intArg returns argument k at row i.
func intArg(c *call, k, i int) int64 { return c.args[k].col.Ints[i&c.args[k].mask] }

func substrBytes(dst, a []byte, start, n int64) ([]byte, error) {
	if n < 0 {
		return dst, errNegativeSubstring
	}
	end := start + n
	if n > 0 && end < start {
		end = math.MaxInt64
	}
	size := int64(len(a))
	from, to := min(max(start, 1)-1, size), min(max(end, 1)-1, size)
	return append(dst, a[from:max(from, to)]...), nil
}

// overlayBytes puts b in the place of n bytes of a, from start (1 is the first) on.
func overlayBytes(dst, a, b []byte, start, n int64) ([]byte, error) {
	after := start + n
	if start <= 0 || n > 0 && after < start {
		return dst, errNegativeSubstring
	}
	dst, _ = substrBytes(dst, a, 1, start-1)
	return substrBytes(append(dst, b...), a, after, math.MaxInt64)
}

func trimBytes(left, right bool) func(dst, a, set []byte) ([]byte, error) {
	return func(dst, a, set []byte) ([]byte, error) {
		for left && len(a) > 0 && bytes.IndexByte(set, a[0]) >= 0 {
			a = a[1:]
		}
		for right && len(a) > 0 && bytes.IndexByte(set, a[len(a)-1]) >= 0 {
			a = a[:len(a)-1]
		}
		return append(dst, a...), nil
	}
}

// likeBytes is LIKE over bytes: as like, but that a byte is a character.
func likeBytes(text, pattern []byte) (bool, error) {
	t, p := 0, 0
	retryT, retryP := -1, 0
	for t < len(text) {
		if p < len(pattern) {
			switch c := pattern[p]; {
			case c == '%':
				p++
				retryT, retryP = t, p
				continue
			case c == '\\':
				if p+1 == len(pattern) {
					return false, errLikeEscape
				}
				if text[t] == pattern[p+1] {
					t, p = t+1, p+2
					continue
				}
			case c == '_' || text[t] == c:
				t, p = t+1, p+1
				continue
			}
		}
		if retryT < 0 {
			return false, nil
		}
		retryT++
		t, p = retryT, retryP
	}
	for p < len(pattern) && pattern[p] == '%' {
		p++
	}
	return p == len(pattern), nil
}
