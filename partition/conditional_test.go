package partition

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

func changed(err error) bool {
	var f *fault.Error
	return errors.As(err, &f) && f.Kind == fault.Conflict && f.GetReason() == ReasonChanged
}

func TestConditionalAppend(t *testing.T) {
	c := newCluster(t, 3, 1, patient).startAll()
	first := c.must(0, 2, batchOf(0, 0, "a"))
	n := c.primary(0)
	if _, err := n.request(AppendRequest{Stream: 2, Batch: batchOf(0, 0, "b"), UnchangedSince: first.Tick - 1}); !changed(err) {
		t.Fatalf("a record above the tick: %v", err)
	}
	// Records of another stream don't matter, and a stream without records hasn't changed.
	if _, err := n.request(AppendRequest{Stream: 1, Batch: batchOf(0, 0, "c"), UnchangedSince: 1}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tick closes", func() bool { closed, ok := n.host.Closed(0); return ok && closed >= first.Tick })
	if _, err := n.request(AppendRequest{Stream: 2, Batch: batchOf(0, 0, "d"), UnchangedSince: first.Tick}); err != nil {
		t.Fatal(err)
	}
	// A repeat of a conditional batch gets the first answer although the log has changed since.
	eventually(t, "the tick closes", func() bool { closed, ok := n.host.Closed(0); return ok && closed > first.Tick })
	closed, _ := n.host.Closed(0)
	end, err := n.host.End(0, 2)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is closed", func() bool { closed, _ = n.host.Closed(0); return closed >= end.LastTick })
	res, err := n.request(AppendRequest{Stream: 2, Batch: batchOf(9, 1, "e"), UnchangedSince: closed})
	if err != nil {
		t.Fatal(err)
	}
	again, err := n.request(AppendRequest{Stream: 2, Batch: batchOf(9, 1, "e"), UnchangedSince: closed})
	if err != nil || !again.Duplicate || again.BaseOffset != res.BaseOffset {
		t.Fatalf("a repeat: %+v, %v; first %+v", again, err, res)
	}
}

// TestConditionalAppendsExclude lets many raise one number, each on the condition that nobody else did meanwhile.
func TestConditionalAppendsExclude(t *testing.T) {
	c := newCluster(t, 3, 1, patient).startAll()
	c.must(0, 2, batchOf(0, 0, "0"))
	n := c.primary(0)
	const writers, each = 4, 10
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[ids.Tick]int{}
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				since, ok := n.host.Closed(0)
				if !ok {
					continue
				}
				_, err := n.request(AppendRequest{Stream: 2, Batch: batchOf(0, 0, "x"), UnchangedSince: since})
				switch {
				case err == nil:
					mu.Lock()
					won[since]++
					mu.Unlock()
					done++
				case !changed(err):
					t.Errorf("append: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	for since, times := range won {
		if times > 1 {
			t.Errorf("%d appends took effect over what was there at tick %d", times, since)
		}
	}
}

// TestGeneratedAppend appends batches that hold no records but their number, each where the log ends.
func TestGeneratedAppend(t *testing.T) {
	c := newCluster(t, 3, 1, patient).startAll()
	c.must(0, 1, batchOf(0, 0, "a")) // the partition is open
	n := c.primary(0)
	give := func(base ids.Offset, count uint32) (AppendResult, error) {
		payload := record.GeneratedPayload(count)
		return n.request(AppendRequest{Stream: 2, Generated: true, Base: base, Batch: &millracev1.Batch{
			Count: count, UncompressedBytes: uint32(len(payload)), Crc32C: record.Checksum(payload), Payload: payload,
		}})
	}
	if _, err := give(7, 1); !changed(err) {
		t.Errorf("a first batch at offset 7: %v", err)
	}
	if res, err := give(0, 5000); err != nil || res.BaseOffset != 0 || res.Count != 5000 {
		t.Fatalf("the first batch: %+v, %v", res, err)
	}
	for _, base := range []ids.Offset{0, 4999, 5001} {
		if _, err := give(base, 10); !changed(err) {
			t.Errorf("a second batch at offset %d: %v", base, err)
		}
	}
	if res, err := give(5000, 10); err != nil || res.BaseOffset != 5000 {
		t.Fatalf("the second batch: %+v, %v", res, err)
	}
	var counts []int
	err := n.host.Read(0, 2, 0, 0, func(b *Batch) (bool, error) {
		raw, err := b.Raw(nil)
		if err != nil {
			return false, err
		}
		k, err := record.GeneratedCount(raw)
		counts = append(counts, k)
		return true, err
	})
	if err != nil || !slices.Equal(counts, []int{5000, 10}) {
		t.Errorf("the log says %v, %v", counts, err)
	}
}
