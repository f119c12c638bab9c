package main

import (
	"fmt"
	"slices"

	"github.com/millrace/millrace/internal/ids"
	"math/rand/v2"
)

// fewRows is how many rows of an answer are kept in the corpus beside its digest.
const fewRows = 12

// expect takes what PostgreSQL said into the case, and leaves the views out that weren't compared to the end.
func (c *Case) expect(r *runner) {
	last := len(c.Steps) - 1
	c.Views = slices.DeleteFunc(c.Views, func(v View) bool {
		_, ok := r.answers[v.Name][last]
		return !ok || r.gone[v.Name]
	})
	for i := range c.Views {
		v := &c.Views[i]
		shape := r.m.views[v.Name].shape
		for s := range c.Steps {
			rows, ok := r.answers[v.Name][s]
			if !ok {
				continue
			}
			e := Expected{Step: s, Count: len(rows), Digest: shape.digest(rows)}
			if s == last && len(rows) <= fewRows {
				e.Rows = shape.texts(rows)
			}
			v.Expected = append(v.Expected, e)
		}
	}
}

// verify runs a case of the corpus in memory and compares it with what PostgreSQL said once.
func verify(c *Case) ([]Difference, int, error) {
	m, err := openMemory(c, newCoverage())
	if err != nil {
		return nil, 0, err
	}
	v := &verifier{m: m, c: c}
	if err = v.steps(); err == nil {
		v.subscribed()
	}
	if cerr := m.close(); err == nil {
		err = cerr
	}
	return v.differences, v.answers, err
}

type verifier struct {
	m           *memory
	c           *Case
	differences []Difference
	answers     int
}

func (v *verifier) steps() error {
	l := newLedger(v.c)
	rng := rand.New(rand.NewPCG(v.c.Seed, 5))
	for i := range v.c.Steps {
		for k := range v.c.Views {
			if view := &v.c.Views[k]; view.After == i {
				if err := v.m.createView(view, tickAfter(i-1)); err != nil {
					return fmt.Errorf("%s: %w", view.SQL, err)
				}
			}
		}
		records, err := l.place(i)
		if err != nil {
			return err
		}
		v.m.apply(records, tickAfter(i))
		if v.c.Steps[i].Crash && i+1 < len(v.c.Steps) {
			if err := v.m.crash(v.m.nodes[rng.IntN(len(v.m.nodes))], rng); err != nil {
				return err
			}
			continue
		}
		for k := range v.c.Views {
			view := &v.c.Views[k]
			for e := range view.Expected {
				if view.Expected[e].Step == i {
					got, err := v.m.read(view, tickAfter(i))
					v.compare(view, &view.Expected[e], "read at its tick", got, err)
				}
			}
		}
	}
	return nil
}

func (v *verifier) compare(view *View, e *Expected, what string, got [][]string, err error) {
	v.answers++
	shape := v.m.views[view.Name].shape
	if err == nil {
		got, err = shape.canonical(got)
	}
	d := Difference{View: view.Name, What: what, Step: e.Step}
	switch {
	case err != nil:
		d.Detail = "failed: " + err.Error()
	case shape.digest(got) == e.Digest:
		return
	case e.Rows != nil:
		d.Detail = fmt.Sprintf("got\n%q\nwant\n%q", shape.texts(got), e.Rows)
	default:
		d.Detail = fmt.Sprintf("got %d rows, want %d with another digest", len(got), e.Count)
	}
	d.Detail += "\n" + view.SQL
	v.differences = append(v.differences, d)
}

func (v *verifier) subscribed() {
	for k := range v.c.Views {
		view := &v.c.Views[k]
		var ticks []ids.Tick
		for _, e := range view.Expected {
			ticks = append(ticks, tickAfter(e.Step))
		}
		sums, err := v.m.sums(view, ticks)
		for e := range view.Expected {
			var got [][]string
			if err == nil {
				got = sums[e]
			}
			v.compare(view, &view.Expected[e], "the sum of the subscribed changes", got, err)
		}
	}
}
