package stage

import (
	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/ids"
)

// markStep says that a stage's watermark or horizon rises at a tick, and to what.
type markStep struct {
	tick  ids.Tick
	marks dataflow.Marks
}

// clock computes the marks of a stage from the event times of the streams that its rows come from: the least of the
// streams' watermarks, and of their horizons; none as long as one of them has none. It is a plain state machine, driven
// tick by tick.
type clock struct {
	streams []*watermark
	places  []clockPlace // by the group's source
	now     ids.Tick
	current dataflow.Marks
}

// clockPlace is what a group's source is for the clock.
type clockPlace struct {
	stream int // -1: none
	source int
}

func newClock(t *targetPlan, in []inflow) *clock {
	c := &clock{places: make([]clockPlace, len(in)), current: dataflow.NoMarks}
	for i, f := range in {
		c.places[i] = clockPlace{stream: -1}
		for s, m := range t.marks {
			if m.input == f.input {
				c.places[i] = clockPlace{s, int(f.p)}
			}
		}
	}
	for _, m := range t.marks {
		def := m.stream.stream
		c.streams = append(c.streams, newWatermark(t.view.partitions, def.WatermarkDelayUs, ids.Tick(def.IdleUs), m.stream.born))
	}
	return c
}

// start sets the state as of a tick.
func (c *clock) start(at cut) {
	for i, p := range at.positions {
		c.observe(i, p)
	}
	c.now = at.tick
	for i, w := range c.streams {
		w.now = at.tick
		if i < len(at.watermarks) {
			w.current = at.watermarks[i]
		}
		w.raise(at.tick)
	}
	c.current = c.least()
}

// observe takes a source's position after its batches of the tick that step is called for next.
func (c *clock) observe(source int, p position) {
	if at := c.places[source]; at.stream >= 0 {
		c.streams[at.stream].observe(at.source, p)
	}
}

// step goes on to tick, as watermark.step does, and appends the rises on the way.
func (c *clock) step(tick ids.Tick, out []markStep) []markStep {
	for c.now < tick {
		at := tick
		for _, w := range c.streams {
			if t, ok := w.nextIdle(at); ok {
				at = t
			}
		}
		c.now = at
		for _, w := range c.streams {
			w.now = at
			w.raise(at)
		}
		if m := c.least(); m != c.current {
			c.current = m
			out = append(out, markStep{at, m})
		}
	}
	return out
}

func (c *clock) least() dataflow.Marks {
	m := dataflow.NoMarks
	for i, w := range c.streams {
		watermark, horizon := w.current.orNone(), w.horizon.orNone()
		if i == 0 {
			m = dataflow.Marks{Watermark: watermark, Horizon: horizon}
			continue
		}
		m.Watermark, m.Horizon = min(m.Watermark, watermark), min(m.Horizon, horizon)
	}
	m.Horizon = min(m.Horizon, m.Watermark)
	return m
}

// watermarks returns the streams' own, to be stored.
func (c *clock) watermarks() []watermarkValue {
	out := make([]watermarkValue, len(c.streams))
	for i, w := range c.streams {
		out[i] = w.current
	}
	return out
}
