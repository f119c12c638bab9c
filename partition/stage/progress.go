package stage

import (
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// progressVersion is the version of the stored format: of TargetProgress and of everything that it describes. What an
// older version has stored is computed again. Version 1 had a view's appended rows one by one, version 2 a block's last
// tick alone as its key.
const progressVersion = 3

// progress encodes how far the target is. Called with mu held.
func (t *target) progress() ([]byte, error) {
	m := &internalv1.TargetProgress{
		Version: progressVersion, Done: uint64(t.applied), CutTick: uint64(t.cut.tick),
		Created: uint64(t.view.created), Base: t.base, RowsIn: t.rowsIn, RowsOut: t.rowsOut,
		Rows: t.rows.count, Late: t.counts.Late, Errors: t.counts.Errors, LastError: t.counts.LastError,
		StateBytes: t.stateBytes(), NextRow: t.rows.next, Floor: uint64(t.deltas.floorAfter()),
		Positions: make([]*internalv1.SourcePosition, len(t.cut.positions)),
	}
	for i, p := range t.cut.positions {
		m.Positions[i] = p.proto()
	}
	for i, w := range t.cut.watermarks {
		if len(t.cut.watermarks) == 1 {
			m.HasWatermark, m.Watermark = w.set, w.value
			break
		}
		m.Watermarks = append(m.Watermarks, &internalv1.StreamWatermark{Has: t.cut.watermarks[i].set, Value: w.value})
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "encode the progress of view %q", t.view.name)
	}
	return b, nil
}

func (t *target) stateBytes() int64 { return t.table.bytes + t.rows.table.bytes + t.rows.bytes }

// storedBytes is about what the target keeps in the state store, the past of its rows included.
func (t *target) storedBytes() int64 { return max(0, t.stateBytes()) + t.deltas.disk }

// loadTarget makes a target from what the state store has of it; from nothing, if it has nothing.
func loadTarget(rt *Runtime, plan *targetPlan, p ids.PartitionID) (*target, error) {
	v := plan.view
	sources := len(plan.inflows(p))
	t := &target{rt: rt, view: v, plan: plan, p: p}
	t.outs.Store(&[]*source{})
	t.begin(sources)
	raw, closer, err := rt.store.Get(t.prefix(spaceProgress))
	switch {
	case errors.Is(err, fault.Of(fault.NotFound)):
		err = t.wipe(sources)
	case err == nil:
		m := &internalv1.TargetProgress{}
		err = proto.Unmarshal(raw, m)
		if e := closer.Close(); err == nil {
			err = e
		}
		if err != nil {
			return nil, fault.Wrap(fault.Corrupted, err, "the stored progress of view %q in partition %d", v.name, p)
		}
		anew := m.Created != 0 && ids.Tick(m.Created) != v.created // it has begun anew while this node was down
		old := m.Version < progressVersion && t.canRecompute()
		if anew || old || plan.derived && ids.Tick(m.Done) < v.created {
			err = t.wipe(sources) // which pieces of its history it has can't be told
		} else {
			err = t.restore(m, sources)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := t.syncIndexes(); err != nil {
		return nil, err
	}
	t.loaded = t.cut
	t.loaded.positions = append([]position(nil), t.cut.positions...)
	t.saved, t.savedAt = t.loaded, t.applied
	t.bulk.Store(t.done < v.created)
	return t, nil
}

// canRecompute tells whether the logs that the target reads are whole here, so that it comes to the same from them again.
func (t *target) canRecompute() bool {
	for _, in := range t.plan.inputs {
		l := in.source.log
		if l == nil || l.id == 0 {
			continue
		}
		if start, _, err := t.rt.logs.End(t.p, l.id); err != nil || start > 0 {
			return false
		}
	}
	t.rt.log.Info("a view's state was stored in an older format; it is computed again", "view", t.view.name, "partition", t.p)
	return true
}

// begin sets a target's state to that of one that has nothing yet.
func (t *target) begin(sources int) {
	t.table = newStateTable(t.rt.store, t.prefix(spaceState))
	t.rows = newRowStore(t.rt.store, t.prefix(spaceRows), t.plan.codec)
	t.setLimits()
	t.deltas = deltaLog{prefix: t.prefix(spaceDeltas), p: t.p}
	if t.plan.codec.layout == appended {
		t.deltas.rows = t.rows
	}
	t.cut = cut{positions: make([]position, sources)}
	t.base, t.rowsIn = !t.plan.last, make([]int64, len(t.plan.inputs))
	if t.nextDue = dueUnknown; len(t.plan.marks) == 0 {
		t.nextDue = dueNever
	}
}

// wipe makes sure that a target begins with nothing.
func (t *target) wipe(sources int) error {
	lo, hi := t.stored()
	it, err := t.rt.store.Iter(lo, hi)
	if err != nil {
		return err
	}
	found := it.First()
	if err := it.Close(); err != nil {
		return err
	}
	if found {
		b := t.rt.store.NewBatch()
		defer b.Close()
		b.DeleteRange(lo, hi)
		if err := t.rt.store.Commit(b, false); err != nil {
			return err
		}
	}
	t.begin(sources)
	t.table.complete = true
	t.rows.table.complete = t.rows.table.limit > 0
	return nil
}

func (t *target) restore(m *internalv1.TargetProgress, sources int) error {
	if m.Version != progressVersion {
		return fault.New(fault.Unsupported, "view %q, partition %d: stored in format %d, this build reads %d; drop the view and create it again",
			t.view.name, t.p, m.Version, progressVersion)
	}
	if len(m.Positions) != sources {
		return fault.New(fault.Corrupted, "view %q, partition %d: stored positions of %d sources instead of %d",
			t.view.name, t.p, len(m.Positions), sources)
	}
	t.done = ids.Tick(m.Done)
	t.applied = t.done
	t.cut.tick = ids.Tick(m.CutTick)
	if m.HasWatermark {
		t.cut.watermarks = []watermarkValue{{true, m.Watermark}}
	}
	for _, w := range m.Watermarks {
		t.cut.watermarks = append(t.cut.watermarks, watermarkValue{w.Has, w.Value})
	}
	for i, p := range m.Positions {
		t.cut.positions[i] = positionOf(p)
	}
	copy(t.rowsIn, m.RowsIn)
	t.base, t.rowsOut = m.Base, m.RowsOut
	t.rows.count, t.rows.next, t.rows.bytes = m.Rows, m.NextRow, 0
	t.table.bytes = m.StateBytes
	t.counts.Late, t.counts.Errors, t.counts.LastError = m.Late, m.Errors, m.LastError
	t.deltas.floor = ids.Tick(m.Floor)
	if err := t.deltas.load(t.rt.store); err != nil {
		return err
	}
	// Up to the floor there may have been output that is dropped by now: a reader below must not take that for silence.
	last := max(min(t.done, t.view.created), t.deltas.floor)
	if n := len(t.deltas.blocks); n > 0 {
		last = max(last, t.deltas.blocks[n-1].last)
	}
	t.lastOut.Store(uint64(last))
	if t.deltas.rows == nil {
		return nil
	}
	if t.applied < t.view.created {
		return t.rows.resumeHistory(t.view.created)
	}
	appended, err := t.rows.lastAppended(t.rt.store)
	t.lastOut.Store(uint64(max(last, appended)))
	return err
}
