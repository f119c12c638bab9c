package pgwire

import "time"

// maxNamed bounds the prepared statements, portals and cursors of a connection, each.
const maxNamed = 1000

// Sizes of a connection's buffers, in bytes.
const (
	readBuffer  = 8 << 10
	writeBuffer = 32 << 10 // what is collected before it is sent
)

// Config is the settings of a Server.
type Config struct {
	MaxConnections  int           // of clients; more are told so (53300)
	MaxMessageBytes int           // of a client's message
	PortalBytes     int64         // of rows that one portal or cursor holds back
	GreetingTimeout time.Duration // until a client has said what it wants
	WriteTimeout    time.Duration // how long a client may take nothing of what is sent to it
}

// DefaultConfig returns the settings for one machine.
func DefaultConfig() Config {
	return Config{
		MaxConnections: 10_000, MaxMessageBytes: 16 << 20, PortalBytes: 16 << 20,
		GreetingTimeout: 10 * time.Second, WriteTimeout: 5 * time.Minute,
	}
}
