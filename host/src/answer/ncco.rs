//! The answer to Vonage: a list of actions in JSON.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use super::{Login, Terms, text_of};
use crate::stream_tokens::{CALL, PARAMETER};

/// Format of the stream: the widest one that a telephone call fills.
const CONTENT_TYPE: &str = "audio/l16;rate=16000";

/// The first message of the stream has the headers of the endpoint, and no id of the call but theirs.
pub(super) fn vonage(terms: &Terms<'_>) -> String {
    let texts = [&terms.texts.greeting, &terms.texts.ready];
    let talk = |text| json!({ "action": "talk", "text": text });
    let mut actions: Vec<Value> = texts.into_iter().filter_map(text_of).map(talk).collect();
    let mut headers = Map::new();
    let token = terms.token.map(|token| token.usual.as_str());
    for (name, value) in [(CALL, terms.call_id), (PARAMETER, token)] {
        if let Some(value) = value {
            headers.insert(name.to_owned(), value.into());
        }
    }
    let mut endpoint = json!({
        "type": "websocket",
        "uri": terms.stream_url,
        "content-type": CONTENT_TYPE,
        "headers": headers,
    });
    if let Some(login) = terms.login {
        endpoint["authorization"] = match login {
            Login::Signed => json!({ "type": "vonage" }),
            Login::Bearer(token) => json!({ "type": "custom", "value": format!("Bearer {token}") }),
            Login::Basic { user, password } => {
                let login = BASE64.encode(format!("{user}:{password}").as_bytes());
                json!({ "type": "custom", "value": format!("Basic {login}") })
            }
        };
    }
    actions.push(json!({ "action": "connect", "endpoint": [endpoint] }));
    Value::from(actions).to_string()
}
