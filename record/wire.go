package record

import (
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace/millrace/internal/fault"
)

// Tags of millrace.v1.Records and Record, all in one byte.
const (
	tagRecordsRecord = 1<<3 | byte(protowire.BytesType)
	tagRecordKey     = 1<<3 | byte(protowire.BytesType)
	tagRecordValue   = 2<<3 | byte(protowire.BytesType)
)

// BatchBuilder builds an encoded millrace.v1.Records one record at a time, without allocating once its memory has grown.
// The zero value is an empty batch. It is not for concurrent use.
type BatchBuilder struct {
	buf   []byte
	count int
}

// Add appends a record; it copies key and value. hasKey false: the record has no key.
func (b *BatchBuilder) Add(key []byte, hasKey bool, value []byte) {
	size := 1 + protowire.SizeBytes(len(value))
	if hasKey {
		size += 1 + protowire.SizeBytes(len(key))
	}
	b.buf = append(b.buf, tagRecordsRecord)
	b.buf = protowire.AppendVarint(b.buf, uint64(size))
	if hasKey {
		b.buf = append(b.buf, tagRecordKey)
		b.buf = protowire.AppendBytes(b.buf, key)
	}
	b.buf = append(b.buf, tagRecordValue)
	b.buf = protowire.AppendBytes(b.buf, value)
	b.count++
}

// Bytes returns the size of Payload in bytes.
func (b *BatchBuilder) Bytes() int { return len(b.buf) }

// Count returns how many records were added.
func (b *BatchBuilder) Count() int { return b.count }

// Payload returns the encoded Records; it belongs to the builder and is valid until the next Add or Reset.
func (b *BatchBuilder) Payload() []byte { return b.buf }

// Reset empties the batch and keeps its memory.
func (b *BatchBuilder) Reset() { b.buf, b.count = b.buf[:0], 0 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum returns the CRC-32C of payload.
func Checksum(payload []byte) uint32 { return crc32.Checksum(payload, castagnoli) }

// Iter walks over an encoded millrace.v1.Records. Keys and values alias it. Fields that it doesn't know are skipped, so
// that a newer client's records can be read.
type Iter struct {
	rest   []byte
	size   int
	key    []byte
	value  []byte
	hasKey bool
	err    error
}

// NewIter returns an iterator before the first record of raw, which must be uncompressed.
func NewIter(raw []byte) Iter { return Iter{rest: raw, size: len(raw)} }

// Next moves to the next record and tells whether there is one. It returns false at the end and at the first byte
// that isn't valid; Err tells which.
func (it *Iter) Next() bool {
	for len(it.rest) > 0 {
		if it.rest[0] == tagRecordsRecord {
			return it.record(1)
		}
		num, typ, n := protowire.ConsumeField(it.rest)
		if n < 0 || num > protowire.MaxValidNumber {
			return it.fail()
		}
		if num == 1 && typ == protowire.BytesType { // a tag in more bytes than it needs
			_, _, tag := protowire.ConsumeTag(it.rest)
			return it.record(tag)
		}
		it.rest = it.rest[n:]
	}
	return false
}

// record reads the record whose length stands skip bytes ahead.
func (it *Iter) record(skip int) bool {
	body, n := consumeBytes(it.rest[skip:])
	if n < 0 {
		return it.fail()
	}
	it.rest = it.rest[skip+n:]
	it.key, it.value, it.hasKey = nil, nil, false
	for len(body) > 0 {
		switch body[0] {
		case tagRecordValue:
			v, n := consumeBytes(body[1:])
			if n < 0 {
				return it.fail()
			}
			it.value, body = v, body[1+n:]
		case tagRecordKey:
			k, n := consumeBytes(body[1:])
			if n < 0 {
				return it.fail()
			}
			it.key, it.hasKey, body = k, true, body[1+n:]
		default:
			num, typ, n := protowire.ConsumeField(body)
			if n < 0 || num > protowire.MaxValidNumber {
				return it.fail()
			}
			if typ == protowire.BytesType && num <= 2 {
				_, _, tag := protowire.ConsumeTag(body)
				v, _ := protowire.ConsumeBytes(body[tag:])
				if num == 1 {
					it.key, it.hasKey = v, true
				} else {
					it.value = v
				}
			}
			body = body[n:]
		}
	}
	return true
}

func (it *Iter) fail() bool {
	it.err = fault.New(fault.Corrupted, "the batch is not an encoded millrace.v1.Records: bad field in the record at byte %d of %d",
		it.size-len(it.rest), it.size)
	it.rest, it.key, it.value, it.hasKey = nil, nil, nil, false
	return false
}

// consumeBytes is protowire.ConsumeBytes with a fast path for lengths of one and two bytes.
func consumeBytes(b []byte) ([]byte, int) {
	if len(b) > 1 {
		n, at := int(b[0]), 1
		if n >= 0x80 && b[1] < 0x80 {
			n, at = n&0x7f|int(b[1])<<7, 2
		}
		if n < 0x80 || at == 2 {
			if n > len(b)-at {
				return nil, -1
			}
			return b[at : at+n : at+n], at + n
		}
	}
	return protowire.ConsumeBytes(b)
}

// Key returns the record's key and whether it has one.
func (it *Iter) Key() ([]byte, bool) { return it.key, it.hasKey }

// Value returns the record's value.
func (it *Iter) Value() []byte { return it.value }

// Err returns what stopped Next (fault.Corrupted), or nil at a proper end.
func (it *Iter) Err() error { return it.err }

// CheckRecords returns an error (fault.Invalid) unless raw is an encoded millrace.v1.Records of exactly count records.
// Whoever takes a batch from a client calls it before offsets are given out: nobody could read the batch otherwise.
func CheckRecords(raw []byte, count int) error {
	it, n := NewIter(raw), 0
	for it.Next() {
		n++
	}
	if it.err != nil {
		return fault.Wrap(fault.Invalid, it.err, "batch refused")
	}
	if n != count {
		return fault.New(fault.Invalid, "batch refused: it has %d records and says that it has %d", n, count)
	}
	return nil
}
