package storage

import (
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/internal/fault"
)

// RaftStore is Raft's log and stable store in a log store, next to everything else there. Every write is on the disk
// when it returns; its fsync is shared with what the partitions commit at the same time.
type RaftStore struct {
	s *Store

	// first and last are the ends of the log, which Raft asks for much more often than it moves them. Both 0: no entries.
	mu          sync.Mutex
	known       bool
	first, last uint64
}

var (
	_ raft.LogStore    = (*RaftStore)(nil)
	_ raft.StableStore = (*RaftStore)(nil)
)

// RaftLog returns Raft's stores in s. There must be no more than one at a time.
func RaftLog(s *Store) *RaftStore { return &RaftStore{s: s} }

// errRaftKeyNotFound has the text that hashicorp/raft compares with (api.go, raft.go: `err.Error() != "not found"`).
var errRaftKeyNotFound = errors.New("not found")

// ends returns the ends of the log; mu is held.
func (r *RaftStore) ends() (first, last uint64, err error) {
	if r.known {
		return r.first, r.last, nil
	}
	it, err := r.s.Iter(prefixRange([]byte{prefixRaftLog}))
	if err != nil {
		return 0, 0, err
	}
	if it.First() {
		first, err = raftIndex(it.Key())
	}
	if err == nil && it.Last() {
		last, err = raftIndex(it.Key())
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		r.known, r.first, r.last = true, first, last
	}
	return first, last, err
}

func raftIndex(key []byte) (uint64, error) {
	if len(key) != RaftLogKeyLen {
		return 0, fault.New(fault.Corrupted, "storage: %x isn't the key of a Raft entry", key)
	}
	return binary.BigEndian.Uint64(key[1:]), nil
}

// FirstIndex returns the index of the first entry, 0 when there is none.
func (r *RaftStore) FirstIndex() (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first, _, err := r.ends()
	return first, err
}

// LastIndex returns the index of the last entry, 0 when there is none.
func (r *RaftStore) LastIndex() (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, last, err := r.ends()
	return last, err
}

// GetLog fills log with the entry at index; raft.ErrLogNotFound when there is none.
func (r *RaftStore) GetLog(index uint64, log *raft.Log) error {
	v, closer, err := r.s.Get(RaftLogKey(index))
	if errors.Is(err, fault.Of(fault.NotFound)) {
		return raft.ErrLogNotFound
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	return decodeRaftLog(v, index, log)
}

// StoreLog writes one entry.
func (r *RaftStore) StoreLog(log *raft.Log) error { return r.StoreLogs([]*raft.Log{log}) }

// StoreLogs writes entries, all of them or none, over those that are there.
func (r *RaftStore) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	b := r.s.NewBatch()
	defer b.Close()
	low, high := uint64(math.MaxUint64), uint64(0)
	for _, l := range logs {
		key, value := b.SetDeferred(RaftLogKeyLen, raftLogLen(l))
		key[0] = prefixRaftLog
		binary.BigEndian.PutUint64(key[1:], l.Index)
		encodeRaftLog(value, l)
		low, high = min(low, l.Index), max(high, l.Index)
	}
	return r.change(b, func() {
		if r.first == 0 || low < r.first {
			r.first = low
		}
		r.last = max(r.last, high)
	})
}

// change commits b and then moves the ends, so that no one sees an end that isn't on the disk.
func (r *RaftStore) change(b *Batch, move func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, _, err := r.ends(); err != nil {
		return err
	}
	if err := r.s.Commit(b, true); err != nil {
		r.known = false
		return err
	}
	move()
	return nil
}

// DeleteRange removes the entries from low to high, both inclusive.
func (r *RaftStore) DeleteRange(low, high uint64) error {
	if low > high {
		return nil
	}
	b := r.s.NewBatch()
	defer b.Close()
	_, hi := prefixRange(RaftLogKey(high))
	b.DeleteRange(RaftLogKey(low), hi)
	return r.change(b, func() { r.known = false }) // gaps are allowed, so only a look tells where the ends are now
}

// Set stores a value under key.
func (r *RaftStore) Set(key, val []byte) error {
	b := r.s.NewBatch()
	defer b.Close()
	b.Set(RaftStableKey(key), val)
	return r.s.Commit(b, true)
}

// Get returns the value under key; an error with the text "not found", as Raft wants it, when there is none.
func (r *RaftStore) Get(key []byte) ([]byte, error) {
	v, closer, err := r.s.Get(RaftStableKey(key))
	if errors.Is(err, fault.Of(fault.NotFound)) {
		return nil, errRaftKeyNotFound
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte{}, v...), nil
}

// SetUint64 stores a number under key.
func (r *RaftStore) SetUint64(key []byte, val uint64) error {
	return r.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 returns the number under key, 0 when there is none.
func (r *RaftStore) GetUint64(key []byte) (uint64, error) {
	v, err := r.Get(key)
	if errors.Is(err, errRaftKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fault.New(fault.Corrupted, "storage: Raft's %q holds %d bytes, not a number", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// An entry's value (its index is in its key):
//
//	version:1 type:1 term:8 appended at, nanoseconds since 1970, 0 unknown:8 data length:uvarint data extensions
//
// Pebble checks its own blocks, so there is no checksum here.
const (
	raftLogVersion = 1
	raftLogHeader  = 1 + 1 + 8 + 8
)

func raftLogLen(l *raft.Log) int {
	var b [binary.MaxVarintLen64]byte
	return raftLogHeader + binary.PutUvarint(b[:], uint64(len(l.Data))) + len(l.Data) + len(l.Extensions)
}

// encodeRaftLog fills dst, which has raftLogLen bytes.
func encodeRaftLog(dst []byte, l *raft.Log) {
	dst[0], dst[1] = raftLogVersion, byte(l.Type)
	binary.BigEndian.PutUint64(dst[2:], l.Term)
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	binary.BigEndian.PutUint64(dst[10:], uint64(at))
	n := raftLogHeader + binary.PutUvarint(dst[raftLogHeader:], uint64(len(l.Data)))
	n += copy(dst[n:], l.Data)
	copy(dst[n:], l.Extensions)
}

// decodeRaftLog fills l with copies of what src holds.
func decodeRaftLog(src []byte, index uint64, l *raft.Log) error {
	if len(src) < raftLogHeader+1 {
		return fault.New(fault.Corrupted, "storage: the Raft entry at %d has only %d bytes", index, len(src))
	}
	if src[0] != raftLogVersion {
		return fault.New(fault.Unsupported, "storage: the Raft entry at %d has version %d; this Millrace knows version %d",
			index, src[0], raftLogVersion)
	}
	data, extensions, ok := cutBytes(src[raftLogHeader:])
	if !ok {
		return fault.New(fault.Corrupted, "storage: the Raft entry at %d is cut short", index)
	}
	*l = raft.Log{Index: index, Type: raft.LogType(src[1]), Term: binary.BigEndian.Uint64(src[2:])}
	if at := int64(binary.BigEndian.Uint64(src[10:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	l.Data = append([]byte{}, data...)
	if len(extensions) > 0 {
		l.Extensions = append([]byte{}, extensions...)
	}
	return nil
}
