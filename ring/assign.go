package ring

import (
	"cmp"
	"slices"

	"github.com/millrace/millrace/internal/ids"
)

// Node is a member that can hold replicas.
type Node struct {
	ID   ids.NodeID
	Zone string // failure domain; "" is one like any other
	// Weight is the node's share relative to the others', from 0.001 to 1000; out of that it is cut to it, and 0 (or less,
	// or NaN) means 1.
	Weight float64
}

// Assign returns, for each partition, the nodes of its replicas; the first is the preferred primary. It depends on the
// set of nodes alone, not on their order; a second node of the same ID is ignored. There are as many replicas as asked
// for, or as there are nodes. partitions is at most some thousands: it takes time and memory in
// partitions * nodes.
//
//   - Zones come first: the replicas of a partition lie in different zones if there are enough, else as evenly spread over
//     zones as the zones' sizes allow.
//   - No node holds more than 1.10 of its fair share of replicas, rounded up, nor of primaries. The fair share is by
//     weight, as far as zones and "one replica of a partition per node" allow (see shares).
//   - A node that comes or goes moves little else (see DESIGN.md for what was measured, and why not less).
func Assign(nodes []Node, partitions, replicas int) [][]ids.NodeID {
	out := make([][]ids.NodeID, max(partitions, 0))
	members := canonical(nodes)
	if len(members) == 0 || partitions <= 0 || replicas <= 0 {
		return out
	}
	a := newAssignment(members, partitions, min(replicas, len(members)))
	a.placeReplicas()
	a.placePrimaries()
	for p := range out {
		out[p] = a.result(p)
	}
	return out
}

// canonical returns the nodes sorted by ID, each once, with valid weights.
func canonical(nodes []Node) []Node {
	out := slices.Clone(nodes)
	slices.SortStableFunc(out, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	out = slices.CompactFunc(out, func(a, b Node) bool { return a.ID == b.ID })
	for i := range out {
		w := out[i].Weight
		if !(w > 0) {
			w = 1
		}
		out[i].Weight = min(max(w, minWeight), maxWeight)
	}
	return out
}

// candidate is a node for a partition; candidates are taken in the order of their cost.
type candidate struct {
	cost      uint64
	tie       uint64
	node      int32
	partition int32
}

func compareCandidates(a, b candidate) int {
	if c := cmp.Compare(a.cost, b.cost); c != 0 {
		return c
	}
	if c := cmp.Compare(a.tie, b.tie); c != 0 {
		return c
	}
	if c := cmp.Compare(a.partition, b.partition); c != 0 {
		return c
	}
	return cmp.Compare(a.node, b.node) // nodes are sorted by ID
}

// assignment is the state while placing.
type assignment struct {
	nodes      []Node
	partitions int
	replicas   int
	zones      zoning
	zoneOf     []int // per node

	candidates []candidate // of all partitions, in order
	capacity   []int       // replicas, per node
	load       []int
	placed     [][]int // per partition, nodes in the order they were taken

	primaryCapacity []int
	primaryLoad     []int
	primary         []int // per partition, a node
}

func newAssignment(nodes []Node, partitions, replicas int) *assignment {
	a := &assignment{
		nodes: nodes, partitions: partitions, replicas: replicas,
		load: make([]int, len(nodes)), placed: make([][]int, partitions),
		primaryLoad: make([]int, len(nodes)), primary: make([]int, partitions),
	}
	a.zones, a.zoneOf = newZoning(nodes, replicas)
	byWeight := shares(nodes, make([]int, len(nodes)), zoning{[]int{0}, []int{replicas}, replicas}, replicas)
	share := shares(nodes, a.zoneOf, a.zones, replicas)
	a.capacity = capacities(share, byWeight, partitions)
	a.primaryCapacity = capacities(primaryShares(nodes, share), primaryShares(nodes, byWeight), partitions)
	a.candidates = candidates(nodes, partitions)
	for p := range a.primary {
		a.primary[p] = none
	}
	return a
}

const none = -1

// placeReplicas takes candidates from the cheapest on: consistent hashing with bounded loads (Mirrokni, Thorup,
// Zadimoghaddam 2016), with the order of cost in place of an order of arrival.
func (a *assignment) placeReplicas() {
	open := a.partitions * a.replicas
	for _, c := range a.candidates {
		p, n := int(c.partition), int(c.node)
		if a.load[n] < a.capacity[n] && len(a.placed[p]) < a.replicas && a.fits(p, n, none) {
			a.put(p, n)
			if open--; open == 0 {
				return
			}
		}
	}
	for p := range a.placed {
		for len(a.placed[p]) < a.replicas {
			if !a.makeRoom(p) {
				a.put(p, a.leastLoaded(p))
			}
		}
	}
}

// fits tells whether n can take a replica of p, were the one on without gone.
func (a *assignment) fits(p, n, without int) bool {
	zone := a.zoneOf[n]
	inZone, extra := 0, 0 // replicas in n's zone, and those above what the zones have to hold
	for i, m := range a.placed[p] {
		if m == n {
			return false
		}
		if m == without {
			continue
		}
		before := 0 // replicas among the first i that are in m's zone
		for _, o := range a.placed[p][:i] {
			if o != without && a.zoneOf[o] == a.zoneOf[m] {
				before++
			}
		}
		if before >= a.zones.least[a.zoneOf[m]] {
			extra++
		}
		if a.zoneOf[m] == zone {
			inZone++
		}
	}
	return inZone < a.zones.least[zone] || inZone < a.zones.most[zone] && extra < a.zones.extra
}

func (a *assignment) put(p, n int) {
	a.placed[p] = append(a.placed[p], n)
	a.load[n]++
}

// makeRoom finds a replica for p where every node that fits is full: it moves a replica of another partition from such a
// node to one that has room, if need be over several nodes, along a shortest path. It happens when the last replicas are
// placed; the moves are few.
func (a *assignment) makeRoom(p int) bool {
	type step struct{ from, partition int } // the replica of partition moves from `from` to the node that has the step
	steps := make([]step, len(a.nodes))
	seen := make([]bool, len(a.nodes))
	var queue []int
	for n := range a.nodes {
		if a.fits(p, n, none) {
			seen[n], steps[n] = true, step{none, p}
			queue = append(queue, n)
		}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		if a.load[n] < a.capacity[n] {
			for {
				s := steps[n]
				if s.from == none {
					a.put(p, n)
					return true
				}
				a.placed[s.partition][slices.Index(a.placed[s.partition], s.from)] = n
				a.load[n]++
				a.load[s.from]--
				n = s.from
			}
		}
		used := map[int]bool{p: true} // a partition moves once on a path, so that its zones are judged right
		for m := n; steps[m].from != none; m = steps[m].from {
			used[steps[m].partition] = true
		}
		for q := range a.placed {
			if used[q] || !slices.Contains(a.placed[q], n) {
				continue
			}
			for m := range a.nodes {
				if !seen[m] && a.fits(q, m, n) {
					seen[m], steps[m] = true, step{n, q}
					queue = append(queue, m)
				}
			}
		}
	}
	return false
}

// leastLoaded returns the node that fits p and is the least over its capacity. It is needed only where zones and weights
// leave no solution within the capacities.
func (a *assignment) leastLoaded(p int) int {
	best := none
	for n := range a.nodes {
		if a.fits(p, n, none) && (best == none || a.load[n]*a.capacity[best] < a.load[best]*a.capacity[n]) {
			best = n
		}
	}
	if best != none {
		return best
	}
	for n := range a.nodes { // zones of p can't be as even as they should
		if !slices.Contains(a.placed[p], n) && (best == none || a.load[n] < a.load[best]) {
			best = n
		}
	}
	return best
}

// placePrimaries makes one replica of each partition its primary, again the cheapest first.
func (a *assignment) placePrimaries() {
	for _, c := range a.candidates {
		p, n := int(c.partition), int(c.node)
		if a.primary[p] == none && a.primaryLoad[n] < a.primaryCapacity[n] && slices.Contains(a.placed[p], n) {
			a.primary[p] = n
			a.primaryLoad[n]++
		}
	}
	for p := range a.primary {
		if a.primary[p] == none && !a.makePrimaryRoom(p) {
			best := a.placed[p][0]
			for _, n := range a.placed[p] {
				if a.primaryLoad[n]*a.primaryCapacity[best] < a.primaryLoad[best]*a.primaryCapacity[n] {
					best = n
				}
			}
			a.primary[p] = best
			a.primaryLoad[best]++
		}
	}
}

// makePrimaryRoom is makeRoom for primaries: partitions along a path change which of their replicas is the primary.
func (a *assignment) makePrimaryRoom(p int) bool {
	via := make([]int, len(a.nodes)) // the partition that would make this node its primary
	seen := make([]bool, len(a.nodes))
	queue := slices.Clone(a.placed[p])
	for _, n := range queue {
		seen[n], via[n] = true, p
	}
	for ; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		if a.primaryLoad[n] < a.primaryCapacity[n] {
			a.primaryLoad[n]++
			for {
				q := via[n]
				from := a.primary[q]
				a.primary[q] = n
				if q == p {
					return true
				}
				n = from
			}
		}
		for q := range a.primary {
			if a.primary[q] != n {
				continue
			}
			for _, m := range a.placed[q] {
				if !seen[m] {
					seen[m], via[m] = true, q
					queue = append(queue, m)
				}
			}
		}
	}
	return false
}

func (a *assignment) result(p int) []ids.NodeID {
	out := make([]ids.NodeID, 0, a.replicas)
	out = append(out, a.nodes[a.primary[p]].ID)
	for _, n := range a.placed[p] {
		if n != a.primary[p] {
			out = append(out, a.nodes[n].ID)
		}
	}
	return out
}
