package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// fakeNode is a node for tests of the command line: it keeps what is appended in memory and answers statements from a
// table.
type fakeNode struct {
	millracev1.UnimplementedIngestServer
	millracev1.UnimplementedLogServer
	millracev1.UnimplementedSqlServer
	millracev1.UnimplementedClusterServer
	addr string

	mu          sync.Mutex
	streams     map[string]*millracev1.Stream
	maxRecord   uint32
	values      []string // as appended
	tick        uint64
	refuse      error // appends
	stuck       bool  // appends are never answered
	statements  []*millracev1.ExecuteRequest
	answers     map[string]func(send func(*millracev1.ExecuteResponse) error) error
	changes     []*millracev1.SubscribeResponse
	subscribed  []*millracev1.SubscribeRequest
	endless     bool // a subscription doesn't end
	records     []*millracev1.ReadRecord
	reads       []*millracev1.ReadRequest
	description *millracev1.DescribeResponse
	drained     []string
	removed     []string
}

func startFake(t *testing.T) *fakeNode {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &fakeNode{addr: lis.Addr().String(), tick: 100, maxRecord: 1 << 20, streams: map[string]*millracev1.Stream{},
		answers: map[string]func(func(*millracev1.ExecuteResponse) error) error{}}
	columns := []*millracev1.Column{{Name: "id", Type: "bigint"}, {Name: "name", Type: "text"}, {Name: "price", Type: "numeric"},
		{Name: "ok", Type: "boolean"}, {Name: "at", Type: "timestamptz"}, {Name: "doc", Type: "jsonb"}}
	n.streams["bids"] = &millracev1.Stream{Id: 1, Name: "bids", Format: "json", Columns: columns}
	n.streams["table"] = &millracev1.Stream{Id: 2, Name: "table", Format: "csv", Columns: columns[:3]}
	s := grpc.NewServer()
	millracev1.RegisterIngestServer(s, n)
	millracev1.RegisterLogServer(s, n)
	millracev1.RegisterSqlServer(s, n)
	millracev1.RegisterClusterServer(s, n)
	healthpb.RegisterHealthServer(s, health.NewServer())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(lis)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return n
}

// millrace runs a command line against the node.
func (n *fakeNode) millrace(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	if n != nil {
		t.Setenv(addrEnv, n.addr)
	}
	var out, errs lockedBuilder
	code = run(args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// lockedBuilder is a strings.Builder for several goroutines.
type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuilder) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (n *fakeNode) Describe(context.Context, *millracev1.DescribeRequest) (*millracev1.DescribeResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.description != nil {
		return n.description, nil
	}
	return &millracev1.DescribeResponse{}, nil
}

func (n *fakeNode) Drain(_ context.Context, req *millracev1.DrainRequest) (*millracev1.DrainResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.description.Nodes {
		if m.Name == req.Node {
			n.drained = append(n.drained, req.Node)
			m.State = "drained"
			return &millracev1.DrainResponse{}, nil
		}
	}
	return nil, fault.New(fault.NotFound, "unknown node %q", req.Node)
}

func (n *fakeNode) Remove(_ context.Context, req *millracev1.RemoveRequest) (*millracev1.RemoveResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !req.Force {
		return nil, fault.New(fault.Conflict, "node %q is alive; drain it first, or use --force", req.Node)
	}
	n.removed = append(n.removed, req.Node)
	return &millracev1.RemoveResponse{}, nil
}

func (n *fakeNode) DescribeStream(_ context.Context, req *millracev1.DescribeStreamRequest) (*millracev1.DescribeStreamResponse, error) {
	s := n.streams[req.Stream]
	if s == nil {
		return nil, fault.New(fault.NotFound, "unknown stream %q; did you mean \"bids\"?", req.Stream)
	}
	return &millracev1.DescribeStreamResponse{Stream: s, MaxRecordBytes: n.maxRecord,
		Routes: []*millracev1.Route{{Partition: 0, Primary: n.addr}}}, nil
}

func (n *fakeNode) AppendStream(stream millracev1.Ingest_AppendStreamServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		resp, err := n.append(req)
		if err != nil {
			return err
		}
		if resp == nil {
			continue
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func (n *fakeNode) append(req *millracev1.AppendRequest) (*millracev1.AppendResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.stuck:
		return nil, nil
	case n.refuse != nil:
		return &millracev1.AppendResponse{RequestId: req.RequestId, Error: fault.Status(n.refuse).Proto()}, nil
	}
	b := req.Batch
	raw, err := record.Decompress(nil, b.Payload, b.Compression, int(b.UncompressedBytes))
	if err != nil {
		return nil, err
	}
	n.tick++
	a := &millracev1.Appended{BaseOffset: uint64(len(n.values)), Count: b.Count, Tick: n.tick}
	it := record.NewIter(raw)
	for it.Next() {
		n.values = append(n.values, string(it.Value()))
	}
	return &millracev1.AppendResponse{RequestId: req.RequestId, Appended: []*millracev1.Appended{a}, Tick: n.tick}, it.Err()
}

// appended returns what was appended, one a line.
func (n *fakeNode) appended() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.values, "\n")
}

// on has a statement answered with rows and a tag. Without columns it returns no rows.
func (n *fakeNode) on(sql string, columns []string, tag string, rows ...[]*millracev1.Value) {
	n.answers[sql] = func(send func(*millracev1.ExecuteResponse) error) error {
		if columns != nil {
			if err := send(&millracev1.ExecuteResponse{Kind: &millracev1.ExecuteResponse_Schema{Schema: rowSchema(columns...)}}); err != nil {
				return err
			}
			for part := range slices.Chunk(rows, 2) {
				out := &millracev1.Rows{}
				for _, r := range part {
					out.Rows = append(out.Rows, &millracev1.Row{Values: r})
				}
				if err := send(&millracev1.ExecuteResponse{Kind: &millracev1.ExecuteResponse_Rows{Rows: out}}); err != nil {
					return err
				}
			}
		}
		return send(&millracev1.ExecuteResponse{Kind: &millracev1.ExecuteResponse_Complete{Complete: &millracev1.Complete{Tag: tag, Tick: 555}}})
	}
}

func rowSchema(namesAndTypes ...string) *millracev1.RowSchema {
	s := &millracev1.RowSchema{}
	for c := range slices.Chunk(namesAndTypes, 2) {
		s.Columns = append(s.Columns, &millracev1.Column{Name: c[0], Type: c[1]})
	}
	return s
}

func (n *fakeNode) Execute(req *millracev1.ExecuteRequest, stream millracev1.Sql_ExecuteServer) error {
	n.mu.Lock()
	n.statements = append(n.statements, req)
	n.mu.Unlock()
	text := strings.TrimSpace(req.Sql)
	if answer := n.answers[text]; answer != nil {
		return answer(stream.Send)
	}
	if strings.HasPrefix(text, "SET ") {
		var name, value string
		fmt.Sscanf(text, "SET %s = %s", &name, &value)
		return stream.Send(&millracev1.ExecuteResponse{Kind: &millracev1.ExecuteResponse_Complete{
			Complete: &millracev1.Complete{Tag: "SET", Settings: map[string]string{name: value}}}})
	}
	line := strings.Count(req.Sql[:strings.Index(req.Sql, text)], "\n")
	column := strings.Index(req.Sql, text) - strings.LastIndex(req.Sql[:strings.Index(req.Sql, text)], "\n")
	return fault.SQL(fault.Invalid, "42601", "unknown statement at %d:%d;\nuse another", line+1, column)
}

func (n *fakeNode) Subscribe(req *millracev1.SubscribeRequest, stream millracev1.Sql_SubscribeServer) error {
	n.mu.Lock()
	n.subscribed = append(n.subscribed, req)
	changes, endless := n.changes, n.endless
	n.mu.Unlock()
	for _, c := range changes {
		if c.Tick > req.AfterTick {
			if err := stream.Send(c); err != nil {
				return err
			}
		}
	}
	if endless {
		<-stream.Context().Done()
		return nil
	}
	return fault.New(fault.NotFound, "view %q was dropped", req.View)
}

func (n *fakeNode) Read(req *millracev1.ReadRequest, stream millracev1.Log_ReadServer) error {
	n.mu.Lock()
	n.reads = append(n.reads, req)
	records := n.records
	n.mu.Unlock()
	for i, r := range records {
		if req.Limit > 0 && i >= int(req.Limit) {
			break
		}
		if err := stream.Send(&millracev1.ReadResponse{Records: []*millracev1.ReadRecord{r}}); err != nil {
			return err
		}
	}
	if req.Follow {
		<-stream.Context().Done()
	}
	return nil
}

// waitFor waits until cond holds; it fails the test when that takes long.
func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatal("waited too long")
		}
		time.Sleep(time.Millisecond)
	}
}
