package storage

import (
	"encoding/binary"

	"github.com/millrace/millrace/internal/ids"
)

// Every key begins with one byte that says what it is, then fixed-width big-endian integers, so that keys sort as the
// numbers do; a name or suffix of free length comes last. Both stores are laid out here and nowhere else.
//
//	log store
//	  00 name                                        meta: facts about the node itself
//	  01 index:8                                     Raft's log
//	  02 name                                        Raft's stable store
//	  03 partition:4 01 stream:8 base offset:8       a batch of a stream's log
//	  03 partition:4 02 stream:8 producer:8          what a producer appended last
//	  03 partition:4 03 epoch:8                      the start of an epoch
//	  03 partition:4 04 name                         facts about the replica
//	state store
//	  00 name                                        meta
//	  01 view:8 partition:4 space:1 suffix           state of a view's last stage
//	  01 view:8 partition:4 00 stage:1 space:1 suffix  state of its earlier stages
const (
	prefixMeta       = 0x00
	prefixRaftLog    = 0x01
	prefixRaftStable = 0x02
	prefixPartition  = 0x03
	prefixState      = 0x01 // in the state store

	earlierStages = 0x00 // a space of a view's state; no stage uses it for itself

	partitionLog      = 0x01
	partitionProducer = 0x02
	partitionEpoch    = 0x03
	partitionReplica  = 0x04
)

// Lengths of the keys of fixed length, in bytes, for Batch.SetDeferred.
const (
	LogKeyLen      = 1 + 4 + 1 + 8 + 8
	ProducerKeyLen = 1 + 4 + 1 + 8 + 8
	EpochKeyLen    = 1 + 4 + 1 + 8
	RaftLogKeyLen  = 1 + 8
	StatePrefixLen = 1 + 8 + 4 + 1 // of a state key, before its suffix
)

// MetaKey is the key of a fact about the node itself, such as its identity. Both stores have it.
func MetaKey(name string) []byte { return append([]byte{prefixMeta}, name...) }

// RaftLogKey is the key of the entry of Raft's log at index.
func RaftLogKey(index uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefixRaftLog}, index)
}

// RaftStableKey is the key of a value of Raft's stable store.
func RaftStableKey(name []byte) []byte { return append([]byte{prefixRaftStable}, name...) }

func appendPartition(dst []byte, p ids.PartitionID, kind byte) []byte {
	dst = append(dst, prefixPartition)
	dst = binary.BigEndian.AppendUint32(dst, uint32(p))
	return append(dst, kind)
}

// AppendLogKey appends the key of the batch whose first record has offset base: LogKeyLen bytes.
func AppendLogKey(dst []byte, p ids.PartitionID, s ids.StreamID, base ids.Offset) []byte {
	dst = appendPartition(dst, p, partitionLog)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s))
	return binary.BigEndian.AppendUint64(dst, uint64(base))
}

// LogKey is the key of the batch whose first record has offset base.
func LogKey(p ids.PartitionID, s ids.StreamID, base ids.Offset) []byte {
	return AppendLogKey(make([]byte, 0, LogKeyLen), p, s, base)
}

// ParseLogKey is the inverse of LogKey; ok is false for any other key.
func ParseLogKey(key []byte) (p ids.PartitionID, s ids.StreamID, base ids.Offset, ok bool) {
	if len(key) != LogKeyLen || key[0] != prefixPartition || key[5] != partitionLog {
		return 0, 0, 0, false
	}
	return ids.PartitionID(binary.BigEndian.Uint32(key[1:])), ids.StreamID(binary.BigEndian.Uint64(key[6:])),
		ids.Offset(binary.BigEndian.Uint64(key[14:])), true
}

// LogRange holds all batches of one stream in one partition, lo inclusive, hi exclusive.
func LogRange(p ids.PartitionID, s ids.StreamID) (lo, hi []byte) {
	lo = appendPartition(make([]byte, 0, LogKeyLen), p, partitionLog)
	return prefixRange(binary.BigEndian.AppendUint64(lo, uint64(s)))
}

// LogPartitionRange holds the batches of all streams in one partition.
func LogPartitionRange(p ids.PartitionID) (lo, hi []byte) {
	return prefixRange(appendPartition(nil, p, partitionLog))
}

// PartitionRange holds everything that the log store has about one partition: logs, producers, epochs, replica facts.
func PartitionRange(p ids.PartitionID) (lo, hi []byte) {
	return prefixRange(binary.BigEndian.AppendUint32([]byte{prefixPartition}, uint32(p)))
}

// AppendProducerKey appends the key of what a producer appended last to a stream in a partition: ProducerKeyLen bytes.
func AppendProducerKey(dst []byte, p ids.PartitionID, s ids.StreamID, producerID uint64) []byte {
	dst = appendPartition(dst, p, partitionProducer)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s))
	return binary.BigEndian.AppendUint64(dst, producerID)
}

// ProducerKey is the key of what a producer appended last to a stream in a partition.
func ProducerKey(p ids.PartitionID, s ids.StreamID, producerID uint64) []byte {
	return AppendProducerKey(make([]byte, 0, ProducerKeyLen), p, s, producerID)
}

// ParseProducerKey is the inverse of ProducerKey; ok is false for any other key.
func ParseProducerKey(key []byte) (p ids.PartitionID, s ids.StreamID, producerID uint64, ok bool) {
	if len(key) != ProducerKeyLen || key[0] != prefixPartition || key[5] != partitionProducer {
		return 0, 0, 0, false
	}
	return ids.PartitionID(binary.BigEndian.Uint32(key[1:])), ids.StreamID(binary.BigEndian.Uint64(key[6:])),
		binary.BigEndian.Uint64(key[14:]), true
}

// ProducerRange holds all producers of one stream in one partition.
func ProducerRange(p ids.PartitionID, s ids.StreamID) (lo, hi []byte) {
	return prefixRange(binary.BigEndian.AppendUint64(appendPartition(nil, p, partitionProducer), uint64(s)))
}

// ProducerPartitionRange holds all producers of all streams in one partition.
func ProducerPartitionRange(p ids.PartitionID) (lo, hi []byte) {
	return prefixRange(appendPartition(nil, p, partitionProducer))
}

// EpochKey is the key of the start of an epoch in a partition.
func EpochKey(p ids.PartitionID, e ids.Epoch) []byte {
	return binary.BigEndian.AppendUint64(appendPartition(make([]byte, 0, EpochKeyLen), p, partitionEpoch), uint64(e))
}

// ParseEpochKey is the inverse of EpochKey; ok is false for any other key.
func ParseEpochKey(key []byte) (p ids.PartitionID, e ids.Epoch, ok bool) {
	if len(key) != EpochKeyLen || key[0] != prefixPartition || key[5] != partitionEpoch {
		return 0, 0, false
	}
	return ids.PartitionID(binary.BigEndian.Uint32(key[1:])), ids.Epoch(binary.BigEndian.Uint64(key[6:])), true
}

// EpochRange holds the epochs of one partition.
func EpochRange(p ids.PartitionID) (lo, hi []byte) {
	return prefixRange(appendPartition(nil, p, partitionEpoch))
}

// ReplicaKey is the key of a fact about this node's replica of a partition.
func ReplicaKey(p ids.PartitionID, name string) []byte {
	return append(appendPartition(nil, p, partitionReplica), name...)
}

// ReplicaRange holds the facts about this node's replica of a partition.
func ReplicaRange(p ids.PartitionID) (lo, hi []byte) {
	return prefixRange(appendPartition(nil, p, partitionReplica))
}

// ReplicasRange holds the facts about all replicas of this node, and everything else that belongs to partitions:
// whoever looks for replicas skips from partition to partition with SeekGE(ReplicaKey(p+1, "")).
func ReplicasRange() (lo, hi []byte) { return prefixRange([]byte{prefixPartition}) }

// ParseReplicaKey is the inverse of ReplicaKey; name aliases key; ok is false for any other key.
func ParseReplicaKey(key []byte) (p ids.PartitionID, name []byte, ok bool) {
	if len(key) < 6 || key[0] != prefixPartition || key[5] != partitionReplica {
		return 0, nil, false
	}
	return ids.PartitionID(binary.BigEndian.Uint32(key[1:])), key[6:], true
}

// AppendStateKey appends the key of a view's state in one partition: space tells apart what one view keeps (state of its
// last stage, its output, progress), suffix is the owner's own.
func AppendStateKey(dst []byte, view ids.StreamID, p ids.PartitionID, space byte, suffix []byte) []byte {
	dst = append(dst, prefixState)
	dst = binary.BigEndian.AppendUint64(dst, uint64(view))
	dst = binary.BigEndian.AppendUint32(dst, uint32(p))
	dst = append(dst, space)
	return append(dst, suffix...)
}

// StateKey is AppendStateKey into new memory.
func StateKey(view ids.StreamID, p ids.PartitionID, space byte, suffix []byte) []byte {
	return AppendStateKey(make([]byte, 0, StatePrefixLen+len(suffix)), view, p, space, suffix)
}

// ParseStateKey is the inverse of StateKey; suffix aliases key; ok is false for any other key.
func ParseStateKey(key []byte) (view ids.StreamID, p ids.PartitionID, space byte, suffix []byte, ok bool) {
	if len(key) < StatePrefixLen || key[0] != prefixState {
		return 0, 0, 0, nil, false
	}
	return ids.StreamID(binary.BigEndian.Uint64(key[1:])), ids.PartitionID(binary.BigEndian.Uint32(key[9:])),
		key[13], key[StatePrefixLen:], true
}

// StateRange holds one space of a view's state in one partition.
func StateRange(view ids.StreamID, p ids.PartitionID, space byte) (lo, hi []byte) {
	return prefixRange(StateKey(view, p, space, nil))
}

// StagePrefix is what the keys of one space of an earlier stage's state begin with; the last stage's begin with
// StateKey(view, p, space, nil), and space is never 0.
func StagePrefix(view ids.StreamID, p ids.PartitionID, stage, space byte) []byte {
	return StateKey(view, p, earlierStages, []byte{stage, space})
}

// StageRange holds all spaces of an earlier stage's state in one partition.
func StageRange(view ids.StreamID, p ids.PartitionID, stage byte) (lo, hi []byte) {
	return prefixRange(StateKey(view, p, earlierStages, []byte{stage}))
}

// LastStageRange holds all spaces of the last stage's state in one partition.
func LastStageRange(view ids.StreamID, p ids.PartitionID) (lo, hi []byte) {
	_, hi = StatePartitionRange(view, p)
	return StateKey(view, p, earlierStages+1, nil), hi
}

// StatePartitionRange holds all spaces of a view's state in one partition.
func StatePartitionRange(view ids.StreamID, p ids.PartitionID) (lo, hi []byte) {
	lo = StateKey(view, p, 0, nil)
	return prefixRange(lo[:StatePrefixLen-1])
}

// StateViewRange holds a view's state in all partitions.
func StateViewRange(view ids.StreamID) (lo, hi []byte) {
	lo = StateKey(view, 0, 0, nil)
	return prefixRange(lo[:9])
}

// prefixRange returns the range of all keys that begin with prefix, which it takes over. Every prefix of ours begins
// with a byte below 0xff, so there is always a key above.
func prefixRange(prefix []byte) (lo, hi []byte) {
	hi = append([]byte(nil), prefix...)
	for i := len(hi) - 1; i >= 0; i-- {
		if hi[i]++; hi[i] != 0 {
			return prefix, hi[:i+1]
		}
	}
	return prefix, nil
}
