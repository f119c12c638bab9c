package coordinator

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// service answers the other nodes' coordinators.
type service struct {
	internalv1.UnimplementedControlServer
	c *Coordinator
}

// Register adds the coordinator's service to a gRPC server; that may serve before Run is called.
func (c *Coordinator) Register(s grpc.ServiceRegistrar) {
	internalv1.RegisterControlServer(s, &service{c: c})
}

// takeOver is how long a call waits for a node that has just been elected to take its leadership up.
const takeOver = time.Second

// leading returns the leadership of this node, or how to answer without one.
func (s *service) leading(ctx context.Context) (*leadership, error) {
	for end := time.Now().Add(takeOver); s.c.elected() && s.c.lead.Load() == nil && time.Now().Before(end); {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctxError(ctx, "waiting for this node to take up leadership")
		}
	}
	if l := s.c.lead.Load(); l != nil {
		return l, nil
	}
	name, _ := s.c.Leader()
	return nil, fault.New(fault.NotPrimary, "this node doesn't lead the cluster (%q does, as far as it knows)", name).
		WithReason(ReasonNotLeader).WithRetryAfter(retryStep)
}

// Propose implements internalv1.ControlServer.
func (s *service) Propose(ctx context.Context, r *internalv1.ProposeRequest) (*internalv1.ProposeResponse, error) {
	if r.Command == nil || r.Command.Op == nil {
		return nil, fault.New(fault.Invalid, "no command that this node knows; do all nodes run the same version?")
	}
	l, err := s.leading(ctx)
	if err != nil && r.Forward {
		res, err := s.c.Propose(ctx, r.Command)
		return &internalv1.ProposeResponse{Result: res}, err
	}
	if err != nil {
		return nil, err
	}
	res, err := l.propose(ctx, r.Command)
	if err != nil {
		return nil, err
	}
	return &internalv1.ProposeResponse{Result: res}, nil
}

// RemoveNode implements internalv1.ControlServer.
func (s *service) RemoveNode(ctx context.Context, r *internalv1.RemoveMemberRequest) (*internalv1.ProposeResponse, error) {
	l, err := s.leading(ctx)
	if err != nil {
		return nil, err
	}
	res, err := l.removeMember(ctx, r.Node, r.Force)
	if err != nil {
		return nil, err
	}
	return &internalv1.ProposeResponse{Result: res}, nil
}

// RecoverPartition implements internalv1.ControlServer.
func (s *service) RecoverPartition(ctx context.Context, r *internalv1.RecoverPartitionRequest) (*internalv1.RecoverPartitionResponse, error) {
	l, err := s.leading(ctx)
	if err != nil {
		return nil, err
	}
	loss, err := l.recoverPartition(ctx, ids.PartitionID(r.Partition), r.Node, r.Unsafe)
	if err != nil {
		return nil, err
	}
	return &internalv1.RecoverPartitionResponse{Loss: loss}, nil
}

// Overview implements internalv1.ControlServer.
func (s *service) Overview(ctx context.Context, _ *internalv1.OverviewRequest) (*internalv1.ClusterOverview, error) {
	l, err := s.leading(ctx)
	if err != nil {
		return nil, err
	}
	return l.overview(), nil
}

// Barrier implements internalv1.ControlServer.
func (s *service) Barrier(ctx context.Context, _ *internalv1.BarrierRequest) (*internalv1.BarrierResponse, error) {
	if _, err := s.leading(ctx); err != nil { // never passed on a second time
		return nil, err
	}
	return s.c.barrier(ctx)
}

// Ping implements internalv1.ControlServer.
func (s *service) Ping(_ context.Context, r *internalv1.PingRequest) (*internalv1.PingResponse, error) {
	if r.Node != "" && r.Node != string(s.c.id.node) {
		return nil, fault.New(fault.NotFound, "this is %s, not %s", s.c.id.node, oneLine(r.Node)).WithReason(reasonWrongNode)
	}
	return &internalv1.PingResponse{Node: string(s.c.id.node), Incarnation: s.c.incarnation}, nil
}

// Attach implements internalv1.ControlServer.
func (s *service) Attach(stream grpc.BidiStreamingServer[internalv1.NodeReport, internalv1.TickNotice]) error {
	l, err := s.leading(stream.Context())
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	return l.serve(stream, first)
}
