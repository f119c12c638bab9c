package dataflow

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// topN keeps the rows of each group whose place in an order is above offset and up to end, and emits what changed of them.
//
// State: (op, 1) and the ordered encoding of the key are a group's head: its first rows in order, all visible ones among them.
// Rows after those are kept only if others may be taken back: (op, 2), the key and the row's bytes, with the row's weight and
// where its tie begins (varints). (op, 3) is lists of groups to forget.
type topN struct {
	index       byte
	keep        bool
	state       State
	fn          plan.RankFunc
	keys        []int
	offset, end int64
	place       bool
	appendOnly  bool
	one         bool // only the first row of a group counts, and none is taken back
	expire      *plan.Expire
	passed      int64
	codec       rankCodec
	ofKey       [][2]int // columns that a row isn't decoded for, and which one of the key they are
	limit       int      // see maxBeyond

	table   *groupTable
	keyCols *record.Delta
	delta   *gathered
	slots   slotOrder
	emitter *emitter
	due     dueList

	arena   []byte
	old     []rankedRow
	added   []rankedRow
	merged  []rankedRow
	scratch record.Column
	key     []byte
	entry   []byte
	more    []byte
}

// maxBeyond is the bytes of rows that a head keeps behind the last visible one, so that it rarely has to be filled up when
// visible rows are taken back. Beyond twice of it they move to entries of their own.
const maxBeyond = 2 << 10

func newTopN(b *builder) (operator, error) {
	p := b.op.TopN
	more := 0
	if p.Place {
		more = 1
	}
	if err := b.sameSchema(more); err != nil {
		return nil, err
	}
	if p.Place && b.out.schema[len(b.in.schema)].Type != record.BigInt {
		return nil, defect("operator %d has a place that isn't a bigint", b.index)
	}
	switch p.Func {
	case plan.RankRowNumber, plan.RankRank, plan.RankDense:
	default:
		return nil, defect("operator %d ranks by %q", b.index, p.Func)
	}
	var schema record.Schema
	for _, k := range p.Keys {
		if err := b.column(k, record.Unknown); err != nil {
			return nil, err
		}
		schema = append(schema, b.in.schema[k])
	}
	for _, k := range p.Order {
		if err := b.column(k.Col, record.Unknown); err != nil {
			return nil, err
		}
	}
	if p.Expire != nil {
		if err := b.column(p.Expire.Col, record.TimestampTZ); err != nil {
			return nil, err
		}
	}
	t := &topN{
		index: b.index, keep: b.keep, state: b.env.State, fn: p.Func, keys: p.Keys, offset: max(0, p.Offset), end: math.MaxInt64,
		place: p.Place, appendOnly: p.AppendOnly, expire: p.Expire, passed: bucketsPassed(NoWatermark), limit: maxBeyond,
		table: newGroupTable(schema, false), keyCols: record.NewDelta(schema, 0), delta: newGathered(b.in.schema, allNeeded(b.in.schema)),
		emitter: newEmitter(b.out), due: dueList{index: b.index, space: 3, state: b.env.State},
	}
	if p.Limit >= 0 && p.Limit < math.MaxInt64-t.offset {
		t.end = t.offset + p.Limit
	}
	t.one = t.appendOnly && t.fn == plan.RankRowNumber && t.end == 1
	t.codec.order = p.Order
	for c := range b.in.schema {
		if k := slices.Index(p.Keys, c); k >= 0 && !b.in.schema[c].Type.HasForms() {
			t.ofKey = append(t.ofKey, [2]int{c, k})
		} else {
			t.codec.cols = append(t.codec.cols, c)
		}
	}
	b.out.distinct = columnsOf(len(b.out.schema))
	if b.out.distinct == nil {
		b.out.distinct = []int{}
	}
	return t, nil
}

func (t *topN) push(in *record.Delta) error {
	if t.end <= t.offset {
		return nil
	}
	return t.delta.add(in)
}

func (t *topN) endTick(tick ids.Tick, marks Marks) error {
	passed := bucketsPassed(marks.Horizon)
	moved := passed > t.passed
	t.passed = max(t.passed, passed)
	if t.delta.rows.N > 0 {
		if err := t.rank(); err != nil {
			return err
		}
	}
	if moved && t.keep && t.expire != nil {
		if err := t.due.expire(t.passed, t.forget); err != nil {
			return err
		}
	}
	return t.due.write(tick)
}

// rank handles the rows of the tick.
func (t *topN) rank() error {
	if err := t.slots.assign(t.table, &t.delta.rows, t.keys); err != nil {
		return err
	}
	n := t.table.n
	t.keyCols.Reset()
	t.table.appendKeys(t.keyCols.Cols, 0, n)
	t.slots.sort(n)
	for slot := range n {
		if rows := t.slots.rows(slot); len(rows) > 0 {
			if err := t.group(slot, rows); err != nil {
				return err
			}
		}
	}
	t.table.reset()
	t.delta.reset()
	t.slots.reset()
	for c := range t.keyCols.Cols {
		t.keyCols.Cols[c].Reset()
		trim(&t.keyCols.Cols[c])
	}
	if cap(t.arena) > 4*maxArena {
		t.arena = nil
	}
	return t.emitter.finish()
}

// group brings a group up to date with its rows of the tick.
func (t *topN) group(slot int, rows []int32) error {
	t.arena, t.old, t.added = t.arena[:0], t.old[:0], t.added[:0]
	head := rankHead{due: never}
	if t.keep {
		t.key = append(t.key[:0], t.index, 1)
		for c := range t.keyCols.Cols {
			t.key = record.AppendOrdered(t.key, &t.keyCols.Cols[c], slot)
		}
		var err error
		if head, err = t.load(); err != nil {
			return err
		}
	}
	if t.one {
		t.addFirst(rows)
	} else {
		t.add(rows)
	}
	if len(t.added) == 0 {
		return nil
	}
	t.added = sortRanked(t.added, t.arena)
	had := head.more
	rest, err := t.split(&head)
	if err != nil {
		return err
	}
	t.merged = mergeRanked(t.merged[:0], t.old, t.added[:rest], t.arena)
	if err := t.refill(&head); err != nil {
		return err
	}
	if rest == 0 && had == head.more && len(t.merged) == len(t.old) && t.expire == nil {
		return nil // nothing of the head changed
	}
	if err := t.emit(slot); err != nil || !t.keep {
		return err
	}
	return t.store(&head, rows)
}

// load reads the head of the group at t.key.
func (t *topN) load() (rankHead, error) {
	v, ok, err := t.state.Get(t.key)
	if err != nil || !ok {
		return rankHead{due: never}, err
	}
	t.arena = append(t.arena, v...)
	h, at, err := decodeRankHead(t.arena, 0, t.expire != nil)
	if err != nil {
		return h, err
	}
	t.old, err = decodeRanked(t.old, t.arena, at)
	return h, err
}

// add encodes rows of the tick. Where none is taken back, those behind the last place are left out.
func (t *topN) add(rows []int32) {
	var last []byte // the order of the last visible row, if all places are taken
	if t.appendOnly && len(t.old) > 0 {
		if _, full, _ := within(t.fn, t.end, t.old, t.arena); full {
			r := t.old[len(t.old)-1]
			last = bytes.Clone(t.arena[r.at:r.tie])
		}
	}
	in := &t.delta.rows
	for _, i := range rows {
		r := rankedRow{weight: in.Weights[i], at: int32(len(t.arena))}
		t.arena = t.codec.appendOrder(t.arena, in, int(i))
		if last != nil && bytes.Compare(t.arena[r.at:], last) > 0 {
			t.arena = t.arena[:r.at]
			continue
		}
		t.addTie(r, int(i))
	}
}

func (t *topN) addTie(r rankedRow, i int) {
	r.tie = int32(len(t.arena))
	t.arena = t.codec.appendTie(t.arena, &t.delta.rows, i)
	r.to = int32(len(t.arena))
	t.added = append(t.added, r)
}

// addFirst encodes the first one of the rows of the tick, unless the stored one goes before it.
func (t *topN) addFirst(rows []int32) {
	in := &t.delta.rows
	best := rankedRow{}
	if len(t.old) > 0 {
		best = t.old[0]
	}
	for _, i := range rows {
		if in.Weights[i] <= 0 {
			continue
		}
		r := rankedRow{weight: 1, at: int32(len(t.arena))}
		t.arena = t.codec.appendOrder(t.arena, in, int(i))
		r.tie = int32(len(t.arena))
		order := -1
		if best.weight > 0 {
			order = bytes.Compare(t.arena[r.at:r.tie], t.arena[best.at:best.tie])
		}
		if order <= 0 {
			t.arena = t.codec.appendTie(t.arena, in, int(i))
			r.to = int32(len(t.arena))
		}
		if order < 0 || order == 0 && bytes.Compare(t.arena[r.at:r.to], t.arena[best.at:best.to]) < 0 {
			best = r
			t.added = append(t.added[:0], r)
		} else {
			t.arena = t.arena[:r.at]
		}
	}
}

// split moves those of the added rows that sort behind the head to entries of their own, if there are such entries already.
// It returns how many remain.
func (t *topN) split(head *rankHead) (int, error) {
	if head.more == 0 || len(t.old) == 0 {
		return len(t.added), nil
	}
	last := t.old[len(t.old)-1]
	n, _ := slices.BinarySearchFunc(t.added, last, func(a, b rankedRow) int {
		if c := bytes.Compare(t.arena[a.at:a.to], t.arena[b.at:b.to]); c != 0 {
			return c
		}
		return -1 // the last row itself belongs to the head
	})
	for i := n; i < len(t.added); i++ {
		if err := t.addMore(head, &t.added[i]); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// moreKey sets t.more to the key of the entry of a row behind the head.
func (t *topN) moreKey(r *rankedRow) {
	t.more = append(append(append(t.more[:0], t.index, 2), t.key[2:]...), t.arena[r.at:r.to]...)
}

// addMore adds the weight of a row behind the head.
func (t *topN) addMore(head *rankHead, r *rankedRow) error {
	t.moreKey(r)
	v, ok, err := t.state.Get(t.more)
	if err != nil {
		return err
	}
	weight := r.weight
	if ok {
		old, _, fine := readInt(v)
		if !fine {
			return badRanked()
		}
		weight += old
	}
	if weight == 0 {
		if ok {
			if head.more == 0 {
				return badRanked()
			}
			head.more--
			return t.state.Delete(t.more)
		}
		return nil
	}
	if !ok {
		head.more++
	}
	t.entry = binary.AppendUvarint(binary.AppendVarint(t.entry[:0], weight), uint64(r.tie-r.at))
	return t.state.Set(t.more, t.entry)
}

// refill takes rows from behind the head while one of them may be visible.
func (t *topN) refill(head *rankHead) error {
	for head.more > 0 {
		if _, _, beyond := within(t.fn, t.end, t.merged, t.arena); beyond {
			return nil
		}
		if err := t.takeMore(head); err != nil {
			return err
		}
	}
	return nil
}

// takeMore moves the first rows from behind the head to it.
func (t *topN) takeMore(head *rankHead) error {
	lo := append([]byte{t.index, 2}, t.key[2:]...)
	from, size := len(t.merged), 0
	err := t.state.Scan(lo, prefixEnd(lo), func(key, v []byte) (bool, error) {
		r := rankedRow{at: int32(len(t.arena))}
		weight, rest, ok := readInt(v)
		tie, rest, ok2 := readUint(rest)
		row := key[len(lo):]
		if !ok || !ok2 || len(rest) > 0 || tie > uint64(len(row)) {
			return false, badRanked()
		}
		t.arena = append(t.arena, row...)
		r.weight, r.tie, r.to = weight, r.at+int32(tie), int32(len(t.arena))
		t.merged = append(t.merged, r)
		size += len(row)
		return size < t.limit, nil
	})
	if err != nil {
		return err
	}
	taken := t.merged[from:]
	if len(taken) == 0 || uint64(len(taken)) > head.more {
		return corrupted("a group of a top-N has %d rows behind its head, not %d", len(taken), head.more)
	}
	for i := range taken {
		t.moreKey(&taken[i])
		if err := t.state.Delete(t.more); err != nil {
			return err
		}
	}
	head.more -= uint64(len(taken))
	return nil
}

// store writes the head of the group at t.key.
func (t *topN) store(head *rankHead, rows []int32) error {
	n, _, _ := within(t.fn, t.end, t.merged, t.arena)
	size := 0
	kept := len(t.merged)
	if t.appendOnly {
		kept = n
	} else if t.end < math.MaxInt64 {
		for i := n; i < len(t.merged); i++ {
			if size += int(t.merged[i].to - t.merged[i].at); size <= 2*t.limit || i == n {
				continue
			}
			if err := t.spill(head, n); err != nil {
				return err
			}
			kept = len(t.merged)
			break
		}
	}
	if kept == 0 && head.more == 0 {
		if head.there {
			return t.state.Delete(t.key)
		}
		return nil
	}
	if t.expire != nil {
		t.setDue(head, rows)
	}
	t.entry = head.append(t.entry[:0], t.expire != nil)
	for i := range t.merged[:kept] {
		t.entry = appendRanked(t.entry, &t.merged[i], t.arena)
	}
	return t.state.Set(t.key, t.entry)
}

// spill moves rows of the head to entries of their own, but for the first n and some after them.
func (t *topN) spill(head *rankHead, n int) error {
	size, kept := 0, n
	for ; kept < len(t.merged) && (size < t.limit || kept == n); kept++ {
		size += int(t.merged[kept].to - t.merged[kept].at)
	}
	for i := kept; i < len(t.merged); i++ {
		if err := t.addMore(head, &t.merged[i]); err != nil {
			return err
		}
	}
	t.merged = t.merged[:kept]
	return nil
}

// setDue notes when the group may be forgotten: once all its rows may be.
func (t *topN) setDue(head *rankHead, rows []int32) {
	c := &t.delta.rows.Cols[t.expire.Col]
	if !head.there {
		head.last = -never
	}
	for _, i := range rows {
		due := int64(never)
		if !c.Null(int(i)) {
			due = dueOf(c.Ints[i], t.expire.Delay)
		}
		head.last = max(head.last, due)
	}
	if head.due == never && head.last != never {
		head.due = head.last
		t.due.add(head.due, t.key[2:])
	}
}

// forget forgets a group whose rows may all be forgotten.
func (t *topN) forget(bucket int64, group []byte) error {
	t.arena, t.old = t.arena[:0], t.old[:0]
	t.key = append(append(t.key[:0], t.index, 1), group...)
	head, err := t.load()
	if err != nil || !head.there || head.due != bucket {
		return err
	}
	if head.last > t.passed {
		head.due = head.last
		if head.due != never {
			t.due.add(head.due, t.key[2:])
		}
		t.entry = head.append(t.entry[:0], true)
		for i := range t.old {
			t.entry = appendRanked(t.entry, &t.old[i], t.arena)
		}
		return t.state.Set(t.key, t.entry)
	}
	for t.merged = t.merged[:0]; head.more > 0; t.arena, t.merged = t.arena[:0], t.merged[:0] {
		if err := t.takeMore(&head); err != nil {
			return err
		}
	}
	return t.state.Delete(t.key)
}

// emit emits how the visible rows of t.merged differ from those of t.old.
func (t *topN) emit(slot int) error {
	was := places{fn: t.fn, offset: t.offset, end: t.end, rows: t.old, arena: t.arena, i: -1}
	is := was
	is.rows = t.merged
	a, b := was.next(), is.next()
	for a || b {
		order := -1
		switch {
		case !a:
			order = 1
		case b:
			x, y := &was.rows[was.i], &is.rows[is.i]
			order = bytes.Compare(t.arena[x.at:x.to], t.arena[y.at:y.to])
		}
		var err error
		switch {
		case order < 0:
			err = t.emitRow(slot, &was.rows[was.i], was.from, was.n, -1)
			a = was.next()
		case order > 0:
			err = t.emitRow(slot, &is.rows[is.i], is.from, is.n, 1)
			b = is.next()
		default:
			err = t.emitChange(slot, &was, &is)
			a, b = was.next(), is.next()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// emitChange emits the change of a row that was visible before and is.
func (t *topN) emitChange(slot int, was, is *places) error {
	r := &is.rows[is.i]
	if !t.place {
		return t.emitCopies(slot, r, 0, is.n-was.n)
	}
	if t.fn != plan.RankRowNumber {
		if was.from == is.from {
			return t.emitCopies(slot, r, is.from, is.n-was.n)
		}
		if err := t.emitCopies(slot, r, was.from, -was.n); err != nil {
			return err
		}
		return t.emitCopies(slot, r, is.from, is.n)
	}
	// Places [from, from+n) of both; those in both stay.
	lo, hi := max(was.from, is.from), min(was.from+was.n, is.from+is.n)
	for _, p := range []struct {
		of   *places
		sign int64
	}{{was, -1}, {is, 1}} {
		for at := p.of.from; at < p.of.from+p.of.n; at++ {
			if lo < hi && at == lo {
				at = hi - 1
				continue
			}
			if err := t.emitCopies(slot, r, at, p.sign); err != nil {
				return err
			}
		}
	}
	return nil
}

// emitRow emits a row that appears or disappears.
func (t *topN) emitRow(slot int, r *rankedRow, from, n, sign int64) error {
	if !t.place || t.fn != plan.RankRowNumber {
		return t.emitCopies(slot, r, from, sign*n)
	}
	for at := from; at < from+n; at++ {
		if err := t.emitCopies(slot, r, at, sign); err != nil {
			return err
		}
	}
	return nil
}

// emitCopies emits a row with a weight.
func (t *topN) emitCopies(slot int, r *rankedRow, place, weight int64) error {
	if weight == 0 {
		return nil
	}
	if err := t.codec.decode(t.arena[r.tie:r.to], t.emitter.rows, &t.scratch); err != nil {
		return err
	}
	for _, k := range t.ofKey {
		t.emitter.rows.Cols[k[0]].AppendFrom(&t.keyCols.Cols[k[1]], slot)
	}
	if t.place {
		t.emitter.rows.Cols[len(t.emitter.rows.Cols)-1].AppendInt(place)
	}
	return t.emitter.wrote(weight)
}
