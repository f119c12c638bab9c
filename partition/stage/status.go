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
func (rt *Runtime) Stats() []*internalv1.ViewStats {
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
	}
	return out
}

func (v *view) stats(targets []*target, sources []*source) *internalv1.ViewStats {
	st := &internalv1.ViewStats{View: uint64(v.id), State: StateLive, Progress: 1}
	stages := map[int]*internalv1.StageStats{}
	for _, t := range v.targets {
		g := &internalv1.StageStats{Stage: uint32(t.index), Tick: math.MaxUint64}
		for _, in := range t.inputs {
			if in.leaf >= 0 {
				g.Inputs = append(g.Inputs, &internalv1.InputStats{Op: uint32(in.leaf)})
			}
		}
		stages[t.index] = g
		st.Stages = append(st.Stages, g)
	}
	for _, t := range targets {
		if done := t.addTo(st, stages[t.plan.index]); done < v.created {
			st.State = StateBackfilling
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

// addTo adds one partition's figures to those of its view and stage and returns its tick.
func (t *target) addTo(st *internalv1.ViewStats, stage *internalv1.StageStats) ids.Tick {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.plan.last {
		st.Partitions++
		st.Rows += uint64(max(0, t.rows.count))
	}
	st.Late += uint64(t.counts.Late)
	st.Errors += uint64(t.counts.Errors)
	if t.counts.LastError != "" {
		st.LastError = t.counts.LastError
	}
	kept := uint64(max(0, t.rows.table.bytes+t.rows.bytes)) + uint64(t.deltas.disk)
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
	done := t.applied
	if t.group != nil { // else the view has failed
		t.group.mu.Lock()
		done = max(done, t.group.doneOf(t))
		t.group.mu.Unlock()
	}
	stage.Tick = min(stage.Tick, uint64(done))
	return done
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
	// Redone counts the partitions of stages that were computed again from their inputs, as another stage had lost its state,
	// since the process began.
	Redone int64
}

// Metrics returns the runtime's numbers.
func (rt *Runtime) Metrics() Metrics {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return Metrics{Views: len(rt.views), Targets: len(rt.targets), Feeds: int(rt.feeds.Load()), DirtyBytes: rt.dirty.Load(), Redone: rt.redone.Load()}
}
