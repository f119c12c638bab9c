package stage

import (
	"cmp"
	"maps"
	"slices"
	"time"

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
	rt.dropSources(here)
	for _, s := range rt.sources {
		s.forgetDurable(moved)
	}
	rt.configureTargets(st, here, first)
	rt.settle(st, here)
	streams := map[ids.StreamID]bool{}
	for _, s := range st.Streams {
		streams[ids.StreamID(s.Stream.Id)] = true
	}
	rt.board.forget(func(s ids.StreamID) bool { return streams[s] })
	rt.lookAtBoard()
}

// settle connects what has changed with what hasn't.
func (rt *Runtime) settle(st *internalv1.ClusterState, here map[ids.PartitionID]ids.Epoch) {
	rt.ship.configure(st)
	rt.configureSources(here)
	rt.publish(st, here)
	rt.configureFeeds(st)
}

// redo takes down targets that have to be computed again from their inputs, and groups that have to begin again at what
// is stored, and makes them anew.
func (rt *Runtime) redo() {
	if rt.stopped || rt.state == nil {
		return
	}
	again := rt.reopen.Swap(false)
	for _, g := range slices.Clone(rt.groups) {
		g.mu.Lock()
		targets, broken := g.targets, g.broken // targets is never changed in place
		g.mu.Unlock()
		for _, t := range targets {
			lost := t.redo.Load()
			if !lost && !broken || g.view.failed.Load() != nil {
				continue
			}
			again = true
			rt.removeTarget(t)
			delete(rt.targets, t.key())
			if lost {
				rt.ship.release(t)
				lo, hi := t.stored()
				rt.deleteRange(lo, hi)
				rt.redone.Add(1)
				rt.log.Info("a stage of a view is computed again from its inputs", "view", t.view.name, "stage", t.plan.index, "partition", t.p)
			}
		}
	}
	if again {
		here := rt.primaryEpochs(rt.state)
		rt.configureTargets(rt.state, here, false)
		rt.settle(rt.state, here)
		rt.lookAtBoard()
	}
}

// reopenSoon opens feeds anew that a source of this node gave up, after a pause.
func (rt *Runtime) reopenSoon() {
	time.AfterFunc(rt.cfg.RetryMax, func() {
		rt.reopen.Store(true)
		rt.lookAtBoard()
	})
}

// wantRestart says that a view must begin anew. It is called with all kinds of locks held.
func (rt *Runtime) wantRestart(v *view) {
	if v.restarting.Swap(true) {
		return
	}
	if rt.begin == nil || v.startNow {
		rt.failView(v, fault.New(fault.Conflict, "view %q needs changes of a view that aren't retained any more; drop it and create it again", v.name))
		return
	}
	rt.restMu.Lock()
	rt.restart = append(rt.restart, v)
	rt.restMu.Unlock()
	rt.lookAtBoard()
}

// restartViews asks for the views that must begin anew. Called with mu held.
func (rt *Runtime) restartViews() {
	rt.restMu.Lock()
	views := rt.restart
	rt.restart = nil
	rt.restMu.Unlock()
	if rt.stopped {
		return
	}
	for _, v := range views {
		rt.log.Warn("a view begins anew: what it needs of another view isn't retained any more", "view", v.name)
		rt.tasks.Go(func() {
			pause := rt.cfg.RetryMin
			for rt.begin(rt.ctx, v.id, v.created) != nil && rt.ctx.Err() == nil {
				select {
				case <-rt.ctx.Done():
				case <-time.After(pause):
				}
				pause = min(2*pause, rt.cfg.RetryMax)
			}
		})
	}
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

// dropViews ends the views that are gone, and deletes what they have stored, and those that begin anew. Views over
// them are taken down and made again, with what they have stored.
func (rt *Runtime) dropViews(st *internalv1.ClusterState) {
	keep := map[ids.StreamID]*internalv1.ViewDef{}
	for _, v := range st.Views {
		keep[ids.StreamID(v.Id)] = v
	}
	ordered := slices.SortedFunc(maps.Values(rt.views), func(a, b *view) int { return cmp.Compare(a.id, b.id) })
	gone := map[ids.StreamID]bool{}
	for _, v := range ordered {
		def := keep[v.id]
		same := def != nil && v.same(def)
		if same && !slices.ContainsFunc(v.uses, func(id ids.StreamID) bool { return gone[id] }) {
			continue
		}
		gone[v.id] = true
		rt.takeDown(v, same)
		delete(rt.views, v.id)
		if !same {
			lo, hi := storage.StateViewRange(v.id)
			rt.deleteRange(lo, hi)
		}
	}
}

// takeDown ends what runs of a view.
func (rt *Runtime) takeDown(v *view, store bool) {
	for k, s := range rt.sources {
		if k.view == v.id {
			s.stop("the view was dropped")
			delete(rt.sources, k)
		}
	}
	for k, t := range rt.targets {
		if k.view == v.id && store {
			rt.removeTarget(t)
		}
	}
	rt.groups = slices.DeleteFunc(rt.groups, func(g *group) bool {
		if g.view.id != v.id {
			return false
		}
		rt.closeFeeds(g.stop())
		return true
	})
	for k, t := range rt.targets {
		if k.view == v.id {
			t.close()
			delete(rt.targets, k)
		}
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
		if v := rt.views[ids.StreamID(def.Id)]; v != nil {
			if v.setIndexes(def) {
				rt.wakeIndexer()
			}
			continue
		}
		v, err := compileView(def, streams, rt.views, int(st.PartitionCount))
		if err != nil {
			v.fail(err)
			rt.log.Error("a view can't be run", "view", def.Name, "error", err)
		}
		rt.views[v.id] = v
		for _, id := range v.uses {
			if up := rt.views[id]; err == nil && up.created > v.created {
				rt.wantRestart(v) // what it reads has begun anew
			}
		}
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
func (rt *Runtime) dropSources(here map[ids.PartitionID]ids.Epoch) {
	for k, s := range rt.sources {
		if epoch, ok := here[k.p]; !ok || epoch != s.epoch {
			s.stop("the partition has another primary or epoch")
			delete(rt.sources, k)
		}
	}
}

// upstream returns the target whose output a source reads in a partition; nil when it reads a log, or there is none here.
func (rt *Runtime) upstream(plan *sourcePlan, p ids.PartitionID) *target {
	if plan.log != nil {
		return nil
	}
	if plan.upView == 0 {
		return rt.targets[targetKey{plan.view.id, plan.upStage, p}]
	}
	up := rt.views[plan.upView]
	if up == nil || up.failed.Load() != nil {
		return nil
	}
	return rt.targets[targetKey{up.id, up.last().index, p}]
}

func (rt *Runtime) configureSources(here map[ids.PartitionID]ids.Epoch) {
	for k, s := range rt.sources {
		if s.up != rt.upstream(s.plan, s.p) {
			s.stop("what it reads is made again")
			delete(rt.sources, k)
		}
	}
	for id, v := range rt.views {
		if !v.runs() {
			continue
		}
		for _, plan := range v.sources {
			if up := rt.views[plan.upView]; plan.upView != 0 && (up == nil || up.failed.Load() != nil) {
				rt.failView(v, fault.New(fault.Conflict, "view %q reads a view that has failed", v.name))
				break
			}
			for p, epoch := range here {
				k := sourceKey{id, plan.index, p}
				if up := rt.upstream(plan, p); rt.sources[k] == nil && (plan.log != nil || up != nil) {
					rt.sources[k] = newSource(rt, plan, p, epoch, up)
				}
			}
		}
	}
	rt.connectOutputs()
}

// connectOutputs tells the targets who reads them.
func (rt *Runtime) connectOutputs() {
	outs := map[*target][]*source{}
	for _, s := range rt.sources {
		if s.up != nil {
			outs[s.up] = append(outs[s.up], s)
		}
	}
	for _, t := range rt.targets {
		list := outs[t]
		t.outs.Store(&list)
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
		if !v.runs() {
			continue
		}
		for _, plan := range v.targets {
			var fresh []*target
			for _, p := range ordered {
				k := targetKey{id, plan.index, p}
				if rt.targets[k] != nil {
					continue
				}
				if err := rt.ship.discard(plan.lane(p), v.created); err != nil {
					rt.failView(v, err)
					break
				}
				t, err := loadTarget(rt, plan, p)
				if err != nil {
					rt.failView(v, err)
					break
				}
				rt.targets[k] = t
				fresh = append(fresh, t)
			}
			if v.failed.Load() == nil {
				rt.addGroups(plan, fresh, first)
			}
		}
	}
}

func (t *target) key() targetKey { return targetKey{t.view.id, t.plan.index, t.p} }

// addGroups lets targets that came at the same time read together.
func (rt *Runtime) addGroups(plan *targetPlan, fresh []*target, durable bool) {
	if len(fresh) == 0 {
		return
	}
	if !plan.own {
		durable = durable && !slices.ContainsFunc(fresh, func(t *target) bool { return rt.followed(t.p) })
		rt.groups = append(rt.groups, newGroup(rt, plan, plan.inflows(0), fresh, durable))
		return
	}
	for _, t := range fresh {
		rt.groups = append(rt.groups, newGroup(rt, plan, plan.inflows(t.p), []*target{t}, durable && !rt.followed(t.p)))
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
	t.stopped = true
	g.uncount(t)
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
	slices.SortFunc(inv.groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.view.id, b.view.id), cmp.Compare(a.plan.index, b.plan.index))
	})
	for _, g := range inv.groups {
		if g.plan.derived {
			inv.derived = append(inv.derived, g)
		}
	}
	for k, s := range rt.sources {
		if s.up != nil {
			inv.outputs = append(inv.outputs, s)
			continue
		}
		stream := s.plan.log.id
		if inv.byStream[stream] == nil {
			inv.byStream[stream] = map[ids.PartitionID][]*source{}
		}
		inv.byStream[stream][k.p] = append(inv.byStream[stream][k.p], s)
	}
	rt.feeds.Store(int64(feeds))
	rt.locals.Store(int64(len(inv.targets)))
	rt.all.Store(inv)
	rt.wakeIndexer() // of targets that came
}

// configureFeeds opens a feed for every source of every group, from where the source is now.
func (rt *Runtime) configureFeeds(st *internalv1.ClusterState) {
	for _, g := range rt.groups {
		if g.view.failed.Load() != nil {
			continue
		}
		narrowed := g.narrowed
		g.narrowed = false
		for src, in := range g.sources {
			c := st.Partitions[in.p]
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
		if f := g.open(src, node, epoch, nil, l, nil); f != nil {
			l.add(f)
		}
		return
	}
	flow := g.sources[src]
	in := g.plan.inputs[flow.input].source
	s := rt.sources[sourceKey{g.view.id, in.index, flow.p}]
	if s == nil {
		if in.log != nil { // else what it reads has failed
			rt.failView(g.view, fault.New(fault.Internal, "stage: partition %d has no source", flow.p))
		}
		return
	}
	if f := g.open(src, node, epoch, nil, nil, s); f != nil {
		if err := s.attach(f.reader); err != nil {
			g.lost(f)
		}
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
