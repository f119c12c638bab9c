package client

import (
	"sync"
	"time"

	"github.com/millrace/millrace/record"
)

// batch is the records of one partition that travel together. The lane's mutex guards it, but for what prepare makes.
type batch struct {
	records   record.BatchBuilder
	tags      []uint64           // one for each record, or none
	callbacks []func(Ack, error) // one for each record, or none
	count     int                // records, once sealed
	memory    int                // bytes of the budget that it holds

	seq    uint64
	opened time.Time
	sealed time.Time
	sends  int // how often it was given to a stream
	sentAt time.Time

	done bool  // acknowledged or refused for good; it leaves the queue in its turn
	ack  Ack   // of its first record
	err  error // refused, or given up

	preparing   sync.Mutex
	prepared    bool
	payload     []byte // immutable once prepared: a transport may still hold it
	scratch     []byte // memory for a compressed payload
	compression Compression
	rawBytes    int
	crc         uint32
}

// prepare makes the payload. It may be called by several streams at once, after the batch was sealed.
func (b *batch) prepare(c Compression) error {
	b.preparing.Lock()
	defer b.preparing.Unlock()
	if b.prepared {
		return nil
	}
	raw := b.records.Payload()
	b.payload, b.compression, b.rawBytes = raw, NoCompression, len(raw)
	if c != NoCompression {
		out, err := record.Compress(b.scratch[:0], raw, c)
		if err != nil {
			return err
		}
		b.scratch = out
		if len(out) < len(raw) { // else the server would decompress for nothing
			b.payload, b.compression = out, c
		}
	}
	b.crc = record.Checksum(b.payload)
	b.prepared = true
	return nil
}

// reset empties the batch and keeps its memory, unless a single large record made that much more than a batch has.
func (b *batch) reset(batchBytes int) {
	records, scratch := b.records, b.scratch[:0]
	if records.Bytes() > 2*batchBytes {
		records, scratch = record.BatchBuilder{}, nil
	}
	records.Reset()
	clear(b.callbacks)
	tags, callbacks := b.tags[:0], b.callbacks[:0]
	*b = batch{records: records, tags: tags, callbacks: callbacks, scratch: scratch}
}
