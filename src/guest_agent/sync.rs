//! Where the host's bytes begin to be meant for this agent.

/// Skips what came before the host's answer to the hello.
pub struct Sync {
    nonce: [u8; 16],
    seen: Vec<u8>,
}

impl Sync {
    /// Waits for `nonce`.
    pub fn new(nonce: [u8; 16]) -> Self {
        Self { nonce, seen: Vec::new() }
    }

    /// Looks at what was read. The bytes behind the nonce, once it has come.
    pub fn find(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.seen.extend_from_slice(bytes);
        let at = self.seen.windows(self.nonce.len()).position(|window| *window == self.nonce);
        match at {
            Some(at) => Some(self.seen.split_off(at + self.nonce.len())),
            None => {
                let useless = self.seen.len().saturating_sub(self.nonce.len() - 1);
                self.seen.drain(..useless);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_the_nonce_is_skipped() {
        let nonce = *b"0123456789abcdef";
        let text = [b"rest of 0123456789abc".as_slice(), &nonce, b"frames"].concat();
        for size in 1..text.len() {
            let mut sync = Sync::new(nonce);
            let mut found = None;
            for piece in text.chunks(size) {
                match &mut found {
                    None => found = sync.find(piece),
                    Some(rest) => rest.extend_from_slice(piece),
                }
            }
            assert_eq!(found.as_deref(), Some(b"frames".as_slice()), "pieces of {size}");
        }
    }
}
