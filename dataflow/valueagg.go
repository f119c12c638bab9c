package dataflow

import (
	"fmt"
	"math"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// valueAgg is an aggregate over the values of a multiset, which it may share with others.
type valueAgg struct {
	agg    plan.Agg
	set    *multiset
	filter int         // of the set
	first  bool        // it brings the set's partials
	inner  accumulator // of the function over distinct values; nil if the set itself gives the result
	come   record.Delta
	slots  []int32
}

// setIdentity tells aggregates that can share a set from others.
func setIdentity(a *plan.Agg, s *multiset) string {
	return fmt.Sprint(a.Arg, a.ArgType, a.More, a.MoreTypes, s.cols, s.order, s.skipNulls, s.distinct, s.counted)
}

// newMultiset returns the set that a needs.
func newMultiset(a *plan.Agg, appendOnly, whole bool) *multiset {
	m := &multiset{args: 1 + len(a.More), distinct: a.Distinct, appendOnly: appendOnly, whole: whole, skipNulls: true}
	if a.Func == plan.AggApproxCountDistinct {
		m.distinct = true
	}
	switch a.Func {
	case plan.AggFirst, plan.AggLast, plan.AggJSONBAgg, plan.AggArrayAgg, plan.AggJSONBObjectAgg:
		m.skipNulls = false
	}
	m.counted = m.distinct && !isList(a.Func)
	order := slices.Clone(a.Order)
	types := a.OrderTypes
	switch {
	case m.counted:
		order, types = nil, nil
	case a.Func == plan.AggMax:
		order, types = []plan.SortKey{{Col: a.Arg, Desc: true}}, []record.Type{a.ArgType}
	case !isOrdered(a.Func):
		order, types = nil, nil
	case a.Func == plan.AggLast:
		for i := range order {
			order[i].Desc, order[i].NullsFirst = !order[i].Desc, !order[i].NullsFirst
		}
	}
	for i, k := range order {
		m.order = append(m.order, k)
		m.cols = append(m.cols, k.Col)
		m.schema = append(m.schema, record.Field{Type: types[i]})
	}
	m.cols = append(append(m.cols, a.Arg), a.More...)
	m.schema = append(m.schema, record.Field{Type: a.ArgType})
	for _, t := range a.MoreTypes {
		m.schema = append(m.schema, record.Field{Type: t})
	}
	m.ints = m.counted && m.args == 1 && (a.ArgType == record.BigInt || a.ArgType == record.TimestampTZ)
	m.bits = m.ints && appendOnly && !whole
	return m
}

// isList tells whether f's result is made of single values rather than of a count or sum of distinct ones.
func isList(f plan.AggFunc) bool {
	switch f {
	case plan.AggPercentileCont, plan.AggPercentileDisc, plan.AggMode, plan.AggMin, plan.AggMax:
		return true
	}
	return isOrdered(f)
}

// isOrdered tells whether an aggregate's own ORDER BY counts.
func isOrdered(f plan.AggFunc) bool {
	switch f {
	case plan.AggFirst, plan.AggLast, plan.AggStringAgg, plan.AggJSONBAgg, plan.AggArrayAgg, plan.AggJSONBObjectAgg:
		return true
	}
	return false
}

// newValueAgg returns the aggregate a over set.
func newValueAgg(a *plan.Agg, set *multiset, first bool) (*valueAgg, error) {
	v := &valueAgg{agg: *a, set: set, filter: set.filter(a.Filter - 1), first: first}
	switch a.Func {
	case plan.AggPercentileCont, plan.AggPercentileDisc:
		if len(a.Const) != 1 || a.Const[0].Type != record.Double {
			return nil, defect("%s lacks its fraction", a.Func)
		}
	case plan.AggStringAgg:
		if len(a.Const) > 1 || len(a.Const) == 1 && a.Const[0].Type != a.ArgType {
			return nil, defect("string_agg of %s has another separator", a.ArgType)
		}
	}
	if isList(a.Func) || a.Func == plan.AggCount || a.Func == plan.AggApproxCountDistinct {
		return v, nil
	}
	in := *a
	in.Arg, in.Filter, in.Distinct, in.More = 0, 0, false, nil
	for i := range a.More {
		in.More = append(in.More, i+1)
	}
	inner, err := newAccumulator(&in, set.appendOnly, false, nil)
	if err != nil {
		return nil, err
	}
	v.inner = inner
	v.come.Cols = append(v.come.Cols, record.NewColumn(a.ArgType, 0))
	for _, t := range a.MoreTypes {
		v.come.Cols = append(v.come.Cols, record.NewColumn(t, 0))
	}
	set.consumers = append(set.consumers, v)
	return v, nil
}

func (v *valueAgg) update([]int32, *record.Delta) error     { return nil }
func (v *valueAgg) merge([]int32, *record.Delta, int) error { return nil }

// partial has the set's partials in the columns of the first of those that share it.
func (v *valueAgg) partial(s, round int, out []record.Column) bool {
	if v.first {
		return v.set.partial(s, round, out)
	}
	out[0].AppendNull()
	return false
}

// kept tells whether something of the aggregate's own is kept besides the set.
func (v *valueAgg) kept() bool { return v.inner != nil && !v.set.whole }

func (v *valueAgg) grow(n int) {
	if v.kept() {
		v.inner.grow(n)
	}
}

func (v *valueAgg) load(s int, src []byte) ([]byte, bool) {
	if v.kept() {
		return v.inner.load(s, src)
	}
	return src, true
}

func (v *valueAgg) store(dst []byte, s int) []byte {
	if v.kept() {
		return v.inner.store(dst, s)
	}
	return dst
}

func (v *valueAgg) add(dst, src int) {
	if v.kept() {
		v.inner.add(dst, src)
	}
}

func (v *valueAgg) clear(s int) {
	if v.kept() {
		v.inner.clear(s)
	}
}

func (v *valueAgg) empty(s int) bool { return !v.kept() || v.inner.empty(s) }

func (v *valueAgg) reset() {
	if v.inner != nil {
		v.inner.reset()
	}
	v.come.Reset()
}

// begin makes ready for a group's values that come and go.
func (v *valueAgg) begin() {
	v.come.Reset()
	v.come.Weights = v.come.Weights[:0]
	v.slots = v.slots[:0]
}

// flip takes a value that has come or gone.
func (v *valueAgg) flip(key []byte, came bool) error {
	if err := v.set.decode(key); err != nil {
		return err
	}
	for c := range v.come.Cols {
		v.come.Cols[c].AppendFrom(&v.set.one.Cols[c], 0)
	}
	w := int64(-1)
	if came {
		w = 1
	}
	v.come.Weights = append(v.come.Weights, w)
	v.come.N++
	return nil
}

// end adds what came and went to slot s.
func (v *valueAgg) end(s int) error {
	v.slots = resize(v.slots, v.come.N)
	fill(v.slots, int32(s))
	return v.inner.update(v.slots, &v.come)
}

func (v *valueAgg) result(f plan.AggFunc, s int, out *record.Column) error {
	total := v.set.totalsOf(s)[v.filter]
	switch {
	case v.inner != nil:
		return v.resultOfInner(f, s, out)
	case f == plan.AggCount || f == plan.AggApproxCountDistinct:
		out.AppendInt(total)
		return nil
	case total <= 0:
		out.AppendNull()
		return nil
	}
	switch f {
	case plan.AggPercentileCont, plan.AggPercentileDisc:
		return v.percentile(f, s, total, out)
	case plan.AggMode:
		return v.mode(s, out)
	case plan.AggStringAgg:
		return v.join(s, out)
	case plan.AggJSONBAgg:
		return v.json(s, out)
	case plan.AggJSONBObjectAgg:
		return v.object(s, out)
	case plan.AggArrayAgg:
		return v.array(s, out)
	}
	return v.at(s, 0, out) // min, max, first, last
}

func (v *valueAgg) resultOfInner(f plan.AggFunc, s int, out *record.Column) error {
	if !v.set.whole {
		return v.inner.result(f, s, out)
	}
	v.inner.grow(1)
	v.inner.clear(0)
	v.begin()
	if err := v.set.each(s, v.filter, func(key []byte, _ int64) (bool, error) { return true, v.flip(key, true) }); err != nil {
		return err
	}
	if err := v.end(0); err != nil {
		return err
	}
	return v.inner.result(f, 0, out)
}

// at appends the value at a place, counted from 0, in order.
func (v *valueAgg) at(s int, place int64, out *record.Column) error {
	found := false
	err := v.set.each(s, v.filter, func(key []byte, n int64) (bool, error) {
		if place -= n; place >= 0 {
			return true, nil
		}
		found = true
		return false, v.set.decode(key)
	})
	switch {
	case err != nil:
		return err
	case !found:
		return corrupted("a group has fewer values than it counts")
	}
	out.AppendFrom(&v.set.one.Cols[0], 0)
	return nil
}

// percentile is PostgreSQL's percentile_cont and percentile_disc.
func (v *valueAgg) percentile(f plan.AggFunc, s int, n int64, out *record.Column) error {
	p := v.agg.Const[0]
	switch {
	case p.Null:
		out.AppendNull()
		return nil
	case !(p.Float >= 0 && p.Float <= 1):
		return errFraction
	case f == plan.AggPercentileDisc:
		return v.at(s, max(int64(math.Ceil(p.Float*float64(n))), 1)-1, out)
	}
	at := p.Float * float64(n-1)
	lo, hi := int64(math.Floor(at)), int64(math.Ceil(at))
	two := record.NewColumn(v.agg.ArgType, 2)
	seen := int64(0)
	err := v.set.each(s, v.filter, func(key []byte, n int64) (bool, error) {
		seen += n
		if seen <= lo {
			return true, nil
		}
		if err := v.set.decode(key); err != nil {
			return false, err
		}
		two.AppendFrom(&v.set.one.Cols[0], 0)
		if two.N == 1 && seen > hi {
			two.AppendFrom(&v.set.one.Cols[0], 0)
		}
		return two.N < 2, nil
	})
	switch {
	case err != nil:
		return err
	case two.N < 2:
		return corrupted("a group has fewer values than it counts")
	case lo == hi:
		out.AppendFrom(&two, 0)
		return nil
	}
	return between(&two, at-float64(lo), out)
}

// between appends what lies between two values.
func between(two *record.Column, share float64, out *record.Column) error {
	if two.Type == record.Double {
		a, b := two.Floats[0], two.Floats[1]
		step := share * (b - a)
		out.AppendFloat(a + float64(step)) // rounded twice on every processor
		return nil
	}
	a, b := two.Intervals[0], two.Intervals[1]
	diff, err := addIntervals(b, a, -1)
	if err == nil {
		diff, err = mulInterval(diff, share)
	}
	if err == nil {
		diff, err = addIntervals(diff, a, 1)
	}
	if err != nil {
		return err
	}
	out.AppendInterval(diff)
	return nil
}

// mode appends the value that is there most often, the first of several.
func (v *valueAgg) mode(s int, out *record.Column) error {
	most := int64(0)
	var best []byte
	err := v.set.each(s, v.filter, func(key []byte, n int64) (bool, error) {
		if n > most {
			most, best = n, append(best[:0], key...)
		}
		return true, nil
	})
	if err == nil {
		err = v.set.decode(best)
	}
	if err != nil {
		return err
	}
	out.AppendFrom(&v.set.one.Cols[0], 0)
	return nil
}

// join is string_agg.
func (v *valueAgg) join(s int, out *record.Column) error {
	var sep []byte
	if len(v.agg.Const) > 0 && !v.agg.Const[0].Null {
		sep = v.agg.Const[0].Bytes
	}
	return appendVarlen(out, func(dst []byte) ([]byte, error) {
		start := len(dst)
		begun := false
		err := v.set.each(s, v.filter, func(key []byte, n int64) (bool, error) {
			if err := v.set.decode(key); err != nil {
				return false, err
			}
			for range n {
				if begun {
					dst = append(dst, sep...)
				}
				begun = true
				if dst = append(dst, v.set.one.Cols[0].At(0)...); len(dst)-start > maxTextBytes {
					return false, errTextLength
				}
			}
			return true, nil
		})
		return dst, err
	})
}

// json is jsonb_agg.
func (v *valueAgg) json(s int, out *record.Column) error {
	text := []byte{'['}
	err := v.set.each(s, v.filter, func(key []byte, n int64) (bool, error) {
		if err := v.set.decode(key); err != nil {
			return false, err
		}
		for range n {
			if len(text) > 1 {
				text = append(text, ", "...)
			}
			if text = record.AppendJSON(text, &v.set.one.Cols[0], 0); len(text) > maxTextBytes {
				return false, errTextLength
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	value, err := record.ParseText(record.JSONB, string(append(text, ']')))
	if err != nil {
		return err
	}
	out.AppendValue(value)
	return nil
}
