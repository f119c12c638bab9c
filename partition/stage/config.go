package stage

import (
	"context"
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/storage"
)

// Config is the settings of a Runtime.
type Config struct {
	NodeID ids.NodeID // this node's identity

	// Workers is how many goroutines run stages; usually GOMAXPROCS.
	Workers int
	// ChunkBytes is how much of a log, in bytes of encoded records, a worker handles before it looks for other work.
	ChunkBytes int
	// DirtyBytes bounds what all targets together keep in memory before it is written to the state store.
	DirtyBytes int64
	// CacheBytes bounds the clean state that all targets together keep in memory.
	CacheBytes int64
	// DecodedBytes bounds the decoded records that are kept for other views to read.
	DecodedBytes int64
	// ScratchBytes bounds what the sources keep to work in from one tick to the next, all together; those that have rested
	// longest make it anew.
	ScratchBytes int64
	// ExchangeBytes bounds the rows that are under way to this node's targets or wait there, for all views together.
	ExchangeBytes int64
	// FeedBytes is what a feed (the rows of one source partition for a view's targets here) is granted of it at least.
	FeedBytes int64
	// FlushInterval is how long changes stay in memory before they go to the state store; longer where writing them
	// takes more than a twentieth of it, or while a view's history is read, which a crash may well set back.
	FlushInterval time.Duration
	// DurableInterval is how often the state store is made durable when a stream's retention waits for it.
	DurableInterval time.Duration

	// RetainTicks is for how long output deltas are kept, in ticks (microseconds): how far back a read or the resume of
	// a subscription may reach.
	RetainTicks ids.Tick
	// RetainBytes bounds the kept output deltas of all targets together, in bytes; the oldest go first.
	RetainBytes int64
	// RecentBytes bounds the part of them that is kept in memory too.
	RecentBytes int64

	// UndoBytes bounds the encoded output deltas that a read takes back in a partition to reach an older tick.
	UndoBytes int

	// ReadBytes bounds the rows of a view that a read hands over at a time, about; one row may be larger.
	ReadBytes int
	// RestBytes is how much a read takes from the state store before it lets go, for a moment, of what it reads from, so that
	// the store can free it.
	RestBytes int

	// RetryMin and RetryMax bound the pause before something that failed for now is tried again.
	RetryMin, RetryMax time.Duration
	// ShareWait is how long a new scan of a view's history waits for the other nodes' readers, to be read once for all.
	ShareWait time.Duration

	// Ship is how state gets to the other replicas.
	Ship ShipConfig
}

// DefaultConfig returns the defaults; NodeID and Workers must be set.
func DefaultConfig() Config {
	return Config{
		ChunkBytes:      1 << 20,
		DirtyBytes:      128 << 20,
		CacheBytes:      256 << 20,
		DecodedBytes:    32 << 20,
		ScratchBytes:    128 << 20,
		ExchangeBytes:   128 << 20,
		FeedBytes:       16 << 10,
		FlushInterval:   time.Second,
		DurableInterval: 30 * time.Second,
		RetainTicks:     60_000_000,
		RetainBytes:     1 << 30,
		RecentBytes:     64 << 20,
		UndoBytes:       256 << 20,
		ReadBytes:       256 << 10,
		RestBytes:       4 << 20,
		RetryMin:        10 * time.Millisecond,
		RetryMax:        2 * time.Second,
		ShareWait:       200 * time.Millisecond,
		Ship:            DefaultShipConfig(),
	}
}

// Validate returns an Invalid error that names the first setting out of range.
func (c *Config) Validate() error {
	bad := func(name string) error { return fault.New(fault.Invalid, "stage: %s must be set and positive", name) }
	switch {
	case c.NodeID == "":
		return bad("NodeID")
	case c.Workers <= 0:
		return bad("Workers")
	case c.ChunkBytes <= 0:
		return bad("ChunkBytes")
	case c.DirtyBytes <= 0:
		return bad("DirtyBytes")
	case c.CacheBytes <= 0:
		return bad("CacheBytes")
	case c.DecodedBytes <= 0:
		return bad("DecodedBytes")
	case c.ScratchBytes <= 0:
		return bad("ScratchBytes")
	case c.ExchangeBytes <= 0:
		return bad("ExchangeBytes")
	case c.FeedBytes <= 0:
		return bad("FeedBytes")
	case c.FlushInterval <= 0:
		return bad("FlushInterval")
	case c.DurableInterval <= 0:
		return bad("DurableInterval")
	case c.RetainTicks == 0:
		return bad("RetainTicks")
	case c.ReadBytes <= 0:
		return bad("ReadBytes")
	case c.RestBytes <= 0:
		return bad("RestBytes")
	case c.UndoBytes <= 0:
		return bad("UndoBytes")
	case c.RetainBytes <= 0:
		return bad("RetainBytes")
	case c.RecentBytes <= 0:
		return bad("RecentBytes")
	case c.RetryMin <= 0 || c.RetryMax < c.RetryMin:
		return fault.New(fault.Invalid, "stage: RetryMin must be positive and not above RetryMax")
	case c.ShareWait < 0:
		return fault.New(fault.Invalid, "stage: ShareWait must not be negative")
	}
	return c.Ship.validate()
}

// LogBatch is one committed batch of a stream's log.
type LogBatch struct {
	BaseOffset ids.Offset
	Count      uint32
	Tick       ids.Tick
	TimeMicros int64
	// Raw returns the encoded Records, decompressed; it may use dst's memory, or return memory that is the batch's own.
	Raw func(dst []byte) ([]byte, error)
}

// LogReader reads the logs of the partitions that this node holds. Calls may run at once.
type LogReader interface {
	// ReadTicks hands the committed batches of a stream to fn, in order, from the one that holds from, or the first one
	// above, up to the last with a tick <= maxTick, until fn returns false or an error. A batch is valid during fn.
	ReadTicks(p ids.PartitionID, stream ids.StreamID, from ids.Offset, maxTick ids.Tick, fn func(*LogBatch) (more bool, err error)) error
	// End returns the offset of the first record that is there and the offset after the last committed one.
	End(p ids.PartitionID, stream ids.StreamID) (start, end ids.Offset, err error)
}

// Peers gives connections to other members. Calls may run at once; the connections are shared and not closed here.
type Peers interface {
	Conn(node ids.NodeID) (grpc.ClientConnInterface, error)
}

// Store is the node's state store.
type Store interface {
	NewBatch() *storage.Batch
	NewBatchOf(bytes int) *storage.Batch
	Commit(b *storage.Batch, sync bool) error
	Get(key []byte) ([]byte, io.Closer, error)
	Iter(lo, hi []byte) (*storage.Iter, error)
	Snapshot() *storage.Snapshot
	Flush() error
}

// Closing tells that a partition has closed a tick: its logs up to it are final.
type Closing struct {
	Partition ids.PartitionID
	Epoch     ids.Epoch
	Tick      ids.Tick
	End       uint64       // of the partition's log: who has it up to there, committed, has all up to Tick
	Data      []StreamTick // streams that got records since the partition's last Closing
}

// StreamTick is the highest closed tick in which a stream got records.
type StreamTick struct {
	Stream ids.StreamID
	Tick   ids.Tick
}

// Deps is what a Runtime works with.
type Deps struct {
	Store  Store
	Logs   LogReader
	Peers  Peers
	Logger *slog.Logger
	// Committed tells how far this node's log of a partition, of which it needn't be the primary, is known to be
	// committed, in the numbers of Closing.End. Nil: other replicas' logs aren't read here.
	Committed func(p ids.PartitionID) (uint64, error)
	// Restart, if not nil, lets a view begin anew, at a later tick, in the whole cluster, unless created isn't its
	// created_tick any more: what it reads of another view isn't retained. Without it such a view fails.
	Restart func(ctx context.Context, view ids.StreamID, created ids.Tick) error
}
