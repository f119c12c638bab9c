package stage

import (
	"time"

	"github.com/millrace/millrace/internal/fault"
)

// ShipConfig is the settings of state shipping.
type ShipConfig struct {
	// BytesPerSecond bounds what this node sends of its views' state to all other replicas together.
	BytesPerSecond int64
	// BacklogBytes bounds the batches that are kept in memory for replicas that are behind, of all lanes together. A
	// replica that is further behind gets a copy of the lane.
	BacklogBytes int64
	// ChunkBytes is about how much of a copy goes into one batch, and the most that one message carries.
	ChunkBytes int
	// WindowBytes bounds what is under way to one node and not yet taken there.
	WindowBytes int64
	// NoticeInterval is how often replicas are told which ticks are closed, and which state hasn't changed.
	NoticeInterval time.Duration
	// CopyPause is how long a lane waits before a copy that fell too far behind is begun again; each time twice as long,
	// up to 64 times.
	CopyPause time.Duration
	// Patience is how long a replica that doesn't get on may keep logs from being truncated.
	Patience time.Duration
}

// DefaultShipConfig returns the defaults.
func DefaultShipConfig() ShipConfig {
	return ShipConfig{
		BytesPerSecond: 64 << 20,
		BacklogBytes:   64 << 20,
		ChunkBytes:     1 << 20,
		WindowBytes:    4 << 20,
		NoticeInterval: 250 * time.Millisecond,
		CopyPause:      time.Second,
		Patience:       10 * time.Minute,
	}
}

func (c *ShipConfig) validate() error {
	bad := func(name string) error {
		return fault.New(fault.Invalid, "stage: Ship.%s must be set and positive", name)
	}
	switch {
	case c.BytesPerSecond <= 0:
		return bad("BytesPerSecond")
	case c.BacklogBytes < 0:
		return fault.New(fault.Invalid, "stage: Ship.BacklogBytes must not be negative")
	case c.ChunkBytes <= 0 || c.ChunkBytes > 8<<20:
		return fault.New(fault.Invalid, "stage: Ship.ChunkBytes must be positive and at most 8 MiB")
	case c.WindowBytes <= 0:
		return bad("WindowBytes")
	case c.NoticeInterval <= 0:
		return bad("NoticeInterval")
	case c.CopyPause <= 0:
		return bad("CopyPause")
	case c.Patience <= 0:
		return bad("Patience")
	}
	return nil
}
