package dataflow

import (
	"testing"

	"github.com/millrace/millrace/plan"
)

// Every function of the plan's table has an implementation, and every implementation is in the table.
func TestFunctionsAreImplemented(t *testing.T) {
	have := map[string]bool{}
	for _, table := range implementations {
		for sig := range table {
			if have[sig] {
				t.Errorf("%s is implemented twice", sig)
			}
			have[sig] = true
		}
	}
	want := map[string]bool{}
	for _, f := range plan.Functions() {
		want[f.Signature()] = true
		if !have[f.Signature()] {
			t.Errorf("%s has no implementation", f.Signature())
		}
	}
	for sig := range have {
		if !want[sig] {
			t.Errorf("%s is implemented, but not in the table of functions", sig)
		}
	}
}
