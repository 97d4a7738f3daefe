package roles

import "fmt"

// Class is Ganeti's class of a refusal, part of a job's result.
type Class string

// The classes that the planner uses.
const (
	WrongInput    Class = "wrong_input"
	WrongState    Class = "wrong_state"
	UnknownEntity Class = "unknown_entity"
	Environment   Class = "environment_error"
)

// PrereqError says why a request is refused before anything is changed. A job
// reports it as ["OpPrereqError", [Msg, Class]].
type PrereqError struct {
	Class Class
	Msg   string
	Hint  string // what to do instead, if there is more to say
}

// Error implements error.
func (e *PrereqError) Error() string { return e.Msg }

func refuse(class Class, format string, args ...any) *PrereqError {
	return &PrereqError{Class: class, Msg: fmt.Sprintf(format, args...)}
}

func (e *PrereqError) withHint(format string, args ...any) *PrereqError {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}
