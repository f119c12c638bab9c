package coordinator

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/ring"
)

// outlook is what the leader knows of the members as it plans.
type outlook struct {
	now      time.Time
	down     map[string]bool // its partitions fail over
	gone     map[string]bool // down for so long that its replicas go to others
	stopping map[string]bool // about to stop: no primary, and out of the in-sync sets
	progress map[progressKey]*internalv1.ReplicaProgress
	held     map[progressKey]*internalv1.HeldReplica
}

type progressKey struct {
	partition uint32
	node      string
}

func (o *outlook) serves(id string) bool { return !o.down[id] && !o.stopping[id] }

// planner moves partitions towards what the ring assigns, in small steps: add a learner, wait until the primary takes it
// into the in-sync set, hand over, remove. It decides from the state and the outlook alone; each step is a
// compare-and-set, so a plan made from an old state does no harm.
type planner struct {
	cfg    MoveConfig
	assign func(nodes []ring.Node, partitions, replicas int) [][]ids.NodeID

	key       string // of what desired was computed from
	desired   [][]string
	handovers map[uint32]time.Time // when those under way were first seen
	copies    map[progressKey]time.Time
	awaited   map[progressKey]time.Time // replicas that get the state of views before they become the primary
	haste     map[string]int            // by node: how many copies it may make at once, when more than the setting
}

func newPlanner(cfg MoveConfig, assign func([]ring.Node, int, int) [][]ids.NodeID) planner {
	return planner{cfg: cfg, assign: assign, handovers: map[uint32]time.Time{}, copies: map[progressKey]time.Time{}, awaited: map[progressKey]time.Time{}, haste: map[string]int{}}
}

// want is the replica sets that the partitions should have, preferred primary first; nil when no member can hold any.
func (p *planner) want(st *internalv1.ClusterState, o *outlook) [][]string {
	var nodes []ring.Node
	var key strings.Builder
	for _, m := range st.Members {
		if (m.State == alive || m.State == dead) && !o.gone[m.Id] {
			nodes = append(nodes, ring.Node{ID: ids.NodeID(m.Id), Zone: m.Zone, Weight: m.Weight})
			fmt.Fprintf(&key, "%q %q %v\n", m.Id, m.Zone, m.Weight)
		}
	}
	if len(nodes) == 0 {
		return nil
	}
	replicas := min(int(st.Replicas), len(nodes))
	fmt.Fprintf(&key, "%d %d", len(st.Partitions), replicas)
	if key.String() != p.key {
		p.key, p.desired = key.String(), nil
		for _, set := range p.assign(nodes, len(st.Partitions), replicas) {
			var out []string
			for _, id := range set {
				out = append(out, string(id))
			}
			p.desired = append(p.desired, out)
		}
	}
	return p.desired
}

// plan returns the steps to take now, at most one for each partition.
func (p *planner) plan(st *internalv1.ClusterState, o *outlook) []*internalv1.PartitionChange {
	desired := p.want(st, o)
	if desired == nil {
		return nil
	}
	r := planRound{planner: p, st: st, o: o, copying: p.watchCopies(st, o)}
	for _, cfg := range st.Partitions {
		if cfg.HandoverTo != "" {
			r.handovers++
		} else {
			delete(p.handovers, cfg.Id)
		}
	}
	var out []*internalv1.PartitionChange
	for i, cfg := range st.Partitions {
		if o.down[cfg.Primary] {
			continue // it fails over first
		}
		if next := r.step(cfg, desired[i]); next != nil {
			out = append(out, &internalv1.PartitionChange{Config: next, ExpectedEpoch: cfg.Epoch})
		}
	}
	return out
}

// watchCopies counts the learners at each node and adapts how many it may have: quick copies double it, a slow one takes
// it back to the setting.
func (p *planner) watchCopies(st *internalv1.ClusterState, o *outlook) map[string]int {
	count := map[string]int{}
	for _, cfg := range st.Partitions {
		for _, id := range cfg.Replicas {
			if slices.Contains(cfg.InSync, id) || !o.serves(id) {
				continue
			}
			count[id]++
			key := progressKey{cfg.Id, id}
			if began, ok := p.copies[key]; !ok {
				p.copies[key] = o.now
			} else if o.now.Sub(began) > p.cfg.QuickCopy {
				delete(p.haste, id)
			}
		}
	}
	for key, began := range p.copies {
		cfg := st.Partitions[key.partition]
		switch synced := slices.Contains(cfg.InSync, key.node); {
		case !synced && slices.Contains(cfg.Replicas, key.node):
			continue
		case synced && o.now.Sub(began) <= p.cfg.QuickCopy:
			p.haste[key.node] = min(2*p.limit(key.node), p.cfg.QuickCopies)
		}
		delete(p.copies, key)
	}
	return count
}

func (p *planner) limit(id string) int { return max(p.haste[id], p.cfg.CopiesPerNode) }

// planRound is one pass over the partitions, with the throttles' counts.
type planRound struct {
	*planner
	st        *internalv1.ClusterState
	o         *outlook
	copying   map[string]int // learners at each node
	handovers int
}

// step returns a partition's next configuration, or nil when there is nothing to do or it must wait.
func (r *planRound) step(cfg *internalv1.PartitionConfig, want []string) *internalv1.PartitionConfig {
	if cfg.HandoverTo != "" {
		return r.watchHandover(cfg)
	}
	next := clonePartition(cfg)
	switch {
	case r.relieve(cfg, want, next), r.dropLearners(cfg, want, next), r.addLearners(cfg, want, next),
		r.handOver(cfg, want, next), r.dropSurplus(cfg, want, next):
		return next
	}
	return nil
}

// watchHandover calls a handover off when its target can't take it, or the primary doesn't get to it.
func (r *planRound) watchHandover(cfg *internalv1.PartitionConfig) *internalv1.PartitionConfig {
	began, ok := r.planner.handovers[cfg.Id]
	if !ok {
		began = r.o.now
		r.planner.handovers[cfg.Id] = began
	}
	if r.o.serves(cfg.HandoverTo) && r.o.now.Sub(began) < r.cfg.HandoverLimit {
		return nil
	}
	next := clonePartition(cfg)
	next.HandoverTo = ""
	return next
}

// stopHandovers is how many primaries a node that is about to stop hands over at once: it has little time.
const stopHandovers = 16

// relieve takes the work off members that are about to stop.
func (r *planRound) relieve(cfg *internalv1.PartitionConfig, want []string, next *internalv1.PartitionConfig) bool {
	if r.o.stopping[cfg.Primary] {
		for _, id := range append(slices.Clone(want), cfg.InSync...) {
			if id != cfg.Primary && slices.Contains(cfg.InSync, id) && r.o.serves(id) && r.handovers < stopHandovers {
				next.HandoverTo = id
				r.handovers++
				return true
			}
		}
		return false
	}
	for _, id := range cfg.InSync {
		if r.o.stopping[id] && len(cfg.InSync)-1 >= minInSync(r.st.Replicas, len(cfg.Replicas)) {
			next.InSync = without(cfg.InSync, id)
			return true
		}
	}
	return false
}

// dropLearners removes replicas that nobody wants and that no commit waits for.
func (r *planRound) dropLearners(cfg *internalv1.PartitionConfig, want []string, next *internalv1.PartitionConfig) bool {
	next.Replicas = slices.DeleteFunc(next.Replicas, func(id string) bool {
		return !slices.Contains(want, id) && !slices.Contains(cfg.InSync, id)
	})
	return len(next.Replicas) < len(cfg.Replicas)
}

// addLearners adds what is missing, within each node's bound and with at most one replica too many meanwhile.
func (r *planRound) addLearners(cfg *internalv1.PartitionConfig, want []string, next *internalv1.PartitionConfig) bool {
	for _, id := range want {
		if slices.Contains(next.Replicas, id) || !r.o.serves(id) || r.copying[id] >= r.limit(id) || len(next.Replicas) > len(want) {
			continue
		}
		next.Replicas = append(next.Replicas, id)
		r.copying[id]++
	}
	return len(next.Replicas) > len(cfg.Replicas)
}

// handOver makes the preferred replica the primary, once all wanted ones are in sync; a primary that must go hands over
// to any wanted one that is.
func (r *planRound) handOver(cfg *internalv1.PartitionConfig, want []string, next *internalv1.PartitionConfig) bool {
	if cfg.Primary == want[0] || r.handovers >= r.cfg.Handovers {
		return false
	}
	settled := !slices.ContainsFunc(want, func(id string) bool { return !slices.Contains(cfg.InSync, id) || r.o.down[id] })
	candidates := want[:1]
	if !slices.Contains(want, cfg.Primary) {
		candidates, settled = want, true
	}
	for _, id := range candidates {
		if settled && slices.Contains(cfg.InSync, id) && r.o.serves(id) && !r.awaitViews(cfg, id) {
			delete(r.awaited, progressKey{cfg.Id, id})
			next.HandoverTo = id
			r.handovers++
			return true
		}
	}
	return false
}

// awaitViews tells whether a handover waits until the replica has the views' state, which it would have to compute anew
// otherwise; for a bounded time, as a move must end.
func (r *planRound) awaitViews(cfg *internalv1.PartitionConfig, id string) bool {
	key := progressKey{cfg.Id, id}
	if !r.o.progress[key].GetViewsBehind() {
		delete(r.awaited, key)
		return false
	}
	began, ok := r.awaited[key]
	if !ok {
		began = r.o.now
		r.awaited[key] = began
	}
	return r.o.now.Sub(began) < r.cfg.ViewsLimit
}

// dropSurplus removes replicas beyond the wanted ones, once these are all in sync. While some are missing it makes room
// for them, as long as no fewer are in sync than are wanted.
func (r *planRound) dropSurplus(cfg *internalv1.PartitionConfig, want []string, next *internalv1.PartitionConfig) bool {
	room := len(cfg.InSync) - len(want)
	for _, id := range cfg.InSync {
		if room > 0 && id != cfg.Primary && !slices.Contains(want, id) {
			next.Replicas, next.InSync = without(next.Replicas, id), without(next.InSync, id)
			room--
		}
	}
	return len(next.Replicas) < len(cfg.Replicas)
}

// moves lists what is under way and what still waits.
func (p *planner) moves(st *internalv1.ClusterState, o *outlook) []*internalv1.PartitionMove {
	desired := p.want(st, o)
	var out []*internalv1.PartitionMove
	for i, cfg := range st.Partitions {
		if desired == nil {
			break
		}
		out = append(out, partitionMoves(cfg, desired[i], o)...)
	}
	return out
}

func partitionMoves(cfg *internalv1.PartitionConfig, want []string, o *outlook) []*internalv1.PartitionMove {
	var out []*internalv1.PartitionMove
	surplus := slices.DeleteFunc(slices.Clone(cfg.Replicas), func(id string) bool { return slices.Contains(want, id) })
	from := func() (id string) {
		if len(surplus) > 0 {
			id, surplus = surplus[0], surplus[1:]
		}
		return id
	}
	add := func(from, to, phase string) *internalv1.PartitionMove {
		m := &internalv1.PartitionMove{Partition: cfg.Id, From: from, To: to, Phase: phase}
		out = append(out, m)
		return m
	}
	for _, id := range want {
		switch {
		case !slices.Contains(cfg.Replicas, id):
			add(from(), id, "queued")
		case !slices.Contains(cfg.InSync, id):
			m := add(from(), id, "copy")
			if pr := o.progress[progressKey{cfg.Id, id}]; pr != nil {
				m.DoneBytes, m.TotalBytes = pr.DoneBytes, pr.TotalBytes
				if pr.DoneBytes >= pr.TotalBytes {
					m.Phase = "promote"
				}
			}
		}
	}
	if cfg.HandoverTo != "" {
		add(cfg.Primary, cfg.HandoverTo, "handover")
	} else if cfg.Primary != want[0] && len(out) == 0 {
		m := add(cfg.Primary, want[0], "queued")
		if pr := o.progress[progressKey{cfg.Id, want[0]}]; pr.GetViewsBehind() {
			m.Phase, m.DoneBytes, m.TotalBytes = "state", pr.StateDoneBytes, pr.StateTotalBytes
		}
	}
	for _, id := range surplus {
		add(id, "", "remove")
	}
	return out
}
