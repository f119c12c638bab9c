package node

import (
	"testing"
)

// TestBudget adds the parts up: they fit into the whole, and Go's parts into its heap, whatever the whole is.
func TestBudget(t *testing.T) {
	for _, mib := range []int64{256, 300, 512, 1 << 10, 3 << 10, 4 << 10, 6 << 10, 64 << 10, 1 << 20} {
		b := Config{Memory: mib << 20}.Budget()
		if sum := b.Tables + b.BlockCache + fixedMemory + b.Heap; sum > b.Total {
			t.Errorf("%d MiB: %d MiB are given out", mib, sum>>20)
		}
		parts := b.parts() + b.Queries
		if parts+fixedHeap > b.Heap {
			t.Errorf("%d MiB: parts of %d MiB in a heap of %d MiB", mib, parts>>20, b.Heap>>20)
		}
		if b.Statement > b.Queries {
			t.Errorf("%d MiB: a statement may hold %d, all of them %d", mib, b.Statement, b.Queries)
		}
		cfg := DefaultConfig()
		cfg.DataDir, cfg.Memory = "data", mib<<20
		if err := cfg.Validate(); err != nil {
			t.Errorf("%d MiB: %v", mib, err)
		}
		cfg.fill()
		if cfg.ConnInFlightBytes > cfg.IngestBytes {
			t.Errorf("%d MiB: a connection may have %d in flight, all of them %d", mib, cfg.ConnInFlightBytes, cfg.IngestBytes)
		}
	}
	whole := Config{Memory: 1 << 30}
	own := whole
	own.CacheBytes, own.QueryMemoryBytes = 200<<20, 400<<20
	b := own.Budget()
	if b.BlockCache != own.CacheBytes || b.Statement != own.QueryMemoryBytes || b.Queries < b.Statement {
		t.Errorf("settings of their own don't count: %+v", b)
	}
	if less := whole.Budget().Heap; b.Heap >= less {
		t.Errorf("a larger block cache leaves Go %d, a smaller one %d", b.Heap, less)
	}
	cfg := DefaultConfig()
	cfg.DataDir = "data"
	for _, bad := range []struct{ memory, cache int64 }{{LeastMemory - 1, 0}, {1 << 30, 1 << 30}} {
		cfg.Memory, cfg.CacheBytes = bad.memory, bad.cache
		if err := cfg.Validate(); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// TestParts gives back what a part of a statement held when it ends, and only that.
func TestParts(t *testing.T) {
	q := &queryMemory{each: 100, total: 150}
	h := q.begin()
	if err := h.add(10); err != nil {
		t.Fatal(err)
	}
	for range 5 { // one after the other they fit
		p := &part{of: h}
		if err := p.add(80); err != nil {
			t.Fatal(err)
		}
		p.end()
	}
	p := &part{of: h}
	if err := p.add(91); err == nil {
		t.Error("a statement holds more than it may")
	}
	p.end()
	if got := q.held.Load(); got != 10 {
		t.Errorf("%d bytes are held, want 10", got)
	}
	h.end()
	if got := q.held.Load(); got != 0 {
		t.Errorf("%d bytes are left", got)
	}
}
