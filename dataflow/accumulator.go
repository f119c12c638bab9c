package dataflow

import (
	"encoding/binary"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// accumulator is what one or more aggregates keep of their argument, one entry a slot. During a tick it takes the
// tick's rows (or partials); at its end, the stored entry of a group is loaded next to the tick's own and added to it.
// All of them are exact and can take rows back; see the implementations for what they store.
type accumulator interface {
	// grow makes room for slots below n; new ones are empty.
	grow(n int)
	// update adds the rows of in, row i to slots[i].
	update(slots []int32, in *record.Delta) error
	// merge adds partials; at is the first column of the aggregate's.
	merge(slots []int32, in *record.Delta, at int) error
	// partial appends the partial columns of slot s. A partial that takes several rows is asked for each round, 0
	// first, and says whether there are more; after its last one it appends an empty partial.
	partial(s, round int, out []record.Column) (more bool)
	// load sets slot s to a stored entry and returns what follows it.
	load(s int, src []byte) (rest []byte, ok bool)
	// store appends slot s's entry.
	store(dst []byte, s int) []byte
	// add adds slot src to slot dst.
	add(dst, src int)
	// clear empties slot s.
	clear(s int)
	// empty tells whether slot s says no more than a new one.
	empty(s int) bool
	// result appends f of slot s. An error says why it can't be had; then nothing was appended.
	result(f plan.AggFunc, s int, out *record.Column) error
	// reset forgets all slots.
	reset()
}

// newAccumulator returns the accumulator of an aggregate that keeps no values. Indexed is for min and max when rows may
// be taken back; rows is where the rows of each group are counted.
func newAccumulator(a *plan.Agg, appendOnly, indexed bool, rows *[]int64) (accumulator, error) {
	switch a.Func {
	case plan.AggCountStar:
		if a.Filter != 0 {
			return &valueCount{arg: -1}, nil
		}
		return &rowCount{rows}, nil
	case plan.AggCount:
		return &valueCount{arg: a.Arg}, nil
	case plan.AggMin, plan.AggMax:
		e := newExtremes(a.ArgType, a.Arg, a.Func == plan.AggMax)
		if indexed {
			return newIndexedExtremes(e), nil
		}
		return e, nil
	case plan.AggSum, plan.AggAvg:
		return newSum(a, appendOnly), nil
	case plan.AggBoolAnd, plan.AggBoolOr:
		return &boolCount{arg: a.Arg}, nil
	case plan.AggBitAnd, plan.AggBitOr, plan.AggBitXor:
		return &bitCount{arg: a.Arg}, nil
	case plan.AggStddevPop, plan.AggStddevSamp, plan.AggVarPop, plan.AggVarSamp:
		if a.ArgType == record.Double {
			return newMoments(a), nil
		}
		return newVariance(a, appendOnly), nil
	case plan.AggApproxCountDistinct:
		return &distinctSketch{arg: a.Arg}, nil
	case plan.AggApproxPercentile:
		if len(a.Const) != 1 || a.Const[0].Type != record.Double {
			return nil, defect("%s lacks its fraction", a.Func)
		}
		return &quantileSketch{arg: a.Arg, fraction: a.Const[0]}, nil
	}
	if a.Func.Pair() {
		return newMoments(a), nil
	}
	return nil, fault.New(fault.Unsupported, "dataflow: no aggregate %s of %s", a.Func, a.ArgType)
}

func newSum(a *plan.Agg, appendOnly bool) accumulator {
	switch a.ArgType {
	case record.BigInt:
		return &intSum{arg: a.Arg}
	case record.Double:
		return &floatSum{arg: a.Arg}
	case record.IntervalT:
		return &intervalSum{arg: a.Arg}
	}
	return &numericSum{arg: a.Arg, appendOnly: appendOnly}
}

// rowCount is count(*): the rows of the group, which are counted anyway.
type rowCount struct{ rows *[]int64 }

func (c *rowCount) grow(int)                                {}
func (c *rowCount) update([]int32, *record.Delta) error     { return nil }
func (c *rowCount) merge([]int32, *record.Delta, int) error { return nil }
func (c *rowCount) load(_ int, src []byte) ([]byte, bool)   { return src, true }
func (c *rowCount) store(dst []byte, _ int) []byte          { return dst }
func (c *rowCount) add(int, int)                            {}
func (c *rowCount) clear(int)                               {}
func (c *rowCount) empty(int) bool                          { return true }
func (c *rowCount) reset()                                  {}
func (c *rowCount) result(_ plan.AggFunc, s int, out *record.Column) error {
	out.AppendInt((*c.rows)[s])
	return nil
}

func (c *rowCount) partial(s, round int, out []record.Column) bool {
	if round > 0 {
		out[0].AppendInt(0)
		return false
	}
	out[0].AppendInt((*c.rows)[s])
	return false
}

// addWeights adds each row's weight to its slot, leaving out rows at which c (if any) is NULL.
func addWeights(sum []int64, slots []int32, c *record.Column, weights []int64) {
	switch {
	case (c == nil || c.Validity == nil) && weights == nil:
		for _, s := range slots {
			sum[s]++
		}
	case c == nil || c.Validity == nil:
		for i, s := range slots {
			sum[s] += weights[i]
		}
	default:
		for i, s := range slots {
			if !c.Validity.Valid(i) {
				continue
			}
			if weights == nil {
				sum[s]++
			} else {
				sum[s] += weights[i]
			}
		}
	}
}

// addCounts adds the counts of partials, column c, to their slots.
func addCounts(sum []int64, slots []int32, c *record.Column, weights []int64) {
	for i, s := range slots {
		if c.Validity != nil && !c.Validity.Valid(i) {
			continue
		}
		n := c.Ints[i]
		if weights != nil {
			n *= weights[i]
		}
		sum[s] += n
	}
}

// valueCount is count(x), and count(*) of filtered rows (arg -1). It stores the count as a varint.
type valueCount struct {
	arg int
	n   []int64
}

func (c *valueCount) grow(n int)                     { c.n = extend(c.n, n) }
func (c *valueCount) add(dst, src int)               { c.n[dst] += c.n[src] }
func (c *valueCount) clear(s int)                    { c.n[s] = 0 }
func (c *valueCount) empty(s int) bool               { return c.n[s] == 0 }
func (c *valueCount) reset()                         { c.n = shrink(c.n, len(c.n)) }
func (c *valueCount) store(dst []byte, s int) []byte { return binary.AppendVarint(dst, c.n[s]) }

func (c *valueCount) update(slots []int32, in *record.Delta) error {
	if c.arg < 0 {
		addWeights(c.n, slots, nil, in.Weights)
	} else {
		addWeights(c.n, slots, &in.Cols[c.arg], in.Weights)
	}
	return nil
}

func (c *valueCount) merge(slots []int32, in *record.Delta, at int) error {
	addCounts(c.n, slots, &in.Cols[at], in.Weights)
	return nil
}

func (c *valueCount) partial(s, round int, out []record.Column) bool {
	if round > 0 {
		out[0].AppendInt(0)
	} else {
		out[0].AppendInt(c.n[s])
	}
	return false
}

func (c *valueCount) load(s int, src []byte) (rest []byte, ok bool) {
	c.n[s], rest, ok = readInt(src)
	return rest, ok
}

func (c *valueCount) result(_ plan.AggFunc, s int, out *record.Column) error {
	out.AppendInt(c.n[s])
	return nil
}
