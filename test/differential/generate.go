package main

import "fmt"

// genome is the choices that a case follows from. A part that is nil is drawn anew, from the seed.
type genome struct {
	seed  uint64
	world []uint32
	views [][]uint32
	keep  []bool // views that are made
	fixed bool   // nothing is drawn anew
}

// grown is a case with the choices that made it.
type grown struct {
	c     *Case
	g     genome
	world []span
	views [][]span
}

func (g *genome) draw(stream uint64, in []uint32) *draw {
	if g.fixed {
		return &draw{in: in}
	}
	return newDraw(g.seed, stream)
}

// grow makes the case of a genome.
func grow(g genome) *grown {
	wd := g.draw(1, g.world)
	w := makeWorld(wd)
	out := &grown{g: genome{seed: g.seed, world: wd.out, keep: g.keep, fixed: true}, world: wd.spans}
	out.c = &Case{Seed: g.seed, Partitions: w.partitions, Nodes: w.nodes, Objects: w.objects(), Steps: w.steps}
	relations := append([]*relation(nil), w.relations...)
	for i, keep := range g.keep {
		var in []uint32
		if i < len(g.views) {
			in = g.views[i]
		}
		if !keep {
			relations = append(relations, nil)
			out.g.views, out.views = append(out.g.views, in), append(out.views, nil)
			continue
		}
		d := g.draw(uint64(100+i), in)
		v, r := (&gen{d: d, relations: relations, uses: map[string]bool{}}).view(fmt.Sprint("v", i), len(w.steps))
		relations = append(relations, r)
		out.c.Views = append(out.c.Views, v)
		out.g.views, out.views = append(out.g.views, d.out), append(out.views, d.spans)
	}
	return out
}

// fresh is the genome of a seed, with n views.
func fresh(seed uint64, n int) genome {
	keep := make([]bool, n)
	for i := range keep {
		keep[i] = true
	}
	return genome{seed: seed, keep: keep}
}
