package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// plainConn is a connection of a client that knows nothing but the .proto files.
func plainConn(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func callContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
	t.Cleanup(cancel)
	return ctx
}

func rawRecords(values ...[]byte) *millracev1.Records {
	out := &millracev1.Records{}
	for _, v := range values {
		out.Records = append(out.Records, &millracev1.Record{Value: v})
	}
	return out
}

// appendRaw appends records as they are and returns their tick.
func appendRaw(t *testing.T, addr, stream string, values ...[]byte) uint64 {
	t.Helper()
	resp, err := millracev1.NewIngestClient(plainConn(t, addr)).Append(callContext(t), &millracev1.AppendRequest{Stream: stream, Records: rawRecords(values...)})
	if err != nil {
		t.Fatalf("append to %s: %v", stream, err)
	}
	n := uint32(0)
	for _, a := range resp.Appended {
		n += a.Count
		if a.Tick == 0 || a.Tick > resp.Tick {
			t.Errorf("%v", resp)
		}
	}
	if int(n) != len(values) {
		t.Errorf("%d records: %v", len(values), resp)
	}
	acknowledge(int64(resp.Tick))
	return resp.Tick
}

// execute runs statements with a plain client and returns the rows of the last, and the session's tick.
func execute(t *testing.T, addr, text string, seen uint64) ([]*millracev1.Row, uint64) {
	t.Helper()
	call, err := millracev1.NewSqlClient(plainConn(t, addr)).Execute(callContext(t), &millracev1.ExecuteRequest{Sql: text, SeenTick: seen})
	if err != nil {
		t.Fatal(err)
	}
	var rows []*millracev1.Row
	var tick uint64
	for {
		m, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return rows, tick
		}
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		switch {
		case m.GetSchema() != nil:
			rows = nil
		case m.GetRows() != nil:
			rows = append(rows, m.GetRows().Rows...)
		case m.GetComplete() != nil:
			tick = m.GetComplete().Tick
		}
	}
}

// saysWhy checks an error's code and that it carries an ErrorInfo of ours with a reason.
func saysWhy(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	st := grpcstatus.Convert(err)
	if st.Code() != code {
		t.Errorf("%v, want %v", err, code)
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain == "millrace" {
			if info.Reason != reason || len(info.Metadata["sqlstate"]) != 5 {
				t.Errorf("%v has reason %s, want %s, and sqlstate %q", err, info.Reason, reason, info.Metadata["sqlstate"])
			}
			return
		}
	}
	t.Errorf("%v has no ErrorInfo", err)
}

// plainClients checks that a client with nothing but stubs, or reflection, appends, reads and queries through any node.
func plainClients(t *testing.T, servers []*server) {
	first := servers[0].grpc
	sql(t, first, "CREATE STREAM plain (a BIGINT, k TEXT) WITH (key = 'k'); CREATE MATERIALIZED VIEW plainv AS SELECT k, count(*) AS n FROM plain GROUP BY k")
	total, tick := 0, uint64(0)
	for i, s := range servers {
		// What one node acknowledged, each other shows from then on.
		tick = max(tick, appendRaw(t, s.grpc, "plain", []byte(`{"a":1,"k":"x"}`), []byte(`{"a":2,"k":"y"}`), []byte(`{"a":3,"k":"x"}`)))
		total += 3
		other := servers[(i+1)%len(servers)].grpc
		for _, q := range []string{"SELECT count(*) FROM plain", "SELECT sum(n)::BIGINT FROM plainv"} {
			rows, seen := execute(t, other, q, tick)
			if len(rows) != 1 || rows[0].Values[0].GetBigint() != int64(total) || seen < tick {
				t.Errorf("%s at %d: %v at tick %d, want %d", q, tick, rows, seen, total)
			}
			tick = max(tick, seen)
		}
		total += streamAppends(t, s.grpc, &tick)
		if n := readAll(t, other); n != total {
			t.Errorf("read %d records, want %d", n, total)
		}
		reflected(t, s.grpc)
		total++
	}
}

// streamAppends appends with the streaming call and returns how many records it appended.
func streamAppends(t *testing.T, addr string, tick *uint64) int {
	t.Helper()
	call, err := millracev1.NewIngestClient(plainConn(t, addr)).AppendStream(callContext(t))
	if err != nil {
		t.Fatal(err)
	}
	const n = 50
	for i := range n {
		req := &millracev1.AppendRequest{RequestId: uint64(i + 1), Stream: "plain", SeenTick: *tick, Records: rawRecords(fmt.Appendf(nil, `{"a":%d,"k":"s"}`, i))}
		if i == 10 {
			req.Stream = "nothing" // fails on its own
		}
		if err := call.Send(req); err != nil {
			t.Fatal(err)
		}
	}
	call.CloseSend()
	answered := map[uint64]bool{}
	for {
		resp, err := call.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if answered[resp.RequestId] {
			t.Errorf("request %d is answered twice", resp.RequestId)
		}
		answered[resp.RequestId] = true
		if resp.RequestId == 11 {
			saysWhy(t, grpcstatus.FromProto(resp.Error).Err(), codes.NotFound, "UNKNOWN_STREAM")
			continue
		}
		if resp.Error != nil || resp.Tick < *tick || len(resp.Appended) != 1 || resp.Appended[0].Count != 1 {
			t.Errorf("%v after tick %d", resp, *tick)
		}
	}
	if len(answered) != n {
		t.Errorf("%d of %d requests were answered", len(answered), n)
	}
	return n - 1
}

// readAll reads the stream with a plain client, checks order and keys, and returns the number of records.
func readAll(t *testing.T, addr string) int {
	t.Helper()
	call, err := millracev1.NewLogClient(plainConn(t, addr)).Read(callContext(t), &millracev1.ReadRequest{Stream: "plain"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	next := map[uint32]uint64{}
	for {
		resp, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.Records {
			if r.Offset != next[r.Partition] {
				t.Errorf("partition %d: offset %d after %d", r.Partition, r.Offset, next[r.Partition])
			}
			next[r.Partition] = r.Offset + 1
			if !strings.Contains(string(r.Value), fmt.Sprintf(`"k":%q`, r.Key)) {
				t.Errorf("key %q of %s", r.Key, r.Value)
			}
			n++
		}
	}
}

// reflected appends one record by what reflection tells alone.
func reflected(t *testing.T, addr string) {
	t.Helper()
	ctx, cc := callContext(t), plainConn(t, addr)
	if h, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil || h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v %v", h, err)
	}
	call, err := reflectionv1.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
		if err := call.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := call.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	var names []string
	for _, s := range ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}).GetListServicesResponse().Service {
		names = append(names, s.Name)
	}
	for _, want := range []string{"millrace.v1.Ingest", "millrace.v1.Log", "millrace.v1.Sql", "millrace.v1.Cluster"} {
		if !strings.Contains(strings.Join(names, " ")+" ", want+" ") {
			t.Errorf("services %v lack %s", names, want)
		}
	}
	set := &descriptorpb.FileDescriptorSet{}
	got := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "millrace.v1.Ingest"}})
	for _, raw := range got.GetFileDescriptorResponse().GetFileDescriptorProto() {
		f := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(raw, f); err != nil {
			t.Fatal(err)
		}
		set.File = append(set.File, f)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	d, err := files.FindDescriptorByName("millrace.v1.Ingest")
	if err != nil {
		t.Fatal(err)
	}
	method := d.(protoreflect.ServiceDescriptor).Methods().ByName("Append")
	req, resp := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	in := method.Input().Fields()
	req.Set(in.ByName("stream"), protoreflect.ValueOfString("plain"))
	records := req.Mutable(in.ByName("records")).Message()
	list := records.Mutable(records.Descriptor().Fields().ByName("records")).List()
	record := list.NewElement()
	record.Message().Set(record.Message().Descriptor().Fields().ByName("value"), protoreflect.ValueOfBytes([]byte(`{"a":9,"k":"r"}`)))
	list.Append(record)
	if err := cc.Invoke(ctx, "/millrace.v1.Ingest/Append", req, resp); err != nil {
		t.Fatal(err)
	}
	if resp.Get(method.Output().Fields().ByName("tick")).Uint() == 0 {
		t.Errorf("%v", resp)
	}
}

// errorsSayWhy checks the errors that a plain client gets.
func errorsSayWhy(t *testing.T, addr string) {
	ctx, cc := callContext(t), plainConn(t, addr)
	ingest := millracev1.NewIngestClient(cc)
	_, err := ingest.Append(ctx, &millracev1.AppendRequest{Stream: "nothing", Records: rawRecords([]byte("{}"))})
	saysWhy(t, err, codes.NotFound, "UNKNOWN_STREAM")
	_, err = ingest.Append(ctx, &millracev1.AppendRequest{Stream: "plain", Records: rawRecords(make([]byte, 8<<20+1))})
	saysWhy(t, err, codes.InvalidArgument, "RECORD_TOO_LARGE")
	_, err = ingest.Append(ctx, &millracev1.AppendRequest{Stream: "plain", SeenTick: 1 << 62, Records: rawRecords([]byte("{}"))})
	saysWhy(t, err, codes.InvalidArgument, "TICK_IN_FUTURE")
	_, err = ingest.Append(ctx, &millracev1.AppendRequest{Stream: "plain", Batch: &millracev1.Batch{Count: 1, Payload: []byte("x"), Crc32C: 1}})
	saysWhy(t, err, codes.InvalidArgument, "BATCH_CHECKSUM")
	_, err = ingest.Append(ctx, &millracev1.AppendRequest{Stream: "plain", Records: rawRecords(make([]byte, 17<<20))})
	if grpcstatus.Code(err) != codes.ResourceExhausted { // gRPC's own limit on messages
		t.Errorf("a message of 17 MiB: %v", err)
	}
	read, err := millracev1.NewLogClient(cc).Read(ctx, &millracev1.ReadRequest{Stream: "nothing"})
	if err == nil {
		_, err = read.Recv()
	}
	saysWhy(t, err, codes.NotFound, "UNKNOWN_STREAM")
	for text, want := range map[string]string{"SELEC 1": "42601", "SELECT nope FROM plain": "42703", "SELECT 1 / 0": "22012", "SELECT * FROM nothing": "42P01", "UPDATE plain SET a = 1": "42809"} {
		call, err := millracev1.NewSqlClient(cc).Execute(ctx, &millracev1.ExecuteRequest{Sql: text})
		if err == nil {
			for err == nil {
				_, err = call.Recv()
			}
		}
		found := ""
		for _, d := range grpcstatus.Convert(err).Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok && info.Reason != "" {
				found = info.Metadata["sqlstate"]
			}
		}
		if found != want {
			t.Errorf("%s: %v, sqlstate %q, want %s", text, err, found, want)
		}
	}
	sub, err := millracev1.NewSqlClient(cc).Subscribe(ctx, &millracev1.SubscribeRequest{View: "nothing"})
	if err == nil {
		_, err = sub.Recv()
	}
	saysWhy(t, err, codes.NotFound, "UNKNOWN_VIEW")
	_, err = millracev1.NewClusterClient(cc).Drain(ctx, &millracev1.DrainRequest{Node: "nobody"})
	saysWhy(t, err, codes.NotFound, "UNKNOWN_NODE")
}

// deadLetters checks that what doesn't decode is appended, by any client, and disturbs nothing.
func deadLetters(t *testing.T, addr string) {
	sql(t, addr, "CREATE STREAM dl (a BIGINT); CREATE MATERIALIZED VIEW dlv AS SELECT count(*) AS n, sum(a) AS s FROM dl")
	appendRaw(t, addr, "dl", []byte(`{"a":1}`), []byte(`{"a":`), []byte(`[]`), []byte(`{"a":"x"}`), []byte{0xff, 0}, []byte{}, []byte(`{"a":2}`))
	answers(t, addr,
		"SELECT * FROM dlv; SELECT count(*) AS n FROM dl; SELECT count(*) AS n, count(error) AS e FROM dead_letters('dl')",
		`{"n":2,"s":3}`, `{"n":2}`, `{"n":5,"e":5}`)
	if n := len(strings.Split(strings.TrimSpace(cli(t, nil, "read", "dl", "--dead", "--addr", addr).out), "\n")); n != 5 {
		t.Errorf("read --dead: %d lines", n)
	}
	for _, r := range sql(t, addr, "SHOW STREAMS") {
		if r["name"] == "dl" && fmt.Sprint(r["dead"]) != "5" {
			t.Errorf("%v", r)
		}
	}
}
