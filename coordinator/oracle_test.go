package coordinator

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/ids"
)

// oracleRun drives an oracle as the leader does, on clocks of its own.
type oracleRun struct {
	t       *testing.T
	o       *oracle
	now     time.Time
	wall    int64 // microseconds
	durable ids.Tick
	issued  []ids.Tick
	times   []time.Time
}

func startOracle(t *testing.T, floor ids.Tick, wall int64) *oracleRun {
	r := &oracleRun{t: t, now: time.Unix(1000, 0), wall: wall, durable: floor}
	r.lead()
	return r
}

// lead puts a new leader in place, which knows what is durable and nothing else.
func (r *oracleRun) lead() { r.o = newOracle(DefaultConfig().Ticks, r.durable, r.now) }

// run lets time pass, in steps of half a millisecond.
func (r *oracleRun) run(d time.Duration) {
	const step = 500 * time.Microsecond
	for ; d > 0; d -= step {
		if c, ok := r.o.reserve(uint64(r.wall)); ok {
			if c <= r.durable {
				r.t.Fatalf("reserves %d, %d is durable", c, r.durable)
			}
			r.durable = c
			r.o.reserved(c)
		}
		if !r.now.Before(r.o.due(r.now)) {
			if tick, ok := r.o.issue(r.now, uint64(r.wall)); ok {
				r.take(tick)
			}
		}
		r.now = r.now.Add(step)
		r.wall += step.Microseconds()
	}
}

func (r *oracleRun) take(tick ids.Tick) {
	if n := len(r.issued); n > 0 && tick <= r.issued[n-1] {
		r.t.Fatalf("tick %d after %d", tick, r.issued[n-1])
	}
	if tick > r.durable {
		r.t.Fatalf("tick %d above the durable ceiling %d", tick, r.durable)
	}
	r.issued, r.times = append(r.issued, tick), append(r.times, r.now)
}

// since counts the ticks issued at or after at.
func (r *oracleRun) since(at time.Time) (n int) {
	for _, t := range r.times {
		if !t.Before(at) {
			n++
		}
	}
	return n
}

func (r *oracleRun) ahead() time.Duration {
	return time.Duration(int64(r.issued[len(r.issued)-1])-r.wall) * time.Microsecond
}

const testWall = 1_700_000_000_000_000

func TestOraclePace(t *testing.T) {
	r := startOracle(t, 0, testWall)
	r.run(time.Second) // past the start
	at := r.now
	r.run(2 * time.Second)
	if n := r.since(at); n < 8 || n > 9 {
		t.Errorf("still: %d ticks in two seconds, want 8", n)
	}
	at = r.now
	r.o.load(true, 0, 0)
	r.run(time.Second)
	if n := r.since(at); n < 9 || n > 11 {
		t.Errorf("quiet, as somebody waits: %d ticks in a second, want 10", n)
	}
	r.o.load(false, 0, 0)
	at = r.now
	r.o.activity(r.now)
	r.run(5 * time.Millisecond)
	if n := r.since(at); n < 2 {
		t.Errorf("%d ticks within 5ms after an append", n)
	}
	r.run(395 * time.Millisecond)
	if n := r.since(at); n < 20 || n > 35 {
		t.Errorf("%d ticks in 400ms after one append: 50ms fast, then quiet", n)
	}
	busyTicks := func(busy float64, commit time.Duration) int {
		at := r.now
		for range 100 {
			r.o.activity(r.now)
			r.o.load(false, busy, commit)
			r.run(10 * time.Millisecond)
		}
		return r.since(at)
	}
	if n := busyTicks(0, 0); n < 480 || n > 505 {
		t.Errorf("busy and keeping up: %d ticks a second, want 500", n)
	}
	if n := busyTicks(7, 0); n < 48 || n > 52 {
		t.Errorf("full: %d ticks a second, want 50", n)
	}
	if n := busyTicks(0, 10*time.Millisecond); n < 95 || n > 105 {
		t.Errorf("commits of 10ms: %d ticks a second, want 100", n)
	}
	if n := busyTicks(0, time.Second); n < 48 || n > 52 {
		t.Errorf("commits of 1s: %d ticks a second, want 50 at least", n)
	}
}

func TestOracleSettles(t *testing.T) {
	// Even when ticks are slow, enough of them follow the last append to close its tick.
	r := startOracle(t, 0, testWall)
	r.run(time.Second)
	r.o.load(false, 1, 0)
	at := r.now
	r.o.activity(r.now)
	r.run(75 * time.Millisecond)
	if n := r.since(at); n < settleTicks {
		t.Errorf("%d ticks within 75ms of an append at full load, want %d", n, settleTicks)
	}
}

func TestOracleClockSteps(t *testing.T) {
	r := startOracle(t, 0, testWall)
	r.run(time.Second)
	r.wall -= time.Minute.Microseconds()
	r.o.activity(r.now)
	r.run(10 * time.Second)
	if a := r.ahead(); a > time.Minute-4*time.Second || a < 50*time.Second {
		t.Errorf("10s after a step of a minute back ticks are %v ahead: half the clock's speed makes 55s", a)
	}
	r.run(2 * time.Minute)
	if a := r.ahead(); a > 0 {
		t.Errorf("ticks are still %v ahead", a)
	}
	before := len(r.issued)
	r.wall += time.Hour.Microseconds()
	r.run(time.Second)
	if a := r.ahead(); a < -200*time.Millisecond || a > 0 || len(r.issued) == before {
		t.Errorf("after a step forward ticks are %v ahead", a)
	}
}

func TestOracleLeaders(t *testing.T) {
	r := startOracle(t, 0, testWall)
	r.run(10 * time.Second)
	for i := range 200 {
		r.run(time.Duration(500+i) * time.Millisecond) // no election is quicker
		last := r.issued[len(r.issued)-1]
		r.lead()
		r.run(10 * time.Millisecond)
		if next := r.issued[len(r.issued)-1]; next <= last {
			t.Fatalf("leader %d goes on with %d, %d was issued", i, next, last)
		}
		if a := r.ahead(); a > 2*DefaultConfig().Ticks.Window {
			t.Fatalf("after %d leaders ticks are %v ahead of the clock", i, a)
		}
	}
}

func TestOracleExhausted(t *testing.T) {
	now := time.Unix(1000, 0)
	o := newOracle(DefaultConfig().Ticks, testWall, now)
	if tick, ok := o.issue(now, testWall+5); ok {
		t.Fatalf("issued %d with nothing reserved", tick)
	}
	o.reserved(testWall + 2)
	for want := ids.Tick(testWall + 2); ; want++ {
		tick, ok := o.issue(now, testWall+50)
		if !ok {
			break
		}
		if tick > testWall+2 || tick != want {
			t.Fatalf("issued %d, reserved up to %d", tick, testWall+2)
		}
	}
	if c, ok := o.reserve(testWall + 50); !ok || c <= testWall+50 {
		t.Errorf("reserves %d, %v", c, ok)
	}
}

// TestOracleRandom checks the rules of oracleRun.take over random steps of the clock and changes of leader.
func TestOracleRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	r := startOracle(t, 0, testWall)
	for range 2000 {
		switch rnd.IntN(6) {
		case 0:
			r.wall += rnd.Int64N(20_000_000) - 10_000_000
		case 1:
			r.lead()
		case 2:
			r.o.activity(r.now)
		case 3:
			r.o.load(rnd.IntN(2) == 0, rnd.Float64()*2, time.Duration(rnd.IntN(50))*time.Millisecond)
		}
		r.run(time.Duration(rnd.IntN(100)) * time.Millisecond)
	}
	if len(r.issued) < 2000 {
		t.Errorf("only %d ticks", len(r.issued))
	}
}
