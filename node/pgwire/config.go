package pgwire

import (
	"time"

	"github.com/millrace/millrace/sql"
)

// maxNamed bounds the prepared statements, portals and cursors of a connection, each.
const maxNamed = 1000

// Sizes of a connection's buffers, in bytes.
const (
	readBuffer  = 8 << 10
	writeBuffer = 32 << 10 // what is collected before it is sent
)

// Config is the settings of a Server.
type Config struct {
	MaxConnections    int           // of clients; more are told so (53300)
	MaxMessageBytes   int           // of a client's message
	MaxStatementBytes int           // of a text of SQL
	PortalBytes       int64         // of rows that the portals and cursors of a connection hold back, beyond a piece of each
	NamedBytes        int64         // of the texts and values of a connection's prepared statements and portals
	GreetingTimeout   time.Duration // until a client has said what it wants
	WriteTimeout      time.Duration // how long a client may take nothing of what is sent to it
}

// DefaultConfig returns the settings for one machine.
func DefaultConfig() Config {
	return Config{
		MaxConnections: 10_000, MaxMessageBytes: 16 << 20, MaxStatementBytes: sql.MaxTextBytes, PortalBytes: 1 << 20, NamedBytes: 32 << 20,
		GreetingTimeout: 10 * time.Second, WriteTimeout: 5 * time.Minute,
	}
}
