package record

import (
	"encoding/binary"
	"math"

	"github.com/millrace/millrace/internal/fault"
)

// AppendRow appends columns cols of row i in the compact encoding of stored rows, which keeps every value exactly:
//
//	one bit for each column, least significant first, set for NULL; then the values that aren't NULL:
//	boolean one byte; bigint, timestamptz zigzag varint; double precision 8 bytes, little endian;
//	interval three zigzag varints; others the length as a varint and the bytes
//
// The row's weight is not in it.
func AppendRow(dst []byte, d *Delta, cols []int, i int) []byte {
	nulls := len(dst)
	for range (len(cols) + 7) >> 3 {
		dst = append(dst, 0)
	}
	for k, col := range cols {
		c := &d.Cols[col]
		if c.Null(i) {
			dst[nulls+k>>3] |= 1 << (k & 7)
			continue
		}
		dst = appendStored(dst, c, i)
	}
	return dst
}

// appendStored appends value i, which isn't NULL.
func appendStored(dst []byte, c *Column, i int) []byte {
	switch c.Type.Layout() {
	case LayoutBools:
		dst = appendOrderedBool(dst, c.Bools[i])
	case LayoutInts:
		dst = binary.AppendVarint(dst, c.Ints[i])
	case LayoutFloats:
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(c.Floats[i]))
	case LayoutIntervals:
		v := c.Intervals[i]
		dst = binary.AppendVarint(dst, int64(v.Months))
		dst = binary.AppendVarint(dst, int64(v.Days))
		dst = binary.AppendVarint(dst, v.Micros)
	case LayoutBytes:
		v := c.At(i)
		dst = binary.AppendUvarint(dst, uint64(len(v)))
		dst = append(dst, v...)
	}
	return dst
}

// DecodeRow appends to each of columns cols of d the value that AppendRow wrote for it; d.N and d.Weights are the
// caller's. Anything but exactly one row is fault.Corrupted, and then no column has changed.
func DecodeRow(src []byte, d *Delta, cols []int) error {
	nulls := (len(cols) + 7) >> 3
	if len(src) < nulls {
		return badRow(0, len(cols))
	}
	rest := src[nulls:]
	for k, col := range cols {
		c := &d.Cols[col]
		if src[k>>3]&(1<<(k&7)) != 0 {
			c.AppendNull()
			continue
		}
		n := c.appendStored(rest)
		if n < 0 {
			takeBack(d, cols[:k])
			return badRow(k, len(cols))
		}
		rest = rest[n:]
	}
	if len(rest) > 0 {
		takeBack(d, cols)
		return badRow(len(cols), len(cols))
	}
	return nil
}

func takeBack(d *Delta, cols []int) {
	for _, col := range cols {
		d.Cols[col].truncate(d.Cols[col].N - 1)
	}
}

func badRow(k, n int) error {
	return fault.New(fault.Corrupted, "stored row doesn't decode: bad value %d of %d", k, n)
}

// appendStored appends the value at the beginning of src and returns its size, or -1.
func (c *Column) appendStored(src []byte) int {
	switch c.Type.Layout() {
	case LayoutBools:
		if len(src) == 0 || src[0] > 1 {
			return -1
		}
		c.AppendBool(src[0] == 1)
		return 1
	case LayoutInts:
		v, n := binary.Varint(src)
		if n <= 0 {
			return -1
		}
		c.AppendInt(v)
		return n
	case LayoutFloats:
		if len(src) < 8 {
			return -1
		}
		c.AppendFloat(math.Float64frombits(binary.LittleEndian.Uint64(src)))
		return 8
	case LayoutIntervals:
		months, n := binary.Varint(src)
		if n <= 0 || int64(int32(months)) != months {
			return -1
		}
		days, m := binary.Varint(src[n:])
		if m <= 0 || int64(int32(days)) != days {
			return -1
		}
		micros, o := binary.Varint(src[n+m:])
		if o <= 0 {
			return -1
		}
		c.AppendInterval(Interval{Months: int32(months), Days: int32(days), Micros: micros})
		return n + m + o
	case LayoutBytes:
		size, n := binary.Uvarint(src)
		if n <= 0 || size > uint64(len(src)-n) {
			return -1
		}
		c.AppendBytes(src[n : n+int(size)])
		return n + int(size)
	}
	return -1
}

// partitionNull stands for a NULL key; no text contains it.
const partitionNull byte = 0x00

// AppendPartitionKey appends the bytes whose hash says to which partition row i belongs by its columns cols. For one
// column they are the bytes of the stream key with that value (see NewKeyExtractor), so that equal keys of different streams and views
// meet in one partition; for several, the ordered encodings one after the other. Equal values give equal bytes.
func AppendPartitionKey(dst []byte, d *Delta, cols []int, i int) []byte {
	if len(cols) != 1 {
		for _, col := range cols {
			dst = AppendOrdered(dst, &d.Cols[col], i)
		}
		return dst
	}
	c := &d.Cols[cols[0]]
	if c.Null(i) {
		return append(dst, partitionNull)
	}
	switch c.Type {
	case Text:
		return append(dst, c.At(i)...)
	case BigInt, TimestampTZ, Boolean, Bytea, Timestamp, Date, Time, UUID:
		return AppendText(dst, c, i)
	}
	return appendKeyText(dst, c.Value(i))
}

// appendKeyText appends the text of v, not NULL, that stands for all values equal to v.
func appendKeyText(dst []byte, v Value) []byte {
	switch v.Type {
	case Double:
		if v.Float == 0 {
			v.Float = 0 // not -0
		}
	case Numeric:
		return appendReducedNumeric(dst, v.Bytes)
	case IntervalT:
		v.Interval = normalInterval(spanOf(v.Interval))
	case JSONB:
		if out, _, ok := decodeOrderedJSONB(dst, appendOrderedJSONB(nil, v.Bytes), 0); ok {
			return out
		}
	}
	if v.Type.IsArray() {
		v.Bytes = AppendNormalArray(nil, v.Type, v.Bytes)
	}
	return AppendTextValue(dst, v)
}
