package coordinator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// checkRegistration keeps a second node from taking the name of one that lives, and lets it have the name of one that
// doesn't: the recorded state may be some seconds old, so the holder is asked.
func (l *leadership) checkRegistration(ctx context.Context, r *internalv1.RegisterMember) error {
	if r.Member == nil {
		return nil // the applier says so
	}
	st := l.c.State()
	holder := slices.IndexFunc(st.Members, func(m *internalv1.Member) bool {
		return m.State != removed && m.Name == r.Member.Name && m.Id != r.Member.Id
	})
	if holder < 0 {
		return nil
	}
	m := st.Members[holder]
	if m.State == dead || m.State == drained || m.Id == string(l.c.id.node) {
		return nil
	}
	if id := ids.NodeID(m.Id); l.isUp(id) {
		if l.probe(id) == probeOK {
			return nil // the applier refuses
		}
		l.mu.Lock()
		l.tracker.streamEnded(id) // so that it is judged soon
		l.mu.Unlock()
		signal(l.kick)
		return fault.New(fault.Unavailable, "the name %q belongs to %s, which doesn't answer; trying again until it is known to be dead",
			oneLine(m.Name), m.Id).WithReason(ReasonNoLeader).WithRetryAfter(retryStep)
	}
	_, err := l.propose(ctx, setMemberState(m.Id, dead, alive, joining, draining))
	return err
}

func (l *leadership) isUp(id ids.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tracker.up(id)
}

// removeMember is Coordinator.Remove on the leading node.
func (l *leadership) removeMember(ctx context.Context, nameOrID string, force bool) (*internalv1.CommandResult, error) {
	st := l.c.State()
	m := memberNamed(st, nameOrID)
	if m == nil {
		if _, old := findMember(st, nameOrID); old != nil { // removed already
			return &internalv1.CommandResult{Index: st.Index, Member: old}, nil
		}
		return nil, unknownNode(nameOrID)
	}
	id := ids.NodeID(m.Id)
	lives := m.State != dead && m.State != drained && (id == l.c.id.node || l.isUp(id))
	if lives && !force {
		return nil, fault.New(fault.Conflict, "node %q is %s; drain it first, or remove it with --force", m.Name, stateWord(m.State)).
			WithReason(reasonMemberState)
	}
	if id == l.c.id.node && lives {
		if err := l.c.raft.LeadershipTransfer().Error(); err != nil {
			return nil, fault.Wrap(fault.Conflict, err, "node %q leads the cluster and nobody can take over", m.Name).WithReason(reasonLastMember)
		}
		return nil, fault.New(fault.NotPrimary, "leadership has moved").WithReason(ReasonNotLeader).WithRetryAfter(retryStep)
	}
	if id != l.c.id.node && slices.ContainsFunc(st.Partitions, func(p *internalv1.PartitionConfig) bool { return p.Primary == m.Id }) {
		l.mu.Lock()
		l.tracker.condemn(id, time.Now())
		l.mu.Unlock()
		signal(l.kick)
	}
	return l.propose(ctx, &internalv1.Command{Op: &internalv1.Command_RemoveMember{
		RemoveMember: &internalv1.RemoveMember{Id: m.Id, Force: true},
	}})
}

// overview is what only the leader knows.
func (l *leadership) overview() *internalv1.ClusterOverview {
	st, o := l.c.State(), l.outlook()
	out := &internalv1.ClusterOverview{Leader: string(l.c.id.node), Index: st.Index}
	out.Notices = append(notices(st), l.heldNotices(st, o)...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if text := l.stateNotice(o); text != "" {
		out.Notices = append(out.Notices, text)
	}
	out.Tick = uint64(l.newest.tick)
	out.Moves = l.planner.moves(st, o)
	for _, m := range out.Moves {
		m.BytesPerSecond = l.rates.of(progressKey{m.Partition, m.To}, o.now)
	}
	for _, m := range st.Members {
		ms := &internalv1.MemberStatus{Id: m.Id, State: m.State}
		if m.State != removed {
			life := l.tracker.life(ids.NodeID(m.Id))
			ms.Report = life.report
			if m.Id != out.Leader {
				if s := l.tracker.state(m, o.now); s != dead || m.State == dead {
					ms.State = s
				} else {
					ms.State = suspect // until the log has it: what asks for a dead member is refused before
				}
				ms.SilentUs = uint64(max(o.now.Sub(life.sign), 0).Microseconds())
			}
		}
		out.Members = append(out.Members, ms)
	}
	return out
}

// notices tells users what is not as configured.
func notices(st *internalv1.ClusterState) []string {
	var out []string
	serving := 0
	for _, m := range st.Members {
		if m.State == alive {
			serving++
		}
	}
	if n := int(st.Replicas); serving < n && serving > 0 {
		out = append(out, fmt.Sprintf("%d of %d replicas are kept, as %d nodes serve; add nodes for more", serving, n, serving))
	}
	short := 0
	for _, p := range st.Partitions {
		if len(p.InSync) < minInSync(st.Replicas, len(p.Replicas)) {
			short++
		}
	}
	if short > 0 {
		out = append(out, fmt.Sprintf("%d of %d partitions have too few in-sync replicas to take appends", short, len(st.Partitions)))
	}
	return out
}
