package storage

import (
	"context"
	"strings"

	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/blob"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/internal/fault"
)

// checkBlob looks whether Pebble can read a blob file's end. Pebble 2.1.7 panics when it can't (fileCacheHandle's
// findOrCreateBlob reports the damage without saying of what), in whichever goroutine reads; an error that isn't one of
// Pebble's own for damage, which this returns, is passed on instead. It closes f on an error.
func checkBlob(f vfs.File, name string) error {
	readable, err := sstable.NewSimpleReadable(f)
	if err == nil {
		_, err = blob.NewFileReader(context.Background(), readable, blob.FileReaderOptions{})
	}
	if err == nil {
		return nil
	}
	_ = f.Close()
	return fault.New(fault.Corrupted, "the blob file %s is damaged: %v", name, err).WithReason(ReasonCorrupted)
}

func isBlob(name string) bool { return strings.HasSuffix(name, ".blob") }
