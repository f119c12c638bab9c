package node

import (
	"context"
	"sync"
	"time"

	"github.com/millrace/millrace/datagen"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

const (
	// generateRecords bounds the records of one batch of a stream with a source.
	generateRecords = 8000
	// generateAhead bounds the records of a partition that are there and not yet taken by the slowest view.
	generateAhead = 4 * generateRecords
	// generateLook is how often a stream looks whether its views have taken more, generatePace how often one with a rate goes on.
	generateLook = 2 * time.Millisecond
	generatePace = 10 * time.Millisecond
)

// generator appends to the logs of streams with a source, in the partitions whose primary is here: batches that only say how
// many records there are. Which ones they are follows from their offsets, so nothing has to be remembered: after a
// crash or a handover whoever is the primary goes on where the log ends.
type generator struct {
	n    *Node
	wake chan struct{} // buffered: there is a new catalog, or an answer

	mu      sync.Mutex
	streams []*internalv1.StreamDef
	lanes   map[laneID]*generatorLane
}

// generatorLane is a stream in a partition.
type generatorLane struct {
	shares  datagen.Shares
	epoch   uint64
	waiting bool      // for an answer
	ended   bool      // in this epoch
	refused time.Time // when an append was, last
	// given are the batches that views haven't taken yet, as far as it is known; taken is where they begin.
	given []givenBatch
	taken ids.Offset
}

type givenBatch struct {
	tick ids.Tick
	end  ids.Offset
}

func newGenerator(n *Node) *generator {
	return &generator{n: n, wake: make(chan struct{}, 1), lanes: map[laneID]*generatorLane{}}
}

// configure takes the streams of a new catalog.
func (g *generator) configure(c *catalog) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.streams = g.streams[:0:0]
	for _, s := range c.state.Streams {
		if s.Stream.Source != nil {
			g.streams = append(g.streams, s)
		}
	}
	for id := range g.lanes {
		if c.streams[id.stream] == nil {
			delete(g.lanes, id)
		}
	}
	g.look()
}

func (g *generator) look() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// run goes on until ctx ends.
func (g *generator) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.wake:
		case <-timer.C:
		}
		timer.Stop()
		if pause := g.round(); pause > 0 {
			timer.Reset(pause)
		}
	}
}

// round looks at every lane once, and returns after what time to look again: 0 if only a new catalog or an answer makes a
// difference.
func (g *generator) round() (pause time.Duration) {
	c := g.n.catalog()
	if c == nil {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.streams {
		due := g.due(s)
		for _, p := range c.state.Partitions {
			if ids.NodeID(p.Primary) != g.n.id {
				continue
			}
			if again := g.lane(s, p).advance(g, s, ids.PartitionID(p.Id), due); again > 0 && (pause == 0 || again < pause) {
				pause = again
			}
		}
	}
	return pause
}

// due is what holds for all partitions of a stream: how many events may have come, and how far the views are.
type due struct {
	events uint64
	taken  ids.Tick
	read   bool // by any view
}

func (g *generator) due(s *internalv1.StreamDef) due {
	src := s.Stream.Source
	if src.Rate > 0 {
		now, _ := g.n.coord.LastTick()
		return due{events: datagen.Due(uint64(max(now, ids.Tick(s.CreatedTick)))-s.CreatedTick, src.Rate)}
	}
	taken, read := g.n.runtime.Taken(ids.StreamID(s.Stream.Id))
	return due{taken: taken, read: read}
}

// lane returns a stream's lane in a partition; begun anew in each epoch, as another node may have gone on meanwhile.
func (g *generator) lane(s *internalv1.StreamDef, p *internalv1.PartitionConfig) *generatorLane {
	id := laneID{ids.StreamID(s.Stream.Id), ids.PartitionID(p.Id)}
	l := g.lanes[id]
	if l == nil || l.epoch != p.Epoch {
		l = &generatorLane{epoch: p.Epoch}
		l.shares, _ = datagen.NewShares(s.Stream.Source) // it was checked when the stream was made
		g.lanes[id] = l
	}
	return l
}

// advance appends a batch if there is one to append, and returns when to look again.
func (l *generatorLane) advance(g *generator, s *internalv1.StreamDef, p ids.PartitionID, d due) time.Duration {
	if l.waiting || l.ended {
		return 0
	}
	if left := retryPause - time.Since(l.refused); left > 0 {
		return left
	}
	id := ids.StreamID(s.Stream.Id)
	end, err := g.n.host.End(p, id)
	if err != nil || !end.Settled {
		return retryPause
	}
	all := l.shares.All(p)
	if l.ended = uint64(end.End) >= all; l.ended {
		return 0
	}
	limit, pause := all, generatePace
	switch {
	case s.Stream.Source.Rate > 0:
		limit = l.shares.Of(p, d.events)
	case !d.read:
		return 0 // a view is a new catalog
	default:
		limit, pause = min(limit, l.untilViews(end, d.taken)), generateLook
	}
	limit = min(limit, uint64(end.End)+generateRecords)
	if limit < all {
		limit -= limit % l.shares.PerRound()
	}
	if limit <= uint64(end.End) {
		return pause
	}
	l.append(g, s.Stream, p, end.End, uint32(limit-uint64(end.End)))
	return 0
}

// untilViews returns how many records there may be, given the tick up to which the views have taken them.
func (l *generatorLane) untilViews(end partition.LogEnd, taken ids.Tick) uint64 {
	if len(l.given) == 0 && l.taken == 0 && end.End > 0 {
		l.given = []givenBatch{{end.LastTick, end.End}} // from before this epoch, or this process
	}
	for len(l.given) > 0 && l.given[0].tick <= taken {
		l.taken, l.given = l.given[0].end, l.given[1:]
	}
	return uint64(l.taken) + generateAhead
}

// append gives a batch to the log. Called with the generator's mu held.
func (l *generatorLane) append(g *generator, def *millracev1.Stream, p ids.PartitionID, base ids.Offset, count uint32) {
	l.waiting = true
	payload := record.GeneratedPayload(count)
	req := partition.AppendRequest{
		Partition: p, Stream: ids.StreamID(def.Id), Generated: true, Base: base,
		Batch: &millracev1.Batch{
			Partition: uint32(p), Count: count, UncompressedBytes: uint32(len(payload)), Crc32C: record.Checksum(payload), Payload: payload,
		},
	}
	g.n.tasks.Go(func() { // what it is told may come at once, on this goroutine
		g.n.host.Append(req, func(res partition.AppendResult, err error) {
			g.mu.Lock()
			l.waiting = false
			switch {
			case err != nil:
				l.refused = time.Now()
			case def.Source.Rate == 0:
				l.given = append(l.given, givenBatch{res.Tick, res.BaseOffset + ids.Offset(res.Count)})
			}
			g.mu.Unlock()
			g.look()
		})
	})
}
