package node

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition/stage"
	"github.com/millrace/millrace/plan"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// changeQueue is how many changes wait between a partition's or node's reader and the merge.
const changeQueue = 2

// change is a view's output delta at a tick, or the news that nothing more comes up to tick.
type change struct {
	tick ids.Tick
	rows *record.Delta // nil: done through tick
}

// subscriber gets whole ticks in order.
type subscriber interface {
	// change hands over part of tick's net change; last says that it was the last part.
	change(tick ids.Tick, rows *record.Delta, last bool) error
	// progress says that nothing changed up to tick since the last call.
	progress(tick ids.Tick) error
}

// subscribe sends the rows of a view as of a tick at or above minTick, then every tick's change, until ctx ends.
// With after set it sends the changes of later ticks only, with asOf the rows as of exactly that tick. When partitions move it goes on where it was.
func (n *Node) subscribe(ctx context.Context, view *sql.Object, after, asOf, minTick ids.Tick, to subscriber) error {
	leave, err := n.readers.enter()
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := n.whileServing(ctx)
	defer cancel()
	ctx, release := n.whileFresh(ctx)
	defer release()
	if after == 0 {
		first, err := n.swapTick(ctx, view.ID)
		switch {
		case err != nil:
			return err
		case asOf > 0 && asOf < first:
			return notRetained(input{name: view.Name, asOf: asOf}, first)
		}
		minTick = max(minTick, first)
		tick, err := n.subscribeSnapshot(ctx, view, asOf, minTick, to)
		if err != nil {
			return err
		}
		after = tick
	} else if old, err := n.predecessor(ctx, view, after); err != nil {
		return err
	} else if old != nil {
		view = old
	}
	out := &wholeTicks{to: to, done: after, every: n.cfg.SubscribeProgress, told: time.Now()}
	for {
		err := n.subscribeOnce(ctx, view, out)
		if n.serving.Err() != nil {
			return stopping()
		}
		if cause := context.Cause(ctx); fault.Retryable(cause) {
			return cause // cut off
		}
		if ctx.Err() != nil {
			return fault.Wrap(fault.KindOfContext(ctx), ctx.Err(), "subscription to %q ended", view.Name)
		}
		out.drop()
		if n.replaced(view, err) {
			next, serr := n.successor(ctx, view)
			if serr == nil && next != nil {
				if err = n.moveOn(ctx, view, next, out); err == nil {
					view = next
					continue
				}
			}
		}
		if !fault.Retryable(err) {
			return err
		}
		if err := pause(ctx, retryPause); err != nil {
			return fault.Wrap(fault.KindOfContext(ctx), err, "subscription to %q ended", view.Name)
		}
	}
}

// subscribeSnapshot sends the view's rows as of one tick.
func (n *Node) subscribeSnapshot(ctx context.Context, view *sql.Object, asOf, minTick ids.Tick, to subscriber) (ids.Tick, error) {
	wait, cancel := withinDeadline(ctx, n.cfg.StatementTimeout)
	defer cancel()
	p := scanAll(view)
	p.Stages[0].Ops[0].Scan.AsOf = uint64(asOf)
	l, err := n.readable(wait, inputsOf(p), minTick, n.cfg.MaxStaleness)
	if err != nil {
		return 0, err
	}
	if asOf > 0 {
		l.tick = asOf
	}
	err = n.query(ctx, p, l, func(d *record.Delta) error { return to.change(l.tick, d, false) })
	if err != nil {
		return 0, err
	}
	return l.tick, to.change(l.tick, nil, true)
}

// scanAll is the plan of SELECT * FROM view.
func scanAll(view *sql.Object) *plan.Plan {
	columns := make([]string, len(view.Columns))
	for i, f := range view.Columns {
		columns[i] = f.Name
	}
	return &plan.Plan{
		Version: plan.Version, Output: view.Columns,
		Stages: []plan.Stage{
			{
				Ops: []plan.Op{{Kind: plan.OpScan, Schema: view.Columns, Scan: &plan.Scan{
					Kind: plan.ScanView, Object: view.ID, Name: view.Name, Columns: columns}}},
				Exchange: &plan.Exchange{Gather: true},
			},
			{Ops: []plan.Op{{Kind: plan.OpInput, Schema: view.Columns, Input: &plan.Input{Stage: 0}}}},
		},
	}
}

// subscribeOnce merges the changes of all nodes until one breaks.
func (n *Node) subscribeOnce(ctx context.Context, view *sql.Object, out *wholeTicks) error {
	c := n.catalog()
	if c.views[ids.StreamID(view.ID)] == nil {
		return fault.SQL(fault.NotFound, "42P01", "view %q was dropped", view.Name)
	}
	nodes := map[ids.NodeID][]ids.PartitionID{}
	for _, p := range c.state.Partitions {
		if p.Primary == "" {
			return fault.New(fault.Unavailable, "partition %d has no primary now", p.Id)
		}
		nodes[ids.NodeID(p.Primary)] = append(nodes[ids.NodeID(p.Primary)], ids.PartitionID(p.Id))
	}
	g, ctx := errgroup.WithContext(ctx)
	var inputs []<-chan change
	for node, parts := range nodes {
		ch := make(chan change, changeQueue)
		inputs = append(inputs, ch)
		g.Go(func() error {
			if node == n.id {
				return n.changesHere(ctx, ids.StreamID(view.ID), parts, out.done, func(c change) error { return put(ctx, ch, c) })
			}
			return n.changesThere(ctx, node, view, parts, out.done, ch)
		})
	}
	g.Go(func() error { return merge(ctx, inputs, out.done, out.take) })
	return g.Wait()
}

func put(ctx context.Context, ch chan<- change, c change) error {
	select {
	case ch <- c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *Node) changesThere(ctx context.Context, node ids.NodeID, view *sql.Object, parts []ids.PartitionID, after ids.Tick, ch chan<- change) error {
	client, err := n.queryClient(node)
	if err != nil {
		return err
	}
	stream, err := client.Changes(ctx, &internalv1.ChangesRequest{View: view.ID, Partitions: partitionNumbers(parts), AfterTick: uint64(after)})
	if err != nil {
		return fault.FromGRPC(err)
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return fault.New(fault.Unavailable, "node %s ended the subscription", n.catalog().name(string(node)))
		}
		if err != nil {
			return fault.FromGRPC(err)
		}
		c := change{tick: ids.Tick(resp.Tick)}
		if len(resp.Delta) > 0 {
			if c.rows, err = record.UnmarshalDelta(resp.Delta, view.Columns); err != nil {
				return err
			}
		}
		if err := put(ctx, ch, c); err != nil {
			return err
		}
	}
}

// Changes implements internalv1.QueryServer.
func (s *queryService) Changes(req *internalv1.ChangesRequest, stream internalv1.Query_ChangesServer) error {
	parts := make([]ids.PartitionID, len(req.Partitions))
	for i, p := range req.Partitions {
		parts[i] = ids.PartitionID(p)
	}
	return s.n.changesHere(stream.Context(), ids.StreamID(req.View), parts, ids.Tick(req.AfterTick), func(c change) error {
		resp := &internalv1.ChangesResponse{Tick: uint64(c.tick)}
		if c.rows != nil {
			resp.Delta = record.MarshalDelta(nil, c.rows)
		}
		return stream.Send(resp)
	})
}

// changesHere merges the changes of partitions whose primary is here; take gets them in tick order.
func (n *Node) changesHere(ctx context.Context, view ids.StreamID, parts []ids.PartitionID, after ids.Tick, take func(change) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var inputs []<-chan change
	for _, p := range parts {
		ch := make(chan change, changeQueue)
		inputs = append(inputs, ch)
		g.Go(func() error {
			err := n.runtime.Subscribe(ctx, view, p, after, func(tick ids.Tick, rows *record.Delta) error {
				if last, ok := n.lastTick(view); ok && tick > last {
					return wasReplaced(n.catalog().views[view].GetName())
				}
				return put(ctx, ch, change{tick, rows})
			})
			return notServedYet(err)
		})
	}
	g.Go(func() error { return merge(ctx, inputs, after, take) })
	return g.Wait()
}

// merge brings the inputs' changes in the order of their ticks, then the news how far all of them are done. Each input
// is in order. It reads only from the input that is furthest behind, so that the others wait in their bounded queues.
func merge(ctx context.Context, inputs []<-chan change, after ids.Tick, take func(change) error) error {
	done := make([]ids.Tick, len(inputs))
	for i := range done {
		done[i] = after
	}
	waiting := map[ids.Tick][]*record.Delta{}
	told := after
	for {
		behind := 0
		for i := range done {
			if done[i] < done[behind] {
				behind = i
			}
		}
		if low := done[behind]; low > told {
			for _, t := range ticksUpTo(waiting, low) {
				for _, d := range waiting[t] {
					if err := take(change{t, d}); err != nil {
						return err
					}
				}
				delete(waiting, t)
			}
			if err := take(change{tick: low}); err != nil {
				return err
			}
			told = low
		}
		select {
		case c := <-inputs[behind]:
			if c.rows != nil {
				waiting[c.tick] = append(waiting[c.tick], c.rows)
				done[behind] = max(done[behind], c.tick-1)
			} else {
				done[behind] = max(done[behind], c.tick)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// notServedYet turns the view runtime's "no such view" into an error that is retried: the catalog alone says which views
// there are, and after a node's start or a statement elsewhere its runtime hears of one a moment after others ask for it.
func notServedYet(err error) error {
	var f *fault.Error
	if errors.As(err, &f) && f.Kind == fault.NotFound && f.GetReason() != stage.ReasonTickNotRetained {
		return fault.Wrap(fault.NotPrimary, err, "the view isn't served here yet")
	}
	return err
}

func ticksUpTo(waiting map[ids.Tick][]*record.Delta, low ids.Tick) []ids.Tick {
	var out []ids.Tick
	for t := range waiting {
		if t <= low {
			out = append(out, t)
		}
	}
	slices.Sort(out)
	return out
}

// wholeTicks holds a tick's parts back until the tick is complete.
type wholeTicks struct {
	to    subscriber
	done  ids.Tick // all up to here was sent
	tick  ids.Tick // of parts
	parts []*record.Delta
	every time.Duration
	told  time.Time // when something was sent last
}

func (w *wholeTicks) take(c change) error {
	if c.rows != nil {
		if len(w.parts) > 0 && c.tick != w.tick {
			if err := w.flush(); err != nil {
				return err
			}
		}
		w.tick = c.tick
		w.parts = append(w.parts, c.rows)
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.done = c.tick
	if time.Since(w.told) < w.every {
		return nil
	}
	w.told = time.Now()
	return w.to.progress(c.tick)
}

func (w *wholeTicks) flush() error {
	for i, d := range w.parts {
		if err := w.to.change(w.tick, d, i == len(w.parts)-1); err != nil {
			return err
		}
	}
	if len(w.parts) > 0 {
		w.done, w.told = w.tick, time.Now()
	}
	w.parts = w.parts[:0]
	return nil
}

// drop forgets the parts of a tick that was not complete; it comes again.
func (w *wholeTicks) drop() { w.parts = w.parts[:0] }
