package stage

import (
	"container/list"
	"slices"
	"sync"

	"github.com/millrace/millrace/datagen"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// decodedBatches remembers, within a bound, what the newest batches of the logs decode to, so that a record which many
// views read as it comes is decoded once. What only one source reads isn't kept.
type decodedBatches struct {
	limit int64 // bytes

	mu      sync.Mutex
	logs    map[logKey]*sharedLog
	batches map[batchKey]*list.Element // of *decodedBatch
	recent  list.List                  // those in batches, the last used first
	bytes   int64
}

// logKey names a stream's log in one partition.
type logKey struct {
	p      ids.PartitionID
	stream ids.StreamID
}

type batchKey struct {
	logKey
	offset ids.Offset
}

// sharedLog is a log with the sources that read its records.
type sharedLog struct {
	readers int
	wanted  map[string]int // how many of them read a column
	columns *columnSet     // all that are wanted; nil after a change

	mu      sync.Mutex // held while a batch is decoded
	dec     *record.Decoder
	decodes *columnSet // what dec makes
}

// columnSet is an immutable list of columns; who has the same one needs no look at the names.
type columnSet struct{ names []string }

// decodedBatch is what a batch decodes to, for any reader at the same event time. It doesn't change once it is made.
type decodedBatch struct {
	key     batchKey
	made    sync.Once
	bytes   int64
	failed  bool
	columns *columnSet
	rows    *record.Delta
	rawSize int
	before  eventTime
	after   eventTime
}

// eventTime is the highest event time that a decoder has seen.
type eventTime struct {
	has    bool
	micros int64
}

func newDecodedBatches(limit int64) *decodedBatches {
	return &decodedBatches{limit: limit, logs: map[logKey]*sharedLog{}, batches: map[batchKey]*list.Element{}}
}

// shares tells whether what a source reads can be shared: the records of a log, which it wants and which cost something
// to decode.
func (l *logPlan) shares() bool { return l != nil && l.id != 0 && !l.marks && l.stream.Source == nil }

// add counts a source that reads a log.
func (d *decodedBatches) add(p ids.PartitionID, l *logPlan) {
	if !l.shares() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	k := logKey{p, l.id}
	log := d.logs[k]
	if log == nil {
		log = &sharedLog{wanted: map[string]int{}}
		d.logs[k] = log
	}
	log.readers++
	for _, c := range l.columns {
		if log.wanted[c]++; log.wanted[c] == 1 {
			log.columns = nil
		}
	}
}

// remove takes a source back that add counted.
func (d *decodedBatches) remove(p ids.PartitionID, l *logPlan) {
	if !l.shares() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	k := logKey{p, l.id}
	log := d.logs[k]
	for _, c := range l.columns {
		if log.wanted[c]--; log.wanted[c] == 0 {
			delete(log.wanted, c)
			log.columns = nil
		}
	}
	if log.readers--; log.readers == 0 {
		delete(d.logs, k)
		for e := d.recent.Front(); e != nil; {
			next := e.Next()
			if e.Value.(*decodedBatch).key.logKey == k {
				d.drop(e)
			}
			e = next
		}
	}
}

// get returns what a batch decodes to; nil when the reader has to decode it itself. The rows are shared: they must not be
// changed.
func (d *decodedBatches) get(p ids.PartitionID, l *logPlan, before eventTime, b *LogBatch) *decodedBatch {
	if !l.shares() {
		return nil
	}
	k := batchKey{logKey{p, l.id}, b.BaseOffset}
	d.mu.Lock()
	log := d.logs[k.logKey]
	if log == nil || log.readers < 2 {
		d.mu.Unlock()
		return nil
	}
	if log.columns == nil {
		log.columns = newColumnSet(log.wanted)
	}
	columns := log.columns
	e := d.batches[k]
	if e == nil {
		e = d.recent.PushFront(&decodedBatch{key: k, before: before, columns: columns})
		d.batches[k] = e
	} else {
		d.recent.MoveToFront(e)
	}
	d.mu.Unlock()

	batch := e.Value.(*decodedBatch)
	batch.made.Do(func() {
		batch.failed = log.decode(batch, l, b) != nil
		d.keep(e, batch)
	})
	if batch.failed || batch.before != before {
		return nil
	}
	return batch
}

func newColumnSet(wanted map[string]int) *columnSet {
	c := &columnSet{names: make([]string, 0, len(wanted))}
	for name := range wanted {
		c.names = append(c.names, name)
	}
	slices.Sort(c.names)
	return c
}

// keep counts what was made of a batch, and forgets the batches that nobody has used for longest.
func (d *decodedBatches) keep(e *list.Element, batch *decodedBatch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.batches[batch.key] != e {
		return // dropped meanwhile
	}
	batch.bytes = 256 // what an entry takes at least
	if batch.rows != nil {
		batch.bytes += deltaBytes(batch.rows)
	}
	d.bytes += batch.bytes
	for e := d.recent.Back(); e != nil && d.bytes > d.limit; {
		before := e.Prev()
		d.drop(e)
		e = before
	}
}

func (d *decodedBatches) size() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bytes
}

// drop forgets a batch. Called with mu held.
func (d *decodedBatches) drop(e *list.Element) {
	batch := d.recent.Remove(e).(*decodedBatch)
	delete(d.batches, batch.key)
	d.bytes -= batch.bytes
}

func (s *sharedLog) decode(batch *decodedBatch, l *logPlan, b *LogBatch) error {
	raw, err := b.Raw(nil)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.decodes != batch.columns {
		if s.dec, err = datagen.NewDecoder(l.stream, batch.columns.names); err != nil {
			s.decodes = nil
			return err
		}
		s.decodes = batch.columns
	}
	s.dec.HasEventTime, s.dec.MaxEventTime = batch.before.has, batch.before.micros
	rows := record.NewDelta(s.dec.Schema(), int(b.Count))
	meta := record.Meta{Partition: batch.key.p, BaseOffset: b.BaseOffset, Tick: b.Tick, TimeMicros: b.TimeMicros}
	if err := s.dec.Decode(raw, meta, rows, nil); err != nil {
		return err
	}
	if batch.rows, batch.rawSize = rows, len(raw); l.stream.Source != nil {
		batch.rawSize = madeBytes(rows)
	}
	batch.after = eventTime{s.dec.HasEventTime, s.dec.MaxEventTime}
	return nil
}

// columnsOf appends the columns of a shared batch that a source wants to in; false: the batch lacks one of them, since it
// was decoded before the source came.
func (s *source) columnsOf(batch *decodedBatch, in *record.Delta) bool {
	if s.shared != batch.columns {
		at := make([]int, 0, len(s.plan.log.columns))
		for _, name := range s.plan.log.columns {
			i, ok := slices.BinarySearch(batch.columns.names, name)
			if !ok {
				return false
			}
			at = append(at, i)
		}
		s.shared, s.sharedAt = batch.columns, at
	}
	for i, from := range s.sharedAt {
		in.Cols[i].AppendAll(&batch.rows.Cols[from])
	}
	in.N += batch.rows.N
	return true
}
