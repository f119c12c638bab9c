package partition

import (
	"context"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
)

// Config is the settings of a Host.
type Config struct {
	Node ids.NodeID // this node's identity

	// Coordinator changes partitions' configurations for the primaries that are here.
	Coordinator Coordinator
	// LowWater returns the offset from which on views still need a stream's log in a partition, if any do: retention
	// stops there. Nil: nobody needs anything. It is called now and then, from any goroutine, and must not block.
	LowWater func(p ids.PartitionID, stream ids.StreamID) (ids.Offset, bool)
	// Now is the wall clock; nil: time.Now. Its steps do no harm: see clusterClock.
	Now func() time.Time

	// InFlightBytes bounds what this node's primaries have taken and not yet committed, in bytes; as much again may be
	// on its way to disk for other nodes' primaries.
	InFlightBytes int64
	// PartitionBytes bounds the share of one partition, in bytes.
	PartitionBytes int64
	// AppendWait is how long Append blocks for room in these bounds before it refuses with Exhausted.
	AppendWait time.Duration
	// HoldWait is how long an append may wait for its partition to open (a new primary's first tick, a tick as high as
	// its client has seen, a handover) before it is refused with Unavailable.
	HoldWait time.Duration
	// MaxBatchBytes bounds a batch's payload, in bytes.
	MaxBatchBytes int

	// AckTimeout is how long an in-sync replica may leave an entry unacknowledged before it is taken out of the in-sync
	// set.
	AckTimeout time.Duration
	// StartGrace takes its place for replicas that haven't been heard of since this process began: when a cluster
	// starts, some nodes are later than others.
	StartGrace time.Duration
	// CommitTimeout is how long a producer waits for its append at most; it is told that the outcome is unknown.
	CommitTimeout time.Duration
	// MinInSync is how many in-sync replicas a partition must have to take appends. 0: the majority of its members,
	// learners that were never in sync not counted.
	MinInSync int

	// GroupBytes bounds one commit of the log writer, in bytes.
	GroupBytes int
	// FrameBytes bounds one message to a peer, in bytes; a single larger batch travels alone.
	FrameBytes int
	// CopyWindow bounds what is under way to a learner of one partition and not yet acknowledged, in bytes.
	CopyWindow int64
	// CopyLimit bounds what this node reads and sends for copies, in bytes per second; others may share it. Its burst must
	// be MaxBatchBytes at least. Nil: no limit.
	CopyLimit *rate.Limiter

	// RetentionInterval is how often old batches are removed.
	RetentionInterval time.Duration
	// CompactBytes is the size of a table's log in a partition, in bytes, from which on it is compacted by key; 0: never.
	CompactBytes int64
	// CompactMemory bounds the keys that a compaction has in memory, in bytes; what doesn't fit is for the next one.
	CompactMemory int64
	// CompactDelay is how long what was superseded is kept all the same, in ticks (microseconds): what reads a table's rows
	// or changes as of a tick may go back as far.
	CompactDelay ids.Tick
	// ProducerRetention is how long a producer that appends nothing is remembered.
	ProducerRetention time.Duration
	// ProducerCache is how many producers of each partition are kept in memory.
	ProducerCache int
	// CacheBytes bounds the recent batches that are kept in memory for readers, in bytes. 0: none.
	CacheBytes int64
}

// DefaultConfig returns the defaults; Node and Coordinator must be set.
func DefaultConfig() Config {
	return Config{
		InFlightBytes:     64 << 20,
		PartitionBytes:    16 << 20,
		AppendWait:        500 * time.Millisecond,
		HoldWait:          time.Second,
		MaxBatchBytes:     9 << 20,
		AckTimeout:        time.Second,
		StartGrace:        5 * time.Second,
		CommitTimeout:     10 * time.Second,
		GroupBytes:        8 << 20,
		FrameBytes:        768 << 10,
		CopyWindow:        8 << 20,
		RetentionInterval: 10 * time.Second,
		CompactBytes:      16 << 20,
		CompactMemory:     64 << 20,
		CompactDelay:      60_000_000,
		ProducerRetention: 7 * 24 * time.Hour,
		ProducerCache:     4096,
		CacheBytes:        64 << 20,
	}
}

// Validate returns an Invalid error that names the first setting out of range.
func (c *Config) Validate() error {
	bad := func(name, rule string) error { return fault.New(fault.Invalid, "partition: %s must be %s", name, rule) }
	switch {
	case c.Node == "":
		return bad("Node", "set")
	case c.Coordinator == nil:
		return bad("Coordinator", "set")
	case c.MaxBatchBytes < 1<<10 || c.MaxBatchBytes > 256<<20:
		return bad("MaxBatchBytes", "between 1 KiB and 256 MiB")
	case c.InFlightBytes < int64(c.MaxBatchBytes):
		return bad("InFlightBytes", "at least MaxBatchBytes")
	case c.PartitionBytes < int64(c.MaxBatchBytes):
		return bad("PartitionBytes", "at least MaxBatchBytes")
	case c.AppendWait < 0:
		return bad("AppendWait", "0 or more")
	case c.HoldWait <= 0:
		return bad("HoldWait", "positive")
	case c.AckTimeout < 10*time.Millisecond:
		return bad("AckTimeout", "at least 10ms")
	case c.StartGrace < c.AckTimeout:
		return bad("StartGrace", "at least AckTimeout")
	case c.CommitTimeout < c.AckTimeout:
		return bad("CommitTimeout", "at least AckTimeout")
	case c.MinInSync < 0:
		return bad("MinInSync", "0 or more")
	case c.GroupBytes < 64<<10 || c.GroupBytes > 256<<20:
		return bad("GroupBytes", "between 64 KiB and 256 MiB")
	case c.FrameBytes < 16<<10 || c.FrameBytes > 8<<20:
		return bad("FrameBytes", "between 16 KiB and 8 MiB")
	case c.CopyWindow < int64(c.FrameBytes):
		return bad("CopyWindow", "at least FrameBytes")
	case c.CopyLimit != nil && c.CopyLimit.Burst() < c.MaxBatchBytes:
		return bad("CopyLimit", "able to burst MaxBatchBytes")
	case c.RetentionInterval <= 0:
		return bad("RetentionInterval", "positive")
	case c.CompactBytes < 0:
		return bad("CompactBytes", "0 or more")
	case c.CompactMemory < 1<<10:
		return bad("CompactMemory", "at least 1 KiB")
	case c.ProducerRetention <= 0:
		return bad("ProducerRetention", "positive")
	case c.ProducerCache < 16:
		return bad("ProducerCache", "at least 16")
	case c.CacheBytes < 0:
		return bad("CacheBytes", "0 or more")
	}
	return nil
}

// Peers gives connections to other members. Calls may run at once; the connections are shared and not closed here.
type Peers interface {
	Conn(node ids.NodeID) (grpc.ClientConnInterface, error)
}

// Coordinator changes partitions' configurations. The calls may block until ctx ends, and may run at once; each is a
// compare-and-set on the epoch. An error of the kinds Conflict, NotFound, Invalid or Unsupported says for sure that
// nothing was changed and won't be by this call; any other leaves it open.
type Coordinator interface {
	// RemoveFromInSync takes a member that doesn't answer, or whose copy is damaged, out of the in-sync set. node may be
	// this node itself, when its own copy is damaged: then the partition needs another primary.
	RemoveFromInSync(ctx context.Context, p ids.PartitionID, epoch ids.Epoch, node ids.NodeID) error
	// AddToInSync makes an in-sync member of a learner that has everything.
	AddToInSync(ctx context.Context, p ids.PartitionID, epoch ids.Epoch, node ids.NodeID) error
	// CompleteHandover makes node the primary: this node takes no appends any more and everything is committed.
	CompleteHandover(ctx context.Context, p ids.PartitionID, epoch ids.Epoch, node ids.NodeID) error
	// RequestTick asks for a tick soon: a batch came in quiet times. It must not block.
	RequestTick()
}
