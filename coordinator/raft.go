package coordinator

import (
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/internal/fault"
)

// Raft's configuration names servers by member id alone: the id stands for the address too, and is looked up as a
// connection is made. So a node may come back at another address without a change of the configuration, which would need
// the very majority that may be restarting.

const (
	raftTimeout   = 2 * time.Second // of one message; a snapshot gets more by its size
	raftPool      = 3               // idle connections to each peer
	preambleBytes = 64
	preambleMagic = "MRRAFT1 "
)

// raftStores is where Raft keeps its log, its term and vote, and its snapshot.
type raftStores struct {
	logs      raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
}

func raftConfig(c *Config, id string, logger hclog.Logger) *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(id)
	rc.HeartbeatTimeout, rc.ElectionTimeout = c.Raft.Heartbeat, c.Raft.Election
	rc.LeaderLeaseTimeout, rc.CommitTimeout = c.Raft.Lease, c.Raft.Commit
	rc.SnapshotInterval, rc.SnapshotThreshold, rc.TrailingLogs = c.Raft.SnapshotInterval, c.Raft.SnapshotThreshold, c.Raft.TrailingLogs
	rc.MaxAppendEntries = 64
	// Entries aren't buffered before Raft takes them: those in a buffer are never answered once it has stopped.
	rc.BatchApplyCh = false
	// A removed node stays a follower until its coordinator has told why it stops.
	rc.ShutdownOnRemove = false
	rc.NoLegacyTelemetry = true
	rc.Logger = logger
	return rc
}

// standNow makes a follower that has heard nothing for the heartbeat timeout stand for election at once, instead of
// when its timer next looks, up to two timeouts later. Raft has no call for that; it looks when the setting is lowered.
// Who stands asks for pre-votes first, so a healthy leader isn't disturbed.
func standNow(r *raft.Raft, c *Config) error {
	rc := r.ReloadableConfig()
	for _, more := range []time.Duration{1, 0} {
		rc.HeartbeatTimeout, rc.ElectionTimeout = c.Raft.Heartbeat+more, c.Raft.Election+more
		if err := r.ReloadConfig(rc); err != nil {
			return err
		}
	}
	return nil
}

// paceRaft lets the leader's heartbeats come less often while nothing happens, or as usual. Raft takes their pace from the
// timeout after which this node, were it a follower, would stand for election: so that is put back with leadership.
func (l *leadership) paceRaft(idle bool) {
	want := l.c.cfg.Raft.Heartbeat
	if idle {
		want *= time.Duration(l.c.cfg.Raft.Slower)
	}
	rc := l.c.raft.ReloadableConfig()
	if rc.HeartbeatTimeout == want {
		return
	}
	rc.HeartbeatTimeout, rc.ElectionTimeout = want, max(want, l.c.cfg.Raft.Election)
	if err := l.c.raft.ReloadConfig(rc); err != nil {
		l.c.log.Warn("changing the pace of Raft's heartbeats", "error", err)
	}
}

// loneVoter tells whether id is the only voter of the configuration that Raft has on disk.
func loneVoter(r *raft.Raft, id string) (bool, error) {
	f := r.GetConfiguration()
	if err := f.Error(); err != nil {
		return false, err
	}
	voters := 0
	own := false
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
			own = own || string(s.ID) == id
		}
	}
	return own && voters == 1, nil
}

// resolver finds the current address of a member; Raft asks for each message.
type resolver func(id string) (addr string, ok bool)

// ServerAddr implements raft.ServerAddressProvider. The id goes along, for the preamble.
func (r resolver) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	addr, ok := r(string(id))
	if !ok {
		return raft.ServerAddress(id), nil
	}
	return raft.ServerAddress(string(id) + "@" + addr), nil
}

// addressedStream puts a preamble before every connection that names the member it is meant for, so that Raft never
// talks to another node, or to another cluster, that has taken over an address.
type addressedStream struct {
	raft.StreamLayer
	self string

	mu     sync.Mutex
	closed bool
}

// Dial implements raft.StreamLayer.
func (s *addressedStream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, addr, ok := strings.Cut(string(address), "@")
	if !ok {
		return nil, fault.New(fault.Unavailable, "the address of member %s isn't known", id)
	}
	conn, err := s.StreamLayer.Dial(raft.ServerAddress(addr), timeout)
	if err != nil {
		return nil, err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(timeout)); err == nil {
		_, err = conn.Write(preamble(id))
		if err == nil {
			err = conn.SetWriteDeadline(time.Time{})
		}
		if err == nil {
			return conn, nil
		}
	}
	_ = conn.Close()
	return nil, fault.New(fault.Unavailable, "member %s at %s hung up", id, addr)
}

// Accept implements net.Listener.
func (s *addressedStream) Accept() (net.Conn, error) {
	conn, err := s.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	return &addressedConn{Conn: conn, self: s.self}, nil
}

// Close implements net.Listener; Raft closes its transport more than once.
func (s *addressedStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.StreamLayer.Close()
}

func preamble(id string) []byte {
	b := make([]byte, preambleBytes+len(preambleMagic))
	copy(b, preambleMagic)
	copy(b[len(preambleMagic):], id)
	return b
}

// addressedConn checks the preamble as it is first read, in the connection's own goroutine.
type addressedConn struct {
	net.Conn
	self    string
	checked bool
}

// Read implements net.Conn; Raft reads from one goroutine.
func (c *addressedConn) Read(p []byte) (int, error) {
	if !c.checked {
		want := preamble(c.self)
		got := make([]byte, len(want))
		if err := c.SetReadDeadline(time.Now().Add(raftTimeout)); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c.Conn, got); err != nil {
			return 0, io.EOF // a port scan, a knock or a peer that gave up: nothing to tell
		}
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			return 0, err
		}
		if string(got) != string(want) {
			return 0, io.EOF // meant for another member; its sender sees the connection close and looks the address up again
		}
		c.checked = true
	}
	return c.Conn.Read(p)
}

// newTransport makes Raft's transport. Closing it closes the stream layer.
func newTransport(stream raft.StreamLayer, find resolver, logger hclog.Logger) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: find, Logger: logger, Stream: stream, MaxPool: raftPool, Timeout: raftTimeout,
	})
}
