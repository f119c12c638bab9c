package main

import (
	"sort"
	"sync"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition/stage"
	"github.com/millrace/millrace/record"
)

// logs are the committed logs of all streams, in memory. They implement stage.LogReader.
type logs struct {
	mu    sync.Mutex
	parts map[logKey]*log
}

type logKey struct {
	p      ids.PartitionID
	stream ids.StreamID
}

type log struct {
	batches []logBatch
	end     ids.Offset
}

type logBatch struct {
	base ids.Offset
	n    uint32
	tick ids.Tick
	raw  []byte
}

// append adds a batch of records.
func (l *logs) append(k logKey, tick ids.Tick, b *record.BatchBuilder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.parts[k]
	if g == nil {
		g = &log{}
		l.parts[k] = g
	}
	g.batches = append(g.batches, logBatch{base: g.end, n: uint32(b.Count()), tick: tick, raw: append([]byte(nil), b.Payload()...)})
	g.end += ids.Offset(b.Count())
}

// ReadTicks implements stage.LogReader.
func (l *logs) ReadTicks(p ids.PartitionID, s ids.StreamID, from ids.Offset, maxTick ids.Tick, fn func(*stage.LogBatch) (bool, error)) error {
	l.mu.Lock()
	var batches []logBatch
	if g := l.parts[logKey{p, s}]; g != nil {
		batches = g.batches
	}
	l.mu.Unlock()
	i := sort.Search(len(batches), func(i int) bool { return batches[i].base+ids.Offset(batches[i].n) > from })
	for _, b := range batches[i:] {
		if b.tick > maxTick {
			return nil
		}
		more, err := fn(&stage.LogBatch{BaseOffset: b.base, Count: b.n, Tick: b.tick, TimeMicros: int64(b.tick),
			Raw: func([]byte) ([]byte, error) { return b.raw, nil }})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// End implements stage.LogReader.
func (l *logs) End(p ids.PartitionID, s ids.StreamID) (start, end ids.Offset, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g := l.parts[logKey{p, s}]; g != nil {
		return 0, g.end, nil
	}
	return 0, 0, nil
}
