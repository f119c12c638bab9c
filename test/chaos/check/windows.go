package check

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

// What the statements of windows say.
const (
	WindowSize = 10 * time.Second
	hopSize    = 15 * time.Second
	hopSlide   = 5 * time.Second
	sessionGap = 45 * time.Millisecond
)

// late tells whether a window that ends then was over for the records before x in its partition.
func (x arrived) late(end int64) bool { return x.marked && end <= x.mark-Delay.Microseconds() }

// tumble returns the start of the event's window, unless it is late for it.
func (x arrived) tumble() (start int64, ok bool) {
	size := WindowSize.Microseconds()
	start = x.at - x.at%size
	return start, !x.late(start + size)
}

func windows(_ *model, r *relation) follower {
	groups := map[int64]group{}
	return follower{event: func(x arrived) {
		start, ok := x.tumble()
		if !ok {
			return
		}
		g := groups[start].add(x.amount, x.seq)
		groups[start] = g
		r.set(fmt.Sprint(start), fmt.Sprintf("%s|%d|%d", FormatTime(start), g.n, g.s))
	}}
}

// windowed is an account in a window.
type windowed struct{ account, start int64 }

func hops(_ *model, r *relation) follower {
	size, slide := hopSize.Microseconds(), hopSlide.Microseconds()
	counts := map[windowed]int64{}
	return follower{event: func(x arrived) {
		for start := x.at - x.at%slide; start > x.at-size; start -= slide {
			if x.late(start + size) {
				continue
			}
			at := windowed{x.to, start}
			counts[at]++
			r.set(fmt.Sprint(at), fmt.Sprintf("%d|%s|%d", x.to, FormatTime(start), counts[at]))
		}
	}}
}

func pairs(_ *model, r *relation) follower {
	in, out := map[windowed]int64{}, map[windowed]int64{}
	set := func(at windowed) {
		if in[at] > 0 && out[at] > 0 {
			r.set(fmt.Sprint(at), fmt.Sprintf("%d|%d|%d|%s", at.account, in[at], out[at], FormatTime(at.start)))
		}
	}
	return follower{event: func(x arrived) {
		start, ok := x.tumble()
		if !ok {
			return
		}
		to, from := windowed{x.to, start}, windowed{x.from, start}
		in[to]++
		out[from]++
		set(to)
		set(from)
	}}
}

// session is a run of event times, each less than sessionGap after the one before.
type session struct{ first, last, n int64 }

func sessions(_ *model, r *relation) follower {
	gap := sessionGap.Microseconds()
	all := map[int64][]session{} // by producer, in order
	return follower{event: func(x arrived) {
		if x.late(x.at + gap) {
			return
		}
		l := all[x.producer]
		from := sort.Search(len(l), func(i int) bool { return l[i].last+gap > x.at })
		to := from
		s := session{x.at, x.at, 1}
		for ; to < len(l) && l[to].first-gap < x.at; to++ {
			s = session{min(s.first, l[to].first), max(s.last, l[to].last), s.n + l[to].n}
			r.set(fmt.Sprint(x.producer, l[to].first), "")
		}
		all[x.producer] = slices.Replace(l, from, to, s)
		r.set(fmt.Sprint(x.producer, s.first), fmt.Sprintf("%d|%d|%s|%s", x.producer, s.n, FormatTime(s.first), FormatTime(s.last+gap)))
	}}
}
