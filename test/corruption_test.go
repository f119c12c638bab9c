package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// damage is one way to spoil a stopped node's folder.
type damage struct {
	name  string
	do    func(t *testing.T, dir string, rnd *rand.Rand)
	heals bool // the node must come up on its folder, if need be at the second start; else it may refuse, if it says why and what to do
}

// eachFile spoils the files of a pattern, which must exist.
func eachFile(pattern string, spoil func(t *testing.T, path string, rnd *rand.Rand)) func(*testing.T, string, *rand.Rand) {
	return func(t *testing.T, dir string, rnd *rand.Rand) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(files)
		for _, f := range files {
			spoil(t, f, rnd)
		}
	}
}

// flip flips a bit in every 4 KiB or so of a file.
func flip(t *testing.T, path string, rnd *rand.Rand) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for range min(len(b), len(b)/4096+1) {
		b[rnd.IntN(len(b))] ^= byte(1 << rnd.IntN(8))
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string, _ *rand.Rand) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func halve(t *testing.T, path string, _ *rand.Rand) {
	t.Helper()
	st, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, st.Size()/2)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var damages = []damage{
	{"bits in the log's tables", eachFile("log/*.sst", flip), false},
	{"bits in the log's blobs", eachFile("log/*.blob", flip), false},
	{"bits in the write-ahead log", eachFile("log/*.log", flip), false},
	{"bits in the manifest", eachFile("log/MANIFEST*", flip), false},
	{"bits in the format file", eachFile("log/MILLRACE", flip), false},
	{"half of the write-ahead log", eachFile("log/*.log", halve), false},
	{"half of the log's blobs", eachFile("log/*.blob", halve), false},
	{"no tables", eachFile("log/*.sst", remove), false},
	{"no blobs", eachFile("log/*.blob", remove), false},
	{"no write-ahead log", eachFile("log/*.log", remove), false},
	{"no format file", eachFile("log/MILLRACE", remove), false},
	{"bits in the views' tables", eachFile("state/*.sst", flip), true},
	{"bits in the views' manifest", eachFile("state/MANIFEST*", flip), true},
	{"no tables of the views", eachFile("state/*.sst", remove), true},
	{"no views' state", eachFile("state", remove), true},
}

// TestDamagedFolder spoils a node's folder in many ways while the others go on. The node either heals, or refuses to
// start with one line that says why and what to do, and is then replaced under its name; nothing acknowledged is lost.
func TestDamagedFolder(t *testing.T) {
	servers := cluster(t, 3)
	w := startTraffic(t, addresses(servers...)...)
	victim := servers[1]
	victim.extra = []string{"--join", servers[0].gossip}
	const seed = 4
	rnd := rand.New(rand.NewPCG(seed, seed))
	for i, d := range damages {
		w.flows()
		if i%2 == 0 {
			victim.kill()
		} else {
			victim.stop()
		}
		d.do(t, victim.dir, rnd)
		victim.startLater()
		select {
		case <-victim.ready:
		case <-victim.exited:
		case <-time.After(startTimeout):
			t.Fatalf("%s: it neither comes up nor refuses:\n%s", d.name, victim.log)
		}
		healed := healthy(t, servers[0], victim)
		t.Logf("%s: healed %v", d.name, healed)
		if healed {
			continue
		}
		said := victim.log.String()
		if code := victim.cmd.ProcessState.ExitCode(); code != 1 || strings.Contains(said, "panic") {
			t.Fatalf("%s: exit code %d:\n%s", d.name, code, said)
		}
		if last := said[strings.LastIndex(strings.TrimSpace(said), "\n")+1:]; !strings.HasPrefix(last, "millrace: ") {
			t.Errorf("%s: it ends with %s", d.name, last)
		}
		if !d.heals {
			if err := os.RemoveAll(victim.dir); err != nil {
				t.Fatal(err)
			}
		}
		victim.start()
		waitInSync(t, servers[0], 3)
	}
	w.flows()
	w.stop(servers...)
}

// healthy waits until the node has all its replicas in sync, or has ended.
func healthy(t *testing.T, of, victim *server) bool {
	t.Helper()
	deadline := time.Now().Add(stepTimeout)
	for time.Now().Before(deadline) {
		select {
		case <-victim.exited:
			return false
		default:
		}
		st := status(t, of.grpc)
		whole := len(st.Partitions) > 0 && len(st.Moves) == 0
		for _, p := range st.Partitions {
			whole = whole && len(p.InSync) == 3
		}
		if whole {
			return true
		}
		time.Sleep(50 * time.Millisecond) // between two looks at a condition with a deadline
	}
	t.Fatalf("the replicas don't get whole, and the node goes on: %s\n%s", fmt.Sprint(status(t, of.grpc)), victim.log)
	return false
}

// TestForeignFolder: a folder of another cluster, of a newer version, or of something else is refused and left alone.
func TestForeignFolder(t *testing.T) {
	one := serve(t, "a1")
	other := serve(t, "b1")
	other.stop()
	refusesWith := func(s *server, words ...string) {
		t.Helper()
		s.startLater()
		select {
		case <-s.exited:
		case <-time.After(startTimeout):
			t.Fatalf("%s goes on:\n%s", s.name, s.log)
		}
		said := s.log.String()
		if code := s.cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("exit code %d:\n%s", code, said)
		}
		for _, w := range words {
			if !strings.Contains(said, w) {
				t.Errorf("no %q in %s", w, said)
			}
		}
	}
	other.extra = []string{"--join", one.gossip}
	refusesWith(other, "belongs to cluster", "empty data folder")
	other.extra = nil
	format := filepath.Join(other.dir, "log", "MILLRACE")
	was, err := os.ReadFile(format)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(format, []byte("millrace log 99\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	refusesWith(other, "newer Millrace", "start that version")
	if err := os.WriteFile(format, was, 0o644); err != nil {
		t.Fatal(err)
	}
	other.start() // nothing was touched
	stranger := &server{t: t, name: "c1", dir: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(stranger.dir, "log"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stranger.dir, "log", "thesis.txt"), []byte("years of work"), 0o644); err != nil {
		t.Fatal(err)
	}
	refusesWith(stranger, "isn't a Millrace log store", "thesis.txt")
}
