package partition

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// retained is what the retention loop knows of a log's first batch, so as not to read it each time.
type retained struct {
	start ids.Offset
	time  int64 // of the batch there
}

// producerSweep is how often producers that append no more are looked for.
const producerSweep = time.Hour

// retain removes what retention doesn't keep. The primary decides where a log starts; followers follow.
func (h *Host) retain(ctx context.Context) {
	ticker := time.NewTicker(h.cfg.RetentionInterval)
	defer ticker.Stop()
	swept := h.now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.trims.notify:
			for _, t := range h.trims.take() {
				h.trimTo(t)
			}
		case <-ticker.C:
			h.retainAll(ctx)
			if h.now()-swept >= producerSweep {
				swept = h.now()
				h.sweepProducers(ctx)
			}
		}
	}
}

func (q *trimQueue) take() []queuedTrim {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.queue
	q.queue = nil
	return out
}

func (h *Host) retainAll(ctx context.Context) {
	h.all(func(hd *hosted) {
		if ctx.Err() != nil {
			return
		}
		if err := h.retainOne(hd); err != nil {
			h.log.Warn("retention of a partition failed; it is tried again", "partition", hd.r.id, "error", err)
		}
	})
}

// retainOne applies the streams' retention to a partition whose primary is here.
func (h *Host) retainOne(hd *hosted) error {
	type log struct {
		stream         ids.StreamID
		st             streamLog
		maxAge, maxLen int64
	}
	var logs []log
	hd.mu.Lock()
	r := hd.r
	if !hd.gone && r.role == RolePrimary {
		for s, st := range r.streams {
			def := r.cat.streams[s]
			if def == nil || st.start == st.committed || def.Stream.RetentionUs <= 0 && def.Stream.RetentionBytes <= 0 {
				continue
			}
			l := log{s, *st, def.Stream.RetentionUs, def.Stream.RetentionBytes}
			l.st.recent = nil
			logs = append(logs, l)
		}
	}
	hd.mu.Unlock()
	if hd.retention == nil {
		hd.retention = map[ids.StreamID]retained{}
	}
	now := h.clock.passed(h.cfg.Now().UnixMicro())
	for _, l := range logs {
		oldest := int64(-1 << 62)
		if l.maxAge > 0 {
			oldest = now - l.maxAge
		}
		most := uint64(1) << 63
		if l.maxLen > 0 {
			most = uint64(l.maxLen)
		}
		if known, ok := hd.retention[l.stream]; ok && known.start == l.st.start && known.time >= oldest &&
			l.st.committedBytes-l.st.startBytes <= most {
			continue
		}
		if err := h.retainLog(hd, l.stream, &l.st, oldest, most); err != nil {
			return err
		}
	}
	h.do(hd, func(r *replica) { r.trimIndex() })
	return nil
}

// retainLog removes the batches of one log that are older than oldest, or whose removal leaves at least `most` bytes,
// unless a view still needs them.
func (h *Host) retainLog(hd *hosted, s ids.StreamID, st *streamLog, oldest int64, most uint64) error {
	needed := ids.Offset(1<<64 - 1)
	if h.cfg.LowWater != nil {
		if o, ok := h.cfg.LowWater(hd.r.id, s); ok {
			needed = o
		}
	}
	firstTime := int64(0)
	at, err := h.search(hd.r.id, s, st.start, st.committed, func(b *header) bool {
		if b.base == st.start {
			firstTime = b.timeMicros
		}
		expired := b.timeMicros < oldest || st.committedBytes-b.streamBytes-uint64(b.payloadLen) >= most
		return !expired || b.end() > needed
	})
	if err != nil {
		if fault.KindOf(err) == fault.Corrupted {
			return h.damaged(hd, err)
		}
		return err
	}
	if at.base == st.start {
		hd.retention[s] = retained{st.start, firstTime}
		return nil
	}
	delete(hd.retention, s)
	h.do(hd, func(r *replica) { r.trim(s, at.base, at.bytes, at.lsn) })
	return nil
}

// trimTo removes what the primary has removed.
func (h *Host) trimTo(t queuedTrim) {
	hd := t.hd
	hd.mu.Lock()
	st := streamLog{}
	if s := hd.r.streams[t.stream]; s != nil && !hd.gone && hd.r.role != RolePrimary {
		st = *s
	}
	hd.mu.Unlock()
	start := min(t.start, st.committed)
	if start <= st.start {
		return
	}
	at, err := h.search(hd.r.id, t.stream, st.start, st.committed, func(b *header) bool { return b.end() > start })
	if err != nil {
		h.log.Warn("trimming a follower's log failed", "partition", hd.r.id, "error", h.damaged(hd, err))
		return
	}
	h.do(hd, func(r *replica) {
		if r.role != RolePrimary {
			r.trim(t.stream, at.base, at.bytes, at.lsn)
			r.trimIndex()
		}
	})
}

// sweepProducers forgets producers that haven't appended for long.
func (h *Host) sweepProducers(ctx context.Context) {
	cutoff := h.clock.passed(h.cfg.Now().UnixMicro()) - h.cfg.ProducerRetention.Microseconds()
	h.all(func(hd *hosted) {
		err := h.producers(hd.r.id, func(k producerKey, raw []byte) error {
			var rec producerRecord
			if err := rec.decode(raw); err != nil {
				return err
			}
			if int64(rec.tick) < cutoff {
				h.do(hd, func(r *replica) { r.expire(k, ids.Tick(max(cutoff, 0))) })
			}
			return ctx.Err()
		})
		if err != nil && ctx.Err() == nil {
			h.log.Warn("looking for old producers failed", "partition", hd.r.id, "error", h.damaged(hd, err))
		}
	})
}

// push queues what a primary told.
func (q *trimQueue) push(hd *hosted, starts []*internalv1.StreamStart) {
	q.mu.Lock()
	for _, s := range starts {
		q.queue = append(q.queue, queuedTrim{hd, ids.StreamID(s.Stream), ids.Offset(s.Start)})
	}
	q.mu.Unlock()
	poke(q.notify)
}
