//! Whatever becomes of the recording, the call goes on to its end.

use std::time::Duration;

use serde_json::json;

use crate::harness::client::{CLOSE, CONTINUATION, FIN, TEXT, frame};
use crate::harness::disk::{Disk, Errno};
use crate::harness::peer::Peer;
use crate::harness::process::{Server, eventually};
use crate::harness::relayed::{self as bot, Bot, Relayed, close_code};
use crate::harness::shelf::FINISH_MAX;
use crate::harness::small_disk::SmallDisk;

const ALL: std::ops::RangeInclusive<u64> = 1..=u64::MAX;
const SECOND: Duration = Duration::from_secs(1);

/// One second of the caller passes, and three messages of the bot.
fn talk(peer: &mut Peer, bot: &mut Bot) {
    peer.say(SECOND);
    for _ in 0..50 {
        assert!(bot.heard().contains(r#""event":"media""#));
    }
    for name in ["a", "b", "c"] {
        let mark = format!(r#"{{"event":"mark","streamSid":"x","mark":{{"name":"{name}"}}}}"#);
        bot.text(&mark);
        assert_eq!(bot::heard(&mut peer.socket), mark);
    }
}

/// The call ends by the bot.
fn end(peer: &mut Peer, bot: &mut Bot) {
    peer.stop();
    assert!(bot.heard().contains(r#""event":"stop""#));
    bot.send(&bot::frame(FIN | CLOSE, &[0x03, 0xE8]));
    assert_eq!(close_code(&mut peer.socket), Some(1000));
}

#[test]
fn a_call_goes_on_without_its_disk_and_is_whole_when_the_disk_works_in_time() {
    for errno in [Errno::NOSPC, Errno::ROFS] {
        let mut disk = Disk::new();
        let relayed = Relayed::with_disk(&disk);
        disk.fail("MZ1", "*", ALL, errno);
        let (mut peer, mut bot) = relayed.started("MZ1");
        talk(&mut peer, &mut bot);
        relayed.server.wait_for_log("the disk does not take");
        talk(&mut peer, &mut bot);
        end(&mut peer, &mut bot);
        disk.heal();
        let both = relayed.recorded("MZ1");
        assert_eq!(both.state(), ("complete", "stop"), "{errno}");
        assert!(both.left == peer.pcm(), "{errno}");
    }
}

#[test]
fn audio_and_the_stop_that_waited_for_the_disk_are_recorded_though_the_call_is_over() {
    let mut disk = Disk::new();
    let relayed = Relayed::with_disk(&disk);
    disk.fail("MZ", "*", ALL, Errno::NOSPC);
    for is_closed_by_bot in [false, true] {
        let id = format!("MZ{is_closed_by_bot}");
        let (mut peer, mut bot) = relayed.started(&id);
        // The recorder takes ten seconds without a disk.
        peer.say(15 * SECOND);
        for _ in 0..15 * 50 {
            assert!(bot.heard().contains(r#""event":"media""#));
        }
        peer.stop();
        assert!(bot.heard().contains(r#""event":"stop""#));
        if is_closed_by_bot {
            bot.send(&bot::frame(FIN | CLOSE, &[0x03, 0xE8]));
        } else {
            peer.close(1000);
        }
        assert_eq!(bot.close_code(), Some(1000));
        assert_eq!(close_code(&mut peer.socket), Some(1000));
        disk.heal();
        let both = relayed.recorded(&id);
        assert_eq!(both.state(), ("complete", "stop"));
        assert!(both.left == peer.pcm(), "{} samples", both.left.len());
        disk.fail("MZ", "*", ALL, Errno::NOSPC);
    }
}

#[test]
fn a_full_disk_refuses_no_relayed_call() {
    let disk = SmallDisk::mount();
    let relayed = Relayed::into(&disk.dir());
    disk.fill(0);
    eventually(FINISH_MAX, "the disk is known as full", || {
        (relayed.server.get("/readyz") == 503).then_some(())
    });
    let (mut peer, mut bot) = relayed.started("MZ1");
    talk(&mut peer, &mut bot);
    end(&mut peer, &mut bot);
}

/// Asks the API for a pause or for its end.
fn ask(server: &Server, name: &str, action: &str) {
    let (status, answer) = server.post_admin(&format!("/api/v1/calls/{name}/{action}"));
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn a_pause_silences_both_channels_and_passes_every_message() {
    let relayed = Relayed::with(|setup| setup.env("CALLREEL_ADMIN", "127.0.0.1:0"));
    let (mut peer, mut bot) = relayed.started("MZ1");
    talk(&mut peer, &mut bot);
    ask(&relayed.server, "MZ1", "pause");
    let media = bot::media(&[0x10; 24_000]);
    bot.text(&media);
    assert_eq!(bot::heard(&mut peer.socket), media);
    talk(&mut peer, &mut bot);
    talk(&mut peer, &mut bot);
    end(&mut peer, &mut bot);
    let both = relayed.recorded("MZ1");
    assert_eq!(both.state(), ("complete", "stop"));
    let pause = &both.record["pauses"][0];
    let (at, length) = (pause["at_ms"].as_u64().unwrap(), pause["duration_ms"].as_u64().unwrap());
    assert!(at + length == 3000 && (1000..3000).contains(&at), "{pause}");
    let paused = (at * 8) as usize..;
    assert!(both.left[paused.clone()].iter().all(|sample| *sample == 0));
    assert!(both.right[paused.clone()].iter().all(|sample| *sample == 0), "the bot is in the file");
    assert!(both.left[..paused.start] == peer.pcm()[..paused.start]);
}

#[test]
fn a_provider_that_is_unknown_is_passed_on_and_told_as_failed() {
    let relayed = Relayed::start();
    let (mut peer, mut bot) = relayed.call("MZ1");
    for number in 0..100 {
        peer.text(&format!("hello {number}"));
        assert_eq!(bot.heard(), format!("hello {number}"));
        bot.text(&format!("<xml>{number}</xml>"));
        assert_eq!(bot::heard(&mut peer.socket), format!("<xml>{number}</xml>"));
    }
    peer.close(1000);
    assert_eq!(bot.close_code(), Some(1000));
    let record = relayed.failed();
    assert_eq!(record["state"], "failed");
    assert_eq!(record["no_start"]["text_messages"], 100, "{record}");
}

#[test]
fn a_message_that_cannot_be_read_passes_and_is_left_out_of_the_recording() {
    let relayed = Relayed::start();
    let long = [b' '; 300_000];
    for (number, (breach, reason)) in
        [(&b"\xff"[..], "json"), (&long, "length")].into_iter().enumerate()
    {
        let id = format!("MZ{number}");
        let (mut peer, mut bot) = relayed.started(&id);
        talk(&mut peer, &mut bot);
        // In one frame, and in two.
        let frames = vec![frame(FIN | TEXT, breach)];
        for frames in [frames, vec![frame(TEXT, breach), frame(FIN | CONTINUATION, b".")]] {
            peer.send(&frames.concat());
            for (number, _) in frames.iter().enumerate() {
                let passed = bot.receive().expect("the frame").payload;
                assert_eq!(passed, if number == 0 { breach } else { b"." });
            }
            talk(&mut peer, &mut bot);
        }
        end(&mut peer, &mut bot);
        let both = relayed.recorded(&id);
        assert_eq!(both.state(), ("partial", "stop"), "{}", both.record);
        assert_eq!(both.record["frames"]["rejected"], json!({ reason: 2 }), "{}", both.record);
        assert!(both.left == peer.pcm(), "{reason}: {} samples", both.left.len());
    }
}

#[test]
fn messages_left_out_until_the_end_of_a_call_are_told() {
    let mut disk = Disk::new();
    let relayed = Relayed::with_disk(&disk);
    disk.fail("MZ1", "*", ALL, Errno::NOSPC);
    let (mut peer, mut bot) = relayed.started("MZ1");
    // More than the recorder and its queue take without a disk.
    peer.say(60 * SECOND);
    for _ in 0..60 * 50 {
        assert!(bot.heard().contains(r#""event":"media""#));
    }
    peer.close(1000);
    assert_eq!(bot.close_code(), Some(1000));
    disk.heal();
    let both = relayed.recorded("MZ1");
    assert_eq!(both.state(), ("partial", "close"), "{}", both.record);
    let sent = peer.pcm();
    assert!(sent.starts_with(&both.left) && both.left.len() < sent.len());
    let missing = (sent.len() - both.left.len()) / 160;
    let told = format!("{missing} messages of the provider were left out");
    assert!(both.record["reason"].as_str().unwrap().contains(&told), "{told}: {}", both.record);
}
