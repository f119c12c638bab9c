package dataflow

import (
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// choice is CASE and COALESCE: the result of each row comes from one of several expressions, and each of these is
// evaluated only for the rows that reach it, unless it is safe.
type choice struct {
	whens []expression // CASE: the conditions; COALESCE: nil
	thens []expression
	tests []subset
	takes []subset

	out     record.Column
	results []vector // of thens
	from    []int32  // row -> index in thens
	at      []int32  // row -> index in that result; -1: NULL
	open    []int32
	taken   []int32
	rest    []int32
}

func newCase(e *plan.Expr, args []expression) (expression, error) {
	if len(args)%2 == 0 || len(args) < 3 {
		return nil, defect("CASE has %d arguments", len(args))
	}
	c := &choice{}
	for i := 0; i+1 < len(args); i += 2 {
		if args[i].typ() != record.Boolean {
			return nil, defect("CASE has a condition of type %s", args[i].typ())
		}
		c.whens, c.thens = append(c.whens, args[i]), append(c.thens, args[i+1])
	}
	c.thens = append(c.thens, args[len(args)-1])
	return c, c.init(e)
}

func newCoalesce(e *plan.Expr, args []expression) (expression, error) {
	if len(args) == 0 {
		return nil, defect("COALESCE without arguments")
	}
	c := &choice{thens: args}
	return c, c.init(e)
}

func (c *choice) init(e *plan.Expr) error {
	for i, t := range c.thens {
		if t.typ() != e.Type {
			if k, ok := t.(*constant); !ok || !k.col.Null(0) {
				return defect("%s of type %s has an argument of type %s", e.Kind, e.Type, t.typ())
			}
			c.thens[i] = newConstant(e.Type, record.Value{Type: e.Type, Null: true})
		}
		c.takes = append(c.takes, newSubset(c.thens[i]))
	}
	for _, w := range c.whens {
		c.tests = append(c.tests, newSubset(w))
	}
	c.out.Type = e.Type
	c.results = make([]vector, len(c.thens))
	return nil
}

func (c *choice) typ() record.Type { return c.out.Type }

func (c *choice) safe() bool {
	for _, a := range c.whens {
		if !a.safe() {
			return false
		}
	}
	for _, a := range c.thens {
		if !a.safe() {
			return false
		}
	}
	return true
}

func (c *choice) columns(fn func(int)) {
	for _, a := range c.whens {
		a.columns(fn)
	}
	for _, a := range c.thens {
		a.columns(fn)
	}
}

func (c *choice) trim() {
	trim(&c.out)
	for i := range c.whens {
		c.whens[i].trim()
		c.tests[i].trim()
	}
	for i := range c.thens {
		c.thens[i].trim()
		c.takes[i].trim()
	}
}

func (c *choice) eval(in *record.Delta) vector {
	c.from, c.at = resize(c.from, in.N), resize(c.at, in.N)
	c.open = c.open[:0]
	for i := range in.N {
		c.open = append(c.open, int32(i))
	}
	for k := range c.thens {
		if len(c.open) == 0 {
			break
		}
		c.taken, c.rest = c.taken[:0], c.rest[:0]
		switch {
		case c.whens == nil:
			c.coalesce(k, in)
		case k < len(c.whens):
			c.when(k, in)
			c.take(k, in)
		default:
			c.taken = append(c.taken, c.open...)
			c.take(k, in)
		}
		c.open, c.rest = c.rest, c.open
	}
	for _, i := range c.open { // COALESCE of nothing but NULLs
		c.at[i] = -1
	}
	c.assemble(in.N)
	return vector{&c.out, -1}
}

// evalRows evaluates e for rows; direct tells that the result is by rows of in.
func evalRows(e expression, sub *subset, in *record.Delta, rows []int32) (v vector, direct bool) {
	if len(rows) == in.N || e.safe() {
		return e.eval(in), true
	}
	return sub.eval(in, rows), false
}

// when splits the open rows into taken and rest by condition k.
func (c *choice) when(k int, in *record.Delta) {
	v, direct := evalRows(c.whens[k], &c.tests[k], in, c.open)
	for j, i := range c.open {
		if direct {
			j = int(i)
		}
		if !v.null(j) && v.col.Bools[j&v.mask] {
			c.taken = append(c.taken, i)
		} else {
			c.rest = append(c.rest, i)
		}
	}
}

// take takes the results of the taken rows from expression k.
func (c *choice) take(k int, in *record.Delta) {
	if len(c.taken) == 0 {
		return
	}
	v, direct := evalRows(c.thens[k], &c.takes[k], in, c.taken)
	c.results[k] = v
	for j, i := range c.taken {
		if direct {
			j = int(i)
		}
		c.from[i], c.at[i] = int32(k), int32(j&v.mask)
	}
}

// coalesce takes the results of the open rows from argument k where that isn't NULL.
func (c *choice) coalesce(k int, in *record.Delta) {
	v, direct := evalRows(c.thens[k], &c.takes[k], in, c.open)
	c.results[k] = v
	for j, i := range c.open {
		if direct {
			j = int(i)
		}
		if v.null(j) {
			c.rest = append(c.rest, i)
		} else {
			c.from[i], c.at[i] = int32(k), int32(j&v.mask)
		}
	}
}

// assemble puts the result together.
func (c *choice) assemble(n int) {
	c.out.Reset()
	for i := range n {
		if c.at[i] < 0 {
			c.out.AppendNull()
		} else {
			c.out.AppendFrom(c.results[c.from[i]].col, int(c.at[i]))
		}
	}
}
