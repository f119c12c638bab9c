package partition

import (
	"sort"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/storage"
)

// extent is what of a stream's log may be read, at one moment.
type extent struct {
	start, end ids.Offset
	recent     []recentBatch // committed and in memory, contiguous; the first holds, or comes after, the offset asked for
}

// recentBatch is an entry with its payload as it was when the extent was taken: a replica that is a follower since lets go of
// payloads.
type recentBatch struct {
	*entry
	payload []byte
}

// maxRecent bounds the entries that are taken from memory at once.
const maxRecent = 256

// extent returns what may be read of a stream from an offset on.
func (h *Host) extent(p ids.PartitionID, s ids.StreamID, from ids.Offset) (x extent, err error) {
	hd := h.slot(p)
	if hd == nil {
		return x, fault.New(fault.NotPrimary, "partition %d isn't on this node; retry", p)
	}
	hd.mu.Lock()
	defer hd.mu.Unlock()
	if err := hd.readable(); err != nil {
		return x, err
	}
	st := hd.r.streams[s]
	if st == nil {
		return x, nil
	}
	x.start, x.end = st.start, st.committed
	if n := len(st.recent); n > 0 && from >= st.recent[0].base {
		i := sort.Search(n, func(i int) bool { return st.recent[i].end() > from })
		for _, e := range st.recent[i:min(n, i+maxRecent)] {
			if e.payload == nil {
				break // on disk
			}
			x.recent = append(x.recent, recentBatch{e, e.payload})
		}
	}
	return x, nil
}

// readable tells why a replica can't be read. hd.mu is held.
func (hd *hosted) readable() error {
	r := hd.r
	switch {
	case hd.gone:
		return fault.New(fault.NotPrimary, "partition %d isn't on this node any more; retry", r.id)
	case r.role == RoleFailed:
		return fault.Wrap(fault.Corrupted, r.cause, "partition %d can't be read on this node", r.id)
	case r.role != RolePrimary && r.role != RoleFollower:
		return fault.New(fault.Unavailable, "partition %d isn't in sync on this node; retry at another", r.id)
	}
	return nil
}

// Read hands the committed batches of a stream to fn, in order, from the one that holds `from`, or the first one that is
// there above it, until about maxBytes of payloads were handed out (0: no bound), the committed end is reached, or fn
// returns false or an error, which Read returns. A batch and its payload are valid during fn only, and must not be
// changed. Every payload's checksum is verified. It works on the primary and on in-sync followers, which may lag behind
// by a tick.
//
// Errors: NotPrimary when the partition isn't here; Unavailable when it isn't in sync; Corrupted when a batch is damaged
// or missing: then this replica serves no more reads.
func (h *Host) Read(p ids.PartitionID, stream ids.StreamID, from ids.Offset, maxBytes int, fn func(*Batch) (more bool, err error)) error {
	return h.read(p, stream, from, maxBytes, 0, fn)
}

// ReadTicks is Read without a bound on bytes, up to the last batch with a tick <= maxTick.
func (h *Host) ReadTicks(p ids.PartitionID, stream ids.StreamID, from ids.Offset, maxTick ids.Tick, fn func(*Batch) (more bool, err error)) error {
	if maxTick == 0 {
		return nil
	}
	return h.read(p, stream, from, 0, maxTick, fn)
}

// scan is a read under way.
type scan struct {
	h        *Host
	p        ids.PartitionID
	stream   ids.StreamID
	next     ids.Offset
	left     int // bytes; maxInt: no bound
	maxTick  ids.Tick
	fn       func(*Batch) (bool, error)
	batch    Batch
	finished bool
}

func (h *Host) read(p ids.PartitionID, stream ids.StreamID, from ids.Offset, maxBytes int, maxTick ids.Tick, fn func(*Batch) (bool, error)) error {
	const unbounded = int(^uint(0) >> 1)
	s := &scan{h: h, p: p, stream: stream, next: from, left: maxBytes, maxTick: maxTick, fn: fn}
	if maxBytes <= 0 {
		s.left = unbounded
	}
	var stop ids.Offset // the committed end at the beginning
	for first := true; ; first = false {
		x, err := h.extent(p, stream, s.next)
		if err != nil {
			return err
		}
		if first {
			stop = x.end
		}
		s.next = max(s.next, x.start)
		if s.next >= stop || s.finished {
			return nil
		}
		if len(x.recent) > 0 {
			err = s.memory(x.recent, stop)
		} else {
			err = s.disk(x, stop)
		}
		if err != nil {
			return err
		}
	}
}

// give hands one batch out.
func (s *scan) give(h *header, payload []byte) error {
	if s.maxTick != 0 && h.tick > s.maxTick {
		s.finished = true
		return nil
	}
	s.batch = Batch{
		BaseOffset: h.base, Count: h.count, Tick: h.tick, Epoch: h.term.epoch, TimeMicros: h.timeMicros,
		ProducerID: h.producer, Sequence: h.sequence, Compression: h.compression, UncompressedBytes: h.uncompressed,
		Payload: payload,
	}
	s.next = h.end()
	s.left -= len(payload)
	more, err := s.fn(&s.batch)
	s.finished = !more || s.left <= 0
	return err
}

// memory hands out batches that are in memory. They were checked when they came, and haven't been on the disk since.
func (s *scan) memory(entries []recentBatch, stop ids.Offset) error {
	for _, e := range entries {
		if s.finished || e.base >= stop {
			break
		}
		if err := s.give(&e.header, e.payload); err != nil {
			return err
		}
	}
	return nil
}

// disk hands out batches from disk, up to the committed end as it was when x was taken.
func (s *scan) disk(x extent, stop ids.Offset) (err error) {
	end := min(x.end, stop)
	lo, hi := logKey(s.p, s.stream, x.start), logKey(s.p, s.stream, end)
	it, err := s.h.store.Iter(lo, hi)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := it.Close(); err == nil {
			err = cerr
		}
		if fault.KindOf(err) == fault.Corrupted && s.moved(x) {
			err = nil // the log was trimmed, dropped or moved away meanwhile
		}
	}()
	for ok := s.seek(it); ; ok = it.Next() {
		if !ok {
			if err := it.Error(); err != nil {
				return s.h.damaged(s.h.slot(s.p), err)
			}
			return s.h.damaged(s.slotUnless(x), fault.New(fault.Corrupted,
				"partition %d, stream %d: the batch at offset %d is missing", s.p, s.stream, s.next))
		}
		head, payload, err := s.decode(it)
		if err != nil {
			return s.h.damaged(s.slotUnless(x), err)
		}
		if head.base > s.next && s.next != x.start {
			return s.h.damaged(s.slotUnless(x), fault.New(fault.Corrupted,
				"partition %d, stream %d: the batches from offset %d to %d are missing", s.p, s.stream, s.next, head.base))
		}
		if err := s.give(&head, payload); err != nil {
			return err
		}
		if s.finished || s.next >= end {
			return nil
		}
	}
}

// seek goes to the batch that holds s.next.
func (s *scan) seek(it *storage.Iter) bool {
	if it.SeekLT(logKey(s.p, s.stream, s.next+1)) {
		return true
	}
	return it.First()
}

func (s *scan) decode(it *storage.Iter) (h header, payload []byte, err error) {
	value := it.Value()
	if err := it.Error(); err != nil {
		return h, nil, err
	}
	if err := h.decode(value); err != nil {
		return h, nil, fault.Wrap(fault.Corrupted, err, "partition %d, stream %d, near offset %d", s.p, s.stream, s.next)
	}
	if _, _, base, _ := storage.ParseLogKey(it.Key()); h.partition != s.p || h.stream != s.stream || h.base != base {
		return h, nil, fault.New(fault.Corrupted, "partition %d, stream %d: the batch at offset %d belongs elsewhere", s.p, s.stream, base)
	}
	payload = value[headerLen:]
	return h, payload, h.checkPayload(payload)
}

// moved tells whether what was read isn't the log as it is now.
func (s *scan) moved(x extent) bool {
	now, err := s.h.extent(s.p, s.stream, s.next)
	return err == nil && (now.start > x.start || now.end < x.end)
}

// slotUnless returns the replica that is to blame for damage, or nil when the log changed meanwhile.
func (s *scan) slotUnless(x extent) *hosted {
	if s.moved(x) {
		return nil
	}
	return s.h.slot(s.p)
}

// damaged stops a replica when err says that its copy is damaged, and returns err.
func (h *Host) damaged(hd *hosted, err error) error {
	if hd != nil && fault.KindOf(err) == fault.Corrupted {
		h.log.Error("a replica's copy is damaged; it serves nothing until it is copied anew", "partition", hd.r.id, "error", err)
		h.do(hd, func(r *replica) { r.fail(err) })
	}
	return err
}

// End returns the extent of a stream's log; zero when the partition has nothing of it. Errors as Read, but not Corrupted
// for single batches.
func (h *Host) End(p ids.PartitionID, stream ids.StreamID) (LogEnd, error) {
	hd := h.slot(p)
	if hd == nil {
		return LogEnd{}, fault.New(fault.NotPrimary, "partition %d isn't on this node; retry", p)
	}
	hd.mu.Lock()
	defer hd.mu.Unlock()
	if err := hd.readable(); err != nil {
		return LogEnd{}, err
	}
	settled := hd.r.role == RolePrimary && hd.r.primary.established
	st := hd.r.streams[stream]
	if st == nil {
		return LogEnd{Settled: settled}, nil
	}
	return LogEnd{
		Start: st.start, End: st.committed, LastTick: st.lastTick, Bytes: int64(st.committedBytes - st.startBytes), Settled: settled,
	}, nil
}

// OffsetAtTime returns the offset of the first record that was appended at or after a time, in microseconds since the
// Unix epoch: that of its batch; the committed end when there is none. Errors as Read.
func (h *Host) OffsetAtTime(p ids.PartitionID, stream ids.StreamID, micros int64) (ids.Offset, error) {
	x, err := h.extent(p, stream, 0)
	if err != nil || x.start == x.end {
		return x.end, err
	}
	at, err := h.search(p, stream, x.start, x.end, func(b *header) bool { return b.timeMicros >= micros })
	return at.base, err
}

// place is where a search ended: at a batch, or at the end of the log with lsn 0.
type place struct {
	base  ids.Offset
	bytes uint64 // payload bytes before it
	lsn   LSN
}

// search returns the first batch in [start, end), which are committed, for which keep is true. keep is false for all
// before it and true for all from it on. It looks near the start first.
func (h *Host) search(p ids.PartitionID, stream ids.StreamID, start, end ids.Offset, keep func(*header) bool) (at place, err error) {
	it, err := h.store.Iter(logKey(p, stream, start), logKey(p, stream, end))
	if err != nil {
		return at, err
	}
	defer func() {
		if cerr := it.Close(); err == nil {
			err = cerr
		}
	}()
	s := &scan{h: h, p: p, stream: stream}
	at = place{base: end}
	// look returns the batch that holds an offset, and whether it is kept.
	look := func(o ids.Offset) (head header, kept bool, err error) {
		s.next = o
		if !s.seek(it) {
			return head, true, it.Error()
		}
		head, _, err = s.decode(it)
		return head, err == nil && keep(&head), err
	}
	lo, hi, step := start, end, ids.Offset(1) // batches that begin below lo aren't kept; a kept one begins at hi, or hi is end
	for lo < hi {
		o := lo + (hi-lo)/2
		if at.lsn == 0 && lo+step < o {
			o = lo + step
			step *= 4
		}
		head, kept, err := look(o)
		switch {
		case err != nil:
			return at, err
		case head.lsn == 0: // removed meanwhile
			return place{base: end}, nil
		case kept:
			at = place{head.base, head.streamBytes, head.lsn}
			hi = head.base
		default:
			lo = head.end()
			if at.lsn == 0 {
				at.bytes = head.streamBytes + uint64(head.payloadLen)
			}
		}
	}
	return at, nil
}
