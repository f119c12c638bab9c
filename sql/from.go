package sql

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// fromList checks the relations of FROM, separated by commas.
func (a *analyzer) fromList(items []*fromItem, e *env) (*rel, []scopeColumn, error) {
	var r *rel
	var cols []scopeColumn
	for _, f := range items {
		next, more, err := a.fromNext(f, e, r, cols)
		if err != nil {
			return nil, nil, err
		}
		if r, err = a.combine(syntaxCross, r, next, nil); err != nil {
			return nil, nil, err
		}
		if cols, err = a.besides(cols, more, f); err != nil {
			return nil, nil, err
		}
	}
	return r, cols, nil
}

// besides puts the columns of two relations side by side; their names must differ.
func (a *analyzer) besides(left, right []scopeColumn, f *fromItem) ([]scopeColumn, error) {
	tables := map[string]bool{}
	for _, c := range left {
		tables[c.table] = true
	}
	for _, c := range right {
		if c.table != "" && tables[c.table] {
			return nil, a.src.fail(f.pos(), stateDuplicateAlias, "give one an alias with AS", "table name %q is in FROM twice", c.table)
		}
	}
	return append(slices.Clone(left), right...), nil
}

// fromNext checks a relation to the right of others, whose columns it may name where it is LATERAL or a function.
func (a *analyzer) fromNext(f *fromItem, e *env, left *rel, cols []scopeColumn) (*rel, []scopeColumn, error) {
	if a.rels++; a.rels > maxRelations {
		return nil, nil, a.src.fail(f.pos(), stateTooDeep, "make views of its parts", "statement reads more than %d relations, those of WITH queries counted for each use", maxRelations)
	}
	if left == nil {
		return a.relation(f, e)
	}
	inside := *e
	inside.lateral = newScope(cols)
	if inside.lateral.parent = e.lateral; e.lateral == nil {
		inside.lateral.parent = e.scope
	}
	return a.relation(f, &inside)
}

// around returns the names around a subquery or function in FROM: those of the relations before it only where it is
// LATERAL, as functions always are.
func (e *env) around(f *fromItem) *env {
	out := &env{scope: e.scope, ctes: e.ctes}
	if e.lateral != nil && (f.lateral || f.kind == fromFunction) {
		out.scope = e.lateral
	}
	return out
}

// relation checks one relation and returns its columns under its alias.
func (a *analyzer) relation(f *fromItem, e *env) (*rel, []scopeColumn, error) {
	var r *rel
	var cols []scopeColumn
	var err error
	switch f.kind {
	case fromSubquery:
		r, cols, err = a.fromSubquery(f, e)
	case fromJoin:
		r, cols, err = a.fromJoin(f, e)
	case fromWindow:
		r, cols, err = a.window(f, e)
	case fromFunction:
		r, cols, err = a.fromFunction(f, e)
	case fromLate:
		r, cols, err = a.lateRecords(f)
	default:
		if c := e.cte(f.name); c != nil && f.kind == fromRelation {
			if f.past != nil {
				return nil, nil, a.src.fail(f.past.pos(), stateSyntax, "put it behind the relations inside the query", "AS OF is for streams, views and tables, not for WITH queries")
			}
			r, cols, err = a.fromCTE(f, c)
		} else {
			r, cols, err = a.lookup(f, e)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return r, cols, a.rename(cols, f)
}

func (a *analyzer) scopeOf(outs []output, table string) []scopeColumn {
	cols := make([]scopeColumn, len(outs))
	for i, o := range outs {
		cols[i] = scopeColumn{table: table, name: o.name, typ: a.cols.of(o.id).typ, id: o.id}
	}
	return cols
}

func (a *analyzer) fromSubquery(f *fromItem, e *env) (*rel, []scopeColumn, error) {
	q, err := a.subqueryRel(f.sub, e.around(f))
	if err != nil {
		return nil, nil, err
	}
	return q.rel, a.scopeOf(q.outs, f.alias), nil
}

func (a *analyzer) fromCTE(f *fromItem, c *cteScope) (*rel, []scopeColumn, error) {
	r, outs, err := a.useCTE(c)
	if err != nil {
		return nil, nil, err
	}
	return r, a.scopeOf(outs, tableName(f)), nil
}

func tableName(f *fromItem) string {
	if f.alias != "" {
		return f.alias
	}
	return f.name
}

// lookup finds a stream, view or table.
func (a *analyzer) lookup(f *fromItem, e *env) (*rel, []scopeColumn, error) {
	obj, ok := a.catalog.Lookup(f.name)
	if !ok {
		return nil, nil, a.src.fail(f.nameAt, stateNoRelation, suggest(f.name, append(a.catalog.Names(), e.cteNames()...)), "unknown stream or view %q", f.name)
	}
	s := &scanRel{object: obj, kind: plan.ScanStream}
	if f.past != nil {
		var err error
		if s.asOf, err = a.tickOf(f.past); err != nil {
			return nil, nil, err
		}
	}
	var cols []scopeColumn
	add := func(schema record.Schema, hidden bool) {
		for i, c := range schema {
			id := a.newColumn(c.Name, c.Type)
			if !hidden && f.kind != fromDead {
				a.cols.of(id).origin = Origin{Object: obj.ID, Column: i + 1}
			}
			s.cols, s.names = append(s.cols, id), append(s.names, c.Name)
			cols = append(cols, scopeColumn{table: tableName(f), name: c.Name, typ: c.Type, hidden: hidden, id: id})
		}
	}
	switch {
	case f.kind == fromDead && obj.Kind != ObjectStream:
		return nil, nil, a.src.fail(f.nameAt, stateWrongObject, "", "%q is a view, and dead_letters is of a stream,", f.name)
	case f.kind == fromDead && a.live:
		return nil, nil, a.src.unsupported(f.pos(), "select from it", "dead_letters in a materialized view is not supported")
	case f.kind == fromDead:
		s.kind = plan.ScanDead
		add(deadColumns, false)
		add(record.Schema{{Name: plan.ColPartition, Type: record.BigInt}, {Name: plan.ColOffset, Type: record.BigInt}}, true)
		n := len(s.names)
		s.names[n-2], s.names[n-1] = plan.DeadPartition, plan.DeadOffset
	case obj.Kind != ObjectStream:
		s.kind = plan.ScanView
		add(obj.Columns, false)
		a.viewTimes(obj, s)
	default:
		add(obj.Columns, false)
		add(hiddenColumns, true)
		a.streamTime(obj, s)
	}
	if !slices.Contains(a.used, obj.ID) {
		a.used = append(a.used, obj.ID)
	}
	return &rel{kind: relScan, scan: s}, cols, nil
}

// streamTime marks the column of a stream's WATERMARK.
func (a *analyzer) streamTime(obj *Object, s *scanRel) {
	if obj.Stream == nil || obj.Stream.WatermarkColumn == "" {
		return
	}
	for i, name := range s.names[:len(obj.Columns)] {
		if name == obj.Stream.WatermarkColumn {
			s.event, s.mark = s.cols[i], a.newColumn(plan.ColWatermark, record.TimestampTZ)
			info := a.cols.of(s.event)
			info.event, info.mark, info.timed = true, s.mark, true
		}
	}
}

// rename applies AS alias (a, b).
func (a *analyzer) rename(cols []scopeColumn, f *fromItem) error {
	i := 0
	for c := range cols {
		if f.kind == fromJoin && f.alias != "" {
			cols[c].table = f.alias
		}
		if i < len(f.columns) && !cols[c].hidden {
			cols[c].name = f.columns[i]
			i++
		}
	}
	if i < len(f.columns) {
		return a.src.fail(f.pos(), stateColumnRef, "", "%q has %d columns, and %d names are given,", f.alias, i, len(f.columns))
	}
	return nil
}

var joinKinds = map[joinSyntax]plan.JoinKind{
	syntaxInner: plan.JoinInner, syntaxCross: plan.JoinInner, syntaxLeft: plan.JoinLeft, syntaxRight: plan.JoinRight, syntaxFull: plan.JoinFull,
}

func (a *analyzer) fromJoin(f *fromItem, e *env) (*rel, []scopeColumn, error) {
	left, lcols, err := a.relation(f.left, e)
	if err != nil {
		return nil, nil, err
	}
	right, rcols, err := a.fromNext(f.right, e, left, lcols)
	if err != nil {
		return nil, nil, err
	}
	cols, err := a.besides(lcols, rcols, f.right)
	if err != nil {
		return nil, nil, err
	}
	using := f.using
	if f.natural {
		using = commonNames(lcols, rcols)
	}
	var preds []*node
	if f.on != nil {
		s := newScope(cols)
		s.parent = e.scope
		b := a.binder(s, "JOIN conditions")
		b.env = e
		n, err := b.condition(f.on, "JOIN/ON")
		if err != nil {
			return nil, nil, err
		}
		preds = conjuncts(n, nil)
	}
	var merged []item
	if len(using) > 0 {
		if cols, preds, merged, err = a.using(f, using, lcols, rcols); err != nil {
			return nil, nil, err
		}
	}
	if f.right.asOf != nil {
		r, err := a.temporal(f, e, left, right, lcols, preds)
		return r, cols, err
	}
	r, err := a.combine(f.join, left, right, preds)
	if err != nil {
		if u, ok := err.(*notDecorrelated); ok {
			err = a.src.unsupported(f.right.pos(), u.hint, "%s", u.what)
		}
		return nil, nil, err
	}
	return extendRel(r, merged...), cols, nil
}

func commonNames(left, right []scopeColumn) []string {
	var out []string
	for _, c := range left {
		if !c.hidden && !c.qualified && !slices.Contains(out, c.name) &&
			slices.ContainsFunc(right, func(d scopeColumn) bool { return d.name == c.name && !d.hidden && !d.qualified }) {
			out = append(out, c.name)
		}
	}
	return out
}

// using makes one column of each name of USING; the two that it came from can be named with their tables alone.
func (a *analyzer) using(f *fromItem, names []string, left, right []scopeColumn) (cols []scopeColumn, preds []*node, merged []item, err error) {
	left, right = slices.Clone(left), slices.Clone(right)
	b := a.binder(newScope(nil), "JOIN")
	for _, name := range names {
		l, err := a.usingColumn(f, left, name, "left")
		if err != nil {
			return nil, nil, nil, err
		}
		r, err := a.usingColumn(f, right, name, "right")
		if err != nil {
			return nil, nil, nil, err
		}
		ln, rn := column(left[l].id, left[l].typ, f.pos()), column(right[r].id, right[r].typ, f.pos())
		eq, err := b.apply("eq", "=", f.pos(), []*node{ln, rn})
		if err != nil {
			return nil, nil, nil, err
		}
		preds = append(preds, eq)
		c := scopeColumn{name: name, typ: left[l].typ, id: left[l].id}
		switch f.join {
		case syntaxRight:
			c.typ, c.id = right[r].typ, right[r].id
		case syntaxFull:
			pair, t, err := b.common([]*node{ln, rn}, "USING")
			if err != nil {
				return nil, nil, nil, err
			}
			c.typ, c.id = t, a.newColumn(name, t)
			merged = append(merged, item{c.id, inner(plan.ExprCoal, t, f.pos(), pair...)})
		}
		left[l].qualified, right[r].qualified = true, true
		cols = append(cols, c)
	}
	return slices.Concat(cols, left, right), preds, merged, nil
}

func (a *analyzer) usingColumn(f *fromItem, cols []scopeColumn, name, side string) (int, error) {
	found := -1
	for i, c := range cols {
		if c.name != name || c.hidden || c.qualified {
			continue
		}
		if found >= 0 {
			return 0, a.src.fail(f.pos(), stateAmbiguous, "", "column %q of USING is in the %s relation more than once", name, side)
		}
		found = i
	}
	if found < 0 {
		return 0, a.src.fail(f.pos(), stateNoColumn, "", "column %q of USING is not in the %s relation", name, side)
	}
	return found, nil
}

// fromFunction checks a set-returning function.
func (a *analyzer) fromFunction(f *fromItem, e *env) (*rel, []scopeColumn, error) {
	e = e.around(f)
	s := newScope(nil)
	s.parent = e.scope
	b := a.binder(s, "functions in FROM")
	b.env = e
	args, err := b.bindAll(f.args)
	if err != nil {
		return nil, nil, err
	}
	u := &unnestRel{fn: f.name}
	names, types, err := a.tableFunction(b, f.name, f.pos(), args, u)
	if err != nil {
		return nil, nil, err
	}
	if len(names) == 1 && f.alias != "" {
		names[0] = f.alias
	}
	table := tableName(f)
	var cols []scopeColumn
	for i, name := range names {
		id := a.newColumn(name, types[i])
		u.outs = append(u.outs, id)
		cols = append(cols, scopeColumn{table: table, name: name, typ: types[i], id: id})
	}
	if f.ordinality {
		u.ordinality = a.newColumn("ordinality", record.BigInt)
		cols = append(cols, scopeColumn{table: table, name: "ordinality", typ: record.BigInt, id: u.ordinality})
	}
	one := &rel{kind: relValues, values: &valuesRel{rows: [][]*node{{}}}}
	return &rel{kind: relUnnest, in: []*rel{one}, unnest: u}, cols, nil
}

// tableFunction resolves a function over args, which it puts into u, and returns the columns of its rows.
func (a *analyzer) tableFunction(b *binder, name string, pos int, args []*node, u *unnestRel) ([]string, []record.Type, error) {
	value := []string{"value"}
	pairs := []string{"key", "value"}
	try := func(params ...record.Type) bool {
		if len(args) != len(params) {
			return false
		}
		for i, t := range params {
			if !implicit(args[i].typ, t) {
				return false
			}
		}
		u.args = make([]*node, len(args))
		for i, t := range params {
			n, err := b.coerce(args[i], t)
			if err != nil {
				return false
			}
			u.args[i] = n
		}
		return true
	}
	switch name {
	case "generate_series":
		if len(args) == 2 && isInteger(args[0]) && isInteger(args[1]) {
			args = append(args, bigint(1, pos))
		}
		if len(args) == 2 && isNumber(args[0].typ) && isNumber(args[1].typ) {
			args = append(args, bigint(1, pos))
		}
		for _, t := range []record.Type{record.BigInt, record.Numeric} {
			if try(t, t, t) {
				return []string{name}, []record.Type{t}, nil
			}
		}
		if len(args) == 3 && args[0].typ == record.Timestamp && try(record.Timestamp, record.Timestamp, record.IntervalT) {
			return []string{name}, []record.Type{record.Timestamp}, nil
		}
		if try(record.TimestampTZ, record.TimestampTZ, record.IntervalT) {
			return []string{name}, []record.Type{record.TimestampTZ}, nil
		}
	case "jsonb_array_elements":
		if try(record.JSONB) {
			return value, []record.Type{record.JSONB}, nil
		}
	case "jsonb_array_elements_text":
		if try(record.JSONB) {
			return value, []record.Type{record.Text}, nil
		}
	case "jsonb_each":
		if try(record.JSONB) {
			return pairs, []record.Type{record.Text, record.JSONB}, nil
		}
	case "jsonb_each_text":
		if try(record.JSONB) {
			return pairs, []record.Type{record.Text, record.Text}, nil
		}
	case "jsonb_object_keys":
		if try(record.JSONB) {
			return []string{name}, []record.Type{record.Text}, nil
		}
	case "regexp_split_to_table", "string_to_table":
		if try(record.Text, record.Text) {
			return []string{name}, []record.Type{record.Text}, nil
		}
	case "unnest":
		if len(args) == 1 && args[0].typ.IsArray() && try(args[0].typ) {
			return []string{name}, []record.Type{args[0].typ.Elem()}, nil
		}
	}
	types := make([]string, len(args))
	for i, n := range args {
		types[i] = n.typ.String()
	}
	return nil, nil, a.src.fail(pos, stateNoFunction, "", "no table function %s(%s)", name, strings.Join(types, ", "))
}

func isInteger(n *node) bool { return n.typ == record.BigInt || n.typ == record.Unknown }
