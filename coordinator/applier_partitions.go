package coordinator

import (
	"slices"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

func clonePartition(p *internalv1.PartitionConfig) *internalv1.PartitionConfig {
	return &internalv1.PartitionConfig{
		Id: p.Id, Epoch: p.Epoch, Primary: p.Primary, Replicas: slices.Clone(p.Replicas), InSync: slices.Clone(p.InSync),
		EpochIndex: p.EpochIndex, HandoverTo: p.HandoverTo, ForcedEpoch: p.ForcedEpoch,
	}
}

// minInSync is the least number of in-sync replicas that a planned change leaves: the majority of the target, or of
// the replicas that there are while the cluster is smaller than the target.
func minInSync(target uint32, replicas int) int { return min(int(target), replicas)/2 + 1 }

// setPartitions applies each change on its own. One that is refused alone is an error; among several it is reported.
func (a *application) setPartitions(s *internalv1.SetPartition) error {
	parts := slices.Clone(a.st.Partitions)
	for _, ch := range s.Changes {
		next, err := a.changePartition(parts, ch)
		if err != nil {
			if len(s.Changes) == 1 {
				return err
			}
			r := &internalv1.PartitionRefusal{Reason: err.GetReason(), Message: err.Error()}
			if c := ch.Config; c != nil {
				r.Partition = c.Id
				if int(c.Id) < len(parts) {
					r.Epoch = parts[c.Id].Epoch
				}
			}
			a.res.Refused = append(a.res.Refused, r)
			continue
		}
		if next != parts[next.Id] {
			parts[next.Id] = next
			a.changed = true
		}
		a.res.Partitions = append(a.res.Partitions, next)
	}
	if a.changed {
		a.st.Partitions = parts
	}
	return nil
}

func (a *application) changePartition(parts []*internalv1.PartitionConfig, ch *internalv1.PartitionChange) (*internalv1.PartitionConfig, *fault.Error) {
	if ch.Config == nil || int(ch.Config.Id) >= len(parts) {
		return nil, fault.New(fault.NotFound, "no such partition; there are %d", len(parts))
	}
	cur, want := parts[ch.Config.Id], ch.Config
	if sameConfig(cur, want) && (cur.Epoch == ch.ExpectedEpoch || cur.Epoch == ch.ExpectedEpoch+1) {
		return cur, nil // what was asked for is so already: a repeat
	}
	if cur.Epoch != ch.ExpectedEpoch {
		return nil, fault.New(fault.Stale, "partition %d is in epoch %d, not %d", cur.Id, cur.Epoch, ch.ExpectedEpoch)
	}
	if err := a.checkConfig(cur, want, ch.Failover, ch.Unsafe); err != nil {
		return nil, err
	}
	next := clonePartition(want)
	next.Epoch, next.EpochIndex, next.ForcedEpoch = cur.Epoch, cur.EpochIndex, cur.ForcedEpoch
	if next.Primary != cur.Primary || !sameSet(next.Replicas, cur.Replicas) || !sameSet(next.InSync, cur.InSync) {
		next.Epoch, next.EpochIndex = cur.Epoch+1, a.index
	}
	return next, nil
}

// forcePartition gives a partition the primary that an operator wants, above all rules but those of shape. The epoch rises
// and is noted as forced: replicas that have more than that primary may let go of it.
func (a *application) forcePartition(f *internalv1.ForcePartition) error {
	if f.Config == nil || int(f.Config.Id) >= len(a.st.Partitions) {
		return fault.New(fault.NotFound, "no such partition; there are %d", len(a.st.Partitions))
	}
	cur, want := a.st.Partitions[f.Config.Id], f.Config
	if cur.Epoch == f.ExpectedEpoch+1 && cur.ForcedEpoch == cur.Epoch && sameConfig(cur, want) {
		a.res.Partitions = []*internalv1.PartitionConfig{cur} // a repeat
		return nil
	}
	if cur.Epoch != f.ExpectedEpoch {
		return fault.New(fault.Stale, "partition %d is in epoch %d, not %d", cur.Id, cur.Epoch, f.ExpectedEpoch)
	}
	if err := a.checkShape(want); err != nil {
		return err
	}
	next := clonePartition(want)
	next.Epoch, next.EpochIndex = cur.Epoch+1, a.index
	next.ForcedEpoch = next.Epoch
	a.st.Partitions = slices.Clone(a.st.Partitions)
	a.st.Partitions[next.Id] = next
	a.changed = true
	a.res.Partitions = []*internalv1.PartitionConfig{next}
	return nil
}

func sameConfig(a, b *internalv1.PartitionConfig) bool {
	return a.Primary == b.Primary && a.HandoverTo == b.HandoverTo && sameSet(a.Replicas, b.Replicas) && sameSet(a.InSync, b.InSync)
}

// checkConfig holds the rules that keep every acknowledged record: whoever becomes primary was in sync, whoever becomes
// in-sync was a learner first, and the in-sync set isn't shrunk by plan below the least number. Only an operator who
// says unsafe is above them.
func (a *application) checkConfig(cur, want *internalv1.PartitionConfig, failover, unsafe bool) *fault.Error {
	if f := a.checkShape(want); f != nil || unsafe {
		return f
	}
	if !slices.Contains(cur.InSync, want.Primary) {
		return fault.New(fault.Conflict, "partition %d: %s is not in sync, so it can't become primary", cur.Id, want.Primary).
			WithReason(ReasonNotInSync)
	}
	if want.Primary != cur.Primary && want.Primary != cur.HandoverTo && !failover {
		return fault.New(fault.Conflict, "partition %d: no handover to %s is under way", cur.Id, want.Primary).WithReason(reasonNoHandover)
	}
	shrinks := false
	for _, id := range cur.InSync {
		shrinks = shrinks || !slices.Contains(want.InSync, id)
	}
	for _, id := range want.InSync {
		if !slices.Contains(cur.Replicas, id) {
			return fault.New(fault.Conflict, "partition %d: %s holds no replica yet, so it can't be in sync", cur.Id, id).
				WithReason(ReasonNotInSync)
		}
	}
	if least := minInSync(a.st.Replicas, len(want.Replicas)); shrinks && !failover && len(want.InSync) < least {
		return fault.New(fault.Conflict, "partition %d: %d in-sync replicas would be left, at least %d are needed",
			cur.Id, len(want.InSync), least).WithReason(ReasonMinInSync)
	}
	return nil
}

// checkShape checks a configuration by itself.
func (a *application) checkShape(want *internalv1.PartitionConfig) *fault.Error {
	if len(want.Replicas) > 2*maxReplicas {
		return fault.New(fault.Invalid, "partition %d: %d replicas, at most %d while they move", want.Id, len(want.Replicas), 2*maxReplicas)
	}
	for i, id := range want.Replicas {
		if _, m := findMember(a.st, id); m == nil || m.State == removed {
			return fault.New(fault.NotFound, "partition %d: %s is not a member", want.Id, oneLine(id)).WithReason(reasonUnknownMember)
		}
		if slices.Contains(want.Replicas[:i], id) {
			return fault.New(fault.Invalid, "partition %d: %s is named twice among the replicas", want.Id, id)
		}
	}
	for i, id := range want.InSync {
		if !slices.Contains(want.Replicas, id) || slices.Contains(want.InSync[:i], id) {
			return fault.New(fault.Invalid, "partition %d: in-sync member %s is no replica, or is named twice", want.Id, oneLine(id))
		}
	}
	if !slices.Contains(want.InSync, want.Primary) {
		return fault.New(fault.Invalid, "partition %d: the primary %q is not in the in-sync set", want.Id, oneLine(want.Primary))
	}
	if h := want.HandoverTo; h != "" && (h == want.Primary || !slices.Contains(want.InSync, h)) {
		return fault.New(fault.Conflict, "partition %d: handover to %s, which is not another in-sync member", want.Id, oneLine(h)).
			WithReason(ReasonNotInSync)
	}
	return nil
}
