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

// relation is the rows of a relation, each under a key of its own.
type relation struct {
	byKey map[string]Row
	hash  uint64
}

// set makes row the one of key; an empty one takes it away.
func (r *relation) set(key string, row Row) {
	old, was := r.byKey[key]
	if was {
		if old == row {
			return
		}
		r.hash -= rowHash(old)
		delete(r.byKey, key)
	}
	if row != "" {
		r.byKey[key] = row
		r.hash += rowHash(row)
	}
}

func (r *relation) rows() []Row { return slices.Sorted(maps.Values(r.byKey)) }

// point returns the rows whose first column is key.
func (r *relation) point(key string) (rows []Row) {
	for _, row := range r.byKey {
		if first, _, _ := strings.Cut(row, "|"); first == key {
			rows = append(rows, row)
		}
	}
	return rows
}

// follower brings a relation up to date with an event or a table's change, which the model has applied. Either may be nil.
type follower struct {
	event  func(arrived)
	change func(Change)
}

// arrived is an event in the log, taken apart once for all relations.
type arrived struct {
	key           string
	producer, seq int64
	from, to      int64
	amount        int64
	at            int64 // its event time
	mark          int64 // the highest event time of the records before it in its partition
	marked        bool  // there are such
}

// model is the batch recomputation: every relation that is asked for, over the records applied so far.
type model struct {
	rels      map[string]*relation
	followers []follower

	all     group
	in, out map[int64]group  // by account
	table   map[int64]Change // by account: the rows of the table
	marks   map[uint32]int64 // by partition: the highest event time so far, microseconds
	late    int
}

// newModel returns a model of the relations named.
func newModel(names map[string]bool) *model {
	m := &model{rels: map[string]*relation{}, in: map[int64]group{}, out: map[int64]group{}, table: map[int64]Change{}, marks: map[uint32]int64{}}
	for _, r := range Relations {
		if names[r.Name] {
			rel := &relation{byKey: map[string]Row{}}
			m.rels[r.Name] = rel
			m.followers = append(m.followers, r.follow(m, rel))
		}
	}
	return m
}

// apply takes the next record; those of one partition come in the order of their offsets.
func (m *model) apply(r Record) {
	e := r.Event
	x := arrived{key: e.Key(), producer: int64(e.Producer), seq: int64(e.Seq), from: e.From(), to: e.To(), amount: e.Amount(), at: e.Micros()}
	x.mark, x.marked = m.marks[r.Partition]
	m.marks[r.Partition] = max(x.mark, x.at)
	if _, ok := x.tumble(); !ok {
		m.late++
	}
	m.all = m.all.add(x.amount, x.seq)
	m.in[x.to] = m.in[x.to].add(x.amount, x.seq)
	m.out[x.from] = m.out[x.from].add(x.amount, x.seq)
	for _, f := range m.followers {
		if f.event != nil {
			f.event(x)
		}
	}
}

// change takes the next record of the table; those of one partition come in the order of their offsets.
func (m *model) change(c Change) {
	if c.Deleted {
		delete(m.table, c.Account)
	} else {
		m.table[c.Account] = c
	}
	for _, f := range m.followers {
		if f.change != nil {
			f.change(c)
		}
	}
}

// FormatTime is how rows have times.
func FormatTime(micros int64) string { return time.UnixMicro(micros).UTC().Format(time.RFC3339Nano) }

// flatten sorts the log of all partitions by tick; within a tick partition by partition, in the order of the offsets.
func flatten[R any](log map[uint32][]R, tick func(R) uint64) (out []R) {
	for _, p := range slices.Sorted(maps.Keys(log)) {
		out = append(out, log[p]...)
	}
	slices.SortStableFunc(out, func(a, b R) int { return cmp.Compare(tick(a), tick(b)) })
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
