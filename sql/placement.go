package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// distribution says which partition rows are in.
type distribution struct {
	kind distKind
	// cols is what rows are hashed by; columns of one position are equal.
	cols [][]int
}

type distKind uint8

const (
	distSpread distKind = iota // anywhere
	distHash                   // by the hash of columns
	distSingle                 // all in partition 0, or at the node that was asked
)

// serves tells whether rows that are equal in keys meet: where each column that they are hashed by is a key or equal to
// one, or is told by one, as one bound of a window of fixed size tells the other.
func (p *planner) serves(s *stream, keys []int) bool {
	if s.dist.kind != distHash {
		return s.dist.serves(keys)
	}
	known := slices.Clone(keys)
	for _, id := range keys {
		if w := p.a.cols.of(id).window; w != nil && w.size > 0 && w.twin != 0 {
			known = append(known, w.twin)
		}
	}
	return s.dist.serves(known)
}

// serves tells whether rows that are equal in keys meet.
func (d distribution) serves(keys []int) bool {
	switch d.kind {
	case distSingle:
		return true
	case distHash:
		for _, same := range d.cols {
			if !slices.ContainsFunc(same, func(id int) bool { return slices.Contains(keys, id) }) {
				return false
			}
		}
		return true
	}
	return false
}

func hashed(ids []int) distribution {
	if len(ids) == 0 {
		return distribution{kind: distSingle}
	}
	d := distribution{kind: distHash}
	for _, id := range ids {
		d.cols = append(d.cols, []int{id})
	}
	return d
}

// stay closes the stream's stage and begins another that reads it without moving rows.
func (p *planner) stay(s *stream) {
	x := plan.Exchange{Key: []int{}, Local: true}
	if s.dist.kind == distHash {
		for _, same := range s.dist.cols {
			at := slices.IndexFunc(same, func(id int) bool { _, ok := s.pos[id]; return ok })
			if at < 0 {
				x.Key = []int{}
				break
			}
			x.Key = append(x.Key, s.pos[same[at]])
		}
	}
	p.move(s, x)
}

// placedBy is where the rows of a view with these columns are.
func placedBy(placed *plan.Placed, cols []int) distribution {
	if placed == nil {
		return distribution{}
	}
	d := hashed(nil)
	for _, same := range placed.Cols {
		d.kind = distHash
		ids := make([]int, len(same))
		for i, at := range same {
			ids[i] = cols[at]
		}
		d.cols = append(d.cols, ids)
	}
	return d
}

// placed says where a view's rows are, if the columns that tell it are all among its outputs.
func (s *stream) placed(q *query) *plan.Placed {
	if s.dist.kind == distSpread {
		return nil
	}
	out := &plan.Placed{Cols: [][]int{}}
	for _, same := range s.dist.cols {
		var at []int
		for i, o := range q.outs {
			if slices.Contains(same, o.id) {
				at = append(at, i)
			}
		}
		if at == nil {
			return nil
		}
		out.Cols = append(out.Cols, at)
	}
	return out
}

// equate notes columns that are equal in all rows for which preds are true to those that rows are hashed by. NULL isn't equal
// to NULL: such rows are dropped.
func (s *stream) equate(preds []*node) {
	for _, n := range preds {
		if n.kind == plan.ExprCall && n.fn == "eq" && n.args[0].kind == plan.ExprCol && n.args[1].kind == plan.ExprCol && n.args[0].typ != record.JSONB {
			s.dist = s.dist.with(n.args[0].col, n.args[1].col).with(n.args[1].col, n.args[0].col)
		}
	}
}

// with notes that column other is equal to id in all rows.
func (d distribution) with(id, other int) distribution {
	out := distribution{kind: d.kind}
	for _, same := range d.cols {
		if slices.Contains(same, id) && !slices.Contains(same, other) {
			same = append(slices.Clone(same), other)
		}
		out.cols = append(out.cols, same)
	}
	return out
}

// unionPlaced returns where the rows of a union are: by the hash of its columns, where those of all branches are by the hash
// of what these columns are there, in one order.
func (p *planner) unionPlaced(b *branchesRel, streams []*stream) distribution {
	first := streams[0].dist
	for _, s := range streams[1:] {
		if s.dist.kind != first.kind || len(s.dist.cols) != len(first.cols) {
			return distribution{}
		}
	}
	out := distribution{kind: first.kind}
	for c := range first.cols {
		var ids []int
		for i, id := range b.cols {
			all := true
			for k, s := range streams {
				all = all && slices.Contains(s.dist.cols[c], b.from[k][i])
			}
			if all {
				ids = append(ids, id)
			}
		}
		if ids == nil {
			return distribution{}
		}
		out.cols = append(out.cols, ids)
	}
	return out
}

// rowsMeet brings equal rows of both sides of a set operation to one place: a side stays that is hashed by some of its
// columns already. It returns where the result is.
func (p *planner) rowsMeet(b *branchesRel, streams []*stream) distribution {
	stays := func(k int) {
		p.stateful(streams[k], setOf(b.from[k]))
		p.project(streams[k], b.from[k], nil) // a column that is there twice went once
	}
	if !p.live || streams[0].dist.kind == distSingle && streams[1].dist.kind == distSingle {
		for k, s := range streams {
			if stays(k); !p.live {
				p.gather(s, setOf(b.from[k]))
				p.project(s, b.from[k], nil)
			}
		}
		return distribution{kind: distSingle}
	}
	by := identity(len(b.cols))
	for k, s := range streams {
		if at, ok := s.placedAt(b.from[k]); ok {
			by = at
			break
		}
	}
	for k, s := range streams {
		if at, ok := s.placedAt(b.from[k]); ok && slices.Equal(at, by) {
			stays(k)
		} else {
			p.move(s, plan.Exchange{Key: by})
		}
	}
	ids := make([]int, len(by))
	for i, at := range by {
		ids[i] = b.cols[at]
	}
	return hashed(ids)
}

// placedAt returns which of ids, in order, the stream's rows are hashed by already.
func (s *stream) placedAt(ids []int) ([]int, bool) {
	if s.dist.kind != distHash {
		return nil, false
	}
	var by []int
	for _, same := range s.dist.cols {
		k := slices.IndexFunc(ids, func(id int) bool { return slices.Contains(same, id) })
		if k < 0 {
			return nil, false
		}
		by = append(by, k)
	}
	return by, true
}
