//! What happened in a run, as one ordered stream.
