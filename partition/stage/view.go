package stage

import (
	"math"
	"sync/atomic"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// Spaces of a view's keys in the state store.
const (
	spaceProgress byte = 'p' // one TargetProgress
	spaceState    byte = 's' // of the last stage's operators
	spaceRows     byte = 'r'
	spaceDeltas   byte = 'd' // retained output deltas
)

// view is a materialized view's definition, compiled. All but failed is immutable.
//
// A plan of two stages runs the first on the source side of its exchange and the second on the target side. A plan of
// one stage runs wholly on the target side; its source hands over the scanned rows as they are.
type view struct {
	id       ids.StreamID
	name     string
	plan     *plan.Plan
	stream   *millracev1.Stream
	streamID ids.StreamID
	born     ids.Tick // created_tick of the stream
	created  ids.Tick // of the view: everything up to it is one step
	startNow bool

	columns    []string      // that the scan decodes
	scanOp     int           // of stage 0
	sourceOps  []plan.Op     // nil: rows are handed over as scanned
	targetOps  []plan.Op     // the last stage
	targetLeaf int           // where rows enter targetOps
	input      record.Schema // of the rows that travel
	exchange   *plan.Exchange
	watermarks bool // the target stage holds rows back until the watermark
	events     bool // what the view computes depends on event times before it began
	codec      *rowCodec
	partitions int

	failed atomic.Pointer[string] // why it stopped on this node
}

// fail stops the view on this node; the first reason stays.
func (v *view) fail(err error) bool {
	reason := err.Error()
	return v.failed.CompareAndSwap(nil, &reason)
}

// compileView checks the plan and cuts it into its two sides.
func compileView(def *internalv1.ViewDef, streams map[ids.StreamID]*internalv1.StreamDef, partitions int) (*view, error) {
	v := &view{
		id: ids.StreamID(def.Id), name: def.Name, created: ids.Tick(def.CreatedTick), startNow: def.StartNow,
		partitions: partitions,
	}
	p, err := PlanOf(def, streams)
	if err != nil {
		return v, err
	}
	v.plan = p
	if n := len(p.Stages); n < 1 || n > 2 {
		return v, fault.New(fault.Unsupported, "view %q has %d stages; views have one or two", def.Name, n)
	}
	first, last := &p.Stages[0], &p.Stages[len(p.Stages)-1]
	v.scanOp, err = onlyLeaf(first, plan.OpScan)
	if err != nil {
		return v, err
	}
	scan := first.Ops[v.scanOp].Scan
	if scan == nil || scan.Kind != plan.ScanStream {
		return v, fault.New(fault.Unsupported, "view %q reads something else than a stream", def.Name)
	}
	v.streamID, v.columns = ids.StreamID(scan.Object), scan.Columns
	s := streams[v.streamID]
	if s == nil {
		return v, fault.New(fault.NotFound, "view %q reads stream %q, which doesn't exist", def.Name, scan.Name)
	}
	v.stream, v.born = s.Stream, ids.Tick(s.CreatedTick)
	v.targetOps, v.targetLeaf, v.input = last.Ops, v.scanOp, first.Ops[v.scanOp].Schema
	if len(p.Stages) == 2 {
		if v.exchange = first.Exchange; v.exchange == nil || v.exchange.Gather {
			return v, fault.New(fault.Corrupted, "view %q: its first stage has no exchange by key", def.Name)
		}
		v.sourceOps, v.input = first.Ops, first.Ops[len(first.Ops)-1].Schema
		if v.targetLeaf, err = onlyLeaf(last, plan.OpInput); err != nil {
			return v, err
		}
	}
	v.codec = newRowCodec(p)
	v.findTimes()
	return v, v.tryCompile()
}

func onlyLeaf(s *plan.Stage, kind plan.OpKind) (int, error) {
	found := -1
	for i := range s.Ops {
		if len(s.Ops[i].Inputs) > 0 {
			continue
		}
		if s.Ops[i].Kind != kind || found >= 0 {
			return 0, fault.New(fault.Unsupported, "a view's stage has exactly one %s as its input", kind)
		}
		found = i
	}
	if found < 0 {
		return 0, fault.New(fault.Corrupted, "a view's stage has no input")
	}
	return found, nil
}

func (v *view) findTimes() {
	for _, s := range v.plan.Stages {
		for i := range s.Ops {
			switch op := &s.Ops[i]; {
			case op.Kind == plan.OpEmitFinal:
				v.watermarks, v.events = true, true
			case op.Kind == plan.OpTumble && op.Tumble != nil && op.Tumble.Watermark >= 0:
				v.events = true
			}
		}
	}
	for _, c := range v.columns {
		if c == plan.ColWatermark {
			v.events = true
		}
	}
}

// tryCompile finds out what can't be run before anything does.
func (v *view) tryCompile() error {
	if _, err := record.NewDecoder(v.stream, v.columns); err != nil {
		return err
	}
	for _, ops := range [][]plan.Op{v.sourceOps, v.targetOps} {
		if ops == nil {
			continue
		}
		if _, err := dataflow.New(ops, dataflow.Env{Mode: dataflow.Live}); err != nil {
			return err
		}
	}
	return nil
}

// sourcesOf returns the source partitions that a target needs: all of them, unless rows don't move and nothing waits
// for the watermark.
func (v *view) sourcesOf(target ids.PartitionID) []ids.PartitionID {
	if v.exchange == nil && !v.watermarks {
		return []ids.PartitionID{target}
	}
	all := make([]ids.PartitionID, v.partitions)
	for i := range all {
		all[i] = ids.PartitionID(i)
	}
	return all
}

const maxTick = ids.Tick(math.MaxUint64)
