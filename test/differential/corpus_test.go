package main

import (
	"path/filepath"
	"testing"

	"github.com/millrace/millrace/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// TestCorpus replays cases whose answers PostgreSQL gave once: see README.md.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no corpus", err)
	}
	views, answers := 0, 0
	for _, path := range files {
		c, err := readCase(path)
		if err != nil {
			t.Fatal(path, err)
		}
		differences, n, err := verify(c)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for i := range differences {
			t.Errorf("%s: %v", path, &differences[i])
		}
		views += len(c.Views)
		answers += n
	}
	t.Logf("%d cases, %d views, %d answers", len(files), views, answers)
	if views < 300 {
		t.Errorf("the corpus has %d views only", views)
	}
}

// TestShrink holds that a case that is made smaller still has what makes it fail, and little else.
func TestShrink(t *testing.T) {
	g := grow(fresh(3, 4))
	fails := func(c *Case) bool {
		n := 0
		for _, s := range c.Steps {
			for _, r := range s.Records {
				if r.Object == "s0" {
					n++
				}
			}
		}
		return n >= 3
	}
	if !fails(g.c) {
		t.Fatal("the case doesn't fail to begin with")
	}
	small := shrink(g, "v0", fails, patience)
	records := 0
	for _, s := range small.c.Steps {
		records += len(s.Records)
	}
	if !fails(small.c) || records > 6 || len(small.c.Views) > 1 {
		t.Errorf("%d records and %d views are left", records, len(small.c.Views))
	}
}

// TestGrow holds that a case follows from its choices.
func TestGrow(t *testing.T) {
	for seed := range uint64(50) {
		a := grow(fresh(seed, 6))
		b := grow(a.g)
		for i := range a.c.Views {
			if a.c.Views[i].SQL != b.c.Views[i].SQL || a.c.Views[i].PG != b.c.Views[i].PG {
				t.Fatalf("seed %d: %s became %s", seed, a.c.Views[i].SQL, b.c.Views[i].SQL)
			}
		}
		if len(a.c.Steps) != len(b.c.Steps) {
			t.Fatalf("seed %d: other steps", seed)
		}
	}
}
