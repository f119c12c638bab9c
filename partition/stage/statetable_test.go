package stage

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/storage"
)

var _ dataflow.State = (*stateTable)(nil)

func memStore(t testing.TB) *storage.Store {
	o := storage.DefaultOptions()
	o.FS, o.ReserveBytes, o.Logger = vfs.NewMem(), 0, quiet()
	s, err := storage.OpenState("state", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestStateTable compares it with a map, with flushes, evictions and new tables over the same store in between.
func TestStateTable(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		store := memStore(t)
		s := newStateTable(store, storage.StateKey(1, 2, spaceState, nil))
		s.complete = true
		want := map[string]string{}
		key := func() []byte { return fmt.Appendf(nil, "k%03d", rng.IntN(300)) }
		for range 4000 {
			s.limit = rng.IntN(2) * rng.IntN(20_000)
			switch k := key(); rng.IntN(12) {
			case 0, 1, 2, 3:
				v := bytes.Repeat([]byte{byte(rng.IntN(256))}, rng.IntN(40)*rng.IntN(40))
				if err := s.Set(k, v); err != nil {
					t.Fatal(err)
				}
				want[string(k)] = string(v)
			case 4:
				if err := s.Delete(k); err != nil {
					t.Fatal(err)
				}
				delete(want, string(k))
			case 5:
				if rng.IntN(10) == 0 {
					flushTable(t, store, s)
				}
				switch rng.IntN(40) {
				case 0:
					s.forgetOld()
				case 1:
					flushTable(t, store, s)
					s.forget()
				}
				if rng.IntN(20) == 0 {
					flushTable(t, store, s)
					s = newStateTable(store, storage.StateKey(1, 2, spaceState, nil))
				}
			case 6:
				lo, hi := key(), key()
				if rng.IntN(4) == 0 {
					hi = nil
				}
				checkScan(t, s, want, lo, hi)
			default:
				v, ok, err := s.Get(k)
				if err != nil {
					t.Fatal(err)
				}
				w, there := want[string(k)]
				if ok != there || string(v) != w {
					t.Fatalf("seed %d: %s has %d bytes (%v), want %d (%v), or others", seed, k, len(v), ok, len(w), there)
				}
			}
		}
		checkScan(t, s, want, []byte("k"), nil)
		if err := s.release(); err != nil {
			t.Fatal(err)
		}
	}
}

func flushTable(t *testing.T, store *storage.Store, s *stateTable) {
	t.Helper()
	b := store.NewBatch()
	defer b.Close()
	s.write(b)
	if err := store.Commit(b, false); err != nil {
		t.Fatal(err)
	}
	s.written(s.limit%2 == 0)
	if s.dirtyBytes != 0 || len(s.dirty) != 0 {
		t.Fatalf("%d bytes are still dirty", s.dirtyBytes)
	}
}

func checkScan(t *testing.T, s *stateTable, want map[string]string, lo, hi []byte) {
	t.Helper()
	var keys []string
	for k := range want {
		if k >= string(lo) && (hi == nil || k < string(hi)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	i := 0
	err := s.Scan(lo, hi, func(k, v []byte) (bool, error) {
		if i >= len(keys) || string(k) != keys[i] || string(v) != want[keys[i]] {
			return false, fmt.Errorf("entry %d is %s (%d bytes)", i, k, len(v))
		}
		i++
		return true, nil
	})
	if err == nil && i != len(keys) {
		err = fmt.Errorf("%d entries, want %d", i, len(keys))
	}
	if err != nil {
		t.Fatalf("scan from %s to %s: %v", lo, hi, err)
	}
}

// TestStateTableBytes checks the count of bytes, which is exact as long as everything is in memory.
func TestStateTableBytes(t *testing.T) {
	store := memStore(t)
	s := newStateTable(store, storage.StateKey(1, 2, spaceState, nil))
	s.complete, s.limit = true, 1<<30
	rng := rand.New(rand.NewPCG(1, 1))
	sizes := map[string]int{}
	for i := range 2000 {
		k := fmt.Sprint("key", rng.IntN(100))
		if rng.IntN(4) == 0 {
			_ = s.Delete([]byte(k))
			delete(sizes, k)
		} else {
			n := rng.IntN(100)
			_ = s.Set([]byte(k), make([]byte, n))
			sizes[k] = n
		}
		if i%300 == 0 {
			flushTable(t, store, s)
		}
	}
	want := 0
	for k, n := range sizes {
		want += len(k) + n
	}
	if s.bytes != int64(want) {
		t.Errorf("%d bytes, want %d", s.bytes, want)
	}
}
