package coordinator

import (
	"context"
	"log/slog"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/storage"
)

// LostMajority is what a stopped node's folder knows of a cluster most of whose voters are lost.
type LostMajority struct {
	Cluster string
	Node    string // name
	ID      ids.NodeID
	Voters  []string // names, this node's among them if it is one
	// LastTerm and LastIndex are where the folder's Raft log ends. Of several nodes that are left the one with the highest
	// term, then index, knows the most.
	LastTerm, LastIndex uint64
	Partitions          int
	Elsewhere           []ids.PartitionID // that have no copy in sync on this node
}

// forcedKey is the fact that ForceMajority leaves in the folder for the node's next start.
const forcedKey = "forced_majority"

// InspectMajority tells what ForceMajority would go on from. The node must be stopped: the store is its log store.
// Invalid: the folder belongs to no cluster.
func InspectMajority(store *storage.Store, log *slog.Logger) (*LostMajority, error) {
	f := newFolder(store)
	return f.inspect(log)
}

// ForceMajority makes a stopped node the only voter of its cluster, with the state that its own Raft log gives. All entries
// of that log count as committed; what only the lost voters knew of is forgotten. When the node starts next it leads, and
// its first command leaps over the epochs, object ids and ticks that the lost majority may have given out.
func ForceMajority(store *storage.Store, log *slog.Logger) (*LostMajority, error) {
	f := newFolder(store)
	out, err := f.inspect(log)
	if err != nil {
		return nil, err
	}
	// First the note: a crash in between leaves a leap that harms nobody.
	if err := f.meta.set(map[string][]byte{forcedKey: {1}}); err != nil {
		return nil, err
	}
	cfg := DefaultConfig()
	id := string(out.ID)
	_, trans := raft.NewInmemTransport(raft.ServerAddress(id))
	only := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)}}}
	var broken error
	machine := newFSM(func(err error) { broken = err })
	err = raft.RecoverCluster(raftConfig(&cfg, id, newRaftLogger(log)), machine, f.stores.logs, f.stores.stable, f.stores.snapshots, trans, only)
	if broken != nil {
		err = broken
	}
	if err != nil {
		return nil, fault.Wrap(fault.Corrupted, err, "the folder's Raft log can't be recovered")
	}
	return out, nil
}

// folder is what lies in a node's log store for its coordinator.
type folder struct {
	meta   logMeta
	stores raftStores
}

func newFolder(store *storage.Store) *folder {
	meta, rs := logMeta{store}, storage.RaftLog(store)
	return &folder{meta, raftStores{logs: rs, stable: rs, snapshots: &snapshotStore{meta}}}
}

func (f *folder) inspect(log *slog.Logger) (*LostMajority, error) {
	if _, ok, err := f.meta.get(clusterIDKey); err != nil {
		return nil, err
	} else if !ok {
		return nil, fault.New(fault.Invalid, "the folder belongs to no cluster")
	}
	id, err := loadIdentity(f.meta)
	if err != nil {
		return nil, err
	}
	st, servers, out, err := f.replay()
	if err != nil {
		return nil, err
	}
	out.Cluster, out.ID, out.Partitions = id.cluster, id.node, len(st.Partitions)
	_, m := findMember(st, string(id.node))
	if m == nil || m.State == removed {
		return nil, fault.New(fault.Invalid, "the folder's Raft log doesn't have this node, %s, as a member of the cluster", id.node)
	}
	out.Node = m.Name
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		name := string(s.ID)
		if _, m := findMember(st, name); m != nil {
			name = m.Name
		}
		out.Voters = append(out.Voters, name)
	}
	for _, p := range st.Partitions {
		if !slices.Contains(p.InSync, string(id.node)) {
			out.Elsewhere = append(out.Elsewhere, ids.PartitionID(p.Id))
		}
	}
	log.Debug("read the folder's Raft log", "term", out.LastTerm, "index", out.LastIndex)
	return out, nil
}

// replay computes the state that the snapshot and the whole Raft log give, and finds the newest configuration of Raft.
func (f *folder) replay() (st *internalv1.ClusterState, servers []raft.Server, out *LostMajority, err error) {
	var broken error
	machine := newFSM(func(err error) { broken = err })
	out = &LostMajority{}
	snaps, err := f.stores.snapshots.List()
	if err != nil {
		return nil, nil, nil, err
	}
	if len(snaps) > 0 {
		meta, source, err := f.stores.snapshots.Open(snaps[0].ID)
		if err != nil {
			return nil, nil, nil, err
		}
		if err := machine.Restore(source); err != nil {
			return nil, nil, nil, err
		}
		out.LastTerm, out.LastIndex, servers = meta.Term, meta.Index, meta.Configuration.Servers
	}
	last, err := f.stores.logs.LastIndex()
	if err != nil {
		return nil, nil, nil, err
	}
	for i := out.LastIndex + 1; i <= last; i++ {
		var l raft.Log
		if err := f.stores.logs.GetLog(i, &l); err != nil {
			return nil, nil, nil, fault.Wrap(fault.Corrupted, err, "entry %d of the Raft log", i)
		}
		switch l.Type {
		case raft.LogCommand:
			machine.Apply(&l)
		case raft.LogConfiguration:
			c := raft.DecodeConfiguration(l.Data)
			machine.StoreConfiguration(l.Index, c)
			servers = c.Servers
		}
		if broken != nil {
			return nil, nil, nil, broken
		}
		out.LastTerm, out.LastIndex = l.Term, l.Index
	}
	return machine.state.Load(), servers, out, nil
}

// afterForcedMajority is the first command of a node that ForceMajority made the only voter.
func (c *Coordinator) afterForcedMajority(ctx context.Context, stamp func(*internalv1.Command) *internalv1.Command) error {
	note, ok, err := c.meta.get(forcedKey)
	if err != nil || !ok || len(note) == 0 {
		return err
	}
	c.log.Warn("an operator made this node the only voter; epochs, object ids and ticks leap", "node", c.id.node)
	cmd := stamp(&internalv1.Command{Op: &internalv1.Command_ForceMajority{ForceMajority: &internalv1.ForceMajority{
		Voter: string(c.id.node), Ceiling: uint64(c.cfg.Ticks.Window.Microseconds()),
	}}})
	cmd.Op.(*internalv1.Command_ForceMajority).ForceMajority.Ceiling += cmd.TimeUs
	if _, err := c.commit(ctx, cmd); err != nil {
		return err
	}
	return c.meta.set(map[string][]byte{forcedKey: {}})
}

// What a lost majority may have given out that the one node left doesn't know of is leapt over.
const (
	epochLeap  = 1 << 16
	objectLeap = 1 << 10
)

// forceMajority follows ForceMajority, on every node that is left.
func (a *application) forceMajority(f *internalv1.ForceMajority) error {
	if _, m := findMember(a.st, f.Voter); m == nil || m.State == removed {
		return fault.New(fault.NotFound, "%s is not a member", oneLine(f.Voter)).WithReason(reasonUnknownMember)
	}
	a.st.Members = setVoters(a.st, a.index, []string{f.Voter}).Members
	a.st.TickCeiling = max(a.st.TickCeiling, f.Ceiling)
	a.st.NextObjectId += objectLeap
	a.st.Partitions = slices.Clone(a.st.Partitions)
	for i, p := range a.st.Partitions {
		next := clonePartition(p)
		next.Epoch, next.EpochIndex, next.HandoverTo = p.Epoch+epochLeap, a.index, ""
		a.st.Partitions[i] = next
	}
	a.changed = true
	return nil
}
