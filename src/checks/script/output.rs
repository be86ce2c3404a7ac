//! What a program printed: the last of it, and how much it was.

/// Keeps the last octets, with memory bounded by twice as many.
pub(super) struct Output {
    kept: Vec<u8>,
    max: usize,
    total: u64,
}

impl Output {
    pub(super) fn new(max: usize) -> Self {
        Self { kept: Vec::new(), max, total: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    pub(super) fn add(&mut self, octets: &[u8]) {
        self.total += octets.len() as u64;
        // All that is too old goes at once, so that small pieces do not move the rest each time.
        if self.kept.len() + octets.len() > self.max.saturating_mul(2) {
            let spare = (self.kept.len() + octets.len()).saturating_sub(self.max);
            self.kept.drain(..spare.min(self.kept.len()));
        }
        self.kept.extend_from_slice(&octets[octets.len().saturating_sub(self.max)..]);
    }

    /// As text, in Consul's form when it is not all. Octets that are no UTF-8 are replaced.
    pub(super) fn shown(&self) -> String {
        let last = &self.kept[self.kept.len().saturating_sub(self.max)..];
        if self.total == last.len() as u64 {
            return String::from_utf8_lossy(last).into_owned();
        }
        // The cut may have left the end of a character, of at most three octets (RFC 3629 section 3).
        let broken = last.iter().take(3).take_while(|octet| **octet & 0xc0 == 0x80).count();
        let text = String::from_utf8_lossy(&last[broken..]);
        format!("Captured {} of {} bytes\n...\n{text}", last.len(), self.total)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(pieces: &[&str], max: usize) -> String {
        let mut output = Output::new(max);
        pieces.iter().for_each(|piece| output.add(piece.as_bytes()));
        output.shown()
    }

    #[test]
    fn the_last_octets_are_shown() {
        assert_eq!(shown(&[], 4), "");
        assert_eq!(shown(&["ab", "cd"], 4), "abcd");
        assert_eq!(shown(&["ab", "cd", "e"], 4), "Captured 4 of 5 bytes\n...\nbcde");
        assert_eq!(shown(&["abcdefghij"], 4), "Captured 4 of 10 bytes\n...\nghij");
        assert_eq!(shown(&["abc"], 0), "Captured 0 of 3 bytes\n...\n");
        // A character is never cut in two: neither of two octets, nor of four.
        assert_eq!(shown(&["aé", "bcd"], 4), "Captured 4 of 6 bytes\n...\nbcd");
        assert_eq!(shown(&["🦀abc"], 4), "Captured 4 of 7 bytes\n...\nabc");
    }

    proptest! {
        #[test]
        fn however_it_comes_in_pieces(pieces in prop::collection::vec(prop::collection::vec(0x61u8..0x7b, 0..20), 0..30), max in 0usize..40) {
            let mut output = Output::new(max);
            let mut all = Vec::new();
            for piece in &pieces {
                output.add(piece);
                all.extend_from_slice(piece);
                prop_assert!(output.kept.len() <= max * 2);
            }
            prop_assert_eq!(output.is_empty(), all.is_empty());
            let last = String::from_utf8(all[all.len().saturating_sub(max)..].to_vec()).unwrap();
            if all.len() <= max {
                prop_assert_eq!(output.shown(), last);
            } else {
                let wanted = format!("Captured {max} of {} bytes\n...\n{last}", all.len());
                prop_assert_eq!(output.shown(), wanted);
            }
        }

        #[test]
        fn any_octets_can_be_shown(octets: Vec<u8>, max in 0usize..16) {
            let mut output = Output::new(max);
            output.add(&octets);
            output.shown();
        }
    }
}
