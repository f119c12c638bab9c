package sql

import (
	"slices"
	"strconv"

	"github.com/millrace/millrace/datagen"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// What a stream with a source has unless it says otherwise.
const (
	defaultRate           = 10_000
	defaultWatermarkDelay = "4 seconds" // as Nexmark's specification has it
)

// sourceOptions are those that only a stream with a source has.
var sourceOptions = []string{"kind", "events", "rate", "event_rate"}

// setSource reads the options of a stream whose records are made, and gives it the columns that it doesn't declare.
func (s *CreateStream) setSource() error {
	at := slices.IndexFunc(s.options, func(o option) bool { return o.name == "source" })
	if at < 0 {
		for _, o := range s.options {
			if slices.Contains(sourceOptions, o.name) {
				return s.src.fail(o.at, stateParameter, "add source = '"+datagen.NexmarkName+"'", "option %q is for streams with a source", o.name)
			}
		}
		return nil
	}
	m := &millracev1.Source{Generator: lowerASCII(s.options[at].value), Kind: "all", Rate: defaultRate}
	if m.Generator != datagen.NexmarkName {
		return s.src.fail(s.options[at].valueAt, stateParameter, "there is "+datagen.NexmarkName, "unknown source %q", m.Generator)
	}
	for _, o := range s.options {
		var err error
		switch o.name {
		case "kind":
			m.Kind = lowerASCII(o.value)
			if _, err = datagen.ParseKind(m.Kind); err != nil {
				err = s.src.literalError(o.valueAt, err)
			}
		case "events":
			m.Events, err = s.src.number(o)
		case "rate":
			m.Rate, err = s.src.number(o)
		case "event_rate":
			m.EventRate, err = s.src.number(o)
		}
		if err != nil {
			return err
		}
	}
	if m.EventRate == 0 { // event time goes with the clock
		if m.EventRate = m.Rate; m.Rate == 0 {
			m.EventRate = defaultRate
		}
	}
	if _, err := datagen.NewShares(m); err != nil {
		return s.src.literalError(s.options[at].at, err)
	}
	s.made = m
	s.fillColumns()
	return nil
}

// fillColumns gives a stream without columns all that its source makes, and the watermark.
func (s *CreateStream) fillColumns() {
	if len(s.columns) > 0 {
		return
	}
	kind, _ := datagen.ParseKind(s.made.Kind) // checked before
	for _, f := range datagen.Table(kind) {
		s.columns = append(s.columns, columnDef{name: f.Name, at: s.nameAt, typ: f.Type})
	}
	if s.watermark == nil {
		s.watermark = &watermarkDef{
			column: datagen.TimeColumn, at: s.nameAt, again: datagen.TimeColumn, againAt: s.nameAt,
			delay: defaultWatermarkDelay, delayAt: s.nameAt,
		}
	}
}

// number reads a whole number that isn't negative.
func (s *source) number(o option) (uint64, error) {
	n, err := strconv.ParseUint(o.value, 10, 63)
	if err != nil {
		return 0, s.fail(o.valueAt, stateParameter, "write a number, 0 or more", "malformed %s %q", o.name, o.value)
	}
	return n, nil
}
