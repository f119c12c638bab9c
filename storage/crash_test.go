package storage

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed of the random tests; 0: by the clock")
	crashRuns = flag.Int("crashes", 40, "crashes per random test")
)

// seeded returns a generator whose seed the test prints when it fails.
func seeded(t testing.TB) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("run again with: go test ./storage -run '^%s$' -seed %d", strings.Split(t.Name(), "/")[0], seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}

func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited 60 s in vain")
		}
	}
}

// watched calls hook before every operation that changes the file system. Unlike errorfs alone it also wraps files that
// are reused.
type watched struct{ *errorfs.FS }

func watch(fs vfs.FS, hook func(errorfs.Op) error) watched {
	return watched{errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return hook(op)
		}
		return nil
	}))}
}

func (w watched) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	// Renaming and opening for writing goes through the hook as a rename, and the file through errorfs again.
	if err := w.FS.Rename(oldname, newname); err != nil {
		return nil, err
	}
	return w.FS.OpenReadWrite(newname, c)
}

// model is what a store should hold after some batches.
type model map[string]string

func (m model) String() string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var out strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&out, "%s=%s ", k, m[k])
	}
	return strings.TrimSpace(out.String())
}

// randomBatch fills b and applies the same to m. Values are of both sides of the limit for blob files.
func randomBatch(rng *rand.Rand, b *Batch, m model, number int) {
	put := func(k, v string) { b.Set([]byte(k), []byte(v)); m[k] = v }
	put("number", fmt.Sprint(number))
	for range 1 + rng.IntN(5) {
		k := fmt.Sprintf("k%03d", rng.IntN(200))
		switch rng.IntN(10) {
		case 0:
			b.Delete([]byte(k))
			delete(m, k)
		case 1:
			hi := fmt.Sprintf("k%03d", rng.IntN(200))
			if hi > k {
				b.DeleteRange([]byte(k), []byte(hi))
				for have := range m {
					if have >= k && have < hi {
						delete(m, have)
					}
				}
			}
		default:
			size := 10 + rng.IntN(200)
			if rng.IntN(4) == 0 {
				size = rng.IntN(6000)
			}
			put(k, strings.Repeat(string(rune('a'+number%26)), size))
		}
	}
}

// history is a run of one writer: what the store should hold after each batch, which batches were begun, and up to which
// they were acknowledged with sync.
type history struct {
	states []string // after so many batches
	begun  atomic.Int64
	synced atomic.Int64
}

func (h *history) run(t testing.TB, rng *rand.Rand, s *Store, batches int, sync func() bool) {
	m := model{}
	h.states = append(h.states[:0], "")
	for i := 1; i <= batches; i++ {
		b := s.NewBatch()
		randomBatch(rng, b, m, i)
		h.states = append(h.states, m.String())
		h.begun.Store(int64(i))
		durable := sync()
		if err := s.Commit(b, durable); err != nil {
			b.Close()
			if s.Healthy() == nil {
				t.Errorf("commit %d: %v", i, err)
			}
			return
		}
		b.Close()
		if durable {
			h.synced.Store(int64(i))
		}
		if rng.IntN(40) == 0 {
			if err := s.Flush(); err == nil {
				h.synced.Store(int64(i))
			} else if s.Healthy() == nil {
				t.Errorf("flush after %d: %v", i, err)
				return
			}
		}
	}
}

// check opens what is left and wants a state between the two numbers of batches.
func (h *history) check(t *testing.T, o opener, fs vfs.FS, least, most int64) {
	t.Helper()
	s, err := o.open("data", small(fs))
	if err != nil {
		t.Fatalf("opening it anew: %v", err)
	}
	got := contents(t, s, nil, nil)
	mustClose(t, s)
	for i := least; i <= most && i < int64(len(h.states)); i++ {
		if got == h.states[i] {
			return
		}
	}
	i := slices.Index(h.states, got)
	t.Fatalf("after the crash the store holds the state after batch %d (-1: of none), want one from %d to %d", i, least, most)
}

// TestCrash crashes a store just before a random change of the file system, with a random part of what wasn't synced
// being lost, and opens it anew.
func TestCrash(t *testing.T) {
	for _, o := range openers {
		t.Run(o.kind, func(t *testing.T) {
			rng := seeded(t)
			ops := 400
			for range *crashRuns {
				mem := vfs.NewCrashableMem()
				at := int64(1 + rng.IntN(ops))
				percent, cloneSeed := rng.IntN(101), rng.Uint64()
				var h history
				var count, least, most atomic.Int64
				var crashed atomic.Pointer[vfs.MemFS]
				fs := watch(mem, func(errorfs.Op) error {
					if count.Add(1) == at {
						least.Store(h.synced.Load())
						crashed.Store(mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(cloneSeed, 2))}))
						most.Store(h.begun.Load())
					}
					return nil
				})
				s, err := o.open("data", small(fs))
				if err != nil {
					t.Fatal(err)
				}
				h.run(t, rng, s, 150, func() bool { return o.kind == kindLog && rng.IntN(2) == 0 })
				mustClose(t, s)
				ops = max(ops, int(count.Load()))
				if crashed.Load() == nil {
					continue
				}
				// A crash while the store was being made leaves an empty one, or none.
				h.check(t, o, crashed.Load(), least.Load(), most.Load())
			}
		})
	}
}

// TestCrashWriters does the same with several writers at once: each finds all that was acknowledged to it, in order.
func TestCrashWriters(t *testing.T) {
	rng := seeded(t)
	const writers = 4
	for range max(*crashRuns/4, 3) {
		mem := vfs.NewCrashableMem()
		at, percent, cloneSeed := int64(50+rng.IntN(300)), rng.IntN(101), rng.Uint64()
		var acked, begun, least, most [writers]atomic.Int64
		var count atomic.Int64
		var crashed atomic.Pointer[vfs.MemFS]
		fs := watch(mem, func(errorfs.Op) error {
			if count.Add(1) == at {
				for w := range writers {
					least[w].Store(acked[w].Load())
				}
				crashed.Store(mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(cloneSeed, 2))}))
				for w := range writers {
					most[w].Store(begun[w].Load())
				}
			}
			return nil
		})
		s := mustOpen(t, openers[0], fs)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := int64(1); i <= 60; i++ {
					b := s.NewBatch()
					b.Set(fmt.Appendf(nil, "w%d-%03d", w, i), make([]byte, 3000))
					begun[w].Store(i)
					if err := s.Commit(b, true); err != nil {
						t.Error(err)
					}
					acked[w].Store(i)
					b.Close()
				}
			})
		}
		wg.Wait()
		mustClose(t, s)
		if crashed.Load() == nil {
			continue
		}
		s = mustOpen(t, openers[0], crashed.Load())
		for w := range writers {
			it, err := s.Iter(fmt.Appendf(nil, "w%d-", w), fmt.Appendf(nil, "w%d.", w))
			if err != nil {
				t.Fatal(err)
			}
			n := int64(0)
			for ok := it.First(); ok; ok = it.Next() {
				if n++; string(it.Key()) != fmt.Sprintf("w%d-%03d", w, n) || len(it.Value()) != 3000 {
					t.Fatalf("writer %d: found %s as number %d", w, it.Key(), n)
				}
			}
			mustClose(t, it)
			if n < least[w].Load() || n > most[w].Load() {
				t.Fatalf("writer %d: %d writes found, %d were acknowledged, %d begun", w, n, least[w].Load(), most[w].Load())
			}
		}
		mustClose(t, s)
	}
}
