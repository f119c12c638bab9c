package storage

import (
	"context"
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2"
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

// checkBlobs looks whether all blob files are there that the tables have values in. Pebble looks for tables only when it is
// opened, and panics when it reads a value whose file was gone then.
func checkBlobs(db *pebble.DB, d *disk) error {
	for {
		v := db.DebugCurrentVersion()
		it, err := db.NewIter(nil) // keeps the files of a version
		if err != nil {
			return err
		}
		if db.DebugCurrentVersion() != v { // of another one
			if err := it.Close(); err != nil {
				return err
			}
			continue
		}
		names, err := d.List(d.dir)
		if err == nil {
			there := make(map[string]bool, len(names))
			for _, n := range names {
				there[n] = true
			}
			for f := range v.BlobFiles.All() {
				if name := f.Physical.FileNum.String() + blobSuffix; err == nil && !there[name] {
					err = lostBlob(name)
				}
			}
		}
		return errors.Join(err, it.Close())
	}
}

func lostBlob(name string) error {
	return fault.New(fault.Corrupted, "the blob file %s is gone", name).WithReason(ReasonCorrupted)
}

const blobSuffix = ".blob"

func isBlob(name string) bool { return strings.HasSuffix(name, blobSuffix) }
