package pgwire

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// secretBytes is the length of the key by which a statement can be canceled, which version 3.0 fixes.
const secretBytes = 4

// Server serves the connections of one listener.
type Server struct {
	cfg     Config
	backend Backend
	log     *slog.Logger

	ctx  context.Context // ends with errStopping
	stop context.CancelCauseFunc

	mu     sync.Mutex
	conns  map[uint32]*conn // by the number that a cancel request names
	greet  int              // connections that have not said yet what they want
	next   uint32
	closed bool
	served sync.WaitGroup
}

// New returns a server of sessions that backend begins.
func New(cfg Config, backend Backend, log *slog.Logger) *Server {
	s := &Server{cfg: cfg, backend: backend, log: log, conns: map[uint32]*conn{}}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	return s
}

// Connections returns how many clients are connected.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Serve accepts until the listener is closed.
func (s *Server) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
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
		if !s.enter() {
			c.Close()
			continue
		}
		go func() {
			defer s.served.Done()
			newConn(s, c).serve()
		}()
	}
}

// enter counts a connection that has yet to greet. Twice the limit are let in, so that clients over the limit are told
// so and cancel requests come through; more are closed without a word.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.greet >= s.cfg.MaxConnections {
		return false
	}
	s.greet++
	s.served.Add(1)
	return true
}

// greeted says that a connection is no longer waiting to greet.
func (s *Server) greeted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.greet--
}

// register makes a connection one that can be canceled, if the limit allows it.
func (s *Server) register(c *conn) error {
	if _, err := rand.Read(c.secret[:]); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errStopping
	}
	if len(s.conns) >= s.cfg.MaxConnections {
		return errTooMany
	}
	for {
		s.next++
		if s.next >= 1<<31 {
			s.next = 1
		}
		if _, taken := s.conns[s.next]; !taken {
			break
		}
	}
	c.id = s.next
	s.conns[c.id] = c
	return nil
}

func (s *Server) unregister(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c.id)
}

// cancel ends what a connection does now, if the secret is right.
func (s *Server) cancel(r *pgproto3.CancelRequest) {
	s.mu.Lock()
	c := s.conns[r.ProcessID]
	s.mu.Unlock()
	if c != nil && subtle.ConstantTimeCompare(c.secret[:], r.SecretKey) == 1 {
		c.cancelStatement(errCanceled)
	}
}

// Shutdown ends all connections with 57P01 and waits until they are gone, or ctx ends. Serve ends when its listener is
// closed, which is the caller's business.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	conns := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	s.stop(errStopping)
	for _, c := range conns {
		c.wake()
	}
	gone := make(chan struct{})
	go func() {
		s.served.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
		for _, c := range conns {
			c.net.Close() // of clients that don't read what is sent to them
		}
		<-gone
	}
}
