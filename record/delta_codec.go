package record

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"unsafe"

	"github.com/millrace/millrace/internal/fault"
)

// The encoding of a delta, version 1. Numbers in the header are varints; arrays are little endian, in Arrow's
// layout, and begin at multiples of 8 bytes from the beginning, so that they can be used in place.
//
//	version (1 byte), flags (1 byte: 1 has weights), rows, columns
//	for each column: type (1 byte), flags (1 byte: 1 has a validity bitmap), for varlen types the bytes of all values
//	padding
//	weights, if any: 8 bytes a row
//	for each column, each array padded to 8 bytes: the bitmap, if any; then
//	  boolean one byte a row; bigint, timestamptz, double precision 8 bytes a row;
//	  interval 16 bytes a row: months, days, microseconds; varlen: rows+1 offsets of 4 bytes, then the bytes
const (
	deltaVersion     = 1
	deltaHasWeights  = 1
	deltaHasValidity = 1
)

// intervalBytes is the size of an encoded Interval, and of one in memory.
const intervalBytes = 16

// maxDeltaColumns bounds the columns of an encoded delta; SQL's limit is 1,600 and hidden columns come on top.
const maxDeltaColumns = 1 << 14

// littleEndian tells whether numbers in memory are as in the encoding.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// MarshalDelta appends d, for storage and for peers; UnmarshalDelta reads it.
func MarshalDelta(dst []byte, d *Delta) []byte {
	base := len(dst)
	dst = slices.Grow(dst, EncodedBytes(d))
	var flags byte
	if d.Weights != nil {
		flags |= deltaHasWeights
	}
	dst = append(dst, deltaVersion, flags)
	dst = binary.AppendUvarint(dst, uint64(d.N))
	dst = binary.AppendUvarint(dst, uint64(len(d.Cols)))
	for k := range d.Cols {
		c := &d.Cols[k]
		flags = 0
		if c.Validity != nil {
			flags |= deltaHasValidity
		}
		dst = append(dst, byte(c.Type), flags)
		if c.Type.Varlen() {
			dst = binary.AppendUvarint(dst, uint64(c.Offsets[d.N]-c.Offsets[0]))
		}
	}
	dst = pad(dst, base)
	if d.Weights != nil {
		dst = appendInts(dst, d.Weights[:d.N])
	}
	for k := range d.Cols {
		dst = appendColumn(dst, base, &d.Cols[k], d.N)
	}
	return dst
}

// EncodedBytes is how many bytes MarshalDelta appends of d.
func EncodedBytes(d *Delta) int {
	n := 2 + uvarintBytes(uint64(d.N)) + uvarintBytes(uint64(len(d.Cols)))
	for k := range d.Cols {
		n += 2
		if c := &d.Cols[k]; c.Type.Varlen() {
			n += uvarintBytes(uint64(c.Offsets[d.N] - c.Offsets[0]))
		}
	}
	n = padded(n)
	if d.Weights != nil {
		n += 8 * d.N
	}
	for k := range d.Cols {
		c := &d.Cols[k]
		if c.Validity != nil {
			n += padded((d.N + 7) >> 3)
		}
		switch c.Type.Layout() {
		case LayoutBools:
			n += padded(d.N)
		case LayoutInts, LayoutFloats:
			n += 8 * d.N
		case LayoutIntervals:
			n += intervalBytes * d.N
		case LayoutBytes:
			n += padded(4*(d.N+1)) + padded(int(c.Offsets[d.N]-c.Offsets[0]))
		}
	}
	return n
}

func uvarintBytes(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// padded is n, rounded up to whole words.
func padded(n int) int { return (n + 7) &^ 7 }

func appendColumn(dst []byte, base int, c *Column, n int) []byte {
	if c.Validity != nil {
		dst = pad(append(dst, c.Validity[:(n+7)>>3]...), base)
	}
	switch c.Type.Layout() {
	case LayoutBools:
		for _, v := range c.Bools[:n] {
			dst = appendOrderedBool(dst, v)
		}
	case LayoutInts:
		dst = appendInts(dst, c.Ints[:n])
	case LayoutFloats:
		for _, v := range c.Floats[:n] {
			dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
		}
	case LayoutIntervals:
		for _, v := range c.Intervals[:n] {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(v.Months))
			dst = binary.LittleEndian.AppendUint32(dst, uint32(v.Days))
			dst = binary.LittleEndian.AppendUint64(dst, uint64(v.Micros))
		}
	case LayoutBytes:
		first := c.Offsets[0]
		if littleEndian && first == 0 {
			dst = append(dst, unsafe.Slice((*byte)(unsafe.Pointer(&c.Offsets[0])), 4*(n+1))...)
		} else {
			for _, v := range c.Offsets[:n+1] {
				dst = binary.LittleEndian.AppendUint32(dst, uint32(v-first))
			}
		}
		dst = pad(dst, base)
		dst = append(dst, c.Bytes[first:c.Offsets[n]]...)
	}
	return pad(dst, base)
}

func appendInts(dst []byte, v []int64) []byte {
	if littleEndian && len(v) > 0 {
		return append(dst, unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 8*len(v))...)
	}
	for _, x := range v {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(x))
	}
	return dst
}

// pad appends zeros up to the next multiple of 8 bytes from base.
func pad(dst []byte, base int) []byte {
	for (len(dst)-base)&7 != 0 {
		dst = append(dst, 0)
	}
	return dst
}

// UnmarshalDelta reads what MarshalDelta wrote of a delta with schema s. The result uses src in place where memory
// allows: src must not change as long as the delta is used, and the delta must be read only, neither appended to nor Reset.
// It allocates no more than a small multiple of src's size. Any src that isn't an encoded delta is fault.Corrupted, one of another
// version fault.Unsupported.
func UnmarshalDelta(src []byte, s Schema) (*Delta, error) {
	r := deltaReader{src: src}
	d, varlen, err := r.header(s)
	if err != nil {
		return nil, err
	}
	if d.Weights != nil {
		d.Weights = r.ints(d.N)
	}
	for k := range d.Cols {
		r.column(&d.Cols[k], d.N, varlen[k])
	}
	if r.bad || r.at != len(src) {
		return nil, badDelta(r.at)
	}
	return d, nil
}

func badDelta(at int) error {
	return fault.New(fault.Corrupted, "encoded delta is damaged at byte %d", at)
}

// deltaReader takes arrays off src; once something is wrong it returns nothing more.
type deltaReader struct {
	src []byte
	at  int
	bad bool
}

func (r *deltaReader) byte() byte {
	if r.at >= len(r.src) {
		r.bad = true
		return 0
	}
	r.at++
	return r.src[r.at-1]
}

func (r *deltaReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.src[min(r.at, len(r.src)):])
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.at += n
	return v
}

// header returns the delta without its arrays, and the sizes of the varlen columns. Weights and Validity that will follow are not nil.
func (r *deltaReader) header(s Schema) (*Delta, []uint64, error) {
	if v := r.byte(); !r.bad && v != deltaVersion {
		return nil, nil, fault.New(fault.Unsupported, "delta encoded in version %d; this node knows %d", v, deltaVersion)
	}
	flags := r.byte()
	rows, cols := r.uvarint(), r.uvarint()
	if r.bad || flags&^deltaHasWeights != 0 || rows > math.MaxInt32 || cols > maxDeltaColumns || (len(r.src)-r.at)/2 < int(cols) {
		return nil, nil, badDelta(r.at)
	}
	if int(cols) != len(s) {
		return nil, nil, fault.New(fault.Corrupted, "encoded delta has %d columns, not %d", cols, len(s))
	}
	d := &Delta{N: int(rows), Cols: make([]Column, cols)}
	if flags&deltaHasWeights != 0 {
		d.Weights = []int64{}
	}
	varlen := make([]uint64, cols)
	for k := range d.Cols {
		c := &d.Cols[k]
		c.Type, c.N = Type(r.byte()), int(rows)
		if c.Type != s[k].Type {
			return nil, nil, fault.New(fault.Corrupted, "encoded delta's column %d is not of type %s", k, s[k].Type)
		}
		switch r.byte() {
		case 0:
		case deltaHasValidity:
			c.Validity = Bitmap{}
		default:
			r.bad = true
		}
		if c.Type.Varlen() {
			varlen[k] = r.uvarint()
		}
		if r.bad {
			return nil, nil, badDelta(r.at)
		}
	}
	r.skipPadding()
	return d, varlen, nil
}

func (r *deltaReader) skipPadding() {
	for r.at&7 != 0 && !r.bad {
		if r.byte() != 0 {
			r.bad = true
		}
	}
}

// take returns the next n bytes and skips the padding behind them.
func (r *deltaReader) take(n uint64) []byte {
	if r.bad || r.at > len(r.src) || n > uint64(len(r.src)-r.at) {
		r.bad = true
		return nil
	}
	b := r.src[r.at : r.at+int(n) : r.at+int(n)]
	r.at += int(n)
	r.skipPadding()
	return b
}

func (r *deltaReader) column(c *Column, n int, varlen uint64) {
	if c.Validity != nil {
		c.Validity = r.take(uint64(n+7) >> 3)
	}
	switch c.Type.Layout() {
	case LayoutBools:
		c.Bools = r.bools(n)
	case LayoutInts:
		c.Ints = r.ints(n)
	case LayoutFloats:
		if b := r.take(8 * uint64(n)); len(b) > 0 {
			if inPlace(b, 8) {
				c.Floats = unsafe.Slice((*float64)(unsafe.Pointer(&b[0])), n)
				return
			}
			c.Floats = make([]float64, n)
			for i := range c.Floats {
				c.Floats[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
			}
		}
	case LayoutIntervals:
		if b := r.take(intervalBytes * uint64(n)); len(b) > 0 {
			c.Intervals = make([]Interval, n)
			for i := range c.Intervals {
				e := b[intervalBytes*i:]
				c.Intervals[i] = Interval{int32(binary.LittleEndian.Uint32(e)), int32(binary.LittleEndian.Uint32(e[4:])), int64(binary.LittleEndian.Uint64(e[8:]))}
			}
		}
	case LayoutBytes:
		r.varlen(c, n, varlen)
	}
}

// inPlace tells whether b, not empty, may be used as an array of numbers of the given size.
func inPlace(b []byte, size uintptr) bool {
	return littleEndian && uintptr(unsafe.Pointer(&b[0]))%size == 0
}

func (r *deltaReader) ints(n int) []int64 {
	b := r.take(8 * uint64(n))
	if len(b) == 0 {
		return []int64{}
	}
	if inPlace(b, 8) {
		return unsafe.Slice((*int64)(unsafe.Pointer(&b[0])), n)
	}
	out := make([]int64, n)
	for i := range out {
		out[i] = int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return out
}

// bools uses the bytes in place once each is known to be a bool.
func (r *deltaReader) bools(n int) []bool {
	b := r.take(uint64(n))
	if len(b) == 0 {
		return nil
	}
	for _, v := range b {
		if v > 1 {
			r.bad = true
			return nil
		}
	}
	return unsafe.Slice((*bool)(unsafe.Pointer(&b[0])), n)
}

func (r *deltaReader) varlen(c *Column, n int, size uint64) {
	b := r.take(4 * uint64(n+1))
	if r.bad {
		return
	}
	if inPlace(b, 4) {
		c.Offsets = unsafe.Slice((*int32)(unsafe.Pointer(&b[0])), n+1)
	} else {
		c.Offsets = make([]int32, n+1)
		for i := range c.Offsets {
			c.Offsets[i] = int32(binary.LittleEndian.Uint32(b[4*i:]))
		}
	}
	last := int32(0)
	for i, o := range c.Offsets {
		if o < last || (i == 0 && o != 0) {
			r.bad = true
			return
		}
		last = o
	}
	if uint64(last) != size {
		r.bad = true
		return
	}
	c.Bytes = r.take(size)
}
