package storage

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/internal/ids"
)

func benchStore(b *testing.B, open func(string, Options) (*Store, error)) *Store {
	o := DefaultOptions()
	o.Logger = small(vfs.Default).Logger
	s, err := open(filepath.Join(b.TempDir(), "store"), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func reportStore(b *testing.B, s *Store, start time.Time) {
	took := time.Since(start)
	m := s.Metrics()
	b.ReportMetric(float64(m.SyncTime)/float64(took), "fsync-share")
	b.ReportMetric(float64(m.BytesWritten)/float64(m.CommitBytes), "written-again/byte")
	b.ReportMetric(float64(m.CommitWaits), "waits")
}

// BenchmarkCommitWriters: writers that each commit a batch of a stream's log and wait for it.
func BenchmarkCommitWriters(b *testing.B) {
	const writers, size = 16, 64 << 10
	payload := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(payload)
	s := benchStore(b, OpenLog)
	b.SetBytes(size)
	start := time.Now()
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			batch := s.NewBatch()
			defer batch.Close()
			for next.Add(1) <= int64(b.N) {
				batch.Reset()
				k, v := batch.SetDeferred(LogKeyLen, size)
				AppendLogKey(k[:0], ids.PartitionID(w), 1, ids.Offset(next.Load()))
				copy(v, payload)
				if err := s.Commit(batch, true); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	reportStore(b, s, start)
}

// BenchmarkCommitGroups: one writer that commits groups of batches of many partitions.
func BenchmarkCommitGroups(b *testing.B) {
	for _, group := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("%dMiB", group), func(b *testing.B) {
			const size = 64 << 10
			payload := make([]byte, size)
			rand.NewChaCha8([32]byte{}).Read(payload)
			s := benchStore(b, OpenLog)
			b.SetBytes(int64(group) << 20)
			batch := s.NewBatch()
			defer batch.Close()
			start := time.Now()
			b.ResetTimer()
			for i := range b.N {
				batch.Reset()
				for j := range group * 16 {
					k, v := batch.SetDeferred(LogKeyLen, size)
					AppendLogKey(k[:0], ids.PartitionID(j%32), 1, ids.Offset(i*1000+j))
					copy(v, payload)
				}
				if err := s.Commit(batch, true); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			reportStore(b, s, start)
		})
	}
}

// BenchmarkState: ticks that read and write keys of a view, most of them there.
func BenchmarkState(b *testing.B) {
	for _, keys := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("%dkeys", keys), func(b *testing.B) {
			s := benchStore(b, OpenState)
			rng := rand.New(rand.NewPCG(1, 1))
			batch := s.NewBatch()
			defer batch.Close()
			var key []byte
			value := make([]byte, 24)
			b.ResetTimer()
			for i := range b.N {
				key = AppendStateKey(key[:0], 1, 1, 1, fmt.Appendf(nil, "%08d", rng.IntN(keys)))
				if _, c, err := s.Get(key); err == nil {
					c.Close()
				}
				batch.Set(key, value)
				if i%1000 == 999 {
					if err := s.Commit(batch, false); err != nil {
						b.Fatal(err)
					}
					batch.Reset()
				}
			}
		})
	}
}
