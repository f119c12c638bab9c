// Package mistakes puts mistakes into the code of a package on purpose, to see that its checks find them: a checker that
// never fired proves nothing. The code as it is built has none of them, and no switch: they are laid over a copy of it
// when a test builds it (go build -overlay). Only tests import it.
package mistakes

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Mistake is one mistake.
type Mistake struct {
	Name   string
	Edits  []Edit   // none: the test makes the mistake itself, see Planted
	Caught []string // checks that may catch it; none: something else covers for it
}

// Edit puts a mistake into a file of the package: From, which is there once, becomes To, in which mistake(name) tells
// whether the process has it.
type Edit struct{ File, From, To string }

// In is one edit.
func In(file, from, to string) []Edit { return []Edit{{file, from, to}} }

// variable is the environment variable that names the mistake that a process has.
const variable = "MILLRACE_FAULT"

const switches = `package %s

import "os"

var theMistake = os.Getenv("` + variable + `")

func mistake(name string) bool { return name == theMistake }
`

// Planted tells whether this process has a mistake that its test makes itself.
func Planted(name string) bool { return os.Getenv(variable) == name }

// Build builds the tests of the package in the current folder with all mistakes, each off, and returns the program.
func Build(t testing.TB, pkg string, all []Mistake) (bin string) {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"mistakes.go": fmt.Sprintf(switches, pkg)}
	for _, m := range all {
		for _, e := range m.Edits {
			if files[e.File] == "" {
				b, err := os.ReadFile(e.File)
				if err != nil {
					t.Fatal(err)
				}
				files[e.File] = string(b)
			}
			if n := strings.Count(files[e.File], e.From); n != 1 {
				t.Fatalf("%s: %s has %q %d times, not once: the mistake must follow the code", m.Name, e.File, e.From, n)
			}
			files[e.File] = strings.Replace(files[e.File], e.From, e.To, 1)
		}
	}
	replace := map[string]string{}
	for name, text := range files {
		patched := filepath.Join(dir, name)
		if err := os.WriteFile(patched, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		abs, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		replace[abs] = patched
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o644); err != nil {
		t.Fatal(err)
	}
	bin = filepath.Join(dir, "faulty.test")
	out, err := exec.Command("go", "test", "-c", "-trimpath", "-o", bin, "-overlay", overlay, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	return bin
}

// Run runs a program of Build with one mistake and the arguments until a check finds something. It returns the check's
// name, which name finds in what was printed, and the end of that; "" when nothing was found.
func Run(t testing.TB, bin, mistake string, name func(out []byte) string, args ...string) (check, out string) {
	t.Helper()
	cmd := exec.Command(bin, args...)
	cmd.Env = append(os.Environ(), variable+"="+mistake)
	b, err := cmd.CombinedOutput()
	out = string(b[max(0, len(b)-2000):])
	if err == nil {
		return "", out
	}
	if check = name(b); check == "" {
		t.Fatalf("it ended without a check's word:\n%s", out)
	}
	return check, out
}

// Judge fails the test unless the mistake was caught by a check that is meant for it.
func (m Mistake) Judge(t testing.TB, check, out string) {
	t.Helper()
	switch {
	case len(m.Caught) == 0 && check != "":
		t.Fatalf("another guard should cover for it, but %s found:\n%s", check, out)
	case len(m.Caught) == 0:
	case check == "":
		t.Fatalf("no check caught it:\n%s", out)
	case !slices.Contains(m.Caught, check):
		t.Fatalf("caught by %s, which isn't among %v:\n%s", check, m.Caught, out)
	default:
		t.Logf("caught by %s", check)
	}
}
