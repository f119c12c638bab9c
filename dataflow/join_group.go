package dataflow

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"
)

// The rows of one side of a join that have one key are a group. Its head is the entry at the group's key:
//
//	version (1 byte), layout (1 byte)
//	the sum of the weights of the rows (varint), if the other side asks for it
//	the bucket of time under which the group is listed to expire (varint), if rows expire
//	layout groupTail: the first and the next number of a segment (uvarints)
//	layout groupHashed+d: the bytes of all rows (uvarint)
//	rows
//
// A small group has all its rows there (layout groupPacked), so that finding them is one Get. A large one has segments at the
// group's key and a number (4 bytes, big endian): a version byte and rows. Rows of a side that is only appended to go to
// the head, whose rows become the next segment when they are many (groupTail). Otherwise a row's segment is the
// lowest d bits of its hash (groupHashed+d), where it is found again to be taken back.
//
// A row is its length without itself (uvarint), its weight (varint), the number of its matches (varint) if that is
// kept, the bucket of time in which it expires (varint) if it does, the bytes of its early columns (uvarint) if there are
// early and late ones, and the columns, early ones first, each in record's row encoding.
const (
	joinVersion = 1
	groupPacked = 0
	groupHashed = 0 // and d more, 1 to maxDepth
	groupTail   = 255
	maxDepth    = 20
	headBytes   = 2
)

// maxSegment is the bytes of rows from which on a group is split, and its segments are. A segment is written whole when
// one of its rows changes.
const maxSegment = 4 << 10

// maxHashed is the bytes of a segment of a hashed group, about, beyond which there will be more segments. They are small: of
// a segment all rows are read and written when one changes, and changes of a tick lie anywhere.
const maxHashed = maxSegment / 8

// maxSegments bounds what a damaged head can make a reader look for.
const maxSegments = 1 << 26

// groupHead is the decoded head of a group.
type groupHead struct {
	there  bool
	layout byte
	total  int64
	due    int64 // bucket, or never
	first  uint64
	next   uint64
	bytes  uint64
	at, to int // of its rows in the arena
}

func (h *groupHead) split() bool { return h.there && h.layout != groupPacked }

// groupRow is one stored row; its bytes are in an arena.
type groupRow struct {
	weight  int64
	matches int64
	due     int64
	at      int32 // of the early columns
	late    int32 // of the late columns
	to      int32
}

// groupCodec is what the groups of a side hold.
type groupCodec struct {
	total   bool
	matches bool
	expires bool
	parted  bool // there are early and late columns
	allLate bool // there are no early ones
}

// head decodes the head of a group, which is arena[at:].
func (g *groupCodec) head(arena []byte, at int) (groupHead, error) {
	v := arena[at:]
	h := groupHead{there: true, due: never, to: len(arena)}
	if len(v) < headBytes || v[0] != joinVersion {
		return h, corrupted("a group of a join has an entry of another version")
	}
	h.layout = v[1]
	rest, ok := v[headBytes:], true
	if g.total {
		h.total, rest, ok = readInt(rest)
	}
	if ok && g.expires {
		h.due, rest, ok = readInt(rest)
	}
	switch {
	case !ok || h.layout == groupPacked:
	case h.layout == groupTail:
		h.first, rest, ok = readUint(rest)
		if ok {
			h.next, rest, ok = readUint(rest)
		}
		ok = ok && h.first <= h.next && h.next-h.first <= maxSegments && h.next <= math.MaxUint32
	case h.layout <= maxDepth:
		h.bytes, rest, ok = readUint(rest)
		ok = ok && len(rest) == 0
	default:
		ok = false
	}
	if !ok {
		return h, corrupted("a group of a join has an entry that doesn't decode")
	}
	h.at = len(arena) - len(rest)
	return h, nil
}

// appendHead appends h without its rows.
func (g *groupCodec) appendHead(dst []byte, h *groupHead) []byte {
	dst = append(dst, joinVersion, h.layout)
	if g.total {
		dst = binary.AppendVarint(dst, h.total)
	}
	if g.expires {
		dst = binary.AppendVarint(dst, h.due)
	}
	switch {
	case h.layout == groupPacked:
	case h.layout == groupTail:
		dst = binary.AppendUvarint(dst, h.first)
		dst = binary.AppendUvarint(dst, h.next)
	default:
		dst = binary.AppendUvarint(dst, h.bytes)
	}
	return dst
}

// rows decodes arena[at:to], without its columns.
func (g *groupCodec) rows(dst []groupRow, arena []byte, at, to int) ([]groupRow, error) {
	v := arena[:to]
	for at < to {
		size, n := binary.Uvarint(v[at:])
		if n <= 0 || size > uint64(to-at-n) {
			return dst, badGroup()
		}
		at += n
		end := at + int(size)
		r := groupRow{due: never, to: int32(end)}
		rest, ok := v[at:end], true
		r.weight, rest, ok = readInt(rest)
		if ok && g.matches {
			r.matches, rest, ok = readInt(rest)
		}
		if ok && g.expires {
			r.due, rest, ok = readInt(rest)
		}
		early := uint64(len(rest))
		switch {
		case ok && g.parted:
			early, rest, ok = readUint(rest)
			ok = ok && early <= uint64(len(rest))
		case g.allLate:
			early = 0
		}
		if !ok {
			return dst, badGroup()
		}
		r.at = int32(end - len(rest))
		r.late = r.at + int32(early)
		dst = append(dst, r)
		at = end
	}
	return dst, nil
}

// appendRow appends r, whose columns are in arena.
func (g *groupCodec) appendRow(dst []byte, r *groupRow, arena []byte) []byte {
	var head [4 * binary.MaxVarintLen64]byte
	h := binary.AppendVarint(head[:0], r.weight)
	if g.matches {
		h = binary.AppendVarint(h, r.matches)
	}
	if g.expires {
		h = binary.AppendVarint(h, r.due)
	}
	if g.parted {
		h = binary.AppendUvarint(h, uint64(r.late-r.at))
	}
	dst = binary.AppendUvarint(dst, uint64(len(h)+int(r.to-r.at)))
	dst = append(dst, h...)
	return append(dst, arena[r.at:r.to]...)
}

// segment returns the number of the segment of r in a group of the given depth.
func segment(r *groupRow, arena []byte, depth byte) uint32 {
	return uint32(xxhash.Sum64(arena[r.at:r.to])) & (1<<depth - 1)
}

func badGroup() error { return corrupted("the rows of a group of a join don't decode") }

// readUint reads a uvarint.
func readUint(src []byte) (uint64, []byte, bool) {
	v, n := binary.Uvarint(src)
	if n <= 0 {
		return 0, nil, false
	}
	return v, src[n:], true
}
