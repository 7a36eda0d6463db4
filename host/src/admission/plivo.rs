//! Plivo: an HMAC of URL, parameters and a nonce. As the packages `plivo` of PyPI (4.63) and of npm (4.79)
//! make it. That of PyPI raises an error at a URL of `wss`; that of npm takes it, and so does this.

use std::borrow::Cow;
use std::fmt::Write as _;

use data_encoding::BASE64;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::{Asked, Fault, Field, Secrets, any, keyed};

pub(super) fn check(secrets: &Secrets, asked: &Asked<'_>) -> Result<(), Fault> {
    const NONCE: Fault = Fault::Header("X-Plivo-Signature-V3-Nonce");
    const NONCE_V2: Fault = Fault::Header("X-Plivo-Signature-V2-Nonce");
    const SIGNATURE: Fault = Fault::Header("X-Plivo-Signature-V3");
    // The main account signs as well, for a subaccount: its header is another.
    let of_account = asked.header("x-plivo-signature-v3");
    let signatures = of_account.or_else(|| asked.header("x-plivo-signature-ma-v3"));
    if let Some(signatures) = signatures {
        let nonce = asked.header("x-plivo-signature-v3-nonce").ok_or(NONCE)?;
        let form = asked.form().ok_or(Fault::Body)?;
        let bases = asked.urls.iter().map(|url| base(asked.method, url, &form));
        let messages = bases.map(|base| format!("{base}.{nonce}"));
        return fits(secrets, &messages.collect::<Vec<_>>(), signatures, SIGNATURE);
    }
    let signatures = asked.header("x-plivo-signature-v2").ok_or(SIGNATURE)?;
    let nonce = asked.header("x-plivo-signature-v2-nonce").ok_or(NONCE_V2)?;
    let paths = asked.urls.iter().map(|url| url.split_once('?').map_or(&url[..], |(path, _)| path));
    let messages = paths.map(|path| format!("{path}{nonce}"));
    fits(secrets, &messages.collect::<Vec<_>>(), signatures, SIGNATURE)
}

/// Checks a list of signatures with commas between them: any one may be of any of the messages.
fn fits(
    secrets: &Secrets,
    messages: &[String],
    signatures: &str,
    malformed: Fault,
) -> Result<(), Fault> {
    /// Most signatures of one request: one for each token of the account and of its main account.
    const SIGNATURES_MAX: usize = 8;
    let signatures = signatures.split(',').map(|text| BASE64.decode(text.trim().as_bytes()));
    let signatures: Result<Vec<_>, _> = signatures.take(SIGNATURES_MAX).collect();
    let signatures = signatures.map_err(|_| malformed)?;
    let macs = secrets.iter().flat_map(|secret| {
        messages.iter().map(move |message| keyed::<Hmac<Sha256>>(secret).chain_update(message))
    });
    any(macs.flat_map(|mac| {
        signatures.iter().map(move |signature| mac.clone().verify_slice(signature).is_ok())
    }))
}

/// The signed text of version 3 up to the nonce. Names and values are decoded, and stand in the order of
/// their bytes; repeated ones stay.
fn base(method: &str, url: &str, form: &[Field<'_>]) -> String {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let mut query: Vec<Field<'_>> = form_urlencoded::parse(query.as_bytes()).collect();
    if method == "GET" {
        query.extend_from_slice(form);
    }
    query.sort_unstable();
    let mut text = path.to_owned();
    for (index, (name, value)) in query.iter().enumerate() {
        let _ = write!(text, "{}{name}={value}", if index == 0 { "?" } else { "&" });
    }
    let mut form: Vec<&(Cow<'_, str>, Cow<'_, str>)> = form.iter().collect();
    if method != "GET" && !form.is_empty() {
        form.sort_unstable();
        text.push_str(if query.is_empty() { "?" } else { "." });
        text.extend(form.into_iter().flat_map(|(name, value)| [&**name, &**value]));
    }
    text
}
