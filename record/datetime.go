package record

// Range of a DATE, in days since the Unix epoch: that of TIMESTAMPTZ.
const (
	MinDate = MinTimestamp / microsPerDay
	MaxDate = MaxTimestamp / microsPerDay
)

// appendDateText appends days as PostgreSQL prints a date.
func appendDateText(dst []byte, days int64) []byte {
	year, month, day := civilDate(days)
	if year <= 0 {
		return append(appendDate(dst, 1-year, month, day), " BC"...)
	}
	return appendDate(dst, year, month, day)
}

// appendLocal appends micros as PostgreSQL prints a timestamp without time zone; sep stands between date and time.
func appendLocal(dst []byte, micros int64, sep byte, all bool) []byte {
	days := floorDiv(micros, microsPerDay)
	year, month, day := civilDate(days)
	bc := year <= 0
	if bc {
		year = 1 - year
	}
	dst = append(appendDate(dst, year, month, day), sep)
	dst = appendClock(dst, micros-days*microsPerDay, all)
	if bc {
		dst = append(dst, " BC"...)
	}
	return dst
}

// parseLocal parses a timestamp without time zone: an offset is read and means nothing, as in PostgreSQL.
func parseLocal(s []byte, t Type) (int64, error) {
	if n := len(s); n >= 19 && n <= 26 && s[4] == '-' && isDigit(s[n-1]) && !hasByte(s[19:], '+') && !hasByte(s[19:], '-') {
		if micros, ok := parseRFC3339(s); ok {
			return micros, nil
		}
	}
	p, err := parseFields(string(s), t)
	if err != nil {
		return 0, err
	}
	p.offset = 0
	return p.result()
}

// parseDate parses a date; a time of day behind it is dropped, as in PostgreSQL.
func parseDate(s []byte) (int64, error) {
	if len(s) == 10 && s[4] == '-' && s[7] == '-' {
		century, ok1 := two(s, 0)
		year, ok2 := two(s, 2)
		month, ok3 := two(s, 5)
		day, ok4 := two(s, 8)
		year += century * 100
		if ok1 && ok2 && ok3 && ok4 && year > 0 && month >= 1 && month <= 12 && day >= 1 && day <= daysIn(year, month) {
			return civilDays(year, month, day), nil
		}
	}
	p, err := parseFields(string(s), Date)
	if err != nil {
		return 0, err
	}
	p.offset = 0
	micros, err := p.result()
	return floorDiv(micros, microsPerDay), err
}

// parseTime parses a time of day; a date before it and an offset behind it mean nothing, as in PostgreSQL.
func parseTime(s []byte) (int64, error) {
	p, err := parseFields(string(s), Time)
	if err != nil {
		return 0, err
	}
	if !p.hasTime {
		return 0, p.syntax()
	}
	if err := p.meridiem(); err != nil {
		return 0, err
	}
	return p.micros, nil
}
