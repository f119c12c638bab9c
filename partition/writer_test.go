package partition

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/storage"
)

// TestWriterOrder: whatever the queues, a replica's writes reach the disk in its order, and all of them do.
func TestWriterOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	o := storage.DefaultOptions()
	o.FS, o.Logger, o.ReserveBytes, o.MemTableBytes, o.CacheBytes = vfs.NewMem(), quiet(), 0, 1<<20, 1<<20
	store, err := storage.OpenLog("log", o)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	const replicas, writes = 4, 3000
	hosts := make([]*hosted, replicas)
	name := map[*hosted]int{}
	for i := range hosts {
		hosts[i] = &hosted{}
		name[hosts[i]] = i
	}
	var mu sync.Mutex
	told := map[*hosted]uint64{}
	all := make(chan struct{})
	w := newLogWriter(store, 16<<10, 1<<20)
	w.written = func(group []groupEnd) {
		mu.Lock()
		defer mu.Unlock()
		done := 0
		for _, g := range group {
			if g.op <= told[g.hd] {
				t.Errorf("replica %d was told of write %d after %d", name[g.hd], g.op, told[g.hd])
			}
			told[g.hd] = g.op
		}
		for _, op := range told {
			if op == writes {
				done++
			}
		}
		if done == replicas {
			close(all)
		}
	}
	w.refused, w.broken = func(error) {}, func(err error) { t.Error(err) }
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.run(ctx) })
	filler := bytes.Repeat([]byte{'x'}, 200)
	next := make([]uint64, replicas)
	for left := replicas * writes; left > 0; {
		i := rnd.IntN(replicas)
		var some []write
		for range 1 + rnd.IntN(5) {
			if next[i] == writes {
				break
			}
			next[i]++
			left--
			value := append(fmt.Appendf(nil, "%d ", next[i]), filler...)
			some = append(some, write{op: next[i], muts: []mutation{{key: fmt.Appendf(nil, "k%d", i), value: value}}})
		}
		w.enqueue(hosts[i], some, rnd.IntN(3) > 0)
		if rnd.IntN(50) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	select {
	case <-all:
	case <-time.After(60 * time.Second):
		t.Errorf("not all was written: %v", told)
	}
	cancel()
	wg.Wait()
	for i, hd := range hosts {
		v, closer, err := store.Get(fmt.Appendf(nil, "k%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint(writes, " "); !bytes.HasPrefix(v, []byte(want)) {
			t.Errorf("replica %d ends with %.8s, not %s", i, v, want)
		}
		closer.Close()
		if hd.queued != [2]int{} {
			t.Errorf("replica %d still counts %v", i, hd.queued)
		}
	}
}

// TestWriterPutsCopiesBehind: with many copies queued, what is waited for is in the next group.
func TestWriterPutsCopiesBehind(t *testing.T) {
	w := newLogWriter(nil, 8<<20, 1<<30)
	learner, follower := &hosted{}, &hosted{}
	entryOf := func(lsn LSN) *entry {
		e := &entry{header: header{lsn: lsn, payloadLen: 64 << 10}}
		return e
	}
	for i := range LSN(1000) {
		w.enqueue(learner, []write{{op: uint64(i + 1), entry: entryOf(i + 1)}}, true)
	}
	w.enqueue(follower, []write{{op: 1, entry: entryOf(1)}}, false)
	if len(w.queue) != 1 || w.queue[0].hd != follower || len(w.copies) != 1000 {
		t.Fatalf("%d and %d are queued", len(w.queue), len(w.copies))
	}
	if err := w.wait(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	w.enqueue(learner, []write{{op: 1001}}, false) // it is waited for now
	if len(w.queue) != 1002 || len(w.copies) != 0 || learner.queued != [2]int{1001, 0} || w.bytes != [2]int{1001 * 64 << 10, 0} {
		t.Fatalf("%d and %d are queued, %v, %v", len(w.queue), len(w.copies), learner.queued, w.bytes)
	}
	for i, q := range w.queue[1:] {
		if q.op != uint64(i+1) {
			t.Fatalf("write %d is in place %d", q.op, i+1)
		}
	}
}
