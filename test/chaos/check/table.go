package check

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Rows of the table: the first Counters accounts are there from the beginning and only counted up, one at a time; the
// others up to TableAccounts come, change and go.
const (
	Counters      = 4
	TableAccounts = 12
)

// Change is a record in the table's log: a row's new values, or its end.
type Change struct {
	Partition uint32
	Offset    uint64
	Tick      uint64
	Account   int64
	Deleted   bool
	Name      string
	R         int64
}

// ParseChange reads a record of the table's log: all columns in JSON, or no value and the account as the key.
func ParseChange(key, value []byte) (c Change, err error) {
	if len(value) == 0 {
		c.Deleted = true
		if err := json.Unmarshal(key, &c.Account); err != nil {
			return c, fmt.Errorf("key %q: %w", key, err)
		}
		return c, nil
	}
	var v struct {
		A    *int64  `json:"a"`
		Name *string `json:"name"`
		R    *int64  `json:"r"`
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return c, fmt.Errorf("%q: %w", value, err)
	}
	if v.A == nil || v.Name == nil || v.R == nil {
		return c, fmt.Errorf("%q lacks a column", value)
	}
	c.Account, c.Name, c.R = *v.A, *v.Name, *v.R
	return c, nil
}

// Statements are what became of the statements that count the table's counters up. It may be used by several goroutines
// at once.
//
// The checks: counter (a statement that was told to have worked counts not once, or one that failed counts), row-history
// (a row that isn't there is changed or deleted, one that is there is inserted), and what Ledger calls inconsistent-offsets,
// skipped-poll and tick-order, of the table's log.
type Statements struct {
	f             *Findings
	mu            sync.Mutex
	done, unknown [Counters]int64
	count         int
	evidence      [Counters][]string
	log           map[uint32][]Change // as read first
}

// NewStatements returns an empty collection.
func NewStatements(f *Findings) *Statements { return &Statements{f: f} }

// Counted says what became of a statement that counts an account up: it is to have changed one row.
func (s *Statements) Counted(account int64, out Outcome, one bool, evidence string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	s.evidence[account] = append(s.evidence[account], evidence)
	if out == Done && !one {
		s.f.Add("counter", "counter %d wasn't found, though it is always there: %s", account, evidence)
		return
	}
	switch out {
	case Done:
		s.done[account]++
	case Unknown:
		s.unknown[account]++
	}
}

// Count returns how many statements there were.
func (s *Statements) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Final compares the table's log, as who read it, with the statements and with what others read.
func (s *Statements) Final(who string, log map[uint32][]Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		s.log = log
	} else if !maps.EqualFunc(s.log, log, slices.Equal) {
		s.f.Add("inconsistent-offsets", "the table's log as %s isn't what it was before", who)
	}
	for p, changes := range log {
		tick := uint64(0)
		rows := map[int64]Change{}
		for i, c := range changes {
			if c.Offset != uint64(i) {
				s.f.Add("skipped-poll", "%s: record %d of the table's partition %d has offset %d", who, i, p, c.Offset)
			}
			if c.Tick < tick {
				s.f.Add("tick-order", "%s: the table's partition %d, offset %d has tick %d after %d", who, p, c.Offset, c.Tick, tick)
			}
			tick = c.Tick
			s.history(who, c, rows)
		}
		for a, c := range rows {
			if a < Counters {
				s.counter(who, c, changes)
			}
		}
	}
}

// history follows one key's rows: counters go up by one, and of the others none is deleted that isn't there.
func (s *Statements) history(who string, c Change, rows map[int64]Change) {
	old, was := rows[c.Account]
	switch {
	case c.Account < Counters && (c.Deleted || was && c.R != old.R+1 || !was && c.R != 0):
		s.f.Add("counter", "%s: %+v comes after %+v", who, c, old)
	case c.Deleted && !was:
		s.f.Add("row-history", "%s: %+v deletes a row that isn't there", who, c)
	case !c.Deleted && was && c.R != old.R+1, !c.Deleted && !was && c.R != 0:
		s.f.Add("row-history", "%s: %+v comes after %+v (%v)", who, c, old, was)
	}
	if c.Deleted {
		delete(rows, c.Account)
	} else {
		rows[c.Account] = c
	}
}

func (s *Statements) counter(who string, c Change, log []Change) {
	done, unknown := s.done[c.Account], s.unknown[c.Account]
	if c.R >= done && c.R <= done+unknown {
		return
	}
	evidence := strings.Join(s.evidence[c.Account], "\n")
	for _, r := range log {
		if r.Account == c.Account {
			evidence += fmt.Sprintf("\n%+v", r)
		}
	}
	s.f.Add("counter", "%s: counter %d is at %d; %d statements were told to have counted it, of %d that isn't known\n%s",
		who, c.Account, c.R, done, unknown, evidence)
}
