package stage

import (
	"maps"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/storage"
)

// Configure brings the runtime in line with a new state of the cluster: views come and go, and so do the partitions
// whose primary is here. The state isn't changed afterwards by anyone.
func (rt *Runtime) Configure(st *internalv1.ClusterState) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.stopped || st.PartitionCount == 0 {
		return
	}
	first := rt.state == nil
	moved := movedPrimaries(rt.state, st)
	rt.state = st
	rt.board.resize(int(st.PartitionCount))
	rt.ship.prepare(st)
	here := rt.primaryEpochs(st)
	rt.dropViews(st)
	rt.addViews(st)
	if first {
		rt.dropOrphans()
	}
	rt.configureSources(here)
	for _, s := range rt.sources {
		s.forgetDurable(moved)
	}
	rt.configureTargets(st, here, first)
	rt.ship.configure(st)
	rt.publish(st, here)
	rt.configureFeeds(st)
	streams := map[ids.StreamID]bool{}
	for _, s := range st.Streams {
		streams[ids.StreamID(s.Stream.Id)] = true
	}
	rt.board.forget(func(s ids.StreamID) bool { return streams[s] })
	rt.lookAtBoard()
}

// primaryEpochs returns the partitions whose primary is here, with their epochs.
func (rt *Runtime) primaryEpochs(st *internalv1.ClusterState) map[ids.PartitionID]ids.Epoch {
	here := map[ids.PartitionID]ids.Epoch{}
	for _, p := range st.Partitions {
		if ids.NodeID(p.Primary) == rt.cfg.NodeID {
			here[ids.PartitionID(p.Id)] = ids.Epoch(p.Epoch)
		}
	}
	return here
}

// movedPrimaries returns the partitions whose primary is another one than before.
func movedPrimaries(before, now *internalv1.ClusterState) []ids.PartitionID {
	var out []ids.PartitionID
	for i, p := range now.Partitions {
		if before != nil && i < len(before.Partitions) && before.Partitions[i].Primary != p.Primary {
			out = append(out, ids.PartitionID(p.Id))
		}
	}
	return out
}

// dropViews ends the views that are gone and deletes what they have stored.
func (rt *Runtime) dropViews(st *internalv1.ClusterState) {
	keep := map[ids.StreamID]bool{}
	for _, v := range st.Views {
		keep[ids.StreamID(v.Id)] = true
	}
	for id := range rt.views {
		if keep[id] {
			continue
		}
		for k, s := range rt.sources {
			if k.view == id {
				s.stop("the view was dropped")
				delete(rt.sources, k)
			}
		}
		rt.groups = slices.DeleteFunc(rt.groups, func(g *group) bool {
			if g.view.id != id {
				return false
			}
			rt.closeFeeds(g.stop())
			return true
		})
		for k, t := range rt.targets {
			if k.view == id {
				t.close()
				delete(rt.targets, k)
			}
		}
		delete(rt.views, id)
		lo, hi := storage.StateViewRange(id)
		rt.deleteRange(lo, hi)
	}
}

func (rt *Runtime) deleteRange(lo, hi []byte) {
	b := rt.store.NewBatch()
	defer b.Close()
	b.DeleteRange(lo, hi)
	if err := rt.store.Commit(b, false); err != nil {
		rt.log.Error("state that nobody needs can't be deleted; it goes with the next start", "error", err)
	}
}

func (rt *Runtime) addViews(st *internalv1.ClusterState) {
	streams := map[ids.StreamID]*internalv1.StreamDef{}
	for _, s := range st.Streams {
		streams[ids.StreamID(s.Stream.Id)] = s
	}
	for _, def := range st.Views {
		if rt.views[ids.StreamID(def.Id)] != nil {
			continue
		}
		v, err := compileView(def, streams, int(st.PartitionCount))
		if err != nil {
			v.fail(err)
			rt.log.Error("a view can't be run", "view", def.Name, "error", err)
		}
		rt.views[v.id] = v
	}
}

// dropOrphans deletes the state of views that were dropped, and of partitions that left, while this node was down.
func (rt *Runtime) dropOrphans() {
	it, err := rt.store.Iter(storage.StateKey(0, 0, 0, nil), nil)
	if err != nil {
		rt.log.Error("the state store can't be searched for what nobody needs", "error", err)
		return
	}
	var lost []viewPartition
	for ok := it.First(); ok; {
		id, p, _, _, good := storage.ParseStateKey(it.Key())
		if !good {
			break
		}
		if rt.views[id] == nil || !rt.replicaHere(p) {
			lost = append(lost, viewPartition{id, p})
		}
		_, hi := storage.StatePartitionRange(id, p)
		ok = it.SeekGE(hi)
	}
	if err := it.Close(); err != nil {
		rt.log.Error("the state store can't be searched for what nobody needs", "error", err)
		return
	}
	for _, k := range lost {
		lo, hi := storage.StatePartitionRange(k.view, k.p)
		rt.deleteRange(lo, hi)
	}
}

// replicaHere tells whether this node is a replica of the partition.
func (rt *Runtime) replicaHere(p ids.PartitionID) bool {
	if int(p) >= len(rt.state.Partitions) {
		return false
	}
	c := rt.state.Partitions[p]
	return slices.Contains(c.Replicas, string(rt.cfg.NodeID)) || c.Primary == string(rt.cfg.NodeID)
}

// configureSources makes and ends sources: each belongs to one epoch of its partition.
func (rt *Runtime) configureSources(here map[ids.PartitionID]ids.Epoch) {
	for k, s := range rt.sources {
		if epoch, ok := here[k.p]; !ok || epoch != s.epoch {
			s.stop("the partition has another primary or epoch")
			delete(rt.sources, k)
		}
	}
	for id, v := range rt.views {
		if v.failed.Load() != nil {
			continue
		}
		for p, epoch := range here {
			if k := (viewPartition{id, p}); rt.sources[k] == nil {
				rt.sources[k] = newSource(rt, v, p, epoch)
			}
		}
	}
}

// configureTargets makes targets for partitions whose primary came here and ends those of partitions that left. first:
// what is stored has been read from the disk, since the store was just opened.
func (rt *Runtime) configureTargets(st *internalv1.ClusterState, here map[ids.PartitionID]ids.Epoch, first bool) {
	for k, t := range rt.targets {
		if _, ok := here[k.p]; ok {
			continue
		}
		rt.removeTarget(t)
		delete(rt.targets, k)
	}
	for _, p := range st.Partitions {
		if id := ids.PartitionID(p.Id); !rt.replicaHere(id) {
			rt.dropReplica(id)
		}
	}
	ordered := make([]ids.PartitionID, 0, len(here))
	for p := range here {
		ordered = append(ordered, p)
	}
	slices.Sort(ordered)
	for id, v := range rt.views {
		if v.failed.Load() != nil {
			continue
		}
		var fresh []*target
		for _, p := range ordered {
			k := viewPartition{id, p}
			if rt.targets[k] != nil {
				continue
			}
			if err := rt.ship.discard(laneKey{view: id, p: p}, v.created); err != nil {
				rt.failView(v, err)
				break
			}
			t, err := loadTarget(rt, v, p)
			if err != nil {
				rt.failView(v, err)
				break
			}
			rt.targets[k] = t
			fresh = append(fresh, t)
		}
		if v.failed.Load() == nil {
			rt.addGroups(v, fresh, first)
		}
	}
}

// addGroups lets targets that came at the same time read together.
func (rt *Runtime) addGroups(v *view, fresh []*target, durable bool) {
	if len(fresh) == 0 {
		return
	}
	if sources := v.sourcesOf(fresh[0].p); len(sources) == v.partitions {
		durable = durable && !slices.ContainsFunc(fresh, func(t *target) bool { return rt.followed(t.p) })
		rt.groups = append(rt.groups, newGroup(rt, v, sources, fresh, durable))
		return
	}
	for _, t := range fresh {
		rt.groups = append(rt.groups, newGroup(rt, v, v.sourcesOf(t.p), []*target{t}, durable && !rt.followed(t.p)))
	}
}

// removeTarget ends a target whose partition's primary is elsewhere now; what it has stored stays.
func (rt *Runtime) removeTarget(t *target) {
	g := t.group
	if g != nil {
		left := g.remove(t)
		if left == 0 {
			rt.closeFeeds(g.stop())
			rt.groups = slices.DeleteFunc(rt.groups, func(o *group) bool { return o == g })
		}
	}
	t.mu.Lock()
	if t.view.failed.Load() == nil {
		if err := t.flush(); err != nil {
			rt.log.Warn("a view's partition that moves away can't be stored; it will be computed again if it comes back",
				"view", t.view.name, "partition", t.p, "error", err)
		}
	}
	t.mu.Unlock()
	t.close()
}

// remove takes a target out of the group and returns how many are left. The feeds are opened anew by configureFeeds,
// for the others.
func (g *group) remove(t *target) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.stopped, t.queue, t.queued = true, nil, 0
	g.byPart[t.p] = nil
	g.targets = slices.DeleteFunc(slices.Clone(g.targets), func(o *target) bool { return o == t })
	g.narrowed = true
	g.signal()
	return len(g.targets)
}

// dropReplica deletes the state of a partition of which this node is no replica any more.
func (rt *Runtime) dropReplica(p ids.PartitionID) {
	if !rt.held[p] {
		return
	}
	delete(rt.held, p)
	for id := range rt.views {
		lo, hi := storage.StatePartitionRange(id, p)
		rt.deleteRange(lo, hi)
	}
}

// publish makes the new inventory.
func (rt *Runtime) publish(st *internalv1.ClusterState, here map[ids.PartitionID]ids.Epoch) {
	inv := &inventory{
		clusterID: st.ClusterId, groups: slices.Clone(rt.groups), views: maps.Clone(rt.views), find: maps.Clone(rt.targets),
		sources:  maps.Clone(rt.sources),
		byStream: map[ids.StreamID]map[ids.PartitionID][]*source{},
	}
	for p := range here {
		inv.primaries = append(inv.primaries, p)
		rt.held[p] = true
	}
	slices.Sort(inv.primaries)
	feeds := 0
	for _, g := range rt.groups {
		inv.targets = append(inv.targets, g.targets...)
		feeds += len(g.sources)
	}
	for k, s := range rt.sources {
		stream := rt.views[k.view].streamID
		if inv.byStream[stream] == nil {
			inv.byStream[stream] = map[ids.PartitionID][]*source{}
		}
		inv.byStream[stream][k.p] = append(inv.byStream[stream][k.p], s)
	}
	rt.feeds.Store(int64(feeds))
	rt.locals.Store(int64(len(inv.targets)))
	rt.all.Store(inv)
}

// configureFeeds opens a feed for every source of every group, from where the source is now.
func (rt *Runtime) configureFeeds(st *internalv1.ClusterState) {
	for _, g := range rt.groups {
		if g.view.failed.Load() != nil {
			continue
		}
		narrowed := g.narrowed
		g.narrowed = false
		for src, p := range g.sources {
			c := st.Partitions[p]
			old := g.feedOf(src)
			if old != nil && !narrowed && string(old.node) == c.Primary && uint64(old.epoch) == c.Epoch {
				continue
			}
			if old != nil {
				rt.closeFeeds([]*feed{old})
				g.lost(old)
			}
			if c.Primary != "" {
				rt.openFeed(g, src, ids.NodeID(c.Primary), ids.Epoch(c.Epoch))
			}
		}
	}
	for node, l := range rt.links {
		if l.idle() {
			l.stop()
			delete(rt.links, node)
		}
	}
}

func (rt *Runtime) openFeed(g *group, src int, node ids.NodeID, epoch ids.Epoch) {
	if node != rt.cfg.NodeID {
		l := rt.links[node]
		if l == nil {
			l = newLink(rt, node)
			rt.links[node] = l
		}
		if f := g.open(src, node, epoch, nil, l); f != nil {
			l.add(f)
		}
		return
	}
	f := g.open(src, node, epoch, nil, nil)
	if f == nil {
		return
	}
	s := rt.sources[viewPartition{g.view.id, f.p}]
	if s == nil {
		rt.failView(g.view, fault.New(fault.Internal, "stage: partition %d has no source", f.p))
		return
	}
	f.reader = newReaderFor(s, f)
	if err := s.attach(f.reader); err != nil {
		g.lost(f)
	}
}

// closeFeeds ends feeds at their sources.
func (rt *Runtime) closeFeeds(feeds []*feed) {
	for _, f := range feeds {
		f.closed.Store(true)
		if f.reader != nil {
			f.reader.source.detach(f.reader)
		} else if f.link != nil {
			f.link.remove(f)
		}
	}
}
