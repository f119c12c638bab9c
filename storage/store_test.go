package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// small are options that make flushes and compactions happen with little data.
func small(fs vfs.FS) Options {
	o := DefaultOptions()
	o.FS, o.MemTableBytes, o.CacheBytes, o.ReserveBytes = fs, 1<<18, 1<<20, 0
	o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	return o
}

type opener struct {
	kind string
	open func(string, Options) (*Store, error)
}

var openers = []opener{{kindLog, OpenLog}, {kindState, OpenState}}

func mustOpen(t testing.TB, o opener, fs vfs.FS) *Store {
	t.Helper()
	s, err := o.open("data", small(fs))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t testing.TB, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func set(t testing.TB, s *Store, sync bool, kv ...string) {
	t.Helper()
	b := s.NewBatch()
	defer b.Close()
	for i := 0; i < len(kv); i += 2 {
		b.Set([]byte(kv[i]), []byte(kv[i+1]))
	}
	if err := s.Commit(b, sync); err != nil {
		t.Fatal(err)
	}
}

// contents returns all of r but meta keys, as text.
func contents(t testing.TB, r Reader, lo, hi []byte) string {
	t.Helper()
	it, err := r.Iter(lo, hi)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for ok := it.First(); ok; ok = it.Next() {
		fmt.Fprintf(&out, "%s=%s ", it.Key(), it.Value())
	}
	mustClose(t, it)
	return strings.TrimSpace(out.String())
}

func wantFault(t testing.TB, err error, kind fault.Kind, reason string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != kind || f.GetReason() != reason {
		t.Fatalf("got %v, want an error of kind %v with reason %s", err, kind, reason)
	}
}

func TestReadsAndWrites(t *testing.T) {
	for _, o := range openers {
		t.Run(o.kind, func(t *testing.T) {
			s := mustOpen(t, o, vfs.NewMem())
			defer mustClose(t, s)
			set(t, s, true, "a", "1", "b", "2", "c", "3", "d", "4")
			snap := s.Snapshot()
			defer mustClose(t, snap)

			b := s.NewBatch()
			defer b.Close()
			k, v := b.SetDeferred(1, 2)
			copy(k, "e")
			copy(v, "55")
			b.Delete([]byte("a"))
			b.DeleteRange([]byte("b"), []byte("d"))
			b.Set([]byte("c"), []byte("again"))
			if b.Count() != 4 || b.Len() == 0 {
				t.Fatalf("a batch of %d writes, %d bytes", b.Count(), b.Len())
			}
			if err := s.Commit(b, false); err != nil {
				t.Fatal(err)
			}
			if got, want := contents(t, s, nil, nil), "c=again d=4 e=55"; got != want {
				t.Errorf("store holds %q, want %q", got, want)
			}
			if got, want := contents(t, snap, nil, nil), "a=1 b=2 c=3 d=4"; got != want {
				t.Errorf("snapshot holds %q, want %q", got, want)
			}
			if got, want := contents(t, snap, []byte("b"), []byte("d")), "b=2 c=3"; got != want {
				t.Errorf("a range of the snapshot holds %q, want %q", got, want)
			}
			for _, r := range []Reader{s, snap} {
				val, c, err := r.Get([]byte("d"))
				if err != nil || string(val) != "4" {
					t.Fatalf("Get(d) = %q, %v", val, err)
				}
				mustClose(t, c)
				_, _, err = r.Get([]byte("zzz"))
				wantFault(t, err, fault.NotFound, "NOT_FOUND")
			}
			wantFault(t, s.Commit(b, false), fault.Internal, "INTERNAL")
			b.Reset()
			if b.Count() != 0 {
				t.Errorf("%d writes after Reset", b.Count())
			}
			if err := s.Commit(b, true); err != nil {
				t.Errorf("an empty batch: %v", err)
			}
		})
	}
}

func TestIter(t *testing.T) {
	s := mustOpen(t, openers[0], vfs.NewMem())
	defer mustClose(t, s)
	set(t, s, true, "b", "1", "d", "2", "f", "3")
	it, err := s.Iter([]byte("b"), []byte("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, it)
	for _, c := range []struct {
		name string
		move func() bool
		want string
	}{
		{"First", it.First, "b"}, {"Next", it.Next, "d"}, {"Next at the end", it.Next, ""}, {"Last", it.Last, "d"},
		{"Prev", it.Prev, "b"}, {"Prev at the start", it.Prev, ""},
		{"SeekGE", func() bool { return it.SeekGE([]byte("c")) }, "d"},
		{"SeekGE beyond", func() bool { return it.SeekGE([]byte("e")) }, ""},
		{"SeekLT", func() bool { return it.SeekLT([]byte("d")) }, "b"},
		{"SeekLT before", func() bool { return it.SeekLT([]byte("a")) }, ""},
	} {
		ok := c.move()
		if ok != (c.want != "") || ok != it.Valid() || ok && string(it.Key()) != c.want || it.Error() != nil {
			t.Errorf("%s: %v, valid %v, error %v, want %q", c.name, ok, it.Valid(), it.Error(), c.want)
		}
	}
}

func TestReopen(t *testing.T) {
	for _, o := range openers {
		t.Run(o.kind, func(t *testing.T) {
			fs := vfs.NewMem()
			s := mustOpen(t, o, fs)
			set(t, s, true, "k", "v")
			set(t, s, false, "l", "w")
			mustClose(t, s)
			mustClose(t, s)
			s = mustOpen(t, o, fs)
			defer mustClose(t, s)
			if got := contents(t, s, nil, nil); got != "k=v l=w" {
				t.Errorf("after opening it anew the store holds %q", got)
			}
		})
	}
}

func TestSharedCache(t *testing.T) {
	fs, c := vfs.NewMem(), NewCache(8<<20)
	o := small(fs)
	o.Cache = c
	log, err := OpenLog("log", o)
	if err != nil {
		t.Fatal(err)
	}
	state, err := OpenState("state", o)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	c.Close()
	set(t, log, true, "a", "1")
	set(t, state, true, "b", "2")
	if m := state.Metrics(); m.Commits != 1 || m.CommitBytes == 0 || m.Flushes == 0 || m.DiskBytes == 0 {
		t.Errorf("metrics of the state store: %+v", m)
	}
	if m := log.Metrics(); m.Commits != 1 || m.Syncs == 0 || m.WALBytes == 0 {
		t.Errorf("metrics of the log store: %+v", m)
	}
	mustClose(t, log)
	mustClose(t, state)
	_, err = OpenLog("log", o)
	wantFault(t, err, fault.Internal, "INTERNAL")
}

// TestCacheBesideMemTables makes sure that memtables don't take the cache's room.
func TestCacheBesideMemTables(t *testing.T) {
	for _, shared := range []bool{false, true} {
		o := small(vfs.NewMem())
		o.MemTableBytes, o.CacheBytes = 4<<20, 1<<20
		if shared {
			o.Cache = NewCache(1 << 20)
			defer o.Cache.Close()
		}
		s, err := OpenState("data", o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2000 {
			set(t, s, false, fmt.Sprintf("k%04d", i), strings.Repeat("v", 200))
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		get := func() {
			for i := range 2000 {
				_, c, err := s.Get(fmt.Appendf(nil, "k%04d", i))
				if err != nil {
					t.Fatal(err)
				}
				mustClose(t, c)
			}
		}
		get()
		before := s.Metrics()
		get()
		if m := s.Metrics(); m.CacheMisses != before.CacheMisses || m.CacheHits == before.CacheHits {
			t.Errorf("shared=%v: reading anew, %d blocks come from files, %d from the cache", shared, m.CacheMisses-before.CacheMisses, m.CacheHits-before.CacheHits)
		}
		mustClose(t, s)
	}
}

func TestClosed(t *testing.T) {
	s := mustOpen(t, openers[0], vfs.NewMem())
	b := s.NewBatch()
	b.Set([]byte("a"), nil)
	snap := s.Snapshot()
	mustClose(t, snap)
	mustClose(t, s)
	_, _, err := s.Get([]byte("a"))
	wantFault(t, err, fault.Unavailable, ReasonClosed)
	_, err = s.Iter(nil, nil)
	wantFault(t, err, fault.Unavailable, ReasonClosed)
	wantFault(t, s.Commit(b, true), fault.Unavailable, ReasonClosed)
	wantFault(t, s.Flush(), fault.Unavailable, ReasonClosed)
	_, _, err = s.Snapshot().Get([]byte("a"))
	wantFault(t, err, fault.Unavailable, ReasonClosed)
	_, err = snap.Iter(nil, nil)
	wantFault(t, err, fault.Unavailable, ReasonClosed)
	if m := s.Metrics(); m.DiskBytes != 0 {
		t.Errorf("a closed store has %d bytes", m.DiskBytes)
	}
	b.Close()
	b.Close()
}

func TestRefusedFolders(t *testing.T) {
	write := func(t *testing.T, fs vfs.FS, name, text string) {
		f, err := fs.Create(name, "test")
		if err == nil {
			_, err = f.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, f)
	}
	made := func(t *testing.T, fs vfs.FS) { mustClose(t, mustOpen(t, openers[0], fs)) }
	for _, c := range []struct {
		name    string
		prepare func(*testing.T, vfs.FS)
		kind    fault.Kind
		reason  string
		says    string
	}{
		{"another store's kind", func(t *testing.T, fs vfs.FS) { mustClose(t, mustOpen(t, openers[1], fs)) },
			fault.Conflict, "FOREIGN_FOLDER", "state store"},
		{"someone's files", func(t *testing.T, fs vfs.FS) {
			_ = fs.MkdirAll("data", 0o755)
			write(t, fs, "data/thesis.doc", "x")
		}, fault.Conflict, "FOREIGN_FOLDER", "thesis.doc"},
		{"someone's Pebble", func(t *testing.T, fs vfs.FS) {
			db, err := pebble.Open("data", &pebble.Options{FS: fs, Logger: pebbleLog{&Store{log: small(fs).Logger, disk: newDisk(fs, "")}}})
			if err != nil {
				t.Fatal(err)
			}
			mustClose(t, db)
		}, fault.Conflict, "FOREIGN_FOLDER", "isn't a Millrace log store"},
		{"newer format", func(t *testing.T, fs vfs.FS) { made(t, fs); write(t, fs, "data/MILLRACE", "millrace log 999\n") },
			fault.Unsupported, "NEWER_FORMAT", "format 999"},
		{"damaged format", func(t *testing.T, fs vfs.FS) { made(t, fs); write(t, fs, "data/MILLRACE", "\x00\x00") },
			fault.Corrupted, "CORRUPTED", "MILLRACE"},
		{"no version", func(t *testing.T, fs vfs.FS) { made(t, fs); write(t, fs, "data/MILLRACE", "millrace log zero") },
			fault.Corrupted, "CORRUPTED", "version"},
		{"files lost", func(t *testing.T, fs vfs.FS) {
			made(t, fs)
			names, _ := fs.List("data")
			for _, n := range names {
				if n != formatFile {
					_ = fs.Remove("data/" + n)
				}
			}
		}, fault.Corrupted, "CORRUPTED", "lost its files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			c.prepare(t, fs)
			before, _ := fs.List("data")
			s, err := OpenLog("data", small(fs))
			if err == nil {
				_ = s.Close()
			}
			wantFault(t, err, c.kind, c.reason)
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q doesn't say %q", err, c.says)
			}
			after, _ := fs.List("data")
			for _, n := range after {
				if n != "LOCK" && !bytes.Contains([]byte(fmt.Sprint(before)), []byte(n)) {
					t.Errorf("%s was put into a refused folder", n)
				}
			}
		})
	}
	t.Run("in use", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "deep", "log")
		o := small(vfs.Default)
		s, err := OpenLog(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = OpenLog(dir, o)
		wantFault(t, err, fault.Conflict, ReasonLocked)
		mustClose(t, s)
		s, err = OpenLog(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
	})
}

func TestOptions(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"FS": func(o *Options) { o.FS = nil }, "Logger": func(o *Options) { o.Logger = nil },
		"cache": func(o *Options) { o.CacheBytes = 1 }, "memtable": func(o *Options) { o.MemTableBytes = 1 },
	} {
		o := DefaultOptions()
		change(&o)
		_, err := OpenLog("data", o)
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReserve fills the disk up to the reserve: large batches are refused until there is space again, deletions pass.
func TestReserve(t *testing.T) {
	fs := vfs.NewMem()
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 1 << 32})
	o := small(fs)
	o.ReserveBytes = 1 << 20
	s, err := OpenLog("data", o)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, s)
	large := strings.Repeat("x", 64<<10)
	set(t, s, true, "a", large)
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 19, TotalBytes: 1 << 32})
	b := s.NewBatch()
	defer b.Close()
	for err = error(nil); err == nil; err = s.Commit(b, true) {
		b.Reset()
		b.Set([]byte("b"), []byte(large))
		if s.Metrics().Commits > 1000 {
			t.Fatal("the disk is below its reserve and nothing is refused")
		}
	}
	wantFault(t, err, fault.Exhausted, ReasonDiskFull)
	if s.Healthy() != nil {
		t.Errorf("a store that waits for space isn't ill: %v", s.Healthy())
	}
	if m := s.Metrics(); m.SpaceRefused == 0 {
		t.Error("nothing counted as refused")
	}
	set(t, s, true, "small", "passes")
	b.Reset()
	for i := range 2000 {
		b.Delete(fmt.Appendf(nil, "gone-%d", i))
	}
	if err := s.Commit(b, true); err != nil {
		t.Errorf("deletions must pass: %v", err)
	}
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 1 << 32})
	s.space.look()
	set(t, s, true, "b", large)
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err    error
		kind   fault.Kind
		reason string
	}{
		{fmt.Errorf("write: %w", syscall.ENOSPC), fault.Exhausted, ReasonDiskFull},
		{syscall.EDQUOT, fault.Exhausted, ReasonDiskFull},
		{syscall.EIO, fault.Unavailable, ReasonIOError},
		{pebble.ErrCorruption, fault.Corrupted, ReasonCorrupted},
		{pebble.ErrClosed, fault.Unavailable, ReasonClosed},
		{fault.New(fault.TooLarge, "x"), fault.TooLarge, "TOO_LARGE"},
	} {
		wantFault(t, classify(c.err, "do it"), c.kind, c.reason)
	}
	if classify(nil, "x") != nil {
		t.Error("no error is an error")
	}
}

// TestPressure holds commits while compactions are behind, and lets them go when they caught up or the disk failed.
func TestPressure(t *testing.T) {
	s := mustOpen(t, openers[1], vfs.NewMem())
	defer func() { _ = s.Close() }()
	for _, release := range []func(){func() { s.pressure.set(false) }, func() { s.disk.freeze(syscall.EIO) }} {
		s.pressure.set(true)
		before := s.pressure.waits.Load()
		done := make(chan error)
		go func() {
			b := s.NewBatch()
			defer b.Close()
			b.Set([]byte("k"), []byte("v"))
			done <- s.Commit(b, false)
		}()
		waitFor(t, func() bool { return s.pressure.waits.Load() > before })
		select {
		case err := <-done:
			t.Fatalf("the commit didn't wait: %v", err)
		default:
		}
		release()
		if err := <-done; (err == nil) != (s.Healthy() == nil) {
			t.Fatalf("commit: %v, healthy: %v", err, s.Healthy())
		}
	}
	wantFault(t, s.Healthy(), fault.Unavailable, ReasonIOError)
}

// TestRangeDeleteFrees cuts the old end of logs, as retention does: the space comes back without values being rewritten.
func TestRangeDeleteFrees(t *testing.T) {
	o := small(vfs.NewMem())
	o.reclaimAfter = time.Millisecond
	s, err := OpenLog("data", o)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, s)
	value := make([]byte, 4<<10)
	b := s.NewBatch()
	defer b.Close()
	const offsets = 1500
	for i := range ids.Offset(offsets) {
		b.Reset()
		for p := range ids.PartitionID(4) {
			b.Set(LogKey(p, 1, i), value)
		}
		if err := s.Commit(b, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	full := s.Metrics()
	if full.BlobLiveBytes < 4*offsets*4<<10 {
		t.Fatalf("%d bytes in blob files", full.BlobLiveBytes)
	}
	b.Reset()
	for p := range ids.PartitionID(4) {
		b.DeleteRange(LogKey(p, 1, 0), LogKey(p, 1, offsets*9/10))
	}
	if err := s.Commit(b, true); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return s.Metrics().BlobBytes < full.BlobBytes/4 })
	if m := s.Metrics(); m.BytesCompacted > full.BlobBytes/4 {
		t.Errorf("%d bytes were rewritten to free %d", m.BytesCompacted, full.BlobBytes-m.BlobBytes)
	}
	lo, hi := LogRange(3, 1)
	it, err := s.Iter(lo, hi)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if _, _, o, _ := ParseLogKey(it.Key()); o < offsets*9/10 || len(it.Value()) != len(value) {
			t.Fatalf("offset %d with %d bytes is still there", o, len(it.Value()))
		}
		n++
	}
	mustClose(t, it)
	if n != offsets/10 {
		t.Errorf("%d batches left, want %d", n, offsets/10)
	}
}

func TestMergeRanges(t *testing.T) {
	for _, c := range []struct {
		in, want string
		most     int
	}{
		{"ab", "ab", 4}, {"cd ab", "ab cd", 4}, {"ac bd", "ad", 4}, {"ab bc", "ac", 4}, {"az bc", "az", 4},
		{"ab cd ef gh ij", "ad eh ij", 4}, {"ab cd ef gh ij", "aj", 1}, {"ab cd ef", "ad ef", 2},
	} {
		var in []keyRange
		for _, f := range strings.Fields(c.in) {
			in = append(in, keyRange{[]byte(f[:1]), []byte(f[1:])})
		}
		var got []string
		for _, k := range mergeRanges(in, c.most) {
			got = append(got, string(k.lo)+string(k.hi))
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s, at most %d: %s, want %s", c.in, c.most, g, c.want)
		}
	}
}

// TestFitDisk: on a small disk the marks and the tables in memory leave most of it for data; a large one changes nothing.
func TestFitDisk(t *testing.T) {
	for _, tc := range []struct {
		total                     uint64
		table                     int
		highWater, reserve, least uint64
	}{
		{1 << 40, 64 << 20, 512 << 20, 256 << 20, 0},
		{256 << 20, 4 << 20, 64 << 20, 32 << 20, 128 << 20},
		{8 << 20, 256 << 10, 2 << 20, 1 << 20, 0},
	} {
		o := DefaultOptions()
		o.fitDisk(tc.total)
		if o.MemTableBytes != tc.table || o.HighWaterBytes != tc.highWater || o.ReserveBytes != tc.reserve {
			t.Errorf("disk of %d bytes: tables of %d, marks %d and %d", tc.total, o.MemTableBytes, o.HighWaterBytes, o.ReserveBytes)
		}
		if left := tc.total - o.HighWaterBytes - 7*uint64(o.MemTableBytes); left < tc.least {
			t.Errorf("of a disk of %d bytes %d are left", tc.total, left)
		}
		if err := o.Validate(); err != nil {
			t.Error(err)
		}
	}
}
