package client_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/leaks"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/ring"
)

var seedFlag = flag.String("client.seed", "", "seed of the random tests")

func TestMain(m *testing.M) { leaks.Main(withExamples{m}) }

func dial(t testing.TB, c *cluster, opts ...client.Option) *client.Client {
	t.Helper()
	cl, err := client.Dial(t.Context(), c.addrs(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

func newProducer(t testing.TB, cl *client.Client, stream string, opts ...client.ProducerOption) *client.Producer {
	t.Helper()
	p, err := cl.Producer(t.Context(), stream, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Abort)
	return p
}

// seeded returns a random source, and says how to get the same again.
func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(*seedFlag, 10, 64); err == nil {
		seed = s
	}
	t.Logf("run again with: go test -run '^%s$' -client.seed=%d", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// sendKeyed sends n records of `keys` keys, each numbered within its key, and returns how many were acknowledged and
// how many failed, once all are.
func sendKeyed(t *testing.T, p *client.Producer, n, keys int) (acked, failed int64) {
	t.Helper()
	var ok, bad atomic.Int64
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		var once atomic.Bool
		v := fmt.Sprintf(`{"k":%d,"n":%d}`, i%keys, i/keys)
		if err := p.Send(t.Context(), nil, []byte(v), func(a client.Ack, err error) {
			defer wg.Done()
			if once.Swap(true) {
				t.Errorf("%s called back twice", v)
			}
			if err != nil {
				bad.Add(1)
			} else {
				ok.Add(1)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	p.Flush(t.Context())
	wg.Wait()
	return ok.Load(), bad.Load()
}

// checkKeyed checks that a stream holds n records of `keys` keys exactly once, each key's in its partition in order.
func checkKeyed(t *testing.T, c *cluster, n, keys int) {
	t.Helper()
	next := make([]int, keys)
	total := 0
	for part, values := range c.values("keyed") {
		for _, v := range values {
			var k, i int
			if _, err := fmt.Sscanf(v, `{"k":%d,"n":%d}`, &k, &i); err != nil {
				t.Fatal(v, err)
			}
			if want := int(ring.Partition(strconv.AppendInt(nil, int64(k), 10), c.partitions)); want != part {
				t.Fatalf("key %d is in partition %d, want %d", k, part, want)
			}
			if i != next[k] {
				t.Fatalf("key %d: record %d follows %d", k, i, next[k]-1)
			}
			next[k]++
			total++
		}
	}
	if total != n {
		t.Fatalf("%d records in the stream, want %d", total, n)
	}
}

func TestProducerKeepsOrder(t *testing.T) {
	for _, compression := range []client.Compression{client.NoCompression, client.S2, client.Zstd} {
		t.Run(compression.String(), func(t *testing.T) {
			c := startCluster(t, 3, 8)
			p := newProducer(t, dial(t, c), "keyed", client.WithCompression(compression), client.WithBatchBytes(2<<10))
			if ok, bad := sendKeyed(t, p, 20_000, 300); ok != 20_000 || bad != 0 {
				t.Fatalf("%d acknowledged, %d failed", ok, bad)
			}
			checkKeyed(t, c, 20_000, 300)
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := p.Send(t.Context(), nil, []byte(`{}`), nil); !errors.Is(err, fault.Of(fault.Canceled)) {
				t.Fatalf("send after close: %v", err)
			}
		})
	}
}

// TestProducerFaults injects every fault that a cluster can answer with or die of, at random, and checks that each
// record is there once and in order.
func TestProducerFaults(t *testing.T) {
	faults := map[string]func(r *rand.Rand) verdict{
		"not primary": func(*rand.Rand) verdict { return verdict{err: fault.New(fault.NotPrimary, "elsewhere")} },
		"unavailable": func(*rand.Rand) verdict {
			return verdict{err: fault.New(fault.Unavailable, "in-sync set too small")}
		},
		"exhausted": func(*rand.Rand) verdict {
			return verdict{err: fault.New(fault.Exhausted, "full").WithRetryAfter(2 * time.Millisecond)}
		},
		"damaged":        func(*rand.Rand) verdict { return verdict{err: fault.New(fault.Corrupted, "the disk")} },
		"stale":          func(*rand.Rand) verdict { return verdict{err: fault.New(fault.Stale, "epoch")} },
		"internal":       func(*rand.Rand) verdict { return verdict{err: errors.New("boom")} },
		"server timeout": func(*rand.Rand) verdict { return verdict{err: fault.New(fault.Deadline, "replica")} },
		"out of sequence": func(*rand.Rand) verdict {
			return verdict{err: fault.New(fault.Conflict, "gap").WithReason("OUT_OF_SEQUENCE")}
		},
		"cut before": func(*rand.Rand) verdict { return verdict{cutBefore: true} },
		"cut after":  func(*rand.Rand) verdict { return verdict{cutAfter: true} },
		"slow": func(r *rand.Rand) verdict {
			return verdict{delay: time.Duration(r.IntN(5)) * time.Millisecond}
		},
	}
	names := []string{"all"}
	for name := range faults {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			r := seeded(t)
			c := startCluster(t, 3, 4)
			c.setJudge(func(int, *millracev1.AppendRequest) verdict {
				if r.IntN(8) != 0 {
					return verdict{}
				}
				if name != "all" {
					return faults[name](r)
				}
				return faults[names[1+r.IntN(len(names)-1)]](r)
			})
			p := newProducer(t, dial(t, c), "keyed", client.WithBatchBytes(1<<10), client.WithLinger(time.Millisecond))
			if ok, bad := sendKeyed(t, p, 3_000, 50); ok != 3_000 || bad != 0 {
				t.Fatalf("%d acknowledged, %d failed", ok, bad)
			}
			checkKeyed(t, c, 3_000, 50)
		})
	}
}

// TestProducerLostAck has one acknowledgement lost for good: the timeout gives the batch up, honestly, and what follows
// is appended once.
func TestProducerLostAck(t *testing.T) {
	c := startCluster(t, 1, 1)
	var lost atomic.Int64
	c.setJudge(func(int, *millracev1.AppendRequest) verdict {
		return verdict{loseAck: lost.Add(1) == 3}
	})
	var acked, failed atomic.Int64
	p := newProducer(t, dial(t, c), "keyed", client.WithTimeout(300*time.Millisecond), client.WithLinger(0),
		client.OnBatch(func(b client.BatchResult) {
			if b.Err != nil {
				failed.Add(int64(b.Count))
				if !errors.Is(b.Err, fault.Of(fault.Deadline)) {
					t.Errorf("given up with %v", b.Err)
				}
			} else {
				acked.Add(int64(b.Count))
			}
		}))
	for i := range 2_000 {
		if err := p.SendTagged(t.Context(), nil, fmt.Appendf(nil, `{"k":1,"n":%d}`, i), uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); !errors.Is(err, fault.Of(fault.Deadline)) {
		t.Fatalf("flush: %v", err)
	}
	if acked.Load()+failed.Load() != 2_000 || failed.Load() == 0 {
		t.Fatalf("%d acknowledged, %d given up", acked.Load(), failed.Load())
	}
	seen := map[string]int{}
	for _, v := range c.values("keyed")[0] {
		seen[v]++
		if seen[v] > 1 {
			t.Fatalf("%s is there twice", v)
		}
	}
	if int64(len(seen)) < acked.Load() {
		t.Fatalf("%d records there, %d acknowledged", len(seen), acked.Load())
	}
}

func TestProducerNodeDies(t *testing.T) {
	c := startCluster(t, 3, 6)
	p := newProducer(t, dial(t, c), "keyed", client.WithBatchBytes(1<<10))
	var appended atomic.Int64
	c.setJudge(func(int, *millracev1.AppendRequest) verdict {
		appended.Add(1)
		return verdict{}
	})
	died := make(chan struct{})
	go func() {
		defer close(died)
		waitFor(t, func() bool { return appended.Load() > 20 })
		c.nodes[1].stop()
		c.mu.Lock()
		for p := range c.primaries { // failover
			if c.primaries[p] == 1 {
				c.primaries[p] = 2
			}
		}
		c.states[1] = "dead"
		c.mu.Unlock()
	}()
	if ok, bad := sendKeyed(t, p, 10_000, 100); ok != 10_000 || bad != 0 {
		t.Fatalf("%d acknowledged, %d failed", ok, bad)
	}
	<-died
	checkKeyed(t, c, 10_000, 100)
}

// TestProducerAllNodesDie kills everything in mid-send and brings it back.
func TestProducerAllNodesDie(t *testing.T) {
	c := startCluster(t, 2, 4)
	p := newProducer(t, dial(t, c), "keyed", client.WithBatchBytes(1<<10))
	var appended atomic.Int64
	c.setJudge(func(int, *millracev1.AppendRequest) verdict {
		appended.Add(1)
		return verdict{}
	})
	back := make(chan struct{})
	go func() {
		defer close(back)
		waitFor(t, func() bool { return appended.Load() > 10 })
		c.nodes[0].stop()
		c.nodes[1].stop()
		c.restart(1)
		c.restart(0)
	}()
	if ok, bad := sendKeyed(t, p, 10_000, 100); ok != 10_000 || bad != 0 {
		t.Fatalf("%d acknowledged, %d failed", ok, bad)
	}
	<-back
	checkKeyed(t, c, 10_000, 100)
}

// TestProducerSilentNode stops a node that keeps its connections: the others take over within seconds.
func TestProducerSilentNode(t *testing.T) {
	c := startCluster(t, 3, 6)
	p := newProducer(t, dial(t, c), "keyed", client.WithBatchBytes(1<<10))
	if ok, _ := sendKeyed(t, p, 600, 100); ok != 600 {
		t.Fatal("not acknowledged")
	}
	c.nodes[2].freeze()
	c.mu.Lock()
	c.logs["keyed"] = make([][]stored, c.partitions)
	c.mu.Unlock()
	begun := time.Now()
	if ok, bad := sendKeyed(t, p, 600, 100); ok != 600 || bad != 0 {
		t.Fatalf("%d acknowledged, %d failed", ok, bad)
	}
	if d := time.Since(begun); d > 10*time.Second {
		t.Fatalf("took %s", d)
	}
	checkKeyed(t, c, 600, 100)
}

func TestProducerUnknownProducer(t *testing.T) {
	c := startCluster(t, 1, 2)
	p := newProducer(t, dial(t, c), "keyed")
	if ok, _ := sendKeyed(t, p, 100, 10); ok != 100 {
		t.Fatal("not acknowledged")
	}
	c.mu.Lock()
	clear(c.producers) // forgotten after a long time
	c.logs["keyed"] = make([][]stored, c.partitions)
	c.mu.Unlock()
	if ok, bad := sendKeyed(t, p, 100, 10); ok != 100 || bad != 0 {
		t.Fatalf("%d acknowledged, %d failed", ok, bad)
	}
	checkKeyed(t, c, 100, 10)
}

// TestProducerRefusedBatch has one batch refused for good: it is reported, and those behind it are appended in order.
func TestProducerRefusedBatch(t *testing.T) {
	c := startCluster(t, 1, 1)
	c.setJudge(func(_ int, req *millracev1.AppendRequest) verdict {
		if bytes.Contains(req.Batch.Payload, []byte("poison")) {
			return verdict{err: fault.New(fault.TooLarge, "too large")}
		}
		return verdict{}
	})
	var mu sync.Mutex
	var failed, acked []uint64
	p := newProducer(t, dial(t, c), "plain", client.WithLinger(0), client.WithCompression(client.NoCompression),
		client.OnBatch(func(b client.BatchResult) {
			mu.Lock()
			defer mu.Unlock()
			if b.Err != nil {
				failed = append(failed, b.Tags...)
			} else {
				acked = append(acked, b.Tags...)
			}
		}))
	for i := range uint64(500) {
		value := []byte(strconv.FormatUint(i, 10))
		if i == 100 || i == 300 {
			value = []byte("poison")
			if err := p.Flush(t.Context()); err != nil && !errors.Is(err, fault.Of(fault.TooLarge)) {
				t.Fatal(err)
			}
		}
		if err := p.SendTagged(t.Context(), nil, value, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(t.Context()); !errors.Is(err, fault.Of(fault.TooLarge)) {
		t.Fatalf("close: %v", err)
	}
	if !slices.Contains(failed, 100) || !slices.Contains(failed, 300) {
		t.Fatalf("failed: %v", failed)
	}
	if !slices.IsSorted(acked) || len(acked)+len(failed) != 500 {
		t.Fatalf("%d acknowledged, in order: %v; failed: %v", len(acked), slices.IsSorted(acked), failed)
	}
	var there []uint64
	for _, v := range c.values("plain")[0] {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		there = append(there, n)
	}
	if !slices.Equal(there, acked) {
		t.Fatalf("stream holds %d records, acknowledged %d", len(there), len(acked))
	}
}

func TestProducerKeys(t *testing.T) {
	c := startCluster(t, 2, 8)
	p := newProducer(t, dial(t, c), "plain", client.WithBatchBytes(1<<10))
	for i := range 1000 {
		if err := p.Send(t.Context(), []byte("same key"), []byte(strconv.Itoa(i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	home := int(ring.Partition([]byte("same key"), 8))
	if n := len(c.values("plain")[home]); n != 1000 {
		t.Fatalf("%d records at home, want 1000", n)
	}
	if k := c.logs["plain"][home][0].key; string(k) != "same key" {
		t.Fatalf("key %q", k)
	}
	for i := range 5000 { // without a key: spread by whole batches
		if err := p.Send(t.Context(), nil, []byte(strconv.Itoa(i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for part, values := range c.values("plain") {
		if len(values) < 200 {
			t.Errorf("partition %d got %d of 5000 records without a key", part, len(values))
		}
	}
}

func TestProducerAckOffsets(t *testing.T) {
	c := startCluster(t, 1, 3)
	cl := dial(t, c)
	p := newProducer(t, cl, "plain", client.WithBatchBytes(1<<10))
	type place struct {
		partition uint32
		offset    uint64
	}
	var mu sync.Mutex
	where := map[string]place{}
	for i := range 1000 {
		v := strconv.Itoa(i)
		if err := p.Send(t.Context(), nil, []byte(v), func(a client.Ack, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			where[v] = place{a.Partition, a.Offset}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	logs := c.values("plain")
	for v, at := range where {
		if got := logs[at.partition][at.offset]; got != v {
			t.Fatalf("%v holds %s, want %s", at, got, v)
		}
	}
	if len(where) != 1000 {
		t.Fatalf("%d acknowledged", len(where))
	}
	if cl.SeenTick() != c.tick {
		t.Fatalf("seen tick %d, want %d", cl.SeenTick(), c.tick)
	}
}

func TestProducerSendsSeenTick(t *testing.T) {
	c := startCluster(t, 1, 1)
	cl := dial(t, c)
	cl.See(777)
	p := newProducer(t, cl, "plain")
	if err := p.Send(t.Context(), nil, []byte("1"), nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.seen, []uint64{777}) {
		t.Fatalf("appends carried %v", c.seen)
	}
}

// TestProducerBlocksWhenFull holds the acknowledgements back: Send must block at the bound, and go on after.
func TestProducerBlocksWhenFull(t *testing.T) {
	c := startCluster(t, 1, 1)
	c.maxRecord = 4 << 10
	p := newProducer(t, dial(t, c), "plain", client.WithBatchBytes(4<<10), client.WithBufferBytes(32<<10))
	c.nodes[0].freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // long enough to fill it
	defer cancel()
	sent, value := 0, bytes.Repeat([]byte("x"), 1000)
	for {
		if err := p.Send(ctx, nil, value, nil); err != nil {
			if !errors.Is(err, fault.Of(fault.Deadline)) {
				t.Fatal(err)
			}
			break
		}
		sent++
	}
	if sent < 16 || sent > 33 {
		t.Fatalf("%d KB were taken into a buffer of 32 KB", sent)
	}
	if err := p.Send(t.Context(), nil, make([]byte, 5<<10), nil); !errors.Is(err, fault.Of(fault.TooLarge)) {
		t.Fatalf("a record over the limit: %v", err)
	}
	c.nodes[0].unfreeze()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(c.values("plain")[0]); n != sent {
		t.Fatalf("%d records there, want %d", n, sent)
	}
}

func TestProducerAbort(t *testing.T) {
	c := startCluster(t, 1, 1)
	p := newProducer(t, dial(t, c), "plain")
	c.nodes[0].freeze()
	var failed atomic.Int64
	for range 100 {
		if err := p.Send(t.Context(), nil, []byte("1"), func(_ client.Ack, err error) {
			if errors.Is(err, fault.Of(fault.Canceled)) {
				failed.Add(1)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	p.Abort()
	if failed.Load() != 100 {
		t.Fatalf("%d given up, want 100", failed.Load())
	}
}

// TestProducerClientClosed closes the client under its producer: all is called back, nothing hangs.
func TestProducerClientClosed(t *testing.T) {
	c := startCluster(t, 1, 2)
	cl := dial(t, c)
	p := newProducer(t, cl, "plain")
	c.nodes[0].freeze()
	var failed atomic.Int64
	for range 100 {
		if err := p.Send(t.Context(), nil, []byte("1"), func(_ client.Ack, err error) {
			if err != nil {
				failed.Add(1)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	cl.Close()
	if err := p.Close(t.Context()); err == nil {
		t.Fatal("close said that all was acknowledged")
	}
	if failed.Load() != 100 {
		t.Fatalf("%d given up, want 100", failed.Load())
	}
}

// TestProducerConcurrent sends from several goroutines, each with a key of its own.
func TestProducerConcurrent(t *testing.T) {
	c := startCluster(t, 2, 4)
	p := newProducer(t, dial(t, c), "keyed", client.WithBatchBytes(1<<10), client.WithBufferBytes(4<<20))
	var wg sync.WaitGroup
	const senders, each = 8, 2000
	for s := range senders {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				if err := p.Send(t.Context(), nil, fmt.Appendf(nil, `{"k":%d,"n":%d}`, s, i), nil); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkKeyed(t, c, senders*each, senders)
}

// TestProducerReroutes moves all primaries while their old node goes on taking appends, as one that forwards does. The
// refusal of a single batch makes the producer look up the routes; all partitions then go to the new node, and no batch
// overtakes another.
func TestProducerReroutes(t *testing.T) {
	c := startCluster(t, 2, 4)
	for p := range c.primaries {
		c.primaries[p] = 0
	}
	var first, second, refused atomic.Int64
	c.setJudge(func(node int, req *millracev1.AppendRequest) verdict {
		if node == 1 {
			second.Add(1)
			return verdict{}
		}
		if first.Add(1) == 20 {
			for p := range c.primaries {
				c.primaries[p] = 1
			}
		}
		if first.Load() >= 20 && req.Batch.Partition == 0 && refused.Add(1) == 1 {
			return verdict{err: fault.New(fault.NotPrimary, "not any more")}
		}
		return verdict{delay: time.Millisecond}
	})
	p := newProducer(t, dial(t, c), "keyed", client.WithBatchBytes(1<<10), client.WithBufferBytes(2<<20))
	if ok, bad := sendKeyed(t, p, 20_000, 100); ok != 20_000 || bad != 0 {
		t.Fatalf("%d acknowledged, %d failed", ok, bad)
	}
	checkKeyed(t, c, 20_000, 100)
	if second.Load() < first.Load() {
		t.Fatalf("%d batches went to the old primary and only %d to the new one", first.Load(), second.Load())
	}
}

// TestProducerLostForward: node 0 takes batches of a partition and forwards them to a primary that is lost, so that they
// are never answered. Once there is a new primary, even node 0 itself, they are sent to that.
func TestProducerLostForward(t *testing.T) {
	for primary := range 2 {
		t.Run(fmt.Sprint("to node ", primary), func(t *testing.T) {
			c := startCluster(t, 2, 2)
			var swallowed atomic.Int64
			c.setJudge(func(node int, req *millracev1.AppendRequest) verdict {
				if node == 0 && req.Batch.Partition == 0 && req.Batch.Sequence > 2 && swallowed.Load() < 5 {
					if swallowed.Add(1) == 1 {
						c.primaries[0], c.epochs[0] = primary, 1
					}
					return verdict{swallow: true}
				}
				return verdict{}
			})
			p := newProducer(t, dial(t, c), "keyed", client.WithBatchBytes(1<<10))
			begun := time.Now()
			if ok, bad := sendKeyed(t, p, 5_000, 100); ok != 5_000 || bad != 0 || swallowed.Load() == 0 {
				t.Fatalf("%d acknowledged, %d failed, %d batches swallowed", ok, bad, swallowed.Load())
			}
			checkKeyed(t, c, 5_000, 100)
			if d := time.Since(begun); d > 9*time.Second { // resendAfter is 10 s
				t.Fatalf("took %s", d)
			}
		})
	}
}

func TestProducerInvalid(t *testing.T) {
	c := startCluster(t, 1, 1)
	cl := dial(t, c)
	if _, err := cl.Producer(t.Context(), "nope"); !errors.Is(err, fault.Of(fault.NotFound)) {
		t.Errorf("unknown stream: %v", err)
	}
	for _, o := range []client.ProducerOption{
		client.WithLinger(-1), client.WithBatchBytes(0), client.WithBufferBytes(1), client.WithTimeout(0), client.WithCompression(9),
	} {
		if _, err := cl.Producer(t.Context(), "plain", o); !errors.Is(err, fault.Of(fault.Invalid)) {
			t.Errorf("%v", err)
		}
	}
}

// waitFor waits until cond holds; it fails the test when that takes long.
func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Error("waited too long")
			return
		}
		time.Sleep(time.Millisecond)
	}
}
