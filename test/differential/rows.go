package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/record"
)

// null stands for NULL in rows of text.
const null = `\N`

// shape is how a view's columns are compared.
type shape struct {
	types   []record.Type
	inexact map[int]bool
}

func shapeOf(s record.Schema, v *View) *shape {
	out := &shape{inexact: map[int]bool{}}
	for _, f := range s {
		out.types = append(out.types, f.Type)
	}
	for _, i := range v.Inexact {
		out.inexact[i] = true
	}
	return out
}

// canonical is the one look of a value and all that are equal to it.
func canonical(t record.Type, s string) string {
	switch {
	case s == null:
		return s
	case t == record.Boolean:
		if s == "t" || s == "true" {
			return "true"
		}
		return "false"
	case t == record.Numeric:
		if strings.Contains(s, ".") {
			s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
		}
		if s == "-0" {
			return "0"
		}
		return s
	case t == record.ArrayOf(record.Numeric):
		elems := strings.Split(strings.Trim(s, "{}"), ",")
		for i := range elems {
			if elems[i] != "" && elems[i] != "NULL" {
				elems[i] = canonical(record.Numeric, elems[i])
			}
		}
		return "{" + strings.Join(elems, ",") + "}"
	case t == record.Double && s == "-0":
		return "0"
	case t == record.IntervalT:
		v, err := record.ParseText(t, s)
		if err != nil {
			return s
		}
		const day = 24 * 3600 * 1_000_000
		return fmt.Sprint("us ", (int64(v.Interval.Months)*30+int64(v.Interval.Days))*day+v.Interval.Micros)
	}
	return s
}

// canonical makes rows ready to be compared: sorted, each value in its one look.
func (s *shape) canonical(rows [][]string) ([][]string, error) {
	out := make([][]string, len(rows))
	for i, r := range rows {
		if len(r) != len(s.types) {
			return nil, fmt.Errorf("a row of %d columns, not %d", len(r), len(s.types))
		}
		out[i] = make([]string, len(r))
		for c := range r {
			out[i][c] = canonical(s.types[c], r[c])
		}
	}
	slices.SortFunc(out, s.compare)
	return out, nil
}

// compare orders rows, exact columns first.
func (s *shape) compare(a, b []string) int {
	for _, rough := range []bool{false, true} {
		for c := range a {
			if s.inexact[c] != rough {
				continue
			}
			if rough {
				x, errX := strconv.ParseFloat(a[c], 64)
				y, errY := strconv.ParseFloat(b[c], 64)
				if errX == nil && errY == nil {
					if x < y {
						return -1
					} else if x > y {
						return 1
					}
					continue
				}
			}
			if d := strings.Compare(a[c], b[c]); d != 0 {
				return d
			}
		}
	}
	return 0
}

// equal tells whether canonical rows are the same, inexact values to ten digits.
func (s *shape) equal(a, b [][]string) bool {
	return len(a) == len(b) && slices.EqualFunc(a, b, func(x, y []string) bool {
		for c := range x {
			if x[c] != y[c] && !(s.inexact[c] && s.near(c, x[c], y[c])) {
				return false
			}
		}
		return true
	})
}

func (s *shape) near(c int, a, b string) bool {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	if errX != nil || errY != nil {
		return false
	}
	if s.types[c] == record.BigInt { // an estimate of a small number
		return math.Abs(x-y) <= 2
	}
	return math.Abs(x-y) <= 1e-9*max(math.Abs(x), math.Abs(y), 1e-3)
}

// texts writes rows, one each.
func (s *shape) texts(rows [][]string) []string {
	var out []string
	for _, r := range rows {
		out = append(out, strings.Join(r, "|"))
	}
	return out
}

// digest is of canonical rows; inexact values count with six digits.
func (s *shape) digest(rows [][]string) string {
	h := sha256.New()
	var lines []string
	for _, r := range rows {
		r = slices.Clone(r)
		for c := range r {
			if !s.inexact[c] || r[c] == null {
				continue
			}
			if s.types[c] == record.BigInt {
				r[c] = "n"
			} else if x, err := strconv.ParseFloat(r[c], 64); err == nil {
				if math.Abs(x) < 1e-9 {
					x = 0
				}
				r[c] = strconv.FormatFloat(x, 'g', 6, 64)
			}
		}
		lines = append(lines, strings.Join(r, "\x1f"))
	}
	slices.Sort(lines)
	for _, l := range lines {
		fmt.Fprintf(h, "%d %s\n", len(l), l)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// difference shows what is in one and not in the other.
func (s *shape) difference(got, want [][]string) string {
	count := map[string]int{}
	for _, t := range s.texts(got) {
		count[t]++
	}
	for _, t := range s.texts(want) {
		count[t]--
	}
	var lines []string
	for t, n := range count {
		switch {
		case n > 0:
			lines = append(lines, fmt.Sprintf("  too many %+d: %s", n, t))
		case n < 0:
			lines = append(lines, fmt.Sprintf("  missing  %+d: %s", n, t))
		}
	}
	slices.Sort(lines)
	if len(lines) > 30 {
		lines = append(lines[:30], "  ...")
	}
	return strings.Join(lines, "\n")
}
