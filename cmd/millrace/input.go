package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
)

// input is what send reads.
type input struct {
	src     io.Reader
	name    string
	size    int64 // bytes, of the file as it is; 0: unknown
	regular bool  // a file whose rest can be counted
	raw     *countingReader
	file    *os.File
}

// countingReader counts what is read of a file, compressed as it may be, for the progress bar.
type countingReader struct {
	io.Reader
	n atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// openInput opens a file, or stdin for "-". Gzip is recognised by its first bytes.
func (a *app) openInput(path string) (*input, error) {
	in := &input{name: path}
	if path == "-" {
		in.name = "stdin"
		in.raw = &countingReader{Reader: a.stdin}
	} else {
		f, err := os.Open(path)
		if err != nil {
			return nil, usagef("%v", err)
		}
		info, err := f.Stat()
		if err == nil && info.IsDir() {
			err = fmt.Errorf("%s is a folder", path)
		}
		if err != nil {
			f.Close()
			return nil, usagef("%v", err)
		}
		in.file, in.regular = f, info.Mode().IsRegular()
		if in.regular {
			in.size = info.Size()
		}
		in.raw = &countingReader{Reader: f}
	}
	return in, nil
}

// start begins reading in the background, until ctx ends.
func (in *input) start(ctx context.Context) {
	in.src = newPump(ctx, in.raw)
}

func (in *input) close() {
	if in.file != nil {
		in.file.Close()
	}
}

// inputFormat is the format of a file, by its name if it isn't given.
func inputFormat(given, path string) (string, error) {
	switch given {
	case "json", "csv":
		return given, nil
	case "":
		if strings.HasSuffix(strings.TrimSuffix(strings.ToLower(path), ".gz"), ".csv") {
			return "csv", nil
		}
		return "json", nil
	}
	return "", usagef("--format %q: use json or csv", given)
}

// pump reads ahead in a goroutine, so that decompression runs beside the rest and a reader that waits for input can be
// interrupted. The goroutine ends with the input or, when ctx ends, with its next read: on a terminal or pipe that may
// never be, and then the process ends first.
type pump struct {
	ctx    context.Context
	chunks chan chunk
	free   chan []byte
	now    chunk
	taken  int
}

type chunk struct {
	data []byte
	n    int
	err  error
}

const pumpChunks = 4 // of readChunk bytes

func newPump(ctx context.Context, src io.Reader) *pump {
	p := &pump{ctx: ctx, chunks: make(chan chunk, pumpChunks), free: make(chan []byte, pumpChunks)}
	for range pumpChunks {
		p.free <- make([]byte, readChunk)
	}
	go p.run(src)
	return p
}

func (p *pump) run(src io.Reader) {
	src, err := decompressed(src)
	for {
		var data []byte
		select {
		case data = <-p.free:
		case <-p.ctx.Done():
			return
		}
		c := chunk{data: data, err: err}
		if err == nil {
			c.n, c.err = src.Read(data)
		}
		p.chunks <- c // there is room for all that exist
		if c.err != nil {
			return
		}
	}
}

// decompressed unpacks gzip.
func decompressed(src io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(src, 64<<10)
	magic, err := b.Peek(2)
	if err != nil && !isEOF(err) {
		return nil, err
	}
	if len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		return gzip.NewReader(b)
	}
	return b, nil
}

// Read implements io.Reader. It fails with errInterrupted when ctx ends.
func (p *pump) Read(dst []byte) (int, error) {
	for p.taken == p.now.n {
		if p.now.err != nil {
			return 0, p.now.err
		}
		if p.now.data != nil {
			p.free <- p.now.data
		}
		p.now, p.taken = chunk{}, 0
		if p.ctx.Err() != nil {
			return 0, errInterrupted
		}
		select {
		case p.now = <-p.chunks:
		case <-p.ctx.Done():
			return 0, errInterrupted
		}
	}
	n := copy(dst, p.now.data[p.taken:p.now.n])
	p.taken += n
	return n, nil
}

var errInterrupted = errors.New("interrupted")
