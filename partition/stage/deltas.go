package stage

import (
	"encoding/binary"
	"slices"
	"sort"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/invariants"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// tickDelta is a target's output delta of one tick: encoded by record.MarshalDelta or, for the stages that read it in
// this process, as it is. Nobody changes it.
type tickDelta struct {
	tick ids.Tick
	raw  []byte        // nil: see rows
	more [][]byte      // what comes behind raw, where the rows are encoded in pieces
	rows *record.Delta // nil: see raw
}

// decoded returns the rows.
func (d *tickDelta) decoded(s record.Schema) (*record.Delta, error) {
	if d.rows != nil {
		return d.rows, nil
	}
	first, err := record.UnmarshalDelta(d.raw, s)
	if err != nil || len(d.more) == 0 {
		return first, err
	}
	all := withWeights(first)
	for _, raw := range d.more {
		next, err := record.UnmarshalDelta(raw, s)
		if err != nil {
			return nil, err
		}
		appendDelta(all, next)
	}
	return all, nil
}

// withWeights returns a delta in memory of its own, with weights.
func withWeights(d *record.Delta) *record.Delta {
	out := copyDelta(d)
	if out.Weights == nil {
		out.Weights = slices.Repeat([]int64{1}, d.N)
	}
	return out
}

// appendDelta appends the rows of d to dst, which has weights.
func appendDelta(dst, d *record.Delta) {
	for i := range dst.Cols {
		dst.Cols[i].AppendAll(&d.Cols[i])
	}
	dst.N += d.N
	if d.Weights != nil {
		dst.Weights = append(dst.Weights, d.Weights...)
		return
	}
	for range d.N {
		dst.Weights = append(dst.Weights, 1)
	}
}

// size is about what the delta takes in memory, in bytes.
func (d *tickDelta) size() int {
	if d.rows != nil {
		return int(deltaBytes(d.rows)) + recentOverhead
	}
	n := len(d.raw) + recentOverhead
	for _, raw := range d.more {
		n += len(raw) + recentOverhead
	}
	return n
}

// deltaLog keeps a target's output deltas for as long as the retention says: the newest in memory, all of them in the
// state store, in blocks of what was flushed together. A block's key is its last tick and then its first: another
// primary's block with the same last tick may begin elsewhere, and must not take this one's place. Of such blocks the one
// that goes back furthest comes first.
//
// Where rows are only appended, they are the deltas: no blocks are stored, and what isn't in memory is read from the rows.
type deltaLog struct {
	prefix []byte // of the blocks' keys
	p      ids.PartitionID
	rows   *rowStore   // layout appended: where the deltas are; else nil
	floor  ids.Tick    // the deltas of all ticks above are here
	recent []tickDelta // in order
	stored int         // of recent, how many are in blocks too
	memory int         // bytes of recent
	blocks []deltaBlock
	disk   int64 // bytes of blocks

	// between write and written
	added   deltaBlock
	dropped int // of blocks
}

// recentOverhead is what a delta in memory takes besides its bytes.
const recentOverhead = 48

type deltaBlock struct {
	last  ids.Tick
	bytes int64
}

// add keeps the delta of tick, the highest so far.
func (l *deltaLog) add(tick ids.Tick, d *record.Delta) {
	if invariants.Enabled {
		l.check(tick, d)
	}
	l.keep(tickDelta{tick: tick, raw: record.MarshalDelta(nil, d)})
}

// addRows keeps the delta of tick, the highest so far, as it is, for those who read it here; it is encoded when it is stored.
// Nobody changes d any more.
func (l *deltaLog) addRows(tick ids.Tick, d *record.Delta) {
	if invariants.Enabled {
		l.check(tick, d)
	}
	l.keep(tickDelta{tick: tick, rows: d})
}

// check checks that ticks rise and no row is there without a weight.
func (l *deltaLog) check(tick ids.Tick, d *record.Delta) {
	last := l.floor
	if n := len(l.recent); n > 0 {
		last = max(last, l.recent[n-1].tick)
	}
	if tick <= last {
		invariants.Failed("partition %d: a delta of tick %d after %d", l.p, tick, last)
	}
	for i := range d.N {
		if d.Weight(i) == 0 {
			invariants.Failed("partition %d, tick %d: row %d of %d has weight 0", l.p, tick, i, d.N)
		}
	}
}

// keep keeps a delta whose tick is the highest so far.
func (l *deltaLog) keep(d tickDelta) {
	l.recent = append(l.recent, d)
	l.memory += d.size()
}

// write adds a block with what isn't stored yet to a batch, and the deletion of the blocks that lie further back from
// done than retain and aren't above low, which somebody still needs; or are too many for maxBytes. The oldest are left
// until there is more to delete than a trifle.
func (l *deltaLog) write(b *storage.Batch, done, retain ids.Tick, maxBytes int64, low ids.Tick) {
	l.added, l.dropped = deltaBlock{}, 0
	if l.rows != nil {
		return
	}
	if l.stored < len(l.recent) {
		size := 0
		var heads []byte // of the deltas: tick and length
		raws := make([][]byte, 0, len(l.recent)-l.stored)
		for _, d := range l.recent[l.stored:] {
			raw := d.raw
			if d.rows != nil {
				raw = record.MarshalDelta(nil, d.rows)
			}
			raws = append(raws, raw)
			heads = binary.AppendUvarint(binary.BigEndian.AppendUint64(heads, uint64(d.tick)), uint64(len(raw)))
			size += len(raw)
		}
		l.added = deltaBlock{l.recent[len(l.recent)-1].tick, int64(len(heads) + size)}
		name := l.key(l.recent[l.stored].tick, l.added.last)
		key, block := b.SetDeferred(len(name), len(heads)+size)
		copy(key, name)
		for _, raw := range raws {
			_, n := binary.Uvarint(heads[8:])
			block = block[copy(block, heads[:8+n]):]
			heads = heads[8+n:]
			block = block[copy(block, raw):]
		}
	}
	disk := l.disk + l.added.bytes
	if len(l.blocks) == 0 || disk <= maxBytes && done < l.blocks[0].last+retain+retain/8 {
		return
	}
	for l.dropped < len(l.blocks) {
		last := l.blocks[l.dropped].last
		goes := disk > maxBytes || last+retain <= done && last <= low
		if !goes && (l.dropped == 0 || last > l.blocks[l.dropped-1].last) { // else it goes with the one before
			break
		}
		disk -= l.blocks[l.dropped].bytes
		l.dropped++
	}
	if l.dropped > 0 {
		b.DeleteRange(l.prefix, l.bound(l.blocks[l.dropped-1].last+1))
	}
}

// unstored is what the deltas that aren't stored yet take, in bytes.
func (l *deltaLog) unstored() (n int) {
	if l.rows != nil {
		return 0
	}
	for i := range l.recent[l.stored:] {
		n += l.recent[l.stored+i].size()
	}
	return n
}

// floorAfter is what floor will be when the batch of write is committed.
func (l *deltaLog) floorAfter() ids.Tick {
	if l.dropped == 0 {
		return l.floor
	}
	return l.blocks[l.dropped-1].last
}

// written notes that the batch of write was committed.
func (l *deltaLog) written() {
	l.floor = l.floorAfter()
	if l.rows != nil {
		l.stored = len(l.recent)
	}
	if l.added.bytes > 0 {
		l.blocks = append(l.blocks, l.added)
		l.disk += l.added.bytes
		l.stored = len(l.recent)
	}
	for _, b := range l.blocks[:l.dropped] {
		l.disk -= b.bytes
	}
	l.blocks = slices.Delete(l.blocks, 0, l.dropped)
	n := 0
	for n < l.stored && l.recent[n].tick <= l.floor {
		n++
	}
	l.drop(n)
	l.added, l.dropped = deltaBlock{}, 0
}

// drop lets go of the n oldest deltas in memory.
func (l *deltaLog) drop(n int) {
	for _, d := range l.recent[:n] {
		l.memory -= d.size()
	}
	l.recent = slices.Delete(l.recent, 0, n)
	l.stored -= n
}

func (l *deltaLog) key(first, last ids.Tick) []byte {
	return binary.BigEndian.AppendUint64(l.bound(last), uint64(first))
}

// bound is what the keys of blocks with this last tick begin with.
func (l *deltaLog) bound(last ids.Tick) []byte {
	return binary.BigEndian.AppendUint64(slices.Clip(l.prefix), uint64(last))
}

// forget lets go of the oldest stored deltas in memory when they take more than limit bytes: of a quarter more than
// needed, so that it isn't done each time.
func (l *deltaLog) forget(limit int) {
	if l.memory <= limit {
		return
	}
	n, memory := 0, l.memory
	for n < l.stored && memory > limit-limit/4 {
		memory -= l.recent[n].size()
		n++
	}
	if n > 0 {
		l.drop(n)
	}
}

// load finds the blocks in the store.
func (l *deltaLog) load(r storage.Reader) error {
	it, err := r.Iter(prefixRange(l.prefix))
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		suffix := it.Key()[len(l.prefix):]
		if len(suffix) != 16 {
			_ = it.Close()
			return fault.New(fault.Corrupted, "partition %d of a view: a stored delta has a malformed key", l.p)
		}
		n := int64(len(it.Value()))
		l.blocks = append(l.blocks, deltaBlock{ids.Tick(binary.BigEndian.Uint64(suffix)), n})
		l.disk += n
	}
	return it.Close()
}

// notRetained is the error for a tick whose deltas are gone.
func (l *deltaLog) notRetained(after ids.Tick) error {
	return fault.New(fault.NotFound, "tick %d is no longer retained in partition %d; the oldest is %d, read a newer one or start afresh",
		after, l.p, l.floor).WithReason(ReasonTickNotRetained)
}

// between returns up to maxBytes of the encoded deltas of ticks in (after, upto], in order, and whether that is all of
// them. The slices must not be changed. r sees at least what was flushed so far.
func (l *deltaLog) between(r storage.Reader, after, upto ids.Tick, maxBytes int) (out []tickDelta, all bool, err error) {
	if after < l.floor {
		return nil, false, l.notRetained(after)
	}
	size := 0
	take := func(d tickDelta) bool {
		if d.tick > upto {
			return false
		}
		if size > 0 && size+d.size() > maxBytes {
			all = false
			return false
		}
		if d.tick > after {
			out = append(out, d)
			size += d.size()
		}
		return true
	}
	all = true
	if (len(l.blocks) > 0 || l.rows != nil) && (len(l.recent) == 0 || after+1 < l.recent[0].tick) {
		below := upto
		if len(l.recent) > 0 {
			below = min(upto, l.recent[0].tick-1)
		}
		if after < below {
			read := l.readBlocks
			if l.rows != nil {
				read = l.readRows
			}
			more, err := read(r, after, below, take)
			if err != nil || !more {
				return out, all, err
			}
		}
	}
	i := sort.Search(len(l.recent), func(i int) bool { return l.recent[i].tick > after })
	for _, d := range l.recent[i:] {
		if !take(d) {
			break
		}
	}
	return out, all, nil
}

// readBlocks hands the stored deltas of ticks in (after, below] to take.
func (l *deltaLog) readBlocks(r storage.Reader, after, below ids.Tick, take func(tickDelta) bool) (more bool, err error) {
	_, hi := prefixRange(l.prefix)
	it, err := r.Iter(l.bound(after+1), hi)
	if err != nil {
		return false, err
	}
	last := after // blocks that different primaries have made may overlap
	for ok := it.First(); ok; ok = it.Next() {
		block := append([]byte(nil), it.Value()...)
		for len(block) > 0 {
			d, rest, err := cutDelta(block)
			if err != nil {
				_ = it.Close()
				return false, err
			}
			block = rest
			if d.tick > below {
				return true, it.Close()
			}
			if d.tick <= last {
				continue
			}
			last = d.tick
			if !take(d) {
				return false, it.Close()
			}
		}
	}
	return true, it.Close()
}

// readRows is readBlocks where the rows are the deltas. All blocks of a tick are one delta.
func (l *deltaLog) readRows(r storage.Reader, after, below ids.Tick, take func(tickDelta) bool) (more bool, err error) {
	prefix := l.rows.table.prefix
	end := binary.BigEndian.AppendUint64(slices.Clip(prefix), uint64(below+1))
	it, err := r.Iter(binary.BigEndian.AppendUint64(slices.Clip(prefix), uint64(after+1)), end)
	if err != nil {
		return false, err
	}
	var d tickDelta
	for ok := it.First(); ok; ok = it.Next() {
		tick, block, err := l.rows.codec.decodeBlock(it.Key()[len(prefix):], it.Value())
		if err != nil {
			_ = it.Close()
			return false, err
		}
		if tick != d.tick {
			if d.tick != 0 && !take(d) {
				return false, it.Close()
			}
			d = tickDelta{tick: tick, raw: slices.Clone(it.Value())}
			continue
		}
		if d.rows == nil {
			first, err := record.UnmarshalDelta(d.raw, l.rows.codec.schema)
			if err != nil {
				_ = it.Close()
				return false, err
			}
			d = tickDelta{tick: tick, rows: withWeights(first)}
		}
		appendDelta(d.rows, block)
	}
	if d.tick != 0 && !take(d) {
		return false, it.Close()
	}
	return true, it.Close()
}

func cutDelta(block []byte) (d tickDelta, rest []byte, err error) {
	if len(block) > 8 {
		n, w := binary.Uvarint(block[8:])
		if w > 0 && n <= uint64(len(block)-8-w) {
			end := 8 + w + int(n)
			return tickDelta{tick: ids.Tick(binary.BigEndian.Uint64(block)), raw: block[8+w : end : end]}, block[end:], nil
		}
	}
	return d, nil, fault.New(fault.Corrupted, "a stored output delta of a view is cut short")
}
