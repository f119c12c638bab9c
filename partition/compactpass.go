package partition

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

const (
	// copyBatchBytes is about how large the batches of copies are, before compression.
	copyBatchBytes = 256 << 10
	// hushWait is how long appends to the table may be held back for a batch of copies.
	hushWait = 250 * time.Millisecond
	// hushTries is how often it is tried before the pass is broken off.
	hushTries = 20
	// keyCost is what a key costs in memory besides its bytes, about.
	keyCost = 96
)

// compactionPass copies the rows whose last record lies in the front of a table's log.
type compactionPass struct {
	h         *Host
	hd        *hosted
	l         *compacted
	front     ids.Offset // where the front ends
	seen      ids.Offset // all records below have been looked at
	tick      ids.Tick   // the highest of what was looked at or copied
	live      map[string]ids.Offset
	keyBytes  int64
	records   int64 // of the front
	liveBytes int64 // of the copies

	dec  *record.Decoder
	rows *record.Delta
	key  []record.Value
	buf  []byte
	keys []byte

	raw      []byte                // the batch that was read last
	pending  []liveRecord          // to be appended next
	pendSize int                   // bytes
	want     map[ids.Offset]string // records of the batch that is being read, to be copied
}

// liveRecord is a row's last record.
type liveRecord struct {
	key    string
	offset ids.Offset
	record struct {
		key, value []byte
		hasKey     bool
	}
}

// run says whether the front may be removed; it isn't worth it where most of its records are rows still.
func (p *compactionPass) run(ctx context.Context) (worth bool, err error) {
	names := slices.Clone(p.l.def.PrimaryKey)
	if p.dec, err = record.NewDecoder(p.l.def, append(names, "_deleted", "_offset")); err != nil {
		return false, err
	}
	p.rows = record.NewDelta(p.dec.Schema(), 0)
	p.key = make([]record.Value, len(names))
	p.live = map[string]ids.Offset{}
	if err := p.findLive(ctx); err != nil {
		return false, err
	}
	if p.records == 0 || int64(len(p.live)) > p.records/2 {
		return false, nil
	}
	return true, p.copyLive(ctx)
}

// findLive reads the whole log: which keys of the front have their last record there, as far as memory goes.
func (p *compactionPass) findLive(ctx context.Context) error {
	end, full := p.front, false
	err := p.read(ctx, p.l.log.start, end, func(b *Batch, key []byte, gone bool, offset ids.Offset) {
		switch {
		case full, gone:
			delete(p.live, string(key))
		default:
			if _, ok := p.live[string(key)]; !ok {
				p.keyBytes += int64(len(key)) + keyCost
			}
			p.live[string(key)] = offset
		}
		if !full {
			p.records++
		}
	}, func(b *Batch) error {
		if !full && p.keyBytes >= p.h.cfg.CompactMemory {
			p.front, full = b.BaseOffset+ids.Offset(b.Count), true
		}
		return nil
	})
	p.seen = end
	return err
}

// read hands the records of a range of the log to fn, and each batch to after. Records that don't decode are no rows.
func (p *compactionPass) read(ctx context.Context, from, to ids.Offset, fn func(b *Batch, key []byte, gone bool, offset ids.Offset), after func(*Batch) error) error {
	if from >= to {
		return nil
	}
	n := len(p.key)
	return p.h.Read(p.hd.r.id, p.l.stream, from, 0, func(b *Batch) (bool, error) {
		if b.BaseOffset >= to {
			return false, nil
		}
		raw, err := b.Raw(p.buf)
		if err != nil {
			return false, err
		}
		if p.raw = raw; b.Compression != millracev1.Compression_COMPRESSION_NONE {
			p.buf = raw
		}
		p.rows.Reset()
		if err := p.dec.Decode(raw, record.Meta{Partition: p.hd.r.id, BaseOffset: b.BaseOffset, Tick: b.Tick, TimeMicros: b.TimeMicros}, p.rows, nil); err != nil {
			return false, err
		}
		for i := range p.rows.N {
			for k := range p.key {
				p.key[k] = p.rows.Cols[k].Value(i)
			}
			p.keys = record.AppendKey(p.keys[:0], p.key)
			fn(b, p.keys, p.rows.Cols[n].Bools[i], ids.Offset(p.rows.Cols[n+1].Ints[i]))
		}
		p.tick = max(p.tick, b.Tick)
		if err := after(b); err != nil {
			return false, err
		}
		return true, ctx.Err()
	})
}

// copyLive reads the front again and appends what is live.
func (p *compactionPass) copyLive(ctx context.Context) error {
	p.want = map[ids.Offset]string{}
	err := p.read(ctx, p.l.log.start, p.front, func(_ *Batch, key []byte, _ bool, offset ids.Offset) {
		if at, ok := p.live[string(key)]; ok && at == offset {
			p.want[offset] = string(key)
		}
	}, func(b *Batch) error {
		if err := p.take(b); err != nil || p.pendSize < copyBatchBytes {
			return err
		}
		return p.flush(ctx)
	})
	if err != nil || len(p.pending) == 0 {
		return err
	}
	return p.flush(ctx)
}

// take keeps the wanted records of the batch that was read last.
func (p *compactionPass) take(b *Batch) error {
	if len(p.want) == 0 {
		return nil
	}
	it := record.NewIter(p.raw)
	for offset := b.BaseOffset; it.Next(); offset++ {
		key, ok := p.want[offset]
		if !ok {
			continue
		}
		l := liveRecord{key: key, offset: offset}
		k, has := it.Key()
		l.record.key, l.record.hasKey, l.record.value = bytes.Clone(k), has, bytes.Clone(it.Value())
		p.pending = append(p.pending, l)
		p.pendSize += len(k) + len(l.record.value)
	}
	clear(p.want)
	return it.Err()
}

// flush appends the copies that are pending, without those that were superseded meanwhile.
func (p *compactionPass) flush(ctx context.Context) error {
	defer func() { p.pending, p.pendSize = p.pending[:0], 0 }()
	size := int64(p.pendSize + 64*len(p.pending)) // at most
	for range hushTries {
		if err := p.catchUp(ctx); err != nil {
			return err
		}
		err := p.h.flight.acquire(ctx, p.hd, size)
		if fault.KindOf(err) == fault.Exhausted {
			continue // it has waited
		}
		if err != nil {
			return err
		}
		done, err := p.append(ctx, size)
		if done || err != nil {
			return err
		}
	}
	return fault.New(fault.Unavailable, "partition %d: the table's appends don't come to rest", p.hd.r.id)
}

// committed returns the end of the log, and whether nothing is there that isn't committed.
func (p *compactionPass) committed() (end ids.Offset, all bool, err error) {
	p.hd.mu.Lock()
	defer p.hd.mu.Unlock()
	r := p.hd.r
	st := r.streams[p.l.stream]
	if p.hd.gone || r.role != RolePrimary || r.epoch() != p.l.epoch || st == nil {
		return 0, false, fault.New(fault.NotPrimary, "partition %d has moved", r.id)
	}
	return st.committed, st.next == st.committed, nil
}

// catchUp looks at the records that have come: the rows of their keys needn't be copied any more.
func (p *compactionPass) catchUp(ctx context.Context) error {
	end, _, err := p.committed()
	if err != nil {
		return err
	}
	err = p.read(ctx, p.seen, end, func(_ *Batch, key []byte, _ bool, _ ids.Offset) { delete(p.live, string(key)) },
		func(*Batch) error { return nil })
	p.seen = max(p.seen, end)
	return err
}

// append appends what is pending, for which size bytes were taken from what may be in flight. Appends to the table wait
// meanwhile, so that none can come between the last look at the log and the copies. It tells whether it is done.
func (p *compactionPass) append(ctx context.Context, size int64) (done bool, err error) {
	h := p.h
	h.do(p.hd, func(r *replica) { r.hush(p.l.stream, h.now()+hushWait) })
	unhush := func() { h.do(p.hd, func(r *replica) { r.unhush(h.now()) }) }
	settled, err := p.settle(ctx)
	if err == nil && settled {
		err = p.catchUp(ctx)
	}
	var payload []byte
	var q *appendReq
	if err == nil && settled {
		q, payload, err = p.request()
	}
	h.flight.release(p.hd, size-int64(len(payload)))
	if q == nil || err != nil {
		unhush()
		return settled, err
	}
	type answer struct {
		res AppendResult
		err error
	}
	answers := make(chan answer, 1)
	q.done = func(res AppendResult, err error) { answers <- answer{res, err} }
	h.counts.pending.Add(1)
	h.do(p.hd, func(r *replica) { r.copyIn(h.now(), q) })
	unhush()
	var a answer
	select {
	case a = <-answers:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	var f *fault.Error
	if errors.As(a.err, &f) && f.GetReason() == ReasonChanged {
		return false, nil
	}
	if a.err == nil {
		p.tick = max(p.tick, a.res.Tick)
		p.liveBytes += int64(len(payload))
		h.counts.copiedRecords.Add(int64(q.count))
	}
	return true, a.err
}

// settle waits until all that came is committed, as long as appends are held back.
func (p *compactionPass) settle(ctx context.Context) (bool, error) {
	until := time.Now().Add(hushWait)
	for {
		_, all, err := p.committed()
		if all || err != nil || time.Now().After(until) {
			return all, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// request makes the batch of the copies; nil: nothing is left to copy.
func (p *compactionPass) request() (*appendReq, []byte, error) {
	var b record.BatchBuilder
	for _, l := range p.pending {
		if at, ok := p.live[l.key]; ok && at == l.offset {
			b.Add(l.record.key, l.record.hasKey, l.record.value)
		}
	}
	if b.Count() == 0 {
		return nil, nil, nil
	}
	payload, compression := b.Payload(), millracev1.Compression_COMPRESSION_NONE
	small, err := record.Compress(nil, payload, millracev1.Compression_COMPRESSION_S2)
	if err != nil {
		return nil, nil, err
	}
	if len(small) < len(payload)-len(payload)/8 {
		payload, compression = small, millracev1.Compression_COMPRESSION_S2
	}
	return &appendReq{
		header: header{
			stream: p.l.stream, count: uint32(b.Count()), compression: compression, uncompressed: uint32(b.Bytes()),
			payloadLen: uint32(len(payload)), payloadCRC: record.Checksum(payload),
		},
		payload: payload, wall: p.h.cfg.Now().UnixMicro(), copy: true, expect: p.seen,
	}, payload, nil
}
