package coordinator

import (
	"cmp"
	"slices"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

const (
	joining  = internalv1.MemberState_MEMBER_STATE_JOINING
	alive    = internalv1.MemberState_MEMBER_STATE_ALIVE
	suspect  = internalv1.MemberState_MEMBER_STATE_SUSPECT
	dead     = internalv1.MemberState_MEMBER_STATE_DEAD
	draining = internalv1.MemberState_MEMBER_STATE_DRAINING
	drained  = internalv1.MemberState_MEMBER_STATE_DRAINED
	removed  = internalv1.MemberState_MEMBER_STATE_REMOVED
)

// stateWord is a member's state as users read it.
func stateWord(s internalv1.MemberState) string {
	switch s {
	case joining:
		return "joining"
	case alive:
		return "alive"
	case suspect:
		return "suspect"
	case dead:
		return "dead"
	case draining:
		return "draining"
	case drained:
		return "drained"
	case removed:
		return "removed"
	}
	return "unknown"
}

func cloneMember(m *internalv1.Member) *internalv1.Member {
	return &internalv1.Member{
		Id: m.Id, Name: m.Name, Zone: m.Zone, Grpc: m.Grpc, Gossip: m.Gossip, Http: m.Http, Pg: m.Pg,
		Weight: m.Weight, State: m.State, Voter: m.Voter,
	}
}

func checkMember(m *internalv1.Member) error {
	switch {
	case m.Id == "" || len(m.Id) > maxName:
		return fault.New(fault.Invalid, "a member's id has 1 to %d bytes, not %d", maxName, len(m.Id))
	case m.Name == "" || len(m.Name) > maxName || !utf8.ValidString(m.Name):
		return fault.New(fault.Invalid, "a node's name has 1 to %d bytes of UTF-8, not %d; give another with --name", maxName, len(m.Name))
	case len(m.Zone) > maxName || !utf8.ValidString(m.Zone):
		return fault.New(fault.Invalid, "a node's zone has up to %d bytes of UTF-8, not %d; give another with --zone", maxName, len(m.Zone))
	case m.Grpc == "" || len(m.Grpc) > maxAddress || len(m.Gossip) > maxAddress || len(m.Http) > maxAddress || len(m.Pg) > maxAddress:
		return fault.New(fault.Invalid, "node %q: addresses have 1 to %d bytes", oneLine(m.Name), maxAddress)
	case !(m.Weight >= 0 && m.Weight <= 1e6): // also NaN
		return fault.New(fault.Invalid, "node %q: weight %v is not between 0 and 1000000", oneLine(m.Name), m.Weight)
	}
	return nil
}

func findMember(st *internalv1.ClusterState, id string) (int, *internalv1.Member) {
	i, ok := slices.BinarySearchFunc(st.Members, id, func(m *internalv1.Member, id string) int { return cmp.Compare(m.Id, id) })
	if !ok {
		return i, nil
	}
	return i, st.Members[i]
}

// memberNamed finds the member, not removed, that has the name or id.
func memberNamed(st *internalv1.ClusterState, nameOrID string) *internalv1.Member {
	var byID *internalv1.Member
	for _, m := range st.Members {
		switch {
		case m.State == removed:
		case m.Name == nameOrID:
			return m
		case m.Id == nameOrID:
			byID = m
		}
	}
	return byID
}

// setMember puts m at its place; the slice of the published state is left alone.
func (a *application) setMember(m *internalv1.Member) {
	i, old := findMember(a.st, m.Id)
	a.st.Members = slices.Clone(a.st.Members)
	if old != nil {
		a.st.Members[i] = m
	} else {
		a.st.Members = slices.Insert(a.st.Members, i, m)
	}
	a.changed = true
}

func (a *application) registerMember(r *internalv1.RegisterMember) error {
	in := r.Member
	if in == nil {
		return fault.New(fault.Invalid, "a registration names a member")
	}
	if r.ClusterId != "" && r.ClusterId != a.st.ClusterId {
		return foreignCluster(r.ClusterId, a.st.ClusterId)
	}
	if err := checkMember(in); err != nil {
		return err
	}
	_, old := findMember(a.st, in.Id)
	if old != nil && old.State == removed {
		return fault.New(fault.Conflict, "node %q (%s) was removed from the cluster; to join again, start it with an empty data folder",
			old.Name, old.Id).WithReason(ReasonMemberRemoved)
	}
	if err := a.freeName(in); err != nil {
		return err
	}
	m := cloneMember(in)
	m.State, m.Voter = joining, false
	if old != nil {
		m.State, m.Voter = old.State, old.Voter
		// A node that was declared dead or drained and starts again serves again.
		if old.State == dead || old.State == drained {
			m.State = joining
		}
	} else if err := a.roomForMember(); err != nil {
		return err
	}
	a.res.Member, a.res.ClusterId = m, a.st.ClusterId
	if old != nil && sameMember(old, m) {
		return nil
	}
	a.setMember(m)
	return nil
}

func sameMember(a, b *internalv1.Member) bool {
	return a.Name == b.Name && a.Zone == b.Zone && a.Grpc == b.Grpc && a.Gossip == b.Gossip && a.Http == b.Http && a.Pg == b.Pg &&
		a.Weight == b.Weight && a.State == b.State && a.Voter == b.Voter
}

func foreignCluster(own, other string) *fault.Error {
	return fault.New(fault.Conflict, "this node's data belongs to cluster %s, but it was told to join cluster %s; "+
		"start it with an empty data folder, or without --join", own, other).WithReason(ReasonForeignCluster)
}

func (a *application) roomForMember() error {
	n := 0
	for _, m := range a.st.Members {
		if m.State != removed {
			n++
		}
	}
	if n >= maxMembers || len(a.st.Members) >= maxRecorded {
		return fault.New(fault.Exhausted, "the cluster has %d members, %d with removed ones; the limits are %d and %d",
			n, len(a.st.Members), maxMembers, maxRecorded)
	}
	return nil
}

// freeName makes in's name free for it: a dead or drained member that has it makes place, as the node came back with an
// empty folder; a live one keeps it.
func (a *application) freeName(in *internalv1.Member) error {
	for _, m := range a.st.Members {
		if m.Name != in.Name || m.Id == in.Id || m.State == removed {
			continue
		}
		if m.State != dead && m.State != drained {
			return fault.New(fault.Exists, "the name %q belongs to another member (%s at %s, %s); give this node another with --name",
				oneLine(in.Name), m.Id, m.Grpc, stateWord(m.State)).WithReason(ReasonNameTaken)
		}
		if err := a.takeOut(m); err != nil {
			return err
		}
		return nil
	}
	return nil
}

func (a *application) setMemberState(s *internalv1.SetMemberState) error {
	_, m := findMember(a.st, s.Id)
	if m == nil {
		return fault.New(fault.NotFound, "no member has the id %s", oneLine(s.Id)).WithReason(reasonUnknownMember)
	}
	a.res.Member = m
	if m.State == s.State {
		return nil
	}
	if m.State == removed {
		return fault.New(fault.Conflict, "node %q was removed from the cluster", m.Name).WithReason(ReasonMemberRemoved)
	}
	if len(s.From) > 0 && !slices.Contains(s.From, m.State) {
		return fault.New(fault.Conflict, "node %q is %s", m.Name, stateWord(m.State)).WithReason(reasonMemberState)
	}
	switch s.State {
	case joining, alive, dead:
	case draining:
		if !a.othersServe(m.Id) {
			return fault.New(fault.Conflict, "node %q is the last one that serves; add another before draining it", m.Name).
				WithReason(reasonLastMember)
		}
	case drained:
		if n := holdings(a.st, m.Id); n > 0 || m.Voter {
			return fault.New(fault.Conflict, "node %q still holds %d replicas (voter: %v)", m.Name, n, m.Voter).WithReason(reasonMemberState)
		}
	default:
		return fault.New(fault.Invalid, "a member can't be set to %s", stateWord(s.State))
	}
	c := cloneMember(m)
	c.State = s.State
	a.setMember(c)
	a.res.Member = c
	return nil
}

func (a *application) othersServe(id string) bool {
	return slices.ContainsFunc(a.st.Members, func(m *internalv1.Member) bool { return m.Id != id && m.State == alive })
}

// holdings counts the partitions that a member holds or copies.
func holdings(st *internalv1.ClusterState, id string) int {
	n := 0
	for _, p := range st.Partitions {
		if slices.Contains(p.Replicas, id) {
			n++
		}
	}
	return n
}

func (a *application) removeMember(r *internalv1.RemoveMember) error {
	_, m := findMember(a.st, r.Id)
	if m == nil {
		return fault.New(fault.NotFound, "no member has the id %s", oneLine(r.Id)).WithReason(reasonUnknownMember)
	}
	if m.State == removed {
		a.res.Member = m
		return nil
	}
	if m.State != dead && m.State != drained && !r.Force {
		return fault.New(fault.Conflict, "node %q is %s; drain it first, or remove it with --force", m.Name, stateWord(m.State)).
			WithReason(reasonMemberState)
	}
	if !slices.ContainsFunc(a.st.Members, func(o *internalv1.Member) bool { return o.Id != m.Id && o.State != removed }) {
		return fault.New(fault.Conflict, "node %q is the only member of the cluster", m.Name).WithReason(reasonLastMember)
	}
	return a.takeOut(m)
}

// takeOut removes m from every partition and marks it removed. It refuses when a partition would be left without an
// in-sync replica, or without a primary: those are failed over first.
func (a *application) takeOut(m *internalv1.Member) error {
	parts := slices.Clone(a.st.Partitions)
	for i, p := range parts {
		if !slices.Contains(p.Replicas, m.Id) {
			continue
		}
		if len(p.InSync) == 1 && p.InSync[0] == m.Id {
			return fault.New(fault.Conflict, "node %q alone has partition %d whole; bring it back until another has caught up", m.Name, p.Id).
				WithReason(ReasonLastInSync)
		}
		if p.Primary == m.Id {
			return fault.New(fault.Unavailable, "node %q is the primary of partition %d; it fails over first", m.Name, p.Id).
				WithReason(reasonStillPrimary).WithRetryAfter(retryStep)
		}
		c := clonePartition(p)
		c.Replicas, c.InSync = without(p.Replicas, m.Id), without(p.InSync, m.Id)
		c.Epoch, c.EpochIndex = p.Epoch+1, a.index
		if c.HandoverTo == m.Id {
			c.HandoverTo = ""
		}
		parts[i] = c
	}
	a.st.Partitions = parts
	c := cloneMember(m)
	c.State, c.Voter = removed, false
	a.setMember(c)
	a.res.Member = c
	return nil
}
