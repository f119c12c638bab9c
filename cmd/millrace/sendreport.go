package main

import (
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// reportInterval is how often send tells how far it is.
const reportInterval = 100 * time.Millisecond

// startReport tells how far it is while the returned function hasn't been called: JSON objects on stderr with --json,
// else a progress bar if stderr is a terminal.
func (s *sending) startReport() (stop func()) {
	var show func(final bool)
	switch {
	case s.o.asJSON:
		show = func(final bool) {
			if !final {
				writeJSONLine(s.app.stderr, s.now())
			}
		}
	case isTerminal(s.app.stderr):
		show = s.bar()
	default:
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(reportInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				show(false)
			case <-done:
				show(true)
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// bar shows how much of the input is read, and how many records are acknowledged.
func (s *sending) bar() func(final bool) {
	size := s.in.size
	if size == 0 {
		size = -1 // a spinner
	}
	bar := progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(s.app.stderr),
		progressbar.OptionShowBytes(s.o.generate.what == ""),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(reportInterval/2),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetPredictTime(true),
	)
	return func(final bool) {
		if final {
			bar.Clear()
			return
		}
		r := s.now()
		bar.Describe(humanCount(r.Acknowledged) + " acknowledged")
		bar.Set64(s.in.raw.n.Load())
	}
}

// humanCount writes a number with its thousands apart.
func humanCount(n int64) string {
	text := []byte{}
	for digits := 0; n > 0 || digits == 0; digits++ {
		if digits > 0 && digits%3 == 0 {
			text = append([]byte{','}, text...)
		}
		text = append([]byte{'0' + byte(n%10)}, text...)
		n /= 10
	}
	return string(text)
}
