package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// Record is one record of a stream.
type Record struct {
	Partition uint32
	Offset    uint64
	Tick      uint64
	Time      time.Time // of its append
	Key       []byte    // nil: none
	Value     []byte
	Error     string // of a dead letter: why it doesn't decode
}

// ReadOption changes what a read delivers.
type ReadOption func(*millracev1.ReadRequest)

// FromEnd begins after the records that are there, rather than at the stream's start.
func FromEnd() ReadOption { return func(r *millracev1.ReadRequest) { r.FromEnd = true } }

// FromTime begins with the records appended at t or later.
func FromTime(t time.Time) ReadOption {
	return func(r *millracev1.ReadRequest) { r.FromTimeUs = t.UnixMicro() }
}

// FromOffset begins one partition with the record at offset.
func FromOffset(partition uint32, offset uint64) ReadOption {
	return func(r *millracev1.ReadRequest) {
		r.Positions = append(r.Positions, &millracev1.Position{Partition: partition, Offset: offset})
	}
}

// Partitions reads only these partitions.
func Partitions(partitions ...uint32) ReadOption {
	return func(r *millracev1.ReadRequest) { r.Partitions = append(r.Partitions, partitions...) }
}

// Follow goes on with records that are appended later, rather than ending at the end found at the start.
func Follow() ReadOption { return func(r *millracev1.ReadRequest) { r.Follow = true } }

// Limit ends after n records.
func Limit(n uint64) ReadOption { return func(r *millracev1.ReadRequest) { r.Limit = n } }

// DeadLetters delivers only the records that don't decode.
func DeadLetters() ReadOption { return func(r *millracev1.ReadRequest) { r.Dead = true } }

// reading is a read's position, from which it goes on at another node.
type reading struct {
	c         *Client
	req       *millracev1.ReadRequest
	next      map[uint32]uint64 // offset to go on with, of each partition that has begun
	remaining uint64
	started   time.Time
	good      time.Time // when something came last
}

// Read reads a stream's committed records, those of one partition in the order of their offsets. When a node is lost
// it goes on elsewhere with the next offset. The values belong to the receiver.
//
// A read FromEnd that loses its node goes on, in partitions that have brought nothing yet, with what was appended since
// it started, by the clock of this machine. A read that doesn't follow then ends at the end found by the second node.
func (c *Client) Read(ctx context.Context, stream string, opts ...ReadOption) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		req := &millracev1.ReadRequest{Stream: stream}
		for _, o := range opts {
			o(req)
		}
		now := time.Now()
		r := &reading{c: c, req: req, next: map[uint32]uint64{}, remaining: req.Limit, started: now, good: now}
		for _, p := range req.Positions {
			r.next[p.Partition] = p.Offset
		}
		patience := c.opts.patience
		if req.Follow {
			patience = followPatience
		}
		for tries := 1; ; tries++ {
			n := c.node()
			before := r.good
			ended, err := r.run(ctx, n, yield)
			if ended {
				return
			}
			if r.good != before {
				tries = 1
			}
			if !fault.Retryable(err) || ctx.Err() != nil || time.Since(r.good) > patience {
				yield(Record{}, err)
				return
			}
			r.resume()
			nodes := c.leave(n)
			if tries >= nodes {
				if perr := pause(ctx, retryDelay(tries, err)); perr != nil {
					yield(Record{}, fault.Wrap(fault.KindOfContext(ctx), perr, "read of %q", stream))
					return
				}
			}
		}
	}
}

// run delivers from one node until the read ends or the node fails.
func (r *reading) run(ctx context.Context, n *nodeConn, yield func(Record, error) bool) (ended bool, err error) {
	ctx, release := n.watch(ctx, nil)
	defer release()
	call, err := millracev1.NewLogClient(n.cc).Read(ctx, r.req)
	if err != nil {
		return false, n.explain(ctx, err)
	}
	for {
		m, err := call.Recv()
		if errors.Is(err, io.EOF) {
			if r.req.Follow {
				return false, fault.New(fault.Unavailable, "node %s ended the read of %q", n.addr, r.req.Stream)
			}
			return true, nil
		}
		if err != nil {
			return false, n.explain(ctx, err)
		}
		n.heard.Store(true)
		r.good = time.Now()
		for _, rec := range m.Records {
			if from, ok := r.next[rec.Partition]; ok && rec.Offset < from {
				continue
			}
			r.next[rec.Partition] = rec.Offset + 1
			r.c.See(rec.Tick)
			if !yield(Record{Partition: rec.Partition, Offset: rec.Offset, Tick: rec.Tick,
				Time: time.UnixMicro(rec.TimeUs).UTC(), Key: rec.Key, Value: rec.Value, Error: rec.Error}, nil) {
				return true, nil
			}
			if r.remaining > 0 {
				if r.remaining--; r.remaining == 0 {
					return true, nil
				}
			}
		}
	}
}

// resume changes the request so that it goes on where the read is.
func (r *reading) resume() {
	req := &millracev1.ReadRequest{
		Stream: r.req.Stream, Partitions: r.req.Partitions, FromTimeUs: r.req.FromTimeUs,
		Follow: r.req.Follow, Limit: r.remaining, Dead: r.req.Dead,
	}
	if r.req.FromEnd {
		req.FromTimeUs = r.started.UnixMicro()
	}
	for p, offset := range r.next {
		req.Positions = append(req.Positions, &millracev1.Position{Partition: p, Offset: offset})
	}
	r.req = req
}
