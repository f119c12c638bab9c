package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace/millrace/internal/fault"
)

func TestCopyRange(t *testing.T) {
	for _, o := range openers {
		t.Run(o.kind, func(t *testing.T) {
			from, to := mustOpen(t, o, vfs.NewMem()), mustOpen(t, o, vfs.NewMem())
			defer mustClose(t, from)
			defer mustClose(t, to)
			rng := seeded(t)
			b := from.NewBatch()
			for i := range 500 {
				b.Set(fmt.Appendf(nil, "k%04d", i), bytes.Repeat([]byte{byte(i)}, rng.IntN(3000)))
			}
			b.Set([]byte("k0100"), make([]byte, 100_000)) // larger than a chunk
			b.Set([]byte("k0101"), nil)
			if err := from.Commit(b, false); err != nil {
				t.Fatal(err)
			}
			b.Close()
			snap := from.Snapshot()
			defer mustClose(t, snap)
			set(t, from, false, "k0200", "written after the snapshot")

			const most = 16 << 10
			chunks := 0
			lo, hi := []byte("k0050"), []byte("k0400")
			err := Export(snap, lo, hi, most, func(chunk []byte) error {
				if chunks++; len(chunk) > most && len(chunk) < 100_000 {
					t.Errorf("a chunk of %d bytes", len(chunk))
				}
				return ImportBounded(to, chunk, lo, hi)
			})
			if err != nil || chunks < 10 {
				t.Fatalf("%d chunks, %v", chunks, err)
			}
			if got, want := contents(t, to, nil, nil), contents(t, snap, lo, hi); got != want {
				t.Errorf("copied %d bytes of text, want %d", len(got), len(want))
			}
			if strings.Contains(contents(t, to, nil, nil), "after the snapshot") {
				t.Error("the copy isn't as of the snapshot")
			}

			stop := errors.New("stop")
			if err := Export(from, nil, nil, most, func([]byte) error { return stop }); err != stop {
				t.Errorf("the callback's error came back as %v", err)
			}
			if err := Export(from, []byte("x"), nil, most, func([]byte) error { return stop }); err != nil {
				t.Errorf("an empty range has a chunk: %v", err)
			}
			err = Export(from, nil, nil, most, func(chunk []byte) error { return ImportBounded(to, chunk, lo, hi) })
			wantFault(t, err, fault.Corrupted, "CORRUPTED")
			err = Export(from, []byte("k0450"), nil, most, func(chunk []byte) error { return ImportBounded(to, chunk, lo, hi) })
			wantFault(t, err, fault.Corrupted, "CORRUPTED")
		})
	}
}

// chunkOf makes a chunk with a right checksum of any body.
func chunkOf(body string) []byte {
	c := append([]byte{chunkVersion}, body...)
	return binary.LittleEndian.AppendUint32(c, crc32.Checksum(c, castagnoli))
}

func TestDamagedChunks(t *testing.T) {
	s := mustOpen(t, openers[0], vfs.NewMem())
	defer mustClose(t, s)
	good := chunkOf("\x01a\x011\x01b\x012")
	if err := Import(s, good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		kind := fault.Corrupted
		if i == 0 {
			kind = fault.Unsupported
		}
		if err := Import(s, bad); fault.KindOf(err) != kind {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if err := Import(s, good[:i]); fault.KindOf(err) != fault.Corrupted {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	for name, body := range map[string]string{
		"order": "\x01b\x011\x01a\x012", "twice": "\x01a\x011\x01a\x012", "empty key twice": "\x00\x00\x00\x00",
		"key beyond": "\x7fa", "no value": "\x01a", "value beyond": "\x01a\x05x", "endless length": strings.Repeat("\xff", 11),
	} {
		if err := Import(s, chunkOf(body)); fault.KindOf(err) != fault.Corrupted {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := contents(t, s, nil, nil); got != "a=1 b=2" {
		t.Errorf("damaged chunks left %q", got)
	}
}

func FuzzDecodeChunk(f *testing.F) {
	f.Add(chunkOf("\x01a\x011\x01b\x012"))
	f.Add(chunkOf(""))
	f.Add([]byte{chunkVersion, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		// Half of the time the checksum is made right, so that the fuzzer gets past it.
		for _, chunk := range [][]byte{in, chunkOf(string(in))} {
			again := []byte{chunkVersion}
			err := DecodeChunk(chunk, func(k, v []byte) error {
				again = append(binary.AppendUvarint(again, uint64(len(k))), k...)
				again = append(binary.AppendUvarint(again, uint64(len(v))), v...)
				return nil
			})
			if err != nil {
				if k := fault.KindOf(err); k != fault.Corrupted && k != fault.Unsupported {
					t.Fatalf("an error of kind %v: %v", k, err)
				}
				continue
			}
			var pairs, pairsAgain []string
			collect := func(to *[]string) func(k, v []byte) error {
				return func(k, v []byte) error { *to = append(*to, string(k), string(v)); return nil }
			}
			again = binary.LittleEndian.AppendUint32(again, crc32.Checksum(again, castagnoli))
			if err := DecodeChunk(chunk, collect(&pairs)); err != nil {
				t.Fatal(err)
			}
			if err := DecodeChunk(again, collect(&pairsAgain)); err != nil || fmt.Sprint(pairs) != fmt.Sprint(pairsAgain) {
				t.Fatalf("decoding what was encoded again: %v", err)
			}
		}
	})
}
