package stage

import (
	"context"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// subscribeBytes is how much a subscription takes from a target at a time, in bytes of encoded deltas.
const subscribeBytes = 128 << 10

// Subscribe hands the view's output deltas in a partition to fn, in the order of their ticks, only of ticks > after; and
// after what there is of them, with nil rows, the news that the partition is done through tick. It goes on until ctx or
// fn ends it, and never holds the view back: one that is slower than the retention gets TICK_NOT_RETAINED. fn must not
// keep the delta.
//
// Errors: as BeginRead; NotFound with reason TICK_NOT_RETAINED; those of fn.
func (rt *Runtime) Subscribe(ctx context.Context, view ids.StreamID, p ids.PartitionID, after ids.Tick, fn func(tick ids.Tick, rows *record.Delta) error) error {
	t, err := rt.find(view, p)
	if err != nil {
		return err
	}
	if after < t.view.created {
		if _, err := t.await(ctx, t.view.created); err != nil {
			return err
		}
		return fault.New(fault.NotFound, "tick %d was before view %q, which begins at %d", after, t.view.name, t.view.created).
			WithReason(ReasonTickNotRetained)
	}
	for {
		if _, err := t.await(ctx, after+1); err != nil {
			return err
		}
		deltas, upto, err := t.changes(after)
		if err != nil {
			return err
		}
		for _, td := range deltas {
			d, err := td.decoded(t.view.codec.schema)
			if err != nil {
				return err
			}
			if err := fn(td.tick, d); err != nil {
				return err
			}
		}
		if upto > after {
			after = upto
			if err := fn(after, nil); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return fault.Wrap(kindOfContext(ctx), err, "a subscription to view %q ended", t.view.name)
		}
	}
}

// changes returns some of the deltas after a tick, and up to which tick they are all.
func (t *target) changes(after ids.Tick) ([]tickDelta, ids.Tick, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.gone(); err != nil {
		return nil, 0, err
	}
	t.group.mu.Lock()
	done := max(t.applied, t.group.doneOf(t))
	t.group.mu.Unlock()
	deltas, all, err := t.deltas.between(t.rt.store, after, done, subscribeBytes)
	if err != nil {
		return nil, 0, err
	}
	if !all {
		done = deltas[len(deltas)-1].tick
	}
	return deltas, done, nil
}
