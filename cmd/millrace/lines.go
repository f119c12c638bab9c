package main

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
)

// lineReader reads lines of bounded length, numbered from 1. A CSV record may go on over several of them: see more.
type lineReader struct {
	src   io.Reader
	limit int // bytes of a line, and of a record of several lines

	buf        []byte
	start, end int // what is read and not taken: buf[start:end]
	size       int // of the current record in buf, with its line end; it begins at start
	line       int64
	taken      int // lines in the current record
	eof        bool
	read       atomic.Int64 // bytes taken in so far
}

const readChunk = 256 << 10

func newLineReader(src io.Reader, limit int) *lineReader {
	return &lineReader{src: src, limit: limit, buf: make([]byte, readChunk)}
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

var errLineTooLong = errors.New("line too long")

// next returns the next line without its end, valid until the next call. errLineTooLong: the line was skipped; io.EOF:
// there is none. number tells which line it is.
func (l *lineReader) next() (line []byte, number int64, err error) {
	l.start += l.size
	l.line += int64(l.taken)
	l.size, l.taken = 0, 0
	number = l.line + 1
	n, err := l.find(0)
	if err != nil {
		if errors.Is(err, errLineTooLong) {
			err = l.skip()
		}
		return nil, number, err
	}
	if n == 0 {
		return nil, number, io.EOF
	}
	l.size, l.taken = n, 1
	return trimLineEnd(l.buf[l.start : l.start+n]), number, nil
}

// more adds the next line to the current record and returns the whole, valid until the next call. io.EOF or
// errLineTooLong: there is none, or the record would be too long; the record is left as it was.
func (l *lineReader) more() ([]byte, error) {
	n, err := l.find(l.size)
	if err != nil {
		return nil, err
	}
	if n == l.size {
		return nil, io.EOF
	}
	l.size = n
	l.taken++
	return trimLineEnd(l.buf[l.start : l.start+n]), nil
}

// back takes the record back to its first line.
func (l *lineReader) back() {
	n := bytes.IndexByte(l.buf[l.start:l.start+l.size], '\n')
	if n >= 0 {
		l.size = n + 1
	}
	l.taken = 1
}

// find returns the end of the line that begins at `from` after start, its '\n' included. At the end of the input it is
// all that is left.
func (l *lineReader) find(from int) (int, error) {
	for scanned := from; ; {
		if n := bytes.IndexByte(l.buf[l.start+scanned:l.end], '\n'); n >= 0 {
			if scanned+n > l.limit+1 { // room for '\r'
				return 0, errLineTooLong
			}
			return scanned + n + 1, nil
		}
		scanned = l.end - l.start
		if scanned > l.limit+1 {
			return 0, errLineTooLong
		}
		if l.eof {
			return scanned, nil
		}
		if err := l.fill(); err != nil {
			return 0, err
		}
	}
}

// fill reads more, after what is there.
func (l *lineReader) fill() error {
	if l.end == len(l.buf) {
		if l.start > 0 {
			copy(l.buf, l.buf[l.start:l.end])
			l.start, l.end = 0, l.end-l.start
		}
		if l.end > len(l.buf)/2 {
			l.buf = append(l.buf, make([]byte, len(l.buf))...)
		}
	}
	n, err := l.src.Read(l.buf[l.end:])
	l.end += n
	l.read.Add(int64(n))
	if errors.Is(err, io.EOF) {
		l.eof = true
		return nil
	}
	return err
}

// skip drops a line that is too long.
func (l *lineReader) skip() error {
	for {
		if n := bytes.IndexByte(l.buf[l.start:l.end], '\n'); n >= 0 {
			l.size, l.taken = n+1, 1
			return errLineTooLong
		}
		l.start = l.end
		if l.eof {
			l.taken = 1
			return errLineTooLong
		}
		if err := l.fill(); err != nil {
			return err
		}
	}
}

func trimLineEnd(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	if n := len(b); n > 0 && b[n-1] == '\r' {
		b = b[:n-1]
	}
	return b
}
