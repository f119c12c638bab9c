package stage

import "sync/atomic"

// shipCounts run since the process began.
type shipCounts struct {
	sent     atomic.Int64 // bytes of batches and copies
	copied   atomic.Int64 // of these, of copies
	received atomic.Int64 // bytes taken from other nodes
	copies   atomic.Int64 // begun
	lost     atomic.Int64 // copies that fell too far behind and begin again
}
