package storage

import (
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/internal/fault"
)

// damaged makes a log store with some values in blob files and some in the write-ahead log, closes it and hands its
// folder to spoil.
func damaged(t *testing.T, spoil func(fs *vfs.MemFS, dir string, names []string)) (*Store, error) {
	t.Helper()
	fs := vfs.NewMem()
	o := DefaultOptions()
	o.FS, o.ReserveBytes, o.CacheBytes, o.MemTableBytes = fs, 0, 1<<20, 1<<18
	s, err := OpenLog("/db", o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		b := s.NewBatch()
		b.Set([]byte{'k', byte(i)}, []byte(strings.Repeat("v", 10_000)))
		if err := s.Commit(b, true); err != nil {
			t.Fatal(err)
		}
		b.Close()
		if i == 50 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("/db")
	if err != nil {
		t.Fatal(err)
	}
	spoil(fs, "/db", names)
	return OpenLog("/db", o)
}

func rewrite(t *testing.T, fs *vfs.MemFS, name string, change func([]byte) []byte) {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	out, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write(change(b)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedBlobFile reads from blob files whose end, or whose middle, is damaged: an error, for whoever needs
// those values.
func TestDamagedBlobFile(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"end":     func(b []byte) []byte { b[len(b)-5] ^= 1; return b },
		"cut off": func(b []byte) []byte { return b[:len(b)/2] },
		"empty":   func([]byte) []byte { return nil },
		"middle":  func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
	} {
		t.Run(name, func(t *testing.T) {
			blobs := 0
			s, err := damaged(t, func(fs *vfs.MemFS, dir string, names []string) {
				for _, n := range names {
					if isBlob(n) {
						blobs++
						rewrite(t, fs, dir+"/"+n, change)
					}
				}
			})
			if blobs == 0 {
				t.Fatal("no blob files")
			}
			if err == nil {
				defer s.Close()
				var it *Iter
				if it, err = s.Iter(nil, nil); err != nil {
					t.Fatal(err)
				}
				for ok := it.First(); ok && it.Error() == nil; ok = it.Next() {
					it.Value()
				}
				err = it.Error()
				it.Close()
				if err := s.Healthy(); err != nil {
					t.Errorf("damaged values stop the whole store: %v", err)
				}
			}
			if fault.KindOf(err) != fault.Corrupted {
				t.Errorf("reading or opening: %v", err)
			}
		})
	}
}

// TestLostBlobFile: a blob file that is gone when the store is opened is told then, as a lost table is. One that goes later is
// no error that Pebble takes for one of its own, of which it panics.
func TestLostBlobFile(t *testing.T) {
	lost := ""
	s, err := damaged(t, func(fs *vfs.MemFS, dir string, names []string) {
		for _, n := range names {
			if isBlob(n) && lost == "" {
				lost = n
				if err := fs.Remove(dir + "/" + n); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
	if err == nil {
		s.Close()
	}
	if lost == "" || fault.KindOf(err) != fault.Corrupted || !strings.Contains(err.Error(), lost) {
		t.Errorf("without the blob file %q: %v", lost, err)
	}
	whole, err := damaged(t, func(*vfs.MemFS, string, []string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	if _, err := whole.disk.Open("/db/000000.blob"); fault.KindOf(err) != fault.Corrupted || pebble.IsCorruptionError(err) || oserror.IsNotExist(err) {
		t.Errorf("a blob file that isn't there: %v", err)
	}
}

// TestMissingJournal: a write-ahead log that is gone, or shorter than when the store was closed, isn't taken for one that
// never was.
func TestMissingJournal(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, fs *vfs.MemFS, path string){
		"removed": func(t *testing.T, fs *vfs.MemFS, path string) {
			if err := fs.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"cut off": func(t *testing.T, fs *vfs.MemFS, path string) {
			rewrite(t, fs, path, func(b []byte) []byte { return b[:len(b)/2] })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := damaged(t, func(fs *vfs.MemFS, dir string, names []string) {
				for _, n := range names {
					if isWAL(n) {
						spoil(t, fs, dir+"/"+n)
					}
				}
			})
			if err == nil {
				s.Close()
			}
			if fault.KindOf(err) != fault.Corrupted || !strings.Contains(err.Error(), "write-ahead log") {
				t.Errorf("opened: %v", err)
			}
		})
	}
}

// TestJournalsComeAndGo: the list follows the files as they are made and removed.
func TestJournalsComeAndGo(t *testing.T) {
	s, err := damaged(t, func(*vfs.MemFS, string, []string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	names, err := s.disk.fs.List("/db")
	if err != nil {
		t.Fatal(err)
	}
	there := 0
	for _, n := range names {
		if isWAL(n) {
			there++
		}
	}
	s.disk.journals.mu.Lock()
	listed := len(s.disk.journals.names)
	s.disk.journals.mu.Unlock()
	if there == 0 || listed > there || listed == 0 {
		t.Errorf("%d journals are there, %d listed", there, listed)
	}
}
