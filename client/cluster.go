package client

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// Cluster administers the cluster.
type Cluster struct{ c *Client }

// Cluster returns the cluster's administration.
func (c *Client) Cluster() Cluster { return Cluster{c} }

// Describe tells the cluster's nodes, partitions and moves under way.
func (a Cluster) Describe(ctx context.Context) (*millracev1.DescribeResponse, error) {
	var d *millracev1.DescribeResponse
	err := a.c.each(ctx, func(ctx context.Context, n *nodeConn) (err error) {
		d, err = millracev1.NewClusterClient(n.cc).Describe(ctx, &millracev1.DescribeRequest{})
		return err
	})
	if err != nil {
		return nil, err
	}
	a.c.learn(d)
	return d, nil
}

// Drain starts to move everything off a node, given by name or id, and returns. It may be repeated.
func (a Cluster) Drain(ctx context.Context, node string) error {
	return a.c.each(ctx, func(ctx context.Context, n *nodeConn) error {
		_, err := millracev1.NewClusterClient(n.cc).Drain(ctx, &millracev1.DrainRequest{Node: node})
		return err
	})
}

// pollInterval is how often a drain is looked at.
const pollInterval = 200 * time.Millisecond

// WaitDrained waits until a node that is being drained can be stopped. progress, which may be nil, is given each
// description on the way.
func (a Cluster) WaitDrained(ctx context.Context, node string, progress func(*millracev1.DescribeResponse)) error {
	for {
		d, err := a.Describe(ctx)
		if err != nil {
			return err
		}
		if progress != nil {
			progress(d)
		}
		found := false
		for _, n := range d.Nodes {
			if n.Name != node && n.Id != node {
				continue
			}
			found = true
			switch n.State {
			case "drained", "removed":
				return nil
			case "dead":
				return fault.New(fault.Conflict, "node %q died before it was drained; its replicas are made anew elsewhere, then remove it", node)
			case "alive", "joining":
				return fault.New(fault.Conflict, "node %q is %s and no longer drains", node, n.State)
			}
		}
		if !found {
			return fault.New(fault.NotFound, "node %q is not in the cluster", node)
		}
		if err := pause(ctx, pollInterval); err != nil {
			return fault.Wrap(fault.KindOfContext(ctx), err, "node %q goes on draining", node)
		}
	}
}

// Remove takes a dead or drained node, given by name or id, out of the cluster. force removes one that is neither.
func (a Cluster) Remove(ctx context.Context, node string, force bool) error {
	return a.c.once(ctx, func(ctx context.Context, n *nodeConn) error {
		_, err := millracev1.NewClusterClient(n.cc).Remove(ctx, &millracev1.RemoveRequest{Node: node, Force: force})
		return err
	})
}

// Recover makes a node, given by name or id, the primary of a partition whose in-sync replicas are all lost for good, and
// returns what is lost with that. Without unsafe it only tells what would be.
func (a Cluster) Recover(ctx context.Context, partition uint32, node string, unsafe bool) (loss string, err error) {
	err = a.c.once(ctx, func(ctx context.Context, n *nodeConn) error {
		resp, err := millracev1.NewClusterClient(n.cc).Recover(ctx, &millracev1.RecoverRequest{Partition: partition, Node: node, Unsafe: unsafe})
		loss = resp.GetLoss()
		return err
	})
	return loss, err
}

// once calls fn, which must not be repeated, on the first node that can be connected to. Where the node goes away
// before it answers, the error says so.
func (c *Client) once(ctx context.Context, fn func(context.Context, *nodeConn) error) error {
	var n *nodeConn
	if err := c.each(ctx, func(ctx context.Context, m *nodeConn) error {
		n = m
		return m.connected(ctx)
	}); err != nil {
		return err
	}
	return unknownOutcome(n.call(ctx, fn))
}

// unknownOutcome marks the error of a call whose connection was lost: unlike a refusal by the node it doesn't tell
// whether something was done.
func unknownOutcome(err error) error {
	f, ok := err.(*fault.Error)
	if ok && f.Kind == fault.Unavailable && f.Reason == "" {
		return &fault.Error{Kind: fault.Unavailable, Reason: "OUTCOME_UNKNOWN",
			Message: f.Error() + "; whether it was done is unknown, look before you repeat it"}
	}
	return err
}
