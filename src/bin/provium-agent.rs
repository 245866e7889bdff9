//! The guest agent: runs inside the guest, first as its launcher, then as the host's hands.

fn main() {
    provium::guest_agent::main();
}
