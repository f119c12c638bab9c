package partition

import (
	"cmp"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/invariants"
)

// maxClosing bounds the ticks that wait for a commit; beyond, two become one, which only makes a tick coarser.
const maxClosing = 64

// tick says that tick t was issued when the leader had applied Raft index `index`, which this node has applied too. The
// open tick closes once everything stamped with it is committed; appends get t from now on.
func (r *replica) tick(now time.Duration, t ids.Tick, index uint64) {
	ps := &r.primary
	// A tick that was issued before this epoch began may have been closed by the primary before.
	if r.role != RolePrimary || index < r.cfg.EpochIndex || t <= ps.open || t <= r.lastTick && ps.open == 0 {
		return
	}
	if ps.open != 0 {
		if n := len(ps.closing); n > 0 && (ps.closing[n-1].end == r.end || n >= maxClosing) {
			ps.closing[n-1] = pendingClose{ps.open, r.end}
		} else {
			ps.closing = append(ps.closing, pendingClose{ps.open, r.end})
		}
	}
	ps.open = t
	if len(ps.held) > 0 {
		r.release(now)
	}
	r.closeTicks()
	for _, p := range ps.peers {
		if p.mode == modeStreaming && p.commitSent < r.commit {
			r.fx.wake = append(r.fx.wake, p)
		}
	}
}

// closeTicks closes what can be closed, and tells the highest.
func (r *replica) closeTicks() {
	ps := &r.primary
	if !ps.established {
		return
	}
	n := 0
	for n < len(ps.closing) && ps.closing[n].end <= r.commit {
		n++
	}
	if n == 0 {
		return
	}
	if t := ps.closing[n-1].tick; invariants.Enabled && ps.hasClosed && t <= ps.closed {
		invariants.Failed("partition %d: tick %d closes after %d", r.id, t, ps.closed)
	}
	ps.closed, ps.hasClosed = ps.closing[n-1].tick, true
	end := ps.closing[n-1].end
	if n == len(ps.closing) {
		ps.closing = ps.closing[:0]
	} else {
		ps.closing = append(ps.closing[:0], ps.closing[n:]...)
	}
	r.fx.closings = append(r.fx.closings, Closing{Partition: r.id, Epoch: r.epoch(), Tick: ps.closed, End: end, Data: ps.takeData(ps.closed)})
}

// noteData remembers that a stream got records in a tick. Ticks don't fall.
func (ps *primaryState) noteData(s ids.StreamID, t ids.Tick) {
	for i := len(ps.data) - 1; i >= 0 && ps.data[i].Tick == t; i-- {
		if ps.data[i].Stream == s {
			return
		}
	}
	ps.data = append(ps.data, StreamTick{s, t})
}

// takeData returns what was noted up to tick t, once per stream.
func (ps *primaryState) takeData(t ids.Tick) []StreamTick {
	n := 0
	for n < len(ps.data) && ps.data[n].Tick <= t {
		n++
	}
	if n == 0 {
		return nil
	}
	out := make([]StreamTick, 0, n)
	for _, d := range ps.data[:n] {
		if i := slices.IndexFunc(out, func(o StreamTick) bool { return o.Stream == d.Stream }); i >= 0 {
			out[i].Tick = d.Tick
		} else {
			out = append(out, d)
		}
	}
	ps.data = append(ps.data[:0], ps.data[n:]...)
	return out
}

// seedData notes all that is committed already: to whoever listens to this node it is new.
func (r *replica) seedData() {
	ps := &r.primary
	for s, st := range r.streams {
		if st.lastTick != 0 {
			ps.data = append(ps.data, StreamTick{s, st.lastTick})
		}
	}
	slices.SortFunc(ps.data, func(a, b StreamTick) int {
		return cmp.Or(cmp.Compare(a.Tick, b.Tick), cmp.Compare(a.Stream, b.Stream))
	})
}
