package dataflow

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace/millrace/record"
)

// store brings the group at j.key, of side s, up to date with the tick's rows. Dirty: its rows in memory have new
// numbers of matches.
func (j *join) store(w *joinWork, s int, dirty bool) error {
	side, h, rows := &j.sides[s], &w.head[s], w.delta[s]
	if side.codec.total {
		sum := side.weightOf(rows)
		if side.totalOnly {
			return j.storeTotal(side, h, sum)
		}
		h.total += sum
	}
	if side.dropped && !side.counted && j.present(w, s) {
		return j.drop(h)
	}
	switch {
	case len(rows) == 0 && !dirty:
		return nil
	case h.layout > groupHashed && h.layout <= maxDepth:
		return j.storeHashed(side, h, rows)
	case side.appendOnly && !dirty:
		return j.append(side, h, append(j.entry[:0], j.arena[h.at:h.to]...), rows)
	case side.appendOnly:
		return j.append(side, h, side.keep(j, w.lo[s], w.hi[s]), rows)
	}
	return j.merge(side, h, w.lo[s], w.hi[s], rows)
}

// storeTotal keeps a group that is only a number.
func (j *join) storeTotal(side *joinSide, h *groupHead, sum int64) error {
	if sum == 0 || side.appendOnly && h.total > 0 {
		return nil
	}
	h.total += sum
	if h.total == 0 {
		return j.state.Delete(j.key)
	}
	return j.state.Set(j.key, side.codec.appendHead(j.entry[:0], h))
}

// present tells whether rows of side s of a key aren't needed any more; see joinSide.dropped.
func (j *join) present(w *joinWork, s int) bool {
	other := 1 - s
	if j.sides[s].watched && j.sides[other].codec.total {
		_, after := j.totals(w, s)
		return after > 0
	}
	return w.head[other].there || len(w.delta[other]) > 0
}

// drop deletes a group.
func (j *join) drop(h *groupHead) error {
	if !h.there {
		return nil
	}
	if err := j.eachSegment(h, func(uint32) error { return j.state.Delete(j.key) }); err != nil {
		return err
	}
	return j.state.Delete(j.key)
}

// eachSegment calls fn with j.key set to each segment's key in turn.
func (j *join) eachSegment(h *groupHead, fn func(number uint32) error) error {
	from, to := uint64(0), uint64(0)
	switch {
	case !h.split():
	case h.layout == groupTail:
		from, to = h.first, h.next
	default:
		to = 1 << h.layout
	}
	n := len(j.key)
	for i := from; i < to; i++ {
		j.key = binary.BigEndian.AppendUint32(j.key[:n], uint32(i))
		if err := fn(uint32(i)); err != nil {
			return err
		}
	}
	j.key = j.key[:n]
	return nil
}

// keep appends to j.entry those of the side's stored rows that are to be kept.
func (s *joinSide) keep(j *join, lo, hi int32) []byte {
	out := j.entry[:0]
	for i := lo; i < hi; i++ {
		if r := &s.stored[i]; s.keeps(j, r) {
			out = s.codec.appendRow(out, r, j.arena)
		}
	}
	return out
}

// keeps tells whether a row must be kept.
func (s *joinSide) keeps(j *join, r *groupRow) bool {
	return r.weight != 0 && r.due > j.passed && !(s.dropped && s.counted && r.matches > 0)
}

// encode appends a row of the tick to the arena.
func (j *join) encode(side *joinSide, i int32) groupRow {
	in := &side.delta.rows
	r := groupRow{weight: in.Weights[i], due: never, at: int32(len(j.arena))}
	if side.counted {
		r.matches = side.now.added[i]
	}
	if e := side.expire; e != nil && !in.Cols[e.Col].Null(int(i)) {
		r.due = dueOf(in.Cols[e.Col].Ints[i], e.Delay)
	}
	if len(side.early) > 0 {
		j.arena = record.AppendRow(j.arena, in, side.early, int(i))
	}
	r.late = int32(len(j.arena))
	if len(side.late) > 0 {
		j.arena = record.AppendRow(j.arena, in, side.late, int(i))
	}
	r.to = int32(len(j.arena))
	return r
}

// append adds rows to a group of a side that is only appended to; kept is the rows of its head. It uses j.entry.
func (j *join) append(side *joinSide, h *groupHead, kept []byte, rows []int32) error {
	due := int64(never)
	for _, i := range rows {
		r := j.encode(side, i)
		if side.keeps(j, &r) {
			due = min(due, r.due)
			kept = side.codec.appendRow(kept, &r, j.arena)
		}
		j.arena = j.arena[:r.at]
		if len(kept) <= j.limit {
			continue
		}
		if err := j.writeSegment(uint32(h.next), kept); err != nil {
			return err
		}
		h.layout, kept = groupTail, kept[:0]
		if h.next++; h.next > math.MaxUint32 {
			return defect("operator %d has more than %d segments of one key", j.index, uint32(math.MaxUint32))
		}
	}
	j.entry = kept
	return j.writeHead(side, h, due, kept)
}

// writeSegment writes a segment of the group at j.key.
func (j *join) writeSegment(number uint32, rows []byte) error {
	n := len(j.key)
	j.key = binary.BigEndian.AppendUint32(j.key, number)
	defer func() { j.key = j.key[:n] }()
	if len(rows) == 0 {
		return j.state.Delete(j.key)
	}
	j.head = append(append(j.head[:0], joinVersion), rows...)
	return j.state.Set(j.key, j.head)
}

// writeHead writes the head of the group at j.key, with the given rows, or deletes it if nothing is left. Due is the
// first bucket in which a row expires.
func (j *join) writeHead(side *joinSide, h *groupHead, due int64, rows []byte) error {
	if h.layout == groupTail && h.first == h.next {
		h.layout, h.first, h.next = groupPacked, 0, 0
	}
	if len(rows) == 0 && h.total == 0 && h.layout == groupPacked {
		if h.there {
			return j.state.Delete(j.key)
		}
		return nil
	}
	if side.expire != nil && due < h.due {
		h.due = due
		side.due.add(due, j.key[headBytes:])
	}
	j.head = append(side.codec.appendHead(j.head[:0], h), rows...)
	return j.state.Set(j.key, j.head)
}

// merge adds rows to a group in whose head all rows are.
func (j *join) merge(side *joinSide, h *groupHead, lo, hi int32, rows []int32) error {
	added := j.encodeRows(side, rows)
	all := j.mergeRows(side, side.stored[lo:hi], added)
	return j.writePacked(side, h, all)
}

// encodeRows encodes rows of the tick.
func (j *join) encodeRows(side *joinSide, rows []int32) []groupRow {
	j.added = j.added[:0]
	for _, i := range rows {
		j.added = append(j.added, j.encode(side, i))
	}
	return j.added
}

// mergeRows returns the rows of which the weights don't add up to 0.
func (j *join) mergeRows(side *joinSide, old, added []groupRow) []groupRow {
	all := append(j.merged[:0], old...)
	find := newRowFinder(j, all, len(added))
	for k := range added {
		r := &added[k]
		at := find.find(all, r)
		if at < 0 {
			all = append(all, *r)
			find.put(all, len(all)-1)
			continue
		}
		all[at].weight += r.weight
		all[at].matches = r.matches
	}
	j.merged = all
	return slices.DeleteFunc(all, func(r groupRow) bool { return !side.keeps(j, &r) })
}

// writePacked writes a group of which all rows are in memory.
func (j *join) writePacked(side *joinSide, h *groupHead, rows []groupRow) error {
	due := int64(never)
	j.entry = j.entry[:0]
	for i := range rows {
		due = min(due, rows[i].due)
		j.entry = side.codec.appendRow(j.entry, &rows[i], j.arena)
	}
	size := len(j.entry)
	if size <= j.limit || len(rows) < 2 {
		h.layout, h.bytes = groupPacked, 0
		return j.writeHead(side, h, due, j.entry)
	}
	depth := byte(1)
	for size>>depth > j.hashed/2 && depth < maxDepth {
		depth++
	}
	return j.scatter(side, h, rows, depth, due)
}

// bySegment returns the numbers of rows, which are in j.arena, by their segments at the given depth: each after its segment
// in the upper half, in order.
func (j *join) bySegment(rows []groupRow, depth byte) []uint64 {
	j.places = j.places[:0]
	for i := range rows {
		j.places = append(j.places, uint64(segment(&rows[i], j.arena, depth))<<32|uint64(i))
	}
	slices.Sort(j.places)
	return j.places
}

// scatter writes rows as a hashed group of the given depth.
func (j *join) scatter(side *joinSide, h *groupHead, rows []groupRow, depth byte, due int64) error {
	h.bytes = 0
	for places := j.bySegment(rows, depth); len(places) > 0; {
		number, n := uint32(places[0]>>32), 0
		j.entry = j.entry[:0]
		for ; n < len(places) && uint32(places[n]>>32) == number; n++ {
			j.entry = side.codec.appendRow(j.entry, &rows[uint32(places[n])], j.arena)
		}
		places = places[n:]
		h.bytes += uint64(len(j.entry))
		if err := j.writeSegment(number, j.entry); err != nil {
			return err
		}
	}
	h.layout = groupHashed + depth
	return j.writeHead(side, h, due, nil)
}

// storeHashed adds rows to the segments of a hashed group.
func (j *join) storeHashed(side *joinSide, h *groupHead, rows []int32) error {
	added := j.encodeRows(side, rows)
	depth := h.layout - groupHashed
	due := h.due
	for places := j.bySegment(added, depth); len(places) > 0; {
		number, n := uint32(places[0]>>32), 0
		j.here = j.here[:0]
		for ; n < len(places) && uint32(places[n]>>32) == number; n++ {
			r := added[uint32(places[n])]
			due = min(due, r.due)
			j.here = append(j.here, r)
		}
		places = places[n:]
		from, top := len(side.stored), len(j.arena)
		before, err := j.loadSegment(side, number)
		if err != nil {
			return err
		}
		all := j.mergeRows(side, side.stored[from:], j.here)
		j.entry = j.entry[:0]
		for i := range all {
			j.entry = side.codec.appendRow(j.entry, &all[i], j.arena)
		}
		if h.bytes < uint64(before) {
			return badGroup()
		}
		h.bytes += uint64(len(j.entry)) - uint64(before)
		side.stored, j.arena = side.stored[:from], j.arena[:top]
		if err := j.writeSegment(number, j.entry); err != nil {
			return err
		}
	}
	room := uint64(j.hashed) << depth
	if h.bytes > room && depth < maxDepth || h.bytes < room/8 {
		return j.rehash(side, h, due)
	}
	return j.writeHead(side, h, due, nil)
}

// loadSegment reads a segment of the group at j.key behind the side's stored rows, and returns the bytes of its rows.
func (j *join) loadSegment(side *joinSide, number uint32) (int, error) {
	n := len(j.key)
	j.key = binary.BigEndian.AppendUint32(j.key, number)
	v, ok, err := j.state.Get(j.key)
	j.key = j.key[:n]
	if err != nil || !ok {
		return 0, err
	}
	if len(v) == 0 || v[0] != joinVersion {
		return 0, badGroup()
	}
	at := len(j.arena)
	j.arena = append(j.arena, v[1:]...)
	side.stored, err = side.codec.rows(side.stored, j.arena, at, len(j.arena))
	return len(j.arena) - at, err
}

// rehash gives a hashed group the number of segments that fits what it holds.
func (j *join) rehash(side *joinSide, h *groupHead, due int64) error {
	from := len(side.stored)
	depth := h.layout - groupHashed
	for number := range uint32(1) << depth {
		size, err := j.loadSegment(side, number)
		if err != nil {
			return err
		}
		if size > 0 {
			if err := j.writeSegment(number, nil); err != nil {
				return err
			}
		}
	}
	rows := side.stored[from:]
	defer func() { side.stored = side.stored[:from] }()
	for i := range rows {
		due = min(due, rows[i].due)
	}
	h.layout, h.bytes = groupPacked, 0
	return j.writePacked(side, h, rows)
}

// rowFinder finds a row by its bytes among others.
type rowFinder struct {
	j     *join
	slots map[uint64][]int32 // nil: look at all
}

// newRowFinder returns one for looking up n rows among all and those that put adds.
func newRowFinder(j *join, all []groupRow, n int) rowFinder {
	f := rowFinder{j: j}
	if n*(len(all)+n) > 1<<10 {
		f.slots = make(map[uint64][]int32, len(all)+n)
		for i := range all {
			f.put(all, i)
		}
	}
	return f
}

func (f *rowFinder) put(all []groupRow, i int) {
	if f.slots != nil {
		h := xxhash.Sum64(f.j.arena[all[i].at:all[i].to])
		f.slots[h] = append(f.slots[h], int32(i))
	}
}

func (f *rowFinder) find(all []groupRow, r *groupRow) int {
	v := f.j.arena[r.at:r.to]
	if f.slots != nil {
		for _, i := range f.slots[xxhash.Sum64(v)] {
			if bytes.Equal(f.j.arena[all[i].at:all[i].to], v) {
				return int(i)
			}
		}
		return -1
	}
	for i := range all {
		if bytes.Equal(f.j.arena[all[i].at:all[i].to], v) {
			return i
		}
	}
	return -1
}
