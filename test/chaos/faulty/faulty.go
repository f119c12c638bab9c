// Package faulty builds a millrace whose disk can be made slow or failing and whose wall clock can be stepped while it
// runs. The production code has no switch for that: the build lays a few changed lines over it (go build -overlay).
package faulty

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Names of the switches: files in the folder that the environment variable MILLRACE_CHAOS_CONTROL names.
const (
	Disk  = "disk"  // "delay MS": each fsync takes so long; "fail write", "fail sync": these fail; "lie": fsyncs do nothing
	Clock = "clock" // microseconds that are added to the wall clock
	// "PERCENT SEED": the power fails now. What was synced is written to the folder, and so many percent of the blocks that
	// weren't, by chance, and the process ends. Only for one that was started with Memory.
	Power = "power"
)

// Memory is the environment variable that names the data folder of a process whose files are in memory: they are read from
// there at the start, and written when the power fails. A process that ends in another way leaves the folder as it was.
const Memory = "MILLRACE_CHAOS_MEMORY"

// Interval is the environment variable with the time between two rounds of retention, as Go writes it; 10s otherwise.
const Interval = "MILLRACE_CHAOS_INTERVAL"

// Set turns a switch; the process sees it within some 20 ms.
func Set(control, name, value string) error {
	tmp := filepath.Join(control, name+".new")
	if err := os.WriteFile(tmp, []byte(value), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(control, name))
}

// Clear turns a switch off.
func Clear(control, name string) error {
	if err := os.Remove(filepath.Join(control, name)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// change replaces text in a source file, everywhere in it, and imports the switches.
type change struct{ file, from, to string }

var changes = []change{
	{"storage/options.go", "FS:             vfs.Default", "FS:             switches.Disk(vfs.Default)"},
	{"coordinator/attach.go", "time.Now().UnixMicro()", "switches.Micros(time.Now())"},
	{"coordinator/leader.go", "time.Now().UnixMicro()", "switches.Micros(time.Now())"},
	{"coordinator/leader.go", "now.UnixMicro()", "switches.Micros(now)"},
	{"node/await.go", "time.Now().UnixMicro()", "switches.Micros(time.Now())"},
	{"partition/host.go", "h.cfg.Now().UnixMicro()", "switches.Micros(h.cfg.Now())"},
	{"partition/config.go", "RetentionInterval: 10 * time.Second", "RetentionInterval: switches.Interval(10 * time.Second)"},
	{"partition/retention.go", "h.cfg.Now().UnixMicro()", "switches.Micros(h.cfg.Now())"},
}

const (
	module   = "github.com/millrace/millrace"
	switches = "internal/switches" // where the package is laid
	source   = "test/chaos/faulty/switches/switches.go.txt"
)

// Build builds the program of the source tree at root with the switches.
func Build(root, out string) error {
	dir, err := os.MkdirTemp("", "millrace-faulty-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if root, err = filepath.Abs(root); err != nil {
		return err
	}
	overlay := map[string]string{filepath.Join(root, switches, "switches.go"): filepath.Join(root, source)}
	texts := map[string]string{}
	for _, c := range changes {
		text, ok := texts[c.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, c.file))
			if err != nil {
				return err
			}
			text = strings.Replace(string(b), "import (\n", fmt.Sprintf("import (\n\t%q\n", module+"/"+switches), 1)
		}
		if !strings.Contains(text, c.from) {
			return fmt.Errorf("%s has no %q any more: the list of changes in test/chaos/faulty must follow it", c.file, c.from)
		}
		texts[c.file] = strings.ReplaceAll(text, c.from, c.to)
	}
	for file, text := range texts {
		patched := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(patched, []byte(text), 0o644); err != nil {
			return err
		}
		overlay[filepath.Join(root, file)] = patched
	}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, list, 0o644); err != nil {
		return err
	}
	return build(root, "-overlay", file, "-o", out, "./cmd/millrace")
}

// BuildPlain builds the program as it is.
func BuildPlain(root, out string) error { return build(root, "-o", out, "./cmd/millrace") }

func build(root string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-trimpath"}, args...)...)
	cmd.Dir = root
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &errs, &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, &errs)
	}
	return nil
}
