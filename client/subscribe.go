package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

const (
	// followPatience is how long a subscription, or a read that follows, looks for a node that serves it before it
	// gives up.
	followPatience = time.Minute
	// stalled is how long a subscription that has begun may bring nothing before it goes on elsewhere: a node that can
	// follow the view sends progress each second.
	stalled = 5 * time.Second
)

// Change is what one tick changed in a view. Rows is empty when ticks have passed without a change.
type Change struct {
	Tick    uint64
	Columns record.Schema
	Rows    []ChangedRow
}

// ChangedRow is a row that appears (weight +1 or more) or disappears (-1 or less).
type ChangedRow struct {
	Weight int64
	Values []record.Value
}

// SubscribeOption changes what a subscription delivers.
type SubscribeOption func(*subscription)

// AfterTick has a subscription begin with the changes of the next tick after this one, rather than with the view's rows.
func AfterTick(tick uint64) SubscribeOption { return func(s *subscription) { s.after = tick } }

// subscription is a subscription's position. A whole tick at a time is gathered, then delivered; when a node is lost,
// what is gathered of a tick is thrown away and the next node asked for what follows the last one delivered.
type subscription struct {
	c       *Client
	view    string
	after   uint64
	columns record.Schema
	good    time.Time // when something came last
}

// Subscribe follows a view: first the rows as of the starting tick, then each tick's net change, until ctx ends or the
// loop does. No tick comes twice and none is left out, whatever happens to nodes. It ends with an error when the view is
// dropped, when no node has served it for a minute, and with ctx.
func (c *Client) Subscribe(ctx context.Context, view string, opts ...SubscribeOption) iter.Seq2[*Change, error] {
	return func(yield func(*Change, error) bool) {
		s := &subscription{c: c, view: view, good: time.Now()}
		for _, o := range opts {
			o(s)
		}
		for tries := 1; ; tries++ {
			n := c.node()
			before := s.good
			stopped, err := s.follow(ctx, n, yield)
			if stopped {
				return
			}
			if s.good != before {
				tries = 1
			}
			if !fault.Retryable(err) || ctx.Err() != nil || time.Since(s.good) > followPatience {
				yield(nil, err)
				return
			}
			nodes := c.leave(n)
			if tries >= nodes {
				if perr := pause(ctx, retryDelay(tries, err)); perr != nil {
					yield(nil, fault.Wrap(fault.KindOfContext(ctx), perr, "subscription to %q", view))
					return
				}
			}
		}
	}
}

// follow delivers from one node until it fails; stopped says that the receiver wants no more.
func (s *subscription) follow(ctx context.Context, n *nodeConn, yield func(*Change, error) bool) (stopped bool, err error) {
	ctx, release := n.watch(ctx, nil)
	defer release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	call, err := millracev1.NewSqlClient(n.cc).Subscribe(ctx, &millracev1.SubscribeRequest{View: s.view, AfterTick: s.after})
	if err != nil {
		return false, n.explain(ctx, err)
	}
	var stall *time.Timer
	defer func() {
		if stall != nil {
			stall.Stop()
		}
	}()
	var change *Change
	for {
		m, err := receiveChange(call)
		if err != nil {
			return false, n.explain(ctx, err)
		}
		n.heard.Store(true)
		s.good = time.Now()
		if stall == nil {
			stall = time.AfterFunc(stalled, func() {
				cancel(fault.New(fault.Unavailable, "node %s has sent no progress of %q for %s", n.addr, s.view, stalled))
			})
		} else {
			stall.Reset(stalled)
		}
		if change, err = s.gather(change, m); err != nil {
			return false, err
		}
		if !m.Last {
			continue
		}
		whole := change
		change = nil
		if whole.Tick <= s.after {
			continue
		}
		s.after = whole.Tick
		s.c.See(whole.Tick)
		stall.Stop() // the receiver may take its time
		if !yield(whole, nil) {
			return true, nil
		}
		stall.Reset(stalled)
	}
}

func receiveChange(call grpc.ServerStreamingClient[millracev1.SubscribeResponse]) (*millracev1.SubscribeResponse, error) {
	m, err := call.Recv()
	if errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Unavailable, "the node ended the subscription")
	}
	return m, err
}

// gather adds one part of a tick's change.
func (s *subscription) gather(change *Change, m *millracev1.SubscribeResponse) (*Change, error) {
	if m.Schema != nil {
		s.columns = SchemaOf(m.Schema)
	}
	if change == nil || change.Tick != m.Tick {
		change = &Change{Tick: m.Tick, Columns: s.columns}
	}
	for _, r := range m.Rows {
		values, err := appendValues(make([]record.Value, 0, len(s.columns)), s.columns, r.Row)
		if err != nil {
			return nil, err
		}
		change.Rows = append(change.Rows, ChangedRow{Weight: r.Weight, Values: values})
	}
	return change, nil
}
