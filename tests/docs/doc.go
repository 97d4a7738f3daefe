// Package docs holds the tests of the documentation: what it says about the
// source, by name, exists in the source. It cannot tell whether a sentence is
// true, but a file, a test or a code that was renamed is noticed.
package docs
