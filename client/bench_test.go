package client_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace/millrace/client"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// BenchmarkProducer measures what sending costs the client: the acknowledging server is another process, so that
// cpu-ns/rec is the client's alone. cpu-rec/s is what one core would do.
func BenchmarkProducer(b *testing.B) {
	addr := startAckServer(b)
	for _, bench := range []struct {
		name        string
		stream      string
		bytes       int
		json        bool
		compression client.Compression
	}{
		{"100B/none", "plain", 100, false, client.NoCompression},
		{"100B/s2", "plain", 100, false, client.S2},
		{"1KB/none", "plain", 1000, false, client.NoCompression},
		{"100B/json/none", "plain", 100, true, client.NoCompression},
		{"100B/json/s2", "plain", 100, true, client.S2},
		{"100B/json/zstd", "plain", 100, true, client.Zstd},
		{"100B/json/key/none", "keyed", 100, true, client.NoCompression},
	} {
		b.Run(bench.name, func(b *testing.B) {
			values := benchValues(bench.bytes, bench.json)
			cl, err := client.Dial(context.Background(), []string{addr})
			if err != nil {
				b.Fatal(err)
			}
			defer cl.Close()
			p, err := cl.Producer(context.Background(), bench.stream, client.WithCompression(bench.compression))
			if err != nil {
				b.Fatal(err)
			}
			ctx := context.Background()
			b.ReportAllocs()
			b.SetBytes(int64(bench.bytes))
			before := cpuTime()
			for i := 0; b.Loop(); i++ {
				if err := p.SendTagged(ctx, nil, values[i%len(values)], uint64(i)); err != nil {
					b.Fatal(err)
				}
			}
			if err := p.Close(ctx); err != nil {
				b.Fatal(err)
			}
			cpu := cpuTime() - before
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N), "cpu-ns/rec")
			b.ReportMetric(float64(b.N)/cpu.Seconds(), "cpu-rec/s")
		})
	}
}

func benchValues(size int, json bool) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	values := make([][]byte, 1000)
	for i := range values {
		if json {
			v := fmt.Appendf(nil, `{"k":%d,"n":%d,"city":"city%d","price":%.2f,"note":"`, r.IntN(1_000_000), r.IntN(1000), r.IntN(300), r.Float64()*100)
			for len(v) < size-2 {
				v = append(v, 'a'+byte(r.IntN(26)))
			}
			values[i] = append(v, `"}`...)
			continue
		}
		values[i] = make([]byte, size)
		for j := 0; j+8 <= size; j += 8 {
			binary.LittleEndian.PutUint64(values[i][j:], r.Uint64())
		}
	}
	return values
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const ackServerEnv = "MILLRACE_TEST_ACK_SERVER"

// startAckServer starts this test binary again as a server that only acknowledges.
func startAckServer(b *testing.B) string {
	cmd := exec.Command(os.Args[0], "-test.run=^TestAckServer$")
	cmd.Env = append(os.Environ(), ackServerEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close() // it ends with its input
		cmd.Wait()
	})
	var addr string
	if _, err := fmt.Fscanf(out, "%s\n", &addr); err != nil {
		b.Fatal(err)
	}
	return addr
}

// TestAckServer is the server of BenchmarkProducer, in a process of its own.
func TestAckServer(t *testing.T) {
	if os.Getenv(ackServerEnv) == "" {
		t.Skip("only as the server of BenchmarkProducer")
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(lazyCodec{encoding.GetCodecV2("proto")}), grpc.InitialWindowSize(4<<20), grpc.InitialConnWindowSize(16<<20),
		grpc.ReadBufferSize(256<<10), grpc.MaxRecvMsgSize(16<<20))
	a := &ackServer{}
	millracev1.RegisterIngestServer(s, a)
	millracev1.RegisterClusterServer(s, a)
	a.addr = lis.Addr().String()
	fmt.Println(a.addr)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		s.Stop()
	}()
	if err := s.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		t.Fatal(err)
	}
}

type ackServer struct {
	millracev1.UnimplementedIngestServer
	millracev1.UnimplementedClusterServer
	addr string
	mu   sync.Mutex
	ends [8]uint64
}

func (a *ackServer) Describe(ctx context.Context, _ *millracev1.DescribeRequest) (*millracev1.DescribeResponse, error) {
	return &millracev1.DescribeResponse{Nodes: []*millracev1.Node{{Name: "a", Grpc: a.addr, State: "alive"}}}, nil
}

func (a *ackServer) DescribeStream(_ context.Context, req *millracev1.DescribeStreamRequest) (*millracev1.DescribeStreamResponse, error) {
	d := &millracev1.DescribeStreamResponse{
		Stream: &millracev1.Stream{Name: req.Stream, Format: "json",
			Columns: []*millracev1.Column{{Name: "k", Type: "bigint"}, {Name: "n", Type: "bigint"}}},
		MaxRecordBytes: 8 << 20,
	}
	if req.Stream == "keyed" {
		d.Stream.Key = "k"
	}
	for i := range a.ends {
		d.Routes = append(d.Routes, &millracev1.Route{Partition: uint32(i), Primary: a.addr})
	}
	return d, nil
}

func (a *ackServer) AppendStream(stream millracev1.Ingest_AppendStreamServer) error {
	for tick := uint64(1); ; tick++ {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		a.mu.Lock()
		p := req.Batch.Partition
		got := &millracev1.Appended{Partition: p, BaseOffset: a.ends[p], Count: req.Batch.Count, Tick: tick}
		a.ends[p] += uint64(got.Count)
		a.mu.Unlock()
		if err := stream.Send(&millracev1.AppendResponse{RequestId: req.RequestId, Appended: []*millracev1.Appended{got}, Tick: tick}); err != nil {
			return err
		}
	}
}

// lazyCodec reads an AppendRequest without its payload, so that the server takes as little of the machine as possible.
type lazyCodec struct{ encoding.CodecV2 }

func (c lazyCodec) Unmarshal(data mem.BufferSlice, v any) error {
	req, ok := v.(*millracev1.AppendRequest)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	var head [128]byte
	n, err := data.Reader().Read(head[:])
	if err != nil {
		return err
	}
	req.Batch = &millracev1.Batch{}
	return lazyFields(head[:n], req)
}

func lazyFields(b []byte, req *millracev1.AppendRequest) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		switch {
		case num == 1:
			req.RequestId, n = protowire.ConsumeVarint(b)
		case num == 5: // into the batch, whose first fields are all that is needed
			_, n = protowire.ConsumeVarint(b)
			b = b[n:]
			for {
				num, typ, n = protowire.ConsumeTag(b)
				b = b[n:]
				var v uint64
				switch typ {
				case protowire.VarintType:
					v, n = protowire.ConsumeVarint(b)
				case protowire.Fixed32Type:
					n = 4
				default:
					return nil // the payload
				}
				switch num {
				case 1:
					req.Batch.Partition = uint32(v)
				case 4:
					req.Batch.Count = uint32(v)
				}
				b = b[n:]
			}
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
	}
	return nil
}
