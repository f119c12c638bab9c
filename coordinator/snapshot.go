package coordinator

import (
	"bytes"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// maxSnapshot bounds a snapshot, in bytes: it is held in memory as it is written and read.
const maxSnapshot = 256 << 20

const snapshotKey = "raft_snapshot"

// snapshotStore keeps the newest snapshot in the log store, replaced in one synced write: there is never half a one.
// It implements raft.SnapshotStore.
type snapshotStore struct{ meta metaStore }

// Create implements raft.SnapshotStore.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != raft.SnapshotVersionMax {
		return nil, fault.New(fault.Unsupported, "snapshot of Raft's format %d", version)
	}
	return &snapshotSink{store: s, snap: &internalv1.RaftSnapshot{
		Version: stateVersion, Id: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: raft.EncodeConfiguration(c), ConfigurationIndex: cIndex,
	}}, nil
}

func (s *snapshotStore) load() (*internalv1.RaftSnapshot, error) {
	b, ok, err := s.meta.get(snapshotKey)
	if err != nil || !ok {
		return nil, err
	}
	return decodeSnapshot(b)
}

func decodeSnapshot(b []byte) (*internalv1.RaftSnapshot, error) {
	snap := &internalv1.RaftSnapshot{}
	if err := proto.Unmarshal(b, snap); err != nil {
		return nil, fault.Wrap(fault.Corrupted, err, "the Raft snapshot of %d bytes is damaged", len(b))
	}
	if snap.Version == 0 || snap.Version > stateVersion {
		return nil, fault.New(fault.Corrupted, "Raft snapshot of format %d, this build knows up to %d; run a newer version", snap.Version, stateVersion)
	}
	return snap, nil
}

func snapshotMeta(snap *internalv1.RaftSnapshot) (m *raft.SnapshotMeta, err error) {
	// DecodeConfiguration panics on what it can't decode.
	defer func() {
		if r := recover(); r != nil {
			err = fault.New(fault.Corrupted, "the Raft snapshot's configuration is damaged: %v", r)
		}
	}()
	return &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: snap.Id, Index: snap.Index, Term: snap.Term,
		Configuration: raft.DecodeConfiguration(snap.Configuration), ConfigurationIndex: snap.ConfigurationIndex,
		Size: int64(len(snap.State)),
	}, nil
}

// List implements raft.SnapshotStore.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	snap, err := s.load()
	if err != nil || snap == nil {
		return nil, err
	}
	m, err := snapshotMeta(snap)
	if err != nil {
		return nil, err
	}
	return []*raft.SnapshotMeta{m}, nil
}

// Open implements raft.SnapshotStore.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	snap, err := s.load()
	if err != nil {
		return nil, nil, err
	}
	if snap == nil || snap.Id != id {
		return nil, nil, fault.New(fault.NotFound, "Raft snapshot %s is gone, a newer one replaced it", id)
	}
	m, err := snapshotMeta(snap)
	if err != nil {
		return nil, nil, err
	}
	return m, io.NopCloser(bytes.NewReader(snap.State)), nil
}

type snapshotSink struct {
	store *snapshotStore
	snap  *internalv1.RaftSnapshot
	done  bool
}

// Write implements io.Writer.
func (s *snapshotSink) Write(b []byte) (int, error) {
	if len(s.snap.State)+len(b) > maxSnapshot {
		return 0, fault.New(fault.TooLarge, "Raft snapshot beyond %d bytes", maxSnapshot)
	}
	s.snap.State = append(s.snap.State, b...)
	return len(b), nil
}

// Close implements io.Closer: the snapshot replaces the one before, unless that is newer.
func (s *snapshotSink) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	if old, err := s.store.load(); err == nil && old != nil && old.Index > s.snap.Index {
		return nil
	}
	b, err := proto.Marshal(s.snap)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "Raft snapshot can't be encoded")
	}
	return s.store.meta.set(map[string][]byte{snapshotKey: b})
}

// ID implements raft.SnapshotSink.
func (s *snapshotSink) ID() string { return s.snap.Id }

// Cancel implements raft.SnapshotSink.
func (s *snapshotSink) Cancel() error {
	s.done = true
	s.snap.State = nil
	return nil
}
