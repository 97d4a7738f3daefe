package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"rolekey/cluster"
)

// Exit codes.
const (
	ExitOK           = 0
	ExitFailed       = 1
	ExitPending      = 3  // committed, not yet effective on all nodes
	ExitNoQuorum     = 4  // the cluster cannot decide
	ExitNoCluster    = 5  // this machine is in no cluster
	ExitNotMaster    = 11 // another node is the master
	ExitNodeSetup    = 12 // a node could not be set up
	ExitDeclined     = 13 // the confirmation was declined
	ExitUnknownField = 14
)

// exitOf gives refusals that scripts must tell apart a code of their own.
var exitOf = map[cluster.Code]int{
	cluster.CodeNoQuorum:  ExitNoQuorum,
	cluster.CodeNoMap:     ExitNoCluster,
	cluster.CodeNotMaster: ExitNotMaster,
}

// ganetiClass is Ganeti's class of a refusal. What has none failed while it
// was being done.
var ganetiClass = map[cluster.Code]string{
	cluster.CodeNotFound:          "unknown_entity",
	cluster.CodeAlreadyExists:     "already_exists",
	cluster.CodeConflict:          "wrong_state",
	cluster.CodeBadFormat:         "wrong_input",
	cluster.CodeTooLarge:          "wrong_input",
	cluster.CodeUnsupportedFormat: "wrong_input",
	cluster.CodeNotMaster:         "wrong_input",
	cluster.CodeNoMap:             "environment_error",
	cluster.CodeBusy:              "temp_insufficient_resources",
}

// usageError is a command line that says nothing sensible.
type usageError string

// Error implements error.
func (e usageError) Error() string { return string(e) }

func usage(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

// exitError ends the command with a code. The text may have been printed.
type exitError struct {
	code int
	text string
}

// Error implements error.
func (e *exitError) Error() string { return e.text }

// prereqError is a job that was refused before it changed anything.
type prereqError struct {
	class, text, hint string
}

// Error implements error.
func (e *prereqError) Error() string { return e.text }

// hooksError is a change that the administrator's scripts vetoed.
type hooksError string

// Error implements error.
func (e hooksError) Error() string { return string(e) }

// drainedText is Ganeti's for a queue that takes no jobs.
const drainedText = "Failure: the job queue is marked for drain and doesn't accept new requests"

// errSilent is Ganeti's text for a daemon that does not answer.
var errSilent = cluster.Errorf(cluster.CodeUnavailable,
	"Cannot communicate with the master daemon.\nIs the process running and listening for connections?")

// exitCode returns the code of an error, nil included.
func exitCode(err error) int {
	var exit *exitError
	if err == nil {
		return ExitOK
	}
	if errors.As(err, &exit) {
		return exit.code
	}
	if code, ok := exitOf[cluster.CodeOf(err)]; ok {
		return code
	}
	return ExitFailed
}

// explain prints why a command failed, in Ganeti's words.
func explain(w io.Writer, err error) {
	var exit *exitError
	var misuse usageError
	var prereq *prereqError
	var veto hooksError
	var coded *cluster.Error
	switch {
	case errors.As(err, &exit):
		if exit.text != "" {
			fmt.Fprintln(w, exit.text)
		}
	case errors.As(err, &misuse):
		fmt.Fprintln(w, misuse.Error())
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(w, "Aborted.")
	case errors.As(err, &prereq):
		explainPrereq(w, prereq.class, prereq.text, prereq.hint)
	case errors.As(err, &veto):
		fmt.Fprintf(w, "Failure: %s\n", veto)
	case errors.As(err, &coded):
		if coded.Code == cluster.CodeHooksFailed {
			fmt.Fprintf(w, "Failure: %s\n", coded.Message)
			return
		}
		if errors.Is(err, errSilent) {
			fmt.Fprintln(w, coded.Message)
			return
		}
		if coded.Code == cluster.CodeQueueDrained {
			fmt.Fprintln(w, drainedText)
			printHint(w, coded.Hint)
			return
		}
		if class := ganetiClass[coded.Code]; class != "" {
			explainPrereq(w, class, coded.Message, coded.Hint)
			return
		}
		fmt.Fprintf(w, "Failure: command execution error:\n%s\n", coded.Message)
		printHint(w, coded.Hint)
	default:
		fmt.Fprintf(w, "Failure: command execution error:\n%s\n", err)
	}
}

func explainPrereq(w io.Writer, class, text, hint string) {
	fmt.Fprintf(w, "Failure: prerequisites not met for this operation:\nerror type: %s, error details:\n%s\n", class, text)
	printHint(w, hint)
}

func printHint(w io.Writer, hint string) {
	if hint = strings.TrimSpace(hint); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}
