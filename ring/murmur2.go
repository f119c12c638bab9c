package ring

import (
	"encoding/binary"

	"github.com/millrace/millrace/internal/ids"
)

// Partition returns the partition of a key among that many, as Kafka's default partitioner does
// (toPositive(murmur2(key)) % partitions), so that a Kafka client and a Millrace client agree. partitions must be
// positive.
func Partition(key []byte, partitions int) ids.PartitionID {
	return ids.PartitionID(uint32(Murmur2(key)&0x7fffffff) % uint32(partitions))
}

// Murmur2 is Austin Appleby's MurmurHash2 with Kafka's seed (org.apache.kafka.common.utils.Utils.murmur2).
func Murmur2(key []byte) int32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(key))
	for ; len(key) >= 4; key = key[4:] {
		k := binary.LittleEndian.Uint32(key) * m
		k ^= k >> r
		h = h*m ^ k*m
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(key[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return int32(h)
}
