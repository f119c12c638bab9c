package partition

import (
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/ids"
)

// clusterClock keeps this machine's clock honest. Ticks are the cluster's time: the median of the nodes' clocks, where there
// are three and more. A clock that was set wrong, or steps, must neither date records far off (times in a log never go
// back, so one wrong batch would date all that follow it) nor have retention remove what isn't old.
type clusterClock struct {
	newest atomic.Uint64 // tick that was heard of
}

// clockSlack is how far this machine's clock may be from the newest tick before that is taken for the time.
const clockSlack = 10 * time.Second

func (c *clusterClock) heard(t ids.Tick) {
	if uint64(t) > c.newest.Load() { // ticks come one after the other
		c.newest.Store(uint64(t))
	}
}

// stamp is the time of a batch that came now, wall by this machine's clock; both in microseconds since the Unix epoch.
func (c *clusterClock) stamp(wall int64) int64 {
	tick := int64(c.newest.Load())
	if slack := clockSlack.Microseconds(); tick != 0 && (wall < tick-slack || wall > tick+slack) {
		return tick
	}
	return wall
}

// passed is a time that has passed by this machine's clock and by the cluster's: what is older than a retention before it
// is old. Before the first tick nothing is.
func (c *clusterClock) passed(wall int64) int64 { return min(wall, int64(c.newest.Load())) }
