package storage

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/internal/ids"
)

func TestKeyRanges(t *testing.T) {
	in := func(key, lo, hi []byte) bool {
		return bytes.Compare(key, lo) >= 0 && (hi == nil || bytes.Compare(key, hi) < 0)
	}
	type span struct{ lo, hi []byte }
	of := func(lo, hi []byte) span { return span{lo, hi} }
	rapid.Check(t, func(t *rapid.T) {
		p := ids.PartitionID(rapid.Uint32().Draw(t, "partition"))
		s := ids.StreamID(rapid.Uint64().Draw(t, "stream"))
		n := rapid.Uint64().Draw(t, "number")
		p2 := ids.PartitionID(rapid.Uint32().Draw(t, "other partition"))
		s2 := ids.StreamID(rapid.Uint64().Draw(t, "other stream"))
		n2 := rapid.Uint64().Draw(t, "other number")
		space, space2 := rapid.Byte().Draw(t, "space"), rapid.Byte().Draw(t, "other space")
		suffix := rapid.SliceOf(rapid.Byte()).Draw(t, "suffix")
		name := string(suffix)

		for _, c := range []struct {
			what    string
			key     []byte
			in, out []span
		}{
			{"log", LogKey(p, s, ids.Offset(n)), []span{of(LogRange(p, s)), of(LogPartitionRange(p)), of(PartitionRange(p)), of(ReplicasRange())},
				[]span{of(ProducerRange(p, s)), of(EpochRange(p)), of(ReplicaRange(p)), of(ProducerPartitionRange(p))}},
			{"producer", ProducerKey(p, s, n), []span{of(ProducerRange(p, s)), of(ProducerPartitionRange(p)), of(PartitionRange(p))},
				[]span{of(LogPartitionRange(p)), of(EpochRange(p)), of(ReplicaRange(p))}},
			{"epoch", EpochKey(p, ids.Epoch(n)), []span{of(EpochRange(p)), of(PartitionRange(p))},
				[]span{of(LogPartitionRange(p)), of(ProducerPartitionRange(p)), of(ReplicaRange(p))}},
			{"replica", ReplicaKey(p, name), []span{of(ReplicaRange(p)), of(PartitionRange(p)), of(ReplicasRange())},
				[]span{of(LogPartitionRange(p)), of(ProducerPartitionRange(p)), of(EpochRange(p))}},
			{"meta", MetaKey(name), nil, []span{of(ReplicasRange()), of(prefixRange([]byte{prefixRaftLog})), of(prefixRange([]byte{prefixRaftStable}))}},
			{"raft log", RaftLogKey(n), []span{of(prefixRange([]byte{prefixRaftLog}))}, []span{of(ReplicasRange()), of(prefixRange([]byte{prefixRaftStable}))}},
			{"raft stable", RaftStableKey(suffix), []span{of(prefixRange([]byte{prefixRaftStable}))}, []span{of(ReplicasRange()), of(prefixRange([]byte{prefixRaftLog}))}},
			{"state", StateKey(s, p, space, suffix), []span{of(StateRange(s, p, space)), of(StatePartitionRange(s, p)), of(StateViewRange(s))}, nil},
		} {
			for _, r := range c.in {
				if !in(c.key, r.lo, r.hi) {
					t.Fatalf("%s key %x isn't in [%x, %x)", c.what, c.key, r.lo, r.hi)
				}
			}
			for _, r := range c.out {
				if in(c.key, r.lo, r.hi) {
					t.Fatalf("%s key %x is in [%x, %x)", c.what, c.key, r.lo, r.hi)
				}
			}
		}
		if p != p2 || s != s2 {
			lo, hi := LogRange(p2, s2)
			if in(LogKey(p, s, ids.Offset(n)), lo, hi) {
				t.Fatal("a batch in another stream's range")
			}
		}
		if p != p2 {
			lo, hi := PartitionRange(p2)
			if in(ReplicaKey(p, name), lo, hi) {
				t.Fatal("a replica's fact in another partition's range")
			}
			lo, hi = StatePartitionRange(s, p2)
			if in(StateKey(s, p, space, suffix), lo, hi) {
				t.Fatal("state in another partition's range")
			}
		}
		if space != space2 {
			lo, hi := StateRange(s, p, space2)
			if in(StateKey(s, p, space, suffix), lo, hi) {
				t.Fatal("state in another space's range")
			}
		}
		if s != s2 {
			lo, hi := StateViewRange(s2)
			if in(StateKey(s, p, space, suffix), lo, hi) {
				t.Fatal("state in another view's range")
			}
		}
		if c := bytes.Compare(LogKey(p, s, ids.Offset(n)), LogKey(p, s, ids.Offset(n2))); c < 0 != (n < n2) {
			t.Fatalf("offsets %d and %d don't sort as their keys", n, n2)
		}
		if c := bytes.Compare(RaftLogKey(n), RaftLogKey(n2)); c < 0 != (n < n2) {
			t.Fatalf("indexes %d and %d don't sort as their keys", n, n2)
		}
	})
}

func TestParseKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := ids.PartitionID(rapid.Uint32().Draw(t, "partition"))
		s := ids.StreamID(rapid.Uint64().Draw(t, "stream"))
		n := rapid.Uint64().Draw(t, "number")
		suffix := rapid.SliceOf(rapid.Byte()).Draw(t, "suffix")
		if p2, s2, n2, ok := ParseLogKey(LogKey(p, s, ids.Offset(n))); !ok || p2 != p || s2 != s || uint64(n2) != n {
			t.Fatal("log key")
		}
		if p2, s2, n2, ok := ParseProducerKey(ProducerKey(p, s, n)); !ok || p2 != p || s2 != s || n2 != n {
			t.Fatal("producer key")
		}
		if p2, n2, ok := ParseEpochKey(EpochKey(p, ids.Epoch(n))); !ok || p2 != p || uint64(n2) != n {
			t.Fatal("epoch key")
		}
		if p2, name, ok := ParseReplicaKey(ReplicaKey(p, string(suffix))); !ok || p2 != p || !bytes.Equal(name, suffix) {
			t.Fatal("replica key")
		}
		if v, p2, space, rest, ok := ParseStateKey(StateKey(s, p, 7, suffix)); !ok || v != s || p2 != p || space != 7 || !bytes.Equal(rest, suffix) {
			t.Fatal("state key")
		}
		junk := rapid.SliceOf(rapid.Byte()).Draw(t, "junk")
		if p, s, n, ok := ParseLogKey(junk); ok && !bytes.Equal(LogKey(p, s, n), junk) {
			t.Fatal("junk taken for a log key")
		}
		if p, s, n, ok := ParseProducerKey(junk); ok && !bytes.Equal(ProducerKey(p, s, n), junk) {
			t.Fatal("junk taken for a producer key")
		}
		if p, n, ok := ParseEpochKey(junk); ok && !bytes.Equal(EpochKey(p, n), junk) {
			t.Fatal("junk taken for an epoch key")
		}
		if p, name, ok := ParseReplicaKey(junk); ok && !bytes.Equal(ReplicaKey(p, string(name)), junk) {
			t.Fatal("junk taken for a replica key")
		}
		if v, p, space, rest, ok := ParseStateKey(junk); ok && !bytes.Equal(StateKey(v, p, space, rest), junk) {
			t.Fatal("junk taken for a state key")
		}
	})
	if len(LogKey(0, 0, 0)) != LogKeyLen || len(ProducerKey(0, 0, 0)) != ProducerKeyLen || len(EpochKey(0, 0)) != EpochKeyLen ||
		len(RaftLogKey(0)) != RaftLogKeyLen || len(StateKey(0, 0, 0, nil)) != StatePrefixLen {
		t.Error("a length constant is wrong")
	}
	if _, hi := prefixRange([]byte{0xff, 0xff}); hi != nil {
		t.Error("a prefix of all ones has no end")
	}
}
