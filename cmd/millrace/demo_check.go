package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"embed"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/ring"
)

//go:embed flights/flights.csv.gz
var flightFiles embed.FS

type demoFlight struct {
	scheduled           time.Time
	delay, distance     int64
	origin, destination string
}

// departed is when the flight really left.
func (f *demoFlight) departed() time.Time {
	return f.scheduled.Add(time.Duration(f.delay) * time.Minute)
}

func (f *demoFlight) appendJSON(b []byte) []byte {
	b = append(b, `{"departed":"`...)
	b = f.departed().AppendFormat(b, time.RFC3339)
	b = append(b, `","scheduled":"`...)
	b = f.scheduled.AppendFormat(b, time.RFC3339)
	b = append(b, `","delay":`...)
	b = strconv.AppendInt(b, f.delay, 10)
	b = append(b, `,"distance":`...)
	b = strconv.AppendInt(b, f.distance, 10)
	b = append(b, `,"origin":"`...)
	b = append(b, f.origin...)
	b = append(b, `","destination":"`...)
	b = append(b, f.destination...)
	return append(b, `"}`...)
}

func readFlights() ([]demoFlight, error) {
	packed, err := flightFiles.ReadFile("flights/flights.csv.gz")
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	var out []demoFlight
	in := bufio.NewScanner(z)
	in.Scan() // the header
	for in.Scan() {
		c := strings.Split(in.Text(), ",")
		if len(c) != 5 {
			return nil, fmt.Errorf("flights: %q has %d fields, not 5", in.Text(), len(c))
		}
		f := demoFlight{origin: c[3], destination: c[4]}
		if f.scheduled, err = time.Parse(time.RFC3339, c[0]); err != nil {
			return nil, err
		}
		if f.delay, err = strconv.ParseInt(c[1], 10, 64); err != nil {
			return nil, err
		}
		if f.distance, err = strconv.ParseInt(c[2], 10, 64); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, in.Err()
}

// figures is a row of a view without its key: a count, and the sum that its mean is of.
type figures struct {
	n   int64
	sum int64
}

type recomputed struct {
	departures, routes, late map[string]figures
	dropped                  int // rows that come too late for their hour
}

// recompute makes the views by a plain loop over the flights, in the order in which they were sent. A row is late for a
// window that ends at or below the watermark of the rows before it in its own partition.
func recompute(all []demoFlight, partitions int) recomputed {
	r := recomputed{departures: map[string]figures{}, routes: map[string]figures{}, late: map[string]figures{}}
	watermark := make([]time.Time, partitions)
	count := func(m map[string]figures, delay int64, key ...string) {
		k := strings.Join(key, " ")
		m[k] = figures{m[k].n + 1, m[k].sum + delay}
	}
	for i := range all {
		f := &all[i]
		at := f.departed()
		p := ring.Partition([]byte(f.origin), partitions)
		count(r.routes, f.delay, f.origin, f.destination)
		if hour := at.Truncate(time.Hour); hour.Add(time.Hour).After(watermark[p]) {
			count(r.departures, f.delay, f.origin, hour.Format(time.RFC3339))
		} else {
			r.dropped++
		}
		if minute := at.Truncate(time.Minute); f.delay >= 15 && minute.Add(time.Minute).After(watermark[p]) {
			count(r.late, 0, minute.Format(time.RFC3339))
		}
		if w := at.Add(-24 * time.Hour); w.After(watermark[p]) {
			watermark[p] = w
		}
	}
	return r
}

// compare reads a view (key columns, a count and, where there is one, a mean) and checks every row.
func compare(ctx context.Context, s *client.Session, query string, want map[string]figures) (int, error) {
	rows, err := s.Query(ctx, query)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		key, got, mean, err := viewRow(rows)
		if err != nil {
			return 0, err
		}
		w, ok := want[key]
		if !ok || got != w.n || !math.IsNaN(mean) && math.Abs(mean-float64(w.sum)/float64(w.n)) > 1e-9 {
			return 0, fmt.Errorf("row %s has count %d and mean %g; the recomputation has count %d and sum %d", key, got, mean, w.n, w.sum)
		}
		n++
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	if n != len(want) {
		return 0, fmt.Errorf("%d rows; the recomputation has %d", n, len(want))
	}
	return n, nil
}

// viewRow splits a row; mean is NaN where there is none.
func viewRow(rows *client.Rows) (key string, n int64, mean float64, err error) {
	var keys []string
	mean = math.NaN()
	for i, v := range rows.Values() {
		switch rows.Columns()[i].Type {
		case record.Text:
			keys = append(keys, string(v.Bytes))
		case record.TimestampTZ:
			keys = append(keys, time.UnixMicro(v.Int).UTC().Format(time.RFC3339))
		case record.BigInt:
			n = v.Int
		case record.Numeric:
			if mean, err = strconv.ParseFloat(string(v.Bytes), 64); err != nil {
				return "", 0, 0, err
			}
		}
	}
	return strings.Join(keys, " "), n, mean, nil
}
