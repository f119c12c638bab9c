package sql

import (
	"maps"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// planner cuts a checked query into stages. It works from the scans upwards; a stage stays open until its rows have to
// move, and open stages can be merged, since nobody reads them yet. A view moves rows by the hash of keys. An ad-hoc
// query moves them once, from the stages of its scans to the node that was asked, where one stage does all the rest.
type planner struct {
	a      *analyzer
	src    *source
	live   bool
	gate   *stageBuild // ad hoc: the stage at the node that was asked
	stages int
	by     map[*rel][]int // columns by which a grouping's rows should move: see prefer
}

// stageBuild is a stage that is being made.
type stageBuild struct {
	ops      []plan.Op
	reads    map[int]*stageBuild // stages that input operators read, by the operator's index
	scan     bool                // it begins with a scan, and so keeps no state
	exchange *plan.Exchange      // set once it is closed
	number   int
}

// Bounds of a plan: operators of a stage (package dataflow's), and stages.
const (
	maxStageOps = 250
	maxStages   = 500
)

// stream is the rows of an operator in an open stage.
type stream struct {
	st   *stageBuild
	op   int
	pos  map[int]int   // where columns are
	virt map[int]*node // columns that are still to be computed, over those of pos
	dist distribution
	// appendOnly says that no row is taken back.
	appendOnly bool
	keys       [][]int // sets of columns of which no two rows have the same values
}

// bailout carries an error out of the recursion of build, to plan.
type bailout struct{ err error }

// stop ends planning with err.
func (p *planner) stop(err error) { panic(bailout{err}) }

// tooLarge ends planning of a statement that needs more than count of what.
func (p *planner) tooLarge(count int, what string) {
	p.stop(p.src.fail(0, stateTooDeep, "make views of its parts", "statement needs more than %d %s", count, what))
}

// run calls make, which plans, and returns the error that stopped it.
func (p *planner) run(make func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			b, ok := r.(bailout)
			if !ok {
				panic(r)
			}
			err = b.err
		}
	}()
	make()
	return nil
}

func (p *planner) newStage() *stageBuild {
	if p.stages++; p.stages > maxStages {
		p.tooLarge(maxStages, "stages")
	}
	return &stageBuild{reads: map[int]*stageBuild{}}
}

// schema returns the columns of the stream's operator.
func (s *stream) schema() record.Schema { return s.st.ops[s.op].Schema }

// add appends an operator that reads s, and others of its stage.
func (p *planner) add(s *stream, op plan.Op, others ...int) {
	op.Inputs = append([]int{s.op}, others...)
	if op.Schema == nil {
		op.Schema = s.schema()
	}
	if len(s.st.ops) >= maxStageOps {
		p.tooLarge(maxStageOps, "operators in one stage")
	}
	s.st.ops = append(s.st.ops, op)
	s.op = len(s.st.ops) - 1
}

// node returns n with computed columns written out.
func (s *stream) node(n *node) *node {
	if len(s.virt) == 0 {
		return n
	}
	out, _ := n.rewrite(func(n *node) (*node, error) {
		if n.kind == plan.ExprCol {
			if v, ok := s.virt[n.col]; ok {
				return v, nil
			}
			return n, nil
		}
		return nil, nil
	})
	return resized(out)
}

// resized counts the nodes of n anew.
func resized(n *node) *node {
	size := 1
	for _, a := range n.args {
		size = min(size+a.size, 1<<40)
	}
	if size == n.size {
		return n
	}
	c := *n
	c.size = size
	return &c
}

func (s *stream) expr(n *node) plan.Expr { return s.node(n).expr(s.pos) }

// columnsOf returns the stream's columns among need: first those that are there, in their order, then the computed ones.
func (s *stream) columnsOf(need idSet) []int {
	var out []int
	for id := range s.pos {
		if need[id] {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(x, y int) int {
		if d := s.pos[x] - s.pos[y]; d != 0 {
			return d
		}
		return x - y
	})
	virtual := slices.Sorted(maps.Keys(s.virt))
	for _, id := range virtual {
		if need[id] {
			out = append(out, id)
		}
	}
	return out
}

// project makes the stream's columns those of ids, one for each, under names where given.
func (p *planner) project(s *stream, ids []int, names []string) {
	in := s.schema()
	identical := len(ids) == len(in)
	for i, id := range ids {
		pos, ok := s.pos[id]
		identical = identical && ok && pos == i && (names == nil || in[i].Name == names[i])
	}
	next := map[int]int{}
	schema := make(record.Schema, len(ids))
	exprs := make([]plan.Expr, len(ids))
	for i, id := range ids {
		exprs[i] = s.expr(p.a.columnNode(id, 0))
		name := p.a.cols.of(id).name
		if names != nil {
			name = names[i]
		} else if exprs[i].Kind == plan.ExprCol {
			name = in[exprs[i].Col].Name
		} else if name == "" || name == "?column?" {
			name = exprText(exprs[i], in)
		}
		schema[i] = record.Field{Name: name, Type: exprs[i].Type}
		if _, ok := next[id]; !ok {
			next[id] = i
		}
	}
	if !identical {
		p.add(s, plan.Op{Kind: plan.OpProject, Schema: schema, Project: &plan.Project{Exprs: exprs}})
	}
	s.pos, s.virt = next, map[int]*node{}
}

// settle makes ids columns of the operator, computing them if need be; of the others those of need stay.
func (p *planner) settle(s *stream, need idSet, ids ...int) {
	for _, id := range ids {
		if _, ok := s.pos[id]; !ok {
			all := maps.Clone(need)
			for _, id := range ids {
				all[id] = true
			}
			p.project(s, s.columnsOf(all), nil)
			return
		}
	}
}

// narrow drops the columns that need lacks and computes those that it has.
func (p *planner) narrow(s *stream, need idSet) {
	p.project(s, s.columnsOf(need), nil)
}

func (s *stream) positions(ids []int) []int {
	out := make([]int, len(ids))
	for i, id := range ids {
		out[i] = s.pos[id]
	}
	return out
}

// move closes the stream's stage and begins another that reads it.
func (p *planner) move(s *stream, x plan.Exchange) {
	schema := s.schema()
	if s.op != len(s.st.ops)-1 { // the stage's last operator is its output
		p.add(s, plan.Op{Kind: plan.OpProject, Schema: schema, Project: &plan.Project{Exprs: columnExprs(schema)}})
	}
	from := s.st
	from.exchange = &x
	to := p.gate
	if to == nil || p.live {
		to = p.newStage()
	}
	if !p.live {
		p.gate = to
	}
	s.st = to
	to.ops = append(to.ops, plan.Op{Kind: plan.OpInput, Schema: schema, Input: &plan.Input{}})
	s.op = len(to.ops) - 1
	to.reads[s.op] = from
	if len(to.ops) > maxStageOps {
		p.tooLarge(maxStageOps, "operators in one stage")
	}
}

func columnExprs(schema record.Schema) []plan.Expr {
	out := make([]plan.Expr, len(schema))
	for i, f := range schema {
		out[i] = plan.Expr{Kind: plan.ExprCol, Type: f.Type, Col: i}
	}
	return out
}

// gather brings an ad-hoc query's rows to the node that was asked.
func (p *planner) gather(s *stream, need idSet) {
	if s.st == p.gate {
		return
	}
	p.narrow(s, need)
	p.move(s, plan.Exchange{Key: []int{}, Gather: true})
	s.dist = distribution{kind: distSingle}
}

// together brings rows that are equal in keys to one place, in a stage that may keep state; none: all rows. Of the
// columns those of need stay.
func (p *planner) together(s *stream, need idSet, keys []int) {
	if !p.live {
		p.gather(s, withKeys(need, keys))
		return
	}
	if p.serves(s, keys) {
		p.stateful(s, withKeys(need, keys))
		return
	}
	p.narrow(s, withKeys(need, keys))
	p.move(s, plan.Exchange{Key: s.positions(keys)})
	s.dist = hashed(keys)
}

func withKeys(need idSet, keys []int) idSet {
	out := maps.Clone(need)
	out.addAll(keys)
	return out
}

// stateful puts s into a stage that may keep state, without moving rows.
func (p *planner) stateful(s *stream, need idSet) {
	switch {
	case !s.st.scan:
	case p.live:
		p.narrow(s, need)
		p.stay(s)
	default:
		p.gather(s, need)
	}
}

// merge puts two streams into one stage. Both may keep state.
func (p *planner) merge(s, t *stream) {
	into, from := s.st, t.st
	if into == from {
		return
	}
	shift := len(into.ops)
	for i := range from.ops {
		op := from.ops[i]
		op.Inputs = slices.Clone(op.Inputs)
		for j := range op.Inputs {
			op.Inputs[j] += shift
		}
		into.ops = append(into.ops, op)
	}
	for i, st := range from.reads {
		into.reads[i+shift] = st
	}
	t.st, t.op = into, t.op+shift
	if len(into.ops) > maxStageOps {
		p.tooLarge(maxStageOps, "operators in one stage")
	}
}

// numbered puts the stages that last reads in an order in which each comes after those that it reads.
func (p *planner) numbered(last *stageBuild) []plan.Stage {
	var out []plan.Stage
	seen := map[*stageBuild]bool{}
	var visit func(st *stageBuild)
	visit = func(st *stageBuild) {
		if seen[st] {
			return
		}
		seen[st] = true
		for _, i := range slices.Sorted(maps.Keys(st.reads)) {
			visit(st.reads[i])
			st.ops[i].Input.Stage = st.reads[i].number
		}
		st.number = len(out)
		out = append(out, plan.Stage{Ops: st.ops, Exchange: st.exchange})
	}
	visit(last)
	return out
}

// build plans r so that it has the columns of need, at least.
func (p *planner) build(r *rel, need idSet) *stream {
	switch r.kind {
	case relScan:
		return p.scan(r, need, nil)
	case relValues:
		return p.values(r)
	case relFilter:
		return p.filter(r, need)
	case relExtend:
		return p.extend(r, need)
	case relWindow:
		return p.window(r, need)
	case relAggregate:
		return p.aggregate(r, need)
	case relExpand:
		return p.expand(r, need)
	case relJoin:
		return p.join(r, need)
	case relTemporal:
		return p.temporal(r, need)
	case relUnion:
		return p.union(r, need)
	case relSetOp:
		return p.setOp(r)
	case relDistinct:
		return p.distinct(r)
	case relTopN:
		return p.topN(r, need)
	case relOver:
		return p.over(r, need)
	case relUnnest:
		return p.unnest(r, need)
	case relShared:
		return p.shared(r, need)
	case relLate:
		return p.late(r, need)
	}
	return p.emit(r, need)
}
