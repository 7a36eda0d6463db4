//! Relayed calls: the bot is asked while the provider waits, and other requests go on to the bot's server.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use callreel_core::frame::{Detector, Provider, Verdict};
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::warn;

use super::refusals::Refusal;
use super::upgrade::media_stream;
use super::{Front, path_and_query, proof, read_body};
use crate::engine::BotEnd;
use crate::headers::only;
use crate::listener::{Client, Level};
use crate::public_url::{Scheme, WEBHOOK_PATH};
use crate::record::{Record, Word};
use crate::relay::{self, Answer, Asked, Bots, Fault, Route};
use crate::twilio::Webhook;

/// Passes a request on to the bot's server, or upgrades it to a media stream that a bot takes. Without either
/// there is nothing at the path.
pub(super) async fn pass_on(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, Refusal> {
    if front.takes_by_bot(&request) {
        return media_stream(State(front), request).await;
    }
    let (head, body) = request.into_parts();
    let bots = front.bots.clone().ok_or(Refusal::NotFound)?;
    let server = bots.config().requests.as_ref().ok_or(Refusal::NotFound)?;
    let body = read_body(body, front.config.body_timeout).await?;
    if let Some(Client { standing, .. }) = head.extensions.get() {
        standing.raise(Level::Asked);
    }
    front.note_caller(&head, &body);
    let asked = front.asked(&head);
    bots.pass_on(server, asked, Body::from(body)).await.map_err(Refusal::BotServer)
}

impl Front {
    /// Whether a request is a stream that a bot takes.
    pub(super) fn takes_by_bot(&self, request: &Request) -> bool {
        let has_bot = |bots: &Arc<Bots>| bots.route(request.uri().path()).is_some();
        relay::is_handshake(request) && self.bots.as_ref().is_some_and(has_bot)
    }

    /// Asks the bot of a path to take a call. Returns its side, and the subprotocol that it selected; or its
    /// answer for the provider, if it takes no call.
    pub(super) async fn ask_bot(
        &self,
        route: &Route,
        head: &Parts,
        detector: Detector,
    ) -> Result<Result<(BotEnd, Option<HeaderValue>), Response>, Refusal> {
        let Some(bots) = &self.bots else {
            return Err(Refusal::NotFound);
        };
        match bots.dial(route, self.asked(head)).await {
            Ok(Answer::Taken { bot, subprotocol }) => Ok(Ok((bot, subprotocol))),
            Ok(Answer::Refused(answer)) => {
                let status = answer.status();
                let url = without_login(route);
                warn!(%url, %status, "a bot took no call");
                self.tell_failure(detector, &format!("the bot answered {status}"));
                Ok(Err(answer.into_response()))
            }
            Err(fault) => {
                let url = without_login(route);
                warn!(%url, "a bot took no call: it {fault}");
                self.tell_failure(detector, &format!("the bot {fault}"));
                Err(Refusal::Bot(fault))
            }
        }
    }

    /// Whether all audio that bots send is kept.
    pub(super) fn keeps_sent(&self) -> bool {
        self.bots.as_ref().is_some_and(|bots| bots.config().keeps_sent)
    }

    /// Leaves a record of a call that did not come about.
    fn tell_failure(&self, detector: Detector, reason: &str) {
        let provider: Word<Provider> = match detector.verdict() {
            Verdict::Known(provider) => provider.into(),
            _ => Word::unknown_provider(),
        };
        let mut record = Record::unknown(provider, Timestamp::now());
        record.close(crate::record::End::Bot);
        record.fail(reason);
        self.engine.fail(record);
    }

    /// The request as a bot needs it.
    fn asked<'a>(&self, head: &'a Parts) -> Asked<'a> {
        let client = head.extensions.get::<Client>();
        let peer: Option<SocketAddr> = client.map(|client| client.peer);
        let public_url = self.config.twilio.public_url.as_ref();
        let is_encrypted = self.config.certificate.is_some()
            || public_url.is_some_and(|url| matches!(url.scheme(), Scheme::Https));
        Asked { head, peer, is_encrypted }
    }

    /// Keeps the numbers and names that a webhook tells, for the record of its call.
    fn note_caller(&self, head: &Parts, body: &[u8]) {
        let twilio = &self.config.twilio;
        let Some(callers) = twilio.callers.as_ref().filter(|_| head.uri.path() == WEBHOOK_PATH)
        else {
            return;
        };
        let webhook = Webhook {
            path_and_query: path_and_query(head),
            content_type: only(&head.headers, &header::CONTENT_TYPE),
            body,
        };
        let is_proved = twilio
            .verifier
            .as_ref()
            .is_none_or(|verifier| verifier.verify_webhook(&webhook, proof(head)).is_ok());
        if let Some(call_id) = webhook.call_id().filter(|_| is_proved) {
            callers.tell(&call_id, webhook.caller_ids(), Instant::now().into_std());
        }
    }
}

/// The address of a bot without name and password.
fn without_login(route: &Route) -> String {
    let mut url = route.url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Bot(fault)
    }
}
