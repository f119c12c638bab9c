package node

import (
	"context"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/millrace/millrace/internal/fault"
)

// unary turns errors into statuses, counts calls, and keeps a defect in one call from ending the node.
func (n *Node) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	start := time.Now()
	defer func() { err = n.finish(info.FullMethod, start, recover(), err) }()
	return handler(ctx, req)
}

// streaming is unary for streams.
func (n *Node) streaming(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	start := time.Now()
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
