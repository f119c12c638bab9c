package dataflow

import (
	"bytes"
	"math"
	"slices"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// newTemporalJoin makes a temporal join. By ticks it is a join whose left rows are forgotten after their tick, so that nothing
// that comes later finds them.
func newTemporalJoin(b *builder) (operator, error) {
	p := b.op.TemporalJoin
	if (p.LeftTime < 0) != (p.RightTime < 0) {
		return nil, defect("operator %d has times of one side only", b.index)
	}
	op := *b.op
	op.Join = &plan.Join{
		Kind: plan.JoinInner, LeftKeys: p.LeftKeys, RightKeys: p.RightKeys, Residual: p.Residual, LeftAppendOnly: true, RightExpire: p.Expire,
	}
	if p.Outer {
		op.Join.Kind = plan.JoinLeft
	}
	if p.LeftTime >= 0 {
		op.Join.RightExpire = nil // versions have rules of their own
	}
	of := *b
	of.op = &op
	made, err := newJoin(&of)
	if err != nil {
		return nil, err
	}
	j := made.(*join)
	j.sides[0].transient = true
	if p.LeftTime < 0 {
		return j, nil
	}
	return newVersionJoin(b, j)
}

// newest returns the right rows of a key at the end of the tick, stored ones and the tick's own. Pairs with a row that goes in
// the tick itself would take each other back, but not before an operator that reads this one and counts on rows that only
// come has seen both.
func (j *join) newest(w *joinWork) (old, now []int32) {
	side := &j.sides[1]
	type held struct {
		old, now int32
		weight   int64
	}
	rows := map[string]*held{}
	var order []*held
	take := func(r *groupRow, h held) {
		key := string(j.arena[r.at:r.to])
		if rows[key] == nil {
			rows[key] = &held{old: h.old, now: h.now}
			order = append(order, rows[key])
		}
		at := rows[key]
		if at.weight += h.weight; h.now >= 0 && h.weight > 0 {
			at.now = h.now
		}
	}
	for i := w.lo[1]; i < w.hi[1]; i++ {
		r := side.stored[i]
		take(&r, held{old: w.base[1] + i - w.lo[1], now: -1, weight: r.weight})
	}
	for _, i := range w.delta[1] {
		r := j.encode(side, i)
		take(&r, held{old: -1, now: i, weight: r.weight})
	}
	for _, h := range order {
		switch {
		case h.weight <= 0:
		case h.old >= 0:
			old = append(old, h.old)
		default:
			now = append(now, h.now)
		}
	}
	return old, now
}

// versionJoin joins each left row with the version of the right row that was valid at its time, once the watermark has passed
// that. Which version that is, is found here; the pairs go through a join that keeps nothing.
//
// State: (op, 0) and (op, 1) are the left rows that wait; see emitFinal. (op, 2) and the ordered encoding of the key are the
// versions of a key in the order of their times: a version byte and the rows as in topN. (op, 3) is lists of keys that may
// have versions to forget.
type versionJoin struct {
	index     byte
	keep      bool
	state     State
	join      *join
	wait      *emitFinal
	leftTime  int
	rightTime int
	rightKeys []int
	expire    *plan.Expire
	passed    int64
	codec     rankCodec

	rights  *gathered
	table   *groupTable
	slots   slotOrder
	keyCols *record.Delta
	pick    []int32
	due     dueList

	arena    []byte
	versions []rankedRow
	added    []rankedRow
	merged   []rankedRow
	left     record.Delta
	found    *record.Delta // versions of left's rows
	scratch  record.Column
	key      []byte
	order    []byte
	entry    []byte
}

func newVersionJoin(b *builder, j *join) (operator, error) {
	p := b.op.TemporalJoin
	left, right := *b, *b
	left.in, right.in = b.ins[0], b.ins[1]
	if err := left.column(p.LeftTime, record.TimestampTZ); err != nil {
		return nil, err
	}
	if err := right.column(p.RightTime, record.TimestampTZ); err != nil {
		return nil, err
	}
	schema := b.ins[1].schema
	v := &versionJoin{
		index: b.index, keep: b.keep, state: b.env.State, join: j, leftTime: p.LeftTime, rightTime: p.RightTime, rightKeys: p.RightKeys,
		expire: p.Expire, passed: bucketsPassed(NoWatermark), rights: newGathered(schema, b.ins[1].need),
		found: record.NewDelta(schema, 0), due: dueList{index: b.index, space: 3, state: b.env.State},
	}
	var keys record.Schema
	for _, k := range p.RightKeys {
		keys = append(keys, schema[k])
	}
	v.keyCols, v.table = record.NewDelta(keys, 0), newGroupTable(keys, false)
	v.found.Weights = []int64{}
	j.sides[0].counted = j.sides[0].watched
	v.codec.order = []plan.SortKey{{Col: p.RightTime}}
	for c := range schema {
		if b.ins[1].need[c] {
			v.codec.cols = append(v.codec.cols, c)
		}
	}
	j.keep = false
	// What waits on the left goes out to joinLeft.
	held := *b
	held.in = b.ins[0]
	held.out = &link{schema: b.ins[0].schema, need: b.ins[0].need, to: []port{(*versionLeft)(v)}}
	op := *b.op
	op.Schema, op.EmitFinal = b.ins[0].schema, &plan.EmitFinal{WindowEnd: p.LeftTime}
	held.op = &op
	made, err := newEmitFinal(&held)
	if err != nil {
		return nil, err
	}
	v.wait = made.(*emitFinal)
	return v, nil
}

// versionLeft is where left rows come out of waiting.
type versionLeft versionJoin

func (l *versionLeft) push(in *record.Delta) error { return (*versionJoin)(l).joinLeft(in) }

// versionPort is one of the inputs.
type versionPort struct {
	v    *versionJoin
	side int
}

func (v *versionJoin) port(i int) port { return &versionPort{v, i} }

func (v *versionJoin) push(*record.Delta) error {
	return defect("operator %d gets rows without an input", v.index)
}

func (v *versionJoin) nextDue() (int64, bool) { return v.wait.nextDue() }

func (p *versionPort) push(in *record.Delta) error {
	if p.side == 0 {
		return p.v.pushLeft(in)
	}
	return p.v.pushRight(in)
}

// pushLeft has rows wait; those without a time have no version.
func (v *versionJoin) pushLeft(in *record.Delta) error {
	times := &in.Cols[v.leftTime]
	if times.Validity == nil {
		return v.wait.push(in)
	}
	var without, with []int32
	for i := range in.N {
		if times.Null(i) {
			without = append(without, int32(i))
		} else {
			with = append(with, int32(i))
		}
	}
	var part record.Delta
	if left := &v.join.sides[0]; len(without) > 0 && left.watched {
		if err := v.join.emitUnmatched(left, in, without); err != nil {
			return err
		}
	}
	gatherDelta(&part, in, with, v.join.sides[0].need)
	return v.wait.push(&part)
}

// pushRight gathers versions; one without a time or with a NULL in its key is never valid.
func (v *versionJoin) pushRight(in *record.Delta) error {
	v.pick = v.pick[:0]
	for i := range in.N {
		null := in.Cols[v.rightTime].Null(i)
		for _, k := range v.rightKeys {
			null = null || in.Cols[k].Null(i)
		}
		if !null {
			v.pick = append(v.pick, int32(i))
		}
	}
	return v.rights.pick(in, v.pick)
}

func (v *versionJoin) endTick(tick ids.Tick, marks Marks) error {
	passed := bucketsPassed(marks.Horizon)
	moved := passed > v.passed
	v.passed = max(v.passed, passed)
	if v.rights.rows.N > 0 {
		if err := v.storeVersions(); err != nil {
			return err
		}
	}
	if !v.keep {
		marks.Watermark = math.MaxInt64 // nothing comes after the one tick of an ad-hoc query
	}
	if err := v.wait.endTick(tick, marks); err != nil {
		return err
	}
	v.table.reset()
	v.slots.reset()
	if moved && v.expire != nil {
		if err := v.due.expire(v.passed, v.forget); err != nil {
			return err
		}
	}
	return v.due.write(tick)
}

// slot sets v.slots, v.keyCols and the table to the keys of rows, and returns how many there are.
func (v *versionJoin) slot(in *record.Delta, keys []int) (int, error) {
	v.table.reset()
	if err := v.slots.assign(v.table, in, keys); err != nil {
		return 0, err
	}
	n := v.table.n
	v.keyCols.Reset()
	v.table.appendKeys(v.keyCols.Cols, 0, n)
	v.slots.sort(n)
	return n, nil
}

// load reads the versions of a key into v.versions.
func (v *versionJoin) load(slot int) error {
	v.key = append(v.key[:0], v.index, 2)
	for c := range v.keyCols.Cols {
		v.key = record.AppendOrdered(v.key, &v.keyCols.Cols[c], slot)
	}
	return v.read()
}

// read reads the versions at v.key.
func (v *versionJoin) read() error {
	v.arena, v.versions = v.arena[:0], v.versions[:0]
	value, ok, err := v.state.Get(v.key)
	if err != nil || !ok {
		return err
	}
	if len(value) == 0 || value[0] != rankVersion {
		return corrupted("the versions of a key of operator %d are an entry of another version", v.index)
	}
	v.arena = append(v.arena, value[1:]...)
	v.versions, err = decodeRanked(v.versions, v.arena, 0)
	return err
}

// write stores rows as the versions at v.key.
func (v *versionJoin) write(rows []rankedRow) error {
	if len(rows) == 0 {
		return v.state.Delete(v.key)
	}
	v.entry = append(v.entry[:0], rankVersion)
	for i := range rows {
		v.entry = appendRanked(v.entry, &rows[i], v.arena)
	}
	return v.state.Set(v.key, v.entry)
}

// storeVersions brings the versions of the tick's right rows up to date.
func (v *versionJoin) storeVersions() error {
	in := &v.rights.rows
	n, err := v.slot(in, v.rightKeys)
	if err != nil {
		return err
	}
	for slot := range n {
		rows := v.slots.rows(slot)
		if len(rows) == 0 {
			continue
		}
		if err := v.load(slot); err != nil {
			return err
		}
		v.added = v.added[:0]
		listed := int64(never)
		for _, i := range rows {
			r := rankedRow{weight: in.Weights[i], at: int32(len(v.arena))}
			v.arena = v.codec.appendOrder(v.arena, in, int(i))
			r.tie = int32(len(v.arena))
			v.arena = v.codec.appendTie(v.arena, in, int(i))
			r.to = int32(len(v.arena))
			v.added = append(v.added, r)
			if e := v.expire; e != nil && !in.Cols[e.Col].Null(int(i)) {
				if due := max(dueOf(in.Cols[e.Col].Ints[i], e.Delay), v.passed+1); due != listed && due != never {
					v.due.add(due, v.key[2:])
					listed = due
				}
			}
		}
		v.added = sortRanked(v.added, v.arena)
		v.merged = mergeRanked(v.merged[:0], v.versions, v.added, v.arena)
		if err := v.write(v.merged); err != nil {
			return err
		}
	}
	v.rights.reset()
	return nil
}

// joinLeft joins left rows whose time has passed with the versions that were valid then.
func (v *versionJoin) joinLeft(in *record.Delta) error {
	j := v.join
	left := &j.sides[0]
	v.left = *in
	if v.left.Weights == nil {
		v.left.Weights = make([]int64, in.N)
		fill(v.left.Weights, 1)
	}
	n, err := v.slot(&v.left, left.keys)
	if err != nil {
		return err
	}
	left.now.rows, j.sides[1].now.rows = &v.left, v.found
	left.now.added = resize(left.now.added, in.N)
	clear(left.now.added)
	v.found.Reset()
	v.found.Weights = v.found.Weights[:0]
	for slot := range n {
		if rows := v.slots.rows(slot); len(rows) > 0 {
			if err := v.joinKey(slot, rows); err != nil {
				return err
			}
		}
	}
	if err := j.flushPairs(); err != nil {
		return err
	}
	if left.watched {
		for i := range in.N {
			if left.now.added[i] > 0 {
				continue
			}
			if err := j.addLone(left, &left.now, int32(i), v.left.Weights[i]); err != nil {
				return err
			}
		}
	}
	return j.flushLone()
}

// joinKey pairs rows of one key with their versions.
func (v *versionJoin) joinKey(slot int, rows []int32) error {
	if err := v.load(slot); err != nil {
		return err
	}
	last := -1
	for _, i := range rows {
		version := v.validAt(v.left.Cols[v.leftTime].Ints[i])
		if version < 0 {
			continue
		}
		if version != last {
			r := &v.versions[version]
			if err := v.codec.decode(v.arena[r.tie:r.to], v.found, &v.scratch); err != nil {
				return err
			}
			v.found.N++
			v.found.Weights = append(v.found.Weights, 1)
			last = version
		}
		p := &v.join.lists[0]
		p.left, p.right = append(p.left, i), append(p.right, int32(v.found.N-1))
	}
	return nil
}

// validAt returns the last version whose time is at or below t, or -1.
func (v *versionJoin) validAt(t int64) int {
	one := record.Column{Type: record.TimestampTZ, N: 1, Ints: []int64{t}}
	v.order = record.AppendOrdered(v.order[:0], &one, 0)
	n, _ := slices.BinarySearchFunc(v.versions, v.order, func(r rankedRow, order []byte) int {
		if bytes.Compare(v.arena[r.at:r.tie], order) <= 0 {
			return -1
		}
		return 1
	})
	for n--; n >= 0 && v.versions[n].weight <= 0; n-- {
	}
	return n
}

// forget drops the versions of a key that ended at or below the horizon: those with a later one there.
func (v *versionJoin) forget(_ int64, group []byte) error {
	v.key = append(append(v.key[:0], v.index, 2), group...)
	if err := v.read(); err != nil {
		return err
	}
	kept := 0
	for i := range v.versions {
		due, err := v.dueOf(&v.versions[i])
		if err != nil {
			return err
		}
		if due > v.passed {
			break
		}
		if v.versions[i].weight > 0 {
			kept = i
		}
	}
	if kept == 0 {
		return nil
	}
	return v.write(v.versions[kept:])
}

// dueOf returns the bucket in which a version may be forgotten.
func (v *versionJoin) dueOf(r *rankedRow) (int64, error) {
	v.found.Reset()
	v.found.Weights = v.found.Weights[:0]
	if err := v.codec.decode(v.arena[r.tie:r.to], v.found, &v.scratch); err != nil {
		return 0, err
	}
	c := &v.found.Cols[v.expire.Col]
	if c.Null(0) {
		return never, nil
	}
	return dueOf(c.Ints[0], v.expire.Delay), nil
}
