package coordinator

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// memMeta is a metaStore in memory that can fail.
type memMeta struct {
	facts map[string][]byte
	err   error
}

func (m *memMeta) get(name string) ([]byte, bool, error) {
	v, ok := m.facts[name]
	return v, ok, m.err
}

func (m *memMeta) set(facts map[string][]byte) error {
	if m.err != nil {
		return m.err
	}
	for k, v := range facts {
		m.facts[k] = v
	}
	return nil
}

func writeSnapshot(t *testing.T, s *snapshotStore, index uint64, state string) {
	t.Helper()
	conf := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: "a", Address: "a"}}}
	sink, err := s.Create(raft.SnapshotVersionMax, index, 3, conf, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(sink, state); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sink.Close(), sink.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotStore(t *testing.T) {
	s := &snapshotStore{meta: &memMeta{facts: map[string][]byte{}}}
	if l, err := s.List(); err != nil || len(l) != 0 {
		t.Fatalf("empty: %v, %v", l, err)
	}
	writeSnapshot(t, s, 10, "ten")
	writeSnapshot(t, s, 12, "twelve")
	writeSnapshot(t, s, 11, "late")
	l, err := s.List()
	if err != nil || len(l) != 1 || l[0].Index != 12 || l[0].Term != 3 || len(l[0].Configuration.Servers) != 1 || l[0].Size != 6 {
		t.Fatalf("listed: %+v, %v", l, err)
	}
	_, r, err := s.Open(l[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "twelve" {
		t.Errorf("read %q, %v", b, err)
	}
	if _, _, err := s.Open("3-10"); !errors.Is(err, fault.Of(fault.NotFound)) {
		t.Errorf("one that was replaced: %v", err)
	}
	sink, err := s.Create(raft.SnapshotVersionMax, 20, 3, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sink.Cancel(), sink.Close()); err != nil {
		t.Fatal(err)
	}
	if l, _ := s.List(); l[0].Index != 12 {
		t.Errorf("a cancelled snapshot was kept: %+v", l[0])
	}
	s.meta.(*memMeta).facts[snapshotKey] = []byte("\xff")
	if _, err := s.List(); !errors.Is(err, fault.Of(fault.Corrupted)) {
		t.Errorf("damaged: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	m := &memMeta{facts: map[string][]byte{}}
	a, err := loadIdentity(m)
	if err != nil || len(a.node) != 32 || a.cluster != "" {
		t.Fatalf("%+v, %v", a, err)
	}
	if err := a.settle(m, "c1"); err != nil {
		t.Fatal(err)
	}
	b, err := loadIdentity(m)
	if err != nil || b != a {
		t.Errorf("read back %+v, %v; was %+v", b, err, a)
	}
	if err := b.settle(m, "c2"); !errors.Is(err, fault.Of(fault.Conflict)) {
		t.Errorf("another cluster: %v", err)
	}
	m.err = errors.New("disk")
	if _, err := loadIdentity(m); err == nil {
		t.Error("a failing store gives an identity")
	}
}

// TestLateNodeGetsASnapshot has a node miss so much that the leader's log no longer has it, and join anew likewise.
func TestLateNodeGetsASnapshot(t *testing.T) {
	nodes := startThree(t, func(c *Config) {
		c.Raft.SnapshotThreshold, c.Raft.TrailingLogs, c.Raft.SnapshotInterval = 8, 4, time.Second
	})
	leader, others := leaderOf(t, nodes)
	late := others[0]
	late.kill()
	ctx := context.Background()
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"} {
		if _, err := leader.Propose(ctx, createStream(name)); err != nil {
			t.Fatal(err)
		}
	}
	missing := late.raftIndex
	eventually(t, "the log is cut", func() bool {
		_ = leader.raft.Snapshot().Error() // nothing new is an error too
		first, err := leader.stores.logs.FirstIndex()
		return err == nil && first > missing+1
	})
	late.start()
	late.waitReady()
	if n := len(late.State().Streams); n != 12 {
		t.Errorf("the late node has %d streams", n)
	}
	fresh := newTestNode(t, "n4", nil).start(leader)
	fresh.waitReady()
	if n := len(fresh.State().Streams); n != 12 {
		t.Errorf("the new node has %d streams", n)
	}
	// And a start from the snapshot on one's own disk.
	if err := fresh.stop(); err != nil {
		t.Fatal(err)
	}
	fresh.start()
	fresh.waitReady()
}

func TestFSMStops(t *testing.T) {
	var fatal error
	f := newFSM(func(err error) { fatal = err })
	boot := &internalv1.Command{Op: &internalv1.Command_Bootstrap{Bootstrap: &internalv1.Bootstrap{
		ClusterId: "c", PartitionCount: 1, Replicas: 1, Member: &internalv1.Member{Id: "a", Name: "a", Grpc: "a:1"},
	}}}
	if a := f.Apply(&raft.Log{Index: 2, Data: mustEncode(t, boot)}).(applied); a.err != nil {
		t.Fatal(a.err)
	}
	good := f.state.Load()
	if a := f.Apply(&raft.Log{Index: 3, Data: []byte{1, 2, 3}}).(applied); a.err == nil || fatal == nil {
		t.Fatal("an undecodable entry is passed over")
	}
	if a := f.Apply(&raft.Log{Index: 4, Data: mustEncode(t, createStream("s"))}).(applied); a.err == nil || f.state.Load() != good {
		t.Error("entries after it are applied")
	}
	f.StoreConfiguration(5, raft.Configuration{})
	if f.state.Load() != good {
		t.Error("a configuration after it is applied")
	}
	if _, err := f.Snapshot(); err == nil {
		t.Error("a snapshot is taken that hides it")
	}
}

// pipeStream is a StreamLayer whose connections a test makes.
type pipeStream struct {
	raft.StreamLayer
	conns chan net.Conn
}

func (p *pipeStream) Accept() (net.Conn, error) { return <-p.conns, nil }
func (p *pipeStream) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	a, b := net.Pipe()
	p.conns <- a
	return b, nil
}

func TestConnectionsNameTheirTarget(t *testing.T) {
	p := &pipeStream{conns: make(chan net.Conn, 1)}
	from := &addressedStream{StreamLayer: p, self: "me"}
	if _, err := from.Dial("somebody", time.Second); err == nil {
		t.Error("dials a member without an address")
	}
	for _, c := range []struct {
		to   string
		want string
		err  error
	}{{"you", "hi", nil}, {"other", "", io.EOF}} {
		dialed := make(chan error, 1)
		go func() {
			conn, err := from.Dial(raft.ServerAddress(c.to+"@addr:1"), time.Second)
			if err == nil {
				_, _ = conn.Write([]byte("hi")) // fails when the other side hangs up
				err = conn.Close()
			}
			dialed <- err
		}()
		conn, err := (&addressedStream{StreamLayer: p, self: "you"}).Accept()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 2)
		n, err := conn.Read(b)
		if string(b[:n]) != c.want || !errors.Is(err, c.err) {
			t.Errorf("to %s: read %q, %v", c.to, b[:n], err)
		}
		_ = conn.Close()
		if err := <-dialed; err != nil {
			t.Error(err)
		}
	}
}
