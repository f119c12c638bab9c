package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// A checked query is a tree of relations over numbered columns. A column keeps its number wherever it goes, so that an
// expression means the same at any height of the tree: predicates move down and subqueries turn into joins without
// being rewritten. Which columns an operator really carries is decided when stages are cut (see build.go).

// columnInfo is what is known of a column wherever it goes.
type columnInfo struct {
	origin Origin // of a column as it stands in an object
	name   string
	typ    record.Type
	window *windowColumn
	// event is set for a column whose stream declares its WATERMARK.
	event bool
	// timed is set for a column that is event time or comes from it: once the watermark is at or above it plus lag
	// (microseconds), no row in time changes rows with that value any more.
	timed bool
	lag   int64
	// mark is the column with the watermark that the rows of an event column are held against; 0: there is none.
	mark int
}

// windowColumn marks a column that is the bound of a window, through subqueries too.
type windowColumn struct {
	end    bool  // window_end, else window_start
	size   int64 // microseconds; 0: it differs (sessions, CUMULATE)
	slide  int64 // microseconds; size where no two windows overlap; 0: it differs
	offset int64 // microseconds
	twin   int   // the other bound; 0: unknown
	// closes says that the start tells the end: every kind of window but CUMULATE.
	closes bool
}

// columns numbers the columns of one statement, from 1.
type columnTable struct{ info []columnInfo }

func (t *columnTable) add(c columnInfo) int {
	if len(t.info) == 0 {
		t.info = make([]columnInfo, 1, 64)
	}
	t.info = append(t.info, c)
	return len(t.info) - 1
}

func (t *columnTable) of(id int) *columnInfo { return &t.info[id] }

// relKind says which part of a rel is set.
type relKind uint8

const (
	relScan relKind = iota
	relValues
	relFilter
	relExtend
	relWindow
	relAggregate
	relExpand
	relJoin
	relTemporal
	relUnion
	relSetOp
	relDistinct
	relTopN
	relOver
	relUnnest
	relShared
	relEmit
	relLate
)

// rel is one operator of a checked query. The tree belongs to one statement; pushing predicates down changes it.
type rel struct {
	kind   relKind
	in     []*rel
	scan   *scanRel
	values *valuesRel
	preds  []*node // of a filter, a join and a temporal join
	items  []item  // of extend
	win    *windowRel
	agg    *aggregateRel
	expand *expandRel
	join   plan.JoinKind
	// dup says that the join is a semi join whose matches may come more than once, which nobody can tell.
	temporal *temporalRel
	branches *branchesRel // of union and set operations
	cols     []int        // of distinct: what makes rows differ; of emit: the window's end alone
	top      *topRel
	over     *overRel
	unnest   *unnestRel
	shared   *sharedRel
	late     *lateRel
}

// item is a computed column.
type item struct {
	id   int
	node *node
}

type scanRel struct {
	kind   plan.ScanKind
	object *Object
	cols   []int
	names  []string // as they are scanned
	mark   int      // the column with the watermark; 0: none
	event  int      // the event time column; 0: none
	drop   bool     // rows at or below the watermark are dropped: an interval join reads it
	asOf   uint64   // the tick that is read; 0: the statement's
}

type valuesRel struct {
	cols []int
	rows [][]*node
}

type windowKind string

const (
	windowTumble   windowKind = "tumble"
	windowHop      windowKind = "hop"
	windowCumulate windowKind = "cumulate"
	windowSession  windowKind = "session"
)

type windowRel struct {
	kind          windowKind
	time          int
	mark          int // 0: nothing is late
	size, slide   int64
	offset        int64
	keys          []int // of a session
	keysFromGroup bool  // SESSION without keys: those of the GROUP BY
	start, end    int
	at            int
	scope         []scopeColumn // the input's columns: what a session's keys may be
}

type aggregateRel struct {
	keys []int
	aggs []*aggregate
	// global says that there is one group, which is there without input too.
	global bool
}

type expandRel struct {
	keys     []int // input columns
	out      []int // what they are afterwards
	sets     [][]int
	grouping int // the column of GROUPING's bits
}

type temporalRel struct {
	outer     bool
	byTime    bool
	leftTime  int
	rightTime int
}

// branchesRel is UNION, INTERSECT or EXCEPT: cols[i] is column from[b][i] of branch b.
type branchesRel struct {
	kind setKind
	all  bool
	cols []int
	from [][]int
}

type topRel struct {
	fn     plan.RankFunc
	keys   []int
	order  []sortColumn
	limit  int64
	offset int64
	place  int // 0: nobody asked for it
}

type sortColumn struct {
	id         int
	desc       bool
	nullsFirst bool
}

type overRel struct {
	keys  []int
	order []sortColumn
	funcs []*overCall
}

type unnestRel struct {
	fn         string
	args       []*node
	outs       []int
	ordinality int
	outer      bool
}

// sharedRel is one use of a query that is used more than once.
type sharedRel struct {
	def  *sharedDef
	cols []int // this use's number of def.cols[i]
}

// sharedDef is a query that more than one place reads; it is computed once.
type sharedDef struct {
	name   string
	rel    *rel
	cols   []int
	uses   int
	need   map[int]bool
	done   *stream     // once it is built
	source *stageBuild // of a view: the stage that its uses read
}

// outs returns the columns that r gives.
func (r *rel) outs() []int {
	switch r.kind {
	case relScan:
		if r.scan.mark != 0 {
			return append(slices.Clone(r.scan.cols), r.scan.mark)
		}
		return r.scan.cols
	case relValues:
		return r.values.cols
	case relExtend:
		out := slices.Clone(r.in[0].outs())
		for _, it := range r.items {
			out = append(out, it.id)
		}
		return out
	case relWindow:
		return append(slices.Clone(r.in[0].outs()), r.win.start, r.win.end)
	case relAggregate:
		out := slices.Clone(r.agg.keys)
		for _, a := range r.agg.aggs {
			out = append(out, a.id)
		}
		return out
	case relExpand:
		return append(append(slices.Clone(r.in[0].outs()), r.expand.out...), r.expand.grouping)
	case relJoin:
		if leftOnly(r.join) {
			return r.in[0].outs()
		}
		return append(slices.Clone(r.in[0].outs()), r.in[1].outs()...)
	case relTemporal:
		return append(slices.Clone(r.in[0].outs()), r.in[1].outs()...)
	case relUnion, relSetOp:
		return r.branches.cols
	case relDistinct:
		return r.cols
	case relTopN:
		if r.top.place != 0 {
			return append(slices.Clone(r.in[0].outs()), r.top.place)
		}
	case relOver:
		out := slices.Clone(r.in[0].outs())
		for _, f := range r.over.funcs {
			out = append(out, f.id)
		}
		return out
	case relUnnest:
		out := append(slices.Clone(r.in[0].outs()), r.unnest.outs...)
		if r.unnest.ordinality != 0 {
			out = append(out, r.unnest.ordinality)
		}
		return out
	case relShared:
		return r.shared.cols
	case relLate:
		if r.late.start != 0 {
			return append(slices.Clone(r.in[0].outs()), r.late.start, r.late.end)
		}
	}
	return r.in[0].outs()
}

func leftOnly(k plan.JoinKind) bool {
	return k == plan.JoinSemi || k == plan.JoinAnti || k == plan.JoinNotIn
}

// idSet is a set of columns.
type idSet map[int]bool

func setOf(ids []int) idSet {
	out := make(idSet, len(ids))
	for _, id := range ids {
		out[id] = true
	}
	return out
}

func (s idSet) addNode(n *node) {
	n.walk(func(n *node) bool {
		if n.kind == plan.ExprCol {
			s[n.col] = true
		}
		return true
	})
}

func (s idSet) addAll(ids []int) {
	for _, id := range ids {
		s[id] = true
	}
}

func (s idSet) hasAll(ids []int) bool {
	for _, id := range ids {
		if !s[id] {
			return false
		}
	}
	return true
}

// within tells whether n uses columns of s alone.
func (s idSet) within(n *node) bool {
	ok := true
	n.walk(func(n *node) bool {
		if n.kind == plan.ExprCol && !s[n.col] {
			ok = false
		}
		return ok
	})
	return ok
}

// touches tells whether n uses a column of s.
func (s idSet) touches(n *node) bool {
	found := false
	n.walk(func(n *node) bool {
		if n.kind == plan.ExprCol && s[n.col] {
			found = true
		}
		return !found
	})
	return found
}

// nodes returns the expressions that r itself evaluates.
func (r *rel) nodes() []*node {
	out := slices.Clone(r.preds)
	for _, it := range r.items {
		out = append(out, it.node)
	}
	if r.values != nil {
		for _, row := range r.values.rows {
			out = append(out, row...)
		}
	}
	if r.unnest != nil {
		out = append(out, r.unnest.args...)
	}
	return out
}

// free tells whether the tree uses a column that it doesn't have itself: one of an outer query.
func (r *rel) free() bool {
	have := idSet{}
	for _, in := range r.in {
		if in.free() {
			return true
		}
		have.addAll(in.outs())
	}
	for _, n := range r.nodes() {
		if !have.within(n) {
			return true
		}
	}
	return false
}

func filterRel(in *rel, preds ...*node) *rel {
	if len(preds) == 0 {
		return in
	}
	return &rel{kind: relFilter, in: []*rel{in}, preds: preds}
}

func extendRel(in *rel, items ...item) *rel {
	if len(items) == 0 {
		return in
	}
	return &rel{kind: relExtend, in: []*rel{in}, items: items}
}

func joinRel(kind plan.JoinKind, left, right *rel, preds ...*node) *rel {
	return &rel{kind: relJoin, in: []*rel{left, right}, join: kind, preds: preds}
}
