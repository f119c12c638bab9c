package partition

import (
	"maps"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// simForgetting is the end of some schedules: the disk of a primary that is alone in sync goes back to an earlier state,
// with nobody left whose word would depose it. Other replicas may know of more acknowledged batches than it has then. None
// of them may throw these away, whatever happens, until an operator has chosen whose copy counts; after that all must
// heal.
type simForgetting struct {
	keeps   map[ids.NodeID]map[LSN]header // what each replica knew to be committed
	decided bool
}

// undecided: what is committed isn't one truth now.
func (f *simForgetting) undecided() bool { return f != nil && !f.decided }

// forget has the primary's disk forget, lets things go on for a while without reconfigurations, and then has the operator choose.
func (s *sim) forget() {
	n := s.node(ids.NodeID(s.last().Partitions[0].Primary))
	if !n.up || n.r == nil || n.r.role != RolePrimary {
		return
	}
	past := maps.Clone(n.disk)
	if !past.has(stateKey(0)) {
		return
	}
	for range s.rng.IntN(300) {
		s.step++
		s.random()
		s.check()
	}
	cfg := s.last().Partitions[0]
	if cfg.Primary != string(n.id) || !n.up || n.r == nil {
		return // it lives on as usual
	}
	s.learnAll() // else one may yet hear that its replica was removed before, or carry it out
	for _, o := range s.nodes {
		o.flush(len(o.queue))
	}
	s.forgetful = &simForgetting{keeps: map[ids.NodeID]map[LSN]header{}}
	for _, o := range s.nodes {
		if o != n && o.r != nil {
			o.flush(len(o.queue)) // or it has yet to throw away a copy that it had before it was removed
		}
		if o != n && o.disk.has(stateKey(0)) && slices.Contains(cfg.Replicas, string(o.id)) {
			s.forgetful.keeps[o.id] = o.committedOnDisk()
		}
	}
	n.crash()
	s.calls = slices.DeleteFunc(s.calls, func(c simCall) bool { return c.n == n }) // nor may one of its calls put another in sync
	n.disk, n.synced = past, nil
	_ = s.change(ids.Epoch(cfg.Epoch), func(c *internalv1.PartitionConfig) bool {
		c.InSync, c.HandoverTo = []string{string(n.id)}, ""
		return true
	})
	s.trace("the disk of %s forgets", n.id)
	n.start()
	for range s.rng.IntN(600) {
		s.step++
		s.random()
		s.checkKept()
	}
	s.settleForgetting(n)
	s.choose(n)
}

// settleForgetting gives every replica the chance to hear the primary, so that those that have more are held.
func (s *sim) settleForgetting(primary *simNode) {
	s.healing = true
	for range 400 {
		s.step++
		s.now += 10 * time.Millisecond
		s.everyone()
		s.checkKept()
	}
	if primary.r.role != RolePrimary {
		s.violated("held", "%s, alone in sync, is %v", primary.id, primary.r.role)
	}
	for _, n := range s.nodes {
		keeps := s.forgetful.keeps[n.id]
		most := LSN(0)
		for lsn := range keeps {
			most = max(most, lsn)
		}
		if most == 0 || n == primary {
			continue
		}
		if h, ok := primary.onDisk(most); (!ok || h.term != keeps[most].term) && primary.r.hard.first <= most && !n.r.hard.held {
			s.violated("held", "%s has %d acknowledged, which %s lacks, and isn't held: %v", n.id, most, primary.id, n.r.role)
		}
	}
}

// committedOnDisk is what a replica's disk has and says to be committed.
func (n *simNode) committedOnDisk() map[LSN]header {
	again := &simNode{s: n.s, id: n.id, boot: n.boot + 1, disk: n.disk, opt: n.opt}
	r := again.make()
	if err := r.load(n.disk.iter()); err != nil {
		n.s.violated("recovery", "%s can't recover: %v", n.id, err)
	}
	out := map[LSN]header{}
	for lsn := r.hard.first; lsn <= r.commit; lsn++ {
		if h, ok := n.onDisk(lsn); ok {
			out[lsn] = h
		}
	}
	return out
}

func (n *simNode) onDisk(lsn LSN) (header, bool) {
	v, ok := n.disk[string(indexKey(0, lsn))]
	if !ok {
		return header{}, false
	}
	h, _, err := decodeIndex(v)
	if err != nil {
		n.s.fatalf("%v", err)
	}
	return h, true
}

// checkKept: what a replica knew to be committed when the primary's disk forgot is still there, but for what retention
// removed.
func (s *sim) checkKept() {
	for id, keeps := range s.forgetful.keeps {
		n := s.node(id)
		var state hardState
		if err := state.decode(n.disk[string(stateKey(0))]); err != nil {
			s.violated("kept", "%s has lost its state: %v", id, err)
		}
		for lsn, h := range keeps {
			if got, ok := n.onDisk(lsn); lsn >= state.first && (!ok || got.term != h.term) {
				s.violated("kept", "%s threw away batch %d of %v, which was acknowledged: the primary's disk had forgotten it", id, lsn, h.term)
			}
		}
	}
}

// choose is the operator's choice: the primary's copy, or that of a held replica. What it has is the truth from then on.
func (s *sim) choose(primary *simNode) {
	to := primary
	for _, n := range s.nodes {
		if n.up && n.r != nil && n.r.hard.held && s.chance(50) {
			to = n
		}
	}
	cfg := s.last().Partitions[0]
	st := &internalv1.ClusterState{Index: s.last().Index + 1, Replicas: s.last().Replicas, Streams: s.last().Streams, NextObjectId: s.last().NextObjectId}
	st.Partitions = []*internalv1.PartitionConfig{{
		Epoch: cfg.Epoch + 1, EpochIndex: st.Index, ForcedEpoch: cfg.Epoch + 1, Primary: string(to.id), InSync: []string{string(to.id)},
		Replicas: slices.Clone(cfg.Replicas),
	}}
	s.states = append(s.states, st)
	s.calls = nil
	s.trace("the operator chooses %s: %s", to.id, configText(st.Partitions[0]))
	for lsn := range s.committed {
		if lsn > to.r.end {
			delete(s.committed, lsn)
		}
	}
	s.top = to.r.end
	for lsn := to.r.hard.first; lsn <= s.top; lsn++ {
		h, ok := to.onDisk(lsn)
		if !ok {
			s.violated("durable", "%s lacks %d", to.id, lsn)
		}
		s.committed[lsn] = h
	}
	for i, p := range s.producers { // those that were there may have lost acknowledged records
		s.producers[i] = &simProducer{id: p.id + 100, stream: p.stream, next: 1, acked: map[uint64]AppendResult{}, quota: 20}
	}
	s.forgetful.decided = true
	s.learnAll()
}

// learnAll has every node learn all configurations that there are.
func (s *sim) learnAll() {
	for _, n := range s.nodes {
		for n.start(); n.applied < len(s.states); {
			n.learn()
		}
	}
}

// follows tells whether a replica has come to the operator's choice.
func (s *sim) follows(r *replica) bool {
	return s.forgetful == nil || r.hard.forced >= ids.Epoch(s.last().Partitions[0].ForcedEpoch)
}
