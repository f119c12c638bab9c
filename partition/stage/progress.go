package stage

import (
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/storage"
)

// progressVersion is the version of the stored format: of TargetProgress and of everything that it describes.
const progressVersion = 1

// progress encodes how far the target is. Called with mu held.
func (t *target) progress() ([]byte, error) {
	m := &internalv1.TargetProgress{
		Version: progressVersion, Done: uint64(t.applied), CutTick: uint64(t.cut.tick),
		HasWatermark: t.cut.watermark.set, Watermark: t.cut.watermark.value,
		Rows: t.rows.count, Late: t.counts.Late, Errors: t.counts.Errors, LastError: t.counts.LastError,
		StateBytes: t.stateBytes(), NextRow: t.rows.next, Floor: uint64(t.deltas.floorAfter()),
		Positions: make([]*internalv1.SourcePosition, len(t.cut.positions)),
	}
	for i, p := range t.cut.positions {
		m.Positions[i] = p.proto()
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "encode the progress of view %q", t.view.name)
	}
	return b, nil
}

func (t *target) stateBytes() int64 { return t.table.bytes + t.rows.table.bytes + t.rows.bytes }

// loadTarget makes a target from what the state store has of it; from nothing, if it has nothing.
func loadTarget(rt *Runtime, v *view, p ids.PartitionID) (*target, error) {
	sources := v.sourcesOf(p)
	t := &target{
		rt: rt, view: v, p: p, nextDue: dueUnknown,
		table: newStateTable(rt.store, v.id, p, spaceState), rows: newRowStore(rt.store, v.id, p, v.codec),
		deltas: deltaLog{view: v.id, p: p},
		cut:    cut{positions: make([]position, len(sources))},
	}
	if !v.watermarks {
		t.nextDue = dueNever
	}
	t.table.limit = int(rt.cfg.CacheBytes/max(1, rt.warm.Load())) / 2
	raw, closer, err := rt.store.Get(storage.StateKey(v.id, p, spaceProgress, nil))
	switch {
	case errors.Is(err, fault.Of(fault.NotFound)):
		t.table.complete = true
	case err != nil:
		return nil, err
	default:
		m := &internalv1.TargetProgress{}
		err := proto.Unmarshal(raw, m)
		if e := closer.Close(); err == nil {
			err = e
		}
		if err != nil {
			return nil, fault.Wrap(fault.Corrupted, err, "the stored progress of view %q in partition %d", v.name, p)
		}
		if err := t.restore(m, len(sources)); err != nil {
			return nil, err
		}
	}
	t.loaded = t.cut
	t.loaded.positions = append([]position(nil), t.cut.positions...)
	t.saved, t.savedAt = t.loaded, t.applied
	t.bulk.Store(t.done < v.created)
	return t, nil
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
	t.cut.watermark = watermarkValue{m.HasWatermark, m.Watermark}
	for i, p := range m.Positions {
		t.cut.positions[i] = positionOf(p)
	}
	t.rows.count, t.rows.next, t.rows.bytes = m.Rows, m.NextRow, 0
	t.table.bytes = m.StateBytes
	t.counts.Late, t.counts.Errors, t.counts.LastError = m.Late, m.Errors, m.LastError
	t.deltas.floor = ids.Tick(m.Floor)
	return t.deltas.load(t.rt.store)
}
