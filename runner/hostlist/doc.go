// Package hostlist reads and writes the way people name many hosts at once: node[001-640]!node007, @rack[1-3]&/ib0$/.
//
//	 "@web,n[1-4]!n2"               ┌── Scope: groups, files, all hosts, transports
//	       │                        ▼
//	     Parse ──► Expr ────────► Eval ───────► Selection ── Hosts ──► List ──All──► web1 web2 n1 n3 n4
//	  (SyntaxError, └── Groups: to     │            └────── Targets                  (one at a time, made when asked for)
//	  with a caret)     fetch first    └ Exclude: the same for -x
//
//	List: Len, Contains, Union, Difference, Intersection, SymmetricDifference      Index: what hosts have been given
//	Fold: names ──► "n[1,3-4],web[1-2]", which Parse reads back as the same set
//
// # The grammar
//
//	expression = item { separator item } [ "," ] .        a trailing comma is tolerated, an empty item is not
//	separator  = [ blanks ] "," [ blanks ] | blanks       union
//	           | "!" | ",!"                               difference
//	           | "&"                                      intersection
//	           | "^" .                                    symmetric difference
//	item       = [ "-" ] ( target | file | regexp ) .     -ITEM is !ITEM, where ITEM would be added otherwise
//	target     = [ transport ":" ] [ user "@" ] hosts [ ":" port ] .
//	hosts      = pattern | address | network | group .
//	pattern    = name, with brackets anywhere in it: node[1-4]  r[1-3]n[1-4]-ib0  [1-2][3-4]
//	             and with "*" (any text) and "?" (any character): web*  n?  *[1-3]
//	brackets   = "[" range { "," range } "]" .
//	range      = number [ "-" number [ "/" step ] ] .     7   1-100   001-100   0-8/2
//	address    = IPv6 address, alone or in brackets .     fe80::1%eth0   [::1]   (the name is without the brackets)
//	network    = IPv4 or IPv6 address "/" length .        10.1.0.0/28   2001:db8::/120   [2001:db8::/120]
//	group      = "@" [ source ":" ] ( groupname | "*" ) . @web   @slurm:batch   @rack[1-3]   @*   @slurm:*
//	file       = "^" path .                               ^hosts.txt
//	regexp     = "/" regular expression "/" .             /^web.*[02468]$/
//
// A name consists of letters and digits of any script, "-", "_" and ".", does not begin with "-" or "." and has at most 253
// bytes (RFC 1035, 2.3.4). The name of a group or source may also have "/", "+" and "=". Blanks are space, tab and the ends of lines.
//
// # Operators
//
// An expression is read strictly from left to right: each item does something to all that stands before it, and there is no
// precedence. a,b&a is a, and a,b&a,c is a and c. Hosts come in the order of their first appearance, each once; what an
// operator leaves of the hosts on its left is in their order, and what it adds follows.
//
// "!", "&" and "^" stand directly between two items; with a blank beside them they are refused, because then they are easily
// taken for something else. Therefore a "^" that begins an item, at the beginning or after a comma, a blank or another operator,
// names a file. Its name ends where an item ends: at a comma, a blank, "!", "&" or "^".
//
// A difference that takes nothing away is an error, because the person who wrote it meant a host, and that host would be run
// on: node7 is not node007. The error names the host that comes close.
//
// # Items
//
// The low end of a range sets the width: [00-3] is 00 01 02 03, and [08-101] is 08 … 99 100 101. A high end that is padded
// otherwise, as in [9-011], contradicts it and is refused. The last brackets of an item turn fastest. A number that varies has at most 17
// digits, those that stand beside its brackets included.
//
// A network stands for its hosts: all addresses, but without the network's own and the broadcast address where an IPv4
// network has them (/30 and shorter). An address with bits set beyond the prefix is refused: it is one host of the network. An
// IPv6 network has at most 65,536 addresses here.
//
// What a target says besides hosts is in Selection.Targets. A colon followed by digits alone is a port, in node1:514 as in
// @web:22; what stands before another single colon is a transport, which Scope must know. With two colons it is an IPv6
// address, whose port needs brackets: [::1]:22. A host that two targets reach in different ways is refused. Only items that are added may have a target.
//
// A wildcard is matched against all hosts that there are (Scope.All), and must match one. After "!", "-" and "&" it is matched
// against what stands before it instead, so that nothing is left out that is there.
//
// A regular expression (package regexp, matching anywhere in the name) keeps of what stands before it those hosts that match:
// node[1-20],/[05]$/ and node[1-20]&/[05]$/ are the same. After "!" or "-" it drops them. As the first item it chooses from all hosts.
// It may have commas, blanks and brackets in it, and "\/" is a slash.
//
// Exclude, which is -x, reads wildcards and regular expressions as items of the hosts to exclude from, wherever they stand.
//
// # Names
//
// A name is a string of bytes and nothing else: a1, a01 and a001 are three hosts, and neither Parse nor Fold ever turns one
// into another. For every set of names, what Parse makes of what Fold makes of it is that set.
//
// # How it is made
//
// tree.go explains what a list is kept as, and sweep.go how an expression is evaluated. In short, a million hosts written as
// one item are kept as that item and counted by multiplication; whatever is written, an evaluation sorts the ends of its
// ranges once and goes through them, so that a hundred thousand items one after the other cost what sorting them costs.
// (Only ranges that overlap each other in more than one number of a name by the thousand cost more.) Names
// are made when they are iterated over.
package hostlist
