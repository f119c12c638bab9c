package coordinator

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// Versions of the formats that this build writes. A higher one that it reads stops the node.
const (
	stateVersion   = 1
	commandVersion = 1
)

// Bounds of the state, so that it always fits into a snapshot and a published state stays cheap to hand around.
const (
	maxPartitions = 4096
	maxReplicas   = 7
	maxMembers    = 1000   // that aren't removed
	maxRecorded   = 10_000 // removed ones included, whose ids must never return
	maxObjects    = 10_000 // streams and views
	maxName       = 63     // bytes, of members, zones and objects
	maxAddress    = 255    // bytes
	maxDefinition = 4 << 20
)

// Reasons of refusals, stable for callers.
const (
	ReasonNotLeader      = "NOT_LEADER"      // this node isn't the leader
	ReasonNoLeader       = "NO_LEADER"       // there is none known
	ReasonOutcomeUnknown = "OUTCOME_UNKNOWN" // the leader was lost as it worked; the command may have taken effect
	ReasonForeignCluster = "FOREIGN_CLUSTER" // the node's data belongs to another cluster
	ReasonNameTaken      = "NAME_TAKEN"      // a live member has the name
	ReasonMemberRemoved  = "MEMBER_REMOVED"  // the id was removed and can't return
	ReasonMinInSync      = "MIN_INSYNC"      // fewer in-sync replicas would be left than a commit needs
	ReasonNotInSync      = "NOT_IN_SYNC"     // a primary must come from the in-sync set
	ReasonLastInSync     = "LAST_IN_SYNC"    // no other member has the partition whole
	ReasonDependents     = "DEPENDENTS"      // other objects use it
	reasonBootstrapped   = "ALREADY_BOOTSTRAPPED"
	reasonStillPrimary   = "STILL_PRIMARY"
	reasonLastMember     = "LAST_MEMBER"
	reasonMemberState    = "MEMBER_STATE"
	reasonUnknownMember  = "UNKNOWN_MEMBER"
	reasonNoHandover     = "NO_HANDOVER"
	reasonWrongNode      = "WRONG_NODE"
)

// emptyState is the state before the first command.
func emptyState() *internalv1.ClusterState { return &internalv1.ClusterState{Version: stateVersion} }

// apply returns the state after cmd, which was committed at index, and cmd's result. It changes neither argument and
// keeps nothing of cmd that its caller may change. A refusal is a *fault.Error and leaves the state as it was (the very
// same pointer). The state's index is raised by changes that a node acts upon only, not by ReserveTicks, so that ticks,
// which carry the index, never wait for a mere reservation to reach every node.
func apply(st *internalv1.ClusterState, index uint64, cmd *internalv1.Command) (*internalv1.ClusterState, *internalv1.CommandResult, error) {
	a := &application{st: fork(st), index: index, cmd: cmd, res: &internalv1.CommandResult{}}
	err := a.dispatch(st)
	if err != nil {
		return st, nil, err
	}
	if !a.changed {
		a.res.Index = st.Index
		return st, a.res, nil
	}
	if _, mere := cmd.Op.(*internalv1.Command_ReserveTicks); !mere {
		a.st.Index = index
	}
	a.res.Index, a.res.ClusterId = a.st.Index, a.st.ClusterId
	return a.st, a.res, nil
}

// application is one command on its way: st is a fork whose slices are still shared with the published state, so they
// are cloned before they are changed.
type application struct {
	st      *internalv1.ClusterState
	index   uint64
	cmd     *internalv1.Command
	res     *internalv1.CommandResult
	changed bool
}

// fork copies the top level only.
func fork(st *internalv1.ClusterState) *internalv1.ClusterState {
	return &internalv1.ClusterState{
		Version: st.Version, ClusterId: st.ClusterId, Index: st.Index, PartitionCount: st.PartitionCount,
		Replicas: st.Replicas, Members: st.Members, Partitions: st.Partitions, Streams: st.Streams, Views: st.Views,
		TickCeiling: st.TickCeiling, NextObjectId: st.NextObjectId,
	}
}

func (a *application) dispatch(old *internalv1.ClusterState) error {
	if b, ok := a.cmd.Op.(*internalv1.Command_Bootstrap); ok {
		return a.bootstrap(b.Bootstrap)
	}
	if old.ClusterId == "" {
		return fault.New(fault.Unavailable, "the cluster isn't bootstrapped yet; try again shortly")
	}
	switch op := a.cmd.Op.(type) {
	case *internalv1.Command_RegisterMember:
		return a.registerMember(op.RegisterMember)
	case *internalv1.Command_SetMemberState:
		return a.setMemberState(op.SetMemberState)
	case *internalv1.Command_RemoveMember:
		return a.removeMember(op.RemoveMember)
	case *internalv1.Command_CreateStream:
		return a.createStream(op.CreateStream)
	case *internalv1.Command_CreateTable:
		return a.createTable(op.CreateTable)
	case *internalv1.Command_CreateView:
		return a.createView(op.CreateView)
	case *internalv1.Command_DropObjects:
		return a.dropObjects(op.DropObjects)
	case *internalv1.Command_SetPartition:
		return a.setPartitions(op.SetPartition)
	case *internalv1.Command_ForcePartition:
		return a.forcePartition(op.ForcePartition)
	case *internalv1.Command_ForceMajority:
		return a.forceMajority(op.ForceMajority)
	case *internalv1.Command_ReserveTicks:
		return a.reserveTicks(op.ReserveTicks)
	case *internalv1.Command_RestartView:
		return a.restartView(op.RestartView)
	case *internalv1.Command_SwapView:
		return a.swapView(op.SwapView)
	case *internalv1.Command_DropReplaced:
		return a.dropReplaced(op.DropReplaced)
	case *internalv1.Command_CreateIndex:
		return a.createIndex(op.CreateIndex)
	case *internalv1.Command_DropIndex:
		return a.dropIndex(op.DropIndex)
	}
	return fault.New(fault.Internal, "command without an operation")
}

func (a *application) bootstrap(b *internalv1.Bootstrap) error {
	if a.st.ClusterId != "" {
		return fault.New(fault.Exists, "the cluster is bootstrapped already, as %s; a data folder is bootstrapped once", a.st.ClusterId).
			WithReason(reasonBootstrapped)
	}
	switch {
	case b.ClusterId == "" || b.Member == nil:
		return fault.New(fault.Invalid, "a bootstrap names the cluster and its first member")
	case b.PartitionCount < 1 || b.PartitionCount > maxPartitions:
		return fault.New(fault.Invalid, "%d partitions: give 1 to %d", b.PartitionCount, maxPartitions)
	case b.Replicas < 1 || b.Replicas > maxReplicas:
		return fault.New(fault.Invalid, "%d replicas: give 1 to %d", b.Replicas, maxReplicas)
	}
	if err := checkMember(b.Member); err != nil {
		return err
	}
	m := cloneMember(b.Member)
	m.State, m.Voter = internalv1.MemberState_MEMBER_STATE_ALIVE, true
	a.st.ClusterId, a.st.PartitionCount, a.st.Replicas = b.ClusterId, b.PartitionCount, b.Replicas
	a.st.Members, a.st.NextObjectId = []*internalv1.Member{m}, 1
	a.st.Partitions = make([]*internalv1.PartitionConfig, b.PartitionCount)
	for p := range a.st.Partitions {
		a.st.Partitions[p] = &internalv1.PartitionConfig{
			Id: uint32(p), Epoch: 1, EpochIndex: a.index, Primary: m.Id, Replicas: []string{m.Id}, InSync: []string{m.Id},
		}
	}
	a.res.Member = m
	a.changed = true
	return nil
}

// reserveTicks never lowers the ceiling: a leader that has the lower one may have issued ticks up to the higher.
func (a *application) reserveTicks(r *internalv1.ReserveTicks) error {
	if r.Ceiling <= a.st.TickCeiling {
		return fault.New(fault.Stale, "ticks up to %d are reserved already, %d asked for", a.st.TickCeiling, r.Ceiling)
	}
	a.st.TickCeiling = r.Ceiling
	a.changed = true
	return nil
}

// setVoters takes over Raft's own configuration, committed at index: Member.voter mirrors it.
func setVoters(st *internalv1.ClusterState, index uint64, voters []string) *internalv1.ClusterState {
	var out *internalv1.ClusterState
	for i, m := range st.Members {
		if voter := slices.Contains(voters, m.Id); voter != m.Voter {
			if out == nil {
				out = fork(st)
				out.Members, out.Index = slices.Clone(st.Members), index
			}
			c := cloneMember(m)
			c.Voter = voter
			out.Members[i] = c
		}
	}
	if out == nil {
		return st
	}
	return out
}

// without returns list less the element x; list itself is not changed.
func without(list []string, x string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(e string) bool { return e == x })
}

// sameSet tells whether both lists, without repetitions, hold the same elements.
func sameSet(a, b []string) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(e string) bool { return !slices.Contains(b, e) })
}

// oneLine keeps what users name from breaking a message into lines.
func oneLine(s string) string { return strings.Map(printable, s) }

func printable(r rune) rune {
	if r < ' ' {
		return '?'
	}
	return r
}
