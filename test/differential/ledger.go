package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/ring"
)

// firstTick is before all ticks of a case; a tick is a second, so that windows over arrival differ.
const (
	firstTick = ids.Tick(1_000_000)
	tickStep  = ids.Tick(1_000_000)
)

// tickAfter is the tick of step i; that of step -1 is before all records.
func tickAfter(i int) ids.Tick { return firstTick + ids.Tick(i+1)*tickStep }

// placed is a record where it is in the logs.
type placed struct {
	Record
	object    *Object
	partition int
	offset    int64
	tick      ids.Tick
	key       []byte // nil: none
	watermark *int64 // of the records before it in its partition, in microseconds
	deleted   bool   // of a table
}

// ledger gives records their places: what both sides have to know of a log.
type ledger struct {
	c       *Case
	objects map[string]*Object
	next    map[string][]int64  // offsets, by partition
	highest map[string][]*int64 // event times
	rotor   int
}

func newLedger(c *Case) *ledger {
	l := &ledger{c: c, objects: map[string]*Object{}, next: map[string][]int64{}, highest: map[string][]*int64{}}
	for i := range c.Objects {
		o := &c.Objects[i]
		l.objects[o.Name] = o
		l.next[o.Name], l.highest[o.Name] = make([]int64, c.Partitions), make([]*int64, c.Partitions)
	}
	return l
}

// place gives the records of step i their places.
func (l *ledger) place(i int) ([]placed, error) {
	var out []placed
	for _, r := range l.c.Steps[i].Records {
		o := l.objects[r.Object]
		if o == nil {
			continue
		}
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal([]byte(r.JSON), &fields); err != nil {
			return nil, fmt.Errorf("%s: %w", r.JSON, err)
		}
		p := placed{Record: r, object: o, partition: r.Partition % l.c.Partitions, tick: tickAfter(i), deleted: fields["_deleted"] != nil}
		keys := o.PrimaryKey
		if o.Key != "" {
			keys = []string{o.Key}
		}
		for _, k := range keys {
			if raw := fields[k]; raw != nil && string(raw) != "null" {
				p.key = append(append(p.key, raw...), ',')
			}
		}
		if p.key != nil {
			p.key = p.key[:len(p.key)-1]
		}
		if r.Partition < 0 {
			if p.partition = int(ring.Partition(p.key, l.c.Partitions)); p.key == nil {
				l.rotor++
				p.partition = l.rotor % l.c.Partitions
			}
		}
		p.offset = l.next[o.Name][p.partition]
		l.next[o.Name][p.partition]++
		if err := l.observe(&p, fields["ts"]); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func (l *ledger) observe(p *placed, raw json.RawMessage) error {
	if !p.object.Watermark {
		return nil
	}
	high := &l.highest[p.object.Name][p.partition]
	if *high != nil {
		w := **high - p.object.DelayUs
		p.watermark = &w
	}
	if raw == nil || string(raw) == "null" {
		return nil
	}
	var at time.Time
	if err := json.Unmarshal(raw, &at); err != nil {
		return err
	}
	if us := at.UnixMicro(); *high == nil || us > **high {
		*high = &us
	}
	return nil
}

// watermark is a stream's, over all partitions; nil while there is none.
func (l *ledger) watermark(o *Object) *int64 {
	var least *int64
	for _, h := range l.highest[o.Name] {
		if h == nil {
			return nil
		}
		if w := *h - o.DelayUs; least == nil || w < *least {
			least = &w
		}
	}
	return least
}
