package dataflow

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/millrace/millrace/record"
)

// paneGroups keeps the groups of an aggregate over panes and makes windows of them. A row is in one pane, however many
// windows hold it; a window is combined from its panes when it changes or, with Final, when it closes.
//
// The panes of a key lie in blocks of about the square root of a window's panes, and a block keeps the sum of its panes:
// so a window that closes is combined from some sqrt(n) sums of blocks and the panes at its two ends. Windows that are
// asked for one after the other are combined by sliding (see sweep). Rows that missed the first windows of their
// pane (see plan.Hop) are kept apart from the pane's others, until no window that they missed can be asked for.
//
// State, where key is the ordered encoding of the keys before the pane, and times are 8 bytes in order:
//
//	(op, 0)                          the highest watermark and horizon so far
//	(op, 1, key, block)              a block; see encodeBlock
//	(op, 2, end, key)                Final: a window to close; the window after it follows from it while it has panes
//	(op, 3, last end, key, block)    with Expire: when a block can be forgotten
type paneGroups struct {
	a      *aggregate
	w      windowing
	final  bool
	expire bool
	nk     int   // key columns before the pane's
	block  int64 // microseconds
	sums   bool  // blocks keep the sum of their panes

	passed, horizon int64
	due             int64 // a lower bound of the ends of windows to close
	hasDue          bool
	doom            int64 // a lower bound of the times of blocks to forget
	hasDoom         bool

	top     int // slots in use
	runs    keyRuns
	key     []byte
	value   []byte
	one     *record.Delta // the key's columns
	loaded  []*paneBlock
	old     sweep
	new     sweep
	ranges  []span
	pending []byte
}

const (
	paneMarks  = 0
	paneBlocks = 1
	paneDue    = 2
	paneDoom   = 3
)

// frag is what one pane has of rows that begin with one window.
type frag struct {
	pane, first int64
	slot        int
}

// paneBlock is a block in memory.
type paneBlock struct {
	start int64
	found bool
	sum   int // slot of the sum of the regular fragments; -1: none kept
	last  int64
	frags []frag // in order of pane and first
}

type span struct{ lo, hi int64 }

func newPaneGroups(a *aggregate, b *builder) (*paneGroups, error) {
	p := b.op.Aggregate
	w, err := newWindowing(p.Panes.Size, p.Panes.Slide, p.Panes.Offset, p.Panes.Cumulate)
	if err != nil {
		return nil, err
	}
	g := &paneGroups{a: a, w: w, final: p.Panes.Final, expire: p.Expire != nil, nk: len(p.Keys) - 2, passed: NoWatermark, horizon: NoWatermark}
	n := w.size / w.pane
	per := max(4, int64(math.Sqrt(float64(n))))
	g.block, g.sums = per*w.pane, g.final && n > 2*per
	g.one = record.NewDelta(b.out.schema[:g.nk], 1)
	v, ok, err := a.state.Get([]byte{a.index, paneMarks})
	if err != nil {
		return nil, err
	}
	if ok {
		var rest []byte
		if g.passed, rest, ok = readInt(v); ok {
			g.horizon, _, ok = readInt(rest)
		}
		if !ok {
			return nil, corrupted("the watermark of operator %d doesn't decode", a.index)
		}
	}
	if err := g.findFirst(paneDue, &g.due, &g.hasDue); err != nil {
		return nil, err
	}
	return g, g.findFirst(paneDoom, &g.doom, &g.hasDoom)
}

func appendTime(dst []byte, t int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(t)^signBit)
}

func readTime(src []byte) int64 { return int64(binary.BigEndian.Uint64(src) ^ signBit) }

// findFirst finds the first time in the index of that kind.
func (g *paneGroups) findFirst(kind byte, at *int64, has *bool) error {
	return firstTime(g.a.state, []byte{g.a.index, kind}, at, has)
}

// firstTime finds the time of the first key that begins with prefix.
func firstTime(st State, prefix []byte, at *int64, has *bool) error {
	*has = false
	return st.Scan(prefix, prefixEnd(prefix), func(key, _ []byte) (bool, error) {
		if len(key) < len(prefix)+8 {
			return false, corrupted("a time in the state of operator %d doesn't decode", prefix[0])
		}
		*at, *has = readTime(key[len(prefix):]), true
		return false, nil
	})
}

func (g *paneGroups) nextDue() (int64, bool) { return g.due, g.final && g.hasDue }

// endTick takes the tick's n fragments, brings the windows up to date that are out already, closes others and forgets.
func (g *paneGroups) endTick(n int, marks Marks) error {
	a := g.a
	a.buf.Weights = a.buf.Weights[:0]
	if a.buf.Weights == nil {
		a.buf.Weights = []int64{}
	}
	g.top = n
	if n > 0 {
		if err := g.takeAll(n); err != nil {
			return err
		}
	}
	if marks.Watermark <= g.passed && marks.Horizon <= g.horizon {
		return nil
	}
	g.passed, g.horizon = max(g.passed, marks.Watermark), max(g.horizon, marks.Horizon)
	g.value = binary.AppendVarint(binary.AppendVarint(g.value[:0], g.passed), g.horizon)
	if err := a.state.Set([]byte{a.index, paneMarks}, g.value); err != nil {
		return err
	}
	if err := g.close(); err != nil {
		return err
	}
	return g.forget()
}

// takeAll gives each key its fragments of the tick.
func (g *paneGroups) takeAll(n int) error {
	if err := g.runs.sort(g.a, n, g.nk); err != nil {
		return err
	}
	panes, firsts := g.a.keyCols.Cols[g.nk].Ints, g.a.keyCols.Cols[g.nk+1].Ints
	var come []frag
	return g.runs.each(g.a, func(key []byte, slots []int32) error {
		come = come[:0]
		for _, s := range slots {
			pane := panes[s]
			if _, last := g.w.ends(pane); !g.w.inRange(pane) || g.w.paneOf(pane) != pane || firsts[s] > last {
				return defect("operator %d gets a pane from %d with the window to %d", g.a.index, pane, firsts[s])
			}
			come = append(come, frag{pane, firsts[s], int(s)})
		}
		return g.take(key, come)
	})
}

// take adds a key's fragments of the tick and emits the windows that they change.
func (g *paneGroups) take(key []byte, come []frag) error {
	base := g.top
	defer func() { g.top = base }()
	g.loaded = g.loaded[:0]
	if err := g.change(key, come); err != nil {
		return err
	}
	for i := 0; i < len(come); {
		start := floorTo(come[i].pane, g.block, g.w.offset)
		b, err := g.load(key, start, true)
		if err != nil {
			return err
		}
		for ; i < len(come) && come[i].pane < start+g.block; i++ {
			if err := g.add(key, b, come[i]); err != nil {
				return err
			}
		}
		if err := g.save(key, b); err != nil {
			return err
		}
	}
	return nil
}

// change emits the changes of the windows that have some of the fragments that come, but of closed ones only with Final.
func (g *paneGroups) change(key []byte, come []frag) error {
	g.ranges = g.ranges[:0]
	for _, f := range come {
		_, last := g.w.ends(f.pane)
		if g.final {
			last = min(last, g.passed)
		}
		if f.first <= last {
			g.ranges = append(g.ranges, span{f.first, f.first + (last-f.first)/g.w.slide*g.w.slide})
		}
	}
	if len(g.ranges) == 0 {
		return nil
	}
	slices.SortFunc(g.ranges, func(a, b span) int { return sign(a.lo - b.lo) })
	merged := g.ranges[:1]
	for _, r := range g.ranges[1:] {
		if last := &merged[len(merged)-1]; r.lo <= last.hi+g.w.slide {
			last.hi = max(last.hi, r.hi)
		} else {
			merged = append(merged, r)
		}
	}
	if err := g.decodeKey(key); err != nil {
		return err
	}
	for _, r := range merged {
		if err := g.changeRange(key, come, r); err != nil {
			return err
		}
	}
	return nil
}

func (g *paneGroups) changeRange(key []byte, come []frag, r span) error {
	from := g.w.start(r.lo)
	g.old.begin(g)
	for start := floorTo(from, g.block, g.w.offset); start < r.hi; start += g.block {
		b, err := g.load(key, start, true)
		if err != nil {
			return err
		}
		g.old.frags = append(g.old.frags, b.frags...)
	}
	g.new.begin(g)
	g.new.frags = append(append(g.new.frags, g.old.frags...), come...)
	g.old.start()
	g.new.start()
	for end := r.lo; end <= r.hi; end += g.w.slide {
		was, is := g.old.at(end), g.new.at(end)
		if err := g.emitChange(end, was, is); err != nil {
			return err
		}
	}
	return nil
}

// emitChange emits the change of the window from slot was to slot is.
func (g *paneGroups) emitChange(end int64, was, is int) error {
	a := g.a
	before := a.buf.N
	for i, s := range [2]int{was, is} {
		if a.rows[s] <= 0 {
			continue
		}
		if err := g.appendRow(end, s, int64(2*i-1)); err != nil {
			return err
		}
	}
	if a.buf.N == before+2 && a.unchanged(before) {
		a.dropRows(before)
	}
	return g.a.flushBuf()
}

// appendRow appends the window of the decoded key with the results of slot s.
func (g *paneGroups) appendRow(end int64, s int, weight int64) error {
	cols := g.a.buf.Cols
	for k := range g.nk {
		cols[k].AppendFrom(&g.one.Cols[k], 0)
	}
	cols[g.nk].AppendInt(g.w.start(end))
	cols[g.nk+1].AppendInt(end)
	return g.a.appendResults(s, weight)
}

func (g *paneGroups) decodeKey(key []byte) error { return decodeKey(key, g.one) }

// decodeKey sets one to the columns whose ordered encodings key is.
func decodeKey(key []byte, one *record.Delta) error {
	one.Reset()
	var err error
	for k := range one.Cols {
		if key, err = record.DecodeOrdered(key, &one.Cols[k]); err != nil {
			return err
		}
	}
	if len(key) > 0 {
		return corrupted("the key of a group doesn't decode")
	}
	return nil
}

// add adds a fragment to a block.
func (g *paneGroups) add(key []byte, b *paneBlock, f frag) error {
	at, found := slices.BinarySearchFunc(b.frags, f, func(x, y frag) int {
		if x.pane != y.pane {
			return sign(x.pane - y.pane)
		}
		return sign(x.first - y.first)
	})
	if found {
		g.a.addSlot(b.frags[at].slot, f.slot)
		return nil
	}
	slot := g.alloc()
	g.a.addSlot(slot, f.slot)
	b.frags = slices.Insert(b.frags, at, frag{f.pane, f.first, slot})
	if !g.final {
		return nil
	}
	_, last := g.w.ends(f.pane)
	end := g.w.after(f.first, g.passed)
	if end > last {
		return nil
	}
	return g.setDue(end, key)
}

func (g *paneGroups) setDue(end int64, key []byte) error {
	if !g.hasDue || end < g.due {
		g.due, g.hasDue = end, true
	}
	g.key = append(appendTime(append(g.key[:0], g.a.index, paneDue), end), key...)
	return g.a.state.Set(g.key, nil)
}

// alloc returns an empty slot.
func (g *paneGroups) alloc() int {
	s := g.top
	g.top++
	g.a.clearSlot(s, g.top)
	return s
}
