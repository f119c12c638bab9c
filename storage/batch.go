package storage

import (
	"bytes"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace/millrace/internal/fault"
)

// MaxBatchBytes bounds a batch. It is far above what one commit should hold: a batch is in memory two or three times
// while it is committed.
const MaxBatchBytes = 1 << 30

// maxRetainedBatch is the largest buffer that Reset keeps, so that one writer that reuses its batch doesn't allocate
// and clear it anew each time.
const maxRetainedBatch = 16 << 20

// Batch collects writes that are committed together or not at all. Writes apply in the order they were added. It isn't
// safe for concurrent use. After Commit, successful or not, Reset it or Close it.
type Batch struct {
	s         *Store
	b         *pebble.Batch
	deletes   int        // deletions among the writes
	ranges    []keyRange // deleted, in a log store
	err       error
	committed bool
}

// NewBatch returns an empty batch of this store.
func (s *Store) NewBatch() *Batch {
	return &Batch{s: s, b: s.db.NewBatch(pebble.WithMaxRetainedSizeBytes(maxRetainedBatch))}
}

// NewBatchOf is NewBatch for some bytes of writes, about, which saves a large batch growing piece by piece.
func (s *Store) NewBatchOf(bytes int) *Batch {
	return &Batch{s: s, b: s.db.NewBatch(pebble.WithInitialSizeBytes(min(max(bytes, 1<<10), MaxBatchBytes/2)), pebble.WithMaxRetainedSizeBytes(maxRetainedBatch))}
}

// fits keeps a batch within its bound; Pebble panics beyond its own. Commit returns the error.
func (b *Batch) fits(n int) bool {
	if b.err == nil && b.b.Len()+n+32 > MaxBatchBytes {
		b.err = fault.New(fault.TooLarge, "storage: a batch of more than %d bytes; commit it in smaller ones", MaxBatchBytes)
	}
	return b.err == nil
}

// Set makes key hold value. It copies both.
func (b *Batch) Set(key, value []byte) {
	k, v := b.SetDeferred(len(key), len(value))
	copy(k, key)
	copy(v, value)
}

// SetDeferred adds a Set whose key and value the caller writes into the returned slices before the next call on b,
// saving the copy that Set would make.
func (b *Batch) SetDeferred(keyLen, valueLen int) (key, value []byte) {
	if !b.fits(keyLen + valueLen) {
		return make([]byte, keyLen), make([]byte, valueLen)
	}
	op := b.b.SetDeferred(keyLen, valueLen)
	return op.Key, op.Value
}

// Delete removes key, which needn't be there.
func (b *Batch) Delete(key []byte) {
	if !b.fits(len(key)) {
		return
	}
	copy(b.b.DeleteDeferred(len(key)).Key, key)
	b.deletes++
}

// DeleteRange removes all keys from lo, inclusive, to hi, exclusive.
func (b *Batch) DeleteRange(lo, hi []byte) {
	if !b.fits(len(lo) + len(hi)) {
		return
	}
	op := b.b.DeleteRangeDeferred(len(lo), len(hi))
	copy(op.Key, lo)
	copy(op.Value, hi)
	b.deletes++
	if b.s.kind == kindLog && bytes.Compare(lo, hi) < 0 {
		b.ranges = append(b.ranges, keyRange{bytes.Clone(lo), bytes.Clone(hi)})
	}
}

// Len is the size of the batch as it will be written, in bytes.
func (b *Batch) Len() int { return b.b.Len() }

// Count is the number of writes in the batch.
func (b *Batch) Count() int { return int(b.b.Count()) }

// Reset empties the batch for reuse and keeps its memory up to 16 MiB.
func (b *Batch) Reset() {
	if b.committed && b.err != nil {
		// Pebble may still hold the memory of a batch whose commit failed.
		b.b = b.s.db.NewBatch(pebble.WithMaxRetainedSizeBytes(maxRetainedBatch))
	} else {
		b.b.Reset()
	}
	b.deletes, b.ranges, b.err, b.committed = 0, nil, nil, false
}

// Close gives the batch's memory back. Safe to call twice; no other call may follow.
func (b *Batch) Close() {
	if b.b == nil {
		return
	}
	if !b.committed || b.err == nil {
		_ = b.b.Close() // fails only for what the batch isn't: indexed, or being committed
	}
	b.b = nil
}
