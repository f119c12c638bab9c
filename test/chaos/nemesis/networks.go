package nemesis

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace/test/chaos/cluster"
)

// cut loses, between a node and the others given, what comes in, what goes out, or both.
func (n *Nemesis) cut(node *cluster.Node, others []*cluster.Node, in, out bool) (err error) {
	for _, o := range others {
		if o == node {
			continue
		}
		if out {
			err = errors.Join(err, n.c.Cut(node, o))
		}
		if in {
			err = errors.Join(err, n.c.Cut(o, node))
		}
	}
	return err
}

// mend ends the cuts around a node.
func (n *Nemesis) mend(node *cluster.Node) (err error) {
	for _, o := range n.c.Nodes() {
		if o != node {
			err = errors.Join(err, n.c.Join(node, o), n.c.Join(o, node))
		}
	}
	return err
}

// cutFull separates a node from all others; clients still reach it.
func cutFull(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	err := n.cut(node, n.c.Nodes(), true, true)
	sleep(ctx, between(rng, 200, 12000))
	return errors.Join(err, n.mend(node))
}

// cutOneWay loses what a node sends to the others, or what they send to it.
func cutOneWay(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	in := rng.IntN(2) == 0
	err := n.cut(node, n.c.Nodes(), in, !in)
	sleep(ctx, between(rng, 200, 12000))
	return errors.Join(err, n.mend(node))
}

// cutPair separates two nodes that both reach all others.
func cutPair(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	nodes := n.c.Nodes()
	o := nodes[rng.IntN(len(nodes))]
	err := n.cut(node, []*cluster.Node{o}, true, rng.IntN(3) > 0)
	sleep(ctx, between(rng, 200, 12000))
	return errors.Join(err, n.mend(node))
}

// flap cuts a node off and joins it again, many times.
func flap(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) (err error) {
	end := time.Now().Add(between(rng, 2000, 12000))
	for time.Now().Before(end) && ctx.Err() == nil {
		way := rng.IntN(3)
		err = errors.Join(err, n.cut(node, n.c.Nodes(), way != 0, way != 1))
		sleep(ctx, between(rng, 20, 1500))
		err = errors.Join(err, n.mend(node))
		sleep(ctx, between(rng, 20, 1500))
	}
	return err
}
