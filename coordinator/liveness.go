package coordinator

import (
	"time"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// tracker judges who is alive, for as long as this node leads. It is a state machine without clock or I/O.
//
// A member shows life by its reports, and by answering a probe. Silence makes it suspect and lets probes go out; only
// failed probes make it down: refused connections, in a row or after some silence, show that the process is gone, silence
// for longer that it hangs or is cut off. A broken stream alone is a reason to probe, nothing more.
type tracker struct {
	cfg   DetectionConfig
	began time.Time // of this leadership
	// grace ends when members not seen yet may be judged.
	grace time.Time
	lives map[ids.NodeID]*life
}

type life struct {
	seen       bool // this leader has had a sign of life, or knew the member before
	sign       time.Time
	reported   time.Time
	broken     bool // its stream ended and none came since
	probed     time.Time
	probing    bool
	failures   int // probes failed in a row
	refusals   int // refused in a row
	refusedAt  time.Time
	down       bool
	downSince  time.Time
	gossipDead bool
	stopping   bool
	condemned  time.Time // being removed although it lives: until then no sign of life counts
	report     *internalv1.NodeReport
}

// probeOutcome is what a probe found.
type probeOutcome uint8

const (
	probeOK probeOutcome = iota
	probeRefused
	probeSilent
)

func newTracker(cfg DetectionConfig, now, processStart time.Time) *tracker {
	t := &tracker{cfg: cfg, began: now, grace: now, lives: map[ids.NodeID]*life{}}
	if young := processStart.Add(cfg.StartGrace); young.After(now) {
		t.grace = now.Add(cfg.StartGrace)
	}
	return t
}

func (t *tracker) life(id ids.NodeID) *life {
	l := t.lives[id]
	if l == nil {
		l = &life{sign: t.began, reported: t.began}
		t.lives[id] = l
	}
	return l
}

// known seeds what this node knew of a member before it led: when it last heard of it.
func (t *tracker) known(id ids.NodeID, last time.Time) {
	l := t.life(id)
	l.seen, l.sign, l.broken = true, last, true
}

// gone notes that a member's process is gone: its address refused connections just now. A sign of life undoes it.
func (t *tracker) gone(id ids.NodeID, now time.Time) {
	l := t.life(id)
	l.down, l.downSince, l.refusals, l.refusedAt = true, now, t.cfg.Refusals, now
}

func (t *tracker) reportedBy(id ids.NodeID, r *internalv1.NodeReport, now time.Time) {
	l := t.life(id)
	l.report, l.reported, l.stopping, l.broken = r, now, r.Stopping, false
	l.alive(now)
}

// condemnedFor bounds how long a removal may take until the member is listened to again.
const condemnedFor = 10 * time.Second

// condemn makes a member down, whatever it says, because it is being removed.
func (t *tracker) condemn(id ids.NodeID, now time.Time) {
	l := t.life(id)
	l.condemned = now.Add(condemnedFor)
	if !l.down {
		l.down, l.downSince = true, now
	}
}

func (l *life) alive(now time.Time) {
	l.seen, l.sign, l.failures, l.refusals = true, now, 0, 0
	if now.Before(l.condemned) {
		return
	}
	l.down, l.downSince = false, time.Time{}
}

func (t *tracker) streamEnded(id ids.NodeID) { t.life(id).broken = true }

func (t *tracker) gossiped(id ids.NodeID, dead bool) { t.life(id).gossipDead = dead }

func (t *tracker) probeDone(id ids.NodeID, o probeOutcome, now time.Time) {
	l := t.life(id)
	l.probing = false
	switch o {
	case probeOK:
		// It answers, but a node that doesn't report does no work for the cluster: that is borne for a while only.
		if now.Sub(l.reported) < t.cfg.NoReportAfter {
			l.alive(now)
		} else {
			l.failures++
		}
	case probeRefused:
		if l.refusals == 0 {
			l.refusedAt = now
		}
		l.refusals++
		l.failures++
	case probeSilent:
		l.refusals = 0
		l.failures++
	}
}

// silent tells that a member should be probed.
func (t *tracker) silent(l *life, now time.Time) bool {
	return l.broken || now.Sub(l.sign) >= t.cfg.SuspectAfter || now.Sub(l.reported) >= t.cfg.NoReportAfter
}

// probes returns whom to probe now, and notes that they are being probed.
func (t *tracker) probes(members []ids.NodeID, now time.Time) []ids.NodeID {
	var out []ids.NodeID
	for _, id := range members {
		l := t.life(id)
		if t.silent(l, now) && !l.probing && now.Sub(l.probed) >= t.cfg.ProbeInterval {
			l.probing, l.probed = true, now
			out = append(out, id)
		}
	}
	return out
}

// judge decides who is down.
func (t *tracker) judge(members []ids.NodeID, now time.Time) (fell []ids.NodeID) {
	for _, id := range members {
		l := t.life(id)
		if l.down || !t.silent(l, now) || !l.seen && now.Before(t.grace) {
			continue
		}
		refused := l.refusals >= t.cfg.Refusals && now.Sub(l.refusedAt) >= t.cfg.RefusedFor ||
			l.refusals > 0 && now.Sub(l.sign) >= t.cfg.SuspectAfter
		hung := l.failures >= 2 && now.Sub(l.sign) >= t.cfg.DownAfter
		sick := l.failures >= 2 && now.Sub(l.reported) >= t.cfg.NoReportAfter
		if refused || hung || sick {
			l.down, l.downSince = true, now
			fell = append(fell, id)
		}
	}
	return fell
}

// up tells that the member isn't down.
func (t *tracker) up(id ids.NodeID) bool { return !t.life(id).down }

// downFor is how long the member has been down; 0: it isn't.
func (t *tracker) downFor(id ids.NodeID, now time.Time) time.Duration {
	l := t.life(id)
	if !l.down {
		return 0
	}
	return max(now.Sub(l.downSince), 1)
}

// declareDead tells that the member's state should become dead: gossip is asked too, as it looks from other nodes.
func (t *tracker) declareDead(id ids.NodeID, now time.Time) bool {
	d := t.downFor(id, now)
	return d >= t.cfg.DeadAfter && t.life(id).gossipDead || d >= t.cfg.DeadAnyway
}

// state is the member's state as users see it.
func (t *tracker) state(m *internalv1.Member, now time.Time) internalv1.MemberState {
	if m.State != alive && m.State != joining {
		return m.State
	}
	l := t.life(ids.NodeID(m.Id))
	switch {
	case l.down:
		return dead
	case l.seen && t.silent(l, now):
		return suspect
	}
	return m.State
}
