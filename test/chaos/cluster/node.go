package cluster

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/millrace/millrace/test/chaos/faulty"
)

// Node is one node: a name, an address and a folder that outlive its processes.
type Node struct {
	Name string

	c     *Cluster
	index int
	home  string // has the data, the log and the control files
	ports [3]int // gRPC, gossip, HTTP
	small bool   // its data is on a small disk of its own

	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  chan struct{} // of the process
	ready   chan struct{}
	paused  bool
	wanted  bool // it is to run: an end of the process is unexpected
	lost    bool // its data may be damaged: it may refuse to start
	starts  int
	retired bool
}

// StartPatience is how long a process may take to be ready, and to end.
const StartPatience = 2 * time.Minute

// Addr is the node's gRPC address.
func (n *Node) Addr() string { return net.JoinHostPort(n.c.net.host(n.index), fmt.Sprint(n.ports[0])) }

func (n *Node) gossip() string {
	return net.JoinHostPort(n.c.net.host(n.index), fmt.Sprint(n.ports[1]))
}

// Data is the node's data folder.
func (n *Node) Data() string { return filepath.Join(n.home, "disk", "data") }

// Control is where a binary with switches looks for them; see package faulty.
func (n *Node) Control() string { return filepath.Join(n.home, "control") }

// LogFile is where the processes' standard error goes.
func (n *Node) LogFile() string { return filepath.Join(n.home, n.Name+".log") }

// Up tells whether a process runs, paused or not.
func (n *Node) Up() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd != nil
}

// Serving tells whether a process runs and isn't paused.
func (n *Node) Serving() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd != nil && !n.paused
}

// Launch starts a process without waiting for it to be ready.
func (n *Node) Launch() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		return fmt.Errorf("%s runs already", n.Name)
	}
	host := n.c.net.host(n.index)
	args := []string{"serve", "--data", n.Data(), "--name", n.Name}
	for i, f := range []string{"--listen", "--gossip", "--http"} {
		args = append(args, f, net.JoinHostPort(host, fmt.Sprint(n.ports[i])))
	}
	args = append(args, n.c.cfg.Args...)
	if n.small {
		args = append(args, "--disk-reserve", "384MiB") // of 1 GiB
	}
	for _, o := range n.c.others(n) {
		args = append(args, "--join", o.gossip())
	}
	cmd := n.c.net.command(n.index, n.c.cfg.Binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "MILLRACE_CHAOS_CONTROL="+n.Control())
	if n.c.cfg.Memory {
		cmd.Env = append(cmd.Env, faulty.Memory+"="+n.Data())
		if err := faulty.Clear(n.Control(), faulty.Power); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the process has it
	n.starts++
	fmt.Fprintf(log, "--- start %d of %s at %s\n", n.starts, n.Name, time.Now().UTC().Format(time.RFC3339Nano))
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	n.cmd, n.exited, n.ready, n.paused, n.wanted = cmd, make(chan struct{}), make(chan struct{}), false, true
	n.c.wg.Go(func() { n.watch(cmd, stdout, n.ready, n.exited) })
	return nil
}

// watch waits for the process's ready line and for its end.
func (n *Node) watch(cmd *exec.Cmd, stdout io.Reader, ready, exited chan struct{}) {
	in := bufio.NewScanner(stdout)
	told := false
	for in.Scan() {
		if strings.HasPrefix(in.Text(), "millrace ready ") && !told {
			told = true
			close(ready)
		}
	}
	_, _ = io.Copy(io.Discard, stdout)
	err := cmd.Wait()
	n.mu.Lock()
	unexpected := n.wanted && !n.lost
	n.cmd, n.wanted = nil, false
	n.mu.Unlock()
	close(exited)
	if unexpected {
		n.c.cfg.Died(n, fmt.Sprintf("the process ended by itself (%v); its log ends:\n%s", err, n.LogTail(3000)))
	}
}

// Await waits until the process is ready. It returns an error when it ended, or wasn't ready in time.
func (n *Node) Await() error {
	n.mu.Lock()
	ready, exited := n.ready, n.exited
	n.mu.Unlock()
	timer := time.NewTimer(StartPatience)
	defer timer.Stop()
	select {
	case <-ready:
		return nil
	case <-exited:
		return fmt.Errorf("%s ended before it was ready; its log ends:\n%s", n.Name, n.LogTail(1500))
	case <-timer.C:
		return fmt.Errorf("%s isn't ready after %v; its log ends:\n%s", n.Name, StartPatience, n.LogTail(1500))
	}
}

// Kill ends the process at once, as kill -9 or, with Config.Memory, a power failure.
func (n *Node) Kill() {
	n.mu.Lock()
	cmd, exited := n.cmd, n.exited
	n.wanted = false
	n.mu.Unlock()
	if cmd == nil {
		return
	}
	if n.c.cfg.Memory {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		how := fmt.Sprintf("%d %d", rand.IntN(101), rand.Uint64()>>1)
		if err := faulty.Set(n.Control(), faulty.Power, how); err == nil {
			select {
			case <-exited:
				return
			case <-time.After(StartPatience): // it must look for the switch every 20 ms
			}
		}
	}
	_ = cmd.Process.Signal(syscall.SIGKILL)
	<-exited
}

// Term asks the process to end, and waits for it. A process that doesn't is killed, and the error says so.
func (n *Node) Term() error {
	n.mu.Lock()
	cmd, exited, ready := n.cmd, n.exited, n.ready
	n.wanted = false
	n.mu.Unlock()
	if cmd == nil {
		return nil
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(StartPatience)
	defer timer.Stop()
	select {
	case <-exited:
	case <-timer.C:
		_ = cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
		<-exited
		return fmt.Errorf("%s didn't end within %v of SIGTERM", n.Name, StartPatience)
	}
	select {
	case <-ready:
	default:
		return nil // it may not have got as far as to take signals
	}
	if c := cmd.ProcessState.ExitCode(); c != 0 {
		return fmt.Errorf("%s ended with exit code %d on SIGTERM; its log ends:\n%s", n.Name, c, n.LogTail(1500))
	}
	return nil
}

// Pause stops the process as SIGSTOP does, Resume lets it go on.
func (n *Node) Pause()  { n.signal(syscall.SIGSTOP, true) }
func (n *Node) Resume() { n.signal(syscall.SIGCONT, false) }

func (n *Node) signal(s syscall.Signal, paused bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(s)
		n.paused = paused
	}
}

// MayBeDamaged says that the node's data was damaged: its process may end by itself, with a reason.
func (n *Node) MayBeDamaged(yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost = yes
}

// Wipe removes the data folder's content; the process must have ended.
func (n *Node) Wipe() error {
	if n.Up() {
		return fmt.Errorf("%s runs", n.Name)
	}
	return os.RemoveAll(n.Data())
}

// LogTail returns the end of the log.
func (n *Node) LogTail(bytes int) string {
	b, err := os.ReadFile(n.LogFile())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-bytes):])
}
