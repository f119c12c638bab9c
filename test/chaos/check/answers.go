package check

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Answers are what nodes said of relations at ticks. They are judged in the end, when the log is known, against the
// recomputation over all records up to their tick. It may be used by several goroutines at once.
//
// The checks: answer (a query's rows aren't the recomputation), subscription (the rows after a tick's change aren't),
// balance (what must sum to 0 over all accounts doesn't), stale (an answer is older than what its session had seen),
// subscription-order (a tick comes twice or out of order), negative-weight (a row disappears that wasn't there).
type Answers struct {
	f  *Findings
	mu sync.Mutex

	list     []answer
	rawBytes int
	judged   int
}

type answer struct {
	tick     uint64
	relation string
	hash     uint64
	check    string
	who      string
	point    string // only the rows whose first column is this, if not empty
	rows     []Row  // nil: not kept
}

// maxRaw bounds the rows kept as evidence, bytes.
const maxRaw = 128 << 20

// NewAnswers returns an empty collection.
func NewAnswers(f *Findings) *Answers { return &Answers{f: f} }

// Query says that a query of a relation, in a session that had seen a tick, was answered with rows at a tick.
func (a *Answers) Query(who, relation string, tick, seen uint64, rows []Row) {
	if tick < seen {
		a.f.Add("stale", "%s: %s was answered at tick %d, the session had seen %d", who, relation, tick, seen)
	}
	if zero := zeroColumn(relation); zero >= 0 {
		total := int64(0)
		for _, r := range rows {
			total += number(r, zero)
		}
		if total != 0 {
			a.f.Add("balance", "%s: %s sums to %d at tick %d: %v", who, relation, total, tick, rows)
		}
	}
	a.add(answer{tick: tick, relation: relation, hash: HashRows(rows), check: "answer", who: who}, rows)
}

// Point says that a query of an account's rows of a relation was answered.
func (a *Answers) Point(who, relation string, account int64, tick, seen uint64, rows []Row) {
	if tick < seen {
		a.f.Add("stale", "%s: %s was answered at tick %d, the session had seen %d", who, relation, tick, seen)
	}
	a.add(answer{tick: tick, relation: relation, hash: HashRows(rows), check: "answer", who: who, point: fmt.Sprint(account)}, rows)
}

func (a *Answers) add(x answer, rows []Row) {
	a.mu.Lock()
	defer a.mu.Unlock()
	size := 0
	for _, r := range rows {
		size += len(r) + 16
	}
	if a.rawBytes+size <= maxRaw && rows != nil {
		a.rawBytes += size
		x.rows = slices.Clone(rows)
	}
	a.list = append(a.list, x)
}

// zeroColumn is the column of a relation whose sum is 0 at any tick, or -1.
func zeroColumn(relation string) int {
	if r := relationNamed(relation); r != nil {
		return r.Zero
	}
	return -1
}

// number is a row's column as a number; NULL is 0.
func number(r Row, col int) (n int64) {
	text := strings.Split(r, "|")
	if col >= len(text) || text[col] == "NULL" {
		return 0
	}
	n, err := strconv.ParseInt(text[col], 10, 64)
	if err != nil {
		return math.MaxInt32 // no sum of such is 0
	}
	return n
}

// Count returns how many answers were taken.
func (a *Answers) Count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.list)
}

// Judge compares all answers with the recomputation over the log of the events and that of the table, and returns how
// many late records the windows have left out.
func (a *Answers) Judge(log map[uint32][]Record, table map[uint32][]Change) (late int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	slices.SortStableFunc(a.list, func(x, y answer) int { return cmp.Compare(x.tick, y.tick) })
	names := map[string]bool{}
	for _, x := range a.list {
		names[x.relation] = true
	}
	m := newModel(names)
	recs := flatten(log, func(r Record) uint64 { return r.Tick })
	changes := flatten(table, func(c Change) uint64 { return c.Tick })
	for _, x := range a.list {
		for len(recs) > 0 && recs[0].Tick <= x.tick {
			m.apply(recs[0])
			recs = recs[1:]
		}
		for len(changes) > 0 && changes[0].Tick <= x.tick {
			m.change(changes[0])
			changes = changes[1:]
		}
		r := m.rels[x.relation]
		if r == nil {
			panic("no model of " + x.relation)
		}
		want := r.hash
		if x.point != "" {
			want = HashRows(r.point(x.point))
		}
		if x.hash == want {
			continue
		}
		if x.point != "" {
			a.f.Add(x.check, "%s: %s of %s at tick %d %s", x.who, x.relation, x.point, x.tick, differ(x.rows, r.point(x.point)))
		} else if x.rows != nil {
			a.f.Add(x.check, "%s: %s at tick %d %s", x.who, x.relation, x.tick, differ(x.rows, r.rows()))
		} else {
			a.f.Add(x.check, "%s: %s at tick %d differs from the recomputation, which has %d rows", x.who, x.relation, x.tick, len(r.byKey))
		}
	}
	a.judged += len(a.list)
	a.list = nil
	for _, r := range recs {
		m.apply(r)
	}
	return m.late
}

// Subscription follows one subscription of a relation.
type Subscription struct {
	a        *Answers
	who      string
	relation string
	mu       sync.Mutex
	tick     uint64
	begun    bool
	counts   map[Row]int64
	hash     uint64
	zero     int   // the column that sums to 0, or -1
	total    int64 // its sum
}

// Changed is a row with its weight.
type Changed struct {
	Row    Row
	Weight int64
}

// Subscription begins a subscription that starts with the rows as of its first tick.
func (a *Answers) Subscription(who, relation string) *Subscription {
	return &Subscription{a: a, who: who, relation: relation, counts: map[Row]int64{}, zero: zeroColumn(relation)}
}

// Name says which subscription it is.
func (s *Subscription) Name() string { return s.who + " to " + s.relation }

// Tick returns the last tick that was delivered.
func (s *Subscription) Tick() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tick
}

// Change takes a whole tick's change; no rows when ticks passed without one.
func (s *Subscription) Change(tick uint64, rows []Changed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun && tick <= s.tick {
		s.a.f.Add("subscription-order", "%s: %s got tick %d after %d", s.who, s.relation, tick, s.tick)
	}
	s.begun, s.tick = true, tick
	for _, r := range rows {
		s.counts[r.Row] += r.Weight
		s.hash += uint64(r.Weight) * rowHash(r.Row)
		if s.zero >= 0 {
			s.total += r.Weight * number(r.Row, s.zero)
		}
	}
	for _, r := range rows {
		if n := s.counts[r.Row]; n < 0 {
			s.a.f.Add("negative-weight", "%s: %s has row %s %d times after tick %d", s.who, s.relation, r.Row, n, tick)
		} else if n == 0 {
			delete(s.counts, r.Row)
		}
	}
	if s.total != 0 {
		s.a.f.Add("balance", "%s: %s sums to %d after tick %d", s.who, s.relation, s.total, tick)
	}
	s.a.add(answer{tick: tick, relation: s.relation, hash: s.hash, check: "subscription", who: s.who}, s.few())
}

// few are the rows as evidence, when they are few.
func (s *Subscription) few() []Row {
	if len(s.counts) > 12 {
		return nil
	}
	out := make([]Row, 0, len(s.counts))
	for r, n := range s.counts {
		for range n {
			out = append(out, r)
		}
	}
	return out
}
