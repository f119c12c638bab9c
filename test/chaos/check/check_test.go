package check

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// history is a small run: three producers' events over two partitions, everything acknowledged, read and right.
type history struct {
	f       *Findings
	ledger  *Ledger
	answers *Answers
	log     map[uint32][]Record
}

func newHistory(n int) *history {
	h := &history{f: NewFindings(io.Discard), log: map[uint32][]Record{}}
	h.ledger, h.answers = NewLedger(h.f), NewAnswers(h.f)
	for i := range n {
		e := Event{uint32(i % 3), uint32(i / 3)}
		p := uint32(len(e.Key())+int(e.Key()[len(e.Key())-1])+int(e.Producer)) % 2 // by key
		r := Record{p, uint64(len(h.log[p])), uint64(100 + i/4), e}
		h.log[p] = append(h.log[p], r)
		h.ledger.Sent(e)
		h.ledger.Acked(r, 0)
	}
	return h
}

// poll has a reader see some records.
func (h *history) poll(recs ...Record) {
	p := h.ledger.Poll("reader", map[uint32]uint64{})
	for _, r := range recs {
		p.Saw(r)
	}
}

func (h *history) expect(t *testing.T, check string) {
	t.Helper()
	got := h.f.Checks()
	if check == "" && len(got) > 0 || check != "" && !slices.Contains(got, check) {
		t.Errorf("found %v, want %q: %v", got, check, h.f.list)
	}
}

// TestLedger: each check of the log finds what it is for, and nothing where all is well.
func TestLedger(t *testing.T) {
	for _, c := range []struct {
		name, check string
		do          func(h *history)
	}{
		{"all well", "", func(h *history) {
			h.poll(h.log[0]...)
			h.poll(h.log[1]...)
		}},
		{"an acknowledged record is missing at the end", "lost-write", func(h *history) { h.log[0] = h.log[0][:len(h.log[0])-1] }},
		{"an acknowledged record was replaced", "inconsistent-offsets", func(h *history) {
			h.ledger.Sent(Event{9, 0})
			h.log[0][3].Event = Event{9, 0}
		}},
		{"an acknowledged record has moved", "lost-write", func(h *history) {
			h.log[0][1], h.log[0][2] = h.log[0][2], h.log[0][1]
			h.log[0][1].Offset, h.log[0][2].Offset = 1, 2
		}},
		{"a record is there twice", "duplicate", func(h *history) {
			r := h.log[0][0]
			r.Offset = uint64(len(h.log[0]))
			r.Tick = 1000
			h.log[0] = append(h.log[0], r)
		}},
		{"a record was acknowledged at two places", "inconsistent-offsets", func(h *history) {
			r := h.log[0][1]
			r.Event = Event{0, 0}
			h.ledger.Acked(r, 0)
		}},
		{"a reader saw what isn't in the log", "uncommitted-read", func(h *history) {
			h.ledger.Sent(Event{0, 100})
		}},
		{"a reader missed a record", "skipped-poll", func(h *history) { h.poll(h.log[0][0], h.log[0][2]) }},
		{"a reader went back", "nonmonotonic-poll", func(h *history) { h.poll(h.log[0][0], h.log[0][1], h.log[0][0]) }},
		{"two readers saw different records", "inconsistent-offsets", func(h *history) {
			r := h.log[0][0]
			r.Tick++
			h.poll(r)
		}},
		{"a tick has changed", "lost-write", func(h *history) { h.log[0][len(h.log[0])-1].Tick += 5 }},
		{"ticks fall", "tick-order", func(h *history) { h.log[0][2].Tick = 1 }},
		{"nobody sent it", "phantom", func(h *history) {
			h.log[0] = append(h.log[0], Record{0, uint64(len(h.log[0])), 1000, Event{77, 5}})
		}},
		{"a key's records are out of order", "nonmonotonic-send", func(h *history) {
			a := h.log[0]
			for i := range a {
				for j := i + 1; j < len(a); j++ {
					if a[i].Event.Key() == a[j].Event.Key() {
						a[i].Event, a[j].Event = a[j].Event, a[i].Event
						return
					}
				}
			}
		}},
		{"stamped before what its producer had seen", "causality", func(h *history) {
			h.ledger.Acked(h.log[0][0], h.log[0][0].Tick+1)
		}},
		{"a gap in the log", "skipped-poll", func(h *history) { h.log[0] = slices.Delete(h.log[0], 2, 3) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHistory(60)
			if c.check == "uncommitted-read" {
				for i := uint32(20); i < 101; i++ { // sent, and given up
					h.ledger.Sent(Event{0, i})
					h.ledger.GaveUp(Event{0, i})
				}
				p := h.ledger.Poll("reader", map[uint32]uint64{1: uint64(len(h.log[1]))})
				p.Saw(Record{1, uint64(len(h.log[1])), 1000, Event{0, 100}})
			} else {
				c.do(h)
			}
			h.ledger.Final("the log", h.log)
			h.expect(t, c.check)
		})
	}
}

// rowsAt is the right answer, computed here a second time and in another way.
func (h *history) creditsAt(tick uint64) (rows []Row) {
	for account := range int64(Accounts) {
		n, s := int64(0), int64(0)
		for _, recs := range h.log {
			for _, r := range recs {
				if r.Tick <= tick && r.Event.To() == account {
					n++
					s += r.Event.Amount()
				}
			}
		}
		if n > 0 {
			rows = append(rows, strings.Join([]string{itoa(account), itoa(n), itoa(s)}, "|"))
		}
	}
	return rows
}

func itoa(n int64) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

// TestAnswers: answers that are not the recomputation are found.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, check string
		do          func(h *history)
	}{
		{"all well", "", func(h *history) {
			for tick := uint64(100); tick < 116; tick++ {
				h.answers.Query("n1", "credits", tick, tick, h.creditsAt(tick))
			}
			h.answers.Query("n1", "whole", 99, 0, []Row{"0|NULL|NULL"})
		}},
		{"the rows of another tick", "answer", func(h *history) { h.answers.Query("n1", "credits", 105, 0, h.creditsAt(104)) }},
		{"a row too few", "answer", func(h *history) { h.answers.Query("n1", "credits", 105, 0, h.creditsAt(105)[1:]) }},
		{"a row twice", "answer", func(h *history) {
			rows := h.creditsAt(105)
			h.answers.Query("n1", "credits", 105, 0, append(rows, rows[0]))
		}},
		{"half of a tick", "answer", func(h *history) {
			h.answers.Query("n1", "whole", 100, 0, []Row{"2|100|0"})
		}},
		{"older than the session has seen", "stale", func(h *history) { h.answers.Query("n1", "credits", 105, 106, h.creditsAt(105)) }},
		{"money from nowhere", "balance", func(h *history) { h.answers.Query("n1", "balance", 99, 0, []Row{"1|50", "2|-49"}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHistory(60)
			c.do(h)
			h.answers.Judge(h.log, nil)
			h.expect(t, c.check)
		})
	}
}

// subscribe delivers the changes of credits tick by tick, as drop says: the rows of a tick changed by edit.
func (h *history) subscribe(edit func(tick uint64, rows []Changed) []Changed) {
	s := h.answers.Subscription("subscription", "credits")
	var before []Row
	for tick := uint64(100); tick < 116; tick++ {
		now := h.creditsAt(tick)
		var rows []Changed
		for _, r := range before {
			if !slices.Contains(now, r) {
				rows = append(rows, Changed{r, -1})
			}
		}
		for _, r := range now {
			if !slices.Contains(before, r) {
				rows = append(rows, Changed{r, 1})
			}
		}
		before = now
		s.Change(tick, edit(tick, rows))
	}
}

// TestSubscription: a subscription that leaves out, doubles or splits a tick is found.
func TestSubscription(t *testing.T) {
	for _, c := range []struct {
		name, check string
		edit        func(tick uint64, rows []Changed) []Changed
	}{
		{"all well", "", func(_ uint64, rows []Changed) []Changed { return rows }},
		{"a tick left out", "subscription", func(tick uint64, rows []Changed) []Changed {
			if tick == 105 {
				return nil
			}
			return rows
		}},
		{"a part of a tick", "subscription", func(tick uint64, rows []Changed) []Changed {
			if tick == 105 {
				return rows[:len(rows)-1]
			}
			return rows
		}},
		{"a row doubled", "subscription", func(tick uint64, rows []Changed) []Changed {
			if tick == 105 {
				return append(rows, rows[len(rows)-1])
			}
			return rows
		}},
		{"a row taken away twice", "negative-weight", func(tick uint64, rows []Changed) []Changed {
			if tick == 105 {
				return append(rows, Changed{"no such row", -1})
			}
			return rows
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHistory(60)
			h.subscribe(c.edit)
			h.answers.Judge(h.log, nil)
			h.expect(t, c.check)
		})
	}
	h := newHistory(60)
	s := h.answers.Subscription("subscription", "credits")
	s.Change(101, nil)
	s.Change(101, nil)
	h.expect(t, "subscription-order")
}

// TestCatalog: histories that no order explains are found, those with unknown outcomes are not accused.
func TestCatalog(t *testing.T) {
	create, drop := CatalogOp{"x", true}, CatalogOp{"x", false}
	type op struct {
		op     CatalogOp
		out    Outcome
		called time.Duration
		ended  time.Duration
	}
	for _, c := range []struct {
		name, check string
		ops         []op
	}{
		{"in turn", "", []op{{create, Done, 0, 1}, {create, Refused, 2, 3}, {drop, Done, 4, 5}, {drop, Refused, 6, 7}, {create, Done, 8, 9}}},
		{"at once", "", []op{{create, Done, 0, 10}, {drop, Done, 0, 10}, {create, Done, 0, 10}}},
		{"created twice", "catalog", []op{{create, Done, 0, 1}, {create, Done, 2, 3}}},
		{"dropped before it was created", "catalog", []op{{drop, Done, 0, 1}, {create, Done, 2, 3}}},
		{"forgotten", "catalog", []op{{create, Done, 0, 1}, {drop, Refused, 2, 3}}},
		{"an unknown create that took effect", "", []op{{create, Unknown, 0, 1}, {drop, Done, 5, 6}, {create, Done, 7, 8}}},
		{"an unknown create that took effect late", "", []op{{create, Unknown, 0, 1}, {drop, Refused, 2, 3}, {drop, Done, 5, 6}}},
		{"an unknown create that can't have happened twice", "catalog", []op{{create, Unknown, 0, 1}, {drop, Done, 5, 6}, {drop, Done, 7, 8}}},
		{"an unknown drop without effect", "", []op{{create, Done, 0, 1}, {drop, Unknown, 2, 3}, {create, Refused, 4, 5}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := NewFindings(io.Discard)
			h := NewCatalog(f)
			for i, o := range c.ops {
				h.Op(i, o.op, o.out, o.called, o.ended)
			}
			h.Judge(time.Minute)
			if got := f.Count() > 0; got != (c.check != "") {
				t.Errorf("found %v, want %q", f.list, c.check)
			}
		})
	}
}

// TestEvent: what isn't byte for byte as it was sent is no event.
func TestEvent(t *testing.T) {
	e := Event{3, 12345}
	if got, err := ParseEvent(e.JSON()); err != nil || got != e {
		t.Fatalf("%v, %v", got, err)
	}
	if e.From() == e.To() {
		t.Error("a transfer to itself")
	}
	for i := range e.JSON() {
		b := e.JSON()
		b[i] ^= 1
		if got, err := ParseEvent(b); err == nil {
			t.Fatalf("%s is taken for %v", b, got)
		}
	}
}
