package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace/test/chaos/cluster"
)

// healPatience is how long a cluster may take to have all replicas in sync again; the machine may be very busy.
const healPatience = 4 * time.Minute

func restart(node *cluster.Node) error {
	if err := node.Launch(); err != nil {
		return err
	}
	return node.Await()
}

// kill is kill -9, and a restart after a while.
func kill(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	node.Kill()
	sleep(ctx, between(rng, 0, 8000))
	return n.launch(node)
}

// launch starts a node's process. It can only be ready when a majority of the nodes runs, so nobody waits for that while
// another fault goes on.
func (n *Nemesis) launch(node *cluster.Node) error { return node.Launch() }

// term is SIGTERM, and a restart.
func term(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	if err := node.Term(); err != nil {
		return err
	}
	sleep(ctx, between(rng, 0, 5000))
	return n.launch(node)
}

// pause is SIGSTOP, and SIGCONT after a while.
func pause(ctx context.Context, _ *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	node.Pause()
	sleep(ctx, between(rng, 100, 10000))
	node.Resume()
	return nil
}

// killAll kills all nodes at once and starts them in random order, with pauses.
func killAll(ctx context.Context, n *Nemesis, _ *cluster.Node, rng *rand.Rand) error {
	nodes := n.c.Nodes()
	n.c.KillAll()
	for _, i := range rng.Perm(len(nodes)) {
		sleep(ctx, between(rng, 0, 2000))
		if err := nodes[i].Launch(); err != nil {
			return err
		}
	}
	for _, node := range nodes {
		if err := node.Await(); err != nil {
			return err
		}
	}
	return nil
}

// rolling restarts all nodes one after the other.
func rolling(ctx context.Context, n *Nemesis, _ *cluster.Node, rng *rand.Rand) error {
	for _, node := range n.c.Nodes() {
		if ctx.Err() != nil {
			return nil
		}
		if !node.Up() {
			continue
		}
		if err := node.Term(); err != nil {
			return err
		}
		if err := restart(node); err != nil {
			return err
		}
		sleep(ctx, between(rng, 0, 1500))
	}
	return nil
}

// grow adds a node, and then drains one and takes it out.
func grow(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	if why := n.heal(ctx); why != "" {
		return fmt.Errorf("before it: %s", why)
	}
	added, err := n.c.Add(node.Small()) // it will take that one's place
	if err != nil {
		return err
	}
	n.logf("%s joins", added.Name)
	if err := restart(added); err != nil {
		return err
	}
	if why := n.heal(ctx); why != "" {
		return fmt.Errorf("after %s joined: %s", added.Name, why)
	}
	sleep(ctx, between(rng, 0, 3000))
	n.logf("%s is drained", node.Name)
	if err := n.drain(ctx, node); err != nil {
		return err
	}
	if err := node.Term(); err != nil {
		return err
	}
	if err := n.remove(ctx, node); err != nil {
		return err
	}
	n.c.Forget(node)
	n.logf("%s is removed", node.Name)
	if why := n.heal(ctx); why != "" {
		return fmt.Errorf("after %s was removed: %s", node.Name, why)
	}
	return nil
}

// heal waits until all replicas are in sync.
func (n *Nemesis) heal(ctx context.Context) string {
	return n.c.AwaitHealthy(context.WithoutCancel(ctx), n.cfg.Replicas, healPatience)
}
