//! The relay: callreel between a provider and a voice bot. Both ends are raw sockets, so that each byte is
//! seen.

mod bytes;
mod captures;
mod clumsy;
mod endings;
mod fail_open;
mod flow;
mod handshake;
mod heard;
mod last_word;
