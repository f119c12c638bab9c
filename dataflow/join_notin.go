package dataflow

import (
	"encoding/binary"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// notIn is what NOT IN without a residual needs besides an anti join in which NULLs are equal: a left row with a NULL key is
// kept only while the right side is empty, any other one only while the right side has no NULL, either.
type notIn struct {
	was, is notInSums
	seen    map[string]bool // the keys of the tick, if other groups have to be looked at
}

// notInSums is the weight of the right side's rows, and of those with a NULL key.
type notInSums struct{ all, nulls int64 }

// notInResidual returns the residual of a NOT IN that has one already as a join without keys: of a left row l and a right row r, that
// l = r is true or NULL.
func notInResidual(p *plan.Join, left, right record.Schema) *plan.Expr {
	column := func(s record.Schema, c, shift int) plan.Expr {
		e := plan.Expr{Kind: plan.ExprCol, Col: c + shift}
		if c >= 0 && c < len(s) {
			e.Type = s[c].Type
		}
		return e
	}
	l, r := column(left, p.LeftKeys[0], 0), column(right, p.RightKeys[0], len(left))
	equal := plan.Expr{Kind: plan.ExprCall, Type: record.Boolean, Func: "eq", Args: []plan.Expr{l, r}}
	maybe := plan.Expr{Kind: plan.ExprCoal, Type: record.Boolean, Args: []plan.Expr{equal,
		{Kind: plan.ExprConst, Type: record.Boolean, Const: &record.Value{Type: record.Boolean, Int: 1}}}}
	return &plan.Expr{Kind: plan.ExprAnd, Type: record.Boolean, Args: []plan.Expr{maybe, *p.Residual}}
}

// totals returns whether a left row has to go, as numbers above 0, given the weight of the right rows of its key.
func (n *notIn) totals(before, after int64, null bool) (int64, int64) {
	if null {
		return n.was.all, n.is.all
	}
	return n.was.of(before), n.is.of(after)
}

func (s *notInSums) of(matches int64) int64 {
	if s.nulls > 0 {
		return 1
	}
	return matches
}

// startNotIn finds what becomes of the right side's sums.
func (j *join) startNotIn() error {
	n := j.not
	n.was, n.seen = notInSums{}, nil
	if j.keep {
		v, ok, err := j.state.Get([]byte{j.index, 0})
		if err != nil {
			return err
		}
		if ok {
			var rest []byte
			if n.was.all, rest, ok = readInt(v); ok {
				n.was.nulls, rest, ok = readInt(rest)
			}
			if !ok || len(rest) > 0 {
				return corrupted("the sums of operator %d don't decode", j.index)
			}
		}
	}
	n.is = n.was
	right := &j.sides[1].delta.rows
	key := &right.Cols[j.sides[1].keys[0]]
	for i, w := range right.Weights {
		n.is.all += w
		if key.Null(i) {
			n.is.nulls += w
		}
	}
	if !j.keep || n.is == n.was {
		return nil
	}
	if (n.was.nulls > 0) != (n.is.nulls > 0) || (n.was.all > 0) != (n.is.all > 0) {
		n.seen = map[string]bool{}
		for slot := range j.table.n {
			if len(j.sides[0].rowsOf(slot))+len(j.sides[1].rowsOf(slot)) > 0 {
				j.keyOf(slot, 0)
				n.seen[string(j.key)] = true
			}
		}
	}
	value := binary.AppendVarint(binary.AppendVarint(nil, n.is.all), n.is.nulls)
	return j.state.Set([]byte{j.index, 0}, value)
}

// finishNotIn looks at the left side's groups that the tick's rows have not touched, if the right side became empty or stopped being
// so, or got its first or lost its last NULL.
func (j *join) finishNotIn() error {
	n := j.not
	if n.seen == nil {
		return nil
	}
	lo := []byte{j.index, 1}
	if (n.was.nulls > 0) == (n.is.nulls > 0) {
		// Only left rows with a NULL key ask whether there are any right rows.
		lo = append(lo, orderedNull)
	}
	for lo != nil {
		var keys [][]byte
		bytes := 0
		err := j.state.Scan(lo, []byte{j.index, 2}, func(key, _ []byte) (bool, error) {
			keys = append(keys, append([]byte(nil), key...))
			bytes += len(key)
			return bytes < maxArena, nil
		})
		if err != nil {
			return err
		}
		lo = nil
		for _, key := range keys {
			if err := j.turn(key); err != nil {
				return err
			}
			lo = append(append(lo[:0], key...), 0)
		}
	}
	n.seen = nil
	return nil
}

// orderedNull is the ordered encoding of a NULL.
const orderedNull = 0xff

// turn handles the left group at key.
func (j *join) turn(key []byte) error {
	column := &j.keyCols.Cols[0]
	rest, err := record.DecodeOrdered(key[headBytes:], column)
	if err != nil {
		return err
	}
	slot := column.N - 1
	defer func() { truncate(column, slot) }()
	if len(rest) > 0 || j.not.seen[string(key)] {
		return nil // a segment, or done already
	}
	w := joinWork{slot: slot}
	if err := j.load(&w); err != nil {
		return err
	}
	before, after := j.totals(&w, 0)
	if (before > 0) == (after > 0) {
		j.forget()
		return nil
	}
	return j.probeSegments(&w, 0, before, after)
}
