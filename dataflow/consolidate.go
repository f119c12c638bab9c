package dataflow

import "github.com/millrace/millrace/record"

// consolidator adds up the weights of equal rows.
type consolidator struct {
	table   *groupTable
	cols    []int
	weights []int64
}

// newConsolidator returns one for rows of schema s. Exact tells equal values of different form apart.
func newConsolidator(s record.Schema, exact bool) *consolidator {
	c := &consolidator{table: newGroupTable(s, exact)}
	for i := range s {
		c.cols = append(c.cols, i)
	}
	return c
}

func (c *consolidator) add(in *record.Delta) error {
	slots, err := c.table.assign(in, c.cols)
	if err != nil {
		return err
	}
	c.weights = extend(c.weights, c.table.n)
	if in.Weights == nil {
		for _, s := range slots {
			c.weights[s]++
		}
		return nil
	}
	for i, s := range slots {
		c.weights[s] += in.Weights[i]
	}
	return nil
}

// drain calls emit with the rows whose weight isn't zero, at most chunkRows at a time, and empties c.
func (c *consolidator) drain(out *record.Delta, emit func(*record.Delta) error) error {
	for lo := 0; lo < c.table.n; {
		out.Reset()
		out.Weights = out.Weights[:0]
		lo = c.rows(out, lo, chunkRows)
		if err := emit(out); err != nil {
			return err
		}
	}
	c.reset()
	return nil
}

// rows appends at most `most` rows from slot lo on to out and returns the slot after them.
func (c *consolidator) rows(out *record.Delta, lo, most int) int {
	hi := lo
	for ; hi < c.table.n && most > 0; hi++ {
		if w := c.weights[hi]; w != 0 {
			out.Weights = append(out.Weights, w)
			most--
		} else if hi > lo {
			break
		} else {
			lo++
		}
	}
	c.table.appendKeys(out.Cols, lo, hi)
	out.N = len(out.Weights)
	return hi
}

func (c *consolidator) reset() {
	c.weights = shrink(c.weights, c.table.n)
	c.table.reset()
}

// shrink returns s without elements, for a use like the last one, which needed n.
func shrink[T any](s []T, n int) []T {
	if cap(s) > 4*n+chunkRows {
		return nil
	}
	return s[:0]
}
