package storage

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/internal/fault"
)

// A log store's folder lists the files of its write-ahead log in the file WALS: a name a line, and with it, once the store
// was closed in good order, the size. Pebble replays what it finds, and takes a log that is gone, or ends early, for one
// that never was: everything acknowledged in it would be missing without a word. So a file is listed before it holds anything, and
// taken off the list before it is removed; one that is listed and isn't there is damage.
const (
	journalFile  = "WALS"
	journalTemp  = "WALS.tmp"
	journalLines = 1 << 20 // bytes of the file at most
)

// journals is the list. Only a log store has one.
type journals struct {
	fs  vfs.FS
	dir string

	mu    sync.Mutex
	names []string // base names
}

// openJournals reads the list, if there is one, and compares it with the folder.
func openJournals(fs vfs.FS, dir string) (*journals, error) {
	j := &journals{fs: fs, dir: dir}
	f, err := fs.Open(fs.PathJoin(dir, journalFile))
	if oserror.IsNotExist(err) {
		return j, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, journalLines))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if err := j.check(strings.Fields(line)); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// check looks for one file of the list.
func (j *journals) check(words []string) error {
	if len(words) == 0 || len(words) > 2 || !isWAL(words[0]) || strings.ContainsRune(words[0], '/') {
		return fault.New(fault.Corrupted, "%s is damaged", journalFile).WithReason(ReasonCorrupted)
	}
	st, err := j.fs.Stat(j.fs.PathJoin(j.dir, words[0]))
	if oserror.IsNotExist(err) {
		return fault.New(fault.Corrupted, "the write-ahead log %s is missing, and with it what was acknowledged last", words[0]).
			WithReason(ReasonCorrupted)
	}
	if err != nil {
		return err
	}
	if len(words) == 2 {
		size, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil || st.Size() < size {
			return fault.New(fault.Corrupted, "the write-ahead log %s has %d bytes, and had %s", words[0], st.Size(), words[1]).
				WithReason(ReasonCorrupted)
		}
	}
	j.names = append(j.names, words[0])
	return nil
}

func isWAL(name string) bool { return strings.HasSuffix(name, ".log") }

// add lists a file that was just made.
func (j *journals) add(name string) error { return j.change(name, true) }

// remove takes a file off the list that will be removed.
func (j *journals) remove(name string) error { return j.change(name, false) }

func (j *journals) change(name string, listed bool) error {
	name = j.fs.PathBase(name)
	j.mu.Lock()
	defer j.mu.Unlock()
	if slices.Contains(j.names, name) == listed {
		return nil
	}
	if listed {
		// The list must not get to the disk before the file itself.
		if err := syncDir(j.fs, j.dir); err != nil {
			return err
		}
		j.names = append(j.names, name)
	} else {
		j.names = slices.DeleteFunc(j.names, func(n string) bool { return n == name })
	}
	return j.write(false)
}

// finish writes the list with the files' sizes: nothing is written to them any more.
func (j *journals) finish() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.write(true)
}

func (j *journals) write(sizes bool) error {
	var text strings.Builder
	for _, n := range j.names {
		text.WriteString(n)
		if sizes {
			st, err := j.fs.Stat(j.fs.PathJoin(j.dir, n))
			if err != nil {
				return err
			}
			fmt.Fprintf(&text, " %d", st.Size())
		}
		text.WriteByte('\n')
	}
	return replaceFile(j.fs, j.dir, journalTemp, journalFile, text.String())
}
