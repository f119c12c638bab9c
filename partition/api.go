package partition

import (
	"time"

	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// LSN numbers the entries of a partition's log, all streams together: 1, 2, ... without gaps. 0 is before the first.
type LSN uint64

// AppendRequest is one batch for one partition. The batch isn't copied and must not change until done was called.
type AppendRequest struct {
	Partition ids.PartitionID
	Stream    ids.StreamID
	Batch     *millracev1.Batch
	SeenTick  ids.Tick // the highest tick that the client has seen: the batch is stamped no lower
	// UnchangedSince, if not 0, is a closed tick: the batch is refused (fault.Conflict, ReasonChanged) when the stream
	// has any record here that is stamped above it.
	UnchangedSince ids.Tick
	// Generated says that the batch holds no records: readers make its Count records from their offsets. It must begin at Base:
	// else it is refused (fault.Conflict, ReasonChanged).
	Generated bool
	Base      ids.Offset
}

// ReasonChanged is the reason of a conditional append's refusal.
const ReasonChanged = "CHANGED_SINCE"

// AppendResult tells where a batch went.
type AppendResult struct {
	BaseOffset ids.Offset
	Count      uint32
	Tick       ids.Tick
	Duplicate  bool // it was there already; the rest is as it was then
}

// Batch is one batch of a log.
type Batch struct {
	BaseOffset        ids.Offset
	Count             uint32
	Tick              ids.Tick
	Epoch             ids.Epoch
	TimeMicros        int64 // when the primary took it, microseconds since the Unix epoch; never decreases in a partition
	ProducerID        uint64
	Sequence          uint64
	Compression       millracev1.Compression
	UncompressedBytes uint32
	Payload           []byte
}

// Raw returns the encoded Records, decompressed. It may use dst's memory; of a batch that isn't compressed it returns
// the payload itself. Corrupted when the payload doesn't decompress to what the header says.
func (b *Batch) Raw(dst []byte) ([]byte, error) {
	if b.Compression == millracev1.Compression_COMPRESSION_NONE {
		return b.Payload, nil
	}
	return record.Decompress(dst[:0], b.Payload, b.Compression, int(b.UncompressedBytes))
}

// LogEnd is the extent of a stream's log in a partition, as far as it is committed.
type LogEnd struct {
	Start    ids.Offset // of the first record
	End      ids.Offset // after the last record
	LastTick ids.Tick   // of the last batch ever committed; 0: none
	Bytes    int64      // of the payloads between Start and End
	// Settled: the primary is here and has heard all in-sync members since it took over, so that everything acknowledged
	// before is below End. A primary that has just started knows less at first.
	Settled bool
}

// Closing says that a partition has closed every tick up to Tick: its logs up to there are committed and final.
type Closing struct {
	Partition ids.PartitionID
	Epoch     ids.Epoch
	Tick      ids.Tick
	End       LSN          // of the log then: whoever has it up to there, committed, has all that is stamped up to Tick
	Data      []StreamTick // streams that got records since the partition's Closing before this one
}

// StreamTick is the highest closed tick in which a stream got records.
type StreamTick struct {
	Stream ids.StreamID
	Tick   ids.Tick
}

// Role is what a replica does.
type Role uint8

const (
	RoleNone     Role = iota // waits for a configuration as new as what it has seen
	RolePrimary              // orders appends
	RoleFollower             // in sync
	RoleLearner              // copies
	RoleFailed               // its copy is damaged, or held; it serves nothing
)

var roleNames = [...]string{"none", "primary", "follower", "learner", "failed"}

func (r Role) String() string { return roleNames[r] }

// ReplicaStatus describes one replica of this node.
type ReplicaStatus struct {
	Partition ids.PartitionID
	Role      Role
	Epoch     ids.Epoch
	Last      LSN // of its log
	Commit    LSN
	Open      ids.Tick // primary: stamped on appends now; 0: not open yet
	Closed    ids.Tick // primary
	EndBytes  int64    // payloads retained, all streams
	Err       error    // RoleFailed: why
	Held      bool     // RoleFailed: its copy is whole, and has what the primary's log lacks
	Learners  []LearnerStatus
}

// LearnerStatus is how far a learner has come, as its primary knows it.
type LearnerStatus struct {
	Node        ids.NodeID
	Done, Total int64 // bytes
}

// Load is how busy the log is. Counters run since the process began.
type Load struct {
	Appends        uint64        // counter: batches taken
	AppendBytes    uint64        // counter: their payloads
	Refused        uint64        // counter: appends refused, for whatever reason
	Groups         uint64        // counter: commits of the log writer
	PendingAppends int64         // taken, not yet committed
	PendingBytes   int64         // of these
	CommitTime     time.Duration // from append to commit, moving average

	Compactions    uint64 // counter: of tables' logs, in one partition each
	CopiedRecords  uint64 // counter: rows that these appended again
	CompactedBytes uint64 // counter: what they removed
}

// LogPosition is how long a replica's log is.
type LogPosition struct {
	Partition ids.PartitionID
	Epoch     ids.Epoch // the newest that it knows
	LastEpoch ids.Epoch // in which its last durable entry was appended
	LastBoot  uint64    // of the primary that appended it
	Last      LSN
	Commit    LSN
}

// Rank orders the positions of in-sync members: the higher, the longer the log. Any in-sync member has everything that
// was committed; the longest keeps the most of what wasn't yet, so that fewer producers have to send again.
func (p LogPosition) Rank() uint64 {
	const bits = 40 // 2^40 entries of a partition, 2^24 epochs; beyond, the order is only less good
	return min(uint64(p.LastEpoch), 1<<(64-bits)-1)<<bits | min(uint64(p.Last), 1<<bits-1)
}
