package node

import (
	"sync"

	"github.com/millrace/millrace/internal/ids"
)

// maxTickMarks bounds the changes of the leader's state that a tickClock remembers.
const maxTickMarks = 1024

// tickClock remembers between which ticks the leader's state changed. Every tick comes with the Raft index of that state,
// and no partition closes it before its primary has applied that; so what was changed at index i is in effect for all ticks
// that come with an index of i or above, and for none before.
type tickClock struct {
	mu    sync.Mutex
	last  ids.Tick
	index uint64 // that came with it
	marks []tickMark
}

// tickMark is a tick that came with another index than the one before it.
type tickMark struct {
	before ids.Tick // the one before; 0: not known
	first  ids.Tick
	index  uint64
}

// note takes a tick; they come in order.
func (c *tickClock) note(t ids.Tick, index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.marks) == 0 || index != c.index {
		c.marks = append(c.marks, tickMark{before: c.last, first: t, index: index})
		if len(c.marks) > maxTickMarks {
			c.marks = append(c.marks[:0], c.marks[1:]...)
			c.marks[0].before = 0
		}
	}
	c.last, c.index = t, index
}

// change returns the last tick that this node has heard of for which what was changed at index isn't in effect (0: not
// known), and the first one for which it is; not ok: no such tick has come.
func (c *tickClock) change(index uint64) (before, first ids.Tick, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.marks) == 0 || c.index < index {
		return c.last, 0, false
	}
	for _, m := range c.marks {
		if m.index >= index {
			return m.before, m.first, true
		}
	}
	return c.last, 0, false
}
