package storage

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/internal/fault"
)

// formatVersion is the version of the keys and of what this package itself encodes (Raft entries). A store of a higher
// one is refused; a lower one would be upgraded here.
const formatVersion = 1

// A folder of ours holds a file with one line that says so: "millrace log 1", the kind of store and the format version.
// It is a file and not a key so that a folder that isn't ours is refused before Pebble touches it. While a store is made
// for the first time the line ends in " new"; so a folder whose Pebble files are gone is told from one that never had
// any.
const (
	formatFile    = "MILLRACE"
	formatTemp    = "MILLRACE.tmp"
	formatPending = " new"
)

func formatLine(kind string) string { return fmt.Sprintf("millrace %s %d", kind, formatVersion) }

// checkFormat refuses a folder that isn't a store of this kind and of a version that this program knows. fresh: a store
// is being made here for the first time.
func checkFormat(fs vfs.FS, dir, kind string) (fresh bool, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return false, classify(err, "read the folder %s", dir)
	}
	line, err := readLine(fs, fs.PathJoin(dir, formatFile))
	if oserror.IsNotExist(err) {
		for _, n := range names {
			if n != "LOCK" && n != formatTemp {
				return false, fault.New(fault.Conflict,
					"%s isn't a Millrace %s store: it holds %q; give an empty or new folder", dir, kind, n).
					WithReason("FOREIGN_FOLDER")
			}
		}
		return true, writeLine(fs, dir, formatLine(kind)+formatPending)
	}
	if err != nil {
		return false, classify(err, "read %s in %s", formatFile, dir)
	}
	fresh = strings.HasSuffix(line, formatPending)
	if err := checkLine(strings.TrimSuffix(line, formatPending), dir, kind); err != nil || fresh {
		return fresh, err
	}
	return false, checkPebble(fs, dir)
}

func checkLine(line, dir, kind string) error {
	words := strings.Fields(line)
	if len(words) != 3 || words[0] != "millrace" {
		return fault.New(fault.Corrupted, "%s in %s doesn't say what the folder holds: %.60q; restore it", formatFile, dir, line)
	}
	if words[1] != kind {
		return fault.New(fault.Conflict, "%s holds a Millrace %s store, not a %s store; give the right folder", dir, words[1], kind).
			WithReason("FOREIGN_FOLDER")
	}
	version, err := strconv.Atoi(words[2])
	if err != nil || version < 1 {
		return fault.New(fault.Corrupted, "%s in %s has no format version: %.60q; restore it", formatFile, dir, line)
	}
	if version > formatVersion {
		return newer(dir, fmt.Sprintf("format %d", version), fmt.Sprintf("format %d", formatVersion))
	}
	return nil
}

func checkPebble(fs vfs.FS, dir string) error {
	desc, err := pebble.Peek(dir, fs)
	if err != nil {
		return classify(err, "look into %s", dir)
	}
	if !desc.Exists {
		return fault.New(fault.Corrupted, "the store in %s has lost its files; restore the folder, or empty it to copy the data from other nodes", dir)
	}
	if desc.FormatMajorVersion > pebble.FormatNewest {
		return newer(dir, fmt.Sprintf("Pebble format %d", desc.FormatMajorVersion), fmt.Sprintf("Pebble format %d", pebble.FormatNewest))
	}
	return nil
}

func newer(dir, has, knows string) error {
	return fault.New(fault.Unsupported, "the store in %s was written by a newer Millrace (%s; this one knows up to %s); start that version or a later one",
		dir, has, knows).WithReason("NEWER_FORMAT")
}

// finishFormat notes that the store is there.
func finishFormat(fs vfs.FS, dir, kind string) error { return writeLine(fs, dir, formatLine(kind)) }

// maxLine bounds what is read of a format file; a valid one is far shorter.
const maxLine = 256

func readLine(fs vfs.FS, name string) (string, error) {
	f, err := fs.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLine))
	if err != nil {
		return "", err
	}
	return string(bytes.TrimRight(b, "\n")), nil
}

// writeLine puts the format file in place so that after a crash it is there as a whole or as it was.
func writeLine(fs vfs.FS, dir, line string) error {
	return classify(replaceFile(fs, dir, formatTemp, formatFile, line+"\n"), "write %s in %s", formatFile, dir)
}

// replaceFile writes a small file by way of a temporary one.
func replaceFile(fs vfs.FS, dir, temp, name, text string) error {
	temp = fs.PathJoin(dir, temp)
	f, err := fs.Create(temp, "millrace-format")
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(text))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fs.Rename(temp, fs.PathJoin(dir, name))
	}
	if err != nil {
		return err
	}
	return syncDir(fs, dir)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// makeDir makes dir and its parents and makes sure that they are still there after a crash.
func makeDir(fs vfs.FS, dir string) error {
	var parents []string
	for d := dir; ; d = fs.PathDir(d) {
		if _, err := fs.Stat(d); err == nil {
			break
		}
		parent := fs.PathDir(d)
		if parent == d {
			break
		}
		parents = append(parents, parent)
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range parents {
		if err := syncDir(fs, p); err != nil {
			return err
		}
	}
	return nil
}
