package main

import (
	"fmt"
	"slices"
	"strings"
)

// lineSet is a set of line numbers, kept as ranges.
type lineSet struct {
	ranges []lineRange
	count  int64
	sorted bool
}

type lineRange struct{ from, to int64 }

// add adds a line. Lines come about in order.
func (s *lineSet) add(line int64) { s.addRange(line, line, 1) }

// addRange adds the lines from..to, which hold n records.
func (s *lineSet) addRange(from, to, n int64) {
	s.count += n
	if k := len(s.ranges); k > 0 && s.ranges[k-1].to+1 == from {
		s.ranges[k-1].to = to
		return
	}
	s.ranges = append(s.ranges, lineRange{from, to})
	s.sorted = false
}

// maxRanges bounds how many ranges a message names.
const maxRanges = 1000

// String names the lines: "lines 3, 7-9".
func (s *lineSet) String() string {
	s.merge()
	var b strings.Builder
	b.WriteString("line")
	if len(s.ranges) > 1 || len(s.ranges) == 1 && s.ranges[0].from != s.ranges[0].to {
		b.WriteByte('s')
	}
	for i, r := range s.ranges {
		if i == maxRanges {
			fmt.Fprintf(&b, " and %d more ranges up to line %d", len(s.ranges)-i, s.ranges[len(s.ranges)-1].to)
			break
		}
		if i > 0 {
			b.WriteByte(',')
		}
		if r.from == r.to {
			fmt.Fprintf(&b, " %d", r.from)
		} else {
			fmt.Fprintf(&b, " %d-%d", r.from, r.to)
		}
	}
	return b.String()
}

func (s *lineSet) merge() {
	if s.sorted {
		return
	}
	s.sorted = true
	slices.SortFunc(s.ranges, func(a, b lineRange) int { return int(a.from - b.from) })
	out := s.ranges[:0]
	for _, r := range s.ranges {
		if k := len(out); k > 0 && r.from <= out[k-1].to+1 {
			out[k-1].to = max(out[k-1].to, r.to)
			continue
		}
		out = append(out, r)
	}
	s.ranges = out
}
