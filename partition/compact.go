package partition

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// A table's log is compacted by key: the primary appends the rows again whose last record lies in the front of the log,
// and then the front is removed. A copy is appended only while no other record of its key can have come since (see
// copyIn), so it is the same row once more, a record as any other: nobody who reads the log or its replicas needs to know
// of it, and whatever a crash interrupts is simply begun again.

// compaction is what is known of one table's log in one partition. Only the compaction loop uses it.
type compaction struct {
	epoch ids.Epoch
	again int64 // bytes of the log from which on it is looked at again

	trimTo ids.Offset // everything below is superseded or copied; 0: nothing waits
	tick   ids.Tick   // by records up to this tick
}

// compacted is a table's log as the loop found it.
type compacted struct {
	stream ids.StreamID
	def    *millracev1.Stream
	epoch  ids.Epoch
	log    streamLog
	closed ids.Tick
}

func (l *compacted) bytes() int64 { return int64(l.log.committedBytes - l.log.startBytes) }

// compact is the loop that compacts the logs of tables, one after the other.
func (h *Host) compact(ctx context.Context) {
	if h.cfg.CompactBytes == 0 {
		return
	}
	ticker := time.NewTicker(h.cfg.RetentionInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			h.all(func(hd *hosted) {
				for _, l := range hd.tables() {
					if ctx.Err() != nil {
						return
					}
					if err := h.compactLog(ctx, hd, l); err != nil && ctx.Err() == nil {
						h.log.Warn("compaction of a table's log was broken off; it is tried again", "partition", hd.r.id, "stream", l.stream, "error", err)
					}
				}
			})
		}
	}
}

// tables returns the logs of tables of which the primary is here.
func (hd *hosted) tables() []*compacted {
	hd.mu.Lock()
	defer hd.mu.Unlock()
	r := hd.r
	if hd.gone || r.role != RolePrimary || !r.primary.hasClosed {
		hd.compaction = nil
		return nil
	}
	var out []*compacted
	for s, st := range r.streams {
		def := r.cat.streams[s]
		if def == nil || len(def.Stream.PrimaryKey) == 0 {
			continue
		}
		l := &compacted{stream: s, def: def.Stream, epoch: r.epoch(), log: *st, closed: r.primary.closed}
		l.log.recent = nil
		out = append(out, l)
	}
	return out
}

// compactLog takes the next step with one table's log.
func (h *Host) compactLog(ctx context.Context, hd *hosted, l *compacted) error {
	if hd.compaction == nil {
		hd.compaction = map[ids.StreamID]*compaction{}
	}
	c := hd.compaction[l.stream]
	if c == nil || c.epoch != l.epoch {
		c = &compaction{epoch: l.epoch, again: h.cfg.CompactBytes}
		hd.compaction[l.stream] = c
	}
	switch {
	case c.trimTo != 0:
		return h.trimCompacted(hd, l, c)
	case l.bytes() < c.again:
		return nil
	}
	pass := &compactionPass{h: h, hd: hd, l: l, front: l.log.committed}
	worth, err := pass.run(ctx)
	if err != nil {
		return err
	}
	if !worth {
		c.again = max(h.cfg.CompactBytes, 2*l.bytes())
		return nil
	}
	c.trimTo, c.tick = pass.front, pass.tick
	if c.again = h.cfg.CompactBytes; pass.front == l.log.committed { // what is left is the rows, once
		c.again = max(c.again, 2*pass.liveBytes)
	}
	h.counts.compacted.Add(1)
	return nil
}

// trimCompacted removes the front of a log once nobody reads it or asks for the rows as they were before its records were
// superseded: a view of the table that is computed anew has the rows right from then on only.
func (h *Host) trimCompacted(hd *hosted, l *compacted, c *compaction) error {
	if l.closed < c.tick || l.closed-c.tick < h.cfg.CompactDelay {
		return nil
	}
	if h.cfg.LowWater != nil {
		if low, ok := h.cfg.LowWater(hd.r.id, l.stream); ok && low < c.trimTo {
			return nil
		}
	}
	if c.trimTo > l.log.start {
		at, err := h.search(hd.r.id, l.stream, l.log.start, l.log.committed, func(b *header) bool { return b.end() > c.trimTo })
		if err != nil {
			if fault.KindOf(err) == fault.Corrupted {
				return h.damaged(hd, err)
			}
			return err
		}
		h.do(hd, func(r *replica) {
			if r.role == RolePrimary && r.epoch() == c.epoch {
				r.trim(l.stream, at.base, at.bytes, at.lsn)
				r.trimIndex()
				h.counts.compactedBytes.Add(int64(at.bytes - l.log.startBytes))
			}
		})
	}
	c.trimTo = 0
	return nil
}

// hush holds appends to a stream back until a time, so that everything that has come can be committed.
func (r *replica) hush(s ids.StreamID, until time.Duration) {
	r.primary.hushed, r.primary.hushedUntil = s, until
}

// unhush lets them in again.
func (r *replica) unhush(now time.Duration) {
	r.primary.hushed = 0
	if r.role == RolePrimary {
		r.release(now)
	}
}

// copyIn appends a batch of copies, of rows that have no records from the offset q.expect on, if the log still ends there.
// That is what makes a copy the last record of its key when it comes.
func (r *replica) copyIn(now time.Duration, q *appendReq) {
	switch st := r.streams[q.stream]; {
	case r.refusal() != nil:
		r.refuse(q, r.refusal())
	case !r.openFor(q):
		r.refuse(q, r.notOpen(q))
	case st == nil || st.next != q.expect:
		r.refuse(q, fault.New(fault.Conflict, "partition %d: stream %d has records from offset %d on", r.id, q.stream, q.expect).WithReason(ReasonChanged))
	default:
		r.admit(now, q)
	}
}
