package dataflow

import (
	"math"

	"github.com/millrace/millrace/record"
)

// overdue tells whether row i is late for what ends at end: its watermark, that of the records before it, has reached that. Every
// operator that drops late rows, or lets them alone through, decides by it. marks is nil where nothing is late.
func overdue(end int64, marks *record.Column, i int) bool {
	return marks != nil && !marks.Null(i) && end <= marks.Ints[i]
}

// appearing returns how many rows row i stands for that appear: none for one that is taken back. Late rows are counted so,
// whether or not equal ones came together.
func appearing(in *record.Delta, i int) int64 {
	if in.Weights == nil {
		return 1
	}
	return max(in.Weights[i], 0)
}

// windowing is hopping or cumulating windows as package plan describes them: Hop and Panes share it.
type windowing struct {
	size, slide, offset int64
	cumulate            bool
	pane                int64 // length of a pane: windows begin and end with panes
}

// maxWindowsPerRow bounds Size / Slide: a row of a hop without panes is repeated that often.
const maxWindowsPerRow = 100_000

// farTime bounds times, sizes and offsets, so that their sums don't overflow. It is some 73,000 years.
const farTime = math.MaxInt64 / 4

func newWindowing(size, slide, offset int64, cumulate bool) (windowing, error) {
	w := windowing{size: size, slide: slide, offset: offset, cumulate: cumulate}
	switch {
	case size <= 0 || slide <= 0 || size > farTime || slide > farTime || offset < -farTime || offset > farTime:
		return w, defect("windows of %d microseconds every %d, moved by %d", size, slide, offset)
	case cumulate && size%slide != 0:
		return w, defect("cumulating windows of %d microseconds can't grow by %d", size, slide)
	case size/slide > maxWindowsPerRow:
		return w, defect("a row would be in %d windows; at most %d", size/slide, maxWindowsPerRow)
	}
	w.pane = gcd(size, slide)
	return w, nil
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// floorTo returns the greatest multiple of step plus offset that is at or below t.
func floorTo(t, step, offset int64) int64 {
	n := (t - offset) % step
	if n < 0 {
		n += step
	}
	return t - n
}

// inRange tells whether windows can be computed for time t.
func (w *windowing) inRange(t int64) bool { return t >= -farTime && t <= farTime }

// paneOf returns the start of the pane that holds t.
func (w *windowing) paneOf(t int64) int64 { return floorTo(t, w.pane, w.offset) }

// ends returns the ends of the first and the last window that hold t; first is above last if there is none.
func (w *windowing) ends(t int64) (first, last int64) {
	first = floorTo(t, w.slide, w.offset) + w.slide
	if w.cumulate {
		return first, floorTo(t, w.size, w.offset) + w.size
	}
	return first, floorTo(t+w.size, w.slide, w.offset)
}

// start returns the start of the window that ends at end.
func (w *windowing) start(end int64) int64 {
	if w.cumulate {
		return floorTo(end-1, w.size, w.offset)
	}
	return end - w.size
}

// after returns the end of the first window from `end` on that is above mark.
func (w *windowing) after(end, mark int64) int64 {
	if end > mark {
		return end
	}
	if mark > math.MaxInt64-w.slide {
		return math.MaxInt64
	}
	return end + ((mark-end)/w.slide+1)*w.slide
}
