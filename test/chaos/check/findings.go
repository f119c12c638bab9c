// Package check judges what a run of the chaos suite saw: the log in the manner of Jepsen's kafka workload, views and
// answers against a recomputation over the log, catalog changes against a linearizable model.
//
// It does no I/O and knows no cluster: its tests feed it fabricated histories, right ones and wrong ones.
package check

import (
	"fmt"
	"io"
	"slices"
	"sync"
)

// Findings collects violations. It may be used by several goroutines at once.
type Findings struct {
	out  io.Writer
	mu   sync.Mutex
	list []Violation
	more int // beyond maxFindings
}

// Violation is something that must not be.
type Violation struct {
	Check    string // which check found it
	Evidence string
}

// maxFindings bounds what is kept and printed: one fault may show in every answer.
const maxFindings = 40

// NewFindings returns an empty collection that prints each violation to out as it is found.
func NewFindings(out io.Writer) *Findings { return &Findings{out: out} }

// Add adds a violation.
func (f *Findings) Add(check, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.list) >= maxFindings {
		f.more++
		return
	}
	v := Violation{check, fmt.Sprintf(format, args...)}
	f.list = append(f.list, v)
	fmt.Fprintf(f.out, "VIOLATION %s: %s\n", v.Check, v.Evidence)
}

// Count returns how many violations there are.
func (f *Findings) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.list) + f.more
}

// Checks returns the names of the checks that found something.
func (f *Findings) Checks() (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.list {
		if !slices.Contains(names, v.Check) {
			names = append(names, v.Check)
		}
	}
	slices.Sort(names)
	return names
}
