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
	due := l.oracle.due(now)
	if now.Before(due) {
		return due
	}
	t, ok := l.oracle.issue(now, l.wall(now))
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
	last := l.loads[id].at
	l.mu.Unlock()
	if now.Sub(last) < l.c.cfg.Ticks.ReportActive {
		return
	}
	l.take(id, l.c.nodeReport())
}

// How often the room below the ceiling is looked at: it lasts for more than a second, but for less while ticks are ahead
// of the clock.
const (
	reserveEvery = 250 * time.Millisecond
	reserveSoon  = 50 * time.Millisecond
)

// reserveLoop keeps a ceiling ahead of the ticks.
func (l *leadership) reserveLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-l.ctx.Done():
			return
		}
		now := time.Now()
		l.mu.Lock()
		wall := l.wall(now)
		ceiling, need := l.oracle.reserve(wall)
		next := reserveEvery
		if need || uint64(l.oracle.last) > wall {
			next = reserveSoon
		}
		l.mu.Unlock()
		if need {
			l.reserve(ceiling)
		}
		timer.Reset(next)
	}
}

func (l *leadership) reserve(ceiling ids.Tick) {
	cmd := &internalv1.Command{Op: &internalv1.Command_ReserveTicks{ReserveTicks: &internalv1.ReserveTicks{Ceiling: uint64(ceiling)}}}
	if _, err := l.propose(l.ctx, cmd); err != nil {
		if l.ctx.Err() == nil {
			l.c.log.Info("reserving ticks failed; trying again", "error", err)
		}
		return
	}
	l.mu.Lock()
	l.oracle.reserved(ceiling)
	l.mu.Unlock()
	signal(l.beat)
}
