package partition

import "time"

// entry is one batch of a log while it is in memory. Once it is in a tail nothing of it changes but waiters, payload
// (dropped) and charged.
type entry struct {
	header
	head    [headerLen]byte // the header, encoded
	payload []byte          // nil: only on disk, or gone
	gone    bool            // retention or a DROP has removed the payload
	rec     producerRecord  // the producer's, with this batch

	at      time.Duration // when the primary took it
	charged bool          // counts among the bytes in flight
	waiters []waiter
	first   [1]waiter // room for the usual number
}

// waiter is who wants to know that an entry is committed.
type waiter struct {
	done      func(AppendResult, error)
	duplicate bool
}

func (e *entry) wait(w waiter) {
	if e.waiters == nil {
		e.waiters = e.first[:0]
	}
	e.waiters = append(e.waiters, w)
}

// pos is the position behind the entry, in bytes of all payloads of the partition.
func (e *entry) pos() uint64 { return e.totalBytes + uint64(e.payloadLen) }

// tail is the last entries of a log, contiguous: all that aren't committed, and those that are still to be sent.
type tail struct {
	first   LSN // of entries[head]
	entries []*entry
	head    int
}

func (t *tail) len() int { return len(t.entries) - t.head }

// at returns the entry at lsn, or nil when it isn't in the tail.
func (t *tail) at(lsn LSN) *entry {
	if lsn < t.first || lsn >= t.first+LSN(t.len()) {
		return nil
	}
	return t.entries[t.head+int(lsn-t.first)]
}

// push adds the entry that follows the last.
func (t *tail) push(e *entry) {
	if t.len() == 0 {
		t.entries, t.head, t.first = t.entries[:0], 0, e.lsn
	} else if t.head > 64 && t.head > len(t.entries)/2 {
		n := copy(t.entries, t.entries[t.head:])
		clear(t.entries[n:])
		t.entries, t.head = t.entries[:n], 0
	}
	t.entries = append(t.entries, e)
}

// drop removes the entries below lsn.
func (t *tail) drop(lsn LSN) {
	for t.len() > 0 && t.first < lsn {
		t.entries[t.head] = nil
		t.head++
		t.first++
	}
}

// truncate removes the entries behind end and returns them, in order; the result is valid until the next push.
func (t *tail) truncate(end LSN) []*entry {
	if t.len() == 0 || end >= t.first+LSN(t.len()) {
		return nil
	}
	keep := t.head
	if end >= t.first {
		keep += int(end - t.first + 1)
	}
	cut := t.entries[keep:]
	t.entries = t.entries[:keep]
	return cut
}

// reset empties the tail.
func (t *tail) reset() {
	clear(t.entries)
	*t = tail{entries: t.entries[:0]}
}
