package coordinator

import (
	"testing"
	"time"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

func TestWallIsTheMedianClock(t *testing.T) {
	now := time.Now()
	const second = 1_000_000
	for _, c := range []struct {
		name   string
		skews  map[ids.NodeID]int64
		old    bool // the reports are old
		offset int64
		step   int64 // of the leader's clock since it leads
	}{
		{"alone", nil, false, 0, 0},
		{"two nodes: no majority", map[ids.NodeID]int64{"b": 60 * second}, false, 0, 0},
		{"one of three is wrong", map[ids.NodeID]int64{"b": 60 * second, "c": 0}, false, 0, 0},
		{"the leader is wrong", map[ids.NodeID]int64{"b": 60 * second, "c": 60*second + 5}, false, 60 * second, 0},
		{"the leader is ahead", map[ids.NodeID]int64{"b": -60 * second, "c": -59 * second}, false, -59 * second, 0},
		{"messages take time", map[ids.NodeID]int64{"b": -15_000, "c": -9_000}, false, 0, 0},
		{"nobody tells any more", map[ids.NodeID]int64{"b": 60 * second, "c": 60 * second}, true, 0, 0},
		{"the leader's clock has just stepped forth", map[ids.NodeID]int64{"b": -5_000, "c": 0}, false, -3600 * second, 3600 * second},
		{"the leader's clock has just stepped back", map[ids.NodeID]int64{"b": 0, "c": 0}, false, 3600 * second, -3600 * second},
		{"it stepped, and nobody else is there", nil, false, 0, 3600 * second},
	} {
		l := &leadership{c: &Coordinator{id: identity{node: "a"}}, loads: map[ids.NodeID]nodeLoad{"a": {at: now, skew: 77}}}
		l.clock = steadyClock{now.Add(-time.Minute), now.Add(-time.Minute).UnixMicro() - c.step, false}
		for id, s := range c.skews {
			at := now
			if c.old {
				at = now.Add(-time.Minute)
			}
			l.loads[id] = nodeLoad{at: at, skew: s}
		}
		if got := int64(l.wall(now)) - now.UnixMicro(); got != c.offset {
			t.Errorf("%s: ticks follow a clock %d us off, want %d", c.name, got, c.offset)
		}
	}
	// A new leader whose own clock is wrong goes on from the ticks that it heard, until the others tell theirs.
	l := &leadership{c: &Coordinator{id: identity{node: "a"}}, clock: startClock(now, ids.Tick(now.UnixMicro()-3600*second), now.Add(-time.Second))}
	if got := int64(l.wall(now)) - now.UnixMicro(); got != -3599*second {
		t.Errorf("a new leader's ticks follow a clock %d us off", got)
	}
	if s := smoothSkew(-50, -10, true); s != -10 {
		t.Errorf("a quicker report gives %d", s)
	}
	if s := smoothSkew(86_400*second, -5, true); s != -5 {
		t.Errorf("a clock that was a day ahead and was set right is %d us off", s)
	}
	if s := smoothSkew(0, -32_000, true); s != -1000 {
		t.Errorf("a late report gives %d", s)
	}
}

func TestBusyAndPace(t *testing.T) {
	cfg := DefaultConfig()
	l := &leadership{
		c: &Coordinator{cfg: cfg, id: identity{node: "a"}}, kick: make(chan struct{}, 1), beat: make(chan struct{}, 1), room: make(chan struct{}, 1),
		oracle: newOracle(cfg.Ticks, 0, time.Now()), tracker: newTracker(cfg.Detection, time.Now(), time.Now()), loads: map[ids.NodeID]nodeLoad{},
	}
	l.take("b", &internalv1.NodeReport{Node: "b", Appends: 5})
	l.take("b", &internalv1.NodeReport{Node: "b", Appends: 6, PendingBytes: cfg.Ticks.FullPending / 2})
	if p := l.oracle.pace(time.Now()); p != 11*time.Millisecond {
		t.Errorf("half full: a tick every %v", p)
	}
	l.take("c", &internalv1.NodeReport{Node: "c", TicksBehind: 2 * cfg.Ticks.FullBehind})
	if p := l.oracle.pace(time.Now()); p != cfg.Ticks.Full {
		t.Errorf("one node behind with its work: a tick every %v", p)
	}
	l.take("c", &internalv1.NodeReport{Node: "c"})
	l.take("b", &internalv1.NodeReport{Node: "b", Appends: 6, CommitUs: 5000})
	if p := l.oracle.pace(time.Now()); p != 5*time.Millisecond {
		t.Errorf("commits of 5ms: a tick every %v", p)
	}
}
