package plan

import "testing"

func TestFunctionsAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Functions() {
		if seen[f.Signature()] {
			t.Errorf("%s is there twice", f.Signature())
		}
		seen[f.Signature()] = true
	}
}
