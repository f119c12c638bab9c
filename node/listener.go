package node

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// raftGreeting is the first byte of a Raft connection. HTTP/2, and so gRPC, begins with 'P'.
const raftGreeting = 0x4D

// greetingTimeout bounds how long a new connection may stay silent.
const greetingTimeout = 10 * time.Second

// acceptBacklog is how many accepted connections may wait for their server.
const acceptBacklog = 128

// sharedListener splits one TCP port between gRPC and Raft by a connection's first byte.
type sharedListener struct {
	tcp   net.Listener
	grpc  *side
	raft  *side
	greet sync.WaitGroup
	limit chan struct{} // one token a connection
}

// newSharedListener takes over tcp. At most maxConns connections are open at once; the next ones are closed at once,
// so that clients fail over instead of hanging.
func newSharedListener(tcp net.Listener, maxConns int) *sharedListener {
	l := &sharedListener{tcp: tcp, limit: make(chan struct{}, maxConns)}
	l.grpc = &side{l: l, conns: make(chan net.Conn, acceptBacklog), done: make(chan struct{})}
	l.raft = &side{l: l, conns: make(chan net.Conn, acceptBacklog), done: make(chan struct{})}
	return l
}

// run accepts until the listener is closed.
func (l *sharedListener) run() error {
	defer l.greet.Wait()
	for {
		c, err := l.tcp.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) {
				time.Sleep(10 * time.Millisecond) // out of file descriptors: others may close
				continue
			}
			return err
		}
		select {
		case l.limit <- struct{}{}:
		default:
			c.Close()
			continue
		}
		l.greet.Add(1)
		go func() {
			defer l.greet.Done()
			l.sort(&countedConn{Conn: c, free: sync.OnceFunc(func() { <-l.limit })})
		}()
	}
}

// sort reads the first byte of c and hands c to its server.
func (l *sharedListener) sort(c net.Conn) {
	var first [1]byte
	if err := c.SetReadDeadline(time.Now().Add(greetingTimeout)); err != nil {
		c.Close()
		return
	}
	if _, err := io.ReadFull(c, first[:]); err != nil {
		c.Close()
		return
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		c.Close()
		return
	}
	to := l.grpc
	if first[0] == raftGreeting {
		to = l.raft
	} else {
		c = &peekedConn{Conn: c, first: first[:]}
	}
	select {
	case to.conns <- c:
	case <-to.done:
		c.Close()
	}
}

func (l *sharedListener) Close() error { return l.tcp.Close() }

// countedConn gives its token back when closed.
type countedConn struct {
	net.Conn
	free func()
}

func (c *countedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}

// peekedConn returns the byte that was read already first.
type peekedConn struct {
	net.Conn
	first []byte
}

func (c *peekedConn) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// side is one protocol's share of the port: a net.Listener, and for Raft a raft.StreamLayer.
type side struct {
	l     *sharedListener
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

var _ raft.StreamLayer = (*side)(nil)

func (s *side) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

func (s *side) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

func (s *side) Addr() net.Addr { return s.l.tcp.Addr() }

func (s *side) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", string(address))
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{raftGreeting}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
