package stage

import (
	"errors"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// outputScan is a scan's place within one tick of a stage's output: its rows at the beginning of the view that reads
// them, or what is left of a large delta.
type outputScan struct {
	rows *rowScan
	rest *record.Delta // of the tick after pos
	from int           // rows of rest that have been sent
	tick ids.Tick      // of rest
	sent bool          // a part of the tick, rows or rest, went to the readers
}

// begun tells whether the readers have a part of a tick, and no other reader can join them.
func (o *outputScan) begun() bool { return o.sent }

func (o *outputScan) close() {
	if o.rows != nil {
		_ = o.rows.close() // fails only if the store is closed, which has let go of it
	}
	*o = outputScan{}
}

// alike tells whether a scan can serve a reader at a position with the same offset.
func (s *source) alike(sc *scan, pos position) bool {
	if s.up == nil {
		return true
	}
	return !sc.out.begun() && (sc.pos.through < s.view.created) == (pos.through < s.view.created)
}

// serves tells whether what a reader needs is retained; if it isn't, the reader is sent away and what can help is begun:
// an earlier stage is computed again from its inputs; a view that reads another one begins anew. Called with mu held.
func (s *source) serves(r *reader) bool {
	if s.up == nil || s.up.retains(r.pos, s.view.created) {
		return true
	}
	s.readers = without(s.readers, r)
	r.closed = true
	r.refused("what it needs of another stage isn't retained any more", false)
	s.help()
	return false
}

// help asks for what makes a position below the retained ones readable.
func (s *source) help() {
	if s.plan.upView != 0 {
		s.rt.wantRestart(s.view)
		return
	}
	s.up.redo.Store(true)
	s.rt.lookAtBoard()
}

// retains tells whether a target still has, or will compute, all of its output after a position, for a reader that begins
// at created.
func (t *target) retains(pos position, created ids.Tick) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.applied < t.view.created {
		return true
	}
	if pos.through >= created {
		return pos.through >= t.deltas.floor
	}
	return t.plan.last && t.deltas.floor <= created || !t.plan.last && t.base
}

// readOutput makes steps of a stage's output.
func (c *chunk) readOutput() error {
	s, sc := c.source, c.scan
	err := c.output()
	if errors.Is(err, fault.Of(fault.NotFound)) || errors.Is(err, fault.Of(fault.NotPrimary)) || errors.Is(err, fault.Of(fault.Unavailable)) {
		c.logErr = true // it was trimmed, or has moved: the readers are looked at again
	}
	if err == nil && !c.cut && sc.pos.through < c.closed && sc.pos.through >= s.view.created {
		sc.pos.through = c.closed
		if n := len(c.steps); n > 0 && !c.steps[n-1].part {
			c.steps[n-1].through, c.steps[n-1].pos = c.closed, sc.pos
		} else {
			c.steps = append(c.steps, &step{through: c.closed, pos: sc.pos})
		}
	}
	return err
}

func (c *chunk) output() error {
	s, sc := c.source, c.scan
	if sc.pos.through < s.view.created {
		if c.closed < s.view.created {
			return nil
		}
		if err := c.outputRows(); err != nil || sc.pos.through < s.view.created {
			return err
		}
	}
	if sc.out.rest != nil {
		if err := c.cutDelta(); err != nil || c.cut {
			return err
		}
	}
	up := s.up
	up.mu.Lock()
	err := up.gone()
	var deltas []tickDelta
	all := true
	if err == nil {
		deltas, all, err = up.deltas.between(s.rt.store, sc.pos.through, c.closed, s.rt.cfg.ChunkBytes)
	}
	up.mu.Unlock()
	if err != nil {
		return err
	}
	for i := range deltas {
		d, err := deltas[i].decoded(up.plan.schema)
		if err != nil {
			return err
		}
		if d, err = s.pick(d); err != nil {
			return err
		}
		sc.out.rest, sc.out.tick = d, deltas[i].tick
		if err := c.cutDelta(); err != nil || c.cut {
			return err
		}
	}
	c.cut = !all
	return nil
}

// outputRows makes steps of the rows with which the view begins.
func (c *chunk) outputRows() error {
	s, sc := c.source, c.scan
	created := s.view.created
	var err error
	if sc.out.rows == nil {
		if sc.out.rows, err = s.up.openScan(created, nil); err != nil {
			return err
		}
	}
	for c.bytes < s.rt.cfg.ChunkBytes {
		d, err := sc.out.rows.next(readRows)
		if err != nil {
			return err
		}
		if d == nil {
			sc.out.close()
			sc.pos = deltaPosition(created, created)
			c.steps = append(c.steps, &step{tick: created, through: created, pos: sc.pos})
			return nil
		}
		if d, err = s.pick(d); err != nil {
			return err
		}
		if err := c.sendOutput(d, created, true); err != nil {
			return err
		}
	}
	c.cut = true
	return nil
}

// cutDelta makes steps of what is left of a delta: one, unless it is large.
func (c *chunk) cutDelta() error {
	s, sc := c.source, c.scan
	o := &sc.out
	for c.bytes < s.rt.cfg.ChunkBytes {
		d := o.rest
		perStep := d.N
		if size := deltaBytes(d); size > int64(s.rt.cfg.ChunkBytes) {
			perStep = max(1, int(int64(d.N)*int64(s.rt.cfg.ChunkBytes)/size))
		}
		to := min(o.from+perStep, d.N)
		if o.from > 0 || to < d.N {
			d = gather(d, rowsUpTo(to)[o.from:])
		}
		last := to == o.rest.N
		if last {
			sc.pos = deltaPosition(o.tick, o.tick)
		} else {
			sc.pos.through = o.tick - 1
		}
		if err := c.sendOutput(d, o.tick, !last); err != nil {
			return err
		}
		if o.from = to; last {
			*o = outputScan{}
			return nil
		}
	}
	c.cut = true
	return nil
}

// sendOutput makes a step of some rows of a tick.
func (c *chunk) sendOutput(d *record.Delta, tick ids.Tick, part bool) error {
	s, sc := c.source, c.scan
	c.bytes += max(1, int(deltaBytes(d)))
	c.rows += uint64(d.N)
	st := &step{tick: tick, part: part, through: sc.pos.through, pos: sc.pos}
	switch {
	case s.frag != nil:
		if err := s.frag.Push(s.plan.leaf, d); err != nil {
			return err
		}
		out, err := s.frag.EndTick(tick, dataflow.NoMarks)
		if err != nil {
			return err
		}
		st.parts = s.split.split(s.p, out, s.want)
		st.counts = s.frag.TakeCounts()
	case s.plan.exchange != nil:
		st.parts = s.split.split(s.p, d, s.want)
	case s.want[s.p]:
		if sc.out.rows != nil {
			d = copyDelta(d) // it is the scan's
		}
		st.parts = onePart(s.p, d)
	}
	sc.out.sent = part
	c.steps = append(c.steps, st)
	return nil
}

// pick returns the columns that the source reads.
func (s *source) pick(d *record.Delta) (*record.Delta, error) {
	if s.plan.upView == 0 {
		return d, nil
	}
	if s.cols == nil {
		var err error
		if s.cols, err = s.plan.columnsOf(s.up.plan.schema); err != nil {
			return nil, err
		}
	}
	out := &record.Delta{N: d.N, Weights: d.Weights, Cols: make([]record.Column, len(s.cols))}
	for i, c := range s.cols {
		out.Cols[i] = d.Cols[c]
	}
	return out, nil
}

// lookAtOutput lets the source run if there is something new for it in the output that it reads.
func (s *source) lookAtOutput() {
	if s.up.lastOut.Load() > s.behind.Load() || s.waiting.Load() {
		s.rt.sched.wake(s)
	}
}

// noteBehind notes how far the slowest scan is. Called with mu held.
func (s *source) noteBehind() {
	if s.up == nil {
		return
	}
	low, waiting := maxTick, false
	for _, sc := range s.scans {
		low = min(low, sc.readTo)
		waiting = waiting || sc.pos.through < s.view.created
	}
	s.behind.Store(uint64(low))
	s.waiting.Store(waiting)
}
