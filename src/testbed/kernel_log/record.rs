//! Records of `/dev/kmsg` (`Documentation/ABI/testing/dev-kmsg`). Pure.

/// A line that grows beyond this without an end is no record, in bytes.
const LARGEST: usize = 64 * 1024;

/// One record of the kernel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who logged it: 0 is the kernel.
    pub facility: u32,
    /// How bad it is: 0 is worst.
    pub level: u32,
    /// Its number since the boot.
    pub number: u64,
    /// Microseconds since the boot.
    pub micros: u64,
    /// What it says, perhaps several lines; not escaped.
    pub text: Vec<u8>,
}

impl Record {
    /// Whether the kernel itself logged it, not a program.
    pub fn is_kernels(&self) -> bool {
        self.facility == 0
    }

    /// The lines of its text.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text.split(|byte| *byte == b'\n')
    }

    /// Each line as `dmesg` prints it: `[    1.234567] text`.
    pub fn print(&self, mut line: impl FnMut(Vec<u8>)) {
        let stamp = format!("[{:5}.{:06}] ", self.micros / 1_000_000, self.micros % 1_000_000);
        for text in self.lines() {
            line([stamp.as_bytes(), text].concat());
        }
    }
}

/// Bytes to records.
#[derive(Debug, Default)]
pub struct Decoder {
    rest: Vec<u8>,
}

impl Decoder {
    /// The records that are whole with `bytes`. What is no record is left out.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Record> {
        self.rest.extend_from_slice(bytes);
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let records = self.rest[..end].split(|byte| *byte == b'\n').filter_map(parse).collect();
        self.rest.drain(..end);
        if self.rest.len() > LARGEST {
            self.rest.clear();
        }
        records
    }
}

/// `6,339,5140900,-;text`. Lines that begin with a blank belong to the record before: they name its device.
fn parse(line: &[u8]) -> Option<Record> {
    let at = line.iter().position(|byte| *byte == b';')?;
    let (head, text) = (std::str::from_utf8(&line[..at]).ok()?, &line[at + 1..]);
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let number = fields.next()?.parse().ok()?;
    let micros = fields.next()?.parse().ok()?;
    Some(Record { facility: priority >> 3, level: priority & 7, number, micros, text: unescape(text) })
}

/// The kernel writes bytes that can't be printed as `\x0a`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        match rest {
            [b'\\', b'x', high, low, after @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                plain.push(hex(*high).unwrap_or_default() << 4 | hex(*low).unwrap_or_default());
                rest = after;
            }
            [byte, after @ ..] => {
                plain.push(*byte);
                rest = after;
            }
            [] => return plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"6,339,5140900,-;NET: Registered protocol family 10\n30,340,5690716,-;udevd[80]: starting\n\
        4,341,12000001,-,caller=T1;a\\x0ab\\xc3\\xa4 \\\\x0a;\n SUBSYSTEM=pci\n DEVICE=+pci:0000\nrubbish\n";

    #[test]
    fn records_come_whole_whatever_the_pieces() {
        let whole = Decoder::default().push(LOG);
        assert_eq!(whole.len(), 3);
        assert_eq!((whole[0].number, whole[0].level, whole[0].is_kernels()), (339, 6, true));
        assert_eq!((whole[1].facility, whole[1].level), (3, 6));
        assert_eq!(whole[2].text, b"a\nb\xc3\xa4 \\\n;");
        for size in 1..40 {
            let mut decoder = Decoder::default();
            let pieces: Vec<Record> = LOG.chunks(size).flat_map(|piece| decoder.push(piece)).collect();
            assert_eq!(pieces, whole, "pieces of {size}");
        }
    }

    #[test]
    fn each_line_is_printed_with_the_time() {
        let mut lines = Vec::new();
        let records = Decoder::default().push(b"4,1,12000001,-;a\\x0ab\n6,2,123456000001,-;c\n");
        records.iter().for_each(|record| record.print(|line| lines.push(String::from_utf8(line).unwrap())));
        assert_eq!(lines, ["[   12.000001] a", "[   12.000001] b", "[123456.000001] c"]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(pieces: Vec<Vec<u8>>) {
            let mut decoder = Decoder::default();
            for piece in pieces {
                decoder.push(&piece).iter().for_each(|record| record.print(drop));
            }
        }
    }
}
