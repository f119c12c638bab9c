package dataflow

import "encoding/binary"

// probeLarge handles a key of which a group is large: its segments go through memory a few at a time.
func (j *join) probeLarge(slot int) error {
	if err := j.finishBatch(); err != nil {
		return err
	}
	w := joinWork{slot: slot, base: [2]int32{-1, -1}}
	for s := range j.sides {
		w.delta[s] = j.sides[s].rowsOf(slot)
	}
	if err := j.load(&w); err != nil {
		return err
	}
	var before, after [2]int64
	for s := range j.sides {
		before[s], after[s] = j.totals(&w, s)
	}
	for s := range j.sides {
		side := &j.sides[s]
		turned := side.watched && !side.counted && (before[s] > 0) != (after[s] > 0)
		if side.totalOnly || side.transient || !turned && (!j.pairing() || len(w.delta[1-s]) == 0) {
			continue
		}
		if err := j.probeSegments(&w, s, before[s], after[s]); err != nil {
			return err
		}
	}
	if j.pairing() {
		if err := j.addPairs(&j.lists[0], w.delta[0], w.delta[1]); err != nil {
			return err
		}
	}
	if err := j.flushPairs(); err != nil {
		return err
	}
	for s := range j.sides {
		if side := &j.sides[s]; side.watched {
			if err := j.settleNow(side, w.delta[s], after[s]); err != nil {
				return err
			}
		}
	}
	if err := j.flushLone(); err != nil {
		return err
	}
	return j.storeLarge(&w)
}

// storeLarge stores both groups of a key, of which what is in memory is out of date.
func (j *join) storeLarge(w *joinWork) error {
	// Whether rows are dropped depends on the other group as it was.
	heads := w.head
	for s := range j.sides {
		if j.sides[s].transient {
			continue
		}
		j.forget()
		j.keyOf(w.slot, s)
		if err := j.loadHead(w, s); err != nil {
			return err
		}
		h := &w.head[s]
		w.head[1-s].there, w.head[1-s].total = heads[1-s].there, heads[1-s].total
		w.lo[s], w.hi[s], w.base[s] = 0, 0, -1
		side := &j.sides[s]
		if h.there && h.layout == groupPacked && !side.totalOnly {
			var err error
			if side.stored, err = side.codec.rows(side.stored, j.arena, h.at, h.to); err != nil {
				return err
			}
			w.hi[s] = int32(len(side.stored))
		}
		if err := j.store(w, s, false); err != nil {
			return err
		}
	}
	j.forget()
	return nil
}

// probeSegments finds the pairs of side s of a key with the rows of the other one that came, and settles its rows.
func (j *join) probeSegments(w *joinWork, s int, before, after int64) error {
	side, h := &j.sides[s], w.head[s]
	j.forget()
	j.segs = j.segs[:0]
	numbers := []int64{-1}
	if h.split() {
		j.keyOf(w.slot, s)
		err := j.eachSegment(&h, func(number uint32) error {
			numbers = append(numbers, int64(number))
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, number := range numbers {
		if err := j.probeSegment(w, s, number); err != nil {
			return err
		}
		if len(j.arena) > maxArena || len(side.old.of) >= chunkRows {
			if err := j.settleSegments(w, s, before, after); err != nil {
				return err
			}
		}
	}
	return j.settleSegments(w, s, before, after)
}

// probeSegment reads one segment (-1: the head's rows) and adds its pairs.
func (j *join) probeSegment(w *joinWork, s int, number int64) error {
	side := &j.sides[s]
	ref := segRef{number: number, lo: int32(len(side.stored))}
	j.keyOf(w.slot, s)
	var err error
	if number < 0 {
		head := joinWork{}
		if err := j.loadHead(&head, s); err != nil {
			return err
		}
		h := &head.head[s]
		if h.there {
			side.stored, err = side.codec.rows(side.stored, j.arena, h.at, h.to)
		}
	} else {
		_, err = j.loadSegment(side, uint32(number))
	}
	if err != nil {
		return err
	}
	ref.hi = int32(len(side.stored))
	if ref.base, err = j.decode(side, w.slot, ref.lo, ref.hi); err != nil {
		return err
	}
	j.segs = append(j.segs, ref)
	if !j.pairing() {
		return nil
	}
	rows := j.sequence(ref.base, ref.hi-ref.lo)
	if s == 0 {
		return j.addPairs(&j.lists[2], rows, w.delta[1])
	}
	return j.addPairs(&j.lists[1], w.delta[0], rows)
}

// settleSegments emits what changed in the segments that are in memory, and writes those with new numbers of matches.
func (j *join) settleSegments(w *joinWork, s int, before, after int64) error {
	if err := j.flushPairs(); err != nil {
		return err
	}
	side := &j.sides[s]
	for _, ref := range j.segs {
		if !side.watched {
			break
		}
		dirty, err := j.settleOld(side, ref.base, ref.lo, ref.hi, before, after)
		if err != nil {
			return err
		}
		if !dirty {
			continue
		}
		if err := j.rewrite(w, s, ref); err != nil {
			return err
		}
	}
	if err := j.flushLone(); err != nil {
		return err
	}
	j.segs = j.segs[:0]
	j.forget()
	return nil
}

// rewrite writes a segment whose rows are in memory. All rows stay, so that a hashed group's size is as it was, about.
func (j *join) rewrite(w *joinWork, s int, ref segRef) error {
	side := &j.sides[s]
	j.keyOf(w.slot, s)
	h, err := j.readHead(side)
	if err != nil {
		return err
	}
	j.entry = j.entry[:0]
	for i := ref.lo; i < ref.hi; i++ {
		j.entry = side.codec.appendRow(j.entry, &side.stored[i], j.arena)
	}
	if ref.number < 0 {
		j.head = append(side.codec.appendHead(j.head[:0], &h), j.entry...)
		return j.state.Set(j.key, j.head)
	}
	if h.layout != groupTail {
		size, err := j.segmentBytes(uint32(ref.number))
		if err != nil {
			return err
		}
		h.bytes += uint64(len(j.entry)) - uint64(size)
		j.head = side.codec.appendHead(j.head[:0], &h)
		if err := j.state.Set(j.key, j.head); err != nil {
			return err
		}
	}
	return j.writeSegment(uint32(ref.number), j.entry)
}

// readHead decodes the head of the group at j.key; its rows stay behind in the arena.
func (j *join) readHead(side *joinSide) (groupHead, error) {
	v, ok, err := j.state.Get(j.key)
	if err != nil || !ok {
		return groupHead{due: never}, err
	}
	at := len(j.arena)
	j.arena = append(j.arena, v...)
	return side.codec.head(j.arena, at)
}

// segmentBytes returns the bytes of the rows of a segment of the group at j.key.
func (j *join) segmentBytes(number uint32) (int, error) {
	n := len(j.key)
	j.key = binary.BigEndian.AppendUint32(j.key, number)
	v, ok, err := j.state.Get(j.key)
	j.key = j.key[:n]
	if err != nil || !ok {
		return 0, err
	}
	return len(v) - 1, nil
}
