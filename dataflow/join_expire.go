package dataflow

// expire forgets the rows whose bucket has passed.
func (j *join) expire() error {
	for s := range j.sides {
		side := &j.sides[s]
		if side.expire == nil {
			continue
		}
		err := side.due.expire(j.passed, func(bucket int64, group []byte) error {
			j.key = append(append(j.key[:0], j.index, byte(1+side.index)), group...)
			return j.expireGroup(side, bucket)
		})
		if err != nil {
			return err
		}
	}
	j.forget()
	return nil
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
