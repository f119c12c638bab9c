package dataflow

import (
	"bytes"
	"encoding/binary"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// A list of values is, for each in order: the length of its bytes (varint), the bytes, for each filter its count (varint).

func appendListed(dst, key []byte, counts []int64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	for _, n := range counts {
		dst = binary.AppendVarint(dst, n)
	}
	return dst
}

func allZero(counts []int64) bool {
	for _, n := range counts {
		if n != 0 {
			return false
		}
	}
	return true
}

// nextListed returns the first value of a list and what follows. Counts has room for one count a filter.
func (m *multiset) nextListed(list []byte, counts []int64) (key, rest []byte, err error) {
	key, rest, ok := readBytes(list)
	for f := range counts {
		if ok {
			counts[f], rest, ok = readInt(rest)
		}
	}
	if !ok || m.ints && len(key) != 8 {
		return nil, nil, corrupted("the values of an aggregate don't decode")
	}
	return key, rest, nil
}

func (m *multiset) eachListed(list []byte, fn func(key []byte, counts []int64) error) error {
	counts := make([]int64, len(m.filters))
	for len(list) > 0 {
		key, rest, err := m.nextListed(list, counts)
		if err != nil {
			return err
		}
		if err := fn(key, counts); err != nil {
			return err
		}
		list = rest
	}
	return nil
}

// listLength returns the number of values of a list that decodes.
func (m *multiset) listLength(list []byte) (n int) {
	_ = m.eachListed(list, func([]byte, []int64) error { n++; return nil })
	return n
}

// Entries of a group: a byte, then the list after its length, or the number of values in the index and the totals.
const (
	valuesInline  = 0
	valuesIndexed = 1
)

func (m *multiset) store(dst []byte, s int) []byte {
	if !m.spilled[s] {
		dst = binary.AppendUvarint(append(dst, valuesInline), uint64(len(m.lists[s])))
		return append(dst, m.lists[s]...)
	}
	dst = binary.AppendVarint(append(dst, valuesIndexed), m.size[s])
	for _, n := range m.totalsOf(s) {
		dst = binary.AppendVarint(dst, n)
	}
	return dst
}

func (m *multiset) load(s int, src []byte) (rest []byte, ok bool) {
	m.clear(s)
	if len(src) == 0 || src[0] > valuesIndexed {
		return nil, false
	}
	if src[0] == valuesInline {
		list, rest, ok := readBytes(src[1:])
		if !ok || m.setList(s, bytes.Clone(list)) != nil {
			return nil, false
		}
		return rest, true
	}
	if m.whole {
		return nil, false
	}
	m.spilled[s] = true
	if m.size[s], rest, ok = readInt(src[1:]); !ok {
		return nil, false
	}
	totals := m.totalsOf(s)
	for f := range totals {
		if totals[f], rest, ok = readInt(rest); !ok {
			return nil, false
		}
	}
	return rest, true
}

// setList gives slot s a list.
func (m *multiset) setList(s int, list []byte) error {
	m.lists[s] = list
	totals := m.totalsOf(s)
	clear(totals)
	return m.eachListed(list, func(_ []byte, counts []int64) error {
		for f, n := range counts {
			totals[f] += m.times(n)
		}
		return nil
	})
}

// times returns how often a value counts that is there n times.
func (m *multiset) times(n int64) int64 {
	switch {
	case n <= 0:
		return 0
	case m.distinct:
		return 1
	}
	return n
}

func (m *multiset) totalsOf(s int) []int64 { return m.totals[s*len(m.filters) : (s+1)*len(m.filters)] }

func (m *multiset) clear(s int) {
	m.lists[s], m.spilled[s], m.size[s], m.touched[s] = nil, false, 0, false
	clear(m.totalsOf(s))
}

func (m *multiset) empty(s int) bool { return !m.touched[s] && len(m.lists[s]) == 0 && m.size[s] == 0 }

// add adds the list of slot src to that of dst, where there is no index; else apply does what there is to do.
func (m *multiset) add(dst, src int) {
	if !m.whole || len(m.lists[src]) == 0 {
		return
	}
	a, b := m.lists[dst], m.lists[src]
	ca, cb := make([]int64, len(m.filters)), make([]int64, len(m.filters))
	var out []byte
	for len(a) > 0 || len(b) > 0 {
		ka, ra, _ := m.peekListed(a, ca)
		kb, rb, _ := m.peekListed(b, cb)
		order := 0
		switch {
		case ka == nil:
			order = 1
		case kb == nil:
			order = -1
		default:
			order = bytes.Compare(ka, kb)
		}
		switch {
		case order < 0:
			out, a = appendListed(out, ka, ca), ra
		case order > 0:
			out, b = appendListed(out, kb, cb), rb
		default:
			m.sum(ca, cb)
			if !allZero(ca) {
				out = appendListed(out, ka, ca)
			}
			a, b = ra, rb
		}
	}
	_ = m.setList(dst, out) // both lists decoded when they were loaded
}

// peekListed is nextListed, or a nil key at the end.
func (m *multiset) peekListed(list []byte, counts []int64) (key, rest []byte, err error) {
	if len(list) == 0 {
		return nil, nil, nil
	}
	key, rest, err = m.nextListed(list, counts)
	if key == nil && err == nil {
		key = list[:0]
	}
	return key, rest, err
}

// sum adds weights to counts.
func (m *multiset) sum(counts, weights []int64) {
	for f, w := range weights {
		counts[f] += w
		if m.distinct && m.appendOnly && counts[f] > 1 {
			counts[f] = 1
		}
	}
}

// settle makes lists of the tick's changes, where there is no index.
func (m *multiset) settle() error {
	nf := len(m.filters)
	counts := make([]int64, nf)
	for s := range m.touched {
		if !m.touched[s] {
			continue
		}
		m.touched[s] = false
		var list []byte
		for _, c := range m.changed(s) {
			clear(counts)
			m.sum(counts, m.weights[int(c)*nf:(int(c)+1)*nf])
			if !allZero(counts) {
				m.key = m.appendValue(m.key[:0], c)
				list = appendListed(list, m.key, counts)
			}
		}
		if err := m.setList(s, list); err != nil {
			return err
		}
	}
	return nil
}

// bind says whose values the slots' index has.
func (m *multiset) bind(st State, group []byte) { m.state, m.group = st, group }

// apply brings what is stored of a group up to date: slot `stored` has it as it was, slot s the tick's changes, and then
// what there is.
func (m *multiset) apply(s, stored int) error {
	changes := m.changed(s)
	m.touched[s] = false
	m.lists[s], m.spilled[s], m.size[s] = m.lists[stored], m.spilled[stored], m.size[stored]
	copy(m.totalsOf(s), m.totalsOf(stored))
	if len(changes) == 0 {
		return nil
	}
	for _, c := range m.consumers {
		c.begin()
	}
	var err error
	switch {
	case !m.spilled[s]:
		err = m.applyList(s, changes)
	case m.bits:
		err = m.applyBits(s, changes)
	default:
		err = m.applyIndex(s, changes)
	}
	if err != nil {
		return err
	}
	for _, c := range m.consumers {
		if err := c.end(s); err != nil {
			return err
		}
	}
	return nil
}

// changeCounts adds change c to counts and tells of values that come and go.
func (m *multiset) changeCounts(s int, key []byte, c int32, counts []int64) error {
	nf := len(m.filters)
	totals := m.totalsOf(s)
	for f, w := range m.weights[int(c)*nf : (int(c)+1)*nf] {
		before := counts[f]
		m.sum(counts[f:f+1], []int64{w})
		totals[f] += m.times(counts[f]) - m.times(before)
		if (before > 0) == (counts[f] > 0) {
			continue
		}
		for _, a := range m.consumers {
			if a.filter != f {
				continue
			}
			if err := a.flip(key, counts[f] > 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *multiset) applyList(s int, changes []int32) error {
	counts := make([]int64, len(m.filters))
	old := m.lists[s]
	var list []byte
	n := 0
	keep := func(key []byte) {
		if !allZero(counts) {
			list = appendListed(list, key, counts)
			n++
		}
	}
	for _, c := range changes {
		m.key = m.appendValue(m.key[:0], c)
		clear(counts)
		for len(old) > 0 {
			key, rest, err := m.nextListed(old, counts)
			if err != nil {
				return err
			}
			order := bytes.Compare(key, m.key)
			if order > 0 {
				clear(counts)
				break
			}
			old = rest
			if order == 0 {
				break
			}
			keep(key)
			clear(counts)
		}
		if err := m.changeCounts(s, m.key, c, counts); err != nil {
			return err
		}
		keep(m.key)
	}
	n += m.listLength(old)
	m.lists[s] = append(list, old...)
	if n > maxInline || len(m.lists[s]) > maxInlineBytes {
		return m.spill(s)
	}
	return nil
}

func (m *multiset) appendPrefix(dst []byte) []byte {
	return append(append(dst, m.group...), byte(m.number>>8), byte(m.number))
}

// spill moves the list of slot s to the index.
func (m *multiset) spill(s int) error {
	var block [8]byte
	open := false
	m.spilled[s], m.size[s] = true, 0
	err := m.eachListed(m.lists[s], func(key []byte, counts []int64) error {
		m.size[s]++
		if !m.bits {
			m.key = append(m.appendPrefix(m.key[:0]), key...)
			m.entry = appendCounts(m.entry[:0], counts)
			return m.state.Set(m.key, m.entry)
		}
		at := [8]byte(key)
		at[7] &^= 63
		if open && at != block {
			if err := m.setBlock(block[:]); err != nil {
				return err
			}
		}
		if !open || at != block {
			open, block = true, at
			m.entry = append(m.entry[:0], make([]byte, 8*len(m.filters))...)
		}
		for f, n := range counts {
			if n > 0 {
				m.entry[8*f+int(key[7]&63)>>3] |= 1 << (key[7] & 7)
			}
		}
		return nil
	})
	if err == nil && open {
		err = m.setBlock(block[:])
	}
	m.lists[s] = nil
	return err
}

func appendCounts(dst []byte, counts []int64) []byte {
	for _, n := range counts {
		dst = binary.AppendVarint(dst, n)
	}
	return dst
}

func readCounts(src []byte, counts []int64) error {
	ok := true
	for f := range counts {
		if ok {
			counts[f], src, ok = readInt(src)
		}
	}
	if !ok || len(src) > 0 {
		return corrupted("the counts of a value of an aggregate don't decode")
	}
	return nil
}

func (m *multiset) setBlock(block []byte) error {
	m.key = append(m.appendPrefix(m.key[:0]), block...)
	return m.state.Set(m.key, m.entry)
}

func (m *multiset) applyIndex(s int, changes []int32) error {
	counts := make([]int64, len(m.filters))
	m.key = m.appendPrefix(m.key[:0])
	prefix := len(m.key)
	for _, c := range changes {
		m.key = m.appendValue(m.key[:prefix], c)
		v, had, err := m.state.Get(m.key)
		if err != nil {
			return err
		}
		clear(counts)
		if had {
			if err := readCounts(v, counts); err != nil {
				return err
			}
		}
		m.entry = append(m.entry[:0], v...)
		if err := m.changeCounts(s, m.key[prefix:], c, counts); err != nil {
			return err
		}
		if allZero(counts) {
			if had {
				m.size[s]--
				err = m.state.Delete(m.key)
			}
		} else {
			if !had {
				m.size[s]++
			}
			at := len(m.entry)
			m.entry = appendCounts(m.entry, counts)
			if !bytes.Equal(m.entry[:at], m.entry[at:]) {
				err = m.state.Set(m.key, m.entry[at:])
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// applyBits is applyIndex where an entry is 64 neighbours.
func (m *multiset) applyBits(s int, changes []int32) error {
	nf := len(m.filters)
	values := m.values.Cols[1].Ints
	totals := m.totalsOf(s)
	var block [8]byte
	for i := 0; i < len(changes); {
		first := values[changes[i]] &^ 63
		binary.BigEndian.PutUint64(block[:], uint64(first)^signBit)
		m.key = append(m.appendPrefix(m.key[:0]), block[:]...)
		v, had, err := m.state.Get(m.key)
		if err != nil {
			return err
		}
		m.entry = append(m.entry[:0], v...)
		switch {
		case !had:
			m.entry = append(m.entry, make([]byte, 8*nf)...)
		case len(v) != 8*nf:
			return corrupted("a block of values of an aggregate doesn't decode")
		}
		changed := false
		for ; i < len(changes) && values[changes[i]]&^63 == first; i++ {
			c := int(changes[i])
			bit := uint64(1) << (values[c] & 63)
			fresh, known := uint64(0), uint64(0)
			for f := range nf {
				word := m.entry[8*f : 8*f+8]
				bits := binary.LittleEndian.Uint64(word)
				known |= bits & bit
				if m.weights[c*nf+f] <= 0 || bits&bit != 0 {
					continue
				}
				fresh |= bit
				binary.LittleEndian.PutUint64(word, bits|bit)
				totals[f]++
				if err := m.tell(f, values[c]); err != nil {
					return err
				}
			}
			changed = changed || fresh != 0
			if fresh != 0 && known == 0 {
				m.size[s]++
			}
		}
		if changed {
			if err := m.state.Set(m.key, m.entry); err != nil {
				return err
			}
		}
	}
	return nil
}

// tell tells those that are fed that value v has come.
func (m *multiset) tell(f int, v int64) error {
	for _, a := range m.consumers {
		if a.filter == f {
			if err := a.flip(binary.BigEndian.AppendUint64(nil, uint64(v)^signBit), true); err != nil {
				return err
			}
		}
	}
	return nil
}

// each calls fn for the values of slot s that count under filter f, in order, until it returns false or an error.
func (m *multiset) each(s, f int, fn func(key []byte, n int64) (bool, error)) error {
	counts := make([]int64, len(m.filters))
	if !m.spilled[s] {
		for list := m.lists[s]; len(list) > 0; {
			key, rest, err := m.nextListed(list, counts)
			if err != nil {
				return err
			}
			list = rest
			if n := m.times(counts[f]); n > 0 {
				if more, err := fn(key, n); err != nil || !more {
					return err
				}
			}
		}
		return nil
	}
	if m.bits {
		return defect("values of an aggregate are wanted of which only bits are kept")
	}
	lo := m.appendPrefix(nil)
	return m.state.Scan(lo, prefixEnd(lo), func(key, value []byte) (bool, error) {
		if err := readCounts(value, counts); err != nil {
			return false, err
		}
		if n := m.times(counts[f]); n > 0 {
			return fn(key[len(lo):], n)
		}
		return true, nil
	})
}

// prefixEnd returns the first key after all those that begin with prefix, nil if there is none.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

func (m *multiset) result(plan.AggFunc, int, *record.Column) error {
	return defect("a set of values is no result")
}
