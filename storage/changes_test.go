package storage

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/internal/fault"
)

func openTestState(t testing.TB) *Store {
	t.Helper()
	o := DefaultOptions()
	o.FS, o.ReserveBytes, o.MemTableBytes = vfs.NewMem(), 0, 1<<20
	s, err := OpenState("state", o)
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

func stateOf(t *testing.T, s *Store) map[string]string {
	t.Helper()
	it, err := s.Iter([]byte{prefixState}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for ok := it.First(); ok; ok = it.Next() {
		out[string(it.Key())] = string(it.Value())
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestChanges(t *testing.T) {
	from, to := openTestState(t), openTestState(t)
	key := func(suffix string) []byte { return StateKey(7, 3, 'r', []byte(suffix)) }
	lo, hi := StatePartitionRange(7, 3)
	bounds := [2][]byte{lo, hi}
	ship := func(upto []byte, fill func(b *Batch)) {
		t.Helper()
		b := from.NewBatch()
		defer b.Close()
		fill(b)
		changes := b.Changes()
		if err := from.Commit(b, false); err != nil {
			t.Fatal(err)
		}
		there := to.NewBatch()
		defer there.Close()
		if err := there.AddChanges(changes, nil, upto, bounds); err != nil {
			t.Fatal(err)
		}
		if err := to.Commit(there, false); err != nil {
			t.Fatal(err)
		}
	}
	ship(nil, func(b *Batch) {
		for _, s := range []string{"a", "b", "c", "d", "e"} {
			b.Set(key(s), []byte("1"+s))
		}
	})
	ship(nil, func(b *Batch) {
		b.Delete(key("b"))
		b.DeleteRange(key("d"), key("z"))
		b.Set(key("e"), []byte("again"))
	})
	if a, b := stateOf(t, from), stateOf(t, to); !maps.Equal(a, b) || len(a) != 3 {
		t.Fatalf("%v became %v", a, b)
	}
	ship(key("c"), func(b *Batch) { // only below c
		b.Set(key("a"), []byte("2"))
		b.Set(key("c"), []byte("2"))
		b.Delete(key("e"))
	})
	if got := stateOf(t, to); got[string(key("a"))] != "2" || got[string(key("c"))] != "1c" || got[string(key("e"))] != "again" {
		t.Fatalf("a bounded part gave %v", got)
	}
	ship(key("b"), func(b *Batch) { b.DeleteRange(lo, hi) })
	if got := stateOf(t, to); len(got) != 2 {
		t.Fatalf("a bounded deletion left %v", got)
	}
}

func TestDamagedChanges(t *testing.T) {
	s := openTestState(t)
	lo, hi := StatePartitionRange(7, 3)
	_, beyond := StatePartitionRange(7, 4)
	add := func(changes []byte) error {
		b := s.NewBatch()
		defer b.Close()
		return b.AddChanges(changes, nil, nil, [2][]byte{lo, hi})
	}
	of := func(fill func(b *Batch)) []byte {
		b := s.NewBatch()
		defer b.Close()
		fill(b)
		return b.Changes()
	}
	good := of(func(b *Batch) { b.Set(StateKey(7, 3, 'r', []byte("k")), []byte("v")) })
	if err := add(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x10
		if add(bad) == nil {
			t.Errorf("byte %d flipped, and nobody noticed", i)
		}
		if add(good[:i]) == nil {
			t.Errorf("cut at %d, and nobody noticed", i)
		}
	}
	for name, changes := range map[string][]byte{
		"another partition": of(func(b *Batch) { b.Set(StateKey(7, 4, 'r', nil), nil) }),
		"another view":      of(func(b *Batch) { b.Delete(StateKey(6, 3, 'r', nil)) }),
		"a range beyond":    of(func(b *Batch) { b.DeleteRange(lo, beyond) }),
	} {
		if err := add(changes); !errors.Is(err, fault.Of(fault.Corrupted)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzChanges: whatever comes, with a right checksum, is refused or applied, and never outside its range.
func FuzzChanges(f *testing.F) {
	s := openTestState(f)
	lo, hi := StatePartitionRange(7, 3)
	b := s.NewBatch()
	b.Set(StateKey(7, 3, 'r', []byte("k")), []byte("v"))
	b.Delete(StateKey(7, 3, 'r', []byte("l")))
	b.DeleteRange(StateKey(7, 3, 'r', []byte("m")), hi)
	f.Add(b.Changes()[1:])
	b.Close()
	f.Fuzz(func(t *testing.T, ops []byte) {
		changes := append([]byte{changesVersion}, ops...)
		changes = binary.LittleEndian.AppendUint32(changes, crc32.Checksum(changes, castagnoli))
		b := s.NewBatch()
		defer b.Close()
		if err := b.AddChanges(changes, nil, nil, [2][]byte{lo, hi}); err != nil {
			return
		}
		if err := s.Commit(b, false); err != nil {
			t.Fatal(err)
		}
		for k := range stateOf(t, s) {
			if !within([]byte(k), lo, hi) {
				t.Fatalf("a key %x outside", k)
			}
		}
	})
}
