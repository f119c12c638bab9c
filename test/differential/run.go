package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
)

// Difference is where the two sides don't agree.
type Difference struct {
	View   string
	What   string // how Millrace came to its answer
	Step   int
	Detail string
}

func (d *Difference) String() string {
	return fmt.Sprintf("%s after step %d, %s:\n%s", d.View, d.Step, d.What, d.Detail)
}

// outcome is what a run of a case has shown.
type outcome struct {
	differences []Difference
	queries     int // compared at one tick at least
	answers     int // compared
	refusedHere map[string]string
	refusedPG   map[string]string
}

// runner is a run of a case.
type runner struct {
	c       *Case
	m       *memory
	o       *oracle
	out     *outcome
	gone    map[string]bool               // views that aren't compared any more
	answers map[string]map[int][][]string // PostgreSQL's, canonical, by view and step
}

// run runs a case in memory against PostgreSQL; with record, the answers go into the case. An error is of the run itself.
func run(ctx context.Context, conn *pgconn.PgConn, c *Case, cover *coverage, record bool) (*outcome, error) {
	r := &runner{c: c, out: &outcome{refusedHere: map[string]string{}, refusedPG: map[string]string{}},
		gone: map[string]bool{}, answers: map[string]map[int][][]string{}}
	r.o = &oracle{conn: conn, ctx: ctx}
	var err error
	if r.m, err = openMemory(c, cover); err != nil {
		return nil, err
	}
	if err = r.o.begin(c); err == nil {
		err = r.steps()
	}
	if err == nil {
		r.subscribed()
	}
	if err == nil && record {
		c.expect(r)
	}
	return r.out, errors.Join(err, r.o.end(), r.m.close())
}

func (r *runner) steps() error {
	l := newLedger(r.c)
	rng := rand.New(rand.NewPCG(r.c.Seed, 5))
	for i := range r.c.Steps {
		if err := r.createViews(i); err != nil {
			return err
		}
		records, err := l.place(i)
		if err != nil {
			return err
		}
		tick := tickAfter(i)
		r.m.apply(records, tick)
		if len(records) > 0 {
			if err := r.o.apply(records, l); err != nil {
				return err
			}
		}
		if r.c.Steps[i].Crash && i+1 < len(r.c.Steps) {
			if err := r.m.crash(r.m.nodes[rng.IntN(len(r.m.nodes))], rng); err != nil {
				return err
			}
			continue // the next tick finds it up again
		}
		if r.c.Steps[i].Check {
			if err := r.check(i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *runner) createViews(step int) error {
	for i := range r.c.Views {
		v := &r.c.Views[i]
		if v.After != step {
			continue
		}
		for _, u := range v.uses {
			if r.gone[u] && u != v.Name {
				r.gone[v.Name] = true
			}
		}
		if r.gone[v.Name] {
			continue
		}
		if err := r.m.createView(v, tickAfter(step-1)); err != nil {
			r.gone[v.Name] = true
			if fault.KindOf(err) == fault.Internal {
				r.differ(v, "planned", step, err.Error())
			}
			r.out.refusedHere[v.Name] = err.Error()
			continue
		}
		if err := r.o.createView(v); err != nil {
			pg, ok := refusal(err)
			if !ok {
				return err
			}
			r.refuse(v, pg)
		}
	}
	return nil
}

func (r *runner) refuse(v *View, pg *pgconn.PgError) {
	r.gone[v.Name] = true
	r.out.refusedPG[v.Name] = pg.Code + " " + pg.Message
}

func (r *runner) differ(v *View, what string, step int, detail string) {
	r.gone[v.Name] = true
	r.out.differences = append(r.out.differences, Difference{View: v.Name, What: what, Step: step, Detail: detail})
}

// check compares all views after a step.
func (r *runner) check(step int) error {
	for i := range r.c.Views {
		v := &r.c.Views[i]
		l := r.m.views[v.Name]
		if l == nil || r.gone[v.Name] || l.created > tickAfter(step) {
			continue
		}
		want, err := r.o.read(v)
		if err != nil {
			pg, ok := refusal(err)
			if !ok {
				return err
			}
			r.refuse(v, pg)
			continue
		}
		if want, err = l.shape.canonical(want); err != nil {
			r.differ(v, "read", step, err.Error())
			continue
		}
		if r.answers[v.Name] == nil {
			r.answers[v.Name] = map[int][][]string{}
			r.out.queries++
		}
		r.answers[v.Name][step] = want
		got, err := r.m.read(v, tickAfter(step))
		r.compare(v, "read at its tick", step, got, err)
	}
	return nil
}

// compare compares an answer with PostgreSQL's after a step.
func (r *runner) compare(v *View, what string, step int, got [][]string, err error) {
	shape := r.m.views[v.Name].shape
	if err == nil {
		got, err = shape.canonical(got)
	}
	if err != nil {
		r.differ(v, what, step, "failed: "+err.Error())
		return
	}
	r.out.answers++
	if want := r.answers[v.Name][step]; !shape.equal(got, want) {
		r.differ(v, what, step, shape.difference(got, want))
	}
}

// subscribed compares the sums of changes at all checked ticks, and old ticks read at the end.
func (r *runner) subscribed() {
	last := len(r.c.Steps) - 1
	for i := range r.c.Views {
		v := &r.c.Views[i]
		if r.m.views[v.Name] == nil || r.gone[v.Name] {
			continue
		}
		var steps []int
		var ticks []ids.Tick
		for s := range r.c.Steps {
			if _, ok := r.answers[v.Name][s]; ok {
				steps, ticks = append(steps, s), append(ticks, tickAfter(s))
			}
		}
		if len(steps) == 0 || steps[len(steps)-1] != last {
			continue
		}
		sums, err := r.m.sums(v, ticks)
		if err != nil {
			r.differ(v, "subscribed", last, "failed: "+err.Error())
			continue
		}
		for k, s := range steps {
			if r.compare(v, "the sum of the subscribed changes", s, sums[k], nil); r.gone[v.Name] {
				break
			}
		}
		if !r.gone[v.Name] && len(steps) > 1 {
			got, err := r.m.read(v, ticks[0])
			r.compare(v, "read at an old tick", steps[0], got, err)
		}
	}
}
