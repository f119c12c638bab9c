package stage

import (
	"math"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/ids"
)

// watermarkValue is a watermark, in microseconds since the Unix epoch, or none yet.
type watermarkValue struct {
	set   bool
	value int64
}

func (w watermarkValue) orNone() int64 {
	if !w.set {
		return dataflow.NoWatermark
	}
	return w.value
}

// watermarkStep says that a stage's watermark rises at a tick.
type watermarkStep struct {
	tick ids.Tick
	to   int64
}

// watermark computes a stage's watermark from its sources: at tick k the least of the partitions' highest event time up
// to k, less the delay, leaving out those that are idle: the last batch lies idle ticks or more before k. When all are
// idle, the greatest of them. It never goes back. It is a plain state machine, driven tick by tick.
type watermark struct {
	delay   int64    // microseconds
	idle    ids.Tick // 0: partitions are never idle
	created ids.Tick // of the stream: a partition without batches is idle from here on
	sources []sourceEvents
	now     ids.Tick
	current watermarkValue
	// horizon is the least of all partitions' highest event times less the delay, idle or not; none while a partition has no
	// record with one.
	horizon watermarkValue
}

type sourceEvents struct {
	last     ids.Tick // of the last batch; created, when there is none
	hasEvent bool
	maxEvent int64
}

func newWatermark(sources int, delay int64, idle, created ids.Tick) *watermark {
	w := &watermark{delay: delay, idle: idle, created: created, sources: make([]sourceEvents, sources)}
	for i := range w.sources {
		w.sources[i].last = created
	}
	return w
}

// start sets the state as of a tick.
func (w *watermark) start(c cut) {
	for s, p := range c.positions {
		w.observe(s, p)
	}
	w.now = c.tick
	if len(c.watermarks) > 0 {
		w.current = c.watermarks[0]
	}
	w.raise(w.now)
}

// observe takes a source's position after its batches of the tick that step is called for next.
func (w *watermark) observe(source int, p position) {
	s := &w.sources[source]
	s.last = max(s.last, p.lastTick)
	s.hasEvent, s.maxEvent = p.hasEvent, p.maxEvent
}

// nextIdle returns the lowest tick above now and up to limit at which a source becomes idle.
func (w *watermark) nextIdle(limit ids.Tick) (ids.Tick, bool) {
	if w.idle == 0 {
		return 0, false
	}
	next, ok := ids.Tick(0), false
	for i := range w.sources {
		if t := w.sources[i].last + w.idle; t > w.now && t <= limit && (!ok || t < next) {
			next, ok = t, true
		}
	}
	return next, ok
}

// step goes on to tick, after observe was called for the batches of that very tick, and appends the rises on the way:
// those by idleness before tick count what was observed for tick not yet, so the caller steps to tick-1 before it
// observes.
func (w *watermark) step(tick ids.Tick, out []watermarkStep) []watermarkStep {
	for w.now < tick {
		at, ok := w.nextIdle(tick)
		if !ok {
			at = tick
		}
		w.now = at
		if w.raise(at) {
			out = append(out, watermarkStep{at, w.current.value})
		}
	}
	return out
}

// raise computes the watermark at tick and tells whether it rose.
func (w *watermark) raise(tick ids.Tick) bool {
	least, greatest, lowest := int64(math.MaxInt64), int64(math.MinInt64), int64(math.MaxInt64)
	active, known, events := 0, 0, 0
	for i := range w.sources {
		s := &w.sources[i]
		if s.hasEvent {
			events++
			greatest = max(greatest, s.maxEvent)
			lowest = min(lowest, s.maxEvent)
		}
		if w.idle != 0 && tick >= s.last+w.idle {
			continue
		}
		active++
		if s.hasEvent {
			known++
			least = min(least, s.maxEvent)
		}
	}
	if events == len(w.sources) {
		w.horizon = watermarkValue{set: true, value: w.less(lowest)}
	}
	v := least
	if active == 0 {
		if events == 0 {
			return false
		}
		v = greatest
	} else if known < active {
		return false // an active partition without an event time holds the watermark back
	}
	v = w.less(v)
	if w.current.set && v <= w.current.value {
		return false
	}
	w.current = watermarkValue{set: true, value: v}
	return true
}

// less takes the delay off an event time.
func (w *watermark) less(v int64) int64 { return max(v, math.MinInt64+1+w.delay) - w.delay }
