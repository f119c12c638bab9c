package partition

import (
	"github.com/millrace/millrace/internal/ids"
)

// producerKey is a producer's line of sequence numbers in one partition.
type producerKey struct {
	stream ids.StreamID
	id     uint64
}

// producerTable is a replica's producers: those that appended lately in memory, the others on disk.
type producerTable struct {
	limit int
	// load reads what is on disk; found is false when there is nothing.
	load    func(k producerKey) (rec producerRecord, found bool, err error)
	entries map[producerKey]*cachedProducer
}

type cachedProducer struct {
	rec producerRecord
	op  uint64 // the write that puts rec on disk; until it is done rec must stay in memory
}

// get returns the record of a producer, nil when it isn't known here. It is valid, and may be changed with set, until
// the next get.
func (t *producerTable) get(k producerKey, done uint64) (*producerRecord, error) {
	if c := t.entries[k]; c != nil {
		return &c.rec, nil
	}
	rec, found, err := t.load(k)
	if err != nil || !found {
		return nil, err
	}
	return t.put(k, rec, 0, done), nil
}

// put keeps a record whose write is number op; writes up to done are on disk.
func (t *producerTable) put(k producerKey, rec producerRecord, op, done uint64) *producerRecord {
	c := t.entries[k]
	if c == nil {
		if len(t.entries) >= t.limit {
			t.evict(done)
		}
		c = &cachedProducer{}
		t.entries[k] = c
	}
	c.rec, c.op = rec, op
	return &c.rec
}

// evict drops some records that are on disk, whichever the map gives first.
func (t *producerTable) evict(done uint64) {
	looked, dropped := 0, 0
	for k, c := range t.entries {
		if looked++; looked > 64 || dropped == 16 {
			return
		}
		if c.op <= done {
			delete(t.entries, k)
			dropped++
		}
	}
}

// forget drops what is in memory of a stream; all streams when stream is 0.
func (t *producerTable) forget(stream ids.StreamID) {
	for k := range t.entries {
		if stream == 0 || k.stream == stream {
			delete(t.entries, k)
		}
	}
}

// expire forgets a producer, unless it has appended since cutoff or something of it isn't committed.
func (r *replica) expire(k producerKey, cutoff ids.Tick) {
	rec, err := r.producers.get(k, r.opDone)
	if err != nil || rec == nil || rec.tick >= cutoff || rec.n > 0 && rec.results[rec.n-1].lsn > r.commit {
		return
	}
	delete(r.producers.entries, k)
	r.write(mutation{key: producerStoreKey(r.id, k)})
}
