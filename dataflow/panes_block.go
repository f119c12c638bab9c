package dataflow

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// A block's entry: version, the number of its last pane that has something; if the operator keeps sums, the group entry
// of their sum; the number of fragments that missed windows, and these; the others. A fragment is the number of its pane
// in the block, for those that missed windows how many, and its group entry.
const blockVersion = 1

func (g *paneGroups) blockKey(key []byte, start int64) []byte {
	g.key = append(append(g.key[:0], g.a.index, paneBlocks), key...)
	g.key = appendTime(g.key, start)
	return g.key
}

// load returns a block; whole: with all of its fragments, else only what missed windows, and the sum. A block that was
// loaded for the key before is the same one.
func (g *paneGroups) load(key []byte, start int64, whole bool) (*paneBlock, error) {
	for _, b := range g.loaded {
		if b.start == start {
			return b, nil
		}
	}
	b := &paneBlock{start: start, sum: -1}
	v, ok, err := g.a.state.Get(g.blockKey(key, start))
	if err != nil {
		return nil, err
	}
	if ok {
		b.found = true
		g.pending = append(g.pending[:0], v...)
		if !g.decodeBlock(b, g.pending, whole) {
			return nil, corrupted("a block of panes of operator %d doesn't decode", g.a.index)
		}
	}
	g.loaded = append(g.loaded, b)
	return b, nil
}

func (g *paneGroups) decodeBlock(b *paneBlock, v []byte, whole bool) (ok bool) {
	if len(v) == 0 || v[0] != blockVersion {
		return false
	}
	per := uint64(g.block / g.w.pane)
	number := func() (n uint64) {
		n, size := binary.Uvarint(v)
		if ok = size > 0; ok {
			v = v[size:]
		}
		return n
	}
	v = v[1:]
	last := number()
	if !ok || last >= per {
		return false
	}
	b.last = b.start + int64(last)*g.w.pane
	entry := func() (slot int) {
		slot = g.alloc()
		v, ok = g.a.loadSlot(slot, v)
		return slot
	}
	if g.sums {
		if b.sum = entry(); !ok {
			return false
		}
	}
	missed := number()
	for i := uint64(0); ok && (i < missed || whole && len(v) > 0); i++ {
		at, late := number(), uint64(0)
		if ok && i < missed {
			late = number()
		}
		if !ok || at >= per || late > maxWindowsPerRow {
			return false
		}
		f := frag{pane: b.start + int64(at)*g.w.pane}
		f.first, _ = g.w.ends(f.pane)
		f.first += int64(late) * g.w.slide
		f.slot = entry()
		b.frags = append(b.frags, f)
	}
	if !ok {
		return false
	}
	slices.SortFunc(b.frags, func(x, y frag) int {
		if x.pane != y.pane {
			return sign(x.pane - y.pane)
		}
		return sign(x.first - y.first)
	})
	return whole || missed == 0 || len(b.frags) == int(missed)
}

// fold makes regular fragments of those whose missed windows can't be asked for any more, and drops empty ones.
func (g *paneGroups) fold(b *paneBlock) {
	kept := b.frags[:0]
	for _, f := range b.frags {
		if g.a.nothing(f.slot) {
			continue
		}
		if f.first-g.w.slide <= g.horizon {
			f.first, _ = g.w.ends(f.pane)
		}
		if n := len(kept); n > 0 && kept[n-1].pane == f.pane && kept[n-1].first == f.first {
			g.a.addSlot(kept[n-1].slot, f.slot)
			continue
		}
		kept = append(kept, f)
	}
	b.frags = kept
}

func (g *paneGroups) regular(f frag) bool {
	first, _ := g.w.ends(f.pane)
	return f.first == first
}

// save writes a block that was loaded as a whole.
func (g *paneGroups) save(key []byte, b *paneBlock) error {
	g.fold(b)
	if len(b.frags) == 0 {
		if !b.found {
			return nil
		}
		return g.a.state.Delete(g.blockKey(key, b.start))
	}
	last := b.frags[len(b.frags)-1].pane
	v := binary.AppendUvarint(append(g.value[:0], blockVersion), uint64((last-b.start)/g.w.pane))
	missed := 0
	sum := -1
	if g.sums {
		sum = g.alloc()
	}
	for _, f := range b.frags {
		switch {
		case !g.regular(f):
			missed++
		case g.sums:
			g.a.addSlot(sum, f.slot)
		}
	}
	if g.sums {
		v = g.a.storeSlot(v, sum)
	}
	v = binary.AppendUvarint(v, uint64(missed))
	for _, late := range [2]bool{true, false} {
		for _, f := range b.frags {
			if g.regular(f) == late {
				continue
			}
			v = binary.AppendUvarint(v, uint64((f.pane-b.start)/g.w.pane))
			if late {
				first, _ := g.w.ends(f.pane)
				v = binary.AppendUvarint(v, uint64((f.first-first)/g.w.slide))
			}
			v = g.a.storeSlot(v, f.slot)
		}
	}
	g.value = v
	if err := g.a.state.Set(g.blockKey(key, b.start), v); err != nil {
		return err
	}
	if b.found || !g.expire {
		return nil
	}
	_, end := g.w.ends(b.start + g.block - g.w.pane)
	if !g.hasDoom || end < g.doom {
		g.doom, g.hasDoom = end, true
	}
	g.key = append(appendTime(append(g.key[:0], g.a.index, paneDoom), end), key...)
	return g.a.state.Set(appendTime(g.key, b.start), nil)
}

// close emits the windows that end at or below the watermark.
func (g *paneGroups) close() error {
	if !g.final {
		return nil
	}
	done := map[string]int64{} // how far a key's windows are out
	for g.hasDue && g.due <= g.passed {
		keys, err := g.takeDue(paneDue, g.passed, 8)
		if err != nil {
			return err
		}
		for _, k := range keys {
			end, key := readTime(k), k[8:]
			if through, ok := done[string(key)]; ok && through >= end {
				continue
			}
			through, err := g.closeKey(key, end)
			if err != nil {
				return err
			}
			done[string(key)] = through
		}
		if err := g.findFirst(paneDue, &g.due, &g.hasDue); err != nil {
			return err
		}
	}
	return nil
}

// takeDue takes at most chunkRows keys from an index of times at or below mark, and returns what follows (op, kind) of
// each, at least min bytes.
func (g *paneGroups) takeDue(kind byte, mark int64, min int) ([][]byte, error) {
	return takeTimes(g.a.state, []byte{g.a.index, kind}, mark, min)
}

// takeTimes deletes at most chunkRows of the keys that begin with prefix and a time at or below mark, and returns what
// they have after the prefix, which is at least min bytes.
func takeTimes(st State, prefix []byte, mark int64, min int) ([][]byte, error) {
	hi := prefixEnd(prefix)
	if mark < 1<<63-1 {
		hi = appendTime(bytes.Clone(prefix), mark+1)
	}
	var all [][]byte
	err := st.Scan(prefix, hi, func(key, _ []byte) (bool, error) {
		if len(key) < len(prefix)+min {
			return false, corrupted("a time in the state of operator %d doesn't decode", prefix[0])
		}
		all = append(all, bytes.Clone(key))
		return len(all) < chunkRows, nil
	})
	if err != nil {
		return nil, err
	}
	for i, key := range all {
		if err := st.Delete(key); err != nil {
			return nil, err
		}
		all[i] = key[len(prefix):]
	}
	return all, nil
}

// closeKey emits a key's windows from the one that ends at end on, until one has nothing or isn't over, and returns the
// end of the last one that it looked at.
func (g *paneGroups) closeKey(key []byte, end int64) (through int64, err error) {
	base := g.top
	defer func() { g.top = base }()
	g.loaded = g.loaded[:0]
	if err := g.decodeKey(key); err != nil {
		return 0, err
	}
	if end+g.w.slide > g.passed {
		more, err := g.closeOne(key, end)
		if err == nil && more {
			err = g.setDue(end+g.w.slide, bytes.Clone(key))
		}
		return end, err
	}
	g.new.begin(g)
	next := floorTo(g.w.start(end), g.block, g.w.offset)
	lastPane := int64(NoWatermark)
	for ; end <= g.passed; end += g.w.slide {
		for ; next < end; next += g.block {
			b, err := g.load(key, next, true)
			if err != nil {
				return 0, err
			}
			for _, f := range b.frags {
				lastPane = max(lastPane, f.pane)
				g.new.enter(f, g.w.start(end))
			}
		}
		if lastPane < g.w.start(end) {
			return end, nil
		}
		if s := g.new.at(end); g.a.rows[s] > 0 {
			if err := g.appendRow(end, s, 1); err != nil {
				return 0, err
			}
			if err := g.a.flushBuf(); err != nil {
				return 0, err
			}
		}
	}
	if lastPane >= g.w.start(end) {
		return end - g.w.slide, g.setDue(end, bytes.Clone(key))
	}
	return end - g.w.slide, nil
}

// closeOne emits one window, and tells whether the next one has something already.
func (g *paneGroups) closeOne(key []byte, end int64) (more bool, err error) {
	from := g.w.start(end)
	sum := g.alloc()
	lastPane := int64(NoWatermark)
	for start := floorTo(from, g.block, g.w.offset); start < end; start += g.block {
		inside := g.sums && start >= from && start+g.block <= end
		b, err := g.load(key, start, !inside)
		if err != nil {
			return false, err
		}
		if !b.found {
			continue
		}
		if inside {
			lastPane = max(lastPane, b.last)
			g.a.addSlot(sum, b.sum)
		}
		for _, f := range b.frags {
			if f.pane < from || f.pane >= end {
				continue
			}
			lastPane = max(lastPane, f.pane)
			if f.first <= end {
				g.a.addSlot(sum, f.slot)
			}
		}
	}
	if g.a.rows[sum] > 0 {
		if err := g.appendRow(end, sum, 1); err != nil {
			return false, err
		}
		if err := g.a.flushBuf(); err != nil {
			return false, err
		}
	}
	return lastPane >= g.w.start(end+g.w.slide), nil
}

// forget deletes the blocks of which every window is at or below the horizon.
func (g *paneGroups) forget() error {
	for g.hasDoom && g.doom <= g.horizon {
		keys, err := g.takeDue(paneDoom, g.horizon, 16)
		if err != nil {
			return err
		}
		for _, k := range keys {
			n := len(k) - 8
			if err := g.a.state.Delete(g.blockKey(k[8:n], readTime(k[n:]))); err != nil {
				return err
			}
		}
		if err := g.findFirst(paneDoom, &g.doom, &g.hasDoom); err != nil {
			return err
		}
	}
	return nil
}

// sweep combines windows that are asked for in the order of their ends: two stacks, as a queue that keeps a sum is made
// of (Tangwongsan, Hirzel, Schneider: "General incremental sliding-window aggregation", section 3, calls it two-stacks).
// A fragment is added to the sum of the back; when the front is used up it is filled from the back, each pane with
// the sum of itself and those after it. Fragments may come out of order: into the front's sums, as many as there are.
type sweep struct {
	g     *paneGroups
	frags []frag // in order of their first window, those from next on haven't come
	next  int
	front []frag // first is not used; slot is the sum from the pane on
	back  []frag
	sum   int // slot of the back's sum
	total int
}

func (s *sweep) begin(g *paneGroups) {
	*s = sweep{g: g, frags: s.frags[:0], front: s.front[:0], back: s.back[:0], sum: g.alloc(), total: g.alloc()}
}

// start puts the fragments in order.
func (s *sweep) start() {
	slices.SortFunc(s.frags, func(x, y frag) int {
		if x.first != y.first {
			return sign(x.first - y.first)
		}
		return sign(x.pane - y.pane)
	})
}

// enter adds a fragment to those that come, after start or instead of it.
func (s *sweep) enter(f frag, from int64) {
	if f.pane < from {
		return
	}
	at := len(s.frags)
	for at > s.next && (s.frags[at-1].first > f.first || s.frags[at-1].first == f.first && s.frags[at-1].pane > f.pane) {
		at--
	}
	s.frags = slices.Insert(s.frags, at, f)
}

// at returns the slot with the sum of the window that ends at end, valid until the next call.
func (s *sweep) at(end int64) int {
	from, a := s.g.w.start(end), s.g.a
	for len(s.front) > 0 && s.front[0].pane < from {
		s.front = s.front[1:]
	}
	for ; s.next < len(s.frags) && s.frags[s.next].first <= end; s.next++ {
		if f := s.frags[s.next]; f.pane >= from {
			s.come(f)
		}
	}
	if len(s.front) == 0 && slices.ContainsFunc(s.back, func(f frag) bool { return f.pane < from }) {
		s.turn(from)
	}
	a.clearSlot(s.total, s.g.top)
	if len(s.front) > 0 {
		a.addSlot(s.total, s.front[0].slot)
	}
	a.addSlot(s.total, s.sum)
	return s.total
}

func (s *sweep) come(f frag) {
	a := s.g.a
	n := len(s.front)
	if n == 0 || f.pane > s.front[n-1].pane {
		s.back = append(s.back, f)
		a.addSlot(s.sum, f.slot)
		return
	}
	at := 0
	for ; at < n && s.front[at].pane <= f.pane; at++ {
		a.addSlot(s.front[at].slot, f.slot)
	}
	if at > 0 && s.front[at-1].pane == f.pane {
		return
	}
	slot := s.g.alloc()
	a.addSlot(slot, s.front[at].slot)
	a.addSlot(slot, f.slot)
	s.front = slices.Insert(s.front, at, frag{pane: f.pane, slot: slot})
}

// turn makes the back the front.
func (s *sweep) turn(from int64) {
	a := s.g.a
	slices.SortFunc(s.back, func(x, y frag) int { return sign(x.pane - y.pane) })
	s.front = s.front[:0]
	for i := len(s.back) - 1; i >= 0 && s.back[i].pane >= from; i-- {
		if n := len(s.front); n > 0 && s.front[n-1].pane == s.back[i].pane {
			a.addSlot(s.front[n-1].slot, s.back[i].slot)
			continue
		}
		slot := s.g.alloc()
		a.addSlot(slot, s.back[i].slot)
		if n := len(s.front); n > 0 {
			a.addSlot(slot, s.front[n-1].slot)
		}
		s.front = append(s.front, frag{pane: s.back[i].pane, slot: slot})
	}
	slices.Reverse(s.front)
	s.back = s.back[:0]
	a.clearSlot(s.sum, s.g.top)
}
