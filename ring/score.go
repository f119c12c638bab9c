package ring

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

const (
	minWeight = 0.001
	maxWeight = 1000
)

// candidates returns every node for every partition, cheapest first.
//
// Each partition has a ring of its own, of circumference 1, with one virtual node of each node on it, at a distance r
// from the partition: the nearest is the first choice. Were the distances drawn independently, a node would be first
// choice of a number of partitions with a variance as large as its mean. So a node's distances are stratified (a Latin
// hypercube): exactly one lies in each of the intervals [i/P, (i+1)/P), which halves the variance, and with it how often
// a node is full and what moves when another comes or goes.
//
// A node of weight w is w times as likely to be near: it counts with -log2(1-r)/w, an exponential variable of rate w
// (weighted rendezvous hashing; Efraimidis and Spirakis 2006). All of it is in integers, since every machine has to
// come to the same order.
func candidates(nodes []Node, partitions int) []candidate {
	out := make([]candidate, 0, len(nodes)*partitions)
	type hashed struct {
		hash      uint64
		partition int32
	}
	order := make([]hashed, partitions)
	stride := math.MaxUint64 / uint64(partitions)
	var key []byte
	for n := range nodes {
		key = append(append(key[:0], nodes[n].ID...), 0, 0, 0, 0, 0)
		for p := range order {
			binary.BigEndian.PutUint32(key[len(key)-4:], uint32(p))
			order[p] = hashed{xxhash.Sum64(key), int32(p)}
		}
		slices.SortFunc(order, func(a, b hashed) int {
			if c := cmp.Compare(a.hash, b.hash); c != 0 {
				return c
			}
			return cmp.Compare(a.partition, b.partition)
		})
		weight := uint64(math.Round(nodes[n].Weight * 1000))
		for i, h := range order {
			jitter := bits.RotateLeft64(h.hash*0x9e3779b97f4a7c15, 32) % stride
			r := uint64(i)*stride + jitter
			out = append(out, candidate{
				cost: negLog2(r) << costShift / weight, tie: h.hash, node: int32(n), partition: h.partition,
			})
		}
	}
	slices.SortFunc(out, compareCandidates)
	return out
}

const (
	logBits   = 40                     // fractional bits of negLog2
	costShift = 64 - (logBits + 6 + 1) // 2^6 > 63, the largest logarithm
)

// negLog2 returns -log2(1 - r/2^64) with logBits fractional bits.
func negLog2(r uint64) uint64 {
	y := ^r // (1-r) * 2^64, less one
	if y == 0 {
		y = 1
	}
	zeros := bits.LeadingZeros64(y)
	m := y << zeros // [1, 2) with 63 fractional bits
	var frac uint64
	for range logBits {
		hi, lo := bits.Mul64(m, m) // [1, 4) with 126 fractional bits
		frac <<= 1
		if hi>>63 == 1 { // >= 2
			frac |= 1
			m = hi
		} else {
			m = hi<<1 | lo>>63
		}
	}
	// y = 2^(63-zeros) * 2^frac
	return uint64(zeros+1)<<logBits - frac
}
