package dataflow

import (
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// union passes on the rows of all its inputs (UNION ALL).
type union struct{ out *link }

func newUnion(b *builder) (operator, error) {
	for _, in := range b.ins {
		one := *b
		one.in = in
		if err := one.sameSchema(0); err != nil {
			return nil, err
		}
	}
	return &union{b.out}, nil
}

func (u *union) push(in *record.Delta) error { return u.out.emit(in) }

func (u *union) endTick(ids.Tick, Marks) error { return nil }
