package partition

import (
	"context"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// Status describes the replicas of this node, by partition.
func (h *Host) Status() []ReplicaStatus {
	var out []ReplicaStatus
	h.all(func(hd *hosted) {
		hd.mu.Lock()
		defer hd.mu.Unlock()
		r := hd.r
		s := ReplicaStatus{
			Partition: r.id, Role: r.role, Epoch: r.epoch(), Last: r.end, Commit: r.commit, EndBytes: r.totals(), Err: r.cause,
		}
		s.Held = r.hard.held
		if r.role == RolePrimary {
			s.Open, s.Closed = r.primary.open, r.primary.closed
			for _, p := range r.primary.peers {
				if !p.inSync {
					s.Learners = append(s.Learners, LearnerStatus{Node: p.node, Done: r.copyDone(p), Total: int64(r.endBytes - r.hard.baseBytes)})
				}
			}
		}
		out = append(out, s)
	})
	return out
}

// copyDone is how many bytes of the log a learner has.
func (r *replica) copyDone(p *progress) int64 {
	switch {
	case p.match >= r.end:
		return int64(r.endBytes - r.hard.baseBytes)
	case p.ackPos > r.hard.baseBytes:
		return int64(p.ackPos - r.hard.baseBytes)
	}
	return 0
}

// logEnd returns how long this node's log of a partition is, on disk.
func (h *Host) logEnd(p ids.PartitionID) (LogPosition, error) {
	hd := h.slot(p)
	if hd == nil {
		return LogPosition{}, fault.New(fault.NotFound, "partition %d isn't on node %s", p, h.cfg.Node)
	}
	hd.mu.Lock()
	defer hd.mu.Unlock()
	r := hd.r
	choice := r.hard.held && !slices.Contains(r.cfg.InSync, string(r.self)) // an operator may force it
	if hd.gone || r.role == RoleFailed && !choice {
		return LogPosition{}, fault.New(fault.NotFound, "partition %d has no whole copy on node %s", p, h.cfg.Node)
	}
	t := r.hist.at(r.durable)
	return LogPosition{Partition: p, Epoch: r.epoch(), LastEpoch: t.epoch, LastBoot: t.boot, Last: r.durable, Commit: r.commit}, nil
}

// LogEnds returns how long a node's logs of some partitions are, in the order asked. NotFound when the node holds no
// whole copy of one of them; the errors of the connection.
func (h *Host) LogEnds(ctx context.Context, node ids.NodeID, partitions []ids.PartitionID) ([]LogPosition, error) {
	out := make([]LogPosition, len(partitions))
	if node == h.cfg.Node {
		var err error
		for i, p := range partitions {
			if out[i], err = h.logEnd(p); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	conn, err := h.peers.Conn(node)
	if err != nil {
		return nil, err
	}
	req := &internalv1.LogEndsRequest{To: string(node)}
	for _, p := range partitions {
		req.Partitions = append(req.Partitions, uint32(p))
	}
	resp, err := internalv1.NewReplicationClient(conn).LogEnds(ctx, req)
	if err != nil {
		return nil, fault.FromGRPC(err)
	}
	for i, p := range partitions {
		found := false
		for _, e := range resp.Ends {
			if ids.PartitionID(e.Partition) == p {
				t := termOf(e.LastTerm)
				out[i] = LogPosition{p, ids.Epoch(e.Epoch), t.epoch, t.boot, LSN(e.Last), LSN(e.Commit)}
				found = true
			}
		}
		if !found {
			return nil, fault.New(fault.NotFound, "partition %d has no whole copy on node %s", p, node)
		}
	}
	return out, nil
}
