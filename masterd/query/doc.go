// Package query is the language in which lists are filtered, and the tables of
// what can be listed of nodes and jobs. Remote API and commands use the same
// tables and the same filters. docs/query.rst specifies both forms of a filter.
//
// Everything here is pure. Whatever is parsed, from a command line or from a
// request, is bounded in size and depth, and its regular expressions run in
// linear time. A Filter does not change once it is made; it and the tables may
// be used concurrently.
package query
