package dataflow

import (
	"slices"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// join joins its two inputs, 0 (left) and 1 (right). Their rows are gathered until the tick ends; then each key that
// came is looked up once. With D for what came and S for what is stored, it emits DL x SR + SL x DR + DL x DR, and for a side that
// is watched (outer, semi, anti: its rows come out by whether they have a match) its rows whose matches changed.
//
// A row has a match while the weights of the rows that match it add up to more than 0. Without a residual that is the
// weight of the other side's group. Else, or when rows of the other side are forgotten, each row's number is stored with it.
//
// State: (op, 1) and (op, 2) and the ordered encoding of the key are the groups of the two sides; see join_group.go. (op, 3) and
// (op, 4), a bucket of time, the tick and a number are lists of groups that may have rows to forget then. (op, 0) is
// not_in's sums.
type join struct {
	index    byte
	keep     bool
	state    State
	out      *link
	sides    [2]joinSide
	limit    int  // see maxSegment
	hashed   int  // see maxHashed
	pairs    bool // pairs of rows come out
	matched  bool // rows of a watched side come out when they have a match; else when they have none
	residual expression
	reads    []int // columns of both sides that residual reads
	not      *notIn

	table   *groupTable
	keyCols *record.Delta // of the tick's keys
	passed  int64         // buckets up to this one may be forgotten

	arena  []byte
	batch  []joinWork
	lists  [3]pairList
	cand   record.Delta
	rows   record.Delta
	pick   []int32
	seq    []int32
	key    []byte
	entry  []byte
	head   []byte
	added  []groupRow
	merged []groupRow
	here   []groupRow // of one segment
	places []uint64   // see bySegment
	segs   []segRef
}

// joinSide is one of the inputs.
type joinSide struct {
	index      int
	keys       []int
	nullsEqual bool
	need       []bool
	first      int // its first column in the output of a join of pairs
	appendOnly bool
	watched    bool
	counted    bool // watched, and the numbers of matches are stored
	totalOnly  bool // its rows say no more than how many they are
	transient  bool // its rows are joined in their tick and then forgotten
	// dropped: rows aren't kept once there is a match: nothing can come that they would still be needed for.
	dropped bool
	expire  *plan.Expire
	codec   groupCodec
	early   []int    // stored columns that the residual reads (all, if there is none)
	late    []int    // other stored columns
	ofKey   [][2]int // columns that aren't stored, and which one of the key they are

	delta  *gathered
	slots  slotOrder // of delta
	now    joinSource
	old    joinSource
	stored []groupRow // rows of the batch's groups
	due    dueList
}

// joinSource is rows of one side: those of the tick, or stored ones.
type joinSource struct {
	rows   *record.Delta // columns that are there for every row, and Weights
	isLate []bool        // columns that are in late instead
	late   *record.Delta
	lateAt []int32 // rows in late, or -1
	of     []int32 // stored rows
	added  []int64 // counted: matches that were found
	lone   pairList
}

// pairList is pairs of rows of two sources, at most chunkRows. For rows alone, right isn't used.
type pairList struct {
	from        [2]*joinSource
	left, right []int32
	weights     []int64
}

// joinWork is a key of the tick.
type joinWork struct {
	slot  int
	delta [2][]int32
	head  [2]groupHead
	lo    [2]int32 // where its rows are in stored
	hi    [2]int32
	base  [2]int32 // where they are in old, or -1
}

// segRef is a segment of a large group in the batch; number -1 is the head.
type segRef struct {
	number       int64
	lo, hi, base int32
}

// maxArena is the bytes of groups after which a batch is ended.
const maxArena = 1 << 18

func (j *join) port(i int) port { return &joinPort{j, &j.sides[i]} }

func (j *join) push(*record.Delta) error {
	return defect("operator %d gets rows without an input", j.index)
}

// joinPort is where the rows of one side come in.
type joinPort struct {
	join *join
	side *joinSide
}

func (p *joinPort) push(in *record.Delta) error {
	j, side := p.join, p.side
	nulls := false
	if !side.nullsEqual {
		for _, k := range side.keys {
			nulls = nulls || in.Cols[k].Validity != nil
		}
	}
	if !nulls {
		return side.delta.add(in)
	}
	whole, lone := j.pick[:0], []int32(nil)
	for i := range in.N {
		null := false
		for _, k := range side.keys {
			null = null || in.Cols[k].Null(i)
		}
		switch {
		case !null:
			whole = append(whole, int32(i))
		case side.watched && !j.matched:
			lone = append(lone, int32(i))
		}
	}
	j.pick = whole
	if err := side.delta.pick(in, whole); err != nil {
		return err
	}
	return j.emitUnmatched(side, in, lone)
}

// emitUnmatched emits rows of in that have no match and never get one.
func (j *join) emitUnmatched(side *joinSide, in *record.Delta, rows []int32) error {
	src := joinSource{rows: in}
	src.lone.left = rows
	for _, i := range rows {
		src.lone.weights = append(src.lone.weights, in.Weight(int(i)))
	}
	return j.emitLone(side, &src)
}

func (j *join) endTick(tick ids.Tick, marks Marks) error {
	passed := bucketsPassed(marks.Horizon)
	moved := passed > j.passed
	j.passed = max(passed, j.passed)
	if j.sides[0].delta.rows.N+j.sides[1].delta.rows.N > 0 {
		if err := j.join(); err != nil {
			return err
		}
	}
	if moved && j.keep {
		if err := j.expire(); err != nil {
			return err
		}
	}
	for s := range j.sides {
		if err := j.sides[s].due.write(tick); err != nil {
			return err
		}
	}
	return nil
}

// join handles the rows of the tick.
func (j *join) join() error {
	for s := range j.sides {
		if err := j.sides[s].assign(j.table); err != nil {
			return err
		}
	}
	n := j.table.n
	j.keyCols.Reset()
	j.table.appendKeys(j.keyCols.Cols, 0, n)
	for s := range j.sides {
		j.sides[s].slots.sort(n)
	}
	if j.not != nil {
		if err := j.startNotIn(); err != nil {
			return err
		}
	}
	for slot := range n {
		if err := j.probe(slot); err != nil {
			return err
		}
	}
	if err := j.finishBatch(); err != nil {
		return err
	}
	if j.not != nil {
		if err := j.finishNotIn(); err != nil {
			return err
		}
	}
	j.reset()
	return nil
}

func (j *join) reset() {
	j.table.reset()
	j.keyCols.Reset()
	for c := range j.keyCols.Cols {
		trim(&j.keyCols.Cols[c])
	}
	for _, d := range []*record.Delta{&j.rows, &j.cand} {
		for c := range d.Cols {
			trim(&d.Cols[c])
		}
	}
	if j.residual != nil {
		j.residual.trim()
	}
	if cap(j.arena) > 4*maxArena {
		j.arena = nil
	}
	for s := range j.sides {
		side := &j.sides[s]
		side.delta.reset()
		side.slots.reset()
	}
	j.seq = shrink(j.seq, len(j.seq))
}

// assign gives the side's rows the slots of their keys.
func (s *joinSide) assign(t *groupTable) error {
	s.now.rows = &s.delta.rows
	if s.counted {
		s.now.added = resize(s.now.added, s.delta.rows.N)
		clear(s.now.added)
	}
	return s.slots.assign(t, &s.delta.rows, s.keys)
}

// rowsOf returns the side's rows of a slot.
func (s *joinSide) rowsOf(slot int) []int32 { return s.slots.rows(slot) }

// weightOf returns the sum of the weights of some of the tick's rows.
func (s *joinSide) weightOf(rows []int32) int64 {
	sum := int64(0)
	for _, i := range rows {
		sum += s.delta.rows.Weights[i]
	}
	return sum
}

// probe finds the pairs of a key, or has probeLarge do it when one of its groups is large.
func (j *join) probe(slot int) error {
	w := joinWork{slot: slot, base: [2]int32{-1, -1}}
	for s := range j.sides {
		w.delta[s] = j.sides[s].rowsOf(slot)
	}
	if len(w.delta[0])+len(w.delta[1]) == 0 {
		return nil // what the table took a NULL for at first
	}
	if j.keep {
		if err := j.load(&w); err != nil {
			return err
		}
		if w.head[0].split() || w.head[1].split() {
			return j.probeLarge(slot)
		}
		for s := range j.sides {
			if err := j.readGroup(&w, s); err != nil {
				return err
			}
		}
	}
	if err := j.addWork(&w); err != nil {
		return err
	}
	j.batch = append(j.batch, w)
	if len(j.arena) > maxArena || len(j.batch) >= chunkRows || max(len(j.sides[0].old.of), len(j.sides[1].old.of)) >= chunkRows {
		return j.finishBatch()
	}
	return nil
}

// addWork adds the pairs of a key whose groups are in memory.
func (j *join) addWork(w *joinWork) error {
	if !j.pairing() {
		return nil
	}
	left, right := &j.sides[0], &j.sides[1]
	j.lists[0].from = [2]*joinSource{&left.now, &right.now}
	if left.transient && w.base[1] >= 0 && len(w.delta[0]) > 0 && len(w.delta[1]) > 0 {
		old, now := j.newest(w)
		if err := j.addPairs(&j.lists[1], w.delta[0], old); err != nil {
			return err
		}
		return j.addPairs(&j.lists[0], w.delta[0], now)
	}
	if w.base[1] >= 0 && len(w.delta[0]) > 0 {
		if err := j.addPairs(&j.lists[1], w.delta[0], j.sequence(w.base[1], w.hi[1]-w.lo[1])); err != nil {
			return err
		}
	}
	if w.base[0] >= 0 && len(w.delta[1]) > 0 {
		if err := j.addPairs(&j.lists[2], j.sequence(w.base[0], w.hi[0]-w.lo[0]), w.delta[1]); err != nil {
			return err
		}
	}
	return j.addPairs(&j.lists[0], w.delta[0], w.delta[1])
}

// pairing tells whether pairs of rows are looked at at all.
func (j *join) pairing() bool { return j.pairs || j.sides[0].counted || j.sides[1].counted }

// sequence returns n numbers from `from` on.
func (j *join) sequence(from, n int32) []int32 {
	for i := len(j.seq); i < int(from+n); i++ {
		j.seq = append(j.seq, int32(i))
	}
	return j.seq[from : from+n]
}

// keyOf sets j.key to the key of a slot's group on side s.
func (j *join) keyOf(slot, s int) {
	j.key = append(j.key[:0], j.index, byte(1+s))
	for c := range j.keyCols.Cols {
		j.key = record.AppendOrdered(j.key, &j.keyCols.Cols[c], slot)
	}
}

// load reads the heads of a key's groups.
func (j *join) load(w *joinWork) error {
	j.keyOf(w.slot, 0)
	for s := range j.sides {
		if j.sides[s].transient {
			continue
		}
		j.key[1] = byte(1 + s)
		if err := j.loadHead(w, s); err != nil {
			return err
		}
	}
	return nil
}

// loadHead reads the head of the group at j.key.
func (j *join) loadHead(w *joinWork, s int) error {
	w.head[s] = groupHead{due: never}
	v, ok, err := j.state.Get(j.key)
	if err != nil || !ok {
		return err
	}
	at := len(j.arena)
	j.arena = append(j.arena, v...)
	w.head[s], err = j.sides[s].codec.head(j.arena, at)
	return err
}

// readGroup decodes the rows of a small group, as far as they are needed.
func (j *join) readGroup(w *joinWork, s int) error {
	side, h := &j.sides[s], &w.head[s]
	if !h.there || side.totalOnly {
		return nil
	}
	probed := j.pairing() && len(w.delta[1-s]) > 0
	if !probed && side.watched && !side.counted {
		before, after := j.totals(w, s)
		probed = (before > 0) != (after > 0)
	}
	if !probed && (side.appendOnly || len(w.delta[s]) == 0) {
		return nil
	}
	var err error
	w.lo[s] = int32(len(side.stored))
	if side.stored, err = side.codec.rows(side.stored, j.arena, h.at, h.to); err != nil {
		return err
	}
	w.hi[s] = int32(len(side.stored))
	if probed {
		w.base[s], err = j.decode(side, w.slot, w.lo[s], w.hi[s])
	}
	return err
}

// decode appends stored rows to the side's source, and returns where they begin there.
func (j *join) decode(side *joinSide, slot int, lo, hi int32) (int32, error) {
	src := &side.old
	base := int32(src.rows.N)
	for i := lo; i < hi; i++ {
		r := &side.stored[i]
		if len(side.early) > 0 {
			if err := record.DecodeRow(j.arena[r.at:r.late], src.rows, side.early); err != nil {
				return 0, err
			}
		}
		src.rows.Weights = append(src.rows.Weights, r.weight)
		src.of = append(src.of, i)
	}
	for _, k := range side.ofKey {
		for range hi - lo {
			src.rows.Cols[k[0]].AppendFrom(&j.keyCols.Cols[k[1]], slot)
		}
	}
	src.rows.N = len(src.of)
	if side.counted {
		src.added = extend(src.added, src.rows.N)
	}
	if len(side.late) > 0 {
		src.lateAt = extend(src.lateAt, src.rows.N)
		fill(src.lateAt[base:], -1)
	}
	return base, nil
}

// totals returns the weight of what matches a row of side s of a key, before and after the tick, if no numbers are
// stored.
func (j *join) totals(w *joinWork, s int) (before, after int64) {
	other := 1 - s
	before = w.head[other].total
	after = before + j.sides[other].weightOf(w.delta[other])
	if j.not != nil {
		return j.not.totals(before, after, j.keyCols.Cols[0].Null(w.slot))
	}
	return before, after
}

// finishBatch emits the pairs that were found and brings the groups up to date.
func (j *join) finishBatch() error {
	if err := j.flushPairs(); err != nil {
		return err
	}
	for i := range j.batch {
		if err := j.settle(&j.batch[i]); err != nil {
			return err
		}
	}
	if err := j.flushLone(); err != nil {
		return err
	}
	j.batch = j.batch[:0]
	j.forget()
	return nil
}

// forget drops the groups that are in memory.
func (j *join) forget() {
	j.arena = j.arena[:0]
	for s := range j.sides {
		side := &j.sides[s]
		side.stored = side.stored[:0]
		src := &side.old
		src.rows.Reset()
		src.late.Reset()
		for c := range src.rows.Cols {
			trim(&src.rows.Cols[c])
			trim(&src.late.Cols[c])
		}
		clear(src.added)
		src.of, src.lateAt, src.added = src.of[:0], src.lateAt[:0], src.added[:0]
	}
}

// settle emits a key's rows that have got or lost their matches, and stores its groups.
func (j *join) settle(w *joinWork) error {
	var dirty [2]bool
	for s := range j.sides {
		side := &j.sides[s]
		if !side.watched {
			continue
		}
		before, after := j.totals(w, s)
		if w.base[s] >= 0 {
			changed, err := j.settleOld(side, w.base[s], w.lo[s], w.hi[s], before, after)
			if err != nil {
				return err
			}
			dirty[s] = changed
		}
		if err := j.settleNow(side, w.delta[s], after); err != nil {
			return err
		}
	}
	if !j.keep {
		return nil
	}
	for s := range j.sides {
		if j.sides[s].transient {
			continue
		}
		j.keyOf(w.slot, s)
		if err := j.store(w, s, dirty[s]); err != nil {
			return err
		}
	}
	return nil
}

// settleOld emits the change of stored rows, and tells whether their numbers of matches changed.
func (j *join) settleOld(side *joinSide, base, lo, hi int32, before, after int64) (dirty bool, err error) {
	for i := lo; i < hi; i++ {
		r, at := &side.stored[i], base+i-lo
		if side.counted {
			before = r.matches
			r.matches += side.old.added[at]
			after = r.matches
			dirty = dirty || before != after
		}
		was, is := before > 0 == j.matched, after > 0 == j.matched
		if was == is {
			continue
		}
		weight := r.weight
		if was {
			weight = -weight
		}
		if err := j.addLone(side, &side.old, at, weight); err != nil {
			return false, err
		}
	}
	return dirty, nil
}

// settleNow emits those of the tick's rows that have a match, or have none.
func (j *join) settleNow(side *joinSide, rows []int32, matches int64) error {
	for _, i := range rows {
		if side.counted {
			matches = side.now.added[i]
		}
		if matches > 0 == j.matched {
			if err := j.addLone(side, &side.now, i, side.delta.rows.Weights[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// newJoin compiles a join.
func newJoin(b *builder) (operator, error) {
	p := b.op.Join
	j := &join{
		index: b.index, keep: b.keep, state: b.env.State, out: b.out, passed: bucketsPassed(NoWatermark),
		limit: maxSegment, hashed: maxHashed, pairs: true, matched: p.Kind == plan.JoinSemi,
	}
	residual := p.Residual
	leftKeys, rightKeys, nullsEqual := p.LeftKeys, p.RightKeys, p.NullsEqual
	switch p.Kind {
	case plan.JoinInner, plan.JoinLeft, plan.JoinRight, plan.JoinFull:
	case plan.JoinSemi, plan.JoinAnti:
		j.pairs = false
	case plan.JoinNotIn:
		j.pairs = false
		if len(leftKeys) != 1 || len(rightKeys) != 1 {
			return nil, defect("operator %d is a NOT IN over %d keys", b.index, len(leftKeys))
		}
		if residual != nil {
			residual = notInResidual(p, b.ins[0].schema, b.ins[1].schema)
			leftKeys, rightKeys = nil, nil
		} else {
			j.not, nullsEqual = &notIn{}, true
		}
	default:
		return nil, defect("operator %d has no join %q", b.index, p.Kind)
	}
	if len(leftKeys) != len(rightKeys) {
		return nil, defect("operator %d joins %d keys with %d", b.index, len(leftKeys), len(rightKeys))
	}
	if err := j.checkPlan(b, leftKeys, rightKeys); err != nil {
		return nil, err
	}
	j.sides[0] = joinSide{keys: leftKeys, appendOnly: p.LeftAppendOnly, expire: p.LeftExpire,
		watched: p.Kind != plan.JoinInner && p.Kind != plan.JoinRight}
	j.sides[1] = joinSide{index: 1, keys: rightKeys, appendOnly: p.RightAppendOnly, expire: p.RightExpire, first: len(b.ins[0].schema),
		watched: p.Kind == plan.JoinRight || p.Kind == plan.JoinFull}
	if p.Kind == plan.JoinNotIn {
		j.sides[0].expire, j.sides[1].expire = nil, nil
	}
	if err := j.compileResidual(b, residual); err != nil {
		return nil, err
	}
	for s := range j.sides {
		j.sides[s].nullsEqual = nullsEqual
		j.prepareSide(b, s, [2]bool{p.LeftUnique, p.RightUnique})
	}
	j.lists[0].from = [2]*joinSource{&j.sides[0].now, &j.sides[1].now}
	j.lists[1].from = [2]*joinSource{&j.sides[0].now, &j.sides[1].old}
	j.lists[2].from = [2]*joinSource{&j.sides[0].old, &j.sides[1].now}
	j.rows.Cols = make([]record.Column, len(b.out.schema))
	return j, nil
}

// checkPlan checks the columns that the join reads and writes, and makes the table of keys.
func (j *join) checkPlan(b *builder, leftKeys, rightKeys []int) error {
	left, right := *b, *b
	left.in, right.in = b.ins[0], b.ins[1]
	var schema record.Schema
	for i, k := range leftKeys {
		if err := left.column(k, record.Unknown); err != nil {
			return err
		}
		schema = append(schema, left.in.schema[k])
		if err := right.column(rightKeys[i], schema[i].Type); err != nil {
			return err
		}
	}
	for side, e := range map[*builder]*plan.Expire{&left: b.op.Join.LeftExpire, &right: b.op.Join.RightExpire} {
		if e != nil {
			if err := side.column(e.Col, record.TimestampTZ); err != nil {
				return err
			}
		}
	}
	out := slices.Clone(left.in.schema)
	if j.pairs {
		out = append(out, right.in.schema...)
	}
	left.in = &link{schema: out}
	j.table, j.keyCols = newGroupTable(schema, false), record.NewDelta(schema, 0)
	return left.sameSchema(0)
}

// compileResidual compiles the residual over the columns of both sides.
func (j *join) compileResidual(b *builder, e *plan.Expr) error {
	both := append(slices.Clone(b.ins[0].schema), b.ins[1].schema...)
	j.cand.Cols = make([]record.Column, len(both))
	for c := range both {
		j.cand.Cols[c].Type = both[c].Type
	}
	if e == nil {
		return nil
	}
	var err error
	if j.residual, err = compile(e, both, b.env, b.errs); err != nil {
		return err
	}
	if j.residual.typ() != record.Boolean {
		return defect("operator %d joins where %s", b.index, j.residual.typ())
	}
	j.residual.columns(func(c int) {
		if !slices.Contains(j.reads, c) {
			j.reads = append(j.reads, c)
		}
	})
	return nil
}

// prepareSide decides what is kept of a side's rows.
func (j *join) prepareSide(b *builder, s int, unique [2]bool) {
	p, side, other := b.op.Join, &j.sides[s], &j.sides[1-s]
	schema := b.ins[s].schema
	side.need = slices.Clone(b.ins[s].need)
	side.delta = newGathered(schema, side.need)
	side.counted = side.watched && (j.residual != nil || other.expire != nil)
	otherCounted := other.watched && (j.residual != nil || side.expire != nil)
	side.codec.total = other.watched && !otherCounted
	side.totalOnly = side.codec.total && !j.pairs && !side.watched
	side.codec.matches = side.counted
	side.codec.expires = side.expire != nil
	side.dropped = unique[1-s] && other.appendOnly && !other.watched && !side.codec.total ||
		(p.Kind == plan.JoinSemi || p.Kind == plan.JoinAnti) && s == 0 && other.appendOnly && other.expire == nil
	read := make([]bool, len(schema)) // by the output or the residual; the rest needn't be stored
	for c := range schema {
		out := c
		if j.pairs {
			out += side.first
		}
		read[c] = (j.pairs || s == 0) && b.out.need[out] || slices.Contains(j.reads, len(b.ins[0].schema)*s+c)
	}
	for c := range schema {
		if !read[c] {
			continue
		}
		switch k := slices.Index(side.keys, c); {
		case k >= 0 && !schema[c].Type.HasForms():
			side.ofKey = append(side.ofKey, [2]int{c, k})
		case j.residual == nil || slices.Contains(j.reads, len(b.ins[0].schema)*s+c):
			side.early = append(side.early, c)
		default:
			side.late = append(side.late, c)
		}
	}
	side.codec.parted = len(side.early) > 0 && len(side.late) > 0
	side.codec.allLate = len(side.early) == 0
	side.old.rows, side.old.late = record.NewDelta(schema, 0), record.NewDelta(schema, 0)
	side.old.rows.Weights = []int64{}
	side.old.isLate = make([]bool, len(schema))
	for _, c := range side.late {
		side.old.isLate[c] = true
	}
	side.due = dueList{index: b.index, space: byte(3 + s), state: b.env.State}
}
