package test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The main job: it checks its own views, says what moved to the fourth node, and leaves nothing behind.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 3*stepTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "demo")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"a fourth node, n4, joined", "n4 holds ", "checked: "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it never says %q:\n%s", want, out)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v %v", left, err)
	}
}
