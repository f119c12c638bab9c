package dataflow

import (
	"bytes"
	"math"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// maxPartitionRows bounds the rows of one partition of a window, each counted as often as it is there.
const maxPartitionRows = 1 << 24

// windowPart is the rows of one partition in their order.
type windowPart struct {
	data *record.Delta // each different row once
	cols []int
	rows []windowRow
	keys []byte // the order's bytes of all rows

	// Of the rows as they were or are, one after the other, each as often as it is there; see number.
	place  []int32 // -> rows
	first  []int   // rows -> its first place
	group  []int32 // place -> its group of peers
	starts []int32 // group -> its first place; one more at the end
}

type windowRow struct {
	from, to      int // of the order's bytes in keys
	before, after int64
}

func (p *windowPart) init(s record.Schema) {
	p.data = record.NewDelta(s, 0)
	for c := range s {
		p.cols = append(p.cols, c)
	}
}

func (p *windowPart) reset() {
	p.data.Reset()
	for c := range p.data.Cols {
		trim(&p.data.Cols[c])
	}
	p.rows, p.keys = p.rows[:0], p.keys[:0]
}

// add appends a row, which comes after those before it.
func (p *windowPart) add(sorted, row []byte, before, after int64) error {
	if err := record.DecodeRow(row, p.data, p.cols); err != nil {
		return err
	}
	p.data.N++
	from := len(p.keys)
	p.keys = append(p.keys, sorted...)
	p.rows = append(p.rows, windowRow{from, len(p.keys), before, after})
	if len(p.rows) > maxPartitionRows {
		return fault.New(fault.TooLarge, "a partition of window functions has more than %d rows", maxPartitionRows)
	}
	return nil
}

// number puts the rows in places, each as often as weight says, and peers in groups.
func (p *windowPart) number(weight func(*windowRow) int64) {
	p.place, p.first, p.group, p.starts = p.place[:0], p.first[:0], p.group[:0], p.starts[:0]
	var last []byte
	for i := range p.rows {
		r := &p.rows[i]
		p.first = append(p.first, len(p.place))
		n := min(weight(r), maxPartitionRows)
		if n <= 0 {
			continue
		}
		if key := p.keys[r.from:r.to]; len(p.place) == 0 || !bytes.Equal(key, last) {
			p.starts = append(p.starts, int32(len(p.place)))
			last = key
		}
		for range n {
			p.place = append(p.place, int32(i))
			p.group = append(p.group, int32(len(p.starts)-1))
		}
	}
	p.starts = append(p.starts, int32(len(p.place)))
}

// peers returns the places of the peers of place i.
func (p *windowPart) peers(i int) (lo, hi int) {
	g := p.group[i]
	return int(p.starts[g]), int(p.starts[g+1])
}

// windowFunc is one function of a window.
type windowFunc struct {
	plan   *plan.WindowFunc
	order  []plan.SortKey
	errs   *faults
	number int64      // the constant argument
	null   bool       // it is NULL
	agg    *aggregate // of an aggregate, else nil
	input  record.Delta
	slots  []int32
}

var (
	errNtile    = fault.SQL(fault.Invalid, "22014", "argument of ntile must be greater than zero")
	errNthValue = fault.SQL(fault.Invalid, "22016", "argument of nth_value must be greater than zero")
)

func newWindowFunc(b *builder, p *plan.WindowFunc, out record.Type) (f windowFunc, err error) {
	f = windowFunc{plan: p, order: b.op.Window.Order, errs: b.errs, number: 1}
	if p.Type != out {
		return f, defect("operator %d writes %s as %s", b.index, p.Type, out)
	}
	if len(p.Const) > 0 {
		f.number, f.null = p.Const[0].Int, p.Const[0].Null
	}
	result, args := record.BigInt, 0
	switch p.Name {
	case "row_number", "rank", "dense_rank", "ntile":
	case "percent_rank", "cume_dist":
		result = record.Double
	case "lag", "lead", "first_value", "last_value", "nth_value":
		args = 1
		for _, c := range p.Args {
			if err := b.column(c, p.Type); err != nil {
				return f, err
			}
		}
		result = p.Type
	case "agg":
		if p.Agg == nil || p.Agg.Type != p.Type {
			return f, defect("operator %d has a window aggregate without its part of the plan", b.index)
		}
		if f.agg, err = newFrameAggregate(b, *p.Agg); err != nil {
			return f, err
		}
		result = p.Type
	default:
		return f, fault.New(fault.Unsupported, "dataflow: no window function %q", p.Name)
	}
	if len(p.Args) < args || result != p.Type {
		return f, defect("operator %d has no %s that is %s", b.index, p.Name, p.Type)
	}
	return f, f.checkFrame(b)
}

// newFrameAggregate returns the accumulators of an aggregate of which only sums over frames are wanted.
func newFrameAggregate(b *builder, agg plan.Agg) (*aggregate, error) {
	op := *b.op
	op.Aggregate = &plan.Aggregate{Phase: plan.AggSingle, Aggs: []plan.Agg{agg}, AppendOnly: true}
	inner := *b
	inner.op = &op
	a := &aggregate{index: b.index, phase: plan.AggSingle, aggs: op.Aggregate.Aggs, errs: b.errs, whole: true}
	if _, err := a.checkAgg(&inner, &op.Aggregate.Aggs[0], 0); err != nil {
		return nil, err
	}
	a.buf = record.NewDelta(record.Schema{{Type: agg.Type}}, 0)
	return a, a.makeAccumulators(&inner)
}

func (f *windowFunc) checkFrame(b *builder) error {
	frame := f.plan.Frame
	switch frame.Mode {
	case "rows", "groups":
		return nil
	case "range", "":
	default:
		return defect("operator %d has a frame of %q", b.index, frame.Mode)
	}
	for _, bound := range []plan.FrameBound{frame.Start, frame.End} {
		if bound.Unbounded || bound.Offset == 0 && bound.Interval == (record.Interval{}) {
			continue
		}
		if len(f.order) != 1 {
			return defect("operator %d has a frame of a distance over %d columns", b.index, len(f.order))
		}
		t := b.in.schema[f.order[0].Col].Type
		if bound.Interval != (record.Interval{}) {
			if t != record.TimestampTZ {
				return fault.New(fault.Unsupported, "dataflow: no RANGE of an interval over %s", t)
			}
		} else if t != record.BigInt && t != record.Double {
			return fault.New(fault.Unsupported, "dataflow: no RANGE of a distance over %s", t)
		}
	}
	return nil
}

// compute appends the function's result at each place. Weight says whether the rows come or go: errors are counted once.
func (f *windowFunc) compute(p *windowPart, out *record.Column, weight int64) error {
	if f.agg != nil {
		return f.aggregate(p, out, weight)
	}
	n := len(p.place)
	for i := range n {
		lo, hi := p.peers(i)
		switch f.plan.Name {
		case "row_number":
			out.AppendInt(int64(i) + 1)
		case "rank":
			out.AppendInt(int64(lo) + 1)
		case "dense_rank":
			out.AppendInt(int64(p.group[i]) + 1)
		case "percent_rank":
			if n == 1 {
				out.AppendFloat(0)
			} else {
				out.AppendFloat(float64(lo) / float64(n-1))
			}
		case "cume_dist":
			out.AppendFloat(float64(hi) / float64(n))
		case "ntile":
			f.ntile(i, n, out, weight)
		default:
			f.value(p, i, out, weight)
		}
	}
	return nil
}

func (f *windowFunc) ntile(i, n int, out *record.Column, weight int64) {
	switch {
	case f.null:
		out.AppendNull()
		return
	case f.number <= 0:
		f.errs.fail(errNtile, max(weight, 0))
		out.AppendNull()
		return
	}
	size, larger := int64(n)/f.number, int64(n)%f.number // the first `larger` buckets have one more
	if at := int64(i); at < larger*(size+1) {
		out.AppendInt(at/(size+1) + 1)
	} else {
		out.AppendInt(larger + (at-larger*(size+1))/size + 1)
	}
}

// value is lag, lead, first_value, last_value and nth_value.
func (f *windowFunc) value(p *windowPart, i int, out *record.Column, weight int64) {
	n := int64(len(p.place))
	at := int64(-1)
	switch f.plan.Name {
	case "lag", "lead":
		if f.null {
			break
		}
		if at = int64(i) + f.number; f.plan.Name == "lag" {
			at = int64(i) - f.number
		}
		far := f.number > n || f.number < -n
		if (far || at < 0 || at >= n) && len(f.plan.Args) > 1 {
			out.AppendFrom(&p.data.Cols[f.plan.Args[1]], int(p.place[i]))
			return
		}
		if far {
			at = -1
		}
	default:
		lo, hi := f.frame(p, i)
		switch {
		case f.plan.Name == "nth_value" && f.null:
		case f.plan.Name == "nth_value" && f.number <= 0:
			f.errs.fail(errNthValue, max(weight, 0))
		case lo >= hi:
		case f.plan.Name == "first_value":
			at = int64(lo)
		case f.plan.Name == "last_value":
			at = int64(hi) - 1
		case f.number <= int64(hi-lo):
			at = int64(lo) + f.number - 1
		}
	}
	if at < 0 || at >= n {
		out.AppendNull()
		return
	}
	out.AppendFrom(&p.data.Cols[f.plan.Args[0]], int(p.place[at]))
}

// frame returns the places of the frame of place i: from lo on, before hi. Neither falls as i rises.
func (f *windowFunc) frame(p *windowPart, i int) (lo, hi int) {
	n := len(p.place)
	start, end := f.plan.Frame.Start, f.plan.Frame.End
	lo, hi = 0, n
	switch f.plan.Frame.Mode {
	case "rows":
		if !start.Unbounded {
			lo = clampPlace(i, start.Offset, 0, n)
		}
		if !end.Unbounded {
			hi = clampPlace(i, end.Offset, 1, n)
		}
	case "groups":
		g, groups := int(p.group[i]), len(p.starts)-1
		if !start.Unbounded {
			lo = int(p.starts[clampPlace(g, start.Offset, 0, groups)])
		}
		if !end.Unbounded {
			hi = int(p.starts[clampPlace(g, end.Offset, 1, groups)])
		}
	default:
		if !start.Unbounded {
			lo = f.rangeBound(p, i, start, false)
		}
		if !end.Unbounded {
			hi = f.rangeBound(p, i, end, true)
		}
	}
	return lo, hi
}

// clampPlace returns i plus offset plus more, within [0, n].
func clampPlace(i int, offset int64, more, n int) int {
	offset = max(min(offset, int64(n)+1), -int64(n)-1)
	return max(min(i+int(offset)+more, n), 0)
}

// rangeBound returns the first place at the distance of a bound, or after it.
func (f *windowFunc) rangeBound(p *windowPart, i int, bound plan.FrameBound, after bool) int {
	lo, hi := p.peers(i)
	if bound.Offset == 0 && bound.Interval == (record.Interval{}) {
		if after {
			return hi
		}
		return lo
	}
	k := f.order[0]
	c := &p.data.Cols[k.Col]
	row := int(p.place[i])
	if c.Null(row) { // NULLs are at a distance from all others
		if after {
			return hi
		}
		return lo
	}
	// The rows that aren't NULL, which stand together.
	from, to := 0, len(p.place)
	if k.NullsFirst {
		from, _ = slices.BinarySearchFunc(p.place, false, func(r int32, _ bool) int { return nullOrder(c.Null(int(r)), -1, 1) })
	} else {
		to, _ = slices.BinarySearchFunc(p.place, false, func(r int32, _ bool) int { return nullOrder(c.Null(int(r)), 1, -1) })
	}
	beyond := beyondBound(c, row, bound, k.Desc)
	at, _ := slices.BinarySearchFunc(p.place[from:to], 0, func(r int32, _ int) int {
		d := beyond(int(r))
		if d > 0 || d == 0 && !after {
			return 1
		}
		return -1
	})
	return from + at
}

func nullOrder(null bool, ifNull, ifNot int) int {
	if null {
		return ifNull
	}
	return ifNot
}

// beyondBound returns a function that compares a row's value with the one at the bound's distance from row's, in the order.
func beyondBound(c *record.Column, row int, bound plan.FrameBound, desc bool) func(r int) int {
	sign := int64(1)
	if desc {
		sign = -1
	}
	turn := func(d int) int { return d * int(sign) }
	if c.Type == record.Double {
		limit := c.Floats[row] + float64(sign)*float64(bound.Offset)
		return func(r int) int { return turn(record.CompareDouble(c.Floats[r], limit)) }
	}
	limit := c.Ints[row]
	if c.Type == record.TimestampTZ {
		at, err := addInterval(limit, bound.Interval, sign)
		if err != nil { // out of the range of times: beyond all
			at = math.MaxInt64
			if far := bound.Interval.Micros + int64(bound.Interval.Days) + int64(bound.Interval.Months); far*sign < 0 {
				at = math.MinInt64
			}
		}
		limit = at
	} else {
		step := sign * bound.Offset
		switch sum := limit + step; {
		case step > 0 && sum < limit:
			limit = math.MaxInt64
		case step < 0 && sum > limit:
			limit = math.MinInt64
		default:
			limit = sum
		}
	}
	return func(r int) int {
		switch v := c.Ints[r]; {
		case v < limit:
			return turn(-1)
		case v > limit:
			return turn(1)
		}
		return 0
	}
}

// aggregate computes an aggregate over the frames, which slide: two stacks, as in sweep.
func (f *windowFunc) aggregate(p *windowPart, out *record.Column, weight int64) error {
	a, n := f.agg, len(p.place)
	sum, total, top := n, n+1, n+2
	a.clearSlot(total, top)
	if err := f.load(p); err != nil {
		return err
	}
	a.clearSlot(sum, top)
	front, next := 0, 0 // slots [front, turned) have the sums from themselves up to turned, sum has [turned, next)
	turned := 0
	for i := range n {
		lo, hi := f.frame(p, i)
		for ; next < hi; next++ {
			a.addSlot(sum, next)
		}
		if lo = min(lo, next); lo > turned {
			for s := next - 2; s >= lo; s-- {
				a.addSlot(s, s+1)
			}
			turned = next
			a.clearSlot(sum, top)
		}
		front = max(front, lo)
		a.clearSlot(total, top)
		if lo < hi {
			if front < turned {
				a.addSlot(total, front)
			}
			a.addSlot(total, sum)
		}
		a.buf.Reset()
		a.buf.Weights = a.buf.Weights[:0]
		if err := a.appendResults(total, weight); err != nil {
			return err
		}
		out.AppendFrom(&a.buf.Cols[0], 0)
	}
	a.rows = shrink(a.rows, len(a.rows))
	for _, acc := range a.accs {
		acc.reset()
	}
	return nil
}

// load gives each place a slot with its row.
func (f *windowFunc) load(p *windowPart) error {
	a := f.agg
	var part record.Delta
	for lo := 0; lo < len(p.place); lo += chunkRows {
		rows := p.place[lo:min(lo+chunkRows, len(p.place))]
		need := make([]bool, len(p.data.Cols))
		eachAggColumn(&a.aggs[0], func(c int) {
			if c >= 0 {
				need[c] = true
			}
		})
		gatherDelta(&part, p.data, rows, need)
		f.slots = resize(f.slots, len(rows))
		for i := range f.slots {
			f.slots[i] = int32(lo + i)
			a.rows[lo+i] = 1
		}
		in := &part
		if filter := a.aggs[0].Filter; filter > 0 {
			maskWeights(&f.input, in, filter-1)
			in = &f.input
		}
		for _, acc := range a.accs {
			if err := acc.update(f.slots, in); err != nil {
				return err
			}
		}
	}
	for _, m := range a.sets {
		if err := m.settle(); err != nil {
			return err
		}
	}
	return nil
}
