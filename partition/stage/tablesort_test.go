package stage

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// TestSortByKey sorts few and many keys that share beginnings, are beginnings of others, or differ far behind.
func TestSortByKey(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	for _, n := range []int{0, 1, 2, 100, radixLeast - 1, radixLeast, 20_000} {
		for _, prefix := range []string{"", "a long beginning that all have "} {
			tab := newTable()
			var indices []int32
			for len(indices) < n {
				key := binary.BigEndian.AppendUint64([]byte(prefix), rng.Uint64()>>rng.IntN(64))
				key = key[:len(key)-rng.IntN(9)]
				if rng.IntN(3) == 0 {
					key = binary.BigEndian.AppendUint32(append(key, "the same eight bytes"...), rng.Uint32())
				}
				if tab.find(key) < 0 {
					i := tab.add(key)
					if tab.find(key) != i {
						t.Fatalf("key %x isn't found where it was added", key)
					}
					indices = append(indices, i)
				}
			}
			seen := map[int32]bool{}
			tab.sortByKey(indices)
			for k, i := range indices {
				if seen[i] = true; k > 0 && bytes.Compare(tab.key(indices[k-1]), tab.key(i)) >= 0 {
					t.Fatalf("%d keys: %x comes before %x", n, tab.key(indices[k-1]), tab.key(i))
				}
			}
			if len(seen) != n {
				t.Fatalf("%d keys have become %d", n, len(seen))
			}
		}
	}
}

// BenchmarkSortByKey sorts 100,000 keys of 12 bytes.
func BenchmarkSortByKey(b *testing.B) {
	rng := rand.New(rand.NewPCG(7, 11))
	tab := newTable()
	var indices []int32
	for range 100_000 {
		key := binary.BigEndian.AppendUint64([]byte("\x02\x01\x01"), uint64(rng.IntN(1<<32)))
		if tab.find(key) < 0 {
			indices = append(indices, tab.add(key))
		}
	}
	again := make([]int32, len(indices))
	for b.Loop() {
		copy(again, indices)
		tab.sortByKey(again)
	}
}
