package ring

import (
	"math"
	"slices"
)

// zoning says how many replicas of one partition a zone holds: at least least[z], at most most[z], and over all zones
// `extra` more than the sum of least. That is the most even spread that the sizes of the zones allow.
type zoning struct {
	least, most []int
	extra       int
}

func newZoning(nodes []Node, replicas int) (zoning, []int) {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Zone)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	zoneOf := make([]int, len(nodes))
	size := make([]int, len(names))
	for i, n := range nodes {
		z, _ := slices.BinarySearch(names, n.Zone)
		zoneOf[i] = z
		size[z]++
	}
	// The level to which zones are filled evenly; a zone smaller than that is full.
	level := 1
	for filled(size, level) < replicas {
		level++
	}
	z := zoning{least: make([]int, len(size)), most: make([]int, len(size))}
	for i, s := range size {
		z.least[i], z.most[i] = min(s, level-1), min(s, level)
	}
	z.extra = replicas - filled(size, level-1)
	return z, zoneOf
}

func filled(size []int, level int) (n int) {
	for _, s := range size {
		n += min(s, level)
	}
	return n
}

// shares returns how many replicas of a partition each node should hold on average, 0 to 1: in proportion to its weight,
// as far as zones and the one replica per node allow. A zone that has to hold more (or can't hold as much) than its
// weight is worth gets exactly what it must, and its nodes share that by weight.
func shares(nodes []Node, zoneOf []int, z zoning, replicas int) []float64 {
	members := make([][]int, len(z.least))
	for n, zone := range zoneOf {
		members[zone] = append(members[zone], n)
	}
	zoneSum := func(zone int, rate float64) (sum float64) {
		for _, n := range members[zone] {
			sum += min(1, float64(rate*nodes[n].Weight))
		}
		return sum
	}
	clamped := func(zone int, rate float64) float64 {
		return min(max(zoneSum(zone, rate), float64(z.least[zone])), float64(z.most[zone]))
	}
	total := func(rate float64) (sum float64) {
		for zone := range members {
			sum += clamped(zone, rate)
		}
		return sum
	}
	rate := solve(total, float64(replicas))
	out := make([]float64, len(nodes))
	for zone := range members {
		want := clamped(zone, rate)
		own := rate
		if zoneSum(zone, rate) != want {
			own = solve(func(r float64) float64 { return zoneSum(zone, r) }, want)
		}
		for _, n := range members[zone] {
			out[n] = min(1, float64(own*nodes[n].Weight))
		}
	}
	return out
}

// primaryShares returns of what part of the partitions each node should be primary: by weight, no more than it holds.
func primaryShares(nodes []Node, share []float64) []float64 {
	held := func(n int, rate float64) float64 { return min(share[n], float64(rate*nodes[n].Weight)) }
	rate := solve(func(r float64) (sum float64) {
		for n := range nodes {
			sum += held(n, r)
		}
		return sum
	}, 1)
	out := make([]float64, len(nodes))
	for n := range out {
		out[n] = held(n, rate)
	}
	return out
}

// solve returns the lowest rate at which f, which rises with it, reaches want, or close to it. Products in f are
// converted to float64 explicitly, which forbids the compiler to fuse them with additions on machines that can: the
// result has to be the same everywhere.
func solve(f func(rate float64) float64, want float64) float64 {
	low, high := 0.0, 2.0/minWeight
	for range 100 {
		mid := (low + high) / 2
		if f(mid) < want {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

// slack is by how much a node's load may exceed its fair share.
const slack = 1.10

// capacities returns what each node may hold of that many partitions: its fair share with slack, rounded up. Where zones
// make a node's share larger than what its weight alone is worth, it gets no slack beyond what its weight gives it, so
// that the bound by weight is kept wherever zones allow.
func capacities(share, byWeight []float64, partitions int) []int {
	out := make([]int, len(share))
	for n, s := range share {
		most := roundUp(float64(s*float64(partitions)) * slack)
		if s > byWeight[n] {
			plain := roundUp(float64(byWeight[n]*float64(partitions)) * slack)
			most = min(most, max(plain, roundUp(float64(s*float64(partitions)))))
		}
		out[n] = min(partitions, max(1, most))
	}
	return out
}

// roundUp leaves alone what is a whole number but for the error of the bisection.
func roundUp(x float64) int { return int(math.Ceil(x - 1e-6)) }
