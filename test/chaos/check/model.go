package check

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"
)

// Relations are the views and queries that the model can recompute, with the statement that makes each. Balance needs
// UNION ALL.
var Relations = map[string]string{
	"by_key":  "SELECT k, count(*) AS n, sum(v) AS s, max(n) AS top FROM ev GROUP BY k",
	"windows": "SELECT window_start, count(*) AS n, sum(v) AS s FROM TUMBLE(ev, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end",
	"credits": "SELECT dst, count(*) AS n, sum(v) AS s FROM ev GROUP BY dst",
	"debits":  "SELECT src, count(*) AS n, sum(v) AS s FROM ev GROUP BY src",
	"balance": "SELECT a, sum(d) AS s FROM (SELECT dst AS a, v AS d FROM ev UNION ALL SELECT src AS a, -v AS d FROM ev) AS legs GROUP BY a",
	"whole":   "SELECT count(*) AS n, sum(v) AS s, max(n) AS top FROM ev",
}

// CreateStream makes the stream of the events.
const CreateStream = `CREATE STREAM ev (p BIGINT, n BIGINT, k TEXT, src BIGINT, dst BIGINT, v BIGINT, ts TIMESTAMPTZ,
	WATERMARK FOR ts AS ts - INTERVAL '2 seconds') WITH (format = 'json', key = 'k')`

// Row is a row as text, its columns separated by |.
type Row = string

// rowHash is summed over a relation's rows, so that the sum follows each change and doesn't depend on any order.
func rowHash(r Row) uint64 {
	h := fnv.New64a()
	h.Write([]byte(r))
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	return x ^ x>>27
}

// HashRows is the hash of a relation.
func HashRows(rows []Row) (sum uint64) {
	for _, r := range rows {
		sum += rowHash(r)
	}
	return sum
}

// group is one group's state.
type group struct{ n, s, top int64 }

func (g group) add(v, seq int64) group {
	if g.n == 0 || seq > g.top {
		g.top = seq
	}
	return group{g.n + 1, g.s + v, g.top}
}

type relation struct {
	groups map[string]group
	text   func(key string, g group) Row
	hash   uint64
}

func (r *relation) add(key string, v, seq int64) {
	old, was := r.groups[key]
	if was {
		r.hash -= rowHash(r.text(key, old))
	}
	g := old.add(v, seq)
	r.groups[key] = g
	r.hash += rowHash(r.text(key, g))
}

func (r *relation) rows() []Row {
	out := make([]Row, 0, len(r.groups))
	for k, g := range r.groups {
		out = append(out, r.text(k, g))
	}
	slices.Sort(out)
	return out
}

// model is the batch recomputation: every relation over the records applied so far.
type model struct {
	rels  map[string]*relation
	marks map[uint32]int64 // by partition: the highest event time so far, microseconds
	late  int
}

func newModel() *model {
	m := &model{rels: map[string]*relation{}, marks: map[uint32]int64{}}
	countSumTop := func(k string, g group) Row { return fmt.Sprintf("%s|%d|%d|%d", k, g.n, g.s, g.top) }
	countSum := func(k string, g group) Row { return fmt.Sprintf("%s|%d|%d", k, g.n, g.s) }
	m.rels["by_key"] = &relation{text: countSumTop}
	m.rels["windows"] = &relation{text: countSum}
	m.rels["credits"] = &relation{text: countSum}
	m.rels["debits"] = &relation{text: countSum}
	m.rels["balance"] = &relation{text: func(k string, g group) Row { return fmt.Sprintf("%s|%d", k, g.s) }}
	m.rels["whole"] = &relation{text: func(_ string, g group) Row {
		if g.n == 0 {
			return "0|NULL|NULL"
		}
		return fmt.Sprintf("%d|%d|%d", g.n, g.s, g.top)
	}}
	for _, r := range m.rels {
		r.groups = map[string]group{}
	}
	whole := m.rels["whole"]
	whole.groups[""], whole.hash = group{}, rowHash(whole.text("", group{}))
	return m
}

// apply takes the next record; those of one partition come in the order of their offsets.
func (m *model) apply(r Record) {
	e := r.Event
	v, seq := e.Amount(), int64(e.Seq)
	m.rels["by_key"].add(e.Key(), v, seq)
	m.rels["credits"].add(fmt.Sprint(e.To()), v, seq)
	m.rels["debits"].add(fmt.Sprint(e.From()), v, seq)
	m.rels["balance"].add(fmt.Sprint(e.To()), v, seq)
	m.rels["balance"].add(fmt.Sprint(e.From()), -v, seq)
	m.rels["whole"].add("", v, seq)
	size := WindowSize.Microseconds()
	at := e.Micros()
	start := at - at%size
	if mark, ok := m.marks[r.Partition]; ok && start+size <= mark-Delay.Microseconds() {
		m.late++ // the window had ended for the records before it in its partition
	} else {
		m.rels["windows"].add(FormatTime(start), v, seq)
	}
	m.marks[r.Partition] = max(m.marks[r.Partition], at)
}

// FormatTime is how rows have times.
func FormatTime(micros int64) string { return time.UnixMicro(micros).UTC().Format(time.RFC3339Nano) }

// flatten sorts the log of all partitions by tick; within a tick partition by partition, in the order of the offsets.
func flatten(log map[uint32][]Record) (out []Record) {
	for _, p := range slices.Sorted(maps.Keys(log)) {
		out = append(out, log[p]...)
	}
	slices.SortStableFunc(out, func(a, b Record) int { return cmp.Compare(a.Tick, b.Tick) })
	return out
}

// differ tells how rows differ from the right ones, shortly.
func differ(got, want []Row) string {
	count := map[Row]int{}
	for _, r := range want {
		count[r]++
	}
	for _, r := range got {
		count[r]--
	}
	var missing, extra []Row
	for r, n := range count {
		switch {
		case n > 0:
			missing = append(missing, r)
		case n < 0:
			extra = append(extra, r)
		}
	}
	slices.Sort(missing)
	slices.Sort(extra)
	short := func(rows []Row) string {
		if n := len(rows); n > 8 {
			return strings.Join(rows[:8], ", ") + fmt.Sprintf(", ... (%d)", n)
		}
		return strings.Join(rows, ", ")
	}
	return fmt.Sprintf("has [%s] where [%s] is right", short(extra), short(missing))
}
