package main

import (
	"io"
	"strings"

	"github.com/millrace/millrace/datagen"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// generateOptions are the flags of send that make records instead of reading them.
type generateOptions struct {
	what   string // nexmark[:kind]; empty: read
	first  int64
	events int64
	rate   int64 // events a second of event time
}

func (o *generateOptions) validate(file bool) error {
	switch {
	case o.what == "":
		return nil
	case file:
		return usagef("--datagen makes the records: leave the file out")
	case o.events < 1 || o.first < 0 || o.first+o.events < o.first:
		return usagef("--events %d, --first %d: events must be 1 or more, first 0 or more", o.events, o.first)
	}
	_, err := o.kind()
	return err
}

func (o *generateOptions) kind() (datagen.Kind, error) {
	name, kind, given := strings.Cut(o.what, ":")
	if name != "nexmark" {
		return 0, usagef("--datagen %q: there is nexmark, and nexmark:person, nexmark:auction and nexmark:bid", o.what)
	}
	if !given {
		return datagen.All, nil
	}
	k, err := datagen.ParseKind(kind)
	if err != nil {
		return 0, usagef("--datagen %q: %v", o.what, err)
	}
	return k, nil
}

// generated makes a stream's records: of an event the columns that the stream has, by its names.
type generated struct {
	g      *datagen.Nexmark
	n, end uint64
	buf    []byte
	done   *countingReader // counts the events, for the progress bar
}

func (o *generateOptions) source(def *millracev1.Stream, done *countingReader) (*generated, error) {
	if def.Format != "json" {
		return nil, usagef("--datagen makes JSON records, and stream %q takes %s", def.Name, def.Format)
	}
	kind, err := o.kind()
	if err != nil {
		return nil, err
	}
	names := make([]string, len(def.Columns))
	for i, c := range def.Columns {
		names[i] = c.Name
	}
	g, err := datagen.NewNexmark(kind, o.rate, names)
	if err != nil {
		return nil, usagef("--datagen %s into stream %q: %v", o.what, def.Name, err)
	}
	return &generated{g: g, n: uint64(o.first), end: uint64(o.first) + uint64(o.events), done: done}, nil
}

// next implements lineSource; an event's line is its number and one.
func (s *generated) next() ([]byte, int64, error) {
	for s.n < s.end {
		n := s.n
		s.n++
		s.done.n.Add(1)
		if s.buf = s.g.AppendJSON(s.buf[:0], n); len(s.buf) > 0 {
			return s.buf, int64(n) + 1, nil
		}
	}
	return nil, int64(s.n), io.EOF
}
