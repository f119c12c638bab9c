package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace/millrace/internal/fault"
)

// Kinds of stores, as the format file names them.
const (
	kindLog   = "log"
	kindState = "state"
)

// Store is an ordered map of bytes on disk. All methods are safe for concurrent use; after Close they return an
// Unavailable error with reason STORE_CLOSED.
type Store struct {
	kind string
	dir  string
	db   *pebble.DB
	disk *disk
	lock *pebble.Lock
	log  *slog.Logger

	// life is held for reading by every call into Pebble (which panics once closed), for writing by Close.
	life   sync.RWMutex
	closed bool
	close  sync.Once
	closeE error

	sick     atomic.Pointer[fault.Error]
	space    spaceWatch
	pressure pressure
	reclaim  reclaimer

	commits     atomic.Int64
	commitBytes atomic.Int64
}

// OpenLog opens or makes the log store in dir: write-ahead log on, values of 1 KiB and more in blob files.
//
// Errors: Invalid options; Conflict with reason LOCKED (another process has it) or FOREIGN_FOLDER; Unsupported with
// reason NEWER_FORMAT; Corrupted; Exhausted DISK_FULL; Unavailable IO_ERROR.
func OpenLog(dir string, o Options) (*Store, error) { return open(kindLog, dir, o) }

// OpenState opens or makes the state store in dir: write-ahead log off, so that a crash takes it back to an earlier
// state that is a prefix of its commits. Errors as OpenLog.
func OpenState(dir string, o Options) (*Store, error) { return open(kindState, dir, o) }

func open(kind, dir string, o Options) (_ *Store, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := makeDir(o.FS, dir); err != nil {
		return nil, classify(err, "make the folder %s", dir)
	}
	if u, err := o.FS.GetDiskUsage(dir); err == nil && u.TotalBytes > 0 {
		o.fitDisk(u.TotalBytes)
	}
	d := newDisk(o.FS, dir)
	s := &Store{kind: kind, dir: dir, disk: d, log: o.Logger.With("store", kind)}
	d.onFail = s.fail
	s.space.init(d, dir, o.HighWaterBytes, o.ReserveBytes)
	s.pressure.init()
	if s.lock, err = pebble.LockDirectory(dir, o.FS); err != nil {
		return nil, fault.Wrap(fault.Conflict, err, "the data folder %s is in use by another process, or can't be locked", dir).
			WithReason(ReasonLocked)
	}
	defer func() {
		if err != nil {
			_ = s.lock.Close()
		}
	}()
	fresh, err := checkFormat(o.FS, dir, kind)
	if err != nil {
		return nil, err
	}
	if kind == kindLog {
		if d.journals, err = openJournals(o.FS, dir); err != nil {
			return nil, classify(err, "open the %s store in %s", kind, dir)
		}
	}
	po, err := s.pebbleOptions(o)
	if err != nil {
		return nil, err
	}
	defer po.Cache.Unref()
	if s.db, err = pebble.Open(dir, po); err != nil {
		if cause := d.failed(); cause != nil {
			err = cause // the first error tells more than what followed from it
		} else if oserror.IsNotExist(err) {
			err = fault.Wrap(fault.Corrupted, err, "the %s store in %s has lost files", kind, dir).WithReason(ReasonCorrupted)
		}
		return nil, classify(err, "open the %s store in %s", kind, dir)
	}
	err = checkBlobs(s.db, d)
	if cause := d.failed(); cause != nil {
		err = cause
	}
	if err == nil && fresh {
		err = finishFormat(o.FS, dir, kind)
	}
	if err != nil {
		close(d.closed)
		_ = s.db.Close()
		return nil, classify(err, "open the %s store in %s", kind, dir)
	}
	s.pressure.start(s.db, d)
	if kind == kindLog {
		s.reclaim.after, s.reclaim.low = cmp.Or(o.reclaimAfter, reclaimAfter), s.space.scarce.Load
		s.reclaim.start(s.db, func(err error) {
			s.log.Warn("the space of deleted logs isn't free yet; Pebble frees it later", "error", err)
		})
	}
	return s, nil
}

// fail makes the store refuse writes from now on. It is called once.
func (s *Store) fail(err error) {
	var f *fault.Error
	if !errors.As(classify(err, "write to the %s store in %s", s.kind, s.dir), &f) {
		f = fault.Wrap(fault.Internal, err, "the %s store in %s failed", s.kind, s.dir)
	}
	s.sick.Store(f)
	s.log.Error("the store refuses writes from now on; reads go on", "dir", s.dir, "reason", f.GetReason(), "error", err)
}

// Healthy returns nil, or the error that made the store refuse all writes until it is opened anew: Exhausted DISK_FULL,
// Unavailable IO_ERROR, Corrupted CORRUPTED, or Internal for a defect that Pebble found in itself.
func (s *Store) Healthy() error {
	if f := s.sick.Load(); f != nil {
		return f
	}
	if err := s.disk.failed(); err != nil { // frozen an instant ago; fail is about to store it
		return classify(err, "write to the %s store in %s", s.kind, s.dir)
	}
	return nil
}

// Failed is closed when the store begins to refuse writes; Healthy then says why.
func (s *Store) Failed() <-chan struct{} { return s.disk.frozen }

// Room returns nil, or why nothing new should be taken: Exhausted DISK_FULL with a delay to retry while less than
// Options.HighWaterBytes are free on the disk. What was taken already can still be committed then. It is cheap.
func (s *Store) Room() error { return s.space.room() }

// Spare is Room with a lower mark, halfway down to Options.ReserveBytes: for what others have taken already.
func (s *Store) Spare() error { return s.space.spare() }

// enter keeps the store open until leave.
func (s *Store) enter() error {
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return errClosed
	}
	return nil
}

func (s *Store) leave() { s.life.RUnlock() }

// Commit applies the batch as a whole, visible to reads at once. With sync it returns when the batch is on the disk:
// in the log store after an fsync, which it shares with the other commits that wait; the state store, which has no
// write-ahead log, flushes its tables in memory. Without sync a crash may lose the batch, but never one before it alone.
// On an error nothing is acknowledged: the batch may or may not be found after the store is opened anew.
//
// Errors: those of Healthy; Exhausted DISK_FULL with a delay to retry while free space is below Options.ReserveBytes;
// TooLarge for a batch over MaxBatchBytes; Unavailable STORE_CLOSED.
//
// It waits while flushes or compactions are far behind.
func (s *Store) Commit(b *Batch, sync bool) error {
	if b.err != nil {
		return b.err
	}
	if b.committed {
		return fault.New(fault.Internal, "storage: a batch was committed twice; Reset it in between")
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := s.Healthy(); err != nil {
		return err
	}
	if err := s.space.admit(b); err != nil {
		return err
	}
	s.pressure.wait(s.disk.frozen)
	size := int64(b.b.Len())
	b.committed = true
	wo := pebble.NoSync
	if sync && s.kind == kindLog {
		wo = pebble.Sync
	}
	err := s.db.Apply(b.b, wo)
	if err == nil && sync && s.kind == kindState {
		err = s.db.Flush()
	}
	// Pebble doesn't know of a frozen disk and says that all went well; so this look comes after.
	if sick := s.Healthy(); sick != nil {
		b.err = sick
		return sick
	}
	if err != nil {
		b.err = classify(err, "commit to the %s store in %s", s.kind, s.dir)
		return b.err
	}
	s.reclaim.note(b.ranges)
	b.ranges = nil
	s.commits.Add(1)
	s.commitBytes.Add(size)
	return nil
}

// Flush writes the tables in memory to disk: what was committed before it, also without sync, survives a crash.
func (s *Store) Flush() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := s.Healthy(); err != nil {
		return err
	}
	err := s.db.Flush()
	if sick := s.Healthy(); sick != nil {
		return sick
	}
	return classify(err, "flush the %s store in %s", s.kind, s.dir)
}

// Close waits for the calls that are running, flushes a healthy state store and closes the files. Iterators and
// snapshots must be closed before. Safe to call twice; the second call returns the same.
func (s *Store) Close() error {
	s.close.Do(func() { s.closeE = s.doClose() })
	return s.closeE
}

func (s *Store) doClose() error {
	var err error
	s.life.Lock()
	s.closed = true
	s.life.Unlock()
	close(s.disk.closed)
	s.reclaim.stop()
	s.pressure.stop()
	if s.kind == kindState && s.Healthy() == nil {
		err = s.db.Flush()
	}
	if e := s.db.Close(); err == nil {
		err = e
	}
	if err == nil && s.disk.journals != nil && s.Healthy() == nil {
		s.disk.freeze(s.disk.journals.finish())
	}
	if e := s.lock.Close(); err == nil {
		err = e
	}
	if sick := s.Healthy(); sick != nil {
		return sick
	}
	return classify(err, "close the %s store in %s", s.kind, s.dir)
}

// Get returns the value of key; it is valid until the closer is closed. NotFound when there is none.
func (s *Store) Get(key []byte) ([]byte, io.Closer, error) {
	if err := s.enter(); err != nil {
		return nil, nil, err
	}
	defer s.leave()
	v, c, err := s.db.Get(key)
	return v, c, s.readError(err)
}

// readError names an error of a read; a missing key is the same error each time, since it is frequent.
func (s *Store) readError(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, pebble.ErrNotFound) {
		return errNotFound
	}
	return classify(err, "read from the %s store in %s", s.kind, s.dir)
}

// pebbleLog hands Pebble's messages on, and keeps its Fatalf from ending the process.
type pebbleLog struct{ s *Store }

func (l pebbleLog) Infof(format string, args ...any) {
	if l.s.log.Enabled(context.Background(), slog.LevelDebug) {
		l.s.log.Debug(fmt.Sprintf(format, args...))
	}
}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.s.log.Error(fmt.Sprintf(format, args...))
}

// Fatalf is called for what Pebble can't go on from. Failed writes don't come here (see disk); what does is damage, or
// a defect. From then on nothing is written, so nothing more can be spoilt.
func (l pebbleLog) Fatalf(format string, args ...any) {
	l.s.disk.freeze(fault.New(fault.Internal, "pebble: "+format, args...))
}
