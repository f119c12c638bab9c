package test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/test/ports"
)

const (
	startTimeout = 60 * time.Second // of a process, on a busy machine
	stepTimeout  = 60 * time.Second // of anything else that is waited for
)

var binary string // the built millrace

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "millrace-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "millrace")
	if out, err := exec.Command("go", "build", "-tags", "invariants", "-o", binary, "../cmd/millrace").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// reserve keeps a port until the test ends and returns its address, at which nobody listens and a process can.
func reserve(t *testing.T) string {
	t.Helper()
	port, release, err := ports.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return fmt.Sprint("127.0.0.1:", port)
}

// server is one millrace process.
type server struct {
	t     *testing.T
	name  string
	dir   string
	extra []string
	env   []string // besides the test's own
	// program is the binary, if it isn't the one that all tests use.
	program string
	cmd     *exec.Cmd
	exited  chan struct{}
	log     *lockedBuffer

	ready              chan string
	grpc, gossip, http string
	pg                 string
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// serve starts a node on ports of its own and waits until it is ready.
func serve(t *testing.T, name string, extra ...string) *server {
	t.Helper()
	s := &server{t: t, name: name, dir: filepath.Join(t.TempDir(), name), extra: extra}
	s.start()
	return s
}

// start starts the process, each time on the same ports, and waits until it is ready.
func (s *server) start() {
	s.t.Helper()
	s.startLater()
	s.awaitReady()
}

// startLater starts the process: several that need each other to be ready start together.
func (s *server) startLater() {
	s.t.Helper()
	for _, addr := range []*string{&s.grpc, &s.gossip, &s.http, &s.pg} {
		if *addr == "" {
			*addr = reserve(s.t)
		}
	}
	args := append([]string{"serve", "--data", s.dir, "--name", s.name,
		"--listen", s.grpc, "--gossip", s.gossip, "--http", s.http, "--pg", s.pg}, s.extra...)
	s.cmd = exec.Command(cmp.Or(s.program, binary), args...)
	s.cmd.Env = append(os.Environ(), s.env...)
	s.log = &lockedBuffer{}
	s.cmd.Stderr = s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, exited := s.cmd, make(chan struct{})
	s.exited = exited
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		<-exited
		if s.t.Failed() {
			tail := s.log.String()
			s.t.Logf("log of %s:\n%s", s.name, tail[max(0, len(tail)-4000):])
		}
	})
	ready := make(chan string, 1)
	s.ready = ready
	go func() {
		in := bufio.NewScanner(stdout)
		for in.Scan() {
			if strings.HasPrefix(in.Text(), "millrace ready ") {
				ready <- in.Text()
			}
		}
		io.Copy(io.Discard, stdout)
		cmd.Wait()
		close(exited)
	}()
}

func (s *server) awaitReady() {
	s.t.Helper()
	select {
	case line := <-s.ready:
		if want := fmt.Sprintf("millrace ready name=%s grpc=%s gossip=%s http=%s pg=%s", s.name, s.grpc, s.gossip, s.http, s.pg); line != want {
			s.t.Fatalf("%s says %q, not %q", s.name, line, want)
		}
	case <-s.exited:
		s.t.Fatalf("%s ended before it was ready:\n%s", s.name, s.log)
	case <-time.After(startTimeout):
		s.t.Fatalf("%s is not ready after %v:\n%s", s.name, startTimeout, s.log)
	}
}

// kill is kill -9.
func (s *server) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	<-s.exited
}

// stop is SIGTERM; the exit code must be 0.
func (s *server) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.exited:
	case <-time.After(startTimeout):
		s.t.Fatalf("%s did not stop on SIGTERM:\n%s", s.name, s.log)
	}
	if c := s.cmd.ProcessState.ExitCode(); c != 0 {
		s.t.Fatalf("%s stopped with exit code %d:\n%s", s.name, c, s.log)
	}
}

// cluster starts n nodes and waits until every partition has all its replicas.
func cluster(t *testing.T, n int, extra ...string) []*server {
	t.Helper()
	servers := []*server{serve(t, "n1", extra...)}
	for i := 2; i <= n; i++ {
		servers = append(servers, serve(t, fmt.Sprintf("n%d", i), append([]string{"--join", servers[0].gossip}, extra...)...))
	}
	waitInSync(t, servers[0], min(n, 3))
	return servers
}

// result is what a command-line client printed and how it ended.
type result struct {
	out, err string
	code     int
}

// cli runs a client command to its end.
func cli(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*stepTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdin = stdin
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("millrace %s: not done in time\n%s\n%s", strings.Join(args, " "), &out, &errs)
	}
	if _, exit := err.(*exec.ExitError); err != nil && !exit {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// sql runs statements, which see all that was acknowledged, and returns their rows.
func sql(t *testing.T, addr, statements string) []map[string]any {
	t.Helper()
	r := session(t, addr, statements)
	if r.code != 0 {
		t.Fatalf("%s\nexit %d: %s", statements, r.code, r.err)
	}
	return rows(t, r.out)
}

func rows(t *testing.T, lines string) []map[string]any {
	t.Helper()
	var out []map[string]any
	dec := json.NewDecoder(strings.NewReader(lines))
	dec.UseNumber()
	for dec.More() {
		var row map[string]any
		if err := dec.Decode(&row); err != nil {
			t.Fatalf("%v in %s", err, lines)
		}
		out = append(out, row)
	}
	return out
}

// one runs a statement that gives one row.
func one(t *testing.T, addr, statement string) map[string]any {
	t.Helper()
	all := sql(t, addr, statement)
	if len(all) != 1 {
		t.Fatalf("%s: %d rows, not 1", statement, len(all))
	}
	return all[0]
}

// eventually waits until check returns "" and fails with what it said last otherwise.
func eventually(t *testing.T, check func() string) {
	t.Helper()
	eventuallyWithin(t, stepTimeout, check)
}

// eventuallyWithin is eventually with a limit of its own.
func eventuallyWithin(t *testing.T, limit time.Duration, check func() string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		why := check()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", limit, why)
		}
		time.Sleep(50 * time.Millisecond) // between two looks at a condition with a deadline
	}
}

// metric reads a figure without labels, or the sum over its labels.
func metric(t *testing.T, s *server, name string) float64 {
	t.Helper()
	resp, err := http.Get("http://" + s.http + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	sum, found := 0.0, false
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		rest, ok := strings.CutPrefix(in.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			t.Fatalf("%v in %s", err, in.Text())
		}
		sum, found = sum+v, true
	}
	if err := in.Err(); err != nil || !found {
		t.Fatalf("no figure %s: %v", name, err)
	}
	return sum
}

type clusterStatus struct {
	Cluster, Leader string
	Nodes           []struct {
		Name, State         string
		Voter               bool
		Replicas, Primaries int
	}
	Partitions []struct {
		ID       int
		Epoch    int
		Primary  string
		Replicas []string
		InSync   []string `json:"in_sync"`
	}
	Moves []json.RawMessage
}

func status(t *testing.T, addr string) clusterStatus {
	t.Helper()
	r := cli(t, nil, "cluster", "status", "--addr", addr, "--json")
	var st clusterStatus
	if r.code == 0 {
		if err := json.Unmarshal([]byte(r.out), &st); err != nil {
			t.Fatalf("%v in %s", err, r.out)
		}
	}
	return st
}

// waitInSync waits until every partition has n replicas, all in sync, and nothing moves.
func waitInSync(t *testing.T, s *server, n int) {
	t.Helper()
	eventually(t, func() string {
		st := status(t, s.grpc)
		if len(st.Partitions) == 0 {
			return "no answer"
		}
		for _, p := range st.Partitions {
			if len(p.InSync) != n || len(p.Replicas) != n || p.Primary == "" {
				return fmt.Sprintf("partition %d: replicas %v, in sync %v, primary %q; want %d", p.ID, p.Replicas, p.InSync, p.Primary, n)
			}
		}
		if len(st.Moves) > 0 {
			return fmt.Sprintf("%d moves", len(st.Moves))
		}
		return ""
	})
}
