package partition

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// TestCopiesThroughBrokenStreams copies many partitions from disk to an empty node while the streams to it break again
// and again: no copy may be forgotten when a stream ends before its turn, nor when one can't be opened.
func TestCopiesThroughBrokenStreams(t *testing.T) {
	const partitions = 24
	c := newCluster(t, 2, partitions, func(cfg *Config) { cfg.FrameBytes, cfg.CopyWindow = 16<<10, 16<<10 })
	for _, p := range c.state.Partitions {
		p.Primary, p.Replicas, p.InSync = "n1", []string{"n1"}, []string{"n1"}
	}
	c.startAll()
	value := strings.Repeat("x", 4000)
	for p := range ids.PartitionID(partitions) {
		for i := range 20 {
			c.must(p, 1, batchOf(4, uint64(i+1), fmt.Sprint(i, value)))
		}
	}
	c.stop("n1") // afterwards its log is no longer in memory, and has to be read
	c.start("n1")
	c.isolate("n2", true)
	for p := range ids.PartitionID(partitions) {
		c.reassign(p, func(cfg *internalv1.PartitionConfig) { cfg.Replicas = append(cfg.Replicas, "n2") })
	}
	for i := range 60 {
		c.isolate("n2", false)
		time.Sleep(time.Duration(i) * time.Millisecond) // what gets through differs each time
		c.isolate("n2", true)
	}
	c.isolate("n2", false)
	eventually(t, "all copies in sync", func() bool {
		for p := range ids.PartitionID(partitions) {
			if !slices.Contains(c.config(p).InSync, "n2") {
				return false
			}
		}
		return true
	})
}
