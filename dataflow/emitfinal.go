package dataflow

import (
	"encoding/binary"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// emitFinal holds rows back until the stage's watermark reaches their window's end.
//
// State: (op, 0) is the highest watermark so far; (op, 1, window_end, row) is the weight of a row that is held.
type emitFinal struct {
	index  byte
	col    int
	cols   []int
	out    *link
	errs   *faults
	state  State
	merge  *consolidator
	rows   *record.Delta
	passed int64 // the highest watermark so far
	due    int64 // a lower bound of the ends of windows that are held
	hasDue bool
	key    []byte
	gone   []byte // keys to delete, each after its length
	value  []byte
}

const (
	emitPassed = 0
	emitHeld   = 1
)

func newEmitFinal(b *builder) (operator, error) {
	if err := b.sameSchema(0); err != nil {
		return nil, err
	}
	if err := b.column(b.op.EmitFinal.WindowEnd, record.TimestampTZ); err != nil {
		return nil, err
	}
	e := &emitFinal{
		index: b.index, col: b.op.EmitFinal.WindowEnd, out: b.out, errs: b.errs, state: b.env.State,
		merge: newConsolidator(b.in.schema, true), rows: record.NewDelta(b.in.schema, 0), passed: NoWatermark,
	}
	e.cols = e.merge.cols
	// What was held has other window ends than what is passed on at once.
	b.out.distinct = e.cols
	v, ok, err := e.state.Get([]byte{e.index, emitPassed})
	if err != nil {
		return nil, err
	}
	if ok {
		n, size := binary.Varint(v)
		if size <= 0 {
			return nil, corrupted("the watermark of operator %d doesn't decode", e.index)
		}
		e.passed = n
	}
	return e, e.findDue()
}

func (e *emitFinal) push(in *record.Delta) error { return e.merge.add(in) }

func (e *emitFinal) endTick(_ ids.Tick, marks Marks) error {
	watermark := marks.Watermark
	if e.merge.table.n > 0 {
		e.rows.Weights = []int64{}
		if err := e.merge.drain(e.rows, e.take); err != nil {
			return err
		}
	}
	if watermark <= e.passed {
		return nil
	}
	e.passed = watermark
	e.value = binary.AppendVarint(e.value[:0], watermark)
	if err := e.state.Set([]byte{e.index, emitPassed}, e.value); err != nil {
		return err
	}
	for e.hasDue && e.due <= watermark {
		if err := e.release(watermark); err != nil {
			return err
		}
		if err := e.findDue(); err != nil {
			return err
		}
	}
	return nil
}

func (e *emitFinal) nextDue() (int64, bool) { return e.due, e.hasDue }

// take passes on the rows of windows that were emitted before and holds the others.
func (e *emitFinal) take(in *record.Delta) error {
	ends := &in.Cols[e.col]
	now := make([]int32, 0, in.N)
	for i := range in.N {
		switch {
		case ends.Null(i):
			e.errs.fail(errNoWindowEnd, positive(in, i))
		case ends.Ints[i] <= e.passed:
			now = append(now, int32(i))
		default:
			if err := e.hold(in, i); err != nil {
				return err
			}
		}
	}
	if len(now) == 0 {
		return nil
	}
	if len(now) == in.N {
		return e.out.emit(in)
	}
	var part record.Delta
	gatherDelta(&part, in, now, e.out.need)
	return e.out.emit(&part)
}

// hold adds row i's weight to that of the same row in the state.
func (e *emitFinal) hold(in *record.Delta, i int) error {
	end := in.Cols[e.col].Ints[i]
	e.key = record.AppendRow(e.heldKey(e.key[:0], end), in, e.cols, i)
	weight := in.Weights[i]
	v, ok, err := e.state.Get(e.key)
	if err != nil {
		return err
	}
	if ok {
		old, size := binary.Varint(v)
		if size <= 0 {
			return corrupted("a held row of operator %d doesn't decode", e.index)
		}
		weight += old
	}
	if weight == 0 {
		return e.state.Delete(e.key)
	}
	if !e.hasDue || end < e.due {
		e.due, e.hasDue = end, true
	}
	e.value = binary.AppendVarint(e.value[:0], weight)
	return e.state.Set(e.key, e.value)
}

// heldKey appends the beginning of the keys of rows whose window ends at end.
func (e *emitFinal) heldKey(dst []byte, end int64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, e.index, emitHeld), uint64(end)^1<<63)
}

const heldPrefix = 2 + 8

// release emits at most chunkRows held rows of windows that end at or below watermark.
func (e *emitFinal) release(watermark int64) error {
	lo := []byte{e.index, emitHeld}
	hi := []byte{e.index, emitHeld + 1}
	if watermark < 1<<63-1 {
		hi = e.heldKey(nil, watermark+1)
	}
	e.rows.Reset()
	e.rows.Weights, e.gone = []int64{}, e.gone[:0]
	err := e.state.Scan(lo, hi, func(key, value []byte) (bool, error) {
		weight, size := binary.Varint(value)
		if size <= 0 || len(key) < heldPrefix {
			return false, corrupted("a held row of operator %d doesn't decode", e.index)
		}
		if err := record.DecodeRow(key[heldPrefix:], e.rows, e.cols); err != nil {
			return false, err
		}
		e.rows.Weights = append(e.rows.Weights, weight)
		e.rows.N++
		e.gone = append(binary.AppendUvarint(e.gone, uint64(len(key))), key...)
		return e.rows.N < chunkRows, nil
	})
	if err != nil {
		return err
	}
	for rest := e.gone; len(rest) > 0; {
		n, size := binary.Uvarint(rest)
		end := size + int(n)
		if err := e.state.Delete(rest[size:end]); err != nil {
			return err
		}
		rest = rest[end:]
	}
	if cap(e.gone) > maxKeptBytes {
		e.gone = nil
	}
	return e.out.emit(e.rows)
}

// findDue finds the lowest end of a window that is held.
func (e *emitFinal) findDue() error {
	e.hasDue = false
	return e.state.Scan([]byte{e.index, emitHeld}, []byte{e.index, emitHeld + 1}, func(key, _ []byte) (bool, error) {
		if len(key) < heldPrefix {
			return false, corrupted("a held row of operator %d doesn't decode", e.index)
		}
		e.due, e.hasDue = int64(binary.BigEndian.Uint64(key[2:])^1<<63), true
		return false, nil
	})
}
