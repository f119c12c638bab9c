package stage

import (
	"cmp"
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
	for i, t := range targets {
		done := t.addTo(st)
		if i == 0 || uint64(done) < st.Tick {
			st.Tick = uint64(done)
		}
		if done < v.created {
			st.State = StateBackfilling
		}
	}
	if st.State == StateBackfilling {
		st.Progress = progressOf(sources)
	}
	if reason := v.failed.Load(); reason != nil {
		st.State, st.LastError = StateFailed, *reason
	}
	return st
}

// addTo adds one partition's figures and returns its tick.
func (t *target) addTo(st *internalv1.ViewStats) ids.Tick {
	t.mu.Lock()
	defer t.mu.Unlock()
	st.Partitions++
	st.Rows += uint64(max(0, t.rows.count))
	st.Late += uint64(t.counts.Late)
	st.Errors += uint64(t.counts.Errors)
	if t.counts.LastError != "" {
		st.LastError = t.counts.LastError
	}
	st.StateBytes += uint64(max(0, t.stateBytes())) + uint64(t.deltas.disk)
	if t.group == nil {
		return t.applied // the view has failed
	}
	t.group.mu.Lock()
	defer t.group.mu.Unlock()
	return max(t.applied, t.group.doneOf(t))
}

// progressOf is the share of the history that the sources have read for all their readers: offsets read by offsets to
// read.
func progressOf(sources []*source) float64 {
	var done, total float64
	for _, s := range sources {
		start, end, err := s.rt.logs.End(s.p, s.view.streamID)
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
}

// Metrics returns the runtime's numbers.
func (rt *Runtime) Metrics() Metrics {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return Metrics{Views: len(rt.views), Targets: len(rt.targets), Feeds: int(rt.feeds.Load()), DirtyBytes: rt.dirty.Load()}
}
