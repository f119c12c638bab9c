package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftbench "github.com/hashicorp/raft/bench"
	"pgregory.net/rapid"

	"github.com/millrace/millrace/internal/fault"
)

func entries(indexes ...uint64) []*raft.Log {
	out := make([]*raft.Log, len(indexes))
	for i, x := range indexes {
		out[i] = &raft.Log{Index: x, Term: 3, Data: fmt.Appendf(nil, "log%d", x)}
	}
	return out
}

// TestRaftStore goes through what the documentation of raft.LogStore and raft.StableStore says, and through the tests
// that hashicorp has for its own stores (raft-boltdb, bolt_store_test.go).
func TestRaftStore(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, openers[0], fs)
	r := RaftLog(s)
	ends := func(first, last uint64) {
		t.Helper()
		for range 2 { // as remembered, and as found by a store that was opened anew
			f, err1 := r.FirstIndex()
			l, err2 := r.LastIndex()
			if f != first || l != last || err1 != nil || err2 != nil {
				t.Fatalf("the log goes from %d to %d (%v, %v), want %d to %d", f, l, err1, err2, first, last)
			}
			mustClose(t, s)
			s = mustOpen(t, openers[0], fs)
			r = RaftLog(s)
		}
	}
	defer func() { mustClose(t, s) }()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	missing := func(indexes ...uint64) {
		t.Helper()
		for _, i := range indexes {
			if err := r.GetLog(i, new(raft.Log)); err != raft.ErrLogNotFound {
				t.Fatalf("GetLog(%d) of a missing entry: %v", i, err)
			}
		}
	}

	ends(0, 0)
	missing(0, 1)
	check(r.StoreLogs(nil))
	ends(0, 0)
	check(r.StoreLogs(entries(1, 2, 3)))
	ends(1, 3)
	check(r.StoreLog(entries(4)[0]))
	ends(1, 4)

	full := raft.Log{Index: 5, Term: math.MaxUint64, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("ext"),
		AppendedAt: time.Unix(1700000000, 123456789)}
	check(r.StoreLog(&full))
	var got raft.Log
	check(r.GetLog(5, &got))
	if !got.AppendedAt.Equal(full.AppendedAt) {
		t.Errorf("appended at %v, want %v", got.AppendedAt, full.AppendedAt)
	}
	got.AppendedAt = full.AppendedAt
	if !reflect.DeepEqual(got, full) {
		t.Errorf("got %+v, want %+v", got, full)
	}
	check(r.GetLog(2, &got)) // over an entry that has more fields
	if string(got.Data) != "log2" || got.Extensions != nil || got.Index != 2 || !got.AppendedAt.IsZero() {
		t.Errorf("got %+v", got)
	}
	check(r.StoreLog(&raft.Log{Index: 3, Term: 9, Data: []byte("other")})) // as a follower that was overruled
	check(r.GetLog(3, &got))
	if string(got.Data) != "other" || got.Term != 9 {
		t.Errorf("got %+v", got)
	}
	ends(1, 5)

	check(r.DeleteRange(1, 2)) // both ends inclusive
	missing(1, 2)
	check(r.GetLog(3, &got))
	ends(3, 5)
	check(r.DeleteRange(5, 5))
	ends(3, 4)
	check(r.DeleteRange(9, 8))
	ends(3, 4)
	check(r.StoreLogs(entries(100, 101))) // a gap, as after a snapshot from the leader
	ends(3, 101)
	check(r.DeleteRange(0, 50))
	ends(100, 101)
	check(r.DeleteRange(0, math.MaxUint64))
	ends(0, 0)
	missing(100, 101)
	check(r.StoreLogs(entries(7)))
	ends(7, 7)
	check(r.StoreLogs(entries(6, 5)))
	ends(5, 7)
	big := &raft.Log{Index: 8, Data: bytes.Repeat([]byte("x"), 1<<20)}
	check(r.StoreLog(big))
	check(r.GetLog(8, &got))
	if !bytes.Equal(got.Data, big.Data) {
		t.Error("a large entry came back changed")
	}

	// Stable store.
	if _, err := r.Get([]byte("bad")); err == nil || err.Error() != "not found" {
		t.Errorf("Get of a missing key: %v; Raft compares with the text %q", err, "not found")
	}
	if n, err := r.GetUint64([]byte("bad")); n != 0 || err != nil {
		t.Errorf("GetUint64 of a missing key: %d, %v", n, err)
	}
	check(r.Set([]byte("hello"), []byte("world")))
	check(r.Set([]byte("empty"), nil))
	check(r.SetUint64([]byte("abc"), math.MaxUint64-1))
	ends(5, 8)
	if v, err := r.Get([]byte("hello")); string(v) != "world" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
	if v, err := r.Get([]byte("empty")); v == nil || len(v) != 0 || err != nil {
		t.Errorf("got %v, %v", v, err)
	}
	if n, err := r.GetUint64([]byte("abc")); n != math.MaxUint64-1 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	_, err := r.GetUint64([]byte("hello"))
	wantFault(t, err, fault.Corrupted, "CORRUPTED")
}

// TestRaftModel compares with hashicorp's store in memory over random contiguous use.
func TestRaftModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, err := OpenLog("data", small(vfs.NewMem()))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		r, m := RaftLog(s), raft.NewInmemStore()
		next := uint64(1)
		t.Repeat(map[string]func(*rapid.T){
			"store": func(t *rapid.T) {
				var logs []*raft.Log
				for range rapid.IntRange(1, 5).Draw(t, "n") {
					logs = append(logs, entries(next)...)
					next++
				}
				if err := errors.Join(r.StoreLogs(logs), m.StoreLogs(logs)); err != nil {
					t.Fatal(err)
				}
			},
			"cut the start": func(t *rapid.T) {
				first, _ := m.FirstIndex()
				if last, _ := m.LastIndex(); last > 0 {
					hi := rapid.Uint64Range(first, last).Draw(t, "hi")
					if err := errors.Join(r.DeleteRange(first, hi), m.DeleteRange(first, hi)); err != nil {
						t.Fatal(err)
					}
				}
			},
			"cut the end": func(t *rapid.T) {
				first, _ := m.FirstIndex()
				if last, _ := m.LastIndex(); last > 0 {
					lo := rapid.Uint64Range(first, last).Draw(t, "lo")
					if err := errors.Join(r.DeleteRange(lo, last), m.DeleteRange(lo, last)); err != nil {
						t.Fatal(err)
					}
					next = lo
				}
			},
			"": func(t *rapid.T) {
				f1, _ := r.FirstIndex()
				f2, _ := m.FirstIndex()
				l1, _ := r.LastIndex()
				l2, _ := m.LastIndex()
				if f1 != f2 || l1 != l2 {
					t.Fatalf("the log goes from %d to %d, want %d to %d", f1, l1, f2, l2)
				}
				i := rapid.Uint64Range(0, next+1).Draw(t, "index")
				var a, b raft.Log
				if e1, e2 := r.GetLog(i, &a), m.GetLog(i, &b); e1 != e2 || !bytes.Equal(a.Data, b.Data) {
					t.Fatalf("entry %d: %q, %v, want %q, %v", i, a.Data, e1, b.Data, e2)
				}
			},
		})
	})
}

// TestRaftRuns has hashicorp/raft itself work on the store: elect, apply, restart, apply.
func TestRaftRuns(t *testing.T) {
	fs := vfs.NewMem()
	for round := range 2 {
		s := mustOpen(t, openers[0], fs)
		store := RaftLog(s)
		conf := raft.DefaultConfig()
		conf.LocalID, conf.Logger = "one", hclog.New(&hclog.LoggerOptions{Output: io.Discard})
		conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
		addr, trans := raft.NewInmemTransport("one")
		snaps := raft.NewInmemSnapshotStore()
		has, err := raft.HasExistingState(store, store, snaps)
		if err != nil || has != (round > 0) {
			t.Fatalf("round %d: HasExistingState = %v, %v", round, has, err)
		}
		if !has {
			if err := raft.BootstrapCluster(conf, store, store, snaps, trans,
				raft.Configuration{Servers: []raft.Server{{ID: "one", Address: addr}}}); err != nil {
				t.Fatal(err)
			}
		}
		fsm := &raft.MockFSM{}
		r, err := raft.NewRaft(conf, fsm, store, store, snaps, trans)
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return r.State() == raft.Leader })
		for i := range 20 {
			if err := r.Apply(fmt.Appendf(nil, "%d-%d", round, i), 0).Error(); err != nil {
				t.Fatal(err)
			}
		}
		if logs := fsm.Logs(); len(logs) != 20*(round+1) || string(logs[0]) != "0-0" {
			t.Errorf("round %d: %d commands applied, the first is %q", round, len(logs), logs[0])
		}
		if err := r.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
	}
}

// TestRaftFailure makes sure that an entry whose write failed isn't reported as the end of the log.
func TestRaftFailure(t *testing.T) {
	s := mustOpen(t, openers[0], vfs.NewMem())
	r := RaftLog(s)
	if err := r.StoreLogs(entries(1, 2)); err != nil {
		t.Fatal(err)
	}
	s.disk.freeze(errors.New("broken"))
	wantFault(t, r.StoreLogs(entries(3)), fault.Unavailable, ReasonIOError)
	wantFault(t, r.Set([]byte("k"), nil), fault.Unavailable, ReasonIOError)
	if last, err := r.LastIndex(); last != 2 || err != nil {
		t.Errorf("the last entry is %d, %v", last, err)
	}
	wantFault(t, s.Close(), fault.Unavailable, ReasonIOError)
	_, err := r.LastIndex()
	if err == nil {
		_, err = r.Get([]byte("k"))
	}
	wantFault(t, err, fault.Unavailable, ReasonClosed)
}

func FuzzDecodeRaftLog(f *testing.F) {
	for _, l := range []*raft.Log{{}, {Index: 1, Term: 2, Type: raft.LogBarrier, Data: []byte("d"), Extensions: []byte("e"), AppendedAt: time.Unix(1, 2)}} {
		b := make([]byte, raftLogLen(l))
		encodeRaftLog(b, l)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var l, again raft.Log
		if err := decodeRaftLog(in, 7, &l); err != nil {
			if k := fault.KindOf(err); k != fault.Corrupted && k != fault.Unsupported {
				t.Fatal(err)
			}
			return
		}
		b := make([]byte, raftLogLen(&l))
		encodeRaftLog(b, &l)
		if err := decodeRaftLog(b, 7, &again); err != nil || !reflect.DeepEqual(l, again) {
			t.Fatalf("%+v decoded anew is %+v, %v", l, again, err)
		}
	})
}

// BenchmarkRaft runs hashicorp's own benchmarks on a real disk.
func BenchmarkRaft(b *testing.B) {
	for _, c := range []struct {
		name string
		run  func(*testing.B, *RaftStore)
	}{
		{"FirstIndex", func(b *testing.B, r *RaftStore) { raftbench.FirstIndex(b, r) }},
		{"LastIndex", func(b *testing.B, r *RaftStore) { raftbench.LastIndex(b, r) }},
		{"GetLog", func(b *testing.B, r *RaftStore) { raftbench.GetLog(b, r) }},
		{"StoreLog", func(b *testing.B, r *RaftStore) { raftbench.StoreLog(b, r) }},
		{"StoreLogs", func(b *testing.B, r *RaftStore) { raftbench.StoreLogs(b, r) }},
		{"DeleteRange", func(b *testing.B, r *RaftStore) { raftbench.DeleteRange(b, r) }},
		{"Set", func(b *testing.B, r *RaftStore) { raftbench.Set(b, r) }},
		{"Get", func(b *testing.B, r *RaftStore) { raftbench.Get(b, r) }},
		{"SetUint64", func(b *testing.B, r *RaftStore) { raftbench.SetUint64(b, r) }},
		{"GetUint64", func(b *testing.B, r *RaftStore) { raftbench.GetUint64(b, r) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, err := OpenLog(filepath.Join(b.TempDir(), "log"), small(vfs.Default))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			c.run(b, RaftLog(s))
		})
	}
}
