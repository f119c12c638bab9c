package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Answers are what nodes said of relations at ticks. They are judged in the end, when the log is known, against the
// recomputation over all records up to their tick. It may be used by several goroutines at once.
//
// The checks: answer (a query's rows aren't the recomputation), subscription (the rows after a tick's change aren't),
// balance (the total over all accounts isn't 0), stale (an answer is older than what its session had seen),
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
	rows     []Row // nil: not kept
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
	if relation == "balance" {
		total := int64(0)
		for _, r := range rows {
			var account, s int64
			fmt.Sscanf(strings.ReplaceAll(r, "|", " "), "%d %d", &account, &s)
			total += s
		}
		if total != 0 {
			a.f.Add("balance", "%s: the total of all accounts is %d at tick %d: %v", who, total, tick, rows)
		}
	}
	a.add(answer{tick: tick, relation: relation, hash: HashRows(rows), check: "answer", who: who}, rows)
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

// Count returns how many answers were taken.
func (a *Answers) Count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.list)
}

// Judge compares all answers with the recomputation, and returns how many late records the windows have left out.
func (a *Answers) Judge(log map[uint32][]Record) (late int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	slices.SortStableFunc(a.list, func(x, y answer) int { return cmp.Compare(x.tick, y.tick) })
	m, recs := newModel(), flatten(log)
	for _, x := range a.list {
		for len(recs) > 0 && recs[0].Tick <= x.tick {
			m.apply(recs[0])
			recs = recs[1:]
		}
		r := m.rels[x.relation]
		if r == nil {
			panic("no model of " + x.relation)
		}
		if x.hash == r.hash {
			continue
		}
		if x.rows != nil {
			a.f.Add(x.check, "%s: %s at tick %d %s", x.who, x.relation, x.tick, differ(x.rows, r.rows()))
		} else {
			a.f.Add(x.check, "%s: %s at tick %d differs from the recomputation, which has %d rows", x.who, x.relation, x.tick, len(r.groups))
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
}

// Changed is a row with its weight.
type Changed struct {
	Row    Row
	Weight int64
}

// Subscription begins a subscription that starts with the rows as of its first tick.
func (a *Answers) Subscription(who, relation string) *Subscription {
	return &Subscription{a: a, who: who, relation: relation, counts: map[Row]int64{}}
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
	}
	for _, r := range rows {
		if n := s.counts[r.Row]; n < 0 {
			s.a.f.Add("negative-weight", "%s: %s has row %s %d times after tick %d", s.who, s.relation, r.Row, n, tick)
		} else if n == 0 {
			delete(s.counts, r.Row)
		}
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
