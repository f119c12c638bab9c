package partition

import (
	"encoding/binary"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/storage"
)

func logKey(p ids.PartitionID, s ids.StreamID, base ids.Offset) []byte {
	return storage.LogKey(p, s, base)
}

func epochKey(p ids.PartitionID, e ids.Epoch) []byte { return storage.EpochKey(p, e) }

func stateKey(p ids.PartitionID) []byte { return storage.ReplicaKey(p, keyState) }

func producerStoreKey(p ids.PartitionID, k producerKey) []byte {
	return storage.ProducerKey(p, k.stream, k.id)
}

func producerOf(key []byte) (producerKey, bool) {
	_, s, id, ok := storage.ParseProducerKey(key)
	return producerKey{s, id}, ok
}

// indexKeyLen is the length of an index entry's key, for deferred sets.
const indexKeyLen = 1 + 4 + 1 + 1 + 8

// indexKey is the key of the index entry of lsn.
func indexKey(p ids.PartitionID, lsn LSN) []byte {
	var name [9]byte
	name[0] = keyIndex[0]
	binary.BigEndian.PutUint64(name[1:], uint64(lsn))
	return storage.ReplicaKey(p, string(name[:]))
}

func parseIndexKey(key []byte) (LSN, bool) {
	_, name, ok := storage.ParseReplicaKey(key)
	if !ok || len(name) != 9 || name[0] != keyIndex[0] {
		return 0, false
	}
	return LSN(binary.BigEndian.Uint64(name[1:])), true
}

func streamKey(p ids.PartitionID, s ids.StreamID) []byte {
	var name [9]byte
	name[0] = keyStream[0]
	binary.BigEndian.PutUint64(name[1:], uint64(s))
	return storage.ReplicaKey(p, string(name[:]))
}

// parseStreamKey: the state's key begins with the same letter, but is shorter.
func parseStreamKey(key []byte) (ids.StreamID, bool) {
	_, name, ok := storage.ParseReplicaKey(key)
	if !ok || len(name) != 9 || name[0] != keyStream[0] {
		return 0, false
	}
	return ids.StreamID(binary.BigEndian.Uint64(name[1:])), true
}

func partitionRange(p ids.PartitionID) (lo, hi []byte) { return storage.PartitionRange(p) }

func logRange(p ids.PartitionID, s ids.StreamID) (lo, hi []byte) { return storage.LogRange(p, s) }

func producerRange(p ids.PartitionID, s ids.StreamID) (lo, hi []byte) {
	return storage.ProducerRange(p, s)
}
