package dataflow

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/millrace/millrace/internal/ids"
)

// dueList finds the groups of an operator of which something may be forgotten when time has passed. In memory are the
// groups that were listed since it was last written: by bucket, each key after its length.
//
// State: (op, space), the bucket, the tick and a number are a list of keys. A group may be in several lists: only the one for
// the bucket that the group itself names counts.
type dueList struct {
	index   byte
	space   byte
	state   State
	buckets []int64
	keys    [][]byte
	key     []byte
}

// bucketMicros is how finely times are told apart at which rows may be forgotten, in microseconds: about a second.
const bucketMicros = 1 << 20

// never is the bucket of rows that don't expire.
const never = math.MaxInt64

// bucketOf returns the first bucket that ends at or after t, in which a row may be forgotten that t allows to be.
func bucketOf(t int64) int64 {
	b := t / bucketMicros
	if t%bucketMicros > 0 {
		b++
	}
	return b
}

// bucketsPassed returns the last bucket whose rows may be forgotten at the given horizon.
func bucketsPassed(horizon int64) int64 {
	b := horizon / bucketMicros
	if horizon%bucketMicros < 0 {
		b--
	}
	return b
}

// dueOf returns the bucket in which a row may be forgotten.
func dueOf(t, delay int64) int64 {
	sum := t + delay
	if delay > 0 && sum < t {
		return never
	}
	if delay < 0 && sum > t {
		sum = math.MinInt64
	}
	return bucketOf(sum)
}

// add lists a group.
func (l *dueList) add(bucket int64, key []byte) {
	i, ok := slices.BinarySearch(l.buckets, bucket)
	if !ok {
		l.buckets = slices.Insert(l.buckets, i, bucket)
		l.keys = slices.Insert(l.keys, i, nil)
	}
	l.keys[i] = append(binary.AppendUvarint(l.keys[i], uint64(len(key))), key...)
}

// maxDueBytes is the bytes of one list, about.
const maxDueBytes = 64 << 10

// write stores the groups that were listed in a tick.
func (l *dueList) write(tick ids.Tick) error {
	for i, bucket := range l.buckets {
		for number, rest := uint32(0), l.keys[i]; len(rest) > 0; number++ {
			n := 0
			for n < len(rest) && n < maxDueBytes {
				size, m := binary.Uvarint(rest[n:])
				n += m + int(size)
			}
			l.key = l.appendKey(l.key[:0], bucket)
			l.key = binary.BigEndian.AppendUint64(l.key, uint64(tick))
			l.key = binary.BigEndian.AppendUint32(l.key, number)
			if err := l.state.Set(l.key, rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		l.keys[i] = nil
	}
	l.buckets, l.keys = l.buckets[:0], l.keys[:0]
	return nil
}

const dueKeyBytes = 2 + 8 + 8 + 4

// appendKey appends the beginning of the keys of a bucket's lists.
func (l *dueList) appendKey(dst []byte, bucket int64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, l.index, l.space), uint64(bucket)^1<<63)
}

// expire calls fn for each group that is listed in a bucket up to passed, and deletes the lists. The key belongs to fn.
func (l *dueList) expire(passed int64, fn func(bucket int64, key []byte) error) error {
	for {
		keys, lists, err := l.read(passed)
		if err != nil || len(keys) == 0 {
			return err
		}
		for i, key := range keys {
			if len(key) != dueKeyBytes {
				return corrupted("a list of operator %d has a key that doesn't decode", l.index)
			}
			bucket := int64(binary.BigEndian.Uint64(key[2:]) ^ 1<<63)
			for list := lists[i]; len(list) > 0; {
				group, rest, ok := readBytes(list)
				if !ok {
					return corrupted("a list of operator %d doesn't decode", l.index)
				}
				if err := fn(bucket, group); err != nil {
					return err
				}
				list = rest
			}
			if err := l.state.Delete(key); err != nil {
				return err
			}
		}
	}
}

// read returns copies of the first lists of buckets up to passed, of some 4*maxDueBytes.
func (l *dueList) read(passed int64) (keys, lists [][]byte, err error) {
	hi := []byte{l.index, l.space + 1}
	if passed < never {
		hi = l.appendKey(nil, passed+1)
	}
	size := 0
	err = l.state.Scan([]byte{l.index, l.space}, hi, func(k, v []byte) (bool, error) {
		keys, lists = append(keys, slices.Clone(k)), append(lists, slices.Clone(v))
		size += len(k) + len(v)
		return size < 4*maxDueBytes, nil
	})
	return keys, lists, err
}
