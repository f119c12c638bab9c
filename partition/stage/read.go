package stage

import (
	"bytes"
	"context"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// readRows is how many rows a read hands over at a time.
const readRows = 1024

// sharedSnapshot is the state store as of a target's last flush, for all readers that come before its rows change.
type sharedSnapshot struct {
	snap    *storage.Snapshot
	changed uint64 // rowStore.changed when it was taken
	refs    int
}

// find returns the target of a view's partition, or why there is none.
func (rt *Runtime) find(id ids.StreamID, p ids.PartitionID) (*target, error) {
	inv := rt.all.Load()
	if inv.views == nil {
		return nil, fault.New(fault.Unavailable, "this node is starting or stopping; retry")
	}
	v := inv.views[id]
	if v == nil {
		return nil, fault.SQL(fault.NotFound, "42P01", "view %d doesn't exist here", id)
	}
	if err := v.failure(); err != nil {
		return nil, err
	}
	t := inv.find[targetKey{id, v.last().index, p}]
	if t == nil || t.group == nil {
		return nil, fault.New(fault.NotPrimary, "partition %d of view %q is served by another node; retry", p, v.name)
	}
	return t, nil
}

// failure is the error of a view that has failed on this node, or nil.
func (v *view) failure() error {
	if reason := v.failed.Load(); reason != nil {
		return fault.New(fault.Conflict, "view %q has failed: %s", v.name, *reason).WithReason(ReasonViewFailed)
	}
	return nil
}

// await waits until the target has done at least tick, and returns what it has done.
func (t *target) await(ctx context.Context, tick ids.Tick) (ids.Tick, error) {
	g := t.group
	for {
		if err := t.view.failure(); err != nil {
			return 0, err
		}
		g.mu.Lock()
		if g.stopped || t.stopped {
			g.mu.Unlock()
			if err := t.view.failure(); err != nil {
				return 0, err
			}
			return 0, fault.New(fault.NotPrimary, "partition %d of view %q has moved; retry", t.p, t.view.name)
		}
		done := g.doneOf(t)
		if done >= tick {
			g.mu.Unlock()
			return done, nil
		}
		more := g.watch()
		g.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return 0, fault.Wrap(kindOfContext(ctx), ctx.Err(), "view %q has come to tick %d in partition %d, not yet to %d",
				t.view.name, done, t.p, tick)
		}
	}
}

func kindOfContext(ctx context.Context) fault.Kind {
	if ctx.Err() == context.DeadlineExceeded {
		return fault.Deadline
	}
	return fault.Canceled
}

// BeginRead waits until the view has done at least minTick, and its history, in each of the partitions, and returns for
// each the tick that it has done. Any tick from the view's created_tick on up to that can be read as long as it is
// retained.
//
// Errors: NotFound for an unknown view; NotPrimary when a partition isn't, or no longer, served here; Conflict with
// reason VIEW_FAILED; Canceled and Deadline by ctx.
func (rt *Runtime) BeginRead(ctx context.Context, view ids.StreamID, parts []ids.PartitionID, minTick ids.Tick) ([]ids.Tick, error) {
	out := make([]ids.Tick, len(parts))
	for i, p := range parts {
		t, err := rt.find(view, p)
		if err != nil {
			return nil, err
		}
		if out[i], err = t.await(ctx, max(minTick, t.view.created)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Oldest returns the oldest tick as of which the view can be read in all of the partitions, which must be here.
func (rt *Runtime) Oldest(view ids.StreamID, parts []ids.PartitionID) (ids.Tick, error) {
	var out ids.Tick
	for _, p := range parts {
		t, err := rt.find(view, p)
		if err != nil {
			return 0, err
		}
		out = max(out, t.view.created)
		if t.plan.codec.layout == appended {
			continue // its rows say when they came, and stay
		}
		t.mu.Lock()
		out = max(out, t.deltas.floor)
		t.mu.Unlock()
	}
	return out, nil
}

// ReadScan is Read for a scan, whose key prefix or index says which rows are wanted at least.
func (rt *Runtime) ReadScan(ctx context.Context, view ids.StreamID, p ids.PartitionID, tick ids.Tick, scan *plan.Scan, fn func(*record.Delta) error) error {
	if t, err := rt.find(view, p); err == nil && scan.Index != nil && tick >= t.view.created {
		if _, err := t.await(ctx, tick); err != nil {
			return err
		}
		s, err := t.openIndexed(tick, scan.Index)
		if err != nil {
			return err
		}
		if s != nil {
			return s.drain(ctx, fn)
		}
	}
	if t, err := rt.find(view, p); err == nil && len(scan.Keys) > 0 && tick >= t.view.created && t.view.codec.layout == keyed {
		if _, err := t.await(ctx, tick); err != nil {
			return err
		}
		return t.readPoints(ctx, tick, scan.Keys, fn)
	}
	return rt.Read(ctx, view, p, tick, scan.KeyPrefix, fn)
}

// Read hands the view's rows in a partition, exactly as of a tick, to fn, in batches of all the plan's output columns;
// Weights is nil when all are 1. prefix, if any, is values of the leading key columns: only rows with these are read.
// fn must not keep the delta. It waits for the tick.
//
// Where this node isn't the partition's primary, it reads what was shipped here, if that is the view at the tick.
//
// Errors: as BeginRead; NotFound with reason TICK_NOT_RETAINED when the tick lies too far back; those of fn.
func (rt *Runtime) Read(ctx context.Context, view ids.StreamID, p ids.PartitionID, tick ids.Tick, prefix []record.Value, fn func(*record.Delta) error) error {
	t, err := rt.find(view, p)
	if fault.KindOf(err) == fault.NotPrimary {
		return rt.readShipped(ctx, view, p, tick, prefix, fn, err)
	}
	if err != nil {
		return err
	}
	key, err := t.plan.codec.prefixOf(prefix)
	if err != nil {
		return err
	}
	if _, err := t.await(ctx, max(tick, t.view.created)); err != nil {
		return err
	}
	if tick < t.view.created {
		return fault.New(fault.NotFound, "tick %d was before view %q, which begins at %d", tick, t.view.name, t.view.created).
			WithReason(ReasonTickNotRetained)
	}
	if t.view.codec.layout == keyed && len(prefix) > 0 && len(prefix) == len(t.view.codec.key) {
		return t.readPoint(tick, key, fn)
	}
	return t.scan(ctx, tick, key, fn)
}

// undo is what the output deltas of the ticks after the one that is read have changed, to be taken back.
type undo struct {
	// rows, by stored key: of layout keyed the row as it was, or -1 if it wasn't there; of layout weighted the weight
	// that has come since.
	rows map[string]int64
	old  *record.Delta // rows that were there before, and aren't any more or are different

}

// later returns the encoded deltas after tick. Called with mu held.
func (t *target) later(r storage.Reader, tick ids.Tick) ([]tickDelta, error) {
	most := t.rt.cfg.UndoBytes
	deltas, all, err := t.deltas.between(r, tick, maxTick, most)
	if err == nil && !all {
		err = fault.New(fault.NotFound, "more than %d MiB of changes have come since tick %d in partition %d; read a newer one", most>>20, tick, t.p).
			WithReason(ReasonTickNotRetained)
	}
	return deltas, err
}

// readPoint reads the row with a whole key: as it is now, taking back what changed it since the tick.
func (t *target) readPoint(tick ids.Tick, key []byte, fn func(*record.Delta) error) error {
	row := t.newRows()
	t.mu.Lock()
	later, err := t.later(t.rt.store, tick)
	if err == nil {
		err = t.gone()
	}
	if err == nil {
		err = t.rows.get(key, row)
	}
	t.mu.Unlock()
	if err != nil {
		return err
	}
	u, err := t.undo(later, func(k []byte, _ *record.Delta, _ int) bool { return bytes.Equal(k, key) })
	if err != nil {
		return err
	}
	if at, ok := u.rows[string(key)]; ok {
		row.Reset()
		if at >= 0 {
			row.AppendRow(u.old, int(at), 1)
		}
	}
	if row.N == 0 {
		return nil
	}
	return fn(row)
}

// pointsAtOnce is how many rows readPoints looks for while it keeps the target from closing a tick.
const pointsAtOnce = 256

// readPoints reads the rows with the keys that are said to be in this partition.
func (t *target) readPoints(ctx context.Context, tick ids.Tick, all []plan.KeyRead, fn func(*record.Delta) error) error {
	var keys [][]byte
	for _, k := range all {
		if ids.PartitionID(k.Partition) != t.p || len(k.Key) != len(t.view.codec.key) {
			continue
		}
		key, err := t.plan.codec.prefixOf(k.Key)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	for chunk := range slices.Chunk(keys, pointsAtOnce) {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(kindOfContext(ctx), err, "read of view %q", t.view.name)
		}
		rows, err := t.points(tick, chunk)
		if err != nil {
			return err
		}
		if rows.N > 0 {
			if err := fn(rows); err != nil {
				return err
			}
		}
	}
	return nil
}

// points returns the rows with some keys, as of a tick.
func (t *target) points(tick ids.Tick, keys [][]byte) (*record.Delta, error) {
	now := t.newRows()
	at := make(map[string]int, len(keys)) // where the row of a key is in now; -1: nowhere
	t.mu.Lock()
	later, err := t.later(t.rt.store, tick)
	if err == nil {
		err = t.gone()
	}
	for i := 0; err == nil && i < len(keys); i++ {
		before := now.N
		err = t.rows.get(keys[i], now)
		at[string(keys[i])] = before
		if now.N == before {
			at[string(keys[i])] = -1
		}
	}
	t.mu.Unlock()
	if err != nil {
		return nil, err
	}
	u, err := t.undo(later, func(k []byte, _ *record.Delta, _ int) bool { _, ok := at[string(k)]; return ok })
	if err != nil {
		return nil, err
	}
	if len(u.rows) == 0 {
		return now, nil
	}
	out := t.newRows()
	for _, key := range keys {
		i, known := at[string(key)]
		if !known {
			continue // the same key again
		}
		delete(at, string(key))
		old, changed := u.rows[string(key)]
		switch {
		case changed && old >= 0:
			out.AppendRow(u.old, int(old), 1)
		case !changed && i >= 0:
			out.AppendRow(now, i, 1)
		}
	}
	return out, nil
}

// gone tells whether the target was closed meanwhile. Called with mu held.
func (t *target) gone() error {
	if t.closed {
		return fault.New(fault.NotPrimary, "partition %d of view %q has moved; retry", t.p, t.view.name)
	}
	return nil
}

// undo reads the deltas after a tick, for the rows that match, by their stored keys or themselves.
func (t *target) undo(later []tickDelta, match func(key []byte, d *record.Delta, i int) bool) (*undo, error) {
	c := t.plan.codec
	u := &undo{rows: map[string]int64{}, old: t.newRows()}
	var key []byte
	for _, td := range later {
		d, err := td.decoded(c.schema)
		if err != nil {
			return nil, err
		}
		if c.layout == keyed {
			// The first delta that has the key tells: it takes the row away that was there at the tick, or there was none.
			before := int64(u.old.N)
			for pass := range 2 {
				for i := range d.N {
					if (d.Weight(i) < 0) != (pass == 0) {
						continue
					}
					if key = c.appendKey(key[:0], d, i); !match(key, d, i) {
						continue
					}
					if at, ok := u.rows[string(key)]; ok && (pass == 1 || at < before) {
						continue
					}
					if pass == 1 {
						u.rows[string(key)] = -1
						continue
					}
					u.rows[string(key)] = int64(u.old.N)
					u.old.AppendRow(d, i, 1)
				}
			}
			continue
		}
		for i := range d.N {
			if key = c.appendKey(key[:0], d, i); !match(key, d, i) {
				continue
			}
			if _, ok := u.rows[string(key)]; !ok {
				u.old.AppendRow(d, i, 1) // its weight is set when it is handed over
			}
			u.rows[string(key)] += d.Weight(i)
		}
	}
	return u, nil
}

// acquire returns the newest snapshot; everything is stored before. Called with mu held.
func (t *target) acquire() (*sharedSnapshot, error) {
	if t.rows.dirty() {
		if err := t.flush(); err != nil {
			return nil, err
		}
		if t.rows.dirty() {
			return nil, fault.New(fault.Unavailable, "view %q can't be read in partition %d until it has stored what it holds; retry",
				t.view.name, t.p)
		}
	}
	if s := t.snap; s != nil && s.refs > 0 && s.changed == t.rows.changed {
		s.refs++
		return s, nil
	}
	t.snap = &sharedSnapshot{snap: t.rt.store.Snapshot(), changed: t.rows.changed, refs: 1}
	return t.snap, nil
}

func (t *target) releaseSnapshot(s *sharedSnapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.refs--; s.refs == 0 {
		_ = s.snap.Close() // fails only if the store is closed, which has let go of it
		if t.snap == s {
			t.snap = nil
		}
	}
}

// scan hands over all rows whose stored key begins with prefix.
func (t *target) scan(ctx context.Context, tick ids.Tick, prefix []byte, fn func(*record.Delta) error) error {
	s, err := t.openScan(tick, prefix)
	if err != nil {
		return err
	}
	return s.drain(ctx, fn)
}

// openScan begins to read the rows, as of a tick, whose stored key begins with prefix.
func (t *target) openScan(tick ids.Tick, prefix []byte) (*rowScan, error) {
	c := t.plan.codec
	t.mu.Lock()
	err := t.gone()
	var snap *sharedSnapshot
	if err == nil {
		snap, err = t.acquire()
	}
	var later []tickDelta
	if err == nil && t.plan.last && c.layout != appended {
		if later, err = t.later(snap.snap, tick); err != nil {
			defer t.releaseSnapshot(snap)
		}
	}
	t.mu.Unlock()
	if err != nil {
		return nil, err
	}
	s, err := t.scanOf(snap.snap, later, tick, prefix)
	if err != nil {
		t.releaseSnapshot(snap)
		return nil, err
	}
	s.release = func() { t.releaseSnapshot(snap) }
	return s, nil
}

// simpleWeights drops rows of weight 0 from d, which a taken-back change leaves, and returns nil if all others are 1.
func simpleWeights(d *record.Delta) []int64 {
	plain, zero := true, false
	for _, w := range d.Weights {
		plain = plain && w == 1
		zero = zero || w == 0
	}
	if plain {
		return nil
	}
	if zero {
		rows := make([]int32, 0, d.N)
		for i, w := range d.Weights {
			if w != 0 {
				rows = append(rows, int32(i))
			}
		}
		*d = *gather(d, rows)
	}
	return d.Weights
}
