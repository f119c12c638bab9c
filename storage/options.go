package storage

import (
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/internal/fault"
)

// Options configure a store. The zero value of a field that DefaultOptions sets isn't valid.
type Options struct {
	// FS is the file system; vfs.Default is the machine's own.
	FS vfs.FS
	// Cache holds uncompressed blocks and is shared by the stores that are given the same one; nil: the store makes its
	// own of CacheBytes.
	Cache *Cache
	// CacheBytes is the size of the store's own cache, in bytes; unused with Cache. At least 1 MiB.
	CacheBytes int64
	// MemTableBytes is the size of one table in memory, in bytes, on top of the cache. A log store has up to four of them, a
	// state store three; while the oldest is being flushed, writes go to the next.
	MemTableBytes int
	// HighWaterBytes is the free space of the disk, in bytes, below which Room says that nothing new should be taken, which
	// ends by itself once there is an eighth more. 0, or anything below ReserveBytes: that is the mark.
	HighWaterBytes uint64
	// ReserveBytes is the free space of the disk, in bytes, below which batches larger than 4 KiB that aren't only
	// deletions are refused with Exhausted DISK_FULL (which ends by itself once there is space again), so that retention
	// and Raft still have room to make space. 0 turns it off.
	ReserveBytes uint64
	// Logger gets Pebble's warnings and errors, and its events at debug level.
	Logger *slog.Logger

	reclaimAfter time.Duration // 0: the constant; tests shorten it
}

// DefaultOptions are good for a machine with some GiB of memory.
func DefaultOptions() Options {
	return Options{
		FS:             vfs.Default,
		CacheBytes:     64 << 20,
		MemTableBytes:  64 << 20,
		HighWaterBytes: 512 << 20,
		ReserveBytes:   256 << 20,
		Logger:         slog.Default(),
	}
}

// fitDisk makes the tables in memory and the marks smaller than asked for on a disk of so few bytes that they would take
// most of it: the tables become files, and what is kept free is a part of the disk.
func (o *Options) fitDisk(total uint64) {
	o.MemTableBytes = max(int(min(uint64(o.MemTableBytes), total/64)), minMemTable)
	o.HighWaterBytes = min(o.HighWaterBytes, total/4)
	o.ReserveBytes = min(o.ReserveBytes, total/8)
}

const minMemTable = 256 << 10

// Validate returns Invalid for a field out of range.
func (o *Options) Validate() error {
	switch {
	case o.FS == nil:
		return fault.New(fault.Invalid, "storage: FS is nil; use vfs.Default")
	case o.Logger == nil:
		return fault.New(fault.Invalid, "storage: Logger is nil")
	case o.Cache == nil && o.CacheBytes < 1<<20:
		return fault.New(fault.Invalid, "storage: a cache of %d bytes is too small; give at least 1 MiB", o.CacheBytes)
	case o.MemTableBytes < minMemTable || o.MemTableBytes > 1<<30:
		return fault.New(fault.Invalid, "storage: a memtable of %d bytes is out of range; give 256 KiB to 1 GiB", o.MemTableBytes)
	}
	return nil
}

// Cache holds uncompressed blocks for the stores that share it.
type Cache struct {
	bytes  int64
	mu     sync.Mutex
	c      *pebble.Cache // made for the first store
	closed bool
}

// NewCache makes a cache of that many bytes, for a log and a state store with memtables of the same size. Close releases
// it after the stores that use it were closed.
func NewCache(bytes int64) *Cache { return &Cache{bytes: bytes} }

// Close gives the memory back once no store uses it. Safe to call twice; no store may be opened with it any more.
func (c *Cache) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.c != nil && !c.closed {
		c.c.Unref()
	}
	c.closed = true
}

// use returns the cache for one more store, which has to Unref it. Pebble takes the memory of memtables out of the cache,
// which with memtables as large as ours would leave it none, so that every Get reads a filter from the file; hence the
// addition.
func (c *Cache) use(memTableBytes int) (*pebble.Cache, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fault.New(fault.Internal, "storage: a store is opened with a cache that was closed")
	}
	if c.c == nil {
		c.c = pebble.NewCache(c.bytes + int64(memTableBytes)*(logMemTables+stateMemTables))
	}
	c.c.Ref()
	return c.c, nil
}

// How many memtables a store has at most, the ones being flushed included.
const (
	logMemTables   = 4
	stateMemTables = 3
)
