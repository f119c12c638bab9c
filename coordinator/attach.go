package coordinator

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// Delays between a node's tries to attach to the leader.
const (
	attachStep = 20 * time.Millisecond
	attachMost = 250 * time.Millisecond
)

// nodeReport gathers what this node has to tell.
func (c *Coordinator) nodeReport() *internalv1.NodeReport {
	var load Load
	if fn := c.load.Load(); fn != nil {
		load = (*fn)()
	}
	r := &internalv1.NodeReport{
		Node: string(c.id.node), Incarnation: c.incarnation, AppliedIndex: c.State().Index, RaftIndex: c.raft.LastIndex(),
		WallUs: uint64(time.Now().UnixMicro()), Appends: load.Appends, PendingAppends: load.PendingAppends,
		PendingBytes: load.PendingBytes, CommitUs: uint64(load.CommitTime.Microseconds()), TicksBehind: load.TicksBehind,
		RequestTick: c.request.Swap(false), Stopping: c.stopping.Load(), Waiting: load.Waiting, Detail: load.Detail,
	}
	for _, p := range load.Progress {
		r.Progress = append(r.Progress, &internalv1.ReplicaProgress{
			Partition: uint32(p.Partition), Node: string(p.Node), DoneBytes: p.Done, TotalBytes: p.Total,
			ViewsBehind: p.ViewsBehind, StateDoneBytes: p.StateDone, StateTotalBytes: p.StateTotal,
		})
	}
	for _, h := range load.Held {
		r.Held = append(r.Held, &internalv1.HeldReplica{Partition: uint32(h.Partition), Committed: h.Committed, Reason: h.Reason})
	}
	return r
}

// attachLoop keeps this node's stream to the leader, whoever that is, while it is another node.
func (c *Coordinator) attachLoop(ctx context.Context) {
	delay := attachStep
	for ctx.Err() == nil {
		id, ok := c.leaderID()
		if !ok || id == c.id.node {
			select {
			case <-c.leader:
			case <-time.After(retryMost): // a change may come without a signal
			case <-ctx.Done():
			}
			continue
		}
		began := time.Now()
		err := c.attach(ctx, id)
		if ctx.Err() != nil {
			return
		}
		c.removedBy(err)
		if time.Since(began) > retryMost {
			delay = attachStep
		}
		c.log.Debug("the stream to the leader ended", "leader", id, "error", err)
		if fault.KindOf(err) == fault.Unavailable {
			signal(c.doubt)
		}
		select {
		case <-c.leader:
			delay = attachStep // another one leads, perhaps
		case <-time.After(delay):
		case <-ctx.Done():
		}
		delay = min(2*delay, attachMost)
	}
}

// removedBy stops the node when the leader says that it was removed.
func (c *Coordinator) removedBy(err error) {
	var f *fault.Error
	if errors.As(err, &f) && f.GetReason() == ReasonMemberRemoved {
		c.fail(err)
	}
}

// attach runs one stream until it ends.
func (c *Coordinator) attach(ctx context.Context, leader ids.NodeID) error {
	conn, err := c.conn(leader)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := internalv1.NewControlClient(conn).Attach(ctx)
	if err != nil {
		cancel()
		return fault.FromGRPC(err)
	}
	c.followed.Store(&leader)
	ticked := make(chan struct{}, 1)
	done := make(chan error, 1)
	var wg sync.WaitGroup
	reported := &since{began: time.Now()}
	wg.Go(func() { done <- c.receiveTicks(stream, ticked, reported) })
	err = c.sendReports(ctx, stream, leader, ticked, done, reported)
	cancel()
	wg.Wait()
	return err
}

// since remembers when something happened, by the monotonic clock, for several goroutines.
type since struct {
	began time.Time
	at    atomic.Int64 // nanoseconds after began
}

func (s *since) note()                  { s.at.Store(int64(time.Since(s.began))) }
func (s *since) elapsed() time.Duration { return time.Since(s.began) - time.Duration(s.at.Load()) }

func (c *Coordinator) receiveTicks(stream grpc.BidiStreamingClient[internalv1.NodeReport, internalv1.TickNotice], ticked chan struct{}, reported *since) error {
	for {
		n, err := stream.Recv()
		if err != nil {
			return fault.FromGRPC(err)
		}
		now := time.Now()
		c.ticks.offer(tickMark{tick: ids.Tick(n.Tick), index: n.RaftIndex, term: n.Term}, now)
		c.heardTick()
		if reported.elapsed() >= c.cfg.Ticks.ReportActive {
			signal(ticked)
		}
	}
}

// sendReports reports: at once when asked to, after a tick while there are appends, and every now and then.
func (c *Coordinator) sendReports(ctx context.Context, stream grpc.BidiStreamingClient[internalv1.NodeReport, internalv1.TickNotice],
	leader ids.NodeID, ticked chan struct{}, done chan error, reported *since) error {
	cfg := c.cfg.Ticks
	timer := time.NewTimer(cfg.ReportQuiet)
	defer timer.Stop()
	var last uint64
	send := func(r *internalv1.NodeReport) error {
		if err := stream.Send(r); err != nil {
			return fault.FromGRPC(<-done) // the receiving side has the reason
		}
		if r.RequestTick || r.PendingAppends > 0 || r.Appends != last {
			c.busyAt.Store(int64(time.Since(c.began)))
		}
		last = r.Appends
		reported.note()
		timer.Reset(cfg.ReportQuiet)
		return nil
	}
	if err := send(c.nodeReport()); err != nil {
		return err
	}
	for {
		select {
		case <-ticked:
			if reported.elapsed() < withTick(cfg.ReportQuiet) && !c.worked(last) {
				continue
			}
		case <-c.report:
		case <-timer.C:
		case <-c.leader:
			if id, ok := c.leaderID(); ok && id != leader {
				return fault.New(fault.NotPrimary, "another node leads now").WithReason(ReasonNotLeader)
			}
			continue
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := send(c.nodeReport()); err != nil {
			return err
		}
	}
}

// withTick is from which age on something that is due every so often is done with the next tick: a node that has woken for
// one thing does the others as well, and sleeps on.
func withTick(every time.Duration) time.Duration { return every * 9 / 10 }

// worked tells whether there were appends since the last report's count, or some are under way.
func (c *Coordinator) worked(last uint64) bool {
	fn := c.load.Load()
	if fn == nil {
		return false
	}
	l := (*fn)()
	return l.Appends != last || l.PendingAppends > 0
}
