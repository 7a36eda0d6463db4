//! The part of a certificate that its file is checked by, and that people know it by.

use std::net::IpAddr;

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode as _, ErrorKind, Reader as _, Result, SliceReader, Tag, Tagged as _};
use jiff::Timestamp;

/// Names and dates of a certificate, as they stand in it. Nothing else of it is checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names<'a> {
    /// The name of the authority, in DER.
    pub issuer: &'a [u8],
    /// The name of the certificate's owner, in DER.
    pub subject: &'a [u8],
    /// Its number at the authority, without tag and length.
    pub serial: &'a [u8],
    /// The time in which it is valid.
    pub validity: Validity,
    /// The extensions, in DER; empty if there is none.
    extensions: &'a [u8],
}

/// The time in which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    /// The first second.
    pub from: Timestamp,
    /// The last second.
    pub until: Timestamp,
}

/// Object identifier of the key of a certificate's authority (2.5.29.35), without tag and length.
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1D, 0x23];

/// Object identifier of a common name (2.5.4.3), without tag and length.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Object identifier of the alternative names of a certificate's owner (2.5.29.17), without tag and length.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1D, 0x11];

impl<'a> Names<'a> {
    /// Reads a certificate in DER (RFC 5280). Returns `None` if the bytes are none, or a date is before 1970.
    pub(crate) fn of(certificate: &'a [u8]) -> Option<Self> {
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
        let mut serial: AnyRef<'_> = signed.decode()?;
        if !matches!(serial.tag(), Tag::Integer) {
            // That was the version.
            serial = signed.decode()?;
        }
        let serial = serial.value();
        let _algorithm: AnyRef<'_> = signed.decode()?;
        let issuer = signed.tlv_bytes()?;
        let (from, until) =
            signed.sequence(|validity| Ok::<_, der::Error>((time(validity)?, time(validity)?)))?;
        let subject = signed.tlv_bytes()?;
        let mut extensions: &[u8] = &[];
        while !signed.is_finished() {
            let part: AnyRef<'_> = signed.decode()?;
            if part.tag().number().value() == 3 && part.tag().is_context_specific() {
                extensions = part.value();
            }
        }
        let validity = Validity { from, until };
        Ok(Self { issuer, subject, serial, validity, extensions })
    }

    /// The names and addresses for which the certificate was issued: the alternative names, or without any
    /// the common name of its owner.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let alternatives = self.alternatives().unwrap_or_default();
        let mut hosts: Vec<String> = alternatives.into_iter().filter_map(host).collect();
        if hosts.is_empty() {
            hosts.extend(common_name(self.subject));
        }
        hosts
    }

    fn alternatives(&self) -> Option<Vec<AnyRef<'a>>> {
        self.extension(ALTERNATIVE_NAMES)
    }

    /// The names of hosts among the alternative names, in small letters.
    pub(crate) fn dns_names(&self) -> Vec<String> {
        let names = self.alternatives().unwrap_or_default().into_iter();
        let names = names.filter(|name| name.tag().number().value() == DNS_NAME);
        names.filter_map(host).map(|name| name.to_ascii_lowercase()).collect()
    }

    /// The identifier of the key with which the authority signed, if the certificate has it.
    pub(crate) fn authority_key_id(&self) -> Option<&'a [u8]> {
        let parts = self.extension(AUTHORITY_KEY_ID)?;
        parts.into_iter().find(|part| part.tag().number().value() == 0).map(|id| id.value())
    }

    /// The elements of an extension that is a sequence.
    fn extension(&self, wanted: &[u8]) -> Option<Vec<AnyRef<'a>>> {
        for extension in items(AnyRef::from_der(self.extensions).ok()?.value())? {
            match items(extension.value())?[..] {
                [id, .., value] if id.value() == wanted => {
                    return items(AnyRef::from_der(value.value()).ok()?.value());
                }
                _ => {}
            }
        }
        None
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

/// Tags of alternative names: a host, and an address.
const DNS_NAME: u32 = 2;
const IP_ADDRESS: u32 = 7;

/// The elements in the value of a sequence or of a set.
fn items(value: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    let (mut reader, mut items) = (SliceReader::new(value).ok()?, Vec::new());
    while !reader.is_finished() {
        items.push(reader.decode().ok()?);
    }
    Some(items)
}

/// The common name in a name in DER.
pub(crate) fn common_name(name: &[u8]) -> Option<String> {
    for set in items(AnyRef::from_der(name).ok()?.value())? {
        for pair in items(set.value())? {
            match items(pair.value())?[..] {
                [id, text] if id.value() == COMMON_NAME => {
                    return Some(String::from_utf8_lossy(text.value()).into_owned());
                }
                _ => {}
            }
        }
    }
    None
}

/// A name of a host, or an address, of an alternative name.
fn host(name: AnyRef<'_>) -> Option<String> {
    match (name.tag().number().value(), name.value()) {
        (DNS_NAME, dns) => Some(String::from_utf8_lossy(dns).into_owned()),
        (IP_ADDRESS, address) => {
            let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}
