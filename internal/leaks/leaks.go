// Package leaks runs a package's tests and then looks whether a goroutine of theirs is left. It gives those that are about to
// end a minute for it: goleak gives them half a second, which a busy machine takes.
package leaks

import (
	"fmt"
	"os"
	"time"

	"go.uber.org/goleak"
)

// Main is what a package's TestMain calls; it doesn't return. Goroutines that options name may be left.
func Main(tests interface{ Run() int }, options ...goleak.Option) {
	code := tests.Run()
	if code == 0 {
		if err := wait(60*time.Second, options...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// wait waits until no goroutine is left, or says which are after limit.
func wait(limit time.Duration, options ...goleak.Option) error {
	for end := time.Now().Add(limit); ; {
		err := goleak.Find(options...) // takes a moment itself
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
