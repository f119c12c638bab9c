package dataflow

import (
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// implNot is NOT.
var implNot = impl{safe: true, make: func() kernel {
	return func(c *call) {
		in := c.args[0].col.Bools
		for i := range c.out.Bools {
			c.out.Bools[i] = !in[i]
		}
	}
}}

// logic is AND or OR: from left to right, an argument is evaluated only for the rows that the ones before it haven't
// decided, unless it is safe.
type logic struct {
	args    []expression
	decider bool // the value that decides: false for AND, true for OR
	out     record.Column
	valid   record.Bitmap
	state   []byte
	open    []int32
	subs    []subset
}

// States of a row.
const (
	stateOpen = iota // no argument was NULL or decided
	stateNull        // one was NULL, none decided
	stateDecided
)

func newLogic(e *plan.Expr, args []expression) (expression, error) {
	if len(args) == 0 {
		return nil, defect("%s without arguments", e.Kind)
	}
	l := &logic{args: args, decider: e.Kind == plan.ExprOr}
	for _, a := range args {
		if a.typ() != record.Boolean {
			return nil, defect("%s takes booleans, not %s", e.Kind, a.typ())
		}
		l.subs = append(l.subs, newSubset(a))
	}
	l.out.Type = record.Boolean
	return l, nil
}

func (l *logic) typ() record.Type { return record.Boolean }

func (l *logic) safe() bool {
	for _, a := range l.args {
		if !a.safe() {
			return false
		}
	}
	return true
}

func (l *logic) columns(fn func(int)) {
	for _, a := range l.args {
		a.columns(fn)
	}
}

func (l *logic) trim() {
	for i, a := range l.args {
		a.trim()
		l.subs[i].trim()
	}
}

func (l *logic) eval(in *record.Delta) vector {
	l.state = resize(l.state, in.N)
	clear(l.state)
	undecided := in.N
	for k, a := range l.args {
		if undecided == 0 {
			break
		}
		if undecided == in.N || a.safe() {
			l.dense(a.eval(in))
		} else {
			l.sparse(&l.subs[k], in)
		}
		undecided = 0
		for _, s := range l.state {
			if s != stateDecided {
				undecided++
			}
		}
	}
	return l.result(in.N)
}

// dense takes the values of an argument for all rows.
func (l *logic) dense(v vector) {
	if v.scalar() {
		switch {
		case v.null(0):
			for i := range l.state {
				l.state[i] = max(l.state[i], stateNull)
			}
		case v.col.Bools[0] == l.decider:
			fill(l.state, stateDecided)
		}
		return
	}
	for i, b := range v.col.Bools[:len(l.state)] {
		if v.col.Validity != nil && !v.col.Validity.Valid(i) {
			l.state[i] = max(l.state[i], stateNull)
		} else if b == l.decider {
			l.state[i] = stateDecided
		}
	}
}

// sparse evaluates an argument for the rows that aren't decided.
func (l *logic) sparse(sub *subset, in *record.Delta) {
	l.open = l.open[:0]
	for i, s := range l.state {
		if s != stateDecided {
			l.open = append(l.open, int32(i))
		}
	}
	v := sub.eval(in, l.open)
	for j, i := range l.open {
		if v.null(j) {
			l.state[i] = stateNull
		} else if v.col.Bools[j&v.mask] == l.decider {
			l.state[i] = stateDecided
		}
	}
}

func (l *logic) result(n int) vector {
	prepare(&l.out, n)
	nulls := false
	for i, s := range l.state {
		l.out.Bools[i] = (s == stateDecided) == l.decider
		nulls = nulls || s == stateNull
	}
	if nulls {
		l.valid = setBits(l.valid, n)
		for i, s := range l.state {
			if s == stateNull {
				l.valid[i>>3] &^= 1 << (i & 7)
			}
		}
		l.out.Validity = l.valid
		zeroNulls(&l.out)
	}
	return vector{&l.out, -1}
}

// subset evaluates an expression for some rows of a delta.
type subset struct {
	expr expression
	need []int // columns that expr reads
	rows record.Delta
}

func newSubset(e expression) subset {
	s := subset{expr: e}
	seen := map[int]bool{}
	e.columns(func(c int) {
		if !seen[c] {
			seen[c] = true
			s.need = append(s.need, c)
		}
	})
	return s
}

// eval returns the values for rows, one after the other.
func (s *subset) eval(in *record.Delta, rows []int32) vector {
	if len(s.rows.Cols) != len(in.Cols) {
		s.rows.Cols = make([]record.Column, len(in.Cols))
	}
	for _, c := range s.need {
		gather(&s.rows.Cols[c], &in.Cols[c], rows)
	}
	s.rows.N, s.rows.Weights = len(rows), nil
	if in.Weights != nil {
		s.rows.Weights = gatherSlice(s.rows.Weights, in.Weights, rows)
	}
	return s.expr.eval(&s.rows)
}

func (s *subset) trim() {
	for _, c := range s.need {
		if c < len(s.rows.Cols) {
			trim(&s.rows.Cols[c])
		}
	}
}
