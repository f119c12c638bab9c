package dataflow

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// rankedRow is a row of a group of a topN; its bytes are in an arena. They sort as the rows do: the columns of the
// ORDER BY, then, from tie on, all columns (but those that the whole group has alike).
type rankedRow struct {
	weight      int64
	at, tie, to int32
}

// rankCodec encodes rows so that their bytes sort as the rows do, and can be decoded.
type rankCodec struct {
	order []plan.SortKey
	cols  []int // in the order in which ties are broken
}

const (
	rankNullFirst = 0
	rankValue     = 1
	rankNullLast  = 2
)

// appendOrder appends what rows are ordered by.
func (r *rankCodec) appendOrder(dst []byte, d *record.Delta, i int) []byte {
	for _, k := range r.order {
		c := &d.Cols[k.Col]
		switch {
		case !c.Null(i):
			at := len(dst)
			dst = record.AppendOrdered(dst, c, i)
			if k.Desc {
				for b := at; b < len(dst); b++ {
					dst[b] = ^dst[b]
				}
			}
			dst[at] = rankValue
		case k.NullsFirst:
			dst = append(dst, rankNullFirst)
		default:
			dst = append(dst, rankNullLast)
		}
	}
	return dst
}

// appendTie appends what breaks ties: each column's value and, for types of which equal values may differ, its form.
func (r *rankCodec) appendTie(dst []byte, d *record.Delta, i int) []byte {
	for _, col := range r.cols {
		c := &d.Cols[col]
		dst = record.AppendOrdered(dst, c, i)
		if c.Null(i) {
			continue
		}
		switch {
		case !c.Type.HasForms():
		case c.Type.Varlen():
			dst = record.AppendOrderedValue(dst, record.Value{Type: record.Bytea, Bytes: c.At(i)})
		default:
			dst = appendForm(dst, c, i)
		}
	}
	return dst
}

// decode appends the row whose ties are broken by src to the columns of d. Its error leaves the columns of different length.
func (r *rankCodec) decode(src []byte, d *record.Delta, scratch *record.Column) error {
	for _, col := range r.cols {
		c := &d.Cols[col]
		var err error
		switch {
		case !c.Type.HasForms() || len(src) > 0 && src[0] == orderedNull:
			src, err = record.DecodeOrdered(src, c)
		default:
			scratch.Type = c.Type
			scratch.Reset()
			if src, err = record.DecodeOrdered(src, scratch); err == nil {
				src, err = decodeForm(src, c)
			}
		}
		if err != nil {
			return err
		}
	}
	if len(src) > 0 {
		return badRanked()
	}
	return nil
}

// decodeForm appends to c the value of which src has the form.
func decodeForm(src []byte, c *record.Column) ([]byte, error) {
	switch c.Type {
	case record.Double:
		if len(src) < 8 {
			return nil, badRanked()
		}
		c.AppendFloat(math.Float64frombits(binary.BigEndian.Uint64(src)))
		return src[8:], nil
	case record.IntervalT:
		if len(src) < 16 {
			return nil, badRanked()
		}
		c.AppendInterval(record.Interval{
			Months: int32(binary.BigEndian.Uint32(src) ^ 1<<31), Days: int32(binary.BigEndian.Uint32(src[4:]) ^ 1<<31),
			Micros: int64(binary.BigEndian.Uint64(src[8:]) ^ 1<<63),
		})
		return src[16:], nil
	}
	form := record.Column{Type: record.Bytea}
	form.Reset()
	rest, err := record.DecodeOrdered(src, &form)
	if err != nil || form.Null(0) {
		return nil, badRanked()
	}
	c.AppendBytes(form.At(0))
	return rest, nil
}

func badRanked() error { return corrupted("a row of a top-N doesn't decode") }

// A group's head is
//
//	version (1 byte)
//	how many entries with further rows there are (uvarint)
//	the bucket under which the group is listed to expire, and the last one of its rows (varints), if rows expire
//	rows in order: length without itself (uvarint), weight (varint), bytes up to the tie (uvarint), bytes
const rankVersion = 1

type rankHead struct {
	there     bool
	more      uint64 // entries
	due, last int64
}

// decodeRanked decodes the rows in arena[at:].
func decodeRanked(dst []rankedRow, arena []byte, at int) ([]rankedRow, error) {
	for at < len(arena) {
		v, rest, ok := readBytes(arena[at:])
		if !ok {
			return dst, badRanked()
		}
		end := len(arena) - len(rest)
		r := rankedRow{to: int32(end)}
		var tie uint64
		if r.weight, v, ok = readInt(v); ok {
			tie, v, ok = readUint(v)
		}
		if !ok || tie > uint64(len(v)) {
			return dst, badRanked()
		}
		r.at = int32(end - len(v))
		r.tie = r.at + int32(tie)
		dst = append(dst, r)
		at = end
	}
	return dst, nil
}

// appendRanked appends r, whose bytes are in arena.
func appendRanked(dst []byte, r *rankedRow, arena []byte) []byte {
	var head [2 * binary.MaxVarintLen64]byte
	h := binary.AppendUvarint(binary.AppendVarint(head[:0], r.weight), uint64(r.tie-r.at))
	dst = binary.AppendUvarint(dst, uint64(len(h)+int(r.to-r.at)))
	dst = append(dst, h...)
	return append(dst, arena[r.at:r.to]...)
}

// decodeHead decodes arena[at:] up to the rows, and returns where they begin.
func decodeRankHead(arena []byte, at int, expires bool) (rankHead, int, error) {
	h := rankHead{there: true, due: never}
	v := arena[at:]
	if len(v) == 0 || v[0] != rankVersion {
		return h, 0, corrupted("a group of a top-N has an entry of another version")
	}
	rest, ok := v[1:], true
	if h.more, rest, ok = readUint(rest); ok && expires {
		if h.due, rest, ok = readInt(rest); ok {
			h.last, rest, ok = readInt(rest)
		}
	}
	if !ok {
		return h, 0, badRanked()
	}
	return h, len(arena) - len(rest), nil
}

func (h *rankHead) append(dst []byte, expires bool) []byte {
	dst = binary.AppendUvarint(append(dst, rankVersion), h.more)
	if expires {
		dst = binary.AppendVarint(binary.AppendVarint(dst, h.due), h.last)
	}
	return dst
}

// sortRanked sorts rows and adds up the weights of equal ones.
func sortRanked(rows []rankedRow, arena []byte) []rankedRow {
	if len(rows) < 2 {
		return rows
	}
	slices.SortFunc(rows, func(a, b rankedRow) int { return bytes.Compare(arena[a.at:a.to], arena[b.at:b.to]) })
	n := 0
	for i := 1; i < len(rows); i++ {
		if a, b := &rows[n], &rows[i]; bytes.Equal(arena[a.at:a.to], arena[b.at:b.to]) {
			a.weight += b.weight
			continue
		}
		n++
		rows[n] = rows[i]
	}
	return rows[:n+1]
}

// mergeRanked appends to dst the sum of two lists in order, without rows of weight 0.
func mergeRanked(dst, a, b []rankedRow, arena []byte) []rankedRow {
	for len(a) > 0 || len(b) > 0 {
		var r rankedRow
		order := -1
		switch {
		case len(a) == 0:
			order = 1
		case len(b) > 0:
			order = bytes.Compare(arena[a[0].at:a[0].to], arena[b[0].at:b[0].to])
		}
		switch {
		case order < 0:
			r, a = a[0], a[1:]
		case order > 0:
			r, b = b[0], b[1:]
		default:
			r = a[0]
			r.weight += b[0].weight
			a, b = a[1:], b[1:]
		}
		if r.weight != 0 {
			dst = append(dst, r)
		}
	}
	return dst
}

// places walks over the rows of a group in order and tells the places of each.
type places struct {
	fn            plan.RankFunc
	offset, end   int64 // visible are places above offset, up to end
	rows          []rankedRow
	arena         []byte
	i             int
	before, class int64  // copies and classes of peers before row i
	peers         int64  // copies in the class of the row before, so far
	from, n       int64  // row i: its first visible place, and its visible copies
	order         []byte // of the class of the row before
}

// next moves to the next visible row and tells whether there is one. A caller begins with i = -1.
func (p *places) next() bool {
	for p.i++; p.i < len(p.rows); p.i++ {
		r := &p.rows[p.i]
		if r.weight <= 0 {
			continue
		}
		if p.fn == plan.RankRowNumber {
			first, last := p.before+1, p.before+r.weight
			p.before = last
			p.from = max(first, p.offset+1)
			p.n = min(last, p.end) - p.from + 1
			if first > p.end {
				p.i = len(p.rows)
				return false
			}
			if p.n > 0 {
				return true
			}
			continue
		}
		if order := p.arena[r.at:r.tie]; p.class == 0 || !bytes.Equal(order, p.order) {
			p.class++
			p.before += p.peers
			p.peers, p.order = 0, order
		}
		p.peers += r.weight
		p.from, p.n = p.before+1, r.weight
		if p.fn == plan.RankDense {
			p.from = p.class
		}
		if p.from > p.end {
			p.i = len(p.rows)
			return false
		}
		if p.from > p.offset {
			return true
		}
	}
	return false
}

// within tells how many of rows, which are in order, there are up to the last one with a place up to end; whether places
// up to end are taken by them; and whether one of them has a place above end, so that no row after them can be visible.
func within(fn plan.RankFunc, end int64, rows []rankedRow, arena []byte) (n int, full, beyond bool) {
	p := places{fn: fn, end: end, rows: rows, arena: arena, i: -1}
	for p.next() {
		n = p.i + 1
	}
	switch fn {
	case plan.RankRowNumber:
		full = p.before >= end
		return n, full, full
	case plan.RankRank:
		full = p.before+p.peers >= end
	default:
		full = p.class >= end
	}
	return n, full, p.class > 0 && p.from > end
}
