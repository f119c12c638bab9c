package dataflow

// sized is an accumulator whose slots take more than a few words each.
type sized interface {
	// memory is what it takes, in bytes, about.
	memory() int64
}

// slotBytes is about what a slot of another accumulator takes.
const slotBytes = 24

// memory implements sized.
func (t *groupTable) memory() int64 {
	return int64(8*(cap(t.entries)+cap(t.hashes)+cap(t.words)+cap(t.ends)) + cap(t.bytes))
}

// memory implements sized.
func (e *extremes) memory() int64 {
	return int64(cap(e.seen) + 8*cap(e.ints) + 8*cap(e.floats) + 16*cap(e.spans) + 16*cap(e.spots) + cap(e.bytes))
}

// account tells Env.Hold how much more the tick's groups take.
func (a *aggregate) account() error {
	if a.hold == nil {
		return nil
	}
	size := a.table.memory() + int64(8*cap(a.rows))
	for _, acc := range a.accs {
		if s, ok := acc.(sized); ok {
			size += s.memory()
		} else {
			size += int64(a.table.n) * slotBytes
		}
	}
	for _, m := range a.sets {
		size += m.changes.memory() + int64(8*(cap(m.passed)+cap(m.weights)))
	}
	if more := size - a.held; more > 0 {
		a.held = size
		return a.hold(more)
	}
	return nil
}
