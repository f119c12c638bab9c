package partition

import (
	"sort"

	"github.com/millrace/millrace/internal/ids"
)

// history is the terms of a log: which primary appended what. Two logs that have the same term at an LSN are the same up
// to there (the log matching of Raft, section 5.3, with Kafka's KIP-101 way of finding the place).
type history struct {
	base     LSN // what is at or below isn't known; baseTerm is the term at base
	baseTerm term
	starts   []termStart // rising in both
}

// at returns the term of the entry at lsn, which is at or above base.
func (h *history) at(lsn LSN) term {
	i := sort.Search(len(h.starts), func(i int) bool { return h.starts[i].first > lsn })
	if i == 0 {
		return h.baseTerm
	}
	return h.starts[i-1].term
}

// floor returns the highest LSN up to end whose term isn't above t; below base when none is known.
func (h *history) floor(t term, end LSN) LSN {
	i := sort.Search(len(h.starts), func(i int) bool { return t.less(h.starts[i].term) })
	if i < len(h.starts) {
		end = min(end, h.starts[i].first-1)
	}
	if end <= h.base && h.base > 0 && t.less(h.baseTerm) {
		return min(end, h.base-1)
	}
	return end
}

// append notes the term of the entry at lsn, the last one, and reports whether it is the first of its term.
func (h *history) append(t term, lsn LSN) bool {
	if n := len(h.starts); n > 0 && h.starts[n-1].term == t {
		return false
	}
	h.starts = append(h.starts, termStart{t, lsn})
	return true
}

// truncate forgets the terms that begin behind end and returns their epochs.
func (h *history) truncate(end LSN) (epochs []ids.Epoch) {
	for n := len(h.starts); n > 0 && h.starts[n-1].first > end; n-- {
		if e := h.starts[n-1].term.epoch; len(epochs) == 0 || epochs[len(epochs)-1] != e {
			epochs = append(epochs, e)
		}
		h.starts = h.starts[:n-1]
	}
	return epochs
}

// of returns the terms of an epoch.
func (h *history) of(epoch ids.Epoch) []termStart {
	lo := sort.Search(len(h.starts), func(i int) bool { return h.starts[i].term.epoch >= epoch })
	hi := sort.Search(len(h.starts), func(i int) bool { return h.starts[i].term.epoch > epoch })
	return h.starts[lo:hi]
}

// trim forgets the terms that end before first-1, and returns the lowest epoch that is still needed.
func (h *history) trim(first LSN) ids.Epoch {
	n := 0
	for n+1 < len(h.starts) && h.starts[n+1].first < first {
		n++
	}
	h.starts = append(h.starts[:0], h.starts[n:]...)
	if len(h.starts) == 0 {
		return 0
	}
	return h.starts[0].term.epoch
}
