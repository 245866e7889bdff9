//! Which test file runs when; deadlines.
