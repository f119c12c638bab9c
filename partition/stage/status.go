package stage

import (
	"cmp"
	"math"
	"slices"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/proto/internalv1"
)

// States of a view, as SHOW VIEWS says them.
const (
	StateBackfilling = "backfilling"
	StateLive        = "live"
	StateFailed      = "failed"
)

// Stats tells how this node's partitions of every view are doing, by view id. The tick is the least of theirs.
func (rt *Runtime) Stats() []*internalv1.ViewStats { return rt.DetailedStats(0) }

// DetailedStats is Stats; of the view detail it tells too what each operator keeps, which reads some of its state.
func (rt *Runtime) DetailedStats(detail ids.StreamID) []*internalv1.ViewStats {
	rt.mu.Lock()
	views := make([]*view, 0, len(rt.views))
	for _, v := range rt.views {
		views = append(views, v)
	}
	targets := map[ids.StreamID][]*target{}
	for k, t := range rt.targets {
		targets[k.view] = append(targets[k.view], t)
	}
	sources := map[ids.StreamID][]*source{}
	for k, s := range rt.sources {
		sources[k.view] = append(sources[k.view], s)
	}
	rt.mu.Unlock()
	slices.SortFunc(views, func(a, b *view) int { return cmp.Compare(a.id, b.id) })
	out := make([]*internalv1.ViewStats, len(views))
	for i, v := range views {
		out[i] = v.stats(targets[v.id], sources[v.id])
		if v.id == detail {
			v.addKept(out[i], targets[v.id])
		}
	}
	return out
}

func (v *view) stats(targets []*target, sources []*source) *internalv1.ViewStats {
	st := &internalv1.ViewStats{View: uint64(v.id), State: StateLive, Progress: 1}
	stages := map[int]*internalv1.StageStats{}
	for i := range v.plan.Stages {
		g := &internalv1.StageStats{Stage: uint32(i), Tick: math.MaxUint64, Source: true, OpRows: make([]uint64, len(v.plan.Stages[i].Ops))}
		if t := v.targetOf(i); t != nil {
			g.Source = false
			for _, in := range t.inputs {
				if in.leaf >= 0 {
					g.Inputs = append(g.Inputs, &internalv1.InputStats{Op: uint32(in.leaf)})
				}
			}
		}
		stages[i] = g
		st.Stages = append(st.Stages, g)
	}
	for _, t := range targets {
		if done := t.addTo(st, stages[t.plan.index]); done < v.created {
			st.State = StateBackfilling
		}
	}
	for _, s := range sources {
		if g := stages[s.plan.stage]; g != nil {
			s.addTo(g)
		}
	}
	for _, g := range st.Stages {
		if g.Tick == math.MaxUint64 {
			g.Tick = 0 // nothing of it is here
		}
	}
	if n := len(st.Stages); n > 0 {
		st.Tick = st.Stages[n-1].Tick
	}
	if st.State == StateBackfilling {
		st.Progress = progressOf(sources)
	}
	if reason := v.failed.Load(); reason != nil {
		st.State, st.LastError = StateFailed, *reason
	}
	return st
}

// addTo adds one partition's figures to those of its stage.
func (s *source) addTo(stage *internalv1.StageStats) {
	done := s.closed()
	s.mu.Lock()
	defer s.mu.Unlock()
	stage.RowsIn += s.rowsIn
	for i, n := range s.opRows {
		stage.OpRows[i] += n
		if i == len(s.opRows)-1 {
			stage.RowsOut += n
		}
	}
	if s.plan.ops == nil {
		stage.RowsOut += s.rowsIn
		stage.OpRows[0] += s.rowsIn
	}
	low := maxTick
	for _, r := range s.readers {
		low = min(low, r.pos.through)
	}
	if low == maxTick {
		low = done // nobody reads it here now
	}
	if uint64(low) < stage.Tick {
		stage.Tick, stage.Slowest = uint64(low), uint32(s.p)
	}
	if s.up == nil && s.plan.log.id != 0 {
		_, end, err := s.rt.logs.End(s.p, s.plan.log.id)
		at := end
		for _, r := range s.readers {
			if r.pos.through < done {
				at = min(at, r.pos.offset)
			}
		}
		if err == nil && at < end {
			stage.Backlog += uint64(end - at)
		}
	}
}

// addTo adds one partition's figures to those of its view and stage and returns its tick.
func (t *target) addTo(st *internalv1.ViewStats, stage *internalv1.StageStats) ids.Tick {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.plan.last {
		st.Partitions++
		st.Rows += uint64(max(0, t.rows.count))
		t.indexStats(st)
	}
	st.Late += uint64(t.counts.Late)
	st.Errors += uint64(t.counts.Errors)
	if t.counts.LastError != "" {
		st.LastError = t.counts.LastError
	}
	kept := uint64(max(0, t.rows.table.bytes+t.rows.bytes)) + uint64(t.deltas.disk)
	for _, x := range t.rows.indexes {
		kept += uint64(max(0, x.bytes))
	}
	stage.StateBytes += uint64(max(0, t.table.bytes))
	stage.KeptBytes += kept
	st.StateBytes += uint64(max(0, t.table.bytes)) + kept
	stage.RowsOut += uint64(t.rowsOut)
	n := 0
	for i, in := range t.plan.inputs {
		stage.RowsIn += uint64(t.rowsIn[i])
		if in.leaf >= 0 {
			stage.Inputs[n].Rows += uint64(t.rowsIn[i])
			n++
		}
	}
	for i, rows := range t.opRows() {
		stage.OpRows[i] += rows
	}
	done := t.applied
	if t.group != nil { // else the view has failed
		t.group.mu.Lock()
		done = max(done, t.group.doneOf(t))
		stage.QueuedBytes += uint64(max(0, t.queued))
		stage.Blocked = stage.Blocked || t.blocked
		t.group.mu.Unlock()
	}
	if uint64(done) < stage.Tick {
		stage.Tick, stage.Slowest = uint64(done), uint32(t.p)
	}
	return done
}

// keptEntries bounds the entries of one operator's state in one partition that addKept reads.
const keptEntries = 1 << 16

// addKept adds what each operator keeps: exactly, where that is little, else what it is on the disk.
func (v *view) addKept(st *internalv1.ViewStats, targets []*target) {
	for _, g := range st.Stages {
		g.OpBytes = make([]uint64, len(g.OpRows))
	}
	for _, t := range targets {
		for op := range t.plan.ops {
			n, err := t.keptBy(byte(op))
			if err != nil {
				t.rt.log.Info("what an operator keeps can't be read now", "view", v.name, "partition", t.p, "error", err)
				return
			}
			st.Stages[t.plan.index].OpBytes[op] += n
		}
	}
}

// keptBy returns how many bytes of state an operator has stored.
func (t *target) keptBy(op byte) (uint64, error) {
	lo, hi := prefixRange(append(t.prefix(spaceState), op))
	it, err := t.rt.store.Iter(lo, hi)
	if err != nil {
		return 0, err
	}
	var bytes uint64
	entries := 0
	ok := it.First()
	for ; ok && entries < keptEntries; ok = it.Next() {
		bytes += uint64(len(it.Key()) + len(it.Value()))
		entries++
	}
	if err := it.Close(); err != nil || !ok {
		return bytes, err
	}
	if d, known := t.rt.store.(interface {
		DiskUsage(lo, hi []byte) (uint64, error)
	}); known {
		n, err := d.DiskUsage(lo, hi)
		return max(bytes, n), err
	}
	return bytes, nil
}

// progressOf is the share of the history that the sources have read of the logs for all their readers: offsets read by
// offsets to read. What is read of stages' outputs counts as nothing: it can't begin before those are there.
func progressOf(sources []*source) float64 {
	var done, total float64
	for _, s := range sources {
		if s.up != nil || s.plan.log.id == 0 {
			continue
		}
		start, end, err := s.rt.logs.End(s.p, s.plan.log.id)
		if err != nil || end <= start {
			continue
		}
		at := end
		s.mu.Lock()
		for _, r := range s.readers {
			if r.pos.through < s.view.created {
				at = min(at, max(r.pos.offset, start))
			}
		}
		s.mu.Unlock()
		done += float64(at - start)
		total += float64(end - start)
	}
	if total == 0 {
		return 1
	}
	return done / total
}

// Metrics are the runtime's numbers at one moment.
type Metrics struct {
	Views      int
	Targets    int   // view partitions that run here
	Feeds      int   // source partitions that they read
	DirtyBytes int64 // changes in memory, not yet stored
	StateBytes int64 // of the operators' state in memory, what is stored too
	// ScratchBytes and DecodedBytes are what is kept within the bounds of these names in Config.
	ScratchBytes, DecodedBytes int64
	// Redone counts the partitions of stages that were computed again from their inputs, as another stage had lost its state,
	// since the process began.
	Redone int64
}

// Metrics returns the runtime's numbers.
func (rt *Runtime) Metrics() Metrics {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return Metrics{Views: len(rt.views), Targets: len(rt.targets), Feeds: int(rt.feeds.Load()), DirtyBytes: rt.dirty.Load(), Redone: rt.redone.Load(),
		StateBytes: rt.tables.Load(), ScratchBytes: rt.scratch.Load(), DecodedBytes: rt.decoded.size()}
}
