package storage

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace/millrace/internal/fault"
)

// Reasons of the errors that make a store refuse writes. They are stable.
const (
	ReasonDiskFull  = "DISK_FULL"    // kind Exhausted
	ReasonIOError   = "IO_ERROR"     // kind Unavailable
	ReasonCorrupted = "CORRUPTED"    // kind Corrupted
	ReasonClosed    = "STORE_CLOSED" // kind Unavailable
	ReasonLocked    = "LOCKED"       // kind Conflict
)

// classify makes a fault of an error of Pebble or the file system, by what one can do about it. what is what was being
// done, as in "read the folder /data".
func classify(err error, what string, args ...any) error {
	if err == nil {
		return nil
	}
	var own *fault.Error
	if errors.As(err, &own) {
		return err
	}
	what = fmt.Sprintf(what, args...)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Wrap(fault.Exhausted, err, "the disk is full, couldn't %s; make space, then restart the node", what).
			WithReason(ReasonDiskFull)
	case pebble.IsCorruptionError(err):
		return fault.Wrap(fault.Corrupted, firstLine{err}, "stored data is damaged, couldn't %s", what).WithReason(ReasonCorrupted)
	case errors.Is(err, pebble.ErrClosed):
		return errClosed
	}
	return fault.Wrap(fault.Unavailable, err, "couldn't %s; check the disk, then restart the node", what).WithReason(ReasonIOError)
}

// firstLine leaves out what Pebble adds below an error's text.
type firstLine struct{ error }

func (e firstLine) Error() string {
	text, _, _ := strings.Cut(e.error.Error(), "\n")
	return text
}

func (e firstLine) Unwrap() error { return e.error }

var (
	errClosed   = fault.New(fault.Unavailable, "storage: the store is closed").WithReason(ReasonClosed)
	errNotFound = fault.New(fault.NotFound, "storage: no such key")
)
