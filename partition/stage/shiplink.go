package stage

import (
	"context"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// shipVersion is the version of the protocol between the two sides.
const shipVersion = 1

// shipLink sends lanes to another node. When its stream breaks it is made again, after a pause, and each lane goes on
// from what the other node says that it has.
type shipLink struct {
	s    *shipper
	node ids.NodeID
	stop context.CancelFunc
	wake chan struct{} // buffered

	mu      sync.Mutex
	wanted  map[laneKey]wantedLane
	renewed bool                       // wanted is new
	news    map[laneKey]struct{}       // of wanted
	inbox   []*internalv1.ShipResponse // bounded by what was sent and not yet answered
	replica map[laneKey]*shipped
}

type wantedLane struct {
	lane  *lane
	epoch ids.Epoch
}

// shipped is what is known of a replica's copy of a lane.
type shipped struct {
	follows  bool      // it has all that was sent, and only what is flushed next is missing
	tick     ids.Tick  // it has the state at this tick
	asked    bool      // base is known
	base     ids.Tick  // what it has up to here isn't by this primary, whose positions may be others
	durable  ids.Tick  // above base: the state at this tick survives a crash of it; 0: none
	advanced time.Time // when durable last rose
	hopeless bool      // it hasn't for long
	copied   int64     // bytes sent of the copy under way, or of the last one
}

func newShipLink(s *shipper, node ids.NodeID) *shipLink {
	ctx, stop := context.WithCancel(s.rt.ctx)
	l := &shipLink{s: s, node: node, stop: stop, wake: make(chan struct{}, 1), replica: map[laneKey]*shipped{}}
	s.rt.tasks.Go(func() { l.run(ctx) })
	return l
}

func (l *shipLink) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// want says which lanes the node is to get.
func (l *shipLink) want(lanes map[laneKey]wantedLane) {
	l.mu.Lock()
	l.wanted, l.renewed = lanes, true
	for k := range l.replica {
		if _, ok := lanes[k]; !ok {
			delete(l.replica, k)
		}
	}
	for k := range lanes {
		if l.replica[k] == nil {
			l.replica[k] = &shipped{advanced: time.Now()}
		}
	}
	l.mu.Unlock()
	l.signal()
}

// hot says that a lane has something new.
func (l *shipLink) hot(k laneKey) {
	l.mu.Lock()
	if _, ok := l.wanted[k]; ok {
		if l.news == nil {
			l.news = map[laneKey]struct{}{}
		}
		l.news[k] = struct{}{}
	}
	l.mu.Unlock()
	l.signal()
}

// note changes what is known of a replica's copy.
func (l *shipLink) note(k laneKey, fn func(*shipped)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.replica[k]; r != nil {
		fn(r)
	}
}

func (l *shipLink) run(ctx context.Context) {
	pause := l.s.rt.cfg.RetryMin
	for ctx.Err() == nil {
		began := time.Now()
		err := l.session(ctx)
		l.mu.Lock()
		l.inbox, l.news = nil, nil
		for _, r := range l.replica {
			r.follows = false
		}
		l.mu.Unlock()
		if time.Since(began) > l.s.rt.cfg.RetryMax {
			pause = l.s.rt.cfg.RetryMin
		}
		l.s.rt.log.Debug("shipping to a node broke; trying again", "node", l.node, "error", err, "pause", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, l.s.rt.cfg.RetryMax)
	}
}

// session opens a stream and sends on it until it breaks.
func (l *shipLink) session(ctx context.Context) error {
	conn, err := l.s.rt.peers.Conn(l.node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := internalv1.NewShippingClient(conn).Ship(ctx)
	if err != nil {
		return fault.FromGRPC(err)
	}
	hello := &internalv1.ShipHello{
		Version: shipVersion, From: string(l.s.rt.cfg.NodeID), To: string(l.node), ClusterId: l.s.rt.clusterID(),
	}
	if err := stream.Send(&internalv1.ShipRequest{Hello: hello}); err != nil {
		return fault.FromGRPC(err)
	}
	received := make(chan error, 1)
	go func() {
		err := l.receive(stream)
		cancel()
		received <- err
	}()
	out := &shipSession{
		link: l, s: l.s, stream: stream, outs: map[laneKey]*outLane{}, byID: map[uint64]*outLane{}, noticed: time.Now(),
	}
	l.mu.Lock()
	l.renewed = true
	l.mu.Unlock()
	err = out.run(ctx)
	cancel()
	if e := <-received; e != nil {
		err = e
	}
	return fault.FromGRPC(err)
}

func (l *shipLink) receive(stream internalv1.Shipping_ShipClient) error {
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.inbox = append(l.inbox, resp)
		l.mu.Unlock()
		l.signal()
	}
}
