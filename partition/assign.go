package partition

import (
	"slices"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// Configure takes each published state, in Raft order: it makes and removes replicas, promotes and demotes them, and
// drops the logs of dropped streams. st must not change afterwards.
func (h *Host) Configure(st *internalv1.ClusterState) {
	h.confMu.Lock()
	defer h.confMu.Unlock()
	last := h.state
	h.state = st
	newCatalog := last == nil || !slices.Equal(last.Streams, st.Streams) || last.NextObjectId != st.NextObjectId || last.Replicas != st.Replicas
	if newCatalog {
		h.cat = makeCatalog(st)
	}
	h.resize(len(st.Partitions))
	var out outcome
	for _, cfg := range st.Partitions {
		if newCatalog || last == nil || int(cfg.Id) >= len(last.Partitions) || last.Partitions[cfg.Id] != cfg {
			h.configure(cfg, &out)
		}
	}
	h.primaries = h.primaries[:0]
	h.all(func(hd *hosted) {
		hd.mu.Lock()
		if hd.r.role == RolePrimary {
			h.primaries = append(h.primaries, hd)
		}
		hd.mu.Unlock()
	})
	h.shareCache()
	h.links.reconcile(h.wantedPeers(st))
	n := 0
	for n < len(h.early) && h.early[n].index <= st.Index {
		h.tick(h.early[n], &out)
		n++
	}
	h.early = append(h.early[:0], h.early[n:]...)
	h.finish(&out)
}

func makeCatalog(st *internalv1.ClusterState) *catalog {
	c := &catalog{streams: make(map[ids.StreamID]*internalv1.StreamDef, len(st.Streams)), next: ids.StreamID(st.NextObjectId), target: int(st.Replicas)}
	for _, s := range st.Streams {
		c.streams[ids.StreamID(s.Stream.Id)] = s
		c.next = max(c.next, ids.StreamID(s.Stream.Id)+1)
	}
	return c
}

// resize makes room for n partitions. The slots are replaced as a whole, since readers take no lock.
func (h *Host) resize(n int) {
	if old := *h.slots.Load(); len(old) < n {
		slots := make([]*hosted, n)
		copy(slots, old)
		h.slots.Store(&slots)
	}
}

func (h *Host) setSlot(p ids.PartitionID, hd *hosted) {
	slots := slices.Clone(*h.slots.Load())
	slots[p] = hd
	h.slots.Store(&slots)
}

func (h *Host) configure(cfg *internalv1.PartitionConfig, out *outcome) {
	p := ids.PartitionID(cfg.Id)
	hd := h.slot(p)
	if !slices.Contains(cfg.Replicas, string(h.cfg.Node)) {
		if hd != nil {
			h.remove(hd, cfg, out)
		}
		return
	}
	if hd == nil {
		hd = h.newHosted(p)
		hd.r.wipe(0, term{}, 0) // what a copy that was removed has left may still be there
		h.setSlot(p, hd)
	}
	h.event(hd, out, func(r *replica) {
		r.cat = h.cat
		role, epoch := r.role, r.epoch()
		r.configure(h.now(), cfg)
		for s := range r.streams {
			if h.cat.dropped(s) {
				r.dropStream(s)
			}
		}
		if r.role == RolePrimary && (role != RolePrimary || epoch != r.epoch()) {
			h.links.connect(r)
		}
	})
}

func (h *Host) newHosted(p ids.PartitionID) *hosted {
	return &hosted{r: newReplica(p, h.cfg.Node, h.boot, &h.opt, h.loadProducer(p), h.cfg.ProducerCache)}
}

// remove deletes a replica that isn't assigned to this node any more. An older configuration than the replica knows,
// from a Raft log that still catches up, removes nothing.
func (h *Host) remove(hd *hosted, cfg *internalv1.PartitionConfig, out *outcome) {
	removed := false
	h.event(hd, out, func(r *replica) {
		if ids.Epoch(cfg.Epoch) < r.epoch() {
			return
		}
		if r.hard.held && ids.Epoch(cfg.ForcedEpoch) <= r.hard.forced {
			r.cfg = cfg // what it has may be the last of its kind
			return
		}
		removed = true
		r.stepDown(r.moved())
		r.role, r.leader = RoleNone, ""
		lo, hi := partitionRange(r.id)
		r.write(mutation{key: lo, hi: hi})
	})
	if removed {
		hd.mu.Lock()
		hd.gone = true
		hd.mu.Unlock()
		h.setSlot(hd.r.id, nil)
		h.log.Info("removed a replica that this node doesn't hold any more", "partition", hd.r.id, "epoch", cfg.Epoch)
	}
}

// wantedPeers are the nodes that hold other replicas of the partitions whose primary is here.
func (h *Host) wantedPeers(st *internalv1.ClusterState) map[ids.NodeID]bool {
	out := map[ids.NodeID]bool{}
	for _, hd := range h.primaries {
		if int(hd.r.id) >= len(st.Partitions) {
			continue
		}
		for _, id := range st.Partitions[hd.r.id].Replicas {
			if ids.NodeID(id) != h.cfg.Node {
				out[ids.NodeID(id)] = true
			}
		}
	}
	return out
}

// shareCache divides the memory for recent batches among the logs.
func (h *Host) shareCache() {
	logs := int64(max(1, len(h.primaries)) * max(1, len(h.cat.streams)))
	h.opt.recentBytes.Store(h.cfg.CacheBytes / logs)
}
