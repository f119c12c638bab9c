package stage

import (
	"sync"

	"github.com/millrace/millrace/internal/ids"
)

// board is what this node knows of the ticks that partitions have closed, here and elsewhere, and of the last closed
// ticks in which streams got records. A closed tick is final, whoever closed it.
type board struct {
	mu    sync.RWMutex
	parts []closedPart
	last  map[ids.StreamID][]ids.Tick // by partition
}

type closedPart struct {
	closed ids.Tick // by anyone
	epoch  ids.Epoch
	here   ids.Tick // closed by this node's replica in that epoch
	end    uint64   // of the log then
	// base is how far any stream may have got records that nobody told of: those of earlier epochs, or before this
	// node was started.
	base ids.Tick
}

func newBoard() *board { return &board{last: map[ids.StreamID][]ids.Tick{}} }

// resize sets the cluster's number of partitions, which never changes once it is known.
func (b *board) resize(partitions int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.parts) < partitions {
		b.parts = append(b.parts, make([]closedPart, partitions-len(b.parts))...)
	}
}

func (b *board) partitions() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.parts)
}

// closedHere returns the tick up to which this node's log of a partition is final and known here to be committed: what
// it has closed itself in that epoch. A tick that another node has closed is no less final, but a replica that has just
// become the primary may not know yet how much of its own log is committed.
func (b *board) closedHere(p ids.PartitionID, epoch ids.Epoch) ids.Tick {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.parts[p].epoch != epoch {
		return 0
	}
	return b.parts[p].here
}

// closeHere notes what a partition of this node has closed, and returns the tick that it had closed before in this
// epoch, and whether this is the epoch's first.
func (b *board) closeHere(c Closing) (before ids.Tick, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if int(c.Partition) >= len(b.parts) {
		return 0, false // before the first Configure; the next closing comes soon
	}
	p := &b.parts[c.Partition]
	if c.Epoch != p.epoch || p.here == 0 {
		p.epoch, p.here, p.base, first = c.Epoch, 0, max(p.base, c.Tick), true
	}
	before = p.here
	for _, d := range c.Data {
		b.setLast(d.Stream, c.Partition, d.Tick)
	}
	if c.Tick >= p.here {
		p.here, p.end = c.Tick, c.End
	}
	p.closed = max(p.closed, c.Tick)
	return before, first
}

// lastHere returns the newest tick that this node's replica of a partition has closed, in whatever epoch.
func (b *board) lastHere(p ids.PartitionID) ids.Tick {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.parts[p].here
}

// endHere is closedHere, with the end of the partition's log then.
func (b *board) endHere(p ids.PartitionID, epoch ids.Epoch) (ids.Tick, uint64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.parts[p].epoch != epoch {
		return 0, 0
	}
	return b.parts[p].here, b.parts[p].end
}

func (b *board) setLast(stream ids.StreamID, p ids.PartitionID, tick ids.Tick) {
	l := b.last[stream]
	if l == nil {
		l = make([]ids.Tick, len(b.parts))
		b.last[stream] = l
	}
	l[p] = max(l[p], tick)
}

// closeThere notes what another node's partitions have closed.
func (b *board) closeThere(tick ids.Tick, parts []uint32, data []lastData) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range data {
		switch {
		case int(d.p) >= len(b.parts):
		case d.stream == 0:
			b.parts[d.p].base = max(b.parts[d.p].base, d.tick)
		default:
			b.setLast(d.stream, d.p, d.tick)
		}
	}
	for _, p := range parts {
		if int(p) < len(b.parts) {
			b.parts[p].closed = max(b.parts[p].closed, tick)
		}
	}
}

type lastData struct {
	p      ids.PartitionID
	stream ids.StreamID
	tick   ids.Tick
}

// news returns what partitions have closed above sent, which it brings up to date; grouped by tick.
func (b *board) news(parts []ids.PartitionID, sent []ids.Tick, say func(tick ids.Tick, parts []uint32, data []lastData)) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for i, p := range parts {
		tick := b.parts[p].closed
		if tick <= sent[p] {
			continue
		}
		var same []uint32
		var data []lastData
		for _, q := range parts[i:] {
			if b.parts[q].closed != tick || sent[q] >= tick {
				continue
			}
			same = append(same, uint32(q))
			if base := b.parts[q].base; base > sent[q] {
				data = append(data, lastData{q, 0, base})
			}
			for stream, l := range b.last {
				if l[q] > sent[q] {
					data = append(data, lastData{q, stream, l[q]})
				}
			}
			sent[q] = tick
		}
		say(tick, same, data)
	}
}

// show calls fn for each of parts with the closed tick and the last one with data of a stream.
func (b *board) show(stream ids.StreamID, parts []ids.PartitionID, fn func(i int, closed, lastData ids.Tick)) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	l := b.last[stream]
	for i, p := range parts {
		last := b.parts[p].base
		if l != nil {
			last = max(last, l[p])
		}
		fn(i, b.parts[p].closed, last)
	}
}

// showClosed calls fn for each of parts with the closed tick.
func (b *board) showClosed(parts []ids.PartitionID, fn func(i int, closed ids.Tick)) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for i, p := range parts {
		fn(i, b.parts[p].closed)
	}
}

// forget drops a stream that is gone.
func (b *board) forget(keep func(ids.StreamID) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.last {
		if !keep(s) {
			delete(b.last, s)
		}
	}
}
