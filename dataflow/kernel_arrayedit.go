package dataflow

import (
	"bytes"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

var (
	errArrayStart    = fault.SQL(fault.Invalid, "22004", "initial position must not be null")
	errArrayDims     = fault.SQL(fault.Invalid, "22004", "the array of dimensions, and those in it, must not be null")
	errArrayMoreDims = fault.SQL(fault.Unsupported, "0A000", "arrays of more than one dimension are not supported")
	errTrimArray     = fault.SQL(fault.Invalid, "2202E", "number of elements to trim must be between 0 and the array's length")
	errBucketNull    = fault.SQL(fault.Invalid, "22004", "thresholds array must not contain NULLs")
)

// positionFrom is array_position from an element on.
func (k *arrayKernel) positionFrom() kernel {
	return func(c *call) {
		for i := range c.n {
			if c.args[0].null(i) {
				c.setNull(i)
				continue
			}
			err := k.load(c, &k.a, 0, i)
			if err == nil && k.a.N > 0 && c.args[2].null(i) {
				err = errArrayStart
			}
			if err != nil {
				c.fail(i, err)
				continue
			}
			if k.a.N == 0 {
				c.setNull(i)
				continue
			}
			from := min(max(intArg(c, 2, i), 1)-1, int64(k.a.N))
			at := k.find(&k.a, int(from), c.args[1].col, i&c.args[1].mask)
			if at < 0 {
				c.setNull(i)
				continue
			}
			c.out.Ints[i] = int64(at + 1)
		}
	}
}

// positions is array_positions: of all elements that are equal.
func (k *arrayKernel) positions() kernel {
	found := record.NewColumn(record.BigInt, 0)
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if c.args[0].null(i) {
			c.setNull(i)
			return dst, nil
		}
		if err := k.load(c, &k.a, 0, i); err != nil {
			return dst, err
		}
		found.Reset()
		v, row := c.args[1].col, i&c.args[1].mask
		for at := k.find(&k.a, 0, v, row); at >= 0; at = k.find(&k.a, at+1, v, row) {
			found.AppendValue(record.Value{Type: record.BigInt, Int: int64(at + 1)})
		}
		return record.AppendArray(dst, &found), nil
	})
}

func (k *arrayKernel) replace() kernel {
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if c.args[0].null(i) {
			c.setNull(i)
			return dst, nil
		}
		if err := k.load(c, &k.a, 0, i); err != nil {
			return dst, err
		}
		k.b.Reset()
		next := k.find(&k.a, 0, c.args[1].col, i&c.args[1].mask)
		for e := range k.a.N {
			if e != next {
				k.b.AppendFrom(&k.a, e)
				continue
			}
			k.b.AppendFrom(c.args[2].col, i&c.args[2].mask)
			next = k.find(&k.a, e+1, c.args[1].col, i&c.args[1].mask)
		}
		return record.AppendArray(dst, &k.b), nil
	})
}

// fill is array_fill of one dimension.
func (k *arrayKernel) fill() kernel {
	dims := record.NewColumn(record.BigInt, 0)
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if c.args[1].null(i) {
			return dst, errArrayDims
		}
		if err := k.load(c, &dims, 1, i); err != nil {
			return dst, err
		}
		n := int64(0)
		for d := range dims.N {
			if dims.Null(d) {
				return dst, errArrayDims
			}
			n = dims.Ints[d]
		}
		switch {
		case dims.N > 1:
			return dst, errArrayMoreDims
		case n > record.MaxArray:
			return dst, errArraySize
		case n < 0:
			return dst, errArraySize
		}
		k.a.Reset()
		v := c.args[0]
		for range n {
			k.a.AppendFrom(v.col, i&v.mask)
			if len(k.a.Bytes) > maxTextBytes {
				return dst, errTextLength
			}
		}
		return record.AppendArray(dst, &k.a), nil
	})
}

// dims is array_dims; an empty array has none.
func (k *arrayKernel) dims() kernel {
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		n, err := record.ArrayLen(bytesArg(c, 0, i))
		if err != nil {
			return dst, err
		}
		if n == 0 {
			c.setNull(i)
			return dst, nil
		}
		return append(appendSmall(append(dst, "[1:"...), int64(n), 0), ']'), nil
	})
}

func (k *arrayKernel) ndims() kernel {
	return k.counted(func(_ *call, _, n int) (int64, bool) { return 1, n > 0 })
}

// trim is trim_array: without the last n elements.
func (k *arrayKernel) trim() kernel {
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if err := k.load(c, &k.a, 0, i); err != nil {
			return dst, err
		}
		n := intArg(c, 1, i)
		if n < 0 || n > int64(k.a.N) {
			return dst, errTrimArray
		}
		truncate(&k.a, k.a.N-int(n))
		return record.AppendArray(dst, &k.a), nil
	})
}

// bucket is width_bucket over an ordered array of the lower bounds.
func (k *arrayKernel) bucket() kernel {
	return func(c *call) {
		for i := range c.n {
			if c.null(i) {
				continue
			}
			err := k.load(c, &k.a, 1, i)
			for e := range k.a.N {
				if k.a.Null(e) {
					err = errBucketNull
				}
			}
			if err != nil {
				c.fail(i, err)
				continue
			}
			v := c.args[0]
			left, right := 0, k.a.N
			for left < right {
				mid := (left + right) / 2
				if compareAt(v.col, i&v.mask, &k.a, mid) < 0 {
					right = mid
				} else {
					left = mid + 1
				}
			}
			c.out.Ints[i] = int64(left)
		}
	}
}

// stringToArray splits at every separator; at every character where that is NULL. What equals the third argument becomes NULL.
func stringToArray(c *call, dst []byte, i int) ([]byte, error) {
	if c.args[0].null(i) {
		c.setNull(i)
		return dst, nil
	}
	s, elems := bytesArg(c, 0, i), record.NewColumn(record.Text, 0)
	add := func(part []byte) {
		if len(c.args) == 3 && !c.args[2].null(i) && bytes.Equal(part, bytesArg(c, 2, i)) {
			elems.AppendNull()
		} else {
			elems.AppendBytes(part)
		}
	}
	letters := c.args[1].null(i)
	for len(s) > 0 {
		n, skip := len(s), 0
		if letters {
			_, n = utf8.DecodeRune(s)
		} else if sep := bytesArg(c, 1, i); len(sep) > 0 {
			if at := bytes.Index(s, sep); at >= 0 {
				n, skip = at, len(sep)
			}
		}
		if elems.N >= record.MaxArray {
			return dst, errArraySize
		}
		add(s[:n])
		if s = s[n+skip:]; len(s) == 0 && skip > 0 {
			add(nil) // behind the last separator
		}
	}
	return record.AppendArray(dst, &elems), nil
}
