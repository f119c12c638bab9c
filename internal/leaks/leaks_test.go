package leaks

import (
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// TestWait: a goroutine that ends later than goleak waits is none that is left; one that doesn't end is.
func TestWait(t *testing.T) {
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { defer close(done); <-stop }()
	if err := wait(time.Millisecond); err == nil {
		t.Error("a goroutine that goes on isn't found")
	}
	timer := time.AfterFunc(2*time.Second, func() { close(stop) })
	defer timer.Stop()
	if err := wait(60 * time.Second); err != nil {
		t.Error(err)
	}
	<-done
}
