package dataflow

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/millrace/millrace/record"
)

// sessionGroups keeps the groups of an aggregate over sessions, for rows that are never taken back: a session only grows,
// and merges with others.
//
// The sessions of a key are in one entry, until they are many: then the older half of them goes to an archive, an entry
// each, in falling order of their starts, so that those that a row touches are found by one short scan.
//
// State, where key is the ordered encoding of the keys before the session, and times are 8 bytes in order:
//
//	(op, 0)                      the highest watermark and horizon so far
//	(op, 1, key)                 the key's sessions; see encode
//	(op, 2, key, start inverted) an archived one
//	(op, 3, time, key)           Final: when to look for sessions to emit, if the key's entry has the same time
//	(op, 4, time, key)           with Expire: when to look for sessions to forget, likewise
//	(op, 5, time, key, start)    with Expire: when an archived one can be forgotten
type sessionGroups struct {
	a      *aggregate
	gap    int64
	keep   int64 // a session is kept until the horizon is that far behind its end
	final  bool
	expire bool
	nk     int

	passed, horizon    int64
	due, doom, archive firstOf

	top   int
	runs  keyRuns
	s     sessionKey
	one   *record.Delta
	key   []byte
	value []byte
	entry []byte
}

const (
	sessionMarks    = 0
	sessionKeys     = 1
	sessionArchive  = 2
	sessionDue      = 3
	sessionDoom     = 4
	sessionForget   = 5
	sessionVersion  = 1
	maxKeySessions  = 16 // in a key's entry
	keptKeySessions = 8  // after the others went to the archive
)

// firstOf is a lower bound of the times in an index.
type firstOf struct {
	at  int64
	has bool
}

func (f *firstOf) note(t int64) {
	if !f.has || t < f.at {
		f.at, f.has = t, true
	}
}

func (f *firstOf) reached(mark int64) bool { return f.has && f.at <= mark }

// session is [start, end) with what its rows add up to.
type session struct {
	start, end int64
	slot       int
	changed    bool // in this tick
}

// sessionKey is what is kept of one key.
type sessionKey struct {
	found     bool
	old       []byte
	due, doom int64 // when they are looked at; NoWatermark: never
	floor     int64 // archived ones end at or below it; NoWatermark: there are none
	sessions  []session
}

func newSessionGroups(a *aggregate, b *builder) (*sessionGroups, error) {
	p := b.op.Aggregate
	if p.Session.Gap <= 0 || p.Session.Gap > farTime {
		return nil, defect("operator %d has sessions with a gap of %d microseconds", b.index, p.Session.Gap)
	}
	if !p.AppendOnly {
		return nil, defect("operator %d groups rows that may be taken back by sessions; that takes session", b.index)
	}
	g := &sessionGroups{a: a, gap: p.Session.Gap, keep: p.Session.Gap, final: p.Session.Final, nk: len(p.Keys) - 2,
		passed: NoWatermark, horizon: NoWatermark}
	if p.Expire != nil {
		g.expire, g.keep = true, max(g.keep, p.Expire.Delay)
	}
	g.one = record.NewDelta(b.out.schema[:g.nk], 1)
	v, ok, err := a.state.Get([]byte{a.index, sessionMarks})
	if err != nil {
		return nil, err
	}
	if ok {
		var rest []byte
		if g.passed, rest, ok = readInt(v); ok {
			g.horizon, _, ok = readInt(rest)
		}
		if !ok {
			return nil, corrupted("the watermark of operator %d doesn't decode", a.index)
		}
	}
	return g, g.findFirsts()
}

func (g *sessionGroups) findFirsts() error {
	for kind, f := range map[byte]*firstOf{sessionDue: &g.due, sessionDoom: &g.doom, sessionForget: &g.archive} {
		if err := firstTime(g.a.state, []byte{g.a.index, kind}, &f.at, &f.has); err != nil {
			return err
		}
	}
	return nil
}

func (g *sessionGroups) nextDue() (int64, bool) { return g.due.at, g.final && g.due.has }

func (g *sessionGroups) endTick(n int, marks Marks) error {
	a := g.a
	a.buf.Weights = a.buf.Weights[:0]
	if a.buf.Weights == nil {
		a.buf.Weights = []int64{}
	}
	g.top = n
	if n > 0 {
		if err := g.runs.sort(a, n, g.nk); err != nil {
			return err
		}
		if err := g.runs.each(a, g.take); err != nil {
			return err
		}
	}
	if marks.Watermark <= g.passed && marks.Horizon <= g.horizon {
		return nil
	}
	before := g.passed
	g.passed, g.horizon = max(g.passed, marks.Watermark), max(g.horizon, marks.Horizon)
	g.value = binary.AppendVarint(binary.AppendVarint(g.value[:0], g.passed), g.horizon)
	if err := a.state.Set([]byte{a.index, sessionMarks}, g.value); err != nil {
		return err
	}
	for g.due.reached(g.passed) {
		if err := g.visit(sessionDue, g.passed, before); err != nil {
			return err
		}
	}
	for g.expire && g.doom.reached(g.horizon) {
		if err := g.visit(sessionDoom, g.horizon, before); err != nil {
			return err
		}
	}
	for g.expire && g.archive.reached(g.horizon) {
		if err := g.forgetArchived(); err != nil {
			return err
		}
	}
	return nil
}

// take merges a key's fragments of the tick with its sessions.
func (g *sessionGroups) take(key []byte, come []int32) error {
	base := g.top
	defer func() { g.top = base }()
	if err := g.load(key); err != nil {
		return err
	}
	starts, ends := g.a.keyCols.Cols[g.nk].Ints, g.a.keyCols.Cols[g.nk+1].Ints
	var gone []session
	for _, i := range come {
		f := session{start: starts[i], end: ends[i], changed: true}
		if f.end-f.start < g.gap || f.start < -farTime || f.end > farTime {
			return defect("operator %d gets a session from %d to %d", g.a.index, f.start, f.end)
		}
		f.slot = g.alloc()
		g.a.addSlot(f.slot, int(i))
		if f.start < g.s.floor {
			if err := g.restore(key, f); err != nil {
				return err
			}
		}
		kept := g.s.sessions[:0]
		for _, s := range g.s.sessions {
			if s.start >= f.end || f.start >= s.end {
				kept = append(kept, s)
				continue
			}
			g.a.addSlot(f.slot, s.slot)
			f.start, f.end = min(f.start, s.start), max(f.end, s.end)
			if !s.changed {
				gone = append(gone, s)
			}
		}
		at := 0
		for at < len(kept) && kept[at].start < f.start {
			at++
		}
		g.s.sessions = slices.Insert(kept, at, f)
	}
	if err := g.emitChanges(key, gone); err != nil {
		return err
	}
	return g.save(key)
}

// out tells whether a session that ends then is in the output.
func (g *sessionGroups) out(end int64) bool { return !g.final || end <= g.passed }

// emitChanges emits the sessions that are gone and those that changed.
func (g *sessionGroups) emitChanges(key []byte, gone []session) error {
	if err := decodeKey(key, g.one); err != nil {
		return err
	}
	for _, s := range g.s.sessions {
		if !s.changed {
			continue
		}
		before := g.a.buf.N
		same := slices.IndexFunc(gone, func(o session) bool { return o.start == s.start && o.end == s.end })
		if same >= 0 {
			if err := g.emit(gone[same], -1); err != nil {
				return err
			}
			gone = slices.Delete(gone, same, same+1)
		}
		if err := g.emit(s, 1); err != nil {
			return err
		}
		if g.a.buf.N == before+2 && g.a.unchanged(before) {
			g.a.dropRows(before)
		}
		if err := g.a.flushBuf(); err != nil {
			return err
		}
	}
	for _, s := range gone {
		if err := g.emit(s, -1); err != nil {
			return err
		}
		if err := g.a.flushBuf(); err != nil {
			return err
		}
	}
	return nil
}

// emit appends a session of the decoded key, if it is in the output.
func (g *sessionGroups) emit(s session, weight int64) error {
	if g.a.rows[s.slot] <= 0 || !g.out(s.end) {
		return nil
	}
	cols := g.a.buf.Cols
	for k := range g.nk {
		cols[k].AppendFrom(&g.one.Cols[k], 0)
	}
	cols[g.nk].AppendInt(s.start)
	cols[g.nk+1].AppendInt(s.end)
	return g.a.appendResults(s.slot, weight)
}

func (g *sessionGroups) alloc() int {
	s := g.top
	g.top++
	g.a.clearSlot(s, g.top)
	return s
}

func (g *sessionGroups) at(kind byte, key []byte) []byte {
	g.key = append(append(g.key[:0], g.a.index, kind), key...)
	return g.key
}

// load reads the entry of a key.
func (g *sessionGroups) load(key []byte) error {
	g.s = sessionKey{old: g.s.old[:0], due: NoWatermark, doom: NoWatermark, floor: NoWatermark, sessions: g.s.sessions[:0]}
	v, ok, err := g.a.state.Get(g.at(sessionKeys, key))
	if err != nil || !ok {
		return err
	}
	g.s.found = true
	g.s.old = append(g.s.old, v...)
	if !g.decode(g.s.old) {
		return corrupted("the sessions of a key of operator %d don't decode", g.a.index)
	}
	return nil
}

// A key's entry: version, the times due, doom and floor, then for each session its start, its length and its group entry.
func (g *sessionGroups) decode(v []byte) (ok bool) {
	if len(v) == 0 || v[0] != sessionVersion {
		return false
	}
	v = v[1:]
	for _, t := range []*int64{&g.s.due, &g.s.doom, &g.s.floor} {
		if *t, v, ok = readInt(v); !ok {
			return false
		}
	}
	for len(v) > 0 {
		s, rest, ok := g.decodeSession(v)
		if !ok {
			return false
		}
		g.s.sessions = append(g.s.sessions, s)
		v = rest
	}
	return true
}

func (g *sessionGroups) decodeSession(v []byte) (s session, rest []byte, ok bool) {
	if s.start, rest, ok = readInt(v); !ok {
		return s, nil, false
	}
	if s.end, rest, ok = readInt(rest); !ok {
		return s, nil, false
	}
	s.end += s.start
	s.slot = g.alloc()
	rest, ok = g.a.loadSlot(s.slot, rest)
	return s, rest, ok
}

func (g *sessionGroups) encodeSession(dst []byte, s session) []byte {
	dst = binary.AppendVarint(binary.AppendVarint(dst, s.start), s.end-s.start)
	return g.a.storeSlot(dst, s.slot)
}

// save writes the entry of a key and its times.
func (g *sessionGroups) save(key []byte) error {
	st := g.a.state
	if len(g.s.sessions) > maxKeySessions {
		if err := g.archiveOldest(key); err != nil {
			return err
		}
	}
	due, doom := int64(NoWatermark), int64(NoWatermark)
	for _, s := range g.s.sessions {
		if g.final && s.end > g.passed && (due == NoWatermark || s.end < due) {
			due = s.end
		}
		if g.expire && (doom == NoWatermark || s.end+g.keep < doom) {
			doom = s.end + g.keep
		}
	}
	if floor := g.s.floor; g.expire && floor != NoWatermark && (doom == NoWatermark || floor+g.keep < doom) {
		doom = floor + g.keep
	}
	// A time that is too early already is kept: the key is looked at then, and finds the later one.
	if err := g.schedule(&g.s.due, due, sessionDue, &g.due, key); err != nil {
		return err
	}
	if err := g.schedule(&g.s.doom, doom, sessionDoom, &g.doom, key); err != nil {
		return err
	}
	if len(g.s.sessions) == 0 && g.s.floor == NoWatermark {
		if !g.s.found {
			return nil
		}
		return st.Delete(g.at(sessionKeys, key))
	}
	v := append(g.entry[:0], sessionVersion)
	for _, t := range []int64{g.s.due, g.s.doom, g.s.floor} {
		v = binary.AppendVarint(v, t)
	}
	for _, s := range g.s.sessions {
		v = g.encodeSession(v, s)
	}
	if g.entry = v; g.s.found && bytes.Equal(v, g.s.old) {
		return nil
	}
	return st.Set(g.at(sessionKeys, key), v)
}

// schedule sees to it that the key is looked at no later than at time `at` (NoWatermark: never).
func (g *sessionGroups) schedule(now *int64, at int64, kind byte, first *firstOf, key []byte) error {
	if at == NoWatermark || *now != NoWatermark && *now <= at {
		return nil
	}
	*now = at
	first.note(at)
	g.key = append(appendTime(append(g.key[:0], g.a.index, kind), at), key...)
	return g.a.state.Set(g.key, nil)
}

// visit looks at the keys whose time has come: to emit what ended after `before`, or to forget.
func (g *sessionGroups) visit(kind byte, mark, before int64) error {
	keys, err := takeTimes(g.a.state, []byte{g.a.index, kind}, mark, 8)
	if err != nil {
		return err
	}
	base := g.top
	for _, k := range keys {
		g.top = base
		at, key := readTime(k), k[8:]
		if err := g.load(key); err != nil {
			return err
		}
		if kind == sessionDue && g.s.due == at {
			g.s.due = NoWatermark
			err = g.emitEnded(key, before)
		} else if kind == sessionDoom && g.s.doom == at {
			g.s.doom = NoWatermark
			g.s.sessions = slices.DeleteFunc(g.s.sessions, func(s session) bool { return s.end+g.keep <= g.horizon })
			if g.s.floor != NoWatermark && g.s.floor+g.keep <= g.horizon {
				g.s.floor = NoWatermark
			}
		} else {
			continue
		}
		if err == nil {
			err = g.save(key)
		}
		if err != nil {
			return err
		}
	}
	g.top = base
	return g.findFirsts()
}

func (g *sessionGroups) emitEnded(key []byte, before int64) error {
	if err := decodeKey(key, g.one); err != nil {
		return err
	}
	for _, s := range g.s.sessions {
		if s.end <= before || s.end > g.passed {
			continue
		}
		if err := g.emit(s, 1); err != nil {
			return err
		}
		if err := g.a.flushBuf(); err != nil {
			return err
		}
	}
	return nil
}

// archiveOldest moves a key's older sessions to the archive: those that are out already, so that the others are found
// when they end.
func (g *sessionGroups) archiveOldest(key []byte) error {
	n := len(g.s.sessions) - keptKeySessions
	for n > 0 && !g.out(g.s.sessions[n-1].end) {
		n--
	}
	for _, s := range g.s.sessions[:n] {
		g.s.floor = max(g.s.floor, s.end)
		g.value = g.encodeSession(g.value[:0], s)
		if err := g.a.state.Set(appendTime(g.at(sessionArchive, key), ^s.start), g.value); err != nil {
			return err
		}
		if !g.expire {
			continue
		}
		g.archive.note(s.end + g.keep)
		g.key = append(appendTime(append(g.key[:0], g.a.index, sessionForget), s.end+g.keep), key...)
		if err := g.a.state.Set(appendTime(g.key, s.start), nil); err != nil {
			return err
		}
	}
	g.s.sessions = slices.Delete(g.s.sessions, 0, n)
	return nil
}

// restore brings archived sessions that f touches back.
func (g *sessionGroups) restore(key []byte, f session) error {
	lo := appendTime(bytes.Clone(g.at(sessionArchive, key)), ^(f.end - 1))
	hi := appendTime(bytes.Clone(g.at(sessionArchive, key)), 1<<63-1)
	var back []session
	err := g.a.state.Scan(lo, hi, func(_, v []byte) (bool, error) {
		s, rest, ok := g.decodeSession(v)
		if !ok || len(rest) > 0 {
			return false, corrupted("an archived session of operator %d doesn't decode", g.a.index)
		}
		if s.end <= f.start {
			return false, nil
		}
		back = append(back, s)
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, s := range back {
		if err := g.a.state.Delete(appendTime(g.at(sessionArchive, key), ^s.start)); err != nil {
			return err
		}
	}
	slices.Reverse(back)
	g.s.sessions = append(back, g.s.sessions...)
	return nil
}

// forgetArchived deletes archived sessions that the horizon has left behind. One that was brought back and archived again
// has a later time too.
func (g *sessionGroups) forgetArchived() error {
	keys, err := takeTimes(g.a.state, []byte{g.a.index, sessionForget}, g.horizon, 16)
	if err != nil {
		return err
	}
	base := g.top
	for _, k := range keys {
		g.top = base
		n := len(k) - 8
		at := appendTime(g.at(sessionArchive, k[8:n]), ^readTime(k[n:]))
		v, ok, err := g.a.state.Get(at)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		g.value = append(g.value[:0], v...)
		s, _, ok := g.decodeSession(g.value)
		if !ok {
			return corrupted("an archived session of operator %d doesn't decode", g.a.index)
		}
		if s.end+g.keep <= g.horizon {
			if err := g.a.state.Delete(at); err != nil {
				return err
			}
		}
	}
	g.top = base
	return g.findFirsts()
}
