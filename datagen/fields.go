package datagen

import (
	"math/bits"
	"strconv"

	"github.com/millrace/millrace/record"
)

var (
	firstNames = []string{"Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"}
	lastNames  = []string{"Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"}
	cities     = []string{"Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"}
	states     = []string{"AZ", "CA", "ID", "OR", "WA", "WY"}
	hotSites   = []string{"Google", "Facebook", "Baidu", "Apple"}
)

// Average sizes of events in bytes, which the field extra fills up to; a bid's is given as such.
const (
	personBytes  = 200
	auctionBytes = 500
	bidExtra     = 68
)

func number(f func(t *tables, e event) uint64) *field { return &field{number: f} }

func texts(f func(t *tables, e event, dst []byte) []byte) *field { return &field{text: f} }

func pick(list []string, k uint64) *field {
	return texts(func(_ *tables, e event, dst []byte) []byte {
		return append(dst, list[e.below(k, uint64(len(list)))]...)
	})
}

// columnsOf are the columns of a kind, in the order of JSON lines: event_type, dateTime, then the kind's own.
func columnsOf(kind Kind) []column {
	time := &field{number: func(_ *tables, e event) uint64 { return e.millis() }, all: allTimes}
	all := []column{
		{"n", record.BigInt, every(number(func(_ *tables, e event) uint64 { return e.n }))},
		{"event_type", record.BigInt, every(number(func(_ *tables, e event) uint64 { return uint64(KindOf(e.n)) }))},
		{"dateTime", record.TimestampTZ, every(time)},
		{"id", record.BigInt, [3]*field{
			number(func(_ *tables, e event) uint64 { return firstID + e.person() }),
			number(func(_ *tables, e event) uint64 { return firstID + e.auction() }), nil,
		}},
	}
	all = append(all, personColumns()...)
	all = append(all, auctionColumns()...)
	all = append(all, bidColumns()...)
	all = append(all, column{"extra", record.Text, [3]*field{texts(personExtra), texts(auctionExtra), texts(bidExtraText)}})
	if kind == All {
		return all
	}
	var out []column
	for _, c := range all {
		if c.fields[kind] != nil {
			out = append(out, c)
		}
	}
	return out
}

// allTimes divides only where the events have a gap.
func allTimes(_ *tables, events []event, out []int64) {
	var n, at, left uint64 // at milliseconds, and left/rate of one, after the beginning; of event n
	for i := range out {
		e := &events[i]
		if i > 0 && e.n == n+1 && e.rate >= 1000 {
			if left += 1000; left >= e.rate {
				left -= e.rate
				at++
			}
		} else {
			at, left = e.n*1000/e.rate, e.n*1000%e.rate
		}
		n = e.n
		out[i] = int64((baseTime + at) * 1000)
	}
}

func every(f *field) [3]*field { return [3]*field{f, f, f} }

func only(kind Kind, name string, t record.Type, f *field) column {
	c := column{name: name, typ: t}
	c.fields[kind] = f
	return c
}

func personColumns() []column {
	return []column{
		only(Person, "name", record.Text, texts(personName)),
		only(Person, "emailAddress", record.Text, texts(email)),
		only(Person, "creditCard", record.Text, texts(creditCard)),
		only(Person, "city", record.Text, pick(cities, 10)),
		only(Person, "state", record.Text, pick(states, 11)),
	}
}

func personName(_ *tables, e event, dst []byte) []byte {
	dst = append(dst, firstNames[e.below(0, uint64(len(firstNames)))]...)
	dst = append(dst, ' ')
	return append(dst, lastNames[e.below(1, uint64(len(lastNames)))]...)
}

func email(t *tables, e event, dst []byte) []byte {
	dst = append(dst, t.letterText(e, 3, 3+e.below(2, 4))...)
	dst = append(dst, '@')
	dst = append(dst, t.letterText(e, 5, 3+e.below(4, 2))...)
	return append(dst, ".com"...)
}

func creditCard(_ *tables, e event, dst []byte) []byte {
	for k := uint64(6); k <= 9; k++ {
		if k > 6 {
			dst = append(dst, ' ')
		}
		v := e.below(k, 10_000)
		dst = append(dst, byte('0'+v/1000), byte('0'+v/100%10), byte('0'+v/10%10), byte('0'+v%10))
	}
	return dst
}

func personExtra(t *tables, e event, dst []byte) []byte {
	var buf [128]byte
	others := personName(t, e, buf[:0])
	others = email(t, e, others)
	others = creditCard(t, e, others)
	others = append(others, cities[e.below(10, uint64(len(cities)))]...)
	others = append(others, states[e.below(11, uint64(len(states)))]...)
	return append(dst, t.extra(e, 12, personBytes-(8+uint64(len(others))))...)
}

func auctionColumns() []column {
	return []column{
		only(Auction, "itemName", record.Text, texts(func(t *tables, e event, dst []byte) []byte {
			return append(dst, t.wordText(e, 6, itemBytes(e))...)
		})),
		only(Auction, "description", record.Text, texts(func(t *tables, e event, dst []byte) []byte {
			return append(dst, t.wordText(e, 8, descriptionBytes(e))...)
		})),
		only(Auction, "initialBid", record.BigInt, number(func(t *tables, e event) uint64 { return t.price(e, 3) })),
		only(Auction, "reserve", record.BigInt, number(func(t *tables, e event) uint64 { return t.price(e, 3) + t.price(e, 9) })),
		only(Auction, "expires", record.TimestampTZ, number(expires)),
		only(Auction, "seller", record.BigInt, number(func(_ *tables, e event) uint64 {
			if p := e.person(); e.below(0, 4) > 0 {
				return firstID + p - p%100
			}
			return firstID + e.anyPerson(1)
		})),
		only(Auction, "category", record.BigInt, number(func(_ *tables, e event) uint64 { return 10 + e.below(2, 5) })),
	}
}

func itemBytes(e event) uint64        { return 3 + e.below(5, 17) }
func descriptionBytes(e event) uint64 { return 3 + e.below(7, 97) }

// expires is when an auction ends: after the time of 100 auctions on average.
func expires(_ *tables, e event) uint64 {
	later := event{n: e.n + 1666, rate: e.rate}
	horizon := later.millis() - e.millis()
	return e.millis() + 1 + e.below(4, max(2*horizon, 1))
}

func auctionExtra(t *tables, e event, dst []byte) []byte {
	return append(dst, t.extra(e, 10, auctionBytes-(48+itemBytes(e)+descriptionBytes(e)))...)
}

func bidColumns() []column {
	return []column{
		only(Bid, "auction", record.BigInt, &field{
			number: func(_ *tables, e event) uint64 { return bidAuction(e) },
			all: func(_ *tables, events []event, out []int64) {
				for i := range out {
					out[i] = int64(bidAuction(events[i]))
				}
			},
		}),
		only(Bid, "bidder", record.BigInt, &field{
			number: func(_ *tables, e event) uint64 { return bidder(e) },
			all: func(_ *tables, events []event, out []int64) {
				for i := range out {
					out[i] = int64(bidder(events[i]))
				}
			},
		}),
		only(Bid, "price", record.BigInt, &field{
			number: func(t *tables, e event) uint64 { return t.price(e, 4) },
			all: func(t *tables, events []event, out []int64) {
				for i := range out {
					out[i] = int64(t.price(events[i], 4))
				}
			},
		}),
		only(Bid, "channel", record.Text, texts(func(_ *tables, e event, dst []byte) []byte {
			c := channel(e)
			if c >= hotChannel {
				return append(dst, hotSites[c-hotChannel]...)
			}
			return strconv.AppendUint(append(dst, "channel-"...), c, 10)
		})),
		only(Bid, "url", record.Text, texts(func(t *tables, e event, dst []byte) []byte { return append(dst, t.url(channel(e))...) })),
	}
}

// bidAuction is one of the last hundred auctions, or of the next ten; every other bid is on the newest hundredth.
func bidAuction(e event) uint64 {
	a := e.auction()
	if e.below(0, 2) > 0 {
		return firstID + a - a%100
	}
	low := uint64(0)
	if a > 100 {
		low = a - 100
	}
	return firstID + low + e.below(1, a-low+11)
}

func bidder(e event) uint64 {
	if p := e.person(); e.below(2, 4) > 0 {
		return firstID + p - p%100 + 1
	}
	return firstID + e.anyPerson(3)
}

func bidExtraText(t *tables, e event, dst []byte) []byte {
	return append(dst, t.extra(e, 7, bidExtra)...)
}

// hotChannel is the first of the four channels that half of the bids come by; channels is the number of all.
const (
	hotChannel = 10_000
	channels   = hotChannel + 4
)

func channel(e event) uint64 {
	if e.below(5, 2) > 0 {
		return hotChannel + e.below(6, 4)
	}
	return e.below(6, 10_000)
}

// appendURL appends a channel's URL, whose random numbers are those of an event far above all others.
func appendURL(t *tables, dst []byte, c uint64) []byte {
	n := uint64(1)<<62 + c
	e := event{n: n, seed: mix(1 + n*gamma)}
	dst = append(dst, "https://auction.example/"...)
	for j := range uint64(3) {
		at := len(dst)
		dst = append(dst, t.wordText(e, 2*j+1, 3+e.below(2*j, 2))...)
		for i := at; i < len(dst); i++ {
			if dst[i] == ' ' {
				dst[i] = '_'
			}
		}
		dst = append(dst, '/')
	}
	dst = append(dst, "item.htm?query=1"...)
	if c < hotChannel && e.below(6, 10) > 0 {
		dst = append(dst, "&channel_id="...)
		dst = strconv.AppendUint(dst, uint64(bits.Reverse32(uint32(c))), 10)
	}
	return dst
}
