package node

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/datagen"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition"
	"github.com/millrace/millrace/plan"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// scanRows is how many rows go through a fragment at a time.
const scanRows = 4096

// queryService serves internalv1.Query to the nodes that statements reached.
type queryService struct {
	internalv1.UnimplementedQueryServer
	n *Node
}

// Progress implements internalv1.QueryServer.
func (s *queryService) Progress(ctx context.Context, req *internalv1.ProgressRequest) (*internalv1.ProgressResponse, error) {
	return s.n.progress(ctx, req)
}

// progress is Progress, for this node's own statements too.
func (n *Node) progress(ctx context.Context, req *internalv1.ProgressRequest) (*internalv1.ProgressResponse, error) {
	object := ids.StreamID(req.Object)
	var parts []ids.PartitionID
	err := n.await(ctx, func(c *catalog) (bool, error) {
		if object != 0 && c.streams[object] == nil && c.views[object] == nil {
			return false, nil // this node has not applied its CREATE
		}
		parts = parts[:0]
		for _, p := range c.state.Partitions {
			if ids.NodeID(p.Primary) == n.id {
				parts = append(parts, ids.PartitionID(p.Id))
			}
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	resp := &internalv1.ProgressResponse{}
	for _, p := range parts {
		resp.Partitions = append(resp.Partitions, uint32(p))
	}
	if req.View {
		done, err := n.runtime.BeginRead(ctx, object, parts, ids.Tick(req.MinTick))
		if err != nil {
			return nil, notServedYet(err)
		}
		resp.Tick = least(done)
		if last, ok := n.lastTick(object); ok {
			if resp.Tick = min(resp.Tick, uint64(last)); resp.Tick == 0 || resp.Tick < req.MinTick {
				return nil, wasReplaced(n.catalog().views[object].GetName())
			}
		}
		if req.Oldest {
			oldest, err := n.runtime.Oldest(object, parts)
			if err != nil {
				return nil, notServedYet(err)
			}
			resp.OldestTick = uint64(oldest)
		}
		return resp, nil
	}
	closed := make([]ids.Tick, len(parts))
	err = n.await(ctx, func(*catalog) (bool, error) {
		for i, p := range parts {
			t, ok := n.host.Closed(p)
			if !ok {
				return false, fault.New(fault.NotPrimary, "partition %d has moved; retry", p)
			}
			if uint64(t) < max(req.MinTick, 1) {
				n.coord.RequestTick()
				return false, nil
			}
			closed[i] = t
		}
		return true, nil
	})
	resp.Tick = least(closed)
	return resp, err
}

func least(ticks []ids.Tick) uint64 {
	var out ids.Tick
	for i, t := range ticks {
		if i == 0 || t < out {
			out = t
		}
	}
	return uint64(out)
}

// Scan implements internalv1.QueryServer.
func (s *queryService) Scan(req *internalv1.ScanRequest, stream internalv1.Query_ScanServer) error {
	p, err := plan.Unmarshal(req.Plan)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "scan")
	}
	parts := make([]ids.PartitionID, len(req.Partitions))
	for i, id := range req.Partitions {
		parts[i] = ids.PartitionID(id)
	}
	if int(req.Stage) >= len(p.Stages) {
		return fault.New(fault.Invalid, "scan of stage %d of %d", req.Stage, len(p.Stages))
	}
	l := &layout{tick: ids.Tick(req.Tick)}
	if req.Analyze {
		l.measure = &measured{stages: map[int][]uint64{}}
	}
	err = s.n.scan(stream.Context(), p, int(req.Stage), parts, l, func(d *record.Delta) error {
		return stream.Send(&internalv1.ScanResponse{Delta: record.MarshalDelta(nil, d)})
	})
	if err == nil && req.Analyze {
		err = stream.Send(&internalv1.ScanResponse{OpRows: l.measure.stages[int(req.Stage)]})
	}
	return err
}

// scan runs a stage of p over partitions of which this node is the primary, at l's tick, which Progress allowed.
// emit is called by one goroutine at a time and must not keep the delta.
func (n *Node) scan(ctx context.Context, p *plan.Plan, number int, parts []ids.PartitionID, l *layout, emit func(*record.Delta) error) error {
	first := &p.Stages[number]
	leaf := leafOf(first)
	if leaf < 0 {
		return fault.New(fault.Internal, "plan has no scan")
	}
	var mu sync.Mutex
	locked := func(d *record.Delta) error {
		if d == nil || d.N == 0 {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		return emit(d)
	}
	memory := n.queries.begin()
	defer memory.end()
	todo := make(chan ids.PartitionID, len(parts))
	for _, id := range parts {
		todo <- id
	}
	close(todo)
	g, ctx := errgroup.WithContext(ctx)
	for range min(runtime.GOMAXPROCS(0), len(parts)) {
		g.Go(func() error {
			for id := range todo {
				if err := n.scanPartition(ctx, first, leaf, id, l, number, memory, locked); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func leafOf(s *plan.Stage) int {
	for i := range s.Ops {
		if s.Ops[i].Kind == plan.OpScan {
			return i
		}
	}
	return -1
}

// linear tells whether a stage's output for some rows doesn't depend on other rows, so that it can be streamed.
func linear(s *plan.Stage) bool {
	for i := range s.Ops {
		switch s.Ops[i].Kind {
		case plan.OpScan, plan.OpInput, plan.OpFilter, plan.OpProject, plan.OpTumble, plan.OpHop, plan.OpDropLate, plan.OpLate, plan.OpUnnest, plan.OpExpand, plan.OpValues:
		default:
			return false
		}
	}
	return true
}

// partitionScan feeds one partition's rows to a fragment.
type partitionScan struct {
	frag   *dataflow.Fragment
	leaf   int
	tick   ids.Tick
	asOf   ids.Tick // the rows that are read
	stream bool     // linear: pass results on as they come
	emit   func(*record.Delta) error
}

func (s *partitionScan) push(d *record.Delta) error {
	if err := s.frag.Push(s.leaf, d); err != nil {
		return err
	}
	if s.stream {
		return s.flush()
	}
	return nil
}

func (s *partitionScan) flush() error {
	out, err := s.frag.EndTick(s.tick, dataflow.NoMarks)
	if err != nil {
		return err
	}
	return s.emit(out)
}

func (n *Node) scanPartition(ctx context.Context, first *plan.Stage, leaf int, p ids.PartitionID, l *layout, number int, memory *holding, emit func(*record.Delta) error) error {
	s := &partitionScan{leaf: leaf, tick: l.tick, stream: linear(first), emit: emit}
	here := &part{of: memory}
	defer here.end()
	var err error
	s.frag, err = dataflow.New(first.Ops, dataflow.Env{Mode: dataflow.AdHoc, NowTick: l.tick, Partition: p, AppendOnly: s.stream, Hold: here.add, Check: func(rows *record.Delta, kept bool) error {
		if kept && !s.stream {
			if err := here.add(deltaBytes(rows)); err != nil {
				return err
			}
		}
		return ctx.Err()
	}})
	if err != nil {
		return err
	}
	scan := first.Ops[leaf].Scan
	if scan.AsOf > 0 {
		s.asOf = ids.Tick(scan.AsOf)
	} else {
		s.asOf = l.tick
	}
	switch scan.Kind {
	case plan.ScanView:
		err = n.scanView(ctx, s, &first.Ops[leaf], p)
	case plan.ScanStream, plan.ScanDead:
		err = n.scanStream(ctx, s, scan, p)
	default:
		err = fault.New(fault.Internal, "no scan of kind %q", scan.Kind)
	}
	if err != nil {
		return n.spared(p, err)
	}
	err = s.flush()
	if err == nil && l.measure != nil {
		l.measure.add(number, s.frag.OpRows(nil))
	}
	return err
}

// spared turns the word that this node's copy of a partition is damaged into one that is retried, where another node has the
// partition whole: that one takes over.
func (n *Node) spared(p ids.PartitionID, err error) error {
	parts := n.catalog().state.Partitions
	if fault.KindOf(err) != fault.Corrupted || int(p) >= len(parts) {
		return err
	}
	for _, id := range parts[p].InSync {
		if ids.NodeID(id) != n.id {
			return fault.Wrap(fault.Unavailable, err, "this node's copy of partition %d is damaged, and another node takes over", p).
				WithReason("DAMAGED_COPY").WithRetryAfter(retryPause)
		}
	}
	return err
}

// gone tells that an object isn't in the catalog here: it was dropped, or this node hasn't heard of it yet. Ids are never
// reused.
func (n *Node) gone(what string, scan *plan.Scan) error {
	if scan.Object >= n.catalog().state.NextObjectId {
		return fault.New(fault.Unavailable, "%s %q isn't known yet on one of the nodes; retry", what, scan.Name).WithRetryAfter(retryPause)
	}
	return fault.New(fault.NotFound, "%s %q is gone", what, scan.Name)
}

func (n *Node) scanView(ctx context.Context, s *partitionScan, op *plan.Op, p ids.PartitionID) error {
	def := n.catalog().views[ids.StreamID(op.Scan.Object)]
	if def == nil {
		return n.gone("view", op.Scan)
	}
	schema := schemaOf(def.Columns)
	pick := make([]int, len(op.Scan.Columns))
	for i, name := range op.Scan.Columns {
		if pick[i] = schema.Index(name); pick[i] < 0 {
			return fault.New(fault.Internal, "view %q has no column %q", op.Scan.Name, name)
		}
	}
	err := n.runtime.ReadScan(ctx, ids.StreamID(op.Scan.Object), p, s.asOf, op.Scan, func(d *record.Delta) error {
		cols := make([]record.Column, len(pick))
		for i, c := range pick {
			cols[i] = d.Cols[c]
		}
		return s.push(&record.Delta{N: d.N, Cols: cols, Weights: d.Weights})
	})
	return notServedYet(err)
}

func (n *Node) scanStream(ctx context.Context, s *partitionScan, scan *plan.Scan, p ids.PartitionID) error {
	def := n.catalog().streams[ids.StreamID(scan.Object)]
	if def == nil {
		return n.gone("stream", scan)
	}
	r, err := newStreamReader(def.Stream, scan)
	if err != nil {
		return err
	}
	err = n.host.ReadTicks(p, ids.StreamID(scan.Object), 0, s.asOf, func(b *partition.Batch) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if err := r.add(p, b); err != nil {
			return false, err
		}
		if r.rows.N < scanRows {
			return true, nil
		}
		err := s.push(r.rows)
		r.rows.Reset()
		return true, err
	})
	if err != nil {
		return err
	}
	return s.push(r.rows)
}

// rawBuffer is memory for one batch's records after another.
type rawBuffer struct{ buf []byte }

// raw returns a batch's encoded records, decompressed; they are valid until the next call.
func (r *rawBuffer) raw(b *partition.Batch) ([]byte, error) {
	raw, err := b.Raw(r.buf[:0])
	if err == nil && b.Compression != millracev1.Compression_COMPRESSION_NONE {
		r.buf = raw // of a batch that isn't compressed, raw is the batch's own memory
	}
	return raw, err
}

// streamReader turns batches into rows: a stream's, or those of its records that don't decode.
type streamReader struct {
	dec  *record.Decoder
	dead bool
	name []string // of the columns of dead letters
	buf  rawBuffer
	rows *record.Delta // read so far
	skip *record.Delta // decoded rows, where only the dead ones are wanted
}

func newStreamReader(def *millracev1.Stream, scan *plan.Scan) (*streamReader, error) {
	r := &streamReader{dead: scan.Kind == plan.ScanDead, name: scan.Columns}
	columns := scan.Columns
	if r.dead {
		columns = nil
	}
	var err error
	if r.dec, err = datagen.NewDecoder(def, columns); err != nil {
		return nil, err
	}
	r.rows = record.NewDelta(r.dec.Schema(), scanRows)
	if r.dead {
		r.skip = r.rows
		schema, err := deadSchema(scan.Columns)
		if err != nil {
			return nil, err
		}
		r.rows = record.NewDelta(schema, 0)
	}
	return r, nil
}

// Columns of dead_letters(): where a record stands, why it doesn't decode, and the record.
var deadColumns = record.Schema{
	{Name: "partition", Type: record.BigInt}, {Name: "offset", Type: record.BigInt},
	{Name: "error", Type: record.Text}, {Name: "raw", Type: record.Text},
}

func deadSchema(columns []string) (record.Schema, error) {
	out := make(record.Schema, len(columns))
	for i, name := range columns {
		at := deadColumns.Index(name)
		if at < 0 {
			return nil, fault.New(fault.Internal, "dead letters have no column %q", name)
		}
		out[i] = deadColumns[at]
	}
	return out, nil
}

func (r *streamReader) add(p ids.PartitionID, b *partition.Batch) error {
	raw, err := r.buf.raw(b)
	if err != nil {
		return err
	}
	meta := record.Meta{Partition: p, BaseOffset: b.BaseOffset, Tick: b.Tick, TimeMicros: b.TimeMicros}
	if !r.dead {
		return r.dec.Decode(raw, meta, r.rows, nil)
	}
	r.skip.Reset()
	return r.dec.Decode(raw, meta, r.skip, func(offset ids.Offset, _ []byte, _ bool, value []byte, derr error) {
		r.addDead(p, offset, value, derr)
	})
}

func (r *streamReader) addDead(p ids.PartitionID, offset ids.Offset, value []byte, derr error) {
	for i := range r.rows.Cols {
		c := &r.rows.Cols[i]
		switch r.name[i] {
		case "partition":
			c.AppendInt(int64(p))
		case "offset":
			c.AppendInt(int64(offset))
		case "error":
			c.AppendString(derr.Error())
		case "raw":
			c.AppendString(printable(value))
		}
	}
	r.rows.N++
}

// printable returns value as text; bytes that aren't UTF-8 (or are NUL, which text can't hold) as \xNN.
func printable(value []byte) string {
	if utf8.Valid(value) && bytes.IndexByte(value, 0) < 0 {
		return string(value)
	}
	var b strings.Builder
	for len(value) > 0 {
		r, n := utf8.DecodeRune(value)
		if r == utf8.RuneError && n == 1 || r == 0 {
			fmt.Fprintf(&b, `\x%02x`, value[0])
		} else {
			b.Write(value[:n])
		}
		value = value[n:]
	}
	return b.String()
}
