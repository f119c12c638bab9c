package coordinator

import (
	"slices"

	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// judge compares a state with the one before it and the command between them.
func (s *simulation) judge(before, after *internalv1.ClusterState, cmd *internalv1.Command, index uint64) {
	s.t.Helper()
	if before.ClusterId != "" && after.ClusterId != before.ClusterId {
		s.violated("cluster-id", "cluster %s became %s", before.ClusterId, after.ClusterId)
	}
	if after.TickCeiling < before.TickCeiling {
		s.violated("ceiling-falls", "from %d to %d", before.TickCeiling, after.TickCeiling)
	}
	if _, mere := cmd.Op.(*internalv1.Command_ReserveTicks); mere && after.Index != before.Index {
		s.violated("index", "a reservation raised it from %d to %d", before.Index, after.Index)
	} else if after.Index != before.Index && after.Index != index {
		s.violated("index", "the entry at %d raised it from %d to %d", index, before.Index, after.Index)
	}
	s.judgeMembers(before, after, cmd)
	for p := range before.Partitions {
		s.judgePartition(before, after, p, cmd, index)
	}
	s.judgeShape(after)
	s.judgeObjects(before, after)
}

func (s *simulation) judgeMembers(before, after *internalv1.ClusterState, cmd *internalv1.Command) {
	s.t.Helper()
	now := map[string]*internalv1.Member{}
	named := map[string]string{}
	for _, m := range after.Members {
		now[m.Id] = m
		if m.State == removed {
			continue
		}
		if other, taken := named[m.Name]; taken {
			s.violated("names", "members %s and %s are both called %s", other, m.Id, m.Name)
		}
		named[m.Name] = m.Id
	}
	for _, m := range before.Members {
		n := now[m.Id]
		switch {
		case n == nil:
			s.violated("ids", "member %s is forgotten", m.Id)
		case m.State == removed && n.State != removed:
			s.violated("ids", "member %s was removed, and is back", m.Id)
		case m.State == removed || n.State == m.State:
		case n.State == drained && (n.Voter || holdings(before, m.Id) > 0):
			s.violated("drained", "member %s holds %d replicas, voter: %v", m.Id, holdings(before, m.Id), n.Voter)
		case n.State == removed && m.State != dead && m.State != drained && !cmd.GetRemoveMember().GetForce():
			s.violated("removal", "member %s was removed while it was %v", m.Id, m.State)
		}
	}
}

// judgePartition holds the rules that keep every acknowledged record.
func (s *simulation) judgePartition(before, after *internalv1.ClusterState, p int, cmd *internalv1.Command, index uint64) {
	s.t.Helper()
	was, is := before.Partitions[p], after.Partitions[p]
	changed := was.Primary != is.Primary || !sameElements(was.Replicas, is.Replicas) || !sameElements(was.InSync, is.InSync)
	if changed && (is.Epoch != was.Epoch+1 || is.EpochIndex != index) || !changed && (is.Epoch != was.Epoch || is.EpochIndex != was.EpochIndex) {
		s.violated("epoch", "at %d: %v became %v", index, was, is)
	}
	if !changed && was.HandoverTo == is.HandoverTo {
		return
	}
	var ch *internalv1.PartitionChange // nil: a member was taken out
	for _, c := range cmd.GetSetPartition().GetChanges() {
		if c.Config.GetId() == uint32(p) {
			ch = c
		}
	}
	if ch != nil && ch.ExpectedEpoch != was.Epoch {
		s.violated("compare-and-set", "%v, expected in epoch %d, became %v", was, ch.ExpectedEpoch, is)
	}
	if !slices.Contains(was.InSync, is.Primary) {
		s.violated("primary-in-sync", "%v became %v", was, is)
	}
	if is.Primary != was.Primary && !ch.GetFailover() && was.HandoverTo != is.Primary {
		s.violated("handover", "%v became %v", was, is)
	}
	for _, id := range is.InSync {
		if !slices.Contains(was.Replicas, id) {
			s.violated("learner", "%v became %v", was, is)
		}
	}
	kept := 0
	for _, id := range was.InSync {
		if slices.Contains(is.InSync, id) {
			kept++
		}
	}
	least := min(int(before.Replicas), len(is.Replicas))/2 + 1
	if kept < len(was.InSync) && ch != nil && !ch.Failover && len(is.InSync) < least {
		s.violated("min-in-sync", "%v became %v", was, is)
	}
	if kept == 0 {
		s.violated("whole", "nobody who has partition %d whole is in %v, which was %v", p, is, was)
	}
}

func sameElements(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// judgeShape looks at each partition by itself.
func (s *simulation) judgeShape(st *internalv1.ClusterState) {
	s.t.Helper()
	present := map[string]bool{}
	for _, m := range st.Members {
		present[m.Id] = m.State != removed
	}
	for _, p := range st.Partitions {
		seen := map[string]bool{}
		for _, id := range p.Replicas {
			if seen[id] || !present[id] {
				s.violated("shape", "%v has %s twice, or it is no member", p, id)
			}
			seen[id] = true
		}
		for _, id := range p.InSync {
			if !seen[id] {
				s.violated("shape", "%v has %s in sync, twice or without a replica", p, id)
			}
			seen[id] = false
		}
		if !slices.Contains(p.InSync, p.Primary) || p.HandoverTo != "" && !slices.Contains(p.InSync, p.HandoverTo) {
			s.violated("shape", "%v has a primary, or one to come, that isn't in sync", p)
		}
	}
}

func (s *simulation) judgeObjects(before, after *internalv1.ClusterState) {
	s.t.Helper()
	there := func(st *internalv1.ClusterState) (ids map[uint64]string) {
		ids = map[uint64]string{}
		for _, x := range st.Streams {
			ids[x.Stream.Id] = x.Stream.Name
		}
		for _, v := range st.Views {
			ids[v.Id] = v.Name
		}
		return ids
	}
	old, now := there(before), there(after)
	if len(now) != len(after.Streams)+len(after.Views) {
		s.violated("ids", "two objects have one id: %v", now)
	}
	for id := range now {
		if old[id] == "" && s.objects[id] {
			s.violated("ids", "object %d is another than it was", id)
		}
		s.objects[id] = true
	}
	names := map[string]bool{}
	logs := map[uint64]bool{}
	for _, v := range after.Views {
		logs[v.Table] = v.Table != 0
		if v.Table != 0 && now[v.Table] == "" {
			s.violated("tables", "table %s has lost its log", v.Name)
		}
		for _, dep := range v.DependsOn {
			if now[dep] == "" {
				s.violated("depends", "view %s uses %d, which isn't there", v.Name, dep)
			}
		}
		if names[v.Name] {
			s.violated("names", "two objects are called %s", v.Name)
		}
		names[v.Name] = true
	}
	for _, x := range after.Streams {
		if table := len(x.Stream.PrimaryKey) > 0; table != logs[x.Stream.Id] {
			s.violated("tables", "the log of table %s is left behind", x.Stream.Name)
		} else if !table && names[x.Stream.Name] {
			s.violated("names", "two objects are called %s", x.Stream.Name)
		}
		names[x.Stream.Name] = true
	}
}
