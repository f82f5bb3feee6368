// Package hostlist reads and writes the way people name many hosts at once: node[001-640]!node007.
//
//	"r[1-2]n[1-3],login!r1n2" ──Parse──► List ──All──► r1n1 r1n3 r2n1 r2n2 r2n3 login     (one at a time, made when asked for)
//	                                      │ Union, Exclude, Contains, Len
//	"login,r1n[1,3],r2n[1-3]" ◄──Fold─────┘
//
// # The grammar
//
//	expression  = item { separator item } [ "," ] .              a trailing comma is tolerated, an empty item is not
//	separator   = "," | blank { blank } | "!" | ",!" .           blanks may stand around "," but not around "!"
//	item        = name, with any number of bracketed sets in it  node[1-4]  r[1-3]n[1-4]-ib0  [1-2][3-4]
//	            | IPv6 address | "[" IPv6 address "]" .          fe80::1%eth0  [::1]  (the name is without the brackets)
//	set         = "[" range { "," range } "]" .
//	range       = number [ "-" number [ "/" step ] ] .           7   1-100   001-100   0-8/2
//	name        = letters, digits, "-", "_" and "." ; it does not begin with "-" or "." and has at most 253 bytes (RFC 1035, 2.3.4).
//
// An expression is read from left to right: an item after "!" takes its hosts away from all that stands before it, any other
// item adds its hosts. An exclusion that takes nothing away is an error, because the person who wrote it meant a host, and
// that host would be run on: node7 is not node007.
//
// The low end of a range sets the width: [00-3] is 00 01 02 03, and [08-101] is 08 … 99 100 101. A high end that is padded
// otherwise, as in [9-011], contradicts it and is refused. The last set of an item turns fastest.
//
// Hosts come in the order of their first appearance, each once. A name is a string of bytes and nothing else: a1, a01 and
// a001 are three hosts, and neither Parse nor Fold ever turns one into another.
//
// # How a list is kept
//
// A million hosts written as one item are kept as that item and counted by multiplication; names are made while they are
// iterated over. Items that overlap cost a look-up for each name; to see which can overlap, every item is filed under the
// shape of its names (what is left when each run of digits is replaced by one mark), for items of two shapes share no name.
package hostlist
