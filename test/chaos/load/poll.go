package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace/client"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/test/chaos/check"
	"github.com/millrace/millrace/test/chaos/cluster"
)

// poll follows the log. Now and then it begins anew, with a new client, somewhat before the place where it was.
func (l *Load) poll(ctx context.Context, id int) {
	at := map[uint32]uint64{}
	for life := 0; ctx.Err() == nil; life++ {
		c := l.dial(ctx, id+life)
		if c == nil {
			return
		}
		p := l.Ledger.Poll(fmt.Sprintf("reader %d.%d", id, life), at)
		l.follow(ctx, c, p, at)
		c.Close()
		at = p.Next()
		for k, v := range at {
			at[k] = v - min(v, uint64(rand.IntN(50)))
		}
	}
}

func (l *Load) follow(ctx context.Context, c *client.Client, p *check.Poll, at map[uint32]uint64) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second+rand.N(20*time.Second))
	defer cancel()
	opts := []client.ReadOption{client.Follow()}
	for k, v := range at {
		opts = append(opts, client.FromOffset(k, v))
	}
	for r, err := range c.Read(ctx, "ev", opts...) {
		if err != nil {
			if ctx.Err() == nil {
				l.failures.add("read: " + client.Reason(err))
				if client.Reason(err) == "UNKNOWN_STREAM" {
					l.f.Add("wrong-error", "%s: %v", p.Name(), err)
				}
			}
			return
		}
		e, err := check.ParseEvent(r.Value)
		if err != nil {
			l.f.Add("phantom", "partition %d, offset %d: %v", r.Partition, r.Offset, err)
			return
		}
		p.Saw(check.Record{Partition: r.Partition, Offset: r.Offset, Tick: r.Tick, Event: e})
	}
}

// ReadAll reads the whole log of the events through one node.
func ReadAll(ctx context.Context, n *cluster.Node, f *check.Findings) (map[uint32][]check.Record, error) {
	out := map[uint32][]check.Record{}
	return out, readLog(ctx, n, "ev", func(r *millracev1.ReadRecord) {
		e, err := check.ParseEvent(r.Value)
		if err != nil {
			f.Add("phantom", "partition %d, offset %d: %v", r.Partition, r.Offset, err)
			return
		}
		out[r.Partition] = append(out[r.Partition], check.Record{Partition: r.Partition, Offset: r.Offset, Tick: r.Tick, Event: e})
	})
}

// ReadTable reads the whole log of the table through one node.
func ReadTable(ctx context.Context, n *cluster.Node, f *check.Findings) (map[uint32][]check.Change, error) {
	out := map[uint32][]check.Change{}
	return out, readLog(ctx, n, check.TableName, func(r *millracev1.ReadRecord) {
		c, err := check.ParseChange(r.Key, r.Value)
		if err != nil {
			f.Add("phantom", "the table's partition %d, offset %d: %v", r.Partition, r.Offset, err)
			return
		}
		c.Partition, c.Offset, c.Tick = r.Partition, r.Offset, r.Tick
		out[r.Partition] = append(out[r.Partition], c)
	})
}

// readLog gives every record of a log, as it is now, to fn.
func readLog(ctx context.Context, n *cluster.Node, stream string, fn func(*millracev1.ReadRecord)) error {
	conn, err := direct(n)
	if err != nil {
		return err
	}
	defer conn.Close()
	call, err := millracev1.NewLogClient(conn).Read(ctx, &millracev1.ReadRequest{Stream: stream})
	if err != nil {
		return err
	}
	for {
		m, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, r := range m.Records {
			fn(r)
		}
	}
}
