package dataflow

import (
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

var errArraySize = fault.SQL(fault.TooLarge, "54000", "array size exceeds the maximum allowed (%d)", record.MaxArray)

// arrayImpls is the functions of arrays, for each type of element.
var arrayImpls = makeArrayImpls()

func makeArrayImpls() map[string]impl {
	m := map[string]impl{
		"string_to_array(text, text)":       {make: func() kernel { return eachBytes(stringToArray) }},
		"string_to_array(text, text, text)": {make: func() kernel { return eachBytes(stringToArray) }},
	}
	for _, t := range record.Types() {
		if !t.IsArray() {
			continue
		}
		array, elem := t.String(), t.Elem().String()
		for name, f := range map[string]func(*arrayKernel) kernel{
			"array(" + elem + ")":                          (*arrayKernel).construct,
			"array_get(" + array + ", bigint)":             (*arrayKernel).get,
			"array_slice(" + array + ", bigint, bigint)":   (*arrayKernel).slice,
			"array_append(" + array + ", " + elem + ")":    (*arrayKernel).append,
			"concat_op(" + array + ", " + elem + ")":       (*arrayKernel).append,
			"array_prepend(" + elem + ", " + array + ")":   (*arrayKernel).prepend,
			"concat_op(" + elem + ", " + array + ")":       (*arrayKernel).prepend,
			"array_cat(" + array + ", " + array + ")":      (*arrayKernel).cat,
			"concat_op(" + array + ", " + array + ")":      (*arrayKernel).cat,
			"array_position(" + array + ", " + elem + ")":  (*arrayKernel).position,
			"array_remove(" + array + ", " + elem + ")":    (*arrayKernel).remove,
			"array_contains(" + array + ", " + array + ")": (*arrayKernel).contains,
			"array_overlaps(" + array + ", " + array + ")": (*arrayKernel).overlaps,
			"array_to_string(" + array + ", text)":         (*arrayKernel).toString,
			"array_to_string(" + array + ", text, text)":   (*arrayKernel).toString,
			"array_length(" + array + ", bigint)":          (*arrayKernel).bound,
			"array_upper(" + array + ", bigint)":           (*arrayKernel).bound,
			"array_lower(" + array + ", bigint)":           (*arrayKernel).lower,
			"cardinality(" + array + ")":                   (*arrayKernel).cardinality,

			"array_position(" + array + ", " + elem + ", bigint)":      (*arrayKernel).positionFrom,
			"array_positions(" + array + ", " + elem + ")":             (*arrayKernel).positions,
			"array_replace(" + array + ", " + elem + ", " + elem + ")": (*arrayKernel).replace,
			"array_fill(" + elem + ", bigint[])":                       (*arrayKernel).fill,
			"array_dims(" + array + ")":                                (*arrayKernel).dims,
			"array_ndims(" + array + ")":                               (*arrayKernel).ndims,
			"trim_array(" + array + ", bigint)":                        (*arrayKernel).trim,
			"width_bucket(" + elem + ", " + array + ")":                (*arrayKernel).bucket,
		} {
			m[name] = impl{make: func() kernel { return f(newArrayKernel(t)) }}
		}
		for rel, name := range relationNames {
			want := holds[rel]
			m["any_"+name+"("+elem+", "+array+")"] = impl{make: func() kernel { return newArrayKernel(t).quantified(want, true) }}
			m["all_"+name+"("+elem+", "+array+")"] = impl{make: func() kernel { return newArrayKernel(t).quantified(want, false) }}
		}
	}
	return m
}

// arrayKernel has the elements of one or two arrays, to be used again for each row.
type arrayKernel struct{ a, b record.Column }

func newArrayKernel(t record.Type) *arrayKernel {
	return &arrayKernel{record.NewColumn(t.Elem(), 0), record.NewColumn(t.Elem(), 0)}
}

// load sets into to the elements of argument k at row i; of a NULL there are none.
func (k *arrayKernel) load(c *call, into *record.Column, arg, i int) error {
	into.Reset()
	if c.args[arg].null(i) {
		return nil
	}
	return record.DecodeArray(bytesArg(c, arg, i), into)
}

func (k *arrayKernel) construct() kernel {
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		k.a.Reset()
		for _, v := range c.args {
			k.a.AppendFrom(v.col, i&v.mask)
		}
		return record.AppendArray(dst, &k.a), nil
	})
}

// appendElements adds the elements of an array to another.
func appendElements(dst, src *record.Column) error {
	if dst.N+src.N > record.MaxArray {
		return errArraySize
	}
	for i := range src.N {
		dst.AppendFrom(src, i)
	}
	return nil
}

func (k *arrayKernel) append() kernel {
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if err := k.load(c, &k.a, 0, i); err != nil {
			return dst, err
		}
		if k.a.N >= record.MaxArray {
			return dst, errArraySize
		}
		k.a.AppendFrom(c.args[1].col, i&c.args[1].mask)
		return record.AppendArray(dst, &k.a), nil
	})
}

func (k *arrayKernel) prepend() kernel {
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if err := k.load(c, &k.b, 1, i); err != nil {
			return dst, err
		}
		k.a.Reset()
		k.a.AppendFrom(c.args[0].col, i&c.args[0].mask)
		if err := appendElements(&k.a, &k.b); err != nil {
			return dst, err
		}
		return record.AppendArray(dst, &k.a), nil
	})
}

// cat of a NULL and an array is the array; of two NULLs, NULL.
func (k *arrayKernel) cat() kernel {
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if c.args[0].null(i) && c.args[1].null(i) {
			c.setNull(i)
			return dst, nil
		}
		if err := k.load(c, &k.a, 0, i); err != nil {
			return dst, err
		}
		if err := k.load(c, &k.b, 1, i); err != nil {
			return dst, err
		}
		if err := appendElements(&k.a, &k.b); err != nil {
			return dst, err
		}
		return record.AppendArray(dst, &k.a), nil
	})
}

// get returns element i, from 1; NULL where there is none.
func (k *arrayKernel) get() kernel {
	var out record.Column
	return func(c *call) {
		out.Type = c.out.Type
		out.Reset()
		for i := range c.n {
			if c.null(i) {
				out.AppendNull()
				continue
			}
			if err := k.load(c, &k.a, 0, i); err != nil {
				out.AppendNull()
				c.errs.fail(err, positive(c.in, i))
				continue
			}
			at := c.args[1].col.Ints[i&c.args[1].mask]
			if at < 1 || at > int64(k.a.N) {
				out.AppendNull()
			} else {
				out.AppendFrom(&k.a, int(at-1))
			}
		}
		c.out, out = out, c.out // what was there is used again next time
		out.Validity = nil      // it is the call's own, which says next time what is NULL
	}
}

func (k *arrayKernel) slice() kernel {
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if err := k.load(c, &k.a, 0, i); err != nil {
			return dst, err
		}
		from, to := max(c.args[1].col.Ints[i&c.args[1].mask], 1), min(c.args[2].col.Ints[i&c.args[2].mask], int64(k.a.N))
		k.b.Reset()
		for at := from; at <= to; at++ {
			k.b.AppendFrom(&k.a, int(at-1))
		}
		return record.AppendArray(dst, &k.b), nil
	})
}

func (k *arrayKernel) position() kernel {
	return func(c *call) {
		for i := range c.n {
			if c.args[0].null(i) {
				c.setNull(i)
				continue
			}
			if err := k.load(c, &k.a, 0, i); err != nil {
				c.fail(i, err)
				continue
			}
			at := k.find(&k.a, 0, c.args[1].col, i&c.args[1].mask)
			if at < 0 {
				c.setNull(i)
				continue
			}
			c.out.Ints[i] = int64(at + 1)
		}
	}
}

// find returns where a value is among elements, from one of them on; NULL is where a NULL is.
func (k *arrayKernel) find(elems *record.Column, from int, v *record.Column, i int) int {
	for at := from; at < elems.N; at++ {
		if elems.Null(at) || v.Null(i) {
			if elems.Null(at) && v.Null(i) {
				return at
			}
			continue
		}
		if compareAt(elems, at, v, i) == 0 {
			return at
		}
	}
	return -1
}

func (k *arrayKernel) remove() kernel {
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if c.args[0].null(i) {
			c.setNull(i)
			return dst, nil
		}
		if err := k.load(c, &k.a, 0, i); err != nil {
			return dst, err
		}
		v, at := c.args[1].col, i&c.args[1].mask
		k.b.Reset()
		for e := range k.a.N {
			same := k.a.Null(e) && v.Null(at)
			if !k.a.Null(e) && !v.Null(at) {
				same = compareAt(&k.a, e, v, at) == 0
			}
			if !same {
				k.b.AppendFrom(&k.a, e)
			}
		}
		return record.AppendArray(dst, &k.b), nil
	})
}

// sets makes the kernel of a predicate over two arrays' elements.
func (k *arrayKernel) sets(f func() bool) kernel {
	return func(c *call) {
		for i := range c.n {
			if c.null(i) {
				continue
			}
			err := k.load(c, &k.a, 0, i)
			if err == nil {
				err = k.load(c, &k.b, 1, i)
			}
			if err != nil {
				c.fail(i, err)
				continue
			}
			c.out.Bools[i] = f()
		}
	}
}

// contains tells whether every element of the second array is in the first; a NULL is in none.
func (k *arrayKernel) contains() kernel {
	return k.sets(func() bool {
		for i := range k.b.N {
			if k.b.Null(i) || k.find(&k.a, 0, &k.b, i) < 0 {
				return false
			}
		}
		return true
	})
}

func (k *arrayKernel) overlaps() kernel {
	return k.sets(func() bool {
		for i := range k.b.N {
			if !k.b.Null(i) && k.find(&k.a, 0, &k.b, i) >= 0 {
				return true
			}
		}
		return false
	})
}

// toString joins the elements; NULLs are left out, or written as the third argument, unless that is NULL.
func (k *arrayKernel) toString() kernel {
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if c.args[0].null(i) || c.args[1].null(i) {
			c.setNull(i)
			return dst, nil
		}
		if err := k.load(c, &k.a, 0, i); err != nil {
			return dst, err
		}
		sep, first := bytesArg(c, 1, i), true
		skip := len(c.args) < 3 || c.args[2].null(i)
		for e := range k.a.N {
			if k.a.Null(e) && skip {
				continue
			}
			if !first {
				dst = append(dst, sep...)
			}
			first = false
			if k.a.Null(e) {
				dst = append(dst, bytesArg(c, 2, i)...)
			} else {
				dst = record.AppendText(dst, &k.a, e)
			}
		}
		return dst, nil
	})
}

// counted makes the kernel of a number that follows from an array's length; ok false: NULL.
func (k *arrayKernel) counted(f func(c *call, i, n int) (v int64, ok bool)) kernel {
	return func(c *call) {
		for i := range c.n {
			if c.null(i) {
				continue
			}
			n, err := record.ArrayLen(bytesArg(c, 0, i))
			if err != nil {
				c.fail(i, err)
				continue
			}
			v, ok := f(c, i, n)
			if !ok {
				c.setNull(i)
				continue
			}
			c.out.Ints[i] = v
		}
	}
}

func (k *arrayKernel) cardinality() kernel {
	return k.counted(func(_ *call, _, n int) (int64, bool) { return int64(n), true })
}

// bound is array_length and array_upper: the only dimension is the first, and an empty array has none.
func (k *arrayKernel) bound() kernel {
	return k.counted(func(c *call, i, n int) (int64, bool) {
		return int64(n), n > 0 && c.args[1].col.Ints[i&c.args[1].mask] == 1
	})
}

func (k *arrayKernel) lower() kernel {
	return k.counted(func(c *call, i, n int) (int64, bool) { return 1, n > 0 && c.args[1].col.Ints[i&c.args[1].mask] == 1 })
}

// quantified is x op ANY(array), or ALL, with SQL's three values.
func (k *arrayKernel) quantified(want [3]bool, any bool) kernel {
	return func(c *call) {
		for i := range c.n {
			if c.args[1].null(i) {
				c.setNull(i)
				continue
			}
			if err := k.load(c, &k.a, 1, i); err != nil {
				c.fail(i, err)
				continue
			}
			v, unknown, decided := c.args[0], false, false
			for e := range k.a.N {
				if k.a.Null(e) || v.null(i) {
					unknown = true
				} else if want[compareAt(v.col, i&v.mask, &k.a, e)+1] == any {
					decided = true
					break
				}
			}
			switch {
			case decided:
				c.out.Bools[i] = any
			case unknown:
				c.setNull(i)
			default:
				c.out.Bools[i] = !any
			}
		}
	}
}
