package dataflow

import (
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// overlapsImpls is OVERLAPS, and what makes and cuts times in a zone or to a precision.
var overlapsImpls = map[string]impl{
	"overlaps(timestamp, timestamp, timestamp, timestamp)":                             shared(overlaps),
	"overlaps(timestamptz, timestamptz, timestamptz, timestamptz)":                     shared(overlaps),
	"overlaps(time, time, time, time)":                                                 shared(overlaps),
	"date_trunc(text, timestamptz, text)":                                              {make: truncInZone},
	"make_timestamptz(bigint, bigint, bigint, bigint, bigint, double precision)":       {make: func() kernel { return makeTimestamp }},
	"make_timestamptz(bigint, bigint, bigint, bigint, bigint, double precision, text)": {make: makeInZone},
	"isfinite(date)":                shared(finite),
	"isfinite(timestamp)":           shared(finite),
	"isfinite(timestamptz)":         shared(finite),
	"isfinite(interval)":            shared(finite),
	"time_fit(timestamp, bigint)":   binaryOp(getInt, getInt, setInt, fitTimestamp),
	"time_fit(timestamptz, bigint)": binaryOp(getInt, getInt, setInt, fitTimestamp),
	"time_fit(time, bigint)":        binaryOp(getInt, getInt, setInt, fitMicros),
	"time_fit(interval, bigint)": binaryOp(getInterval, getInt, setInterval, func(v record.Interval, digits int64) (record.Interval, error) {
		var err error
		v.Micros, err = fitMicros(v.Micros, digits)
		return v, err
	}),
}

// finite is true: there are no infinite times.
func finite(c *call) { fill(c.out.Bools, true) }

// period is one side of OVERLAPS. Its ends may stand in any order; an end that is NULL isn't known.
type period struct {
	from, to int64
	open     bool // to isn't known
}

// periodOf returns arguments k and k+1 at row i; ok false: neither is known.
func periodOf(c *call, k, i int) (p period, ok bool) {
	noFrom, noTo := c.args[k].null(i), c.args[k+1].null(i)
	switch {
	case noFrom && noTo:
		return p, false
	case noFrom:
		return period{from: intArg(c, k+1, i), open: true}, true
	case noTo:
		return period{from: intArg(c, k, i), open: true}, true
	}
	from, to := intArg(c, k, i), intArg(c, k+1, i)
	return period{from: min(from, to), to: max(from, to)}, true
}

// overlaps has the three values that PostgreSQL's overlaps_timestamp gives.
func overlaps(c *call) {
	for i := range c.n {
		a, ok := periodOf(c, 0, i)
		b, ok2 := periodOf(c, 2, i)
		if !ok || !ok2 {
			c.setNull(i)
			continue
		}
		if a.from < b.from {
			a, b = b, a
		}
		switch { // a begins later, or with b
		case a.from == b.from && (a.open || b.open), a.from > b.from && b.open:
			c.setNull(i)
		case a.from == b.from, a.from < b.to:
			c.out.Bools[i] = true
		case a.open:
			c.setNull(i)
		default:
			c.out.Bools[i] = false
		}
	}
}

// zoneMemo remembers the zone that was named last.
type zoneMemo struct {
	name  string
	zone  *time.Location
	err   error
	known bool
}

func (m *zoneMemo) of(name []byte) (*time.Location, error) {
	if !m.known || m.name != string(name) {
		m.name, m.known = string(name), true
		m.zone, m.err = zoneOf(m.name)
	}
	return m.zone, m.err
}

// truncInZone is date_trunc as a zone's clocks show the time.
func truncInZone() kernel {
	var fields fieldMemo
	var zones zoneMemo
	return func(c *call) {
		for i := range c.n {
			if c.null(i) {
				continue
			}
			f := fields.of(bytesArg(c, 0, i))
			l, err := zones.of(bytesArg(c, 2, i))
			var t int64
			if err == nil {
				t, err = truncLocal(l, f, fields.name, intArg(c, 1, i))
			}
			if err != nil {
				c.fail(i, err)
				continue
			}
			c.out.Ints[i] = t
		}
	}
}

func truncLocal(l *time.Location, f field, name string, t int64) (int64, error) {
	offset := offsetAt(l, t)
	local, err := truncTime(f, name, t+offset)
	if err != nil {
		return 0, err
	}
	if f < fieldDay { // within the hour, where the clocks are changed too
		return local - offset, nil
	}
	return zoneTime(l, local), nil
}

// makeInZone is makeTimestamp with a zone as the last argument.
func makeInZone() kernel {
	var zones zoneMemo
	return func(c *call) {
		makeTimestamp(c)
		for i := range c.n {
			if c.null(i) {
				continue
			}
			l, err := zones.of(bytesArg(c, 6, i))
			if err != nil {
				c.fail(i, err)
				continue
			}
			c.out.Ints[i] = zoneTime(l, c.out.Ints[i])
		}
	}
}

var errPrecision = fault.SQL(fault.Invalid, "22023", "precision must be between 0 and 6")

// fitMicros rounds half away from zero to that many digits of a second.
func fitMicros(v, digits int64) (int64, error) {
	if digits < 0 || digits > 6 {
		return 0, errPrecision
	}
	unit := int64(pow10[6-digits])
	rest := v % unit
	v -= rest
	switch {
	case rest >= (unit+1)/2 && rest > 0:
		v += unit
	case -rest >= (unit+1)/2 && rest < 0:
		v -= unit
	}
	return v, nil
}

// fitTimestamp rounds as PostgreSQL does, which counts from 2000.
func fitTimestamp(t, digits int64) (int64, error) {
	const epoch = 946_684_800_000_000
	v, err := fitMicros(t-epoch, digits)
	if err != nil {
		return 0, err
	}
	return v + epoch, nil
}
