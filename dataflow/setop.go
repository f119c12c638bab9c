package dataflow

import (
	"encoding/binary"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// setOp is INTERSECT or EXCEPT of two inputs.
//
// State: (op, ordered encoding of the row) is how many of it there are left and right (two varints).
type setOp struct {
	index   byte
	except  bool
	all     bool
	keep    bool
	state   State
	cols    []int
	table   *groupTable
	weights [2][]int64 // of each slot
	rows    *record.Delta
	emitter *emitter
	key     []byte
	entry   []byte
}

// setPort is one of the two inputs.
type setPort struct {
	op   *setOp
	side int
}

func newSetOp(b *builder) (operator, error) {
	for _, in := range b.ins {
		one := *b
		one.in = in
		if err := one.sameSchema(0); err != nil {
			return nil, err
		}
	}
	if len(b.out.schema) == 0 {
		return nil, defect("operator %d has no columns", b.index)
	}
	b.out.distinct = columnsOf(len(b.out.schema))
	return &setOp{
		index: b.index, except: b.op.SetOp.Except, all: b.op.SetOp.All, keep: b.keep, state: b.env.State,
		cols: b.out.distinct, table: newGroupTable(b.out.schema, false), rows: record.NewDelta(b.out.schema, 0),
		emitter: newEmitter(b.out),
	}, nil
}

func (s *setOp) port(i int) port { return &setPort{s, i} }

func (s *setOp) push(*record.Delta) error {
	return defect("operator %d gets rows without an input", s.index)
}

func (p *setPort) push(in *record.Delta) error {
	slots, err := p.op.table.assign(in, p.op.cols)
	if err != nil {
		return err
	}
	for side := range p.op.weights {
		p.op.weights[side] = extend(p.op.weights[side], p.op.table.n)
	}
	addWeights(p.op.weights[p.side], slots, nil, in.Weights)
	return nil
}

// result returns how many of a row there are.
func (s *setOp) result(left, right int64) int64 {
	left, right = max(0, left), max(0, right)
	n := min(left, right)
	if s.except {
		n = left - n
		if !s.all && right > 0 {
			n = 0
		}
	}
	if !s.all {
		n = min(n, 1)
	}
	return n
}

func (s *setOp) endTick(ids.Tick, Marks) error {
	n := s.table.n
	for lo := 0; lo < n; lo += chunkRows {
		hi := min(lo+chunkRows, n)
		s.rows.Reset()
		s.table.appendKeys(s.rows.Cols, lo, hi)
		for slot := lo; slot < hi; slot++ {
			if s.weights[0][slot] == 0 && s.weights[1][slot] == 0 {
				continue
			}
			if err := s.change(slot, slot-lo); err != nil {
				return err
			}
		}
	}
	for side := range s.weights {
		s.weights[side] = shrink(s.weights[side], n)
	}
	s.table.reset()
	for c := range s.rows.Cols {
		s.rows.Cols[c].Reset()
		trim(&s.rows.Cols[c])
	}
	return s.emitter.finish()
}

// change adds the weights of a slot, whose row is row i of s.rows, to those that are stored.
func (s *setOp) change(slot, i int) error {
	left, right := s.weights[0][slot], s.weights[1][slot]
	before := int64(0)
	if s.keep {
		s.key = append(s.key[:0], s.index)
		for c := range s.rows.Cols {
			s.key = record.AppendOrdered(s.key, &s.rows.Cols[c], i)
		}
		v, ok, err := s.state.Get(s.key)
		if err != nil {
			return err
		}
		if ok {
			l, rest, fine := readInt(v)
			r, rest, fine2 := readInt(rest)
			if !fine || !fine2 || len(rest) > 0 {
				return corrupted("an entry of operator %d doesn't decode", s.index)
			}
			before = s.result(l, r)
			left, right = left+l, right+r
		}
		if err := s.store(ok, left, right); err != nil {
			return err
		}
	}
	w := s.result(left, right) - before
	if w == 0 {
		return nil
	}
	for c := range s.rows.Cols {
		s.emitter.rows.Cols[c].AppendFrom(&s.rows.Cols[c], i)
	}
	return s.emitter.wrote(w)
}

func (s *setOp) store(had bool, left, right int64) error {
	if left == 0 && right == 0 {
		if had {
			return s.state.Delete(s.key)
		}
		return nil
	}
	s.entry = binary.AppendVarint(binary.AppendVarint(s.entry[:0], left), right)
	return s.state.Set(s.key, s.entry)
}
