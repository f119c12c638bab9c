package stage

import (
	"bytes"
	"math"
	"sync/atomic"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// Spaces of a stage's keys in the state store.
const (
	spaceProgress byte = 'p' // one TargetProgress
	spaceState    byte = 's' // of the stage's operators
	spaceRows     byte = 'r' // of the view; of an earlier stage, what it put out in the history
	spaceDeltas   byte = 'd' // retained output deltas
	spaceIndex    byte = 'i' // index, entry; of the last stage
	spaceMarks    byte = 'j' // index: how it is; of the last stage
)

// view is a materialized view's definition, compiled. All but failed, indexes and restarting is immutable.
type view struct {
	id       ids.StreamID
	name     string
	def      *internalv1.ViewDef
	plan     *plan.Plan
	created  ids.Tick // everything up to it is one step
	startNow bool

	sources    []*sourcePlan
	targets    []*targetPlan // in the order of the plan; the last is the view's
	streams    []*logPlan    // that it reads, also by way of other views
	uses       []ids.StreamID
	codec      *rowCodec
	partitions int

	failed     atomic.Pointer[string] // why it stopped on this node
	indexes    atomic.Pointer[[]indexDef]
	restarting atomic.Bool // somebody was asked to let it begin anew
}

// fail stops the view on this node; the first reason stays.
func (v *view) fail(err error) bool {
	reason := err.Error()
	return v.failed.CompareAndSwap(nil, &reason)
}

// runs tells whether the view should run here: it hasn't failed, and isn't about to begin anew.
func (v *view) runs() bool { return v.failed.Load() == nil && !v.restarting.Load() }

// same tells whether def is what the view was compiled from.
func (v *view) same(def *internalv1.ViewDef) bool {
	return v.def.CreatedTick == def.CreatedTick && v.def.StartNow == def.StartNow && bytes.Equal(v.def.Plan, def.Plan)
}

// compileView checks the plan and cuts it into sources and targets. It finds out what can't be run before anything does.
func compileView(def *internalv1.ViewDef, streams map[ids.StreamID]*internalv1.StreamDef, views map[ids.StreamID]*view, partitions int) (*view, error) {
	v := &view{
		id: ids.StreamID(def.Id), name: def.Name, def: def, created: ids.Tick(def.CreatedTick), startNow: def.StartNow,
		partitions: partitions, plan: &plan.Plan{},
	}
	p, err := PlanOf(def, streams)
	if err != nil {
		return v, err
	}
	v.plan = p
	v.uses = scannedViews(p)
	v.codec = newRowCodec(p)
	v.setIndexes(def)
	g := &grapher{v: v, sources: map[int]*sourcePlan{}, views: views, find: func(id ids.StreamID) (*logPlan, error) {
		s := streams[id]
		if s == nil {
			return nil, fault.New(fault.NotFound, "view %q reads stream %d, which doesn't exist", def.Name, id)
		}
		return &logPlan{stream: s.Stream, id: id, born: ids.Tick(s.CreatedTick)}, nil
	}}
	return v, g.compile()
}

// scannedViews returns the views that a plan reads.
func scannedViews(p *plan.Plan) []ids.StreamID {
	var out []ids.StreamID
	for i := range p.Stages {
		for _, op := range p.Stages[i].Ops {
			if op.Scan != nil && op.Scan.Kind == plan.ScanView {
				out = append(out, ids.StreamID(op.Scan.Object))
			}
		}
	}
	return out
}

// addStreams notes that the view reads streams.
func (v *view) addStreams(more []*logPlan) {
	v.streams = addStreams(v.streams, more)
}

func addStreams(list, more []*logPlan) []*logPlan {
next:
	for _, l := range more {
		for _, have := range list {
			if have.id == l.id {
				continue next
			}
		}
		list = append(list, l)
	}
	return list
}

// streamsOf returns the streams that a target's rows come from.
func (v *view) streamsOf(t *targetPlan) []*logPlan {
	var out []*logPlan
	for _, in := range t.inputs {
		s := in.source
		switch {
		case s.log != nil:
			out = addStreams(out, []*logPlan{s.log})
		case s.upView != 0:
			out = addStreams(out, s.upStreams)
		default:
			out = addStreams(out, v.streamsOf(v.targetOf(s.upStage)))
		}
	}
	return out
}

// targetOf returns the target of a stage of the plan.
func (v *view) targetOf(stage int) *targetPlan {
	for _, t := range v.targets {
		if t.index == stage {
			return t
		}
	}
	return nil
}

// last is the stage whose output is the view.
func (v *view) last() *targetPlan { return v.targets[len(v.targets)-1] }

const maxTick = ids.Tick(math.MaxUint64)
