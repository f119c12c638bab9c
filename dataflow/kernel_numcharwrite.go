package dataflow

import (
	"bytes"
	"fmt"
	"strings"
)

// write appends the number as the pattern has it: PostgreSQL's NUM_processor.
func (t *numberText) write(dst []byte) []byte {
	if t.e {
		return append(dst, t.number...)
	}
	t.begin()
	t.out = dst
	for i := range t.parts {
		t.part(&t.parts[i])
	}
	// Digits that the number doesn't have are written as zero bytes, at which PostgreSQL's text ends.
	if n := bytes.IndexByte(t.out[len(dst):], 0); n >= 0 {
		return t.out[:len(dst)+n]
	}
	return t.out
}

// begin works out where the sign and the last digit stand.
func (t *numberText) begin() {
	t.relevant = -1
	if t.zeroStart > 0 {
		t.zeroStart--
	}
	if t.roman {
		t.sign, t.signAt, t.post, t.pre, t.spaces, t.is = 0, 0, 0, 0, 0, 0
		t.zero, t.point, t.blank, t.bracket, t.minus, t.plus, t.v = false, false, false, false, false, false, false
	}
	if t.plus || t.minus {
		t.written = t.minus // by MI or SG, not with the number
	} else {
		if t.is != '-' && t.fill {
			t.bracket = false
		}
		t.written = t.is == '+' && t.fill && t.sign == signNone
		if t.sign == signBefore && t.pre == t.signAt {
			t.sign = signBehind
		}
	}
	t.count = t.post + t.pre - 1
	if t.fill && t.point {
		t.lastRelevant()
	}
	if !t.written && t.spaces == 0 {
		t.count++
	}
}

// lastRelevant finds the last digit that isn't a zero, or that the pattern has a 0 for.
func (t *numberText) lastRelevant() {
	point := strings.IndexByte(t.number, '.')
	if point < 0 {
		return
	}
	t.relevant = point
	for i := point + 1; i < len(t.number); i++ {
		if t.number[i] != '0' {
			t.relevant = i
		}
	}
	if t.zeroEnd > t.spaces {
		t.relevant = max(t.relevant, min(len(t.number)-1, t.zeroEnd-t.spaces))
	}
}

func (t *numberText) part(p *numberPart) {
	switch strings.ToUpper(p.word) {
	case "":
		t.out = append(t.out, p.text...)
	case "9", "0", ".", "D":
		if !t.roman {
			t.digit(p.word[0])
		}
	case ",", "G":
		switch {
		case t.inside:
			t.out = append(t.out, ',')
		case !t.fill:
			t.out = append(t.out, ' ')
		}
	case "L":
		t.out = append(t.out, ' ')
	case "RN":
		s := t.number[t.at:]
		if p.word[0] == 'r' {
			s = strings.ToLower(s)
		}
		if t.fill {
			t.out = append(t.out, s...)
		} else {
			t.out = fmt.Appendf(t.out, "%15s", s)
		}
	case "TH":
		if t.roman || t.number[0] == '#' || t.is == '-' || t.point {
			return
		}
		start := len(t.out)
		t.out = append(t.out, t.number...)
		end := len(t.out)
		t.out = appendOrdinal(t.out, start, p.word[0] == 'T')
		t.out = append(t.out[:start], t.out[end:]...)
	case "MI":
		t.outerSign('-')
	case "PL":
		t.outerSign('+')
	case "SG":
		t.out = append(t.out, t.is)
	}
}

// outerSign writes the sign of MI or PL.
func (t *numberText) outerSign(c byte) {
	switch {
	case t.is == c:
		t.out = append(t.out, c)
	case !t.fill:
		t.out = append(t.out, ' ')
	}
}

// leadingZero tells whether the next digit is the zero before the point, which 9.9 leaves out.
func (t *numberText) leadingZero() bool {
	return !t.zero && t.at == 0 && t.digitAt(0) == '0' && t.post != 0
}

// endsAtPoint tells whether FM leaves nothing behind the point.
func (t *numberText) endsAtPoint() bool { return t.relevant >= 0 && t.digitAt(t.relevant) == '.' }

// digit writes a digit, the point, or what stands in its place: NUM_numpart_to_char.
func (t *numberText) digit(word byte) {
	t.inside = false
	if !t.written && (t.current >= t.spaces || t.zero && t.zeroStart == t.current) && (!t.leadingZero() || t.endsAtPoint()) {
		t.innerSign()
	}
	switch {
	case t.current < t.spaces && (t.zeroStart > t.current || !t.zero):
		if !t.fill {
			t.out = append(t.out, ' ')
		}
	case t.zero && t.current < t.spaces && t.zeroStart <= t.current:
		t.out, t.inside = append(t.out, '0'), true
	default:
		t.realDigit(word)
		if t.at < len(t.number) {
			t.at++
		}
	}
	end := t.count
	if t.spaces > 0 {
		end++
	}
	if t.point {
		end++
	}
	if t.relevant >= 0 && t.relevant == t.at {
		end = t.current
	}
	if t.current+1 == end {
		t.signBehind()
	}
	t.current++
}

func (t *numberText) realDigit(word byte) {
	switch {
	case t.digitAt(t.at) == '.':
		if !t.endsAtPoint() || t.fill {
			t.out = append(t.out, '.')
		}
	case t.relevant >= 0 && t.at > t.relevant && word != '0':
	case t.leadingZero():
		switch {
		case !t.fill:
			t.out = append(t.out, ' ')
		case t.endsAtPoint():
			t.out = append(t.out, '0')
		}
	default:
		t.out, t.inside = append(t.out, t.digitAt(t.at)), true
	}
}

// innerSign writes the sign before the first digit.
func (t *numberText) innerSign() {
	switch {
	case t.sign == signBefore:
		t.out = append(t.out, t.is)
	case t.sign == signBehind:
		return
	case t.bracket && t.is == '+':
		t.out = append(t.out, ' ')
	case t.bracket:
		t.out = append(t.out, '<')
	case t.is == '+':
		if !t.fill {
			t.out = append(t.out, ' ')
		}
	default:
		t.out = append(t.out, '-')
	}
	t.written = true
}

// signBehind writes the sign behind the last digit.
func (t *numberText) signBehind() {
	switch {
	case t.written && t.bracket && t.is == '+':
		t.out = append(t.out, ' ')
	case t.written && t.bracket:
		t.out = append(t.out, '>')
	case t.sign == signBehind:
		t.out = append(t.out, t.is)
	}
}
