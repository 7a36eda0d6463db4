//! A provider's play-out buffer: a bot's audio, played in order and at real time from its arrival on.
//!
//! It reads no clock. Times are places on the call's clock, in samples of the stream from its first chunk on.

use callreel_core::format::Format;

/// The audio that is played or waits to be, in the order of its places.
pub(super) struct Playout {
    format: Format,
    pieces: Vec<Piece>,
    /// Place behind the last sample that is played or waits.
    end: u64,
    received: u64,
    cleared: u64,
    unheard: u64,
}

/// Audio without a pause in it.
pub(super) struct Piece {
    /// Place of the first sample.
    pub(super) at: u64,
    /// Samples as they are on the wire.
    pub(super) bytes: Vec<u8>,
}

impl Playout {
    pub(super) fn new(format: Format) -> Self {
        Self { format, pieces: Vec::new(), end: 0, received: 0, cleared: 0, unheard: 0 }
    }

    /// Queues audio that arrives at the place `now`; bytes that are less than a sample are left out.
    /// Returns the number of samples.
    pub(super) fn play(&mut self, now: u64, bytes: &[u8]) -> u64 {
        let width = self.format.codec.width();
        let samples = (bytes.len() / width) as u64;
        let bytes = &bytes[..samples as usize * width];
        let at = self.end.max(now);
        match self.pieces.last_mut() {
            Some(last) if last.at + (last.bytes.len() / width) as u64 == at => {
                last.bytes.extend_from_slice(bytes);
            }
            _ if samples > 0 => self.pieces.push(Piece { at, bytes: bytes.to_vec() }),
            _ => return 0,
        }
        self.end = at + samples;
        self.received += samples;
        samples
    }

    /// Place at which all audio so far has been played.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Throws away the audio that is not played at the place `now`; returns its number of samples.
    pub(super) fn clear(&mut self, now: u64) -> u64 {
        let dropped = self.cut(now);
        self.cleared += dropped;
        dropped
    }

    /// Ends the call at the place `now`: audio behind it is never heard.
    pub(super) fn hang_up(&mut self, now: u64) {
        self.unheard += self.cut(now);
    }

    /// Counts audio that came behind the end of the call.
    pub(super) fn miss(&mut self, bytes: &[u8]) {
        let samples = (bytes.len() / self.format.codec.width()) as u64;
        self.received += samples;
        self.unheard += samples;
    }

    fn cut(&mut self, now: u64) -> u64 {
        let dropped = self.end.saturating_sub(now);
        if dropped == 0 {
            return 0;
        }
        while let Some(last) = self.pieces.last_mut() {
            if last.at < now {
                let width = self.format.codec.width();
                last.bytes.truncate((now - last.at) as usize * width);
                break;
            }
            self.pieces.pop();
        }
        // The audio that waited is one piece without a pause, or the part of it from `now` on.
        self.end = now;
        dropped
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    pub(super) const fn cleared(&self) -> u64 {
        self.cleared
    }

    pub(super) const fn unheard(&self) -> u64 {
        self.unheard
    }

    /// Samples that were played.
    pub(super) const fn heard(&self) -> u64 {
        self.received - self.cleared - self.unheard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(playout: &Playout) -> Vec<(u64, usize)> {
        playout.pieces().iter().map(|piece| (piece.at, piece.bytes.len())).collect()
    }

    #[test]
    fn a_burst_plays_on_and_a_pause_stays_a_pause() {
        let mut playout = Playout::new(Format::TELEPHONE);
        playout.play(100, &[1; 160]);
        playout.play(101, &[2; 160]);
        assert_eq!((layout(&playout), playout.end()), (vec![(100, 320)], 420));
        playout.play(500, &[3; 10]);
        assert_eq!(layout(&playout), [(100, 320), (500, 10)]);
        assert_eq!((playout.heard(), playout.received()), (330, 330));
    }

    #[test]
    fn a_clear_cuts_at_its_time_and_later_audio_begins_there() {
        let mut playout = Playout::new(Format::TELEPHONE);
        playout.play(0, &[1; 1000]);
        assert_eq!(playout.clear(400), 600);
        playout.play(400, &[2; 50]);
        assert_eq!(playout.clear(450), 0);
        assert_eq!(playout.clear(9000), 0);
        assert_eq!(layout(&playout), [(0, 450)]);
        playout.play(9000, &[3; 80]);
        playout.hang_up(9010);
        playout.miss(&[0; 7]);
        assert_eq!(layout(&playout), [(0, 450), (9000, 10)]);
        let counts = (playout.received(), playout.heard(), playout.cleared(), playout.unheard());
        assert_eq!(counts, (1137, 460, 600, 77));
    }

    #[test]
    fn audio_that_is_cleared_before_its_first_sample_leaves_nothing() {
        let mut playout = Playout::new(Format::TELEPHONE);
        playout.play(0, &[1; 50]);
        playout.play(100, &[2; 10]);
        assert_eq!(playout.clear(100), 10);
        playout.play(100, &[3; 10]);
        assert_eq!(layout(&playout), [(0, 50), (100, 10)]);
    }
}
