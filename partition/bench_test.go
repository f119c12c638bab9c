package partition

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// BenchmarkAppend measures acknowledged appends of 128 KiB batches of incompressible records to 8 partitions, fsynced on
// every in-sync replica: one host, and three hosts in this process over loopback gRPC.
func BenchmarkAppend(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		for _, size := range []int{100, 1000} {
			b.Run(fmt.Sprintf("nodes=%d/record=%d", nodes, size), func(b *testing.B) { benchAppend(b, nodes, size) })
		}
	}
}

func benchBatch(size, total int, rng *rand.Rand) *millracev1.Batch {
	var bb record.BatchBuilder
	value := make([]byte, size)
	for bb.Bytes() < total {
		for i := range value {
			value[i] = byte(rng.Uint32())
		}
		bb.Add(nil, false, value)
	}
	payload := bb.Payload()
	return &millracev1.Batch{
		Count: uint32(bb.Count()), UncompressedBytes: uint32(len(payload)), Crc32C: record.Checksum(payload), Payload: payload,
	}
}

func onDisk(b *testing.B) func(ids.NodeID, vfs.FS) (*storage.Store, error) {
	dir := b.TempDir()
	return func(node ids.NodeID, _ vfs.FS) (*storage.Store, error) {
		o := storage.DefaultOptions()
		o.Logger = quiet()
		return storage.OpenLog(filepath.Join(dir, string(node)), o)
	}
}

func benchAppend(b *testing.B, nodes, size int) {
	const partitions = 8
	c := newCluster(b, nodes, partitions, func(cfg *Config) {
		d := DefaultConfig()
		cfg.InFlightBytes, cfg.PartitionBytes, cfg.MaxBatchBytes = d.InFlightBytes, d.PartitionBytes, d.MaxBatchBytes
		cfg.AckTimeout, cfg.StartGrace = 10*time.Second, 10*time.Second
	})
	c.tcp, c.store = true, onDisk(b)
	c.startAll()
	rng := rand.New(rand.NewPCG(1, 2))
	batches := make([]*millracev1.Batch, 16)
	for i := range batches {
		batches[i] = benchBatch(size, 128<<10, rng)
	}
	for p := range ids.PartitionID(partitions) {
		c.must(p, 1, batches[0])
	}
	hosts := make([]*Host, partitions)
	for p := range hosts {
		hosts[p] = c.primary(ids.PartitionID(p)).host
	}
	b.SetBytes(int64(len(batches[0].Payload)))
	b.ResetTimer()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range b.N {
		slots <- struct{}{}
		wg.Add(1)
		p := i % partitions
		hosts[p].Append(AppendRequest{Partition: ids.PartitionID(p), Stream: 1, Batch: batches[i%len(batches)]}, func(_ AppendResult, err error) {
			if err != nil {
				b.Error(err)
			}
			<-slots
			wg.Done()
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)*float64(batches[0].Count)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(hosts[0].Load().CommitTime.Microseconds()), "commit-us")
}

// BenchmarkRead measures a full scan from disk of 64 MiB in 128 KiB batches, checksums verified.
func BenchmarkRead(b *testing.B) {
	c := newCluster(b, 1, 1, func(cfg *Config) { cfg.CacheBytes = 0 })
	c.store = onDisk(b)
	c.startAll()
	batch := benchBatch(1000, 128<<10, rand.New(rand.NewPCG(1, 2)))
	for range 512 {
		c.must(0, 1, batch)
	}
	n := c.nodes["n1"]
	b.SetBytes(512 * int64(len(batch.Payload)))
	b.ResetTimer()
	for range b.N {
		records := 0
		if err := n.host.Read(0, 1, 0, 0, func(x *Batch) (bool, error) { records += int(x.Count); return true, nil }); err != nil {
			b.Fatal(err)
		}
		if records != 512*int(batch.Count) {
			b.Fatal(records)
		}
	}
}

// BenchmarkTick measures one tick over 32 idle partitions.
func BenchmarkTick(b *testing.B) {
	for _, partitions := range []int{32, 4096} {
		b.Run(fmt.Sprint("partitions=", partitions), func(b *testing.B) {
			c := newCluster(b, 1, partitions, nil).startAll()
			c.stopTicks()
			h := c.nodes["n1"].host
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				h.Tick(c.tick+ids.Tick(i)+1, c.state.Index)
			}
		})
	}
}

// BenchmarkAppendOne measures the time from append to acknowledgement of one small batch at a time.
func BenchmarkAppendOne(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) {
			c := newCluster(b, nodes, 1, nil)
			c.tcp, c.store = true, onDisk(b)
			c.startAll()
			batch := benchBatch(100, 1000, rand.New(rand.NewPCG(1, 2)))
			c.must(0, 1, batch)
			n := c.primary(0)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := n.append(0, 1, batch, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
