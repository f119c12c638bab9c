package dataflow

import "github.com/millrace/millrace/plan"

// newDistinct makes DISTINCT of what it is: a grouping by all columns, without aggregates.
func newDistinct(b *builder) (operator, error) {
	if err := b.sameSchema(0); err != nil {
		return nil, err
	}
	agg := &plan.Aggregate{Phase: plan.AggSingle}
	for i := range b.in.schema {
		agg.Keys = append(agg.Keys, i)
	}
	if len(agg.Keys) == 0 {
		return nil, defect("operator %d is a DISTINCT without columns", b.index)
	}
	op := *b.op
	op.Aggregate = agg
	grouping := *b
	grouping.op = &op
	return newAggregate(&grouping)
}
