//! The facts that the URL of a stream tells a call.

use std::borrow::Cow;
use std::fmt;

use callreel_core::frame::{Provider, Start};

use crate::stream_tokens::{CALL, PARAMETER};

/// Sample rates that a URL may tell are multiples of this one, in hertz.
const RATE_STEP_HZ: u32 = 8000;

/// Highest sample rate that a URL may tell, in hertz.
const RATE_HZ_MAX: u32 = 192_000;

/// The query of a stream's URL. It may hold a token, so nothing shows it.
#[derive(Default)]
pub struct Hints(Option<Box<str>>);

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hints(..)")
    }
}

impl Hints {
    /// The facts of a URL with this query.
    #[must_use]
    pub fn new(query: Option<Box<str>>) -> Self {
        Self(query.filter(|query| !query.is_empty()))
    }

    /// The value of the first field of this name.
    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        let query = self.0.as_deref()?;
        let mut fields = form_urlencoded::parse(query.as_bytes());
        fields.find(|(given, _value)| given == name).map(|(_name, value)| value)
    }

    /// The id of the call as its webhook told it, where the answer put it into the URL.
    pub(super) fn call_id(&self) -> Option<Cow<'_, str>> {
        self.field(CALL)
    }

    /// The stream token, where the answer put it into the URL.
    pub(super) fn token(&self) -> Option<Cow<'_, str>> {
        self.field(PARAMETER)
    }

    /// Gives a start the sample rate that the URL tells, if the provider has such a field and the start
    /// leaves it out; returns whether it did. A rate that makes no sense is passed over.
    pub(super) fn complete(&self, provider: Provider, start: &mut Start<'_>) -> bool {
        let told = provider.rate_field().and_then(|name| self.field(name)?.parse::<u32>().ok());
        let is_rate = |hz: &u32| *hz > 0 && *hz <= RATE_HZ_MAX && hz.is_multiple_of(RATE_STEP_HZ);
        told.filter(is_rate).is_some_and(|hz| start.assume_rate(hz))
    }
}

#[cfg(test)]
mod tests {
    use callreel_core::frame::{Body, parse};

    use super::*;

    fn rate(query: &str, format: &str) -> (bool, Option<u32>) {
        let mut text =
            format!(r#"{{"event":"start","start":{{"media_format":{format}}}}}"#).into_bytes();
        let parsed = parse(Provider::Exotel, &mut text).unwrap();
        let Body::Start(mut start) = parsed.body else { panic!() };
        let taken = Hints::new(Some(query.into())).complete(Provider::Exotel, &mut start);
        (taken, start.format.map(|format| format.sample_rate_hz))
    }

    #[test]
    fn a_rate_of_the_url_counts_where_the_start_tells_none() {
        assert_eq!(rate("a=1&sample-rate=16000", "{}"), (true, Some(16_000)));
        assert_eq!(
            rate("sample-rate=24000", r#"{"encoding":"audio/x-raw"}"#),
            (true, Some(24_000))
        );
        assert_eq!(rate("sample-rate=16000", r#"{"sample_rate":"8000"}"#), (false, Some(8000)));
        for odd in [
            "",
            "sample-rate",
            "sample-rate=",
            "sample-rate=fast",
            "sample-rate=0",
            "sample-rate=12345",
            "sample-rate=-8000",
            "rate=16000",
            "sample-rate=999992000",
        ] {
            assert_eq!(rate(odd, "{}"), (false, Some(8000)), "{odd}");
        }
    }

    #[test]
    fn nothing_shows_a_query() {
        assert_eq!(format!("{:?}", Hints::new(Some("token=1".into()))), "Hints(..)");
    }
}
