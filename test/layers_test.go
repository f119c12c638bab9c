package test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/millrace/millrace/"

// layers is the import table: a package imports only packages of lower layers, or its own children.
var layers = []struct {
	layer  int
	prefix string
}{
	{0, "proto/"}, {0, "internal/"},
	{1, "record"}, {1, "ring"}, {1, "storage"},
	{2, "plan"}, {2, "datagen"},
	{3, "sql"}, {3, "dataflow"},
	{4, "partition"}, {4, "coordinator"},
	{5, "node"}, {5, "client"},
	{6, "cmd/"},
	{7, "test"},
}

// apart are packages that never import each other, although their layers would allow it.
var apart = [][2]string{
	{"partition", "coordinator"}, {"sql", "dataflow"}, {"client", "node"}, {"client", "partition"},
	{"client", "coordinator"}, {"client", "storage"},
}

func layerOf(path string) (int, bool) {
	for _, l := range layers {
		if path == l.prefix || strings.HasPrefix(path, strings.TrimSuffix(l.prefix, "/")+"/") {
			return l.layer, true
		}
	}
	return 0, false
}

func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func TestLayers(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(out))
	packages := 0
	for dec.More() {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages++
		from := strings.TrimPrefix(p.ImportPath, module)
		layer, ok := layerOf(from)
		if !ok {
			t.Errorf("%s stands in no layer: add it to the table, and to ARCHITECTURE.md", from)
		}
		for _, i := range p.Imports {
			to, ours := strings.CutPrefix(i, module)
			if !ours {
				continue
			}
			below, _ := layerOf(to)
			sameRoot := strings.SplitN(from, "/", 2)[0] == strings.SplitN(to, "/", 2)[0]
			if below > layer || below == layer && layer > 0 && !sameRoot {
				t.Errorf("%s (layer %d) imports %s (layer %d)", from, layer, to, below)
			}
			for _, a := range apart {
				if within(from, a[0]) && within(to, a[1]) || within(from, a[1]) && within(to, a[0]) {
					t.Errorf("%s imports %s: the two meet only below", from, to)
				}
			}
		}
	}
	if packages < 10 {
		t.Fatalf("saw %d packages only", packages)
	}
}

func TestGeneratedCodeIsFresh(t *testing.T) {
	cmd := exec.Command("go", "run", "./internal/protogen", "-check")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
