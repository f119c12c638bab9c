package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// ingest serves millrace.v1.Ingest.
type ingest struct {
	millracev1.UnimplementedIngestServer
	n       *Node
	batcher *batcher
}

// DescribeStream implements millracev1.IngestServer.
func (s *ingest) DescribeStream(ctx context.Context, req *millracev1.DescribeStreamRequest) (*millracev1.DescribeStreamResponse, error) {
	def, err := s.n.stream(ctx, req.Stream)
	if err != nil {
		return nil, err
	}
	c := s.n.catalog()
	resp := &millracev1.DescribeStreamResponse{Stream: def, MaxRecordBytes: uint32(s.n.cfg.MaxRecordBytes)}
	for _, p := range c.state.Partitions {
		r := &millracev1.Route{Partition: p.Id, Epoch: p.Epoch}
		if m := c.members[ids.NodeID(p.Primary)]; m != nil {
			r.Primary = m.Grpc
		}
		resp.Routes = append(resp.Routes, r)
	}
	return resp, nil
}

// Append implements millracev1.IngestServer.
func (s *ingest) Append(ctx context.Context, req *millracev1.AppendRequest) (*millracev1.AppendResponse, error) {
	conn, leave := s.n.intake.conn(ctx)
	defer leave()
	claim := &claim{in: s.n.intake, conn: conn}
	if err := claim.settle(ctx, requestBytes(req)); err != nil {
		return nil, err
	}
	answered := make(chan *millracev1.AppendResponse, 1)
	s.start(ctx, req, false, func(r *millracev1.AppendResponse) {
		claim.free() // also where nobody waits for the answer any more
		answered <- r
	})
	select {
	case resp := <-answered:
		if resp.Error != nil {
			return nil, status.FromProto(resp.Error).Err()
		}
		return resp, nil
	case <-ctx.Done():
		return nil, fault.Wrap(fault.KindOfContext(ctx), ctx.Err(), "append to %q: whether it was appended is unknown", req.Stream)
	}
}

// AppendStream implements millracev1.IngestServer. It stops reading while the connection has too much in flight,
// which holds the client back through gRPC's flow control.
func (s *ingest) AppendStream(stream millracev1.Ingest_AppendStreamServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	md, _ := metadata.FromIncomingContext(ctx)
	forwarded := len(md.Get(forwardedKey)) > 0
	out := newOutbox()
	sent := make(chan error, 1)
	go func() {
		err := out.run(stream)
		cancel() // a client that takes no answers gets no more appends
		sent <- err
	}()
	var err error
	inFlight := semaphore.NewWeighted(s.n.cfg.ConnInFlightBytes)
	if forwarded {
		err = s.receiveForwarded(ctx, stream, inFlight, out)
	} else {
		err = s.receive(ctx, stream, inFlight, out)
	}
	// Everything taken is answered before the stream ends, so that a client that closes its side hears of all.
	if err == nil {
		err = inFlight.Acquire(ctx, s.n.cfg.ConnInFlightBytes)
	}
	out.close()
	if serr := <-sent; serr != nil {
		return serr
	}
	return err
}

// receive takes a client's appends. While the node or the connection holds too much, it takes none; what comes in between
// and finds no room is refused with a delay.
func (s *ingest) receive(ctx context.Context, stream millracev1.Ingest_AppendStreamServer, inFlight *semaphore.Weighted, out *outbox) error {
	conn, leave := s.n.intake.conn(ctx)
	defer leave()
	size := int64(0)
	for {
		claim, keep, err := s.n.intake.reserve(ctx, conn, size)
		if err != nil {
			return fault.Wrap(fault.Canceled, ctx.Err(), "append stream")
		}
		req, err := stream.Recv()
		keep()
		if err != nil {
			claim.free()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		size = requestBytes(req)
		weight := min(size, s.n.cfg.ConnInFlightBytes)
		if err := inFlight.Acquire(ctx, weight); err != nil {
			claim.free()
			return fault.Wrap(fault.Canceled, err, "append stream")
		}
		if err := claim.settle(ctx, size); err != nil {
			out.put(refusalOf(req, err))
			inFlight.Release(weight)
			continue
		}
		s.start(ctx, req, false, func(r *millracev1.AppendResponse) {
			out.put(r)
			claim.free()
			inFlight.Release(weight)
		})
	}
}

func refusalOf(req *millracev1.AppendRequest, err error) *millracev1.AppendResponse {
	return &millracev1.AppendResponse{RequestId: req.RequestId, Error: fault.Status(err).Proto()}
}

// receiveForwarded takes what another node passes on, which holds it for its clients there.
func (s *ingest) receiveForwarded(ctx context.Context, stream millracev1.Ingest_AppendStreamServer, inFlight *semaphore.Weighted, out *outbox) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		weight := min(requestBytes(req), s.n.cfg.ConnInFlightBytes)
		if err := inFlight.Acquire(ctx, weight); err != nil {
			return fault.Wrap(fault.Canceled, err, "append stream")
		}
		s.start(ctx, req, true, func(r *millracev1.AppendResponse) {
			out.put(r)
			inFlight.Release(weight)
		})
	}
}

// requestBytes is what a request holds in memory, with a share for the request itself.
func requestBytes(req *millracev1.AppendRequest) int64 {
	const overhead = 256
	n := int64(overhead)
	if req.Batch != nil {
		n += int64(len(req.Batch.Payload))
	}
	for _, r := range req.Records.GetRecords() {
		n += int64(len(r.Key)+len(r.Value)) + overhead
	}
	return n
}

// start checks a request and starts its appends; answer is called once, from any goroutine.
func (s *ingest) start(ctx context.Context, req *millracev1.AppendRequest, forwarded bool, answer func(*millracev1.AppendResponse)) {
	refuse := func(err error) { answer(refusalOf(req, err)) }
	def, err := s.n.stream(ctx, req.Stream)
	if err != nil {
		refuse(err)
		return
	}
	if def.Source != nil {
		refuse(fault.SQL(fault.Invalid, "42809", "stream %q has a source, which makes its records; none can be appended", def.Name).WithReason("HAS_SOURCE"))
		return
	}
	seen := ids.Tick(req.SeenTick)
	if err := s.n.checkSeenTick(seen); err != nil {
		refuse(err)
		return
	}
	switch {
	case req.Batch != nil && req.Records != nil:
		refuse(fault.New(fault.Invalid, "append to %q: give records or a batch, not both", req.Stream))
	case req.Batch != nil:
		if !forwarded {
			if err := s.checkBatch(req.Batch); err != nil {
				refuse(err)
				return
			}
			shrink(req.Batch)
		}
		s.n.router.append(ctx, appendJob{stream: def, batch: req.Batch, seenTick: seen, since: ids.Tick(req.UnchangedSince), forwarded: forwarded,
			done: func(a *millracev1.Appended, err error) {
				if err != nil {
					refuse(err)
					return
				}
				answer(&millracev1.AppendResponse{RequestId: req.RequestId, Appended: []*millracev1.Appended{a}, Tick: a.Tick})
			}})
	case len(req.Records.GetRecords()) == 0:
		answer(&millracev1.AppendResponse{RequestId: req.RequestId})
	default:
		if err := s.checkRecords(req.Records.Records); err != nil {
			refuse(err)
			return
		}
		s.batcher.add(ctx, def, req.Records.Records, seen, func(appended []*millracev1.Appended, err error) {
			resp := &millracev1.AppendResponse{RequestId: req.RequestId, Appended: appended}
			for _, a := range appended {
				resp.Tick = max(resp.Tick, a.Tick)
			}
			if err != nil {
				resp.Error = fault.Status(err).Proto()
			}
			answer(resp)
		})
	}
}

func (s *ingest) checkRecords(records []*millracev1.Record) error {
	for i, r := range records {
		if n := len(r.Key) + len(r.Value); n > s.n.cfg.MaxRecordBytes {
			return tooLarge(i, n, s.n.cfg.MaxRecordBytes)
		}
	}
	return nil
}

func tooLarge(i, n, limit int) error {
	return fault.New(fault.TooLarge, "record %d of the request has %d bytes, the limit is %d (--max-record)", i, n, limit).
		WithReason("RECORD_TOO_LARGE")
}

var rawBuffers = sync.Pool{New: func() any { return new([]byte) }}

// checkBatch refuses a batch that no reader could decode: once appended, it is there for good.
func (s *ingest) checkBatch(b *millracev1.Batch) error {
	if record.Checksum(b.Payload) != b.Crc32C {
		return fault.New(fault.Invalid, "batch of partition %d: its checksum is wrong", b.Partition).WithReason("BATCH_CHECKSUM")
	}
	if int(b.UncompressedBytes) > s.n.cfg.MaxMessageBytes {
		return fault.New(fault.TooLarge, "batch of partition %d has %d bytes, the limit is %d",
			b.Partition, b.UncompressedBytes, s.n.cfg.MaxMessageBytes).WithReason("BATCH_TOO_LARGE")
	}
	raw := b.Payload
	if b.Compression != millracev1.Compression_COMPRESSION_NONE {
		buf := rawBuffers.Get().(*[]byte)
		defer rawBuffers.Put(buf)
		out, err := record.Decompress((*buf)[:0], b.Payload, b.Compression, int(b.UncompressedBytes))
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "batch of partition %d", b.Partition).WithReason("BATCH_MALFORMED")
		}
		*buf, raw = out, out
	}
	count := 0
	it := record.NewIter(raw)
	for it.Next() {
		key, _ := it.Key()
		if n := len(key) + len(it.Value()); n > s.n.cfg.MaxRecordBytes {
			return tooLarge(count, n, s.n.cfg.MaxRecordBytes)
		}
		count++
	}
	if err := it.Err(); err != nil {
		return fault.Wrap(fault.Invalid, err, "batch of partition %d", b.Partition).WithReason("BATCH_MALFORMED")
	}
	if count != int(b.Count) || count == 0 || len(raw) != int(b.UncompressedBytes) {
		return fault.New(fault.Invalid, "batch of partition %d says %d records in %d bytes and has %d in %d",
			b.Partition, b.Count, b.UncompressedBytes, count, len(raw)).WithReason("BATCH_MALFORMED")
	}
	return nil
}

// shrinkBytes is from what size on a batch is worth compressing.
const shrinkBytes = 4 << 10

// shrink compresses a batch that came uncompressed, where that saves an eighth or more: every byte of it is written twice on
// each replica, and the disk is what a cluster runs out of first. S2 gives up quickly on what doesn't compress.
func shrink(b *millracev1.Batch) {
	if b.Compression != millracev1.Compression_COMPRESSION_NONE || len(b.Payload) < shrinkBytes {
		return
	}
	buf := rawBuffers.Get().(*[]byte)
	defer rawBuffers.Put(buf)
	out, err := record.Compress((*buf)[:0], b.Payload, millracev1.Compression_COMPRESSION_S2)
	*buf = out
	if err != nil || len(out) > len(b.Payload)-len(b.Payload)/8 {
		return // it stays as it came
	}
	b.Payload = bytes.Clone(out)
	b.Compression, b.Crc32C = millracev1.Compression_COMPRESSION_S2, record.Checksum(b.Payload)
}

// outbox sends answers in the order put. It is bounded by the requests in flight, whose share is released after put.
type outbox struct {
	mu     sync.Mutex
	ready  *sync.Cond
	queue  []*millracev1.AppendResponse
	closed bool
}

func newOutbox() *outbox {
	o := &outbox{}
	o.ready = sync.NewCond(&o.mu)
	return o
}

func (o *outbox) put(r *millracev1.AppendResponse) {
	o.mu.Lock()
	o.queue = append(o.queue, r)
	o.mu.Unlock()
	o.ready.Signal()
}

func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.ready.Signal()
}

// run sends until the outbox is closed and empty, or the stream breaks.
func (o *outbox) run(stream millracev1.Ingest_AppendStreamServer) error {
	var batch []*millracev1.AppendResponse
	for {
		o.mu.Lock()
		for len(o.queue) == 0 && !o.closed {
			o.ready.Wait()
		}
		batch, o.queue = o.queue, batch[:0]
		done := len(batch) == 0
		o.mu.Unlock()
		if done {
			return nil
		}
		for _, r := range batch {
			if err := stream.Send(r); err != nil {
				return err
			}
		}
	}
}
