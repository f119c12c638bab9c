package node

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// serverVersion is what clients of PostgreSQL's protocol are told, as they choose their queries by it.
const (
	serverVersion    = "15.0 (Millrace)"
	serverVersionNum = "150000"
)

// setting is one that SET takes and SHOW tells.
type setting struct {
	standard string // the value until it is set
	// take checks a value, applies it where the session acts on it, and returns it as SHOW tells it. nil: it can't be set.
	take func(*session, string) (string, error)
	// show tells the value where that isn't the one that was set or the standard one; nil: it is.
	show func(*session) string
}

// settings are all there are, by their names in lower case. Those of PostgreSQL that drivers and tools set are taken
// when they ask for what is done anyway, and refused otherwise; those that only concern what Millrace doesn't have are
// kept and change nothing.
var settings = map[string]setting{
	"min_tick":                            {standard: "0", take: takeMinTick},
	"max_staleness":                       {take: takeMaxStaleness, show: func(s *session) string { return s.maxStaleness.String() }},
	"statement_timeout":                   {standard: "0", take: takeTimeout(func(s *session, d time.Duration) { s.timeout = d })},
	"idle_in_transaction_session_timeout": {standard: "0", take: takeTimeout(func(s *session, d time.Duration) { s.idleTimeout = d })},

	"application_name":              {take: anything},
	"client_encoding":               {standard: "UTF8", take: takeEncoding},
	"client_min_messages":           {standard: "notice", take: anything},
	"datestyle":                     {standard: "ISO, MDY", take: takeDateStyle},
	"default_transaction_isolation": {standard: "repeatable read", take: anything},
	"default_transaction_read_only": {standard: "off", take: takeBool(func(s *session, v bool) { s.readOnly = v })},
	"extra_float_digits":            {standard: "1", take: anything},
	"intervalstyle":                 {standard: "postgres", take: only("postgres")},
	"bytea_output":                  {standard: "hex", take: only("hex")},
	"xmloption":                     {standard: "content", take: anything},
	"lock_timeout":                  {standard: "0", take: anything},
	"row_security":                  {standard: "on", take: anything},
	"search_path":                   {standard: `"$user", public`, take: anything},
	"session_authorization":         {standard: "millrace", take: anything},
	"role":                          {standard: "none", take: anything},
	"standard_conforming_strings":   {standard: "on", take: only("on")},
	"synchronous_commit":            {standard: "on", take: anything},
	"timezone":                      {standard: "UTC", take: takeTimeZone},
	"transaction_isolation":         {standard: "repeatable read", take: anything},
	"transaction_read_only":         {standard: "off", take: takeBool(func(s *session, v bool) { s.tx.readOnly = v }), show: showReadOnly},
	"enable_seqscan":                {standard: "on", take: anything},
	"jit":                           {standard: "off", take: anything},
	"default_text_search_config":    {standard: "pg_catalog.simple", take: anything},
	"default_table_access_method":   {standard: "heap", take: only("heap")},
	"default_tablespace":            {take: anything},
	"temp_tablespaces":              {take: anything},
	"check_function_bodies":         {standard: "on", take: anything},
	"escape_string_warning":         {standard: "on", take: anything},
	"lc_messages":                   {standard: "C", take: anything},
	"lc_monetary":                   {standard: "C", take: anything},
	"lc_numeric":                    {standard: "C", take: anything},
	"lc_time":                       {standard: "C", take: anything},
	"idle_session_timeout":          {standard: "0", take: only("0")},

	"server_version":         {standard: serverVersion},
	"server_version_num":     {standard: serverVersionNum},
	"server_encoding":        {standard: "UTF8"},
	"integer_datetimes":      {standard: "on"},
	"is_superuser":           {standard: "on"},
	"in_hot_standby":         {standard: "off"},
	"lc_collate":             {standard: "C"},
	"lc_ctype":               {standard: "C"},
	"max_identifier_length":  {standard: "63"},
	"max_index_keys":         {standard: "32"},
	"transaction_deferrable": {standard: "off"},
	"wal_level":              {standard: "replica"},
}

func badSetting(name, value, want string) error {
	return fault.SQL(fault.Invalid, "22023", "invalid value %q for %s; it takes %s", value, name, want)
}

func anything(_ *session, v string) (string, error) { return v, nil }

// only takes the one value that is done anyway.
func only(value string) func(*session, string) (string, error) {
	return func(_ *session, v string) (string, error) {
		if !strings.EqualFold(v, value) {
			return "", fault.SQL(fault.Unsupported, "0A000", "value %q is not supported here; it is always %q", v, value)
		}
		return value, nil
	}
}

func takeMinTick(s *session, v string) (string, error) {
	t, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return "", badSetting("min_tick", v, "a tick, such as an append's reply has, or 0")
	}
	s.minTick = ids.Tick(t)
	return v, nil
}

func takeMaxStaleness(s *session, v string) (string, error) {
	iv, err := record.ParseText(record.IntervalT, v)
	if err != nil || iv.Interval.Months != 0 {
		return "", badSetting("max_staleness", v, "an interval, such as '10 seconds'")
	}
	d := time.Duration(iv.Interval.Micros)*time.Microsecond + time.Duration(iv.Interval.Days)*24*time.Hour
	if d <= 0 {
		return "", badSetting("max_staleness", v, "an interval above 0")
	}
	s.maxStaleness = d
	return v, nil
}

// takeTimeout takes a time as PostgreSQL does: milliseconds, or a number with a unit; 0 is none.
func takeTimeout(apply func(*session, time.Duration)) func(*session, string) (string, error) {
	units := map[string]time.Duration{
		"": time.Millisecond, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}
	return func(s *session, v string) (string, error) {
		t := strings.TrimSpace(v)
		digits := strings.TrimRight(t, "abcdefghijklmnopqrstuvwxyz ")
		unit, ok := units[strings.TrimSpace(t[len(digits):])]
		n, err := strconv.ParseInt(digits, 10, 32)
		if err != nil || n < 0 || !ok {
			return "", badSetting("a timeout", v, "milliseconds, or a number with a unit such as '5s'; 0 is none")
		}
		apply(s, time.Duration(n)*unit)
		return v, nil
	}
}

func takeBool(apply func(*session, bool)) func(*session, string) (string, error) {
	return func(s *session, v string) (string, error) {
		b, err := record.ParseText(record.Boolean, v)
		if err != nil {
			return "", badSetting("a switch", v, "on or off")
		}
		apply(s, b.Int != 0)
		return onOff(b.Int != 0), nil
	}
}

func onOff(v bool) string {
	if v {
		return "on"
	}
	return "off"
}

func showReadOnly(s *session) string { return onOff(s.readOnly || s.tx.readOnly) }

func takeEncoding(_ *session, v string) (string, error) {
	switch strings.ToLower(strings.NewReplacer("-", "", "_", "", "'", "").Replace(v)) {
	case "utf8", "unicode":
		return "UTF8", nil
	}
	return "", fault.SQL(fault.Unsupported, "0A000", "encoding %q is not supported; text is UTF8", v)
}

func takeDateStyle(_ *session, v string) (string, error) {
	for part := range strings.SplitSeq(strings.ToLower(v), ",") {
		switch strings.TrimSpace(part) {
		case "iso", "mdy", "us", "default":
		default:
			return "", fault.SQL(fault.Unsupported, "0A000", "DateStyle %q is not supported; it is always ISO, MDY", v)
		}
	}
	return "ISO, MDY", nil
}

func takeTimeZone(_ *session, v string) (string, error) {
	switch strings.ToLower(v) {
	case "utc", "gmt", "etc/utc", "etc/gmt", "zulu", "z", "0", "+00", "+00:00", "gmt0", "greenwich", "universal":
		return "UTC", nil
	}
	return "", fault.SQL(fault.Unsupported, "0A000", "time zone %q is not supported; it is always UTC", v)
}

// set sets one setting, until the session ends, or its transaction when that is rolled back.
func (s *session) set(name, value string) error {
	shown := value
	def, ok := settings[name]
	switch {
	case !ok && strings.Contains(name, "."): // an extension's, as in PostgreSQL
	case !ok:
		return unknownSetting(name)
	case def.take == nil:
		return fault.SQL(fault.Invalid, "55P02", "setting %q can't be changed", name)
	default:
		var err error
		if shown, err = def.take(s, value); err != nil {
			return err
		}
	}
	s.values[name] = shown
	s.changed[name] = value
	return nil
}

func unknownSetting(name string) error {
	return fault.SQL(fault.NotFound, "42704", "unknown setting %q; SHOW ALL lists them", name)
}

// reset puts a setting, or all of them, back to its default.
func (s *session) reset(name string) error {
	if name == "all" {
		for name := range maps.Clone(s.values) {
			if err := s.reset(name); err != nil {
				return err
			}
		}
		return nil
	}
	if def, ok := settings[name]; !ok && !strings.Contains(name, ".") {
		return unknownSetting(name)
	} else if def.take != nil {
		if v := s.standard(name); v != "" || def.show == nil {
			if _, err := def.take(s, v); err != nil && v != "" {
				return err
			}
		}
	}
	delete(s.values, name)
	s.changed[name] = s.standard(name)
	return nil
}

// standard is a setting's value until it is set.
func (s *session) standard(name string) string {
	if name == "max_staleness" {
		return s.n.cfg.MaxStaleness.String()
	}
	if v, ok := s.defaults[name]; ok {
		return v
	}
	return settings[name].standard
}

// setting returns a setting's value as SHOW tells it.
func (s *session) setting(name string) (string, error) {
	def, ok := settings[name]
	if ok && def.show != nil {
		return def.show(s), nil
	}
	if v, set := s.values[name]; set {
		return v, nil
	}
	if !ok {
		return "", unknownSetting(name)
	}
	return s.standard(name), nil
}

// showSettings lists all.
func (s *session) showSettings(t *table) error {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		v, err := s.setting(name)
		if err != nil {
			return err
		}
		t.add(name, v, "")
	}
	return nil
}
