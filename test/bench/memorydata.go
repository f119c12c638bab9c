package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/datagen"
	"github.com/millrace/millrace/record"
)

const (
	memoryText  = 1000 // bytes of a record's text, which doesn't compress
	memoryTwins = 4    // records of the left stream with the same key
	memoryPlace = 3    // of these, how many are in the top of their key
	memoryGroup = 1000
)

// memoryData is what -memory puts into two streams, and with it every row that the views over them have to have: record i
// of the left stream has key keyOf(i) and a text and score that are functions of i, and a key has one record on the right.
type memoryData struct {
	keys   int64 // of the right stream, and of the first records of the left one
	left   int64 // records that were sent
	events int   // of Nexmark
}

// base is how many records the left stream has before it grows; those that come later have keys of their own.
func (d *memoryData) base() int64 { return d.keys * memoryTwins }

func (d *memoryData) keyOf(i int64) int64 { return i/d.base()*d.keys + i%d.keys }

// twins are the records of the left stream with a key, as far as they were sent.
func (d *memoryData) twins(key int64) []int64 {
	var out []int64
	for m := range int64(memoryTwins) {
		if i := key/d.keys*d.base() + key%d.keys + m*d.keys; i < d.left {
			out = append(out, i)
		}
	}
	return out
}

// mixed is a well-mixed function of n (SplitMix64's finalizer, Steele and others 2014).
func mixed(n uint64) uint64 {
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

func memoryScore(i int64) int64 { return int64(mixed(uint64(i)) >> 40) }

// memoryTextOf is the text of a record of a side.
func memoryTextOf(dst []byte, side byte, i int64) []byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-"
	dst = dst[:0]
	for n := uint64(1); len(dst) < memoryText; n++ {
		w := mixed(mixed(uint64(i)<<8|uint64(side)) + n*0x9e3779b97f4a7c15)
		for range 10 {
			dst = append(dst, alphabet[w&63])
			w >>= 6
		}
	}
	return dst
}

const (
	leftSide  = 'l'
	rightSide = 'r'
)

// send appends records [from, to) of the left stream, and with them their keys' records of the right one.
func (d *memoryData) send(ctx context.Context, c *client.Client, from, to int64) error {
	left, err := c.Producer(ctx, "l", client.WithCompression(client.NoCompression))
	if err != nil {
		return err
	}
	right, err := c.Producer(ctx, "r", client.WithCompression(client.NoCompression))
	if err != nil {
		return errors.Join(err, left.Close(ctx))
	}
	err = d.sendTo(ctx, left, right, from, to)
	return errors.Join(err, left.Close(ctx), right.Close(ctx))
}

func (d *memoryData) sendTo(ctx context.Context, left, right *client.Producer, from, to int64) error {
	var line, text []byte
	for i := from; i < to; i++ {
		text = memoryTextOf(text, leftSide, i)
		line = fmt.Appendf(line[:0], `{"k":%d,"i":%d,"s":%d,"txt":"%s"}`, d.keyOf(i), i, memoryScore(i), text)
		if err := left.SendTagged(ctx, nil, line, uint64(i)); err != nil {
			return err
		}
		// The right side comes while the left one does, some of it before and some after: both join what is there.
		if j := i / memoryTwins; i%memoryTwins == 0 && j < d.keys {
			text = memoryTextOf(text, rightSide, j)
			line = fmt.Appendf(line[:0], `{"k":%d,"txt":"%s"}`, j, text)
			if err := right.SendTagged(ctx, nil, line, uint64(j)); err != nil {
				return err
			}
		}
	}
	return nil
}

// memoryView is a view and what its rows have to be.
type memoryView struct {
	name, query string
	rows        func(*memoryData) int64
	// row checks one of them, and returns its number among all: each has to come once.
	row func(d *memoryData, v []record.Value) (int64, error)
}

// memoryViews are the views over the streams. All but the last are there before the records are; that one is made from the log.
var memoryViews = []memoryView{
	{"counted", "SELECT i / 2 AS g, count(*) AS n, sum(i) AS total, max(txt) AS txt FROM l GROUP BY i / 2",
		func(d *memoryData) int64 { return (d.left + 1) / 2 }, countedRow},
	{"joined", "SELECT l.k, l.i, l.txt AS ltxt, r.txt AS rtxt FROM l JOIN r ON l.k = r.k",
		(*memoryData).base, joinedRow},
	{"topped", fmt.Sprintf("SELECT k, i, s, txt, place FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY s DESC, i DESC) AS place FROM l) AS ranked WHERE place <= %d", memoryPlace),
		toppedRows, toppedRow},
	{"distinct_texts", fmt.Sprintf("SELECT k %% %d AS g, count(*) AS n, count(DISTINCT txt) AS texts FROM l GROUP BY k %% %[1]d", memoryGroup),
		func(d *memoryData) int64 { return min(memoryGroup, d.keys) }, distinctRow},
}

func countedRow(d *memoryData, v []record.Value) (int64, error) {
	g, n, total := v[0].Int, int64(0), int64(0)
	var most, text []byte
	for i := 2 * g; i < min(2*g+2, d.left); i++ {
		n, total = n+1, total+i
		if text = memoryTextOf(text, leftSide, i); string(text) > string(most) {
			most = append(most[:0], text...)
		}
	}
	if n == 0 || v[1].Int != n || valueText(v[2]) != strconv.FormatInt(total, 10) || string(v[3].Bytes) != string(most) {
		return 0, fmt.Errorf("group %d has n=%d total=%s txt=%.20q, not %d, %d, %.20q", g, v[1].Int, valueText(v[2]), v[3].Bytes, n, total, most)
	}
	return g, nil
}

func joinedRow(d *memoryData, v []record.Value) (int64, error) {
	k, i := v[0].Int, v[1].Int
	if i < 0 || i >= d.base() || d.keyOf(i) != k || string(v[2].Bytes) != string(memoryTextOf(nil, leftSide, i)) || string(v[3].Bytes) != string(memoryTextOf(nil, rightSide, k)) {
		return 0, fmt.Errorf("a joined row has k=%d i=%d %.20q %.20q", k, i, v[2].Bytes, v[3].Bytes)
	}
	return i, nil
}

func toppedRows(d *memoryData) int64 {
	n := d.left / d.base() * d.keys * memoryPlace
	for m := range int64(memoryPlace) {
		n += min(max(d.left%d.base()-m*d.keys, 0), d.keys)
	}
	return n
}

func toppedRow(d *memoryData, v []record.Value) (int64, error) {
	k, i, place := v[0].Int, v[1].Int, v[4].Int
	before, among := int64(0), false
	for _, o := range d.twins(k) {
		among = among || o == i
		if a, b := memoryScore(o), memoryScore(i); a > b || a == b && o > i {
			before++
		}
	}
	if !among || place != before+1 || place > memoryPlace || v[2].Int != memoryScore(i) || string(v[3].Bytes) != string(memoryTextOf(nil, leftSide, i)) {
		return 0, fmt.Errorf("the top of key %d has i=%d s=%d %.20q at place %d, which should be at %d", k, i, v[2].Int, v[3].Bytes, place, before+1)
	}
	return i, nil
}

func distinctRow(d *memoryData, v []record.Value) (int64, error) {
	g, n := v[0].Int, int64(0)
	if g < 0 || g >= memoryGroup {
		return 0, fmt.Errorf("there is no group %d", g)
	}
	whole := d.left / d.base() * d.keys // keys that have all their records
	n = countMod(whole, g) * memoryTwins
	for m := range int64(memoryTwins) {
		n += countMod(whole+min(max(d.left%d.base()-m*d.keys, 0), d.keys), g) - countMod(whole, g)
	}
	if v[1].Int != n || v[2].Int != n {
		return 0, fmt.Errorf("group %d has n=%d texts=%d, not %d", g, v[1].Int, v[2].Int, n)
	}
	return g, nil
}

// countMod is how many of the numbers below n are g modulo memoryGroup.
func countMod(n, g int64) int64 { return (n - g + memoryGroup - 1) / memoryGroup }

func valueText(v record.Value) string { return string(record.AppendTextValue(nil, v)) }

// once tells of numbers whether each came once.
type once struct {
	bits []uint64
	n    int64
}

func (o *once) add(i int64) bool {
	for int64(len(o.bits)) <= i>>6 {
		o.bits = append(o.bits, 0)
	}
	bit := uint64(1) << (i & 63)
	if o.bits[i>>6]&bit != 0 {
		return false
	}
	o.bits[i>>6] |= bit
	o.n++
	return true
}

// check reads rows and checks each, and that all came once. It returns how many there were.
func (v *memoryView) check(d *memoryData, rows iter.Seq2[[]record.Value, error]) (int64, error) {
	var seen once
	for row, err := range rows {
		if err != nil {
			return seen.n, fmt.Errorf("%s: %w", v.name, err)
		}
		n, err := v.row(d, row)
		if err == nil && !seen.add(n) {
			err = fmt.Errorf("row %d comes twice", n)
		}
		if err != nil {
			return seen.n, fmt.Errorf("%s: %w", v.name, err)
		}
	}
	if want := v.rows(d); seen.n != want {
		return seen.n, fmt.Errorf("%s has %d rows, not %d", v.name, seen.n, want)
	}
	return seen.n, nil
}

const nexmarkMemoryView = `SELECT bidder, auction, count(*) AS n, sum(price) AS total, max(extra) AS extra FROM bid GROUP BY bidder, auction`

// bids is what nexmarkMemoryView has for a bidder and an auction.
type bids struct {
	n, total int64
	extra    string
}

// nexmarkRows computes what nexmarkMemoryView has to have.
func (d *memoryData) nexmarkRows() (map[[2]int64]bids, error) {
	kind, err := datagen.ParseKind("bid")
	if err != nil {
		return nil, err
	}
	g, err := datagen.NewNexmark(kind, int64(max(1, d.events/nexmarkSpan)), []string{"bidder", "auction", "price", "extra"})
	if err != nil {
		return nil, err
	}
	out := map[[2]int64]bids{}
	rows := record.NewDelta(g.Schema(), 0)
	const piece = 10_000
	for from := 0; from < d.events; from += piece {
		rows.Reset()
		g.Generate(uint64(from), uint64(min(from+piece, d.events)), rows)
		for i := range rows.N {
			key := [2]int64{rows.Cols[0].Ints[i], rows.Cols[1].Ints[i]}
			b := out[key]
			b.n, b.total = b.n+1, b.total+rows.Cols[2].Ints[i]
			if extra := string(rows.Cols[3].Value(i).Bytes); extra > b.extra {
				b.extra = extra
			}
			out[key] = b
		}
	}
	return out, nil
}

// checkBids reads the rows of nexmarkMemoryView.
func (d *memoryData) checkBids(rows iter.Seq2[[]record.Value, error]) (int64, error) {
	want, err := d.nexmarkRows()
	if err != nil {
		return 0, err
	}
	count := int64(len(want))
	for row, err := range rows {
		if err != nil {
			return 0, fmt.Errorf("bids: %w", err)
		}
		key := [2]int64{row[0].Int, row[1].Int}
		b, ok := want[key]
		if !ok || row[2].Int != b.n || valueText(row[3]) != strconv.FormatInt(b.total, 10) || string(row[4].Bytes) != b.extra {
			return 0, fmt.Errorf("bids: bidder %d and auction %d have n=%d total=%s extra=%q, not %+v", key[0], key[1], row[2].Int, valueText(row[3]), row[4].Bytes, b)
		}
		delete(want, key)
	}
	if len(want) > 0 {
		return 0, fmt.Errorf("bids: %d of %d rows are missing", len(want), count)
	}
	return count, nil
}

// totals is what statements over all records say: their number, the sum of i, and the least and greatest text.
func (d *memoryData) totals() (n, total int64, least, most string) {
	var text []byte
	for i := range d.left {
		text = memoryTextOf(text, leftSide, i)
		if least == "" || string(text) < least {
			least = string(text)
		}
		if string(text) > most {
			most = string(text)
		}
		total += i
	}
	return d.left, total, least, most
}
