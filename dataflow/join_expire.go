package dataflow

import (
	"encoding/binary"
	"slices"
)

// dueList is the groups that were given a bucket in which a row expires, since they were last written:
// by bucket, each key after its length.
type dueList struct {
	space   byte
	buckets []int64
	keys    [][]byte
}

// add lists a group, by its key without the operator and side.
func (l *dueList) add(bucket int64, key []byte) {
	i, ok := slices.BinarySearch(l.buckets, bucket)
	if !ok {
		l.buckets = slices.Insert(l.buckets, i, bucket)
		l.keys = slices.Insert(l.keys, i, nil)
	}
	l.keys[i] = append(binary.AppendUvarint(l.keys[i], uint64(len(key))), key...)
}

// maxDueBytes is the bytes of one entry of a list of groups.
const maxDueBytes = 64 << 10

// writeDue stores the groups that were listed in this tick.
func (j *join) writeDue(side *joinSide) error {
	l := &side.due
	for i, bucket := range l.buckets {
		for number, rest := uint32(0), l.keys[i]; len(rest) > 0; number++ {
			n := 0
			for n < len(rest) && n < maxDueBytes {
				size, m := binary.Uvarint(rest[n:])
				n += m + int(size)
			}
			j.key = l.appendKey(j.key[:0], j.index, bucket)
			j.key = binary.BigEndian.AppendUint64(j.key, uint64(j.tick))
			j.key = binary.BigEndian.AppendUint32(j.key, number)
			if err := j.state.Set(j.key, rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
	}
	l.buckets, l.keys = l.buckets[:0], l.keys[:0]
	return nil
}

// appendKey appends the beginning of the keys of a bucket's lists.
func (l *dueList) appendKey(dst []byte, index byte, bucket int64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, index, l.space), uint64(bucket)^1<<63)
}

// expire forgets the rows whose bucket has passed.
func (j *join) expire() error {
	for s := range j.sides {
		if j.sides[s].expire == nil {
			continue
		}
		for more := true; more; {
			var err error
			if more, err = j.expireList(&j.sides[s]); err != nil {
				return err
			}
		}
	}
	return nil
}

// expireList takes the first list that has passed, and tells whether there was one.
func (j *join) expireList(side *joinSide) (bool, error) {
	lo := []byte{j.index, side.due.space}
	hi := []byte{j.index, side.due.space + 1}
	if j.passed < never {
		hi = side.due.appendKey(nil, j.index, j.passed+1)
	}
	var key, list []byte
	err := j.state.Scan(lo, hi, func(k, v []byte) (bool, error) {
		key, list = slices.Clone(k), slices.Clone(v)
		return false, nil
	})
	if err != nil || key == nil {
		return false, err
	}
	if len(key) != 2+8+8+4 {
		return false, corrupted("a list of operator %d has a key that doesn't decode", j.index)
	}
	bucket := int64(binary.BigEndian.Uint64(key[2:]) ^ 1<<63)
	for len(list) > 0 {
		group, rest, ok := readBytes(list)
		if !ok {
			return false, corrupted("a list of operator %d doesn't decode", j.index)
		}
		j.key = append(append(j.key[:0], j.index, byte(1+side.index)), group...)
		if err := j.expireGroup(side, bucket); err != nil {
			return false, err
		}
		list = rest
	}
	j.forget()
	return true, j.state.Delete(key)
}

// expireGroup forgets rows of the group at j.key, if it is the given bucket that it is listed under.
func (j *join) expireGroup(side *joinSide, bucket int64) error {
	j.forget()
	h, err := j.readHead(side)
	if err != nil || !h.there || h.due != bucket {
		return err
	}
	h.due = never
	if h.layout != groupPacked && h.layout != groupTail {
		return j.rehash(side, &h, never)
	}
	due, first := int64(never), uint64(never)
	err = j.eachSegment(&h, func(number uint32) error {
		key := j.key
		j.key = j.key[:len(j.key)-4]
		last, err := j.lastDue(side, number)
		j.key = key
		switch {
		case err != nil:
			return err
		case last <= j.passed:
			return j.state.Delete(j.key)
		}
		due, first = min(due, last), min(first, uint64(number))
		return nil
	})
	if err != nil {
		return err
	}
	h.first = min(first, h.next)
	from := len(side.stored)
	if side.stored, err = side.codec.rows(side.stored, j.arena, h.at, h.to); err != nil {
		return err
	}
	to := len(side.stored)
	for i := from; i < to; i++ {
		if r := &side.stored[i]; side.keeps(j, r) {
			due = min(due, r.due)
		}
	}
	j.entry = side.keep(j, int32(from), int32(to))
	return j.writeHead(side, &h, due, j.entry)
}

// lastDue returns the last bucket of the rows of a segment, which may be forgotten as a whole then.
func (j *join) lastDue(side *joinSide, number uint32) (int64, error) {
	from, at := len(side.stored), len(j.arena)
	if _, err := j.loadSegment(side, number); err != nil {
		return 0, err
	}
	last := int64(-never)
	for i := from; i < len(side.stored); i++ {
		last = max(last, side.stored[i].due)
	}
	side.stored, j.arena = side.stored[:from], j.arena[:at]
	return last, nil
}
