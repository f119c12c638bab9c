package main

import "math/rand/v2"

// draw is a source of choices. Everything that is generated follows from its choices alone, so that a case is made
// smaller by making the list of its choices smaller: any list gives a valid case, and 0 is always the simplest choice.
type draw struct {
	rng   *rand.Rand // nil: all choices past the end of in are 0
	in    []uint32   // choices to repeat first
	out   []uint32   // choices made
	spans []span     // parts of out that belong together, inner ones first
}

// span is choices from..to of a draw.
type span struct{ from, to int }

func newDraw(seed, stream uint64) *draw { return &draw{rng: rand.New(rand.NewPCG(seed, stream))} }

// n returns a number from 0 to n-1.
func (d *draw) n(n int) int {
	if n <= 1 {
		return 0
	}
	var v int
	switch at := len(d.out); {
	case at < len(d.in):
		v = int(d.in[at] % uint32(n))
	case d.rng != nil:
		v = d.rng.IntN(n)
	}
	d.out = append(d.out, uint32(v))
	return v
}

// chance is true in percent of a hundred cases.
func (d *draw) chance(percent int) bool { return d.n(100) >= 100-percent }

// skewed returns a number from 0 to n-1, lower ones more often.
func (d *draw) skewed(n int) int { return min(d.n(n), d.n(n)) }

// within marks the choices that fn makes as belonging together.
func (d *draw) within(fn func()) {
	from := len(d.out)
	fn()
	d.spans = append(d.spans, span{from, len(d.out)})
}

// list calls element at least low and at most high times; each time is a span that can be left out.
func (d *draw) list(low, high, percent int, element func(i int)) {
	for i := 0; i < high; i++ {
		more := true
		d.within(func() {
			if more = d.chance(percent) || i < low; more {
				element(i)
			}
		})
		if !more {
			return
		}
	}
}

// pick returns one of the elements.
func pick[T any](d *draw, from []T) T { return from[d.n(len(from))] }

// weighted returns an index, the i-th in weights[i] of all cases.
func (d *draw) weighted(weights ...int) int {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	v := d.n(sum)
	for i, w := range weights {
		if v < w {
			return i
		}
		v -= w
	}
	return 0
}
