package client

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/millrace/millrace/internal/fault"
)

// nodeConn is the connection to one node. While calls wait for an answer, it asks now and then whether the node is
// there at all: a broken connection is noticed by itself, a stopped process or a cut wire isn't.
type nodeConn struct {
	c      *Client
	addr   string
	cc     *grpc.ClientConn
	failed time.Time // last failure; under Client.mu

	heard atomic.Bool // something came from the node since the last look

	mu       sync.Mutex
	calls    map[*watched]struct{}
	watching bool
}

// watched is a call that ends when its node falls silent.
type watched struct {
	cancel    context.CancelCauseFunc
	expecting func() bool // whether an answer is due; nil: always
}

// probeInterval is how often a node that calls wait for is looked at.
const probeInterval = 400 * time.Millisecond

func newNodeConn(c *Client, addr string) (*nodeConn, error) {
	opts := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(), // retries are ours: they keep order and sequence
		grpc.WithInitialWindowSize(windowBytes),
		grpc.WithInitialConnWindowSize(connWindowBytes),
		grpc.WithWriteBufferSize(connBufferBytes),
		grpc.WithReadBufferSize(connBufferBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxRetryDelay},
			MinConnectTimeout: silence,
		}),
	}, c.opts.dial...)
	cc, err := grpc.NewClient("passthrough:///"+addr, opts...)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "address %q", addr)
	}
	return &nodeConn{c: c, addr: addr, cc: cc, calls: map[*watched]struct{}{}}, nil
}

// call runs fn under watch and explains its error.
func (n *nodeConn) call(ctx context.Context, fn func(context.Context, *nodeConn) error) error {
	ctx, release := n.watch(ctx, nil)
	defer release()
	if err := fn(ctx, n); err != nil {
		return n.explain(ctx, err)
	}
	n.heard.Store(true)
	return nil
}

// watch returns a context that ends with an errSilent when the node is silent while an answer is due, and when the
// client is closed. release must be called.
func (n *nodeConn) watch(ctx context.Context, expecting func() bool) (watchedCtx context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watched{cancel: cancel, expecting: expecting}
	stop := context.AfterFunc(n.c.root, func() { cancel(errClosed) })
	n.mu.Lock()
	n.calls[w] = struct{}{}
	if !n.watching && n.c.root.Err() == nil {
		n.watching = true
		n.c.tasks.Add(1)
		go n.monitor()
	}
	n.mu.Unlock()
	return ctx, func() {
		n.mu.Lock()
		delete(n.calls, w)
		n.mu.Unlock()
		stop()
		cancel(nil)
	}
}

// monitor runs while there are calls.
func (n *nodeConn) monitor() {
	defer n.c.tasks.Done()
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.c.root.Done():
			return
		}
		n.mu.Lock()
		if len(n.calls) == 0 {
			n.watching = false
			n.mu.Unlock()
			return
		}
		due := false
		for w := range n.calls {
			due = due || w.expecting == nil || w.expecting()
		}
		n.mu.Unlock()
		if !due || n.heard.Swap(false) {
			continue
		}
		if err := n.probe(); err != nil {
			n.mu.Lock()
			for w := range n.calls {
				w.cancel(err)
			}
			n.mu.Unlock()
		}
	}
}

// probe returns an errSilent if the node doesn't answer at all. Any answer will do; and a connection that is broken
// fails its calls by itself.
func (n *nodeConn) probe() error {
	patience := silence
	if n.c.alone(n) {
		patience = lonelySilence
	}
	ctx, cancel := context.WithTimeout(n.c.root, patience)
	defer cancel()
	_, err := healthpb.NewHealthClient(n.cc).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && !n.heard.Load() {
		return n.silent(patience)
	}
	return nil
}

// connected waits until the connection is up. An error means that nothing can have been sent.
func (n *nodeConn) connected(ctx context.Context) error {
	wait, cancel := context.WithTimeoutCause(ctx, silence, n.silent(silence))
	defer cancel()
	n.cc.Connect()
	for {
		state := n.cc.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return fault.New(fault.Unavailable, "node %s can't be reached", n.addr)
		case connectivity.Idle:
			n.cc.Connect()
		}
		if !n.cc.WaitForStateChange(wait, state) {
			if ctx.Err() != nil {
				return fault.Wrap(fault.KindOfContext(ctx), ctx.Err(), "connect to %s", n.addr)
			}
			return context.Cause(wait)
		}
	}
}

// errSilent marks the error of a node that doesn't answer.
var errSilent = errors.New("no answer")

func (n *nodeConn) silent(d time.Duration) error {
	return fault.Wrap(fault.Unavailable, errSilent, "node %s has been silent for %s", n.addr, d)
}

// explain turns the error of a call into one that says where it happened.
func (n *nodeConn) explain(ctx context.Context, err error) error {
	var own *fault.Error
	if cause := context.Cause(ctx); cause != nil && errors.As(cause, &own) {
		return cause
	}
	if errors.As(err, &own) {
		return err
	}
	ended := ctx.Err() != nil
	st, ok := status.FromError(err)
	if !ok {
		return fault.Wrap(fault.Unavailable, err, "node %s", n.addr)
	}
	f := fault.FromStatus(st)
	if f.Reason != "" { // the node said so itself
		if f.Kind == fault.Canceled && !ended { // not by us: the node is stopping
			f = fault.New(fault.Unavailable, "node %s ended the call: %s", n.addr, f.Message)
		}
		return f
	}
	return n.explainTransport(ctx, f)
}

// explainTransport says what an error of gRPC itself means: nobody is helped by the name of a frame.
func (n *nodeConn) explainTransport(ctx context.Context, f *fault.Error) error {
	end, limited := ctx.Deadline()
	limited = limited && time.Until(end) < silence
	switch {
	case f.Kind == fault.Deadline, f.Kind == fault.Canceled && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fault.New(fault.Deadline, "node %s gave no answer within the time allowed; allow more, or ask another node", n.addr)
	case f.Kind == fault.Canceled && ctx.Err() != nil:
		return fault.New(fault.Canceled, "the call to node %s was canceled", n.addr)
	case f.Kind == fault.Canceled && limited:
		// The node has the same deadline, and may end the call a moment before we do.
		return fault.New(fault.Deadline, "node %s ended the call before it answered, at the end of the time allowed or as it stops; retry", n.addr)
	case f.Kind == fault.Canceled:
		return fault.New(fault.Unavailable, "node %s ended the call before it answered; it may be stopping: retry, or ask another node", n.addr)
	case f.Kind == fault.Unavailable:
		f.Message = "node " + n.addr + " can't be reached: " + bare(f.Message)
	case f.Kind == fault.Unsupported:
		f.Message = n.addr + " is not a Millrace node of this version: " + f.Message
	case f.Kind == fault.Exhausted && strings.Contains(f.Message, "larger than max"):
		return fault.New(fault.TooLarge, "a message to or from node %s is over the limit of gRPC messages (--max-message of the node): %s",
			n.addr, strings.TrimPrefix(f.Message, "grpc: "))
	case strings.Contains(f.Message, "RST_STREAM"), strings.Contains(f.Message, "without sending trailers"):
		return fault.New(fault.Unavailable, "node %s broke the call off; its log may say why: retry, or ask another node", n.addr)
	default:
		f.Message = "node " + n.addr + ": " + f.Message
	}
	return f
}

// bare takes gRPC's wrapping off the text of a connection error.
func bare(text string) string {
	for _, lost := range []string{"EOF", "connection reset", "broken pipe", "closing transport", "transport is closing"} {
		if strings.Contains(text, lost) {
			return "the connection was lost"
		}
	}
	if strings.Contains(text, "deadline exceeded") || strings.Contains(text, "i/o timeout") {
		return "it doesn't answer"
	}
	for _, cut := range []string{"Error while dialing: ", "connection error: ", "desc = "} {
		if i := strings.LastIndex(text, cut); i >= 0 {
			text = text[i+len(cut):]
			break
		}
	}
	text = strings.Trim(text, `"`)
	if i := strings.LastIndex(text, "connect: "); i >= 0 {
		text = text[i+len("connect: "):]
	}
	return text
}

// joinLine joins errors in one line.
func joinLine(errs []error) error {
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}
