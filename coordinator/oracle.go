package coordinator

import (
	"time"

	"github.com/millrace/millrace/internal/ids"
)

// oracle issues ticks. It is a state machine without clock or I/O: its caller passes the time, twice over. now is
// monotonic and sets the pace; wall, in microseconds since the epoch, sets the ticks' values and may step either way.
//
// After TiKV's timestamp oracle (PD, server/tso): a ceiling some seconds ahead is made durable first, ticks below it cost
// nothing, and a new leader begins above its predecessor's ceiling. A leader that finds the clock behind what was issued
// (its predecessor's ceiling, or a clock set back) lets ticks run at half the clock's speed until it has caught up:
// they still grow and still tell time, and the distance shrinks. While ticks are ahead of the clock only little is
// reserved, so that leaders that follow each other quickly don't add up their windows.
type oracle struct {
	cfg TickConfig

	last    ids.Tick // the highest that was issued or may have been
	ceiling ids.Tick // durable; no tick above it is issued

	issued time.Time // when the last was issued
	holdTo time.Time // the pace stays up until then
	since  int       // ticks since the last activity
	lively bool      // somebody waits for ticks though nothing is appended
	busy   float64   // 0: the cluster keeps up; 1: it is full
	commit time.Duration
}

// settleTicks is how many ticks follow an append before the pace falls: the first opens a tick above the append's, and
// by the next it is committed and the tick that it was stamped with closes.
const settleTicks = 3

// newOracle begins above floor, which no former leader has passed, at the fast pace: nodes wait for the new leader.
func newOracle(cfg TickConfig, floor ids.Tick, now time.Time) *oracle {
	return &oracle{cfg: cfg, last: floor, ceiling: floor, issued: now, holdTo: now}
}

// activity notes that something was appended or waits for a tick.
func (o *oracle) activity(now time.Time) {
	o.holdTo = now.Add(o.cfg.Hold)
	o.since = 0
}

// load sets whether somebody waits for ticks, how full the cluster is, and the recent time from append to commit: ticks that follow each other faster
// than groups are committed serve nobody.
func (o *oracle) load(lively bool, busy float64, commit time.Duration) {
	o.lively, o.busy, o.commit = lively, min(max(busy, 0), 1), commit
}

// still tells that nothing has happened for so long, and nobody waits for anything, that ticks need not hurry.
func (o *oracle) still(now time.Time) bool {
	return !o.lively && o.since >= settleTicks && now.Sub(o.holdTo) >= o.cfg.StillAfter
}

// pace is the time from one tick to the next.
func (o *oracle) pace(now time.Time) time.Duration {
	if o.still(now) {
		return o.cfg.Still
	}
	if o.since >= settleTicks && !now.Before(o.holdTo) {
		return o.cfg.Quiet
	}
	p := o.cfg.Fast + time.Duration(o.busy*float64(o.cfg.Full-o.cfg.Fast))
	return min(max(p, o.commit), o.cfg.Full)
}

// due is when the next tick is.
func (o *oracle) due(now time.Time) time.Time { return o.issued.Add(o.pace(now)) }

// issue returns the next tick; ok is false while all reserved ones are used up.
func (o *oracle) issue(now time.Time, wall uint64) (t ids.Tick, ok bool) {
	next := ids.Tick(wall)
	if next <= o.last {
		slow := ids.Tick(max(now.Sub(o.issued), 0).Microseconds() / 2)
		next = o.last + max(slow, 1)
	}
	next = min(next, o.ceiling)
	if next <= o.last {
		return 0, false
	}
	o.last, o.issued = next, now
	o.since = min(o.since+1, settleTicks)
	return next, true
}

// What is reserved at a time while ticks are ahead of the clock, and while they are so by more than a window: a leader
// that comes then adds no more than that to the distance.
const (
	aheadWindow    = 500 * time.Millisecond
	farAheadWindow = 200 * time.Millisecond
)

// reserve tells which ceiling to make durable now; ok is false while there is enough room.
func (o *oracle) reserve(wall uint64) (ceiling ids.Tick, ok bool) {
	window, from := o.cfg.Window, ids.Tick(wall)
	if from < o.last {
		window = aheadWindow
		if o.last-from > ids.Tick(o.cfg.Window.Microseconds()) {
			window = farAheadWindow
		}
		from = o.last
	}
	micros := ids.Tick(window.Microseconds())
	if o.ceiling >= from && o.ceiling-from >= micros/2 {
		return 0, false
	}
	return from + micros, true
}

// reserved takes over a ceiling that is durable.
func (o *oracle) reserved(ceiling ids.Tick) { o.ceiling = max(o.ceiling, ceiling) }
