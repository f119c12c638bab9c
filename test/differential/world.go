package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/record"
)

// relation is a stream, a table or a view, for the generator.
type relation struct {
	name    string
	table   bool
	view    bool
	columns []field
	key     []int // table: its primary key
	size    int   // about how many rows
	unique  []int // columns of which no two rows have equal values; nil: none is known
	// stream
	watermark bool
	delay     time.Duration
	keyColumn string
	twice     bool // some records come twice, id and all
	// view
	appendOnly bool
	created    int // the step after which it was made
	windows    *windows
}

// windows says that the first two columns of a view are the bounds of windows over a stream's event time, in seconds: lag is
// what the watermark must be above a window's end until it is over.
type windows struct {
	stream                   string
	size, slide, offset, lag int
}

// field is a column of a relation.
type field struct {
	name    string
	typ     record.Type
	notNull bool
	inexact bool // doubles that may differ in the last digits
	vague   bool // equal values may look different
}

// world is streams and tables, and what happens to them.
type world struct {
	d          *draw
	relations  []*relation
	steps      []Step
	partitions int
	nodes      int
	nextID     int
	clock      time.Duration // event time that has been reached, since eventStart
	seen       map[string][]string
}

var eventStart = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// makeWorld draws a world.
func makeWorld(d *draw) *world {
	w := &world{d: d, seen: map[string][]string{}}
	w.partitions = 1 + d.n(4)
	w.nodes = 1 + d.n(2)
	d.list(1, 3, 70, func(i int) { w.relations = append(w.relations, w.stream(fmt.Sprint("s", i))) })
	d.list(1, 2, 50, func(i int) { w.relations = append(w.relations, w.table(fmt.Sprint("t", i))) })
	d.list(2, 8, 92, func(i int) { w.steps = append(w.steps, w.step(i)) })
	w.steps[len(w.steps)-1].Check = true
	return w
}

func (w *world) columns(prefix string, r *relation, low, high int) {
	w.d.list(low, high, 80, func(i int) {
		r.columns = append(r.columns, field{name: fmt.Sprint(prefix, i), typ: columnTypes[w.d.n(len(columnTypes))]})
	})
}

func (w *world) stream(name string) *relation {
	r := &relation{name: name, appendOnly: true, size: 60}
	r.columns = []field{{name: "id", typ: record.BigInt, notNull: true}, {name: "k", typ: record.BigInt}, {name: "g", typ: record.Text},
		{name: "ts", typ: record.TimestampTZ}}
	w.columns("c", r, 1, 6)
	if r.watermark = w.d.chance(55); r.watermark {
		r.delay = time.Duration(w.d.n(5)) * time.Second
	}
	r.keyColumn = pick(w.d, []string{"", "", "k", "g", "id"})
	if r.twice = w.d.chance(25); !r.twice {
		r.unique = []int{0}
	}
	return r
}

func (w *world) table(name string) *relation {
	r := &relation{name: name, table: true, size: 10, columns: []field{{name: "k", typ: record.BigInt, notNull: true}}, key: []int{0}}
	if w.d.chance(40) {
		r.columns = append(r.columns, field{name: "g", typ: record.Text, notNull: true})
		r.key = append(r.key, 1)
	} else {
		r.columns = append(r.columns, field{name: "g", typ: record.Text})
	}
	w.columns("v", r, 1, 5)
	r.unique = r.key
	return r
}

// step draws what happens in a tick.
func (w *world) step(i int) Step {
	s := Step{Check: w.d.chance(35)}
	w.clock += time.Duration(w.d.n(7)) * time.Second
	for _, r := range w.relations {
		low := 0
		if i == 0 {
			low = 2
		}
		w.d.list(low, 14, 82, func(int) {
			if r.table {
				s.Records = append(s.Records, w.change(r))
			} else {
				s.Records = append(s.Records, w.record(r))
			}
		})
	}
	s.Crash = i > 0 && w.d.chance(12)
	return s
}

// value draws a value of a column as JSON.
func (w *world) value(f field) string {
	if !f.notNull && w.d.chance(13) {
		return "null"
	}
	p := pools[f.typ]
	if f.name == "k" {
		return jsonOf(f.typ, p[w.d.skewed(5)])
	}
	return jsonOf(f.typ, p[w.d.skewed(len(p))])
}

// record draws a record of a stream: mostly near the time that has been reached, sometimes out of order, sometimes again.
func (w *world) record(r *relation) Record {
	out := Record{Object: r.name, Partition: w.d.n(w.partitions)}
	old := w.seen[r.name]
	if again := w.d.chance(8); again && r.twice && len(old) > 0 {
		out.JSON = old[len(old)-1-w.d.n(min(len(old), 8))]
	} else {
		var parts []string
		for i, f := range r.columns {
			v := ""
			switch {
			case i == 0:
				w.nextID++
				v = fmt.Sprint(w.nextID)
			case f.name == "ts":
				v = w.eventTime()
			default:
				v = w.value(f)
			}
			parts = append(parts, jsonString(f.name)+":"+v)
		}
		out.JSON = "{" + strings.Join(parts, ",") + "}"
		w.seen[r.name] = append(old, out.JSON)
	}
	if r.keyColumn != "" {
		out.Partition = -1 // by its key
	}
	return out
}

func (w *world) eventTime() string {
	if w.d.chance(4) {
		return "null"
	}
	t := w.clock + time.Duration(w.d.n(8))*500*time.Millisecond
	if w.d.chance(20) {
		t -= time.Duration(w.d.n(24)) * 500 * time.Millisecond
	}
	return `"` + eventStart.Add(t).Format("2006-01-02T15:04:05.999999Z") + `"`
}

// change draws a change of a table: a row put or deleted.
func (w *world) change(r *relation) Record {
	gone := w.d.chance(20)
	var parts []string
	for i, f := range r.columns {
		switch {
		case slices.Contains(r.key, i):
			p := pools[f.typ]
			parts = append(parts, jsonString(f.name)+":"+jsonOf(f.typ, p[w.d.n(6)]))
		case !gone:
			parts = append(parts, jsonString(f.name)+":"+w.value(f))
		}
	}
	if gone {
		parts = append(parts, `"_deleted":true`)
	}
	return Record{Object: r.name, Partition: -1, JSON: "{" + strings.Join(parts, ",") + "}"}
}

// objects are the definitions of the world's relations.
func (w *world) objects() []Object {
	var out []Object
	for _, r := range w.relations {
		out = append(out, r.object())
	}
	return out
}

func (r *relation) object() Object {
	o := Object{Name: r.name, Table: r.table, Watermark: r.watermark, DelayUs: r.delay.Microseconds(), Key: r.keyColumn}
	var cols, pg []string
	for _, f := range r.columns {
		c := f.name + " " + strings.ToUpper(f.typ.String())
		pg = append(pg, c)
		if f.notNull && r.table {
			c += " NOT NULL"
		}
		cols = append(cols, c)
	}
	o.PG = strings.Join(pg, ", ")
	kind := "STREAM"
	if r.table {
		kind = "TABLE"
		for _, k := range r.key {
			o.PrimaryKey = append(o.PrimaryKey, r.columns[k].name)
		}
		cols = append(cols, "PRIMARY KEY ("+strings.Join(o.PrimaryKey, ", ")+")")
	}
	if r.watermark {
		cols = append(cols, fmt.Sprintf("WATERMARK FOR ts AS ts - INTERVAL '%d seconds'", int(r.delay.Seconds())))
	}
	var with []string
	if r.keyColumn != "" {
		with = append(with, "key = '"+r.keyColumn+"'")
	}
	if !r.table {
		with = append(with, "idle = '10 days'")
	}
	o.SQL = fmt.Sprintf("CREATE %s %s (%s)", kind, r.name, strings.Join(cols, ", "))
	if len(with) > 0 {
		o.SQL += " WITH (" + strings.Join(with, ", ") + ")"
	}
	return o
}
