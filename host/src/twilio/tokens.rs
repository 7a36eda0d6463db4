//! The secret that signs requests.

use std::fmt;

use super::Error;

/// The secret that Twilio and its customer share. Never shown, not even by `Debug`.
#[derive(Clone)]
pub struct AuthToken(String);

impl AuthToken {
    /// Takes the token as the Twilio console shows it.
    ///
    /// # Errors
    /// [`Error::Token`] if it is empty (anybody could sign with that) or holds blanks or control
    /// characters.
    pub fn new(token: String) -> Result<Self, Error> {
        if token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Error::Token);
        }
        Ok(Self(token))
    }
}

impl AuthToken {
    /// The key of the signatures.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_cannot_be_twilios_is_refused() {
        for token in ["", " ", "12345\n", "12 345"] {
            assert_eq!(AuthToken::new(token.into()).unwrap_err(), Error::Token);
        }
    }
}
