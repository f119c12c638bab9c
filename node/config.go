package node

import (
	"fmt"
	"net"
	"regexp"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/partition"
	"github.com/millrace/millrace/partition/stage"
	"github.com/millrace/millrace/sql"
)

// Config is a node's settings. DefaultConfig fills all but DataDir.
type Config struct {
	DataDir string // folder of the two stores; created if missing

	Listen string // HOST:PORT of gRPC, for clients and peers, and of Raft; port 0 picks a free one
	Gossip string // HOST:PORT of gossip
	HTTP   string // HOST:PORT of /healthz, /readyz, /metrics
	PG     string // HOST:PORT of PostgreSQL's protocol; empty: DefaultPG, or a free port where that is taken

	Join []string // gossip addresses of peers; none: bootstrap a new cluster, or restart as a member
	Name string   // label; default: the host name and the gRPC port
	Zone string   // failure domain; replicas of a partition are spread over zones

	Partitions int // of a cluster that is bootstrapped here; fixed then, 1 to 4096
	Replicas   int // target replication factor of a cluster that is bootstrapped here, 1 to 7

	PProf bool // serve /debug/pprof on HTTP

	// Memory is what the process should stay below, in bytes; 0: a quarter of the machine's, 1 GiB at least. See Budget.
	Memory int64

	MaxRecordBytes    int           // larger records are rejected
	MaxMessageBytes   int           // of a gRPC message
	MaxConnections    int           // on the gRPC port
	MaxPGConnections  int           // clients of PostgreSQL's protocol
	MaxStaleness      time.Duration // how old an answer may be when the cluster's clock stands still
	StatementTimeout  time.Duration // how long a statement waits for its tick before it gives up
	CopyRate          int64         // bytes per second that this node sends for copies at most; 0: no limit
	CopiesPerNode     int           // partitions that a node copies at once; small ones may be up to eight
	CompactBytes      int64         // of a table's log in a partition, from which on it is compacted by key; 0: never
	ShipRate          int64         // bytes a second of views' state that the node sends to other replicas
	InFlightBytes     int64         // of appends that wait for the disk or replicas, on this node; 0: as Budget says
	IngestBytes       int64         // of clients' appends that this node holds, wherever they go; 0: as Budget says
	ConnInFlightBytes int64         // of these, from one connection; 0: 16 MiB, or as much as of all
	MaxReaders        int           // reads of logs and subscriptions at once
	DiskReserve       int64         // free bytes of the disk below which appends are refused
	MaxStatementBytes int           // of one text of SQL
	CacheBytes        int64         // block caches of both stores together; 0: as Budget says
	DrainTimeout      time.Duration // how long a stopping node tries to hand its primaries over
	ShutdownTimeout   time.Duration // how long a stopping node waits for calls under way
	SubscribeProgress time.Duration // longest time between two messages of a subscription
	QueryMemoryBytes  int64         // of the rows that one ad-hoc statement may hold here; 0: as Budget says
	QueriesBytes      int64         // of the rows that all of them may hold here; 0: as Budget says
}

// DefaultPG is where PostgreSQL's protocol is served unless told otherwise.
const DefaultPG = "127.0.0.1:7432"

// DefaultConfig returns the settings of a node on one machine.
func DefaultConfig() Config {
	return Config{
		Listen: "127.0.0.1:7070", Gossip: "127.0.0.1:7071", HTTP: "127.0.0.1:7080",
		Partitions: 8, Replicas: 3,
		MaxRecordBytes: 8 << 20, MaxMessageBytes: 16 << 20, MaxConnections: 10_000, MaxPGConnections: 10_000,
		CompactBytes: partition.DefaultConfig().CompactBytes,
		ShipRate:     stage.DefaultShipConfig().BytesPerSecond,
		MaxStaleness: 10 * time.Second, StatementTimeout: 30 * time.Second,
		CopyRate: 64 << 20, CopiesPerNode: 1,
		MaxReaders: 1000, DiskReserve: 512 << 20, MaxStatementBytes: sql.MaxTextBytes,
		DrainTimeout: 3 * time.Second, ShutdownTimeout: 3 * time.Second, SubscribeProgress: 500 * time.Millisecond,
	}
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,62}$`)

// Validate tells what is wrong with the settings, in terms of the command line.
func (c Config) Validate() error {
	if c.DataDir == "" {
		return fault.New(fault.Invalid, "no data folder: give one with --data DIR")
	}
	for _, a := range []struct{ flag, addr string }{
		{"--listen", c.Listen}, {"--gossip", c.Gossip}, {"--http", c.HTTP},
	} {
		if err := checkAddress(a.addr); err != nil {
			return fault.New(fault.Invalid, "%s %q: %v", a.flag, a.addr, err)
		}
	}
	if c.PG != "" {
		if err := checkAddress(c.PG); err != nil {
			return fault.New(fault.Invalid, "--pg %q: %v", c.PG, err)
		}
	}
	if c.MaxPGConnections < 1 {
		return fault.New(fault.Invalid, "--pg-connections %d: use 1 or more", c.MaxPGConnections)
	}
	for _, a := range c.Join {
		if err := checkAddress(a); err != nil {
			return fault.New(fault.Invalid, "--join %q: %v", a, err)
		}
	}
	if c.Name != "" && !nameForm.MatchString(c.Name) {
		return fault.New(fault.Invalid, "--name %q: use 1 to 63 letters, digits, '.', '_', ':' or '-'", c.Name)
	}
	if c.Zone != "" && !nameForm.MatchString(c.Zone) {
		return fault.New(fault.Invalid, "--zone %q: use 1 to 63 letters, digits, '.', '_', ':' or '-'", c.Zone)
	}
	if c.Partitions < 1 || c.Partitions > 4096 {
		return fault.New(fault.Invalid, "--partitions %d: use 1 to 4096", c.Partitions)
	}
	if c.CompactBytes < 0 {
		return fault.New(fault.Invalid, "--compact %d: give a number of bytes, or 0 for never", c.CompactBytes)
	}
	if c.ShipRate <= 0 {
		return fault.New(fault.Invalid, "--ship-rate %d: give a positive number of bytes a second", c.ShipRate)
	}
	if c.Replicas < 1 || c.Replicas > 7 {
		return fault.New(fault.Invalid, "--replicas %d: use 1 to 7", c.Replicas)
	}
	if c.MaxRecordBytes < 1 || c.MaxRecordBytes > c.MaxMessageBytes-(64<<10) {
		return fault.New(fault.Invalid, "--max-record %d: use 1 to %d bytes (64 KiB less than a message)",
			c.MaxRecordBytes, c.MaxMessageBytes-(64<<10))
	}
	if err := c.validateLimits(); err != nil {
		return err
	}
	if c.CopyRate < 0 || c.CopyRate > 0 && c.CopyRate < 64<<10 {
		return fault.New(fault.Invalid, "--copy-rate %d: use 64 KiB a second or more, or 0 for no limit", c.CopyRate)
	}
	if c.CopiesPerNode < 1 || c.CopiesPerNode > 64 {
		return fault.New(fault.Invalid, "--copies %d: use 1 to 64", c.CopiesPerNode)
	}
	return nil
}

// validateLimits tells what is wrong with the bounds.
func (c Config) validateLimits() error {
	if err := c.validateMemory(); err != nil {
		return err
	}
	c.fill()
	largest := int64(partition.DefaultConfig().MaxBatchBytes)
	switch {
	case c.MaxMessageBytes < 128<<10 || c.MaxMessageBytes > 1<<30:
		return fault.New(fault.Invalid, "--max-message %d: use 128 KiB to 1 GiB", c.MaxMessageBytes)
	case c.MaxConnections < 16:
		return fault.New(fault.Invalid, "--max-connections %d: use 16 or more; peers need some too", c.MaxConnections)
	case c.InFlightBytes < largest:
		return fault.New(fault.Invalid, "--in-flight %d: use %d bytes or more, the largest batch", c.InFlightBytes, largest)
	case c.ConnInFlightBytes < 64<<10:
		return fault.New(fault.Invalid, "--conn-in-flight %d: use 64 KiB or more", c.ConnInFlightBytes)
	case c.IngestBytes < c.ConnInFlightBytes:
		return fault.New(fault.Invalid, "--ingest-memory %d: use no less than --conn-in-flight, %d", c.IngestBytes, c.ConnInFlightBytes)
	case c.MaxReaders < 1:
		return fault.New(fault.Invalid, "--max-readers %d: use 1 or more", c.MaxReaders)
	case c.DiskReserve < 0 || c.DiskReserve > 0 && c.DiskReserve < 1<<20:
		return fault.New(fault.Invalid, "--disk-reserve %d: use 1 MiB or more, or 0 to let the disk run full", c.DiskReserve)
	case c.MaxStatementBytes < 1<<10 || c.MaxStatementBytes > sql.MaxTextBytes:
		return fault.New(fault.Invalid, "--max-statement %d: use 1 KiB to %d bytes", c.MaxStatementBytes, sql.MaxTextBytes)
	case c.QueryMemoryBytes < 1<<20:
		return fault.New(fault.Invalid, "--query-memory %d: use 1 MiB or more", c.QueryMemoryBytes)
	case c.QueriesBytes < c.QueryMemoryBytes:
		return fault.New(fault.Invalid, "--query-memory-total %d: use no less than --query-memory, %d", c.QueriesBytes, c.QueryMemoryBytes)
	}
	return nil
}

func checkAddress(a string) error {
	_, port, err := net.SplitHostPort(a)
	if err != nil {
		return fmt.Errorf("want HOST:PORT")
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("no port %q", port)
	}
	return nil
}

// Addresses is where a node can be reached, with the ports that it got.
type Addresses struct {
	Name, GRPC, Gossip, HTTP, PG string
}
