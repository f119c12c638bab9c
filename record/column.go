package record

// Bitmap is Arrow's validity bitmap: bit i%8 of byte i/8, least significant first; set means not NULL.
// A nil Bitmap means that no value is NULL.
type Bitmap []byte

// Valid tells whether value i is not NULL.
func (b Bitmap) Valid(i int) bool { return b == nil || b[i>>3]&(1<<(i&7)) != 0 }

// Column is the values of one column in Arrow's memory layout (booleans are a byte each, as Go has them).
// Only the slice that the type uses is set. The slot of a NULL holds the zero value; readers must not rely on more.
type Column struct {
	Type      Type
	N         int    // number of values
	Validity  Bitmap // nil: no NULLs
	Bools     []bool
	Ints      []int64
	Floats    []float64
	Intervals []Interval
	Offsets   []int32 // N+1 positions in Bytes, for varlen types
	Bytes     []byte

	spare Bitmap // memory of a Validity that Reset took away
}

// Null tells whether value i is NULL.
func (c *Column) Null(i int) bool { return !c.Validity.Valid(i) }

// At returns the bytes of value i of a varlen column; they belong to the column.
func (c *Column) At(i int) []byte { return c.Bytes[c.Offsets[i]:c.Offsets[i+1]] }

// Value returns value i; its Bytes belong to the column.
func (c *Column) Value(i int) Value {
	v := Value{Type: c.Type}
	if c.Null(i) {
		v.Null = true
		return v
	}
	switch c.Type.Layout() {
	case LayoutBools:
		if c.Bools[i] {
			v.Int = 1
		}
	case LayoutInts:
		v.Int = c.Ints[i]
	case LayoutFloats:
		v.Float = c.Floats[i]
	case LayoutIntervals:
		v.Interval = c.Intervals[i]
	case LayoutBytes:
		v.Bytes = c.At(i)
	}
	return v
}

// NewColumn returns an empty column of type t with room for n values.
func NewColumn(t Type, n int) Column {
	c := Column{Type: t}
	switch t.Layout() {
	case LayoutBools:
		c.Bools = make([]bool, 0, n)
	case LayoutInts:
		c.Ints = make([]int64, 0, n)
	case LayoutFloats:
		c.Floats = make([]float64, 0, n)
	case LayoutIntervals:
		c.Intervals = make([]Interval, 0, n)
	case LayoutBytes:
		c.Offsets = make([]int32, 1, n+1)
	}
	return c
}

// Reset empties the column and keeps its memory.
func (c *Column) Reset() {
	if c.Validity != nil {
		c.spare, c.Validity = c.Validity[:0], nil
	}
	c.N = 0
	c.Bools, c.Ints, c.Floats, c.Intervals, c.Bytes = c.Bools[:0], c.Ints[:0], c.Floats[:0], c.Intervals[:0], c.Bytes[:0]
	if c.Type.Varlen() {
		c.Offsets = append(c.Offsets[:0], 0)
	}
}

// grow counts one more value, not NULL.
func (c *Column) grow() {
	if c.Validity != nil {
		if c.N&7 == 0 {
			c.Validity = append(c.Validity, 0)
		}
		c.Validity[c.N>>3] |= 1 << (c.N & 7)
	}
	c.N++
}

// AppendBool appends to a Boolean column.
func (c *Column) AppendBool(v bool) { c.Bools = append(c.Bools, v); c.grow() }

// AppendInt appends to a BigInt or TimestampTZ column.
func (c *Column) AppendInt(v int64) { c.Ints = append(c.Ints, v); c.grow() }

// AppendFloat appends to a Double column.
func (c *Column) AppendFloat(v float64) { c.Floats = append(c.Floats, v); c.grow() }

// AppendInterval appends to an IntervalT column.
func (c *Column) AppendInterval(v Interval) { c.Intervals = append(c.Intervals, v); c.grow() }

// AppendBytes copies v to a varlen column.
func (c *Column) AppendBytes(v []byte) {
	c.Bytes = append(c.Bytes, v...)
	c.Offsets = append(c.Offsets, int32(len(c.Bytes)))
	c.grow()
}

// AppendString copies v to a varlen column.
func (c *Column) AppendString(v string) {
	c.Bytes = append(c.Bytes, v...)
	c.Offsets = append(c.Offsets, int32(len(c.Bytes)))
	c.grow()
}

// AppendNull appends a NULL.
func (c *Column) AppendNull() {
	if c.Validity == nil {
		c.startValidity()
	} else if c.N&7 == 0 {
		c.Validity = append(c.Validity, 0)
	}
	switch c.Type.Layout() {
	case LayoutBools:
		c.Bools = append(c.Bools, false)
	case LayoutInts:
		c.Ints = append(c.Ints, 0)
	case LayoutFloats:
		c.Floats = append(c.Floats, 0)
	case LayoutIntervals:
		c.Intervals = append(c.Intervals, Interval{})
	case LayoutBytes:
		c.Offsets = append(c.Offsets, int32(len(c.Bytes)))
	}
	c.N++
}

// startValidity makes the bitmap at the first NULL: all N values are valid, and the slot of one more isn't.
func (c *Column) startValidity() {
	c.Validity = append(c.spare[:0], make(Bitmap, (c.N+8)>>3)...)
	c.spare = nil
	for i := range c.N >> 3 {
		c.Validity[i] = 0xff
	}
	c.Validity[c.N>>3] = 1<<(c.N&7) - 1
}

// truncate takes back all values from value n on.
func (c *Column) truncate(n int) {
	if n >= c.N {
		return
	}
	switch c.Type.Layout() {
	case LayoutBools:
		c.Bools = c.Bools[:n]
	case LayoutInts:
		c.Ints = c.Ints[:n]
	case LayoutFloats:
		c.Floats = c.Floats[:n]
	case LayoutIntervals:
		c.Intervals = c.Intervals[:n]
	case LayoutBytes:
		c.Offsets = c.Offsets[:n+1]
		c.Bytes = c.Bytes[:c.Offsets[n]]
	}
	c.N = n
	if c.Validity != nil {
		c.Validity = c.Validity[:(n+7)>>3]
		if n&7 != 0 { // appending sets bits and never clears them
			c.Validity[n>>3] &= 1<<(n&7) - 1
		}
	}
}

// AppendValue appends v, which is of the column's type or NULL.
func (c *Column) AppendValue(v Value) {
	if v.Null {
		c.AppendNull()
		return
	}
	switch c.Type.Layout() {
	case LayoutBools:
		c.AppendBool(v.Int != 0)
	case LayoutInts:
		c.AppendInt(v.Int)
	case LayoutFloats:
		c.AppendFloat(v.Float)
	case LayoutIntervals:
		c.AppendInterval(v.Interval)
	case LayoutBytes:
		c.AppendBytes(v.Bytes)
	}
}

// AppendFrom appends value i of src, a column of the same type.
func (c *Column) AppendFrom(src *Column, i int) {
	if src.Null(i) {
		c.AppendNull()
		return
	}
	switch c.Type.Layout() {
	case LayoutBools:
		c.AppendBool(src.Bools[i])
	case LayoutInts:
		c.AppendInt(src.Ints[i])
	case LayoutFloats:
		c.AppendFloat(src.Floats[i])
	case LayoutIntervals:
		c.AppendInterval(src.Intervals[i])
	case LayoutBytes:
		c.AppendBytes(src.At(i))
	}
}

// AppendAll appends all values of src, a column of the same type.
func (c *Column) AppendAll(src *Column) {
	if c.Validity != nil || src.Validity != nil {
		for i := range src.N {
			c.AppendFrom(src, i)
		}
		return
	}
	c.N += src.N
	switch c.Type.Layout() {
	case LayoutBools:
		c.Bools = append(c.Bools, src.Bools...)
	case LayoutInts:
		c.Ints = append(c.Ints, src.Ints...)
	case LayoutFloats:
		c.Floats = append(c.Floats, src.Floats...)
	case LayoutIntervals:
		c.Intervals = append(c.Intervals, src.Intervals...)
	case LayoutBytes:
		shift := int32(len(c.Bytes)) - src.Offsets[0]
		c.Bytes = append(c.Bytes, src.Bytes[src.Offsets[0]:src.Offsets[src.N]]...)
		for _, o := range src.Offsets[1 : src.N+1] {
			c.Offsets = append(c.Offsets, o+shift)
		}
	}
}

// Delta is a batch of rows by column. Row i appears Weights[i] times more (fewer, when negative) than before.
type Delta struct {
	N       int      // rows
	Cols    []Column // each with N values
	Weights []int64  // nil: all +1
}

// NewDelta returns an empty delta with the schema's columns and room for n rows.
func NewDelta(s Schema, n int) *Delta {
	d := &Delta{Cols: make([]Column, len(s))}
	for i := range s {
		d.Cols[i] = NewColumn(s[i].Type, n)
	}
	return d
}

// Weight returns row i's weight.
func (d *Delta) Weight(i int) int64 {
	if d.Weights == nil {
		return 1
	}
	return d.Weights[i]
}

// Reset empties the delta and keeps its memory.
func (d *Delta) Reset() {
	d.N = 0
	if d.Weights != nil {
		d.Weights = d.Weights[:0]
	}
	for i := range d.Cols {
		d.Cols[i].Reset()
	}
}

// AppendRow appends row i of src with weight w. A delta uses weights from its first row on or never:
// the receiver must have Weights set, even if empty, unless w is 1 for all its rows.
func (d *Delta) AppendRow(src *Delta, i int, w int64) {
	for c := range d.Cols {
		d.Cols[c].AppendFrom(&src.Cols[c], i)
	}
	if d.Weights != nil {
		d.Weights = append(d.Weights, w)
	}
	d.N++
}
