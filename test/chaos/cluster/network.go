package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// network gives each node a network namespace with an address of its own on a bridge, so that what one node sends to
// another can be lost, one way or both, without either noticing anything but silence. Without the rights for that all
// nodes are on the loopback device, and cuts are refused.
//
// A direction is cut by a wrong hardware address: the sender's kernel puts one in its neighbour table for the receiver,
// which nobody on the bridge has. That needs nothing of the kernel but bridges and veth.
type network struct {
	spaces bool
	prefix string // of namespaces, and of 10.x.y.
	bridge string
	subnet string

	mu    sync.Mutex
	added []int
	cuts  map[[2]int]bool // from, to
}

const nobody = "02:00:00:de:ad:00" // a hardware address that no device has

// newNetwork makes the bridge. spaces: try namespaces.
func newNetwork(spaces bool) (*network, error) {
	pid := os.Getpid()
	n := &network{
		prefix: fmt.Sprintf("mrchaos%d-", pid), bridge: fmt.Sprintf("mrb%d", pid),
		subnet: fmt.Sprintf("10.%d.%d.", 100+pid/256%100, pid%256), cuts: map[[2]int]bool{},
	}
	if !spaces || os.Geteuid() != 0 {
		return n, nil
	}
	sweep()
	if err := ip("link", "add", n.bridge, "type", "bridge"); err != nil {
		return n, nil // not allowed here
	}
	n.spaces = true
	if err := firstError(
		func() error { return ip("addr", "add", n.subnet+"1/24", "dev", n.bridge) },
		func() error { return ip("link", "set", n.bridge, "up") },
	); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// sweep removes what runs left that were killed.
func sweep() {
	out, _ := exec.Command("ip", "netns", "list").Output()
	for _, line := range strings.Split(string(out), "\n") {
		name, _, _ := strings.Cut(line, " ")
		rest, ours := strings.CutPrefix(name, "mrchaos")
		pid, _, _ := strings.Cut(rest, "-")
		if _, err := strconv.Atoi(pid); !ours || err != nil {
			continue
		}
		if _, err := os.Stat("/proc/" + pid); os.IsNotExist(err) {
			_ = ip("netns", "del", name)
			_ = ip("link", "del", "mrb"+pid)
		}
	}
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func firstError(steps ...func() error) error {
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

func (n *network) space(i int) string { return n.prefix + strconv.Itoa(i) }

// host is the address of node i.
func (n *network) host(i int) string {
	if !n.spaces {
		return "127.0.0.1"
	}
	return n.subnet + strconv.Itoa(10+i)
}

// add makes the namespace of node i.
func (n *network) add(i int) error {
	if !n.spaces {
		return nil
	}
	n.mu.Lock()
	n.added = append(n.added, i)
	n.mu.Unlock()
	ns, veth := n.space(i), fmt.Sprintf("%sv%d", n.bridge, i)
	return firstError(
		func() error { return ip("netns", "add", ns) },
		func() error { return ip("link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", ns) },
		func() error { return ip("link", "set", veth, "master", n.bridge, "up") },
		func() error { return ip("-n", ns, "addr", "add", n.host(i)+"/24", "dev", "eth0") },
		func() error { return ip("-n", ns, "link", "set", "eth0", "up") },
		func() error { return ip("-n", ns, "link", "set", "lo", "up") },
	)
}

// command returns the command that runs args in node i's namespace; its process is that of args.
func (n *network) command(i int, name string, args ...string) *exec.Cmd {
	if !n.spaces {
		return exec.Command(name, args...)
	}
	return exec.Command("ip", append([]string{"netns", "exec", n.space(i), name}, args...)...)
}

// cut loses everything that node from sends to node to.
func (n *network) cut(from, to int) error {
	if !n.spaces {
		return fmt.Errorf("no network namespaces here")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cuts[[2]int{from, to}] {
		return nil
	}
	n.cuts[[2]int{from, to}] = true
	return ip("-n", n.space(from), "neigh", "replace", n.host(to), "lladdr", nobody, "dev", "eth0", "nud", "permanent")
}

// join ends a cut.
func (n *network) join(from, to int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.cuts[[2]int{from, to}] {
		return nil
	}
	delete(n.cuts, [2]int{from, to})
	return ip("-n", n.space(from), "neigh", "del", n.host(to), "dev", "eth0")
}

func (n *network) close() {
	if !n.spaces {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, i := range n.added {
		_ = ip("netns", "del", n.space(i)) // takes its veth along
	}
	_ = ip("link", "del", n.bridge)
	n.added = nil
}
