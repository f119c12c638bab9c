package stage

import (
	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/datagen"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// pushRows is how many decoded rows go to the operators at a time.
const pushRows = 4096

// chunk reads a bounded piece of the log for one scan and makes steps of it.
type chunk struct {
	source *source
	scan   *scan
	closed ids.Tick // what is read is closed; of the history, up to its end
	stops  map[ids.Offset]bool

	steps  []*step
	tick   ids.Tick // being built; 0: none
	pushed bool     // rows of it
	bytes  int      // of encoded records so far
	rows   uint64   // records, or rows of a stage's output, so far
	cut    bool     // ended before the closed tick
	live   bool     // what is read has just come: other views read it too
	logErr bool     // the error is the log's
}

func (c *chunk) read() error {
	s, sc := c.source, c.scan
	if err := c.prepare(); err != nil {
		return err
	}
	if s.up != nil {
		return c.readOutput()
	}
	if s.plan.log.id == 0 {
		sc.pos.through = c.closed
		c.steps = append(c.steps, &step{through: c.closed, pos: sc.pos})
		return nil
	}
	if sc.pos.through >= s.view.created {
		c.live = true
		return c.readLog(c.closed, c.liveBatch, func() error {
			if c.tick == 0 {
				sc.pos.through = c.closed
				c.steps = append(c.steps, &step{through: c.closed, pos: sc.pos})
				return nil
			}
			return c.finish(false, c.closed)
		})
	}
	limit := min(c.closed, s.view.created)
	c.closed = limit
	atEnd := func() error {
		if limit < s.view.created {
			if c.bytes == 0 {
				return nil
			}
			return c.finish(true, 0)
		}
		return c.finish(false, limit)
	}
	c.tick = s.view.created
	switch {
	case !s.view.startNow:
		if err := c.readLog(limit, c.historyBatch, atEnd); err != nil {
			return err
		}
	case s.plan.log.events:
		if err := c.readLog(limit, c.skippedBatch, atEnd); err != nil {
			return err
		}
	case limit < s.view.created:
	default:
		if err := c.skip(); err != nil {
			c.logErr = true
			return err
		}
		if err := c.finish(false, limit); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes what the first chunk of a scan needs.
func (c *chunk) prepare() error {
	s, sc := c.source, c.scan
	if l := s.plan.log; l != nil && l.id != 0 && sc.dec == nil {
		columns := l.columns
		if sc.skipping = l.marks || s.view.startNow && sc.pos.through < s.view.created; sc.skipping {
			columns = nil // only event times matter
		}
		var err error
		if sc.dec, err = datagen.NewDecoder(l.stream, columns); err != nil {
			return err
		}
		sc.dec.HasEventTime, sc.dec.MaxEventTime = sc.pos.hasEvent, sc.pos.maxEvent
		sc.in = record.NewDelta(sc.dec.Schema(), 0)
	}
	if s.split == nil {
		s.split = newSplitter(s.plan.exchange, s.view.partitions)
	}
	if s.frag == nil && s.plan.ops != nil {
		var err error
		env := dataflow.Env{Mode: dataflow.Live, Partition: s.p, AppendOnly: s.plan.appends}
		if s.frag, err = dataflow.New(s.plan.ops, env); err != nil {
			return err
		}
	}
	return nil
}

// readLog hands the log's batches up to limit to fn, and calls atEnd unless fn cut the chunk short.
func (c *chunk) readLog(limit ids.Tick, fn func(*LogBatch) (bool, error), atEnd func() error) error {
	s, sc := c.source, c.scan
	var own error
	err := s.rt.logs.ReadTicks(s.p, s.plan.log.id, sc.pos.offset, limit, func(b *LogBatch) (bool, error) {
		if b.BaseOffset != sc.pos.offset {
			if s.plan.log.compacted() { // what is left has all rows, but not what happened to them
				s.rt.wantRestart(s.view)
				return false, fault.New(fault.Unavailable, "table %q begins anew", s.view.name)
			}
			own = fault.New(fault.Conflict, "view %q needs the records of partition %d from offset %d on, its log goes on at %d; "+
				"drop the view and create it again", s.view.name, s.p, sc.pos.offset, b.BaseOffset).WithReason("LOG_TRUNCATED")
			return false, own
		}
		more, err := fn(b)
		own = err
		return more, err
	})
	if err == nil && !c.cut {
		return atEnd()
	}
	c.logErr = err != nil && own == nil
	return err
}

// full tells whether the chunk has read enough.
func (c *chunk) full() bool { return c.bytes >= c.source.rt.cfg.ChunkBytes }

func (c *chunk) liveBatch(b *LogBatch) (bool, error) {
	if c.tick != 0 && (b.Tick != c.tick || c.full()) {
		part, through := b.Tick == c.tick, b.Tick-1
		if err := c.finish(part, through); err != nil {
			return false, err
		}
		if c.full() {
			c.cut = true
			return false, nil
		}
	}
	c.tick = b.Tick
	return true, c.decode(b)
}

func (c *chunk) historyBatch(b *LogBatch) (bool, error) {
	if c.bytes > 0 && (c.full() || c.stops[c.scan.pos.offset]) {
		c.cut = true
		return false, c.finish(true, 0)
	}
	return true, c.decode(b)
}

// skippedBatch takes nothing but event times from a batch.
func (c *chunk) skippedBatch(b *LogBatch) (bool, error) {
	if c.full() {
		c.cut = true
		return false, c.finish(true, 0)
	}
	return true, c.decode(b)
}

func (c *chunk) decode(b *LogBatch) error {
	s, sc := c.source, c.scan
	if c.live && !sc.skipping {
		before := eventTime{sc.pos.hasEvent, sc.pos.maxEvent}
		if batch := s.rt.decoded.get(s.p, s.plan.log, before, b); batch != nil && s.columnsOf(batch, sc.in) {
			sc.dec.HasEventTime, sc.dec.MaxEventTime = batch.after.has, batch.after.micros
			return c.decoded(b, max(batch.rawSize, 1))
		}
	}
	raw, err := b.Raw(s.buf[:0])
	if err != nil {
		return err
	}
	if cap(raw) > cap(s.buf) && len(raw) <= 4<<20 {
		s.buf = make([]byte, 0, cap(raw)) // raw may be the log's own memory
	}
	meta := record.Meta{Partition: s.p, BaseOffset: b.BaseOffset, Tick: b.Tick, TimeMicros: b.TimeMicros}
	before := madeBytes(sc.in)
	if err := sc.dec.Decode(raw, meta, sc.in, nil); err != nil {
		return err
	}
	cost := max(len(raw), 1)
	if s.plan.log.stream.Source != nil {
		cost = max(madeBytes(sc.in)-before, int(b.Count))
	}
	return c.decoded(b, cost)
}

// decoded goes on behind a batch whose rows are in the scan's in.
func (c *chunk) decoded(b *LogBatch, cost int) error {
	s, sc := c.source, c.scan
	c.bytes += cost
	c.rows += uint64(b.Count)
	sc.pos.offset, sc.pos.lastTick = b.BaseOffset+ids.Offset(b.Count), b.Tick
	sc.pos.hasEvent, sc.pos.maxEvent = sc.dec.HasEventTime, sc.dec.MaxEventTime
	if sc.skipping {
		sc.in.Reset()
	}
	if s.frag != nil && sc.in.N >= pushRows {
		return c.push()
	}
	return nil
}

// madeBytes is what a delta's rows take, which stands for the records that a stream with a source doesn't have.
func madeBytes(d *record.Delta) int {
	n := 8 * d.N * len(d.Cols)
	for i := range d.Cols {
		n += len(d.Cols[i].Bytes)
	}
	return n
}

func (c *chunk) push() error {
	c.pushed = true
	err := c.source.frag.Push(c.source.plan.leaf, c.scan.in)
	c.scan.in.Reset()
	return err
}

// finish makes a step of what was read since the last one.
func (c *chunk) finish(part bool, through ids.Tick) error {
	s, sc := c.source, c.scan
	sc.pos.through = through
	if part && through < s.view.created {
		sc.pos.through = 0
	}
	st := &step{tick: c.tick, part: part, through: sc.pos.through, pos: sc.pos}
	switch {
	case s.frag == nil:
		switch {
		case sc.in.N == 0:
		case s.plan.exchange != nil:
			st.parts = s.split.split(s.p, sc.in, s.want)
			sc.in.Reset()
		default:
			in := sc.in
			sc.in = s.newDelta(sc.dec.Schema(), in)
			if s.want[s.p] {
				st.parts = onePart(s.p, in)
				st.parts[0].from = s
			}
		}
	case sc.in.N > 0 || c.pushed:
		if sc.in.N > 0 {
			if err := c.push(); err != nil {
				return err
			}
		}
		out, err := s.frag.EndTick(c.tick, dataflow.NoMarks)
		if err != nil {
			return err
		}
		st.parts = s.split.split(s.p, out, s.want)
		st.counts = s.frag.TakeCounts()
	}
	if sc.skipping && !s.plan.log.marks && through >= s.view.created {
		sc.dec = nil // from here on the columns are wanted
	}
	c.steps = append(c.steps, st)
	c.tick, c.pushed = 0, false
	return nil
}

func onePart(target ids.PartitionID, d *record.Delta) []part {
	return []part{{target: target, delta: d, bytes: deltaBytes(d)}}
}

// skip goes to the first batch after the view's created_tick, which is closed, without reading what lies before.
func (c *chunk) skip() error {
	s, sc := c.source, c.scan
	lo, hi, err := s.rt.logs.End(s.p, s.plan.log.id)
	if err != nil {
		return err
	}
	for lo < hi {
		mid := lo + (hi-lo)/2
		next := hi
		after := true
		err := s.rt.logs.ReadTicks(s.p, s.plan.log.id, mid, maxTick, func(b *LogBatch) (bool, error) {
			after = b.Tick > s.view.created
			if !after {
				next = b.BaseOffset + ids.Offset(b.Count)
				sc.pos.lastTick = max(sc.pos.lastTick, b.Tick)
			} else {
				next = b.BaseOffset
			}
			return false, nil
		})
		if err != nil {
			return err
		}
		if after {
			hi = min(next, mid)
		} else {
			lo = next
		}
	}
	sc.pos.offset = lo
	return nil
}
