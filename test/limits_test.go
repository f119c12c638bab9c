package test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// memoryOf returns the most that a process ever had in memory, in MiB.
func memoryOf(t *testing.T, s *server) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib >> 10
		}
	}
	t.Fatalf("no VmHWM in %s", b)
	return 0
}

// noise is a JSON record of about n bytes that doesn't compress.
func noise(n int) []byte {
	raw := make([]byte, n*3/4)
	rand.Read(raw)
	return []byte(`{"a":1,"k":"` + base64.StdEncoding.EncodeToString(raw) + `"}`)
}

// saysWhen checks that a refusal has its reason and when to come back, and returns how long that is.
func saysWhen(t *testing.T, st *grpcstatus.Status, reason string) time.Duration {
	t.Helper()
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	if st.Code() != codes.ResourceExhausted || info.GetReason() != reason || retry.GetRetryDelay().AsDuration() <= 0 {
		t.Fatalf("%v: want ResourceExhausted, reason %s and a delay; details %v", st, reason, st.Details())
	}
	return retry.RetryDelay.AsDuration()
}

// TestOverload has 64 connections send batches of 8 MiB as fast as they can to a node with little memory for them: what it
// can't hold it refuses with a delay, its memory stays bounded, and others are served meanwhile.
func TestOverload(t *testing.T) {
	s := serve(t, "n1", "--in-flight", "16MiB", "--ingest-memory", "32MiB", "--conn-in-flight", "16MiB", "--memory", "1536MiB", "--partitions", "2")
	sql(t, s.grpc, "CREATE STREAM heavy (a BIGINT, k TEXT) WITH (format = 'json'); CREATE STREAM light (a BIGINT) WITH (format = 'json')")
	records := rawRecords(noise(7 << 20))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var taken, refused atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		client := millracev1.NewIngestClient(plainConn(t, s.grpc))
		wg.Go(func() {
			for ctx.Err() == nil {
				stream, err := client.AppendStream(ctx)
				if err != nil {
					continue
				}
				wg.Go(func() {
					for id := uint64(1); stream.Send(&millracev1.AppendRequest{RequestId: id, Stream: "heavy", Records: records}) == nil; id++ {
					}
				})
				for {
					resp, err := stream.Recv()
					if err != nil {
						break
					}
					if resp.Error == nil {
						taken.Add(1)
						continue
					}
					refused.Add(1)
					st := grpcstatus.FromProto(resp.Error)
					if st.Code() != codes.ResourceExhausted && st.Code() != codes.Unavailable {
						t.Errorf("refused with %v", st)
					}
				}
			}
		})
	}
	// Others get through: their requests wait for memory like all, and are small.
	for n := range 3 {
		eventually(t, func() string {
			r := cli(t, strings.NewReader(fmt.Sprintf("{\"a\":%d}\n", n)), "send", "light", "--addr", s.grpc, "--timeout", "60s")
			if r.code != 0 {
				return r.err
			}
			return ""
		})
		eventually(t, func() string { // another session: its tick may be from before
			if got := fmt.Sprint(one(t, s.grpc, "SELECT count(*) AS n FROM light")["n"]); got != strconv.Itoa(n+1) {
				return fmt.Sprintf("%s records of the light stream, not %d", got, n+1)
			}
			return ""
		})
	}
	eventually(t, func() string {
		if taken.Load() < 10 {
			return fmt.Sprintf("%d batches taken, %d refused", taken.Load(), refused.Load())
		}
		return ""
	})
	cancel()
	wg.Wait()
	most := memoryOf(t, s)
	t.Logf("%d batches of 7 MiB taken, %d refused; at most %d MiB of memory", taken.Load(), refused.Load(), most)
	// Besides 32 MiB of appends, each several times on its way: a window of 2 MiB of each connection, tables in memory, and
	// the garbage that Go leaves. Without bounds it is several GiB.
	if most > 1536+256 {
		t.Errorf("the node had %d MiB in memory", most)
	}
}

// TestAppendRefusal sends more at once than a connection may, by calls of their own: the refusal says why and when to come back.
func TestAppendRefusal(t *testing.T) {
	s := serve(t, "n1", "--conn-in-flight", "1MiB", "--ingest-memory", "1MiB", "--partitions", "1")
	sql(t, s.grpc, "CREATE STREAM heavy (a BIGINT, k TEXT) WITH (format = 'json')")
	client := millracev1.NewIngestClient(plainConn(t, s.grpc))
	records := rawRecords(noise(1 << 20))
	var seen atomic.Pointer[grpcstatus.Status]
	ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			for seen.Load() == nil && ctx.Err() == nil {
				if _, err := client.Append(ctx, &millracev1.AppendRequest{Stream: "heavy", Records: records}); err != nil && ctx.Err() == nil {
					st := grpcstatus.Convert(err)
					seen.CompareAndSwap(nil, st)
				}
			}
		})
	}
	wg.Wait()
	st := seen.Load()
	if st == nil {
		t.Fatal("200 appends of 1 MiB at once, and none was refused")
	}
	saysWhen(t, st, "OVERLOADED")
}

// TestSlowReaders opens 200 subscriptions and 100 reads that never take what comes: the node holds little for them, and one
// that does take it isn't held back.
func TestSlowReaders(t *testing.T) {
	s := serve(t, "n1", "--max-readers", "301")
	sql(t, s.grpc, "CREATE STREAM s (a BIGINT, k TEXT) WITH (format = 'json'); CREATE MATERIALIZED VIEW v AS SELECT a, k FROM s")
	before := memoryOf(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 300 {
		cc := plainConn(t, s.grpc) // each its own: a process that hangs has one
		var err error
		if i < 200 {
			_, err = millracev1.NewSqlClient(cc).Subscribe(ctx, &millracev1.SubscribeRequest{View: "v"})
		} else {
			_, err = millracev1.NewLogClient(cc).Read(ctx, &millracev1.ReadRequest{Stream: "s", Follow: true})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() string {
		if n := metric(t, s, "millrace_readers"); n != 300 {
			return fmt.Sprintf("%v readers", n)
		}
		return ""
	})
	sub := follow(t, s.grpc, "v")
	eventually(t, func() string {
		if n := metric(t, s, "millrace_readers"); n != 301 {
			return fmt.Sprintf("%v readers", n)
		}
		return ""
	})
	// One more is too many, and says so.
	over, err := millracev1.NewLogClient(plainConn(t, s.grpc)).Read(callContext(t), &millracev1.ReadRequest{Stream: "s"})
	if err == nil {
		_, err = over.Recv()
	}
	saysWhen(t, grpcstatus.Convert(err), "TOO_MANY_READERS")
	client := millracev1.NewIngestClient(plainConn(t, s.grpc))
	const appends, each = 400, 100 << 10
	for range appends {
		value := noise(each / 4)
		if _, err := client.Append(callContext(t), &millracev1.AppendRequest{Stream: "s", Records: rawRecords(value, value, value, value)}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() string {
		sub.mu.Lock()
		defer sub.mu.Unlock()
		if n := len(sub.state); n < appends {
			return fmt.Sprintf("the subscriber has %d rows of %d", n, appends)
		}
		return ""
	})
	if n := metric(t, s, "millrace_readers"); n != 301 {
		t.Errorf("%v readers are left of 301", n)
	}
	grown := memoryOf(t, s) - before
	t.Logf("%d MiB went by 300 who took nothing; memory grew by %d MiB", appends*each>>20, grown)
	// 40 MiB for each of 300 would be 12 GiB. What is kept: for each some 1 MiB, and the records and rows themselves.
	if grown > 1500 {
		t.Errorf("the node's memory grew by %d MiB", grown)
	}
}

// TestDiskNearlyFull fills a small disk: appends are refused with a delay while there is room to run, all else goes on; when
// a stream is dropped there is room again, and the producer that waited goes on by itself.
func TestDiskNearlyFull(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1100m"); err != nil {
		t.Skipf("a file system of its own can't be mounted here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	s := &server{t: t, name: "n1", dir: filepath.Join(disk, "data"), extra: []string{"--partitions", "2"}}
	s.start()
	sql(t, s.grpc, "CREATE STREAM kept (a BIGINT, k TEXT) WITH (format = 'json'); CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM kept;"+
		"CREATE STREAM bulk (a BIGINT, k TEXT) WITH (format = 'json')")
	sendText(t, s.grpc, "kept", `{"a":1,"k":"x"}`+"\n")
	client := millracev1.NewIngestClient(plainConn(t, s.grpc))
	value := noise(1 << 20)
	var refusal *grpcstatus.Status
	ctx, cancel := context.WithTimeout(t.Context(), 2*stepTimeout)
	defer cancel()
	for n := 0; refusal == nil; n++ {
		if n > 2000 {
			t.Fatal("the disk took more than it has")
		}
		if _, err := client.Append(ctx, &millracev1.AppendRequest{Stream: "bulk", Records: rawRecords(value)}); err != nil {
			if st := grpcstatus.Convert(err); st.Code() == codes.ResourceExhausted || ctx.Err() != nil {
				refusal = st
			}
		}
	}
	saysWhen(t, refusal, "DISK_FULL")
	if !strings.Contains(refusal.Message(), "--disk-reserve") {
		t.Errorf("it doesn't say what to do: %s", refusal.Message())
	}
	// Small ones are refused too: they would fill the disk all the same.
	_, err := client.Append(callContext(t), &millracev1.AppendRequest{Stream: "kept", Records: rawRecords([]byte(`{"a":2,"k":"y"}`))})
	saysWhen(t, grpcstatus.Convert(err), "DISK_FULL")
	waiting := make(chan result, 1)
	go func() {
		waiting <- cli(t, strings.NewReader(`{"a":3,"k":"z"}`+"\n"), "send", "kept", "--addr", s.grpc, "--timeout", "110s", "--json")
	}()
	if n := fmt.Sprint(one(t, s.grpc, "SELECT n FROM v")["n"]); n != "1" {
		t.Errorf("the view says %s", n)
	}
	if n := fmt.Sprint(one(t, s.grpc, "SELECT count(*) AS n FROM kept")["n"]); n != "1" {
		t.Errorf("the stream says %s", n)
	}
	sql(t, s.grpc, "CREATE STREAM another (a BIGINT) WITH (format = 'json')")
	if free := metric(t, s, "millrace_disk_free_bytes"); free < 256<<20 {
		t.Errorf("%v bytes are free when appends are refused", free)
	}
	if metric(t, s, "millrace_disk_refused_total") == 0 {
		t.Error("no refusal was counted")
	}
	sql(t, s.grpc, "DROP STREAM bulk")
	r := <-waiting
	if r.code != 0 || !strings.Contains(r.out, `"acknowledged":1`) {
		t.Fatalf("the producer that waited: exit %d: %s%s", r.code, r.out, r.err)
	}
	eventually(t, func() string {
		if n := fmt.Sprint(one(t, s.grpc, "SELECT n FROM v")["n"]); n != "2" {
			return "the view says " + n
		}
		return ""
	})
	s.stop()
}
