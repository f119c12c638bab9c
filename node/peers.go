package node

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

const (
	// serverWindowBytes is the flow-control window of a stream to this node: what is kept of a client that isn't listened
	// to, besides the message in work.
	serverWindowBytes = 2 << 20
	// queryWindowBytes is that of the streams that other nodes answer statements, reads and subscriptions with.
	queryWindowBytes = 256 << 10
	peerWindowBytes  = 16 << 20 // flow-control window of a stream and of a connection between peers
	peerBufferBytes  = 256 << 10
	reconnectAtMost  = 500 * time.Millisecond
	reconnectAtFirst = 20 * time.Millisecond
	connectTimeout   = time.Second
)

// peers keeps two gRPC connections to each other member, by identity: a member that comes back at another address gets
// new ones. The second is for what clients ask for: its streams have small windows, so that clients that don't read their
// answers cost little, and their bytes don't stand before replication's.
type peers struct {
	maxMessage int

	mu      sync.Mutex
	closed  bool
	address map[ids.NodeID]string
	conns   map[peerUse]*peerConn
}

type peerUse struct {
	node    ids.NodeID
	queries bool
}

type peerConn struct {
	address string
	conn    *grpc.ClientConn
}

func newPeers(maxMessage int) *peers {
	return &peers{maxMessage: maxMessage, address: map[ids.NodeID]string{}, conns: map[peerUse]*peerConn{}}
}

// configure learns the members' addresses and closes connections that no member needs.
func (p *peers) configure(st *internalv1.ClusterState) {
	var stale []*grpc.ClientConn
	p.mu.Lock()
	clear(p.address)
	for _, m := range st.Members {
		if m.State != internalv1.MemberState_MEMBER_STATE_REMOVED {
			p.address[ids.NodeID(m.Id)] = m.Grpc
		}
	}
	for use, c := range p.conns {
		if p.address[use.node] != c.address {
			stale = append(stale, c.conn)
			delete(p.conns, use)
		}
	}
	p.mu.Unlock()
	for _, c := range stale {
		c.Close()
	}
}

// Conn returns the connection to a member; it connects when first used.
func (p *peers) Conn(node ids.NodeID) (grpc.ClientConnInterface, error) {
	return p.conn(peerUse{node: node})
}

// queryConn is Conn for statements, reads and subscriptions.
func (p *peers) queryConn(node ids.NodeID) (grpc.ClientConnInterface, error) {
	return p.conn(peerUse{node: node, queries: true})
}

func (p *peers) conn(use peerUse) (grpc.ClientConnInterface, error) {
	node := use.node
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fault.New(fault.Unavailable, "this node is stopping")
	}
	if c := p.conns[use]; c != nil {
		return c.conn, nil
	}
	address, ok := p.address[node]
	if !ok {
		return nil, fault.New(fault.Unavailable, "node %s is not a member", node) // it was removed, or joined just now: asking again helps
	}
	window := peerWindowBytes
	if use.queries {
		window = queryWindowBytes
	}
	conn, err := dialPeer(address, p.maxMessage, window)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "node %s at %s", node, address)
	}
	p.conns[use] = &peerConn{address: address, conn: conn}
	return conn, nil
}

func dialPeer(address string, maxMessage, window int) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(int32(window)),
		grpc.WithInitialConnWindowSize(peerWindowBytes),
		grpc.WithReadBufferSize(peerBufferBytes),
		grpc.WithWriteBufferSize(peerBufferBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: reconnectAtFirst, Multiplier: 2, Jitter: 0.2, MaxDelay: reconnectAtMost},
			MinConnectTimeout: connectTimeout,
		}))
}

func (p *peers) Close() error {
	p.mu.Lock()
	p.closed = true
	conns := p.conns
	p.conns = map[peerUse]*peerConn{}
	p.mu.Unlock()
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.conn.Close())
	}
	return errors.Join(errs...)
}
