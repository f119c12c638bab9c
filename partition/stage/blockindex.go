package stage

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// Rows of layout appended are many in a stored block. An index's entry names one by its block's key and its place there.

const placeBytes = 2

// A place in a block fits into placeBytes.
const _ = uint16(max(maxBlockRows, historyBlockRows) - 1)

// endOfBlock is behind all places.
const endOfBlock = 1<<16 - 1

func appendPlace(dst, block []byte, place int) []byte {
	return binary.BigEndian.AppendUint16(append(dst, block...), uint16(place))
}

// indexBlocks enters a tick's rows in the indexes, the first of which has a number in the tick; a block has per rows.
func (r *rowStore) indexBlocks(tick ids.Tick, first uint64, per int, d *record.Delta) error {
	if len(r.indexes) == 0 {
		return nil
	}
	b := rowBlock{}
	for i := range d.N {
		n := first + uint64(i)
		b.number(tick, n/uint64(per))
		r.keyB = appendPlace(r.keyB[:0], b.key[:], int(n%uint64(per)))
		if err := r.indexRow(d, i, r.keyB, false, true); err != nil {
			return err
		}
	}
	return nil
}

// addBlockTo puts the rows of a stored block into an index that is being built.
func (x *rowIndex) addBlockTo(c *rowCodec, key, value []byte) (rows int, err error) {
	_, d, err := c.decodeBlock(key, value)
	if err != nil {
		return 0, err
	}
	x.cursor = appendPlace(x.cursor[:0], key, endOfBlock)
	var row []byte
	for i := range d.N {
		row = appendPlace(row[:0], key, i)
		if err := x.add(d, i, row); err != nil {
			return 0, err
		}
	}
	return d.N, nil
}

// blockRows leads from an index's entries to rows in blocks, the newest of which it keeps.
type blockRows struct {
	codec *rowCodec
	rows  []byte // what the blocks' keys begin with
	from  storage.Reader
	tick  ids.Tick // rows of later ones aren't there yet
	key   []byte
	block *record.Delta
}

// take appends the row of an entry to d.
func (b *blockRows) take(row []byte, d *record.Delta) error {
	if len(row) != blockKeyBytes+placeBytes {
		return badRow("index entry")
	}
	key, place := row[:blockKeyBytes], int(binary.BigEndian.Uint16(row[blockKeyBytes:]))
	if ids.Tick(binary.BigEndian.Uint64(key)) > b.tick {
		return nil
	}
	if b.block == nil || !bytes.Equal(b.key, key) {
		if err := b.load(key); err != nil {
			return err
		}
	}
	if place >= b.block.N {
		return fault.New(fault.Corrupted, "an index of a view names row %d of a block of %d", place, b.block.N)
	}
	d.AppendRow(b.block, place, b.block.Weight(place))
	return nil
}

func (b *blockRows) load(key []byte) error {
	stored, closer, err := b.from.Get(slices.Concat(b.rows, key))
	if err != nil {
		return err
	}
	_, b.block, err = b.codec.decodeBlock(key, slices.Clone(stored))
	b.key = append(b.key[:0], key...)
	if e := closer.Close(); err == nil {
		err = e
	}
	return err
}
