package coordinator

import (
	"sync"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
)

// maxStrangers bounds the connections to addresses of nodes that aren't members (yet), such as a joiner makes.
const maxStrangers = 64

// connections keeps one connection to each peer, as long as the peer's address stays.
type connections struct {
	dial func(addr string) (*grpc.ClientConn, error)

	mu     sync.Mutex
	closed bool
	open   map[string]connection // by member id, or by address for strangers
}

type connection struct {
	addr string
	conn *grpc.ClientConn
}

func newConnections(dial func(string) (*grpc.ClientConn, error)) *connections {
	return &connections{dial: dial, open: map[string]connection{}}
}

func (c *connections) to(key, addr string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fault.New(fault.Unavailable, "the node is stopping")
	}
	old, ok := c.open[key]
	if ok && old.addr == addr {
		return old.conn, nil
	}
	if !ok && len(c.open) >= maxRecorded+maxStrangers {
		return nil, fault.New(fault.Exhausted, "connections to %d peers are open", len(c.open))
	}
	conn, err := c.dial(addr)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "connecting to %s", addr)
	}
	if ok {
		_ = old.conn.Close() // at an address that the peer has left
	}
	c.open[key] = connection{addr, conn}
	return conn, nil
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, o := range c.open {
		_ = o.conn.Close()
	}
	clear(c.open)
}

// Conn returns the connection to a member, kept by the coordinator; the caller doesn't close it. Unavailable: the
// member's address isn't known.
func (c *Coordinator) Conn(id ids.NodeID) (grpc.ClientConnInterface, error) { return c.conn(id) }

func (c *Coordinator) conn(id ids.NodeID) (*grpc.ClientConn, error) {
	addr, ok := c.Address(id)
	if !ok {
		return nil, fault.New(fault.Unavailable, "the address of member %s isn't known", id)
	}
	return c.conns.to(string(id), addr)
}
