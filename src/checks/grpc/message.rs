//! The messages of grpc.health.v1, in gRPC's frame: one octet that says whether it is compressed, four of length, then
//! the protocol buffer.
//!
//! `HealthCheckRequest { string service = 1; }`, `HealthCheckResponse { ServingStatus status = 1; }`.

use bytes::{BufMut, Bytes, BytesMut};

/// The serving status that is passing.
pub(super) const SERVING: u64 = 1;

/// The field's number and its wire type: a string, and a number.
const SERVICE: u8 = 1 << 3 | 2;
const STATUS: u64 = 1 << 3;

/// A framed request. The default value of a field is not sent.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(SERVICE);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    // Names are far shorter: their definitions are limited.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put(message);
    framed.freeze()
}

/// The status in one framed response; `None` when it is malformed. As all readers of protocol buffers do, skips
/// fields that it does not know, takes the last of several, and 0 for none.
pub(super) fn serving_status(framed: &[u8]) -> Option<u64> {
    let (&[compressed, a, b, c, d], mut message) = framed.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    // No compression was offered.
    if compressed != 0 || length != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            // Field numbers begin at 1.
            _ if tag >> 3 == 0 => return None,
            0 if tag == STATUS => status = varint(&mut message)?,
            0 => drop(varint(&mut message)?),
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Its name in grpc.health.v1; a number when it has none there.
pub(super) fn name(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        SERVING => "SERVING".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        number => number.to_string(),
    }
}

/// Seven bits an octet, the lowest first; the top bit says that more follow.
fn put_varint(message: &mut BytesMut, mut number: u64) {
    while number > 0x7f {
        message.put_u8(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    message.put_u8(number as u8);
}

/// Ten octets at most; bits above 64 are dropped, as all readers do.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (&octet, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(octet & 0x7f) << shift;
        if octet < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
    }

    #[test]
    fn requests_are_framed() {
        assert_eq!(request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(request("db")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        let long = "x".repeat(300);
        assert_eq!(request(&long)[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
        assert_eq!(request(&long)[8..], *long.as_bytes());
    }

    #[test]
    fn statuses_are_read() {
        for (message, status) in [
            (&[][..], Some(0)),
            (&[8, 1], Some(1)),
            (&[8, 2], Some(2)),
            (&[8, 2, 8, 1], Some(1)),
            // Fields that are not known: a number, eight octets, a string, four octets; and a string as number 1.
            (&[16, 5, 25, 0, 0, 0, 0, 0, 0, 0, 0, 34, 2, 8, 2, 45, 0, 0, 0, 0, 10, 1, 9, 8, 1], Some(1)),
            (&[8, 0x81, 0x80, 0x00], Some(1)),
            (&[8], None),
            (&[8, 0x80], None),
            (&[0, 1], None),
            (&[11, 12], None),
            (&[34, 200, 1], None),
            (&[34, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], None),
        ] {
            assert_eq!(serving_status(&framed(message)), status, "{message:?}");
        }
        for frame in [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1], &[0, 0, 0, 0, 0, 8, 1]] {
            assert_eq!(serving_status(frame), None, "{frame:?}");
        }
    }

    proptest! {
        #[test]
        fn a_varint_comes_back(number: u64) {
            let mut written = BytesMut::new();
            put_varint(&mut written, number);
            let mut rest = &written[..];
            prop_assert_eq!(varint(&mut rest), Some(number));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_octets_are_read_or_refused(message: Vec<u8>, status: u64) {
            serving_status(&message);
            let before = serving_status(&framed(&message));
            // A status after whatever could be read is what counts.
            let mut longer = BytesMut::from(&message[..]);
            longer.put_u8(8);
            put_varint(&mut longer, status);
            if before.is_some() {
                prop_assert_eq!(serving_status(&framed(&longer)), Some(status));
            }
        }
    }
}
