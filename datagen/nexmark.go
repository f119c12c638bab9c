package datagen

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// Kind is a kind of Nexmark's events.
type Kind uint8

const (
	Person Kind = iota
	Auction
	Bid
	All // every kind; columns that an event's kind lacks are NULL
)

// Proportions: of each round of 50 events the first is a person, three are auctions, the rest are bids.
const (
	round    = 50
	auctions = 3
)

// baseTime is event 0's time, 2015-07-15 00:00:00 UTC, in milliseconds of the Unix epoch.
const baseTime = 1_436_918_400_000

// firstID is what ids of persons and auctions begin with.
const firstID = 1000

// ParseKind returns the kind called name.
func ParseKind(name string) (Kind, error) {
	for k, n := range [...]string{"person", "auction", "bid", "all"} {
		if n == name {
			return Kind(k), nil
		}
	}
	return All, fault.New(fault.Invalid, "no kind of events called %q; there are person, auction and bid", name)
}

// KindOf is event n's kind.
func KindOf(n uint64) Kind {
	switch r := n % round; {
	case r == 0:
		return Person
	case r <= auctions:
		return Auction
	}
	return Bid
}

const gamma = 0x9E3779B97F4A7C15

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// event is a number with what its random numbers are drawn from.
type event struct {
	n, seed uint64
	rate    uint64 // events a second of event time
}

func (g *Nexmark) event(n uint64) event { return event{n, mix(1 + n*gamma), g.rate} }

func (e event) random(k uint64) uint64 { return mix(e.seed + (k+1)*gamma) }

func scale(r, bound uint64) uint64 { return (r >> 32) * bound >> 32 }

func (e event) below(k, bound uint64) uint64 { return scale(e.random(k), bound) }

// millis is the event's time in milliseconds.
func (e event) millis() uint64 { return baseTime + e.n*1000/e.rate }

// person is the number of the newest person, auction that of the newest auction.
func (e event) person() uint64  { return e.n / round }
func (e event) auction() uint64 { return auctions*(e.n/round) + min(e.n%round, auctions) - 1 }

// anyPerson is one of the persons that are active, or of the next ten.
func (e event) anyPerson(k uint64) uint64 {
	p := e.person()
	active := min(p+1, 1000)
	return p + 1 - active + e.below(k, active+10)
}

// tables are what texts and prices are taken from.
type tables struct {
	letters, text []byte
	prices        [1025]uint64
	urls          []byte // of all channels, one behind the other
	urlAt         [channels + 1]int32
}

// url returns a channel's URL.
func (t *tables) url(c uint64) []byte { return t.urls[t.urlAt[c]:t.urlAt[c+1]] }

const textOffsets = 1 << 20 // places that a text may begin at

var shared = sync.OnceValue(func() *tables {
	const n = textOffsets + 1024
	t := &tables{letters: make([]byte, n), text: make([]byte, n)}
	for i := range n {
		r := mix(uint64(i) * gamma)
		t.letters[i] = byte('a' + scale(r, 26))
		t.text[i] = t.letters[i]
		if scale(r<<32, 13) == 0 {
			t.text[i] = ' '
		}
	}
	for i := range t.prices {
		t.prices[i] = uint64(math.Round(100 * math.Pow(10, 6*float64(i)/1024)))
	}
	for c := range uint64(channels) {
		t.urls = appendURL(t, t.urls, c)
		t.urlAt[c+1] = int32(len(t.urls))
	}
	return t
})

func (t *tables) price(e event, k uint64) uint64 {
	r := e.random(k)
	i := r >> 54
	return t.prices[i] + (t.prices[i+1]-t.prices[i])*(r&0xFFFFFFFF)>>32
}

// letterText and wordText are m bytes of letters, and of letters with spaces.
func (t *tables) letterText(e event, k, m uint64) []byte {
	at := e.random(k) >> 44
	return t.letters[at : at+m]
}

func (t *tables) wordText(e event, k, m uint64) []byte {
	at := e.random(k) >> 44
	return t.text[at : at+m]
}

// extra fills an event up to its kind's average size; room is what the other fields leave of it.
func (t *tables) extra(e event, k, room uint64) []byte {
	d := (room + 2) / 5
	return t.letterText(e, k+1, room-d+e.below(k, 2*d))
}

// field computes a column of one kind of events: number or text is set. all, if it is set too, is number of many events, a
// time in microseconds: what the compiler can inline takes a third of the time.
type field struct {
	number func(t *tables, e event) uint64
	all    func(t *tables, events []event, out []int64)
	text   func(t *tables, e event, dst []byte) []byte
}

// column is a column with its field for each kind that has it.
type column struct {
	name   string // as the specification spells it
	typ    record.Type
	fields [3]*field
}

// Nexmark generates events. It may be used by one goroutine at a time.
type Nexmark struct {
	kind   Kind
	rate   uint64
	tables *tables
	cols   []column
	names  []string // as they were asked for
	json   [][]byte // the same as keys of JSON objects
	events []event  // of the piece that is being made
	text   []byte
}

// MaxRate bounds the events of a second of event time.
const MaxRate = 1_000_000_000

// NewNexmark returns a generator of events of one kind, at rate events (of all kinds) a second of event time, with the
// columns called names, whatever their case; nil: all of the kind's.
func NewNexmark(kind Kind, rate int64, names []string) (*Nexmark, error) {
	if rate < 1 || rate > MaxRate {
		return nil, fault.New(fault.Invalid, "rate %d: use 1 to %d events a second of event time", rate, MaxRate)
	}
	g := &Nexmark{kind: kind, rate: uint64(rate), tables: shared()}
	all := columnsOf(kind)
	if names == nil {
		for _, c := range all {
			names = append(names, c.name)
		}
	}
	for _, name := range names {
		found := false
		for _, c := range all {
			if strings.EqualFold(c.name, name) {
				g.cols = append(g.cols, c)
				found = true
				break
			}
		}
		if !found {
			return nil, unknownColumn(name, Columns(kind))
		}
		g.json = append(g.json, []byte(strconv.Quote(name)+":"))
	}
	g.names = names
	return g, nil
}

// Schema returns the columns, by the names that they were asked for.
func (g *Nexmark) Schema() record.Schema {
	s := make(record.Schema, len(g.cols))
	for i, c := range g.cols {
		s[i] = record.Field{Name: g.names[i], Type: c.typ}
	}
	return s
}

// has tells whether event n is of the generator's kind.
func (g *Nexmark) has(n uint64) bool { return g.kind == All || KindOf(n) == g.kind }

// TimeMicros is event n's time in microseconds of the Unix epoch.
func (g *Nexmark) TimeMicros(n uint64) int64 { return int64(g.event(n).millis()) * 1000 }

// Generate appends the events with from <= number < to, in order, to the columns of dst, which has Schema.
func (g *Nexmark) Generate(from, to uint64, dst *record.Delta) {
	cols := make([]*record.Column, len(dst.Cols))
	for i := range cols {
		cols[i] = &dst.Cols[i]
	}
	for from < to {
		end := min(to, from+piece)
		g.events = g.events[:0]
		for n := from; n < end; n++ {
			if g.has(n) {
				g.events = append(g.events, g.event(n))
			}
		}
		g.fillAll(cols)
		dst.N += len(g.events)
		if dst.Weights != nil {
			for range g.events {
				dst.Weights = append(dst.Weights, 1)
			}
		}
		from = end
	}
}

// piece is how many events are made at a time: their seeds stay in the processor's cache.
const piece = 1024

// fillAll appends the events of the piece to cols, one for each column of the generator.
func (g *Nexmark) fillAll(cols []*record.Column) {
	for i := range g.cols {
		g.fill(&g.cols[i], cols[i])
	}
}

// fill appends the piece's values of one column.
func (g *Nexmark) fill(c *column, dst *record.Column) {
	if g.kind == All || dst.Validity != nil {
		for _, e := range g.events {
			g.appendOne(c.fields[KindOf(e.n)], c.typ, e, dst)
		}
		return
	}
	f, n := c.fields[g.kind], len(g.events)
	if f.text != nil {
		for _, e := range g.events {
			dst.Bytes = f.text(g.tables, e, dst.Bytes)
			dst.Offsets = append(dst.Offsets, int32(len(dst.Bytes)))
		}
		dst.N += n
		return
	}
	at := len(dst.Ints)
	dst.Ints = slices.Grow(dst.Ints, n)[:at+n]
	out := dst.Ints[at:]
	switch {
	case f.all != nil:
		f.all(g.tables, g.events, out)
	case c.typ == record.TimestampTZ:
		for i, e := range g.events {
			out[i] = int64(f.number(g.tables, e) * 1000)
		}
	default:
		for i, e := range g.events {
			out[i] = int64(f.number(g.tables, e))
		}
	}
	dst.N += n
}

func (g *Nexmark) appendOne(f *field, t record.Type, e event, dst *record.Column) {
	switch {
	case f == nil:
		dst.AppendNull()
	case f.number == nil:
		g.text = f.text(g.tables, e, g.text[:0])
		dst.AppendBytes(g.text)
	case t == record.TimestampTZ:
		dst.AppendInt(int64(f.number(g.tables, e)) * 1000)
	default:
		dst.AppendInt(int64(f.number(g.tables, e)))
	}
}
