package node

import (
	"context"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// unary turns errors into statuses, counts calls, and keeps a defect in one call from ending the node.
func (n *Node) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	start := time.Now()
	n.active.Add(1)
	defer n.active.Add(-1)
	defer func() { err = n.finish(info.FullMethod, start, recover(), err) }()
	return handler(ctx, req)
}

// streaming is unary for streams.
func (n *Node) streaming(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	start := time.Now()
	if info.FullMethod == millracev1.Sql_Execute_FullMethodName {
		n.active.Add(1)
		defer n.active.Add(-1)
	}
	defer func() { err = n.finish(info.FullMethod, start, recover(), err) }()
	return handler(srv, stream)
}

func (n *Node) finish(method string, start time.Time, panicked any, err error) error {
	if panicked != nil {
		n.log.Error("a call failed by a defect of ours; please report it", "method", method, "panic", panicked, "stack", string(debug.Stack()))
		err = fault.New(fault.Internal, "internal error (%v); the node's log says where", panicked)
	}
	if err != nil {
		st := fault.Status(err)
		n.metrics.calls.WithLabelValues(method, st.Code().String()).Observe(time.Since(start).Seconds())
		return st.Err()
	}
	n.metrics.calls.WithLabelValues(method, status.Code(nil).String()).Observe(time.Since(start).Seconds())
	return nil
}

// whileServing returns a context that also ends when the node stops, for calls that would go on for ever.
func (n *Node) whileServing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	forget := context.AfterFunc(n.serving, cancel)
	return ctx, func() {
		forget()
		cancel()
	}
}

// stopping is the error of a call that ended because the node stops.
func stopping() error {
	return fault.New(fault.Unavailable, "this node is stopping; go on at another").WithReason("NODE_STOPPING")
}
