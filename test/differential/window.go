package main

import (
	"fmt"
	"slices"

	"github.com/millrace/millrace/record"
)

// window draws TUMBLE, HOP, CUMULATE or SESSION over a relation. PostgreSQL has none of them: there it is a subquery.
func (g *gen) window() (source, bool) {
	r := g.relation(nil)
	return g.windowOver(r, g.d.n(4))
}

const origin = "'1970-01-01 00:00:00+00'::timestamptz"

func (g *gen) windowOver(r *relation, kind int) (source, bool) {
	return g.windowSized(r, kind, pick(g.d, []int{10, 4, 7}), pick(g.d, []int{2, 5, 3}), pick(g.d, []int{0, 0, 1, 3}))
}

// windowSized is a window of a kind: a size, a slide or step, and an offset in seconds.
func (g *gen) windowSized(r *relation, kind, size, slide, offset int) (source, bool) {
	at := slices.IndexFunc(r.columns, func(f field) bool { return f.typ == record.TimestampTZ })
	if at < 0 {
		return source{}, false
	}
	if kind == 1 {
		slide = min(slide, size)
	}
	if kind == 2 {
		size = slide * (1 + size%4)
	}
	time := r.columns[at].name
	b := g.base(r)
	a := g.alias("a")
	event := r.watermark && time == "ts"
	out := source{appendOnly: r.appendOnly && kind != 3, stream: b.stream, size: r.size}
	if kind == 1 || kind == 2 {
		out.size *= 3
	}
	for i := range b.cols {
		c := b.cols[i]
		c.text = same(a + "." + c.name)
		out.cols = append(out.cols, c)
	}
	seconds := func(n int) string { return fmt.Sprintf("INTERVAL '%d seconds'", n) }
	off := ""
	if offset > 0 {
		off = ", " + seconds(offset)
	}
	from := fmt.Sprintf("%s + %s", origin, seconds(offset))
	x := "x." + time
	late := ""
	if event {
		late = " AND (x._wm IS NULL OR w.e > x._wm)"
	}
	windows := func(start, ends string) string {
		return fmt.Sprintf("(SELECT x.*, w.s AS window_start, w.e AS window_end FROM %s AS x CROSS JOIN LATERAL (SELECT %s AS s, e AS e FROM %s AS e) AS w WHERE %s >= w.s AND %s < w.e%s) AS %s",
			r.name, start, ends, x, x, late, a)
	}
	bin := func(n int) string { return fmt.Sprintf("date_bin(%s, %s, %s)", seconds(n), x, from) }
	switch kind {
	case 0:
		out.ours = fmt.Sprintf("TUMBLE(%s, %s, %s%s) AS %s", r.name, time, seconds(size), off, a)
		out.pg = windows(bin(size), fmt.Sprintf("(SELECT %s + %s AS e)", bin(size), seconds(size)))
		out.pg = fmt.Sprintf("(SELECT x.*, %s AS window_start, %s + %s AS window_end FROM %s AS x WHERE %s IS NOT NULL%s) AS %s", bin(size), bin(size), seconds(size),
			r.name, x, lateIf(event, fmt.Sprintf("%s + %s", bin(size), seconds(size))), a)
	case 1:
		out.ours = fmt.Sprintf("HOP(%s, %s, %s, %s%s) AS %s", r.name, time, seconds(slide), seconds(size), off, a)
		out.pg = windows("e - "+seconds(size), fmt.Sprintf("generate_series(%s + %s, %s + %s, %s)", bin(slide), seconds(slide), x, seconds(size), seconds(slide)))
	case 2:
		out.ours = fmt.Sprintf("CUMULATE(%s, %s, %s, %s%s) AS %s", r.name, time, seconds(slide), seconds(size), off, a)
		out.pg = windows(bin(size), fmt.Sprintf("generate_series(%s + %s, %s + %s, %s)", bin(size), seconds(slide), bin(size), seconds(size), seconds(slide)))
	default:
		key, ok := g.sessionKey(r, time)
		if !ok {
			return source{}, false
		}
		out.text = sessionOf(r.name, time, key, a, size, event)
		g.sessionKeys = append(g.sessionKeys[:0], key)
	}
	if out.unique = r.unique; kind == 1 || kind == 2 {
		if out.unique != nil {
			out.unique = append(slices.Clone(out.unique), len(out.cols)+1)
		}
	}
	for _, n := range []string{"window_start", "window_end"} {
		out.cols = append(out.cols, column{text: same(a + "." + n), name: n, typ: record.TimestampTZ, event: event})
	}
	return out, true
}

func lateIf(event bool, end string) string {
	if !event {
		return ""
	}
	return fmt.Sprintf(" AND (x._wm IS NULL OR %s > x._wm)", end)
}

// sessionKey is a session's key. One is always given: without, the columns of GROUP BY would be it.
func (g *gen) sessionKey(r *relation, time string) (string, bool) {
	var all []string
	for _, f := range r.columns {
		if hasOrder(f.typ) && f.name != time && !f.inexact && !f.vague {
			all = append(all, f.name)
		}
	}
	if len(all) == 0 {
		return "", false
	}
	for _, name := range []string{"k", "g"} {
		if g.d.chance(50) && slices.Contains(all, name) {
			return name, true
		}
	}
	return pick(g.d, all), true
}

// sessionOf is SESSION, and in PostgreSQL rows of which each is less than the gap after the one before.
func sessionOf(rel, time, key, alias string, gap int, event bool) text {
	ours := fmt.Sprintf("SESSION(%s, %s, INTERVAL '%d seconds'", rel, time, gap)
	ours += ", " + key
	by := "PARTITION BY " + key + " "
	late := ""
	if event {
		late = fmt.Sprintf(" AND (x._wm IS NULL OR x.%s + INTERVAL '%d seconds' > x._wm)", time, gap)
	}
	pg := fmt.Sprintf("(SELECT x.*, CASE WHEN x.%[1]s - lag(x.%[1]s) OVER (%[2]sORDER BY x.%[1]s) < INTERVAL '%[3]d seconds' THEN 0 ELSE 1 END AS _new FROM %[4]s AS x WHERE x.%[1]s IS NOT NULL%[5]s)",
		time, by, gap, rel, late)
	pg = fmt.Sprintf("(SELECT y.*, sum(_new) OVER (%sORDER BY y.%s) AS _session FROM %s AS y)", by, time, pg)
	by += ", "
	pg = fmt.Sprintf("(SELECT z.*, min(z.%[1]s) OVER (%[2]s_session) AS window_start, max(z.%[1]s) OVER (%[2]s_session) + INTERVAL '%[3]d seconds' AS window_end FROM %[4]s AS z) AS %[5]s",
		time, by, gap, pg, alias)
	return text{ours + ") AS " + alias, pg}
}
