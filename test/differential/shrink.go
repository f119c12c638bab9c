package main

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// shrinker makes a case that fails smaller, by making the choices that it follows from fewer and lower.
type shrinker struct {
	best  *grown
	fails func(*Case) bool
	until time.Time
	tries int
}

// shrink returns the smallest case that it finds for which fails is true, within a time. Only the view and what it reads are kept.
func shrink(g *grown, view string, fails func(*Case) bool, within time.Duration) *grown {
	s := &shrinker{best: g, fails: fails, until: time.Now().Add(within)}
	s.isolate(view)
	s.plainest()
	s.bulk()
	for before := ""; ; {
		now := s.size()
		if now == before || time.Now().After(s.until) {
			return s.best
		}
		before = now
		s.spans()
		s.chunks()
		s.lower()
	}
}

// size is something that changes when the case does.
func (s *shrinker) size() string {
	var b strings.Builder
	for _, l := range append([][]uint32{s.best.g.world}, s.best.g.views...) {
		for _, v := range l {
			b.WriteString(strconv.Itoa(int(v)))
		}
		b.WriteByte(';')
	}
	return b.String()
}

// isolate keeps only the view and what it reads.
func (s *shrinker) isolate(view string) {
	need := map[string]bool{view: true}
	for _, v := range slices.Backward(s.best.c.Views) {
		if need[v.Name] {
			for _, u := range v.uses {
				need[u] = true
			}
		}
	}
	g := s.best.g
	g.keep = slices.Clone(g.keep)
	for i := range g.keep {
		g.keep[i] = g.keep[i] && need["v"+strconv.Itoa(i)]
	}
	s.try(g)
}

// plainest takes one partition and one node, if that is enough.
func (s *shrinker) plainest() {
	for at := range 2 {
		if list := slices.Clone(s.best.g.world); len(list) > at {
			list[at] = 0
			s.try(s.with(-1, list))
		}
	}
}

// bulk leaves out many records at once: halves, quarters and so on of all that the world has (the way of delta debugging).
func (s *shrinker) bulk() {
	for n := 2; ; n *= 2 {
		leaves := s.leaves()
		size := (len(leaves) + n - 1) / n
		for at := 0; at < len(leaves); at += size {
			list := s.best.g.world
			for _, sp := range slices.Backward(leaves[at:min(at+size, len(leaves))]) {
				list = without(list, sp.from, sp.to)
			}
			if s.try(s.with(-1, list)) {
				leaves = s.leaves()
				at -= size
			}
		}
		if size <= 1 || time.Now().After(s.until) {
			return
		}
	}
}

// leaves is the world's spans that hold no others, in order.
func (s *shrinker) leaves() []span {
	var out []span
	for _, sp := range s.best.world { // inner ones come first
		if len(out) == 0 || sp.from >= out[len(out)-1].to {
			out = append(out, sp)
		}
	}
	return out
}

// try takes a genome's case if it fails too.
func (s *shrinker) try(g genome) bool {
	if time.Now().After(s.until) {
		return false
	}
	s.tries++
	g.fixed = true
	next := grow(g)
	if !smaller(&next.g, &s.best.g) || !s.fails(next.c) {
		return false
	}
	s.best = next
	return true
}

// smaller tells whether a follows from fewer choices than b, or from as many that are lower.
func smaller(a, b *genome) bool {
	lists := func(g *genome) [][]uint32 {
		out := [][]uint32{g.world}
		for i, l := range g.views {
			if g.keep[i] {
				out = append(out, l)
			}
		}
		return out
	}
	x, y := lists(a), lists(b)
	size := func(ls [][]uint32) (n int) {
		for _, l := range ls {
			n += len(l)
		}
		return n
	}
	if d := size(x) - size(y); d != 0 {
		return d < 0
	}
	for i := range min(len(x), len(y)) {
		if d := slices.Compare(x[i], y[i]); d != 0 {
			return d < 0
		}
	}
	return false
}

// parts calls fn for each list of choices: -1 is the world's.
func (s *shrinker) parts(fn func(part int)) {
	for i := range s.best.g.views {
		if s.best.g.keep[i] {
			fn(i)
		}
	}
	fn(-1)
}

func (s *shrinker) get(part int) ([]uint32, []span) {
	if part < 0 {
		return s.best.g.world, s.best.world
	}
	return s.best.g.views[part], s.best.views[part]
}

// with is the best genome with another list.
func (s *shrinker) with(part int, list []uint32) genome {
	g := s.best.g
	if part < 0 {
		g.world = list
		return g
	}
	g.views = slices.Clone(g.views)
	g.views[part] = list
	return g
}

func without(list []uint32, from, to int) []uint32 {
	return append(slices.Clone(list[:from]), list[to:]...)
}

// spans leaves out what belongs together: a row, a column of the result, a condition.
func (s *shrinker) spans() {
	s.parts(func(part int) {
		for at := 0; ; at++ {
			list, spans := s.get(part)
			slices.SortFunc(spans, func(a, b span) int { return (b.to - b.from) - (a.to - a.from) })
			if at >= len(spans) {
				return
			}
			if sp := spans[at]; sp.to <= len(list) && sp.to > sp.from && s.try(s.with(part, without(list, sp.from, sp.to))) {
				at--
			}
		}
	})
}

// chunks leaves out choices, wherever they are.
func (s *shrinker) chunks() {
	s.parts(func(part int) {
		for size := 16; size > 0; size /= 4 {
			for at := 0; ; at += size {
				list, _ := s.get(part)
				if at+size > len(list) {
					break
				}
				if s.try(s.with(part, without(list, at, at+size))) {
					at -= size
				}
			}
		}
	})
}

// lower makes choices simpler.
func (s *shrinker) lower() {
	s.parts(func(part int) {
		for at := 0; ; at++ {
			list, _ := s.get(part)
			if at >= len(list) {
				return
			}
			for _, v := range []uint32{0, list[at] / 2, list[at] - 1} {
				if v < list[at] {
					next := slices.Clone(list)
					next[at] = v
					if s.try(s.with(part, next)) {
						break
					}
				}
			}
		}
	})
}
