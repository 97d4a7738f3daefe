package candmap

// PAE is what is really signed, for the vectors.
var PAE = pae

// MaxAnswer bounds an answer of Since.
const MaxAnswer = maxAnswer

// AssembleAfter assembles a roster with what is known of the one before.
var AssembleAfter = assembleRoster

// EncodeIndex makes the document of an index.
var EncodeIndex = (*RosterIndex).encode
