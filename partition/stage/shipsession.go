package stage

import (
	"bytes"
	"context"
	"sort"
	"time"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/storage"
)

// shipSession is what a link does on one stream. Only its run uses it.
type shipSession struct {
	link   *shipLink
	s      *shipper
	stream internalv1.Shipping_ShipClient

	outs    map[laneKey]*outLane
	byID    map[uint64]*outLane
	lastID  uint64
	todo    []*outLane // with something to send, in turn
	copying *outLane   // one at a time
	copies  []*outLane // that wait for a copy
	unacked int64      // bytes
	noticed time.Time
	every   time.Duration              // between notices, when making them takes long
	ends    map[ids.PartitionID]uint64 // of logs, as of the last notice
	calm    int                        // notices in a row that had nothing new but ticks
}

// mostCalm bounds how much longer the time between notices becomes while they have nothing new but ticks: twice as long
// with each. Whoever takes over has less to look through then, not more.
const mostCalm = 2

// Phases of an outLane.
const (
	outIdle    = iota // nothing to ship yet, or refused for now
	outOpen           // the replica was asked what it has
	outFollows        // batch after batch
	outWaits          // for a copy
	outCopies
)

// outLane is a lane on its way to a replica.
type outLane struct {
	key   laneKey
	lane  *lane
	epoch ids.Epoch
	id    uint64
	phase int
	there mark   // what the replica has once it has taken all that was sent
	begun bool   // something was sent on this stream
	next  uint64 // number of the next batch
	asked bool   // in todo

	notBefore time.Time
	pause     time.Duration // before the next copy
	refusals  int
}

// run sends until the stream breaks.
func (o *shipSession) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		if err := o.attend(now); err != nil {
			return err
		}
		wait := o.noticeDue().Sub(now)
		if wait <= 0 {
			if err := o.notice(now); err != nil {
				return err
			}
			continue
		}
		if pause := o.s.pause(now); pause > 0 {
			wait = min(wait, pause)
		} else {
			sent, err := o.sendNext(now)
			if err != nil {
				return err
			}
			if sent {
				continue
			}
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-o.link.wake:
		case <-timer.C:
		}
	}
}

// attend takes what was asked for and answered meanwhile.
func (o *shipSession) attend(now time.Time) error {
	l := o.link
	l.mu.Lock()
	var wanted map[laneKey]wantedLane
	if l.renewed {
		wanted, l.renewed = l.wanted, false
	}
	inbox, news := l.inbox, l.news
	l.inbox, l.news = nil, nil
	l.mu.Unlock()
	if wanted != nil {
		o.renew(wanted)
	}
	if wanted != nil || len(news) > 0 || len(inbox) > 0 {
		o.calm = 0
	}
	for k := range news {
		if out := o.outs[k]; out != nil {
			o.ask(out)
		}
	}
	for _, resp := range inbox {
		o.answered(resp, now)
	}
	return nil
}

// renew takes a new list of lanes. One in another epoch is opened anew.
func (o *shipSession) renew(wanted map[laneKey]wantedLane) {
	for k, out := range o.outs {
		if w, ok := wanted[k]; !ok || w.lane != out.lane || w.epoch != out.epoch {
			o.forget(out)
			delete(o.outs, k)
		}
	}
	for k, w := range wanted {
		if o.outs[k] == nil {
			o.outs[k] = &outLane{key: k, lane: w.lane, epoch: w.epoch}
			o.ask(o.outs[k])
		}
	}
}

// forget ends what goes on with a lane.
func (o *shipSession) forget(out *outLane) {
	delete(o.byID, out.id)
	if o.copying == out {
		o.copying = nil
	}
	out.phase, out.id = outIdle, 0
	o.follows(out)
}

// ask puts a lane among those that may have something to send.
func (o *shipSession) ask(out *outLane) {
	if !out.asked {
		out.asked = true
		o.todo = append(o.todo, out)
	}
}

// follows tells whoever wants to know how the replica stands.
func (o *shipSession) follows(out *outLane) {
	o.link.note(out.key, func(r *shipped) { r.follows = out.phase == outFollows })
}

// sendNext sends one piece, or the question what the replica has; false when there is nothing to send now.
func (o *shipSession) sendNext(now time.Time) (bool, error) {
	for len(o.todo) > 0 && o.unacked < o.s.cfg.WindowBytes {
		out := o.todo[0]
		o.todo = o.todo[1:]
		out.asked = false
		if o.outs[out.key] != out {
			continue
		}
		sent, err := o.step(out, now)
		if err != nil || sent {
			return sent, err
		}
	}
	o.beginCopy(now)
	return len(o.todo) > 0 && o.unacked < o.s.cfg.WindowBytes, nil
}

// step does what is next for a lane.
func (o *shipSession) step(out *outLane, now time.Time) (sent bool, err error) {
	switch out.phase {
	case outIdle:
		return o.open(out, now)
	case outFollows, outCopies:
	default:
		return false, nil
	}
	l := out.lane
	l.mu.Lock()
	if out.phase == outCopies && out.there.cursor == nil {
		out.next = l.next() // the first chunk is as of the last commit
	}
	for {
		if l.closed {
			l.mu.Unlock()
			return false, nil
		}
		if out.next < l.first {
			l.mu.Unlock()
			o.lost(out, now)
			return false, nil
		}
		if out.next >= l.next() {
			break
		}
		b := l.ring[out.next-l.first]
		if !out.begun && b.to <= out.there.tick {
			out.next++ // another primary had brought the replica further
			continue
		}
		l.mu.Unlock()
		if b.from > out.there.tick || out.there.floor > b.floor {
			o.lost(out, now)
			return false, nil
		}
		out.next++
		o.ask(out)
		return true, o.send(out, &internalv1.ShipPiece{From: uint64(b.from), To: uint64(b.to), Floor: uint64(b.floor)}, b.changes)
	}
	if out.phase == outFollows {
		l.mu.Unlock()
		return false, nil
	}
	head, snap := l.head, o.s.rt.store.Snapshot()
	l.mu.Unlock()
	o.ask(out)
	return true, o.copyChunk(out, head, snap)
}

// open asks what the replica has of a lane.
func (o *shipSession) open(out *outLane, now time.Time) (bool, error) {
	out.lane.mu.Lock()
	ready := out.lane.head.tick > 0
	out.lane.mu.Unlock()
	if !ready || now.Before(out.notBefore) {
		return false, nil // the first flush, or the next notice, asks again
	}
	o.lastID++
	out.id, out.phase, out.begun = o.lastID, outOpen, false
	o.byID[out.id] = out
	return true, o.stream.Send(&internalv1.ShipRequest{Open: []*internalv1.ShipOpen{{
		Lane: out.id, View: uint64(out.key.view), Partition: uint32(out.key.p), Stage: uint32(out.key.stage), Epoch: uint64(out.epoch),
	}}})
}

// answered takes a response.
func (o *shipSession) answered(resp *internalv1.ShipResponse, now time.Time) {
	for _, b := range resp.Bases {
		if out := o.byID[b.Lane]; out != nil && out.phase == outOpen {
			o.begin(out, markOf(b.Mark), now)
		}
	}
	for _, d := range resp.Done {
		o.unacked -= int64(d.Bytes)
		out := o.byID[d.Lane]
		if out == nil {
			continue
		}
		o.link.note(out.key, func(r *shipped) {
			r.tick = max(r.tick, ids.Tick(d.Tick))
			if t := ids.Tick(d.Durable); t > max(r.durable, r.base) {
				r.durable, r.advanced, r.hopeless = t, now, false
			}
		})
	}
	for _, x := range resp.Refused {
		out := o.byID[x.Lane]
		if out == nil {
			continue
		}
		o.s.rt.log.Debug("a replica refuses a view's state for now", "node", o.link.node, "view", out.key.view,
			"partition", out.key.p, "reason", x.Reason)
		o.forget(out)
		out.refusals++
		out.notBefore = now.Add(min(o.s.rt.cfg.RetryMin<<min(out.refusals, 16), o.s.rt.cfg.RetryMax))
	}
}

// begin decides how a lane goes on from what the replica has.
func (o *shipSession) begin(out *outLane, m mark, now time.Time) {
	out.there, out.refusals = m, 0
	o.link.note(out.key, func(r *shipped) {
		if !r.asked {
			r.asked, r.base = true, m.tick
		}
	})
	l := out.lane
	l.mu.Lock()
	i := sort.Search(len(l.ring), func(i int) bool { return l.ring[i].to > m.tick })
	out.next = l.first + uint64(i)
	fits := m.tick > 0 && m.born == l.head.born && (i < len(l.ring) && l.ring[i].from <= m.tick && m.floor <= l.ring[i].floor ||
		i == len(l.ring) && l.head.tick <= m.tick)
	l.mu.Unlock()
	switch {
	case !fits:
		o.lost(out, now)
		return
	case m.copying:
		if o.copying != nil {
			o.lost(out, now)
			return
		}
		out.phase, o.copying = outCopies, out
	default:
		out.phase = outFollows
		o.link.note(out.key, func(r *shipped) { r.tick = max(r.tick, m.tick) })
	}
	o.follows(out)
	o.ask(out)
}

// lost makes a lane wait for a copy. The first begins at once; one after another that fell behind takes its time.
func (o *shipSession) lost(out *outLane, now time.Time) {
	if out.phase == outCopies {
		out.pause = min(max(2*out.pause, o.s.cfg.CopyPause), 64*o.s.cfg.CopyPause)
		o.s.counts.lost.Add(1)
	}
	if o.copying == out {
		o.copying = nil
	}
	out.phase, out.notBefore = outWaits, now.Add(out.pause)
	o.follows(out)
	o.copies = append(o.copies, out)
}

// beginCopy begins the next copy that is due.
func (o *shipSession) beginCopy(now time.Time) {
	if o.copying != nil {
		return
	}
	for i := 0; i < len(o.copies); i++ {
		out := o.copies[i]
		gone := o.outs[out.key] != out || out.phase != outWaits
		if !gone && now.Before(out.notBefore) {
			continue
		}
		o.copies = append(o.copies[:i], o.copies[i+1:]...)
		i--
		if gone {
			continue
		}
		out.phase, out.there, o.copying = outCopies, mark{copying: true}, out
		o.link.note(out.key, func(r *shipped) { r.base, r.copied = 0, 0 })
		o.s.counts.copies.Add(1)
		o.ask(out)
		return
	}
}

// copyChunk sends the next part of a copy, as of head; it closes the snapshot.
func (o *shipSession) copyChunk(out *outLane, head mark, snap *storage.Snapshot) error {
	lo, hi := laneRange(out.key)
	restart := out.there.cursor == nil
	if !restart {
		lo = out.there.cursor
	}
	b := o.s.rt.store.NewBatch()
	defer b.Close()
	cursor, err := fillChunk(b, snap, lo, hi, o.s.cfg.ChunkBytes)
	if e := snap.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	done := cursor == nil
	if done {
		cursor = hi
	}
	out.there.cursor = cursor
	p := &internalv1.ShipPiece{
		From: uint64(head.tick), To: uint64(head.tick), Floor: uint64(head.floor), Restart: restart, Cursor: cursor, Copied: done,
	}
	changes := b.Changes()
	o.s.counts.copied.Add(int64(len(changes)))
	o.link.note(out.key, func(r *shipped) {
		if restart {
			r.copied = 0
		}
		r.copied += int64(len(changes))
	})
	if err := o.send(out, p, changes); err != nil || !done {
		return err
	}
	o.copying, out.phase, out.pause = nil, outFollows, 0
	out.there = head
	o.follows(out)
	return nil
}

// fillChunk takes the pairs of [lo, hi) up to about so many bytes, and returns the first key that was left; nil: none.
func fillChunk(b *storage.Batch, r storage.Reader, lo, hi []byte, most int) (cursor []byte, err error) {
	it, err := r.Iter(lo, hi)
	if err != nil {
		return nil, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if b.Len() >= most {
			cursor = bytes.Clone(it.Key())
			break
		}
		b.Set(it.Key(), it.Value())
	}
	return cursor, it.Close()
}

// noticeDue is when the next notice is to be sent.
func (o *shipSession) noticeDue() time.Time {
	return o.noticed.Add(max(o.s.cfg.NoticeInterval<<min(o.calm, mostCalm), o.every))
}

// notice tells the replica what is closed, and which state hasn't changed.
func (o *shipSession) notice(now time.Time) error {
	n := &internalv1.ShipNotice{}
	ends := map[ids.PartitionID]uint64{}
	o.calm++
	views := map[laneKey]*internalv1.ShipCovered{} // of any partition
	for k, out := range o.outs {
		if out.phase == outIdle {
			o.ask(out)
		}
		if _, ok := ends[k.p]; !ok {
			tick, end := o.s.rt.board.endHere(k.p, out.epoch)
			if ends[k.p] = end; o.ends[k.p] != end {
				o.calm = 0
			}
			n.Closed = append(n.Closed, &internalv1.ShipClosed{Partition: uint32(k.p), Tick: uint64(tick), End: end})
		}
		any := laneKey{view: k.view, stage: k.stage}
		c := views[any]
		if c == nil {
			c = &internalv1.ShipCovered{View: uint64(k.view), Stage: uint32(k.stage)}
			views[any] = c
			n.Covered = append(n.Covered, c)
		}
		switch tick, ok := out.covered(); {
		case !ok:
			o.calm = 0
			c.Behind = append(c.Behind, uint32(k.p))
		case c.Tick == 0 || uint64(tick) < c.Tick:
			c.Tick = uint64(tick)
		}
	}
	err := o.stream.Send(&internalv1.ShipRequest{Notice: n})
	o.ends, o.noticed = ends, time.Now()
	o.every = 20 * o.noticed.Sub(now)
	return err
}

// covered is the tick up to which what the replica has, once it has taken all that was sent, is the lane's state.
func (out *outLane) covered() (ids.Tick, bool) {
	if out.phase != outFollows {
		return 0, false
	}
	t := out.lane.target
	if !t.mu.TryLock() {
		return out.there.tick, true
	}
	defer t.mu.Unlock()
	done, quiet := t.quiet()
	l := out.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if quiet && out.next == l.next() {
		return max(done, out.there.tick), true
	}
	return out.there.tick, true
}

// quiet tells whether all that the target has done is stored, and up to which tick it is done. Called with mu held.
func (t *target) quiet() (ids.Tick, bool) {
	if t.closed || t.group == nil || !t.dirtyFrom.IsZero() || t.partial != 0 || t.applied < t.view.created {
		return 0, false
	}
	t.group.mu.Lock()
	defer t.group.mu.Unlock()
	return max(t.applied, t.group.doneOf(t)), true
}

// send sends changes in pieces, which the other side puts together.
func (o *shipSession) send(out *outLane, p *internalv1.ShipPiece, changes []byte) error {
	out.begun = true
	p.Born = uint64(out.lane.target.view.created)
	out.there.tick, out.there.floor = ids.Tick(p.To), max(out.there.floor, ids.Tick(p.Floor))
	now := time.Now()
	o.s.pay(now, len(changes))
	o.unacked += int64(len(changes))
	for {
		n := min(len(changes), o.s.cfg.ChunkBytes)
		part := &internalv1.ShipPiece{Lane: out.id, Changes: changes[:n], More: true}
		if changes = changes[n:]; len(changes) == 0 {
			p.Lane, p.Changes = out.id, part.Changes
			return o.stream.Send(&internalv1.ShipRequest{Piece: p})
		}
		if err := o.stream.Send(&internalv1.ShipRequest{Piece: part}); err != nil {
			return err
		}
	}
}
