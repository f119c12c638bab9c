package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/millrace/millrace/test/chaos/faulty"
	"github.com/millrace/millrace/test/chaos/load"
)

var seed = flag.Uint64("chaos.seed", 0, "seed of TestChaos; 0: a new one")

func TestMain(m *testing.M) {
	if code, done := enter(); done {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// testWriter prints what a run says with the test's output.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// TestChaos is a short run of the suite: all kinds of faults, three nodes.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes most of a minute")
	}
	bin := filepath.Join(t.TempDir(), "millrace")
	if err := faulty.Build("../..", bin); err != nil {
		t.Fatal(err)
	}
	s := settings{
		root: "../..", binary: bin, switches: true, duration: 25 * time.Second, nodes: 3, replicas: 3, seed: *seed, spaces: true,
		load: load.DefaultConfig(),
	}
	if s.seed == 0 {
		s.seed = uint64(time.Now().UnixNano()) % 1_000_000_000
	}
	t.Logf("run it again with make chaos SEED=%d DURATION=%v, or -run TestChaos -chaos.seed=%d", s.seed, s.duration, s.seed)
	r, err := run(context.Background(), s, testWriter{t})
	if err != nil {
		t.Fatal(err)
	}
	r.print(testWriter{t})
	if r.violations > 0 {
		t.Fatalf("%d violations", r.violations)
	}
	if r.acked == 0 || r.answers == 0 || r.polled == 0 {
		t.Fatal("nothing was checked")
	}
}
