package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Event is one record of the workload. All that is in it follows from its producer and its number, so that a reader can
// tell a record that was changed on its way from one that was sent.
type Event struct{ Producer, Seq uint32 }

// What the workload's statements say of the events.
const (
	KeysPerProducer = 6
	Accounts        = 8
	Delay           = 2 * time.Second // of the watermark
	step            = 20 * time.Millisecond
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// mix is splitmix64's finalizer.
func (e Event) mix() uint64 {
	x := uint64(e.Producer)<<32 | uint64(e.Seq)
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Key is the record's key; a producer has its keys for itself.
func (e Event) Key() string { return fmt.Sprintf("p%d-%d", e.Producer, e.mix()%KeysPerProducer) }

// From and To are the accounts of the transfer that the event is; they differ.
func (e Event) From() int64 { return int64(e.mix() >> 8 % Accounts) }
func (e Event) To() int64   { return (e.From() + 1 + int64(e.mix()>>16%(Accounts-1))) % Accounts }

// Amount is what is transferred.
func (e Event) Amount() int64 { return 1 + int64(e.mix()>>24%1000) }

// Micros is the event time: it rises with the number, and is up to 4 s behind at times, so that some are late.
func (e Event) Micros() int64 {
	back := time.Duration(0)
	if e.mix()>>40%16 == 0 {
		back = time.Duration(e.mix()>>44%4000) * time.Millisecond
	}
	return begin.Add(time.Duration(e.Seq)*step - back).UnixMicro()
}

// JSON is the record's value.
func (e Event) JSON() []byte {
	return fmt.Appendf(nil, `{"p":%d,"n":%d,"k":%q,"src":%d,"dst":%d,"v":%d,"ts":%q}`,
		e.Producer, e.Seq, e.Key(), e.From(), e.To(), e.Amount(), time.UnixMicro(e.Micros()).UTC().Format("2006-01-02T15:04:05.000000Z"))
}

// ParseEvent returns the event whose value this is. It fails unless every byte is as it was sent.
func ParseEvent(value []byte) (Event, error) {
	var v struct {
		P uint32 `json:"p"`
		N uint32 `json:"n"`
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return Event{}, fmt.Errorf("%q: %w", value, err)
	}
	e := Event{v.P, v.N}
	if want := e.JSON(); !bytes.Equal(want, value) {
		return Event{}, fmt.Errorf("%q isn't what was sent, %q", value, want)
	}
	return e, nil
}

func (e Event) String() string { return fmt.Sprintf("%d/%d", e.Producer, e.Seq) }

// Record is an event in the log.
type Record struct {
	Partition uint32
	Offset    uint64
	Tick      uint64
	Event     Event
}
