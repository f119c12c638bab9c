package dataflow

import (
	"math"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// NoWatermark is the watermark or horizon of a stage that has none yet.
const NoWatermark = math.MinInt64

// Marks is how far event time has come at the end of a tick, in microseconds since the epoch; see package plan.
type Marks struct {
	Watermark int64 // windows that end at or below it are over
	Horizon   int64 // no later row that counts is at or below it; at most Watermark
}

// NoMarks is the marks of a stage without event time.
var NoMarks = Marks{NoWatermark, NoWatermark}

// maxOps bounds the operators of a stage: their state's keys begin with one byte that tells which.
const maxOps = 256

// Env is what a fragment needs besides its plan.
type Env struct {
	Mode      Mode
	State     State           // nil: in memory
	NowTick   ids.Tick        // the tick that an ad-hoc statement reads: current_tick() and now()
	Partition ids.PartitionID // where the fragment runs; an ad-hoc gateway is 0
	// AppendOnly promises that the stage takes no row back. Then equal rows of a tick may come out apart, which saves
	// looking for them.
	AppendOnly bool
	// Check, if set, is called with the rows that operators pass on, and whether whoever gets them keeps all of them until
	// the end of the tick. Its error ends the fragment: so an ad-hoc query bounds its time and its memory.
	Check func(rows *record.Delta, kept bool) error
	// Hold, if set, is called with how many bytes more the groups of an aggregate take, which it keeps until the end of the
	// tick. Its error ends the fragment.
	Hold func(bytes int64) error
}

// Fragment is one stage in one partition. Only one goroutine at a time may use it. After an error it is of no use:
// every call returns that error. A new Fragment over the same State goes on after the last tick that it ended.
type Fragment struct {
	ops   []operator
	links []link
	sink  *sink
	errs  *faults
	err   error
	chunk record.Delta
	due   []holder
}

// holder is an operator that may have rows to emit in a tick without input.
type holder interface {
	// nextDue returns the lowest watermark at which it has, if it has any.
	nextDue() (watermark int64, ok bool)
}

// operator is one step of a stage. What it passes to its output is valid only during that call, and so is what it
// gets.
type operator interface {
	port
	// endTick emits what had to wait for the end of the tick. All that the operator reads has ended before.
	endTick(tick ids.Tick, marks Marks) error
}

// link is what stands between an operator and those that read it.
type link struct {
	schema record.Schema
	need   []bool // columns that anyone reads
	to     []port
	// distinct is columns that no two rows of a tick have alike, nil if there is no such promise.
	distinct []int
	ordered  bool // the order of rows means something
	check    func(rows *record.Delta, kept bool) error
	kept     bool // someone who reads them keeps all rows
	rows     uint64
}

// port is where rows go into an operator: the operator itself or, if it reads several others, one of its inputs.
type port interface {
	// push takes rows of the current tick, at most chunkRows.
	push(in *record.Delta) error
}

// merger is an operator with several inputs; its own push is never called. Its inputs get their rows in any order,
// so that what depends on all of them waits for endTick.
type merger interface {
	// port returns where the rows of the i-th of its plan's Inputs go.
	port(i int) port
}

func (l *link) emit(d *record.Delta) error {
	if d.N == 0 {
		return nil
	}
	l.rows += uint64(d.N)
	if l.check != nil {
		if err := l.check(d, l.kept); err != nil {
			return err
		}
	}
	for _, to := range l.to {
		if err := to.push(d); err != nil {
			return err
		}
	}
	return nil
}

// New compiles a stage. Its errors tell of a plan that this package can't run.
func New(ops []plan.Op, env Env) (*Fragment, error) {
	if len(ops) == 0 || len(ops) > maxOps {
		return nil, defect("a stage has 1 to %d operators, this one %d", maxOps, len(ops))
	}
	f := &Fragment{errs: &faults{mode: env.Mode}, ops: make([]operator, len(ops)), links: make([]link, len(ops))}
	keep := env.State != nil || env.Mode == Live
	if env.State == nil {
		env.State = &MemState{}
	}
	for i := range ops {
		if err := checkOp(ops, i); err != nil {
			return nil, err
		}
		f.links[i] = link{schema: ops[i].Schema, need: make([]bool, len(ops[i].Schema))}
	}
	markNeeded(ops, f.links)
	for i := range ops {
		b := builder{env: env, keep: keep, errs: f.errs, op: &ops[i], index: byte(i), out: &f.links[i]}
		for _, in := range ops[i].Inputs {
			b.ins = append(b.ins, &f.links[in])
			b.in = b.ins[0]
		}
		op, err := b.build()
		if err != nil {
			return nil, err
		}
		f.ops[i] = op
		for n, in := range ops[i].Inputs {
			var to port = op
			if m, ok := op.(merger); ok {
				to = m.port(n)
			}
			f.links[in].to = append(f.links[in].to, to)
		}
		if due, ok := op.(holder); ok {
			f.due = append(f.due, due)
		}
	}
	last := &f.links[len(ops)-1]
	f.sink = newSink(last, env.AppendOnly)
	last.to = append(last.to, f.sink)
	last.kept = true
	for i := range f.links {
		f.links[i].check = env.Check
	}
	for i := range ops {
		for _, in := range ops[i].Inputs {
			f.links[in].kept = f.links[in].kept || keepsRows(ops[i].Kind)
		}
	}
	return f, nil
}

// keepsRows tells whether an operator keeps all rows that it gets until the end of the tick.
func keepsRows(k plan.OpKind) bool {
	switch k {
	case plan.OpSession, plan.OpJoin, plan.OpTemporalJoin, plan.OpSetOp, plan.OpTopN, plan.OpWindow, plan.OpDistinct, plan.OpSort:
		return true
	}
	return false
}

// inputs returns the least and the largest number of inputs of an operator.
func inputs(kind plan.OpKind) (least, most int) {
	switch kind {
	case plan.OpScan, plan.OpInput, plan.OpValues:
		return 0, 0
	case plan.OpJoin, plan.OpTemporalJoin, plan.OpSetOp:
		return 2, 2
	case plan.OpUnion:
		return 1, maxOps
	}
	return 1, 1
}

// checkOp checks what every operator relies on.
func checkOp(ops []plan.Op, i int) error {
	if least, most := inputs(ops[i].Kind); len(ops[i].Inputs) < least || len(ops[i].Inputs) > most {
		return defect("operator %d (%s) has %d inputs", i, ops[i].Kind, len(ops[i].Inputs))
	}
	for _, in := range ops[i].Inputs {
		if in < 0 || in >= i {
			return defect("operator %d (%s) reads operator %d, which doesn't come before it", i, ops[i].Kind, in)
		}
	}
	return nil
}

// markNeeded sets which columns of each operator's output somebody reads, from the last one backwards.
func markNeeded(ops []plan.Op, links []link) {
	all := func(need []bool) {
		for c := range need {
			need[c] = true
		}
	}
	all(links[len(ops)-1].need)
	for i := len(ops) - 1; i >= 0; i-- {
		switch {
		case len(ops[i].Inputs) == 0:
		case ops[i].Kind == plan.OpJoin && ops[i].Join != nil:
			needOfJoin(ops[i].Join, links[ops[i].Inputs[0]].need, links[ops[i].Inputs[1]].need, links[i].need)
		case ops[i].Kind == plan.OpTemporalJoin && ops[i].TemporalJoin != nil:
			needOfTemporalJoin(ops[i].TemporalJoin, links[ops[i].Inputs[0]].need, links[ops[i].Inputs[1]].need, links[i].need)
		case ops[i].Kind == plan.OpUnion:
			for _, in := range ops[i].Inputs {
				copyNeed(links[in].need, links[i].need)
			}
		case len(ops[i].Inputs) == 1:
			if need := links[ops[i].Inputs[0]].need; !needOfOne(&ops[i], need, links[i].need) {
				all(need)
			}
		default:
			for _, in := range ops[i].Inputs {
				all(links[in].need)
			}
		}
	}
}

// needOfOne marks what op reads of its one input, given what is read of its output. False: all of it.
func needOfOne(op *plan.Op, need, out []bool) bool {
	mark := func(c int) {
		if c >= 0 && c < len(need) {
			need[c] = true
		}
	}
	switch {
	case op.Kind == plan.OpFilter && op.Filter != nil:
		copyNeed(need, out)
		eachColumn(&op.Filter.Pred, mark)
	case op.Kind == plan.OpProject && op.Project != nil:
		for e := range op.Project.Exprs {
			eachColumn(&op.Project.Exprs[e], mark)
		}
	case op.Kind == plan.OpUnnest && op.Unnest != nil:
		needOfUnnest(op.Unnest, need, out, mark)
	case op.Kind == plan.OpTumble && op.Tumble != nil:
		copyNeed(need, out)
		mark(op.Tumble.Time)
		mark(op.Tumble.Watermark)
	case op.Kind == plan.OpAggregate && op.Aggregate != nil && op.Aggregate.Phase != plan.AggFinal:
		for _, c := range op.Aggregate.Keys {
			mark(c)
		}
		for i := range op.Aggregate.Aggs {
			eachAggColumn(&op.Aggregate.Aggs[i], mark)
		}
	case op.Kind == plan.OpHop && op.Hop != nil:
		copyNeed(need, out)
		mark(op.Hop.Time)
		mark(op.Hop.Watermark)
	case op.Kind == plan.OpDropLate && op.DropLate != nil:
		copyNeed(need, out)
		mark(op.DropLate.Time)
		mark(op.DropLate.Watermark)
		mark(op.DropLate.Event - 1)
	case op.Kind == plan.OpLate && op.Late != nil:
		copyNeed(need, out)
		mark(op.Late.Time)
		mark(op.Late.Watermark)
	case op.Kind == plan.OpExpand && op.Expand != nil:
		copyNeed(need, out)
	default:
		return false
	}
	return true
}

// needOfJoin marks what a join reads of its two inputs.
func needOfJoin(j *plan.Join, left, right, out []bool) {
	mark := func(c int) { markEither(left, right, c) }
	for c, need := range out {
		if need {
			mark(c)
		}
	}
	for _, c := range j.LeftKeys {
		mark(c)
	}
	for _, c := range j.RightKeys {
		mark(len(left) + c)
	}
	if j.Residual != nil {
		eachColumn(j.Residual, mark)
	}
	if j.LeftExpire != nil {
		mark(j.LeftExpire.Col)
	}
	if j.RightExpire != nil {
		mark(len(left) + j.RightExpire.Col)
	}
}

// needOfTemporalJoin marks what a temporal join reads of its two inputs.
func needOfTemporalJoin(j *plan.TemporalJoin, left, right, out []bool) {
	needOfJoin(&plan.Join{LeftKeys: j.LeftKeys, RightKeys: j.RightKeys, Residual: j.Residual, RightExpire: j.Expire}, left, right, out)
	if j.LeftTime >= 0 {
		fill(left, true) // whole rows wait
	}
	if j.RightTime >= 0 {
		markEither(left, right, len(left)+j.RightTime)
	}
}

// markEither marks column c of both inputs' columns.
func markEither(left, right []bool, c int) {
	switch {
	case c >= 0 && c < len(left):
		left[c] = true
	case c >= len(left) && c-len(left) < len(right):
		right[c-len(left)] = true
	}
}

func copyNeed(need, out []bool) {
	for c := range need {
		if c < len(out) && out[c] {
			need[c] = true
		}
	}
}

// eachAggColumn calls fn for every column that a reads in phases single and partial; -1 for none.
func eachAggColumn(a *plan.Agg, fn func(col int)) {
	fn(a.Arg)
	fn(a.Filter - 1)
	for _, c := range a.More {
		fn(c)
	}
	for _, k := range a.Order {
		fn(k.Col)
	}
}

// eachColumn calls fn for every column that e reads.
func eachColumn(e *plan.Expr, fn func(col int)) {
	if e.Kind == plan.ExprCol {
		fn(e.Col)
	}
	for i := range e.Args {
		eachColumn(&e.Args[i], fn)
	}
}

// builder is what the constructors of operators take from.
type builder struct {
	env     Env
	keep    bool // state is kept between ticks
	errs    *faults
	op      *plan.Op
	index   byte
	ins     []*link // of all inputs
	in, out *link   // in is the first of ins
}

func (b *builder) build() (operator, error) {
	switch op := b.op; {
	case op.Kind == plan.OpScan && op.Scan != nil, op.Kind == plan.OpInput && op.Input != nil:
		return newLeaf(b)
	case op.Kind == plan.OpFilter && op.Filter != nil:
		return newFilter(b)
	case op.Kind == plan.OpProject && op.Project != nil:
		return newProject(b)
	case op.Kind == plan.OpTumble && op.Tumble != nil:
		return newTumble(b)
	case op.Kind == plan.OpHop && op.Hop != nil:
		return newHop(b)
	case op.Kind == plan.OpDropLate && op.DropLate != nil:
		return newDropLate(b)
	case op.Kind == plan.OpLate && op.Late != nil:
		return newLate(b)
	case op.Kind == plan.OpExpand && op.Expand != nil:
		return newExpand(b)
	case op.Kind == plan.OpWindow && op.Window != nil:
		return newWindow(b)
	case op.Kind == plan.OpSession && op.Session != nil:
		return newSession(b)
	case op.Kind == plan.OpAggregate && op.Aggregate != nil:
		return newAggregate(b)
	case op.Kind == plan.OpEmitFinal && op.EmitFinal != nil:
		return newEmitFinal(b)
	case op.Kind == plan.OpDistinct:
		return newDistinct(b)
	case op.Kind == plan.OpSort && op.Sort != nil:
		return newSort(b)
	case op.Kind == plan.OpValues && op.Values != nil:
		return newValues(b)
	case op.Kind == plan.OpUnion:
		return newUnion(b)
	case op.Kind == plan.OpUpsert && op.Upsert != nil:
		return newUpsert(b)
	case op.Kind == plan.OpJoin && op.Join != nil:
		return newJoin(b)
	case op.Kind == plan.OpUnnest && op.Unnest != nil:
		return newUnnest(b)
	case op.Kind == plan.OpTemporalJoin && op.TemporalJoin != nil:
		return newTemporalJoin(b)
	case op.Kind == plan.OpTopN && op.TopN != nil:
		return newTopN(b)
	case op.Kind == plan.OpSetOp && op.SetOp != nil:
		return newSetOp(b)
	}
	return nil, fault.New(fault.Unsupported, "dataflow: no operator %q, or its part of the plan is missing", b.op.Kind)
}

// column checks that c is a column of the input, of type t unless that is Unknown.
func (b *builder) column(c int, t record.Type) error {
	if c < 0 || c >= len(b.in.schema) {
		return defect("operator %d (%s) reads column %d of %d", b.index, b.op.Kind, c, len(b.in.schema))
	}
	if t != record.Unknown && b.in.schema[c].Type != t {
		return defect("operator %d (%s) reads column %d as %s, which is %s", b.index, b.op.Kind, c, t, b.in.schema[c].Type)
	}
	return nil
}

// sameSchema checks that the operator's output has the columns of its input, with `more` columns after them.
func (b *builder) sameSchema(more int) error {
	in, out := b.in.schema, b.out.schema
	if len(out) != len(in)+more {
		return defect("operator %d (%s) has %d columns over an input of %d", b.index, b.op.Kind, len(out), len(in))
	}
	for i := range in {
		if in[i].Type != out[i].Type {
			return defect("operator %d (%s) makes column %d %s of %s", b.index, b.op.Kind, i, out[i].Type, in[i].Type)
		}
	}
	return nil
}

// Expect tells how many rows Push will be given for the tick that is being built, so that room can be made for what becomes
// of them.
func (f *Fragment) Expect(rows int) { f.sink.expect(rows) }

// Push takes rows of the tick that is being built, for leaf op (scan or input). It doesn't keep in.
func (f *Fragment) Push(op int, in *record.Delta) error {
	if f.err != nil {
		return f.err
	}
	f.err = f.push(op, in)
	return f.err
}

func (f *Fragment) push(op int, in *record.Delta) error {
	if op < 0 || op >= len(f.ops) {
		return defect("operator %d of %d gets rows", op, len(f.ops))
	}
	if _, ok := f.ops[op].(*leaf); !ok {
		return defect("operator %d gets rows, but is no leaf", op)
	}
	if in.N == 0 {
		return nil
	}
	if err := checkDelta(in, f.links[op].schema); err != nil {
		return err
	}
	if in.N <= chunkRows {
		return f.pushChunk(op, in)
	}
	for lo := 0; lo < in.N; lo += chunkRows {
		sliceDelta(&f.chunk, in, lo, min(lo+chunkRows, in.N))
		if err := f.pushChunk(op, &f.chunk); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fragment) pushChunk(op int, in *record.Delta) error {
	f.sink.begin()
	if err := f.ops[op].push(in); err != nil {
		return err
	}
	return f.errs.err
}

// checkDelta checks that d has the columns of s.
func checkDelta(d *record.Delta, s record.Schema) error {
	if len(d.Cols) != len(s) {
		return defect("rows have %d columns, not %d", len(d.Cols), len(s))
	}
	for i := range s {
		if d.Cols[i].Type != s[i].Type || d.Cols[i].N != d.N {
			return defect("column %d (%s) of %d rows is %s with %d values, not %s",
				i, s[i].Name, d.N, d.Cols[i].Type, d.Cols[i].N, s[i].Type)
		}
	}
	if d.Weights != nil && len(d.Weights) != d.N {
		return defect("%d rows have %d weights", d.N, len(d.Weights))
	}
	return nil
}

// EndTick ends the tick and returns the stage's net change of it: no row twice (unless an ORDER BY gives them an
// order, or with Env.AppendOnly), none with weight 0. It is valid until the next Push or EndTick.
func (f *Fragment) EndTick(tick ids.Tick, marks Marks) (*record.Delta, error) {
	if f.err != nil {
		return nil, f.err
	}
	f.sink.begin()
	for _, op := range f.ops {
		if err := op.endTick(tick, marks); err != nil {
			f.err = err
			return nil, err
		}
		if f.errs.err != nil {
			f.err = f.errs.err
			return nil, f.err
		}
	}
	return f.sink.take(), nil
}

// Detach returns what the last EndTick returned, for the caller to keep: the fragment doesn't use its memory any more.
func (f *Fragment) Detach() *record.Delta { return f.sink.detach() }

// NextDue returns the lowest watermark at which EndTick would emit rows without input: rows that are held back, or the
// first row of an aggregate without keys (NoWatermark: at once). A caller may leave out ticks without input below it.
func (f *Fragment) NextDue() (watermark int64, ok bool) {
	for _, h := range f.due {
		if due, has := h.nextDue(); has && (!ok || due < watermark) {
			watermark, ok = due, true
		}
	}
	return watermark, ok
}

// OpRows appends for each operator how many rows it has passed on since New.
func (f *Fragment) OpRows(dst []uint64) []uint64 {
	for i := range f.links {
		dst = append(dst, f.links[i].rows)
	}
	return dst
}

// Counts returns what was counted since New or the last TakeCounts.
func (f *Fragment) Counts() Counts { return f.errs.snapshot() }

// TakeCounts returns what was counted since New or the last TakeCounts, and begins anew.
func (f *Fragment) TakeCounts() Counts {
	c := f.errs.snapshot()
	f.errs.counts, f.errs.last = Counts{}, nil
	return c
}

// leaf is where rows come in: a scan or an input.
type leaf struct{ out *link }

func newLeaf(b *builder) (operator, error) {
	// A stream's offset is a row's identity within its partition.
	if b.op.Kind == plan.OpScan && b.op.Scan.Kind == plan.ScanStream {
		if c := b.out.schema.Index(plan.ColOffset); c >= 0 {
			b.out.distinct = []int{c}
		}
	}
	return &leaf{b.out}, nil
}

func (l *leaf) push(in *record.Delta) error { return l.out.emit(in) }

func (l *leaf) endTick(ids.Tick, Marks) error { return nil }
