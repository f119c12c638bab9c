package coordinator

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// fsm hands Raft's committed entries to the applier. It decides nothing.
type fsm struct {
	fatal func(error) // called once; stops the node

	state atomic.Pointer[internalv1.ClusterState]

	mu     sync.Mutex
	broken error         // an entry couldn't be decoded: nothing after it may be applied
	moved  chan struct{} // closed and replaced with every new state
}

func newFSM(fatal func(error)) *fsm {
	f := &fsm{fatal: fatal, moved: make(chan struct{})}
	f.state.Store(emptyState())
	return f
}

// applied is what Raft's future of a command holds.
type applied struct {
	result *internalv1.CommandResult
	err    error
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any {
	if err := f.stopped(); err != nil {
		return applied{err: err}
	}
	cmd, err := decodeCommand(l.Data)
	if err != nil {
		return applied{err: f.stop(fault.Wrap(fault.Corrupted, err, "entry %d of the Raft log can't be applied; the node stops", l.Index))}
	}
	st, res, err := apply(f.state.Load(), l.Index, cmd)
	f.publish(st)
	return applied{result: res, err: err}
}

// StoreConfiguration implements raft.ConfigurationStore: Raft's voters as of index.
func (f *fsm) StoreConfiguration(index uint64, c raft.Configuration) {
	if f.stopped() != nil {
		return
	}
	var voters []string
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			voters = append(voters, string(s.ID))
		}
	}
	f.publish(setVoters(f.state.Load(), index, voters))
}

func (f *fsm) stopped() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}

func (f *fsm) stop(err error) error {
	f.mu.Lock()
	f.broken = err
	f.mu.Unlock()
	f.fatal(err)
	return err
}

func (f *fsm) publish(st *internalv1.ClusterState) {
	if f.state.Load() == st {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.Store(st)
	close(f.moved)
	f.moved = make(chan struct{})
}

// watch returns the state and a channel that is closed once there is a newer one.
func (f *fsm) watch() (*internalv1.ClusterState, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.Load(), f.moved
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.stopped(); err != nil {
		return nil, err
	}
	return stateSnapshot{f.state.Load()}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxSnapshot+1))
	if err != nil {
		return fault.Wrap(fault.Internal, err, "reading a snapshot")
	}
	st, err := decodeState(b)
	if err != nil {
		return f.stop(err)
	}
	f.publish(st)
	return nil
}

type stateSnapshot struct{ st *internalv1.ClusterState }

// Persist implements raft.FSMSnapshot; published states don't change, so it may run beside Apply.
func (s stateSnapshot) Persist(sink raft.SnapshotSink) error {
	b, err := encodeState(s.st)
	if err == nil {
		_, err = sink.Write(b)
	}
	if err != nil {
		_ = sink.Cancel() // the first error is the one to tell
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (stateSnapshot) Release() {}
