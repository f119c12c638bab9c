package record

import (
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// MaxUncompressedBytes bounds what Decompress makes, whatever a batch's header says. It is well above the largest gRPC
// message, so that small batches that compress well are not refused.
const MaxUncompressedBytes = 64 << 20

// The zstd coders keep only scratch memory and may be used by several goroutines at once.
var (
	zstdEncoder = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	})
	zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true),
			zstd.WithDecoderMaxMemory(MaxUncompressedBytes))
	})
)

// Compress appends src, compressed, to dst. A codec that it doesn't know is fault.Unsupported.
func Compress(dst, src []byte, c millracev1.Compression) ([]byte, error) {
	switch c {
	case millracev1.Compression_COMPRESSION_NONE:
		return append(dst, src...), nil
	case millracev1.Compression_COMPRESSION_S2:
		n := s2.MaxEncodedLen(len(src))
		if n < 0 {
			return dst, fault.New(fault.TooLarge, "a batch of %d bytes is too large to compress", len(src))
		}
		dst = grow(dst, n)
		out := s2.Encode(dst[len(dst):len(dst)+n], src)
		return dst[:len(dst)+len(out)], nil
	case millracev1.Compression_COMPRESSION_ZSTD:
		enc, err := zstdEncoder()
		if err != nil {
			return dst, fault.Wrap(fault.Internal, err, "zstd encoder")
		}
		return enc.EncodeAll(src, dst), nil
	}
	return dst, unknownCodec(c)
}

// Decompress appends the uncompressed src to dst. It never allocates more than uncompressedBytes, and that only up to
// MaxUncompressedBytes (fault.TooLarge). A src that doesn't decode to exactly that size is fault.Corrupted.
func Decompress(dst, src []byte, c millracev1.Compression, uncompressedBytes int) ([]byte, error) {
	n := uncompressedBytes
	if n < 0 || n > MaxUncompressedBytes {
		return dst, fault.New(fault.TooLarge, "a batch of %d uncompressed bytes is over the limit of %d", n, MaxUncompressedBytes)
	}
	switch c {
	case millracev1.Compression_COMPRESSION_NONE:
		if len(src) != n {
			return dst, wrongSize(len(src), n)
		}
		return append(dst, src...), nil
	case millracev1.Compression_COMPRESSION_S2:
		have, err := s2.DecodedLen(src)
		if err != nil {
			return dst, fault.Wrap(fault.Corrupted, err, "batch doesn't decompress (s2)")
		}
		if have != n {
			return dst, wrongSize(have, n)
		}
		dst = grow(dst, n)
		out, err := s2.Decode(dst[len(dst):len(dst)+n], src)
		if err != nil {
			return dst, fault.Wrap(fault.Corrupted, err, "batch doesn't decompress (s2)")
		}
		if len(out) != n {
			return dst, wrongSize(len(out), n)
		}
		return dst[:len(dst)+n], nil
	case millracev1.Compression_COMPRESSION_ZSTD:
		dec, err := zstdDecoder()
		if err != nil {
			return dst, fault.Wrap(fault.Internal, err, "zstd decoder")
		}
		dst = grow(dst, n)
		out, err := dec.DecodeAll(src, dst[len(dst):len(dst):len(dst)+n])
		if err != nil {
			return dst, fault.Wrap(fault.Corrupted, err, "batch doesn't decompress (zstd)")
		}
		if len(out) != n {
			return dst, wrongSize(len(out), n)
		}
		return dst[:len(dst)+n], nil
	}
	return dst, unknownCodec(c)
}

// grow makes room for n more bytes.
func grow(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst
	}
	out := make([]byte, len(dst), len(dst)+n)
	copy(out, dst)
	return out
}

func wrongSize(have, want int) error {
	return fault.New(fault.Corrupted, "batch decompresses to %d bytes, but its header says %d", have, want)
}

func unknownCodec(c millracev1.Compression) error {
	return fault.New(fault.Unsupported, "unknown compression %d; this version knows none, s2 and zstd", int32(c))
}
