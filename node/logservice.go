package node

import (
	"context"
	"errors"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/datagen"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

const (
	// readBytes is about how much is read from a log at a time.
	readBytes = 1 << 20
	// responseRecords and responseBytes bound one answer of Read.
	responseRecords = 4096
	responseBytes   = 1 << 20
	// mergeQueue is how many batches wait between the readers of partitions and the client.
	mergeQueue = 1
	// readsAtOnce is how many partitions a read that doesn't follow reads at a time, and readTurns of how many a read has
	// records in memory at a time.
	readsAtOnce = 4
	readTurns   = 2
)

// logService serves millrace.v1.Log.
type logService struct {
	millracev1.UnimplementedLogServer
	n *Node
}

// Read implements millracev1.LogServer.
func (s *logService) Read(req *millracev1.ReadRequest, stream millracev1.Log_ReadServer) error {
	def, err := s.n.stream(stream.Context(), req.Stream)
	if err != nil {
		return err
	}
	requests, err := s.requests(def, req)
	if err != nil {
		return err
	}
	leave, err := s.n.readers.enter()
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := s.n.whileServing(stream.Context())
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	merged := make(chan *millracev1.ReadResponse, mergeQueue)
	read := &partitionRead{s: s, def: def, dead: req.Dead, turn: make(chan struct{}, readTurns), out: merged}
	if !req.Follow {
		g.SetLimit(readsAtOnce)
	}
	ended := make(chan error, 1)
	go func() {
		for _, r := range requests {
			g.Go(func() error { return read.run(gctx, r) })
		}
		ended <- g.Wait()
		close(merged)
	}()
	err = s.pass(stream, merged, req.Limit)
	cancel()
	for range merged { // readers that wait to hand over see the cancelled context
	}
	if rerr := <-ended; err == nil && !errors.Is(rerr, context.Canceled) {
		err = rerr
	}
	switch {
	case errors.Is(err, errLimit):
		return nil
	case err == nil && s.n.serving.Err() != nil:
		return stopping()
	}
	return err
}

var errLimit = errors.New("limit reached")

// pass sends on what the readers of the partitions bring, at most limit records (0: all).
func (s *logService) pass(stream millracev1.Log_ReadServer, merged <-chan *millracev1.ReadResponse, limit uint64) error {
	sent := uint64(0)
	for resp := range merged {
		if limit > 0 && sent+uint64(len(resp.Records)) >= limit {
			resp.Records = resp.Records[:limit-sent]
			if err := stream.Send(resp); err != nil {
				return err
			}
			return errLimit
		}
		sent += uint64(len(resp.Records))
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
	return nil
}

// requests splits a read into one per partition.
func (s *logService) requests(def *millracev1.Stream, req *millracev1.ReadRequest) ([]*internalv1.RecordsRequest, error) {
	total := uint32(s.n.catalog().partitions())
	parts := slices.Clone(req.Partitions)
	if len(parts) == 0 {
		for p := range total {
			parts = append(parts, p)
		}
	}
	slices.Sort(parts)
	parts = slices.Compact(parts)
	out := make([]*internalv1.RecordsRequest, len(parts))
	for i, p := range parts {
		if p >= total {
			return nil, fault.New(fault.Invalid, "partition %d: the cluster has partitions 0 to %d", p, total-1)
		}
		out[i] = &internalv1.RecordsRequest{Stream: def.Id, Partition: p, Follow: req.Follow, FromEnd: req.FromEnd, FromTimeUs: req.FromTimeUs}
		for _, pos := range req.Positions {
			if pos.Partition == p {
				out[i].Offset, out[i].FromEnd, out[i].FromTimeUs = pos.Offset, false, 0
			}
		}
	}
	return out, nil
}

// partitionRead is what the readers of a stream's partitions share.
type partitionRead struct {
	s    *logService
	def  *millracev1.Stream
	dead bool
	turn chan struct{} // who reads a log here and hands over holds a token: the others hold no records meanwhile
	out  chan<- *millracev1.ReadResponse
}

// run brings one partition's records to out; when the partition moves it goes on at its new primary.
func (r *partitionRead) run(ctx context.Context, req *internalv1.RecordsRequest) error {
	split, err := newSplitter(r.def, ids.PartitionID(req.Partition), r.dead)
	if err != nil {
		return err
	}
	started := false
	take := func(b *internalv1.RecordsResponse) error {
		if !started {
			// From here on a reconnect goes on with the next offset, wherever the read began.
			started, req.FromEnd, req.FromTimeUs, req.Offset = true, false, 0, b.StartOffset
		}
		return split.records(b, req.Offset, func(resp *millracev1.ReadResponse) error {
			select {
			case r.out <- resp:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, func(next uint64) { req.Offset = next })
	}
	for {
		err := r.s.n.records(ctx, req, r.turn, take)
		if err == nil || !fault.Retryable(err) || ctx.Err() != nil {
			return err
		}
		if err := pause(ctx, retryPause); err != nil {
			return err
		}
	}
}

// records runs Records at the partition's primary.
func (n *Node) records(ctx context.Context, req *internalv1.RecordsRequest, turn chan struct{}, take func(*internalv1.RecordsResponse) error) error {
	node, ok := n.catalog().primary(ids.PartitionID(req.Partition))
	if !ok {
		return fault.New(fault.Unavailable, "partition %d has no primary now", req.Partition)
	}
	if node == n.id {
		return n.recordsHere(ctx, req, turn, take)
	}
	client, err := n.queryClient(node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Records(ctx, req)
	if err != nil {
		return fault.FromGRPC(err)
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.FromGRPC(err)
		}
		if err := take(resp); err != nil {
			return err
		}
	}
}

// Records implements internalv1.QueryServer.
func (s *queryService) Records(req *internalv1.RecordsRequest, stream internalv1.Query_RecordsServer) error {
	return s.n.recordsHere(stream.Context(), req, make(chan struct{}, 1), stream.Send)
}

// recordsHere reads a log whose primary is here, a piece at a time, each while it holds a token of turn. The answer given to
// take is valid during the call.
func (n *Node) recordsHere(ctx context.Context, req *internalv1.RecordsRequest, turn chan struct{}, take func(*internalv1.RecordsResponse) error) error {
	p, id := ids.PartitionID(req.Partition), ids.StreamID(req.Stream)
	if node, _ := n.catalog().primary(p); node != n.id {
		return fault.New(fault.NotPrimary, "partition %d has moved; retry", p)
	}
	end, err := n.host.End(p, id)
	if err != nil {
		return n.spared(p, err)
	}
	if !end.Settled && (!req.Follow || req.FromEnd) {
		return fault.New(fault.Unavailable, "partition %d: the new primary hasn't heard the other replicas yet; retry", p).WithRetryAfter(retryPause)
	}
	from := max(ids.Offset(req.Offset), end.Start)
	switch {
	case req.FromEnd:
		from = end.End
	case req.FromTimeUs != 0:
		if from, err = n.host.OffsetAtTime(p, id, req.FromTimeUs); err != nil {
			return err
		}
	}
	if err := take(&internalv1.RecordsResponse{BaseOffset: uint64(from), StartOffset: uint64(from), EndOffset: uint64(end.End)}); err != nil {
		return err
	}
	first := from
	stop := end.End
	for {
		for from < stop {
			next := from
			select {
			case turn <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			var buf rawBuffer // of this piece: the next may be long in coming
			var undecodable error
			err := n.host.Read(p, id, from, readBytes, func(b *partition.Batch) (bool, error) {
				raw, err := buf.raw(b)
				if err != nil {
					undecodable = err // on all nodes
					return false, err
				}
				next = b.BaseOffset + ids.Offset(b.Count)
				return next < stop, take(&internalv1.RecordsResponse{
					BaseOffset: uint64(b.BaseOffset), Count: b.Count, Tick: uint64(b.Tick), TimeUs: b.TimeMicros,
					Raw: raw, StartOffset: uint64(first), EndOffset: uint64(stop),
				})
			})
			<-turn
			if err != nil && undecodable == nil {
				err = n.spared(p, err)
			}
			if err != nil {
				return err
			}
			if next == from {
				break // truncated meanwhile
			}
			from = next
		}
		if !req.Follow {
			return nil
		}
		err := n.await(ctx, func(c *catalog) (bool, error) {
			if node, _ := c.primary(p); node != n.id {
				return false, fault.New(fault.NotPrimary, "partition %d has moved; retry", p)
			}
			if c.streams[id] == nil {
				if uint64(id) >= c.state.NextObjectId { // ids are never reused: a node that starts has yet to hear of it
					return false, fault.New(fault.Unavailable, "the stream isn't known yet on this node; retry").WithRetryAfter(retryPause)
				}
				return false, fault.New(fault.NotFound, "the stream was dropped").WithReason("UNKNOWN_STREAM")
			}
			e, err := n.host.End(p, id)
			stop = e.End
			return stop > from, err
		})
		if err != nil {
			return err
		}
	}
}

// splitter turns batches into the records of an answer.
type splitter struct {
	p     ids.PartitionID
	lines *datagen.Lines  // of a stream with a source
	dead  *record.Decoder // set when only dead letters are wanted
	skip  *record.Delta
	why   map[uint64]string // of the dead letters of a batch, by offset
}

func newSplitter(def *millracev1.Stream, p ids.PartitionID, dead bool) (*splitter, error) {
	s := &splitter{p: p}
	var err error
	if def.Source != nil {
		if s.lines, err = datagen.NewLines(def); err != nil {
			return nil, err
		}
	}
	if !dead {
		return s, nil
	}
	if s.dead, err = datagen.NewDecoder(def, nil); err != nil {
		return nil, err
	}
	s.skip = record.NewDelta(s.dead.Schema(), 0)
	s.why = map[uint64]string{}
	return s, nil
}

// records cuts the batch's records from offset on into answers for emit; passed is told the next offset after each.
func (s *splitter) records(b *internalv1.RecordsResponse, from uint64, emit func(*millracev1.ReadResponse) error, passed func(next uint64)) error {
	if b.Count == 0 {
		return nil
	}
	if s.dead != nil {
		clear(s.why)
		s.skip.Reset()
		meta := record.Meta{Partition: s.p, BaseOffset: ids.Offset(b.BaseOffset), Tick: ids.Tick(b.Tick), TimeMicros: b.TimeUs}
		err := s.dead.Decode(b.Raw, meta, s.skip, func(offset ids.Offset, _ []byte, _ bool, _ []byte, err error) {
			s.why[uint64(offset)] = err.Error()
		})
		if err != nil {
			return err
		}
	}
	out := &answers{s: s, b: b, resp: &millracev1.ReadResponse{}, emit: emit, passed: passed}
	if s.lines != nil {
		return s.generated(b, from, out)
	}
	it := record.NewIter(b.Raw)
	offset := b.BaseOffset
	for ; it.Next(); offset++ {
		why, isDead := s.why[offset]
		if offset < from || s.dead != nil && !isDead {
			continue
		}
		r := &millracev1.ReadRecord{Offset: offset, Value: slices.Clone(it.Value()), Error: why}
		if key, hasKey := it.Key(); hasKey {
			r.Key = append([]byte{}, key...)
		}
		if err := out.add(r); err != nil {
			return err
		}
	}
	if err := it.Err(); err != nil {
		return fault.Wrap(fault.Corrupted, err, "partition %d, offset %d", s.p, b.BaseOffset)
	}
	return out.flush(offset)
}

// generated makes the records that a batch of a stream with a source stands for; none of them is dead.
func (s *splitter) generated(b *internalv1.RecordsResponse, from uint64, out *answers) error {
	end := b.BaseOffset + uint64(b.Count)
	for offset := max(b.BaseOffset, from); offset < end && s.dead == nil; offset++ {
		if err := out.add(&millracev1.ReadRecord{Offset: offset, Value: s.lines.Append(nil, s.p, ids.Offset(offset))}); err != nil {
			return err
		}
	}
	return out.flush(end)
}

// answers cuts a batch's records into answers of a bounded size.
type answers struct {
	s      *splitter
	b      *internalv1.RecordsResponse
	resp   *millracev1.ReadResponse
	size   int
	emit   func(*millracev1.ReadResponse) error
	passed func(next uint64)
}

func (a *answers) add(r *millracev1.ReadRecord) error {
	r.Partition, r.Tick, r.TimeUs = uint32(a.s.p), a.b.Tick, a.b.TimeUs
	a.resp.Records = append(a.resp.Records, r)
	if a.size += len(r.Value) + len(r.Key) + 64; a.size >= responseBytes || len(a.resp.Records) >= responseRecords {
		return a.flush(r.Offset + 1)
	}
	return nil
}

func (a *answers) flush(next uint64) error {
	if len(a.resp.Records) > 0 {
		if err := a.emit(a.resp); err != nil {
			return err
		}
	}
	a.passed(next)
	a.resp, a.size = &millracev1.ReadResponse{}, 0
	return nil
}
