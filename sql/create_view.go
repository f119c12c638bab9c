package sql

// CreateView is CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] name [(columns)] [WITH (emit=, start=, history=)] AS SELECT ...
type CreateView struct {
	statement
	Name        string
	IfNotExists bool
	Replace     bool
	History     int64 // how far back rows can be read, in microseconds; 0: as the node says
	EmitFinal   bool  // emit = 'final': a windowed row is held back until its window closes
	StartNow    bool  // start = 'now': only records appended later; otherwise from the stream's beginning

	nameAt  int
	emitAt  int
	columns []columnRef // names given to the query's columns; none: the query's own
	query   *Select
}

var viewOptions = []string{"emit", "start", "history"}

// maxHistory bounds the option history, in microseconds: 30 days.
const maxHistory = 30 * 24 * 3600 * 1_000_000

// replaceView parses what stands behind CREATE OR REPLACE MATERIALIZED VIEW.
func (c *cursor) replaceView() (*CreateView, error) {
	if at := c.pos(); c.ifNotExists() {
		return nil, c.src.fail(at, stateSyntax, "write one of them", "syntax error: OR REPLACE with IF NOT EXISTS")
	}
	v, err := c.createView()
	if err == nil {
		v.Replace = true
	}
	return v, err
}

func (c *cursor) createView() (*CreateView, error) {
	v := &CreateView{statement: c.base(), IfNotExists: c.ifNotExists()}
	var err error
	if v.Name, v.nameAt, err = c.name("the view's name"); err != nil {
		return nil, err
	}
	if err := checkName(c.src, v.nameAt, v.Name); err != nil {
		return nil, err
	}
	if c.acceptToken(tokenOpen) {
		for {
			name, pos, err := c.name("a column")
			if err != nil {
				return nil, err
			}
			v.columns = append(v.columns, columnRef{at: at(pos), name: name})
			if c.acceptToken(tokenClose) {
				break
			}
			if err := c.need(tokenComma, `"," or ")"`); err != nil {
				return nil, err
			}
		}
	}
	options, err := c.options(viewOptions)
	if err != nil {
		return nil, err
	}
	for _, o := range options {
		if err := v.setOption(o); err != nil {
			return nil, err
		}
	}
	if !c.accept("as") {
		return nil, c.expect("AS and the query")
	}
	if c.done() {
		return nil, c.expect("the query")
	}
	if i := len(c.tokens) - 1; c.word(i) == "data" && (c.word(i-1) == "with" || c.word(i-1) == "no") {
		return nil, c.src.unsupported(c.tokens[i].from, "the option start = 'now' begins a view with what comes next", "WITH [NO] DATA is not supported")
	}
	v.query, err = parseQuery(c.src, c.pos(), c.end())
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (v *CreateView) setOption(o option) error {
	value := lowerASCII(o.value)
	switch {
	case o.name == "emit" && value == "final":
		v.EmitFinal, v.emitAt = true, o.at
	case o.name == "emit" && value == "change":
	case o.name == "emit":
		return v.src.fail(o.valueAt, stateParameter, "it is 'change' or 'final'", "unknown emit %q", o.value)
	case o.name == "history":
		us, err := v.src.duration(o.valueAt, o.value)
		if err == nil && (us <= 0 || us > maxHistory) {
			err = v.src.fail(o.valueAt, stateParameter, "it is more than nothing, and at most 30 days", "history of %q is out of range", o.value)
		}
		v.History = us
		return err
	case value == "now":
		v.StartNow = true
	case value == "beginning":
	default:
		return v.src.fail(o.valueAt, stateParameter, "it is 'beginning' or 'now'", "unknown start %q", o.value)
	}
	return nil
}
