package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// session runs statements for one client: it reads nothing older than the client has seen.
type session struct {
	n            *Node
	seen         ids.Tick
	minTick      ids.Tick
	maxStaleness time.Duration
	timeout      time.Duration     // of a statement; 0: none
	idleTimeout  time.Duration     // of a client that leaves its transaction open; 0: none
	readOnly     bool              // as transactions begin
	values       map[string]string // settings that were set, as SHOW tells them
	defaults     map[string]string // what RESET goes back to, where the client's greeting said so
	changed      map[string]string // settings changed by the statement
	tx           transaction
	warns        bool // its client hears of warnings
}

// blankSession is a session with nothing set.
func blankSession(n *Node) *session {
	return &session{
		n: n, maxStaleness: n.cfg.MaxStaleness, tx: transaction{status: txIdle},
		values: map[string]string{}, defaults: map[string]string{}, changed: map[string]string{},
	}
}

func newSession(n *Node, seen ids.Tick, values map[string]string) (*session, error) {
	s := blankSession(n)
	s.seen = seen
	if err := n.checkSeenTick(seen); err != nil {
		return nil, err
	}
	for name, v := range values {
		if err := s.set(name, v); err != nil {
			return nil, err
		}
	}
	clear(s.changed)
	return s, nil
}

func (s *session) takeChanged() map[string]string {
	out := s.changed
	s.changed = map[string]string{}
	return out
}

// execute runs one statement and returns its tag. An error ends an open transaction's work.
func (s *session) execute(ctx context.Context, st sql.Statement, out output) (string, error) {
	if _, ends := st.(*sql.Transaction); s.tx.status == txFailed && !ends {
		return "", fault.SQL(fault.Conflict, "25P02", "current transaction is aborted, commands ignored until end of transaction block")
	}
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.timeout, errStatementTimeout)
		defer cancel()
	}
	tag, err := s.run(ctx, st, out)
	if err != nil {
		if context.Cause(ctx) == errStatementTimeout {
			err = errStatementTimeout
		}
		s.fail()
	}
	return tag, err
}

var errStatementTimeout = fault.SQL(fault.Deadline, "57014", "canceling statement due to statement timeout")

func (s *session) run(ctx context.Context, st sql.Statement, out output) (string, error) {
	switch st := st.(type) {
	case *sql.Select:
		return s.query(ctx, st, out)
	case *sql.Insert:
		return s.insert(ctx, st, out)
	case *sql.Update, *sql.Delete, *sql.Truncate:
		return s.change(ctx, st, out)
	case *sql.CreateStream:
		return s.createStream(ctx, st, out)
	case *sql.CreateTable:
		return s.createTable(ctx, st, out)
	case *sql.CreateView:
		return s.createView(ctx, st, out)
	case *sql.CreateIndex:
		return s.createIndex(ctx, st, out)
	case *sql.Drop:
		return s.drop(ctx, st)
	case *sql.Show:
		return s.show(ctx, st, out)
	case *sql.Describe:
		return s.describe(ctx, st, out)
	case *sql.ExplainStatement:
		return s.explain(ctx, st, out)
	case *sql.Subscribe:
		return s.subscribe(ctx, st, out)
	case *sql.Set:
		return s.setStatement(st, out)
	case *sql.Transaction:
		return s.transaction(ctx, st, out)
	case *sql.Copy, *sql.DeclareCursor, *sql.Fetch, *sql.CloseCursor, *sql.PrepareStatement, *sql.ExecutePrepared, *sql.Deallocate, *sql.Discard:
		return "", fault.SQL(fault.Unsupported, "0A000", "cursors, prepared statements, COPY and DISCARD are for connections of PostgreSQL's protocol")
	}
	return "", fault.New(fault.Unsupported, "no statement of type %T", st)
}

// planned plans with the catalog at hand, and when that lacks a name, with one as new as the leader's. Where that can't be
// had, a node that has just started, or is cut off, must not say that a stream or view doesn't exist.
func planned[T any](ctx context.Context, n *Node, f func(sql.Catalog) (T, error)) (T, error) {
	out, err := f(n.catalog())
	if fault.KindOf(err) != fault.NotFound {
		return out, err
	}
	if serr := n.sync(ctx); serr != nil {
		return out, serr
	}
	return f(n.catalog())
}

func (s *session) query(ctx context.Context, st *sql.Select, out output) (string, error) {
	run, err := s.openQuery(ctx, st)
	if err != nil {
		return "", err
	}
	return run(ctx, out)
}

// openQuery plans a query and picks its tick; run gives its rows, and may be called while the session does other things.
func (s *session) openQuery(ctx context.Context, st *sql.Select) (run func(context.Context, output) (string, error), err error) {
	p, l, err := s.laidOut(ctx, func(c sql.Catalog) (*plan.Plan, error) { return sql.PlanSelect(st, c) })
	if err != nil {
		return nil, err
	}
	s.seen = max(s.seen, l.tick)
	return func(ctx context.Context, out output) (string, error) {
		rows, told := int64(0), false
		tell := func() error { // not before the first row: an error comes alone then
			if told {
				return nil
			}
			told = true
			return out.schema(p.Output)
		}
		err := s.n.query(ctx, p, l, func(d *record.Delta) error {
			if err := tell(); err != nil {
				return err
			}
			for i := range d.N {
				rows += d.Weight(i)
			}
			return out.rows(d)
		})
		if err == nil {
			err = tell()
		}
		return fmt.Sprintf("SELECT %d", rows), err
	}, nil
}

// laidOut plans a statement and picks its tick; anew where a view that it reads was replaced meanwhile.
func (s *session) laidOut(ctx context.Context, f func(sql.Catalog) (*plan.Plan, error)) (*plan.Plan, *layout, error) {
	for try := 0; ; try++ {
		p, err := planned(ctx, s.n, f)
		if err != nil {
			return nil, nil, err
		}
		l, err := s.layout(ctx, p)
		if !isReplaced(err) || try == 3 {
			return p, l, err
		}
		if err := s.n.sync(ctx); err != nil {
			return nil, nil, err
		}
	}
}

// layout picks the tick that a plan is read at. Relations that are read as of a tick of their own are readable at that; when
// all are, the newest of them is the statement's.
func (s *session) layout(ctx context.Context, p *plan.Plan) (*layout, error) {
	minTick := max(s.seen, s.minTick)
	if s.tx.tick > 0 {
		minTick = s.minTick
	}
	inputs := inputsOf(p)
	if len(inputs) == 0 && !readsTick(p) {
		return &layout{tick: minTick}, nil
	}
	past, newest := len(inputs) > 0, ids.Tick(0)
	for _, in := range inputs {
		past, newest = past && in.asOf > 0, max(newest, in.asOf)
	}
	if err := s.n.checkSeenTick(newest); err != nil {
		return nil, err
	}
	pinned := s.tx.tick // a statement of a transaction reads what its first one read
	if minTick = max(minTick, newest); past {
		minTick, pinned = newest, 0
	}
	wait, cancel := withinDeadline(ctx, s.n.cfg.StatementTimeout)
	defer cancel()
	c := s.n.catalog()
	for _, in := range inputs {
		if v := c.views[ids.StreamID(in.object)]; v != nil {
			first, err := s.n.swapTick(wait, in.object)
			if err != nil {
				return nil, err
			}
			if in.asOf > 0 && in.asOf < first {
				return nil, notRetained(in, first)
			}
			minTick = max(minTick, ids.Tick(v.CreatedTick), first)
		}
	}
	if pinned > 0 && minTick > pinned {
		return nil, fault.SQL(fault.Conflict, "25001", "the transaction reads tick %d, but tick %d is asked for, which came later; begin a new one", pinned, minTick)
	}
	if len(inputs) == 0 {
		inputs = []input{{}} // of no object: the tick that all partitions have closed
	}
	l, err := s.n.readable(wait, inputs, max(minTick, pinned), s.maxStaleness)
	if err != nil {
		return nil, err
	}
	switch {
	case past:
		l.tick = newest
		return l, nil
	case pinned > 0:
		l.tick = pinned
	case s.tx.status == txOpen:
		s.tx.tick = l.tick
	}
	if l.alone {
		return l, nil
	}
	return l, s.n.fresh(s.maxStaleness)
}

// readsTick tells whether a plan without inputs asks for the tick all the same.
func readsTick(p *plan.Plan) bool {
	var in func(e *plan.Expr) bool
	in = func(e *plan.Expr) bool {
		if e.Kind == plan.ExprTick || e.Kind == plan.ExprNow {
			return true
		}
		for i := range e.Args {
			if in(&e.Args[i]) {
				return true
			}
		}
		return false
	}
	for i := range p.Stages {
		for j := range p.Stages[i].Ops {
			op := &p.Stages[i].Ops[j]
			var all []plan.Expr
			switch op.Kind {
			case plan.OpFilter:
				all = []plan.Expr{op.Filter.Pred}
			case plan.OpProject:
				all = op.Project.Exprs
			case plan.OpValues:
				all = slices.Concat(op.Values.Rows...)
			}
			for k := range all {
				if in(&all[k]) {
					return true
				}
			}
		}
	}
	return false
}

// subscribe runs SUBSCRIBE until the client goes away.
func (s *session) subscribe(ctx context.Context, st *sql.Subscribe, out output) (string, error) {
	run, err := s.openSubscription(ctx, st)
	if err != nil {
		return "", err
	}
	return run(ctx, out)
}

// openSubscription checks a subscription; run is as openQuery's.
func (s *session) openSubscription(ctx context.Context, st *sql.Subscribe) (run func(context.Context, output) (string, error), err error) {
	view, err := s.n.view(ctx, st.View)
	if err != nil {
		return nil, err
	}
	if err := s.n.checkSeenTick(ids.Tick(st.AfterTick)); err != nil {
		return nil, err
	}
	minTick := max(s.seen, s.minTick, s.n.createdTick(view))
	if st.AsOf > 0 {
		if err := s.n.checkSeenTick(ids.Tick(st.AsOf)); err != nil {
			return nil, err
		}
		minTick = ids.Tick(st.AsOf)
	}
	return func(ctx context.Context, out output) (string, error) {
		if err := out.schema(changeFields(view)); err != nil {
			return "", err
		}
		return "SUBSCRIBE", s.n.subscribe(ctx, view, ids.Tick(st.AfterTick), ids.Tick(st.AsOf), minTick, &rowSubscriber{out})
	}, nil
}

// changeFields is the columns of SUBSCRIBE's rows.
func changeFields(view *sql.Object) record.Schema {
	return append(record.Schema{bigint("_tick"), bigint("_weight")}, view.Columns...)
}

// rowSubscriber writes changes as rows with _tick and _weight in front.
type rowSubscriber struct{ out output }

func (r *rowSubscriber) change(tick ids.Tick, d *record.Delta, _ bool) error {
	if d == nil || d.N == 0 {
		return nil
	}
	ticks, weights := record.NewColumn(record.BigInt, d.N), record.NewColumn(record.BigInt, d.N)
	for i := range d.N {
		ticks.AppendInt(int64(tick))
		weights.AppendInt(d.Weight(i))
	}
	return r.out.rows(&record.Delta{N: d.N, Cols: append([]record.Column{ticks, weights}, d.Cols...)})
}

func (r *rowSubscriber) progress(tick ids.Tick) error { return r.out.progress(tick) }

// prepare tells a statement's parameters and columns; nil columns: it gives no rows.
func (s *session) prepare(ctx context.Context, st sql.Statement, given []record.Type) (*sql.Description, error) {
	d, err := planned(ctx, s.n, func(c sql.Catalog) (*sql.Description, error) { return sql.Prepare(st, given, c) })
	if err != nil {
		return nil, err
	}
	switch st := st.(type) {
	case *sql.ExplainStatement:
		d.Output = explainFields
	case *sql.Show:
		d.Output = showFields(st.What)
	case *sql.Describe:
		d.Output = describeFields
	case *sql.Subscribe:
		view, err := s.n.view(ctx, st.View)
		if err != nil {
			return nil, err
		}
		d.Output = changeFields(view)
	}
	return d, nil
}
