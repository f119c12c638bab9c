package coordinator

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/storage"
)

// TestDamagedRaftLog: a node whose Raft log is damaged says so and ends, without a panic.
func TestDamagedRaftLog(t *testing.T) {
	n := newTestNode(t, "n1", nil).start()
	n.waitReady()
	for _, name := range []string{"a", "b", "c"} {
		if _, err := n.Propose(context.Background(), createStream(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	o := storage.DefaultOptions()
	o.FS = n.fs
	store, err := storage.OpenLog(n.dir, o)
	if err != nil {
		t.Fatal(err)
	}
	last, err := storage.RaftLog(store).LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	b := store.NewBatch()
	b.Set(storage.RaftLogKey(last-1), []byte{1})
	if err := store.Commit(b, true); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	n.start()
	select {
	case err := <-n.done:
		n.gone = true
		if !errors.Is(err, fault.Of(fault.Corrupted)) {
			t.Fatalf("ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("doesn't end")
	}
}
