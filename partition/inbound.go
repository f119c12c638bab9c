package partition

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// replicationService is the peers' end of links: this node as a follower and learner.
type replicationService struct {
	internalv1.UnimplementedReplicationServer
	h *Host
}

// Register adds the peers' service to a server.
func (h *Host) Register(s grpc.ServiceRegistrar) {
	internalv1.RegisterReplicationServer(s, &replicationService{h: h})
}

// inbound is one stream of a peer that is the primary of partitions.
type inbound struct {
	from   ids.NodeID
	bulk   bool // copies come on it
	mu     sync.Mutex
	acks   []*hosted              // takeAck has something
	direct []*internalv1.LogReply // as they are, at most maxReplies
	closed bool
	full   bool // a reply found no room: the stream ends, and the primary asks again on the next
	notify chan struct{}
}

// maxReplies bounds the answers that wait for a primary to take them.
const maxReplies = 1 << 14

// reply queues answers. in.mu is held.
func (in *inbound) reply(m ...*internalv1.LogReply) {
	if len(in.direct)+len(m) > maxReplies {
		in.full = true
		return
	}
	in.direct = append(in.direct, m...)
}

// answer queues what a replica has to tell its primary. Its lock is held.
func (hd *hosted) answer(replies []*internalv1.LogReply, ack bool) {
	in := hd.inbound
	if in == nil {
		return // the stream is gone; the next one begins with a probe
	}
	in.mu.Lock()
	in.reply(replies...)
	if ack && !hd.ackQueued {
		hd.ackQueued = true
		in.acks = append(in.acks, hd)
	}
	in.mu.Unlock()
	poke(in.notify)
}

// attach makes the stream the one that gets the replica's answers. The replica's lock is held.
func (hd *hosted) attach(in *inbound) {
	if hd.inbound != in {
		hd.inbound, hd.ackQueued = in, false
	}
}

// begin counts a stream that is being served, unless the host has stopped.
func (h *Host) begin() bool {
	h.servingMu.Lock()
	defer h.servingMu.Unlock()
	if h.stopped.Load() {
		return false
	}
	h.serving.Add(1)
	return true
}

// Replicate implements internalv1.ReplicationServer.
func (s *replicationService) Replicate(stream grpc.BidiStreamingServer[internalv1.ReplicateRequest, internalv1.ReplicateResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.Hello
	switch {
	case hello == nil || hello.Version != protocolVersion:
		return fault.New(fault.Unsupported, "replication protocol %d; this node speaks %d", hello.GetVersion(), protocolVersion)
	case hello.To != string(s.h.cfg.Node):
		return fault.New(fault.Conflict, "this is node %s, not %s", s.h.cfg.Node, hello.To).WithReason("WRONG_NODE")
	case !s.h.begin():
		return fault.New(fault.Unavailable, "this node is stopping")
	}
	defer s.h.serving.Done()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.h.stopCtx, cancel)()
	in := &inbound{from: ids.NodeID(hello.From), bulk: hello.Bulk, notify: make(chan struct{}, 1)}
	received := make(chan error, 1)
	s.h.serving.Go(func() { received <- s.h.receive(ctx, in, first, stream) })
	sent := make(chan error, 1)
	s.h.serving.Go(func() { sent <- in.send(ctx, stream) })
	select {
	case err = <-received:
		cancel()
		<-sent
	case err = <-sent:
		// The receiving goroutine ends once this method has returned and so ended the stream.
	case <-ctx.Done():
		<-sent
	}
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	s.h.all(func(hd *hosted) {
		hd.mu.Lock()
		if hd.inbound == in {
			hd.inbound = nil
		}
		hd.mu.Unlock()
	})
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// send sends answers until ctx ends; what gathers while one message is being sent goes in the next.
func (in *inbound) send(ctx context.Context, stream grpc.BidiStreamingServer[internalv1.ReplicateRequest, internalv1.ReplicateResponse]) error {
	var acks []*hosted
	for {
		select {
		case <-in.notify:
		case <-ctx.Done():
			return nil
		}
		in.mu.Lock()
		acks, in.acks = in.acks, acks[:0]
		replies := in.direct
		in.direct = nil
		in.mu.Unlock()
		for _, hd := range acks {
			hd.mu.Lock()
			if hd.inbound == in {
				hd.ackQueued = false
				if m := hd.r.takeAck(); m != nil {
					replies = append(replies, m)
				}
			}
			hd.mu.Unlock()
		}
		clear(acks)
		if len(replies) == 0 {
			continue
		}
		if err := stream.Send(&internalv1.ReplicateResponse{Replies: replies}); err != nil {
			return err
		}
	}
}

// receive takes a primary's messages until the stream ends. It waits while too much waits for the disk, and for nothing
// else.
func (h *Host) receive(ctx context.Context, in *inbound, m *internalv1.ReplicateRequest, stream grpc.BidiStreamingServer[internalv1.ReplicateRequest, internalv1.ReplicateResponse]) error {
	for {
		if err := h.writer.wait(ctx, in.bulk); err != nil {
			return err
		}
		in.mu.Lock()
		full := in.full
		in.mu.Unlock()
		if full {
			return fault.New(fault.Exhausted, "node %s doesn't take its %d answers", in.from, maxReplies)
		}
		if err := h.waitForRoom(ctx, m); err != nil {
			return err
		}
		for _, a := range m.Appends {
			if err := h.receiveAppend(in, a); err != nil {
				return err
			}
		}
		for _, r := range m.Resets {
			h.receiveOn(in, r.Partition, r.Term, func(rep *replica) { rep.receiveReset(h.now(), in.from, r) })
		}
		var err error
		if m, err = stream.Recv(); err != nil {
			return err
		}
	}
}

// roomInterval is how often a follower whose disk is nearly full looks for room.
const roomInterval = 100 * time.Millisecond

// waitForRoom holds a primary's entries back while there is hardly any room for them: the primary then goes on without this
// replica. What is left of the disk is for this node's own deletions, which would have to wait behind the entries.
func (h *Host) waitForRoom(ctx context.Context, m *internalv1.ReplicateRequest) error {
	entries := slices.ContainsFunc(m.Appends, func(a *internalv1.LogAppend) bool { return len(a.Entries) > 0 })
	if !entries || h.store.Spare() == nil {
		return nil
	}
	ticker := time.NewTicker(roomInterval)
	defer ticker.Stop()
	h.log.Warn("this node's disk is nearly full; it takes no more from the primary for now", "primary", m.Hello.GetFrom(), "error", h.store.Spare())
	for h.store.Spare() != nil {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (h *Host) receiveAppend(in *inbound, a *internalv1.LogAppend) error {
	m, err := decodeAppend(a)
	if err != nil {
		// Damaged on the way: the primary begins anew on another stream.
		return fault.Wrap(fault.Corrupted, err, "a message of node %s for partition %d", in.from, a.Partition)
	}
	h.receiveOn(in, a.Partition, a.Term, func(r *replica) { r.receive(h.now(), in.from, m) })
	return nil
}

// receiveOn gives a message to its replica.
func (h *Host) receiveOn(in *inbound, partition uint32, t *internalv1.LogTerm, fn func(*replica)) {
	missing := func() {
		in.mu.Lock()
		in.reply(&internalv1.LogReply{Partition: partition, Kind: internalv1.LogReplyKind_LOG_REPLY_KIND_MISSING, Term: t})
		in.mu.Unlock()
		poke(in.notify)
	}
	hd := h.slot(ids.PartitionID(partition))
	if hd == nil {
		missing()
		return
	}
	var out outcome
	hd.mu.Lock()
	in.mu.Lock()
	closed := in.closed
	in.mu.Unlock()
	switch {
	case closed:
		hd.mu.Unlock()
		return
	case hd.gone:
		hd.mu.Unlock()
		missing()
		return
	}
	hd.attach(in)
	fn(hd.r)
	h.settle(hd, &out)
	hd.mu.Unlock()
	h.finish(&out)
}

// LogEnds implements internalv1.ReplicationServer.
func (s *replicationService) LogEnds(_ context.Context, req *internalv1.LogEndsRequest) (*internalv1.LogEndsResponse, error) {
	if req.To != string(s.h.cfg.Node) {
		return nil, fault.New(fault.Conflict, "this is node %s, not %s", s.h.cfg.Node, req.To).WithReason("WRONG_NODE")
	}
	resp := &internalv1.LogEndsResponse{}
	for _, p := range req.Partitions {
		pos, err := s.h.logEnd(ids.PartitionID(p))
		if err != nil {
			continue
		}
		resp.Ends = append(resp.Ends, &internalv1.LogPosition{
			Partition: p, Epoch: uint64(pos.Epoch), Last: uint64(pos.Last), Commit: uint64(pos.Commit),
			LastTerm: &internalv1.LogTerm{Epoch: uint64(pos.LastEpoch), Boot: pos.LastBoot},
		})
	}
	return resp, nil
}
