package partition

import (
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/storage"
)

// recover finds the replicas in the log store. It reads a few keys of each, and what wasn't known to be committed.
func (h *Host) recover() (err error) {
	lo, hi := storage.ReplicasRange()
	it, err := h.store.Iter(lo, hi)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := it.Close(); err == nil {
			err = cerr
		}
	}()
	for ok := it.First(); ok; {
		p, isReplica := partitionOf(it.Key())
		if !isReplica {
			return fault.New(fault.Corrupted, "the log store has the key %x among its partitions", it.Key())
		}
		hd := h.newHosted(p)
		if err := hd.r.load(it); err != nil {
			if fault.KindOf(err) != fault.Corrupted {
				return err
			}
			// The node goes on without it: once the coordinator has taken it out of the in-sync set it copies anew.
			h.log.Error("a replica's copy is damaged", "partition", p, "error", err)
			hd = h.newHosted(p)
			hd.r.role, hd.r.cause, hd.r.hard.failed = RoleFailed, err, true
		}
		h.resize(int(p) + 1)
		h.setSlot(p, hd)
		_, next := partitionRange(p)
		ok = it.SeekGE(next)
	}
	return it.Error()
}

func partitionOf(key []byte) (ids.PartitionID, bool) {
	const least = 1 + 4 + 1
	if len(key) < least {
		return 0, false
	}
	p := ids.PartitionID(uint32(key[1])<<24 | uint32(key[2])<<16 | uint32(key[3])<<8 | uint32(key[4]))
	return p, true
}

// diskIter walks over the log store.
type diskIter interface {
	SeekGE(key []byte) bool
	SeekLT(key []byte) bool
	Next() bool
	Key() []byte
	Value() []byte
	Error() error
}

// load reads what is on disk of a replica. it may be moved anywhere.
func (r *replica) load(it diskIter) error {
	key := stateKey(r.id)
	if it.SeekGE(key) && string(it.Key()) == string(key) {
		if err := r.hard.decode(it.Value()); err != nil {
			return err
		}
	} else if err := it.Error(); err != nil {
		return err
	} else {
		return fault.New(fault.Corrupted, "partition %d has no state on disk", r.id)
	}
	if r.hard.failed {
		r.role, r.cause = RoleFailed, r.corrupt("the copy was found damaged earlier")
		return nil
	}
	if err := r.loadTerms(it); err != nil {
		return err
	}
	if err := r.loadIndex(it); err != nil {
		return err
	}
	if err := r.loadStreams(it); err != nil {
		return err
	}
	if r.hard.held {
		r.role, r.cause = RoleFailed, fault.New(fault.Conflict, "partition %d: this copy has acknowledged batches that its primary's log lacks; "+
			"it is kept, and doesn't follow", r.id)
	}
	return nil
}

func (r *replica) loadTerms(it diskIter) error {
	r.hist = history{base: r.hard.base, baseTerm: r.hard.baseTerm}
	lo, hi := storage.EpochRange(r.id)
	for ok := it.SeekGE(lo); ok && string(it.Key()) < string(hi); ok = it.Next() {
		_, e, isEpoch := storage.ParseEpochKey(it.Key())
		if !isEpoch {
			return r.corrupt("the key %x among the epochs", it.Key())
		}
		terms, err := decodeTerms(e, it.Value())
		if err != nil {
			return err
		}
		r.hist.starts = append(r.hist.starts, terms...)
	}
	return it.Error()
}

// loadIndex finds the log's end, and reads the entries behind the commit LSN that was known last.
func (r *replica) loadIndex(it diskIter) error {
	r.end, r.endBytes, r.commit = r.hard.base, r.hard.baseBytes, r.hard.base
	last, err := r.lastIndex(it)
	if err != nil {
		return err
	}
	if last.lsn != 0 {
		r.end, r.endBytes = last.lsn, last.totalBytes+uint64(last.payloadLen)
		r.lastTick, r.lastTime = last.tick, last.timeMicros
		r.commit = max(r.commit, min(max(r.commitAtLast, r.hard.commit), r.end))
	}
	r.durable, r.memFirst = r.end, r.end+1
	r.commitPos = commitPos{bytes: r.hard.baseBytes}
	for ok := it.SeekGE(indexKey(r.id, max(r.commit, 1))); ok; ok = it.Next() {
		lsn, isIndex := parseIndexKey(it.Key())
		if p, _ := partitionOf(it.Key()); !isIndex || p != r.id {
			break
		}
		h, _, err := decodeIndex(it.Value())
		if err != nil {
			return err
		}
		if h.lsn != lsn || h.partition != r.id {
			return r.corrupt("the index has batch %d at %d", h.lsn, lsn)
		}
		if lsn <= r.commit {
			r.commitPos = commitPos{h.tick, h.timeMicros, h.totalBytes + uint64(h.payloadLen)}
			continue
		}
		if lsn != r.commit+1+LSN(r.tail.len()) {
			return r.corrupt("the index has a gap before batch %d", lsn)
		}
		e := &entry{header: h}
		e.encode(e.head[:])
		r.tail.push(e)
	}
	if err := it.Error(); err != nil {
		return err
	}
	if LSN(r.tail.len()) != r.end-r.commit {
		return r.corrupt("the index ends at %d, not %d", r.commit+LSN(r.tail.len()), r.end)
	}
	return nil
}

// lastIndex returns the header of the last entry and sets commitAtLast; a header without LSN when there is none.
func (r *replica) lastIndex(it diskIter) (header, error) {
	if !it.SeekLT(indexKey(r.id, ^LSN(0))) {
		return header{}, it.Error()
	}
	lsn, isIndex := parseIndexKey(it.Key())
	if p, _ := partitionOf(it.Key()); !isIndex || p != r.id {
		return header{}, nil
	}
	h, commit, err := decodeIndex(it.Value())
	if err == nil && h.lsn != lsn {
		err = r.corrupt("the index has batch %d at %d", h.lsn, lsn)
	}
	r.commitAtLast = commit
	return h, err
}

// loadStreams finds where each stream's log begins and ends.
func (r *replica) loadStreams(it diskIter) error {
	prefix := streamKey(r.id, 0)
	for ok := it.SeekGE(prefix); ok; ok = it.Next() {
		s, isStream := parseStreamKey(it.Key())
		if p, _ := partitionOf(it.Key()); !isStream || p != r.id {
			break
		}
		var f streamFact
		if err := f.decode(it.Value()); err != nil {
			return err
		}
		r.streams[s] = f.streamLog()
	}
	if err := it.Error(); err != nil {
		return err
	}
	lo, hi := storage.LogPartitionRange(r.id)
	for ok := it.SeekGE(lo); ok && string(it.Key()) < string(hi); {
		_, s, _, isLog := storage.ParseLogKey(it.Key())
		if !isLog {
			return r.corrupt("the key %x in the log", it.Key())
		}
		first, err := r.loadBatch(it)
		if err != nil {
			return err
		}
		_, end := logRange(r.id, s)
		if !it.SeekLT(end) {
			return it.Error()
		}
		last, err := r.loadBatch(it)
		if err != nil {
			return err
		}
		r.loadStream(s, first, last)
		ok = it.SeekGE(end)
	}
	if err := it.Error(); err != nil {
		return err
	}
	r.uncommit()
	return nil
}

// loadBatch decodes the header of the batch at which it stands. The payload is checked when it is read.
func (r *replica) loadBatch(it diskIter) (h header, err error) {
	p, s, base, _ := storage.ParseLogKey(it.Key())
	value := it.Value()
	if err := it.Error(); err != nil {
		return h, err
	}
	if err = h.decode(value); err == nil && (h.partition != p || h.stream != s || h.base != base) {
		err = r.corrupt("the batch of stream %d at %d is in the place of stream %d at %d", h.stream, h.base, s, base)
	}
	return h, err
}

func (r *replica) loadStream(s ids.StreamID, first, last header) {
	st := r.streams[s]
	if st == nil {
		st = &streamLog{start: first.base, startBytes: first.streamBytes}
		r.streams[s] = st
	}
	st.firstLSN = first.lsn
	st.next, st.nextBytes = last.end(), last.streamBytes+uint64(last.payloadLen)
	st.committed, st.committedBytes = st.next, st.nextBytes
	st.lastTick, st.lastTime = last.tick, last.timeMicros
}

// uncommit takes what isn't known to be committed out of the streams' committed parts.
func (r *replica) uncommit() {
	seen := map[ids.StreamID]bool{}
	for lsn := r.commit + 1; lsn <= r.end; lsn++ {
		e := r.tail.at(lsn)
		if st := r.streams[e.stream]; st != nil && !seen[e.stream] {
			seen[e.stream] = true
			st.committed, st.committedBytes = min(st.committed, e.base), min(st.committedBytes, e.streamBytes)
			// The tick of the batch before isn't at hand; an upper bound of it is, and the batches say it exactly.
			st.lastTick, st.lastTime = min(st.lastTick, e.tick), min(st.lastTime, e.timeMicros)
		}
	}
}

// loadProducer returns the function that reads a producer's record from disk.
func (h *Host) loadProducer(p ids.PartitionID) func(producerKey) (producerRecord, bool, error) {
	return func(k producerKey) (rec producerRecord, found bool, err error) {
		v, closer, err := h.store.Get(producerStoreKey(p, k))
		if fault.KindOf(err) == fault.NotFound {
			return rec, false, nil
		}
		if err != nil {
			return rec, false, err
		}
		defer closer.Close()
		return rec, true, rec.decode(v)
	}
}

// producers hands the stored records of a partition's producers to fn; rec is valid during fn.
func (h *Host) producers(p ids.PartitionID, fn func(k producerKey, rec []byte) error) (err error) {
	it, err := h.store.Iter(storage.ProducerPartitionRange(p))
	if err != nil {
		return err
	}
	defer func() {
		if cerr := it.Close(); err == nil {
			err = cerr
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		k, isProducer := producerOf(it.Key())
		if !isProducer {
			return fault.New(fault.Corrupted, "partition %d has the key %x among its producers", p, it.Key())
		}
		if err := fn(k, it.Value()); err != nil {
			return err
		}
	}
	return it.Error()
}

// readIndex reads entries for a learner: contiguous from `from`, up to `through` and about budget bytes. It returns the
// last one's LSN and the position behind it. Nothing, when the index begins later by now.
func (h *Host) readIndex(p ids.PartitionID, from, through LSN, budget int) (out []*internalv1.LogEntry, last LSN, pos uint64, err error) {
	it, err := h.store.Iter(indexKey(p, from), indexKey(p, through+1))
	if err != nil {
		return nil, 0, 0, err
	}
	defer func() {
		if cerr := it.Close(); err == nil {
			err = cerr
		}
	}()
	size := 0
	for ok := it.First(); ok && size < budget; ok = it.Next() {
		var head header
		if head, _, err = decodeIndex(it.Value()); err != nil {
			return nil, 0, 0, err
		}
		if head.lsn != from+LSN(len(out)) {
			break
		}
		e := &internalv1.LogEntry{Header: append([]byte(nil), it.Value()[:headerLen]...)}
		if e.Payload, err = h.readPayload(&head, e.Header); err != nil {
			return nil, 0, 0, err
		}
		e.Gone = e.Payload == nil
		out = append(out, e)
		last, pos = head.lsn, head.totalBytes+uint64(head.payloadLen)
		size += len(e.Payload) + headerLen
	}
	return out, last, pos, it.Error()
}

// readPayload returns a copy of a batch's payload, nil when retention or a DROP has removed it.
func (h *Host) readPayload(head *header, encoded []byte) ([]byte, error) {
	v, closer, err := h.store.Get(logKey(head.partition, head.stream, head.base))
	if fault.KindOf(err) == fault.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	if len(v) < headerLen || string(v[:headerLen]) != string(encoded) {
		return nil, fault.New(fault.Corrupted, "partition %d: batch %d isn't what its index says", head.partition, head.lsn)
	}
	if err := head.checkPayload(v[headerLen:]); err != nil {
		return nil, err
	}
	return append([]byte(nil), v[headerLen:]...), nil
}

// fillReset adds what only the disk knows.
func (h *Host) fillReset(m *internalv1.LogReset) error {
	v, closer, err := h.store.Get(indexKey(ids.PartitionID(m.Partition), LSN(m.Base)+1))
	if err != nil {
		return err // also NotFound: the index has moved on, and so this reset is out of date
	}
	defer closer.Close()
	head, _, err := decodeIndex(v)
	m.BaseBytes = head.totalBytes
	return err
}
