//! The Lua skin over the test bed.
