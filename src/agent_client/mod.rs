//! The host's end of the agent's channel.
