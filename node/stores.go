package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/storage"
)

func (n *Node) stateDir() string { return filepath.Join(n.cfg.DataDir, "state") }

// openStores opens both stores. A damaged log store is refused: what to do about it is the operator's choice. A damaged
// state store is made anew, as all of it can be computed again from the logs.
func (n *Node) openStores() error {
	options := storage.DefaultOptions()
	options.Logger = n.log
	options.CacheBytes, options.MemTableBytes = n.budget.BlockCache/2, int(n.budget.Tables/tablesInMemory)
	options.HighWaterBytes, options.ReserveBytes = uint64(n.cfg.DiskReserve), uint64(n.cfg.DiskReserve/2)
	var err error
	if n.logStore, err = storage.OpenLog(filepath.Join(n.cfg.DataDir, "log"), options); err != nil {
		if fault.KindOf(err) == fault.Corrupted {
			return n.damagedLog(err)
		}
		return err
	}
	n.stateStore, err = storage.OpenState(n.stateDir(), options)
	if fault.KindOf(err) == fault.Corrupted {
		n.log.Warn("the state of this node's views is damaged; it is made anew and computed again from the logs", "error", err)
		if err := os.RemoveAll(n.stateDir()); err != nil {
			return fault.Wrap(fault.Unavailable, err, "removing the damaged state of views")
		}
		n.stateStore, err = storage.OpenState(n.stateDir(), options)
	}
	return err
}

// damagedLog says what can be done about a log store that can't be used.
func (n *Node) damagedLog(err error) error {
	return fault.Wrap(fault.Corrupted, err, "this node's log is damaged and isn't used. If the cluster has other replicas, move %s "+
		"away and start the node again with its --name and --join: it then copies everything anew. Else restore the folder", n.cfg.DataDir)
}

// coordinate runs the coordinator.
func (n *Node) coordinate(ctx context.Context) error {
	err := n.coord.Run(ctx)
	if err != nil && fault.KindOf(err) == fault.Corrupted {
		return n.damagedLog(err)
	}
	return err
}

// watchStores ends the node when a store can't be written any more and going on would be worse. Without its log the node
// can lead nothing, and its views stand still: others take over when it ends. Alone it stays, for the sake of reads. Only if
// the views' state is damaged it ends all the same, since it is made anew at the next start.
func (n *Node) watchStores(ctx context.Context) error {
	logFailed, stateFailed := n.logStore.Failed(), n.stateStore.Failed()
	for {
		select {
		case <-logFailed:
			if err := n.logStore.Healthy(); n.others() {
				return fault.Wrap(fault.KindOf(err), err, "this node's log can't be written; the node ends, for others to take over")
			}
			logFailed = nil
		case <-stateFailed:
			if err := n.stateStore.Healthy(); fault.KindOf(err) == fault.Corrupted || n.others() {
				return fault.Wrap(fault.KindOf(err), err, "the state of this node's views can't be kept; start the node again")
			}
			stateFailed = nil
		case <-ctx.Done():
			return nil
		}
	}
}

// others tells whether the cluster has other members.
func (n *Node) others() bool {
	c := n.catalog()
	if c == nil {
		return false
	}
	live := 0
	for _, m := range c.state.Members {
		if m.State != internalv1.MemberState_MEMBER_STATE_REMOVED {
			live++
		}
	}
	return live > 1
}

// closeStores closes what is open, and removes a damaged state store.
func (n *Node) closeStores() error {
	var errs []error
	if n.stateStore != nil {
		sick := n.stateStore.Healthy()
		damaged := sick != nil && fault.KindOf(sick) == fault.Corrupted
		err := n.stateStore.Close()
		if damaged {
			err = os.RemoveAll(n.stateDir())
		}
		errs = append(errs, err)
	}
	if n.logStore != nil {
		errs = append(errs, n.logStore.Close())
	}
	return errors.Join(errs...)
}
