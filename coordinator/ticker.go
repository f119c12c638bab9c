package coordinator

import (
	"time"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// tickLoop issues ticks as the oracle says.
func (l *leadership) tickLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-l.beat:
		case <-l.ctx.Done():
			return
		}
		timer.Reset(max(time.Until(l.tick(time.Now())), 0))
	}
}

// exhaustedWait is until the next try while all reserved ticks are used up.
const exhaustedWait = 5 * time.Millisecond

// tick issues a tick when one is due, and returns when the next is.
func (l *leadership) tick(now time.Time) time.Time {
	l.selfReport(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.looked) >= withTick(l.c.cfg.Moves.Interval) {
		signal(l.kick)
	}
	due := l.oracle.due(now)
	if now.Before(due) {
		return due
	}
	wall := l.wall(now)
	t, ok := l.oracle.issue(now, wall)
	if _, need := l.oracle.reserve(wall); need {
		signal(l.room)
	}
	if !ok {
		return now.Add(exhaustedWait)
	}
	l.newest = tickMark{tick: t, index: l.c.State().Index, term: l.term}
	l.c.ticks.offer(l.newest, now)
	for _, a := range l.streams {
		signal(a.wake)
	}
	return l.oracle.due(now)
}

// selfReport is the leader's own report, which needs no stream.
func (l *leadership) selfReport(now time.Time) {
	id := l.c.id.node
	l.mu.Lock()
	last, every := l.loads[id].at, l.c.cfg.Ticks.ReportActive
	if l.oracle.pace(now) >= l.c.cfg.Ticks.Quiet { // who appends asks for a tick
		every = withTick(l.c.cfg.Ticks.ReportQuiet)
	}
	l.mu.Unlock()
	if now.Sub(last) < every {
		return
	}
	l.take(id, l.c.nodeReport())
}

// How often the room below the ceiling is looked at, besides with each tick; and when raising it has failed.
const (
	reserveEvery = time.Second
	reserveSoon  = 50 * time.Millisecond
)

// reserveLoop keeps a ceiling ahead of the ticks.
func (l *leadership) reserveLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-l.room:
		case <-l.ctx.Done():
			return
		}
		now := time.Now()
		l.mu.Lock()
		ceiling, need := l.oracle.reserve(l.wall(now))
		l.mu.Unlock()
		next := reserveEvery
		if need && !l.reserve(ceiling) {
			next = reserveSoon
		}
		timer.Reset(next)
	}
}

// reserve makes a ceiling durable, if it can.
func (l *leadership) reserve(ceiling ids.Tick) bool {
	cmd := &internalv1.Command{Op: &internalv1.Command_ReserveTicks{ReserveTicks: &internalv1.ReserveTicks{Ceiling: uint64(ceiling)}}}
	if _, err := l.propose(l.ctx, cmd); err != nil {
		if l.ctx.Err() == nil {
			l.c.log.Info("reserving ticks failed; trying again", "error", err)
		}
		return false
	}
	l.mu.Lock()
	l.oracle.reserved(ceiling)
	l.mu.Unlock()
	signal(l.beat)
	return true
}
