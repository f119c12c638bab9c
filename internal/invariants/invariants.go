// Package invariants has the checks of what must hold whatever happens: that commit offsets, epochs and ticks don't fall,
// logs have no gaps, and stored deltas no rows of weight zero. They are compiled in with -tags invariants, as make test
// does, and with -race; else they cost nothing, as Enabled is a constant. After Pebble's package of that name.
//
// A check that fails panics: what follows from a broken invariant can only be worse.
//
//	if invariants.Enabled && to < r.commit {
//		invariants.Failed("partition %d: the commit offset falls from %d to %d", r.id, r.commit, to)
//	}
package invariants

import "fmt"

// Failed panics.
func Failed(format string, args ...any) {
	panic("invariant: " + fmt.Sprintf(format, args...))
}
