package dataflow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// aggregate groups rows and computes aggregates of each group. During a tick every group that a row touches has a slot
// in a hash table and an entry in each accumulator; what is stored of the group is read once, at the end of the tick.
//
// State of phases single and final: (op, ordered encoding of the key) is the group: a version byte, the number of its
// rows (varint), and the entries of the accumulators. Below it lie the indexes of min and max (see indexedExtremes).
type aggregate struct {
	index    byte
	phase    plan.AggPhase
	keys     []int
	aggs     []plan.Agg
	out      *link
	errs     *faults
	state    State
	table    *groupTable
	rows     []int64
	accs     []accumulator
	of       []int // aggregate -> its accumulator
	firsts   []int // accumulator -> its first partial column in the input of phase final
	rowsCol  int   // phase final: the column with the number of rows
	filters  []int // accumulator -> one more than the column that its rows must pass, or 0
	masked   map[int]*record.Delta
	indexed  []*indexedExtremes
	sets     []*multiset
	session  bool // phase partial: the last two keys are times of sessions
	runs     keyRuns
	merged   []bool // slots that another one has taken up, or that have no session
	whole    bool   // what the accumulators keep is all in their entries
	variant  variant
	expiry   *expiry // groups are forgotten by a time that leads their keys in the state
	keyOrder []int   // of the columns in the state's keys
	buf      *record.Delta
	keyCols  *record.Delta // keys of the tick's groups
	key      []byte
	old      []byte
	entry    []byte
	keep     bool // groups are stored
	ended    bool // not keep: a tick was ended
	global   bool // the one group without keys that always exists
	started  bool // global: it was emitted
	slotsOf0 []int32
	hold     func(int64) error // see Env
	held     int64             // bytes that it was told of
}

const groupVersion = 1

// variant keeps groups that aren't single rows of the state: windows made of panes, sessions.
type variant interface {
	// endTick takes the tick's n groups, which are in the aggregate's slots below n, and appends to its buf.
	endTick(n int, marks Marks) error
	holder
}

func newAggregate(b *builder) (operator, error) {
	p := b.op.Aggregate
	a := &aggregate{
		index: b.index, phase: p.Phase, keys: p.Keys, aggs: p.Aggs, out: b.out, errs: b.errs, state: b.env.State,
		keep: b.keep, hold: b.env.Hold, buf: record.NewDelta(b.out.schema, 0),
	}
	a.whole = p.Panes != nil || p.Session != nil
	a.session = p.Session != nil && p.Phase == plan.AggPartial
	a.global = len(p.Keys) == 0 && p.Phase != plan.AggPartial && b.env.Partition == 0
	if err := a.checkPlan(b); err != nil {
		return nil, err
	}
	a.masked = make(map[int]*record.Delta)
	for i := range p.Aggs {
		if f := p.Aggs[i].Filter; f > 0 && p.Phase != plan.AggFinal {
			a.masked[f-1] = &record.Delta{}
		}
	}
	keySchema := make(record.Schema, len(p.Keys))
	for i, k := range p.Keys {
		keySchema[i] = b.in.schema[k]
	}
	var err error
	a.table = newGroupTable(keySchema, false)
	a.keyCols = record.NewDelta(keySchema, 0)
	if err := a.makeAccumulators(b); err != nil {
		return nil, err
	}
	for i := range b.out.schema {
		b.out.distinct = append(b.out.distinct, i)
	}
	if b.out.distinct == nil {
		b.out.distinct = []int{}
	}
	if a.variant, err = newVariant(a, b); err != nil || a.variant != nil {
		return a, err
	}
	if err := a.expireBy(b); err != nil {
		return nil, err
	}
	if a.global && a.keep {
		_, ok, err := a.state.Get([]byte{a.index})
		a.started = ok
		return a, err
	}
	return a, nil
}

// makeAccumulators gives each aggregate the accumulator that it reads; several may share one.
func (a *aggregate) makeAccumulators(b *builder) error {
	p := b.op.Aggregate
	made, sets := map[string]int{}, map[string]*multiset{}
	col := len(p.Keys)
	for i := range p.Aggs {
		agg := &p.Aggs[i]
		id := fmt.Sprint(kept(agg.Func), agg.Arg, agg.More, agg.Filter, agg.Const)
		if p.Phase == plan.AggFinal || agg.KeepsValues() {
			id = fmt.Sprint(col) // two aggregates over one argument can't be told from their partials
		}
		at, ok := made[id]
		if !ok {
			at = len(a.accs)
			made[id] = at
			if err := a.makeAccumulator(agg, p, sets, col); err != nil {
				return err
			}
		}
		a.of = append(a.of, at)
		col += len(agg.PartialTypes())
	}
	for _, m := range a.sets {
		m.start()
	}
	a.rowsCol = col
	return nil
}

// kept returns the same function for all that keep the same.
func kept(f plan.AggFunc) plan.AggFunc {
	switch f {
	case plan.AggAvg:
		return plan.AggSum
	case plan.AggBoolOr:
		return plan.AggBoolAnd
	case plan.AggBitOr, plan.AggBitXor:
		return plan.AggBitAnd
	case plan.AggStddevPop, plan.AggStddevSamp, plan.AggVarPop:
		return plan.AggVarSamp
	}
	if f.Pair() {
		return plan.AggCorr
	}
	return f
}

// makeAccumulator appends the accumulator of one aggregate, whose partials begin with column col, and the set that it
// is the first to read.
func (a *aggregate) makeAccumulator(agg *plan.Agg, p *plan.Aggregate, sets map[string]*multiset, col int) error {
	if !agg.KeepsValues() && (agg.Func != plan.AggApproxCountDistinct || p.AppendOnly) {
		acc, err := newAccumulator(agg, p.AppendOnly, !p.AppendOnly && p.Phase == plan.AggSingle, &a.rows)
		if err != nil {
			return err
		}
		if x, ok := acc.(*indexedExtremes); ok {
			x.number = uint16(len(a.accs))
			a.indexed = append(a.indexed, x)
		}
		a.addAccumulator(acc, col, agg.Filter)
		return nil
	}
	set := newMultiset(agg, p.AppendOnly, a.whole)
	id := setIdentity(agg, set)
	shared, ok := sets[id]
	if !ok {
		shared, sets[id] = set, set
	}
	acc, err := newValueAgg(agg, shared, !ok)
	if err != nil {
		return err
	}
	a.addAccumulator(acc, -1, 0)
	if !ok {
		shared.number = uint16(len(a.accs))
		a.sets = append(a.sets, shared)
		a.addAccumulator(shared, col, 0)
	}
	return nil
}

func (a *aggregate) addAccumulator(acc accumulator, first, filter int) {
	a.accs = append(a.accs, acc)
	a.firsts = append(a.firsts, first)
	if a.phase == plan.AggFinal {
		filter = 0 // the partials' rows have passed it
	}
	a.filters = append(a.filters, filter)
}

// expireBy puts the keys' columns in the order that they have in the state: first the one that a group is forgotten by.
func (a *aggregate) expireBy(b *builder) error {
	p := b.op.Aggregate
	for k := range p.Keys {
		a.keyOrder = append(a.keyOrder, k)
	}
	if p.Expire == nil || p.Phase == plan.AggPartial || !a.keep {
		return nil
	}
	at := p.Expire.Col
	if at < 0 || at >= len(p.Keys) || b.out.schema[at].Type != record.TimestampTZ || p.Expire.Delay < 0 {
		return defect("operator %d forgets groups by column %d, which is no time among its keys", b.index, at)
	}
	a.keyOrder = append([]int{at}, slices.Delete(a.keyOrder, at, at+1)...)
	var err error
	a.expiry, err = newExpiry(a.state, []byte{a.index}, p.Expire)
	return err
}

// newVariant returns the variant that the plan asks for, nil for none.
func newVariant(a *aggregate, b *builder) (variant, error) {
	p := b.op.Aggregate
	if p.Panes == nil && p.Session == nil {
		return nil, nil
	}
	n := len(p.Keys)
	if n < 2 || p.Phase != plan.AggFinal && !a.session || p.Panes != nil && p.Session != nil {
		return nil, defect("operator %d groups by panes or sessions in phase %s with %d keys", b.index, p.Phase, n)
	}
	for _, k := range p.Keys[n-2:] {
		if err := b.column(k, record.TimestampTZ); err != nil {
			return nil, err
		}
	}
	switch {
	case a.session:
		return nil, nil
	case p.Panes != nil:
		return newPaneGroups(a, b)
	}
	return newSessionGroups(a, b)
}

// nextDue tells of the first row of the group that always exists.
func (a *aggregate) nextDue() (int64, bool) {
	if a.variant != nil {
		return a.variant.nextDue()
	}
	return NoWatermark, a.global && !a.started
}

// checkPlan checks the columns that the aggregate reads and writes.
func (a *aggregate) checkPlan(b *builder) error {
	p := b.op.Aggregate
	for _, k := range p.Keys {
		if err := b.column(k, record.Unknown); err != nil {
			return err
		}
	}
	var out []record.Type
	for i, k := range p.Keys {
		if p.Phase == plan.AggFinal && k != i {
			return defect("operator %d (final) has key column %d at %d", b.index, i, k)
		}
		out = append(out, b.in.schema[k].Type)
	}
	in := len(p.Keys)
	for i := range p.Aggs {
		agg := &p.Aggs[i]
		partials, err := a.checkAgg(b, agg, in)
		if err != nil {
			return err
		}
		if p.Phase == plan.AggFinal {
			in += len(partials)
		}
		if p.Phase == plan.AggPartial {
			out = append(out, partials...)
		} else {
			out = append(out, agg.Type)
		}
	}
	switch p.Phase {
	case plan.AggFinal:
		if err := b.column(in, record.BigInt); err != nil {
			return err
		}
	case plan.AggPartial:
		out = append(out, record.BigInt)
	case plan.AggSingle:
	default:
		return defect("operator %d has phase %q", b.index, p.Phase)
	}
	if len(out) != len(b.out.schema) {
		return defect("operator %d writes %d columns, not %d", b.index, len(out), len(b.out.schema))
	}
	for i, t := range out {
		if b.out.schema[i].Type != t {
			return defect("operator %d writes column %d as %s, not %s", b.index, i, t, b.out.schema[i].Type)
		}
	}
	return nil
}

// checkAgg checks one aggregate, whose partials begin with column `at` in phase final, and returns their types.
func (a *aggregate) checkAgg(b *builder, agg *plan.Agg, at int) ([]record.Type, error) {
	p := b.op.Aggregate
	t, ok := agg.Func.Result(agg.ArgType)
	if !ok || t != agg.Type || len(agg.More) != len(agg.MoreTypes) || len(agg.Order) != len(agg.OrderTypes) {
		return nil, defect("operator %d has no %s(%s) that is %s", b.index, agg.Func, agg.ArgType, agg.Type)
	}
	if agg.Func.Pair() && len(agg.More) != 1 {
		return nil, defect("operator %d has a %s of %d arguments", b.index, agg.Func, 1+len(agg.More))
	}
	isExtreme := agg.Func == plan.AggMin || agg.Func == plan.AggMax
	if isExtreme && !p.AppendOnly && !agg.Retract && (p.Phase != plan.AggSingle || a.whole) {
		return nil, defect("operator %d is the %s phase of %s over rows that may be taken back; that takes Retract",
			b.index, p.Phase, agg.Func)
	}
	partials := agg.PartialTypes()
	if p.Phase == plan.AggFinal {
		for i, t := range partials {
			if err := b.column(at+i, t); err != nil {
				return nil, err
			}
		}
		return partials, nil
	}
	if agg.Filter > 0 {
		if err := b.column(agg.Filter-1, record.Boolean); err != nil {
			return nil, err
		}
	}
	if agg.Func == plan.AggCountStar {
		return partials, nil
	}
	argType := agg.ArgType
	if agg.Func == plan.AggCount && !agg.Distinct {
		argType = record.Unknown
	}
	if err := b.column(agg.Arg, argType); err != nil {
		return nil, err
	}
	for i, c := range agg.More {
		if err := b.column(c, agg.MoreTypes[i]); err != nil {
			return nil, err
		}
	}
	for i, k := range agg.Order {
		if err := b.column(k.Col, agg.OrderTypes[i]); err != nil {
			return nil, err
		}
	}
	return partials, nil
}

func (a *aggregate) push(in *record.Delta) error {
	if a.ended {
		return defect("operator %d gets rows after the one tick of an ad-hoc query", a.index)
	}
	slots, err := a.assign(in)
	if err != nil {
		return err
	}
	n := a.table.n
	a.rows = extend(a.rows, n)
	if a.phase == plan.AggFinal {
		addCounts(a.rows, slots, &in.Cols[a.rowsCol], in.Weights)
	} else {
		addWeights(a.rows, slots, nil, in.Weights)
	}
	for c, d := range a.masked {
		maskWeights(d, in, c)
	}
	for i, acc := range a.accs {
		acc.grow(n)
		switch {
		case a.phase == plan.AggFinal:
			err = acc.merge(slots, in, a.firsts[i])
		case a.filters[i] > 0:
			err = acc.update(slots, a.masked[a.filters[i]-1])
		default:
			err = acc.update(slots, in)
		}
		if err != nil {
			return err
		}
	}
	return a.account()
}

// maskWeights sets dst to the rows of in with weight 0 where column c isn't true.
func maskWeights(dst, in *record.Delta, c int) {
	dst.Cols, dst.N = in.Cols, in.N
	dst.Weights = resize(dst.Weights, in.N)
	col := &in.Cols[c]
	for i := range dst.Weights {
		dst.Weights[i] = 0
		if col.Bools[i] && !col.Null(i) {
			dst.Weights[i] = in.Weight(i)
		}
	}
}

// assign gives each row its group's slot.
func (a *aggregate) assign(in *record.Delta) ([]int32, error) {
	if len(a.keys) > 0 {
		return a.table.assign(in, a.keys)
	}
	a.table.n = 1
	a.slotsOf0 = extend(a.slotsOf0, max(in.N, len(a.slotsOf0)))
	return a.slotsOf0[:in.N], nil
}

func (a *aggregate) endTick(_ ids.Tick, marks Marks) error {
	n := a.table.n
	if a.variant != nil {
		return a.endVariant(n, marks)
	}
	err := a.endGroups(n)
	if err == nil && a.expiry != nil {
		err = a.expiry.end(marks.Horizon)
	}
	return err
}

func (a *aggregate) endGroups(n int) error {
	if n == 0 && (!a.global || a.started) {
		a.ended = !a.keep && a.phase != plan.AggPartial
		return nil
	}
	a.started = true
	if a.global && n == 0 {
		a.table.n, n = 1, 1
	}
	a.buf.Reset()
	var err error
	if a.phase == plan.AggPartial {
		if a.session {
			err = a.mergeSessions(n)
		}
		if err == nil {
			err = a.flushPartials(n)
		}
	} else {
		a.ended = !a.keep
		err = a.flushGroups(n)
	}
	if err != nil {
		return err
	}
	if err := a.out.emit(a.buf); err != nil {
		return err
	}
	a.reset()
	return nil
}

// endVariant ends a tick of groups that aren't single rows of the state.
func (a *aggregate) endVariant(n int, marks Marks) error {
	a.buf.Reset()
	for _, m := range a.sets {
		if err := m.settle(); err != nil {
			return err
		}
	}
	if err := a.variant.endTick(n, marks); err != nil {
		return err
	}
	if err := a.out.emit(a.buf); err != nil {
		return err
	}
	a.ended = !a.keep
	a.reset()
	return nil
}

// flushBuf emits what was gathered once it is much.
func (a *aggregate) flushBuf() error {
	if a.buf.N < chunkRows-1 {
		return nil
	}
	err := a.out.emit(a.buf)
	a.buf.Reset()
	return err
}

// clearSlot empties slot s, of n.
func (a *aggregate) clearSlot(s, n int) {
	a.rows = extend(a.rows, max(n, len(a.rows)))
	a.rows[s] = 0
	for _, acc := range a.accs {
		acc.grow(len(a.rows))
		acc.clear(s)
	}
}

// addSlot adds slot src to slot dst.
func (a *aggregate) addSlot(dst, src int) {
	a.rows[dst] += a.rows[src]
	for _, acc := range a.accs {
		acc.add(dst, src)
	}
}

// loadSlot sets slot s to the stored rows and accumulators that src begins with.
func (a *aggregate) loadSlot(s int, src []byte) (rest []byte, ok bool) {
	a.rows[s], rest, ok = readInt(src)
	for _, acc := range a.accs {
		if ok {
			rest, ok = acc.load(s, rest)
		}
	}
	return rest, ok
}

// storeSlot appends what loadSlot reads.
func (a *aggregate) storeSlot(dst []byte, s int) []byte {
	dst = binary.AppendVarint(dst, a.rows[s])
	for _, acc := range a.accs {
		dst = acc.store(dst, s)
	}
	return dst
}

func (a *aggregate) reset() {
	a.table.reset()
	a.rows = shrink(a.rows, len(a.rows))
	for _, acc := range a.accs {
		acc.reset()
	}
	a.buf.Reset()
	a.keyCols.Reset()
	for c := range a.buf.Cols {
		trim(&a.buf.Cols[c])
	}
	for c := range a.keyCols.Cols {
		if trim(&a.keyCols.Cols[c]); cap(a.keyCols.Cols[c].Ints) > 16*chunkRows {
			a.keyCols.Cols[c] = record.NewColumn(a.keyCols.Cols[c].Type, 0)
		}
	}
}

// nothing tells whether slot s says no more than that there was no row.
func (a *aggregate) nothing(s int) bool {
	if a.rows[s] != 0 {
		return false
	}
	for _, acc := range a.accs {
		if !acc.empty(s) {
			return false
		}
	}
	return true
}

// mergeSessions adds up, in phase partial, the tick's groups that are in one session. What a session takes up is left in
// the slot of its first group, whose end grows.
func (a *aggregate) mergeSessions(n int) error {
	for _, m := range a.sets {
		if err := m.settle(); err != nil {
			return err
		}
	}
	nk := len(a.keys) - 2
	if err := a.runs.sort(a, n, nk); err != nil {
		return err
	}
	starts, ends := a.keyCols.Cols[nk].Ints, a.keyCols.Cols[nk+1].Ints
	a.merged = resize(a.merged, n)
	fill(a.merged, true)
	return a.runs.each(a, func(_ []byte, slots []int32) error {
		first := slots[0]
		a.merged[first] = false
		for _, s := range slots[1:] {
			if starts[s] >= ends[first] {
				first = s
				a.merged[first] = false
				continue
			}
			ends[first] = max(ends[first], ends[s])
			a.addSlot(int(first), int(s))
		}
		return nil
	})
}

// flushPartials emits the tick's groups.
func (a *aggregate) flushPartials(n int) error {
	a.buf.Weights = nil
	for s := range n {
		if a.nothing(s) || a.session && a.merged[s] {
			continue
		}
		for round, more := 0, true; more; round++ {
			more = a.appendPartial(s, round)
		}
		if a.buf.N >= chunkRows {
			if err := a.out.emit(a.buf); err != nil {
				return err
			}
			a.buf.Reset()
		}
	}
	return nil
}

func (a *aggregate) appendPartial(s, round int) (more bool) {
	cols := a.buf.Cols
	switch {
	case a.session:
		for k := range a.keys {
			cols[k].AppendFrom(&a.keyCols.Cols[k], s)
		}
	case len(a.keys) > 0:
		a.table.appendKeys(cols[:len(a.keys)], s, s+1)
	}
	col := len(a.keys)
	for i := range a.aggs {
		width := len(a.aggs[i].PartialTypes())
		if a.accs[a.of[i]].partial(s, round, cols[col:col+width]) {
			more = true
		}
		col += width
	}
	rows := int64(0)
	if round == 0 {
		rows = a.rows[s]
	}
	cols[col].AppendInt(rows)
	a.buf.N++
	return more
}

// flushGroups merges the tick's groups with what is stored and emits those whose result changed.
func (a *aggregate) flushGroups(n int) error {
	a.table.appendKeys(a.keyCols.Cols, 0, n)
	a.keyCols.N = n
	// One more slot is for what is stored.
	a.rows = extend(a.rows, n+1)
	for _, acc := range a.accs {
		acc.grow(n + 1)
	}
	if a.buf.Weights == nil {
		a.buf.Weights = []int64{}
	}
	for s := range n {
		if a.nothing(s) && !a.global {
			continue
		}
		if err := a.flushGroup(s, n); err != nil {
			return err
		}
		if err := a.flushBuf(); err != nil {
			return err
		}
	}
	return nil
}

// flushGroup merges slot s with what is stored of its group, which is loaded to slot `stored`.
func (a *aggregate) flushGroup(s, stored int) error {
	a.key = append(a.key[:0], a.index)
	for _, k := range a.keyOrder {
		a.key = record.AppendOrdered(a.key, &a.keyCols.Cols[k], s)
	}
	if a.expiry != nil && !a.keyCols.Cols[a.keyOrder[0]].Null(s) {
		a.expiry.first.note(a.keyCols.Cols[a.keyOrder[0]].Ints[s])
	}
	had, err := a.load(stored)
	if err != nil {
		return err
	}
	before := a.buf.N
	for _, m := range a.sets {
		m.bind(a.state, a.key)
	}
	if had && (a.rows[stored] > 0 || a.global) {
		if err := a.appendResult(s, stored, -1); err != nil {
			return err
		}
	}
	if had {
		a.rows[s] += a.rows[stored]
		for _, acc := range a.accs {
			acc.add(s, stored)
		}
	}
	for _, x := range a.indexed {
		if err := x.apply(a.state, a.key, s, stored, stored); err != nil {
			return err
		}
	}
	for _, m := range a.sets {
		if err := m.apply(s, stored); err != nil {
			return err
		}
	}
	if a.rows[s] > 0 || a.global {
		if err := a.appendResult(s, s, 1); err != nil {
			return err
		}
	}
	if a.buf.N == before+2 && a.unchanged(before) {
		a.dropRows(before)
	}
	if !a.keep {
		return nil
	}
	return a.store(s, had)
}

// load reads the entry of the group whose key is in a.key.
func (a *aggregate) load(stored int) (bool, error) {
	if a.keep {
		v, ok, err := a.state.Get(a.key)
		if err != nil {
			return false, err
		}
		if ok {
			a.old = append(a.old[:0], v...)
			return true, a.decode(a.old, stored)
		}
	}
	// The slot may hold the group before this one.
	a.rows[stored] = 0
	for _, acc := range a.accs {
		acc.clear(stored)
	}
	return false, nil
}

func (a *aggregate) decode(v []byte, stored int) error {
	if len(v) == 0 || v[0] != groupVersion {
		return corrupted("a group of operator %d has an entry of another version", a.index)
	}
	if rest, ok := a.loadSlot(stored, v[1:]); !ok || len(rest) > 0 {
		return corrupted("a group of operator %d has an entry that doesn't decode", a.index)
	}
	return nil
}

// store writes or deletes the entry of the group whose key is in a.key.
func (a *aggregate) store(s int, had bool) error {
	if !a.global && a.nothing(s) {
		if had {
			return a.state.Delete(a.key)
		}
		return nil
	}
	a.entry = a.storeSlot(append(a.entry[:0], groupVersion), s)
	if had && bytes.Equal(a.entry, a.old) {
		return nil
	}
	return a.state.Set(a.key, a.entry)
}

// appendResult appends a row with the key of slot s and the results of slot `from`.
func (a *aggregate) appendResult(s, from int, weight int64) error {
	cols := a.buf.Cols
	for k := range a.keys {
		cols[k].AppendFrom(&a.keyCols.Cols[k], s)
	}
	return a.appendResults(from, weight)
}

// appendResults ends a row, of which the keys are there, with the results of slot `from`.
func (a *aggregate) appendResults(from int, weight int64) error {
	cols := a.buf.Cols
	for i := range a.aggs {
		c := &cols[len(a.keys)+i]
		if err := a.accs[a.of[i]].result(a.aggs[i].Func, from, c); err != nil {
			if !errors.Is(err, fault.Of(fault.Invalid)) && !errors.Is(err, fault.Of(fault.TooLarge)) {
				return err // of the state
			}
			c.AppendNull()
			a.errs.fail(err, max(weight, 0))
		}
	}
	a.buf.Weights = append(a.buf.Weights, weight)
	a.buf.N++
	return nil
}

// unchanged tells whether the results of rows `row` and row+1 are the same.
func (a *aggregate) unchanged(row int) bool {
	for c := len(a.keys); c < len(a.buf.Cols); c++ {
		if !sameValue(&a.buf.Cols[c], row, row+1) {
			return false
		}
	}
	return true
}

func (a *aggregate) dropRows(n int) {
	for c := range a.buf.Cols {
		truncate(&a.buf.Cols[c], n)
	}
	a.buf.N, a.buf.Weights = n, a.buf.Weights[:n]
}
