package dataflow

import (
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"slices"
	"testing"
)

// TestRequired holds that what is taken to be in every match of an expression is.
func TestRequired(t *testing.T) {
	for _, x := range [][2]string{
		{"(&|^)channel_id=([^&]*)", "channel_id="}, {"abc", "abc"}, {"ab|cd", ""}, {"a(bcd)+e", "bcd"}, {"a(bcd)*ef", "ef"}, {"a(bcd)?e", "a"},
		{"(abc){0,2}d", "d"}, {"(abc){2}d", "abc"}, {"(?i)abc", ""}, {"a(?i:bcd)ef", "ef"}, {"^x.*yz$", "yz"}, {"[ab]c", "c"}, {"", ""}, {"é+ü", "é"},
	} {
		for flags, want := range map[string]string{"": x[1], "(?i)": ""} {
			tree, err := syntax.Parse(flags+x[0], syntax.Perl)
			if err != nil {
				t.Fatal(err)
			}
			if got := required(tree); got != want {
				t.Errorf("%s%s needs %q, not %q", flags, x[0], got, want)
			}
		}
	}
}

// TestFinder compares first matches with those of the expression alone, in texts that are likely to have one.
func TestFinder(t *testing.T) {
	patterns := []string{
		"(&|^)ab=([^&]*)", "^ab", "(^|b)ab", "ab|^b", "(a?)(b)ab(é*)", "\\bab", "é?ab", ".ab", "[^a]ab$", "(?m)^ab", "(?m)(^|&)ab", "^(a|b)*ab", "x{0,3}ab",
		"(?i)aab", "((?i)b)ab", "a(^ab)?b", "(a|^|b)=(a+)", "(?:^a|&)ab", "(.{2})ab", "\\Bab", "[é&]{1,2}ab.*b", "(b(a(&=)))a", "(^)*ab", "^?=a", "(|b)ab&",
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	letters := []string{"a", "b", "&", "=", "é", "ab", "AB", "\n", "ab=", "\xff"}
	later := 0
	for _, p := range patterns {
		var m regexpMemo
		if _, _, err := m.of([]byte(p), ""); err != nil {
			t.Fatal(err)
		}
		alone := regexp.MustCompile("(?s)" + p)
		for range 3000 {
			var s []byte
			for range rnd.IntN(14) {
				s = append(s, letters[rnd.IntN(len(letters))]...)
			}
			if _, from := m.find.look(s); from > 0 {
				later++
			}
			if got, want := m.first(s), alone.FindSubmatchIndex(s); !slices.Equal(got, want) {
				t.Fatalf("%s in %q: %v, not %v", p, s, got, want)
			}
			if got, want := m.matches(s), alone.Match(s); got != want {
				t.Fatalf("%s in %q: %v, not %v", p, s, got, want)
			}
		}
	}
	if later < 10_000 {
		t.Errorf("only %d texts were looked at from a later byte on", later)
	}
}
