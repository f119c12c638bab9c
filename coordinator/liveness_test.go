package coordinator

import (
	"testing"
	"time"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// trackerRun drives a tracker over one member, b, in steps of 50 ms.
type trackerRun struct {
	*tracker
	now   time.Time
	start time.Time
}

func startTracker(processAge time.Duration) *trackerRun {
	now := time.Unix(1000, 0)
	return &trackerRun{tracker: newTracker(DefaultConfig().Detection, now, now.Add(-processAge)), now: now, start: now}
}

var testMembers = []ids.NodeID{"b"}

// run lets time pass; probe gives the outcome of each probe, report whether b reports.
func (r *trackerRun) run(d time.Duration, report bool, probe probeOutcome) {
	for ; d > 0; d -= 50 * time.Millisecond {
		r.now = r.now.Add(50 * time.Millisecond)
		if report {
			r.reportedBy("b", &internalv1.NodeReport{Node: "b"}, r.now)
		}
		for _, id := range r.probes(testMembers, r.now) {
			r.probeDone(id, probe, r.now)
		}
		r.judge(testMembers, r.now)
	}
}

// downAfter is how long from now b takes to be judged down, up to limit.
func (r *trackerRun) downAfter(limit time.Duration, report bool, probe probeOutcome) time.Duration {
	began := r.now
	for r.up("b") && r.now.Sub(began) < limit {
		r.run(50*time.Millisecond, report, probe)
	}
	return r.now.Sub(began)
}

func TestDetection(t *testing.T) {
	const long = time.Minute
	for _, c := range []struct {
		name     string
		broken   bool // its stream ends
		probe    probeOutcome
		min, max time.Duration
	}{
		{"killed", true, probeRefused, 80 * time.Millisecond, 300 * time.Millisecond},
		{"killed, without its stream's end seen", false, probeRefused, 500 * time.Millisecond, 800 * time.Millisecond},
		{"hung or cut off", false, probeSilent, 2 * time.Second, 2200 * time.Millisecond},
		{"only its stream is broken", true, probeOK, 10 * time.Second, 11 * time.Second},
		{"it answers probes, but never reports again", false, probeOK, 10 * time.Second, 11 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startTracker(time.Hour)
			r.run(time.Second, true, probeOK)
			if c.broken {
				r.streamEnded("b")
			}
			if d := r.downAfter(long, false, c.probe); d < c.min || d > c.max {
				t.Errorf("down after %v, want %v to %v", d, c.min, c.max)
			}
			r.run(100*time.Millisecond, true, probeOK)
			if !r.up("b") {
				t.Error("a report doesn't bring it back")
			}
		})
	}
}

func TestNoFalseAlarm(t *testing.T) {
	r := startTracker(time.Hour)
	for range 20 {
		r.run(time.Second, true, probeOK)
		// A loaded machine: neither reports nor answers for a while.
		if d := r.downAfter(1500*time.Millisecond, false, probeSilent); d < 1500*time.Millisecond {
			t.Fatalf("down after %v of load", d)
		}
		// A stream that breaks and comes back, with a probe refused in between as the process restarts its listener.
		r.run(time.Second, true, probeOK)
		r.streamEnded("b")
		r.run(50*time.Millisecond, false, probeRefused)
		if !r.up("b") {
			t.Fatal("down within 50ms of a broken stream")
		}
	}
}

func TestStartGrace(t *testing.T) {
	// The whole cluster restarts: b is slower than the leader, and its port refuses.
	r := startTracker(time.Second)
	if d := r.downAfter(time.Minute, false, probeRefused); d < 5*time.Second || d > 6*time.Second {
		t.Errorf("a young process gives up on a member it hasn't seen after %v", d)
	}
	// A leader of a running cluster trusts a refusal sooner.
	r = startTracker(time.Hour)
	if d := r.downAfter(time.Minute, false, probeRefused); d > 900*time.Millisecond {
		t.Errorf("an old process gives up on a refusing member after %v", d)
	}
	// And the leader before it soonest.
	r = startTracker(time.Hour)
	r.known("b", r.now.Add(-600*time.Millisecond))
	if d := r.downAfter(time.Minute, false, probeRefused); d > 200*time.Millisecond {
		t.Errorf("the former leader is given up after %v", d)
	}
}

func TestDeadAndGone(t *testing.T) {
	r := startTracker(time.Hour)
	r.run(time.Second, true, probeOK)
	r.downAfter(time.Minute, false, probeSilent)
	r.run(4*time.Second, false, probeSilent)
	if r.declareDead("b", r.now) {
		t.Error("declared dead although gossip hears it")
	}
	r.gossiped("b", true)
	if !r.declareDead("b", r.now) {
		t.Error("not declared dead although gossip agrees")
	}
	r.gossiped("b", false)
	r.run(12*time.Second, false, probeSilent)
	if !r.declareDead("b", r.now) {
		t.Error("never declared dead against gossip")
	}
	m := &internalv1.Member{Id: "b", State: alive}
	if s := r.state(m, r.now); s != dead {
		t.Errorf("shown as %v", s)
	}
	r.run(time.Second, true, probeOK)
	if s := r.state(m, r.now); s != alive {
		t.Errorf("shown as %v after it came back", s)
	}
	r.run(600*time.Millisecond, false, probeSilent)
	if s := r.state(m, r.now); s != suspect {
		t.Errorf("shown as %v after 0.6s of silence", s)
	}
}

func TestCondemned(t *testing.T) {
	r := startTracker(time.Hour)
	r.run(time.Second, true, probeOK)
	r.condemn("b", r.now)
	r.run(time.Second, true, probeOK)
	if r.up("b") {
		t.Error("a member that is being removed is up")
	}
	r.run(condemnedFor, true, probeOK)
	if !r.up("b") {
		t.Error("a removal that came to nothing is never forgotten")
	}
}
