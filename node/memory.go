package node

import (
	"bytes"
	"math"
	"os"
	"strconv"

	"github.com/millrace/millrace/internal/fault"
)

// Bounds of Config.Memory, in bytes.
const (
	LeastMemory   = 256 << 20
	defaultMemory = 1 << 30 // where the machine's memory isn't known, and at least
)

// tablesInMemory is how many of a store's tables are in memory at most, of both stores together.
const tablesInMemory = 7

// Budget is how a node divides the memory that it is given among what takes more the more it gets, in bytes. Each part is
// one figure for the whole node: its views, partitions and connections share it. The sum is less than the total: the rest
// is for what is there anyhow (code, stacks, Raft, messages under way), and for what the garbage collector hasn't collected.
type Budget struct {
	Total int64

	// What Go's runtime doesn't see.
	Tables     int64 // of both stores, before they become files
	BlockCache int64 // of both stores

	// What it does, and keeps Go below: Heap is its limit.
	Heap      int64
	InFlight  int64 // appends that the primaries here took and didn't commit; as much again of other nodes' primaries
	Ingest    int64 // appends of clients that are held here, wherever they go
	Batches   int64 // recent batches, for readers of logs
	Dirty     int64 // state of views that isn't in the store yet
	State     int64 // state of views that is, kept for the operators
	Exchange  int64 // rows under way to views' stages
	Decoded   int64 // decoded records that several views read
	Scratch   int64 // what the first stages of views work in, kept from one tick to the next
	Changes   int64 // recent changes of views
	Backlog   int64 // state on its way to other replicas
	Queries   int64 // rows and groups of ad-hoc statements
	Statement int64 // of these, of one statement
}

// budget divides total. With 4 GiB and more none of the parts is short for a machine of a few cores; below 1 GiB
// throughput and latency suffer.
func budget(total int64) Budget {
	part := func(share int64, least, most int64) int64 { return min(max(total/share, least), most) }
	const mib = 1 << 20
	b := Budget{
		Total:      total,
		Tables:     tablesInMemory * part(64, 2*mib, 64*mib),
		BlockCache: part(32, 4*mib, math.MaxInt64),
		InFlight:   part(64, leastInFlight, 64*mib),
		Ingest:     part(16, leastInFlight, 256*mib),
		Batches:    part(64, mib, 64*mib),
		Dirty:      part(32, mib, 128*mib),
		State:      part(16, mib, math.MaxInt64),
		Exchange:   part(32, mib, 128*mib),
		Decoded:    part(128, mib, 32*mib),
		Scratch:    part(32, mib, 256*mib),
		Changes:    part(64, mib, 64*mib),
		Backlog:    part(64, mib, 64*mib),
		Queries:    part(5, mib, math.MaxInt64),
		Statement:  part(10, mib, math.MaxInt64),
	}
	b.divide()
	b.Queries = max(min(b.Queries, b.Heap-fixedHeap-b.parts()), b.Statement)
	return b
}

// parts is what the parts of the heap take, all but Queries: of InFlight as much again.
func (b *Budget) parts() int64 {
	return 2*b.InFlight + b.Ingest + b.Batches + b.Dirty + b.State + b.Exchange + b.Decoded + b.Scratch + b.Changes + b.Backlog
}

// leastInFlight is the least room for appends: the largest batch, and a little.
const leastInFlight = 10 << 20

// leastChunk is how much of a log, in bytes, is worth a turn of a worker.
const leastChunk = 128 << 10

// fixedMemory is what code takes (35 MiB), and what C allocates besides tables and caches, for compactions and reads, or keeps of what
// was freed: as much were seen with 3 GB of state in 256 MiB.
const fixedMemory = 68 << 20

// fixedHeap is what the heap has besides the parts: the catalog, Raft, connections, the rows that a worker has in hand.
const fixedHeap = 20 << 20

// divide leaves Go nine tenths of what the rest doesn't take: its limit is passed for moments.
func (b *Budget) divide() {
	b.Heap = max(b.Total-b.Tables-b.BlockCache-fixedMemory, b.Total/4) / 10 * 9
}

// Budget returns how the node's memory is divided: as Memory says, but for the parts that have settings of their own.
func (c Config) Budget() Budget {
	total := c.Memory
	if total == 0 {
		total = max(machineMemory()/4, defaultMemory)
	}
	b := budget(total)
	own := func(part *int64, set int64) {
		if set > 0 {
			*part = set
		}
	}
	own(&b.BlockCache, c.CacheBytes)
	own(&b.InFlight, c.InFlightBytes)
	own(&b.Ingest, c.IngestBytes)
	own(&b.Queries, c.QueriesBytes)
	b.Statement = min(b.Statement, b.Queries)
	own(&b.Statement, c.QueryMemoryBytes)
	if c.QueriesBytes == 0 {
		b.Queries = max(b.Queries, b.Statement)
	}
	b.divide()
	return b
}

// fill sets the bounds that weren't, from the budget.
func (c *Config) fill() {
	b := c.Budget()
	c.CacheBytes, c.InFlightBytes, c.IngestBytes = b.BlockCache, b.InFlight, b.Ingest
	c.QueriesBytes, c.QueryMemoryBytes = b.Queries, b.Statement
	if c.ConnInFlightBytes == 0 {
		c.ConnInFlightBytes = min(16<<20, c.IngestBytes)
	}
}

// validateMemory tells what is wrong with Memory and what it is divided into.
func (c Config) validateMemory() error {
	if c.Memory == 0 {
		return nil
	}
	if c.Memory < LeastMemory {
		return fault.New(fault.Invalid, "--memory %d: use %d bytes (256 MiB) or more", c.Memory, int64(LeastMemory))
	}
	if b := c.Budget(); b.Tables+b.BlockCache+fixedMemory > b.Total/4*3 {
		return fault.New(fault.Invalid, "--memory %d: a --cache of %d bytes leaves too little for the rest; use less of it, or more memory", c.Memory, c.CacheBytes)
	}
	return nil
}

// machineMemory is what the machine has, or what the control group that the process is in may use of it, in bytes; 0: not
// known.
func machineMemory() int64 {
	var most int64
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		if _, rest, ok := bytes.Cut(b, []byte("MemTotal:")); ok {
			if f := bytes.Fields(rest); len(f) > 0 {
				kib, err := strconv.ParseInt(string(f[0]), 10, 64)
				if err == nil {
					most = kib << 10
				}
			}
		}
	}
	for _, name := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// "max", and what is more than the machine has, is no limit.
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64); err == nil && n > 0 && (most == 0 || n < most) {
			most = n
		}
	}
	return most
}
