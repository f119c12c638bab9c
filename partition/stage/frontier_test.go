package stage

import (
	"testing"

	"github.com/millrace/millrace/internal/ids"
)

func TestFrontier(t *testing.T) {
	type received struct {
		src     int
		through ids.Tick
	}
	type closed struct {
		src          int
		tick, lastAt ids.Tick
	}
	for _, tc := range []struct {
		name  string
		steps []any // received, closed, or ids.Tick: what is done then
	}{
		{"nothing is known", []any{ids.Tick(0)}},
		{"a source without data is as far as it has closed", []any{closed{0, 10, 0}, closed{1, 9, 0}, ids.Tick(9)}},
		{"a source with data is as far as the data came", []any{
			closed{0, 10, 7}, closed{1, 10, 0}, ids.Tick(0), received{0, 6}, ids.Tick(6), received{0, 7}, ids.Tick(10)}},
		{"data may come before the news that it was closed", []any{
			received{0, 7}, closed{1, 10, 0}, ids.Tick(7), closed{0, 8, 7}, ids.Tick(8)}},
		{"part of a tick is the tick before", []any{closed{0, 10, 7}, closed{1, 20, 0}, received{0, 6}, ids.Tick(6)}},
		{"it never goes back", []any{
			received{0, 7}, received{1, 7}, ids.Tick(7), received{0, 3}, closed{0, 2, 1}, ids.Tick(7)}},
		{"an older closing changes nothing", []any{
			closed{0, 10, 3}, closed{0, 8, 8}, received{0, 3}, closed{1, 10, 0}, ids.Tick(10)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFrontier(2)
			for i, s := range tc.steps {
				switch s := s.(type) {
				case received:
					f.receive(s.src, s.through)
				case closed:
					f.close(s.src, s.tick, s.lastAt)
				case ids.Tick:
					if got := f.advance(); got != s {
						t.Errorf("step %d: done is %d, want %d", i, got, s)
					}
				}
			}
		})
	}
}
