//! The webhooks of providers beside Twilio.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::refusals::Refusal;
use super::{Front, read_body};
use crate::admission::Scheme as Proof;
use crate::answer::{self, Asked, StreamToken, Terms};
use crate::asker::Asker;
use crate::listener::{Client, Level};
use crate::public_url::{PublicUrl, Scheme};
use crate::stream_tokens::StreamTokens;

/// Answers a provider that asks for the next step of a call: with a stream to this server.
pub(super) async fn answer_call(
    asker: Asker,
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, Refusal> {
    front.refuse_unless_open()?;
    let (head, body) = request.into_parts();
    let body = read_body(body, front.config.body_timeout).await?;
    if let Some(Client { standing, .. }) = head.extensions.get() {
        standing.raise(Level::Asked);
    }
    let twilio = &front.config.twilio;
    front.refuse_if_closed(&head)?;
    let admission = front.config.admission(&head);
    if let Some(admission) = admission {
        let scheme = twilio.public_url.as_ref().map_or(Scheme::Https, PublicUrl::scheme);
        front.admit(admission, &head, scheme, &body)?;
    }
    let stream_url = front.stream_url(&head, asker.stream_path())?;
    let Asked { call_id, ids } = Asked::read(asker, head.uri.query().unwrap_or_default(), &body);
    let now = Instant::now().into_std();
    let token = match &twilio.stream_tokens {
        None => None,
        Some(tokens) => {
            let call_id = call_id.as_deref().ok_or(Refusal::CallId(asker))?;
            let usual = tokens.issue(call_id, now);
            Some(StreamToken { plain: StreamTokens::in_plain(&usual), usual })
        }
    };
    if let (Some(callers), Some(call_id)) = (&twilio.callers, &call_id) {
        callers.tell(call_id, ids, now);
    }
    // The login is a secret, so only a provider that has proved itself is told.
    let is_proved = admission.is_some_and(|admission| admission.scheme() != Proof::None);
    let of_stream = front.config.admission_at(asker.stream_path()).filter(|_| is_proved);
    let login = of_stream.and_then(|admission| admission.login());
    let answer = answer::answer(
        asker,
        &Terms {
            texts: &twilio.texts,
            stream_url: &stream_url,
            call_id: call_id.as_deref(),
            token: token.as_ref(),
            login: login.as_ref(),
        },
    );
    Ok(([(header::CONTENT_TYPE, asker.content_type())], answer).into_response())
}
