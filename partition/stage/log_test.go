package stage

import (
	"fmt"
	"sort"
	"strconv"
	"sync"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// memLogs is the committed logs of one stream in all partitions, shared by all nodes of a test.
type memLogs struct {
	mu    sync.Mutex
	parts [][]memBatch
	ends  []ids.Offset
	start []ids.Offset
	fail  map[ids.PartitionID]int // reads that are still to fail
	reads int
	raws  map[[2]uint64]int // how often a batch was looked into, by partition and offset
}

type memBatch struct {
	base ids.Offset
	n    uint32
	tick ids.Tick
	raw  []byte
}

func newMemLogs(partitions int) *memLogs {
	return &memLogs{
		parts: make([][]memBatch, partitions), ends: make([]ids.Offset, partitions), start: make([]ids.Offset, partitions),
		fail: map[ids.PartitionID]int{}, raws: map[[2]uint64]int{},
	}
}

// event is one record of the test's stream: k text, n bigint, ts timestamptz.
type event struct {
	p    ids.PartitionID
	tick ids.Tick
	k    string // "": NULL
	n    int64
	ts   int64 // microseconds; noTime: NULL
	bad  bool  // doesn't decode
}

const noTime = -1

func (e event) json() []byte {
	if e.bad {
		return []byte(`{"k": "x", "n": tr`)
	}
	k, ts := "null", "null"
	if e.k != "" {
		k = strconv.Quote(e.k)
	}
	if e.ts != noTime {
		ts = strconv.FormatInt(e.ts, 10)
	}
	return fmt.Appendf(nil, `{"k":%s,"n":%d,"ts":%s}`, k, e.n, ts)
}

func (l *memLogs) append(p ids.PartitionID, tick ids.Tick, events []event) {
	var b record.BatchBuilder
	for _, e := range events {
		b.Add(nil, false, e.json())
	}
	l.appendRaw(p, tick, uint32(len(events)), append([]byte(nil), b.Payload()...))
}

func (l *memLogs) appendRaw(p ids.PartitionID, tick ids.Tick, n uint32, raw []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts[p] = append(l.parts[p], memBatch{base: l.ends[p], n: n, tick: tick, raw: raw})
	l.ends[p] += ids.Offset(n)
}

// truncate drops the batches below offset.
func (l *memLogs) truncate(p ids.PartitionID, offset ids.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.parts[p]) > 0 && l.parts[p][0].base+ids.Offset(l.parts[p][0].n) <= offset {
		l.parts[p] = l.parts[p][1:]
	}
	l.start[p] = l.ends[p]
	if len(l.parts[p]) > 0 {
		l.start[p] = l.parts[p][0].base
	}
}

func (l *memLogs) ReadTicks(p ids.PartitionID, _ ids.StreamID, from ids.Offset, maxTick ids.Tick, fn func(*LogBatch) (bool, error)) error {
	l.mu.Lock()
	l.reads++
	if l.fail[p] > 0 {
		l.fail[p]--
		l.mu.Unlock()
		return fault.New(fault.Unavailable, "the log can't be read now")
	}
	batches := l.parts[p]
	l.mu.Unlock()
	i := sort.Search(len(batches), func(i int) bool { return batches[i].base+ids.Offset(batches[i].n) > from })
	for _, b := range batches[i:] {
		if b.tick > maxTick {
			return nil
		}
		more, err := fn(&LogBatch{
			BaseOffset: b.base, Count: b.n, Tick: b.tick, TimeMicros: int64(b.tick),
			Raw: func([]byte) ([]byte, error) {
				l.mu.Lock()
				l.raws[[2]uint64{uint64(p), uint64(b.base)}]++
				l.mu.Unlock()
				return b.raw, nil
			},
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func (l *memLogs) End(p ids.PartitionID, _ ids.StreamID) (start, end ids.Offset, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.start[p], l.ends[p], nil
}
