//go:build invariants || race

package invariants

// Enabled tells whether checks are compiled in.
const Enabled = true
