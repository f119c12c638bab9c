// Package cluster runs the nodes of a chaos run as processes, and does to them what a machine room does: it kills, stops
// and cuts them off, fills their disks and takes these away. It checks nothing.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/test/ports"
)

// Config says what to run.
type Config struct {
	Binary string
	Dir    string   // of all nodes' homes
	Args   []string // of serve, for every node
	Spaces bool     // use network namespaces where root allows
	Memory bool     // files are in memory, and a kill is a power failure: what wasn't synced is lost
	// Died is called when a process ends that nobody ended.
	Died func(n *Node, evidence string)
}

// Cluster is the nodes of a run.
type Cluster struct {
	cfg Config
	net *network
	wg  sync.WaitGroup // the watchers of processes

	mu     sync.Mutex
	nodes  []*Node
	made   int
	mounts []string

	reserved []func() // give up ports
}

// New returns a cluster without nodes.
func New(cfg Config) (*Cluster, error) {
	n, err := newNetwork(cfg.Spaces)
	if err != nil {
		return nil, err
	}
	return &Cluster{cfg: cfg, net: n}, nil
}

// CanCut tells whether Cut works here.
func (c *Cluster) CanCut() bool { return c.net.spaces }

// Nodes returns the nodes that belong to the cluster, running or not.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// others are the nodes that n may join through.
func (c *Cluster) others(n *Node) (out []*Node) {
	for _, o := range c.Nodes() {
		if o != n {
			out = append(out, o)
		}
	}
	return out
}

// smallDisk is the size of the disk of a node that has one, bytes.
const smallDisk = 1 << 30

// Add makes a new node, not started. small: on a disk of its own that can be filled, where root allows.
func (c *Cluster) Add(small bool) (*Node, error) {
	c.mu.Lock()
	c.made++
	n := &Node{Name: fmt.Sprintf("n%d", c.made), c: c, index: c.made}
	c.mu.Unlock()
	n.home = filepath.Join(c.cfg.Dir, n.Name)
	disk := filepath.Join(n.home, "disk")
	for _, d := range []string{disk, n.Control()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if small && !c.cfg.Memory && syscall.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%d", smallDisk)) == nil {
		n.small = true
		c.mu.Lock()
		c.mounts = append(c.mounts, disk)
		c.mu.Unlock()
	}
	if err := c.net.add(n.index); err != nil {
		return nil, err
	}
	n.ports = [3]int{7070, 7071, 7080}
	if !c.net.spaces {
		if err := c.reservePorts(n); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	c.nodes = append(c.nodes, n)
	c.mu.Unlock()
	return n, nil
}

// reservePorts gives a node ports that are its own until the cluster is closed, also while it is down.
func (c *Cluster) reservePorts(n *Node) error {
	for i := range n.ports {
		port, release, err := ports.Reserve()
		if err != nil {
			return err
		}
		n.ports[i] = port
		c.mu.Lock()
		c.reserved = append(c.reserved, release)
		c.mu.Unlock()
	}
	return nil
}

// Forget takes a node out of the list; its process must have ended for good.
func (c *Cluster) Forget(n *Node) {
	n.mu.Lock()
	n.retired = true
	n.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = slices.DeleteFunc(c.nodes, func(o *Node) bool { return o == n })
}

// KillAll kills all processes at once.
func (c *Cluster) KillAll() {
	var wg sync.WaitGroup
	for _, n := range c.Nodes() {
		wg.Go(n.Kill)
	}
	wg.Wait()
}

// Cut loses what one node sends to another; Join ends that.
func (c *Cluster) Cut(from, to *Node) error  { return c.net.cut(from.index, to.index) }
func (c *Cluster) Join(from, to *Node) error { return c.net.join(from.index, to.index) }

// JoinAll ends all cuts.
func (c *Cluster) JoinAll() (err error) {
	c.net.mu.Lock()
	cuts := make([][2]int, 0, len(c.net.cuts))
	for k := range c.net.cuts {
		cuts = append(cuts, k)
	}
	c.net.mu.Unlock()
	for _, k := range cuts {
		err = errors.Join(err, c.net.join(k[0], k[1]))
	}
	return err
}

// Small returns the nodes whose disk can be filled.
func (c *Cluster) Small() (out []*Node) {
	for _, n := range c.Nodes() {
		if n.Small() {
			out = append(out, n)
		}
	}
	return out
}

// Small tells whether the node's disk can be filled.
func (n *Node) Small() bool { return n.small }

// Fill leaves the disk of a node with a small one with so many bytes; Empty gives the room back.
func (n *Node) Fill(leave int64) error {
	var st syscall.Statfs_t
	dir := filepath.Join(n.home, "disk")
	if err := syscall.Statfs(dir, &st); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		return err
	}
	defer f.Close()
	zeros := make([]byte, 1<<20)
	for left := int64(st.Bavail)*st.Bsize - leave; left > 0; left -= int64(len(zeros)) {
		if _, err := f.Write(zeros[:min(left, int64(len(zeros)))]); err != nil {
			break // full: as wanted
		}
	}
	return nil
}

func (n *Node) Empty() error { return os.Remove(filepath.Join(n.home, "disk", "ballast")) }

// Describe asks the serving nodes, one after the other, how the cluster is.
func (c *Cluster) Describe(ctx context.Context) (*millracev1.DescribeResponse, error) {
	err := errors.New("no node runs")
	for _, n := range c.Nodes() {
		if !n.Serving() {
			continue
		}
		var resp *millracev1.DescribeResponse
		err = n.Call(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
			resp, err = millracev1.NewClusterClient(conn).Describe(ctx, &millracev1.DescribeRequest{})
			return err
		})
		if err == nil {
			if len(resp.Partitions) > 0 {
				return resp, nil
			}
			err = fmt.Errorf("%s knows of no partitions yet", n.Name)
		}
	}
	return nil, err
}

// Call makes one call over a connection of its own, with 10 s time.
func (n *Node) Call(ctx context.Context, fn func(context.Context, *grpc.ClientConn) error) error {
	conn, err := grpc.NewClient("passthrough:///"+n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return fn(ctx, conn)
}

// Healthy returns "" when every partition has all its replicas in sync, nothing moves, and the members are exactly the
// cluster's nodes, all alive; else what isn't so.
func (c *Cluster) Healthy(ctx context.Context, replicas int) string {
	d, err := c.Describe(ctx)
	if err != nil {
		return err.Error()
	}
	nodes := c.Nodes()
	alive := 0
	for _, m := range d.Nodes {
		switch m.State {
		case "alive":
			alive++
		case "removed":
		default:
			return fmt.Sprintf("node %s is %s", m.Name, m.State)
		}
	}
	if alive != len(nodes) {
		return fmt.Sprintf("%d nodes are alive of %d", alive, len(nodes))
	}
	want := min(replicas, len(nodes))
	for _, p := range d.Partitions {
		if p.Primary == "" || len(p.InSync) != want || len(p.Replicas) != want {
			return fmt.Sprintf("partition %d: primary %q, replicas %v, in sync %v", p.Id, p.Primary, p.Replicas, p.InSync)
		}
	}
	if len(d.Moves) > 0 {
		return fmt.Sprintf("%d moves are under way: %v", len(d.Moves), d.Moves[0])
	}
	return ""
}

// AwaitHealthy waits until Healthy, and returns what isn't so in the end.
func (c *Cluster) AwaitHealthy(ctx context.Context, replicas int, patience time.Duration) string {
	end := time.Now().Add(patience)
	for {
		why := c.Healthy(ctx, replicas)
		if why == "" || time.Now().After(end) || ctx.Err() != nil {
			return why
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// Close kills all processes and removes networks and disks; the homes stay.
func (c *Cluster) Close() {
	for _, n := range c.Nodes() {
		n.Resume()
	}
	c.KillAll()
	c.wg.Wait()
	c.net.close()
	for _, release := range c.reserved {
		release()
	}
	for _, m := range c.mounts {
		_ = syscall.Unmount(m, syscall.MNT_DETACH)
	}
}
