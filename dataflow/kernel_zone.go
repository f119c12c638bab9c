package dataflow

import (
	"archive/zip"
	"bytes"
	_ "embed" // of the time zones
	"io"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/fault"
)

// The time zones come with the program: a machine's own may differ from another's, and a view's result with them.
//
//go:embed zoneinfo.zip
var zoneinfo []byte

// zoneImpls is AT TIME ZONE with a zone's name.
var zoneImpls = map[string]impl{
	"timezone(text, timestamptz)": zoneCall(func(l *time.Location, t int64) int64 { return t + offsetAt(l, t) }),
	"timezone(text, timestamp)":   zoneCall(zoneTime),
}

func zoneCall(f func(l *time.Location, t int64) int64) impl {
	return impl{make: func() kernel {
		var last string
		var l *time.Location
		var err error
		return func(c *call) {
			for i := range c.n {
				if c.null(i) {
					continue
				}
				if name := bytesArg(c, 0, i); string(name) != last || l == nil && err == nil {
					last = string(name)
					l, err = zoneOf(last)
				}
				if err != nil {
					c.fail(i, err)
					continue
				}
				c.out.Ints[i] = f(l, c.args[1].col.Ints[i&c.args[1].mask])
			}
		}
	}}
}

var zoneFiles = sync.OnceValue(func() map[string]*zip.File {
	m := map[string]*zip.File{}
	r, err := zip.NewReader(bytes.NewReader(zoneinfo), int64(len(zoneinfo)))
	if err != nil {
		return m
	}
	for _, f := range r.File {
		m[string(bytes.ToLower([]byte(f.Name)))] = f
	}
	return m
})

// posixOffset is a zone that is only its distance from UTC, as POSIX writes it: positive is west of Greenwich.
var posixOffset = regexp.MustCompile(`^([+-]?)(\d{1,3})(?::([0-5]\d)(?::([0-5]\d))?)?$`)

// posixZone returns the zone that a name such as +03, -05:30 or 3 means; nil: it is none.
func posixZone(name string) *time.Location {
	m := posixOffset.FindStringSubmatch(name)
	if m == nil {
		return nil
	}
	number := func(s string) int { n, _ := strconv.Atoi(s); return n } // of digits, or nothing
	hours := number(m[2])
	if hours > 167 { // PostgreSQL's limit
		return nil
	}
	seconds := -(hours*3600 + number(m[3])*60 + number(m[4]))
	if m[1] == "-" {
		seconds = -seconds
	}
	return time.FixedZone(name, seconds)
}

// zoneOf returns the zone of a name, in any case.
func zoneOf(name string) (*time.Location, error) {
	unknown := fault.SQL(fault.Invalid, "22023", "time zone %q not recognized; write a name such as Europe/Zurich, or UTC", shorten([]byte(name)))
	if l := posixZone(name); l != nil {
		return l, nil
	}
	f := zoneFiles()[string(bytes.ToLower([]byte(name)))]
	if f == nil {
		return nil, unknown
	}
	r, err := f.Open()
	if err != nil {
		return nil, unknown
	}
	defer r.Close()
	const maxZone = 1 << 20 // bytes
	data, err := io.ReadAll(io.LimitReader(r, maxZone))
	if err != nil {
		return nil, unknown
	}
	l, err := time.LoadLocationFromTZData(f.Name, data)
	if err != nil {
		return nil, unknown
	}
	return l, nil
}

// offsetAt returns by how many microseconds a zone is ahead of UTC at a time.
func offsetAt(l *time.Location, t int64) int64 {
	_, seconds := time.UnixMicro(t).In(l).Zone()
	return int64(seconds) * microsPerSecond
}

// zoneTime returns when a zone's clocks show a time. Where they show it twice, or never, as they are changed, PostgreSQL
// takes the offset after the change, or before it.
func zoneTime(l *time.Location, local int64) int64 {
	before, after := offsetAt(l, local-microsPerDay), offsetAt(l, local+microsPerDay)
	if before == after {
		return local - before
	}
	first, second := local-before, local-after
	isFirst, isSecond := offsetAt(l, first) == before, offsetAt(l, second) == after
	if isSecond || !isFirst && second > first {
		return second
	}
	return first
}
