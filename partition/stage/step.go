package stage

import (
	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// step is what a source makes of one tick, or a part of one, of its partition's log. Its readers share it and change
// nothing of it.
type step struct {
	tick    ids.Tick // of the rows; 0: progress only
	part    bool     // more of the same tick follows
	through ids.Tick // everything stamped up to here has been sent with this step
	pos     position // after this step
	parts   []part   // by target; a target comes once
	counts  dataflow.Counts
}

// part is the rows of a step for one target, as a delta or still encoded.
type part struct {
	target ids.PartitionID
	delta  *record.Delta
	raw    []byte
	bytes  int64
	from   *source // takes delta's memory back once it was pushed; nil: others use it too
}

// stepBytes is what a step costs of a feed's credit besides its rows.
const stepBytes = 128

// done gives the rows' memory back to the source that made them, if nobody else has them.
func (p *part) done() {
	if p.from != nil {
		p.from.takeBack(p.delta)
		p.from, p.delta = nil, nil
	}
}

// What a source keeps of deltas that it gets back.
const (
	sparesMost  = 2
	sparesBytes = 2 << 20 // of each
)

// takeBack keeps the memory of a delta that nobody uses any more.
func (s *source) takeBack(d *record.Delta) {
	if deltaBytes(d) > sparesBytes {
		return
	}
	d.Reset()
	s.spareMu.Lock()
	defer s.spareMu.Unlock()
	if len(s.spares) < sparesMost {
		s.spares = append(s.spares, d)
	}
}

// newDelta returns an empty delta for rows like those of d.
func (s *source) newDelta(schema record.Schema, d *record.Delta) *record.Delta {
	s.spareMu.Lock()
	defer s.spareMu.Unlock()
	if n := len(s.spares); n > 0 && len(s.spares[n-1].Cols) == len(schema) {
		spare := s.spares[n-1]
		s.spares = s.spares[:n-1]
		return spare
	}
	return record.NewDelta(schema, d.N)
}

// decoded returns the part's rows.
func (p *part) decoded(s record.Schema) (*record.Delta, error) {
	if p.delta != nil || p.raw == nil {
		return p.delta, nil
	}
	return record.UnmarshalDelta(p.raw, s)
}
