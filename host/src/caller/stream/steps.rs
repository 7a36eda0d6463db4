//! Conversations in steps: a message, the answer that is waited for, and the next message.

use serde_json::Value;
use tokio::time::Instant;

use super::conversation::{ANSWER_PATIENCE, Conversation, broken};
use super::{DialledStream, Failure};
use crate::caller::CallEnd;
use crate::caller::looks::Talk;
use crate::caller::looks::steps::{PING_INTERVAL_S, Step, Steps};

impl DialledStream<'_, '_> {
    /// Takes the steps before the audio.
    pub(super) async fn take_opening(
        &mut self,
        steps: &'static Steps,
    ) -> Result<Option<CallEnd>, Failure> {
        self.take_steps(steps, steps.opening).await
    }

    /// Takes the steps behind the audio, if the look has any.
    pub(super) async fn take_leave(&mut self) -> Result<Option<CallEnd>, Failure> {
        let Talk::Steps(steps) = self.call.crew.plan.look.talk else { return Ok(None) };
        if let Some(end) = self.await_pong(steps).await? {
            return Ok(Some(end));
        }
        self.take_steps(steps, steps.closing).await
    }

    /// Takes the server's messages, and pings when it is due before the chunk of this number; returns the end of
    /// the call if it has come.
    pub(super) async fn follow(
        &mut self,
        steps: &'static Steps,
        chunk: u64,
    ) -> Result<Option<CallEnd>, Failure> {
        while let Some(text) = self.line.text() {
            if let Err(end) = self.heed(steps, &text) {
                return Ok(Some(end));
            }
        }
        if self.state().is_to_end {
            return self.stop().await.map(Some);
        }
        let Some(ping) = steps.ping else { return Ok(None) };
        let chunk_ms = u64::from(self.stride.chunk_ms);
        if chunk == 0 || chunk * chunk_ms % (PING_INTERVAL_S * 1000) >= chunk_ms {
            return Ok(None);
        }
        if let Some(end) = self.await_pong(steps).await? {
            return Ok(Some(end));
        }
        self.outbox.put(self.messages.say(ping.says, &[]));
        let number = self.messages.last_number();
        self.state().number_pinged = Some(number);
        self.flush().await?;
        Ok(None)
    }

    /// Waits for the answer to the last ping.
    async fn await_pong(&mut self, steps: &'static Steps) -> Result<Option<CallEnd>, Failure> {
        match (steps.ping, self.state().number_pinged) {
            (Some(ping), Some(_)) => self.await_answer(steps, ping.awaits).await,
            _ => Ok(None),
        }
    }

    async fn take_steps(
        &mut self,
        steps: &'static Steps,
        taken: &'static [Step],
    ) -> Result<Option<CallEnd>, Failure> {
        for step in taken {
            self.outbox.put(self.messages.say(step.says, &[]));
            self.flush().await?;
            if !step.awaits.is_empty()
                && let Some(end) = self.await_answer(steps, step.awaits).await?
            {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// Waits for a message of this kind.
    async fn await_answer(
        &mut self,
        steps: &'static Steps,
        kind: &'static str,
    ) -> Result<Option<CallEnd>, Failure> {
        let deadline = Instant::now() + ANSWER_PATIENCE;
        loop {
            let text = match self.line.next_text(deadline).await {
                Ok(text) => text,
                Err(Some(end)) => return Ok(Some(end)),
                Err(None) => return Ok(Some(CallEnd::Unanswered { answer: kind })),
            };
            match self.heed(steps, &text) {
                Ok(heard) if heard == kind => return Ok(None),
                Ok(_) => {}
                Err(end) => return Ok(Some(end)),
            }
        }
    }

    /// The state of the conversation.
    fn state(&mut self) -> &mut Conversation {
        self.conversation.as_mut().expect("of a look that talks")
    }

    /// Reads a message of the server, checks it, and returns its kind.
    fn heed(&mut self, steps: &'static Steps, text: &str) -> Result<String, CallEnd> {
        let said: Value =
            serde_json::from_str(text).map_err(|_| broken("it sent a text that is not JSON"))?;
        let member = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = member(steps.kind);
        if steps.refusals.contains(&kind) {
            let error = format!("the server said `{kind}`");
            return Err(CallEnd::Failed { error });
        }
        let encoding = member(steps.encoding);
        if !encoding.is_empty() && encoding != self.stride.encoding {
            return Err(broken(&format!("it chose `{encoding}`, which was not offered")));
        }
        if steps.ping.is_some_and(|ping| ping.awaits == kind) {
            let (number, pinged) = (said["seq"].as_u64(), self.state().number_pinged.take());
            if number != pinged {
                return Err(broken("its answer to a ping has another seq"));
            }
        }
        let is_order = |activity: &Value| activity["name"] == "hangup";
        let activities = said.get("activities").and_then(Value::as_array);
        if kind == steps.orders && activities.is_some_and(|all| all.iter().any(is_order)) {
            self.state().is_to_end = true;
        }
        Ok(kind.to_owned())
    }
}
