package dataflow

import "github.com/millrace/millrace/internal/fault"

// Mode says what becomes of an expression that fails.
type Mode uint8

const (
	// Live: a failing call gives NULL, its row stays, and Counts tells of it.
	Live Mode = iota
	// AdHoc: the first failing call ends the fragment with its error. An ad-hoc fragment without a State keeps no
	// groups between ticks: a stage with an aggregate of phase single or final ends one tick only.
	AdHoc
)

// Counts tells what went wrong with rows, without ending anything.
type Counts struct {
	Late      int64  // rows that came after their window was closed
	Errors    int64  // failed calls, and rows without the time that their window needs
	LastError string // the latest of Errors, "" if none
}

// faults is where the operators of one fragment tell what went wrong.
type faults struct {
	mode   Mode
	counts Counts
	last   error // its text is only made when somebody asks
	err    error // AdHoc: the first
}

// fail tells of n failed calls with the same error; n is zero for rows that are being taken back.
func (f *faults) fail(err error, n int64) {
	if f.mode == AdHoc {
		if f.err == nil {
			f.err = err
		}
		return
	}
	f.leaveOut(err, n)
}

// leaveOut tells of n rows that take no part, in either mode: what they lack isn't the fault of a call, and one such row
// must not make every statement over its stream fail.
func (f *faults) leaveOut(err error, n int64) {
	if n > 0 {
		f.counts.Errors += n
		f.last = err
	}
}

func (f *faults) snapshot() Counts {
	c := f.counts
	if f.last != nil {
		c.LastError = f.last.Error()
	}
	return c
}

// Errors of calls that are common enough to be made once.
var (
	errDivisionByZero  = fault.SQL(fault.Invalid, "22012", "division by zero")
	errBigintRange     = fault.SQL(fault.Invalid, "22003", "bigint out of range")
	errDoubleOverflow  = fault.SQL(fault.Invalid, "22003", "value out of range: overflow")
	errDoubleUnderflow = fault.SQL(fault.Invalid, "22003", "value out of range: underflow")
	errTimestampRange  = fault.SQL(fault.Invalid, "22008", "timestamp out of range")
	errIntervalRange   = fault.SQL(fault.Invalid, "22008", "interval out of range")
	errNumericRange    = fault.SQL(fault.Invalid, "22003", "value overflows numeric format")
	errTextLength      = fault.SQL(fault.TooLarge, "54000", "requested length too large; a text is at most 16 MiB")
	errChunkBytes      = fault.SQL(fault.TooLarge, "54000", "the results of a call over %d rows are more than 1 GiB", chunkRows)
	errFraction        = fault.SQL(fault.Invalid, "22003", "a percentile's fraction is not between 0 and 1")
	errNoWindowTime    = fault.SQL(fault.Invalid, "22004", "the row's time is NULL, so it belongs to no window")
	errWindowRange     = fault.SQL(fault.Invalid, "22008", "the row's time is out of the range of windows")
	errNoWindowEnd     = fault.SQL(fault.Invalid, "22004", "the row's window_end is NULL, so its window never closes")
)

// defect is an error that only a wrong plan, state or caller can cause.
func defect(format string, args ...any) error {
	return fault.New(fault.Internal, "dataflow: "+format, args...)
}

// corrupted is an error of state that doesn't decode.
func corrupted(format string, args ...any) error {
	return fault.New(fault.Corrupted, "dataflow: "+format, args...)
}
