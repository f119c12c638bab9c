package coordinator

import (
	"sync"

	"github.com/hashicorp/raft"
)

// raftTransport is hashicorp/raft's network transport with pipelines that can be closed from outside. A pipeline's sender
// waits for whoever takes its answers; when that one has ended first, as it does once it hears of a newer term, the sender
// waits until the pipeline is closed, which only the sender itself would do, and Raft never stops.
type raftTransport struct {
	*raft.NetworkTransport

	mu     sync.Mutex
	closed bool
	open   map[*pipeline]struct{}
}

func trackPipelines(t *raft.NetworkTransport) *raftTransport {
	return &raftTransport{NetworkTransport: t, open: map[*pipeline]struct{}{}}
}

// pipeline takes itself out of its transport's list when it is closed.
type pipeline struct {
	raft.AppendPipeline
	t *raftTransport
}

// AppendEntriesPipeline implements raft.Transport.
func (t *raftTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	p := &pipeline{inner, t}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = inner.Close()
		return nil, raft.ErrPipelineShutdown
	}
	t.open[p] = struct{}{}
	return p, nil
}

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.t.mu.Lock()
	delete(p.t.open, p)
	p.t.mu.Unlock()
	return p.AppendPipeline.Close()
}

// closePipelines ends all pipelines, and those that come later at once.
func (t *raftTransport) closePipelines() {
	t.mu.Lock()
	t.closed = true
	open := make([]*pipeline, 0, len(t.open))
	for p := range t.open {
		open = append(open, p)
	}
	t.mu.Unlock()
	for _, p := range open {
		_ = p.Close()
	}
}
