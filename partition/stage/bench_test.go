package stage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

const benchPartitions = 8

// benchLog is n records of about 100 bytes in batches of 64 KiB, spread over the partitions, with the given number of
// keys. With perTick they are of ticks 20 ms apart, that many records in each; else all of one.
func benchLog(n, keys, perTick int, tick ids.Tick) *memLogs {
	l := newMemLogs(benchPartitions)
	rng := rand.New(rand.NewPCG(1, 1))
	pad := "abcdefghijklmnopqrstuvwxyzabcdefghij"
	for i, p := 0, 0; i < n; p = (p + 1) % benchPartitions {
		var b record.BatchBuilder
		for ; i < n && b.Bytes() < 64<<10; i++ {
			v := fmt.Sprintf(`{"k":"key%07d","n":%d,"ts":%d,"pad":"%s"}`, rng.IntN(keys), i%1000, 1_700_000_000_000_000+int64(i), pad)
			b.Add(nil, false, []byte(v))
		}
		at := tick
		if perTick > 0 {
			at += ids.Tick(i / perTick * 20_000)
		}
		l.appendRaw(ids.PartitionID(p), at, uint32(b.Count()), slices.Clone(b.Payload()))
	}
	return l
}

// benchNode runs one view on one node with its state on disk.
func benchNode(b *testing.B, l *memLogs, views []testView, created ids.Tick) (*Runtime, func()) {
	o := storage.DefaultOptions()
	o.Logger = quiet()
	store, err := storage.OpenState(b.TempDir(), o)
	if err != nil {
		b.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.NodeID, cfg.Workers = "n0", runtime.GOMAXPROCS(0)
	rt, err := New(cfg, Deps{Store: store, Logs: l, Logger: quiet(), Peers: peersFunc(func(ids.NodeID) (grpc.ClientConnInterface, error) { return nil, nil })})
	if err != nil {
		b.Fatal(err)
	}
	st := &internalv1.ClusterState{
		Version: 1, ClusterId: "bench", Index: 1, PartitionCount: benchPartitions,
		Streams: []*internalv1.StreamDef{{Stream: streamDef(), CreatedTick: 1}},
	}
	for p := range benchPartitions {
		st.Partitions = append(st.Partitions, &internalv1.PartitionConfig{Id: uint32(p), Epoch: 1, Primary: "n0", Replicas: []string{"n0"}})
	}
	for i, v := range views {
		raw, err := plan.Marshal(v.plan)
		if err != nil {
			b.Fatal(err)
		}
		st.Views = append(st.Views, &internalv1.ViewDef{Id: uint64(100 + i), Name: v.name, Plan: raw, CreatedTick: uint64(created)})
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rt.Run(ctx) }()
	rt.Configure(st)
	return rt, func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	}
}

func closeAll(rt *Runtime, tick ids.Tick, data []StreamTick) {
	for p := range benchPartitions {
		rt.OnClosed(Closing{Partition: ids.PartitionID(p), Epoch: 1, Tick: tick, Data: data})
	}
}

func allParts() []ids.PartitionID {
	out := make([]ids.PartitionID, benchPartitions)
	for i := range out {
		out[i] = ids.PartitionID(i)
	}
	return out
}

// cpuTime is what the process has used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkThroughput reads a log that is there: as a view's history, or as live ticks that a view is behind with.
func BenchmarkThroughput(b *testing.B) {
	for _, bc := range []struct {
		view testView
		keys int
		live int // records each tick
	}{
		{windows(false), 10, 0}, {windows(false), 1_000_000, 0}, {perKey(), 10, 0}, {filtered(), 10, 0},
		{windows(false), 10, 10_000}, {windows(false), 1_000_000, 6_000}, {filtered(), 10, 10_000},
	} {
		b.Run(fmt.Sprintf("%s/keys=%d/pertick=%d", bc.view.name, bc.keys, bc.live), func(b *testing.B) {
			const n = 2_000_000
			l := benchLog(n, bc.keys, bc.live, 10)
			last := ids.Tick(1_000_000_000)
			created := ids.Tick(10)
			if bc.live > 0 {
				created = 5
			}
			v := bc.view
			if v.name == "windows" { // one window for all, as the records' times lie within seconds
				for i := range v.plan.Stages[0].Ops {
					if t := v.plan.Stages[0].Ops[i].Tumble; t != nil {
						t.Size = 3_600_000_000
					}
				}
			}
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				rt, stop := benchNode(b, l, []testView{v}, created)
				cpu := cpuTime()
				b.StartTimer()
				began := time.Now()
				closeAll(rt, last, nil)
				if _, err := rt.BeginRead(context.Background(), 100, allParts(), last); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(n/time.Since(began).Seconds(), "records/s")
				b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/n, "cpu-ns/record")
				b.StopTimer()
				if got, want := countRows(b, rt, v.name, last), int64(n); v.name != "filtered" && got != want || got < want/3 {
					b.Fatalf("the view has counted %d records of %d", got, want)
				}
				stop()
				b.StartTimer()
			}
		})
	}
}

// countRows adds up what the view has counted; the number of its rows, if it counts nothing.
func countRows(b *testing.B, rt *Runtime, name string, tick ids.Tick) (n int64) {
	col := map[string]int{"windows": 2, "per_key": 1}
	for _, p := range allParts() {
		err := rt.Read(context.Background(), 100, p, tick, nil, func(d *record.Delta) error {
			c, counts := col[name]
			for i := range d.N {
				if counts {
					n += d.Cols[c].Ints[i]
				} else {
					n += d.Weight(i)
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return n
}

// BenchmarkLive is 10,000 records a second in ticks of 2 ms: what it costs, and how long from closed to readable.
func BenchmarkLive(b *testing.B) {
	for _, count := range []int{1, 10} {
		b.Run(fmt.Sprintf("views=%d", count), func(b *testing.B) {
			l := newMemLogs(benchPartitions)
			views := make([]testView, count)
			for i := range views {
				views[i] = perKey()
			}
			rt, stop := benchNode(b, l, views, 10)
			defer stop()
			closeAll(rt, 20, nil)
			var last atomic.Uint64
			subs, cancel := context.WithCancel(context.Background())
			defer cancel()
			for p := range benchPartitions {
				go func() {
					_ = rt.Subscribe(subs, 100, ids.PartitionID(p), 10, func(t ids.Tick, d *record.Delta) error {
						last.Store(max(last.Load(), uint64(t)))
						return nil
					})
				}()
			}
			const seconds = 3
			began, cpu := time.Now(), cpuTime()
			var lat []time.Duration
			tick := ids.Tick(1000)
			for i := range seconds * 500 {
				tick += 2000
				for r := range 4 {
					p := ids.PartitionID((i*4 + r) % benchPartitions)
					l.append(p, tick, []event{{k: fmt.Sprint("k", i%10), n: 1, ts: int64(tick)}, {k: fmt.Sprint("k", r), n: 1, ts: int64(tick)},
						{k: "a", n: 1, ts: int64(tick)}, {k: "b", n: 1, ts: int64(tick)}, {k: "c", n: 1, ts: int64(tick)}})
				}
				closed := time.Now()
				closeAll(rt, tick, []StreamTick{{testStream, tick}})
				if i%50 == 0 {
					if _, err := rt.BeginRead(context.Background(), 100, allParts(), tick); err != nil {
						b.Fatal(err)
					}
					lat = append(lat, time.Since(closed))
				}
				time.Sleep(time.Until(began.Add(time.Duration(i+1) * 2 * time.Millisecond)))
			}
			slices.Sort(lat)
			b.ReportMetric(float64(cpuTime()-cpu)/float64(time.Since(began))*100, "%cpu")
			b.ReportMetric(float64(lat[len(lat)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(lat[len(lat)*99/100].Microseconds()), "p99-us")
		})
	}
}

// BenchmarkIdle is what ten views cost when nothing is appended and a tick comes each 100 ms.
func BenchmarkIdle(b *testing.B) {
	l := newMemLogs(benchPartitions)
	views := make([]testView, 10)
	for i := range views {
		views[i] = windows(i%2 == 0)
	}
	rt, stop := benchNode(b, l, views, 10)
	defer stop()
	tick := ids.Tick(1_000_000_000)
	closeAll(rt, tick, nil)
	began, cpu := time.Now(), cpuTime()
	for i := range 20 {
		tick += 100_000
		closeAll(rt, tick, nil)
		time.Sleep(time.Until(began.Add(time.Duration(i+1) * 100 * time.Millisecond)))
	}
	b.ReportMetric(float64(cpuTime()-cpu)/float64(time.Since(began))*100, "%cpu")
}

// BenchmarkCluster is three nodes in one process with ten views over 32 partitions: idle, with a tick each 100 ms, and
// at 10,000 records/s in ticks of 2 ms.
func BenchmarkCluster(b *testing.B) {
	for _, bc := range []struct {
		name  string
		every time.Duration
		rows  int // each tick
		ticks int
		views int
	}{{"idle/views=10", 100 * time.Millisecond, 0, 30, 10}, {"live/views=1", 2 * time.Millisecond, 20, 1500, 1}, {"live/views=10", 2 * time.Millisecond, 20, 1500, 10}} {
		b.Run(bc.name, func(b *testing.B) {
			c := newTestCluster(b, 3, 32, func(cfg *Config) {
				d := DefaultConfig()
				d.NodeID, d.Workers = cfg.NodeID, runtime.GOMAXPROCS(0)
				*cfg = d
			})
			order := make([]int, 32)
			for p := range order {
				order[p] = p
			}
			rng := rand.New(rand.NewPCG(1, 1))
			m := &model{}
			for i := range bc.views {
				m = c.createView(ids.StreamID(100+i), perKey(), false)
			}
			c.fill(rng, 5, 5)
			c.check(100, perKey(), &model{created: m.created, events: c.model.events}, c.tick)
			began, cpu := time.Now(), cpuTime()
			var lat []time.Duration
			for i := range bc.ticks {
				next := c.tick + ids.Tick(bc.every.Microseconds())
				for r := range bc.rows {
					c.append(ids.PartitionID((i*7+r)%32), next, randomEvents(rng, next, 1))
				}
				closed := time.Now()
				c.closeTick(next, order)
				if i%20 == 0 {
					for p := range ids.PartitionID(32) {
						if _, err := c.primary(p).rt.BeginRead(context.Background(), 100, []ids.PartitionID{p}, next); err != nil {
							b.Fatal(err)
						}
					}
					lat = append(lat, time.Since(closed))
				}
				time.Sleep(time.Until(began.Add(time.Duration(i+1) * bc.every)))
			}
			slices.Sort(lat)
			b.ReportMetric(float64(cpuTime()-cpu)/float64(time.Since(began))*100, "%cpu")
			b.ReportMetric(float64(lat[len(lat)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(lat[len(lat)*99/100].Microseconds()), "p99-us")
		})
	}
}

// BenchmarkManyViews is what one record costs for each of many views of one stream, as it comes.
func BenchmarkManyViews(b *testing.B) {
	for _, count := range []int{1, 20} {
		b.Run(fmt.Sprintf("views=%d", count), func(b *testing.B) {
			const n = 200_000
			l := benchLog(n, 10, 10_000, 10)
			views := make([]testView, count)
			for i := range views {
				views[i] = perKey()
			}
			last := ids.Tick(1_000_000_000)
			for range b.N {
				b.StopTimer()
				rt, stop := benchNode(b, l, views, 5)
				cpu := cpuTime()
				b.StartTimer()
				closeAll(rt, last, nil)
				for i := range views {
					if _, err := rt.BeginRead(context.Background(), ids.StreamID(100+i), allParts(), last); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/n/float64(count), "cpu-ns/record/view")
				b.StopTimer()
				stop()
				b.StartTimer()
			}
		})
	}
}
