//! DNS for guests with a resolver of their own: the names of the members, and nothing else.

use std::net::IpAddr;

use smoltcp::wire::{DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode};

use super::gateway::Names;

/// Where servers listen.
pub const PORT: u16 = 53;
/// How long an answer may be remembered, in seconds: members come and go.
const TIME_TO_LIVE: u32 = 1;
/// A reference to the question's name: it stands behind the 12 bytes of the header.
const NAME: [u8; 2] = [0xc0, 12];
const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
/// A datagram that no resolver refuses.
const LONGEST: usize = 512;

/// The answer to a query; names below `domain` that are not there do not exist, others are refused.
pub fn answer(names: &Names, domain: &str, message: &[u8]) -> Option<Vec<u8>> {
    let query = DnsPacket::new_checked(message).ok()?;
    if query.flags().contains(DnsFlags::RESPONSE) || query.opcode() != DnsOpcode::Query || query.question_count() != 1 {
        return None;
    }
    let (rest, question) = DnsQuestion::parse(query.payload()).ok()?;
    let asked = query.payload().get(..query.payload().len() - rest.len())?;
    let mut labels = Vec::new();
    for label in query.parse_name(question.name) {
        labels.push(String::from_utf8_lossy(label.ok()?).to_lowercase());
    }
    let name = labels.join(".");
    let found = names.get(&name);
    let records: Vec<(u16, Vec<u8>)> = found
        .into_iter()
        .flatten()
        .filter_map(|address| match (question.type_, address) {
            (DnsQueryType::A, IpAddr::V4(address)) => Some((1, address.octets().to_vec())),
            (DnsQueryType::Aaaa, IpAddr::V6(address)) => Some((28, address.octets().to_vec())),
            _ => None,
        })
        .collect();
    let ours = labels.last().is_some_and(|last| last == &domain.to_lowercase()) || labels.len() == 1;
    let code = match (found.is_some(), ours) {
        (true, _) => DnsRcode::NoError,
        (false, true) => DnsRcode::NXDomain,
        (false, false) => DnsRcode::Refused,
    };
    Some(build(&query, asked, &records, code))
}

fn build(query: &DnsPacket<&[u8]>, question: &[u8], records: &[(u16, Vec<u8>)], code: DnsRcode) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend_from_slice(question);
    let mut count = 0;
    for (kind, data) in records {
        let length = u16::try_from(data.len()).unwrap_or_default();
        if bytes.len() + NAME.len() + 10 + data.len() > LONGEST {
            break;
        }
        bytes.extend_from_slice(&NAME);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        bytes.extend_from_slice(&TIME_TO_LIVE.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(data);
        count += 1;
    }
    let mut header = DnsPacket::new_unchecked(&mut bytes[..]);
    header.set_transaction_id(query.transaction_id());
    let wanted = query.flags() & DnsFlags::RECURSION_DESIRED;
    // The code lies in the same word as the flags.
    header.set_flags(DnsFlags::RESPONSE | DnsFlags::AUTHORITATIVE | DnsFlags::RECURSION_AVAILABLE | wanted);
    header.set_opcode(DnsOpcode::Query);
    header.set_question_count(1);
    header.set_answer_record_count(count);
    let flags = u16::from_be_bytes([bytes[2], bytes[3]]) | u16::from(u8::from(code));
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        bytes
    }

    #[test]
    fn members_are_found_and_nothing_else() {
        let address: IpAddr = "10.10.1.2".parse().unwrap();
        let names: Names = [("a.lan".to_owned(), vec![address]), ("a".to_owned(), vec![address])].into();
        let ask = |name: &str, kind| answer(&names, "lan", &query(name, kind)).unwrap();
        let found = ask("A.LAN", 1);
        assert_eq!(found[..2], [0xab, 0xcd]);
        assert_eq!((found[3] & 15, found[7]), (0, 1));
        assert_eq!(found[found.len() - 4..], [10, 10, 1, 2]);
        let code = |name: &str, kind| {
            let bytes = ask(name, kind);
            (bytes[3] & 15, bytes[7])
        };
        assert_eq!((code("a", 1), code("a.lan", 28), code("b.lan", 1)), ((0, 1), (0, 0), (3, 0)));
        assert_eq!(code("example.org", 1), (5, 0));
        assert_eq!(answer(&names, "lan", &found), None);
        assert_eq!(answer(&names, "lan", b"short"), None);
    }
}
