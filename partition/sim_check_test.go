package partition

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
)

// noteCommits compares what a primary commits with what was committed before.
func (s *sim) noteCommits(n *simNode) {
	r := n.r
	if s.forgetful.undecided() {
		return
	}
	for lsn := s.top + 1; lsn <= r.commit && r.role == RolePrimary && r.primary.established; lsn++ {
		v, ok := n.disk[string(indexKey(0, lsn))]
		if !ok {
			s.violated("durable", "%s commits %d, which isn't on its disk", n.id, lsn)
		}
		h, _, err := decodeIndex(v)
		if err != nil {
			s.fatalf("%v", err)
		}
		if h.tick <= s.closed {
			s.violated("closed-ticks", "%s commits %d with tick %d, %d was closed before", n.id, lsn, h.tick, s.closed)
		}
		s.noteCommitter(n, h)
		s.trace("%s commits %d %v tick %d: producer %d sequence %d at %d", n.id, lsn, h.term, h.tick, h.producer, h.sequence, h.base)
		s.committed[lsn], s.top = h, lsn
	}
}

// noteCommitter: only one node commits in an epoch, and what it commits is on the disks of all in-sync members. One that
// obeys a later epoch already may have removed it, having acknowledged it before.
func (s *sim) noteCommitter(n *simNode, h header) {
	epoch := n.r.epoch()
	if by, ok := s.committers[epoch]; ok && by != n.id {
		s.violated("one-primary", "%s commits in epoch %d, in which %s did", n.id, epoch, by)
	}
	s.committers[epoch] = n.id
	for _, id := range n.r.cfg.InSync {
		m := s.node(ids.NodeID(id))
		if m.applied > 0 && ids.Epoch(s.states[m.applied-1].Partitions[0].Epoch) > epoch || m.r != nil && m.r.epoch() > epoch {
			continue
		}
		v, ok := m.disk[string(indexKey(0, h.lsn))]
		if !ok {
			s.violated("in-sync", "%s commits %d in epoch %d, which isn't on the disk of %s", n.id, h.lsn, epoch, id)
		}
		if got, _, err := decodeIndex(v); err != nil || got.term != h.term {
			s.violated("in-sync", "%s commits %d of %v in epoch %d, %s has it of %v (%v)", n.id, h.lsn, h.term, epoch, id, got.term, err)
		}
	}
}

// noteClosing: a tick closes when everything stamped with it, or before, is committed.
func (s *sim) noteClosing(n *simNode, c Closing) {
	s.trace("%s closes %d in epoch %d", n.id, c.Tick, c.Epoch)
	if s.forgetful.undecided() {
		return
	}
	s.closed = max(s.closed, c.Tick)
	for _, d := range c.Data {
		if d.Tick > c.Tick {
			s.violated("closing", "%s: data of tick %d in a closing of %d", n.id, d.Tick, c.Tick)
		}
	}
	for lsn := s.top + 1; lsn <= n.r.end; lsn++ {
		if e := n.r.tail.at(lsn); e != nil && e.tick <= c.Tick {
			s.violated("closing", "%s closes %d while entry %d of tick %d isn't committed", n.id, c.Tick, lsn, e.tick)
		}
	}
}

// check looks at all nodes.
func (s *sim) check() {
	if s.forgetful.undecided() {
		s.checkKept()
		return
	}
	for _, n := range s.nodes {
		if !n.up || n.r == nil || !s.follows(n.r) {
			continue
		}
		r := n.r
		if r.durable > r.end || r.agreed > r.end && r.role != RolePrimary {
			s.violated("own-state", "%s: durable %d, agreed %d, end %d", n.id, r.durable, r.agreed, r.end)
		}
		if r.commit > s.top {
			s.violated("commit-known", "%s thinks %d is committed, which is %d", n.id, r.commit, s.top)
		}
		for lsn := max(r.hist.base+1, r.hard.first, r.commit-min(r.commit, 5)); lsn <= r.commit; lsn++ {
			if h := s.committed[lsn]; r.hist.at(lsn) != h.term {
				s.violated("logs-agree", "%s has %v at %d, committed is %v", n.id, r.hist.at(lsn), lsn, h.term)
			}
		}
	}
}

func (s *sim) answered(n *simNode, p *simProducer, seq uint64, seen ids.Tick, res AppendResult, err error) {
	if s.forgetful.undecided() || !slices.Contains(s.producers, p) {
		return
	}
	if err != nil {
		var f *fault.Error
		if !errors.As(err, &f) {
			return
		}
		switch _, acked := p.acked[seq-1]; {
		case f.Kind == fault.NotFound, f.GetReason() == "UNKNOWN_PRODUCER" && acked, f.GetReason() == "DUPLICATE_SEQUENCE" && p.acked[seq].Count == 0:
			s.violated("verdict", "%s, producer %d sequence %d: %v", n.id, p.id, seq, err)
		case f.GetReason() == "OUT_OF_SEQUENCE" && acked:
			s.violated("verdict", "%s lost something of producer %d: %v", n.id, p.id, err)
		}
		return
	}
	if !res.Duplicate && res.Tick < seen {
		s.violated("causality", "producer %d sequence %d was stamped %d, had seen %d", p.id, seq, res.Tick, seen)
	}
	res.Duplicate = false
	if old, ok := p.acked[seq]; ok && old != res {
		s.violated("one-answer", "producer %d sequence %d was acknowledged at %+v, now at %+v", p.id, seq, old, res)
	}
	found := false
	for _, h := range s.committed {
		if h.producer == p.id && h.sequence == seq {
			found = h.base == res.BaseOffset && h.tick == res.Tick && h.stream == p.stream
		}
	}
	if !found {
		s.violated("acknowledged", "producer %d sequence %d was acknowledged at %d by %s and isn't committed", p.id, seq, res.BaseOffset, n.id)
	}
	if p.acked[seq].Count == 0 {
		s.acks++
	}
	p.acked[seq] = res
	p.pending = slices.DeleteFunc(p.pending, func(x uint64) bool { return x == seq })
}

// final compares the disks of all members with what was committed.
func (s *sim) final() {
	seen := map[[2]uint64]bool{}
	next := map[ids.StreamID]ids.Offset{}
	for lsn := LSN(1); lsn <= s.top; lsn++ {
		h := s.committed[lsn]
		key := [2]uint64{h.producer, h.sequence}
		if seen[key] {
			s.violated("once", "producer %d sequence %d is there twice", h.producer, h.sequence)
		}
		seen[key] = true
		if h.base != next[h.stream] {
			s.violated("offsets", "LSN %d begins at %d of stream %d, not %d", lsn, h.base, h.stream, next[h.stream])
		}
		next[h.stream] = h.end()
	}
	for _, id := range s.last().Partitions[0].Replicas {
		n := s.node(ids.NodeID(id))
		for stream, st := range n.r.streams {
			if st.next != next[stream] || st.committed != st.next {
				s.violated("contents", "%s: stream %d ends at %d/%d, not %d", id, stream, st.committed, st.next, next[stream])
			}
		}
		have := 0
		for lsn := LSN(1); lsn <= s.top; lsn++ {
			h := s.committed[lsn]
			v, ok := n.disk[string(logKey(0, h.stream, h.base))]
			if h.base < n.r.streams[h.stream].start {
				if ok {
					s.violated("contents", "%s still has LSN %d", id, lsn)
				}
				continue
			}
			have++
			if want := fmt.Sprintf("%d/%d", h.producer, h.sequence); !ok || !bytes.Contains(v[headerLen:], []byte(want)) {
				s.violated("contents", "%s lacks LSN %d, stream %d at %d", id, lsn, h.stream, h.base)
			}
		}
		again := &simNode{s: s, id: n.id, boot: n.boot + 1, disk: n.disk, opt: n.opt}
		again.r = again.make()
		if err := again.r.load(n.disk.iter()); err != nil {
			s.violated("recovery", "%s can't recover: %v", id, err)
		}
		if r := again.r; r.end != n.r.end || r.endBytes != n.r.endBytes || r.lastTick != n.r.lastTick || r.hard.first != n.r.hard.first {
			s.violated("recovery", "%s recovers to %d/%d/%d/%d, was %d/%d/%d/%d", id, r.end, r.endBytes, r.lastTick, r.hard.first, n.r.end, n.r.endBytes, n.r.lastTick, n.r.hard.first)
		}
	}
	s.trace("healed: %d acknowledged, epoch %d", s.acks, s.last().Partitions[0].Epoch)
}
