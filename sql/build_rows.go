package sql

import (
	"maps"
	"math"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// scan reads a stream, view or table.
func (p *planner) scan(r *rel, need idSet, where []*node) *stream {
	sc := r.scan
	op := &plan.Scan{Kind: sc.kind, Object: sc.object.ID, Name: sc.object.Name, Columns: []string{}, AsOf: sc.asOf, Table: sc.object.Kind == ObjectTable}
	if sc.kind == plan.ScanView {
		op.KeyPrefix = keyPrefix(where, sc)
		if !p.live {
			op.Index = indexRead(where, sc, len(op.KeyPrefix))
		}
	}
	st := p.newStage()
	st.scan = true
	s := &stream{st: st, pos: map[int]int{}, virt: map[int]*node{}, appendOnly: p.a.appendOnly(r)}
	schema := record.Schema{}
	read := func(id int, name string) {
		if at := slices.Index(op.Columns, name); at >= 0 { // _offset and offset of dead letters
			s.pos[id] = at
			return
		}
		s.pos[id] = len(schema)
		op.Columns = append(op.Columns, name)
		schema = append(schema, record.Field{Name: name, Type: p.a.cols.of(id).typ})
	}
	for i, id := range sc.cols {
		if need[id] || sc.drop && id == sc.event {
			read(id, sc.names[i])
		}
	}
	if sc.mark != 0 && (need[sc.mark] || sc.drop) {
		read(sc.mark, plan.ColWatermark)
	}
	st.ops = append(st.ops, plan.Op{Kind: plan.OpScan, Schema: schema, Scan: op})
	if sc.drop {
		p.add(s, plan.Op{Kind: plan.OpDropLate, DropLate: &plan.DropLate{Time: s.pos[sc.event], Watermark: s.pos[sc.mark]}})
	}
	if key := sc.object.Key; sc.kind == plan.ScanView && key != nil {
		ids := []int{}
		for _, k := range key {
			ids = append(ids, sc.cols[k])
		}
		s.keys = [][]int{ids}
	}
	if p.live && sc.kind == plan.ScanView && sc.object.Plan != nil {
		s.dist = placedBy(sc.object.Plan.Placed, sc.cols)
	}
	return s
}

// keyPrefix returns the constants to which where fixes a view's leading key columns.
func keyPrefix(where []*node, sc *scanRel) []record.Value {
	var out []record.Value
	for _, k := range sc.object.Key {
		found := false
		for _, n := range where {
			if n.kind != plan.ExprCall || n.fn != "eq" {
				continue
			}
			col, val := n.args[0], n.args[1]
			if col.kind == plan.ExprConst {
				col, val = val, col
			}
			if col.kind == plan.ExprCol && col.col == sc.cols[k] && val.kind == plan.ExprConst && !val.val.Null {
				out, found = append(out, val.val), true
				break
			}
		}
		if !found {
			break
		}
	}
	return out
}

// values is constant rows: in partition 0, or at the node that was asked.
func (p *planner) values(r *rel) *stream {
	v := r.values
	st := p.gate
	if p.live || st == nil {
		st = p.newStage()
	}
	if !p.live {
		p.gate = st
	}
	s := &stream{st: st, pos: map[int]int{}, virt: map[int]*node{}, appendOnly: true, dist: distribution{kind: distSingle}}
	schema := record.Schema{}
	for i, id := range v.cols {
		s.pos[id] = i
		schema = append(schema, record.Field{Name: p.a.cols.of(id).name, Type: p.a.cols.of(id).typ})
	}
	rows := make([][]plan.Expr, len(v.rows))
	for i, row := range v.rows {
		rows[i] = make([]plan.Expr, len(row))
		for j, n := range row {
			rows[i][j] = n.expr(nil)
		}
	}
	st.ops = append(st.ops, plan.Op{Kind: plan.OpValues, Schema: schema, Values: &plan.Values{Rows: rows}})
	s.op = len(st.ops) - 1
	if len(rows) == 1 {
		s.keys = [][]int{{}}
	}
	return s
}

// filter appends the predicates. Those that may fail for rows that the others drop come after them.
func (p *planner) filter(r *rel, need idSet) *stream {
	below := maps.Clone(need)
	for _, n := range r.preds {
		below.addNode(n)
	}
	var s *stream
	if r.in[0].kind == relScan {
		s = p.scan(r.in[0], below, r.preds)
	} else {
		s = p.build(r.in[0], below)
	}
	s.equate(r.preds)
	preds := make([]*node, len(r.preds))
	for i, n := range r.preds {
		preds[i] = s.node(n)
	}
	safe, risky := split(preds, func(n *node) bool { return !canFail(n) })
	if len(risky) > 0 && len(safe) > 0 && hasDivision(risky) {
		p.keep(s, safe)
		p.keep(s, risky)
		return s
	}
	p.keep(s, preds)
	return s
}

// canFail tells whether n may fail for some row: all but comparisons and logic over columns and constants.
func canFail(n *node) bool {
	found := false
	n.walk(func(n *node) bool {
		switch n.kind {
		case plan.ExprCall:
			switch n.fn {
			case "eq", "ne", "lt", "le", "gt", "ge", "distinct", "like", "ilike", "starts_with":
			default:
				found = true
			}
		case plan.ExprCast:
			found = true
		}
		return !found
	})
	return found
}

func hasDivision(preds []*node) bool { return slices.ContainsFunc(preds, canFail) }

func (p *planner) keep(s *stream, preds []*node) {
	switch len(preds) {
	case 0:
		return
	case 1:
		p.add(s, plan.Op{Kind: plan.OpFilter, Filter: &plan.Filter{Pred: preds[0].expr(s.pos)}})
		return
	}
	all := inner(plan.ExprAnd, record.Boolean, preds[0].pos, preds...)
	p.add(s, plan.Op{Kind: plan.OpFilter, Filter: &plan.Filter{Pred: all.expr(s.pos)}})
}

// extend notes computed columns; they are computed where they are needed.
func (p *planner) extend(r *rel, need idSet) *stream {
	below := maps.Clone(need)
	for _, it := range r.items {
		if need[it.id] {
			below.addNode(it.node)
		}
	}
	s := p.build(r.in[0], below)
	for _, it := range r.items {
		if !need[it.id] {
			continue
		}
		if it.node.kind == plan.ExprCol {
			s.dist = s.dist.with(it.node.col, it.id)
		}
		n := s.node(it.node)
		if n.size > maxInline && len(s.virt) > 0 {
			p.settle(s, below, slices.Collect(maps.Keys(s.virt))...)
			n = it.node
		}
		if at, ok := s.pos[n.col]; n.kind == plan.ExprCol && ok {
			s.pos[it.id] = at
		} else {
			s.virt[it.id] = n
		}
	}
	return s
}

// unnest appends the elements of a set-returning function.
func (p *planner) unnest(r *rel, need idSet) *stream {
	below := maps.Clone(need)
	for _, n := range r.unnest.args {
		below.addNode(n)
	}
	s := p.build(r.in[0], below)
	u := &plan.Unnest{Func: r.unnest.fn, Outer: r.unnest.outer, Ordinality: r.unnest.ordinality != 0}
	for _, n := range r.unnest.args {
		u.Args = append(u.Args, s.expr(n))
	}
	schema := slices.Clone(s.schema())
	if schema == nil {
		schema = record.Schema{}
	}
	outs := slices.Clone(r.unnest.outs)
	if u.Ordinality {
		outs = append(outs, r.unnest.ordinality)
	}
	for _, id := range outs {
		s.pos[id] = len(schema)
		schema = append(schema, record.Field{Name: p.a.cols.of(id).name, Type: p.a.cols.of(id).typ})
	}
	p.add(s, plan.Op{Kind: plan.OpUnnest, Schema: schema, Unnest: u})
	s.keys = nil
	return s
}

// union puts the rows of all branches into one stream.
func (p *planner) union(r *rel, need idSet) *stream {
	b := r.branches
	var wanted []int // positions among the union's columns
	for i, id := range b.cols {
		if need[id] {
			wanted = append(wanted, i)
		}
	}
	streams := make([]*stream, len(r.in))
	for k, in := range r.in {
		cols := make([]int, len(wanted))
		for i, w := range wanted {
			cols[i] = b.from[k][w]
		}
		s := p.build(in, setOf(cols))
		if len(r.in) == 1 {
			return s.renamed(wanted, b)
		}
		p.project(s, cols, nil)
		p.stateful(s, setOf(cols))
		p.project(s, cols, nil) // a column that is there twice went once
		streams[k] = s
	}
	out := streams[0]
	var others []int
	for _, s := range streams[1:] {
		p.merge(out, s)
		others = append(others, s.op)
		out.appendOnly = out.appendOnly && s.appendOnly
	}
	out.dist = p.unionPlaced(b, streams)
	schema := record.Schema{}
	pos := map[int]int{}
	for i, w := range wanted {
		pos[b.cols[w]] = i
		schema = append(schema, record.Field{Name: p.a.cols.of(b.cols[w]).name, Type: p.a.cols.of(b.cols[w]).typ})
	}
	p.add(out, plan.Op{Kind: plan.OpUnion, Schema: schema}, others...)
	out.pos, out.virt, out.keys = pos, map[int]*node{}, nil
	return out
}

// renamed gives the stream's columns the numbers that they have above.
func (s *stream) renamed(wanted []int, b *branchesRel) *stream {
	pos, virt := map[int]int{}, map[int]*node{}
	for _, w := range wanted {
		if at, ok := s.pos[b.from[0][w]]; ok {
			pos[b.cols[w]] = at
		} else {
			virt[b.cols[w]] = s.virt[b.from[0][w]]
		}
	}
	for id, at := range s.pos { // what computed columns are made of
		if _, ok := pos[id]; !ok && !slices.Contains(b.cols, id) {
			pos[id] = at
		}
	}
	s.pos, s.virt = pos, virt
	return s
}

// setOp is INTERSECT or EXCEPT: equal rows of both sides meet.
func (p *planner) setOp(r *rel) *stream {
	b := r.branches
	streams := make([]*stream, 2)
	for k, in := range r.in {
		streams[k] = p.build(in, setOf(b.from[k]))
		p.project(streams[k], b.from[k], nil)
	}
	dist := p.rowsMeet(b, streams)
	out, right := streams[0], streams[1]
	p.merge(out, right)
	schema := record.Schema{}
	for _, id := range b.cols {
		schema = append(schema, record.Field{Name: p.a.cols.of(id).name, Type: p.a.cols.of(id).typ})
	}
	p.add(out, plan.Op{Kind: plan.OpSetOp, Schema: schema, SetOp: &plan.SetOp{Except: b.kind == setExcept, All: b.all}}, right.op)
	out.appendOnly = !p.live
	out.pos, out.virt, out.keys = map[int]int{}, map[int]*node{}, nil
	for i, id := range b.cols {
		out.pos[id] = i
	}
	out.dist = dist
	if !b.all {
		out.keys = [][]int{b.cols}
	}
	return out
}

// distinct keeps each row once.
func (p *planner) distinct(r *rel) *stream {
	need := setOf(r.cols)
	s := p.build(r.in[0], need)
	if p.apart(s) {
		p.project(s, r.cols, nil)
		p.add(s, plan.Op{Kind: plan.OpDistinct})
		p.a.note("each partition sends a row once: DISTINCT")
	}
	p.together(s, need, r.cols)
	p.project(s, r.cols, nil)
	p.add(s, plan.Op{Kind: plan.OpDistinct})
	s.keys = append(s.keys, r.cols)
	return s
}

// apart tells whether an ad-hoc query's rows are still in their partitions. All of them are there at once and none is taken
// back, so that a partition's own DISTINCT, or its own first rows, are all that the result can have of it.
func (p *planner) apart(s *stream) bool { return !p.live && s.st.scan && s.st != p.gate }

func (s *stream) sortKeys(order []sortColumn) []plan.SortKey {
	out := []plan.SortKey{}
	for _, k := range order {
		out = append(out, plan.SortKey{Col: s.pos[k.id], Desc: k.desc, NullsFirst: k.nullsFirst})
	}
	return out
}

func orderIDs(order []sortColumn) []int {
	var out []int
	for _, k := range order {
		out = append(out, k.id)
	}
	return out
}

// topN keeps the first rows of each group.
func (p *planner) topN(r *rel, need idSet) *stream {
	t := r.top
	below := maps.Clone(need)
	delete(below, t.place)
	below.addAll(t.keys)
	below.addAll(orderIDs(t.order))
	s := p.build(r.in[0], below)
	plain := t.fn == plan.RankRowNumber && len(t.keys) == 0 && !need[t.place]
	if !p.live && plain {
		p.sorted(s, t.order, t.limit, t.offset, below)
		return s
	}
	bounds := keepBounds(p.a.bounds(r.in[0]), t.keys)
	appendOnly := s.appendOnly
	p.firstRows(s, t, below)
	p.together(s, below, t.keys)
	p.settle(s, below, append(slices.Clone(t.keys), orderIDs(t.order)...)...)
	p.narrow(s, below)
	op := &plan.TopN{Func: t.fn, Keys: s.positions(t.keys), Order: s.sortKeys(t.order), Limit: t.limit, Offset: t.offset, AppendOnly: appendOnly}
	op.Expire = p.expire(s, bounds)
	schema := slices.Clone(s.schema())
	if need[t.place] && t.place != 0 {
		op.Place = true
		s.pos[t.place] = len(schema)
		schema = append(schema, record.Field{Name: p.a.cols.of(t.place).name, Type: record.BigInt})
	}
	p.add(s, plan.Op{Kind: plan.OpTopN, Schema: schema, TopN: op})
	s.appendOnly = !p.live
	if t.fn == plan.RankRowNumber {
		switch {
		case t.limit == 1:
			s.keys = append(s.keys, t.keys)
		case op.Place:
			s.keys = append(s.keys, append(slices.Clone(t.keys), t.place))
		}
	}
	return s
}

// firstRows lets a partition send no more rows of a group than the result can have: a row's place among the partition's own
// rows is no higher than its place among all.
func (p *planner) firstRows(s *stream, t *topRel, need idSet) {
	if !p.apart(s) || t.limit < 0 || t.limit > math.MaxInt64-t.offset {
		return
	}
	p.settle(s, need, append(slices.Clone(t.keys), orderIDs(t.order)...)...)
	p.narrow(s, need)
	p.add(s, plan.Op{Kind: plan.OpTopN, TopN: &plan.TopN{Func: t.fn, Keys: s.positions(t.keys), Order: s.sortKeys(t.order), Limit: t.limit + t.offset, AppendOnly: true}})
	p.a.note("each partition sends its own first rows: top-N")
}

// expire says when groups can be forgotten by one of their columns.
func (p *planner) expire(s *stream, bounds []bound) *plan.Expire {
	for _, b := range bounds {
		if at, ok := s.pos[b.col]; ok && b.drop == nil && p.live {
			return &plan.Expire{Col: at, Delay: b.slack}
		}
	}
	return nil
}

// sorted orders an ad-hoc query's rows. No partition can give more rows to the result than the result has.
func (p *planner) sorted(s *stream, order []sortColumn, limit, offset int64, need idSet) {
	p.settle(s, need, orderIDs(order)...)
	if s.st != p.gate {
		p.narrow(s, need)
		if limit >= 0 {
			p.add(s, plan.Op{Kind: plan.OpSort, Sort: &plan.Sort{Keys: s.sortKeys(order), Limit: limit + offset}})
		}
	}
	p.gather(s, need)
	p.add(s, plan.Op{Kind: plan.OpSort, Sort: &plan.Sort{Keys: s.sortKeys(order), Limit: limit, Offset: offset}})
}

// over appends window functions.
func (p *planner) over(r *rel, need idSet) *stream {
	o := r.over
	below := maps.Clone(need)
	below.addAll(o.keys)
	below.addAll(orderIDs(o.order))
	var args []int
	for _, f := range o.funcs {
		delete(below, f.id)
		args = append(args, f.columns...)
		if f.agg != nil {
			f.agg.each(func(n **node) { args = append(args, (*n).col) })
		}
	}
	below.addAll(args)
	s := p.build(r.in[0], below)
	bounds := keepBounds(p.a.bounds(r.in[0]), o.keys)
	p.together(s, below, o.keys)
	p.settle(s, below, slices.Concat(o.keys, orderIDs(o.order), args)...)
	w := &plan.Window{Keys: s.positions(o.keys), Order: s.sortKeys(o.order), Expire: p.expire(s, bounds)}
	schema := slices.Clone(s.schema())
	for _, f := range o.funcs {
		fn := plan.WindowFunc{Name: f.name, Args: s.positions(f.columns), Const: f.consts, Type: f.typ, Frame: f.frame}
		if f.agg != nil {
			fn.Agg = p.agg(s, f.agg)
		}
		s.pos[f.id] = len(schema)
		schema = append(schema, record.Field{Name: p.a.cols.of(f.id).name, Type: f.typ})
		w.Funcs = append(w.Funcs, fn)
	}
	p.add(s, plan.Op{Kind: plan.OpWindow, Schema: schema, Window: w})
	s.appendOnly = !p.live
	return s
}

// shared is one use of a query that is computed once.
func (p *planner) shared(r *rel, need idSet) *stream {
	def := r.shared.def
	number := map[int]int{} // the definition's columns to this use's
	for i, id := range def.cols {
		number[id] = r.shared.cols[i]
	}
	if def.uses == 1 || def.done == nil {
		wanted := idSet{}
		for _, id := range def.cols {
			if def.uses > 1 && def.need[id] || def.uses == 1 && need[number[id]] {
				wanted[id] = true
			}
		}
		s := p.build(def.rel, wanted)
		if def.uses == 1 {
			return s.numbered(number)
		}
		p.narrow(s, wanted)
		if p.live {
			p.stay(s)
			def.source = s.st.reads[s.op]
		} else {
			p.gather(s, wanted)
		}
		def.done = s.copied()
		return s.numbered(number)
	}
	s := def.done.copied()
	if p.live { // another stage that reads the same one
		last := def.source.ops[len(def.source.ops)-1]
		s.st, s.op = p.newStage(), 0
		s.st.ops = append(s.st.ops, plan.Op{Kind: plan.OpInput, Schema: last.Schema, Input: &plan.Input{}})
		s.st.reads[0] = def.source
	}
	return s.numbered(number)
}

func (s *stream) copied() *stream {
	c := *s
	c.pos, c.virt = maps.Clone(s.pos), maps.Clone(s.virt)
	return &c
}

// numbered gives the columns the numbers of one use.
func (s *stream) numbered(number map[int]int) *stream {
	for id, n := range s.virt {
		if to, ok := number[id]; ok {
			s.virt[to] = n
		}
	}
	for id, at := range maps.Clone(s.pos) {
		if to, ok := number[id]; ok {
			s.pos[to] = at
		}
	}
	back := func(ids []int) ([]int, bool) {
		out := make([]int, len(ids))
		for i, id := range ids {
			to, ok := number[id]
			if !ok {
				return nil, false
			}
			out[i] = to
		}
		return out, true
	}
	if s.dist.kind == distHash {
		d := distribution{kind: distHash}
		for _, same := range s.dist.cols {
			var mine []int
			for _, id := range same {
				if to, ok := number[id]; ok {
					mine = append(mine, to)
				}
			}
			if len(mine) == 0 {
				d = distribution{}
				break
			}
			d.cols = append(d.cols, mine)
		}
		s.dist = d
	}
	var keys [][]int
	for _, k := range s.keys {
		if mine, ok := back(k); ok {
			keys = append(keys, mine)
		}
	}
	s.keys = keys
	return s
}
