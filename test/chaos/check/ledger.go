package check

import (
	"fmt"
	"sync"
)

// Ledger holds what producers and readers were told of the log while it grew, and compares all of it with the log that
// is there in the end. It may be used by several goroutines at once.
//
// The checks, by the names of Jepsen's kafka workload where it has one:
//
//   - inconsistent-offsets: two records at one place, or one record with two ticks
//   - duplicate: a record at two places
//   - lost-write: an acknowledged record isn't in the log, or isn't where it was said to be
//   - uncommitted-read: a reader was given a record that isn't in the log
//   - skipped-poll, nonmonotonic-poll: a reader's next offset isn't the one after its last
//   - nonmonotonic-send: acknowledged records of one key are not in the order in which they were sent
//   - phantom: a record that nobody sent
//   - causality: a record is stamped with a tick before one that its producer had seen
//   - tick-order: ticks fall along a partition's log
type Ledger struct {
	f  *Findings
	mu sync.Mutex

	slots map[uint32][]slot   // by partition and offset
	sent  map[uint32][]status // by producer and number

	acks, polls int
}

// slot is what is known of one place in the log.
type slot struct {
	rec   Record
	known bool
	acked bool
	who   string
}

type status struct {
	state     sendState
	partition uint32
	offset    uint64
	tick      uint64
}

type sendState uint8

const (
	sendOpen    sendState = iota // not decided yet
	sendAcked                    // acknowledged
	sendUnknown                  // given up: it may be in the log or not
)

// NewLedger returns an empty ledger.
func NewLedger(f *Findings) *Ledger {
	return &Ledger{f: f, slots: map[uint32][]slot{}, sent: map[uint32][]status{}}
}

// Sent says that a producer has sent its next event.
func (l *Ledger) Sent(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int(e.Seq) != len(l.sent[e.Producer]) {
		panic("events are sent in the order of their numbers, from 0")
	}
	l.sent[e.Producer] = append(l.sent[e.Producer], status{})
}

// GaveUp says that it isn't known whether an event was appended.
func (l *Ledger) GaveUp(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[e.Producer][e.Seq].state = sendUnknown
}

// Acked says that an event was acknowledged; seen is the tick that its producer had seen when it sent it.
func (l *Ledger) Acked(r Record, seen uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks++
	if r.Tick < seen {
		l.f.Add("causality", "%v was acknowledged with tick %d, its producer had seen %d", r.Event, r.Tick, seen)
	}
	l.sent[r.Event.Producer][r.Event.Seq] = status{sendAcked, r.Partition, r.Offset, r.Tick}
	l.note("the acknowledgement", r).acked = true
}

// note compares a record with what is known of its place. l.mu is held.
func (l *Ledger) note(who string, r Record) *slot {
	part := l.slots[r.Partition]
	for uint64(len(part)) <= r.Offset {
		part = append(part, slot{})
	}
	l.slots[r.Partition] = part
	s := &part[r.Offset]
	if s.known && s.rec != r {
		l.f.Add("inconsistent-offsets", "partition %d, offset %d: %s says %v with tick %d, %s said %v with tick %d",
			r.Partition, r.Offset, who, r.Event, r.Tick, s.who, s.rec.Event, s.rec.Tick)
		return s
	}
	if !s.known {
		s.known, s.rec, s.who = true, r, who
	}
	return s
}

// Poll is one reading of the log, from given offsets on.
type Poll struct {
	l    *Ledger
	name string
	next map[uint32]uint64
}

// Poll begins a reading; partitions that aren't named begin at 0.
func (l *Ledger) Poll(name string, from map[uint32]uint64) *Poll {
	p := &Poll{l: l, name: name, next: map[uint32]uint64{}}
	for k, v := range from {
		p.next[k] = v
	}
	return p
}

// Name says which reading it is.
func (p *Poll) Name() string { return p.name }

// Saw says that the reader was given a record.
func (p *Poll) Saw(r Record) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	p.l.polls++
	switch next := p.next[r.Partition]; {
	case r.Offset > next:
		p.l.f.Add("skipped-poll", "%s was given offset %d of partition %d, expected %d", p.name, r.Offset, r.Partition, next)
	case r.Offset < next:
		p.l.f.Add("nonmonotonic-poll", "%s was given offset %d of partition %d again, expected %d", p.name, r.Offset, r.Partition, next)
	}
	p.next[r.Partition] = r.Offset + 1
	p.l.note(p.name, r)
}

// Next returns a copy of the next offsets.
func (p *Poll) Next() map[uint32]uint64 {
	out := map[uint32]uint64{}
	for k, v := range p.next {
		out[k] = v
	}
	return out
}

// Counts returns how many records were acknowledged and given to readers.
func (l *Ledger) Counts() (acked, polled int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks, l.polls
}

// Open returns how many events are not decided.
func (l *Ledger) Open() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sent {
		for i := range s {
			if s[i].state == sendOpen {
				n++
			}
		}
	}
	return n
}

// Final compares everything with the log as it is in the end, each partition's records in the order in which they were
// read.
func (l *Ledger) Final(who string, log map[uint32][]Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := map[Event]Record{}
	last := map[string]Record{} // by key: the last acknowledged one
	for p, recs := range log {
		tick := uint64(0)
		for i, r := range recs {
			if r.Partition != p || r.Offset != uint64(i) {
				l.f.Add("skipped-poll", "%s: record %d of partition %d has offset %d of %d", who, i, p, r.Offset, r.Partition)
			}
			if r.Tick < tick {
				l.f.Add("tick-order", "%s: partition %d, offset %d has tick %d after %d", who, p, r.Offset, r.Tick, tick)
			}
			tick = r.Tick
			if first, twice := at[r.Event]; twice {
				l.f.Add("duplicate", "%s: %v is at %d of partition %d and at %d of %d", who, r.Event, first.Offset, first.Partition, r.Offset, r.Partition)
			}
			at[r.Event] = r
			l.finalOrder(who, r, last)
			l.note(who, r)
		}
		for off := len(recs); off < len(l.slots[p]); off++ {
			if s := l.slots[p][off]; s.known && !s.acked {
				l.f.Add("uncommitted-read", "%s saw %v at %d of partition %d with tick %d; %s has only %d records there",
					s.who, s.rec.Event, off, p, s.rec.Tick, who, len(recs))
			}
		}
	}
	l.finalAcks(who, at)
}

// finalOrder checks one record of the log against the sends.
func (l *Ledger) finalOrder(who string, r Record, last map[string]Record) {
	sent := l.sent[r.Event.Producer]
	if int(r.Event.Seq) >= len(sent) {
		l.f.Add("phantom", "%s: %v at %d of partition %d was never sent", who, r.Event, r.Offset, r.Partition)
		return
	}
	if sent[r.Event.Seq].state != sendAcked {
		return // what was given up may arrive late
	}
	key := r.Event.Key()
	if b, ok := last[key]; ok && (b.Event.Seq > r.Event.Seq || b.Partition != r.Partition) {
		l.f.Add("nonmonotonic-send", "%s: key %s has %v at %d of partition %d behind %v at %d of %d", who, key,
			r.Event, r.Offset, r.Partition, b.Event, b.Offset, b.Partition)
	}
	last[key] = r
}

// finalAcks checks that what was acknowledged is there.
func (l *Ledger) finalAcks(who string, at map[Event]Record) {
	for p, sent := range l.sent {
		for n, s := range sent {
			e := Event{p, uint32(n)}
			if s.state != sendAcked {
				continue
			}
			r, ok := at[e]
			want := Record{s.partition, s.offset, s.tick, e}
			if !ok {
				l.f.Add("lost-write", "%s: %s isn't there", who, want)
			} else if r != want {
				l.f.Add("lost-write", "%s: %s is at %d of partition %d with tick %d", who, want, r.Offset, r.Partition, r.Tick)
			}
		}
	}
}

func (r Record) String() string {
	return fmt.Sprintf("%v, acknowledged at %d of partition %d with tick %d,", r.Event, r.Offset, r.Partition, r.Tick)
}
