package client

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// appendStream is one AppendStream call to a node, shared by all lanes that are routed there: one goroutine sends, one
// receives. It ends with the first error of the transport; lanes then go on with another.
type appendStream struct {
	p    *Producer
	node *nodeConn

	notify chan struct{}

	mu       sync.Mutex
	lanes    []*lane // with something to send
	pending  map[uint64]expected
	requests uint64
}

// expected is a batch that was sent and not answered.
type expected struct {
	l       *lane
	b       *batch
	attempt uint64
}

func newAppendStream(p *Producer, n *nodeConn) *appendStream {
	return &appendStream{p: p, node: n, notify: make(chan struct{}, 1), pending: map[uint64]expected{}}
}

func (s *appendStream) enqueue(l *lane) {
	s.mu.Lock()
	s.lanes = append(s.lanes, l)
	s.mu.Unlock()
	signal(s.notify)
}

// expect registers a batch and returns its request id.
func (s *appendStream) expect(l *lane, b *batch, attempt uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.pending[s.requests] = expected{l, b, attempt}
	return s.requests
}

func (s *appendStream) answered(requestID uint64) (expected, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.pending[requestID]
	delete(s.pending, requestID)
	return e, ok
}

func (s *appendStream) expecting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending) > 0
}

// run sends until the stream ends, then hands its lanes back.
func (s *appendStream) run() {
	ctx, release := s.node.watch(s.p.ctx, s.expecting)
	ctx, cancel := context.WithCancel(ctx)
	err := s.converse(ctx, cancel)
	err = s.node.explain(ctx, err)
	cancel()
	release()
	s.p.streamEnded(s)
	signal(s.p.refresh)
	for _, l := range s.p.lanes {
		l.streamFailed(s, err)
	}
}

// converse opens the call, receives in a goroutine of its own and sends in this one.
func (s *appendStream) converse(ctx context.Context, cancel context.CancelFunc) error {
	call, err := millracev1.NewIngestClient(s.node.cc).AppendStream(ctx, grpc.ForceCodecV2(newAppendCodec()))
	if err != nil {
		return err
	}
	received := make(chan error, 1)
	go func() {
		err := s.receive(call)
		received <- err
		cancel() // wakes the sender
	}()
	s.send(ctx, call)
	if ctx.Err() == nil {
		// Sending failed; receiving says why.
		return <-received
	}
	err = <-received
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// send sends batches until ctx ends or the transport fails.
func (s *appendStream) send(ctx context.Context, call millracev1.Ingest_AppendStreamClient) {
	for {
		l := s.nextLane()
		if l == nil {
			select {
			case <-s.notify:
				continue
			case <-ctx.Done():
				return
			}
		}
		b, requestID, m := l.take(s)
		if b == nil {
			continue
		}
		if err := b.prepare(s.p.opts.compression); err != nil {
			if e, ok := s.answered(requestID); ok {
				l.refused(s, b, e.attempt, err)
			}
			continue
		}
		m.seenTick = s.p.c.SeenTick()
		if err := call.SendMsg(&m); err != nil {
			return
		}
	}
}

func (s *appendStream) nextLane() *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lanes) == 0 {
		return nil
	}
	l := s.lanes[0]
	s.lanes[0] = nil
	s.lanes = s.lanes[1:]
	return l
}

// receive takes answers until the stream ends.
func (s *appendStream) receive(call millracev1.Ingest_AppendStreamClient) error {
	for {
		resp, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return fault.New(fault.Unavailable, "node %s ended the append stream", s.node.addr)
		}
		if err != nil {
			return err
		}
		s.node.heard.Store(true)
		e, ok := s.answered(resp.RequestId)
		if !ok {
			continue
		}
		switch {
		case resp.Error != nil:
			e.l.refused(s, e.b, e.attempt, fault.FromStatus(status.FromProto(resp.Error)))
		case len(resp.Appended) == 1 && int(resp.Appended[0].Count) == e.b.count:
			e.l.acknowledged(e.b, resp.Appended[0])
		default:
			e.l.refused(s, e.b, e.attempt, fault.New(fault.Internal, "node %s acknowledged a batch of %d records with something else", s.node.addr, e.b.count))
		}
	}
}
