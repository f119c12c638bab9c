package node

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/ring"
)

const (
	// batchBytes is when a batch is full.
	batchBytes = 256 << 10
	// batchesInFlight is how many batches of one partition and stream wait for their acknowledgement at once. While
	// they do, records gather in the next one: batches grow as the disk or the replicas get slower, and a lone
	// record waits for nobody.
	batchesInFlight = 2
)

// batcher makes batches of the records that plain clients send, one line of batches per stream and partition.
type batcher struct {
	n *Node

	mu         sync.Mutex
	lanes      map[laneID]*lane
	extractors map[ids.StreamID]*sync.Pool // of func([]byte) ([]byte, bool)
	spread     atomic.Uint32               // round robin for records without a key
}

type laneID struct {
	stream    ids.StreamID
	partition ids.PartitionID
}

func newBatcher(n *Node) *batcher {
	return &batcher{n: n, lanes: map[laneID]*lane{}, extractors: map[ids.StreamID]*sync.Pool{}}
}

// call is one request's records, on their way in several lanes.
type call struct {
	mu       sync.Mutex
	waiting  int
	appended []*millracev1.Appended
	err      error
	done     func([]*millracev1.Appended, error)
}

func (c *call) finish(a []*millracev1.Appended, err error) {
	c.mu.Lock()
	c.appended = append(c.appended, a...)
	if err != nil && c.err == nil {
		c.err = err
	}
	c.waiting--
	last := c.waiting == 0
	c.mu.Unlock()
	if last {
		c.done(c.appended, c.err)
	}
}

// add appends records, in order per partition; done is called once, when all are acknowledged or refused.
func (b *batcher) add(ctx context.Context, def *millracev1.Stream, records []*millracev1.Record, seen ids.Tick, done func([]*millracev1.Appended, error)) {
	partitions := b.n.catalog().partitions()
	extract, release, err := b.extractor(def)
	if err != nil {
		done(nil, err)
		return
	}
	parts := map[ids.PartitionID][]*millracev1.Record{}
	sticky := ids.PartitionID(b.spread.Add(1) % uint32(partitions)) // one request's keyless records stay together
	for _, r := range records {
		p := sticky
		if key, ok := extract(r.Value); ok {
			r.Key = append([]byte(nil), key...)
			p = ring.Partition(r.Key, partitions)
		} else if r.Key != nil && (!record.HasKey(def) || tombstone(def, r.Value)) {
			p = ring.Partition(r.Key, partitions)
		}
		parts[p] = append(parts[p], r)
	}
	release()
	c := &call{waiting: len(parts), done: done}
	for p, rs := range parts {
		b.lane(def, p).add(ctx, rs, seen, c)
	}
}

// tombstone tells whether a record deletes the row of its key.
func tombstone(def *millracev1.Stream, value []byte) bool {
	return len(def.PrimaryKey) > 0 && len(value) == 0
}

// extractor lends a key extractor of the stream; release gives it back.
func (b *batcher) extractor(def *millracev1.Stream) (extract func([]byte) ([]byte, bool), release func(), err error) {
	if !record.HasKey(def) {
		return func([]byte) ([]byte, bool) { return nil, false }, func() {}, nil
	}
	id := ids.StreamID(def.Id)
	b.mu.Lock()
	pool := b.extractors[id]
	if pool == nil {
		pool = &sync.Pool{}
		b.extractors[id] = pool
	}
	b.mu.Unlock()
	ke, _ := pool.Get().(func([]byte) ([]byte, bool))
	if ke == nil {
		if ke, err = record.NewKeyExtractor(def); err != nil {
			return nil, nil, err
		}
	}
	return ke, func() { pool.Put(ke) }, nil
}

func (b *batcher) lane(def *millracev1.Stream, p ids.PartitionID) *lane {
	id := laneID{ids.StreamID(def.Id), p}
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lanes[id]
	if l == nil {
		l = &lane{n: b.n, def: def, partition: p}
		b.lanes[id] = l
	}
	return l
}

// configure forgets the lanes of streams that are gone.
func (b *batcher) configure(c *catalog) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.lanes {
		if c.streams[id.stream] == nil {
			delete(b.lanes, id)
		}
	}
	for id := range b.extractors {
		if c.streams[id] == nil {
			delete(b.extractors, id)
		}
	}
}

// lane is the line of batches of one stream and partition.
type lane struct {
	n         *Node
	def       *millracev1.Stream
	partition ids.PartitionID

	mu       sync.Mutex
	inFlight int
	open     *openBatch // gathers while others are in flight
	sending  bool       // one goroutine at a time hands batches over, in order
	full     []*openBatch
}

// openBatch is a batch that still grows, and who waits for it.
type openBatch struct {
	b     record.BatchBuilder
	seen  ids.Tick
	parts []batchPart
}

// batchPart is one call's share of a batch.
type batchPart struct {
	first, count int
	c            *call
}

func (l *lane) add(ctx context.Context, records []*millracev1.Record, seen ids.Tick, c *call) {
	l.mu.Lock()
	for len(records) > 0 {
		if l.open == nil {
			l.open = &openBatch{}
		}
		o := l.open
		first := o.b.Count()
		n := 0
		for n < len(records) && (o.b.Bytes() == 0 || o.b.Bytes()+len(records[n].Key)+len(records[n].Value) <= batchBytes) {
			o.b.Add(records[n].Key, records[n].Key != nil, records[n].Value)
			n++
		}
		if n > 0 {
			o.seen = max(o.seen, seen)
			o.parts = append(o.parts, batchPart{first, n, c})
			records = records[n:]
		}
		if len(records) > 0 {
			l.full = append(l.full, o)
			l.open = nil
			c.mu.Lock()
			c.waiting++ // the call goes on in the next batch
			c.mu.Unlock()
		}
	}
	l.mu.Unlock()
	l.send(ctx)
}

// send hands over what may go: full batches, and the open one while fewer than batchesInFlight are on their way.
func (l *lane) send(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sending {
		return
	}
	l.sending = true
	for l.inFlight < batchesInFlight {
		var o *openBatch
		switch {
		case len(l.full) > 0:
			o, l.full = l.full[0], l.full[1:]
		case l.open != nil:
			o, l.open = l.open, nil
		}
		if o == nil {
			break
		}
		l.inFlight++
		l.mu.Unlock()
		l.append(ctx, o)
		l.mu.Lock()
	}
	l.sending = false
}

func (l *lane) append(ctx context.Context, o *openBatch) {
	payload := o.b.Payload()
	batch := &millracev1.Batch{
		Partition: uint32(l.partition), Count: uint32(o.b.Count()), UncompressedBytes: uint32(len(payload)),
		Crc32C: record.Checksum(payload), Payload: payload,
	}
	shrink(batch)
	// The batch carries several callers' records: one of them going away must not take the others' along.
	l.n.router.append(context.WithoutCancel(ctx), appendJob{
		stream: l.def, batch: batch, seenTick: o.seen,
		done: func(a *millracev1.Appended, err error) {
			l.mu.Lock()
			l.inFlight--
			l.mu.Unlock()
			if err == nil && int(a.Count) != o.b.Count() {
				err = fault.New(fault.Internal, "partition %d acknowledged %d of %d records", l.partition, a.Count, o.b.Count())
			}
			for _, p := range o.parts {
				if err != nil {
					p.c.finish(nil, err)
					continue
				}
				p.c.finish([]*millracev1.Appended{{
					Partition: a.Partition, BaseOffset: a.BaseOffset + uint64(p.first), Count: uint32(p.count), Tick: a.Tick,
				}}, nil)
			}
			// Not on the log's goroutine: handing over the next batch may have to wait for the log.
			l.mu.Lock()
			more := len(l.full) > 0 || l.open != nil
			l.mu.Unlock()
			if more {
				l.n.tasks.Go(func() { l.send(context.Background()) })
			}
		},
	})
}
