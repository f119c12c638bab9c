package coordinator

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestClosePipelines holds up the answers of a pipeline until its sender waits, and lets it go by closing from outside.
func TestClosePipelines(t *testing.T) {
	server, err := raft.NewTCPTransport("127.0.0.1:0", nil, 2, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	inner, err := raft.NewTCPTransport("127.0.0.1:0", nil, 2, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	client := trackPipelines(inner)
	p, err := client.AppendEntriesPipeline("s", server.LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := p.AppendEntries(&raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}); err != nil {
				ended <- err
				return
			}
		}
	}()
	select {
	case err := <-ended:
		t.Fatalf("the sender ended by itself: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	client.closePipelines()
	select {
	case err := <-ended:
		if !errors.Is(err, raft.ErrPipelineShutdown) {
			t.Logf("ended with %v", err) // the connection may be found closed first
		}
	case <-time.After(60 * time.Second):
		t.Fatal("the sender waits for ever")
	}
	if _, err := client.AppendEntriesPipeline("s", server.LocalAddr()); !errors.Is(err, raft.ErrPipelineShutdown) {
		t.Fatalf("a pipeline after the end: %v", err)
	}
}
