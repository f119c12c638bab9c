package storage

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/millrace/millrace/internal/fault"
)

// A chunk carries a piece of a range from one store to another:
//
//	version:1  { key length:uvarint key value length:uvarint value }*  CRC-32C of all before:4 little-endian
//
// Keys rise strictly within a chunk and from chunk to chunk.
const (
	chunkVersion = 1
	chunkHeader  = 1
	chunkFooter  = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Export hands [lo, hi) of r to fn in chunks of at most maxChunkBytes; only a chunk with a single pair may be larger.
// An empty range has no chunks. A chunk is valid until fn returns; an error of fn ends the export and is returned.
// Over a Store it sees the moment of the call; over a Snapshot that of the snapshot.
func Export(r Reader, lo, hi []byte, maxChunkBytes int, fn func(chunk []byte) error) (err error) {
	it, err := r.Iter(lo, hi)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := it.Close(); err == nil {
			err = cerr
		}
	}()
	chunk := []byte{chunkVersion}
	flush := func() error {
		chunk = binary.LittleEndian.AppendUint32(chunk, crc32.Checksum(chunk, castagnoli))
		err := fn(chunk)
		chunk = append(chunk[:0], chunkVersion)
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		key, value := it.Key(), it.Value()
		if it.Error() != nil {
			break
		}
		size := len(key) + len(value) + 2*binary.MaxVarintLen32
		if len(chunk) > chunkHeader && len(chunk)+size+chunkFooter > maxChunkBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		chunk = append(binary.AppendUvarint(chunk, uint64(len(key))), key...)
		chunk = append(binary.AppendUvarint(chunk, uint64(len(value))), value...)
	}
	if err := it.Error(); err != nil {
		return err
	}
	if len(chunk) > chunkHeader {
		return flush()
	}
	return nil
}

// Import writes a chunk of Export into s, as a whole or not at all: with an fsync into a log store, without one into a
// state store (call Flush after the last). It doesn't delete what is there already.
//
// Errors: Corrupted for a chunk that Export didn't make or that was damaged on the way; Unsupported for one of a newer
// version; those of Commit.
func Import(s *Store, chunk []byte) error { return ImportBounded(s, chunk, nil, nil) }

// ImportBounded is Import that refuses, as Corrupted, a chunk with keys outside [lo, hi); nil is open.
func ImportBounded(s *Store, chunk, lo, hi []byte) error {
	b := s.NewBatch()
	defer b.Close()
	err := DecodeChunk(chunk, func(key, value []byte) error {
		if bytes.Compare(key, lo) < 0 || hi != nil && bytes.Compare(key, hi) >= 0 {
			return fault.New(fault.Corrupted, "storage: a chunk with the key %x outside its range; copy the range again", key)
		}
		b.Set(key, value)
		return nil
	})
	if err != nil {
		return err
	}
	return s.Commit(b, s.kind == kindLog)
}

// DecodeChunk hands the pairs of a chunk to fn, in order; they alias chunk. Errors as Import, and those of fn. The
// checksum is looked at before anything is handed out.
func DecodeChunk(chunk []byte, fn func(key, value []byte) error) error {
	if len(chunk) < chunkHeader+chunkFooter {
		return badChunk("it has only %d bytes", len(chunk))
	}
	if v := chunk[0]; v != chunkVersion {
		return fault.New(fault.Unsupported, "storage: a chunk of version %d; this Millrace knows version %d", v, chunkVersion)
	}
	body, footer := chunk[:len(chunk)-chunkFooter], chunk[len(chunk)-chunkFooter:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(footer) {
		return badChunk("its checksum is wrong")
	}
	var last []byte
	for rest := body[chunkHeader:]; len(rest) > 0; {
		var key, value []byte
		var ok bool
		if key, rest, ok = cutBytes(rest); ok {
			value, rest, ok = cutBytes(rest)
		}
		if !ok {
			return badChunk("a length exceeds it")
		}
		if last != nil && bytes.Compare(last, key) >= 0 {
			return badChunk("its keys aren't in order")
		}
		if err := fn(key, value); err != nil {
			return err
		}
		last = key
		if last == nil {
			last = []byte{}
		}
	}
	return nil
}

// cutBytes takes a length and that many bytes off src.
func cutBytes(src []byte) (b, rest []byte, ok bool) {
	n, w := binary.Uvarint(src)
	if w <= 0 || n > uint64(len(src)-w) {
		return nil, nil, false
	}
	return src[w : w+int(n)], src[w+int(n):], true
}

func badChunk(format string, args ...any) error {
	return fault.New(fault.Corrupted, "storage: a chunk is damaged: "+format+"; copy the range again", args...)
}
