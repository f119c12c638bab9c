package stage

import (
	"slices"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/datagen"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// sourcePlan is what runs at the sending side of an exchange: it reads the log of a stream, or the output of a stage
// (an earlier one of its view, or another view's last one) in the same partition, runs operators without state over it
// and splits the result. It is immutable.
type sourcePlan struct {
	view  *view
	index int // of the view's sources
	stage int // of the plan, all of which it is; -1: it is a scan within one, or sends what one puts out

	log       *logPlan // nil: it reads a stage's output
	upView    ids.StreamID
	upStage   int        // of this view, when upView is 0
	columns   []string   // of upView, by name
	upStreams []*logPlan // that upView reads

	ops       []plan.Op // nil: rows are handed over as they are read
	leaf      int       // of ops: where rows enter
	schema    record.Schema
	appends   bool           // no row that it sends is ever taken back
	exchange  *plan.Exchange // nil: rows stay in their partition
	consumers []*inputPlan   // who reads it
}

// truncated tells whether the log's front may be removed.
func (l *logPlan) truncated() bool {
	return l.compacted() || l.stream.RetentionUs > 0 || l.stream.RetentionBytes > 0
}

// compacted tells whether the log is a table's: of what was removed, the rows are told by later records.
func (l *logPlan) compacted() bool { return len(l.stream.PrimaryKey) > 0 }

// logPlan is a stream's log as a source reads it.
type logPlan struct {
	stream  *millracev1.Stream
	id      ids.StreamID
	born    ids.Tick // created_tick of the stream
	columns []string
	marks   bool // no rows are wanted of it, only event times
	events  bool // event times before the view began matter
}

// targetPlan is a stage that keeps state. It is immutable.
type targetPlan struct {
	view    *view
	index   int // of the plan's stages
	last    bool
	ops     []plan.Op
	inputs  []*inputPlan // those that must be done first in the history come first
	schema  record.Schema
	appends bool // no row of its output is ever taken back
	codec   *rowCodec
	derived bool // it reads the output of a stage, so that a piece of its history can't be told from another
	own     bool // some of its inputs bring rows of the target's own partition only
	levels  bool // not all inputs are of one level
	marks   []markPlan
}

// inputPlan is a leaf of a target stage, or something that only tells it how far event time has come.
type inputPlan struct {
	source   *sourcePlan
	leaf     int // operator; -1: positions only
	own      bool
	level    int // in the history rows are taken only when all inputs of lower levels are complete
	consumer int // among the source's
}

// markPlan says by which input a stage learns of a stream's event times.
type markPlan struct {
	stream *logPlan
	input  int
}

// inflow is an input of a target stage from one partition.
type inflow struct {
	input int
	p     ids.PartitionID
}

// inflows returns all that a target in a partition reads.
func (t *targetPlan) inflows(p ids.PartitionID) []inflow {
	var out []inflow
	for i, in := range t.inputs {
		if in.own {
			out = append(out, inflow{i, p})
			continue
		}
		for q := range t.view.partitions {
			out = append(out, inflow{i, ids.PartitionID(q)})
		}
	}
	return out
}

// stateless tells whether an operator keeps nothing between ticks, so that it may run in a source.
func stateless(op *plan.Op) bool {
	switch op.Kind {
	case plan.OpScan, plan.OpFilter, plan.OpProject, plan.OpTumble, plan.OpHop, plan.OpDropLate, plan.OpLate, plan.OpUnnest, plan.OpExpand, plan.OpUnion:
		return true
	case plan.OpAggregate:
		return op.Aggregate != nil && op.Aggregate.Phase == plan.AggPartial
	}
	return false
}

// usesMarks tells whether an operator looks at the watermark or the horizon.
func usesMarks(op *plan.Op) bool {
	switch {
	case op.Kind == plan.OpEmitFinal:
		return true
	case op.Aggregate != nil:
		a := op.Aggregate
		return a.Expire != nil || a.Panes != nil || a.Session != nil
	case op.Session != nil:
		return true
	case op.Join != nil:
		return op.Join.LeftExpire != nil || op.Join.RightExpire != nil
	case op.TemporalJoin != nil:
		return op.TemporalJoin.Expire != nil || op.TemporalJoin.LeftTime >= 0
	case op.TopN != nil:
		return op.TopN.Expire != nil
	case op.Window != nil:
		return op.Window.Expire != nil
	}
	return false
}

// grapher cuts a plan into sources and targets.
type grapher struct {
	v       *view
	sources map[int]*sourcePlan // by the plan's stage
	find    func(ids.StreamID) (*logPlan, error)
	views   map[ids.StreamID]*view
	appends []bool // by the plan's stage: see appendOnlyStages
}

func (g *grapher) compile() error {
	v, n := g.v, len(g.v.plan.Stages)
	if n == 0 || n > maxStages {
		return fault.New(fault.Unsupported, "view %q has %d stages; at most %d are run", v.name, n, maxStages)
	}
	g.appends = appendOnlyStages(v.plan)
	for i := range v.plan.Stages {
		s := &v.plan.Stages[i]
		if len(s.Ops) == 0 {
			return fault.New(fault.Corrupted, "stage %d of view %q is empty", i, v.name)
		}
		last := i == n-1
		if !last && (s.Exchange == nil || s.Exchange.Gather) {
			return fault.New(fault.Corrupted, "view %q: stage %d has no exchange between partitions", v.name, i)
		}
		var err error
		if scan := onlyScan(s); scan >= 0 && !last {
			if g.sources[i], err = g.scan(s.Ops, scan, s.Exchange, g.appends[i]); err == nil {
				g.sources[i].stage = i
			}
		} else {
			err = g.target(i, s, last)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxStages bounds a view's stages: their state's keys have one byte for it.
const maxStages = 200

// onlyScan returns the scan of a stage that a source can run, or -1.
func onlyScan(s *plan.Stage) int {
	found := -1
	for i := range s.Ops {
		if !stateless(&s.Ops[i]) {
			return -1
		}
		if s.Ops[i].Kind == plan.OpScan {
			if found >= 0 {
				return -1
			}
			found = i
		}
	}
	return found
}

// scan makes a source of a scan and the operators above it, if any.
func (g *grapher) scan(ops []plan.Op, at int, x *plan.Exchange, appends bool) (*sourcePlan, error) {
	v, scan := g.v, ops[at].Scan
	if scan == nil {
		return nil, fault.New(fault.Corrupted, "view %q has a scan of nothing", v.name)
	}
	s := &sourcePlan{view: v, stage: -1, leaf: at, schema: ops[at].Schema, exchange: x, appends: appends}
	if len(ops) > 1 {
		s.ops, s.schema = ops, ops[len(ops)-1].Schema
	}
	if x != nil && x.Local {
		s.exchange = nil
	}
	switch scan.Kind {
	case plan.ScanStream:
		l, err := g.find(ids.StreamID(scan.Object))
		if err != nil {
			return nil, err
		}
		l.columns = scan.Columns
		s.log = l
		if _, err := datagen.NewDecoder(l.stream, l.columns); err != nil {
			return nil, err
		}
		for i := range ops {
			l.events = l.events || ops[i].Tumble != nil && ops[i].Tumble.Watermark >= 0
		}
		l.events = l.events || slices.Contains(l.columns, plan.ColWatermark)
	case plan.ScanView:
		up := g.views[ids.StreamID(scan.Object)]
		switch {
		case up == nil:
			return nil, fault.New(fault.NotFound, "view %q reads view %q, which doesn't exist", v.name, scan.Name)
		case up.failed.Load() != nil:
			return nil, fault.New(fault.Conflict, "view %q reads view %q, which has failed: %s", v.name, up.name, *up.failed.Load())
		}
		s.upView, s.columns = up.id, scan.Columns
		if _, err := s.columnsOf(up.codec.schema); err != nil {
			return nil, err
		}
		s.upStreams = up.streams
		v.addStreams(up.streams)
	default:
		return nil, fault.New(fault.Unsupported, "view %q scans %s %q; a view reads streams and views", v.name, scan.Kind, scan.Name)
	}
	if s.log != nil {
		v.addStreams([]*logPlan{s.log})
	}
	g.add(s)
	if s.ops == nil {
		return s, nil
	}
	_, err := dataflow.New(s.ops, dataflow.Env{Mode: dataflow.Live})
	return s, err
}

func (g *grapher) add(s *sourcePlan) {
	s.index = len(g.v.sources)
	g.v.sources = append(g.v.sources, s)
}

// columnsOf returns where the columns that s reads are among those of a view.
func (s *sourcePlan) columnsOf(schema record.Schema) ([]int, error) {
	out := make([]int, len(s.columns))
	for i, name := range s.columns {
		if out[i] = schema.Index(name); out[i] < 0 {
			return nil, fault.New(fault.NotFound, "view %q reads column %q of view %d, which hasn't got it", s.view.name, name, s.upView)
		}
	}
	return out, nil
}

// target makes a stage with state and the sources that it needs besides those of earlier stages.
func (g *grapher) target(index int, s *plan.Stage, last bool) error {
	v := g.v
	t := &targetPlan{view: v, index: index, last: last, ops: s.Ops, schema: s.Ops[len(s.Ops)-1].Schema, appends: g.appends[index]}
	t.codec = &rowCodec{layout: weighted, schema: t.schema, all: columnsUpTo(len(t.schema))}
	if last {
		t.codec = v.codec
	}
	levels := levelsOf(s.Ops)
	marks := false
	for i := range s.Ops {
		op := &s.Ops[i]
		marks = marks || usesMarks(op)
		var src *sourcePlan
		var err error
		switch op.Kind {
		case plan.OpScan:
			src, err = g.scan(s.Ops[i:i+1], 0, nil, false)
		case plan.OpInput:
			if op.Input == nil || op.Input.Stage < 0 || op.Input.Stage >= index {
				return fault.New(fault.Corrupted, "view %q: stage %d reads a stage that isn't before it", v.name, index)
			}
			src = g.sourceOf(op.Input.Stage)
		default:
			continue
		}
		if err != nil {
			return err
		}
		t.inputs = append(t.inputs, &inputPlan{source: src, leaf: i, level: levels[i]})
	}
	slices.SortStableFunc(t.inputs, func(a, b *inputPlan) int { return a.level - b.level })
	for _, in := range t.inputs {
		in.own = in.source.exchange == nil
		t.derived = t.derived || in.source.log == nil
		t.levels = t.levels || in.level != t.inputs[0].level
	}
	if marks {
		g.addMarks(t)
	}
	if len(t.inputs) == 0 {
		t.inputs = []*inputPlan{{source: g.clock(), leaf: -1, own: true}}
	}
	for _, in := range t.inputs {
		in.consumer = len(in.source.consumers)
		in.source.consumers = append(in.source.consumers, in)
		t.own = t.own || in.own
	}
	v.targets = append(v.targets, t)
	_, err := dataflow.New(t.ops, dataflow.Env{Mode: dataflow.Live})
	return err
}

// sourceOf returns the source that sends what a stage puts out.
func (g *grapher) sourceOf(stage int) *sourcePlan {
	if s := g.sources[stage]; s != nil {
		return s
	}
	st := &g.v.plan.Stages[stage]
	s := &sourcePlan{view: g.v, stage: -1, upStage: stage, schema: st.Ops[len(st.Ops)-1].Schema, exchange: st.Exchange}
	if s.exchange.Local {
		s.exchange = nil
	}
	g.sources[stage] = s
	g.add(s)
	return s
}

// addMarks gives a stage the event times of all streams that its rows come from: from the inputs that read their logs
// in all partitions, else from sources that bring nothing else.
func (g *grapher) addMarks(t *targetPlan) {
	for _, stream := range g.v.streamsOf(t) {
		if stream.stream.WatermarkColumn == "" {
			continue
		}
		found := -1
		for i, in := range t.inputs {
			if l := in.source.log; l != nil && l.id == stream.id {
				found = i
				in.own = false // rows come of the own partition only all the same
				break
			}
		}
		if found < 0 {
			found = len(t.inputs)
			t.inputs = append(t.inputs, &inputPlan{source: g.marksOf(stream), leaf: -1})
		}
		l := t.inputs[found].source.log
		l.events = true
		t.marks = append(t.marks, markPlan{l, found})
	}
}

// marksOf returns a source of a stream's event times: one that reads the stream anyway, if there is any.
func (g *grapher) marksOf(stream *logPlan) *sourcePlan {
	for _, s := range g.v.sources {
		if s.log != nil && s.log.id == stream.id {
			return s
		}
	}
	s := &sourcePlan{view: g.v, stage: -1, log: &logPlan{stream: stream.stream, id: stream.id, born: stream.born, marks: true, events: true}}
	g.add(s)
	return s
}

// clock is the source of a stage that reads nothing: the log of no stream, which is complete as far as the partition
// has closed.
func (g *grapher) clock() *sourcePlan {
	s := &sourcePlan{view: g.v, stage: -1, log: &logPlan{stream: &millracev1.Stream{Format: "json"}, marks: true}}
	g.add(s)
	return s
}

// levelsOf says which leaves of a stage must be complete in the history before others are taken: the right side of a
// temporal join before its left side, which would miss what comes later.
func levelsOf(ops []plan.Op) []int {
	levels := make([]int, len(ops))
	under := make([][]int, len(ops)) // leaves
	for i := range ops {
		if len(ops[i].Inputs) == 0 {
			under[i] = []int{i}
		}
		for _, in := range ops[i].Inputs {
			if in >= 0 && in < i {
				under[i] = append(under[i], under[in]...)
			}
		}
	}
	for range ops { // a longest path has no more edges than that
		for i := range ops {
			if ops[i].Kind != plan.OpTemporalJoin || len(ops[i].Inputs) != 2 {
				continue
			}
			above := 0
			for _, leaf := range under[ops[i].Inputs[1]] {
				above = max(above, levels[leaf]+1)
			}
			for _, leaf := range under[ops[i].Inputs[0]] {
				if !slices.Contains(under[ops[i].Inputs[1]], leaf) {
					levels[leaf] = max(levels[leaf], above)
				}
			}
		}
	}
	return levels
}

func columnsUpTo(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}
