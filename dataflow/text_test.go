package dataflow

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/millrace/millrace/record"
)

// likeModel is LIKE by way of a regular expression.
func likeModel(text, pattern string) (match, ok bool) {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(pattern); {
		r, n := utf8.DecodeRuneInString(pattern[i:])
		i += n
		switch r {
		case '%':
			b.WriteString(`.*`)
		case '_':
			b.WriteString(`.`)
		case '\\':
			if i == len(pattern) {
				return false, false
			}
			r, n = utf8.DecodeRuneInString(pattern[i:])
			i += n
			b.WriteString(regexp.QuoteMeta(string(r)))
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	return err == nil && re.MatchString(text), err == nil
}

func FuzzLike(f *testing.F) {
	for _, p := range []string{"", "%", "_", "a%b%c", `\%`, `%\_x`, "%日_", "abc", "%%a__", `\`} {
		f.Add("abcabc", p)
		f.Add("日本語", p)
	}
	f.Fuzz(func(t *testing.T, text, pattern string) {
		if !utf8.ValidString(text) || !utf8.ValidString(pattern) || len(text)+len(pattern) > 200 {
			return
		}
		want, ok := likeModel(text, pattern)
		var p likePattern
		p.set([]byte(pattern))
		got, err := p.match([]byte(text))
		if !ok || err != nil {
			if err != nil && ok {
				t.Fatalf("%q LIKE %q: %v", text, pattern, err)
			}
			return
		}
		if got != want {
			t.Fatalf("%q LIKE %q: %v, want %v", text, pattern, got, want)
		}
		if slow, err := like([]byte(text), []byte(pattern)); err != nil || slow != want {
			t.Fatalf("%q LIKE %q: without the short cut %v, %v", text, pattern, slow, err)
		}
	})
}

func FuzzTimeFormat(f *testing.F) {
	for _, p := range patterns {
		f.Add(p, int64(1_700_000_000_123_456))
		f.Add(p, int64(record.MinTimestamp))
	}
	f.Fuzz(func(t *testing.T, pattern string, at int64) {
		if at < record.MinTimestamp {
			return
		}
		var tf timeFormat
		tf.set([]byte(pattern))
		out, err := tf.append(nil, at)
		if err != nil {
			t.Fatal(err)
		}
		if utf8.ValidString(pattern) && !utf8.Valid(out) {
			t.Fatalf("%q gives %q", pattern, out)
		}
		// A pattern that was seen before gives the same.
		tf.set([]byte("YYYY"))
		tf.set([]byte(pattern))
		if again, _ := tf.append(nil, at); string(again) != string(out) {
			t.Fatalf("%q gives %q, then %q", pattern, out, again)
		}
	})
}

func FuzzJSON(f *testing.F) {
	for _, v := range pools[record.JSONB] {
		f.Add(v, "a", int64(-1))
	}
	f.Fuzz(func(t *testing.T, text, key string, at int64) {
		v, err := record.ParseText(record.JSONB, text)
		if err != nil {
			return
		}
		if !jsonContains(v.Bytes, v.Bytes, true) {
			t.Fatalf("%s doesn't contain itself", v.Bytes)
		}
		for _, found := range [][]byte{jsonField(v.Bytes, []byte(key)), jsonElement(v.Bytes, at)} {
			if found == nil {
				continue
			}
			if again, err := record.ParseText(record.JSONB, string(found)); err != nil || string(again.Bytes) != string(found) {
				t.Fatalf("%s has a part %s that isn't canonical: %v", v.Bytes, found, err)
			}
		}
		if jsonKind(v.Bytes) == "object" && jsonExists(v.Bytes, []byte(key)) != (jsonField(v.Bytes, []byte(key)) != nil) {
			t.Fatalf("%s and its key %q", v.Bytes, key)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0, 1, 2, 0xff, '\\', 'a'})
	f.Add([]byte(strings.Repeat("x", 200)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, format := range []string{"hex", "base64", "escape"} {
			text, err := encodeBytes(nil, b, []byte(format))
			if err != nil {
				t.Fatal(err)
			}
			back, err := decodeBytes(nil, text, []byte(format))
			if err != nil || string(back) != string(b) {
				t.Fatalf("%x as %s is %q, which is %x: %v", b, format, text, back, err)
			}
			decodeBytes(nil, b, []byte(format)) //nolint:errcheck // it must only not crash
		}
	})
}
