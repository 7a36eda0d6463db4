//! The record of a call that the bot ends tells its last utterance.

use std::thread;
use std::time::Duration;

use crate::harness::client::{CLOSE, FIN};
use crate::harness::relayed::{self as bot, Relayed, media};

const FRAME: Duration = Duration::from_millis(20);

#[test]
fn an_utterance_that_plays_when_the_bot_hangs_up_is_in_the_record() {
    let relayed = Relayed::start();
    let (mut peer, mut bot) = relayed.started("MZ1");
    for frame in 0..25 {
        let message = peer.next_media();
        peer.text(&message);
        bot.heard();
        if frame == 5 {
            bot.text(&media(&[0x10; 8000]));
        }
        thread::sleep(FRAME);
    }
    bot.text(r#"{"event": "mark", "streamSid": "MZ1", "mark": {"name": "end"}}"#);
    bot.send(&bot::frame(FIN | CLOSE, &[0x03, 0xE8]));
    let both = relayed.recorded("MZ1");
    assert!(both.right.iter().filter(|sample| **sample != 0).count() > 2000, "it is in the file");
    let told = &both.record["bot"];
    assert_eq!((&told["sent_ms"], &told["utterances"][0]["cut"]), (&1000.into(), &"end".into()));
}
