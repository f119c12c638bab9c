package storage

import "time"

// Metrics are a store's numbers at one moment. Counters run since the store was opened.
type Metrics struct {
	Commits      int64         // counter of batches
	CommitBytes  int64         // counter
	Syncs        int64         // counter of fsyncs of the write-ahead log; 0 in a state store
	SyncTime     time.Duration // counter: time spent in them
	Flushes      int64         // counter
	Compactions  int64         // counter
	CommitWaits  int64         // counter: commits that waited for compactions
	Reclaims     int64         // counter: rounds of freeing what range deletes cover; log store
	SpaceRefused int64         // counter: commits, and questions of Room, refused because the disk is nearly full

	DiskFreeBytes         uint64 // of the disk, when it was looked at last
	DiskBytes             uint64 // all files of the store
	WALBytes              uint64 // write-ahead log not yet flushed
	TableBytes            uint64 // keys and small values
	BlobBytes             uint64 // separated values, garbage included
	BlobLiveBytes         uint64 // separated values that a key refers to
	MemTableBytes         uint64
	CompactionDebt        uint64 // bytes that compactions are behind
	L0Sublevels           int32
	CacheBytes            int64 // of a cache shared by two stores, both report the whole
	CacheHits             int64 // counter
	CacheMisses           int64 // counter
	OpenSnapshots         int
	BytesWritten          uint64 // counter: by flushes and compactions
	BytesCompacted        uint64 // counter: by compactions alone
	BlobRewrites          int64  // counter
	DeleteOnlyCompactions int64  // counter: tables dropped whole by range deletes
}

// Metrics returns the store's numbers; on a closed store the counters only. It takes about 0.1 ms.
func (s *Store) Metrics() Metrics {
	m := Metrics{
		Commits: s.commits.Load(), CommitBytes: s.commitBytes.Load(),
		Syncs: s.disk.syncs.Load(), SyncTime: time.Duration(s.disk.syncNanos.Load()),
		CommitWaits: s.pressure.waits.Load(), SpaceRefused: s.space.refused.Load(), Reclaims: s.reclaim.runs.Load(),
	}
	m.DiskFreeBytes = s.space.free.Load()
	if s.enter() != nil {
		return m
	}
	defer s.leave()
	p := s.db.Metrics()
	m.Flushes, m.Compactions = p.Flush.Count, p.Compact.Count
	m.DiskBytes, m.WALBytes = p.DiskSpaceUsage(), p.WAL.Size
	m.TableBytes = p.Table.Local.LiveSize
	m.BlobBytes, m.BlobLiveBytes = p.BlobFiles.LiveSize, p.BlobFiles.ReferencedValueSize
	m.MemTableBytes, m.CompactionDebt = p.MemTable.Size, p.Compact.EstimatedDebt
	m.L0Sublevels = p.Levels[0].Sublevels
	m.CacheBytes, m.CacheHits, m.CacheMisses = p.BlockCache.Size, p.BlockCache.Hits, p.BlockCache.Misses
	m.OpenSnapshots = p.Snapshots.Count
	for _, l := range p.Levels {
		// Pebble 2.1.7 counts the blob bytes of a flush as compacted, too.
		m.BytesCompacted += l.TableBytesCompacted + l.BlobBytesCompacted - l.BlobBytesFlushed
		m.BytesWritten += l.TableBytesFlushed + l.BlobBytesFlushed
	}
	m.BytesWritten += m.BytesCompacted
	m.BlobRewrites, m.DeleteOnlyCompactions = p.Compact.BlobFileRewriteCount, p.Compact.DeleteOnlyCount
	return m
}

// DiskUsage returns about how many bytes the keys from lo up to, not including, hi take on the disk; what was written
// lately and is in memory alone isn't counted.
func (s *Store) DiskUsage(lo, hi []byte) (uint64, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	n, err := s.db.EstimateDiskUsage(lo, hi)
	return n, s.readError(err)
}
