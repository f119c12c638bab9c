package node

import (
	"context"
	"sync"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// Stats implements internalv1.QueryServer.
func (s *queryService) Stats(ctx context.Context, req *internalv1.StatsRequest) (*internalv1.StatsResponse, error) {
	return s.n.stats(ctx, req)
}

// stats tells what this node knows as the primary of its partitions.
func (n *Node) stats(ctx context.Context, req *internalv1.StatsRequest) (*internalv1.StatsResponse, error) {
	c := n.catalog()
	resp := &internalv1.StatsResponse{}
	byStream := map[ids.StreamID]*internalv1.StreamStats{}
	for _, s := range c.state.Streams {
		st := &internalv1.StreamStats{Stream: s.Stream.Id}
		byStream[ids.StreamID(s.Stream.Id)] = st
		resp.Streams = append(resp.Streams, st)
	}
	for _, p := range c.state.Partitions {
		if ids.NodeID(p.Primary) != n.id {
			continue
		}
		bytes := uint64(0)
		for id, st := range byStream {
			end, err := n.host.End(ids.PartitionID(p.Id), id)
			if err != nil {
				return nil, err
			}
			st.Records += uint64(end.End - end.Start)
			st.Bytes += uint64(end.Bytes)
			bytes += uint64(end.Bytes)
			if !req.Dead || c.streams[id].Stream.Source != nil { // what is made decodes
				continue
			}
			dead, err := n.dead.count(ctx, n.host, ids.PartitionID(p.Id), c.streams[id].Stream, end)
			if err != nil {
				return nil, err
			}
			st.Dead += dead
		}
		resp.Partitions = append(resp.Partitions, &internalv1.PartitionStats{Partition: p.Id, EndBytes: bytes, Primary: true, Epoch: p.Epoch})
	}
	resp.Views = n.runtime.DetailedStats(ids.StreamID(req.View))
	return resp, nil
}

// deadCounts remembers how many records of each log don't decode, up to where somebody last asked.
type deadCounts struct {
	mu   sync.Mutex
	logs map[laneID]*deadCount
}

type deadCount struct {
	mu   sync.Mutex
	next ids.Offset
	dead []ids.Offset // in order
}

func newDeadCounts() *deadCounts { return &deadCounts{logs: map[laneID]*deadCount{}} }

// configure forgets the logs of streams that are gone.
func (d *deadCounts) configure(c *catalog) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.logs {
		if c.streams[id.stream] == nil {
			delete(d.logs, id)
		}
	}
}

// count returns how many records between the log's start and end don't decode; it reads what came since last time.
func (d *deadCounts) count(ctx context.Context, host *partition.Host, p ids.PartitionID, def *millracev1.Stream, end partition.LogEnd) (uint64, error) {
	id := laneID{ids.StreamID(def.Id), p}
	d.mu.Lock()
	l := d.logs[id]
	if l == nil {
		l = &deadCount{}
		d.logs[id] = l
	}
	d.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = max(l.next, end.Start)
	dec, err := record.NewDecoder(def, nil)
	if err != nil {
		return 0, err
	}
	skip := record.NewDelta(dec.Schema(), 0)
	var buf rawBuffer
	for l.next < end.End {
		before := l.next
		err := host.Read(p, id.stream, l.next, readBytes, func(b *partition.Batch) (bool, error) {
			if err := ctx.Err(); err != nil {
				return false, fault.Wrap(fault.KindOfContext(ctx), err, "counting dead letters of %q", def.Name)
			}
			raw, err := buf.raw(b)
			if err != nil {
				return false, err
			}
			skip.Reset()
			meta := record.Meta{Partition: p, BaseOffset: b.BaseOffset, Tick: b.Tick, TimeMicros: b.TimeMicros}
			err = dec.Decode(raw, meta, skip, func(offset ids.Offset, _ []byte, _ bool, _ []byte, _ error) {
				l.dead = append(l.dead, offset)
			})
			l.next = b.BaseOffset + ids.Offset(b.Count)
			return true, err
		})
		if err != nil {
			return 0, err
		}
		if l.next == before {
			break
		}
	}
	for len(l.dead) > 0 && l.dead[0] < end.Start { // gone by retention
		l.dead = l.dead[1:]
	}
	return uint64(len(l.dead)), nil
}
