package ring

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/internal/ids"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden file; every line that changes is data that moves in every cluster")

// even returns n nodes of equal weight over that many zones.
func even(n, zones int, name string) []Node {
	out := make([]Node, n)
	for i := range out {
		out[i] = Node{ID: ids.NodeID(fmt.Sprintf("%s-%d", name, i)), Zone: fmt.Sprintf("zone-%d", i%zones), Weight: 1}
	}
	return out
}

// TestGolden holds placements to what they were: a change here moves the data of every cluster that is upgraded.
func TestGolden(t *testing.T) {
	var got bytes.Buffer
	for _, c := range []struct {
		name                 string
		nodes                []Node
		partitions, replicas int
	}{
		{"one node", even(1, 1, "n"), 8, 3},
		{"three nodes", even(3, 1, "n"), 32, 3},
		{"four nodes", even(4, 1, "n"), 32, 3},
		{"five nodes, two replicas", even(5, 1, "n"), 32, 2},
		{"six nodes in three zones", even(6, 3, "n"), 32, 3},
		{"seven nodes in two zones", even(7, 2, "n"), 16, 3},
		{"weights", []Node{{"a", "x", 1}, {"b", "x", 2}, {"c", "y", 0.5}, {"d", "y", 1}, {"e", "z", 4}}, 32, 2},
		{"twenty nodes", even(20, 4, "node"), 64, 3},
	} {
		fmt.Fprintf(&got, "# %s\n", c.name)
		for p, r := range Assign(c.nodes, c.partitions, c.replicas) {
			fmt.Fprintf(&got, "%d %v\n", p, r)
		}
	}
	file := filepath.Join("testdata", "assign.golden")
	if *rewrite {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	have, old := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(have), len(old)) {
		if i >= len(have) || i >= len(old) || have[i] != old[i] {
			t.Fatalf("line %d of %s: placement changed; data would move. Have %q", i+1, file, slices.Concat(have, []string{""})[min(i, len(have))])
		}
	}
}

func counts(a [][]ids.NodeID) (replicas, primaries map[ids.NodeID]int) {
	replicas, primaries = map[ids.NodeID]int{}, map[ids.NodeID]int{}
	for _, r := range a {
		for i, n := range r {
			replicas[n]++
			if i == 0 {
				primaries[n]++
			}
		}
	}
	return replicas, primaries
}

// wellFormed checks what holds for every input.
func wellFormed(t testing.TB, nodes []Node, a [][]ids.NodeID, partitions, replicas int) {
	t.Helper()
	zone, size := map[ids.NodeID]string{}, map[string]int{}
	for _, n := range canonical(nodes) {
		zone[n.ID] = n.Zone
		size[n.Zone]++
	}
	want := min(max(replicas, 0), len(zone))
	if len(a) != max(partitions, 0) {
		t.Fatalf("%d partitions, want %d", len(a), partitions)
	}
	for p, r := range a {
		if len(r) != want {
			t.Fatalf("partition %d has %d replicas, want %d", p, len(r), want)
		}
		seen, held := map[ids.NodeID]bool{}, map[string]int{}
		for _, n := range r {
			if _, ok := zone[n]; !ok || seen[n] {
				t.Fatalf("partition %d: %q is no node, or twice in %v", p, n, r)
			}
			seen[n] = true
			held[zone[n]]++
		}
		for z := range size { // as even as sizes allow: no zone could take one from a zone that has two more
			for y := range size {
				if held[z] < size[z] && held[y] > held[z]+1 {
					t.Fatalf("partition %d: zone %q holds %d and zone %q %d of %v, though the former has %d nodes", p, z, held[z], y, held[y], r, size[z])
				}
			}
		}
	}
}

func bound(fair float64) int { return int(math.Ceil(fair*1.10 - 1e-9)) }

// balanced checks the bound on load where zones don't stand against it.
func balanced(t testing.TB, nodes []Node, a [][]ids.NodeID, partitions int) {
	t.Helper()
	replicas, primaries := counts(a)
	total := 0
	for _, n := range replicas {
		total += n
	}
	for _, n := range nodes {
		if most := bound(float64(total) / float64(len(nodes))); replicas[n.ID] > most {
			t.Errorf("%s holds %d replicas, more than %d: %d nodes, %d partitions", n.ID, replicas[n.ID], most, len(nodes), partitions)
		}
		if most := bound(float64(partitions) / float64(len(nodes))); primaries[n.ID] > most {
			t.Errorf("%s is primary of %d, more than %d: %d nodes, %d partitions", n.ID, primaries[n.ID], most, len(nodes), partitions)
		}
	}
}

func TestBoundedLoad(t *testing.T) {
	for _, partitions := range []int{1, 8, 12, 32, 100, 128, 512} {
		for n := 1; n <= 30; n++ {
			for replicas := 1; replicas <= 3; replicas++ {
				nodes := even(n, 1, fmt.Sprintf("load%d", partitions))
				a := Assign(nodes, partitions, replicas)
				wellFormed(t, nodes, a, partitions, replicas)
				balanced(t, nodes, a, partitions)
				if n%3 == 0 {
					nodes = even(n, 3, "zoned")
					a = Assign(nodes, partitions, replicas)
					wellFormed(t, nodes, a, partitions, replicas)
					balanced(t, nodes, a, partitions)
				}
			}
		}
	}
}

func moves(from, to [][]ids.NodeID) (n int) {
	for p := range to {
		for _, id := range to[p] {
			if !slices.Contains(from[p], id) {
				n++
			}
		}
	}
	return n
}

// TestMovement removes every node in turn from clusters of many sizes; seen the other way round, each is also an
// addition. Where a node's share is of a size that lets the balance absorb what moves (32 replicas), no single change
// moves more than 1.25 of it. For smaller shares, where 1.25 leaves room for a handful of replicas or none, single
// changes exceed it and the mean over all nodes is held to it; the bound on the worst is what was measured
// (see DESIGN.md).
func TestMovement(t *testing.T) {
	for _, c := range []struct {
		partitions, replicas int
		nodes                []int
		single, mean         float64 // of a fair share
	}{
		{32, 3, []int{2, 3, 4, 5, 6, 7, 8}, 1.25, 1.15},
		{64, 3, []int{4, 5, 6, 7, 8, 9, 10}, 1.25, 1.05},
		{128, 3, []int{4, 6, 8, 10, 12}, 1.25, 1.05},
		{512, 1, []int{2, 5, 10, 15}, 1.25, 1.15},
		{512, 3, []int{4, 10, 20, 30}, 1.25, 1.05},
		{64, 1, []int{2, 3, 4, 5, 6, 8}, 2, 1.25},
		{32, 2, []int{10, 12, 20, 30}, 3, 1.5},
	} {
		for _, n := range c.nodes {
			nodes := even(n, 1, "move")
			full := Assign(nodes, c.partitions, c.replicas)
			fair := float64(c.partitions*min(c.replicas, n)) / float64(n)
			sum := 0.0
			for x := range nodes {
				m := moves(full, Assign(slices.Delete(slices.Clone(nodes), x, x+1), c.partitions, c.replicas))
				sum += float64(m) / fair
				if most := math.Ceil(c.single*fair - 1e-9); float64(m) > most {
					t.Errorf("%d partitions, %d replicas: without node %d of %d, %d replicas move, more than %v", c.partitions, c.replicas, x, n, m, most)
				}
			}
			if mean := sum / float64(n); mean > c.mean {
				t.Errorf("%d partitions, %d replicas, %d nodes: %.2f of a share moves on average, more than %.2f", c.partitions, c.replicas, n, mean, c.mean)
			}
		}
	}
}

func TestWeights(t *testing.T) {
	nodes := []Node{{"a", "", 1}, {"b", "", 2}, {"c", "", 1}, {"d", "", 4}, {"e", "", 0}}
	replicas, primaries := counts(Assign(nodes, 900, 2))
	for _, n := range nodes {
		w := max(n.Weight, 1)
		fair := 900 * 2 * w / 9
		if got := replicas[n.ID]; got > bound(fair) || float64(got) < 0.8*fair {
			t.Errorf("%s of weight %v holds %d replicas, fair are %v", n.ID, n.Weight, got, fair)
		}
		if got := primaries[n.ID]; got > bound(fair/2) {
			t.Errorf("%s of weight %v is primary of %d, fair are %v", n.ID, n.Weight, got, fair/2)
		}
	}
	// One that is worth more than all others together still holds no partition twice, and the rest share what remains.
	heavy := append(even(4, 1, "light"), Node{ID: "heavy", Zone: "zone-0", Weight: 100})
	a := Assign(heavy, 64, 2)
	wellFormed(t, heavy, a, 64, 2)
	replicas, _ = counts(a)
	if replicas["heavy"] < 60 {
		t.Errorf("a node of weight 100 holds %d of 64", replicas["heavy"])
	}
	for i := range 4 {
		if got := replicas[ids.NodeID(fmt.Sprintf("light-%d", i))]; got > bound(16.5) {
			t.Errorf("light-%d holds %d of the other 64", i, got)
		}
	}
}

func TestEdges(t *testing.T) {
	for _, c := range []struct{ nodes, partitions, replicas int }{{0, 8, 3}, {3, 0, 3}, {3, 8, 0}, {3, -1, 3}, {3, 8, -1}, {1, 1, 1}} {
		nodes := even(c.nodes, 1, "edge")
		wellFormed(t, nodes, Assign(nodes, c.partitions, c.replicas), c.partitions, c.replicas)
	}
	twice := []Node{{"a", "x", 1}, {"a", "x", 1}, {"b", "x", math.NaN()}, {"c", "x", math.Inf(1)}, {"d", "x", -1}}
	wellFormed(t, twice, Assign(twice, 16, 2), 16, 2)
}

func TestOrderOfNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, partitions, replicas := draw(t)
		want := Assign(nodes, partitions, replicas)
		got := Assign(rapid.Permutation(nodes).Draw(t, "order"), partitions, replicas)
		for p := range want {
			if !slices.Equal(want[p], got[p]) {
				t.Fatalf("partition %d is on %v in one order of the nodes, on %v in another", p, want[p], got[p])
			}
		}
	})
}

func draw(t *rapid.T) ([]Node, int, int) {
	ids_ := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9]{1,12}`), 1, 30, rapid.ID[string]).Draw(t, "ids")
	zones := rapid.IntRange(1, 6).Draw(t, "zones")
	weighted := rapid.Bool().Draw(t, "weighted")
	nodes := make([]Node, len(ids_))
	for i, id := range ids_ {
		nodes[i] = Node{ID: ids.NodeID(id), Zone: fmt.Sprint(rapid.IntRange(0, zones-1).Draw(t, "zone")), Weight: 1}
		if weighted {
			nodes[i].Weight = rapid.Float64Range(0.1, 10).Draw(t, "weight")
		}
	}
	return nodes, rapid.IntRange(1, 128).Draw(t, "partitions"), rapid.IntRange(1, 5).Draw(t, "replicas")
}

// TestProperties checks any mixture of zones and weights: form and zones always, the bound on load against shares that
// take zones into account.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		nodes, partitions, replicas := draw(rt)
		a := Assign(nodes, partitions, replicas)
		wellFormed(rtb{t, rt}, nodes, a, partitions, replicas)
		members := canonical(nodes)
		z, zoneOf := newZoning(members, min(replicas, len(members)))
		share := shares(members, zoneOf, z, min(replicas, len(members)))
		primary := primaryShares(members, share)
		held, first := counts(a)
		sum := 0.0
		for n, m := range members {
			sum += share[n]
			if most := bound(share[n]*float64(partitions) - 1e-6); held[m.ID] > max(most, 1) {
				rt.Fatalf("%s holds %d of %d partitions, fair are %v", m.ID, held[m.ID], partitions, share[n]*float64(partitions))
			}
			if most := bound(primary[n]*float64(partitions) - 1e-6); first[m.ID] > max(most, 1) {
				rt.Fatalf("%s is primary of %d of %d partitions, fair are %v", m.ID, first[m.ID], partitions, primary[n]*float64(partitions))
			}
		}
		if want := float64(min(replicas, len(members))); math.Abs(sum-want) > 1e-6 {
			rt.Fatalf("shares add up to %v, want %v", sum, want)
		}
	})
}

// rtb lets wellFormed fail a rapid test.
type rtb struct {
	testing.TB
	rt *rapid.T
}

func (r rtb) Helper()                           { r.rt.Helper() }
func (r rtb) Fatalf(format string, args ...any) { r.rt.Fatalf(format, args...) }

func TestNegLog2(t *testing.T) {
	for _, r := range []uint64{0, 1, 1 << 20, 1 << 40, 1 << 63, 3 << 62, math.MaxUint64 - 1, math.MaxUint64, 0x9e3779b97f4a7c15} {
		x := float64(^r) / (1 << 64)
		if ^r == 0 {
			x = 1.0 / (1 << 63) / 2
		}
		want, got := -math.Log2(x), float64(negLog2(r))/(1<<logBits)
		if math.Abs(want-got) > 1e-9 {
			t.Errorf("negLog2(%#x) = %v, want %v", r, got, want)
		}
	}
}

func FuzzAssign(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint8(1), uint8(8), uint8(3))
	f.Add([]byte{0x11, 0x22, 0x13, 0x24, 0x55, 0x61, 0x71}, uint8(3), uint8(32), uint8(3))
	f.Fuzz(func(t *testing.T, spec []byte, zones, partitions, replicas uint8) {
		nodes := make([]Node, 0, 40)
		for i, b := range spec[:min(len(spec), 40)] {
			nodes = append(nodes, Node{
				ID: ids.NodeID(fmt.Sprintf("%d-%d", b, i)), Zone: fmt.Sprint(b % max(zones, 1)), Weight: float64(b>>4) / 4,
			})
		}
		a := Assign(nodes, int(partitions), int(replicas%8))
		wellFormed(t, nodes, a, int(partitions), int(replicas%8))
	})
}

func BenchmarkAssign(b *testing.B) {
	for _, c := range []struct{ nodes, partitions int }{{3, 32}, {10, 256}, {100, 4096}} {
		nodes := even(c.nodes, 3, "bench")
		b.Run(fmt.Sprintf("nodes=%d/partitions=%d", c.nodes, c.partitions), func(b *testing.B) {
			for b.Loop() {
				Assign(nodes, c.partitions, 3)
			}
		})
	}
}
