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
}

// stepBytes is what a step costs of a feed's credit besides its rows.
const stepBytes = 128

// decoded returns the part's rows.
func (p *part) decoded(s record.Schema) (*record.Delta, error) {
	if p.delta != nil || p.raw == nil {
		return p.delta, nil
	}
	return record.UnmarshalDelta(p.raw, s)
}
