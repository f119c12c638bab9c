package nemesis

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/test/chaos/cluster"
	"github.com/millrace/millrace/test/chaos/faulty"
)

// wipe loses a node's folder: it comes back under its name as a new member.
func wipe(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	if why := n.heal(ctx); why != "" {
		return fmt.Errorf("before it: %s", why)
	}
	node.Kill()
	return n.replace(ctx, node)
}

// replace starts a node that has lost its data as a new member, and waits until it has copied everything.
func (n *Nemesis) replace(ctx context.Context, node *cluster.Node) error {
	if err := node.Wipe(); err != nil {
		return err
	}
	// Its name is free once the cluster holds the old member for dead; until then the newcomer is refused, and tries again.
	node.MayBeDamaged(true)
	defer node.MayBeDamaged(false)
	end := time.Now().Add(healPatience)
	for {
		err := restart(node)
		if err == nil {
			break
		}
		node.Kill()
		if !strings.Contains(err.Error(), "belongs to another member") || time.Now().After(end) {
			return err
		}
		sleep(context.WithoutCancel(ctx), 500*time.Millisecond)
		if err := node.Wipe(); err != nil {
			return err
		}
	}
	node.MayBeDamaged(false)
	if why := n.heal(ctx); why != "" {
		return fmt.Errorf("after it came back empty: %s", why)
	}
	return nil
}

// flip flips bits in files of a stopped node. It may go on for a while (nothing was hit that matters, or it heals itself),
// or end and say why. In the end its operator gives it an empty folder, since what nobody has read yet may be damaged too.
func flip(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	if why := n.heal(ctx); why != "" {
		return fmt.Errorf("before it: %s", why)
	}
	node.Kill()
	what, err := flipBits(node.Data(), 1+rng.IntN(6), rng)
	if err != nil {
		return err
	}
	n.logf("flipped bits on %s: %s", node.Name, strings.Join(what, ", "))
	node.MayBeDamaged(true)
	defer node.MayBeDamaged(false)
	if err := node.Launch(); err != nil {
		return err
	}
	if err := node.Await(); err == nil {
		why := n.healOrEnd(ctx, node)
		if why != "" && node.Up() {
			return fmt.Errorf("it runs, and doesn't heal: %s; its log ends:\n%s", why, node.LogTail(2500))
		}
		sleep(ctx, between(rng, 0, 5000))
		if node.Up() {
			node.Kill()
			return n.replace(ctx, node)
		}
	}
	node.Kill()
	tail := node.LogTail(4000)
	if strings.Contains(tail, "\npanic:") || strings.Contains(tail, "\ngoroutine ") {
		return fmt.Errorf("it ended with a stack trace instead of a reason:\n%s", tail)
	}
	lines := strings.Split(strings.TrimSpace(tail), "\n")
	n.logf("%s refuses: %s", node.Name, lines[len(lines)-1])
	return n.replace(ctx, node)
}

// healOrEnd is heal that ends when the node's process does.
func (n *Nemesis) healOrEnd(ctx context.Context, node *cluster.Node) (why string) {
	for end := time.Now().Add(healPatience); time.Now().Before(end); sleep(context.WithoutCancel(ctx), 200*time.Millisecond) {
		if why = n.c.Healthy(context.WithoutCancel(ctx), n.cfg.Replicas); why == "" || !node.Up() {
			break
		}
	}
	return why
}

// flipBits flips single bits at random places of random files, larger files more often.
func flipBits(dir string, count int, rng *rand.Rand) (what []string, err error) {
	type file struct {
		name string
		size int64
	}
	var files []file
	total := int64(0)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > 0 {
			files = append(files, file{path, info.Size()})
			total += info.Size()
		}
		return err
	})
	if err != nil || total == 0 {
		return nil, errors.Join(err, fmt.Errorf("%d files", len(files)))
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	for range count {
		f := files[rng.IntN(len(files))]
		if rng.IntN(2) == 0 {
			at := rng.Int64N(total)
			for _, x := range files {
				if f = x; at < x.size {
					break
				}
				at -= x.size
			}
		}
		at := rng.Int64N(f.size)
		if err := flipBit(f.name, at, byte(1)<<rng.IntN(8)); err != nil {
			return what, err
		}
		rel, _ := filepath.Rel(dir, f.name)
		what = append(what, fmt.Sprintf("%s at %d of %d", rel, at, f.size))
	}
	return what, nil
}

func flipBit(name string, at int64, mask byte) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= mask
	_, err = f.WriteAt(b[:], at)
	return err
}

// fullDisk fills a node's disk, wholly or up to a little, and makes room again. The node may end, saying so: then it is
// started again with room.
func fullDisk(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	leave := []int64{0, 1 << 16, 4 << 20, 64 << 20}[rng.IntN(4)]
	n.logf("%s has %d bytes left", node.Name, leave)
	node.MayBeDamaged(true)
	defer node.MayBeDamaged(false)
	if err := node.Fill(leave); err != nil {
		return err
	}
	sleep(ctx, between(rng, 1000, 10000))
	if err := node.Empty(); err != nil {
		return err
	}
	return n.freshDisk(ctx, node, rng)
}

// freshDisk restarts a node whose disk has failed and is well again: a store that couldn't write writes nothing more.
func (n *Nemesis) freshDisk(ctx context.Context, node *cluster.Node, rng *rand.Rand) error {
	sleep(ctx, between(rng, 100, 3000))
	node.Kill()
	return n.launch(node)
}

// slowDisk makes each fsync of a node take long.
func slowDisk(ctx context.Context, _ *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	defer faulty.Clear(node.Control(), faulty.Disk)
	if err := faulty.Set(node.Control(), faulty.Disk, fmt.Sprintf("delay %d", 20+rng.IntN(800))); err != nil {
		return err
	}
	sleep(ctx, between(rng, 1000, 10000))
	return nil
}

// failingDisk makes the writes or fsyncs of a node fail; then the node is started again on a disk that works.
func failingDisk(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	what := []string{"fail sync", "fail write"}[rng.IntN(2)]
	n.logf("%s: %s", node.Name, what)
	node.MayBeDamaged(true)
	defer node.MayBeDamaged(false)
	if err := faulty.Set(node.Control(), faulty.Disk, what); err != nil {
		return err
	}
	sleep(ctx, between(rng, 500, 8000))
	if rng.IntN(2) == 0 {
		node.Kill() // before the disk works again
		if err := faulty.Clear(node.Control(), faulty.Disk); err != nil {
			return err
		}
		return n.launch(node)
	}
	if err := faulty.Clear(node.Control(), faulty.Disk); err != nil {
		return err
	}
	return n.freshDisk(ctx, node, rng)
}

// clock steps a node's wall clock, back or forth, and leaves it so.
func clock(ctx context.Context, n *Nemesis, node *cluster.Node, rng *rand.Rand) error {
	step := time.Duration(rng.Int64N(int64(2*time.Minute))) - time.Minute
	switch rng.IntN(4) {
	case 0:
		step *= 60
	case 1:
		step = 0
	}
	n.logf("the clock of %s is off by %v", node.Name, step)
	if err := faulty.Set(node.Control(), faulty.Clock, fmt.Sprint(step.Microseconds())); err != nil {
		return err
	}
	sleep(ctx, between(rng, 500, 5000))
	return nil
}

func (n *Nemesis) drain(ctx context.Context, node *cluster.Node) error {
	ctx = context.WithoutCancel(ctx)
	end := time.Now().Add(healPatience)
	asked := false
	for {
		d, err := n.c.Describe(ctx)
		if err == nil {
			for _, m := range d.Nodes {
				if m.Name == node.Name && m.State == "drained" {
					return nil
				}
			}
			if !asked {
				asked = n.admin(ctx, node, func(ctx context.Context, c millracev1.ClusterClient) error {
					_, err := c.Drain(ctx, &millracev1.DrainRequest{Node: node.Name})
					return err
				}) == nil
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s isn't drained after %v (%v): %v", node.Name, healPatience, err, d)
		}
		sleep(ctx, 200*time.Millisecond)
	}
}

func (n *Nemesis) remove(ctx context.Context, node *cluster.Node) (err error) {
	ctx = context.WithoutCancel(ctx)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); sleep(ctx, 200*time.Millisecond) {
		if d, derr := n.c.Describe(ctx); derr == nil {
			gone := true
			for _, m := range d.Nodes {
				gone = gone && (m.Name != node.Name || m.State == "removed")
			}
			if gone {
				return nil
			}
		}
		err = n.admin(ctx, node, func(ctx context.Context, c millracev1.ClusterClient) error {
			_, err := c.Remove(ctx, &millracev1.RemoveRequest{Node: node.Name})
			return err
		})
	}
	return fmt.Errorf("%s can't be removed: %w", node.Name, err)
}

// admin calls a node other than the given one.
func (n *Nemesis) admin(ctx context.Context, not *cluster.Node, fn func(context.Context, millracev1.ClusterClient) error) (err error) {
	err = errors.New("no other node")
	for _, o := range n.c.Nodes() {
		if o == not || !o.Serving() {
			continue
		}
		if err = o.Call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
			return fn(ctx, millracev1.NewClusterClient(conn))
		}); err == nil {
			return nil
		}
	}
	return err
}
