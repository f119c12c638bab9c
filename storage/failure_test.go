package storage

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/millrace/millrace/internal/fault"
)

// failing runs the history on a file system where the change number `at` fails with err, and all later ones too when
// lasting. It returns what the failed store left behind, also as a crash would leave it.
func failing(t *testing.T, o opener, rng *rand.Rand, at int64, err error, lasting bool) (changes int64) {
	t.Helper()
	mem := vfs.NewCrashableMem()
	var count, failed atomic.Int64
	var healed atomic.Bool
	fs := watch(mem, func(op errorfs.Op) error {
		n := count.Add(1)
		// Preallocation and removal may fail without harm.
		if healed.Load() || op.Kind == errorfs.OpFilePreallocate || op.Kind == errorfs.OpRemove {
			return nil
		}
		if n == at || lasting && n > at {
			failed.Store(n)
			return err
		}
		return nil
	})
	var h history
	s, oerr := o.open("data", small(fs))
	if oerr != nil {
		if at == 0 || failed.Load() == 0 {
			t.Fatalf("open failed though no change did: %v", oerr)
		}
		h.states = []string{""}
	} else {
		h.run(t, rng, s, 120, func() bool { return o.kind == kindLog && rng.IntN(2) == 0 })
		if sick := s.Healthy(); sick != nil {
			if failed.Load() == 0 {
				t.Fatalf("the store failed though no change did: %v", sick)
			}
			stillReads(t, s, &h, err)
		}
		cerr := s.Close()
		if sick := s.Healthy(); (cerr == nil) != (sick == nil) {
			t.Fatalf("Close returned %v, the store's error is %v", cerr, sick)
		}
	}
	healed.Store(true)
	for _, percent := range []int{0, 50} {
		after := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(rng.Uint64(), 3))})
		h.check(t, o, after, h.synced.Load(), h.begun.Load())
	}
	h.check(t, o, mem, h.synced.Load(), h.begun.Load())
	return count.Load()
}

// stillReads checks a store that refuses writes: with the right error, and reads find all that was acknowledged.
func stillReads(t *testing.T, s *Store, h *history, cause error) {
	t.Helper()
	kind, reason := fault.Unavailable, ReasonIOError
	if cause == syscall.ENOSPC {
		kind, reason = fault.Exhausted, ReasonDiskFull
	}
	wantFault(t, s.Healthy(), kind, reason)
	select {
	case <-s.Failed():
	default:
		t.Error("Failed isn't closed")
	}
	b := s.NewBatch()
	defer b.Close()
	b.Set([]byte("more"), nil)
	wantFault(t, s.Commit(b, true), kind, reason)
	wantFault(t, s.Flush(), kind, reason)
	got := contents(t, s, nil, nil)
	for i := h.begun.Load(); i >= h.begun.Load()-1 && i >= 0; i-- {
		if got == h.states[i] {
			return
		}
	}
	t.Errorf("the failed store reads neither as after batch %d nor as before", h.begun.Load())
}

// TestFailAtEveryWrite fails each change of the file system in turn (a sample of them, but for -crashes of a thousand
// and more), once and from then on.
func TestFailAtEveryWrite(t *testing.T) {
	for _, o := range openers {
		for _, err := range []error{syscall.ENOSPC, syscall.EIO} {
			for _, lasting := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%v/lasting=%v", o.kind, err, lasting), func(t *testing.T) {
					rng := seeded(t)
					all := failing(t, o, rng, 0, err, false)
					step := max(1, all/int64(*crashRuns))
					for at := 1 + rng.Int64N(step); at <= all; at += step {
						failing(t, o, rng, at, err, lasting)
						if t.Failed() {
							t.Fatalf("with change %d failing", at)
						}
					}
				})
			}
		}
	}
}

// TestFullWhileStalled fills the disk while many writers wait for flushes: all of them get the error.
func TestFullWhileStalled(t *testing.T) {
	for _, o := range openers {
		t.Run(o.kind, func(t *testing.T) {
			mem := vfs.NewMem()
			var full atomic.Bool
			fs := watch(mem, func(op errorfs.Op) error {
				if full.Load() && op.Kind != errorfs.OpRemove {
					return syscall.ENOSPC
				}
				return nil
			})
			s := mustOpen(t, o, fs)
			var wg sync.WaitGroup
			var acked, refused atomic.Int64
			for w := range 8 {
				wg.Go(func() {
					for i := 0; ; i++ {
						b := s.NewBatch()
						b.Set(fmt.Appendf(nil, "w%d-%06d", w, i), []byte(strings.Repeat("x", 30_000)))
						err := s.Commit(b, o.kind == kindLog)
						b.Close()
						if err != nil {
							if fault.KindOf(err) != fault.Exhausted {
								t.Error(err)
							}
							refused.Add(1)
							return
						}
						if acked.Add(1) == 100 {
							full.Store(true)
						}
					}
				})
			}
			wg.Wait()
			if refused.Load() != 8 {
				t.Errorf("%d of 8 writers got the error", refused.Load())
			}
			n := 0
			it, err := s.Iter(nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			for ok := it.First(); ok; ok = it.Next() {
				if len(it.Value()) != 30_000 {
					t.Fatalf("%s has %d bytes: %v", it.Key(), len(it.Value()), it.Error())
				}
				n++
			}
			mustClose(t, it)
			if int64(n) < acked.Load() {
				t.Errorf("%d keys read, %d were acknowledged", n, acked.Load())
			}
			wantFault(t, s.Close(), fault.Exhausted, ReasonDiskFull)
			full.Store(false)
			if o.kind == kindState {
				return // nothing was promised
			}
			s = mustOpen(t, o, mem)
			defer mustClose(t, s)
			if got := int64(strings.Count(contents(t, s, nil, nil), "=")); got < acked.Load() {
				t.Errorf("%d keys after opening it anew, %d were acknowledged", got, acked.Load())
			}
		})
	}
}

// TestCorruption damages a table: the read says so, and the store takes no more writes.
func TestCorruption(t *testing.T) {
	for _, o := range openers {
		t.Run(o.kind, func(t *testing.T) {
			mem := vfs.NewMem()
			s := mustOpen(t, o, mem)
			for i := range 50 {
				set(t, s, false, fmt.Sprintf("k%03d", i), strings.Repeat("v", 2000))
			}
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			mustClose(t, s)
			names, err := mem.List("data")
			if err != nil {
				t.Fatal(err)
			}
			damaged := 0
			for _, n := range names {
				if strings.HasSuffix(n, ".sst") || strings.HasSuffix(n, ".blob") {
					data, err := mem.UnsafeGetFileDataBuffer("data/" + n)
					if err != nil {
						t.Fatal(err)
					}
					for i := 0; i < len(data)*3/4; i += 100 {
						data[i] ^= 0x55
					}
					damaged++
				}
			}
			if damaged == 0 {
				t.Fatal("no table to damage")
			}
			s, err = o.open("data", small(mem))
			if err == nil {
				var it *Iter
				if it, err = s.Iter(nil, nil); err == nil {
					for ok := it.First(); ok && it.Value() != nil; ok = it.Next() {
					}
					err = it.Close()
				}
				wantFault(t, s.Healthy(), fault.Corrupted, ReasonCorrupted)
				b := s.NewBatch()
				b.Set([]byte("a"), nil)
				wantFault(t, s.Commit(b, false), fault.Corrupted, ReasonCorrupted)
				b.Close()
				wantFault(t, s.Close(), fault.Corrupted, ReasonCorrupted)
			}
			wantFault(t, err, fault.Corrupted, ReasonCorrupted)
		})
	}
}
