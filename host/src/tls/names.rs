//! The part of a certificate that its file is checked by.

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode as _, ErrorKind, Reader as _, Result, SliceReader, Tag, Tagged as _};
use jiff::Timestamp;

/// Names and dates of a certificate, as they stand in it. Nothing else of it is checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names<'a> {
    /// The name of the authority, in DER.
    pub issuer: &'a [u8],
    /// The name of the certificate's owner, in DER.
    pub subject: &'a [u8],
    /// The first second of its validity.
    pub from: Timestamp,
    /// The last second of its validity.
    pub until: Timestamp,
}

impl<'a> Names<'a> {
    /// Reads a certificate in DER (RFC 5280). Returns `None` if the bytes are none, or a date is before 1970.
    pub(super) fn of(certificate: &'a [u8]) -> Option<Self> {
        let mut reader = SliceReader::new(certificate).ok()?;
        let names = reader.sequence(|certificate| {
            let names = certificate.sequence(Self::read)?;
            let _algorithm: AnyRef<'_> = certificate.decode()?;
            let _signature: AnyRef<'_> = certificate.decode()?;
            Ok::<_, der::Error>(names)
        });
        names.ok().filter(|_| reader.is_finished())
    }

    /// Reads the part that is signed, up to the key.
    fn read(signed: &mut SliceReader<'a>) -> Result<Self> {
        let version_or_serial: AnyRef<'_> = signed.decode()?;
        if !matches!(version_or_serial.tag(), Tag::Integer) {
            let _serial: AnyRef<'_> = signed.decode()?;
        }
        let _algorithm: AnyRef<'_> = signed.decode()?;
        let issuer = signed.tlv_bytes()?;
        let (from, until) =
            signed.sequence(|validity| Ok::<_, der::Error>((time(validity)?, time(validity)?)))?;
        let subject = signed.tlv_bytes()?;
        while !signed.is_finished() {
            let _key_or_extension: AnyRef<'_> = signed.decode()?;
        }
        Ok(Self { issuer, subject, from, until })
    }
}

/// Reads one date.
fn time<'a>(validity: &mut SliceReader<'a>) -> Result<Timestamp> {
    let since_1970 = match Tag::peek(validity)? {
        Tag::UtcTime => UtcTime::decode(validity)?.to_unix_duration(),
        _ => GeneralizedTime::decode(validity)?.to_unix_duration(),
    };
    let seconds = i64::try_from(since_1970.as_secs()).map_err(|_| ErrorKind::DateTime)?;
    Ok(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}
