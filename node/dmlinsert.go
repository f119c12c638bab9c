package node

import (
	"context"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/ring"
	"github.com/millrace/millrace/sql"
)

// inserts makes the records of INSERT.
func (c *changer) inserts(ctx context.Context, l *layout, rows *record.Delta) (map[ids.PartitionID]*write, error) {
	keys := make([][]byte, rows.N)
	for i := range rows.N {
		for _, k := range c.key {
			if rows.Cols[k].Null(i) {
				return nil, notNull(c.ch.Table, k)
			}
		}
		if err := c.checkNulls(rows, i); err != nil { // before the key is looked for, as PostgreSQL does
			return nil, err
		}
		keys[i] = c.keyOf(rows, i)
	}
	known, err := c.existing(ctx, l, rows, keys)
	if err != nil {
		return nil, err
	}
	updates, err := c.updates(rows, keys, known, l.tick)
	if err != nil {
		return nil, err
	}
	out := map[ids.PartitionID]*write{}
	written := map[string]bool{}
	for i, key := range keys {
		p := ring.Partition(key, c.partitions)
		if c.done[p] {
			continue
		}
		from, at := rows, i
		if _, exists := known.at[string(key)]; exists || written[string(key)] {
			switch {
			case c.ch.OnConflict == sql.ConflictError:
				return nil, fault.SQL(fault.Exists, "23505", "table %q has a row with the key %s already", c.ch.Table.Name, keyText(c.ch.Table, rows, i, c.key)).
					WithReason("DUPLICATE_KEY")
			case c.ch.OnConflict == sql.ConflictNothing:
				continue
			case written[string(key)]:
				return nil, fault.SQL(fault.Invalid, "21000", "ON CONFLICT DO UPDATE command cannot affect row a second time: key %s", keyText(c.ch.Table, rows, i, c.key))
			}
			if from, at = updates.row(i); from == nil {
				continue
			}
		}
		written[string(key)] = true
		w := writeOf(out, p)
		w.rows++
		if err := c.row(w, from, at, i); err != nil {
			return nil, err
		}
	}
	return out, c.computeReturning(out, l.tick)
}

// updatedRows is what DO UPDATE makes of the rows that exist.
type updatedRows struct {
	rows   *record.Delta // the table's columns
	update []bool
	at     map[int]int // where the row is, by its place in the statement
}

// row returns where the row in place i is as it becomes; nil: WHERE leaves it as it is.
func (u *updatedRows) row(i int) (*record.Delta, int) {
	at := u.at[i]
	if !u.update[at] {
		return nil, 0
	}
	return u.rows, at
}

// updates computes DO UPDATE for the rows whose key exists.
func (c *changer) updates(rows *record.Delta, keys [][]byte, known *existingRows, tick ids.Tick) (*updatedRows, error) {
	out := &updatedRows{at: map[int]int{}}
	if c.ch.Conflict == nil {
		return out, nil
	}
	in := record.NewDelta(c.ch.Conflict.Input, 0)
	n := len(c.ch.Table.Columns)
	for i, key := range keys {
		at, exists := known.at[string(key)]
		if !exists || c.done[ring.Partition(key, c.partitions)] {
			continue
		}
		in.Cols[0].AppendInt(int64(i))
		for k := range n {
			in.Cols[1+k].AppendFrom(&known.rows.Cols[k], at)
			in.Cols[1+n+k].AppendFrom(&rows.Cols[k], i)
		}
		in.N++
	}
	d, err := compute(c.ch.Conflict, in, tick)
	if err != nil || d == nil {
		return out, err
	}
	out.rows, out.update = &record.Delta{N: d.N, Cols: d.Cols[2:]}, d.Cols[1].Bools
	for i := range d.N {
		out.at[int(d.Cols[0].Ints[i])] = i
	}
	return out, nil
}

// computeReturning computes RETURNING of the rows that are written.
func (c *changer) computeReturning(writes map[ids.PartitionID]*write, tick ids.Tick) (err error) {
	for _, w := range writes {
		if w.fresh == nil {
			continue
		}
		if w.returned, err = compute(c.ch.Returning, w.fresh, tick); err != nil {
			return err
		}
	}
	return nil
}

// checkNulls checks row i of d, whose columns are the table's, for NULL where there may be none.
func (c *changer) checkNulls(d *record.Delta, i int) error {
	for k, col := range c.ch.Table.Stream.Columns {
		if col.NotNull && d.Cols[k].Null(i) {
			return notNull(c.ch.Table, k)
		}
	}
	return nil
}
