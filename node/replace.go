package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// CREATE OR REPLACE makes a view beside the one of its name. Once it has caught up, the leading node lets it take the name
// (SwapView). From the first tick for which that is in effect (see tickClock) everybody reads the new one, at the ticks before
// it everybody has read the old one: whoever reads the new one reads no older tick, and the primaries answer for the old one up
// to the last tick before. The old one stays for as long as statements that read it may take to end, and then goes.

const (
	replaceEvery = 200 * time.Millisecond // between two looks at views that are to replace others
	replaceGrace = 20 * time.Second       // how long a view that was replaced stays
)

// reasonReplaced says that a view was replaced by another one, which has its name.
const reasonReplaced = "VIEW_REPLACED"

func wasReplaced(name string) error {
	return fault.New(fault.Unavailable, "view %q was replaced meanwhile; retry", name).WithReason(reasonReplaced).WithRetryAfter(retryPause)
}

func isReplaced(err error) bool {
	var f *fault.Error
	return errors.As(err, &f) && f.GetReason() == reasonReplaced
}

// swapTick returns the first tick at which a view can be read by its name: of one that has replaced another one, when it did.
func (n *Node) swapTick(ctx context.Context, object uint64) (ids.Tick, error) {
	d := n.catalog().views[ids.StreamID(object)]
	if d == nil || d.SwapIndex == 0 || d.ReplacedBy != 0 {
		return 0, nil
	}
	var first ids.Tick
	err := n.await(ctx, func(*catalog) (bool, error) {
		_, at, ok := n.clock.change(d.SwapIndex)
		first = at
		return ok, nil
	})
	return first, err
}

// lastTick returns the last tick at which a view that was replaced may be read; not ok: it may be read at all.
func (n *Node) lastTick(object ids.StreamID) (last ids.Tick, ok bool) {
	d := n.catalog().views[object]
	if d == nil || d.ReplacedBy == 0 {
		return 0, false
	}
	before, _, ok := n.clock.change(d.SwapIndex)
	return before, ok
}

// replaceLoop lets views take the places of others while this node leads.
func (n *Node) replaceLoop(ctx context.Context) error {
	since := map[uint64]time.Time{} // when a view was first seen to have been replaced
	every := time.NewTicker(replaceEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		c := n.catalog()
		if c == nil || !slices.ContainsFunc(c.state.Views, hidden) || !n.coord.IsLeader() {
			clear(since)
			continue
		}
		n.replaceViews(ctx, c, since)
	}
}

func (n *Node) replaceViews(ctx context.Context, c *catalog, since map[uint64]time.Time) {
	var totals map[uint64]*viewTotals
	for _, d := range c.state.Views {
		switch {
		case d.ReplacedBy != 0:
			if since[d.Id].IsZero() {
				since[d.Id] = time.Now()
			}
			if time.Since(since[d.Id]) > replaceGrace {
				n.order(ctx, d.Name, &internalv1.Command{Op: &internalv1.Command_DropReplaced{DropReplaced: &internalv1.DropReplaced{Id: d.Id}}})
			}
		case d.Replaces != 0:
			if totals == nil {
				totals = n.viewFigures(ctx, 0)
			}
			if n.caughtUp(c, totals[d.Id], totals[d.Replaces]) {
				n.order(ctx, d.Name, &internalv1.Command{Op: &internalv1.Command_SwapView{SwapView: &internalv1.SwapView{Id: d.Id}}})
			}
		}
	}
}

// caughtUp tells whether a view is live and about as far as the one that it replaces.
func (n *Node) caughtUp(c *catalog, v, old *viewTotals) bool {
	if v == nil || v.state != "live" || int(v.covered) < c.partitions() {
		return false
	}
	last, _ := n.coord.LastTick()
	return v.tick+lagging >= uint64(last) || old != nil && v.tick+lagging >= old.tick
}

func (n *Node) order(ctx context.Context, view string, cmd *internalv1.Command) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.StatementTimeout)
	defer cancel()
	if _, err := n.coord.Propose(ctx, cmd); err != nil && ctx.Err() == nil {
		n.log.Warn("a view can't be replaced now; trying again", "view", view, "error", err)
	}
}

// replaced tells whether a subscription that ended with err has to look for the view's successor.
func (n *Node) replaced(view *sql.Object, err error) bool {
	d := n.catalog().views[ids.StreamID(view.ID)]
	return isReplaced(err) || d == nil || d.ReplacedBy != 0
}

// successor tells whether a view was replaced, and by which one.
func (n *Node) successor(ctx context.Context, view *sql.Object) (*sql.Object, error) {
	find := func(c *catalog) *sql.Object {
		if d := c.views[ids.StreamID(view.ID)]; d != nil && d.ReplacedBy == 0 {
			return nil
		}
		return c.byName[view.Name]
	}
	if o := find(n.catalog()); o != nil {
		return o, nil
	}
	if err := n.sync(ctx); err != nil {
		return nil, err
	}
	return find(n.catalog()), nil
}

// predecessor is the view that a subscriber has seen up to a tick at which view hadn't its name yet; nil: it has seen view.
func (n *Node) predecessor(ctx context.Context, view *sql.Object, after ids.Tick) (*sql.Object, error) {
	c := n.catalog()
	d := c.views[ids.StreamID(view.ID)]
	if d == nil || d.SwapIndex == 0 || d.ReplacedBy != 0 {
		return nil, nil
	}
	first, err := n.swapTick(ctx, view.ID)
	if err != nil || after >= first {
		return nil, err
	}
	before, _, _ := n.clock.change(d.SwapIndex)
	for _, old := range c.state.Views {
		if old.ReplacedBy == d.Id && after <= before {
			return c.objects[ids.StreamID(old.Id)], nil
		}
	}
	return nil, notRetained(input{name: view.Name, asOf: after}, first)
}

// moveOn brings a subscriber from a view that was replaced to the one that has its name now, with one change at one tick:
// the rows of the new one less those of the old one.
func (n *Node) moveOn(ctx context.Context, from, to *sql.Object, out *wholeTicks) error {
	if !slices.Equal(from.Columns, to.Columns) {
		return fault.SQL(fault.Conflict, "0A000", "view %q was replaced by one with other columns; subscribe again", from.Name).WithReason("COLUMNS_CHANGED")
	}
	wait, cancel := withinDeadline(ctx, n.cfg.StatementTimeout)
	defer cancel()
	first, err := n.swapTick(wait, to.ID)
	if err != nil {
		return err
	}
	net := &netChange{schema: from.Columns, at: map[string]int{}, limit: n.cfg.QueryMemoryBytes}
	if err := n.rowsAt(wait, from, out.done, -1, net); err != nil {
		if isReplaced(err) || fault.KindOf(err) == fault.NotFound {
			return notRetained(input{name: from.Name, asOf: out.done}, first)
		}
		return err
	}
	tick := max(first, out.done+1)
	if err := n.rowsAt(wait, to, tick, 1, net); err != nil {
		return err
	}
	if err := out.to.change(tick, net.delta(), true); err != nil {
		return err
	}
	out.done, out.told = tick, time.Now()
	return nil
}

// rowsAt adds the rows of a view as of a tick to a net change.
func (n *Node) rowsAt(ctx context.Context, view *sql.Object, tick ids.Tick, sign int64, net *netChange) error {
	p := scanAll(view)
	p.Stages[0].Ops[0].Scan.AsOf = uint64(tick)
	l, err := n.readable(ctx, inputsOf(p), tick, n.cfg.MaxStaleness)
	if err != nil {
		return err
	}
	return n.query(ctx, p, l, func(d *record.Delta) error { return net.add(d, sign) })
}

// netChange adds rows up.
type netChange struct {
	schema  record.Schema
	rows    *record.Delta
	weights []int64
	at      map[string]int // by encoded row
	key     []byte
	bytes   int64
	limit   int64
}

func (c *netChange) add(d *record.Delta, sign int64) error {
	if c.rows == nil {
		c.rows = record.NewDelta(c.schema, d.N)
	}
	all := make([]int, len(c.schema))
	for i := range all {
		all[i] = i
	}
	for i := range d.N {
		c.key = record.AppendRow(c.key[:0], d, all, i)
		k, ok := c.at[string(c.key)]
		if !ok {
			if c.bytes += int64(2*len(c.key)) + 64; c.bytes > c.limit {
				return fault.SQL(fault.Exhausted, "53200", "the rows of a view that was replaced don't fit into %d MiB; subscribe again", c.limit>>20)
			}
			k = len(c.weights)
			c.at[string(c.key)] = k
			c.rows.AppendRow(d, i, 1)
			c.weights = append(c.weights, 0)
		}
		c.weights[k] += sign * d.Weight(i)
	}
	return nil
}

// delta returns what is left: first what goes, then what comes.
func (c *netChange) delta() *record.Delta {
	out := record.NewDelta(c.schema, 0)
	out.Weights = []int64{}
	for _, going := range []bool{true, false} {
		for i, w := range c.weights {
			if w != 0 && (w < 0) == going {
				out.AppendRow(c.rows, i, w)
			}
		}
	}
	return out
}
