package stage

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/storage"
)

// Shipping brings what views have stored from the primaries of partitions to the other replicas, so that a failover
// goes on from there instead of computing everything again.
//
// A lane is what one view keeps in one partition. What a target flushes, one batch at a tick boundary, is kept for a
// while in memory, once for all replicas, and sent to each in the order of the commits. The writes are absolute, and
// state at a tick is the same whoever computed it: so a batch that leads from tick a to tick b makes the state at b of a
// state at any tick from a to b, and a replica can go on after the primary has changed. One that is further behind gets
// a copy of the lane in chunks, each as of the last commit; batches that are committed meanwhile follow, and are applied
// to the part that has been copied. A lane in its view's history isn't shipped.

// markVersion is the version of ShipMark as it is stored.
const markVersion = 1

// laneKey names a lane.
type laneKey struct {
	view ids.StreamID
	p    ids.PartitionID
	// stage is 0 for the view's last stage, else 1 and the index of the stage in the plan.
	stage uint8
}

func laneOf(t *target) laneKey { return t.plan.lane(t.p) }

// lane names the lane of a stage in a partition.
func (t *targetPlan) lane(p ids.PartitionID) laneKey {
	k := laneKey{view: t.view.id, p: p}
	if !t.last {
		k.stage = uint8(t.index + 1)
	}
	return k
}

// spaceMark holds the mark of a lane: the first of its keys, and the only one that isn't shipped.
const spaceMark byte = 1

func markKey(k laneKey) []byte {
	if k.stage > 0 {
		return storage.StagePrefix(k.view, k.p, k.stage-1, spaceMark)
	}
	return storage.StateKey(k.view, k.p, spaceMark, nil)
}

// wholeRange is the range of all keys of a lane.
func wholeRange(k laneKey) (lo, hi []byte) {
	if _, hi = storage.LastStageRange(k.view, k.p); k.stage > 0 {
		_, hi = storage.StageRange(k.view, k.p, k.stage-1)
	}
	return markKey(k), hi
}

// laneRange is the range of the keys that are shipped.
func laneRange(k laneKey) (lo, hi []byte) {
	lo, hi = wholeRange(k)
	lo[len(lo)-1]++
	return lo, hi
}

// mark is what a node has stored of a lane; see ShipMark.
type mark struct {
	born        ids.Tick // created_tick of the view: another one, another view
	tick, floor ids.Tick
	copying     bool
	cursor      []byte
}

func (m mark) proto() *internalv1.ShipMark {
	return &internalv1.ShipMark{Version: markVersion, Born: uint64(m.born), Tick: uint64(m.tick), Floor: uint64(m.floor), Copying: m.copying, Cursor: m.cursor}
}

func markOf(m *internalv1.ShipMark) mark {
	return mark{ids.Tick(m.GetBorn()), ids.Tick(m.GetTick()), ids.Tick(m.GetFloor()), m.GetCopying(), m.GetCursor()}
}

// writeMark adds a lane's mark to a batch.
func writeMark(b *storage.Batch, k laneKey, m mark) error {
	raw, err := proto.Marshal(m.proto())
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encode the mark of a lane")
	}
	b.Set(markKey(k), raw)
	return nil
}

// readMark returns a lane's stored mark; one of tick 0 if it has none.
func readMark(r storage.Reader, k laneKey) (mark, error) {
	raw, closer, err := r.Get(markKey(k))
	if errors.Is(err, fault.Of(fault.NotFound)) {
		return mark{}, nil
	}
	if err != nil {
		return mark{}, err
	}
	m := &internalv1.ShipMark{}
	err = proto.Unmarshal(raw, m)
	if e := closer.Close(); err == nil {
		err = e
	}
	if err != nil || m.Version != markVersion {
		return mark{}, fault.New(fault.Corrupted, "view %d, partition %d: the mark of the stored state doesn't decode", k.view, k.p)
	}
	return markOf(m), nil
}

// lane is one at the primary.
type lane struct {
	key    laneKey
	target *target
	size   atomic.Int64 // about how many bytes are stored of it

	mu       sync.Mutex // held while a batch is committed; comes after the target's mu
	followed bool       // there are other replicas
	closed   bool
	head     mark // of what is stored here; tick 0: nothing that is shipped
	ring     []laneBatch
	first    uint64 // number of ring[0]

	// used by makeDurable alone
	held  heldCut // waits for the replicas
	freed cut     // what they have, once free
	free  bool
}

// laneBatch is what one flush has committed.
type laneBatch struct {
	from, to, floor ids.Tick
	changes         []byte
}

// next is the number that the next batch will have. Called with mu held.
func (l *lane) next() uint64 { return l.first + uint64(len(l.ring)) }

// shipper is the runtime's part in shipping, on both sides.
type shipper struct {
	rt  *Runtime
	cfg ShipConfig
	in  intake

	mu    sync.Mutex
	lanes map[laneKey]*lane
	links map[ids.NodeID]*shipLink

	backlogMu sync.Mutex
	backlog   []backlogEntry // oldest first; of some the lane has let go already
	kept      int64          // bytes of them

	paceMu sync.Mutex
	paced  time.Time // when what was sent so far is paid for

	statusMu sync.Mutex
	status   []ShippedReplica
	statusAt time.Time

	counts shipCounts
}

func newShipper(rt *Runtime) *shipper {
	s := &shipper{rt: rt, cfg: rt.cfg.Ship, lanes: map[laneKey]*lane{}, links: map[ids.NodeID]*shipLink{}}
	s.in.init(rt)
	return s
}

// commit commits what a target has flushed, which is its state at tick, and keeps it for the replicas. floor is the tick
// above which what is retained of the past is complete.
func (s *shipper) commit(t *target, tick, floor ids.Tick, b *storage.Batch) error {
	if tick < t.view.created {
		return s.rt.store.Commit(b, false)
	}
	k := laneOf(t)
	s.mu.Lock()
	l := s.lanes[k]
	s.mu.Unlock()
	head := mark{born: t.view.created, tick: tick, floor: floor}
	if l == nil || l.target != t {
		if err := writeMark(b, k, head); err != nil {
			return err
		}
		return s.rt.store.Commit(b, false)
	}
	l.mu.Lock()
	kept := laneBatch{from: l.head.tick, to: tick, floor: floor}
	if l.followed && kept.from > 0 {
		kept.changes = b.Changes()
	}
	err := writeMark(b, k, head)
	if err == nil {
		err = s.rt.store.Commit(b, false)
	}
	if err != nil {
		l.mu.Unlock()
		return err
	}
	l.head = head
	l.size.Store(t.storedBytes())
	if kept.changes == nil {
		l.first, l.ring = l.next()+1, nil // whoever needs this one needs a copy
	} else {
		l.ring = append(l.ring, kept)
	}
	followed, number, size := l.followed, l.next()-1, int64(len(kept.changes))
	l.mu.Unlock()
	if size > 0 {
		s.keep(backlogEntry{l, number, size})
	}
	if followed {
		s.hot(k)
	}
	return nil
}

// backlogEntry stands for a batch that a lane keeps.
type backlogEntry struct {
	lane   *lane
	number uint64
	bytes  int64
}

// keep counts a batch and lets go of the oldest ones of all lanes beyond the bound.
func (s *shipper) keep(e backlogEntry) {
	s.backlogMu.Lock()
	defer s.backlogMu.Unlock()
	s.backlog = append(s.backlog, e)
	s.kept += e.bytes
	for s.kept > s.cfg.BacklogBytes {
		old := s.backlog[0]
		s.backlog[0] = backlogEntry{}
		s.backlog = s.backlog[1:]
		s.kept -= old.bytes
		old.lane.drop(old.number)
	}
}

// drop lets go of the batches up to number.
func (l *lane) drop(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.ring) > 0 && l.first <= number {
		l.ring[0] = laneBatch{}
		l.ring = l.ring[1:]
		l.first++
	}
}

// discard deletes what is stored of a lane that can't be gone on from: only a part was copied, or the view is another
// one now. Called before the lane's target is loaded, when nothing is applied to it any more.
func (s *shipper) discard(k laneKey, born ids.Tick) error {
	m, err := readMark(s.rt.store, k)
	if err != nil || m.tick == 0 && !m.copying || m.born == born && !m.copying {
		return err
	}
	s.rt.log.Info("a view's state is computed again, as what is stored of it is a part, or of an earlier one",
		"view", k.view, "partition", k.p, "part", m.copying)
	b := s.rt.store.NewBatch()
	defer b.Close()
	b.DeleteRange(wholeRange(k))
	return s.rt.store.Commit(b, false)
}

// close lets go of all batches. Nothing is read for a copy any more, as what is stored may be deleted next.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first, l.ring, l.followed, l.closed = l.next()+1, nil, false, true
}

// release takes a target's lane out of shipping before what it has stored is deleted.
func (s *shipper) release(t *target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[laneOf(t)]; l != nil && l.target == t {
		l.close()
		delete(s.lanes, laneOf(t))
	}
}

// prepare is the first that Configure does: it takes what is to be deleted out of shipping, in both directions. Called
// with the runtime's mu held.
func (s *shipper) prepare(st *internalv1.ClusterState) {
	views := viewsBorn(st)
	s.in.configure(st)
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, l := range s.lanes {
		if views[k.view] != l.target.view.created || st.Partitions[k.p].Primary != string(s.rt.cfg.NodeID) {
			l.close()
			delete(s.lanes, k)
		}
	}
}

// configure brings lanes and links in line with the targets and the partitions' replicas. Called by Configure, before
// the targets get anything to do.
func (s *shipper) configure(st *internalv1.ClusterState) {
	self := string(s.rt.cfg.NodeID)
	s.in.admit(st)
	s.mu.Lock()
	defer s.mu.Unlock()
	targets := map[laneKey]*target{}
	for _, t := range s.rt.targets {
		targets[laneOf(t)] = t
	}
	for k, l := range s.lanes {
		if targets[k] != l.target {
			l.close()
			delete(s.lanes, k)
		}
	}
	wanted := map[ids.NodeID]map[laneKey]wantedLane{}
	for k, t := range targets {
		l := s.lanes[k]
		if l == nil {
			l = &lane{key: k, target: t}
			if t.applied >= t.view.created {
				l.head = mark{born: t.view.created, tick: t.applied, floor: t.deltas.floor}
			}
			l.size.Store(t.storedBytes())
			s.lanes[k] = l
		}
		cfg := st.Partitions[k.p]
		followed := false
		for _, node := range cfg.Replicas {
			if node == self {
				continue
			}
			followed = true
			if wanted[ids.NodeID(node)] == nil {
				wanted[ids.NodeID(node)] = map[laneKey]wantedLane{}
			}
			wanted[ids.NodeID(node)][k] = wantedLane{l, ids.Epoch(cfg.Epoch)}
		}
		l.mu.Lock()
		l.followed = followed
		l.mu.Unlock()
	}
	for node, link := range s.links {
		if wanted[node] == nil {
			link.stop()
			delete(s.links, node)
		}
	}
	for node, lanes := range wanted {
		if s.links[node] == nil {
			s.links[node] = newShipLink(s, node)
		}
		s.links[node].want(lanes)
	}
}

// hot tells the links that a lane has something new.
func (s *shipper) hot(k laneKey) {
	for _, l := range s.allLinks() {
		l.hot(k)
	}
}

func (s *shipper) allLinks() []*shipLink {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.links))
}

// pause returns how long nothing may be sent, so that the rate is kept.
func (s *shipper) pause(now time.Time) time.Duration {
	s.paceMu.Lock()
	defer s.paceMu.Unlock()
	return s.paced.Sub(now)
}

// shipBurst is how much may be sent at once after a silence, in time at the full rate.
const shipBurst = 50 * time.Millisecond

// pay counts what is being sent.
func (s *shipper) pay(now time.Time, bytes int) {
	s.paceMu.Lock()
	defer s.paceMu.Unlock()
	if least := now.Add(-shipBurst); s.paced.Before(least) {
		s.paced = least
	}
	s.paced = s.paced.Add(time.Duration(float64(bytes) / float64(s.cfg.BytesPerSecond) * float64(time.Second)))
	s.counts.sent.Add(int64(bytes))
}
