package stage

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// intake is the receiving side: the lanes of partitions of which this node is a replica, but not the primary.
type intake struct {
	rt *Runtime

	mu      sync.RWMutex // held for reading while anything is applied, so that Configure can end that
	stopped bool
	views   map[ids.StreamID]ids.Tick // created_tick
	parts   map[ids.PartitionID]*inPart
	streams map[*inStream]struct{}
}

// inPart is a partition.
type inPart struct {
	primary ids.NodeID // guarded by the intake's mu
	epoch   ids.Epoch

	mu     sync.Mutex
	lanes  map[laneKey]*inLane
	closed []shippedClose // the newest few, in order
}

// shippedClose says that the partition's log up to end holds all records up to tick.
type shippedClose struct {
	tick ids.Tick
	end  uint64
}

// keptCloses is how many of them are kept: the newest that this node's log has reached counts.
const keptCloses = 8

// inLane is what is stored here of a lane.
type inLane struct {
	mark    mark
	covered ids.Tick // the state at mark.tick is that at this tick too
	durable ids.Tick // the state at this tick survives a crash
}

func (in *intake) init(rt *Runtime) {
	in.rt = rt
	in.views, in.parts, in.streams = map[ids.StreamID]ids.Tick{}, map[ids.PartitionID]*inPart{}, map[*inStream]struct{}{}
}

// configure takes out what a new state doesn't have any more: when it returns, nothing is applied to that. What is new comes
// with admit, once the targets and views before it have stored what they had and have been deleted: they would
// write over what is applied. Called with the runtime's mu held.
func (in *intake) configure(st *internalv1.ClusterState) {
	views := viewsBorn(st)
	in.mu.Lock()
	defer in.mu.Unlock()
	for id, born := range in.views {
		if views[id] == born {
			continue
		}
		delete(in.views, id)
		for _, part := range in.parts {
			for k := range part.lanes {
				if k.view == id {
					delete(part.lanes, k)
				}
			}
		}
	}
	parts := map[ids.PartitionID]*inPart{}
	in.eachFollowed(st, func(p ids.PartitionID, cfg *internalv1.PartitionConfig) {
		if part := in.parts[p]; part != nil {
			part.primary, part.epoch = ids.NodeID(cfg.Primary), ids.Epoch(cfg.Epoch)
			parts[p] = part
		}
	})
	in.parts = parts
}

// admit adds what is new in a state that configure was called with. Called with the runtime's mu held.
func (in *intake) admit(st *internalv1.ClusterState) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.views = viewsBorn(st)
	in.eachFollowed(st, func(p ids.PartitionID, cfg *internalv1.PartitionConfig) {
		in.rt.held[p] = true
		if in.parts[p] == nil {
			in.parts[p] = &inPart{primary: ids.NodeID(cfg.Primary), epoch: ids.Epoch(cfg.Epoch), lanes: map[laneKey]*inLane{}}
		}
	})
}

// eachFollowed calls fn for the partitions of which this node is a replica, but not the primary.
func (in *intake) eachFollowed(st *internalv1.ClusterState, fn func(ids.PartitionID, *internalv1.PartitionConfig)) {
	self := string(in.rt.cfg.NodeID)
	for _, cfg := range st.Partitions {
		if cfg.Primary != self && slices.Contains(cfg.Replicas, self) {
			fn(ids.PartitionID(cfg.Id), cfg)
		}
	}
}

// viewsBorn returns the views of a state with their created_ticks.
func viewsBorn(st *internalv1.ClusterState) map[ids.StreamID]ids.Tick {
	views := map[ids.StreamID]ids.Tick{}
	for _, v := range st.Views {
		views[ids.StreamID(v.Id)] = ids.Tick(v.CreatedTick)
	}
	return views
}

// stop refuses everything from now on.
func (in *intake) stop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.stopped = true
}

// lane returns what is stored of a lane. Called with the part's mu held.
func (in *intake) lane(k laneKey, part *inPart) (*inLane, error) {
	if l := part.lanes[k]; l != nil {
		return l, nil
	}
	m, err := readMark(in.rt.store, k)
	if err != nil {
		return nil, err
	}
	l := &inLane{mark: m}
	part.lanes[k] = l
	return l, nil
}

// enter finds the partition and checks that a sender is its primary. Called with mu held for reading.
func (in *intake) enter(from ids.NodeID, k laneKey, epoch ids.Epoch) (*inPart, error) {
	part := in.parts[k.p]
	switch {
	case in.stopped:
		return nil, fault.New(fault.Unavailable, "the node is stopping")
	case part == nil:
		return nil, fault.New(fault.NotFound, "partition %d has no other replica here", k.p)
	case part.epoch != epoch || part.primary != from:
		return nil, fault.New(fault.Stale, "partition %d is in epoch %d here, not %d", k.p, part.epoch, epoch)
	case in.views[k.view] == 0:
		return nil, fault.New(fault.NotFound, "view %d doesn't exist here", k.view)
	}
	return part, nil
}

// open returns what is stored of a lane.
func (in *intake) open(from ids.NodeID, k laneKey, epoch ids.Epoch) (mark, error) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	part, err := in.enter(from, k, epoch)
	if err != nil {
		return mark{}, err
	}
	part.mu.Lock()
	defer part.mu.Unlock()
	l, err := in.lane(k, part)
	if err != nil {
		return mark{}, err
	}
	return l.mark, nil
}

// apply commits a piece that was put together.
func (in *intake) apply(from ids.NodeID, k laneKey, epoch ids.Epoch, p *internalv1.ShipPiece) (mark, error) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	part, err := in.enter(from, k, epoch)
	if err != nil {
		return mark{}, err
	}
	part.mu.Lock()
	defer part.mu.Unlock()
	l, err := in.lane(k, part)
	if err != nil {
		return mark{}, err
	}
	if born := in.views[k.view]; born != ids.Tick(p.Born) {
		return mark{}, fault.New(fault.Stale, "view %d begins at tick %d here, not %d", k.view, born, p.Born)
	}
	after, err := l.mark.after(k, p)
	if err != nil {
		return mark{}, err
	}
	b := in.rt.store.NewBatch()
	defer b.Close()
	if p.Restart {
		lo, hi := laneRange(k)
		b.DeleteRange(lo, hi)
	}
	var upto []byte // of a lane that is being copied, a batch concerns what is there
	if l.mark.copying && len(p.Cursor) == 0 {
		upto = l.mark.cursor
	}
	lo, hi := laneRange(k)
	if err := b.AddChanges(p.Changes, nil, upto, [2][]byte{lo, hi}); err != nil {
		return mark{}, err
	}
	if err := writeMark(b, k, after); err != nil {
		return mark{}, err
	}
	if err := in.rt.store.Commit(b, false); err != nil {
		delete(part.lanes, k) // who knows; it is read again
		return mark{}, err
	}
	if p.Restart {
		l.covered, l.durable = 0, 0
	}
	l.mark = after
	in.rt.ship.counts.received.Add(int64(len(p.Changes)))
	return after, nil
}

// after is the mark once a piece is applied; an error if the piece doesn't fit on what is there.
func (m mark) after(k laneKey, p *internalv1.ShipPiece) (mark, error) {
	from, to, floor := ids.Tick(p.From), ids.Tick(p.To), ids.Tick(p.Floor)
	chunk := len(p.Cursor) > 0
	switch {
	case to == 0 || from > to:
		return mark{}, fault.New(fault.Invalid, "a batch from tick %d to %d", from, to)
	case p.Restart && chunk:
	case m.born != ids.Tick(p.Born) || m.tick == 0 || m.tick < from || m.tick > to || chunk && !m.copying:
		return mark{}, fault.New(fault.Conflict, "view %d, partition %d: a batch from tick %d to %d doesn't fit on the state at %d",
			k.view, k.p, from, to, m.tick)
	case m.floor > floor:
		return mark{}, fault.New(fault.Conflict, "view %d, partition %d: the past is retained from tick %d on here, there from %d",
			k.view, k.p, m.floor, floor)
	case chunk && bytes.Compare(p.Cursor, m.cursor) <= 0:
		return mark{}, fault.New(fault.Conflict, "view %d, partition %d: a copy goes back", k.view, k.p)
	}
	out := mark{born: ids.Tick(p.Born), tick: to, floor: floor, copying: m.copying, cursor: m.cursor}
	if chunk {
		out.copying, out.cursor = !p.Copied, p.Cursor
	}
	if !out.copying {
		out.cursor = nil
	}
	return out, nil
}

// notice takes what a primary says about its partitions.
func (in *intake) notice(from ids.NodeID, n *internalv1.ShipNotice) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	for _, c := range n.Closed {
		p := ids.PartitionID(c.Partition)
		part := in.parts[p]
		if part == nil || part.primary != from {
			continue
		}
		part.mu.Lock()
		if n := len(part.closed); c.Tick > 0 && (n == 0 || part.closed[n-1].tick < ids.Tick(c.Tick)) {
			if n >= keptCloses {
				part.closed = append(part.closed[:0], part.closed[1:]...)
			}
			part.closed = append(part.closed, shippedClose{ids.Tick(c.Tick), c.End})
		}
		for _, v := range n.Covered {
			l := part.lanes[laneKey{ids.StreamID(v.View), p, uint8(v.Stage)}]
			if l != nil && l.mark.tick > 0 && !l.mark.copying && !slices.Contains(v.Behind, c.Partition) {
				l.covered = max(l.covered, ids.Tick(v.Tick))
			}
		}
		part.mu.Unlock()
	}
}

// marks returns how far the lanes are, and flushed notes later that this is on the disk.
func (in *intake) marks() map[laneKey]ids.Tick {
	in.mu.RLock()
	defer in.mu.RUnlock()
	out := map[laneKey]ids.Tick{}
	for _, part := range in.parts {
		part.mu.Lock()
		for k, l := range part.lanes {
			if l.mark.tick > 0 && !l.mark.copying {
				out[k] = l.mark.tick
			}
		}
		part.mu.Unlock()
	}
	return out
}

func (in *intake) flushed(marks map[laneKey]ids.Tick) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	for k, tick := range marks {
		part := in.parts[k.p]
		if part == nil {
			continue
		}
		part.mu.Lock()
		if l := part.lanes[k]; l != nil && !l.mark.copying && l.mark.tick >= tick {
			l.durable = max(l.durable, tick)
		}
		part.mu.Unlock()
	}
	for s := range in.streams {
		s.signal()
	}
}

// durable returns a lane's durable tick.
func (in *intake) durable(k laneKey) ids.Tick {
	in.mu.RLock()
	defer in.mu.RUnlock()
	part := in.parts[k.p]
	if part == nil {
		return 0
	}
	part.mu.Lock()
	defer part.mu.Unlock()
	if l := part.lanes[k]; l != nil {
		return l.durable
	}
	return 0
}

// shippingServer implements the service.
type shippingServer struct {
	internalv1.UnimplementedShippingServer
	rt *Runtime
}

func registerShipping(s grpc.ServiceRegistrar, rt *Runtime) {
	internalv1.RegisterShippingServer(s, shippingServer{rt: rt})
}

// inStream is one primary's stream.
type inStream struct {
	in     *intake
	from   ids.NodeID
	stream internalv1.Shipping_ShipServer
	wake   chan struct{} // buffered: something has become durable

	mu    sync.Mutex // of Send, and of told
	told  map[uint64]ids.Tick
	lanes map[uint64]openLane // used by the receiver; written with mu held
	parts []byte              // of the piece that is being put together
	of    uint64              // its lane
}

type openLane struct {
	key   laneKey
	epoch ids.Epoch
}

func (s *inStream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Ship implements internalv1.ShippingServer.
func (x shippingServer) Ship(stream internalv1.Shipping_ShipServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	h, in := first.Hello, &x.rt.ship.in
	switch {
	case h == nil || h.Version != shipVersion:
		return fault.New(fault.Unsupported, "shipping: version %d, this node speaks %d", h.GetVersion(), shipVersion)
	case x.rt.clusterID() == "":
		return fault.New(fault.Unavailable, "shipping: this node doesn't know the cluster's state yet")
	case h.ClusterId != x.rt.clusterID() || h.To != string(x.rt.cfg.NodeID):
		return fault.New(fault.Conflict, "shipping: meant for node %s of cluster %q, this is %s of %q", h.To, h.ClusterId, x.rt.cfg.NodeID, x.rt.clusterID())
	}
	s := &inStream{
		in: in, from: ids.NodeID(h.From), stream: stream, wake: make(chan struct{}, 1),
		told: map[uint64]ids.Tick{}, lanes: map[uint64]openLane{},
	}
	in.mu.Lock()
	in.streams[s] = struct{}{}
	in.mu.Unlock()
	defer func() {
		in.mu.Lock()
		delete(in.streams, s)
		in.mu.Unlock()
	}()
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	go func() { cancel(s.receive()) }() // ends with the stream, soon after this method
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-x.rt.ctx.Done():
			return fault.New(fault.Unavailable, "shipping: this node is stopping")
		case <-s.wake:
			if err := s.tellDurable(); err != nil {
				return err
			}
		}
	}
}

// receive takes requests until the stream ends.
func (s *inStream) receive() error {
	for {
		req, err := s.stream.Recv()
		if err != nil {
			return err
		}
		resp := &internalv1.ShipResponse{}
		for _, o := range req.Open {
			s.open(o, resp)
		}
		if req.Piece != nil {
			if err := s.piece(req.Piece, resp); err != nil {
				return err
			}
		}
		if req.Notice != nil {
			s.in.notice(s.from, req.Notice)
		}
		if len(resp.Bases)+len(resp.Done)+len(resp.Refused) == 0 {
			continue
		}
		s.mu.Lock()
		err = s.stream.Send(resp)
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func (s *inStream) open(o *internalv1.ShipOpen, resp *internalv1.ShipResponse) {
	l := openLane{laneKey{ids.StreamID(o.View), ids.PartitionID(o.Partition), uint8(o.Stage)}, ids.Epoch(o.Epoch)}
	m, err := s.in.open(s.from, l.key, l.epoch)
	if err != nil {
		resp.Refused = append(resp.Refused, &internalv1.ShipRefused{Lane: o.Lane, Reason: err.Error()})
		return
	}
	s.mu.Lock()
	for id, old := range s.lanes {
		if old.key == l.key {
			delete(s.lanes, id) // opened anew
			delete(s.told, id)
		}
	}
	s.lanes[o.Lane] = l
	s.mu.Unlock()
	s.signal() // what is durable already
	resp.Bases = append(resp.Bases, &internalv1.ShipBase{Lane: o.Lane, Mark: m.proto()})
}

// piece takes (a part of) a batch. The pieces of one come one after the other.
func (s *inStream) piece(p *internalv1.ShipPiece, resp *internalv1.ShipResponse) error {
	if p.Lane != s.of {
		s.parts, s.of = nil, p.Lane
	}
	if len(s.parts)+len(p.Changes) > maxMessage {
		return fault.New(fault.TooLarge, "shipping: a batch of more than %d bytes", maxMessage)
	}
	size := len(s.parts) + len(p.Changes)
	if p.More {
		s.parts = append(s.parts, p.Changes...)
		return nil
	}
	if len(s.parts) > 0 {
		p.Changes = append(s.parts, p.Changes...)
	}
	s.parts = nil
	done := &internalv1.ShipDone{Lane: p.Lane, Bytes: uint64(size)}
	resp.Done = append(resp.Done, done)
	l, ok := s.lanes[p.Lane]
	if !ok {
		return nil // refused before; the sender will hear of it
	}
	m, err := s.in.apply(s.from, l.key, l.epoch, p)
	if err != nil {
		s.mu.Lock()
		delete(s.lanes, p.Lane)
		s.mu.Unlock()
		resp.Refused = append(resp.Refused, &internalv1.ShipRefused{Lane: p.Lane, Reason: err.Error()})
		return nil
	}
	if !m.copying {
		done.Tick = uint64(m.tick)
	}
	return nil
}

// tellDurable tells what has become durable since it was told last.
func (s *inStream) tellDurable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &internalv1.ShipResponse{}
	for id, l := range s.lanes {
		if tick := s.in.durable(l.key); tick > s.told[id] {
			s.told[id] = tick
			resp.Done = append(resp.Done, &internalv1.ShipDone{Lane: id, Durable: uint64(tick)})
		}
	}
	if len(resp.Done) == 0 {
		return nil
	}
	return s.stream.Send(resp)
}
