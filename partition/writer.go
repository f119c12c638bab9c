package partition

import (
	"context"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/storage"
)

// logWriter puts the writes of all replicas on disk: it gathers what waits into one batch, commits it with one fsync,
// and tells the replicas. While one group is being synced the next one is filled.
//
// What learners copy goes behind what commits wait for, a little of it in each group: with many copies under way, megabytes
// of them would stand before every commit that this node has a part in. A replica's own writes keep their order.
type logWriter struct {
	store      *storage.Store
	groupBytes int
	maxQueued  int
	// written is called for each replica of a group that is on disk, with the number of its last write.
	written func(group []groupEnd)
	// refused is called with the error of a commit that may succeed later, and with nil once it did.
	refused func(error)
	// broken is called when no write will succeed any more.
	broken func(error)

	mu     sync.Mutex
	queue  []queuedWrite
	copies []queuedWrite // of replicas that have nothing in queue
	bytes  [2]int        // of the payloads in both
	room   chan struct{} // closed when bytes fall; nil while nobody waits
	notify chan struct{}
}

// copyShare is which part of a group may be copies.
const copyShare = 8

// The two queues, as indexes.
const (
	queueCommits = iota
	queueCopies
)

type queuedWrite struct {
	hd *hosted
	write
}

// groupEnd says that a replica's writes up to op are in a group.
type groupEnd struct {
	hd *hosted
	op uint64
}

type writeGroup struct {
	batch *storage.Batch
	ends  []groupEnd
	index map[*hosted]int // of ends
}

func newLogWriter(store *storage.Store, groupBytes, maxQueued int) *logWriter {
	return &logWriter{store: store, groupBytes: groupBytes, maxQueued: maxQueued, notify: make(chan struct{}, 1)}
}

// enqueue takes a replica's writes; the caller holds its lock, so that they stay in order. copies: nobody waits for them
// yet. It never blocks: who produces writes is bounded elsewhere.
func (w *logWriter) enqueue(hd *hosted, writes []write, copies bool) {
	w.mu.Lock()
	to, n := &w.queue, queueCommits
	if copies && hd.queued[queueCommits] == 0 {
		to, n = &w.copies, queueCopies
	} else if hd.queued[queueCopies] > 0 {
		w.promote(hd)
	}
	for _, x := range writes {
		*to = append(*to, queuedWrite{hd, x})
		w.bytes[n] += x.size()
	}
	hd.queued[n] += len(writes)
	w.mu.Unlock()
	select {
	case w.notify <- struct{}{}:
	default:
	}
}

// size is how many bytes a write counts.
func (x *write) size() int {
	if x.entry == nil {
		return 0
	}
	return int(x.entry.payloadLen)
}

// promote moves a replica's copies to the other queue, since something that is waited for comes behind them. mu is held.
func (w *logWriter) promote(hd *hosted) {
	kept := w.copies[:0]
	for _, q := range w.copies {
		if q.hd != hd {
			kept = append(kept, q)
			continue
		}
		w.queue = append(w.queue, q)
		w.bytes[queueCopies] -= q.size()
		w.bytes[queueCommits] += q.size()
	}
	clear(w.copies[len(kept):])
	w.copies = kept
	hd.queued[queueCommits] += hd.queued[queueCopies]
	hd.queued[queueCopies] = 0
}

// wait returns once less than maxQueued bytes of a kind wait for the disk, or ctx ends.
func (w *logWriter) wait(ctx context.Context, copies bool) error {
	n := queueCommits
	if copies {
		n = queueCopies
	}
	for {
		w.mu.Lock()
		if w.bytes[n] < w.maxQueued {
			w.mu.Unlock()
			return nil
		}
		if w.room == nil {
			w.room = make(chan struct{})
		}
		room := w.room
		w.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// groupsAhead is how many groups may be filled, being synced, or being told about at once, beyond the one in work.
const groupsAhead = 3

// run writes until ctx ends. What is queued then isn't written: nobody was told that it is safe.
func (w *logWriter) run(ctx context.Context) {
	free := make(chan *writeGroup, groupsAhead)
	filled, synced := make(chan *writeGroup), make(chan *writeGroup, 1)
	for range groupsAhead {
		free <- &writeGroup{batch: w.store.NewBatch(), index: map[*hosted]int{}}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(synced)
		for g := range filled {
			if !w.commit(ctx, g) {
				for range filled { // refuse the rest
				}
				return
			}
			synced <- g
		}
	})
	wg.Go(func() {
		for g := range synced {
			w.written(g.ends)
			g.reset()
			free <- g
		}
	})
	w.fill(ctx, free, filled)
	close(filled)
	wg.Wait()
	close(free)
	for g := range free {
		g.batch.Close()
	}
}

func (g *writeGroup) reset() {
	g.batch.Reset()
	clear(g.ends)
	g.ends = g.ends[:0]
	clear(g.index)
}

// fill makes groups of what is queued.
func (w *logWriter) fill(ctx context.Context, free <-chan *writeGroup, filled chan<- *writeGroup) {
	var queue []queuedWrite // taken from w.queue
	next := 0
	for {
		more := next < len(queue)
		if !more {
			clear(queue)
			w.mu.Lock()
			queue, w.queue = w.queue, queue[:0]
			more = len(queue)+len(w.copies) > 0
			w.mu.Unlock()
			next = 0
		}
		if !more {
			select {
			case <-w.notify:
				continue
			case <-ctx.Done():
				return
			}
		}
		var g *writeGroup
		select {
		case g = <-free:
		case <-ctx.Done():
			return
		}
		first := next
		for next < len(queue) && g.batch.Len() < w.groupBytes {
			g.add(&queue[next])
			next++
		}
		w.release(queue[first:next])
		w.addCopies(g)
		select {
		case filled <- g:
		case <-ctx.Done():
			g.batch.Close()
			return
		}
	}
}

// release counts what has gone into a group.
func (w *logWriter) release(taken []queuedWrite) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range taken {
		w.bytes[queueCommits] -= taken[i].size()
		taken[i].hd.queued[queueCommits]--
	}
	w.freed()
}

// addCopies puts a share of the copies into a group.
func (w *logWriter) addCopies(g *writeGroup) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, limit := 0, g.batch.Len()+w.groupBytes/copyShare
	for n < len(w.copies) && g.batch.Len() < limit {
		q := &w.copies[n]
		g.add(q)
		w.bytes[queueCopies] -= q.size()
		q.hd.queued[queueCopies]--
		n++
	}
	clear(w.copies[:n])
	if w.copies = w.copies[n:]; len(w.copies) == 0 {
		w.copies = nil
	}
	w.freed()
}

// freed wakes those that wait for room. mu is held.
func (w *logWriter) freed() {
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
}

// add puts one write into the group.
func (g *writeGroup) add(q *queuedWrite) {
	if i, ok := g.index[q.hd]; ok {
		g.ends[i].op = q.op
	} else {
		g.index[q.hd] = len(g.ends)
		g.ends = append(g.ends, groupEnd{q.hd, q.op})
	}
	put(g.batch, &q.write)
}

// batch is what writes are put into.
type batch interface {
	Set(key, value []byte)
	SetDeferred(keyLen, valueLen int) (key, value []byte)
	Delete(key []byte)
	DeleteRange(lo, hi []byte)
}

// put puts one write into a batch.
func put(b batch, q *write) {
	for _, m := range q.muts {
		switch {
		case m.hi != nil:
			b.DeleteRange(m.key, m.hi)
		case m.value == nil:
			b.Delete(m.key)
		default:
			b.Set(m.key, m.value)
		}
	}
	e := q.entry
	if e == nil {
		return
	}
	if !e.gone {
		key, value := b.SetDeferred(storage.LogKeyLen, headerLen+len(q.payload))
		storage.AppendLogKey(key[:0], e.partition, e.stream, e.base)
		copy(value, e.head[:])
		copy(value[headerLen:], q.payload)
	}
	key, value := b.SetDeferred(indexKeyLen, indexLen)
	copy(key, indexKey(e.partition, e.lsn))
	encodeIndex(value, e.head[:], q.commit)
	if e.rec.n > 0 {
		key, value := b.SetDeferred(storage.ProducerKeyLen, e.rec.size())
		storage.AppendProducerKey(key[:0], e.partition, e.stream, e.producer)
		e.rec.append(value[:0])
	}
}

// Pauses between attempts to commit a group that the store refuses for now, such as when the disk is nearly full.
const (
	commitPauseMin = 20 * time.Millisecond
	commitPauseMax = time.Second
)

// commit puts a group on disk. A store that refuses for now is asked again, since the group's writes stand between all
// later ones and the disk; false: it never will be, or ctx has ended.
func (w *logWriter) commit(ctx context.Context, g *writeGroup) bool {
	pause := commitPauseMin
	for refused := false; ; refused = true {
		err := w.store.Commit(g.batch, true)
		if err == nil {
			if refused {
				w.refused(nil)
			}
			return true
		}
		if w.store.Healthy() != nil || fault.KindOf(err) != fault.Exhausted {
			w.broken(err)
			return false
		}
		w.refused(err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			pause = min(2*pause, commitPauseMax)
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}
