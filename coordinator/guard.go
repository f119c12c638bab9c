package coordinator

import (
	"errors"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/internal/fault"
)

// guarded stands between Raft and its stores. hashicorp/raft panics, in a goroutine of its own, when its log can't be read
// or its term can't be written; a damaged or failing disk would end the process with a stack trace. So the error goes to
// fail, which stops the node and tells why, and the call that failed doesn't return: its goroutine does nothing more until
// the process ends. Raft must not be waited for then.
type guarded struct {
	raft.LogStore
	raft.StableStore
	fail func(error)
}

func (g guarded) stop(err error) {
	g.fail(err)
	select {}
}

// currentTermKey is what hashicorp/raft calls it (raft.go: keyCurrentTerm).
const currentTermKey = "CurrentTerm"

// GetLog implements raft.LogStore.
func (g guarded) GetLog(index uint64, log *raft.Log) error {
	err := g.LogStore.GetLog(index, log)
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		g.stop(err)
	}
	return err
}

// SetUint64 implements raft.StableStore.
func (g guarded) SetUint64(key []byte, v uint64) error {
	err := g.StableStore.SetUint64(key, v)
	if err != nil && string(key) == currentTermKey { // of the vote Raft takes the error
		g.stop(err)
	}
	return err
}

// startRaft starts Raft on its guarded stores.
func (c *Coordinator) startRaft(logger hclog.Logger) error {
	type started struct {
		raft *raft.Raft
		err  error
	}
	stores := guarded{c.stores.logs, c.stores.stable, func(err error) {
		c.damaged.Store(true)
		c.fail(fault.Wrap(fault.KindOf(err), err, "Raft's part of the log store"))
	}}
	done := make(chan started, 1)
	go func() { // it reads the log, and may not come back
		r, err := raft.NewRaft(raftConfig(&c.cfg, string(c.id.node), logger), c.fsm, stores, stores, c.stores.snapshots, c.trans)
		done <- started{r, err}
	}()
	select {
	case s := <-done:
		if c.raft = s.raft; s.err != nil {
			return fault.Wrap(fault.KindOf(s.err), s.err, "starting Raft")
		}
		return nil
	case err := <-c.fatal:
		return err
	}
}
