package partition

import (
	"fmt"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

type simCall struct {
	n    *simNode
	boot uint64
	r    *replica
	c    call
	late bool // the caller doesn't wait any more
}

func configText(c *internalv1.PartitionConfig) string {
	out := fmt.Sprintf("epoch %d from %d: primary %s, replicas %v, in sync %v", c.Epoch, c.EpochIndex, c.Primary, c.Replicas, c.InSync)
	if c.HandoverTo != "" {
		out += ", to hand over to " + c.HandoverTo
	}
	return out
}

// change makes a new configuration when the epoch is the expected one.
func (s *sim) change(epoch ids.Epoch, fn func(*internalv1.PartitionConfig) bool) error {
	last := s.last()
	old := last.Partitions[0]
	if ids.Epoch(old.Epoch) != epoch {
		return fault.New(fault.Stale, "stale")
	}
	cfg := &internalv1.PartitionConfig{
		Epoch: old.Epoch, Primary: old.Primary, Replicas: slices.Clone(old.Replicas), InSync: slices.Clone(old.InSync),
		EpochIndex: old.EpochIndex, HandoverTo: old.HandoverTo, ForcedEpoch: old.ForcedEpoch,
	}
	if !fn(cfg) {
		return fault.New(fault.Conflict, "no")
	}
	st := &internalv1.ClusterState{
		Index: last.Index + 1, Replicas: last.Replicas, Streams: last.Streams, NextObjectId: last.NextObjectId,
		Partitions: []*internalv1.PartitionConfig{cfg},
	}
	if cfg.Primary != old.Primary || !slices.Equal(cfg.Replicas, old.Replicas) || !slices.Equal(cfg.InSync, old.InSync) {
		cfg.Epoch, cfg.EpochIndex = old.Epoch+1, st.Index
	}
	s.states = append(s.states, st)
	s.trace("configuration %s", configText(cfg))
	return nil
}

// answer carries out a call to the coordinator; the answer may get lost.
func (s *sim) answer() {
	if len(s.calls) == 0 {
		return
	}
	i := s.rng.IntN(len(s.calls))
	x := s.calls[i]
	if !s.healing && !x.late && s.chance(15) { // the caller gives up; the call gets there later
		s.calls[i].late = true
		s.called(x, fault.New(fault.Unavailable, "no answer"))
		return
	}
	s.calls = slices.Delete(s.calls, i, i+1)
	err := s.change(x.c.epoch, func(cfg *internalv1.PartitionConfig) bool {
		id := string(x.c.node)
		switch x.c.kind {
		case callRemove:
			if cfg.Primary == id || !slices.Contains(cfg.InSync, id) {
				return false
			}
			cfg.InSync = slices.DeleteFunc(cfg.InSync, func(m string) bool { return m == id })
		case callAdd:
			if !slices.Contains(cfg.Replicas, id) || slices.Contains(cfg.InSync, id) {
				return false
			}
			cfg.InSync = append(cfg.InSync, id)
		case callHandover:
			if cfg.HandoverTo != id || !slices.Contains(cfg.InSync, id) {
				return false
			}
			cfg.Primary, cfg.HandoverTo = id, ""
		}
		return true
	})
	if !s.healing && s.chance(20) {
		err = fault.New(fault.Unavailable, "no answer")
	}
	if !x.late {
		s.called(x, err)
	}
}

func (s *sim) called(x simCall, err error) {
	if x.n.up && x.n.boot == x.boot && x.n.r == x.r {
		x.r.called(s.now, x.c, err)
		x.n.drain()
	}
}

// reconfigure: failovers, justified or not, handovers, moves of replicas.
func (s *sim) reconfigure() {
	if s.forgetful.undecided() {
		return
	}
	old := s.last().Partitions[0]
	_ = s.change(ids.Epoch(old.Epoch), func(cfg *internalv1.PartitionConfig) bool {
		switch s.rng.IntN(5) {
		case 0, 1: // failover
			var live []string
			members := cfg.InSync
			if planted("primary outside the in-sync set") {
				members = cfg.Replicas
			}
			for _, m := range members {
				if s.node(ids.NodeID(m)).up && (m != cfg.Primary || s.chance(20)) {
					live = append(live, m)
				}
			}
			if len(live) == 0 {
				return false
			}
			cfg.Primary, cfg.InSync, cfg.HandoverTo = live[s.rng.IntN(len(live))], live, ""
		case 2:
			to := cfg.InSync[s.rng.IntN(len(cfg.InSync))]
			if to == cfg.Primary {
				to = ""
			}
			cfg.HandoverTo = to
		case 3: // a replica more
			id := string(s.pick().id)
			if slices.Contains(cfg.Replicas, id) {
				return false
			}
			cfg.Replicas = append(cfg.Replicas, id)
		case 4: // a replica less
			id := string(s.pick().id)
			if id == cfg.Primary || len(cfg.InSync) == 1 || len(cfg.Replicas) <= 3 {
				return false
			}
			not := func(m string) bool { return m == id }
			cfg.Replicas, cfg.InSync = slices.DeleteFunc(cfg.Replicas, not), slices.DeleteFunc(cfg.InSync, not)
			if cfg.HandoverTo == id {
				cfg.HandoverTo = ""
			}
		}
		return true
	})
}
