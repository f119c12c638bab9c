package client

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// Client is a connection to a cluster. It may be used by several goroutines at once.
type Client struct {
	opts options
	seen atomic.Uint64 // highest tick seen

	root   context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu      sync.Mutex
	nodes   []*nodeConn // the addresses given, in order, then those learned
	current *nodeConn
	closed  bool
}

// Dial connects to a cluster through the first of addrs (HOST:PORT of a node's gRPC) that answers. A node that is
// silent for 1 s is left for the next. It fails with an unavailable error when none answers.
func Dial(ctx context.Context, addrs []string, opts ...Option) (*Client, error) {
	if len(addrs) == 0 {
		return nil, fault.New(fault.Invalid, "no address to connect to; give HOST:PORT of a node")
	}
	c := &Client{opts: defaultOptions()}
	for _, o := range opts {
		o(&c.opts)
	}
	c.root, c.cancel = context.WithCancel(context.Background())
	for _, a := range addrs {
		if _, err := c.conn(a); err != nil {
			c.Close()
			return nil, err
		}
	}
	if err := c.first(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// first finds a node that answers. When none did, all get a second chance, and a longer one where they were silent: on a
// machine that is very busy a second may be too short. An address that refuses connections says so at once, twice.
func (c *Client) first(ctx context.Context) error {
	var errs []error
	for round, patience := range []time.Duration{silence, 4 * silence} {
		if round > 0 {
			if err := pause(ctx, secondChance); err != nil {
				break
			}
		}
		errs = errs[:0]
		for _, n := range c.known() {
			err := c.greet(ctx, n, patience)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return outOfTime(ctx, n, err)
			}
			errs = append(errs, err)
		}
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return fault.Wrap(fault.Unavailable, joinLine(errs), "no node answered")
}

// secondChance is how long Dial waits after all addresses failed before it tries them once more.
const secondChance = 200 * time.Millisecond

// greet asks a node for the cluster's description and, if it answers, makes it the current one.
func (c *Client) greet(ctx context.Context, n *nodeConn, patience time.Duration) error {
	// Not a deadline, which the node would hear of: it would end the call itself, and its end may come here first.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(patience, func() { cancel(n.silent(patience)) })
	defer timer.Stop()
	resp, err := millracev1.NewClusterClient(n.cc).Describe(ctx, &millracev1.DescribeRequest{Brief: true})
	if err != nil {
		return n.explain(ctx, err)
	}
	c.learn(resp)
	c.mu.Lock()
	c.current = n
	c.mu.Unlock()
	return nil
}

// learn takes in the nodes of a description.
func (c *Client) learn(d *millracev1.DescribeResponse) {
	for _, n := range d.Nodes {
		switch n.State {
		case "alive", "suspect", "draining":
			if n.Grpc != "" {
				c.conn(n.Grpc) // an address that can't be parsed is a node that can't be reached
			}
		}
	}
}

// conn returns the connection to addr, new if there is none. It doesn't wait for the network.
func (c *Client) conn(addr string) (*nodeConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	for _, n := range c.nodes {
		if n.addr == addr {
			return n, nil
		}
	}
	n, err := newNodeConn(c, addr)
	if err != nil {
		return nil, err
	}
	c.nodes = append(c.nodes, n)
	if c.current == nil {
		c.current = n
	}
	return n, nil
}

func (c *Client) known() []*nodeConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*nodeConn(nil), c.nodes...)
}

// node returns the node to ask.
func (c *Client) node() *nodeConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// leave goes on with another node after n failed: the one whose own failure, if any, is longest ago.
// It returns how many nodes there are.
func (c *Client) leave(n *nodeConn) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.failed = time.Now()
	if c.current == n {
		for _, other := range c.nodes {
			if other.failed.Before(c.current.failed) {
				c.current = other
			}
		}
	}
	return len(c.nodes)
}

// alone tells whether there is no node but n.
func (c *Client) alone(n *nodeConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.nodes) == 1 && c.nodes[0] == n
}

// each calls fn on one node after the other until one answers with anything but a retryable error, or the client's
// patience ends. fn must be safe to repeat.
func (c *Client) each(ctx context.Context, fn func(context.Context, *nodeConn) error) error {
	return c.eachFor(ctx, c.opts.patience, fn)
}

func (c *Client) eachFor(ctx context.Context, patience time.Duration, fn func(context.Context, *nodeConn) error) error {
	begun := time.Now()
	end := begun.Add(patience)
	var reason error // what a node said itself, last: it tells more than that others can't be reached
	for tries := 1; ; tries++ {
		n := c.node()
		err := n.call(ctx, fn)
		if err == nil || !worthRepeating(err) || ctx.Err() != nil || c.root.Err() != nil {
			if err != nil && ctx.Err() != nil && reason != nil {
				return outOfTime(ctx, n, reason)
			}
			return err
		}
		nodes := c.leave(n)
		if Reason(err) != fault.KindOf(err).String() {
			reason = err
		}
		if time.Now().After(end) || Reason(err) == reasonTooStale && tries >= 2*nodes && time.Since(begun) > stalePatience {
			return cmp.Or(reason, err)
		}
		if tries%nodes == 0 { // all have been asked
			if serr := pause(ctx, retryDelay(tries/nodes, err)); serr != nil {
				return outOfTime(ctx, n, cmp.Or(reason, err))
			}
		}
	}
}

// reasonTooStale is the reason of a node that is cut off, and has waited for that to end before it says so.
const reasonTooStale = "TOO_STALE"

// stalePatience is how long nodes that are cut off are asked again.
const stalePatience = 2 * time.Second

// outOfTime is the error of a call whose context has ended; last is what went wrong before.
func outOfTime(ctx context.Context, n *nodeConn, last error) error {
	if ctx.Err() == nil || errors.Is(last, fault.Of(fault.Deadline)) || errors.Is(last, fault.Of(fault.Canceled)) {
		return last
	}
	if fault.KindOfContext(ctx) == fault.Canceled {
		return fault.Wrap(fault.Canceled, last, "canceled while asking %s", n.addr)
	}
	return fault.Wrap(fault.Deadline, last, "no answer within the time allowed; the last try said")
}

// worthRepeating tells whether a call may succeed elsewhere or a little later. What is over a limit (the memory of a
// query) is so everywhere, unless the node says when to come back.
func worthRepeating(err error) bool {
	var f *fault.Error
	if errors.As(err, &f) && f.Kind == fault.Exhausted {
		return f.RetryAfter > 0
	}
	return fault.Retryable(err)
}

const (
	minRetryDelay = 10 * time.Millisecond
	maxRetryDelay = 500 * time.Millisecond
	maxRetryAfter = 5 * time.Second // a server's hint is not followed further than this
)

// retryDelay is how long to wait before try n+1: doubling, with jitter so that clients don't come back all at once, and
// no less than the server asked for.
func retryDelay(n int, err error) time.Duration {
	d := min(minRetryDelay<<min(n-1, 10), maxRetryDelay)
	d = d/2 + rand.N(d)
	var f *fault.Error
	if errors.As(err, &f) {
		d = max(d, min(f.RetryAfter, maxRetryAfter))
	}
	return d
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SeenTick returns the highest tick that this client has seen in an acknowledgement or an answer.
func (c *Client) SeenTick() uint64 { return c.seen.Load() }

// See raises the tick that later appends and statements are not older than.
func (c *Client) See(tick uint64) {
	for {
		old := c.seen.Load()
		if tick <= old || c.seen.CompareAndSwap(old, tick) {
			return
		}
	}
}

var errClosed = fault.New(fault.Canceled, "the client is closed")

// Close ends all calls and connections. Records of a Producer that are not acknowledged are given up: close it first.
// Close may be called twice.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	nodes := c.nodes
	c.mu.Unlock()
	c.cancel()
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.cc.Close())
	}
	c.tasks.Wait()
	return errors.Join(errs...)
}

// Reason returns the stable, machine-readable reason of an error of this package, such as NOT_FOUND or UNAVAILABLE, and
// "" for nil.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return f.GetReason()
	}
	return fault.Internal.String()
}

// Retryable tells whether what failed with err may succeed later.
func Retryable(err error) bool { return fault.Retryable(err) }
