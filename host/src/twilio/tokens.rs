//! The auth tokens with which requests may be signed: several of one account while its token is rolled
//! over, and those of subaccounts.

use std::fmt;

use super::Error;
use crate::secrets::lines;

/// Hexadecimal digits of an account's id, behind `AC`.
const ACCOUNT_DIGITS: usize = 32;

/// The secret that Twilio and its customer share. Never shown, not even by `Debug`.
#[derive(Clone)]
pub struct AuthToken(String);

impl AuthToken {
    /// Takes the token as the Twilio console shows it.
    ///
    /// # Errors
    /// [`Error::Token`] if it is empty (anybody could sign with that) or holds blanks or control
    /// characters; [`Error::AccountSid`] if it is the id of an account.
    pub fn new(token: String) -> Result<Self, Error> {
        if is_account(&token) {
            return Err(Error::AccountSid);
        }
        if token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Error::Token);
        }
        Ok(Self(token))
    }
}

impl AuthToken {
    /// The key of the signatures.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The token itself, for providers that send it.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(..)")
    }
}

/// Auth tokens: those of any account, and those of accounts that are named. At least one, and of each
/// account the newest first. Never shown, not even by `Debug`.
#[derive(Clone, Debug)]
pub struct AuthTokens(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    /// The id of the only account that signs with the token, or the name of a shared key.
    account: Option<String>,
    token: AuthToken,
    /// Another token of the same account stands before it.
    is_older: bool,
}

impl AuthTokens {
    /// Reads tokens with commas or white space between them, the newest first.
    ///
    /// # Errors
    /// The error of the first word, or of the first place between two commas, that is no token.
    pub fn from_list(text: &str) -> Result<Self, Error> {
        let mut tokens = Self(Vec::new());
        for part in text.split(',') {
            let words = part.split_whitespace();
            // A part without a word is an empty token, and no token may be empty.
            let is_empty = part.trim().is_empty();
            for word in words.chain(is_empty.then_some("")) {
                tokens.add(None, AuthToken::new(word.to_owned())?);
            }
        }
        Ok(tokens)
    }

    /// Reads the text of a file: a token a line, the newest first. The id of an account and a blank before
    /// a token make it that account's. Empty lines and lines that begin with `#` are left out.
    ///
    /// # Errors
    /// The number of the first line that is wrong and the form that is wanted, or that there is no token.
    pub fn from_file(text: &str) -> Result<Self, String> {
        let mut tokens = Self(Vec::new());
        for (number, line) in lines(text) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (account, token) = match words[..] {
                [token] => (None, AuthToken::new(token.to_owned()).ok()),
                [account, token] if is_account(account) || is_shared_key(account) => {
                    (Some(account.to_owned()), AuthToken::new(token.to_owned()).ok())
                }
                _ => (None, None),
            };
            let token = token.ok_or_else(|| {
                format!(
                    "line {number}: must be an auth token, or an account SID (AC and 32 hex digits), a blank and the \
                     auth token of that account, or the name of a shared key (webhooks_sharedkey_..), a blank and that key"
                )
            })?;
            tokens.add(account, token);
        }
        if tokens.0.is_empty() {
            return Err("there is no auth token in it: write one a line".to_owned());
        }
        Ok(tokens)
    }

    fn add(&mut self, account: Option<String>, token: AuthToken) {
        let is_older = self.0.iter().any(|entry| entry.account == account);
        self.0.push(Entry { account, token, is_older });
    }

    /// The tokens with which a request of `account` may be signed, each with whether a newer one stands
    /// before it: the account's own; of an account without any, those of no account; of a request that
    /// names no account, all.
    pub(super) fn of(&self, account: Option<&str>) -> impl Iterator<Item = (&AuthToken, bool)> {
        let has_its_own = |account| self.0.iter().any(|entry| entry.account.as_deref() == account);
        let wanted = account.map(|_| account.filter(|_| has_its_own(account)));
        let entries = self.0.iter().filter(|entry| !entry.is_shared_key());
        let wanted = entries.filter(move |e| wanted.is_none_or(|of| e.account.as_deref() == of));
        wanted.map(|entry| (&entry.token, entry.is_older))
    }

    /// The shared keys of this name, or all if none is named, each with whether a newer one stands before
    /// it.
    pub(super) fn shared(&self, name: Option<&str>) -> impl Iterator<Item = (&AuthToken, bool)> {
        let keys = self.0.iter().filter(|entry| entry.is_shared_key());
        let wanted = keys.filter(move |key| name.is_none() || key.account.as_deref() == name);
        wanted.map(|entry| (&entry.token, entry.is_older))
    }
}

impl Entry {
    fn is_shared_key(&self) -> bool {
        self.account.as_deref().is_some_and(is_shared_key)
    }
}

impl From<AuthToken> for AuthTokens {
    fn from(token: AuthToken) -> Self {
        Self(vec![Entry { account: None, token, is_older: false }])
    }
}

/// Whether a text is the id of an account: `AC` and 32 hexadecimal digits.
pub(super) fn is_account(text: &str) -> bool {
    let digits = text.strip_prefix("AC").unwrap_or_default();
    digits.len() == ACCOUNT_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a text is the name of a key with which Twilio signs by SHA-256.
fn is_shared_key(text: &str) -> bool {
    text.strip_prefix("webhooks_sharedkey_").is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "AC00000000000000000000000000000001";
    const TWO: &str = "AC00000000000000000000000000000002";

    fn of(tokens: &AuthTokens, account: Option<&str>) -> Vec<(String, bool)> {
        tokens.of(account).map(|(token, is_older)| (token.0.clone(), is_older)).collect()
    }

    fn pairs(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
        expected.iter().map(|(token, is_older)| ((*token).to_owned(), *is_older)).collect()
    }

    #[test]
    fn a_list_has_commas_or_blanks_between_tokens() {
        let expected = pairs(&[("new", false), ("old", true)]);
        for text in ["new,old", "new old", " new , old\n", "new\nold\n"] {
            assert_eq!(of(&AuthTokens::from_list(text).unwrap(), None), expected, "{text:?}");
        }
        for text in ["", " ", ",", "new,", "new,,old"] {
            assert_eq!(AuthTokens::from_list(text).unwrap_err(), Error::Token, "{text:?}");
        }
        assert_eq!(AuthTokens::from_list(&format!("{ONE} a")).unwrap_err(), Error::AccountSid);
    }

    #[test]
    fn an_account_with_tokens_of_its_own_signs_with_no_other() {
        let text = format!("# a comment\nnew\n\nold\n{ONE}  first\r\n{ONE} second\n");
        let tokens = AuthTokens::from_file(&text).unwrap();
        assert_eq!(of(&tokens, Some(ONE)), pairs(&[("first", false), ("second", true)]));
        assert_eq!(of(&tokens, Some(TWO)), pairs(&[("new", false), ("old", true)]));
        assert_eq!(of(&tokens, None).len(), 4);
        let tokens = AuthTokens::from_file(&format!("{ONE} first")).unwrap();
        assert_eq!(of(&tokens, Some(TWO)), []);
        assert!(!format!("{tokens:?}").contains("first"));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        for (text, words) in [
            ("", "there is no auth token"),
            ("# only a comment\n", "there is no auth token"),
            ("good\n\nthis is bad\n", "line 3: must be"),
            ("AC12 secret", "line 1: must be"),
            (ONE, "line 1: must be"),
            (&format!("{ONE} {TWO}"), "line 1: must be"),
        ] {
            let error = AuthTokens::from_file(text).unwrap_err();
            assert!(error.contains(words) && !error.contains("secret"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_token_that_cannot_be_twilios_is_refused() {
        for token in ["", " ", "12345\n", "12 345"] {
            assert_eq!(AuthToken::new(token.into()).unwrap_err(), Error::Token);
        }
        let account = format!("AC{}", "0123456789abcdef".repeat(2));
        assert_eq!(AuthToken::new(account).unwrap_err(), Error::AccountSid);
    }
}
