package node

import (
	"context"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// statsTimeout is how long a description waits for each node's figures.
const statsTimeout = time.Second

// clusterService serves millrace.v1.Cluster.
type clusterService struct {
	millracev1.UnimplementedClusterServer
	n *Node
}

// Describe implements millracev1.ClusterServer.
func (s *clusterService) Describe(ctx context.Context, req *millracev1.DescribeRequest) (*millracev1.DescribeResponse, error) {
	c := s.n.catalog()
	if c == nil {
		return nil, fault.New(fault.Unavailable, "this node waits for the cluster's state; retry").WithReason("NOT_READY").WithRetryAfter(retryPause)
	}
	// Others are asked at once: those that are silent would otherwise be waited for twice.
	var endBytes map[uint32]uint64
	var others *internalv1.ClusterOverview
	var unseen error
	if !req.Brief {
		var g errgroup.Group
		g.Go(func() error { endBytes = s.n.endBytes(ctx); return nil })
		g.Go(func() error { others, unseen = s.n.overviewOf(ctx); return nil })
		_ = g.Wait() // nothing in it fails
	}
	tick, _ := s.n.coord.LastTick()
	resp := &millracev1.DescribeResponse{
		Cluster: c.state.ClusterId, Tick: uint64(tick), TargetReplicas: c.state.Replicas,
	}
	resp.Leader, _ = s.n.coord.Leader()
	replicas, primaries := map[string]uint32{}, map[string]uint32{}
	for _, p := range c.state.Partitions {
		out := &millracev1.Partition{Id: p.Id, Epoch: p.Epoch, Replicas: []string{}, InSync: []string{}, EndBytes: endBytes[p.Id]}
		if p.Primary != "" {
			out.Primary = c.name(p.Primary)
			primaries[p.Primary]++
		}
		for _, r := range p.Replicas {
			out.Replicas = append(out.Replicas, c.name(r))
			replicas[r]++
		}
		for _, r := range p.InSync {
			out.InSync = append(out.InSync, c.name(r))
		}
		resp.Partitions = append(resp.Partitions, out)
	}
	for _, m := range c.state.Members {
		resp.Nodes = append(resp.Nodes, &millracev1.Node{
			Name: m.Name, Id: m.Id, Grpc: m.Grpc, Gossip: m.Gossip, Http: m.Http, Pg: m.Pg, Zone: m.Zone, State: stateName(m.State),
			Voter: m.Voter, Replicas: replicas[m.Id], Primaries: primaries[m.Id],
		})
	}
	if !req.Brief {
		overview(c, resp, others, unseen)
	}
	return resp, nil
}

// overviewOf asks the leader.
func (n *Node) overviewOf(ctx context.Context) (*internalv1.ClusterOverview, error) {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	return n.coord.Overview(ctx)
}

// overview adds what only the leader knows, where it can be reached: who is silent, and what moves.
func overview(c *catalog, resp *millracev1.DescribeResponse, o *internalv1.ClusterOverview, err error) {
	resp.Moves = []*millracev1.Move{}
	if err != nil {
		resp.Notices = append(resp.Notices, "the leader can't be reached: moves and suspects are not shown")
		return
	}
	resp.Notices = append(resp.Notices, o.Notices...)
	for _, m := range o.Moves {
		resp.Moves = append(resp.Moves, &millracev1.Move{
			Partition: m.Partition, From: c.name(m.From), To: c.name(m.To), Phase: m.Phase, DoneBytes: m.DoneBytes, TotalBytes: m.TotalBytes,
			BytesPerSecond: m.BytesPerSecond,
		})
	}
	sizeQueued(resp)
	suspects := map[string]internalv1.MemberState{}
	for _, m := range o.Members {
		suspects[m.Id] = m.State
	}
	for _, m := range resp.Nodes {
		if st, ok := suspects[m.Id]; ok {
			m.State = stateName(st)
		}
	}
}

// sizeQueued tells what the copies that still wait will have to move.
func sizeQueued(resp *millracev1.DescribeResponse) {
	for _, m := range resp.Moves {
		if m.Phase == "queued" && m.TotalBytes == 0 && int(m.Partition) < len(resp.Partitions) {
			if p := resp.Partitions[m.Partition]; !slices.Contains(p.Replicas, m.To) {
				m.TotalBytes = p.EndBytes
			}
		}
	}
}

func stateName(s internalv1.MemberState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "MEMBER_STATE_"))
}

// endBytes asks every node for the sizes of the logs whose primary it is; nodes that don't answer are left out.
func (n *Node) endBytes(ctx context.Context) map[uint32]uint64 {
	out := map[uint32]uint64{}
	for _, s := range n.allStats(ctx, &internalv1.StatsRequest{}, statsTimeout) {
		for _, p := range s.Partitions {
			if p.Primary {
				out[p.Partition] = p.EndBytes
			}
		}
	}
	return out
}

// allStats asks every live member for its figures, for at most limit.
func (n *Node) allStats(ctx context.Context, req *internalv1.StatsRequest, limit time.Duration) []*internalv1.StatsResponse {
	c := n.catalog()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out := make([]*internalv1.StatsResponse, len(c.state.Members))
	var g errgroup.Group
	for i, m := range c.state.Members {
		if m.State == internalv1.MemberState_MEMBER_STATE_REMOVED || m.State == internalv1.MemberState_MEMBER_STATE_DEAD {
			continue
		}
		g.Go(func() error {
			resp, err := n.askStats(ctx, ids.NodeID(m.Id), req)
			if err != nil {
				n.log.Debug("no figures", "node", m.Name, "err", err)
				return nil // a description is of what can be reached
			}
			out[i] = resp
			return nil
		})
	}
	_ = g.Wait() // nothing in it fails
	kept := out[:0]
	for _, s := range out {
		if s != nil {
			kept = append(kept, s)
		}
	}
	return kept
}

func (n *Node) askStats(ctx context.Context, node ids.NodeID, req *internalv1.StatsRequest) (*internalv1.StatsResponse, error) {
	if node == n.id {
		return n.stats(ctx, req)
	}
	client, err := n.queryClient(node)
	if err != nil {
		return nil, err
	}
	resp, err := client.Stats(ctx, req)
	return resp, fault.FromGRPC(err)
}

// Drain implements millracev1.ClusterServer.
func (s *clusterService) Drain(ctx context.Context, req *millracev1.DrainRequest) (*millracev1.DrainResponse, error) {
	id, err := s.member(req.Node)
	if err != nil {
		return nil, err
	}
	return &millracev1.DrainResponse{}, s.n.coord.Drain(ctx, id)
}

// Remove implements millracev1.ClusterServer.
func (s *clusterService) Remove(ctx context.Context, req *millracev1.RemoveRequest) (*millracev1.RemoveResponse, error) {
	id, err := s.member(req.Node)
	if err != nil {
		return nil, err
	}
	return &millracev1.RemoveResponse{}, s.n.coord.Remove(ctx, id, req.Force)
}

// Recover implements millracev1.ClusterServer.
func (s *clusterService) Recover(ctx context.Context, req *millracev1.RecoverRequest) (*millracev1.RecoverResponse, error) {
	id, err := s.member(req.Node)
	if err != nil {
		return nil, err
	}
	loss, err := s.n.coord.RecoverPartition(ctx, ids.PartitionID(req.Partition), string(id), req.Unsafe)
	if err != nil {
		return nil, err
	}
	return &millracev1.RecoverResponse{Loss: loss}, nil
}

// member finds a member by name or id; a name that was used again means the member that has it now.
func (s *clusterService) member(name string) (ids.NodeID, error) {
	c := s.n.catalog()
	var names []string
	for _, m := range c.state.Members {
		if m.State == internalv1.MemberState_MEMBER_STATE_REMOVED {
			continue
		}
		if m.Name == name || m.Id == name {
			return ids.NodeID(m.Id), nil
		}
		names = append(names, m.Name)
	}
	return "", fault.New(fault.NotFound, "no node %q; the cluster has %s", name, strings.Join(names, ", ")).WithReason("UNKNOWN_NODE")
}
