package dataflow

import "github.com/millrace/millrace/record"

// addPairs adds every pair of left and right to p, and emits those of p whenever they are a chunk.
func (j *join) addPairs(p *pairList, left, right []int32) error {
	if len(left) == 0 || len(right) == 0 {
		return nil
	}
	// The longer one is copied, the shorter one repeated.
	if len(left) > len(right) {
		for _, r := range right {
			for rest := left; len(rest) > 0; {
				n := min(len(rest), chunkRows-len(p.left))
				p.left = append(p.left, rest[:n]...)
				p.right = appendRepeated(p.right, r, n)
				rest = rest[n:]
				if err := j.flushFull(p); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, l := range left {
		for rest := right; len(rest) > 0; {
			n := min(len(rest), chunkRows-len(p.left))
			p.right = append(p.right, rest[:n]...)
			p.left = appendRepeated(p.left, l, n)
			rest = rest[n:]
			if err := j.flushFull(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func appendRepeated(dst []int32, v int32, n int) []int32 {
	for range n {
		dst = append(dst, v)
	}
	return dst
}

func (j *join) flushFull(p *pairList) error {
	if len(p.left) < chunkRows {
		return nil
	}
	return j.emitPairs(p)
}

func (j *join) flushPairs() error {
	for i := range j.lists {
		if err := j.emitPairs(&j.lists[i]); err != nil {
			return err
		}
	}
	return nil
}

// emitPairs emits those of p's pairs for which the residual is true, and empties p.
func (j *join) emitPairs(p *pairList) error {
	if len(p.left) == 0 {
		return nil
	}
	p.weigh()
	if j.residual != nil {
		j.filterPairs(p)
	}
	for s, of := range [2][]int32{p.left, p.right} {
		if !j.sides[s].counted {
			continue
		}
		other, added := p.from[1-s].rows.Weights, p.from[s].added
		others := p.right
		if s == 1 {
			others = p.left
		}
		for i, row := range of {
			added[row] += other[others[i]]
		}
	}
	var err error
	if j.pairs && len(p.left) > 0 {
		err = j.gatherPairs(p)
	}
	p.left, p.right, p.weights = p.left[:0], p.right[:0], p.weights[:0]
	return err
}

// weigh sets the weights of the pairs.
func (p *pairList) weigh() {
	left, right := p.from[0].rows.Weights, p.from[1].rows.Weights
	p.weights = resize(p.weights, len(p.left))
	for i, l := range p.left {
		p.weights[i] = left[l] * right[p.right[i]]
	}
}

// filterPairs keeps the pairs for which the residual is true.
func (j *join) filterPairs(p *pairList) {
	width := j.sides[1].first
	for _, c := range j.reads {
		if c < width {
			gather(&j.cand.Cols[c], &p.from[0].rows.Cols[c], p.left)
		} else {
			gather(&j.cand.Cols[c], &p.from[1].rows.Cols[c-width], p.right)
		}
	}
	j.cand.N, j.cand.Weights = len(p.left), p.weights
	v := j.residual.eval(&j.cand)
	if v.scalar() {
		if v.null(0) || !v.col.Bools[0] {
			p.left, p.right, p.weights = p.left[:0], p.right[:0], p.weights[:0]
		}
		return
	}
	j.pick = trueRows(j.pick[:0], v.col)
	if len(j.pick) == len(p.left) {
		return
	}
	for to, from := range j.pick {
		p.left[to], p.right[to], p.weights[to] = p.left[from], p.right[from], p.weights[from]
	}
	n := len(j.pick)
	p.left, p.right, p.weights = p.left[:n], p.right[:n], p.weights[:n]
}

// gatherPairs emits p's pairs.
func (j *join) gatherPairs(p *pairList) error {
	if err := j.gatherSide(&j.sides[0], p.from[0], p.left); err != nil {
		return err
	}
	if err := j.gatherSide(&j.sides[1], p.from[1], p.right); err != nil {
		return err
	}
	return j.emitRows(p.weights)
}

// gatherSide sets the side's columns of the output to rows of src.
func (j *join) gatherSide(side *joinSide, src *joinSource, rows []int32) error {
	late := false
	for c := range src.rows.Cols {
		out := side.first + c
		to := &j.rows.Cols[out]
		switch {
		case !j.out.need[out]:
			to.Type = src.rows.Cols[c].Type
		case src.isLate != nil && src.isLate[c]:
			late = true
		default:
			gather(to, &src.rows.Cols[c], rows)
		}
	}
	if !late {
		return nil
	}
	j.pick = resize(j.pick, len(rows))
	for i, row := range rows {
		at := src.lateAt[row]
		if at < 0 {
			at = int32(src.late.N)
			r := &side.stored[src.of[row]]
			if err := record.DecodeRow(j.arena[r.late:r.to], src.late, side.late); err != nil {
				return err
			}
			src.late.N++
			src.lateAt[row] = at
		}
		j.pick[i] = at
	}
	for _, c := range side.late {
		if out := side.first + c; j.out.need[out] {
			gather(&j.rows.Cols[out], &src.late.Cols[c], j.pick)
		}
	}
	return nil
}

// emitRows emits the rows whose columns are in j.rows.
func (j *join) emitRows(weights []int64) error {
	j.rows.N, j.rows.Weights = len(weights), nil
	for _, w := range weights {
		if w != 1 {
			j.rows.Weights = weights
			break
		}
	}
	return j.out.emit(&j.rows)
}

// addLone adds a row of a watched side to those that come out without a partner.
func (j *join) addLone(side *joinSide, src *joinSource, row int32, weight int64) error {
	p := &src.lone
	p.left, p.weights = append(p.left, row), append(p.weights, weight)
	if len(p.left) < chunkRows {
		return nil
	}
	return j.emitLone(side, src)
}

func (j *join) flushLone() error {
	for s := range j.sides {
		side := &j.sides[s]
		for _, src := range []*joinSource{&side.now, &side.old} {
			if err := j.emitLone(side, src); err != nil {
				return err
			}
		}
	}
	return nil
}

// emitLone emits rows of one side, with NULLs for the other one if the join is of pairs.
func (j *join) emitLone(side *joinSide, src *joinSource) error {
	p := &src.lone
	if len(p.left) == 0 {
		return nil
	}
	if err := j.gatherSide(side, src, p.left); err != nil {
		return err
	}
	if j.pairs {
		other := &j.sides[1-side.index]
		for c := range other.need {
			if out := other.first + c; j.out.need[out] {
				setNulls(&j.rows.Cols[out], j.out.schema[out].Type, len(p.left))
			} else {
				j.rows.Cols[out].Type = j.out.schema[out].Type
			}
		}
	}
	err := j.emitRows(p.weights)
	p.left, p.weights = p.left[:0], p.weights[:0]
	return err
}

// setNulls sets c to n NULLs.
func setNulls(c *record.Column, t record.Type, n int) {
	c.Type = t
	c.Reset()
	prepare(c, n)
	c.Validity = make(record.Bitmap, (n+7)>>3)
	if t.Varlen() {
		clear(c.Offsets)
		return
	}
	zeroNulls(c)
}
