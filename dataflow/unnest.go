package dataflow

import (
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// unnest repeats each row for each element of a set-returning function of it.
type unnest struct {
	args       []expression
	values     []vector
	each       series
	outer      bool
	ordinality bool
	out        *link
	errs       *faults
	in         *record.Delta
	width      int             // columns of the input
	elements   []record.Column // then, with ordinality, the ordinal
	rows       []int32         // of in, one for each element gathered
	weights    []int64
	buf        record.Delta
	more       error // what emit returned
}

// series calls next for each element of row i after appending it to the element columns, until next returns false. What it
// appends must be as many values in each column.
type series func(u *unnest, i int, next func() bool) error

// maxElements bounds the elements of one row. In a live view a row with that many keeps the first ones, and is counted as an error.
const maxElements = 1 << 20

var errElements = fault.SQL(fault.TooLarge, "54000", "a set-returning function gives %d rows or more", maxElements)

func newUnnest(b *builder) (operator, error) {
	p := b.op.Unnest
	u := &unnest{outer: p.Outer, ordinality: p.Ordinality, out: b.out, errs: b.errs, width: len(b.in.schema)}
	name := p.Func + "("
	for i := range p.Args {
		e, err := compile(&p.Args[i], b.in.schema, b.env, b.errs)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			name += ", "
		}
		name += e.typ().String()
		u.args = append(u.args, e)
	}
	name += ")"
	f, ok := seriesOf[name]
	if !ok {
		return nil, fault.New(fault.Unsupported, "dataflow: no set-returning function %s", name)
	}
	u.each = f.make(u)
	columns := f.columns
	if p.Ordinality {
		columns = append(columns[:len(columns):len(columns)], record.BigInt)
	}
	if err := b.sameSchema(len(columns)); err != nil {
		return nil, err
	}
	for i, t := range columns {
		if b.out.schema[u.width+i].Type != t {
			return nil, defect("operator %d gives elements of type %s as %s", b.index, t, b.out.schema[u.width+i].Type)
		}
		u.elements = append(u.elements, record.NewColumn(t, 0))
	}
	u.values = make([]vector, len(u.args))
	u.buf.Cols = make([]record.Column, len(b.out.schema))
	return u, nil
}

func (u *unnest) push(in *record.Delta) error {
	u.in = in
	for i, e := range u.args {
		u.values[i] = e.eval(in)
	}
	for i := range in.N {
		if err := u.row(i); err != nil {
			return err
		}
	}
	return u.flush()
}

// row gathers the elements of row i.
func (u *unnest) row(i int) error {
	ordinal := int64(0)
	err := u.each(u, i, func() bool {
		ordinal++
		return u.add(i, ordinal)
	})
	switch {
	case u.more != nil:
		return u.more
	case err == nil && ordinal == maxElements:
		err = errElements
	}
	if err != nil {
		u.errs.fail(err, positive(u.in, i))
	}
	if ordinal > 0 || !u.outer {
		return nil
	}
	for c := range u.elements {
		u.elements[c].AppendNull()
	}
	return u.gathered(i)
}

// add counts an element, which is in the element columns.
func (u *unnest) add(i int, ordinal int64) bool {
	if u.ordinality {
		u.elements[len(u.elements)-1].AppendInt(ordinal)
	}
	u.more = u.gathered(i)
	return u.more == nil && ordinal < maxElements
}

func (u *unnest) gathered(i int) error {
	u.rows = append(u.rows, int32(i))
	if u.in.Weights != nil {
		u.weights = append(u.weights, u.in.Weights[i])
	}
	if len(u.rows) < chunkRows && len(u.elements[0].Bytes) < maxKeptBytes {
		return nil
	}
	return u.flush()
}

// flush emits what was gathered.
func (u *unnest) flush() error {
	if len(u.rows) == 0 {
		return nil
	}
	for c := range u.buf.Cols {
		switch to := &u.buf.Cols[c]; {
		case c >= u.width:
			*to = u.elements[c-u.width]
		case u.out.need[c]:
			gather(to, &u.in.Cols[c], u.rows)
		default:
			to.Type = u.in.Cols[c].Type
		}
	}
	u.buf.N, u.buf.Weights = len(u.rows), nil
	if u.in.Weights != nil {
		u.buf.Weights = u.weights
	}
	err := u.out.emit(&u.buf)
	u.rows, u.weights = u.rows[:0], u.weights[:0]
	for c := range u.elements {
		u.elements[c].Reset()
	}
	return err
}

func (u *unnest) endTick(ids.Tick, Marks) error {
	u.in = nil
	for i, e := range u.args {
		e.trim()
		u.values[i] = vector{}
	}
	for c := range u.buf.Cols {
		if c < u.width {
			trim(&u.buf.Cols[c])
		} else {
			trim(&u.elements[c-u.width])
		}
	}
	return nil
}

// null tells whether one of the arguments is NULL for row i: then there are no elements.
func (u *unnest) null(i int) bool {
	for _, v := range u.values {
		if v.null(i) {
			return true
		}
	}
	return false
}

func (u *unnest) bytes(arg, i int) []byte {
	v := u.values[arg]
	return v.col.At(i & v.mask)
}

func (u *unnest) int(arg, i int) int64 {
	v := u.values[arg]
	return v.col.Ints[i&v.mask]
}

// needOfUnnest marks what an unnest reads.
func needOfUnnest(p *plan.Unnest, need, out []bool, mark func(int)) {
	copyNeed(need, out)
	for i := range p.Args {
		eachColumn(&p.Args[i], mark)
	}
}
