package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// demoNode is one node's process. It ends when its standard input does, so that it doesn't outlive the demo whatever
// happens to that, and removes its data folder itself.
type demoNode struct {
	name         string
	grpc, gossip string
	cmd          *exec.Cmd
	stdin        io.Closer
	exited       chan struct{}
}

// addNode starts one more node and waits until it is ready.
func (d *demo) addNode(ctx context.Context) (*demoNode, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	n := &demoNode{name: fmt.Sprintf("n%d", len(d.nodes)+1), exited: make(chan struct{})}
	dir := filepath.Join(d.dir, n.name)
	args := []string{"serve", "--ephemeral", "--name", n.name, "--data", dir,
		"--listen", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--http", "127.0.0.1:0", "--partitions", fmt.Sprint(demoPartitions)}
	if len(d.nodes) > 0 {
		args = append(args, "--join", d.nodes[0].gossip)
	}
	n.cmd = exec.Command(self, args...)
	ownGroup(n.cmd) // Ctrl-C is for the demo, which ends its nodes in order
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log.txt"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	n.cmd.Stderr = log
	if n.stdin, err = n.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	d.nodes = append(d.nodes, n)
	ready := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(stdout).ReadString('\n')
		ready <- line
		n.cmd.Wait()
		close(n.exited)
	}()
	select {
	case line := <-ready:
		for _, f := range strings.Fields(line) {
			switch k, v, _ := strings.Cut(f, "="); k {
			case "grpc":
				n.grpc = v
			case "gossip":
				n.gossip = v
			}
		}
	case <-time.After(demoPatience):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if n.grpc == "" {
		text, _ := os.ReadFile(log.Name())
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		return nil, fmt.Errorf("node %s did not start: %s", n.name, lines[len(lines)-1])
	}
	return n, nil
}

func (n *demoNode) terminate() { n.stdin.Close() }

func (n *demoNode) wait() {
	select {
	case <-n.exited:
	case <-time.After(20 * time.Second):
		n.cmd.Process.Kill()
		<-n.exited
	}
}
