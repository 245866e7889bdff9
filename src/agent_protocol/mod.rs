//! Messages between host and guest agent: data only, no I/O.
