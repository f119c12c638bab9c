package storage

import (
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable/block"
)

// pebbleOptions are what both stores have in common and what sets them apart. The caller releases the cache.
func (s *Store) pebbleOptions(o Options) (*pebble.Options, error) {
	logger := pebbleLog{s}
	po := &pebble.Options{
		FS:                 s.disk,
		Lock:               s.lock,
		Logger:             logger,
		FormatMajorVersion: pebble.FormatValueSeparation,
		MemTableSize:       uint64(o.MemTableBytes),
		MaxOpenFiles:       2000,
		// Files that a compaction or range delete has made obsolete are removed at once: on a disk that is nearly full,
		// space counts for more than a smooth latency of deletions.
		TargetByteDeletionRate: 0,
		// What a range delete covers can be freed only after the delete itself was flushed. (In a log store the reclaimer
		// sees to that.)
		FlushDelayDeleteRange:      time.Minute,
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
		L0CompactionThreshold:      4,
		L0CompactionFileThreshold:  500,
		// Never reached: pressure stops writers before, in a way that ends when the disk fails.
		L0StopWritesThreshold: 1 << 20,
		EventListener:         s.listener(logger),
	}
	po.Experimental.CompactionScheduler = newCompactions()
	if s.kind == kindLog {
		logOptions(po)
	} else {
		stateOptions(po)
	}
	if o.Cache != nil {
		var err error
		po.Cache, err = o.Cache.use(o.MemTableBytes)
		return po, err
	}
	po.Cache = pebble.NewCache(o.CacheBytes + int64(po.MemTableStopWritesThreshold)*int64(o.MemTableBytes)) // see Cache.use
	return po, nil
}

// logOptions: large batches come in at the speed of the disk, with an fsync each, are read back soon (from the cache of
// the operating system) or never, and go by range deletes.
func logOptions(po *pebble.Options) {
	po.MemTableStopWritesThreshold = logMemTables
	// The values are compressed by whoever made them, or not on purpose.
	po.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	// Have the disk begin to write while the rest of a batch is still being copied; the fsync then finds less to do.
	po.WALBytesPerSync = 512 << 10
	po.BytesPerSync = 4 << 20
	// A table counts with the values that it refers to, though it holds only their keys. Small tables mean small blob
	// files, with an fsync each, and endless compactions of a few keys: with Pebble's defaults (2 MiB, 64 MiB) the store
	// takes 40 % less and needs 50 % more CPU. On the other hand, a blob file that mixes fewer logs (they are in key order)
	// is free as a whole sooner.
	po.TargetFileSizes[0] = 16 << 20
	for i := 1; i < len(po.TargetFileSizes); i++ {
		po.TargetFileSizes[i] = 128 << 20
	}
	po.LBaseMaxBytes = 1 << 30
	po.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled:     true,
			MinimumSize: 1 << 10,
			// A batch is written once to the write-ahead log and once to a blob file, and never again. Compactions that
			// merge the keys of many blob files would rewrite them for the locality of scans, at the price of the disk's
			// bandwidth; but values here are large, and their order within a blob file is that of the log anyway.
			MaxBlobReferenceDepth: 1 << 20,
			// Logs are cut at their old end, so a blob file as a whole becomes garbage at about the same time and is
			// removed without rewriting. One that a slow or longer-lived stream keeps alive is rewritten when half of it is
			// garbage.
			RewriteMinimumAge:  time.Minute,
			TargetGarbageRatio: 0.5,
		}
	}
}

// stateOptions: small values, many reads by key (most of them of keys that aren't there), no write-ahead log.
func stateOptions(po *pebble.Options) {
	po.DisableWAL = true
	po.MemTableStopWritesThreshold = stateMemTables
	// What was flushed is soon written again with what lies below it, and only then compressed.
	compression := pebble.DBCompressionFastest
	compression.Levels[0] = block.NoCompression
	po.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return compression })
	po.BytesPerSync = 1 << 20
	po.FlushSplitBytes = 2 << 20
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		po.Levels[i].BlockSize = 16 << 10
		po.Levels[i].IndexBlockSize = 64 << 10
	}
	po.TargetFileSizes[0] = 4 << 20
	po.LBaseMaxBytes = 64 << 20
	// Keys come in no order, so what is flushed lies over all that is there, and is merged with all of the base level each time.
	// A read looks into twice as many filters in exchange.
	po.L0CompactionThreshold = 8
}

func (s *Store) listener(logger pebble.Logger) *pebble.EventListener {
	events := pebble.MakeLoggingEventListener(logger)
	own := pebble.EventListener{
		// A flush or compaction failed: its data can't get to the disk, or what is on the disk can't be read.
		BackgroundError: func(err error) { s.disk.freeze(err) },
		DataCorruption:  func(i pebble.DataCorruptionInfo) { s.disk.freeze(i.Details) },
		FlushEnd:        func(pebble.FlushInfo) { s.pressure.notify() },
		CompactionEnd:   func(pebble.CompactionInfo) { s.pressure.notify() },
	}
	both := pebble.TeeEventListener(events, own)
	return &both
}
