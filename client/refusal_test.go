package client_test

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// sourNode answers statements with the error that it is told.
type sourNode struct {
	millracev1.UnimplementedSqlServer
	millracev1.UnimplementedClusterServer
	answer func(ctx context.Context) error
	calls  atomic.Int64
}

func (s *sourNode) Execute(_ *millracev1.ExecuteRequest, stream millracev1.Sql_ExecuteServer) error {
	s.calls.Add(1)
	return s.answer(stream.Context())
}

func (s *sourNode) Describe(context.Context, *millracev1.DescribeRequest) (*millracev1.DescribeResponse, error) {
	return &millracev1.DescribeResponse{}, nil
}

func startSour(t *testing.T, answer func(ctx context.Context) error) (*sourNode, string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, server := &sourNode{answer: answer}, grpc.NewServer()
	millracev1.RegisterSqlServer(server, s)
	millracev1.RegisterClusterServer(server, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(lis)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return s, lis.Addr().String()
}

// TestTransportErrors checks that a user never reads the names of HTTP/2's frames, and learns where it happened.
func TestTransportErrors(t *testing.T) {
	for _, tc := range []struct {
		code codes.Code
		text string
		kind fault.Kind
		says string
	}{
		{codes.Canceled, "stream terminated by RST_STREAM with error code: CANCEL", fault.Unavailable, "ended the call before it answered"},
		{codes.DeadlineExceeded, "stream terminated by RST_STREAM with error code: CANCEL", fault.Deadline, "within the time allowed"},
		{codes.Internal, "stream terminated by RST_STREAM with error code: INTERNAL_ERROR", fault.Unavailable, "broke the call off"},
		{codes.Internal, "server closed the stream without sending trailers", fault.Unavailable, "broke the call off"},
		{codes.Unavailable, "error reading from server: EOF", fault.Unavailable, "the connection was lost"},
		{codes.Unavailable, "transport is closing", fault.Unavailable, "the connection was lost"},
		{codes.ResourceExhausted, "grpc: received message larger than max (20 vs. 10)", fault.TooLarge, "--max-message"},
	} {
		_, addr := startSour(t, func(context.Context) error { return status.Error(tc.code, tc.text) })
		cl, err := client.Dial(t.Context(), []string{addr}, client.WithPatience(time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		_, err = cl.Query(t.Context(), "SELECT 1")
		switch {
		case err == nil || fault.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), addr):
			t.Errorf("%v %q: %v", tc.code, tc.text, err)
		case strings.Contains(err.Error(), "RST_STREAM"), strings.Contains(err.Error(), "trailers"), strings.Contains(err.Error(), "EOF"):
			t.Errorf("%v %q is passed on: %v", tc.code, tc.text, err)
		}
		cl.Close()
	}
}

// TestDeadlineSaysWhy: when the caller's time is over, the error has what a node said before.
func TestDeadlineSaysWhy(t *testing.T) {
	_, addr := startSour(t, func(context.Context) error {
		return fault.New(fault.Unavailable, "partition 3 has no primary now").WithReason("NO_PRIMARY").GRPCStatus().Err()
	})
	cl, err := client.Dial(t.Context(), []string{addr}, client.WithPatience(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err = cl.Query(ctx, "SELECT 1"); err == nil || !strings.Contains(err.Error(), "partition 3 has no primary now") {
		t.Errorf("%v", err)
	}
}

// TestStaleIsToldSoon: a node that is cut off has waited itself; it is asked again for a little, not for the client's
// whole patience.
func TestStaleIsToldSoon(t *testing.T) {
	n, addr := startSour(t, func(context.Context) error {
		return fault.New(fault.Unavailable, "no tick for 14s, more than max_staleness").WithReason("TOO_STALE").GRPCStatus().Err()
	})
	cl, err := client.Dial(t.Context(), []string{addr}, client.WithPatience(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err = cl.Query(t.Context(), "SELECT 1"); client.Reason(err) != "TOO_STALE" {
		t.Errorf("%v", err)
	}
	if n.calls.Load() < 2 {
		t.Error("the node was asked once only")
	}
}

// TestDialRefused: an address where nobody listens is told with its reason, and soon.
func TestDialRefused(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := lis.Addr().String()
	lis.Close()
	begun := time.Now()
	_, err = client.Dial(t.Context(), []string{addr})
	if err == nil || !strings.Contains(err.Error(), addr+" can't be reached: connection refused") {
		t.Errorf("%v", err)
	}
	if d := time.Since(begun); d > 20*time.Second { // some 0.2 s; a machine can be very busy
		t.Errorf("it took %v", d)
	}
}
