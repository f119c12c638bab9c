package main

import (
	"fmt"
	"math/rand/v2"
)

// payloads makes n records of exactly size bytes: log-like JSON (compressible), or JSON around random text.
func payloads(kind string, size, n int) [][]byte {
	rnd := rand.New(rand.NewPCG(7, 7))
	words := make([]string, 400)
	for i := range words {
		words[i] = fmt.Sprintf("%06x", rnd.IntN(1<<24))
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-"
	out := make([][]byte, n)
	for i := range out {
		b := fmt.Appendf(nil, `{"ts":%d,"host":"web-%02d","ms":%d,"msg":"`, 1793430000000+i, rnd.IntN(64), rnd.IntN(2000))
		for len(b) < size-2 {
			if kind == "json" {
				b = append(append(b, words[rnd.IntN(len(words))]...), ' ')
			} else {
				b = append(b, alphabet[rnd.IntN(len(alphabet))])
			}
		}
		out[i] = append(b[:size-2], `"}`...)
	}
	return out
}
