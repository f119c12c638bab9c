package datagen

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// NexmarkName is what a stream's source calls Nexmark's generator.
const NexmarkName = "nexmark"

// TimeColumn is the column with an event's time, which never decreases along a partition.
const TimeColumn = "dateTime"

// Columns returns the columns of a kind of Nexmark's events, as the specification spells them.
func Columns(kind Kind) record.Schema {
	all := columnsOf(kind)
	out := make(record.Schema, len(all))
	for i, c := range all {
		out[i] = record.Field{Name: c.name, Type: c.typ}
	}
	return out
}

// Table returns the columns of a kind's events as a stream has them that declares none: all but the event's number, and its
// kind where that is but one, in the specification's order.
func Table(kind Kind) record.Schema {
	var out record.Schema
	var time record.Field
	for _, f := range Columns(kind) {
		switch {
		case f.Name == TimeColumn:
			time = f
			continue
		case f.Name == "n", f.Name == "event_type" && kind != All:
			continue
		case f.Name == "extra", f.Name == "expires" && kind == Auction:
			if time.Name != "" {
				out = append(out, time)
				time.Name = ""
			}
		}
		out = append(out, f)
	}
	return out
}

// Shares says which events of a stream's source are the records of a partition. Partition p of P has the rounds of 50 events p,
// p+P, p+2P, ...; so partitions are disjoint, and together they have each event once.
type Shares struct {
	kind       Kind
	events     uint64 // 0: without end
	partitions uint64
	first, per uint64 // of each round the kind's events are those from first to first+per-1
}

// maxEvents bounds a stream with an end, so that no event's number or time overflows.
const maxEvents = 1_000_000_000_000_000

// NewShares returns those of a source; Invalid when no such source can be.
func NewShares(src *millracev1.Source) (Shares, error) {
	if src.Generator != NexmarkName {
		return Shares{}, fault.New(fault.Invalid, "no source is called %q; there is %s", src.Generator, NexmarkName)
	}
	kind, err := ParseKind(src.Kind)
	if err != nil {
		return Shares{}, err
	}
	s := Shares{kind: kind, events: src.Events, partitions: max(1, uint64(src.Partitions)), per: round}
	switch kind {
	case Person:
		s.per = 1
	case Auction:
		s.first, s.per = 1, auctions
	case Bid:
		s.first, s.per = 1+auctions, round-1-auctions
	}
	if src.Events > maxEvents {
		return s, fault.New(fault.Invalid, "events %d: use at most %d", src.Events, uint64(maxEvents))
	}
	if src.EventRate < 1 || src.EventRate > MaxRate {
		return s, fault.New(fault.Invalid, "event_rate %d: use 1 to %d events a second of event time", src.EventRate, MaxRate)
	}
	return s, nil
}

// PerRound is how many records a round has.
func (s *Shares) PerRound() uint64 { return s.per }

// event returns the number of the event that is the record at an offset.
func (s *Shares) event(p ids.PartitionID, o ids.Offset) uint64 {
	r := uint64(p) + uint64(o)/s.per*s.partitions
	return r*round + s.first + uint64(o)%s.per
}

// Of returns how many records a partition has once so many events have come; whole rounds only, but for the last one of a stream
// that ends.
func (s *Shares) Of(p ids.PartitionID, events uint64) uint64 {
	last := s.events != 0 && events >= s.events
	if last {
		events = s.events
	}
	full := events / round
	n := uint64(0)
	if full > uint64(p) {
		n = (full - uint64(p) + s.partitions - 1) / s.partitions * s.per
	}
	if rest := events % round; last && full%s.partitions == uint64(p) && rest > s.first {
		n += min(rest-s.first, s.per)
	}
	return n
}

// All returns how many records a partition will have; the greatest number if the stream has no end.
func (s *Shares) All(p ids.PartitionID) uint64 {
	if s.events == 0 {
		return 1<<64 - 1
	}
	return s.Of(p, s.events)
}

// Due returns how many events have come so many microseconds after the stream began, at a rate of events a second.
func Due(micros, rate uint64) uint64 {
	hi, lo := bits.Mul64(micros, rate)
	if hi >= 1_000_000 {
		return 1<<64 - 1
	}
	n, _ := bits.Div64(hi, lo, 1_000_000)
	return n
}

// CheckStream tells what is wrong with a stream that has a source: its columns must be the events', by names and types.
func CheckStream(def *millracev1.Stream) error {
	s, err := NewShares(def.Source)
	if err != nil {
		return err
	}
	known := Columns(s.kind)
	for _, c := range def.Columns {
		found := false
		for _, k := range known {
			if found = strings.EqualFold(k.Name, c.Name); found && k.Type.String() != c.Type {
				return fault.SQL(fault.Invalid, "42804", "column %q of Nexmark's events is of type %s, not %s", k.Name, k.Type, c.Type)
			} else if found {
				break
			}
		}
		if !found {
			return unknownColumn(c.Name, known)
		}
	}
	switch {
	case def.Key != "" || len(def.PrimaryKey) > 0:
		return fault.SQL(fault.Invalid, "0A000", "a stream with a source has no key: its records are spread by their number")
	case def.Format != record.FormatJSON:
		return fault.SQL(fault.Invalid, "0A000", "a stream with a source has no format but %s, not %s", record.FormatJSON, def.Format)
	case def.WatermarkColumn != "" && !strings.EqualFold(def.WatermarkColumn, TimeColumn):
		return fault.SQL(fault.Invalid, "0A000", "WATERMARK of a stream with a source is for %q, not %q", TimeColumn, def.WatermarkColumn)
	}
	return nil
}

func unknownColumn(name string, known record.Schema) error {
	names := make([]string, len(known))
	for i, k := range known {
		names[i] = k.Name
	}
	return fault.SQL(fault.Invalid, "42703", "Nexmark's events of this kind have no column %q; there are %s", name, strings.Join(names, ", "))
}

// NewDecoder returns a decoder of a stream's records, be they in its log or made by its source: see record.NewDecoder.
func NewDecoder(def *millracev1.Stream, columns []string) (*record.Decoder, error) {
	if def.Source == nil {
		return record.NewDecoder(def, columns)
	}
	return record.NewGeneratedDecoder(def, columns, func(names []string) (record.Generator, error) {
		return newSource(def, names)
	})
}

// source makes columns of a stream's records.
type source struct {
	Shares
	g *Nexmark
}

func newSource(def *millracev1.Stream, names []string) (*source, error) {
	shares, err := NewShares(def.Source)
	if err != nil {
		return nil, err
	}
	if names == nil {
		names = []string{} // none, not all
	}
	g, err := NewNexmark(shares.kind, int64(def.Source.EventRate), names)
	return &source{shares, g}, err
}

// Generate implements record.Generator.
func (s *source) Generate(p ids.PartitionID, from ids.Offset, count int, cols []*record.Column) {
	for first := true; count > 0 && len(cols) > 0; first = false {
		n := min(count, piece)
		s.take(p, from, n)
		s.g.fillAll(cols)
		from += ids.Offset(n)
		if count -= n; first && count > 0 {
			for _, c := range cols {
				reserve(c, count)
			}
		}
	}
}

// reserve makes room for so many more values like those that are there, which are some hundred: growing step by step would copy
// the texts several times.
func reserve(c *record.Column, more int) {
	if !c.Type.Varlen() {
		c.Ints = slices.Grow(c.Ints, more)
		return
	}
	c.Offsets = slices.Grow(c.Offsets, more)
	c.Bytes = slices.Grow(c.Bytes, int(int64(len(c.Bytes))*int64(more)/int64(c.N))*65/64+64)
}

// take sets the generator's piece to the records from an offset on.
func (s *source) take(p ids.PartitionID, from ids.Offset, count int) {
	n, left := s.event(p, from), s.per-uint64(from)%s.per
	s.g.events = s.g.events[:0]
	for range count {
		s.g.events = append(s.g.events, s.g.event(n))
		n++
		if left--; left == 0 {
			n, left = n+s.partitions*round-s.per, s.per
		}
	}
}

// Times implements record.Generator.
func (s *source) Times(p ids.PartitionID, from ids.Offset, count int, dst []int64) []int64 {
	for count > 0 {
		n := min(count, piece)
		s.take(p, from, n)
		at := len(dst)
		dst = append(dst, make([]int64, n)...)
		allTimes(nil, s.g.events, dst[at:])
		from += ids.Offset(n)
		count -= n
	}
	return dst
}

// Lines makes a stream's records as JSON objects with its columns.
type Lines struct{ s *source }

// NewLines returns the lines of a stream with a source.
func NewLines(def *millracev1.Stream) (*Lines, error) {
	names := make([]string, len(def.Columns))
	for i, c := range def.Columns {
		names[i] = c.Name
	}
	s, err := newSource(def, names)
	return &Lines{s}, err
}

// Append appends the record at an offset.
func (l *Lines) Append(dst []byte, p ids.PartitionID, o ids.Offset) []byte {
	return l.s.g.AppendJSON(dst, l.s.event(p, o))
}
