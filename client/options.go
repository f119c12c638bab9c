package client

import (
	"time"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// Compression is how a producer compresses its batches.
type Compression = millracev1.Compression

const (
	NoCompression = millracev1.Compression_COMPRESSION_NONE
	S2            = millracev1.Compression_COMPRESSION_S2   // fast; the default
	Zstd          = millracev1.Compression_COMPRESSION_ZSTD // smaller, at several times the cost
)

const (
	// silence is how long a node may not answer before it is left for the next, where there is one.
	silence = time.Second
	// lonelySilence is the same where there is no other node: going elsewhere would gain nothing.
	lonelySilence = 10 * time.Second
	// maxMessageBytes bounds a gRPC message in both directions; the servers' default is the same.
	maxMessageBytes = 16 << 20
	// windowBytes is HTTP/2's flow-control window of a stream: what a node may send before it hears back.
	windowBytes = 4 << 20
	// connWindowBytes is the same for all streams of a connection.
	connWindowBytes = 16 << 20
	// connBufferBytes is the size of a connection's write and read buffers: a system call moves that much.
	connBufferBytes = 256 << 10
)

// Option changes how a Client works.
type Option func(*options)

type options struct {
	patience time.Duration
	dial     []grpc.DialOption
}

func defaultOptions() options { return options{patience: 10 * time.Second} }

// WithPatience sets for how long a call that may be repeated safely (a query, the description of a stream) goes from
// node to node before its error is returned. The default is 10 s.
func WithPatience(d time.Duration) Option { return func(o *options) { o.patience = d } }

// WithDialOptions adds gRPC dial options to those of the client; the later one wins.
func WithDialOptions(opts ...grpc.DialOption) Option {
	return func(o *options) { o.dial = append(o.dial, opts...) }
}

// ProducerOption changes how a Producer works.
type ProducerOption func(*producerOptions)

type producerOptions struct {
	linger      time.Duration
	batchBytes  int
	bufferBytes int
	timeout     time.Duration
	compression Compression
	onBatch     func(BatchResult)
}

const (
	minBatchBytes     = 1 << 10
	maxBatchBytes     = 8 << 20
	defaultBatchBytes = 256 << 10
)

func defaultProducerOptions() producerOptions {
	return producerOptions{
		linger: 5 * time.Millisecond, batchBytes: defaultBatchBytes, bufferBytes: 64 << 20,
		timeout: time.Minute, compression: S2,
	}
}

// WithLinger sets the longest time that a record waits for others to fill its batch. The default is 5 ms. The producer
// waits less while acknowledgements come quickly, as larger batches would gain nothing then. 0 sends at once.
func WithLinger(d time.Duration) ProducerOption { return func(o *producerOptions) { o.linger = d } }

// WithBatchBytes sets at how many uncompressed bytes a batch is full, 1 KiB to 8 MiB. The default is 256 KiB. A record
// that is larger makes a batch of its own.
func WithBatchBytes(n int) ProducerOption { return func(o *producerOptions) { o.batchBytes = n } }

// WithBufferBytes bounds the uncompressed bytes of all records that are not yet acknowledged; Send blocks at the bound.
// The default is 64 MiB. It is raised to twice the stream's largest record where it is less.
func WithBufferBytes(n int) ProducerOption { return func(o *producerOptions) { o.bufferBytes = n } }

// WithCompression sets how batches are compressed. The default is S2.
func WithCompression(c Compression) ProducerOption {
	return func(o *producerOptions) { o.compression = c }
}

// WithTimeout sets for how long a batch is sent again and again before its records are given up. The default is 1 min.
func WithTimeout(d time.Duration) ProducerOption { return func(o *producerOptions) { o.timeout = d } }

// OnBatch has fn called once for each batch that was acknowledged or given up. Calls for one partition come one after
// the other in the order of its records; those for several partitions may come at once. fn must not block.
func OnBatch(fn func(BatchResult)) ProducerOption {
	return func(o *producerOptions) { o.onBatch = fn }
}

func (o producerOptions) validate() error {
	switch {
	case o.linger < 0:
		return fault.New(fault.Invalid, "linger %s: must not be negative", o.linger)
	case o.batchBytes < minBatchBytes || o.batchBytes > maxBatchBytes:
		return fault.New(fault.Invalid, "batch of %d bytes: use %d to %d", o.batchBytes, minBatchBytes, maxBatchBytes)
	case o.bufferBytes < o.batchBytes:
		return fault.New(fault.Invalid, "buffer of %d bytes: must hold at least a batch of %d", o.bufferBytes, o.batchBytes)
	case o.timeout <= 0:
		return fault.New(fault.Invalid, "timeout %s: must be positive", o.timeout)
	case o.compression < NoCompression || o.compression > Zstd:
		return fault.New(fault.Invalid, "unknown compression %d; use none, s2 or zstd", o.compression)
	}
	return nil
}
