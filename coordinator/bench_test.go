package coordinator

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchCluster starts nodes on the real disk and waits until they have come to rest.
func benchCluster(b *testing.B, size int) []*testNode {
	b.Helper()
	var nodes []*testNode
	for i := range size {
		n := newTestNode(b, string(rune('a'+i)), nil)
		n.fs = vfs.Default
		n.start(nodes[:min(i, 1)]...)
		nodes = append(nodes, n)
		n.waitReady()
	}
	eventually(b, "at rest", func() bool { return nodes[0].settled(nodes...) && voters(nodes[0].State()) == votersFor(size) })
	return nodes
}

// BenchmarkIdle measures what coordinators cost while nothing is appended, all in one process, in percent of a core.
func BenchmarkIdle(b *testing.B) {
	for _, size := range []int{1, 3} {
		b.Run(string(rune('0'+size)), func(b *testing.B) {
			benchCluster(b, size)
			const span = 5 * time.Second
			for range b.N {
				before := cpuTime(b)
				time.Sleep(span) // the idle time that is measured
				b.ReportMetric(100*float64(cpuTime(b)-before)/float64(span), "%core")
			}
		})
	}
}

// BenchmarkActive measures the same with ticks at their fast pace.
func BenchmarkActive(b *testing.B) {
	nodes := benchCluster(b, 3)
	leader := nodes[0]
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			for _, n := range nodes {
				n.appends.Add(1)
				n.RequestTick()
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	const span = 3 * time.Second
	for range b.N {
		before := cpuTime(b)
		_, ticks := leader.ticks.seen()
		time.Sleep(span) // the busy time that is measured
		b.ReportMetric(100*float64(cpuTime(b)-before)/float64(span), "%core")
		_, after := leader.ticks.seen()
		b.ReportMetric(float64(after-ticks)/span.Seconds(), "ticks/s")
	}
}

// BenchmarkPropose measures a command from a node that doesn't lead until that node has applied it.
func BenchmarkPropose(b *testing.B) {
	nodes := benchCluster(b, 3)
	_, others := leaderOf(b, nodes)
	n := others[0]
	b.ResetTimer()
	for i := range b.N {
		cmd := createStream("s")
		if i%2 == 1 {
			cmd = &internalv1.Command{Op: &internalv1.Command_DropObjects{DropObjects: &internalv1.DropObjects{Names: []string{"s"}}}}
		}
		if _, err := n.Propose(context.Background(), cmd); err != nil {
			b.Fatal(err)
		}
	}
}
