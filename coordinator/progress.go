package coordinator

import (
	"fmt"
	"time"

	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// stateNotice tells how far the copies of views' state are that replicas still lack; "" when none does.
func (l *leadership) stateNotice(o *outlook) string {
	var replicas int
	var done, total, rate uint64
	for key, p := range o.progress {
		if !p.ViewsBehind {
			continue
		}
		replicas++
		done, total = done+min(p.StateDoneBytes, p.StateTotalBytes), total+p.StateTotalBytes
		rate += l.rates.of(key, o.now)
	}
	if replicas == 0 {
		return ""
	}
	text := fmt.Sprintf("%d replicas still get the state of views, %d of %d MiB are copied", replicas, done>>20, total>>20)
	if rate > 0 && total > done {
		left := time.Duration(float64(total-done) / float64(rate) * float64(time.Second))
		text += fmt.Sprintf(", about %v left", left.Truncate(time.Second)+time.Second)
	}
	return text + "; one that takes over before computes what it lacks"
}

// rateEvery is over how long the speed of a copy is measured.
const rateEvery = time.Second

// copyRates follows how fast copies get on, from the nodes' reports: what is left and how long it takes is for people.
type copyRates map[progressKey]copyRate

type copyRate struct {
	at     time.Time
	done   uint64  // then
	rate   float64 // bytes per second, of late; 0: not known yet
	listed time.Time
}

// note takes a node's report of the copies that it feeds.
func (c copyRates) note(progress []*internalv1.ReplicaProgress, now time.Time) {
	for _, p := range progress {
		key := progressKey{p.Partition, p.Node}
		r, ok := c[key]
		done := p.DoneBytes + p.StateDoneBytes
		switch d := now.Sub(r.at); {
		case !ok || done < r.done:
			r = copyRate{at: now, done: done}
		case d >= rateEvery:
			measured := float64(done-r.done) / d.Seconds()
			if r.rate > 0 {
				measured = (3*r.rate + measured) / 4
			}
			r.at, r.done, r.rate = now, done, measured
		}
		r.listed = now
		c[key] = r
	}
}

// of is the speed of a copy in bytes per second; 0: not known.
func (c copyRates) of(key progressKey, now time.Time) uint64 {
	r := c[key]
	if now.Sub(r.listed) > 3*rateEvery {
		return 0
	}
	return uint64(r.rate)
}

// forget drops the copies that nobody reports any more.
func (c copyRates) forget(now time.Time) {
	for key, r := range c {
		if now.Sub(r.listed) > 10*rateEvery {
			delete(c, key)
		}
	}
}
