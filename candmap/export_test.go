package candmap

// PAE is what is really signed, for the vectors.
var PAE = pae

// MaxAnswer bounds an answer of Since.
const MaxAnswer = maxAnswer
