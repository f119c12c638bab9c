package coordinator

import (
	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

func encodeCommand(cmd *internalv1.Command) ([]byte, error) {
	b, err := proto.Marshal(cmd)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "command can't be encoded")
	}
	if len(b) > maxCommand {
		return nil, fault.New(fault.TooLarge, "command of %d bytes, at most %d", len(b), maxCommand)
	}
	return b, nil
}

// maxCommand bounds an entry of the Raft log, in bytes.
const maxCommand = maxDefinition + 64<<10

// decodeCommand fails on anything that this build doesn't know whole: to skip an entry that other nodes apply would let
// the states drift apart.
func decodeCommand(b []byte) (*internalv1.Command, error) {
	cmd := &internalv1.Command{}
	if err := proto.Unmarshal(b, cmd); err != nil {
		return nil, fault.Wrap(fault.Corrupted, err, "entry of %d bytes is not a command", len(b))
	}
	if cmd.Version == 0 || cmd.Version > commandVersion {
		return nil, fault.New(fault.Corrupted, "command of format %d, this build knows up to %d; run a newer version", cmd.Version, commandVersion)
	}
	if cmd.Op == nil {
		return nil, fault.New(fault.Corrupted, "command without an operation that this build knows; run a newer version")
	}
	return cmd, nil
}

func encodeState(st *internalv1.ClusterState) ([]byte, error) {
	b, err := proto.Marshal(st)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cluster state can't be encoded")
	}
	return b, nil
}

// decodeState checks what the applier relies on: order by id, and partitions at their places.
func decodeState(b []byte) (*internalv1.ClusterState, error) {
	st := &internalv1.ClusterState{}
	if err := proto.Unmarshal(b, st); err != nil {
		return nil, fault.Wrap(fault.Corrupted, err, "snapshot of %d bytes is not a cluster state", len(b))
	}
	if st.Version == 0 || st.Version > stateVersion {
		return nil, fault.New(fault.Corrupted, "cluster state of format %d, this build knows up to %d; run a newer version", st.Version, stateVersion)
	}
	if int(st.PartitionCount) != len(st.Partitions) {
		return nil, fault.New(fault.Corrupted, "cluster state with %d of %d partitions", len(st.Partitions), st.PartitionCount)
	}
	for i, p := range st.Partitions {
		if int(p.GetId()) != i {
			return nil, fault.New(fault.Corrupted, "cluster state with partition %d at place %d", p.GetId(), i)
		}
	}
	for i, m := range st.Members {
		if m.GetId() == "" || i > 0 && st.Members[i-1].Id >= m.Id {
			return nil, fault.New(fault.Corrupted, "cluster state whose members are out of order at %d", i)
		}
	}
	for i, s := range st.Streams {
		if s.GetStream() == nil || i > 0 && st.Streams[i-1].Stream.Id >= s.Stream.Id {
			return nil, fault.New(fault.Corrupted, "cluster state whose streams are out of order at %d", i)
		}
	}
	for i, v := range st.Views {
		if v.GetId() == 0 || i > 0 && st.Views[i-1].Id >= v.Id {
			return nil, fault.New(fault.Corrupted, "cluster state whose views are out of order at %d", i)
		}
	}
	return st, nil
}
