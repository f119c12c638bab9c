package partition

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

var (
	chaosSeed   = flag.Uint64("chaos.seed", 0, "seed of TestChaos; 0: a new one")
	chaosFaults = flag.Int("chaos.faults", 25, "faults of TestChaos")
)

// chaosProducer appends numbered records to one stream and partition, each until it is acknowledged.
type chaosProducer struct {
	id        uint64
	partition ids.PartitionID
	stream    ids.StreamID
	acked     []AppendResult // by sequence
}

func (p *chaosProducer) value(i int) string { return fmt.Sprintf("%d/%d", p.id, i) }

func (p *chaosProducer) run(c *cluster, stop <-chan struct{}) error {
	for i := 0; ; i++ {
		b := batchOf(p.id, uint64(i+1), p.value(i), p.value(i)+"+")
		for {
			res, err := AppendResult{}, error(fault.New(fault.Unavailable, "down"))
			n := c.primary(p.partition)
			c.mu.Lock()
			up := n.up
			c.mu.Unlock()
			if up {
				res, err = n.append(p.partition, p.stream, b, 0)
			}
			if err == nil {
				p.acked = append(p.acked, res)
				break
			}
			if !fault.Retryable(err) {
				return fmt.Errorf("producer %d, sequence %d: %w", p.id, i+1, err)
			}
			select {
			case <-stop:
				return nil
			case <-time.After(2 * time.Millisecond):
			}
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

// closedTicks remembers what a partition's streams held when a tick was closed.
type closedTicks struct {
	mu    sync.Mutex
	hosts map[ids.NodeID]int // closings looked at
	held  map[closedKey]ids.Offset
	last  map[closedKey]closedEnd // with tick 0: the last one looked at
}

// closedEnd is where a tick ended.
type closedEnd struct {
	tick ids.Tick
	end  ids.Offset
}

type closedKey struct {
	p ids.PartitionID
	s ids.StreamID
	t ids.Tick
}

// look counts, for each tick closed since the last call, the records that are stamped with it or before.
func (k *closedTicks) look(c *cluster, id ids.NodeID) {
	n := c.nodes[id]
	c.mu.Lock()
	up, from := n.up, k.hosts[id]
	var cs []Closing
	if up && from < len(n.closings) {
		cs = slices.Clone(n.closings[max(from, len(n.closings)-3):])
	}
	k.hosts[id] = len(n.closings)
	c.mu.Unlock()
	for _, cl := range cs {
		for s := ids.StreamID(1); s <= 2; s++ {
			end := ids.Offset(0)
			if l := k.last[closedKey{cl.Partition, s, 0}]; l.tick <= cl.Tick {
				end = l.end
			}
			err := n.host.ReadTicks(cl.Partition, s, max(end, 1)-1, cl.Tick, func(b *Batch) (bool, error) {
				end = b.BaseOffset + ids.Offset(b.Count)
				return true, nil
			})
			// A node that isn't the primary any more, or restarted, may know of less than it once had closed.
			if closed, ok := n.host.Closed(cl.Partition); err == nil && ok && closed >= cl.Tick {
				k.mu.Lock()
				k.held[closedKey{cl.Partition, s, cl.Tick}] = end
				k.last[closedKey{cl.Partition, s, 0}] = closedEnd{cl.Tick, end}
				k.mu.Unlock()
			}
		}
	}
}

// TestChaos runs three hosts over file systems that forget what wasn't synced, while producers append: nodes crash, all
// at once too, are cut off, partitions fail over and are handed over. Nothing acknowledged may be lost or be there
// twice, all members have the same log, and what a closed tick held stays as it was.
func TestChaos(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("run it again with -run TestChaos -chaos.seed=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	c := newCluster(t, 3, 2, func(cfg *Config) { cfg.CacheBytes = 64 << 10 }).startAll()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var producers []*chaosProducer
	for i := range 4 {
		p := &chaosProducer{id: uint64(i + 1), partition: ids.PartitionID(i % 2), stream: ids.StreamID(i/2 + 1)}
		producers = append(producers, p)
		wg.Go(func() {
			if err := p.run(c, stop); err != nil {
				t.Error(err)
			}
		})
	}
	ticks := &closedTicks{hosts: map[ids.NodeID]int{}, held: map[closedKey]ids.Offset{}, last: map[closedKey]closedEnd{}}
	faults := *chaosFaults
	if testing.Short() {
		faults = min(faults, 8)
	}
	for i := range faults {
		c.disturb(rng, ticks)
		if t.Failed() {
			t.Fatalf("after %d faults", i+1)
		}
	}
	c.recoverAll()
	for p := range ids.PartitionID(2) {
		c.must(p, 3, batchOf(0, 0, "end"))
		eventually(t, "all in sync", func() bool { return len(c.config(p).InSync) == 3 })
	}
	close(stop)
	wg.Wait()
	c.verify(producers, ticks)
}

// disturb does one bad thing, and lets some time pass.
func (c *cluster) disturb(rng *rand.Rand, ticks *closedTicks) {
	id := c.order[rng.IntN(len(c.order))]
	seed := randSource{rng.Uint64()}
	pause := func() {
		for range 1 + rng.IntN(10) {
			time.Sleep(5 * time.Millisecond)
			for _, n := range c.order {
				ticks.look(c, n)
			}
		}
	}
	pause()
	keep := rng.IntN(2) * 50 // percent of what wasn't synced
	switch rng.IntN(6) {
	case 0, 1: // one node loses power; its partitions fail over, or wait for it
		c.crash(id, keep, seed)
		if rng.IntN(3) > 0 {
			for p := range c.state.Partitions {
				if c.config(ids.PartitionID(p)).Primary == string(id) {
					_ = c.failover(ids.PartitionID(p))
				}
			}
		}
		pause()
		c.start(id)
	case 2: // all do
		for _, id := range c.order {
			c.crash(id, keep, seed)
		}
		for _, i := range rng.Perm(len(c.order)) {
			c.start(c.order[i])
			pause()
		}
	case 3: // cut off, and replaced meanwhile
		c.isolate(id, true)
		if rng.IntN(2) == 0 {
			for p := range c.state.Partitions {
				if c.config(ids.PartitionID(p)).Primary == string(id) {
					_ = c.failover(ids.PartitionID(p))
				}
			}
		}
		pause()
		c.isolate(id, false)
	case 4: // a handover
		p := ids.PartitionID(rng.IntN(2))
		cfg := c.config(p)
		to := cfg.InSync[rng.IntN(len(cfg.InSync))]
		if to != cfg.Primary {
			_ = c.change(p, ids.Epoch(cfg.Epoch), func(cfg *internalv1.PartitionConfig) error { cfg.HandoverTo = to; return nil })
		}
	case 5: // no coordinator for a while
		c.frozen.Store(true)
		pause()
		c.frozen.Store(false)
	}
	pause()
}

func (c *cluster) recoverAll() {
	c.frozen.Store(false)
	for _, id := range c.order {
		c.isolate(id, false)
		c.mu.Lock()
		up := c.nodes[id].up
		c.mu.Unlock()
		if !up {
			c.start(id)
		}
	}
}

func (c *cluster) verify(producers []*chaosProducer, ticks *closedTicks) {
	t := c.t
	total := 0
	for _, p := range producers {
		recs, err := c.primary(p.partition).readAll(p.partition, p.stream, 0)
		if err != nil {
			t.Fatal(err)
		}
		at := map[ids.Offset]readRecord{}
		count := map[string]int{}
		for i, r := range recs {
			if r.offset != ids.Offset(i) {
				t.Fatalf("partition %d: record %d has offset %d", p.partition, i, r.offset)
			}
			at[r.offset] = r
			count[r.value]++
		}
		for i, res := range p.acked {
			total++
			if r := at[res.BaseOffset]; r.value != p.value(i) || r.tick != res.Tick || count[p.value(i)] != 1 {
				t.Fatalf("producer %d: batch %d was acknowledged at %d with tick %d; there is %+v, in all %d times",
					p.id, i, res.BaseOffset, res.Tick, r, count[p.value(i)])
			}
		}
		for _, id := range c.order {
			eventually(t, "members agree", func() bool {
				got, err := c.nodes[id].readAll(p.partition, p.stream, 0)
				return err == nil && slices.Equal(got, recs)
			})
		}
	}
	logs := map[closedKey][]readRecord{}
	for k, end := range ticks.held {
		log := closedKey{k.p, k.s, 0}
		if logs[log] == nil {
			recs, err := c.primary(k.p).readAll(k.p, k.s, 0)
			if err != nil {
				t.Fatal(err)
			}
			logs[log] = recs
		}
		got, _ := slices.BinarySearchFunc(logs[log], k.t+1, func(r readRecord, t ids.Tick) int { return cmp.Compare(r.tick, t) })
		if ids.Offset(got) != end {
			t.Fatalf("partition %d, stream %d: tick %d held %d records when it was closed, now %d", k.p, k.s, k.t, end, got)
		}
	}
	t.Logf("%d batches acknowledged, %d closed ticks compared", total, len(ticks.held))
}
