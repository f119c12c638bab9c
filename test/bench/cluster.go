package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace/millrace/client"
)

const startTimeout = 60 * time.Second

// nodes is a cluster of processes.
type nodes struct {
	procs  []*proc
	client *client.Client
}

type proc struct {
	cmd                *exec.Cmd
	grpc, gossip, http string
	ready              time.Duration // from start to the ready line
	log                string        // file of its standard error
}

// cluster starts n nodes, waits until every partition has min(n, 3) replicas in sync, and connects.
func (b *bench) cluster(n, partitions int) (*nodes, error) {
	dir, err := os.MkdirTemp(b.dir, "cluster-")
	if err != nil {
		return nil, err
	}
	c := &nodes{}
	for i := range n {
		args := []string{"serve", "--data", filepath.Join(dir, strconv.Itoa(i)), "--name", fmt.Sprintf("n%d", i+1),
			"--listen", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--http", "127.0.0.1:0", "--partitions", strconv.Itoa(partitions), "--pprof"}
		if i > 0 {
			args = append(args, "--join", c.procs[0].gossip)
		}
		p, err := b.spawn(append(args, b.extra...))
		if err != nil {
			c.stop()
			return nil, err
		}
		c.procs = append(c.procs, p)
	}
	ctx, cancel := context.WithTimeout(b.ctx, startTimeout)
	defer cancel()
	if c.client, err = client.Dial(ctx, []string{c.procs[0].grpc}); err != nil {
		c.stop()
		return nil, err
	}
	if err := c.inSync(ctx, min(n, 3)); err != nil {
		for _, p := range c.procs {
			said, _ := os.ReadFile(p.log)
			fmt.Fprintf(os.Stderr, "%s:\n%s", p.log, said[max(0, len(said)-4000):])
		}
		c.stop()
		return nil, err
	}
	return c, nil
}

func (b *bench) spawn(args []string) (*proc, error) {
	p := &proc{cmd: exec.CommandContext(b.ctx, b.binary, args...)}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.CreateTemp(b.dir, "log-")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stderr, p.log = log, log.Name()
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		p.cmd.Wait()
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%s %s ended before it was ready: %s", b.binary, strings.Join(args, " "), said)
	}
	p.ready = time.Since(begin)
	for _, f := range strings.Fields(line) {
		switch k, v, _ := strings.Cut(f, "="); k {
		case "grpc":
			p.grpc = v
		case "gossip":
			p.gossip = v
		case "http":
			p.http = v
		}
	}
	return p, nil
}

func (c *nodes) inSync(ctx context.Context, replicas int) error {
	for {
		d, err := c.client.Cluster().Describe(ctx)
		if err != nil {
			return err
		}
		missing := len(d.Moves)
		for _, p := range d.Partitions {
			if len(p.InSync) < replicas {
				missing++
			}
		}
		if missing == 0 {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d partitions don't have %d replicas in sync", missing, replicas)
		}
	}
}

func (c *nodes) stop() {
	if c.client != nil {
		c.client.Close()
	}
	for _, p := range c.procs {
		p.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range c.procs {
		kill := time.AfterFunc(20*time.Second, func() { p.cmd.Process.Kill() })
		p.cmd.Wait()
		kill.Stop()
	}
}

// cpu is the user and system time of all nodes so far, in seconds.
func (c *nodes) cpu() float64 {
	total := 0.0
	for _, p := range c.procs {
		total += processCPU(p.cmd.Process.Pid)
	}
	return total
}

// clockTicks is Linux's USER_HZ, which is 100 on every architecture that Go supports.
const clockTicks = 100

func processCPU(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / clockTicks
}

// ownCPU is this process's user and system time so far: the client's side.
func ownCPU() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// peakRSS is the greatest resident memory that a node has had, in bytes.
func (c *nodes) peakRSS() float64 { return c.memory("VmHWM:") * 1e6 }

// forgetPeak lets peakRSS begin anew.
func (c *nodes) forgetPeak() {
	for _, p := range c.procs {
		os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0) // else it is that of all before
	}
}

// rss is the greatest resident memory of a node now, in MB (10^6 bytes).
func (c *nodes) rss() float64 { return c.memory("VmRSS:") }

// memory is the greatest value of a line of the nodes' /proc/PID/status, in MB (10^6 bytes).
func (c *nodes) memory(name string) float64 {
	most := 0.0
	for _, p := range c.procs {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, name); ok {
				kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				most = max(most, kb*1024/1e6)
			}
		}
	}
	return most
}
