package storage

import (
	"io"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk stands between Pebble and the file system. At the first failed write it freezes: what is on the disk stays as it
// is at that moment, exactly as if the machine had crashed there, and nothing of this store changes it any more. Pebble,
// which would end the process (or stand with its locks held) on such an error, is told that all is well:
//
//   - what it writes to its journals (write-ahead log, manifest, markers) is dropped. Whoever waits for such a write has
//     to look at failed() afterwards; Store does.
//   - a flush goes into files in memory (no more than the tables in memory that are there), so that a writer that waits
//     for room in memory gets through to see the error, and reads find everything. Files that were being written go on
//     in memory too.
//   - a compaction would read and write without bound: it waits for its next file until the store is closed, then fails.
//   - removals are dropped.
//
// That is so from the start: opening a store on a disk that fails succeeds as far as Pebble can see, and Store looks at
// failed() then.
type disk struct {
	fs  vfs.FS
	dir string

	cause  atomic.Pointer[ioError]
	onFail func(error) // called once, by whoever met the error
	frozen chan struct{}
	closed chan struct{} // no compaction waits any longer

	overlay *vfs.MemFS // files made since the disk froze
	mu      sync.Mutex
	names   map[string]bool // of the overlay

	journals *journals // nil in a state store

	syncs     atomic.Int64 // of the write-ahead log
	syncNanos atomic.Int64
}

type ioError struct{ err error }

func newDisk(fs vfs.FS, dir string) *disk {
	return &disk{
		fs: fs, dir: dir, frozen: make(chan struct{}), closed: make(chan struct{}),
		overlay: vfs.NewMem(), names: map[string]bool{},
	}
}

// failed returns the error at which the disk froze, or nil.
func (d *disk) failed() error {
	if e := d.cause.Load(); e != nil {
		return e.err
	}
	return nil
}

// freeze stops all writing because of err. Later errors are consequences, or come too late to matter.
func (d *disk) freeze(err error) {
	if err == nil || !d.cause.CompareAndSwap(nil, &ioError{err}) {
		return
	}
	close(d.frozen)
	if d.onFail != nil {
		d.onFail(err)
	}
}

// mutate runs one change of a directory, or drops it once frozen.
func (d *disk) mutate(change func() error) error {
	if d.failed() == nil {
		d.freeze(change())
	}
	return nil
}

func (d *disk) inOverlay(name string) bool {
	if d.failed() == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.names[name]
}

// isJournal tells the files that aren't read again while the store is open from tables and blob files, which are.
func isJournal(name string) bool {
	base := path.Base(name)
	return strings.HasSuffix(base, ".log") || strings.HasPrefix(base, "MANIFEST") || strings.HasPrefix(base, "marker.") ||
		strings.HasPrefix(base, "OPTIONS") || strings.HasPrefix(base, "temporary.")
}

const compactionCategory vfs.DiskWriteCategory = "pebble-compaction"

func (d *disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if d.failed() == nil {
		f, err := d.fs.Create(name, category)
		if err == nil {
			if strings.HasPrefix(path.Base(name), "MANIFEST") {
				// The marker that points at it gets into the folder later, but with nothing in between that makes sure that
				// it gets to the disk later.
				d.freeze(syncDir(d.fs, d.fs.PathDir(name)))
			}
			d.listJournal(name)
			return d.wrap(f, name), nil
		}
		d.freeze(err)
	}
	return d.createFrozen(name, category)
}

func (d *disk) createFrozen(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	switch {
	case isJournal(name):
		return d.wrap(nil, name), nil
	case category == compactionCategory:
		<-d.closed
		return nil, d.failed()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.overlay.Create(d.PathBase(name), category)
	if err == nil {
		d.names[name] = true
	}
	return f, err
}

func (d *disk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	d.unlistJournal(oldname)
	if d.failed() == nil {
		f, err := d.fs.ReuseForWrite(oldname, newname, category)
		if err == nil {
			d.listJournal(newname)
			return d.wrap(f, newname), nil
		}
		d.freeze(err)
	}
	return d.createFrozen(newname, category)
}

func (d *disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if d.failed() == nil {
		f, err := d.fs.OpenReadWrite(name, category, opts...)
		if err == nil {
			return d.wrap(f, name), nil
		}
		d.freeze(err)
	}
	return d.createFrozen(name, category)
}

func (d *disk) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if d.inOverlay(name) {
		return d.overlay.Open(d.PathBase(name), opts...)
	}
	f, err := d.fs.Open(name, opts...)
	switch {
	case !isBlob(name):
	case err == nil:
		if err := checkBlob(f, name); err != nil {
			return nil, err // whose value is in it is damaged; the rest of the store isn't
		}
	case oserror.IsNotExist(err):
		return nil, lostBlob(name)
	}
	return f, err
}

// listJournal notes a file of the write-ahead log that was made.
func (d *disk) listJournal(name string) {
	if d.journals != nil && isWAL(name) && d.failed() == nil {
		d.freeze(d.journals.add(name))
	}
}

// unlistJournal notes that one is about to go.
func (d *disk) unlistJournal(name string) {
	if d.journals != nil && isWAL(name) && d.failed() == nil {
		d.freeze(d.journals.remove(name))
	}
}

func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.fs.OpenDir(name)
	if err != nil {
		return nil, err
	}
	w := d.wrap(f, name)
	w.journal = true // nothing but syncs go to a directory
	return w, nil
}

func (d *disk) Stat(name string) (vfs.FileInfo, error) {
	if d.inOverlay(name) {
		return d.overlay.Stat(d.PathBase(name))
	}
	return d.fs.Stat(name)
}

// Remove passes its errors on without freezing: a file that stays is only waste, and goes at the next start.
func (d *disk) Remove(name string) error {
	if d.inOverlay(name) {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.names, name)
		return d.overlay.Remove(d.PathBase(name))
	}
	d.unlistJournal(name)
	if d.failed() != nil {
		return nil
	}
	return d.fs.Remove(name)
}

func (d *disk) RemoveAll(name string) error {
	if d.failed() != nil {
		return nil
	}
	return d.fs.RemoveAll(name)
}

func (d *disk) Link(oldname, newname string) error {
	return d.mutate(func() error { return d.fs.Link(oldname, newname) })
}

func (d *disk) Rename(oldname, newname string) error {
	return d.mutate(func() error { return d.fs.Rename(oldname, newname) })
}

func (d *disk) MkdirAll(dir string, perm os.FileMode) error {
	return d.mutate(func() error { return d.fs.MkdirAll(dir, perm) })
}

// GetDiskUsage hides errors: Pebble would report them as background errors, but nothing depends on them.
func (d *disk) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	u, err := d.fs.GetDiskUsage(path)
	if err != nil {
		return vfs.DiskUsage{}, vfs.ErrUnsupported
	}
	return u, nil
}

func (d *disk) Lock(name string) (io.Closer, error) { return d.fs.Lock(name) }
func (d *disk) List(dir string) ([]string, error)   { return d.fs.List(dir) }
func (d *disk) PathBase(p string) string            { return d.fs.PathBase(p) }
func (d *disk) PathDir(p string) string             { return d.fs.PathDir(p) }
func (d *disk) PathJoin(elem ...string) string      { return d.fs.PathJoin(elem...) }
func (d *disk) Unwrap() vfs.FS                      { return d.fs }

func (d *disk) wrap(f vfs.File, name string) *diskFile {
	return &diskFile{d: d, f: f, name: name, journal: isJournal(name), wal: strings.HasSuffix(name, ".log")}
}

// diskFile is a file that is written through a disk, by one goroutine at a time.
type diskFile struct {
	d            *disk
	f            vfs.File // nil: a journal made after the disk froze, which is never read
	name         string
	journal, wal bool
	written      int64    // bytes, of a table
	copy         vfs.File // of a table that was being written when the disk froze: its copy in memory, where it goes on
}

// change runs one change of the file. Once the disk is frozen a journal drops it, and a table makes it in its copy.
func (f *diskFile) change(do func(vfs.File) error) error {
	if f.f != nil && f.d.failed() == nil {
		err := do(f.f)
		if err == nil {
			return nil
		}
		f.d.freeze(err)
	}
	if f.journal {
		return nil
	}
	if err := f.moveToMemory(); err != nil {
		return err
	}
	return do(f.copy)
}

func (f *diskFile) Write(p []byte) (n int, err error) {
	// Not through change: its closure would be allocated for each of the log's 32 KiB blocks.
	if f.f != nil && f.d.failed() == nil {
		if n, err = f.f.Write(p); err == nil {
			f.written += int64(n)
			return n, nil
		}
		f.d.freeze(err)
	}
	if f.journal {
		return len(p), nil
	}
	if err := f.moveToMemory(); err != nil {
		return 0, err
	}
	return f.copy.Write(p)
}

// moveToMemory copies what was written so far, so that Pebble can finish the table. It must not get an error instead:
// Pebble 2.1.7 panics in the background when a blob file can't be finished (blob.FileWriter.Close aborts a writable that
// has failed to finish already).
func (f *diskFile) moveToMemory() (err error) {
	if f.copy != nil {
		return nil
	}
	src, err := f.d.fs.Open(f.name)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := f.d.overlay.Create(f.d.PathBase(f.name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, io.NewSectionReader(src, 0, f.written)); err != nil {
		return err
	}
	f.copy = dst
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.names[f.name] = true
	return nil
}

// WriteAt isn't used by Pebble.
func (f *diskFile) WriteAt(p []byte, off int64) (int, error) { return 0, vfs.ErrUnsupported }

func (f *diskFile) Sync() error { return f.timed(vfs.File.Sync) }

func (f *diskFile) SyncData() error { return f.timed(vfs.File.SyncData) }

func (f *diskFile) timed(sync func(vfs.File) error) error {
	start := time.Now()
	err := f.change(sync)
	if f.wal {
		f.d.syncs.Add(1)
		f.d.syncNanos.Add(int64(time.Since(start)))
	}
	return err
}

func (f *diskFile) SyncTo(length int64) (full bool, err error) {
	err = f.change(func(file vfs.File) (err error) { full, err = file.SyncTo(length); return err })
	return full, err
}

// Preallocate only helps: what it can't do (some file systems never can) shows, if at all, when the space is written.
func (f *diskFile) Preallocate(offset, length int64) error {
	if f.f == nil || f.d.failed() != nil {
		return nil
	}
	return f.f.Preallocate(offset, length)
}

func (f *diskFile) Close() error {
	if f.f != nil {
		if err := f.f.Close(); err != nil {
			f.d.freeze(err)
			if err := f.change(func(vfs.File) error { return nil }); err != nil {
				return err
			}
		}
	}
	if f.copy != nil {
		return f.copy.Close()
	}
	return nil
}

func (f *diskFile) Read(p []byte) (int, error) {
	if f.f == nil {
		return 0, oserror.ErrNotExist
	}
	return f.f.Read(p)
}

func (f *diskFile) ReadAt(p []byte, off int64) (int, error) {
	if f.f == nil {
		return 0, oserror.ErrNotExist
	}
	return f.f.ReadAt(p, off)
}

func (f *diskFile) Stat() (vfs.FileInfo, error) {
	if f.f == nil {
		return vfs.NewMemFile(nil).Stat()
	}
	return f.f.Stat()
}

func (f *diskFile) Prefetch(offset, length int64) error {
	if f.f == nil {
		return nil
	}
	return f.f.Prefetch(offset, length)
}

func (f *diskFile) Fd() uintptr {
	if f.f == nil {
		return vfs.InvalidFd
	}
	return f.f.Fd()
}
