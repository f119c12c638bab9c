package stage

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// An index of a view is entries of a space of its own, in each partition: the ordered encoding of the indexed columns and
// the row's stored key -> how long the first part is. They are written in the batch that changes the rows, so that they are
// those of the same tick. The rows that are there when an index is made are put into it in pieces, between ticks: behind the
// piece that is being read changes are entered as they come, and before it they are found when it gets there.
//
// Entries are shipped like all that a target stores. But pieces that were put in between two ticks are left out where a replica
// has the later tick already. So a node uses no index but one that it has built itself, as its stored mark says; a new primary
// builds it anew, from what it has.

// indexMarkVersion is the version of the stored format of marks and entries.
const indexMarkVersion = 1

// buildRows is how many rows are put into an index at a time.
const buildRows = 4096

// indexDef is an index as the catalog has it.
type indexDef struct {
	id   uint64
	cols []int
}

// setIndexes takes the indexes of a view's definition and tells whether they are others than before.
func (v *view) setIndexes(def *internalv1.ViewDef) bool {
	if v.codec == nil {
		return false
	}
	var defs []indexDef
	for _, d := range def.Indexes {
		x := indexDef{id: d.Id}
		for _, name := range d.Columns {
			if c := v.plan.Output.Index(name); c >= 0 {
				x.cols = append(x.cols, c)
			}
		}
		if len(x.cols) == len(d.Columns) {
			defs = append(defs, x)
		}
	}
	old := v.indexes.Load()
	if old == nil && len(defs) == 0 || old != nil && slices.EqualFunc(*old, defs, func(a, b indexDef) bool { return a.id == b.id }) {
		return false
	}
	v.indexes.Store(&defs)
	return true
}

// rowIndex is one index of a partition's rows.
type rowIndex struct {
	indexDef
	table  *stateTable
	mark   []byte // key of its mark
	owner  string // this node
	built  bool
	wipe   bool   // what is stored of it goes with the next write
	dirty  bool   // its mark isn't stored
	cursor []byte // key of the last row that was put in, while it is being built; nil: none
	bytes  int64
	key    []byte
	value  []byte
}

// entry returns the entry of row i, whose stored key is row.
func (x *rowIndex) entry(d *record.Delta, i int, row []byte) []byte {
	x.key = x.columns(x.key[:0], d, i)
	x.value = binary.AppendUvarint(x.value[:0], uint64(len(x.key)))
	x.key = append(x.key, row...)
	return x.key
}

// columns appends the indexed columns of row i.
func (x *rowIndex) columns(dst []byte, d *record.Delta, i int) []byte {
	for _, c := range x.cols {
		dst = record.AppendOrdered(dst, &d.Cols[c], i)
	}
	return dst
}

// passed tells whether a row is among those that have been put in.
func (x *rowIndex) passed(row []byte) bool {
	return x.built || x.cursor != nil && bytes.Compare(row, x.cursor) <= 0
}

func (x *rowIndex) add(d *record.Delta, i int, row []byte) error {
	key := x.entry(d, i, row)
	if x.passed(row) {
		x.bytes += int64(len(key) + len(x.value))
	}
	x.dirty = true
	return x.table.Set(key, x.value)
}

func (x *rowIndex) remove(d *record.Delta, i int, row []byte) error {
	key := x.entry(d, i, row)
	if x.passed(row) {
		x.bytes -= int64(len(key) + len(x.value))
	}
	x.dirty = true
	return x.table.Delete(key)
}

// write adds to a batch what isn't stored.
func (x *rowIndex) write(b *storage.Batch) {
	if x.wipe {
		b.DeleteRange(prefixRange(x.table.prefix))
	}
	x.table.write(b)
	if x.dirty || x.wipe {
		b.Set(x.mark, x.encode())
	}
}

func (x *rowIndex) written() {
	x.table.written(false)
	x.wipe, x.dirty = false, false
}

// encode makes the mark: whose index it is, whether it is complete, and how large.
func (x *rowIndex) encode() []byte {
	out := []byte{indexMarkVersion, 0}
	if x.built {
		out[1] = 1
	}
	out = binary.AppendUvarint(out, uint64(max(0, x.bytes)))
	return append(out, x.owner...)
}

// load finds out whether what is stored is a complete index that this node has built; if not, it is built anew.
func (x *rowIndex) load(store Store) error {
	raw, closer, err := store.Get(x.mark)
	if err != nil && !errors.Is(err, fault.Of(fault.NotFound)) {
		return err
	}
	if err == nil {
		if len(raw) > 2 && raw[0] == indexMarkVersion && raw[1] == 1 {
			if n, w := binary.Uvarint(raw[2:]); w > 0 && string(raw[2+w:]) == x.owner {
				x.built, x.bytes = true, int64(n)
			}
		}
		if err := closer.Close(); err != nil {
			return err
		}
	}
	x.wipe = !x.built
	return nil
}

// syncIndexes brings the target's indexes in line with the view's. Called with mu held.
func (t *target) syncIndexes() error {
	defs := t.view.indexes.Load()
	if !t.plan.last || defs == t.indexed {
		return nil
	}
	var want []indexDef
	if defs != nil {
		want = *defs
	}
	var next []*rowIndex
	for _, d := range want {
		if i := slices.IndexFunc(t.rows.indexes, func(x *rowIndex) bool { return x.id == d.id }); i >= 0 {
			next = append(next, t.rows.indexes[i])
			continue
		}
		x := &rowIndex{indexDef: d, owner: string(t.rt.cfg.NodeID), mark: binary.BigEndian.AppendUint64(t.prefix(spaceMarks), d.id)}
		x.table = newStateTable(t.rt.store, binary.BigEndian.AppendUint64(t.prefix(spaceIndex), d.id))
		if err := x.load(t.rt.store); err != nil {
			return err
		}
		next = append(next, x)
	}
	if err := t.dropIndexes(want); err != nil {
		return err
	}
	t.rows.indexes, t.indexed = next, defs
	t.touched()
	t.rt.wakeIndexer()
	return nil
}

// dropIndexes lets what is stored of other indexes than those of keep go with the next write. Called with mu held.
func (t *target) dropIndexes(keep []indexDef) error {
	prefix := t.prefix(spaceMarks)
	gone := func(id uint64) bool {
		return !slices.ContainsFunc(keep, func(d indexDef) bool { return d.id == id })
	}
	drop := func(id uint64) {
		if !slices.Contains(t.rows.dropped, id) {
			t.rows.dropped = append(t.rows.dropped, id)
		}
	}
	for _, x := range t.rows.indexes {
		if gone(x.id) {
			drop(x.id)
		}
	}
	it, err := t.rt.store.Iter(prefixRange(prefix))
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if k := it.Key()[len(prefix):]; len(k) == 8 && gone(binary.BigEndian.Uint64(k)) {
			drop(binary.BigEndian.Uint64(k))
		}
	}
	return it.Close()
}

// index returns a complete index; nil: there is none. Called with mu held.
func (t *target) index(id uint64) *rowIndex {
	for _, x := range t.rows.indexes {
		if x.id == id && x.built {
			return x
		}
	}
	return nil
}

// wakeIndexer lets indexes be built.
func (rt *Runtime) wakeIndexer() {
	select {
	case rt.toIndex <- struct{}{}:
	default:
	}
}

// indexLoop builds indexes, a piece at a time, so that ticks go on in between.
func (rt *Runtime) indexLoop() {
	for {
		select {
		case <-rt.ctx.Done():
			return
		case <-rt.toIndex:
		}
		for again := true; again && rt.ctx.Err() == nil; {
			again = false
			for _, t := range rt.all.Load().targets {
				if !t.plan.last || t.view.indexes.Load() == nil || t.view.failed.Load() != nil {
					continue
				}
				more, err := t.buildIndexes()
				if err != nil && !errors.Is(err, fault.Of(fault.Exhausted)) {
					rt.failView(t.view, err)
				}
				again = again || more || err != nil
			}
			if again {
				select {
				case <-time.After(time.Millisecond): // leave some time to ticks and readers
				case <-rt.ctx.Done():
				}
			}
		}
	}
}

// buildIndexes puts some rows into an index that isn't complete, and tells whether there is more to do.
func (t *target) buildIndexes() (more bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false, nil
	}
	if err := t.syncIndexes(); err != nil {
		return false, err
	}
	i := slices.IndexFunc(t.rows.indexes, func(x *rowIndex) bool { return !x.built })
	if i < 0 {
		return false, nil
	}
	if t.rows.dirty() {
		if err := t.flush(); err != nil {
			return true, err
		}
		if t.rows.dirty() {
			return true, nil // in the middle of a tick
		}
	}
	x := t.rows.indexes[i]
	if x.built, err = t.buildPiece(x); err != nil {
		return false, err
	}
	x.dirty = true
	t.touched()
	if x.built {
		t.rt.log.Info("an index of a view is complete", "view", t.view.name, "partition", t.p, "index", x.id, "bytes", x.bytes)
	}
	return true, nil
}

// buildPiece puts the next rows of the store into x. Called with mu held, and nothing unstored.
func (t *target) buildPiece(x *rowIndex) (end bool, err error) {
	prefix := t.prefix(spaceRows)
	t.rows.changed++ // snapshots from before have no entries
	from, to := prefixRange(prefix)
	if x.cursor != nil {
		from = append(append(append([]byte(nil), prefix...), x.cursor...), 0)
	}
	it, err := t.rt.store.Iter(from, to)
	if err != nil {
		return false, err
	}
	d := t.newRows()
	ok := it.First()
	for n := 0; ok && n < buildRows; {
		row, rows := it.Key()[len(prefix):], 1
		if t.plan.codec.layout == appended {
			rows, err = x.addBlockTo(t.plan.codec, row, it.Value())
		} else {
			d.Reset()
			if err = t.plan.codec.decode(row, it.Value(), d); err == nil {
				x.cursor = append(x.cursor[:0], row...)
				err = x.add(d, 0, x.cursor)
			}
		}
		if err != nil {
			_ = it.Close()
			return false, err
		}
		n += rows
		ok = it.Next()
	}
	if err := it.Close(); err != nil {
		return false, err
	}
	return !ok, nil
}

// indexRange is the entries that an index read wants.
type indexRange struct {
	x      *rowIndex
	lo, hi []byte // without the space's prefix; hi nil: to the end
}

// rangeOf returns the entries of r.
func (c *rowCodec) rangeOf(x *rowIndex, r *plan.IndexRead) (*indexRange, error) {
	var lo []byte
	typed := func(i int, v *record.Value) error {
		if i >= len(x.cols) || v.Type != c.schema[x.cols[i]].Type {
			return fault.New(fault.Internal, "stage: an index of %d columns is read by another type in column %d", len(x.cols), i)
		}
		return nil
	}
	for i := range r.Equal {
		if err := typed(i, &r.Equal[i]); err != nil {
			return nil, err
		}
		lo = record.AppendOrderedValue(lo, r.Equal[i])
	}
	out := &indexRange{x: x}
	end := slices.Clone(lo)
	if r.High != nil {
		if err := typed(len(r.Equal), r.High); err != nil {
			return nil, err
		}
		end = record.AppendOrderedValue(end, *r.High)
	}
	if r.Low != nil {
		if err := typed(len(r.Equal), r.Low); err != nil {
			return nil, err
		}
		lo = record.AppendOrderedValue(lo, *r.Low)
	}
	out.lo = lo
	if len(end) > 0 {
		_, out.hi = prefixRange(end)
	}
	return out, nil
}

// has tells whether row i is among those of the range.
func (r *indexRange) has(d *record.Delta, i int) bool {
	key := r.x.columns(nil, d, i) // readers share the index
	return bytes.Compare(key, r.lo) >= 0 && (r.hi == nil || bytes.Compare(key, r.hi) < 0)
}

// openIndexed begins to read the rows of an index's range as of a tick; nil: the index isn't complete here.
func (t *target) openIndexed(tick ids.Tick, read *plan.IndexRead) (*rowScan, error) {
	c := t.plan.codec
	t.mu.Lock()
	x := t.index(read.ID)
	if x == nil || t.closed {
		t.mu.Unlock()
		return nil, nil
	}
	r, err := c.rangeOf(x, read)
	var snap *sharedSnapshot
	if err == nil {
		snap, err = t.acquire()
	}
	var later []tickDelta
	if err == nil && c.layout != appended {
		if later, err = t.later(snap.snap, tick); err != nil {
			defer t.releaseSnapshot(snap)
		}
	}
	t.mu.Unlock()
	if err != nil {
		return nil, err
	}
	s := &rowScan{cfg: &t.rt.cfg, codec: c, out: t.newRows(), skip: len(x.table.prefix), by: &entries{rows: t.prefix(spaceRows), from: snap.snap}}
	if c.layout == appended {
		s.by.blocks = &blockRows{codec: c, rows: s.by.rows, from: snap.snap, tick: tick}
	}
	if s.undo, err = t.undo(later, func(_ []byte, d *record.Delta, i int) bool { return r.has(d, i) }); err == nil {
		lo := append(slices.Clone(x.table.prefix), r.lo...)
		_, hi := prefixRange(x.table.prefix)
		if r.hi != nil {
			hi = append(slices.Clone(x.table.prefix), r.hi...)
		}
		err = s.begin(snap.snap, lo, hi)
	}
	if err != nil {
		t.releaseSnapshot(snap)
		return nil, err
	}
	s.release = func() { t.releaseSnapshot(snap) }
	return s, nil
}

// entries leads from an index's entries to rows.
type entries struct {
	rows        []byte // what the rows' keys begin with
	from        storage.Reader
	room, value []byte
	blocks      *blockRows // layout appended; else nil
}

// key returns the stored key of the row of an entry.
func (e *entries) key(entry, length []byte) ([]byte, error) {
	n, w := binary.Uvarint(length)
	if w <= 0 || n > uint64(len(entry)) {
		return nil, badRow("index entry")
	}
	return entry[n:], nil
}

// row returns the key and the value of the row of an entry, until the next call.
func (e *entries) row(entry, length []byte) (key, value []byte, err error) {
	if key, err = e.key(entry, length); err != nil {
		return nil, nil, err
	}
	e.room = append(append(e.room[:0], e.rows...), key...)
	stored, closer, err := e.from.Get(e.room)
	if err != nil {
		return nil, nil, err
	}
	e.value = append(e.value[:0], stored...)
	return key, e.value, closer.Close()
}

// indexStats tells how a partition's indexes do. Called with mu held.
func (t *target) indexStats(st *internalv1.ViewStats) {
	for _, x := range t.rows.indexes {
		i, ok := slices.BinarySearchFunc(st.Indexes, x.id, func(s *internalv1.IndexStats, id uint64) int { return cmp.Compare(s.Index, id) })
		if !ok {
			st.Indexes = slices.Insert(st.Indexes, i, &internalv1.IndexStats{Index: x.id})
		}
		st.Indexes[i].Bytes += uint64(max(0, x.bytes))
		if x.built {
			st.Indexes[i].Built++
		}
	}
}
