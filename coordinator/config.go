package coordinator

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
)

// Config is how a node takes part in its cluster.
type Config struct {
	Name   string  // label; empty: made from the node's id
	Zone   string  // failure zone; empty: none
	Weight float64 // share of the partitions relative to the others; 0 means 1

	GRPC string   // HOST:PORT at which peers and clients reach this node
	HTTP string   // HOST:PORT, for others to see; may be empty
	PG   string   // HOST:PORT of PostgreSQL's protocol, for others to see; may be empty
	Join []string // gossip addresses of peers; empty: without earlier data the node makes a cluster of its own

	// Partitions and Replicas shape the cluster that this node makes when it makes one; else they are ignored.
	Partitions int // 1 to 4096
	Replicas   int // target; a smaller cluster keeps as many copies as it has nodes

	// Gossip is the port for gossip, from ListenGossip; Run closes it.
	Gossip *GossipSockets
	// Stream carries Raft's traffic; the coordinator closes it. Its address must be GRPC's.
	Stream raft.StreamLayer
	// Dial makes the connection to a peer's gRPC address; the coordinator keeps and closes it.
	Dial func(addr string) (*grpc.ClientConn, error)
	// Knock opens and closes a TCP connection to addr: a refusal tells a dead process from a slow one.
	Knock func(ctx context.Context, addr string) error
	// LogEnds asks a member how long its log of a partition is; of two in-sync members the one with the higher number
	// is the longer. Nil: all are taken to be equal.
	LogEnds func(ctx context.Context, node ids.NodeID, p ids.PartitionID) (uint64, error)

	Raft      RaftConfig
	Ticks     TickConfig
	Detection DetectionConfig
	Moves     MoveConfig
}

// RaftConfig is Raft's pace.
type RaftConfig struct {
	Heartbeat time.Duration // a follower that heard nothing for so long stands for election; the leader sends ten in that time
	Election  time.Duration // a candidate tries again after it
	Lease     time.Duration // a leader that reached no majority for so long steps down; at most Heartbeat
	// Slower is how many times less often the leader sends while ticks are at their Still pace: nothing competes for the
	// processor then. Followers judge by Heartbeat all the same, so it is 1 to 4.
	Slower int
	// Commit is how long a follower may not know that the last entry is committed; the leader hurries it along where it matters.
	Commit            time.Duration
	SnapshotInterval  time.Duration // between checks whether a snapshot is due
	SnapshotThreshold uint64        // entries since the last snapshot that make one due
	TrailingLogs      uint64        // entries kept behind a snapshot, for followers that lag
}

// TickConfig is the pace of ticks.
type TickConfig struct {
	Fast  time.Duration // while the cluster keeps up with what is appended
	Full  time.Duration // while it is full; between the two as it fills
	Quiet time.Duration // while nothing is appended
	Still time.Duration // the same once that has lasted for StillAfter, and no node says that somebody waits for ticks
	Hold  time.Duration // how long the pace stays up after the last append
	// StillAfter is how long nothing was appended, asked for or changed before ticks go at the pace of Still.
	StillAfter time.Duration
	// Window is how far ahead of the clock ticks are reserved, and so how far a new leader's may jump ahead of it.
	Window       time.Duration
	FullPending  uint64        // bytes appended and not yet committed at which a node counts as full
	FullBehind   uint32        // ticks a node may be behind with its work before it counts as full
	ReportActive time.Duration // a node reports at most so often while it is appended to
	ReportQuiet  time.Duration // and at least so often
}

// DetectionConfig says when a silent node is given up.
type DetectionConfig struct {
	SuspectAfter  time.Duration // without a sign of life: the leader begins to probe
	ProbeInterval time.Duration
	ProbeTimeout  time.Duration
	Refusals      int           // refused connections in a row that show a dead process
	RefusedFor    time.Duration // and how long they must have gone on
	DownAfter     time.Duration // without a sign of life, probes failing: its partitions fail over
	NoReportAfter time.Duration // it answers probes but has sent no report for so long: it is sick, its partitions fail over
	// StartGrace is how long after this process began members that it hasn't seen yet aren't judged: when all nodes
	// start at once some are later than others.
	StartGrace   time.Duration
	DeadAfter    time.Duration // down for so long, and gossip agrees: the member is declared dead
	DeadAnyway   time.Duration // down for so long: whatever gossip says
	ReplaceAfter time.Duration // down for so long: its replicas and its vote go to others
}

// MoveConfig throttles the movement of partitions.
type MoveConfig struct {
	CopiesPerNode int           // partitions that a node copies at once
	QuickCopies   int           // the same while its copies are done within QuickCopy, as those of small partitions are
	QuickCopy     time.Duration // a copy that takes longer ends the haste
	Handovers     int           // at once, in the whole cluster
	HandoverLimit time.Duration // a handover that takes longer is called off
	ViewsLimit    time.Duration // how long a handover waits until its target has the views' state; 0: it doesn't
	Interval      time.Duration // between looks at what to do, beside every change
}

// DefaultConfig returns the defaults; Gossip and Stream are still to be set.
func DefaultConfig() Config {
	return Config{
		Weight: 1, GRPC: "127.0.0.1:7070", HTTP: "127.0.0.1:7080",
		Partitions: 8, Replicas: 3,
		Dial: dialInsecure, Knock: knockTCP,
		Raft: RaftConfig{
			Heartbeat: 750 * time.Millisecond, Election: 750 * time.Millisecond, Lease: 750 * time.Millisecond,
			Slower: 2,
			Commit: 500 * time.Millisecond, SnapshotInterval: time.Minute, SnapshotThreshold: 2048, TrailingLogs: 1024,
		},
		Ticks: TickConfig{
			Fast: 2 * time.Millisecond, Full: 20 * time.Millisecond, Quiet: 100 * time.Millisecond,
			Still: 240 * time.Millisecond, Hold: 50 * time.Millisecond, StillAfter: time.Second, Window: 3 * time.Second,
			FullPending: 8 << 20, FullBehind: 32,
			ReportActive: 10 * time.Millisecond, ReportQuiet: 250 * time.Millisecond,
		},
		Detection: DetectionConfig{
			SuspectAfter: 500 * time.Millisecond, ProbeInterval: 50 * time.Millisecond, ProbeTimeout: 500 * time.Millisecond,
			Refusals: 2, RefusedFor: 40 * time.Millisecond, DownAfter: 2 * time.Second, NoReportAfter: 10 * time.Second,
			StartGrace: 5 * time.Second, DeadAfter: 3 * time.Second, DeadAnyway: 15 * time.Second, ReplaceAfter: 30 * time.Second,
		},
		Moves: MoveConfig{CopiesPerNode: 1, QuickCopies: 8, QuickCopy: time.Second, Handovers: 2, HandoverLimit: 10 * time.Second, ViewsLimit: 20 * time.Second, Interval: 250 * time.Millisecond},
	}
}

// Validate tells what can't work.
func (c *Config) Validate() error {
	var errs []error
	bad := func(cond bool, format string, args ...any) {
		if cond {
			errs = append(errs, fault.New(fault.Invalid, format, args...))
		}
	}
	bad(c.Stream == nil, "no stream layer for Raft")
	bad(c.Gossip == nil, "no sockets for gossip")
	bad(c.Dial == nil || c.Knock == nil, "no way to dial peers")
	bad(c.Partitions < 1 || c.Partitions > maxPartitions, "partitions: %d is not between 1 and %d", c.Partitions, maxPartitions)
	bad(c.Replicas < 1 || c.Replicas > maxReplicas, "replicas: %d is not between 1 and %d", c.Replicas, maxReplicas)
	bad(len(c.Name) > maxName, "name: longer than %d bytes", maxName)
	bad(len(c.Zone) > maxName, "zone: longer than %d bytes", maxName)
	bad(len(c.Join) > maxJoin, "join: more than %d addresses", maxJoin)
	if _, _, err := splitAddress(c.GRPC); err != nil {
		errs = append(errs, err)
	}
	for _, j := range c.Join {
		if _, _, err := splitAddress(j); err != nil {
			errs = append(errs, err)
		}
	}
	r, t, d, m := c.Raft, c.Ticks, c.Detection, c.Moves
	bad(r.Heartbeat < 50*time.Millisecond || r.Election < r.Heartbeat || r.Lease > r.Heartbeat || r.Lease < 50*time.Millisecond,
		"raft: heartbeat %v, election %v, lease %v: 50ms <= lease <= heartbeat <= election", r.Heartbeat, r.Election, r.Lease)
	bad(r.Slower < 1 || r.Slower > 4, "raft: an idle leader's heartbeats, %d times slower, aren't 1 to 4 times so", r.Slower)
	bad(r.Commit < time.Millisecond || r.SnapshotInterval < time.Second, "raft: commit below 1ms or snapshot interval below 1s")
	bad(t.Fast < 100*time.Microsecond || t.Full < t.Fast || t.Quiet < t.Full || t.Still < t.Quiet, "ticks: 100us <= fast <= full <= quiet <= still")
	bad(t.Window < 10*t.Still, "ticks: a window of %v is shorter than ten still ticks", t.Window)
	bad(t.FullPending == 0 || t.FullBehind == 0 || t.ReportActive <= 0 || t.ReportQuiet <= 0, "ticks: a bound is 0")
	bad(d.SuspectAfter < 2*t.ReportQuiet, "detection: suspect after %v, with reports every %v", d.SuspectAfter, t.ReportQuiet)
	bad(d.ProbeInterval <= 0 || d.ProbeTimeout <= 0 || d.Refusals < 1, "detection: a probe's setting is 0")
	bad(d.DownAfter < d.SuspectAfter || d.NoReportAfter < d.DownAfter || d.DeadAnyway < d.DeadAfter, "detection: suspect <= down <= no report, dead <= dead anyway")
	bad(m.CopiesPerNode < 1 || m.QuickCopies < m.CopiesPerNode || m.QuickCopy <= 0 || m.Handovers < 1 || m.HandoverLimit <= 0 || m.Interval <= 0, "moves: a bound is 0")
	return errors.Join(errs...)
}

const maxJoin = 64

func splitAddress(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil || port < 0 || port > 65535 || len(addr) > maxAddress {
		return "", 0, fault.New(fault.Invalid, "%q is not an address; give HOST:PORT", oneLine(addr))
	}
	return host, port, nil
}

func dialInsecure(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}))
}

func knockTCP(ctx context.Context, addr string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}
