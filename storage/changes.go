package storage

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace/millrace/internal/fault"
)

// Changes carry the writes of one batch from a state store to another:
//
//	version:1  { op:1 key length:uvarint key [value length:uvarint value] }*  CRC-32C of all before:4 little-endian
//
// The ops and their encoding are those of Pebble's batches: 0 delete, 1 set, 15 delete the range from key to value.
const changesVersion = 1

// batchHeader is what Pebble puts before the ops of a batch, in bytes.
const batchHeader = 12

// Changes returns the batch's writes in memory of their own. Call it before Commit.
func (b *Batch) Changes() []byte {
	ops := b.b.Repr()[batchHeader:]
	out := make([]byte, 0, 1+len(ops)+chunkFooter)
	out = append(append(out, changesVersion), ops...)
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// AddChanges adds the writes of changes to the batch, leaving out what lies outside [lo, hi); nil is open. bounds is the
// range that the changes must keep to.
//
// Errors: Corrupted for changes that were damaged on the way, or reach outside bounds; Unsupported for those of a newer
// version. The batch is then of no use.
func (b *Batch) AddChanges(changes, lo, hi []byte, bounds [2][]byte) error {
	ops, err := checkChanges(changes)
	if err != nil {
		return err
	}
	for len(ops) > 0 {
		kind := pebble.InternalKeyKind(ops[0])
		var key, value []byte
		ok := true
		key, ops, ok = cutBytes(ops[1:])
		if ok && kind != pebble.InternalKeyKindDelete {
			value, ops, ok = cutBytes(ops)
		}
		switch {
		case !ok:
			return badChanges("a length exceeds them")
		case bytes.Compare(key, bounds[0]) < 0 || bytes.Compare(key, bounds[1]) >= 0:
			return badChanges("the key %x lies outside their range", key)
		}
		switch kind {
		case pebble.InternalKeyKindSet:
			if within(key, lo, hi) {
				b.Set(key, value)
			}
		case pebble.InternalKeyKindDelete:
			if within(key, lo, hi) {
				b.Delete(key)
			}
		case pebble.InternalKeyKindRangeDelete:
			if bytes.Compare(value, bounds[1]) > 0 {
				return badChanges("the range up to %x lies outside theirs", value)
			}
			from, to := key, value
			if bytes.Compare(from, lo) < 0 {
				from = lo
			}
			if hi != nil && bytes.Compare(to, hi) > 0 {
				to = hi
			}
			if bytes.Compare(from, to) < 0 {
				b.DeleteRange(from, to)
			}
		default:
			return badChanges("an op %d", kind)
		}
	}
	return b.err
}

func within(key, lo, hi []byte) bool {
	return bytes.Compare(key, lo) >= 0 && (hi == nil || bytes.Compare(key, hi) < 0)
}

func checkChanges(changes []byte) (ops []byte, err error) {
	if len(changes) < 1+chunkFooter {
		return nil, badChanges("they have only %d bytes", len(changes))
	}
	if v := changes[0]; v != changesVersion {
		return nil, fault.New(fault.Unsupported, "storage: changes of version %d; this Millrace knows version %d", v, changesVersion)
	}
	body, footer := changes[:len(changes)-chunkFooter], changes[len(changes)-chunkFooter:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(footer) {
		return nil, badChanges("their checksum is wrong")
	}
	return body[1:], nil
}

func badChanges(format string, args ...any) error {
	return fault.New(fault.Corrupted, "storage: changes are damaged: "+format, args...)
}
