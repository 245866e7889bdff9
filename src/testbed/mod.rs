//! One test's machines and their teardown.
